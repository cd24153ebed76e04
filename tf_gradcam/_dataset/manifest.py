"""What decides the rows of a run, as JSON can hold it: `make_manifest`. `dataset` calls it."""

import hashlib
import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam import __version__
from tf_gradcam._dataset.rows import RowsAbout
from tf_gradcam._explain import GradCAM


def make_manifest(cam: GradCAM, about: RowsAbout, options: Any) -> dict[str, Any]:
    """Return what decides the rows of a run; a run with another one is not taken up."""
    preprocess = cam.preprocess
    return {
        "tf_gradcam": __version__,
        "keras": keras.version(),
        "tensorflow": tf.__version__,
        "model": cam.model.name,
        "model_sha256": model_hash(cam.model),
        "layer": about.layer,
        "call": cam.call,
        "method": about.method,
        "parameters": without_addresses(repr(cam.method)),
        "fuse": cam.fuse,
        "target": None if options.target is None else without_addresses(repr(options.target)),
        "labels_sha256": hashlib.sha256("\n".join(options.labels or ()).encode()).hexdigest(),
        "dtype": options.dtype,
        "draft": options.draft,
        "preprocess": options.preprocess if preprocess is None else _name_of(preprocess),
    }


def without_addresses(text: str) -> str:
    """Return a `repr` without the addresses of functions, which are others in each process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def _name_of(function) -> str:
    return (
        f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"
    )


def model_hash(model: keras.Model) -> str:
    """Return a SHA-256 of a model's weights and their shapes."""
    digest = hashlib.sha256()
    for weight in model.weights:
        values = np.ascontiguousarray(weight)
        digest.update(f"{values.dtype}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()

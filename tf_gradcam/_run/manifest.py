"""What decides the results of a run, as JSON can hold it: the journals of `_run` and `_dataset` hold it.

A run with another manifest than the one that a folder holds is refused.
"""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam import __version__
from tf_gradcam._model import child_layers
from tf_gradcam._run.file_models import file_manifest
from tf_gradcam._run.request import Classifier, Request
from tf_gradcam._runtimes import LoadedExplainer

# What a manifest notes, and a later run may have another of: Keras names a model anew in each process, and
# other versions of these packages give the same results but for rounding.
_NOTED = ("model", "keras", "tensorflow")
# What a layer's settings say that is another in each process, or only matters for training.
_NOT_SETTINGS = re.compile(
    "name|module|registered_name|seed|trainable|build_config|layers|input_layers|output_layers|"
    ".*_(initializer|regularizer|constraint)"
)


def model_manifest(model: keras.Model | LoadedExplainer, labels: Sequence[str] | None) -> dict[str, Any]:
    """Return what tells a model from others, and the versions that run it."""
    if isinstance(model, LoadedExplainer):
        return file_manifest(model, labels)
    return {
        "tf_gradcam": __version__,
        "keras": keras.version(),
        "tensorflow": tf.__version__,
        "model": model.name,
        "model_sha256": _model_hash(model),
        "layers_sha256": _layers_hash(model),
        "labels_sha256": hashlib.sha256("\n".join(labels or ()).encode()).hexdigest(),
    }


def request_manifest(request: Request, classifier: Classifier, preprocess: str | None) -> dict[str, Any]:
    """Return what decides the rows and pictures of a request.

    Args:
        request: everything in it but the folder decides them.
        classifier: the model and its labels.
        preprocess: the name of the preprocessing; `None` for the model's own.
    """
    asked = dataclasses.asdict(request)
    del asked["out"]
    manifest = {**model_manifest(classifier.model, classifier.labels), **asked, "preprocess": preprocess}
    return json.loads(json.dumps(manifest))  # as it comes back from a file


def check_manifest(folder: pathlib.Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise a `ValueError` that names what differs between the manifest found in a folder and a run's."""
    keys = [key for key in {**wanted, **found} if key not in _NOTED]
    differing = [key for key in keys if wanted.get(key) != found.get(key)]
    if differing:
        parts = [f"{key} was {found.get(key)!r:.80}, and is {wanted.get(key)!r:.80}" for key in differing]
        raise ValueError(
            f"`out` must be a new folder, or one of a run with the same model and options. Received: "
            f"{folder}, where {'; '.join(parts)}. Choose another folder, or begin anew: `restart`."
        )


def without_addresses(text: str) -> str:
    """Return a `repr` without the addresses of functions, which are others in each process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def _model_hash(model) -> str:
    """Return a SHA-256 of a model's weights and their shapes."""
    digest = hashlib.sha256()
    for weight in model.weights:
        values = np.ascontiguousarray(weight)
        digest.update(f"{values.dtype}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _layers_hash(model) -> str:
    """Return a SHA-256 of the layers of a model and their settings, such as activations, but their names.

    Models of the same weights may differ in them.
    """
    digest = hashlib.sha256()
    seen, waiting = set(), [model]
    while waiting:
        layer = waiting.pop()
        if id(layer) not in seen:
            seen.add(id(layer))
            digest.update(f"{type(layer).__name__} {_settings(layer)}\n".encode())
            waiting += child_layers(layer) if isinstance(layer, keras.Layer) else []
    return digest.hexdigest()


def _settings(layer) -> str:
    try:
        config = layer.get_config()
    except Exception:  # A user's own layer may have none.
        return ""
    return without_addresses(json.dumps(_without_names(config), sort_keys=True, default=repr))


def _without_names(config: Any) -> Any:
    if isinstance(config, dict):
        return {
            str(key): value if key == "dtype" else _without_names(value)  # The name of a dtype tells it.
            for key, value in config.items()
            if not _NOT_SETTINGS.fullmatch(str(key))
        }
    return [_without_names(each) for each in config] if isinstance(config, list | tuple) else config

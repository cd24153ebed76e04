"""What an exported model explains, as JSON can hold it. `savedmodel` and `single_file` write it down."""

import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam import __version__
from tf_gradcam._explain import GradCAM
from tf_gradcam._methods import is_classless, method_name
from tf_gradcam._model import layer_path
from tf_gradcam._runtimes import describe_target


def describe_question(cam: GradCAM, target: Any, size: Any, interpolation: Any) -> dict[str, Any]:
    """Return the layer, method and target, and all else that decides the heatmaps of a model."""
    layers = cam.layer if isinstance(cam.layer, tuple) else (cam.layer,)
    return {
        "layer": [None if layer is None else layer_path(cam.model, layer) for layer in layers],
        "call": cam.call,
        "fuse": cam.fuse,
        "method": _describe(cam.method),
        "method_name": method_name(cam.method),
        "classless": is_classless(cam.method),
        "preprocess": _describe(cam.preprocess),
        "target": None if target is None else describe_target(target),
        "size": size if size is None or isinstance(size, str) else np.ravel(size).tolist(),
        "interpolation": interpolation or cam.interpolation,
    }


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that wrote a model."""
    return {"tf_gradcam": __version__, "tensorflow": tf.__version__, "keras": keras.__version__}


def _describe(value: Any) -> str | None:
    """Return the dotted name of a function, else the `repr`; so that no address in memory is in it."""
    if value is None or not hasattr(value, "__qualname__"):
        return value if value is None else repr(value)
    module = re.sub(r"^tf_gradcam\._?(methods|pretrained)\.\w+", r"tf_gradcam.\1", value.__module__)
    return f"{module}.{value.__qualname__}"

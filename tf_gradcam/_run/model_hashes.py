"""Hashes of a Keras model's weights and layers, which tell it from others. `manifest` calls it."""

import hashlib
import json
import re
from typing import Any

import keras
import numpy as np

from tf_gradcam._model import child_layers
from tf_gradcam._run.manifest import without_addresses

# What a layer's settings say that is another in each process, or only matters for training.
_NOT_SETTINGS = re.compile(
    "name|module|registered_name|seed|trainable|build_config|layers|input_layers|output_layers|"
    ".*_(initializer|regularizer|constraint)"
)


def hash_weights(model: Any) -> str:
    """Return a SHA-256 of a model's weights and their shapes."""
    digest = hashlib.sha256()
    for weight in model.weights:
        values = np.ascontiguousarray(weight)
        digest.update(f"{values.dtype}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def hash_layers(model: Any) -> str:
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

"""The layers of a model: all layers with their paths, the layer of a name, and checks of the arguments.

Called by every function that takes `model` and `layer` from a user.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from tf_gradcam._checks import did_you_mean, is_whole
from tf_gradcam._model.keras_internals import child_layers, functional_graph


def check_model(model: Any) -> None:
    """Raise a `TypeError` or `ValueError` unless `model` is a `keras.Model` on the TensorFlow backend."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "tf_gradcam needs Keras's TensorFlow backend. Received: "
            f"backend={keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow before importing keras."
        )
    if not isinstance(model, keras.Model):
        hint = ""
        if any(kind.__module__.startswith("tf_keras") for kind in type(model).__mro__):
            hint = (
                " Rebuild this Keras 2 model in Keras 3 and transfer its weights: "
                "save_weights('m.weights.h5') in Keras 2, load_weights('m.weights.h5') in Keras 3."
            )
        elif hasattr(model, "shape"):
            hint = " Give the model first, then the image."
        elif isinstance(model, str | os.PathLike):
            hint = f" Load it first: keras.models.load_model({str(model)!r})."
        raise TypeError(
            f"`model` must be a keras.Model. Received: an object of type {type(model).__name__}.{hint}"
        )


def check_layer(layer: Any, call: Any = None) -> None:
    """Raise a `TypeError` or `ValueError` unless `layer` and `call` have the types to name layers."""
    for one in layer if isinstance(layer, list | tuple) else [layer]:
        if not isinstance(one, str | keras.Operation) and (one is not None or layer is not None):
            hint = f" For a class, give target={one}." if isinstance(one, int) else ""
            raise TypeError(
                "`layer` must be a name, a keras.Layer, a list of them, or None. "
                f"Received: an object of type {type(one).__name__}.{hint}"
            )
    if isinstance(layer, list | tuple) and not layer:
        raise ValueError(
            "`layer` must name a layer. Received: an empty list. Give None for the default layer."
        )
    if call is not None and (not is_whole(call) or call < 0):
        raise ValueError(f"`call` must be None or a whole number of 0 or more. Received: call={call!r:.80}")


def is_built(model: keras.Model) -> bool:
    """Return whether every layer has its weights, so that tracing creates none."""
    if functional_graph(model) is not None:
        return True
    return model.built and all(
        layer.built for _, layer in walk_layers(model) if isinstance(layer, keras.Layer)
    )


def walk_layers(
    model: keras.Layer, above: tuple[keras.Layer, ...] = ()
) -> Iterator[tuple[str, keras.Operation]]:
    """Yield every layer of `model` with its path, inner layers before the layer that contains them.

    Operations of a functional model that are not a `keras.Layer`, such as `x + y`, are included.
    """
    above = (*above, model)
    for layer in child_layers(model):
        if any(layer is parent for parent in above):
            continue  # A layer with a reference to its parent lists the parent among its own layers.
        path = "/".join(one.name for one in (*above[1:], layer))
        if isinstance(layer, keras.Layer):
            yield from walk_layers(layer, above)
        yield path, layer


def layer_path(model: keras.Model, layer: keras.Operation) -> str:
    """Return the path of a layer of `model`."""
    return next(path for path, one in walk_layers(model) if one is layer)


def find_layer(model: keras.Model, layer: str | keras.Operation) -> keras.Operation:
    """Return the layer of `model` that `layer` means.

    Args:
        model: a `keras.Model`.
        layer: a layer of `model`, its name, or the end of its path (`"inner/conv"`).

    Raises:
        ValueError: if `model` has no such layer, or more than one.
    """
    layers = list(walk_layers(model))
    if isinstance(layer, keras.Operation):
        if not any(one is layer for _, one in layers):
            raise ValueError(
                f"`layer` must be a layer of the model. Received: layer={layer.name!r}, which is not "
                f"part of model {model.name!r}."
            )
        return layer
    exact = [(path, one) for path, one in layers if path == layer]
    matches = exact or [(path, one) for path, one in layers if f"/{path}".endswith(f"/{layer}")]
    if len({id(one) for _, one in matches}) == 1:
        return matches[0][1]
    if matches:
        raise ValueError(
            f"`layer` must name one layer. Received: layer={layer!r}, which may be any of "
            f"{[path for path, _ in matches]}. Give a path or the layer itself."
        )
    hint = did_you_mean(layer, [name for path, one in layers for name in (path, one.name)])
    raise ValueError(
        f"`layer` must be a layer of the model. Received: layer={layer!r}. {hint + ' ' if hint else ''}"
        f"Its layers: {_last_names([path for path, _ in layers])}"
    )


def _last_names(names: list[str], most: int = 12) -> str:
    quoted = [repr(name) for name in names]
    return ", ".join(quoted if len(quoted) <= most else ["...", *quoted[-most:]])


def are_channels_first(model: keras.Model, layers: Sequence[keras.Operation]) -> list[bool]:
    """Return for each of `layers` whether its channel axis comes right after the batch axis.

    It is read from a layer's `data_format`. A layer without one, such as an activation, has that of the last
    layer before it with a `data_format`, or else of the first layer with one. A permutation can move it.
    """
    known: dict[int, bool | None] = {}
    latest = None
    for _, layer in walk_layers(model):
        data_format = _permuted_data_format(layer) or getattr(layer, "data_format", None)
        latest = latest if data_format is None else data_format == "channels_first"
        known[id(layer)] = latest
    first = next((one for one in known.values() if one is not None), False)
    return [first if known.get(id(layer)) is None else bool(known[id(layer)]) for layer in layers]


def _permuted_data_format(layer) -> str | None:
    """Return the data format after a permutation, if it moves the channel axis from one end to the other."""
    axes = (0, *layer.dims) if isinstance(layer, keras.layers.Permute) else getattr(layer, "axes", None)
    if not isinstance(axes, list | tuple) or len(axes) < 4:
        return None
    ends = {axes[-1]: "channels_last", len(axes) - axes[1]: "channels_first"}
    return ends.get(1)

"""The layers of a model: checks of the arguments, every layer with its path, and the layer that a name means.

Called by whoever takes `model` and `layer` from a user.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from tf_gradcam._checks import did_you_mean
from tf_gradcam._model.keras_internals import child_layers, functional_graph, is_functional


def check_model(model: Any) -> None:
    """Raise a `TypeError` or `ValueError` that helps unless `model` is a TensorFlow `keras.Model`."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "tf_gradcam needs Keras's TensorFlow backend. Received: "
            f"backend={keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow before importing keras."
        )
    if not isinstance(model, keras.Model):
        hint = ""
        if any(kind.__module__.startswith("tf_keras") for kind in type(model).__mro__):
            hint = (
                " Rebuild this Keras 2 model in Keras 3 and hand its weights over: "
                "save_weights('m.weights.h5') there, load_weights('m.weights.h5') here."
            )
        elif hasattr(model, "shape"):
            hint = " The model comes first, then the image."
        raise TypeError(
            f"`model` must be a keras.Model. Received an object of type {type(model).__name__}.{hint}"
        )


def check_layer(layer: Any, call: Any = None) -> None:
    """Raise a `TypeError` or `ValueError` unless `layer` and `call` may name one layer or several."""
    for each in layer if isinstance(layer, list | tuple) else [layer]:
        if not isinstance(each, str | keras.Operation) and (each is not None or layer is not None):
            raise TypeError(
                "`layer` must be a name, a keras.Layer, a list of them, or None. "
                f"Received: an object of type {type(each).__name__}"
            )
    if isinstance(layer, list | tuple) and not layer:
        raise ValueError("`layer` must name a layer. Received: an empty list. Give None for the default one.")
    if call is not None and (isinstance(call, bool) or not isinstance(call, int) or call < 0):
        raise ValueError(f"`call` must be None or a number from 0 on. Received: call={call!r}")


def structure_key(model: keras.Model) -> tuple[int, ...]:
    """Return a key that changes when `model` gains or loses a layer at its top level.

    A functional model never does, and its key is empty.
    """
    return () if is_functional(model) else tuple(map(id, model.layers))


def is_built(model: keras.Model) -> bool:
    """Whether every layer has its weights, so that tracing creates none."""
    if functional_graph(model) is not None:
        return True
    return model.built and all(
        layer.built for _, layer in walk_layers(model) if isinstance(layer, keras.Layer)
    )


# Every layer, and the layer that a name means


def walk_layers(
    model: keras.Layer, above: tuple[keras.Layer, ...] = ()
) -> Iterator[tuple[str, keras.Operation]]:
    """Yield every layer below `model` with its path, inner layers before the one that holds them.

    Also what is a step of a functional model's graph without being a `keras.Layer`, as `x + y` is.
    """
    above = (*above, model)
    for layer in child_layers(model):
        if any(layer is each for each in above):
            continue  # A layer that refers to its parent lists the parent among its own layers.
        path = "/".join(each.name for each in (*above[1:], layer))
        if isinstance(layer, keras.Layer):
            yield from walk_layers(layer, above)
        yield path, layer


def layer_path(model: keras.Model, layer: keras.Operation) -> str:
    """Return the path of a layer of `model`."""
    return next(path for path, each in walk_layers(model) if each is layer)


def find_layer(model: keras.Model, layer: str | keras.Operation) -> keras.Operation:
    """Return the layer of `model` that `layer` means.

    Args:
        model: a `keras.Model`.
        layer: a layer of `model`, its name, or the end of its path (`"inner/conv"`).

    Raises:
        ValueError: if `model` has no such layer, or several.
    """
    layers = list(walk_layers(model))
    if isinstance(layer, keras.Operation):
        if not any(each is layer for _, each in layers):
            raise ValueError(
                f"`layer` must be a layer of the model. Received: layer={layer.name!r}, which is not "
                f"part of model {model.name!r}."
            )
        return layer
    exact = [(path, each) for path, each in layers if path == layer]
    matches = exact or [(path, each) for path, each in layers if f"/{path}".endswith(f"/{layer}")]
    if len({id(each) for _, each in matches}) == 1:
        return matches[0][1]
    if matches:
        raise ValueError(
            f"`layer` must name one layer. Received: layer={layer!r}, which may be any of "
            f"{[path for path, _ in matches]}. Give a path or the layer itself."
        )
    hint = did_you_mean(layer, [name for path, each in layers for name in (path, each.name)])
    raise ValueError(
        f"`layer` must be a layer of the model. Received: layer={layer!r}. {hint + ' ' if hint else ''}"
        f"Its layers: {_last_names([path for path, _ in layers])}"
    )


def _last_names(names: list[str], most: int = 12) -> str:
    quoted = [repr(name) for name in names]
    return ", ".join(quoted if len(quoted) <= most else ["...", *quoted[-most:]])


def are_channels_first(model: keras.Model, layers: Sequence[keras.Operation]) -> list[bool]:
    """Return for each of `layers` whether its channels come right after the batch.

    A layer says so by its `data_format`. One that has none, as an activation, does as the layer before it,
    or at the beginning as the first layer that says it. A permutation may move the channels.
    """
    known: dict[int, bool | None] = {}
    latest = None
    for _, each in walk_layers(model):
        data_format = _permuted_data_format(each) or getattr(each, "data_format", None)
        latest = latest if data_format is None else data_format == "channels_first"
        known[id(each)] = latest
    first = next((each for each in known.values() if each is not None), False)
    return [first if known.get(id(layer)) is None else bool(known[id(layer)]) for layer in layers]


def _permuted_data_format(layer) -> str | None:
    """Return where a permutation puts the channels, if it moves them from one end to the other."""
    axes = (0, *layer.dims) if isinstance(layer, keras.layers.Permute) else getattr(layer, "axes", None)
    if not isinstance(axes, list | tuple) or len(axes) < 4:
        return None
    ends = {axes[-1]: "channels_last", len(axes) - axes[1]: "channels_first"}
    return ends.get(1)

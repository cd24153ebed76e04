"""The layers that a caller asks for, with weak references, and what fits them. Called by explainers."""

import weakref
from collections.abc import Sequence
from typing import Any, TypeAlias

import keras

from tf_gradcam._checks import did_you_mean
from tf_gradcam._heatmap import FUSIONS
from tf_gradcam._methods import Preset, method_name
from tf_gradcam._model import check_layer

Layers: TypeAlias = str | keras.Operation | Sequence[str | keras.Operation] | None


def weak_layers(layer: Layers) -> Any:
    """Return `layer` with weak references in place of layers, hashable; names are not changed."""
    if isinstance(layer, list | tuple):
        return tuple(map(weak_layers, layer))
    return weakref.ref(layer) if isinstance(layer, keras.Operation) else layer


def strong_layers(layer) -> Layers:
    """Return the argument of `weak_layers`, given its result."""
    if isinstance(layer, tuple):
        return list(map(strong_layers, layer))
    if not isinstance(layer, weakref.ref):
        return layer
    if layer() is None:
        raise ValueError("`layer` must be a layer of the model. Received: a layer that has been deleted.")
    return layer()


def check_layers(layer: Layers, call: int | None, method: Any, fuse: str | None) -> None:
    """Raise a `ValueError` unless `layer`, `call`, `fuse` and the result of `methods.get` fit each other."""
    check_layer(layer, call)
    if fuse is not None and (not isinstance(fuse, str) or fuse not in FUSIONS):
        hint = did_you_mean(str(fuse), FUSIONS)
        raise ValueError(f"`fuse` must be one of {FUSIONS}. Received: fuse={fuse!r}. {hint}".rstrip())
    count = len(layer) if isinstance(layer, list | tuple) else None
    if isinstance(method, Preset):
        if (layer is not None and count != 2) or (call is not None and layer is None):
            raise ValueError(
                "`layer` must be None for this method, which finds its layers, or a list of two: one on a "
                f"fine grid, then one on a coarse grid. Received: layer={_names(layer)}, call={call!r}, and "
                f"method={method_name(method)!r}"
            )
        return
    if fuse is not None and count is None:
        raise ValueError(
            f"`fuse` must be left out if one layer is explained. Received: fuse={fuse!r}, and "
            f"layer={_names(layer)}. Give a list of layers."
        )
    if isinstance(method, tuple) and count != len(method):
        raise ValueError(
            "`method` must be one method, or a list with a method for each layer of a list. "
            f"Received: method={method_name(method)!r}, and layer={_names(layer)}"
        )


def _names(layer: Layers) -> str:
    if isinstance(layer, list | tuple):
        return f"[{', '.join(map(_names, layer))}]"
    return repr(getattr(layer, "name", layer))

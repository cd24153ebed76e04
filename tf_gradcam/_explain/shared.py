"""One explainer for all calls of `make_gradcam_heatmap` with one model, layer and method."""

import weakref

import keras

from tf_gradcam._explain.explainer import Explainer, Layers, checked_fuse, weak_layers
from tf_gradcam._methods import Method, get
from tf_gradcam._model import check_layer, check_model, structure_key

# model -> {(layer, call, method, fuse, structure of the model): explainer}. No explainer keeps a model alive.
_EXPLAINERS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_MOST_EXPLAINERS = 64  # of a model, before the oldest goes: a method may have been made on the spot


def shared_explainer(
    model: keras.Model, layer: Layers, call: int | None, method: str | Method, fuse: str | None
) -> Explainer:
    """Return the explainer that all calls with this model, layer, method and fusion share.

    Raises:
        TypeError: if `method` is a callable that is not hashable.
    """
    check_model(model)
    check_layer(layer, call)
    checked_fuse(fuse, layer)
    known = get(method)
    try:
        hash(known)
    except TypeError as error:
        raise TypeError(f"`method` must be hashable if it is a callable. Received: {method!r:.80}") from error
    structure = structure_key(model)
    explainers = _EXPLAINERS.setdefault(model, {})
    asked = weak_layers(layer), call, known, fuse, structure
    explainer = explainers.get(asked)
    if explainer is None:
        explainer = Explainer(model, layer, call, known, fuse)
        if isinstance(explainer.layer, keras.Operation):  # However the layer was named, one explainer serves.
            (found,) = explainer.layer_calls
            by_layer = found.layer_reference, found.call, known, fuse, structure
            explainer = explainers.setdefault(by_layer, explainer)
        explainers[asked] = explainer
        while len(explainers) > _MOST_EXPLAINERS:
            explainers.pop(next(iter(explainers)))
    return explainer

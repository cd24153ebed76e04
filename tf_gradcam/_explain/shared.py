"""The cache of explainers of `make_gradcam_heatmap`: one for each model, layer and method."""

import weakref

import keras

from tf_gradcam._explain.explainer import Explainer
from tf_gradcam._explain.requested import Layers, check_layers, weak_layers
from tf_gradcam._methods import Method, get
from tf_gradcam._model import check_model, structure_version

# Model -> {(layer, call, method, fuse, structure of the model): explainer}. Explainers do not refer to it.
_EXPLAINERS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_MAX_EXPLAINERS = 64  # For one model. The oldest is removed: every call may come with a new method.


def shared_explainer(
    model: keras.Model, layer: Layers, call: int | None, method: str | Method, fuse: str | None
) -> tuple[Explainer, int]:
    """Return the explainer that all calls with this model, layer, method and fusion share.

    Also returns the version of the model, which is slow to compare.

    Raises:
        TypeError: if `method` is a callable that is not hashable.
    """
    check_model(model)
    resolved = get(method)
    check_layers(layer, call, resolved, fuse)
    try:
        hash(resolved)
    except TypeError as error:
        raise TypeError(f"`method` must be hashable if it is a callable. Received: {method!r:.80}") from error
    structure = structure_version(model)
    explainers = _EXPLAINERS.setdefault(model, {})
    key = weak_layers(layer), call, resolved, fuse, structure
    explainer = explainers.get(key)
    if explainer is None:
        explainer = Explainer(model, layer, call, resolved, fuse)
        if isinstance(explainer.layer, keras.Operation):  # One for all names of a layer.
            (layer_call,) = explainer.layer_calls
            layer_key = layer_call.layer_reference, layer_call.call, resolved, fuse, structure
            explainer = explainers.setdefault(layer_key, explainer)
        explainers[key] = explainer
        while len(explainers) > _MAX_EXPLAINERS:
            explainers.pop(next(iter(explainers)))
    return explainer, structure

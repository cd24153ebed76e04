"""Deep feature factorization: the few concepts that a layer's activations consist of. Users call it."""

import importlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._checks import is_whole
from tf_gradcam._graph import Placement
from tf_gradcam._heatmap import parse_size, place_map
from tf_gradcam._layers import draws_whole_image, resolve_layers
from tf_gradcam._methods import gradcam
from tf_gradcam._model import (
    Grid,
    LayerCall,
    as_batch,
    build_model,
    check_images,
    check_model,
    count_call_arguments,
    declared_specs,
    find_logits,
    forward,
    from_grid,
    functional_graph,
    is_built,
    specs_to_trace,
)
from tf_gradcam._signed_maps import (
    apply_preprocess,
    cast_to_specs,
    find_placements,
    find_source,
    image_axes,
    tapped_layer,
)
from tf_gradcam._tensors import at_least_float32

_MAX_ITERATIONS = 500  # of the factorization


class Factorization(NamedTuple):
    """The result of `deep_feature_factorization`: P concepts, the most present first, as NumPy arrays.

    Attributes:
        heatmaps: `(N, P, H, W)` float32 in `[0, 1]`: how much of each concept is at each pixel, about 1 where
            it is strongest in any of the images.
        maps: `(N, P, h, w)`: the same on the layer's own grid.
        concepts: `(P, K)`: the activations of the K channels where the concept is strongest.
        scores: `(P, classes)`: the logits for activations that are the concept alone at every position (paths
            around the layer are those of the first image), or `None` if the model doesn't return one tensor
            `(N, classes)`.
        error: the share of the squared activations that the concepts don't explain, from 0 to 1.
    """

    heatmaps: np.ndarray
    maps: np.ndarray
    concepts: np.ndarray
    scores: np.ndarray | None
    error: float


class _Activations(NamedTuple):
    """The activations of the layer for all images.

    Attributes:
        values: `(N, h, w, K)` float32 or float64, on the grid.
        grid: of the layer.
        source: which of the model's inputs is the photograph.
    """

    values: np.ndarray
    grid: Grid
    source: Any


class _Factors(NamedTuple):
    """A factorization of the activations: `amounts @ concepts`.

    Attributes:
        amounts: `(positions, P)`: how much of each concept is at each position, 1 where it is strongest.
        concepts: `(P, K)`: the activations of each concept where it is strongest.
        error: the share of the squared activations that is not explained.
    """

    amounts: np.ndarray
    concepts: np.ndarray
    error: float


def deep_feature_factorization(
    model: keras.Model,
    images: Any,
    layer: str | keras.Operation | None = None,
    concepts: int = 5,
    *,
    call: int | None = None,
    preprocess: Callable[[Any], Any] | None = None,
    size: str | int | tuple[int, ...] | None = "input",
) -> Factorization:
    """Find the concepts that the activations of all images consist of, and the class that each supports.

    The activations at all positions of all images, `(N * h * w, K)`, are factorized into two non-negative
    matrices: how much of each concept is at each position, and the activations of each concept. Negative
    activations count as 0, so choose a layer after a ReLU or a similar activation. This needs scikit-learn,
    and traces the model anew in every call.

    Args:
        model: any `keras.Model`, as `GradCAM` takes it.
        images: a batch; see `GradCAM`.
        layer: one layer; see `GradCAM`.
        concepts: the number of concepts, P; at most the number of channels and of positions.
        call: which call of a layer that is called several times; see `GradCAM`.
        preprocess: see `GradCAM`.
        size: the size of the heatmaps; see `GradCAM`.

    Returns:
        A `Factorization`: heatmaps, maps, concepts, scores and the error.

    Raises:
        ImportError: if scikit-learn is missing.
        TypeError, ValueError: as `GradCAM` does; or if `concepts` is out of range, or no activation is above
            0.

    Source: Collins et al., "Deep Feature Factorization for Concept Discovery", ECCV 2018. The scores are as
    in pytorch-grad-cam, but computed by the whole network after the layer instead of its last layer only.

    Example:

    ```python
    found = tf_gradcam.deep_feature_factorization(model, images, concepts=4)
    picture = tf_gradcam.overlay_concepts("cat.jpg", found.heatmaps[0])
    found.scores.argmax(axis=1)  # the class that each concept supports
    ```
    """
    decomposition = _import_scikit_learn("sklearn.decomposition")
    check_model(model)
    if isinstance(layer, list | tuple):
        raise TypeError(f"`layer` must be one layer. Received: {len(layer)}. Factorize each by itself.")
    size = parse_size(size)
    exact = preprocess is None and functional_graph(model) is not None
    several = count_call_arguments(model) > 1
    photographs = as_batch("images", images, declared_specs(model), several, exact)
    images = _model_inputs(model, apply_preprocess(preprocess, photographs))
    (layer_call,) = resolve_layers(model, layer, call, images)
    activations = _compute_activations(model, layer_call, images)
    factors = _factorize(decomposition, activations.values, concepts)
    maps = factors.amounts.T.reshape(concepts, *activations.values.shape[:-1]).swapaxes(0, 1)
    lengths: Any = size
    if isinstance(size, str):
        rank = len(activations.grid.shape)
        axes = image_axes(photographs, activations.source, rank, layer_call.channels_first)
        lengths = None if axes is None else axes.lengths(photographs)
    placement = None
    if size is not None:
        placement = _find_placement(model, layer_call, photographs, preprocess)
    heatmaps = _resize_maps(maps, lengths, placement)
    scores = _score_concepts(model, layer_call, images, activations, factors.concepts)
    return Factorization(heatmaps, maps, factors.concepts, scores, factors.error)


def _import_scikit_learn(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            'deep_feature_factorization needs scikit-learn. Install it: pip install "tf_gradcam[concepts]"'
        ) from error


def _model_inputs(model, images):
    """Return the images checked and cast as the model takes them, and build the model if needed."""
    specs = specs_to_trace(model, images)
    check_images("images", images, specs)
    images = cast_to_specs(images, specs)
    if not is_built(model):
        build_model(model, images)
    return images


def _compute_activations(model, layer_call: LayerCall, images) -> _Activations:
    found: list[Any] = []

    def compute(images):
        (activations,), _ = forward(model, images, [layer_call])
        tapped = tapped_layer(model, images, layer_call, activations)
        found.extend([tapped.grid, find_source(images, [tapped])])
        return tapped.on_grid()

    values = _run_in_graph(compute, images).numpy()
    return _Activations(values, *found)


def _find_placement(model, layer_call: LayerCall, photographs, preprocess) -> Placement | None:
    """Return where the layer's map lies on the photographs, or `None` if on all of them."""
    if preprocess is None and draws_whole_image(model):
        return None

    def find(photographs):
        prepared = apply_preprocess(preprocess, photographs)
        images = cast_to_specs(prepared, specs_to_trace(model, prepared))
        (activations,), _ = forward(model, images, [layer_call])
        tapped = tapped_layer(model, images, layer_call, activations)
        a_map = tapped.on_grid()[..., 0]
        return find_placements(photographs, find_source(images, [tapped]), [tapped], [gradcam], [a_map])

    (placement,) = _run_in_graph(find, photographs)
    return placement


def _factorize(decomposition, activations: np.ndarray, concepts: int) -> _Factors:
    """Return the factors of activations `(N, h, w, K)`, the most present concept first."""
    positions = np.maximum(activations.reshape(-1, activations.shape[-1]), 0)
    most = min(positions.shape)
    if not is_whole(concepts) or not 1 <= concepts <= most:
        raise ValueError(
            f"`concepts` must be a whole number from 1 to {most}, the number of channels or of positions, "
            f"whichever is smaller. Received: concepts={concepts!r}"
        )
    if not positions.any():
        raise ValueError(
            "`layer` must have activations above 0. Received: none in any of the images. Choose another."
        )
    # A fixed start, so that the same images give the same concepts.
    model = decomposition.NMF(concepts, init="nndsvda", max_iter=_MAX_ITERATIONS, random_state=0)
    with warnings.catch_warnings():
        # `error` says how good the factorization is.
        warnings.simplefilter("ignore", _import_scikit_learn("sklearn.exceptions").ConvergenceWarning)
        amounts = model.fit_transform(positions)
    strongest = amounts.max(axis=0)
    features = model.components_ * strongest[:, None]
    amounts = np.divide(amounts, strongest, out=np.zeros_like(amounts), where=strongest > 0)
    order = np.argsort(-amounts.sum(axis=0) * np.linalg.norm(features, axis=1), kind="stable")
    amounts, features = amounts[:, order], features[order]
    error = np.sum((positions - amounts @ features) ** 2) / np.sum(positions**2)
    return _Factors(amounts, features, float(error))


def _resize_maps(maps: np.ndarray, lengths, placement: Placement | None) -> np.ndarray:
    """Return maps `(N, P, h, w)` as heatmaps in `[0, 1]`, placed on `lengths` unless that is `None`."""
    heatmaps = maps
    if lengths is not None:
        flat = tf.constant(maps.reshape(-1, *maps.shape[2:]))
        resized = place_map(flat, lengths, "bilinear", placement).numpy()
        heatmaps = resized.reshape(*maps.shape[:2], *resized.shape[1:])
    return np.clip(heatmaps, 0, 1).astype("float32")


def _score_concepts(
    model, layer_call: LayerCall, images, activations: _Activations, concepts: np.ndarray
) -> np.ndarray | None:
    """Return the logits `(P, classes)` for activations that are one concept at every position."""

    def logits_for(images, replacement):
        (original,), _ = forward(model, images, [layer_call])
        values = from_grid(tf.cast(replacement, original.dtype), activations.grid, original)
        return find_logits(forward(model, images, [layer_call], replace=[values]).outputs)

    # Layers that don't depend on this one are computed from the first image.
    count, channels = concepts.shape
    copies = keras.tree.map_structure(lambda image: tf.repeat(image[:1], count, axis=0), images)
    lengths = activations.values.shape[1:-1]
    filled = np.broadcast_to(
        concepts.reshape(count, *[1] * len(lengths), channels), (count, *lengths, channels)
    )
    logits = keras.tree.flatten(_run_in_graph(logits_for, copies, tf.constant(filled)))
    if len(logits) != 1 or logits[0] is None or logits[0].shape.rank != 2:
        return None
    return at_least_float32(logits[0]).numpy()


def _run_in_graph(function, *tensors):
    """Return what `function` returns when it is traced and run once."""
    return tf.function(function, autograph=False).get_concrete_function(*tensors)(*tensors)

"""Deep feature factorization: the few concepts that a layer's activations are made of, and what they mean."""

import importlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._checks import is_whole
from tf_gradcam._explain import (
    apply_preprocess,
    cast_to_specs,
    find_source,
    source_lengths,
    tapped_layer,
)
from tf_gradcam._heatmap import parse_size, resize_map
from tf_gradcam._model import (
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
    is_built,
    resolve_layers,
    specs_to_trace,
)
from tf_gradcam._tensors import at_least_float32


class Factorization(NamedTuple):
    """What `deep_feature_factorization` answers: P concepts, the most present first, as NumPy arrays.

    Attributes:
        heatmaps: `(N, P, H, W)` float32 in `[0, 1]`: where each concept is present, about 1 where it is
            strongest in any of the images.
        maps: `(N, P, h, w)`, the same on the layer's own grid: 1 where a concept is strongest.
        concepts: `(P, K)`, the activations that a place has where the concept is strongest.
        scores: `(P, classes)`, the logits of a map that has the concept at every place and nothing else (what
            goes round the layer is the first image's), or `None` where the model doesn't return just
            `(N, classes)`.
        error: share of the activations' squares that the concepts leave unexplained, from 0 to 1.
    """

    heatmaps: np.ndarray
    maps: np.ndarray
    concepts: np.ndarray
    scores: np.ndarray | None
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
    """Find the concepts that all images together are made of, and the classes they speak for.

    The activations of all places of all images, `(N * Z, K)`, are factorized into non-negative parts: how
    much of each concept is at each place, times what the concept is made of. What is negative in them counts
    as 0, so take a layer after a ReLU or its like. It needs scikit-learn, and compiles anew at every call.

    Args:
        model: any `keras.Model`, as `GradCAM` takes it.
        images: a batch; see `GradCAM`.
        layer: one layer; see `GradCAM`.
        concepts: how many, P; at most as many as there are channels or places.
        call: which run of a layer that runs several times; see `GradCAM`.
        preprocess: see `GradCAM`.
        size: the heatmaps' size; see `GradCAM`.

    Raises:
        ImportError: if scikit-learn is missing.
        TypeError, ValueError: as `GradCAM` does; or if `concepts` is too many or too few, or no activation is
            above 0.

    Source: Collins et al., "Deep Feature Factorization for Concept Discovery", ECCV 2018; the class scores as
    in pytorch-grad-cam, but by all of the network after the layer instead of its last layer alone.

    Example:

    ```python
    found = tf_gradcam.deep_feature_factorization(model, images, concepts=4)
    picture = tf_gradcam.overlay_concepts("cat.jpg", found.heatmaps[0])
    found.scores.argmax(axis=1)  # the class that each concept speaks for
    ```
    """
    decomposition = _import("sklearn.decomposition")
    check_model(model)
    if isinstance(layer, list | tuple):
        raise TypeError(f"`layer` must be one layer. Received: {len(layer)}. Factorize each by itself.")
    size = parse_size(size)
    raw = as_batch("images", images, declared_specs(model), count_call_arguments(model) > 1)
    images = apply_preprocess(preprocess, raw)
    specs = specs_to_trace(model, images)
    check_images("images", images, specs)
    images = cast_to_specs(images, specs)
    if not is_built(model):
        build_model(model, images)
    (read,) = resolve_layers(model, layer, call, images)
    grid, source, activations = _look(model, read, images)
    shares, features, error = _factorize(decomposition, activations, concepts)
    signed_maps = shares.T.reshape(concepts, *activations.shape[:-1]).swapaxes(0, 1)
    sides = (
        source_lengths(raw, source, len(grid.shape), read.channels_first) if isinstance(size, str) else size
    )
    heatmaps = signed_maps
    if sides is not None:
        flat = tf.constant(signed_maps.reshape(-1, *signed_maps.shape[2:]))
        resized = resize_map(flat, sides, "bilinear").numpy()
        heatmaps = resized.reshape(*signed_maps.shape[:2], *resized.shape[1:])
    heatmaps = np.clip(heatmaps, 0, 1).astype("float32")
    scores = _scores(model, read, images, grid, features, activations.shape[1:-1])
    return Factorization(heatmaps, signed_maps, features, scores, error)


def _import(module):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            'deep_feature_factorization needs scikit-learn. Install it: pip install "tf_gradcam[concepts]"'
        ) from error


def _look(model, read, images):
    """Return the layer's grid, the image that it looks at, and its activations on the grid."""
    found = []

    def look(images):
        (activations,), _ = forward(model, images, [read])
        tapped = tapped_layer(model, images, read, activations)
        found.extend([tapped.grid, find_source(images, [tapped])])
        return tapped.on_grid()

    activations = _run(look, images).numpy()
    return *found, activations


def _factorize(decomposition, activations, concepts):
    """Return how much of each concept is at each place `(places, P)`, the concepts `(P, K)` and the error."""
    places = np.maximum(activations.reshape(-1, activations.shape[-1]), 0)
    most = min(places.shape)
    if not is_whole(concepts) or not 1 <= concepts <= most:
        raise ValueError(
            f"`concepts` must be a whole number from 1 to {most}, the places or channels that there are. "
            f"Received: concepts={concepts!r}"
        )
    if not places.any():
        raise ValueError("`layer` must have activations above 0. Received: none in all of the images.")
    # A fixed start: the same images have the same concepts.
    model = decomposition.NMF(concepts, init="nndsvda", max_iter=500, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", _import("sklearn.exceptions").ConvergenceWarning)  # `error` tells.
        shares = model.fit_transform(places)
    strongest = shares.max(axis=0)
    features = model.components_ * strongest[:, None]
    shares = np.divide(shares, strongest, out=np.zeros_like(shares), where=strongest > 0)
    order = np.argsort(-shares.sum(axis=0) * np.linalg.norm(features, axis=1), kind="stable")
    shares, features = shares[:, order], features[order]
    error = np.sum((places - shares @ features) ** 2) / np.sum(places**2)
    return shares, features, float(error)


def _scores(model, read: LayerCall, images, grid, features, lengths):
    """Return the logits `(P, classes)` of maps full of one concept each."""

    def tail(images, filled):
        (activations,), _ = forward(model, images, [read])
        values = from_grid(tf.cast(filled, activations.dtype), grid, activations)
        return find_logits(forward(model, images, [read], replace=[values]).outputs)

    # What goes round the layer is that of the first image.
    copies = keras.tree.map_structure(lambda image: tf.repeat(image[:1], len(features), axis=0), images)
    filled = np.broadcast_to(
        features.reshape(len(features), *[1] * len(lengths), -1), (len(features), *lengths, features.shape[1])
    )
    logits = keras.tree.flatten(_run(tail, copies, tf.constant(filled)))
    shown = len(logits) == 1 and logits[0] is not None and logits[0].shape.rank == 2
    return at_least_float32(logits[0]).numpy() if shown else None


def _run(function, *tensors):
    """Return what `function` answers in a graph, made for this one call."""
    return tf.function(function, autograph=False).get_concrete_function(*tensors)(*tensors)

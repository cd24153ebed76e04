"""The maps of several scores for each image, by one backward pass: `maps_of_scores`.

Called by `signed_maps`, which takes one backward pass for each score where this is not possible.
"""

from collections.abc import Sequence

import tensorflow as tf

from tf_gradcam._methods import Method, gradcam, keeps_rows_apart, takes_gradients
from tf_gradcam._model import batched_gradients, check_gradient, to_grid
from tf_gradcam._signed_maps.tapped import TappedLayer
from tf_gradcam._tensors import repeat_batch

_MOST_ROWS = 32  # Gradients in one pass: more are not faster.
_MOST_ELEMENTS = 2**24  # Of the largest tensor in one pass, to bound memory.


def maps_of_scores(
    score: tf.Tensor, tapped: Sequence[TappedLayer], formulas: Sequence[Method], images: tf.Tensor
) -> list[tf.Tensor] | None:
    """Return the map of each layer, `(N, M, *grid)`, for a score `(N, M)`.

    Some scores at a time go back from the score to the layers, as one batch.

    Args:
        score: `(N, M)`.
        tapped: the layers.
        formulas: the method of each layer.
        images: an input with a row for each image.

    Returns:
        The maps, or `None` if the gradients of several scores cannot surely be computed at once.
    """
    if tf.executing_eagerly() or not all(map(takes_gradients, formulas)):
        return None
    only_means = all(
        formula is gradcam and layer.grid.axes() == range(1, 3) and layer.activations.shape.rank == 4
        for layer, formula in zip(tapped, formulas, strict=True)
    )
    backward = batched_gradients(score, [layer.activations for layer in tapped], only_means)
    if backward is None:
        return None
    on_grid = [layer.on_grid() for layer in tapped]
    count = tf.shape(score)[1]
    passes, size = scores_per_pass(count, tf.shape(on_grid[0])[0], backward.largest)

    ones, numbers = tf.ones_like(score), tf.range(count)

    def maps_of(scores):
        chosen = scores[:, None] == numbers  # None for numbers beyond the last.
        gradients = backward.function(tf.cast(chosen[:, None], score.dtype) * ones)
        return [_map(*each, images) for each in zip(tapped, formulas, on_grid, gradients, strict=True)]

    found = tf.map_fn(
        maps_of,
        tf.reshape(tf.range(passes * size), [passes, size]),
        fn_output_signature=[activations.dtype for activations in on_grid],
        parallel_iterations=1,  # By default, up to ten passes are in memory at once.
    )
    return [_scores_of_passes(maps, count) for maps in found]


def scores_per_pass(count: tf.Tensor, rows: tf.Tensor, largest: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the number of passes for `count` scores, and of scores in each: passes of about one size.

    Args:
        count: number of scores.
        rows: number of rows of the activations.
        largest: number of elements of the largest tensor between activations and score.
    """
    most = tf.minimum(_MOST_ROWS // tf.maximum(1, rows), _MOST_ELEMENTS // tf.maximum(1, largest))
    passes = -(-count // tf.maximum(1, most))
    return passes, -(-count // tf.maximum(1, passes))


def _map(layer, formula, on_grid, gradients, images):
    """Return the maps of the scores of one pass, `(size, N, *grid)`, from gradients `(size, N, ...)`."""
    shape = tf.shape(gradients)
    size = shape[0]
    one_by_one = tf.reshape(gradients, tf.concat([shape[:1] * shape[1:2], shape[2:]], axis=0))
    one_by_one.set_shape([None, *gradients.shape[2:]])
    checked = to_grid(check_gradient(one_by_one, images, layer.grid, size), layer.grid)
    if keeps_rows_apart(formula):
        maps = formula(repeat_batch(on_grid, size), checked)
        return tf.reshape(maps, tf.concat([[size, shape[1]], tf.shape(maps)[1:]], axis=0))
    by_score = tf.reshape(checked, tf.concat([shape[:2], tf.shape(checked)[1:]], axis=0))

    def of_one_score(given):
        found = formula(on_grid, tf.ensure_shape(given, on_grid.shape))
        check_map(found, [on_grid])
        return found

    return tf.map_fn(of_one_score, by_score, fn_output_signature=on_grid.dtype)


def _scores_of_passes(maps, count):
    """Return maps `(passes, size, N, ...)` as `(N, count, ...)`."""
    shape = tf.shape(maps)
    one_by_one = tf.reshape(maps, tf.concat([shape[:1] * shape[1:2], shape[2:]], axis=0))
    return scores_second(one_by_one[:count])


def scores_second(maps: tf.Tensor) -> tf.Tensor:
    """Return maps `(M, N, ...)` of M scores with the axis of the scores second, `(N, M, ...)`."""
    return tf.transpose(maps, [1, 0, *range(2, maps.shape.rank)])


def check_map(signed_map: tf.Tensor, sources: Sequence[tf.Tensor], score: tf.Tensor | None = None) -> None:
    """Raise a `ValueError` if `signed_map` has the axes of no map of `sources`, activations or an image.

    With a `score` `(N, M)` it holds M maps for each image.
    """
    scores = 0 if score is None else score.shape.rank - 1
    ranks = [source.shape.rank - 1 + scores for source in sources]
    if not tf.is_tensor(signed_map) or signed_map.shape.rank not in ranks:
        received = getattr(signed_map, "shape", type(signed_map).__name__)
        raise ValueError(
            "`method` must return a map, a tensor (N, h, w), from activations and gradients (N, h, w, K). "
            f"Received: {received} from {sources[0].shape}"
        )

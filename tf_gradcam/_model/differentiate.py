"""Gradients that do not underflow in float16, with checks in the graph. Called by every backward pass."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_gradcam._graph import operations_between
from tf_gradcam._model.grid import Grid, to_grid
from tf_gradcam._tensors import at_least_float32

# The texts by which the explainer recognizes errors of the running graph.
ONE_MAP_PER_IMAGE = "one map for each image"
PATCHES_COUNT = "patches that the score depends on"

_SCALE = 1024  # Factor for the score, so that small gradients do not underflow to 0 in float16.


def tape_gradients(
    tape: tf.GradientTape, score: tf.Tensor, activations: Sequence[tf.Tensor], seed: tf.Tensor
) -> list[tf.Tensor | None]:
    """Return the gradients of `score`, weighted by `seed`, with respect to each of `activations`.

    Args:
        tape: a persistent tape that watched the activations.
        score: `(N,)` or `(N, M)`.
        activations: activations of one or several layers, as the layers returned them.
        seed: weights of the shape of `score`.

    Returns:
        For each of `activations` a gradient of its shape, in float32, or in float64 for float64 activations;
        `None` if the score does not depend on them.
    """

    def gradients(scale):
        return tape.gradient(score, activations, seed if scale == 1 else scale * seed)

    found = _without_underflow(gradients, any(tensor.dtype == tf.float16 for tensor in activations))
    # The gradient of a global max pooling has no static shape.
    return [
        None if gradient is None else tf.ensure_shape(gradient, tensor.shape)
        for gradient, tensor in zip(found, activations, strict=True)
    ]


def graph_gradient(of: tf.Tensor, by: tf.Tensor) -> tf.Tensor | None:
    """Return the gradient of the sum of `of` with respect to `by`, in the graph that is being traced.

    Returns:
        A gradient of the shape of `by`, in float32, or in float64 if `by` is; `None` if `of` does not depend
        on it.
    """
    between = [output for operation in operations_between(by, of) for output in operation.outputs]

    def gradients(scale):
        return tf.gradients(of if scale == 1 else scale * of, [by])

    return _without_underflow(gradients, any(tensor.dtype == tf.float16 for tensor in [by, *between]))[0]


def _without_underflow(
    gradients: Callable[[int], list[tf.Tensor | None]], has_float16: bool
) -> list[tf.Tensor | None]:
    """Return a score's gradients, given a function from a factor to the gradients of factor * score."""
    plain = [None if each is None else at_least_float32(tf.convert_to_tensor(each)) for each in gradients(1)]
    if not has_float16 or all(each is None for each in plain):
        return plain
    return [
        None if each is None else _unscaled_or_plain(scaled, each)
        for each, scaled in zip(plain, gradients(_SCALE), strict=True)
    ]


def _unscaled_or_plain(scaled, plain):
    """Return the scaled gradient divided by its factor; the plain one where the scaled one overflowed."""
    unscaled = at_least_float32(tf.convert_to_tensor(scaled)) / _SCALE
    return tf.where(tf.math.is_finite(unscaled), unscaled, plain)


def check_gradient(
    gradient: tf.Tensor, images: tf.Tensor, grid: Grid, scores: int | tf.Tensor = 1
) -> tf.Tensor:
    """Return `gradient`, with checks of its values in the graph; `images` are those of its batch.

    With `scores` it holds the gradients of so many scores, one after another.

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs, with the text `ONE_MAP_PER_IMAGE` if there are
            more rows than images; with `PATCHES_COUNT` if the score depends on a class token, but no patch.
    """
    checks, known = [], (gradient.shape[0], images.shape[0])
    if None in known or known[0] != known[1]:
        row_count, image_count = tf.shape(gradient)[0], tf.shape(images)[0] * scores
        checks.append(tf.debugging.assert_equal(row_count, image_count, ONE_MAP_PER_IMAGE))
    if grid.extra:
        by_patches, by_all = (
            tf.reduce_any(tf.reshape(values, [scores, -1]) != 0, axis=1)
            for values in (to_grid(gradient, grid), gradient)
        )
        checks.append(tf.debugging.Assert(tf.reduce_all(by_patches | ~by_all), [PATCHES_COUNT]))
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tf.identity(gradient)


def not_on_path_error(layer: str) -> ValueError:
    """Return the error for a layer of this name on which the score does not depend."""
    return ValueError(
        f"`layer` must be on the path to the score. Received: layer={layer!r}, on which the target's score "
        "does not depend. Choose a layer before the output that is explained."
    )

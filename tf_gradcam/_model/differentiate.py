"""Gradients that are right in float16, and checked while the graph runs; every backward pass calls these."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_gradcam._model.graph import operations_between
from tf_gradcam._model.grid import Grid, to_grid
from tf_gradcam._tensors import at_least_float32

# An error of the running graph is known by these words.
ONE_MAP_PER_IMAGE = "one map for each image"
PATCHES_COUNT = "patches that the score depends on"

_SCALE = 1024  # spread over many places a gradient vanishes in float16; so much larger it does not


def tape_gradients(
    tape: tf.GradientTape, score: tf.Tensor, activations: Sequence[tf.Tensor], seed: tf.Tensor
) -> list[tf.Tensor | None]:
    """Return the gradient of `score`, weighted by `seed`, by each of `activations`.

    Args:
        tape: a persistent tape that watched the activations.
        score: `(N,)` or `(N, M)`.
        activations: of one or several layers, as the layers returned them.
        seed: of the shape of `score`.

    Returns:
        For each of `activations` a gradient of its shape, in float32, or float64 where the activations are;
        `None` where the score does not depend on them.
    """

    def gradients(scale):
        return tape.gradient(score, activations, seed if scale == 1 else scale * seed)

    return _right_in_float16(gradients, any(each.dtype == tf.float16 for each in activations))


def graph_gradient(of: tf.Tensor, by: tf.Tensor) -> tf.Tensor | None:
    """Return the gradient of the sum of `of` by `by`, two tensors of the graph that is being traced.

    Returns:
        A gradient of the shape of `by`, in float32, or float64 where `by` is; `None` where `of` does not
        depend on it.
    """
    passed = [output for operation in operations_between(by, of) for output in operation.outputs]

    def gradients(scale):
        return tf.gradients(of if scale == 1 else scale * of, [by])

    return _right_in_float16(gradients, any(each.dtype == tf.float16 for each in [by, *passed]))[0]


def _right_in_float16(
    gradients: Callable[[int], list[tf.Tensor | None]], has_float16: bool
) -> list[tf.Tensor | None]:
    """Return the gradients of a score, given the function from a factor to those of factor * score."""
    plain = [None if each is None else at_least_float32(tf.convert_to_tensor(each)) for each in gradients(1)]
    if not has_float16 or all(each is None for each in plain):
        return plain
    return [
        None if each is None else _unless_it_overflowed(scaled, each)
        for each, scaled in zip(plain, gradients(_SCALE), strict=True)
    ]


def _unless_it_overflowed(scaled, plain):
    unscaled = at_least_float32(tf.convert_to_tensor(scaled)) / _SCALE
    return tf.where(tf.math.is_finite(unscaled), unscaled, plain)


def check_gradient(gradient: tf.Tensor, score: tf.Tensor, grid: Grid) -> tf.Tensor:
    """Return `gradient`, with checks in the graph of what only its values can tell.

    Raises:
        tf.errors.InvalidArgumentError: when it runs, with `ONE_MAP_PER_IMAGE` if there are more rows than
            images; with `PATCHES_COUNT` if the score depends on a class token, and on no patch.
    """
    rows, images = tf.shape(gradient)[0], tf.shape(score)[0]
    checks = [tf.debugging.assert_equal(rows, images, ONE_MAP_PER_IMAGE)]
    if grid.extra:
        patches_count = tf.reduce_any(to_grid(gradient, grid) != 0)
        checks.append(tf.debugging.Assert(patches_count | tf.reduce_all(gradient == 0), [PATCHES_COUNT]))
    with tf.control_dependencies([each for each in checks if each is not None]):
        return tf.identity(gradient)


def not_on_path_error(layer: str) -> ValueError:
    """Return the error for a layer, by its name, that the score does not depend on."""
    return ValueError(
        f"`layer` must be on the path to the score. Received: layer={layer!r}, on which the target's score "
        "does not depend. Choose a layer before the output that is explained."
    )

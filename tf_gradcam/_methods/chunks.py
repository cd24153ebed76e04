"""Loops in the graph over many copies of a batch, a few at a time, so that memory stays bounded."""

from collections.abc import Callable, Sequence

import tensorflow as tf


def copies_per_pass(batch: int, images: tf.Tensor) -> tf.Tensor:
    """Return how many copies of `images` go into one pass of `batch` rows: at least one."""
    return tf.maximum(1, batch // tf.maximum(1, tf.shape(images)[0]))


def gather_chunks(
    count: int | tf.Tensor,
    batch: int | tf.Tensor,
    step: Callable[[tf.Tensor], tf.Tensor],
    dtype: tf.DType,
) -> tf.Tensor:
    """Return the `(count, N)` numbers that `step` gives for the indices 0 to `count - 1`.

    Args:
        count: how many indices, at least one.
        batch: how many of them at a time.
        step: indices `(B,)` int32 to numbers `(B, N)`, one for each image; traced once.
        dtype: of the numbers.
    """
    found = tf.TensorArray(dtype, 0, dynamic_size=True, infer_shape=False, element_shape=[None, None])

    def write(indices, place, found):
        return (found.write(place, step(indices)),)

    (found,) = _each(count, batch, write, (found,), (None,))
    return found.concat()


def sum_chunks(
    count: int | tf.Tensor,
    batch: int | tf.Tensor,
    step: Callable[[tf.Tensor], Sequence[tf.Tensor]],
    zeros: Sequence[tf.Tensor],
) -> Sequence[tf.Tensor]:
    """Return the sums over the indices 0 to `count - 1` of what `step` gives.

    Args:
        count: how many indices.
        batch: how many of them at a time.
        step: indices `(B,)` int32 to tensors, summed over these indices already; traced once.
        zeros: what the sums start from, with their shapes.
    """

    def add(indices, _, *sums):
        more = zip(sums, step(indices), strict=True)
        return [tf.ensure_shape(old + new, old.shape) for old, new in more]

    return _each(count, batch, add, tuple(zeros), tuple(zero.shape for zero in zeros))


def _each(count, batch, step, state, shapes):
    """Return `state` after `step(indices, number of the pass, *state)` for all batches of indices."""

    def body(start, place, *state):
        indices = tf.range(start, tf.minimum(start + batch, count))
        return start + batch, place + 1, *step(indices, place, *state)

    _, _, *state = tf.while_loop(
        lambda start, *_: start < count,
        body,
        (tf.constant(0), tf.constant(0), *state),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([]), *shapes),
        parallel_iterations=1,  # Otherwise ten passes would be alive at once.
    )
    return state

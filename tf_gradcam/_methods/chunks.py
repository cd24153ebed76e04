"""Graph loops over many copies of a batch, a few at a time to bound memory. Called by methods that need many
forward passes.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf


def copies_per_pass(batch: int, images: tf.Tensor) -> tf.Tensor:
    """Return how many copies of `images` go into one pass of `batch` images, at least one."""
    return tf.maximum(1, batch // tf.maximum(1, tf.shape(images)[0]))


def merge_copies(copies: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
    """Return B copies `(B, N, ...)` of `batch` `(N, ...)` as one batch `(B * N, ...)`."""
    merged = tf.reshape(copies, tf.concat([[-1], tf.shape(batch)[1:]], axis=0))
    return tf.ensure_shape(merged, [None, *batch.shape[1:]])


def gather_chunks(
    count: int | tf.Tensor,
    batch: int | tf.Tensor,
    step: Callable[[tf.Tensor], tf.Tensor],
    dtype: tf.DType,
) -> tf.Tensor:
    """Return the `(count, N)` numbers that `step` computes for the indices 0 to `count - 1`.

    Args:
        count: number of indices, at least one.
        batch: number of indices in one step.
        step: function from indices `(B,)` int32 to numbers `(B, N)`, one for each image. It is traced once.
        dtype: dtype of the numbers.
    """
    results = tf.TensorArray(dtype, 0, dynamic_size=True, infer_shape=False, element_shape=[None, None])

    def write(indices, chunk_number, results):
        return (results.write(chunk_number, step(indices)),)

    (results,) = _loop_over_chunks(count, batch, write, (results,), (None,))
    return results.concat()


def sum_chunks(
    count: int | tf.Tensor,
    batch: int | tf.Tensor,
    step: Callable[[tf.Tensor], Sequence[tf.Tensor]],
    zeros: Sequence[tf.Tensor],
) -> Sequence[tf.Tensor]:
    """Return the sums of the tensors that `step` computes for the indices 0 to `count - 1`.

    Args:
        count: number of indices.
        batch: number of indices in one step.
        step: function from indices `(B,)` int32 to tensors, summed over these indices. It is traced once.
        zeros: start values of the sums, with their shapes.
    """

    def add(indices, _, *sums):
        pairs = zip(sums, step(indices), strict=True)
        return [tf.ensure_shape(old + new, old.shape) for old, new in pairs]

    return _loop_over_chunks(count, batch, add, tuple(zeros), tuple(zero.shape for zero in zeros))


def _loop_over_chunks(count, batch, step, state, shapes):
    """Return `state` after `state = step(indices, chunk_number, *state)` for all chunks of indices."""

    def body(start, chunk_number, *state):
        indices = tf.range(start, tf.minimum(start + batch, count))
        return start + batch, chunk_number + 1, *step(indices, chunk_number, *state)

    _, _, *state = tf.while_loop(
        lambda start, *_: start < count,
        body,
        (tf.constant(0), tf.constant(0), *state),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([]), *shapes),
        parallel_iterations=1,  # By default, up to ten steps are in memory at once.
    )
    return state

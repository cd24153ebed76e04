"""Graph loops over many copies of a batch, a few at a time to bound memory. Called by methods that need many
forward passes.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

ALGORITHM = "philox"  # Of random numbers. By default XLA takes another one, with other numbers.


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
        batch: largest number of indices in one step.
        step: function from indices `(B,)` int32 to numbers `(B, N)`, one for each image. It is traced once.
        dtype: dtype of the numbers.
    """
    chunks, _ = _even_chunks(count, batch)
    results = tf.TensorArray(dtype, chunks, infer_shape=False, element_shape=[None, None])

    def write(indices, _, chunk_number, results):
        return (results.write(chunk_number, step(indices)),)

    (results,) = _loop_over_chunks(count, batch, write, (results,), (None,))
    stacked = results.stack()
    return tf.reshape(stacked, [-1, tf.shape(stacked)[2]])[:count]


def sum_chunks(
    count: int | tf.Tensor,
    batch: int | tf.Tensor,
    step: Callable[[tf.Tensor, tf.Tensor], Sequence[tf.Tensor]],
    zeros: Sequence[tf.Tensor],
) -> Sequence[tf.Tensor]:
    """Return the sums of the tensors that `step` computes for the indices 0 to `count - 1`.

    Args:
        count: number of indices.
        batch: largest number of indices in one step.
        step: function from indices `(B,)` int32 and their weights `(B,)` float32 to tensors, the weighted
            sums over these indices. The weight is 1, and 0 for an index that only fills the last chunk up.
            It is traced once.
        zeros: start values of the sums, with their shapes.
    """

    def add(indices, weights, _, *sums):
        pairs = zip(sums, step(indices, weights), strict=True)
        return [tf.ensure_shape(old + new, old.shape) for old, new in pairs]

    return _loop_over_chunks(count, batch, add, tuple(zeros), tuple(zero.shape for zero in zeros))


def sum_of_copies(copies: tf.Tensor, one_copy: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return the sum `(N, ...)` of copies `(B * N, ...)` with weights `(B,)`, given one copy `(N, ...)`."""
    each = tf.reshape(copies, tf.concat([[-1], tf.shape(one_copy)], axis=0))
    weights = tf.reshape(tf.cast(weights, each.dtype), [-1] + [1] * (each.shape.rank - 1))
    return tf.reduce_sum(weights * each, axis=0)  # No product of matrices: TF32 would round it.


def _even_chunks(count, batch):
    """Return the number of chunks and their size. Equal sizes are what XLA needs, and waste little."""
    chunks = -(-count // batch)
    return chunks, -(-count // tf.maximum(1, chunks))


def _loop_over_chunks(count, batch, step, state, shapes):
    """Return `state` after `state = step(indices, weights, chunk_number, *state)` for all chunks."""
    chunks, size = _even_chunks(count, batch)
    offsets = tf.range(size)  # Outside of the loop: in it, XLA would not know the size.

    def body(chunk_number, *state):
        indices = chunk_number * size + offsets
        weights = tf.cast(indices < count, tf.float32)
        return chunk_number + 1, *step(tf.minimum(indices, count - 1), weights, chunk_number, *state)

    _, *state = tf.while_loop(
        lambda chunk_number, *_: chunk_number < chunks,
        body,
        (tf.constant(0), *state),
        shape_invariants=(tf.TensorShape([]), *shapes),
        parallel_iterations=1,  # By default, up to ten steps are in memory at once.
    )
    return state

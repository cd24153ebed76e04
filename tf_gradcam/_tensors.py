"""Small steps on tensors that several packages take."""

import tensorflow as tf


def at_least_float32(values: tf.Tensor) -> tf.Tensor:
    """Return `values` as float32 or float64: in float16, areas and sums over pixels overflow."""
    return values if values.dtype == tf.float64 else tf.cast(values, tf.float32)


def repeat_batch(values: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """Return `count` copies of a batch `(N, ...)`, one after another: `(count * N, ...)`."""
    return tf.tile(values, [count] + [1] * (len(values.shape) - 1))

"""Small steps on tensors that several packages take."""

import tensorflow as tf


def at_least_float32(values):
    """Return `values` as float32 or float64: in float16, areas and sums over pixels overflow."""
    return values if values.dtype == tf.float64 else tf.cast(values, tf.float32)

"""Small steps on tensors that several packages take."""

from typing import Any

import keras
import tensorflow as tf


def tensor_of_variable(value: Any) -> Any:
    """Return the value of a variable, TensorFlow's or Keras's, as a tensor; anything else unchanged."""
    return tf.convert_to_tensor(value) if isinstance(value, keras.Variable | tf.Variable) else value


def check_has_values(name: str, value: Any) -> None:
    """Raise a `ValueError` if `value` is a symbolic tensor that can have no values where it is used.

    It has values only in the graph that it is part of, and in graphs that are traced inside of that one.
    TensorFlow itself may end the process if it gets such a tensor.
    """
    if not tf.is_tensor(value) or hasattr(value, "numpy") or not hasattr(value, "graph"):
        return
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    while graph is not None and graph is not value.graph:
        graph = getattr(graph, "outer_graph", None)
    if graph is None:
        raise ValueError(
            f"`{name}` must hold numbers. Received: a symbolic tensor, {value!r:.120}, outside of its "
            "tf.function. Return it from that tf.function, or call this inside of it."
        )


def at_least_float32(values: tf.Tensor) -> tf.Tensor:
    """Return `values` as float32 or float64: in float16, areas and sums over pixels overflow."""
    return values if values.dtype == tf.float64 else tf.cast(values, tf.float32)


def repeat_batch(values: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """Return `count` copies of a batch `(N, ...)`, one after another: `(count * N, ...)`."""
    return tf.tile(values, [count] + [1] * (len(values.shape) - 1))

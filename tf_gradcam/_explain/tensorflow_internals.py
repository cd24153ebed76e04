"""Every private name of TensorFlow that this library uses, each behind a function. Used by `frozen` alone.

`tests/explain/test_tensorflow_internals.py` has a test for each, which fails if a new version changes it.
"""

from collections.abc import Iterable

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


def variables_to_constants(
    concrete: tf.types.experimental.ConcreteFunction, inline: bool
) -> tf.types.experimental.ConcreteFunction:
    """Return `concrete` with the current values of its variables as constants.

    The functions that it calls are inlined. TensorFlow's public way, its LiteRT converter, writes a file.
    Loops are not lowered: they would run without a limit on memory.

    Args:
        concrete: the function.
        inline: whether to inline also functions that were folded before.
    """
    return convert_variables_to_constants_v2(concrete, False, aggressive_inlining=inline)


def call_flat(
    concrete: tf.types.experimental.ConcreteFunction, tensors: Iterable[tf.Tensor]
) -> list[tf.Tensor]:
    """Return the outputs of a function without captured inputs, as a flat list.

    A folded function is public to call, but has no argument names, and searches for them in every call.
    `_call_flat` takes the inputs in their order.
    """
    return concrete._call_flat(list(tensors), [])

"""Find the logits, the inputs of a final softmax or sigmoid. Called after every forward pass."""

from typing import Any

import keras
import tensorflow as tf

from tf_gradcam._model.keras_internals import has_noted_logits, noted_logits


def find_logits(outputs: Any) -> Any:
    """Return the logits of each output: the input of its final softmax or sigmoid.

    They are the output itself if it has neither, and `None` if the output is computed in the model's own
    `tf.function`, whose graph cannot be read.
    """
    return keras.tree.map_structure(_logits_of_output, outputs)


class _HiddenInFunction(Exception):
    """The logits are computed inside a function of the graph."""


def _logits_of_output(output: Any) -> Any:
    if tf.executing_eagerly():  # There is no graph to read; Keras attaches logits to its own activations.
        logits = noted_logits(output)
        return output if logits is None else logits
    if not tf.is_tensor(output):
        return output
    try:
        logits = _before_activation(output)
    except _HiddenInFunction:
        return None
    return output if logits is None else logits


def _before_activation(output: tf.Tensor) -> tf.Tensor | None:
    """Return the input of the softmax or sigmoid that computes `output`; `None` if there is neither."""
    operation = output.op
    if operation.type in ("PartitionedCall", "StatefulPartitionedCall"):
        raise _HiddenInFunction
    if operation.type in ("Softmax", "LogSoftmax", "Sigmoid"):
        return operation.inputs[0]
    # A detector concatenates boxes and class scores. A concatenation (N, M) is one vector of probabilities.
    if operation.type == "ConcatV2" and output.shape.rank != 2:
        *parts, axis = operation.inputs
        parts_logits = [_before_activation(part) for part in parts]
        if all(one is None for one in parts_logits):
            return None
        return tf.concat([p if x is None else x for p, x in zip(parts, parts_logits, strict=True)], axis)
    if operation.type not in ("Identity", "Cast", "Reshape", "Transpose"):
        return None
    logits = _before_activation(operation.inputs[0])
    if logits is None or operation.type in ("Identity", "Cast"):
        return logits
    rearrange = {"Reshape": tf.reshape, "Transpose": tf.transpose}[operation.type]
    return rearrange(logits, operation.inputs[1])


def logits_need_graph(outputs: Any) -> bool:
    """Return whether the logits of the symbolic `outputs` can only be found in their graph."""
    flat = keras.tree.flatten(outputs)
    return any(_logits_of_output(output) is not output and not has_noted_logits(output) for output in flat)

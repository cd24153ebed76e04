"""Find the logits: what a final softmax or sigmoid was given.

Called after every forward pass.
"""

from typing import Any

import keras
import tensorflow as tf

from tf_gradcam._model.keras_internals import has_noted_logits, noted_logits


def find_logits(outputs: Any) -> Any:
    """Return the logits of each output: what its final softmax or sigmoid was given.

    Where there is neither, it is the output itself. It is `None` where the output comes out of a
    `tf.function` of the model's own, whose graph can't be read.
    """
    return keras.tree.map_structure(_logits, outputs)


class _HiddenInFunction(Exception):
    """The path to the logits leads into a function."""


def _logits(output: Any) -> Any:
    if tf.executing_eagerly():  # There is no graph to read; Keras leaves a note on its own activations.
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
    """Return what the softmax or sigmoid that `output` ends in was given; `None` if it ends in neither."""
    operation = output.op
    if operation.type in ("PartitionedCall", "StatefulPartitionedCall"):
        raise _HiddenInFunction
    if operation.type in ("Softmax", "LogSoftmax", "Sigmoid"):
        return operation.inputs[0]
    # A detector joins boxes and class scores. Probabilities that are joined to (N, M) are one vector.
    if operation.type == "ConcatV2" and output.shape.rank != 2:
        *pieces, axis = operation.inputs
        of_pieces = [_before_activation(piece) for piece in pieces]
        if all(each is None for each in of_pieces):
            return None
        return tf.concat([p if x is None else x for p, x in zip(pieces, of_pieces, strict=True)], axis)
    if operation.type not in ("Identity", "Cast", "Reshape", "Transpose"):
        return None
    logits = _before_activation(operation.inputs[0])
    if logits is None or operation.type in ("Identity", "Cast"):
        return logits
    rearrange = {"Reshape": tf.reshape, "Transpose": tf.transpose}[operation.type]
    return rearrange(logits, operation.inputs[1])


def logits_need_graph(outputs: Any) -> bool:
    """Return whether only the graph of `outputs`, symbolic ones, shows their logits."""
    flat = keras.tree.flatten(outputs)
    return any(_logits(output) is not output and not has_noted_logits(output) for output in flat)

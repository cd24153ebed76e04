"""Find what a final softmax or sigmoid was given."""

from typing import Any

import keras
import tensorflow as tf

from tf_gradcam._model.keras_internals import has_noted_logits, noted_logits


def find_logits(outputs: Any) -> Any:
    """Return for each output what its final softmax or sigmoid was given, or the output where there is none.

    `None` stands for an output that comes out of a `tf.function` of the model's own, which can't be looked
    into.
    """
    return keras.tree.map_structure(_logits, outputs)


class _Hidden(Exception):
    """The way to the logits leads into a function."""


def _logits(output: Any) -> Any:
    if tf.executing_eagerly():  # There is no graph to read; Keras leaves a note on its own activations.
        logits = noted_logits(output)
        return output if logits is None else logits
    if not tf.is_tensor(output):
        return output
    try:
        logits = _behind_squashing(output)
    except _Hidden:
        return None
    return output if logits is None else logits


def _behind_squashing(output: tf.Tensor) -> tf.Tensor | None:
    operation = output.op
    if operation.type in ("PartitionedCall", "StatefulPartitionedCall"):
        raise _Hidden
    if operation.type in ("Softmax", "LogSoftmax", "Sigmoid"):
        return operation.inputs[0]
    # A detector joins its boxes and class scores; joined as they are, probabilities are one vector.
    if operation.type == "ConcatV2" and output.shape.rank != 2:
        *pieces, axis = operation.inputs
        logits = [_behind_squashing(piece) for piece in pieces]
        if all(each is None for each in logits):
            return None
        return tf.concat([p if x is None else x for p, x in zip(pieces, logits, strict=True)], axis)
    if operation.type not in ("Identity", "Cast", "Reshape", "Transpose"):
        return None
    logits = _behind_squashing(operation.inputs[0])
    if logits is None or operation.type in ("Identity", "Cast"):
        return logits
    rearrange = {"Reshape": tf.reshape, "Transpose": tf.transpose}[operation.type]
    return rearrange(logits, operation.inputs[1])


def logits_need_graph(outputs: Any) -> bool:
    """Whether the logits of `outputs`, symbolic ones, can be found in their graph only."""
    flat = keras.tree.flatten(outputs)
    return any(_logits(output) is not output and not has_noted_logits(output) for output in flat)

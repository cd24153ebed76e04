"""Which of a model's outputs is meant, and picking numbers out of it."""

from typing import NamedTuple

import keras
import tensorflow as tf

PREDICTED = -1  # stands for None in a tensor
OR_A_CALLABLE = "Give a callable outputs -> (N,) that says what to explain."


def pick(values, index):
    """Return `values[i, index[i]]` for each image i. A one-hot product would hide an index out of range."""
    return tf.gather(values, index, batch_dims=1)


def given_or_best(index, values):
    """Return `index`, and where none is given that of the largest of `values` `(N, classes)`."""
    return tf.where(tf.equal(index, PREDICTED), tf.argmax(values, axis=-1, output_type=tf.int32), index)


def with_class_index(target, outputs, logits):
    """Return `target` with the class index that its score belongs to, if there is one."""
    _, index = target.score(outputs, logits)
    return target if index is None else target._replace(index=index)


def both_sides(logits):
    """Return the logits of both sides of a single unit, `(..., 2)`, or those of several units as they are."""
    return tf.concat([-logits, logits], axis=-1) if logits.shape[-1] == 1 else logits


def only_output(outputs):
    """Return the one output of a model that may pack it in a list."""
    flat = keras.tree.flatten(outputs)
    if len(flat) != 1:
        names = list(outputs if isinstance(outputs, dict) else range(len(flat)))
        raise ValueError(
            f"`target` must say which of the model's {len(flat)} outputs to explain, {names}: "
            f"targets.Output({names[0]!r}, target). A detector's take targets.Detection or Box, and any "
            "outputs take a callable outputs -> (N,)."
        )
    return flat[0]


def only_logits(logits):
    """Return the logits of a model's one output, if its graph shows them."""
    logits = only_output(logits)
    if logits is None:
        raise ValueError(
            "`model` must show its logits. Received: an output that comes out of a tf.function of its own. "
            "Take the decorator off, or give as `target` a Value or a callable outputs -> (N,)."
        )
    return logits


class OutputName(NamedTuple):
    """The name that was given to `Output`, and the names that the model has for its outputs, if any."""

    given: str | int
    known: tuple[str, ...]


def find_output(name, outputs):
    """Return the output of that name, which may again be a structure of outputs."""
    if isinstance(outputs, dict) and name.given in outputs:
        return outputs[name.given]
    flat = keras.tree.flatten(outputs)
    position = name.known.index(name.given) if name.given in name.known else name.given
    if position not in range(len(flat)):
        names = list(outputs if isinstance(outputs, dict) else name.known)
        raise ValueError(
            f"`target` must name one of the model's {len(flat)} outputs, {f'{names} or ' if names else ''}by "
            f"a position from 0 to {len(flat) - 1}. Received: Output({name.given!r})"
        )
    return flat[position]


def wrong_outputs_error(target, needs, outputs, advice) -> ValueError:
    return ValueError(
        f"{target} as `target` needs a model that returns {needs}. "
        f"Received: outputs of shape {tuple(outputs.shape)}. {advice}"
    )

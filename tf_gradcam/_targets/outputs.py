"""Find the output that a target means, and pick scores from it. Called by every target."""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

PREDICTED = -1  # The class index that means None in an array.
OR_A_CALLABLE = "Give a callable outputs -> (N,) that returns the score to explain."


def pick(values: tf.Tensor, index: Any, axis: int = 1) -> tf.Tensor:
    """Return `values[i, index[i]]` for each image i, or the same on another axis.

    For an index out of range it is NaN, and so is the gradient for that image. `tf.gather` alone would give
    the gradient to another image.
    """
    if values.shape.rank == 2 and len(index.shape) == 1 and _is_in_range(index, values.shape[1]):
        rows = np.arange(values.shape[0], dtype=np.int32)
        return tf.gather_nd(values, np.stack([rows, np.asarray(index, np.int32)], axis=1))
    count = tf.shape(values)[axis]
    # Not clipped: for 7 classes LiteRT's converter would make that a ReLU6, which it lacks for integers.
    possible = tf.where((index >= 0) & (index < count), index, tf.zeros_like(index))
    picked = tf.gather(values, possible, axis=axis, batch_dims=1)
    if not values.dtype.is_floating:
        return picked
    factor = tf.where(tf.equal(possible, index), tf.ones([], values.dtype), tf.constant(np.nan, values.dtype))
    shape = tf.shape(factor)
    ones_before, ones_after = [1] * (axis - 1), [1] * (values.shape.rank - 1 - axis)
    marked = picked * tf.reshape(factor, tf.concat([shape[:1], ones_before, shape[1:], ones_after], 0))
    return tf.ensure_shape(marked, picked.shape)


def in_range(index: Any, limits: Any, noun: str = "class") -> tf.Tensor:
    """Return an index, with a check in the graph that it is from 0 and below its limit.

    The check belongs to the index, so that it runs wherever the index is used: TensorFlow removes a
    `tf.gather` whose value nobody needs, and its check with it. XLA has no checks; see `pick`.

    Args:
        index: indices, int32.
        limits: a number, or one for each column of `index`.
        noun: what is counted, for the error.
    """
    index = tf.convert_to_tensor(index)
    if _is_in_range(index, limits):
        return index
    is_possible = tf.reduce_all((index >= 0) & (index < limits))
    rule = f"`target` must be a {noun} that the model has, from 0 and below"
    check = tf.debugging.Assert(is_possible, [rule, limits, "Received:", index])
    with tf.control_dependencies([check]):
        return tf.identity(index)


def given_or_best(index: Any, values: tf.Tensor) -> tf.Tensor:
    """Return `index`, with that of the largest of `values` `(N, classes)` where it is `PREDICTED`."""
    if tf.executing_eagerly():
        best = np.argmax(values, axis=-1).astype(np.int32)
        return in_range(np.where(np.equal(index, PREDICTED), best, index), values.shape[-1])
    best = tf.argmax(values, axis=-1, output_type=tf.int32)
    return in_range(tf.where(tf.equal(index, PREDICTED), best, index), tf.shape(values)[-1])


def _is_in_range(index, limits) -> bool:
    """Return whether indices are known to be in range, as they can be in eager mode.

    There each small operation takes milliseconds when it runs for the first time, so it is worth knowing.
    """
    if not tf.executing_eagerly():
        return False
    index = np.asarray(index)
    return bool(np.all((index >= 0) & (index < np.asarray(limits))))


def without_class(index: Any, values: tf.Tensor) -> tf.Tensor:
    """Return the scores of a model that has no classes, with a check that no class is given."""
    rule = "`target` must be None: the model has a single unit and no sigmoid, so no classes. Received:"
    check = tf.debugging.Assert(tf.reduce_all(tf.equal(index, PREDICTED)), [rule, index])
    with tf.control_dependencies([check]):
        return tf.identity(values)


_RANKING = "_tf_gradcam_ranking"  # Keras notes logits on a tensor in the same way.


def note_ranking(logits: tf.Tensor, values: tf.Tensor) -> None:
    """Note on `logits` that cannot be compared with each other the values by which classes are ranked."""
    setattr(logits, _RANKING, values)


def ranking(logits: tf.Tensor) -> tf.Tensor:
    """Return the values by which the classes of `logits` are ranked: by default the logits."""
    return getattr(logits, _RANKING, logits)


_INDEPENDENT = "_tf_gradcam_independent"


def note_independent(logits: tf.Tensor) -> None:
    """Note on `logits` that each class is for itself, as with a sigmoid for each."""
    setattr(logits, _INDEPENDENT, True)


def are_rivals(logits: tf.Tensor) -> bool:
    """Return whether more evidence for one class of `logits` is less for the others, as in a softmax."""
    return not hasattr(logits, _INDEPENDENT) and not hasattr(logits, _RANKING)


def with_class_index(target: Any, outputs: Any, logits: Any) -> Any:
    """Return `target` with the class index that its score belongs to, if there is one."""
    _, index = target.score(outputs, logits)
    return target if index is None else target._replace(index=index)


def both_sides(logits: tf.Tensor) -> tf.Tensor:
    """Return the logits of both sides of a single unit, `(..., 2)`, or those of several units unchanged."""
    return tf.concat([-logits, logits], axis=-1) if logits.shape[-1] == 1 else logits


def only_output(outputs: Any) -> Any:
    """Return the output of a model with one output, which may be in a list or dict."""
    flat = keras.tree.flatten(outputs)
    if len(flat) != 1:
        names = list(outputs if isinstance(outputs, dict) else range(len(flat)))
        raise ValueError(
            f"`target` must say which of the model's {len(flat)} outputs to explain, {names}: "
            f"targets.Output({names[0]!r}, target). For a detector, give targets.Detection or Box; for any "
            "outputs, a callable outputs -> (N,)."
        )
    return flat[0]


def only_logits(logits: Any) -> Any:
    """Return the logits of a model with one output; raise a `ValueError` if its graph does not show them."""
    logits = only_output(logits)
    if logits is None:
        raise ValueError(
            "`model` must show its logits. Received: an output that is computed in the model's own "
            "tf.function. Remove the decorator, or give as `target` a Value or a callable outputs -> (N,)."
        )
    return logits


class OutputName(NamedTuple):
    """The name that was given to `Output`, and the model's names of its outputs, if it has any."""

    given: str | int
    known: tuple[str, ...]


def find_output(name: Any, outputs: Any) -> Any:
    """Return the output of an `OutputName`, which may be a structure of outputs itself."""
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


def wrong_outputs_error(target: str, needs: str, outputs: tf.Tensor, advice: str) -> ValueError:
    """Return the error for a target that does not fit the shape of the outputs."""
    return ValueError(
        f"{target} as `target` needs a model that returns {needs}. "
        f"Received: outputs of shape {tuple(outputs.shape)}. {advice}"
    )

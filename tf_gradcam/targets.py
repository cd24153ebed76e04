"""What to explain: named tuples of tensors whose `score` turns a model's answer into one number per image.

A target carries tensors, one row per image, so that another class never traces anew. Its method
`score(outputs, logits)` returns the score `(N,)` and the class index `(N,)` it belongs to, or `None`. One
that picks by `index` also has `limit(outputs)`, the number of indices there are.
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

_PREDICTED = -1  # stands for None in a tensor


class Class(NamedTuple):
    """The logit of a class: what a final softmax or sigmoid is given, or the output where there is neither.

    A single sigmoid unit has two classes, as in `Binary`; a single unit with no sigmoid has none, and is
    explained as it is.

    Attributes:
        index: class, an int or one per image `(N,)`; by default each image's own predicted class.
    """

    index: Any = None

    def score(self, outputs, logits):
        if logits.shape.rank != 2:
            raise ValueError(
                "`target`, None or a class, needs a model that returns (N, classes). Received: outputs of "
                f"shape {tuple(logits.shape)}. Give a callable outputs -> (N,) that says what to explain."
            )
        if logits.shape[-1] == 1:
            has_sigmoid = logits is not outputs
            return Binary(self.index).score(outputs, logits) if has_sigmoid else (logits[:, 0], None)
        best = tf.argmax(logits, axis=-1, output_type=tf.int32)
        index = tf.where(self.index == _PREDICTED, best, self.index)
        return _pick(logits, index), index

    def limit(self, outputs) -> int | None:
        return 2 if outputs.shape[-1] == 1 else outputs.shape[-1]


class Binary(NamedTuple):
    """One side of a single unit that says yes or no: its logit for side 1, minus its logit for side 0.

    Attributes:
        index: side, 0 or 1 or one per image `(N,)`; by default the side each image falls on.
    """

    index: Any = None

    def score(self, outputs, logits):
        if logits.shape.rank != 2 or logits.shape[-1] != 1:
            raise ValueError(
                "Binary as `target` needs a model that returns (N, 1). "
                f"Received: outputs of shape {tuple(logits.shape)}. Give a class instead."
            )
        logit = logits[:, 0]
        index = tf.where(self.index == _PREDICTED, tf.cast(logit > 0, tf.int32), self.index)
        return tf.where(index == 1, logit, -logit), index

    def limit(self, outputs) -> int | None:
        return 2


class Value(NamedTuple):
    """The raw output of one unit, just as the model returns it: a regression, or a probability as such.

    Attributes:
        index: unit, an int or one per image `(N,)`; by default the first.
    """

    index: Any = 0

    def score(self, outputs, logits):
        if outputs.shape.rank != 2:
            raise ValueError(
                "Value as `target` needs a model that returns (N, units). Received: outputs of shape "
                f"{tuple(outputs.shape)}. Give a callable outputs -> (N,) that says what to explain."
            )
        return _pick(outputs, self.index), None

    def limit(self, outputs) -> int | None:
        return outputs.shape[-1]


def _pick(values, index):
    """Return `values[i, index[i]]` for each image i. A one-hot product would hide an index out of range."""
    return tf.gather_nd(values, tf.stack([tf.range(tf.shape(values)[0]), index], axis=-1))


def per_image(target: Any, count: Any) -> Any:
    """Return `target` as a target of arrays or tensors, one row for each of `count` images.

    Args:
        target: `None`, an int, a sequence of ints, a target, or a callable (returned as it is).
        count: how many images there are; a tensor while a graph is being traced.

    Raises:
        TypeError: if `target` is none of these.
        ValueError: if there isn't one class for each image, or a class is negative.
    """
    if isinstance(target, type):
        raise _no_target(target)
    if callable(target):
        return target
    if not hasattr(target, "score"):
        target = Class(target)
    if not isinstance(target, tuple) or (isinstance(target, Value) and target.index is None):
        raise _no_target(target)
    if hasattr(target, "limit"):
        target = target._replace(index=_index(target.index))
    return type(target)(*(_rows(field, count) for field in target))


def _index(index):
    """Return the index of a target as integers: an array, or a tensor where it is one."""
    if index is None:
        return np.int32(_PREDICTED)
    if tf.is_tensor(index) and not hasattr(index, "numpy"):
        return index  # Symbolic: what it holds is not known yet.
    try:
        index = np.asarray(index)
    except ValueError as error:  # a ragged list
        raise _no_target(index) from error
    if index.dtype.kind not in "iu":
        raise _no_target(index)
    if index.ndim > 1:
        raise ValueError(f"`target` must be one class, or one for each image. Received: shape {index.shape}")
    if np.any(index < 0):
        raise ValueError(f"`target` must not be negative. Received: {index.min()}")
    # What int32 can't hold is out of range for any model.
    return np.minimum(index.astype(np.uint64), 2**31 - 1).astype(np.int32)


def _no_target(target) -> TypeError:
    return TypeError(
        "`target` must be None, a class (int), one class per image, a target such as "
        f"tf_gradcam.targets.Value(), or a callable outputs -> (N,). Received: target={target!r:.80}"
    )


def _rows(field, count):
    if tf.is_tensor(field):
        rows = tf.cast(field, tf.int32) if field.dtype.is_integer else field
    else:
        rows = np.asarray(field)
    if len(rows.shape) == 0:
        known = isinstance(count, int) and isinstance(rows, np.ndarray)
        return np.full(count, rows) if known else tf.fill([count], rows)
    if isinstance(count, int) and rows.shape[0] != count:
        raise ValueError(
            f"`target` must hold one class for each of the {count} images. Received: {rows.shape[0]} classes"
        )
    return rows


def score(target: Any, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Return the score `(N,)` of `target`, and the class index `(N,)` it belongs to or `None`."""
    if callable(target):
        value, index = target(outputs), None
    else:
        value, index = target.score(_only(outputs), _only(logits))
    if not tf.is_tensor(value) or value.shape.rank != 1:
        raise ValueError(
            "`target` must return one number per image, a tensor (N,). "
            f"Received: {getattr(value, 'shape', type(value).__name__)}"
        )
    return value, index


def _only(outputs):
    """Return the one output of a model that may pack it in a list."""
    flat = tf.nest.flatten(outputs)
    if len(flat) != 1:
        raise ValueError(
            f"`target` must be a callable outputs -> (N,) for a model with {len(flat)} outputs. "
            "Pick what to explain: target=lambda outputs: outputs[0][:, 3]"
        )
    return flat[0]


def check_range(target: Any, index: Any, outputs: Any) -> None:
    """Raise a `ValueError` if a class of `target` is not one of the model's.

    Args:
        target: as `per_image` returns it.
        index: the class index that the target's score belongs to, or `None` where it belongs to none.
        outputs: what the model returned, or specs of it.
    """
    if not hasattr(target, "limit") or (tf.is_tensor(target.index) and not hasattr(target.index, "numpy")):
        return
    given = np.asarray(target.index)
    if isinstance(target, Class) and index is None and np.any(given != _PREDICTED):
        raise ValueError(
            "`target` is a class, but the model has a single unit and no sigmoid. "
            f"Received: target={given[0]}. Say targets.Value() for what the unit returns, "
            "targets.Binary(1) or targets.Binary(0) for a yes or no."
        )
    limit = target.limit(_only(outputs))
    wrong = given[given >= limit]
    if len(wrong):
        raise ValueError(f"`target` must be a class from 0 to {limit - 1}. Received: target={wrong[0]}")

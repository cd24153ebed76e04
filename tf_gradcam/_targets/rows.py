"""Prepare a target for the compiled function: checked, with one row for each image.

The arrays in a target go into the compiled function as arguments, so that other numbers never trace anew.
Called by the explainer before and while it traces.
"""

import inspect
import weakref
from collections.abc import Hashable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._checks import is_whole
from tf_gradcam._targets.boxes import Box, Detection
from tf_gradcam._targets.classes import (
    Against,
    Binary,
    Class,
    Classes,
    Contrast,
    Output,
    Pixel,
    Probability,
    Similarity,
    TopClasses,
    Value,
)
from tf_gradcam._targets.outputs import PREDICTED, OutputName, find_output, only_output
from tf_gradcam._targets.regions import Region, check_mask

TARGETS = (
    *(Class, Classes, TopClasses, Binary, Probability, Value, Output, Similarity, Contrast, Against),
    *(Region, Pixel, Detection, Box),
)

# The fields of numbers: what to call one image's, and how many axes it has.
_WHOLE = {"index": ("class", 0), "other": ("class", 0), "indices": ("row of classes", 1)}


_WHOLE |= {"anchor": ("box", 0), "position": ("position", 1)}


_REAL = {"reference": ("reference", 1), "box": ("box", 1)}
_CORNERS = "corners (x1, y1, x2, y2) with x1 < x2 and y1 < y2"


def to_rows(target: Any, count: Any, names: Sequence[str] | None = None) -> Any:
    """Return `target` as a target of arrays or tensors, one row for each of `count` images.

    Only a mask stays as it is, for all images or one for each: the grid will tell.

    Args:
        target: `None`, an int, a sequence of ints, a target, or a callable (returned as it is).
        count: how many images there are; a tensor while a graph is being traced.
        names: what the model calls its outputs, in the order of `keras.tree.flatten`.

    Raises:
        TypeError: if `target` is none of these, or a field of the wrong type.
        ValueError: if there isn't one row for each image, or no model has what it holds.
    """
    if callable(target) and not isinstance(target, type):
        return target
    if not isinstance(target, TARGETS):
        target = Class(target)
    return type(target)(*(_field(target, name, count, names) for name in target._fields))


def _field(target, name, count, names):
    value = getattr(target, name)
    if name == "target":  # The model's names are those of its outputs, and not of what is inside one.
        return to_rows(value, count, None if isinstance(target, Output) else names)
    if name == "name":
        if isinstance(value, OutputName):
            return value
        return OutputName(_checked_name(value), tuple(names or ()))
    if name == "count":
        return _checked_count(value)
    if value is None and target._field_defaults.get(name, 0) is None:
        return _rows(np.array(PREDICTED, np.int32), count, "class", 0) if name in _WHOLE else None
    if name == "split":
        if not callable(value):
            raise TypeError(f"`target` must have a callable as split. Received: split={value!r:.80}")
        return value
    if name in _WHOLE:
        return _rows(_whole(name, value), count, *_WHOLE[name])
    value = _real(name, value)
    return value if name == "mask" else _rows(value, count, *_REAL[name])


def _checked_name(name):
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise TypeError(f"`target` must name an output by a str or a position. Received: name={name!r:.80}")
    return name


def _checked_count(count):
    if not is_whole(count) or count < 1:
        raise ValueError(f"`target` must ask for 1 class or more. Received: count={count!r:.80}")
    return int(count)


def _whole(name, value):
    """Return whole numbers as int32: an array, or a tensor where what it holds is not known yet."""
    if _is_symbolic(value) and value.dtype.is_integer:
        return tf.cast(value, tf.int32)
    value = _array(name, value, "iu")
    if np.any(value < 0):
        raise ValueError(f"`target` must not be negative. Received: {name}={value.min()}")
    # What int32 can't hold is out of range for any model.
    return np.minimum(value.astype(np.uint64), 2**31 - 1).astype(np.int32)


def _real(name, value):
    """Return real numbers as float32: an array, or a tensor, which is not read back from its device."""
    if tf.is_tensor(value) and (value.dtype.is_floating or value.dtype.is_integer or value.dtype.is_bool):
        if name == "box" and value.shape[-1:] != [4]:
            raise ValueError(f"The box of `target` must be {_CORNERS}. Received: shape {value.shape}")
        return tf.cast(value, tf.float32)
    with np.errstate(over="ignore"):
        value = _array(name, value, "fiub").astype(np.float32)
    right = value.size > 0 and np.isfinite(value).all()
    if name == "mask":
        rule = "hold weights of 0 or more, not all 0"
        right = right and value.min() >= 0 and value.any()
    elif name == "reference":
        rule = "not be all 0, nor infinite"
        right = right and value.any(axis=-1).all()
    else:
        rule = f"be {_CORNERS}"
        right = right and value.shape[-1:] == (4,) and np.all(value[..., :2] < value[..., 2:])
    if not right:
        raise ValueError(f"The {name} of `target` must {rule}. Received: {name}={value!r:.80}")
    return value


def _is_symbolic(value) -> bool:
    return tf.is_tensor(value) and not hasattr(value, "numpy")


def _array(name, value, kinds) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (ValueError, NotImplementedError) as error:  # a ragged list; a symbolic tensor of fractions
        raise _no_target(name, value) from error
    if array.dtype.kind not in kinds:
        raise _no_target(name, value)
    return array


def _is_one_hot(values) -> bool:
    """Return whether every row of `values` `(N, classes)` is 1 for one class and 0 for all others."""
    values = np.asarray(values) if hasattr(values, "numpy") or isinstance(values, np.ndarray) else np.zeros(0)
    is_binary = values.ndim == 2 and values.shape[-1] > 1 and bool(np.isin(values, (0, 1)).all())
    return is_binary and bool((values.sum(axis=-1) == 1).all())


def _no_target(name, value) -> TypeError:
    if name == "index" and _is_one_hot(value):
        return TypeError(
            "`target` must be None, a class (int), or one class per image. Received: a one-hot array of "
            f"shape {np.shape(value)}. Give the classes: target.argmax(axis=-1)."
        )
    if name == "index":
        return TypeError(
            "`target` must be None, a class (int), one class per image, a target such as "
            f"tf_gradcam.targets.Value(), or a callable outputs -> (N,). Received: target={value!r:.80}"
        )
    kind = "whole" if name in _WHOLE else "real"
    return TypeError(f"`target` must have {kind} numbers as its {name}. Received: {name}={value!r:.80}")


def _rows(values, count, what, axes):
    """Return `values` with a row, of so many axes, for each image."""
    shape = tuple(values.shape)
    if len(shape) == axes:
        if isinstance(count, int) and not tf.is_tensor(values):
            return np.broadcast_to(values, (count, *shape))
        return tf.broadcast_to(values, [count, *shape])
    if len(shape) != axes + 1 or 0 in shape[1:]:
        hint = " Of one-hot targets, give the classes: target.argmax(axis=-1)." if _is_one_hot(values) else ""
        raise ValueError(
            f"`target` must be one {what}, or one for each image. Received: shape {shape}.{hint}"
        )
    if isinstance(count, int) and shape[0] not in (None, count):
        raise ValueError(
            f"`target` must hold one {what} for each of the {count} images. Received: {shape[0]}"
        )
    return values


def _is_array(leaf) -> bool:
    return tf.is_tensor(leaf) or isinstance(leaf, np.ndarray)


def target_arrays(target: Any) -> list:
    """Return the arrays in `target`, as `to_rows` returned it, flat."""
    return list(filter(_is_array, tf.nest.flatten(target)))


def with_arrays(target: Any, arrays: Sequence[Any]) -> Any:
    """Return `target` with `arrays` in the place of those that `target_arrays` returns."""
    rest = iter(arrays)
    return tf.nest.map_structure(lambda leaf: next(rest) if _is_array(leaf) else leaf, target)


def holds_callable(target: Any) -> bool:
    """Return whether `target` is a callable, or has one in it."""
    return any(map(callable, tf.nest.flatten(target)))


def trace_key(target: Any) -> Hashable:
    """Return a key of what a target traces anew for: all of it but its numbers. It keeps no callable alive.

    Raises:
        TypeError: if a callable in it isn't hashable.
    """
    if isinstance(target, TARGETS):
        return type(target), *map(trace_key, target)
    if _is_array(target):
        return tf.as_dtype(target.dtype), tuple(target.shape[1:])
    if not callable(target):
        return target
    reference = weakref.WeakMethod if inspect.ismethod(target) else weakref.ref
    weak = reference(target) if type(target).__weakrefoffset__ else target
    try:
        hash(weak)
    except TypeError as error:
        raise TypeError(
            f"`target` must be hashable if it is a callable. Received: {target!r:.80}. "
            "A dataclass is, when it is frozen."
        ) from error
    return weak


def refers_to_dead_callable(key: Hashable) -> bool:
    """Return whether a callable in the target of this `trace_key` was deleted since."""
    return any(isinstance(leaf, weakref.ref) and leaf() is None for leaf in tf.nest.flatten(key))


def check_range(target: Any, index: Any, outputs: Any) -> None:
    """Raise a `ValueError` if the model has no such class, pixel or box as `target` holds.

    Args:
        target: as `to_rows` returns it. What is symbolic in it is not checked.
        index: the class index that the target's score belongs to, or `None` where it belongs to none.
        outputs: what the model returned, or specs of it.
    """
    if isinstance(target, Output):
        outputs = find_output(target.name, outputs)
    if isinstance(target, Output | Against):
        return check_range(target.target, index, outputs)
    for name in () if callable(target) else target._fields:
        if name in _WHOLE and not _is_symbolic(getattr(target, name)):
            _check_numbers(target, name, index, outputs)
    if isinstance(target, Region) and target.mask is not None and not _is_symbolic(target.mask):
        check_mask(target.mask, only_output(outputs), target.index.shape[0])
    is_known = isinstance(target, Contrast) and not any(map(_is_symbolic, target))
    if is_known and np.any((target.index == target.other) & (target.index != PREDICTED)):
        raise ValueError(f"`target` must be two classes. Received: {target}. Leave `other` out.")
    return None


def _check_numbers(target, name, index, outputs) -> None:
    given = np.asarray(getattr(target, name))
    what = "class" if "class" in _WHOLE[name][0] else _WHOLE[name][0]
    is_class = what == "class" and not isinstance(target, Value)
    if is_class and index is None and np.any(given != PREDICTED):
        raise ValueError(
            "`target` is a class, but the model has a single unit and no sigmoid. "
            f"Received: target={given[0]}. Say targets.Value() for what the unit returns, "
            "targets.Binary(1) or targets.Binary(0) for a yes or no."
        )
    limits = [2**31 - 1 if limit is None else limit for limit in _limits(target, name, outputs)]
    given = given.reshape(-1, len(limits))
    wrong = given[np.any(given >= limits, axis=1)].tolist()
    if wrong:
        ends: list[Any] = [[0] * len(limits), [limit - 1 for limit in limits], wrong[0]]
        first, last, received = ends if len(limits) > 1 else (each[0] for each in ends)
        name = "target" if name == "index" else name
        raise ValueError(f"`target` must be a {what} from {first} to {last}. Received: {name}={received}")


def _limits(target, name, outputs) -> list[int | None]:
    """Return how many classes, boxes or, for each axis, pixels there are."""
    flat = keras.tree.flatten(outputs)
    if isinstance(target, Detection | Box):
        if target.split is not None:
            return [None]
        return [flat[0].shape[1] if name == "anchor" else sum(each.shape[-1] for each in flat) - 4]
    shape = tuple(only_output(outputs).shape)
    if name == "position":
        return list(shape[1:-1])
    return [2 if shape[-1] == 1 and not isinstance(target, Value) else shape[-1]]

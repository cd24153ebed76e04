"""Prepare a target for the compiled function: check it, and give it one row for each image.

The arrays in a target are arguments of the compiled function, so that other numbers need no new trace.
Called by the explainer before and while it traces.
"""

import inspect
import weakref
from collections.abc import Hashable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._arrays import array_or_empty, real_array
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
from tf_gradcam._tensors import check_has_values, tensor_of_variable

TARGETS = (
    *(Class, Classes, TopClasses, Binary, Probability, Value, Output, Similarity, Contrast, Against),
    *(Region, Pixel, Detection, Box),
)

# Fields of integers and of real numbers -> (name of one image's entry in an error, number of its axes).
_INTEGER_FIELDS = {"index": ("class", 0), "other": ("class", 0), "indices": ("row of classes", 1)}
_INTEGER_FIELDS |= {"anchor": ("box", 0), "position": ("position", 1)}
_REAL_FIELDS = {"reference": ("reference", 1), "box": ("box", 1)}
_OUT_OF_RANGE = 2**31 - 1  # for any model; also what int32 can't hold
_MOST_NUMBERS = 2**31
_CORNERS = "corners (x1, y1, x2, y2) with x1 < x2 and y1 < y2"


def to_rows(target: Any, count: Any, names: Sequence[str] | None = None) -> Any:
    """Return `target` as a target of arrays or tensors, with one row for each of `count` images.

    Only a mask is not changed: whether it is one mask or one for each image depends on the grid.

    Args:
        target: `None`, an int, a sequence of ints, a target, or a callable (returned unchanged).
        count: number of images; a tensor while a graph is being traced.
        names: the model's names of its outputs, in the order of `keras.tree.flatten`.

    Raises:
        TypeError: if `target` is none of these, or a field has the wrong type.
        ValueError: if there is not one row for each image, or a field has a value that no model can have.
    """
    if callable(target) and not isinstance(target, type):
        return target
    if not isinstance(target, TARGETS):
        target = Class(target)
    return type(target)(*(_prepared_field(target, name, count, names) for name in target._fields))


def _prepared_field(target, name, count, names):
    value = getattr(target, name)
    if name == "target":  # The names are those of the model's outputs, not of the tensors inside one.
        return to_rows(value, count, None if isinstance(target, Output) else names)
    if name == "name":
        if isinstance(value, OutputName):
            return value
        return OutputName(_checked_name(value), tuple(names or ()))
    if name == "count":
        return _checked_count(value)
    if value is None and target._field_defaults.get(name, 0) is None:
        if name not in _INTEGER_FIELDS:
            return None
        return _one_row_per_image(np.array(PREDICTED, np.int32), count, "class", 0)
    if name == "split":
        if not callable(value):
            raise TypeError(f"`target` must have a callable as split. Received: split={value!r:.80}")
        return value
    if name in _INTEGER_FIELDS:
        return _one_row_per_image(_integer_array(name, value), count, *_INTEGER_FIELDS[name])
    value = _real_array(name, value)
    return value if name == "mask" else _one_row_per_image(value, count, *_REAL_FIELDS[name])


def _checked_name(name):
    if not isinstance(name, str) and not is_whole(name):
        raise TypeError(f"`target` must name an output by a str or a position. Received: name={name!r:.80}")
    return name if isinstance(name, str) else int(name)


def _checked_count(count):
    if not is_whole(count) or count < 1:
        raise ValueError(f"`target` must ask for 1 class or more. Received: count={count!r:.80}")
    return int(count)


def _integer_array(name, value):
    """Return integers as int32: an array, or a tensor if it is symbolic."""
    if _is_symbolic(value) and value.dtype.is_integer:
        check_has_values("target", value)
        value = tf.cast(value, tf.int64)  # uint64 above its range becomes negative
        is_possible = (value >= 0) & (value < _OUT_OF_RANGE)
        return tf.cast(tf.where(is_possible, value, _OUT_OF_RANGE), tf.int32)
    value = _as_array(name, value, "iu")
    if np.any(value < 0):
        raise ValueError(f"`target` must not be negative. Received: {name}={value.min()}")
    return np.minimum(value.astype(np.uint64), _OUT_OF_RANGE).astype(np.int32)


def _real_array(name, value):
    """Return real numbers as float32: an array, or a tensor, which is not copied from its device."""
    value = tensor_of_variable(value)
    check_has_values("target", value)
    if tf.is_tensor(value) and (value.dtype.is_floating or value.dtype.is_integer or value.dtype.is_bool):
        if name == "box" and value.shape[-1:] != [4]:
            raise ValueError(f"The box of `target` must be {_CORNERS}. Received: shape {value.shape}")
        return tf.cast(value, tf.float32)
    value = _as_array(name, value, "fiub")
    if value.size > _MOST_NUMBERS:  # before it is copied
        raise ValueError(f"The {name} of `target` must fit the outputs. Received: shape {value.shape}")
    with np.errstate(over="ignore"):
        value = value.astype(np.float32)
    is_valid = value.size > 0 and np.isfinite(value).all()
    if name == "mask":
        rule = "hold weights of 0 or more, not all 0"
        is_valid = is_valid and value.min() >= 0 and value.any()
    elif name == "reference":
        rule = "be finite and not all 0"
        is_valid = is_valid and value.any(axis=-1).all()
    else:
        rule = f"be {_CORNERS}"
        is_valid = is_valid and value.shape[-1:] == (4,) and np.all(value[..., :2] < value[..., 2:])
    if not is_valid:
        raise ValueError(f"The {name} of `target` must {rule}. Received: {name}={value!r:.80}")
    return value


def _is_symbolic(value) -> bool:
    return tf.is_tensor(value) and not hasattr(value, "numpy")


def _as_array(name, value, kinds) -> np.ndarray:
    try:
        array = real_array("target", value)
    except TypeError as error:
        raise _wrong_type_error(name, value) from error
    if array.dtype.kind not in kinds:
        raise _wrong_type_error(name, value)
    return array


def _one_hot_hint(value) -> str:
    """Return advice for a one-hot vector, or a batch of them, in place of classes; else `""`."""
    if _is_symbolic(value) or not isinstance(value, np.ndarray | list | tf.Tensor):
        return ""
    array = array_or_empty(value)
    is_binary = array.ndim in (1, 2) and array.shape[-1] > 1 and bool(np.isin(array, (0, 1)).all())
    if not is_binary or not bool((array.sum(axis=-1) == 1).all()):
        return ""
    return " For a one-hot target, give the class: np.argmax(target, axis=-1)."


def _wrong_type_error(name, value) -> TypeError:
    if name == "index":
        hint = _one_hot_hint(value)
        if isinstance(value, str):
            hint = f" For a label, give its class: labels.index({value!r:.40})."
        return TypeError(
            "`target` must be None, a class (int), one class per image, a target such as tf_gradcam.targets."
            f"Value(), or a callable outputs -> (N,). Received: target={value!r:.80}.{hint}"
        )
    kind = "whole" if name in _INTEGER_FIELDS else "real"
    return TypeError(f"`target` must have {kind} numbers as its {name}. Received: {name}={value!r:.80}")


def _one_row_per_image(values, count, entry, axes):
    """Return `values` with one row for each image; the row of one image has `axes` axes."""
    shape = tuple(values.shape)
    if len(shape) == axes:
        if isinstance(count, int) and not tf.is_tensor(values):
            return np.broadcast_to(values, (count, *shape))
        return tf.broadcast_to(values, [count, *shape])
    if len(shape) != axes + 1 or 0 in shape[1:]:
        raise ValueError(
            f"`target` must be one {entry}, or one for each image. Received: shape {shape}."
            f"{_one_hot_hint(values)}"
        )
    if isinstance(count, int) and shape[0] not in (None, count):
        raise ValueError(
            f"`target` must hold one {entry} for each of the {count} images. Received: {shape[0]}."
            f"{_one_hot_hint(values)}"
        )
    if _is_symbolic(values) and not (isinstance(count, int) and shape[0]):
        rule = f"`target` must hold one {entry} for each image."  # One row would be taken for all images.
        check = tf.debugging.assert_equal(tf.shape(values)[0], count, rule)
        with tf.control_dependencies([] if check is None else [check]):
            return tf.identity(values)
    return values


def _is_array(leaf) -> bool:
    return tf.is_tensor(leaf) or isinstance(leaf, np.ndarray)


def target_arrays(target: Any) -> list:
    """Return a flat list of the arrays in `target`, which `to_rows` returned."""
    return list(filter(_is_array, tf.nest.flatten(target)))


def with_arrays(target: Any, arrays: Sequence[Any]) -> Any:
    """Return `target` with its arrays, those that `target_arrays` returns, replaced by `arrays`."""
    remaining = iter(arrays)
    return tf.nest.map_structure(lambda leaf: next(remaining) if _is_array(leaf) else leaf, target)


def holds_callable(target: Any) -> bool:
    """Return whether `target` is a callable, or contains one."""
    return any(map(callable, tf.nest.flatten(target)))


def trace_key(target: Any) -> Hashable:
    """Return a key that is equal for targets that share a trace: all of a target except its numbers.

    It holds weak references to callables.

    Raises:
        TypeError: if a callable in the target is not hashable.
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
            "A dataclass is hashable if it is frozen."
        ) from error
    return weak


def refers_to_dead_callable(key: Hashable) -> bool:
    """Return whether a callable in the target of this `trace_key` has been deleted."""
    return any(isinstance(leaf, weakref.ref) and leaf() is None for leaf in tf.nest.flatten(key))


def check_range(target: Any, index: Any, outputs: Any) -> None:
    """Raise a `ValueError` if a class, pixel or box of `target` is out of range for the model.

    Args:
        target: target as `to_rows` returns it. Symbolic tensors in it are not checked.
        index: class index that the target's score belongs to, or `None`.
        outputs: outputs of the model, or their specs.
    """
    if isinstance(target, Output):
        outputs = find_output(target.name, outputs)
    if isinstance(target, Output | Against):
        return check_range(target.target, index, outputs)
    for name in () if callable(target) else target._fields:
        if name in _INTEGER_FIELDS and not _is_symbolic(getattr(target, name)):
            _check_limits(target, name, index, outputs)
    if isinstance(target, Region) and target.mask is not None and not _is_symbolic(target.mask):
        check_mask(target.mask, only_output(outputs), target.index.shape[0])
    is_known = isinstance(target, Contrast) and not any(map(_is_symbolic, target))
    if is_known and np.any((target.index == target.other) & (target.index != PREDICTED)):
        raise ValueError(f"`target` must be two different classes. Received: {target}. Leave `other` out.")
    return None


def _check_limits(target, name, index, outputs) -> None:
    given = np.asarray(getattr(target, name))
    entry = "class" if "class" in _INTEGER_FIELDS[name][0] else _INTEGER_FIELDS[name][0]
    is_class = entry == "class" and not isinstance(target, Value)
    if is_class and index is None and np.any(given != PREDICTED):
        raise ValueError(
            "`target` is a class, but the model has a single unit and no sigmoid. "
            f"Received: target={given[0]}. Give targets.Value() for the output of the unit, "
            "or targets.Binary(1) or targets.Binary(0) for a yes or no."
        )
    limits = [2**31 - 1 if limit is None else limit for limit in _limits(target, name, outputs)]
    given = given.reshape(-1, len(limits))
    wrong = given[np.any(given >= limits, axis=1)].tolist()
    if wrong:
        bounds: list[Any] = [[0] * len(limits), [limit - 1 for limit in limits], wrong[0]]
        first, last, received = bounds if len(limits) > 1 else (bound[0] for bound in bounds)
        name = "target" if name == "index" else name
        raise ValueError(f"`target` must be a {entry} from {first} to {last}. Received: {name}={received}")


def _limits(target, name, outputs) -> list[int | None]:
    """Return the number of classes, boxes or, for each axis, pixels; `None` if it is not known."""
    flat = keras.tree.flatten(outputs)
    if isinstance(target, Detection | Box):
        if target.split is not None:
            return [None]
        return [flat[0].shape[1] if name == "anchor" else sum(output.shape[-1] for output in flat) - 4]
    shape = tuple(only_output(outputs).shape)
    if name == "position":
        return list(shape[1:-1])
    return [2 if shape[-1] == 1 and not isinstance(target, Value) else shape[-1]]

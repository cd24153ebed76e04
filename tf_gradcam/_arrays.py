"""Turn what a user gives into a NumPy array of real numbers, or say what is wrong with it: `real_array`.

Called wherever images, heatmaps, masks, references or volumes come in; `is_channels_first` where these have
axes, `check_whole_numbers` before a cast, `expected_shapes` for errors. It never imports TensorFlow.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

_AN_ARRAY = "an array or tensor of real numbers"


def real_array(name: str, value: Any, expected: str = _AN_ARRAY) -> np.ndarray:
    """Return `value` as an array of bool, integers, float16, float32 or float64; not a copy where possible.

    The dtypes of `ml_dtypes`, such as bfloat16, become float32, and NumPy's longdouble becomes float64.

    Args:
        name: the caller's argument, for errors.
        value: an array or tensor, or numbers in nested lists.
        expected: what the argument must be, for errors.

    Raises:
        TypeError: if it does not hold real numbers.
        ValueError: if values in it are masked.
    """
    _check_mask(name, value)
    try:
        array = np.asarray(value)
    except Exception as error:  # An unknown type may raise anything.
        is_ragged = "inhomogeneous" in str(error)
        hint = "Its parts differ in shape." if is_ragged else f"{error!s:.160}"
        raise _wrong_type_error(name, value, expected, f" {hint}") from error
    if array.dtype.type.__module__ == "ml_dtypes":
        return array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        is_sparse = hasattr(value, "toarray")
        hint = " Give a dense array: .toarray()." if is_sparse else f" Its dtype is {array.dtype!s:.80}."
        raise _wrong_type_error(name, value, expected, hint)
    if array.dtype.itemsize > 8:
        with np.errstate(over="ignore"):
            return array.astype(np.float64)
    return array


def array_or_empty(value: Any) -> np.ndarray:
    """Return what `real_array` does, or an empty array if it refuses: for arguments of a few numbers."""
    try:
        return real_array("value", value)
    except (TypeError, ValueError):
        return np.zeros(0)


def is_channels_first(shape: Sequence[int | None], unknown: bool = False) -> bool:
    """Return whether the channel axis comes right after the batch axis in the shape of a batch of images.

    Args:
        shape: shape of the images, with the batch axis.
        unknown: value to return if the shape is not clear: if both ends or neither may be channels.
    """
    usual = (1, 3, 4)
    is_clear = len(shape) == 4 and (shape[1] in usual) != (shape[-1] in usual)
    return shape[1] in usual if is_clear else unknown


def expected_shapes(ranks: Sequence[int]) -> str:
    """Return in words the shapes of inputs with these numbers of axes, the batch axis among them."""
    if ranks == [4]:
        return "an image (H, W, C) or a batch (N, H, W, C)"
    shapes = [f"({', '.join(['N', *'ABCDEFG'[: rank - 1]])})" for rank in ranks]
    return f"{' and '.join(shapes)}, or without the batch axis N"


def check_whole_numbers(name: str, values: np.ndarray, limits: np.iinfo) -> None:
    """Raise a `ValueError` unless a cast to the integer dtype of a model's input changes none of the values.

    Args:
        name: the caller's argument, for errors.
        values: the images.
        limits: the `numpy.iinfo` of the dtype.
    """
    if values.dtype.kind not in "iub":
        values = values.astype(np.float64)
    if not np.isfinite(values).all():
        received = "NaN or infinity"
    elif values.dtype.kind == "f" and np.any(values % 1):
        received = "fractions"
    elif values.min() < limits.min or values.max() > limits.max:
        received = f"values from {values.min():g} to {values.max():g}"
    else:
        return
    raise ValueError(
        f"`{name}` must hold whole numbers, as the model takes {limits.dtype.name}: from {limits.min} to "
        f"{limits.max}. Received: {received}."
    )


def _check_mask(name, value) -> None:
    """Raise a `ValueError` if values are masked: NumPy would take what is below the mask."""
    if isinstance(value, list | tuple):
        for item in value:
            if isinstance(item, list | tuple | np.ma.MaskedArray):
                _check_mask(name, item)
    elif isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(
            f"`{name}` must have a number everywhere. Received: a masked array, {np.ma.count_masked(value)} "
            f"of {value.size} values of which are masked. Say what they count as: array.filled(value)."
        )


def _wrong_type_error(name, value, expected, hint) -> TypeError:
    received = f"{' '.join(repr(value).split()):.80} (of type {type(value).__name__})"
    return TypeError(f"`{name}` must be {expected}. Received: {received}.{hint}")

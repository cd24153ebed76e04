"""Turn what a user gives into a NumPy array of real numbers, or say what is wrong with it: `real_array`.

Called wherever images, heatmaps, masks, references or volumes come in; `is_channels_first` where these have
axes, `check_whole_numbers` before a cast, `rank_error`, `shape_error` and `prepared_shape_error` for shapes
that don't fit a model, `check_no_data_set` and `check_no_paths` for what is no array. It never imports
TensorFlow.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

Shape = Sequence[int | None]

READ_ALL = "np.stack([tf_gradcam.load_image(path, size=(height, width)) for path in paths])"
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


def rank_error(name: str, given: Sequence[Shape], expected: Sequence[Shape]) -> ValueError:
    """Return the error for inputs with another number of axes than the model's.

    Args:
        name: the caller's argument.
        given: the shape of each array, as the caller gave it.
        expected: the shape of each input, with the batch axis; `None` for an open length.
    """
    ranks = [len(shape) for shape in expected]
    if ranks == [4]:
        wanted = "an image (H, W, C) or a batch (N, H, W, C)"
    else:
        shapes = [f"({', '.join(['N', *'ABCDEFG'[: rank - 1]])})" for rank in ranks]
        wanted = f"{' and '.join(shapes)}, or without the batch axis N"
    received = " and ".join(f"shape {tuple(shape)}" for shape in given)
    hint = _axes_hint(name, tuple(given[0]), tuple(expected[0])) if len(given) == len(expected) == 1 else ""
    return ValueError(f"`{name}` must be {wanted}. Received: {received}{hint and f'. {hint}'}")


def shape_error(name: str, given: Shape, expected: Shape, resize: str, several: bool = False) -> ValueError:
    """Return the error for an array that has not the shape that the model takes.

    Args:
        name: the caller's argument.
        given: shape of the array, as the caller gave it: with or without the batch axis.
        expected: shape of the input, with the batch axis; `None` for an open length.
        resize: what to do with an image of another size.
        several: whether the model takes several inputs, of which this is one.
    """
    given, expected = tuple(given), tuple(expected)
    hint = _shape_hint("array" if several else name, given, expected)
    if not hint:
        hint = resize if len(expected) == 4 else "Crop or resample it first."
    return ValueError(
        f"`{name}` must have the shape that the model takes, {expected}. Received: {given}. {hint}"
    )


def prepared_shape_error(given: Shape, expected: Shape) -> ValueError:
    """Return the error for a shape that `preprocess` returned, traced for images of any number and size.

    Args:
        given: the shape, with the batch axis, which was added to what has an axis less than a batch.
        expected: shape of the input.
    """
    given, expected = tuple(given), tuple(expected)
    hint = ""
    if len(given) == len(expected) and given[-1] not in (1, 3, 4):
        lacks = not is_channels_first(expected) and _fits((*given[1:], 1), expected)
        hint = ". If `images` have no channel axis, add it: images[..., None]" if lacks else ""
    if not hint:
        channels = _shape_hint("images", given, expected)
        hint = channels and f". {channels}"
    return ValueError(f"`preprocess` must return what the model takes, {expected}. Received: {given}{hint}")


def _shape_hint(code, given, expected) -> str:
    """Return how an array gets the channels that the model takes, or `""` where these are right."""
    channels = _channels_hint(code, given, expected)
    at = -3 if is_channels_first(expected) else -1
    if _fits(_with_length(given, at, expected[at]), expected):
        return channels
    return _axes_hint(code, given, expected) or channels


def _axes_hint(code, given, expected) -> str:
    """Return how to add or to move the channel axis, if the array fits then, or `""`."""
    if len(expected) < 3:
        return ""
    if not is_channels_first(expected):
        if _fits((*given, 1), expected):
            return f"Add the channel axis: {code}[..., None]"
        if len(given) == len(expected) - 2 and expected[-1] == 3 and _fits((*given, 3), expected):
            return f"Add the channel axis, with grey three times: np.stack([{code}] * 3, -1)"
        at = len(given) - len(expected) + 1
        if at in (0, 1) and _fits((*given[:at], *given[at + 1 :], given[at]), expected):
            return f"Channels come last: np.moveaxis({code}, {at}, -1)"
        return ""
    at = len(given) - len(expected) + 2
    if at in (0, 1) and _fits((*given[:at], 1, *given[at:]), expected):
        return f"Add the channel axis: np.expand_dims({code}, {at})"
    at -= 1
    if at in (0, 1) and _fits((*given[:at], given[-1], *given[at:-1]), expected):
        return f"Channels come first: np.moveaxis({code}, -1, {at})"
    return ""


def _channels_hint(code, given, expected) -> str:
    """Return how to get the right number of channels, or `""` if it is right."""
    first = is_channels_first(expected)
    at = -3 if first else -1
    if len(given) < -at or expected[at] in (None, given[at]):
        return ""
    colours = f"{code}[..., :3, :, :]" if first else f"{code}[..., :3]"
    how = {
        (3, 1): f". Average the colours: {code}.mean({at}, keepdims=True)",
        (4, 1): f". Drop the alpha channel and average the colours: {colours}.mean({at}, keepdims=True)",
        (4, 3): f". Drop the alpha channel: {colours}",
        (1, 3): f". Repeat the grey one: np.repeat({code}, 3, {at})",
    }
    is_image = len(expected) == 4
    advice = how.get((given[at], expected[at]), ".") if is_image else "."
    count = "1 channel, and it comes" if expected[at] == 1 else f"{expected[at]} channels, and they come"
    return f"It must have {count} {'first' if first else 'last'}{advice}"


def _with_length(shape, at, length) -> tuple:
    """Return a shape with another length at an axis, if this holds 1, 3 or 4 channels."""
    if len(shape) < -at or shape[at] not in (1, 3, 4):
        return ()
    lengths = list(shape)
    lengths[at] = length
    return tuple(lengths)


def _fits(shape, expected) -> bool:
    """Return whether arrays of a shape fit what the model takes, with or without the batch axis."""
    if len(shape) == len(expected) - 1:
        expected = expected[1:]
    return len(shape) == len(expected) and all(
        None in pair or pair[0] == pair[1] for pair in zip(shape, expected, strict=True)
    )


def check_no_data_set(name: str, value: Any) -> None:
    """Raise a `TypeError` if `value` is a data set, or an element of one: images with their labels.

    Args:
        name: the caller's argument.
        value: what was given for one array.
    """
    take = "Take the images: for images, labels in dataset: cam(images); or tf_gradcam.explain_dataset."
    marks = ("element_spec", "on_epoch_end", "__next__")
    if any(hasattr(value, mark) for mark in marks) and not hasattr(value, "read"):
        raise TypeError(
            f"`{name}` must be an array or tensor. Received: a data set (of type {type(value).__name__}). "
            f"{take}"
        )
    if not isinstance(value, list | tuple) or len(value) not in (2, 3):
        return
    ranks = [rank for rank in map(_rank, value) if rank is not None]
    if len(ranks) == len(value) and ranks[0] >= 3 and max(ranks[1:]) <= 2:
        raise TypeError(
            f"`{name}` must be an array or tensor. Received: a {type(value).__name__} of images and labels, "
            f"as a data set yields them. {take}"
        )


def check_no_paths(name: str, value: Any) -> None:
    """Raise a `TypeError` if `value` is a path, bytes or a PIL image, or a list or array of these."""
    first = value
    if isinstance(value, np.ndarray):
        first = value.flat[0] if value.size else value
    elif isinstance(value, list | tuple) and value:
        first = value[0]
    if isinstance(first, str | bytes | os.PathLike) or hasattr(first, "getexif"):
        received = f"{value!r:.80} (of type {type(value).__name__})"
        raise TypeError(
            f"`{name}` must be an array of images. Received: {received}. Read them first: {READ_ALL}, and "
            "preprocess them as the model needs."
        )


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


def _rank(value) -> int | None:
    """Return the number of axes of an array or tensor; `None` for a list, or where it is not known."""
    try:
        return len(value.shape)
    except (AttributeError, TypeError, ValueError):
        return None


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

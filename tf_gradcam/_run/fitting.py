"""Fit what a file holds to a model's input: size and channels. `findings` and `serve-check` call it."""

from typing import Any

import cv2
import numpy as np

from tf_gradcam._arrays import is_channels_first
from tf_gradcam._images import resize_pixels, size_within

MODEL_INPUT_SIDE = 512  # longest side of a photograph, in pixels, for a model that has no fixed size
_VOLUME_SIDE = 256  # of a volume


def fit_to_spec(image: np.ndarray, spec: Any) -> np.ndarray:
    """Fit an image to a model's input spec: float32 `(1, h, w, C)`, or `(1, C, h, w)` if the spec is so.

    The values are the image's own: in [0, 255] if it is uint8, in [0, 4095] if it holds 12 bits. Where
    the spec leaves the size open, the image keeps its proportions, with at most
    `MODEL_INPUT_SIDE` pixels a side.

    Args:
        image: `(H, W, C)`. One channel is repeated for a model of three, and three become grey for a model
            of one.
        spec: the model's input spec.
    """
    shape, channels_first = _channels_last_shape(spec)
    if len(shape) != 4:
        raise ValueError(
            "`model` must take one photograph (N, H, W, 3) or (N, H, W, 1). Received: a model that takes "
            f"{spec}. Explain it in Python, with tf_gradcam.GradCAM."
        )
    _, *size, channels = shape
    own_size = size_within(image.shape[:2], MODEL_INPUT_SIDE)
    height, width = (fixed or own for fixed, own in zip(size, own_size, strict=True))
    values = fit_channels(_resize(image, (height, width)), channels, image)
    if channels_first:
        values = values.transpose(2, 0, 1)
    return _rounded(values[None].astype("float32"), image, spec)


def fit_volume_to_spec(volume: np.ndarray, spec: Any) -> np.ndarray:
    """Fit a volume `(D, H, W, C)` to a model's input spec, as `fit_to_spec` does: `(1, d, h, w, C)`."""
    shape, channels_first = _channels_last_shape(spec)
    _, *size, channels = shape
    own_size = size_within(volume.shape[:3], _VOLUME_SIDE)
    depth, height, width = (fixed or own for fixed, own in zip(size, own_size, strict=True))
    slices = np.stack([_resize(each, (height, width)) for each in volume])
    # The slices are rows of an image whose columns are the values of each slice.
    rows = slices.reshape(len(slices), -1).astype(np.float32)
    resized = np.concatenate(
        [resize_pixels(rows[:, part], (depth, part.stop - part.start)) for part in _parts(rows.shape[1])],
        axis=1,
    )
    values = fit_channels(resized.reshape(depth, height, width, -1), channels, volume)
    if channels_first:
        values = values.transpose(3, 0, 1, 2)
    return _rounded(values[None].astype("float32"), volume, spec)


def check_fits_dtype(values: Any, image: np.ndarray, spec: Any) -> None:
    """Raise a `ValueError` if a model takes whole numbers, and those of a photograph are none, or too large.

    Args:
        values: what the model is to get of it, preprocessed.
        image: the values of the file.
        spec: the model's input spec.
    """
    dtype = _integer_dtype(spec)
    if dtype is None:
        return
    values, limits = np.asarray(values), np.iinfo(dtype)
    is_whole = values.dtype.kind in "iub" or not np.any(values % 1)  # The remainder of NaN is NaN, and true.
    if is_whole and limits.min <= values.min() and values.max() <= limits.max:
        return
    if image.dtype == dtype:
        raise ValueError(
            f"`preprocess` must return what the model takes, {dtype}: whole numbers from {limits.min} to "
            f"{limits.max}. Received: values from {values.min():g} to {values.max():g}. Leave it out, as the "
            "model takes the pixels as they are."
        )
    raise ValueError(
        f"`model` must take what the photograph holds: it takes {dtype}, whole numbers from {limits.min} to "
        f"{limits.max}. Received: a photograph of {image.dtype} with values from {image.min():g} to "
        f"{image.max():g}. Convert it to {dtype}; or explain with a model of floating input, or a file "
        "exported from one without `preprocess`."
    )


def channels_of(spec: Any) -> int:
    """Return how many channels a model takes; 3 where it takes any number."""
    shape, _ = _channels_last_shape(spec)
    return (shape[-1] if len(shape) > 2 else None) or 3


def _channels_last_shape(spec) -> tuple[tuple, bool]:
    shape = tuple(getattr(spec, "shape", ()))
    if not is_channels_first(shape):
        return shape, False
    return (shape[0], *shape[2:], shape[1]), True


def _resize(image, size) -> np.ndarray:
    # Pixels of 8 bits are rounded when they are resized, as `load_image` does it; other values are not.
    values = image if image.dtype == np.uint8 else image.astype(np.float32)
    return resize_pixels(values, size)


def _rounded(values, image, spec) -> np.ndarray:
    """Return resized values, rounded where the file holds whole numbers and the model takes them."""
    is_whole = image.dtype.kind in "iub" and _integer_dtype(spec) is not None
    return np.rint(values) if is_whole else values


def _integer_dtype(spec) -> str | None:
    """Return the dtype that a model takes, if it is one of integers."""
    dtype = getattr(spec, "dtype", None)
    name = str(getattr(dtype, "name", dtype))
    return name if name.startswith(("int", "uint")) else None


def fit_channels(values: np.ndarray, channels: int | None, original: np.ndarray) -> np.ndarray:
    """Return values `(..., C)` with as many channels as the model takes.

    Args:
        values: what is fitted.
        channels: how many channels; `None` for any number.
        original: the values before they were resized, whose greys are told exactly.
    """
    count = values.shape[-1]
    if channels in (None, count):
        return values
    if count == 1 and channels == 3:
        return np.repeat(values, 3, axis=-1)
    if count == 3 and channels == 1:
        is_grey = (original == original[..., :1]).all()  # Then the values are not changed by the conversion.
        if is_grey:
            return values[..., :1]
        rows = np.ascontiguousarray(values).reshape(values.shape[0], -1, 3)
        return cv2.cvtColor(rows, cv2.COLOR_RGB2GRAY).reshape(*values.shape[:-1], 1)
    raise ValueError(
        f"`model` must take as many channels as the file has bands, {count}. Received: a model that takes "
        f"{channels}. Name as many: `bands`; or explain it in Python, with tf_gradcam.GradCAM."
    )


def _parts(length, most=16_384):
    """Yield slices of at most `most`: OpenCV takes no longer rows."""
    for start in range(0, length, most):
        yield slice(start, min(start + most, length))

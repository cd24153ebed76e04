"""Read a photograph from a path, bytes, a PIL image or an array: as RGB pixels, or as the values of its file.

Users call `load_image`, and every module that draws a photograph does. A run calls `read_values` for what a
model sees. `resize_pixels`, `size_within` and `check_size` are for other modules, too.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_gradcam import formats
from tf_gradcam._arrays import array_or_empty, real_array
from tf_gradcam._files import (
    MAX_PIXELS,
    OwnRange,
    PictureOptions,
    StoredImage,
    make_pixels,
    read_stored,
    take_bands,
    to_pixels,
)
from tf_gradcam._optional import require

_DEFAULT = PictureOptions()
_MOST_CHANNELS = 4  # that OpenCV averages over areas


def load_image(
    source: Any,
    size: tuple[int, int] | None = None,
    *,
    window: int | tuple[float, float] | None = None,
    limits: tuple[float, float] | None = None,
    percentiles: tuple[float, float] | None = None,
    bands: Sequence[int] | None = None,
) -> np.ndarray:
    """Read a photograph or scan as RGB pixels of 8 bits, for people to look at.

    Files are not trusted: a file that is not an image, is truncated, or decodes to more than 100 million
    pixels is refused. The same photograph gives the same pixels as path, bytes and PIL image: it is turned
    upright by its EXIF orientation, and grey is repeated to three channels. The alpha channel is dropped, as
    Keras does it, and not blended with a background: the model sees the colours of transparent pixels, too.
    Of an animation, the first frame is read; of a TIFF, the first page.

    Values of more than 8 bits become pixels by the range of their file, never by that of the picture: 0 to
    65535 (uint16), or to the highest value that the file declares (PGM, PPM, JPEG 2000, TIFF of 12 bits),
    becomes 0 to 255. So data of 12 bits in a PNG of 16 is nearly black without `limits`. Floating values in
    `[0, 1]` are multiplied by 255. What has no such range needs `window`, `limits` or `percentiles`: signed
    integers, uint32, and floating values beyond `[0, 1]`. Scans have a rule of their own; see
    `tf_gradcam.formats.Scan.picture`.

    Args:
        source: path (`str` or `os.PathLike`) or bytes of a JPEG, PNG, GIF, BMP, PPM, WebP, TIFF, JPEG 2000 or
            AVIF file; or a PIL image; or an array or tensor `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or
            `(H, W, 4)`, RGB with channels last: bool, integer in `[0, 255]`, or floating, in `[0, 1]` when
            nothing in it exceeds 1, else in `[0, 255]`. With `window`, `limits` or `percentiles`, real
            numbers in any range; with `bands`, any number of channels. Or a `tf_gradcam.formats.Scan` of
            one image, or the path of a file that `tf_gradcam.formats.read` reads, such as DICOM.
        size: `(height, width)` in pixels, or `None` to keep the photograph's own. The photograph is resized
            without regard to its aspect ratio and is not cropped: area averages where it shrinks, bilinear
            where it grows.
        window: `(center, width)` in the units of `source`, as radiologists give it: soft tissue of a CT is
            `(40, 400)`. For a DICOM file with several windows also the number of one, from 0.
        limits: `(low, high)` in the units of `source`: `low` and what is below becomes 0, `high` and what is
            above 255, evenly in between. For data of 12 bits it is `(0, 4095)`.
        percentiles: `(low, high)` in `[0, 100]`: the limits are these percentiles of the values.
        bands: the numbers of three channels for red, green and blue, or of one for grey, from 1.

    Returns:
        A new uint8 array `(H, W, 3)`, RGB in `[0, 255]`.

    Raises:
        FileNotFoundError: if there is no file at the path.
        ImportError: if OpenCV, which decodes and resizes, or Pillow, which reads the header and decodes some
            formats, or the library of a scan's format is not installed.
        TypeError: if `source` is of a type that cannot be a photograph.
        ValueError: if the file is damaged, truncated, too large or not an image; if the array has the wrong
            shape or values that are not pixels; if the values need `limits`; if `size` is not a height and
            width; if more than one of `window`, `limits` and `percentiles` is given, or if they are not two
            numbers in order; if there is no such band.

    Example:

    ```python
    photograph = tf_gradcam.load_image("cat.jpg", size=(224, 224))
    radiograph = tf_gradcam.load_image("patient.png", limits=(0, 4095))  # data of 12 bits
    ```
    """
    check_size(size)
    pixels = read_pixels(source, "source", PictureOptions(window, limits, percentiles, bands))
    return np.array(pixels) if size is None else resize_pixels(pixels, size)


def read_pixels(source: Any, argument: str, options: PictureOptions = _DEFAULT) -> np.ndarray:
    """Return what `load_image` returns; not a copy, where `source` is an array of 8-bit RGB.

    Args:
        source: see `load_image`.
        argument: the caller's argument that `source` is; the errors name it.
        options: which values become black and white, and which channels are shown.
    """
    source = as_scan(source, argument)
    if isinstance(source, formats.Scan):
        return _scan_pixels(source, argument, options)
    stored, is_array = _read(source, argument, options.bands is not None)
    if any(option is not None for option in options):
        return _chosen_pixels(stored, argument, options, is_array)
    if is_array:
        return _as_rgb(_to_uint8(stored.values, argument))
    return _as_rgb(_stored_to_uint8(*stored, argument))


def as_scan(source: Any, argument: str) -> Any:
    """Return the `Scan` of a path that `formats.read` reads; any other source unchanged.

    The errors name `argument`.
    """
    if not isinstance(source, str | os.PathLike) or not formats.is_scan(source):
        return source
    try:
        return formats.read(source)
    except ValueError as error:
        raise ValueError(str(error).replace("`path`", f"`{argument}`")) from error


def _scan_pixels(scan, argument, options) -> np.ndarray:
    if len(scan.axes) != 2:
        raise ValueError(
            f"`{argument}` must be one image. Received: {scan!r}. Take one slice or frame: "
            "scan.picture(index=0) of scan = tf_gradcam.formats.read(path)."
        )
    return scan.picture(**options._asdict())


def _chosen_pixels(stored, argument, options, is_array) -> np.ndarray:
    """Return the pixels of a photograph or array by options that the caller gave."""
    values = stored.values[..., None] if stored.values.ndim == 2 else stored.values
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(
            f"`{argument}` must hold finite values. Received: values that are NaN or infinite. "
            "Replace them first."
        )
    if options.bands is not None and all(
        option is None for option in options[:3]
    ):  # The range is that of any file.
        shown = take_bands(values, options.bands)
        return _as_rgb(
            _to_uint8(shown, argument) if is_array else _stored_to_uint8(shown, stored.maximum, argument)
        )
    return make_pixels(values, None, options, OwnRange())


def read_values(source: Any, at_least: tuple[int, int] | None = None) -> np.ndarray:
    """Return the values of a photograph as they are stored in its file, for a model.

    Args:
        source: path, bytes, PIL image or array, as `load_image` takes it. An array is made 8-bit by its rule.
        at_least: height and width that a JPEG file may be decoded to, at least, in much less time: at a half,
            a quarter or an eighth of its size. `None` for its own size.

    Returns:
        Array `(H, W, 3)`, upright, of the file's dtype: uint8 in `[0, 255]` for most photographs, uint16,
        int16, float32 or another real dtype for others. Grey is repeated, alpha is dropped.

    Raises:
        FileNotFoundError, ImportError, TypeError, ValueError: as `load_image` does.
    """
    stored, is_array = _read(source, "source", any_channels=False, at_least=at_least)
    return _as_rgb(_to_uint8(stored.values, "source") if is_array else stored.values)


def _read(source, argument, any_channels, at_least=None) -> tuple[StoredImage, bool]:
    """Return the values of a photograph, `(H, W)` or `(H, W, C)`, and whether it is an array."""
    is_file = isinstance(source, str | os.PathLike | bytes | bytearray)
    if is_file or hasattr(source, "getexif"):  # a PIL image, known without importing Pillow
        return read_stored(source, argument, at_least), False
    return StoredImage(_from_array(source, argument, any_channels)), True


def resize_pixels(pixels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize to `(height, width)`: area averages where an axis shrinks, bilinear where it grows.

    Args:
        pixels: `(H, W)` or `(H, W, C)` with any number of channels, uint8 or float32.
        size: `(height, width)`, positive.

    Returns:
        Array `(height, width)` or `(height, width, C)` of the same dtype, within the range of `pixels`.
    """
    if pixels.ndim == 2:
        return _resize_few(pixels, size)
    parts = [
        np.ascontiguousarray(pixels[..., start : start + _MOST_CHANNELS])
        for start in range(0, pixels.shape[-1], _MOST_CHANNELS)
    ]
    # OpenCV drops the axis of a single channel.
    resized = [_resize_few(part, size).reshape(*map(int, size), part.shape[-1]) for part in parts]
    return resized[0] if len(resized) == 1 else np.concatenate(resized, axis=-1)


def resize_bilinear(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize `(H, W)` float32 to `(height, width)` as an explainer does: bilinear, even where it shrinks.

    The centres of pixels are at half of them, and the outer cells go on beyond their centres.
    """
    cv2 = require("cv2", "opencv-python")
    height, width = map(int, size)
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)


def _resize_few(pixels, size) -> np.ndarray:
    cv2 = require("cv2", "opencv-python")
    height, width = map(int, size)
    # In two steps, as one axis may shrink while the other grows.
    shrunk = min(width, pixels.shape[1]), min(height, pixels.shape[0])
    if shrunk != pixels.shape[1::-1]:
        pixels = cv2.resize(pixels, shrunk, interpolation=cv2.INTER_AREA)
        if shrunk == (width, height):
            return pixels
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)


def size_within(size: Sequence[int], longest: int) -> Any:
    """Shrink lengths, keeping their ratio, until none is longer than `longest` pixels."""
    factor = min(1, longest / max(size))
    return tuple(max(1, round(side * factor)) for side in size)


# Arrays


def _from_array(source, argument, any_channels) -> np.ndarray:
    values = real_array(argument, source, "a path, bytes, a PIL image, or an array or tensor of real numbers")
    is_image = values.ndim == 2 or (values.ndim == 3 and (any_channels or values.shape[-1] in (1, 3, 4)))
    if not is_image or values.size == 0:
        raise ValueError(
            f"`{argument}` must be one image (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), channels last. "
            f"Received: shape {values.shape}. Take one image of a batch: images[0]."
        )
    return values


def _as_rgb(values) -> np.ndarray:
    """Return `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or `(H, W, 4)` as `(H, W, 3)`."""
    if values.ndim == 2:
        values = values[..., None]
    is_grey = values.shape[-1] == 1
    return np.repeat(values, 3, axis=-1) if is_grey else np.ascontiguousarray(values[..., :3])


# Values to pixels


def _to_uint8(values, argument) -> np.ndarray:
    """Round an array's values to uint8, without its alpha; those in `[0, 1]` are multiplied by 255 first."""
    if values.ndim == 3:
        values = values[..., :3]
    if values.dtype == np.uint8:
        return values
    # Resizing may leave a value slightly above 1, which must not make the picture black.
    is_unit_scale = values.dtype.kind == "b" or (values.dtype.kind == "f" and values.max() <= 1.001)
    rounded = np.rint(values * 255.0) if is_unit_scale else np.rint(values)
    if not (rounded.min() >= 0 and rounded.max() <= 255):  # also true for NaN
        raise ValueError(
            f"`{argument}` must be in [0, 255], or in [0, 1] if floating. Received: values from "
            f"{values.min():.4g} to {values.max():.4g}. Give the photograph, not the preprocessed image; or "
            "the values that become black and white: load_image(..., limits=(low, high))."
        )
    return rounded.astype(np.uint8)


def _stored_to_uint8(values, maximum, argument) -> np.ndarray:
    """Map the range of a file's values to 0..255; see `load_image`."""
    if values.dtype == np.uint8 and maximum in (None, 255):
        return values
    if maximum is not None:
        return _map_to_uint8(values, 0, maximum, argument)
    if values.dtype == np.uint16:  # The upper eight bits, as OpenCV, Pillow and TensorFlow take them.
        return (values >> 8).astype(np.uint8)
    low, high = values.min(), values.max()
    if values.dtype.kind == "f" and low >= -0.001 and high <= 1.001:
        return _map_to_uint8(values, 0, 1, argument)
    raise ValueError(
        f"`{argument}` must hold uint8 or uint16 values, or floating values in [0, 1]. Received: "
        f"{values.dtype} values from {low:.4g} to {high:.4g}. Give the values that become black and white: "
        "load_image(..., limits=(low, high))."
    )


def _map_to_uint8(values, low, high, argument) -> np.ndarray:
    """Map `low` to 0 and `high` to 255, evenly in between, clipped and rounded."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(
            f"`{argument}` must hold finite values. Received: values that are NaN or infinite. "
            "Replace them first."
        )
    return to_pixels(values, low, high)


def check_size(size: Any) -> None:
    """Raise a `ValueError` unless `size` is `None` or a height and width."""
    if size is None:
        return
    rule = f"None or (height, width) in pixels, positive integers of product at most {MAX_PIXELS:,}"
    lengths = array_or_empty(size)
    is_integer_pair = lengths.shape == (2,) and lengths.dtype.kind in "iu"
    if not is_integer_pair or lengths.min() < 1 or int(lengths[0]) * int(lengths[1]) > MAX_PIXELS:
        raise ValueError(f"`size` must be {rule}. Received: size={size!r:.80}")

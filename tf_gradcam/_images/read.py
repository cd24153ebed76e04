"""Photographs: path, bytes, PIL image or array in, RGB pixels out."""

import importlib
import io
import os
import pathlib
import stat
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

MAX_PIXELS = 100_000_000  # height * width; more is refused before anything is decoded
MAX_BYTES = 4 * MAX_PIXELS  # of a file


# What OpenCV decodes. Pillow knows more: some of it, such as EPS, is a program rather than an image.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "JPEG2000", "AVIF")


def load_image(source: Any, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a photograph, from wherever it is, as RGB pixels.

    A file is not trusted: what is no image, is cut short or unfolds to more than `MAX_PIXELS` is refused. The
    same photograph gives the same pixels as path, as bytes and as PIL image: turned upright by its EXIF
    orientation, grey repeated to three channels, 16 bits cut to 8. Transparency is dropped, not painted onto
    a background, as Keras does it: the model sees every colour, hidden or not. Of an animation the first
    frame is taken.

    Args:
        source: path (`str` or `os.PathLike`) or bytes of a JPEG, PNG, GIF, BMP, PPM, WebP, TIFF, JPEG 2000 or
            AVIF file; or a PIL image; or an array or tensor `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or
            `(H, W, 4)`, RGB with channels last: bool, integer in `[0, 255]`, or floating, in `[0, 1]` when
            nothing in it exceeds 1, else in `[0, 255]`.
        size: `(height, width)` in pixels, or `None` to keep the photograph's own. The whole photograph is
            squashed to it, nothing is cropped: averaged over areas where it shrinks, bilinear where it grows.

    Returns:
        A new uint8 array `(H, W, 3)`, RGB in `[0, 255]`.

    Raises:
        FileNotFoundError: if there is no file at the path.
        ImportError: if OpenCV, which decodes and resizes, or Pillow, which reads the header, is missing.
        TypeError: if `source` is nothing that can be a photograph.
        ValueError: if the file is broken, cut short, too large or no image; if the array has the wrong shape
            or values that are no pixels; if `size` is no height and width.

    Example:

    ```python
    photograph = tf_gradcam.load_image("cat.jpg", size=(224, 224))
    ```
    """
    check_size(size)
    if isinstance(source, str | os.PathLike):
        source = _read(pathlib.Path(source))
    if isinstance(source, bytes | bytearray):
        pixels = _decode(source)
    elif hasattr(source, "getexif"):  # a PIL image, known without importing Pillow
        pixels = _from_pillow(source)
    else:
        pixels = _from_array(source)
    return np.array(pixels) if size is None else resize_pixels(pixels, size)


def resize_pixels(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Squash or stretch to `(height, width)`: averages where an axis shrinks, bilinear where one grows.

    Args:
        pixels: `(H, W)` or `(H, W, 3)`, uint8 or float32.
        size: `(height, width)`, positive.

    Returns:
        Array `(height, width)` or `(height, width, 3)` of the same dtype, within the range of `pixels`.
    """
    cv2 = require("cv2", "opencv-python")
    height, width = map(int, size)
    # Two steps, because a banner may shrink along one axis and grow along the other.
    shrunk = min(width, pixels.shape[1]), min(height, pixels.shape[0])
    pixels = cv2.resize(pixels, shrunk, interpolation=cv2.INTER_AREA)
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)


def size_within(size: Sequence[int], longest: int) -> tuple[int, int]:
    """Return `(height, width)` shrunk in proportion until no side is longer than `longest` pixels."""
    factor = min(1, longest / max(size))
    height, width = (max(1, round(side * factor)) for side in size)
    return height, width


def require(module: str, package: str):
    """Import a module of an optional package, or say how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        headless = " (or opencv-python-headless, for a machine without libGL)" if module == "cv2" else ""
        raise ImportError(
            f"tf_gradcam reads and draws images with `{package}`, which can't be imported: {error}. "
            f"Install it: pip install {package}{headless}"
        ) from error


# Files


def _read(path) -> bytes:
    status = path.stat()
    # A folder, but also a device or pipe, from which one could read for ever.
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"`source` must be the path of an image file. Received: {str(path)!r}, no file.")
    if status.st_size > MAX_BYTES:
        raise ValueError(
            f"`source` must be a file of at most {MAX_BYTES:,} bytes. Received: {str(path)!r} "
            f"of {status.st_size:,} bytes. Save it smaller."
        )
    return path.read_bytes()


def _decode(data) -> np.ndarray:
    _check_pixels(header_size(data))
    cv2 = require("cv2", "opencv-python")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise _damaged(data) from error
    if pixels is None:
        raise _damaged(data)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def header_size(data: bytes) -> tuple[int, int]:
    """Return the width and height that a file announces; no pixel is decoded."""
    image = require("PIL.Image", "pillow")
    # Pillow's own limit is lower than ours, and it warns of oddities in files that OpenCV reads well.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = image.open(io.BytesIO(data), formats=_FORMATS)
            header.verify()  # For a PNG chunk that lies about its length, OpenCV would allocate gigabytes.
            return header.size
        except image.DecompressionBombError as error:
            raise ValueError(
                f"`source` must be an image of at most {MAX_PIXELS:,} pixels. Received: {error}"
            ) from error
        except Exception as error:  # Damaged headers raise errors of many types.
            raise ValueError(
                f"`source` must be an image, one of {', '.join(_FORMATS)}. Received: {len(data)} bytes that "
                f"start with {bytes(data[:16])!r}. Convert it, or look whether it is whole."
            ) from error


def _check_pixels(size) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"`source` must be an image of at most {MAX_PIXELS:,} pixels. "
            f"Received: {width} x {height} pixels. Shrink it first."
        )


def _damaged(data) -> ValueError:
    return ValueError(
        f"`source` must be a whole image. Received: {len(data)} bytes, which can't be decoded: cut short, "
        "damaged, or of a rare kind. Save it anew, or fetch it again."
    )


# PIL images and arrays


def _from_pillow(image) -> np.ndarray:
    import PIL.ImageOps

    _check_pixels(image.size)
    try:  # Pillow decodes a file only now.
        upright = PIL.ImageOps.exif_transpose(image)
        # By way of RGBA, because P with transparency warns on its way to RGB.
        pixels = np.asarray(upright if upright.mode[0] in "IF" else upright.convert("RGBA"))
    except Exception as error:
        raise ValueError(
            f"`source` must be a whole image that converts to RGB. Received: a PIL image, {image.size[0]} x "
            f"{image.size[1]} pixels of mode {image.mode!r}: {error}. Save it anew."
        ) from error
    return _from_array(pixels >> 8 if image.mode.startswith("I;16") else pixels)


def _from_array(source) -> np.ndarray:
    pixels = _array(source)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4) or pixels.size == 0:
        raise ValueError(
            "`source` must be one image (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), channels last. "
            f"Received: shape {np.shape(source)}. Take one image of a batch: images[0]."
        )
    pixels = _bytes(pixels[..., :3])
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def _array(source) -> np.ndarray:
    try:
        pixels = np.asarray(source)
    except Exception as error:  # A foreign type may raise anything.
        raise _not_an_image(source) from error
    if pixels.dtype.kind not in "biuf":
        raise _not_an_image(source)
    return pixels


def _not_an_image(source) -> TypeError:
    return TypeError(
        "`source` must be a path, bytes, a PIL image, or an array or tensor of real numbers. "
        f"Received: {source!r:.80} (of type {type(source).__name__})"
    )


def _bytes(pixels) -> np.ndarray:
    """Return pixel values as uint8: as they are, or times 255 where they are on the unit scale."""
    if pixels.dtype == np.uint8:
        return pixels
    # Resizing may leave a hair's breadth beyond 1, which must not make the picture black.
    unit = pixels.dtype.kind == "b" or (pixels.dtype.kind == "f" and pixels.max() <= 1.001)
    rounded = np.rint(pixels * 255.0) if unit else np.rint(pixels)
    if not (rounded.min() >= 0 and rounded.max() <= 255):  # NaN too
        raise ValueError(
            "`source` must be in [0, 255], or in [0, 1] if floating. Received: values from "
            f"{pixels.min():.4g} to {pixels.max():.4g}. A preprocessed image can't be shown: give the "
            "photograph."
        )
    return rounded.astype(np.uint8)


def check_size(size: Any) -> None:
    """Raise a `ValueError` unless `size` is `None` or a height and width."""
    if size is None:
        return
    whole = np.shape(size) == (2,) and np.asarray(size).dtype.kind in "iu"
    if not whole or min(size) < 1 or int(size[0]) * int(size[1]) > MAX_PIXELS:
        raise ValueError(
            "`size` must be None or (height, width) in pixels, positive integers of product at most "
            f"{MAX_PIXELS:,}. Received: size={size!r}"
        )

"""Read a photograph from a path, bytes, a PIL image or an array, as RGB pixels: `load_image`.

Users call it, and every module that takes a photograph. `resize_pixels`, `size_within`, `header_size` and
`require` are for other modules of this library.
"""

import importlib
import io
import os
import pathlib
import stat
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

MAX_PIXELS = 100_000_000  # height * width; a larger image is refused before it is decoded
MAX_BYTES = 4 * MAX_PIXELS  # of a file

# What OpenCV decodes. Pillow opens more formats: some of them, such as EPS, are programs, not images.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "JPEG2000", "AVIF")


def load_image(source: Any, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a photograph as RGB pixels.

    Files are not trusted: a file that is not an image, is truncated, or decodes to more than 100 million
    pixels is refused. The same photograph gives the same pixels as path, bytes and PIL image: it is turned
    upright by its EXIF orientation, grey is repeated to three channels, and 16 bits are cut to 8. The alpha
    channel is dropped, as Keras does it, and not blended with a background: the model sees the colours of
    transparent pixels, too. Of an animation, the first frame is read.

    Args:
        source: path (`str` or `os.PathLike`) or bytes of a JPEG, PNG, GIF, BMP, PPM, WebP, TIFF, JPEG 2000 or
            AVIF file; or a PIL image; or an array or tensor `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or
            `(H, W, 4)`, RGB with channels last: bool, integer in `[0, 255]`, or floating, in `[0, 1]` when
            nothing in it exceeds 1, else in `[0, 255]`.
        size: `(height, width)` in pixels, or `None` to keep the photograph's own. The photograph is resized
            without regard to its aspect ratio and is not cropped: area averages where it shrinks, bilinear
            where it grows.

    Returns:
        A new uint8 array `(H, W, 3)`, RGB in `[0, 255]`.

    Raises:
        FileNotFoundError: if there is no file at the path.
        ImportError: if OpenCV, which decodes and resizes, or Pillow, which reads the header, is not
            installed.
        TypeError: if `source` is of a type that cannot be a photograph.
        ValueError: if the file is damaged, truncated, too large or not an image; if the array has the wrong
            shape or values that are not pixels; if `size` is not a height and width.

    Example:

    ```python
    photograph = tf_gradcam.load_image("cat.jpg", size=(224, 224))
    ```
    """
    check_size(size)
    if isinstance(source, str | os.PathLike):
        source = _read_file(pathlib.Path(source))
    if isinstance(source, bytes | bytearray):
        pixels = _decode(source)
    elif hasattr(source, "getexif"):  # a PIL image, known without importing Pillow
        pixels = _from_pillow(source)
    else:
        pixels = _from_array(source)
    return np.array(pixels) if size is None else resize_pixels(pixels, size)


def resize_pixels(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize to `(height, width)`: area averages where an axis shrinks, bilinear where it grows.

    Args:
        pixels: `(H, W)` or `(H, W, 3)`, uint8 or float32.
        size: `(height, width)`, positive.

    Returns:
        Array `(height, width)` or `(height, width, 3)` of the same dtype, within the range of `pixels`.
    """
    cv2 = require("cv2", "opencv-python")
    height, width = map(int, size)
    # In two steps, as one axis may shrink while the other grows.
    shrunk = min(width, pixels.shape[1]), min(height, pixels.shape[0])
    pixels = cv2.resize(pixels, shrunk, interpolation=cv2.INTER_AREA)
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)


def size_within(size: Sequence[int], longest: int) -> tuple[int, int]:
    """Shrink `(height, width)`, keeping its ratio, until no side is longer than `longest` pixels."""
    factor = min(1, longest / max(size))
    height, width = (max(1, round(side * factor)) for side in size)
    return height, width


def require(module: str, package: str) -> Any:
    """Import and return a module of an optional package.

    Args:
        module: the module to import, such as `"cv2"`.
        package: the package that installs it, such as `"opencv-python"`.

    Raises:
        ImportError: if it can't be imported; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        headless = " (or opencv-python-headless, for a machine without libGL)" if module == "cv2" else ""
        raise ImportError(
            f"tf_gradcam needs `{package}` to read and draw images, and it can't be imported: {error}. "
            f"Install it: pip install {package}{headless}"
        ) from error


# Files


def _read_file(path) -> bytes:
    status = path.stat()
    # Not a folder, and not a device or pipe, which may never end.
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(
            f"`source` must be the path of an image file. Received: {str(path)!r}, which is not a file."
        )
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
    """Return width and height from the header of an image file; no pixel is decoded."""
    image = require("PIL.Image", "pillow")
    # Pillow warns above a limit that is lower than ours, and about files that OpenCV reads well.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = image.open(io.BytesIO(data), formats=_FORMATS)
            header.verify()  # OpenCV would allocate gigabytes for a PNG chunk with a false length.
            return header.size
        except image.DecompressionBombError as error:
            raise ValueError(
                f"`source` must be an image of at most {MAX_PIXELS:,} pixels. Received: {error} Shrink it "
                "first."
            ) from error
        except Exception as error:  # Damaged headers raise errors of many types.
            raise ValueError(
                f"`source` must be an image, one of {', '.join(_FORMATS)}. Received: {len(data)} bytes that "
                f"start with {bytes(data[:16])!r}. Convert it, or check whether the file is complete."
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
        f"`source` must be a complete image. Received: {len(data)} bytes, which can't be decoded: truncated, "
        "damaged, or of a rare kind. Save it again, or download it again."
    )


# PIL images and arrays


def _from_pillow(image) -> np.ndarray:
    import PIL.ImageOps

    _check_pixels(image.size)
    try:  # Pillow decodes a file only now.
        upright = PIL.ImageOps.exif_transpose(image)
        # To RGBA, because Pillow warns when it converts a palette with transparency to RGB.
        pixels = np.asarray(upright if upright.mode[0] in "IF" else upright.convert("RGBA"))
    except Exception as error:
        raise ValueError(
            "`source` must be a complete image that converts to RGB. Received: a PIL image of "
            f"{image.size[0]} x {image.size[1]} pixels, mode {image.mode!r}: {error}. Save it again."
        ) from error
    return _from_array(pixels >> 8 if image.mode.startswith("I;16") else pixels)


def _from_array(source) -> np.ndarray:
    pixels = _numeric_array(source)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4) or pixels.size == 0:
        raise ValueError(
            "`source` must be one image (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), channels last. "
            f"Received: shape {np.shape(source)}. Take one image of a batch: images[0]."
        )
    pixels = _to_uint8(pixels[..., :3])
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def _numeric_array(source) -> np.ndarray:
    try:
        pixels = np.asarray(source)
    except Exception as error:  # An unknown type may raise anything.
        raise _wrong_type(source) from error
    if pixels.dtype.kind not in "biuf":
        raise _wrong_type(source)
    return pixels


def _wrong_type(source) -> TypeError:
    return TypeError(
        "`source` must be a path, bytes, a PIL image, or an array or tensor of real numbers. "
        f"Received: {source!r:.80} (of type {type(source).__name__})"
    )


def _to_uint8(pixels) -> np.ndarray:
    """Round pixel values to uint8; those in `[0, 1]` are multiplied by 255 first."""
    if pixels.dtype == np.uint8:
        return pixels
    # Resizing may leave a value slightly above 1, which must not make the picture black.
    is_unit_scale = pixels.dtype.kind == "b" or (pixels.dtype.kind == "f" and pixels.max() <= 1.001)
    rounded = np.rint(pixels * 255.0) if is_unit_scale else np.rint(pixels)
    if not (rounded.min() >= 0 and rounded.max() <= 255):  # also true for NaN
        raise ValueError(
            "`source` must be in [0, 255], or in [0, 1] if floating. Received: values from "
            f"{pixels.min():.4g} to {pixels.max():.4g}. Give the photograph, not the preprocessed image."
        )
    return rounded.astype(np.uint8)


def check_size(size: Any) -> None:
    """Raise a `ValueError` unless `size` is `None` or a height and width."""
    if size is None:
        return
    is_integer_pair = np.shape(size) == (2,) and np.asarray(size).dtype.kind in "iu"
    if not is_integer_pair or min(size) < 1 or int(size[0]) * int(size[1]) > MAX_PIXELS:
        raise ValueError(
            "`size` must be None or (height, width) in pixels, positive integers of product at most "
            f"{MAX_PIXELS:,}. Received: size={size!r}"
        )

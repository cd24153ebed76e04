"""Read a photograph's file, by path, bytes or PIL image, to its stored values: `read_stored`.

Files are not trusted: what is no image, too large or damaged is refused. `_images` and `formats` call it.
"""

import io
import os
import pathlib
import stat
import warnings
from typing import Any

from tf_gradcam._checks import check_no_address
from tf_gradcam._files.decode import FORMATS, StoredImage, decode_file, from_pillow, unread_file
from tf_gradcam._optional import require

MAX_PIXELS = 100_000_000  # height * width; a larger image is refused before it is decoded
MAX_BYTES = 4 * MAX_PIXELS  # of a file


def read_stored(source: Any, argument: str, at_least: tuple[int, int] | None = None) -> StoredImage:
    """Return the values that a photograph's file holds, `(H, W)` or `(H, W, C)`, upright.

    Args:
        source: path, bytes or PIL image.
        argument: the caller's argument that `source` is; the errors name it.
        at_least: how large the values must be, at least, of a JPEG file that may be decoded smaller than it
            is; `None` for its own size.

    Raises:
        FileNotFoundError, ImportError, ValueError: as `tf_gradcam.load_image` does.
    """
    if isinstance(source, str | os.PathLike):
        check_no_address(argument, source)
        source = read_file(pathlib.Path(source), argument)
    if isinstance(source, bytes | bytearray):
        return _decode(source, argument, at_least)
    return _from_pillow(source, argument)


def read_file(path: pathlib.Path, argument: str) -> bytes:
    """Return the bytes of a regular file that is not too large; the errors name `argument`."""
    try:
        status = path.stat()
    except ValueError as error:  # zero bytes, or what can't be encoded
        raise ValueError(f"`{argument}` must be a path. Received: {str(path)!r:.80}, {error}") from error
    # Not a folder, and not a device or pipe, which may never end.
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(
            f"`{argument}` must be the path of an image file. Received: {str(path)!r}, which is not a file."
        )
    if status.st_size > MAX_BYTES:
        raise ValueError(
            f"`{argument}` must be a file of at most {MAX_BYTES:,} bytes. Received: {str(path)!r} "
            f"of {status.st_size:,} bytes. Save it smaller."
        )
    return path.read_bytes()


def _decode(data, argument, at_least=None) -> StoredImage:
    _check_pixels(header_size(data, argument), argument)
    try:
        return decode_file(data, at_least)
    except ImportError:
        raise
    except Exception as error:  # Damaged files raise errors of many types.
        raise ValueError(
            f"`{argument}` must be a complete image. Received: {len(data)} bytes, which can't be decoded: "
            "truncated, damaged, or of a rare kind. Save it again, or download it again."
        ) from error


def header_size(data: bytes, argument: str = "source") -> tuple[int, int]:
    """Return width and height from the header of an image file; no pixel is decoded.

    The errors name `argument`.
    """
    image = require("PIL.Image", "pillow")
    # Pillow warns above a limit that is lower than ours, and about files that OpenCV reads well.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = image.open(io.BytesIO(data), formats=FORMATS)
            header.verify()  # OpenCV would allocate gigabytes for a PNG chunk with a false length.
            return header.size
        except image.DecompressionBombError as error:
            raise ValueError(
                f"`{argument}` must be an image of at most {MAX_PIXELS:,} pixels. Received: {error} "
                "Shrink it first."
            ) from error
        except Exception as error:  # Damaged headers raise errors of many types.
            raise ValueError(
                f"`{argument}` must be an image, one of {', '.join(FORMATS)}. "
                f"Received: {len(data)} bytes that start with {bytes(data[:16])!r}. "
                "Convert it, or check whether the file is complete."
            ) from error


def _check_pixels(size, argument) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"`{argument}` must be an image of at most {MAX_PIXELS:,} pixels. "
            f"Received: {width} x {height} pixels. Shrink it first."
        )


def _from_pillow(image, argument) -> StoredImage:
    _check_pixels(image.size, argument)
    try:  # Pillow decodes a file only now.
        data = unread_file(image, MAX_BYTES + 1)
        if data is None:
            return from_pillow(image)
        if len(data) > MAX_BYTES:
            raise ValueError(f"its file has more than {MAX_BYTES:,} bytes")
        return _decode(data, argument)
    except Exception as error:
        raise ValueError(
            f"`{argument}` must be a complete image that converts to RGB. Received: a PIL image of "
            f"{image.size[0]} x {image.size[1]} pixels, mode {image.mode!r}: {error}. Save it again."
        ) from error

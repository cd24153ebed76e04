"""Small photographs for a page, or why there is none: `read_thumbnail`. `report` calls it."""

import hashlib
import os
import pathlib
from typing import NamedTuple

import cv2
import numpy as np

from tf_gradcam import formats
from tf_gradcam._checks import one_line
from tf_gradcam._images import load_image, read_values, size_within
from tf_gradcam._report.rows import Row

THUMBNAIL_SIDE = 240  # pixels
MOST_BYTES = 14_000  # of one; 1,000 images with their maps and text then stay below 25 MB
_QUALITIES = (85, 75, 60, 45, 30)  # of JPEG, until it is small enough
_SMALLEST_SIDE = 60


class Thumbnail(NamedTuple):
    """A small photograph.

    Attributes:
        jpeg: the bytes of a JPEG file, or `b""`.
        size: height and width in pixels.
        problem: why there is no photograph, or what is wrong with it, or `""`.
    """

    jpeg: bytes
    size: tuple[int, int]
    problem: str = ""


def read_thumbnail(row: Row, photos: pathlib.Path | None) -> Thumbnail:
    """Return the photograph of a row.

    Args:
        row: the row.
        photos: the folder that its path is relative to; `None` for the current one.
    """
    path = row.values["path"]
    if not path:
        return Thumbnail(b"", _own_size(row), "The data set was of arrays, without files")
    file = os.path.join(photos or "", path)
    if not os.path.isfile(file):  # To open a pipe or a device may take forever.
        return Thumbnail(b"", _own_size(row), "There is no such file any more")
    try:
        pixels, sha256 = _read(file)
        jpeg, size = _encode(pixels)
    except Exception as error:  # Whatever is wrong with one photograph, the page shows the others.
        return Thumbnail(b"", _own_size(row), one_line(error) or type(error).__name__)
    is_changed = row.values["sha256"] not in ("", None, sha256)
    return Thumbnail(jpeg, size, "The file has changed since it was explained" if is_changed else "")


def _own_size(row) -> tuple[int, int]:
    """Return the size of a photograph that is not there."""
    size = (row.values["height"] or 0, row.values["width"] or 0)
    if min(size) < 1:
        size = (1, 1) if row.evidence is None else row.evidence.shape
    return size_within([side * THUMBNAIL_SIDE for side in size], THUMBNAIL_SIDE)


def _read(file) -> tuple[np.ndarray, str]:
    """Return the pixels of a file, and its SHA-256."""
    data = pathlib.Path(file).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if formats.is_scan(file):
        return load_image(file), digest
    values = read_values(data, (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    # What has no 8 bits is shown from its lowest to its highest value, as no user can give limits here.
    limits = None if values.dtype == np.uint8 else (0, 100)
    return load_image(values, percentiles=limits), digest


def _encode(pixels) -> tuple[bytes, tuple[int, int]]:
    """Return a JPEG file of at most `MOST_BYTES`, and its height and width."""
    side = THUMBNAIL_SIDE
    while True:
        size = size_within(pixels.shape[:2], side)
        small = cv2.cvtColor(load_image(pixels, size=size), cv2.COLOR_RGB2BGR)
        for quality in _QUALITIES:
            _, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
            if len(encoded) <= MOST_BYTES or (side <= _SMALLEST_SIDE and quality == _QUALITIES[-1]):
                return encoded.tobytes(), size
        side = max(_SMALLEST_SIDE, side * 3 // 4)

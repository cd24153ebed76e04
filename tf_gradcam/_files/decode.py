"""Decode an image file to its own values, upright, with one decoder for each format: `read.py` calls it.

Nothing here checks how large an image is: `read.py` does, before it calls.
"""

import io
import re
import warnings
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam._optional import require

# What OpenCV decodes. Pillow opens more formats: some of them, such as EPS, are programs, not images.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "JPEG2000", "AVIF")
_ORIENTATION_TAG = 0x112
_BITS_TAG, _SAMPLE_FORMAT_TAG, _EXTRA_SAMPLES_TAG, _PLANAR_TAG = 258, 339, 338, 284  # TIFF 6.0
_SIGNED, _ASSOCIATED_ALPHA, _SEPARATE_PLANES = 2, 1, 2
# Where Pillow finds the orientation in a PNG. Without one of these, asking it would decode the file.
_PNG_ORIENTATION = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
_GAP = rb"(?:\s|#[^\n]*\n)+"  # white space and comments
_PNM_HEADER = re.compile(rb"(P[2356])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)\s")
_TRANSPOSED = {5, 6, 7, 8}  # EXIF orientations with height and width exchanged


class StoredImage(NamedTuple):
    """The values of an image file as they are stored, upright.

    Attributes:
        values: `(H, W)`, or `(H, W, C)` with C = 3 (RGB), of any real dtype.
        maximum: the value that the file declares as its highest one, or `None` if it is that of the dtype.
    """

    values: np.ndarray
    maximum: int | None = None


def decode_file(data: bytes, at_least: tuple[int, int] | None = None) -> StoredImage:
    """Return the values that an image file holds; alpha and further channels are dropped.

    Files of up to 8 bits a channel give uint8, and palettes, CMYK and YCbCr give RGB. Where OpenCV and Pillow
    differ, the one that returns the file's own numbers is chosen; docs/files.md has the table.

    Args:
        data: a file of one of `FORMATS`, whose size was checked.
        at_least: `(height, width)`. A JPEG file is decoded at a half, a quarter or an eighth of its size
            where that is still as large, in much less time. Its decoder averages as it shrinks.

    Raises:
        Exception: of many types, if the file can't be decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata
        with require("PIL.Image", "pillow").open(io.BytesIO(data), formats=FORMATS) as header:
            if header.format == "PPM":
                return _decode_pnm(data, header.size) or from_pillow(header)
            if header.format == "TIFF":
                return _decode_tiff(data, header)
            if header.format == "JPEG2000":
                return _decode_jpeg2000(data, header)
            # Of a transparent pixel in a GIF, OpenCV returns the background instead of the colour. It has
            # another conversion from CMYK.
            if header.format == "GIF" or header.mode == "CMYK":
                return from_pillow(header)
            # An AVIF of 10 or 12 bits, like every other one, is made 8-bit by the decoder.
            cv2 = require("cv2", "opencv-python")
            flags = cv2.IMREAD_COLOR if header.format == "AVIF" else cv2.IMREAD_UNCHANGED
            if header.format == "JPEG" and at_least is not None:
                flags = _reduced_flags(header, at_least)
            values = _decode_by_opencv(data, flags | cv2.IMREAD_IGNORE_ORIENTATION)
            return StoredImage(_upright(values, _orientation(header, data)))


def from_pillow(image: Any) -> StoredImage:
    """Return the values of a PIL image, upright. It is decoded now if it was not before."""
    image.load()
    # A TIFF is upright now, and has no orientation any more.
    orientation, is_pnm = _orientation(image), image.format == "PPM"
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        # Pillow has scaled a PGM to 16 bits. Before Pillow 11, a PNG of 16 bits was of the mode "I".
        values, maximum = np.asarray(image).astype(np.uint16), 65535 if is_pnm else None
    elif image.mode in ("L", "RGB", "I", "F"):
        values, maximum = np.asarray(image), None
    else:  # To RGBA, because Pillow warns when it converts a palette with transparency to RGB.
        values, maximum = np.asarray(image.convert("RGBA"))[..., :3], None
    return StoredImage(_upright(values, orientation), maximum)


def unread_file(image: Any, max_bytes: int) -> bytes | None:
    """Return the file of a PIL image that Pillow has not decoded yet, if Pillow would lose some of its bits.

    The image's file stays open, as it was.

    Args:
        image: any PIL image.
        max_bytes: how many bytes are read, at most.

    Returns:
        The file, or `None` where the image's own pixels are the ones to take: it is decoded (and was
        perhaps changed), shows a later page, or Pillow holds its values as they are.
    """
    file = getattr(image, "fp", None)
    is_first_page = not hasattr(image, "tell") or image.tell() == 0
    if file is None or file.closed or not getattr(image, "tile", None):
        return None
    if not is_first_page or not _is_changed_by_pillow(image):
        return None
    position = file.tell()
    try:
        file.seek(0)
        return file.read(max_bytes)
    finally:
        file.seek(position)


def _is_changed_by_pillow(image) -> bool:
    """Return whether Pillow has no mode for the values of a PIL image that is not decoded yet."""
    codec, *_, arguments = image.tile[0]
    if image.format == "PNG":
        return image.mode in ("RGB", "RGBA") and "16" in str(arguments)
    if image.format == "PPM":  # With another codec, it is scaled to 255 or 65535.
        return codec != "raw"
    if image.format == "TIFF":
        tags = image.tag_v2
        # Pillow 13 scrambles a TIFF that it opened by its path, and that lies on its side.
        is_on_its_side = tags.get(_ORIENTATION_TAG) in _TRANSPOSED
        return is_on_its_side or tags.get(_BITS_TAG) == (12,) or _needs_opencv(tags, image.mode)
    return image.format == "JPEG2000"  # Only the file says how many bits it has.


# Formats


def _decode_pnm(data, size) -> StoredImage | None:
    """Return the values of a grey or RGB file of the PNM family, or `None` if it is another kind.

    OpenCV scales plain files to 255, and binary ones not; Pillow scales all of them.

    Source: https://netpbm.sourceforge.net/doc/pgm.html and ppm.html
    """
    match = _PNM_HEADER.match(data)
    if match is None:
        return None
    kind, width, height, maximum = match[1], *(int(number) for number in match.groups()[1:])
    if (width, height) != size or not 0 < maximum <= 65535:
        raise ValueError("its header can't be read")
    shape = (height, width, 3) if kind in (b"P3", b"P6") else (height, width)
    count, dtype = int(np.prod(shape)), np.dtype(np.uint8 if maximum < 256 else np.uint16)
    if kind in (b"P5", b"P6"):
        values = np.frombuffer(data, dtype.newbyteorder(">"), count, match.end())
    else:
        text = re.sub(rb"#[^\n]*", b"", data[match.end() :])
        # Not with a `count`: where there are fewer numbers, NumPy 2.4 fills up with memory of the process.
        values = np.fromstring(text, np.int64, sep=" ")[:count]
        if len(values) < count or not (values.min() >= 0 and values.max() <= maximum):
            raise ValueError("its values can't be read")
    return StoredImage(values.astype(dtype).reshape(shape), maximum)


def _decode_tiff(data, header) -> StoredImage:
    """Return the values of the first page of a TIFF.

    Pillow reads it, since OpenCV multiplies the colours by the alpha channel and 12 bits by 16. Pillow has no
    mode for RGB of 16 bits, uint32, int8, and colours that are stored multiplied by alpha: it would change
    these values. OpenCV returns them as they are, and turns a TIFF upright itself.
    """
    tags = header.tag_v2
    bits = tags.get(_BITS_TAG, (1,))
    if len(bits) > 1 and bits[0] != 8 and tags.get(_PLANAR_TAG) == _SEPARATE_PLANES:
        raise ValueError("colours of more than 8 bits in separate planes are in no decoder's reach")
    if _needs_opencv(tags, header.mode):
        return StoredImage(_decode_by_opencv(data, require("cv2", "opencv-python").IMREAD_UNCHANGED))
    return from_pillow(header)._replace(maximum=4095 if bits[0] == 12 else None)


def _needs_opencv(tags, mode) -> bool:
    """Return whether Pillow would change the values of a TIFF; see `_decode_tiff`."""
    bits = tags.get(_BITS_TAG, (1,))[0]
    is_signed = tags.get(_SAMPLE_FORMAT_TAG, (1,))[0] == _SIGNED
    is_rgb16 = mode in ("RGB", "RGBA") and bits == 16
    is_uint32 = mode == "I" and bits == 32 and not is_signed
    is_int8 = mode == "L" and bits == 8 and is_signed
    return is_rgb16 or is_uint32 or is_int8 or _ASSOCIATED_ALPHA in tags.get(_EXTRA_SAMPLES_TAG, ())


def _decode_jpeg2000(data, header) -> StoredImage:
    """Return the values of a JPEG 2000 file.

    OpenCV has another conversion from YCbCr, and none from CMYK. Of more than 8 bits, Pillow scales grey to
    16, and has no mode for RGB.

    Source: ITU-T T.800, A.5.1, the SIZ marker: the precision is in the lower 7 bits of Ssiz, minus 1.
    """
    start = data.find(b"\xff\x4f\xff\x51")
    bits = (data[start + 42] & 0x7F) + 1
    if bits <= 8:
        return from_pillow(header)
    cv2 = require("cv2", "opencv-python")
    is_grey = header.mode == "I;16"
    flags = cv2.IMREAD_UNCHANGED if is_grey else cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    return StoredImage(_decode_by_opencv(data, flags), 2**bits - 1 if bits < 16 else None)


def _reduced_flags(header, at_least) -> int:
    """Return OpenCV's flags for a JPEG at the smallest size that is at least so large, upright or not."""
    cv2 = require("cv2", "opencv-python")
    for factor in (8, 4, 2):
        if min(header.size) // factor >= max(at_least):
            color = "GRAYSCALE" if header.mode == "L" else "COLOR"
            return getattr(cv2, f"IMREAD_REDUCED_{color}_{factor}")
    return cv2.IMREAD_UNCHANGED


def _decode_by_opencv(data, flags) -> np.ndarray:
    cv2 = require("cv2", "opencv-python")
    values = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if values is None:
        raise ValueError("OpenCV can't decode it")
    if values.ndim == 2:
        return values
    if values.dtype in (np.uint8, np.uint16, np.float32):  # much faster than the line below
        return cv2.cvtColor(values, cv2.COLOR_BGR2RGB if values.shape[-1] == 3 else cv2.COLOR_BGRA2RGB)
    return values[..., 2::-1]


# Orientation


def _orientation(image, data=None) -> int:
    """Return the EXIF orientation of a PIL image, 1 to 8; 1 where there is none that can be read.

    Pillow reads it for every format, since OpenCV doesn't read it in an AVIF or in XMP.
    """
    if data is not None and image.format == "PNG" and not any(marker in data for marker in _PNG_ORIENTATION):
        return 1
    try:
        return image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged metadata
        return 1


def _upright(values, orientation) -> np.ndarray:
    """Return `(H, W)` or `(H, W, C)` turned as its EXIF orientation says."""
    if orientation in _TRANSPOSED:
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values

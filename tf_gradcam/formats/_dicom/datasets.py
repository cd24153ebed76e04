"""DICOM files opened, their attributes found, their pixels decoded; nothing here says what they mean.

`reading` and its neighbours call it. It alone imports pydicom for reading.
"""

import contextlib
import math
import pathlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam._optional import require

MAX_VALUES = 2**30  # of a file or series: 4096 slices of 512 x 512
_MAX_INFLATED = 2**32  # bytes of a deflated data set
_CHUNK = 2**24
_PREAMBLE = 132  # bytes, with the mark "DICM"
_GROUP_LENGTH = (
    12  # bytes of the first element of the file meta information, which tells the length of the rest
)
_STARTS = (b"\x08\x00", b"\x02\x00", b"\x00\x08", b"\x00\x02")  # of a file without a preamble


class Plane(NamedTuple):
    """One image of rows and columns: a file's only one, or one frame of it.

    Attributes:
        dataset: the file's attributes without its pixels, a pydicom `Dataset`.
        frame: which frame it is, from 0.
        path: the file.
    """

    dataset: Any
    frame: int
    path: pathlib.Path


class UnreadableError(ValueError):
    """A file, folder or option that can't be read as is asked for; its text cites no values of attributes."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's and highdicom's warnings, of which many cite values, from the screen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def unreadable(path: pathlib.Path, expected: str, received: str) -> UnreadableError:
    """Return an error about a file: what was expected and received. It must not cite values of attributes."""
    return UnreadableError(f"`path` must be {expected}. Received: {path.name!r}, {received}")


def is_dicom(path: pathlib.Path) -> bool:
    """Return whether a file may be a DICOM file: with the mark of one, or starting as one without."""
    return has_mark(path) or _start(path)[:2] in _STARTS


def has_mark(path: pathlib.Path) -> bool:
    """Return whether a file has the mark of a DICOM file."""
    return _start(path)[128:] == b"DICM"


def _start(path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_PREAMBLE)


def read_header(path: pathlib.Path) -> Any:
    """Return the attributes of a file, without its pixels.

    Raises:
        ImportError: if pydicom is not installed.
        ValueError: if it is no DICOM file, or damaged.
    """
    return _read(path, stop_before_pixels=True)


def _read(path, stop_before_pixels) -> Any:
    pydicom = require("pydicom", "pydicom", extra="dicom")
    if not is_dicom(path):
        raise unreadable(
            path, "a DICOM file", "which doesn't start as one: another format, compressed, or encrypted."
        )
    _check_inflated(path)
    try:
        with quiet():
            return pydicom.dcmread(path, force=True, stop_before_pixels=stop_before_pixels)
    except Exception:  # Damaged files raise errors of many types, which may cite values.
        raise unreadable(path, "a complete DICOM file", "whose attributes can't be read: damaged.") from None


def _check_inflated(path) -> None:
    """Raise a `ValueError` if a deflated data set would become too large."""
    pydicom = require("pydicom", "pydicom", extra="dicom")
    try:
        with quiet():
            meta = pydicom.filereader.read_file_meta_info(path)
        is_deflated = meta.get("TransferSyntaxUID", "") == pydicom.uid.DeflatedExplicitVRLittleEndian
    except Exception:  # without file meta information
        return
    if not is_deflated:
        return
    data = path.read_bytes()
    (length,) = struct.unpack_from("<I", data, _PREAMBLE + 8)
    inflate, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    rest = data[_PREAMBLE + _GROUP_LENGTH + length :]
    try:
        while rest and not inflate.eof:
            total += len(inflate.decompress(rest, _CHUNK))
            rest = inflate.unconsumed_tail
            if total > _MAX_INFLATED:
                raise unreadable(
                    path, f"a file of at most {_MAX_INFLATED:,} bytes", "which inflates to more."
                )
    except zlib.error:
        raise unreadable(path, "a complete DICOM file", "which can't be inflated: damaged.") from None


def planes_of(path: pathlib.Path, header: Any) -> list[Plane]:
    """Return the images of a file, in the order in which it holds them, or say that it holds none."""
    if "Rows" not in header or "Columns" not in header:
        raise unreadable(path, "an image", f"which holds none: its kind is {_kind(header)}.")
    whole = Plane(header, 0, path)
    frames = _size(whole, "NumberOfFrames", 1)
    count = frames * _size(whole, "Rows") * _size(whole, "Columns") * _size(whole, "SamplesPerPixel", 1)
    if count > MAX_VALUES:
        raise unreadable(
            path,
            f"a file or series of at most {MAX_VALUES:,} values",
            f"which announces {count:,}. Give one of its frames: frame=0.",
        )
    return [Plane(header, frame, path) for frame in range(frames)]


def _kind(header) -> str:
    """Return the name of what a file holds, such as `"RT Plan Storage"`."""
    meta = getattr(header, "file_meta", None) or {}
    uid = header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID")
    return getattr(uid, "name", "") or "unknown"


def _size(plane, name, default=None) -> int:
    found = numbers(plane, "", name) or ((default,) if default else ())
    if len(found) != 1 or not (found[0] >= 1 and found[0] == int(found[0])):
        raise unreadable(plane.path, "an image", f"whose {name} is no whole number from 1.")
    return int(found[0])


def find(plane: Plane, macro: str, name: str) -> Any:
    """Return an attribute of a plane: of its own functional group, the shared one, or the file; or `None`.

    Args:
        plane: the plane.
        macro: the sequence that holds it in a functional group, such as `"PlanePositionSequence"`.
        name: the attribute.
    """
    for group in _groups(plane):
        items = group.get(macro) if macro else None
        if items and items[0].get(name) not in (None, ""):
            return items[0].get(name)
    value = plane.dataset.get(name)
    return None if value is None or value == "" else value


def _groups(plane) -> Iterator[Any]:
    own = plane.dataset.get("PerFrameFunctionalGroupsSequence")
    if own and plane.frame < len(own):
        yield own[plane.frame]
    shared = plane.dataset.get("SharedFunctionalGroupsSequence")
    if shared:
        yield shared[0]


def sequence(plane: Plane, name: str) -> Any:
    """Return the first item of a sequence of a plane, as `find` looks for it, or `None`."""
    for group in (*_groups(plane), plane.dataset):
        if group.get(name):
            return group.get(name)[0]
    return None


def numbers(plane: Plane, macro: str, name: str, count: int | None = None) -> tuple[float, ...] | None:
    """Return the finite numbers of an attribute, or `None` where the file has none.

    Raises:
        ValueError: if it holds other than numbers, or another count of them.
    """
    try:
        value = find(plane, macro, name)
        if value is None:
            return None
        is_list = not isinstance(value, str | bytes) and hasattr(value, "__len__")
        found = tuple(float(each) for each in (value if is_list else (value,)))
    except Exception:
        raise unreadable(plane.path, "a DICOM file in order", f"whose {name} is no number.") from None
    if (count is not None and len(found) != count) or not all(map(math.isfinite, found)):
        expected = "finite" if count is None else f"{count} finite"
        raise unreadable(plane.path, "a DICOM file in order", f"whose {name} is not {expected} numbers.")
    return found


def decode(path: pathlib.Path, frame: int | None = None) -> np.ndarray:
    """Return the stored pixels of a file, `(frames, rows, columns, samples)`; of colours RGB.

    Args:
        path: the file.
        frame: which frame, from 0; `None` for all.

    Raises:
        ImportError: if the decoder of a compressed file is not installed; it names the extra.
        ValueError: if it has no pixels, if they are truncated, damaged or a video stream.
    """
    pixels = require("pydicom.pixels", "pydicom", extra="dicom")
    dataset = _read(path, stop_before_pixels=False)
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise unreadable(path, "an image", "which holds no pixels.")
    plugin = _checked_plugin(path, dataset)
    try:
        with quiet():
            array = pixels.pixel_array(
                dataset, index=frame, allow_excess_frames=False, decoding_plugin=plugin
            )
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException:  # Decoders raise errors of many types; a panic of Rust is no `Exception`.
        raise unreadable(
            path, "a complete image", "whose pixels can't be decoded: truncated, damaged, or of a rare kind."
        ) from None
    count = 1 if frame is not None else int(dataset.get("NumberOfFrames") or 1)
    return np.asarray(array).reshape(count, dataset.Rows, dataset.Columns, -1)


def _checked_plugin(path, dataset) -> str:
    """Return pydicom's name of the decoder to take, `""` for any, or say why a file has none.

    The streams of a compressed file are checked.
    """
    pydicom = require("pydicom", "pydicom", extra="dicom")
    uid = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    if uid is None:  # The transfer syntax is told by how the attributes are written.
        is_implicit, is_little = dataset.original_encoding
        kinds = {(True, True): "ImplicitVRLittleEndian", (False, True): "ExplicitVRLittleEndian"}
        uid = getattr(pydicom.uid, kinds.get((is_implicit, is_little), "ExplicitVRBigEndian"))
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = uid
    if "MPEG" in uid.name or "HEVC" in uid.name:
        raise unreadable(
            path, "images", f"a video stream, {uid.name}. Extract it as .mp4, and read that as a video."
        )
    try:
        decoder = pydicom.pixels.get_decoder(uid)
    except NotImplementedError:
        raise unreadable(path, "an image", f"of an unknown transfer syntax: {uid.name}.") from None
    if not decoder.is_available:
        raise ImportError(
            f"tf_gradcam needs a decoder for {uid.name}, and none is installed. "
            'Install it: pip install "tf_gradcam[dicom]"'
        )
    if uid.is_encapsulated:
        _check_streams(path, dataset, pydicom)
    # pydicom takes its own decoder of RLE first, which is five times slower.
    is_fast = uid == pydicom.uid.RLELossless and "pylibjpeg" in decoder.available_plugins
    return "pylibjpeg" if is_fast else ""


def _check_streams(path, dataset, pydicom) -> None:
    """Raise a `ValueError` if compressed frames are missing, or announce another size than the file."""
    expected = int(dataset.get("NumberOfFrames") or 1)
    try:
        with quiet():
            frames = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=expected))
    except Exception:
        frames = []
    if len(frames) != expected:
        raise unreadable(
            path, f"a complete image of {expected} frames", "whose frames are missing: truncated, or damaged."
        )
    for frame in frames:
        size = _stream_size(frame)
        if size is not None and size != (dataset.Rows, dataset.Columns):
            raise unreadable(
                path,
                f"an image of {dataset.Rows} x {dataset.Columns} pixels, as it says",
                f"which holds one of {size[0]} x {size[1]}: damaged.",
            )


def _stream_size(data) -> tuple[int, int] | None:
    """Return rows and columns that a stream of JPEG, JPEG-LS or JPEG 2000 announces; `None` of others."""
    start = data.find(b"\xff\x4f\xff\x51", 0, 512)  # JPEG 2000, ISO/IEC 15444-1, A.5.1
    if start >= 0 and len(data) >= start + 24:
        right, down, left, top = struct.unpack_from(">IIII", data, start + 8)
        return down - top, right - left
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:  # JPEG, ISO/IEC 10918-1, B.1
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return struct.unpack_from(">HH", data, at + 5)
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None

"""The header and the stored numbers of NIfTI, Analyze and MGH files, within limits. `reading` calls it.

nibabel reads the headers. The numbers are read here: nibabel stops where they end, so that the checksum of
a compressed file is never compared, and it allocates whatever a header announces.
"""

import gzip
import logging
import math
import os
import pathlib
import zlib
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam._optional import require

MAX_BYTES = 2**32  # of values in memory; a file of more is refused before it is decoded
_DEFLATE = 1032  # bytes that one compressed byte becomes, at most (zlib, "Technical Details")
_LONGEST_HEADER = 540  # NIfTI-2
_CHUNK = 2**22
_MOST_AFTER = 2**26  # bytes after the values; the tags of an MGH file are some kilobytes
_SILENT = logging.Logger("nibabel", logging.CRITICAL + 1)  # nibabel prints what it corrects in a header
_CIFTI = range(3000, 3100)  # NIfTI intent codes of surfaces and connectivity


class Stored(NamedTuple):
    """What a header says of the numbers.

    Attributes:
        header: nibabel's header.
        is_mgh: whether the file is an MGH file.
        has_forms: whether its header has sform and qform, as NIfTI has and Analyze and MGH have not.
        shape: the lengths of the axes; the first varies fastest.
        dtype: of a number, or of the colours of a voxel.
        offset: where the numbers begin, in bytes.
        slope: what they are multiplied with, or `None`.
        inter: what is added then, or `None`.
    """

    header: Any
    is_mgh: bool
    has_forms: bool
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    slope: float | None
    inter: float | None


def nibabel() -> Any:
    """Return the library."""
    return require("nibabel", "nibabel", extra="nifti")


def refused(path: pathlib.Path, why: object) -> ValueError:
    """Return the error that says why a file can't be read."""
    return ValueError(
        f"`path` must be a complete NIfTI, Analyze or MGH file. Received: {path.name!r}: {why!s:.300}"
    )


def read_stored(path: pathlib.Path) -> Stored:
    """Return what the header of a file says."""
    try:
        with _opened(path) as file:
            block = file.read(_LONGEST_HEADER)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise refused(path, f"it can't be decompressed: {error}. Copy or save it again.") from error
    header_class, size = _header_class(path, block)
    if len(block) < size:
        raise refused(path, f"its header is cut off after {len(block)} bytes.")
    try:
        header = header_class(block[:size], check=False)
        header.check_fix(logger=_SILENT, error_level=40)
        return _facts(header)
    except Exception as error:  # A damaged header raises errors of many types.
        raise refused(path, f"its header is damaged: {error}.") from error


def read_numbers(path: pathlib.Path, stored: Stored, shape: tuple[int, ...]) -> tuple[np.ndarray, bytes]:
    """Return the numbers as they are stored, in native byte order, and the first 20 bytes after them.

    Args:
        path: the file of the header.
        stored: what it says.
        shape: the shape to read, the first axis varying fastest; its product is that of the numbers.

    Returns:
        An array in Fortran order, read-only and memory-mapped where the file allows it; and bytes.
    """
    path = _file_of_numbers(path)
    dtype = np.dtype(np.uint8) if stored.dtype.names else stored.dtype
    size = math.prod(shape) * dtype.itemsize
    available = os.path.getsize(path)
    is_compressed = path.suffix.lower() in (".gz", ".mgz")
    if stored.offset + size > (available * _DEFLATE if is_compressed else available):
        announced = f"{size:,} bytes of values from byte {stored.offset:,}"
        raise refused(path, f"it has {available:,} bytes, but announces {announced}.")
    if not is_compressed and dtype.isnative and not stored.is_mgh:
        mapped: np.ndarray = np.memmap(path, dtype, "r", stored.offset, shape, "F")
        return mapped, b""
    check_memory(path, size)
    try:
        buffer, after = _read_all(path, stored.offset, size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise refused(path, f"its values are cut off or damaged: {error}. Copy or save it again.") from error
    numbers = buffer.view(dtype).reshape(shape, order="F")
    if not dtype.isnative:
        numbers = numbers.byteswap(inplace=True).view(dtype.newbyteorder("="))
    return numbers, after


def check_memory(path: pathlib.Path, size: int) -> None:
    """Raise a `ValueError` if so many bytes are not to be held in memory."""
    if size > MAX_BYTES:
        raise ValueError(
            f"`path` must hold at most {MAX_BYTES:,} bytes of values. Received: {path.name!r} with {size:,} "
            "bytes. A file without compression and scaling, in this machine's byte order, may be larger: "
            "it is not read into memory."
        )


def _opened(path) -> Any:
    if not path.is_file():
        raise refused(path, "it is not a file.")
    return gzip.open(path) if path.suffix.lower() in (".gz", ".mgz") else open(path, "rb")


def _header_class(path, block) -> tuple[Any, int]:
    """Return nibabel's class for a header, and how many bytes it has."""
    library = nibabel()
    if path.suffix.lower() in (".mgh", ".mgz"):
        return library.freesurfer.mghformat.MGHHeader, 284
    is_pair = path.suffix.lower() == ".hdr"
    sizes = {int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big")}
    if 540 in sizes:
        return (library.Nifti2Pair if is_pair else library.Nifti2Image).header_class, 540
    if 348 in sizes and block[344:348] in (b"n+1\0", b"ni1\0"):
        return (library.Nifti1Pair if is_pair else library.Nifti1Image).header_class, 348
    if 348 in sizes and is_pair:
        return library.spm2analyze.Spm2AnalyzeHeader, 348  # SPM's, which reads plain Analyze 7.5, too
    raise refused(path, f"it starts with {block[:16]!r}, as no such file does.")


def _facts(header) -> Stored:
    is_mgh, fields = "goodRASFlag" in header, set(header.keys())
    if "intent_code" in fields and int(header["intent_code"]) in _CIFTI:
        raise ValueError("it is a CIFTI file of surfaces or connections, not a volume")
    shape = tuple(map(int, header.get_data_shape()))
    if not shape or min(shape) < 1:
        raise ValueError(f"its axes have the lengths {shape}")
    dtype = np.dtype(header.get_data_dtype())
    if dtype.names is None and dtype.kind not in "iuf":
        raise ValueError(f"its values are {dtype}, not real numbers; save their magnitude, for example")
    slope, inter = (None, None) if is_mgh else header.get_slope_inter()
    offset = 284 if is_mgh else int(header.get_data_offset())
    if offset < 0:
        raise ValueError(f"its values begin at byte {offset}")
    return Stored(header, is_mgh, "sform_code" in fields, shape, dtype, offset, slope, inter)


def _file_of_numbers(path) -> pathlib.Path:
    """Return the `.img` file of a `.hdr`, and any other file itself."""
    if path.suffix.lower() != ".hdr":
        return path
    for ending in (".img", ".IMG", ".img.gz"):
        if path.with_suffix(ending).is_file():
            return path.with_suffix(ending)
    raise refused(path, f"its values would be in {path.with_suffix('.img').name!r}, which isn't there.")


def _read_all(path, offset, size) -> tuple[np.ndarray, bytes]:
    """Return `size` bytes from `offset`, and 20 of what follows; read to the end, where the checksum is."""
    buffer = np.empty(size, np.uint8)
    with _opened(path) as file:
        file.seek(offset)
        filled = 0
        while filled < size:
            read = file.readinto(memoryview(buffer)[filled : filled + _CHUNK])
            if not read:
                raise EOFError(f"{size:,} bytes are announced, {filled:,} are there")
            filled += read
        after, count = file.read(20), 0
        while chunk := file.read(_CHUNK):
            count += len(chunk)
            if count > _MOST_AFTER:
                raise EOFError("they are followed by more than 64 MiB that the header doesn't announce")
    return buffer, after

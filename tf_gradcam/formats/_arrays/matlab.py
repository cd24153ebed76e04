"""The numeric arrays of MATLAB files of version 5 to 7.2: `matlab_variables`, `read_variable`.

`numpy_files` calls it. The format is that of MathWorks' "MAT-File Format", chapter "Level 5 MAT-Files".
SciPy 1.17 reads it in compiled code that ends the process at some damaged files, so it is read here.
"""

import math
import os
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

_START = 128  # bytes before the first element
_HEAD = 2**16  # bytes of an element in which its flags, shape and name lie
_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_OTHERS = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function_handle", 17: "opaque"}
_IS_LOGICAL, _IS_COMPLEX = 0x0200, 0x0800  # in the flags of an array


class Variable(NamedTuple):
    """An array of a file.

    Attributes:
        shape: its shape, in MATLAB's order of axes.
        dtype: of its values; `object` for what is not numeric.
        kind: MATLAB's class.
        place: where its element's data begin in the file, and how many bytes they are.
        is_compressed: whether the element is compressed.
        byte_order: `"<"` or `">"`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    kind: str
    place: tuple[int, int]
    is_compressed: bool
    byte_order: str


class _Element(NamedTuple):
    """A part of an array: its type, and where its data lie."""

    type: int
    first: int
    size: int


def matlab_variables(path: pathlib.Path) -> dict[str, Variable]:
    """Return what is in a file, by name, in the order of the file.

    Raises:
        ValueError, zlib.error: if the file is damaged.
    """
    length = os.path.getsize(path)
    found: dict[str, Variable] = {}
    with open(path, "rb") as file:
        start = file.read(_START)
        byte_order = {b"IM": "<", b"MI": ">"}.get(start[126:128])
        if byte_order is None:
            raise ValueError("it is no file of version 5 or later; MATLAB's save -v7 writes one")
        position = _START
        while position + 8 <= length:
            file.seek(position)
            kind, size = np.frombuffer(file.read(8), f"{byte_order}u4").tolist()
            position += 8
            if position + size > length:
                raise ValueError(f"an array of {size:,} bytes is cut off")
            if kind in (_MATRIX, _COMPRESSED):
                place, is_compressed = (position, size), kind == _COMPRESSED
                head = _head(file.read(min(size, _HEAD)), is_compressed, byte_order)
                name, shape, number = _named(head, byte_order)
                dtype, kind_name = _class(number)
                found[name] = Variable(shape, dtype, kind_name, place, is_compressed, byte_order)
            position += size
    return found


def read_variable(path: pathlib.Path, variable: Variable) -> np.ndarray:
    """Return the values of a numeric variable, in native byte order.

    Raises:
        ValueError, zlib.error: if the file is damaged.
    """
    first, size = variable.place
    with open(path, "rb") as file:
        file.seek(first)
        data = file.read(size)
    count = math.prod(variable.shape)
    if variable.is_compressed:
        most = 16 * count + _HEAD  # The values may be stored in a type of up to 8 bytes; complex ones twice.
        stream = zlib.decompressobj()
        data = stream.decompress(data, most)
        if not stream.eof:
            raise ValueError("a compressed array is cut off, or longer than it announces")
        data = _matrix(data, variable.byte_order)
    *_, real = _parts(data, variable.byte_order, 4)
    stored = _STORED.get(real.type)
    if stored is None or np.dtype(stored).itemsize * count > real.size:
        raise ValueError(f"an array of shape {variable.shape} has {real.size:,} bytes of values")
    values = np.frombuffer(data, np.dtype(variable.byte_order + stored), count, real.first)
    return values.astype(variable.dtype, copy=False).reshape(variable.shape, order="F")


def _class(flags) -> tuple[np.dtype, str]:
    """Return the dtype and MATLAB's name of an array's class; `object` if it is not of real numbers."""
    number = flags & 0xFF
    if number not in _CLASSES:
        return np.dtype(object), _OTHERS.get(number, f"number {number}")
    if flags & _IS_COMPLEX:
        return np.dtype(complex), "complex"
    if flags & _IS_LOGICAL:
        return np.dtype(bool), "logical"
    return np.dtype(_CLASSES[number]), np.dtype(_CLASSES[number]).name


def _head(data, is_compressed, byte_order) -> bytes:
    """Return the first bytes of an array's own data."""
    if not is_compressed:
        return data
    return _matrix(zlib.decompressobj().decompress(data, _HEAD), byte_order)


def _matrix(data, byte_order) -> bytes:
    """Return the data of the one array that was compressed."""
    kind = np.frombuffer(data[:4].ljust(4, b"\0"), f"{byte_order}u4")[0]
    if kind != _MATRIX:
        raise ValueError(f"a compressed element is of type {kind}, not an array")
    return data[8:]


def _named(data, byte_order) -> tuple[str, tuple[int, ...], int]:
    """Return name, shape and flags of an array from its first bytes."""
    parts = _parts(data, byte_order, 3)
    flags_part = next(parts)
    flags = int(np.frombuffer(data, f"{byte_order}u4", 1, flags_part.first)[0])
    second = next(parts)
    if _OTHERS.get(flags & 0xFF) == "opaque":  # It has no shape.
        return data[second.first : second.first + second.size].decode("latin1"), (), flags
    third = next(parts)
    shape = np.frombuffer(data, f"{byte_order}i4", second.size // 4, second.first).tolist()
    if len(shape) > 32 or min(shape, default=-1) < 0:
        raise ValueError(f"an array has the shape {shape!s:.80}")
    return data[third.first : third.first + third.size].decode("latin1"), tuple(shape), flags


def _parts(data: Any, byte_order: str, count: int) -> Iterator[_Element]:
    """Yield the first parts of an array: flags, shape, name, values."""
    position = 0
    for _ in range(count):
        if position + 8 > len(data):
            raise ValueError("an array is cut off")
        kind, size = np.frombuffer(data, f"{byte_order}u4", 2, position).tolist()
        part, following = _Element(kind, position + 8, size), position + 8 + -(-size // 8) * 8
        if kind >> 16:  # Type and size share four bytes, and the data are in the other four.
            part, following = _Element(kind & 0xFFFF, position + 4, kind >> 16), position + 8
            if part.size > 4:
                raise ValueError("an array has a damaged part")
        yield part
        position = following

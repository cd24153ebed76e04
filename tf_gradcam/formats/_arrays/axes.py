"""A `Scan` of an array that says nothing of its axes, and arrays read when sliced.

`numpy_files` and `chunked` call `make_scan`, `chosen_name` and `check_bytes`.
"""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_gradcam._checks import did_you_mean
from tf_gradcam.formats._scan import Scan

MAX_BYTES = 2**32  # of values in memory at once
_ORDER = "tzyxc"
_MOST_CHANNELS = 32  # a longer last axis is taken for one of space
_SHOWN = 12  # names in an error, at most


class LazyArray:
    """An array in a file, with its axes in another order: what is sliced is read, in native byte order.

    Args:
        source: an array-like with `shape`, `dtype`, and slices with steps from 1.
        order: for each axis of this array the axis of the source, or `None` for a new axis of length 1.
        name: the file, for errors.
    """

    def __init__(self, source: Any, order: tuple[int | None, ...], name: str) -> None:
        self._source, self._order, self._name = source, order, name
        self.shape = tuple(1 if axis is None else int(source.shape[axis]) for axis in order)
        self.dtype = plain_dtype(source.dtype)
        self.ndim = len(order)
        self.size = math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"LazyArray(shape={self.shape}, dtype={self.dtype})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all of it."""
        if copy is False:
            raise ValueError("`copy` must not be False: the array is in a file.")
        return np.asarray(self[...], dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read a part, by integers, slices and `...`.

        Raises:
            IndexError: if it is no such part.
            ValueError: if the part is too large for the memory, or if the file is damaged.
        """
        places = self._places(key if isinstance(key, tuple) else (key,))
        ranges = [range(place, place + 1) if isinstance(place, int) else place for place in places]
        size = math.prod(map(len, ranges)) * self.dtype.itemsize
        check_bytes(self._name, size, "Slice it, or explain it in windows.")
        part = self._read(ranges) if size else np.empty([len(each) for each in ranges], self.dtype)
        return part[tuple(0 if isinstance(place, int) else slice(None) for place in places)]

    def _places(self, key) -> list[int | range]:
        """Return for each axis an index, or the range of indices of a slice."""
        for each in key:
            is_index = isinstance(each, int | np.integer) and not isinstance(each, bool | np.bool_)
            if not (is_index or isinstance(each, slice) or each is Ellipsis):
                raise IndexError(
                    "`key` must be integers, slices and `...`: the array is in a file. "
                    f"Received: {each!r:.80} of type {type(each).__name__}"
                )
        dots = [position for position, each in enumerate(key) if each is Ellipsis]
        if len(key) - len(dots) > self.ndim or len(dots) > 1:
            raise IndexError(f"`key` must have at most {self.ndim} places. Received: {key!r:.80}")
        first = dots[0] if dots else len(key)
        missing = self.ndim - len(key) + len(dots)
        key = (*key[:first], *[slice(None)] * missing, *key[first + 1 :])
        places: list[int | range] = []
        for each, length in zip(key, self.shape, strict=True):
            if isinstance(each, slice):
                places.append(range(*each.indices(length)))
            elif -length <= each < length:
                places.append(int(each) % length)
            else:
                raise IndexError(f"`key` must be below {length} here. Received: {int(each)}")
        return places

    def _read(self, ranges) -> np.ndarray:
        """Return what lies at these ranges, all of one index or more."""
        wanted: list[slice] = [slice(None)] * len(self._source.shape)
        for axis, indices in zip(self._order, ranges, strict=True):
            if axis is not None:
                ordered = indices if indices.step > 0 else indices[::-1]
                wanted[axis] = slice(ordered[0], ordered[-1] + 1, ordered.step)
        try:
            part = np.asarray(self._source[tuple(wanted)])
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception as error:  # The libraries raise errors of many types.
            raise ValueError(
                f"`path` must be a complete file. Received: {self._name!r}, where a part of the array can't "
                f"be read: {error!s:.300}"
            ) from error
        part = part.transpose([axis for axis in self._order if axis is not None])
        new = tuple(position for position, axis in enumerate(self._order) if axis is None)
        part = np.expand_dims(part, new).astype(self.dtype, copy=False)
        return part[tuple(slice(None, None, -1 if indices.step < 0 else 1) for indices in ranges)]


def make_scan(path: pathlib.Path, format_name: str, values: Any, axes: str | None, rest: str = "zyx") -> Scan:
    """Return a scan of an array of a file.

    Args:
        path: the file.
        format_name: what `Scan.format` says.
        values: an array, memory-mapped or not, or an array-like as `LazyArray` takes it.
        axes: a letter for each axis of `values`: `"t"` for time, `"z"`, `"y"`, `"x"`, and `"c"` for channels.
            With `None`: two axes are rows and columns; of more the last one is channels if it has at most 32
            indices, and the others are `"tzyx"`, as far from its end as there are axes.
        rest: the axes that three are where `axes` is `None` and none is channels.

    Raises:
        TypeError: if `axes` is no string.
        ValueError: if the array is no image, or if `axes` doesn't fit it.
    """
    shape = tuple(map(int, values.shape))
    why = not_an_image(shape, values.dtype)
    if why:
        raise ValueError(
            f"`path` must hold an array of real numbers with two axes or more. Received: {path.name!r} {why}."
        )
    letters = _default_axes(shape, rest) if axes is None else axes
    _check_axes(letters, shape, path)
    kept = "".join(letter for letter in _ORDER if letter in letters)
    order: tuple[int | None, ...] = tuple(letters.index(letter) for letter in kept)
    if "c" not in letters:
        order = (*order, None)
    plain = plain_dtype(values.dtype)
    is_loaded = isinstance(values, np.ndarray) and not isinstance(values, np.memmap)
    if is_loaded or (isinstance(values, np.memmap) and values.dtype.isnative and values.dtype == plain):
        values = values.astype(plain, copy=False)
        values = values.transpose([axis for axis in order if axis is not None])
        values = values if "c" in letters else values[..., None]
    else:
        values = LazyArray(values, order, path.name)
    return Scan(values=values, axes=kept.removesuffix("c"), format=format_name, path=path)


def plain_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype in native byte order; float64 for what is wider."""
    return np.dtype(np.float64) if dtype.itemsize > 8 else dtype.newbyteorder("=")


def not_an_image(shape: tuple[int, ...], dtype: np.dtype) -> str:
    """Return why an array is no image, `""` if it may be one."""
    if dtype.kind not in "biuf":
        kinds = {"c": "complex numbers", "U": "text", "S": "text", "T": "text", "O": "objects"}
        return f"with {kinds.get(dtype.kind, 'values')} of dtype {dtype!s:.80}"
    if 0 in shape:
        return f"with an empty array of shape {shape}"
    return f"with an array of shape {shape}" if len(shape) < 2 else ""


def chosen_name(arrays: Mapping[str, str], name: str | None, path: pathlib.Path) -> str:
    """Return which of the arrays of a file is meant.

    Args:
        arrays: for each name `""`, or why it is no image, as `not_an_image` says.
        name: the name that the user gives; with `None` the first that is an image.
        path: the file.

    Raises:
        TypeError: if `name` is no string.
        ValueError: if there is no such array, or if it is no image.
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"`name` must be a string or None. Received: name={name!r:.80}")
    shown = ", ".join(repr(each) for each in list(arrays)[:_SHOWN]) or "it has none"
    shown += f" and {len(arrays) - _SHOWN} more" if len(arrays) > _SHOWN else ""
    if name is not None and name not in arrays:
        raise ValueError(
            f"`name` must be an array of {path.name!r}: {shown}. Received: name={name!r:.80}. "
            f"{did_you_mean(name, arrays)}".rstrip()
        )
    if name is not None and arrays[name]:
        raise ValueError(
            f"`name` must be an array of real numbers with two axes or more. Received: name={name!r:.80}, "
            f"{arrays[name]}"
        )
    if name is not None:
        return name
    for each, why in arrays.items():
        if not why:
            return each
    reasons = "; ".join(f"{each!r} {why}" for each, why in list(arrays.items())[:3])
    raise ValueError(
        f"`path` must hold an array of real numbers with two axes or more. Received: {path.name!r} "
        f"{f'of {len(arrays)} arrays: {reasons}' if arrays else 'without an array'}."
    )


def check_bytes(name: str, size: int, advice: str) -> None:
    """Raise a `ValueError` if so many bytes are not to be held in memory."""
    if size > MAX_BYTES:
        raise ValueError(
            f"An array must have at most {MAX_BYTES:,} bytes to be read at once. Received: {name!r} with "
            f"{size:,} bytes. {advice}"
        )


def _default_axes(shape, rest) -> str:
    if len(shape) == 2:
        return "yx"
    if shape[-1] <= _MOST_CHANNELS and len(shape) <= 5:
        return {3: "yx", 4: rest, 5: f"t{rest}" if rest == "zyx" else f"{rest}t"}[len(shape)] + "c"
    if len(shape) == 3:
        return rest
    if len(shape) == 4:
        return f"t{rest}" if rest == "zyx" else f"{rest}t"
    return ""


def _check_axes(letters, shape, path) -> None:
    if not isinstance(letters, str):
        raise TypeError(f"`axes` must be a string or None. Received: axes={letters!r:.80}")
    is_known = set("yx") <= set(letters) <= set(_ORDER) and len(set(letters)) == len(letters)
    if not is_known or len(letters) != len(shape):
        raise ValueError(
            f"`axes` must have a letter for each axis of the array, of shape {shape}: y and x, and also z, t "
            f"and c (channels) where it has them. Received: axes={letters or None!r:.80} for {path.name!r}"
        )

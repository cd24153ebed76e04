"""Values in a file that are read where they are sliced: `Windows`, `PerThread`, `gather`, `reason`.

`_geotiff` and `_slide` call it, whose scenes may be larger than memory.
"""

import itertools
import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from tf_gradcam._checks import is_whole, one_line
from tf_gradcam._files import MAX_PIXELS

MAX_BYTES = 2**31  # that one slice may take
_CHUNK = 2**26  # bytes that are read at once, where a slice has steps

Read = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Windows:
    """An array-like over a file: slices are read, exact and in full resolution, and nothing is kept.

    Whole numbers, slices with any step and `...` are understood; `windows[::3, ::3]` holds every third value
    as it is.

    Args:
        shape: `(H, W)` or `(H, W, C)`.
        dtype: of the values.
        read: from indices of rows and columns, both rising, to the values at their crossings, `(h, w)` or
            `(h, w, C)`.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, read: Read) -> None:
        """Keep what is known without reading a value."""
        self.shape, self.dtype, self._read = shape, np.dtype(dtype), read

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __repr__(self) -> str:
        """Return shape and dtype; no value is read."""
        return f"Windows(shape={self.shape}, dtype={self.dtype})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all values, or raise a `ValueError` if they are too many to be read at once."""
        if copy is False:
            raise ValueError(
                "`copy` must not be False: the values are read from a file. Received: copy=False"
            )
        return np.asarray(self[...], dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read a part.

        Raises:
            IndexError: if an index is out of range, or is neither a whole number, a slice nor `...`.
            ValueError: if the part is too large to be read at once, or damaged in the file.
        """
        keys = self._one_for_each_axis(key)
        chosen = [range(length)[each] for length, each in zip(self.shape, keys, strict=True)]
        rows, columns, *channels = [
            np.arange(each, each + 1) if isinstance(each, int) else np.array(each, np.int64)
            for each in chosen
        ]
        self._check_size(len(rows), len(columns))
        found = np.empty((len(rows), len(columns), *self.shape[2:]), self.dtype)
        if found.size:
            found = self._read(np.sort(rows), np.sort(columns))
        found = found[_order(rows), _order(columns)]
        whole = [0 if isinstance(each, int) else slice(None) for each in chosen[:2]]
        return found[(*whole, *keys[2:])] if channels else found[tuple(whole)]

    def _one_for_each_axis(self, key) -> list:
        keys = list(key) if isinstance(key, tuple) else [key]
        if sum(each is Ellipsis for each in keys) > 1:
            raise IndexError(f"An index has one `...` at most. Received: {key!r:.80}")
        left = self.ndim - sum(each is not Ellipsis for each in keys)
        if left < 0:
            raise IndexError(f"There are {self.ndim} axes. Received: {key!r:.80}")
        if Ellipsis not in [each if each is Ellipsis else None for each in keys]:
            keys.append(Ellipsis)
        at = next(position for position, each in enumerate(keys) if each is Ellipsis)
        keys[at : at + 1] = [slice(None)] * left
        for each in keys:
            if not isinstance(each, slice) and not is_whole(each):
                raise IndexError(
                    "Values in a file are read by whole numbers, slices and `...`. "
                    f"Received: {each!r:.80}. Read a window first, and index that."
                )
        return [each if isinstance(each, slice) else int(each) for each in keys]

    def _check_size(self, height, width) -> None:
        size = height * width * int(np.prod(self.shape[2:], dtype=np.int64)) * self.dtype.itemsize
        if height * width > MAX_PIXELS or size > MAX_BYTES:
            raise ValueError(
                f"A window must have at most {MAX_PIXELS:,} pixels and {MAX_BYTES:,} bytes. "
                f"Received: {height} x {width} pixels, {size:,} bytes, of {' x '.join(map(str, self.shape))} "
                "values. Read windows, such as values[:1024, :1024], or explain the scene with "
                "GradCAM.sliding."
            )


class PerThread:
    """A handle to a file for each thread: the libraries' own are not safe to share.

    Args:
        make: opens the file.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        """Open nothing yet."""
        self._make, self._local = make, threading.local()

    def get(self) -> Any:
        """Return this thread's handle; it is opened when it is first asked for."""
        if getattr(self._local, "handle", None) is None:
            self._local.handle = self._make()
        return self._local.handle

    def close(self) -> None:
        """Close this thread's handle, if there is one; `get` opens another."""
        handle, self._local.handle = getattr(self._local, "handle", None), None
        if handle is not None:
            handle.close()


def gather(
    read_window: Callable[[slice, slice], np.ndarray], rows: np.ndarray, columns: np.ndarray, pixel_bytes: int
) -> np.ndarray:
    """Read the values at the crossings of rows and columns, a bounded number at once.

    Args:
        read_window: from a slice of rows and one of columns to the values in them.
        rows: indices, none below the one before it.
        columns: likewise.
        pixel_bytes: how large the values of a pixel are.

    Returns:
        `(len(rows), len(columns), ...)`.
    """
    if (np.diff(rows) == 1).all() and (np.diff(columns) == 1).all():
        return read_window(_span(rows), _span(columns))
    width = int(columns[-1] - columns[0]) + 1
    height = max(1, _CHUNK // (width * pixel_bytes))  # of a chunk
    steps = np.flatnonzero(np.diff((rows - rows[0]) // height)) + 1
    parts = []
    for start, stop in itertools.pairwise([0, *steps, len(rows)]):
        chosen = rows[start:stop]
        window = read_window(_span(chosen), _span(columns))
        parts.append(window[chosen - chosen[0]][:, columns - columns[0]])
    return np.concatenate(parts)


def reason(error: BaseException) -> str:
    """Return what a library said in one short line, without the folders of the paths in it."""
    return re.sub(r"\S*/", "", one_line(error.__cause__ or error))[:160].rstrip(". ")


def _span(indices) -> slice:
    return slice(int(indices[0]), int(indices[-1]) + 1)


def _order(indices) -> slice:
    """Return the slice that puts what was read with rising indices into their order."""
    return slice(None, None, -1) if len(indices) > 1 and indices[0] > indices[-1] else slice(None)

"""The windows of an image larger than the model: where they begin, and their values, read ahead. Called by
`sliding`.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import tensorflow as tf

from tf_gradcam._arrays import real_array
from tf_gradcam.formats import Scan

_Item = TypeVar("_Item")
Start = tuple[int, ...]


class Source(NamedTuple):
    """An image of which only windows are read.

    Attributes:
        values: array-like `(*axes, C)`, or `(C, *axes)`.
        valid: array-like `(*axes)` of bool, or `None`.
        channels_first: whether the channel axis comes first.
        fill: what the model gets where nothing is valid; `None` for the values that are there.
    """

    values: Any
    valid: Any
    channels_first: bool = False
    fill: float | None = 0

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths of the axes, without the channels."""
        shape = tuple(int(length) for length in self.values.shape)
        return shape[1:] if self.channels_first else shape[:-1]

    def window(self, start: Start, window: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the values of a window, and where they are valid. Nodata is `fill`, what lies beyond 0."""
        edges = zip(start, window, self.lengths, strict=True)
        place = tuple(slice(first, min(first + length, end)) for first, length, end in edges)
        all_channels = (slice(None), *place) if self.channels_first else (*place, slice(None))
        values = real_array("image", self.values[all_channels])
        valid = None if self.valid is None else np.asarray(self.valid[place]).astype(bool)
        if valid is not None and self.fill is not None and not valid.all():
            measured = valid[None] if self.channels_first else valid[..., None]
            values = np.where(measured, values, np.asarray(self.fill, values.dtype))
        missing = [(0, full - (each.stop - each.start)) for full, each in zip(window, place, strict=True)]
        if any(after for _, after in missing):
            values = np.pad(values, [(0, 0), *missing] if self.channels_first else [*missing, (0, 0)])
        return values, valid


def open_source(image: Any) -> Source:
    """Return the source of what a user gave as `image`, with nothing read.

    Raises:
        TypeError: if it is no array or array-like of real numbers.
        ValueError: if it is empty, or a symbolic tensor.
    """
    valid, fill = None, None
    if isinstance(image, Scan):
        image, valid, fill = image.values, image.valid, image.fill
    elif tf.is_tensor(image) and not hasattr(image, "numpy"):
        raise ValueError(
            "`image` must hold numbers. Received: a symbolic tensor. Call `sliding` outside of a tf.function."
        )
    elif tf.is_tensor(image) or not (hasattr(image, "shape") and hasattr(image, "dtype")):
        image = real_array("image", image)
    if not hasattr(image, "__getitem__"):
        raise TypeError(f"`image` must be an array. Received: {image!r:.80} (of type {type(image).__name__})")
    if 0 in tuple(image.shape):
        raise ValueError(f"`image` must not be empty. Received: shape {tuple(image.shape)}")
    return Source(image, valid, fill=fill)


class ValidPlaces:
    """Where anything valid was seen, on a grid."""

    def __init__(self, extents: Sequence[int], grid: Sequence[int]):
        """Note nothing yet.

        Args:
            extents: how many pixels of the image the grid covers along each axis.
            grid: its number of cells along each axis.
        """
        self._extents = tuple(extents)
        self._size = tuple(grid)
        self._seen = np.zeros([min(pair) for pair in zip(extents, grid, strict=True)], bool)

    def add(self, start: Start, valid: np.ndarray) -> None:
        """Note what of the window that begins at `start` is valid."""
        places = []
        for axis, (first, extent) in enumerate(zip(start, self._extents, strict=True)):
            pixels = np.arange(first, first + valid.shape[axis])
            cells = pixels * self._seen.shape[axis] // extent
            begins = np.flatnonzero(np.diff(cells, prepend=-1))
            if len(begins) < len(cells):
                valid = np.logical_or.reduceat(valid, begins, axis)
            places.append(cells[begins])
        place = tuple(slice(each[0], each[-1] + 1) for each in places)
        self._seen[place] |= valid

    def finish(self) -> np.ndarray:
        """Return the grid, bool."""
        seen = self._seen
        for axis, count in enumerate(self._size):
            if count != seen.shape[axis]:
                seen = np.take(seen, np.arange(count) * seen.shape[axis] // count, axis)
        return seen


def read_batches(
    source: Source,
    window: Sequence[int],
    starts: Iterable[Start],
    batch_size: int,
    valid_places: Sequence[ValidPlaces],
) -> Iterator[tuple[list[Start], np.ndarray]]:
    """Yield the windows with a valid place in batches: where they begin, and their values.

    Args:
        source: the image.
        window: lengths of a window.
        starts: where windows begin.
        batch_size: the most windows of a batch.
        valid_places: grids on which to note what is valid.
    """
    kept: list[Start] = []
    batch: list[np.ndarray] = []
    for start in starts:
        values, valid = source.window(start, window)
        if valid is not None:
            for places in valid_places:
                places.add(start, valid)
            if not valid.any():
                continue
        kept.append(start)
        batch.append(values)
        if len(batch) == batch_size:
            yield kept, native_batch(batch)
            kept, batch = [], []
    if batch:
        yield kept, native_batch(batch)


def native_batch(windows: Sequence[np.ndarray]) -> np.ndarray:
    """Return windows as one batch in the byte order of this machine: TensorFlow takes no other."""
    batch = np.stack(windows)
    return batch.astype(batch.dtype.newbyteorder("="), copy=False)


def one_ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """Yield items, while a thread makes the next one."""
    end = object()
    with ThreadPoolExecutor(max_workers=1) as thread:
        pending: Any = thread.submit(next, items, end)
        while (item := pending.result()) is not end:
            pending = thread.submit(next, items, end)
            yield item

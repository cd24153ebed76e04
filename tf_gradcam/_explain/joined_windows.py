"""The signed maps of windows joined to one signed map of the whole image, in NumPy. Called by `sliding`.

The joined map lies on a grid of cells. Where a cell of a window's map is a whole number of pixels, so is a
cell of the grid, and a window that begins at a multiple of it has its numbers taken as they are. All others
are interpolated linearly, one axis after the other. Where windows overlap, the mean is taken, weighted by a
Gaussian around the centre of each window: at its border a network has seen too little, or its own padding.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_DEVIATION = 1 / 8  # of the Gaussian, in windows: as in nnU-Net (Isensee et al. 2021)
_EDGE_TOLERANCE = 1e-3  # pixels; a frame is a share of the window in float32


class Cells(NamedTuple):
    """The cells of the joined map along one axis, in pixels of the image.

    Attributes:
        length: length of the image.
        window: length of a window.
        cell_count: number of cells.
        step: distance between two cells.
        extent: what the cells cover: the image, and where a part of the last one lies beyond it, more.
        map_count: number of cells of a window's map.
        map_start: where a window's map begins, from the start of the window.
        map_end: where it ends; before `map_start` if the map is flipped.
        by_index: whether window and image have the same cells, wherever their maps are drawn.
    """

    length: int
    window: int
    cell_count: int
    step: float
    extent: float
    map_count: int
    map_start: float
    map_end: float
    by_index: bool = False

    @property
    def map_step(self) -> float:
        """The distance between two cells of a window's map as it is drawn; negative if it is flipped."""
        return (self.map_end - self.map_start) / self.map_count

    @property
    def is_whole(self) -> bool:
        """Whether windows that begin at a multiple of `step` need no interpolation."""
        is_drawn_so = self.step == abs(self.map_step) and self.map_start % self.step == 0
        return float(self.step).is_integer() and (self.by_index or is_drawn_so)

    def positions(self, start: int) -> np.ndarray:
        """Return where the cells are, in cells of the map of the window that begins at `start`."""
        if self.by_index:
            return np.arange(self.cell_count) - start / self.step
        centres = (np.arange(self.cell_count) + 0.5) * self.step
        return (centres - start - self.map_start) / self.map_step - 0.5


def make_cells(
    length: int, window: int, map_count: int, frame: Sequence[float], stride: int | None = None
) -> Cells:
    """Return the cells of the joined map along an axis.

    A map of `n` cells is drawn over all of a window of `L` pixels, though its stride may not be `L / n`, as
    after convolutions without padding. There the joined map is the one that the whole image would have.

    Args:
        length: length of the image.
        window: length of a window.
        map_count: number of cells of a window's map.
        frame: where the map begins and ends, as shares of the window.
        stride: pixels between two cells of a window's map, if known.
    """
    edges = np.asarray(frame, np.float64) * window
    whole = np.rint(edges)
    start, end = np.where(abs(edges - whole) < _EDGE_TOLERANCE, whole, edges).tolist()
    known = (length, window)
    is_seen = (
        stride is not None and window / 2 < map_count * stride < window + stride
    )  # else a step is missing
    if stride is not None and is_seen and (start, end) == (0, window) and map_count * stride != window:
        count = map_count + math.ceil(max(0, length - window) / stride)
        extent: float = window + (count - map_count) * stride
        if length < window:
            count = math.ceil(length * map_count / window)
            extent = count * window / map_count
        return Cells(*known, count, stride, extent, map_count, start, end, True)
    size = abs(end - start) / map_count
    if size.is_integer() and size > 0:
        count = math.ceil(length / size)
        return Cells(*known, count, size, count * size, map_count, start, end)
    count = max(1, round(length / size)) if size > 0 else 1
    return Cells(*known, count, length / count, length, map_count, start, end)


def window_starts(length: int, window: int, step: int) -> list[int]:
    """Return where windows begin along an axis; the last one ends where the image does."""
    last = max(0, length - window)
    return [*range(0, last, step), last]


class _Part(NamedTuple):
    """What a window adds to the joined map along one axis.

    Attributes:
        first: the first cell of the joined map.
        weights: `(cells,)`: the weight of each cell, divided by the sum of those of all windows.
        taken: the cells of the window's map that are taken as they are, or `None`.
        matrix: `(cells, map_count)`: their interpolation, with the weights; `None` if they are taken.
    """

    first: int
    weights: np.ndarray
    taken: slice | None
    matrix: np.ndarray | None

    def apply(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Return the weighted values on the cells of the joined map along `axis`."""
        if self.matrix is not None:
            return np.moveaxis(np.tensordot(self.matrix, values, (1, axis)), 0, axis)
        shape = [-1 if each == axis else 1 for each in range(values.ndim)]
        return values[(slice(None),) * axis + (self.taken,)] * self.weights.reshape(shape)


def _parts(cells: Cells, starts: Sequence[int], dtype: np.dtype) -> dict[int, _Part]:
    """Return for each start along an axis what a window there adds, with weights that add up to 1."""
    positions, inside, weights = {}, {}, {}
    total = np.zeros(cells.cell_count)
    for start in starts:
        found = cells.positions(start)
        is_inside = (found >= -0.5) & (found < cells.map_count - 0.5)
        if start == starts[-1] and cells.extent > cells.length:  # The centre of the last cell may lie beyond.
            is_inside[-1] |= -1.5 < found[-1] < cells.map_count + 0.5
        inside[start] = np.flatnonzero(is_inside)
        positions[start] = found[is_inside]
        distances = (cells.map_start + (positions[start] + 0.5) * cells.map_step) / cells.window - 0.5
        weights[start] = np.exp(-0.5 * (distances / _DEVIATION) ** 2)
        total[inside[start]] += weights[start]
    return {
        start: _part(
            inside[start], weights[start] / total[inside[start]], positions[start], cells.map_count, dtype
        )
        for start in starts
    }


def _part(rows, weights, positions, map_count, dtype) -> _Part:
    """Return what a window adds to the cells `rows`, whose centres are at `positions` of its map."""
    first = int(rows[0]) if len(rows) else 0
    is_taken = (positions == np.arange(len(rows)) + (positions[0] if len(rows) else 0)).all()
    if len(rows) and is_taken and positions[0].is_integer() and 0 <= positions[0] <= map_count - len(rows):
        column = int(positions[0])
        return _Part(first, weights.astype(dtype), slice(column, column + len(rows)), None)
    positions = np.clip(positions, 0, map_count - 1)
    below = np.minimum(positions.astype(int), max(map_count - 2, 0))
    above = np.minimum(below + 1, map_count - 1)
    share = positions - below
    matrix, places = np.zeros((len(rows), map_count)), np.arange(len(rows))
    matrix[places, below] += weights * (1 - share)
    matrix[places, above] += weights * share
    return _Part(first, weights.astype(dtype), None, matrix.astype(dtype))


class JoinedMap:
    """One signed map of the whole image, to which windows are added one by one."""

    def __init__(
        self,
        cells: Sequence[Cells],
        starts: Sequence[Sequence[int]],
        scores: int,
        dtype: np.dtype,
        is_complete: bool = True,
    ):
        """Make a map of zeros.

        Args:
            cells: the cells along each axis.
            starts: where windows begin along each axis.
            scores: number of scores, M.
            dtype: dtype of the map.
            is_complete: whether a window will be added for every combination of `starts`.
        """
        self._parts = [_parts(each, along, dtype) for each, along in zip(cells, starts, strict=True)]
        grid = [each.cell_count for each in cells]
        self._values = np.zeros((scores, *grid), dtype)
        self._weights = None if is_complete else np.zeros(grid, np.float32)

    def add(self, start: Sequence[int], signed_map: np.ndarray) -> None:
        """Add the map `(M, *map_counts)` of the window that begins at `start`."""
        parts = [along[each] for along, each in zip(self._parts, start, strict=True)]
        for axis, part in enumerate(parts, 1):
            signed_map = part.apply(signed_map, axis)
        place = tuple(slice(part.first, part.first + len(part.weights)) for part in parts)
        self._values[(slice(None), *place)] += signed_map
        if self._weights is not None:
            self._weights[place] += functools.reduce(np.multiply.outer, [part.weights for part in parts])

    def finish(self) -> np.ndarray:
        """Return the joined map, `(M, *grid)`, 0 where there is no window. Nothing can be added after it."""
        if self._weights is not None:
            np.divide(self._values, self._weights, out=self._values, where=self._weights > 0)
        return self._values

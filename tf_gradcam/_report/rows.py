"""The rows of a run read from its Parquet files, a few at a time: `read_run`. `report` calls it.

Memory stays the same however many rows there are: of most rows only sums are kept.
"""

import array
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam._files import JOURNAL, MANIFEST_KEY, find_parts
from tf_gradcam._images import resize_pixels, size_within
from tf_gradcam._optional import require

MOST_ERRORS = 100  # rows with an error that a page shows
BINS = 10  # of the probability
_GRID_SIDE = 40  # cells a side of the maps on a page, at most; larger maps are averaged
_ROWS_AT_ONCE = 256


class Row(NamedTuple):
    """A row of a run.

    Attributes:
        values: its columns without the map, by name.
        evidence: the positive part of its map, float32 `(h, w)`, on the scale of the run; `None` without one.
    """

    values: dict[str, Any]
    evidence: np.ndarray | None = None

    @property
    def peak(self) -> float:
        """The maximum of the evidence."""
        return 0.0 if self.evidence is None else float(self.evidence.max())

    @property
    def is_first(self) -> bool:
        """Whether the explained class is the model's first, as far as the row says."""
        top, target = self.values["top"], self.values["target"]
        return not top or target is None or top[0]["class"] == target

    @property
    def order(self) -> tuple[bool, float, str]:
        """What sorts rows: what is not the model's first class, then the least certain."""
        probability = self.values["probability"]
        certainty = self.values["score"] if probability is None else probability
        return self.is_first, math.inf if certainty is None else certainty, self.values["id"]


class ClassSums:
    """What all rows of one class add up to."""

    def __init__(self, label: str | None) -> None:
        self.label = label
        self.count = self.not_first = self.with_probability = 0
        self.probability = 0.0
        self._evidence: Any = 0.0

    def add(self, row: Row) -> None:
        """Add a row without an error."""
        self.count += 1
        self.not_first += not row.is_first
        if row.values["probability"] is not None:
            self.with_probability += 1
            self.probability += row.values["probability"]
        self._evidence = self._evidence + np.asarray(row.evidence, np.float64)

    def mean_probability(self) -> float | None:
        """Return the mean probability, or `None` if no row has one."""
        return self.probability / self.with_probability if self.with_probability else None

    def mean_evidence(self) -> np.ndarray:
        """Return the mean of the positive maps, `(h, w)`."""
        return (self._evidence / self.count).astype(np.float32)


class Run:
    """A run: its manifest, its sums, and the rows that a page shows.

    Attributes:
        manifest: what was asked for.
        grid: height and width of its maps, in cells.
        is_finished: whether no rows wait in a journal.
        explained: number of rows with a map.
        failed: number of rows with an error.
        classes: sums by class; the key is `None` where the target is no class.
        histogram: number of rows by probability, in `BINS` bins.
        shown: the rows to show, in order.
        errors: the first rows with an error.
    """

    def __init__(self, manifest: dict[str, Any], grid: tuple[int, int], is_finished: bool) -> None:
        self.manifest, self.grid, self.is_finished = manifest, grid, is_finished
        self.explained = self.failed = 0
        self.classes: dict[int | None, ClassSums] = {}
        self.histogram = [0] * BINS
        self.shown: list[Row] = []
        self.errors: list[Row] = []
        self._peaks = array.array("f")

    @property
    def not_first(self) -> int:
        """Number of rows whose class is not the model's first."""
        return sum(each.not_first for each in self.classes.values())

    def full_color(self) -> float:
        """Return the value of the full colour: the 99th percentile of the maxima of all maps."""
        if not self._peaks:
            return 0.0
        return float(np.percentile(np.frombuffer(self._peaks, np.float32), 99, method="higher"))

    def add(self, row: Row) -> None:
        """Add a row to the sums, and to the rows with an error if it has one."""
        if row.evidence is None:
            self.failed += 1
            if len(self.errors) < MOST_ERRORS:
                self.errors.append(row)
            return
        self.explained += 1
        self._peaks.append(row.peak)
        self.classes.setdefault(row.values["target"], ClassSums(row.values["label"])).add(row)
        probability = row.values["probability"]
        if probability is not None:
            self.histogram[min(BINS - 1, max(0, int(probability * BINS)))] += 1


def read_run(folder: pathlib.Path, most: int) -> Run:
    """Read a run from the Parquet files in its folder.

    Args:
        folder: what `explain_dataset` wrote to.
        most: number of rows to show.

    Raises:
        ValueError: if the folder holds no run, a damaged file, or maps that are no pictures.
    """
    paths = find_parts(folder)
    if not paths:
        raise ValueError(
            f"`folder` must be one that `tf-gradcam run` or explain_dataset wrote. Received: {folder}, which "
            "holds no part-*.parquet."
        )
    manifest, grid = _read_header(paths[0])
    run = Run(manifest, grid, not (folder / JOURNAL).exists())
    kept: list[Row] = []
    for path in paths:
        if _read_header(path) != (manifest, grid):
            raise ValueError(
                f"`folder` must hold the parts of one run. Received: {path.name}, of another run than "
                f"{paths[0].name}."
            )
        for row in _read_rows(path):
            run.add(row)
            if row.evidence is not None:
                kept.append(row)
            if len(kept) >= 2 * most + _ROWS_AT_ONCE:
                kept = _worst(kept, most)
    run.shown = _worst(kept, most)
    return run


def _worst(rows, most) -> list[Row]:
    return sorted(rows, key=lambda row: row.order)[:most]


def _read_header(path) -> tuple[dict[str, Any], tuple[int, int]]:
    """Return the manifest in a part, and the grid of its maps."""
    parquet = require("pyarrow.parquet", "pyarrow", extra="scale")
    try:
        schema = parquet.read_schema(path)
        manifest = json.loads((schema.metadata or {})[MANIFEST_KEY])
        shape = schema.field("map").type.shape
    except (KeyError, AttributeError, ValueError, OSError) as error:
        raise ValueError(
            f"`folder` must hold only parts of a run. Received: {path}, which is damaged or none."
        ) from error
    if len(shape) != 2:
        raise ValueError(
            "`folder` must hold maps of a height and a width, as a page can draw them. Received: maps "
            f"{tuple(shape)}"
        )
    return manifest, tuple(shape)


def _read_rows(path) -> Iterator[Row]:
    parquet = require("pyarrow.parquet", "pyarrow", extra="scale")
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                yield from _rows_of(batch)
    except OSError as error:
        raise ValueError(f"`folder` must hold whole parts. Received: {path}, which is damaged.") from error


def _rows_of(batch) -> Iterator[Row]:
    """Yield the rows of a record batch."""
    column = batch.column("map")
    shape = column.type.shape
    maps = iter(column.storage.flatten().to_numpy(zero_copy_only=False).reshape(-1, *shape))
    has_map = column.storage.is_valid().to_pylist()
    rows = batch.drop_columns(["map"]).to_pylist()
    for values, is_there in zip(rows, has_map, strict=True):
        signed = next(maps).astype(np.float32) if is_there else None
        for name in ("score", "probability"):
            if values[name] is not None and not math.isfinite(values[name]):
                values[name] = None
        if values["error"] or signed is None:
            yield Row({**values, "error": values["error"] or "no map"})
        else:
            yield Row(values, _small(np.maximum(np.nan_to_num(signed), 0) * np.float32(values["map_scale"])))


def _small(evidence) -> np.ndarray:
    size = size_within(evidence.shape, _GRID_SIDE)
    return evidence if size == evidence.shape else resize_pixels(evidence, size).reshape(size)

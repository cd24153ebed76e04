"""The rows of a run in other forms: a CSV table, Zarr arrays, overlays, a data set of FiftyOne.

Users call `export_rows`, and the command `run` does, with `--to`. Rows are read in batches, so memory stays
the same however many there are. What is written gets its name when it is whole.
"""

import concurrent.futures
import contextlib
import csv
import functools
import hashlib
import itertools
import json
import os
import pathlib
import shutil
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tf_gradcam._checks import one_line, printable
from tf_gradcam._dataset.fiftyone import write_fiftyone
from tf_gradcam._ending import at_sudden_end
from tf_gradcam._files import find_parts, lock_folder, unfinished
from tf_gradcam._images import overlay
from tf_gradcam._optional import require
from tf_gradcam._run import write_picture

_ENDINGS = {"csv": ".csv", "zarr": ".zarr", "pictures": "-pictures", "fiftyone": "-fiftyone"}
_ROWS_AT_ONCE = 256
_PICTURES_AT_ONCE = 32
_PROBLEMS_NAMED = 3  # in a warning
_MARK = ".tf_gradcam-export"  # in a folder that this module wrote, and may replace
_PLACES = {"peak": ("peak_x", "peak_y"), "box": ("box_x1", "box_y1", "box_x2", "box_y2")}


def export_rows(rows: str | os.PathLike, to: str) -> pathlib.Path:
    """Write the rows of a run in another form, beside their folder.

    Args:
        rows: the folder that `explain_dataset` wrote.
        to: `"csv"`: one table of all but the maps, `ROWS.csv`. `"zarr"`: arrays `map` `(N, h, w)`, with the
            values that the layer's map has, `id`, and `score`, in `ROWS.zarr`, as xarray opens them.
            `"pictures"`: overlays of the photographs, in folders like theirs in `ROWS-pictures`, all on one
            scale; with a warning, none of those that are gone or have changed.
            `"fiftyone"`: a data set with a `Heatmap` for each image, on one scale, in `ROWS-fiftyone`;
            `fiftyone.Dataset.from_dir(path, dataset_type=fiftyone.types.FiftyOneDataset)` loads it.

    Returns:
        The path of what was written. What an earlier call wrote there is replaced.

    Raises:
        ImportError: if a package is missing; it says how to install it.
        OSError: if it can't be written.
        ValueError: if `to` is none of these, there are no rows, or something else lies at the path.
    """
    path, problem = export_with_problem(rows, to)
    if problem:
        warnings.warn(problem, stacklevel=2)
    return path


def export_with_problem(rows: str | os.PathLike, to: str) -> tuple[pathlib.Path, str]:
    """Do what `export_rows` does, and return its warning, `""` for none, beside the path."""
    check_forms([to])
    write = {
        "csv": _write_csv,
        "zarr": _write_zarr,
        "pictures": _write_pictures,
        "fiftyone": _write_fiftyone,
    }[to]
    folder, path = pathlib.Path(os.path.abspath(rows)), _export_path(rows, to)
    if to == "csv":
        with unfinished(path) as temporary:
            problem = write(_Rows(folder), temporary)
    else:
        with _unfinished_folder(path) as temporary:
            problem = write(_Rows(folder), temporary)
    return path, problem or ""


def check_forms(forms: Iterable[str], rows: str | os.PathLike | None = None) -> None:
    """Raise a `ValueError` if one is no form of `export_rows`, or something else lies where it is written."""
    for form in forms:
        if form not in _ENDINGS:
            raise ValueError(f"`to` must be one of {', '.join(_ENDINGS)}. Received: {form!r:.80}")
        if rows is not None and form != "csv":
            _check_own(_export_path(rows, form))


def _export_path(rows: str | os.PathLike, form: str) -> pathlib.Path:
    folder = pathlib.Path(os.path.abspath(rows))
    return folder.with_name(f"{folder.name}{_ENDINGS[form]}")


def _check_own(path: pathlib.Path) -> None:
    if path.is_symlink() or (path.exists() and not (path / _MARK).is_file()):
        raise ValueError(
            f"`to` writes {path}, where something else lies. Rename it, or move the folder of the rows."
        )


class _Rows:
    """The rows in a folder, read in batches."""

    def __init__(self, folder: pathlib.Path) -> None:
        parts = find_parts(folder)
        if not parts:
            raise ValueError(f"`rows` must be a folder of a run's parts. Received: {folder}, which has none.")
        dataset = require("pyarrow.dataset", "pyarrow", extra="scale")
        self._data = dataset.dataset([str(path) for path in parts], format="parquet")
        self.count = self._data.count_rows()
        self.grid = tuple(self._data.schema.field("map").type.shape)
        self._names = self._data.schema.names

    def batches(self, without: tuple[str, ...] = ()) -> Iterator[Any]:
        """Yield Arrow's record batches, without some columns."""
        names = [name for name in self._names if name not in without]
        yield from self._data.to_batches(columns=names, batch_size=_ROWS_AT_ONCE)

    def explained(self) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """Yield each row that has a map, without it, and the map with its own values, float32."""
        for batch in self.batches():
            maps = _maps(batch, self.grid)
            for row, values in zip(batch.drop_columns(["map"]).to_pylist(), maps, strict=True):
                if row["error"] is None:
                    yield row, values

    def maximum(self) -> float:
        """Return the highest value of all maps; 1 where none is above 0."""
        highest = max((float(values.max()) for _, values in self.explained()), default=0.0)
        return highest if highest > 0 else 1.0


def _maps(batch, grid) -> np.ndarray:
    """Return the maps of a record batch with their own values, `(N, h, w)` float32; NaN for none."""
    column = batch.column("map")
    storage = column.storage
    flat = storage.values.to_numpy(zero_copy_only=False)
    length = int(np.prod(grid))
    flat = flat[storage.offset * length : (storage.offset + len(storage)) * length]
    maps = flat.reshape(len(storage), *grid).astype(np.float32)
    scales = batch.column("map_scale").to_numpy(zero_copy_only=False).astype(np.float32)
    return maps * scales.reshape(-1, *[1] * len(grid))


def _write_csv(rows: _Rows, path: pathlib.Path) -> None:
    with open(path, "x", encoding="utf-8", newline="") as file:
        writer = None
        for batch in rows.batches(without=("map",)):
            for row in batch.to_pylist():
                flat = _flat(row)
                writer = writer or csv.writer(file)
                if file.tell() == 0:
                    writer.writerow(flat)
                writer.writerow(flat.values())


def _flat(row) -> dict[str, Any]:
    """Return a row with a cell for each number, and the best classes as JSON."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name in _PLACES:
            flat |= dict(zip(_PLACES[name], value or [None] * len(_PLACES[name]), strict=True))
        else:
            flat[name] = json.dumps(value) if isinstance(value, list) else value
    return flat


def _write_zarr(rows: _Rows, folder: pathlib.Path) -> None:
    zarr = require("zarr", "zarr", extra="arrays")
    longest = max(len(name) for batch in rows.batches() for name in batch.column("id").to_pylist())
    # Version 2 has fixed lengths for text, which every reader knows.
    group = zarr.open_group(folder, mode="w", zarr_format=2)
    # A chunk of about a mebibyte.
    chunk = max(1, min(_ROWS_AT_ONCE, rows.count, 2**18 // int(np.prod(rows.grid))))
    axes = ("z", "y", "x")[-len(rows.grid) :]
    arrays = {}
    for name, shape, dtype, names in (
        ("map", rows.grid, "float32", axes),
        ("score", (), "float32", ()),
        ("id", (), f"<U{max(1, longest)}", ()),
    ):
        arrays[name] = group.create_array(
            name, shape=(rows.count, *shape), chunks=(chunk, *shape), dtype=dtype
        )
        arrays[name].attrs["_ARRAY_DIMENSIONS"] = ["row", *names]
    start = 0
    for batch in rows.batches():
        part = slice(start, start + len(batch))
        arrays["map"][part] = _maps(batch, rows.grid)
        arrays["score"][part] = batch.column("score").to_numpy(zero_copy_only=False)
        arrays["id"][part] = np.array(batch.column("id").to_pylist(), arrays["id"].dtype)
        start += len(batch)
    zarr.consolidate_metadata(group.store)


def _write_pictures(rows: _Rows, folder: pathlib.Path) -> str:
    """Write the pictures; return which photographs have none, and why."""
    if len(rows.grid) != 2:
        raise ValueError('`to="pictures"` needs maps of two axes. Received: maps of three. Take "zarr".')
    highest = rows.maximum()
    taken: set[str] = set()
    problems: list[str] = []
    remaining = rows.explained()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        while some := list(itertools.islice(remaining, _PICTURES_AT_ONCE)):
            if not all(row["path"] for row, _ in some):
                raise ValueError('`to="pictures"` needs rows of files. Received: rows of arrays.')
            paths = [folder / _free_name(row["id"], taken) for row, _ in some]
            draw = functools.partial(_write_overlay, vmax=highest)
            rows_of_some, maps = zip(*some, strict=True)
            problems += [each for each in pool.map(draw, paths, rows_of_some, maps) if each]
    if not problems:
        return ""
    named = "; ".join(problems[:_PROBLEMS_NAMED]) + ("; ..." if len(problems) > _PROBLEMS_NAMED else "")
    return f'`to="pictures"` needs what was explained, and skipped {len(problems)}: {named}'


def _write_overlay(path, row, values, vmax) -> str:
    """Write the overlay of a row; return why there is none, or `""`."""
    cv2 = require("cv2", "opencv-python")
    try:
        data = _read_unchanged(row)
        picture = cv2.cvtColor(overlay(data, values, vmax=vmax), cv2.COLOR_RGB2BGR)
    except (OSError, ValueError) as error:  # Whatever is wrong with one photograph, the others still count.
        return f"{printable(row['path'])}: {one_line(error)}"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, cv2.imencode(".jpg", picture)[1].tobytes())
    return ""


def _read_unchanged(row) -> bytes:
    """Return the file of a row, whose heatmap would be wrong on another photograph."""
    file = pathlib.Path(row["path"])
    if not file.is_file():  # To open a pipe or a device may take forever.
        raise ValueError("there is no such file any more")
    data = file.read_bytes()
    if row["sha256"] not in ("", None, hashlib.sha256(data).hexdigest()):
        raise ValueError("the file has changed since it was explained")
    return data


def _free_name(name: str, taken: set[str]) -> str:
    """Return a relative path for the overlay of a row, of parts that lead nowhere else."""
    parts = [part.strip() for part in name.replace("\\", "/").replace(":", "/").split("/")]
    parts = ["".join(each if each.isprintable() else "_" for each in part)[:100] for part in parts]
    stem = "/".join(part for part in parts if part.strip(".")) or "image"
    free, number = f"{stem}-overlay.jpg", 2
    while free.casefold() in taken:
        free, number = f"{stem}_{number}-overlay.jpg", number + 1
    taken.add(free.casefold())
    return free


def _write_fiftyone(rows: _Rows, folder: pathlib.Path) -> None:
    if len(rows.grid) != 2:
        raise ValueError('`to="fiftyone"` needs maps of two axes. Received: maps of three. Take "zarr".')
    write_fiftyone(rows.explained(), rows.maximum(), folder)


@contextlib.contextmanager
def _unfinished_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a new folder that becomes `path` at the end, in place of one that an earlier call wrote.

    It is made in a folder beside `path`, which one process at a time works in. What a killed one left there
    is removed, and an export that it had moved away is put back.
    """
    _check_own(path)
    workplace = path.with_name(f".tf_gradcam-{path.name}.unfinished")
    new, earlier = workplace / "new", workplace / "earlier"

    def clean_up() -> None:
        if earlier.exists() and not path.exists():
            os.replace(earlier, path)
        for left in (new, earlier):
            shutil.rmtree(left, ignore_errors=True)

    def leave() -> None:
        with contextlib.suppress(OSError):  # Another process may be at work there already.
            workplace.rmdir()

    try:
        with at_sudden_end(leave), lock_folder(workplace):
            clean_up()
            try:
                with at_sudden_end(clean_up):
                    new.mkdir()
                    yield new
                    (new / _MARK).touch()
                    if path.exists():
                        os.replace(path, earlier)
                    os.replace(new, path)
            finally:
                clean_up()
    finally:
        leave()

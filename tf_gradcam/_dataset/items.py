"""The images of a data set: files in folders, lists and tables, and data sets of Keras and TensorFlow.

`dataset` reads what `find_items` and `array_items` give.
"""

import csv
import glob
import hashlib
import io
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tf_gradcam._dataset.rows import Item
from tf_gradcam._optional import require
from tf_gradcam._run import find_photographs

_LISTS = (".txt", ".lst")
_TABLES = (".csv", ".tsv", ".parquet")
_COLUMNS = ("path", "target", "id")


class Found:
    """The items that were found, and how many files were skipped, by reason."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.skipped: dict[str, int] = {"that are no photographs": 0, "hidden": 0, "that tf-gradcam wrote": 0}

    def __str__(self) -> str:
        """Return the counts in one line."""
        total, skipped = len(self.items) + sum(self.skipped.values()), self._skipped()
        files = "file" if total == 1 else "files"
        images = "image" if len(self.items) == 1 else "images"
        return f"{total} {files} found, {len(self.items)} {images} taken, {skipped or 'none'} skipped"

    def _skipped(self) -> str:
        return ", ".join(f"{count} {reason}" for reason, count in self.skipped.items() if count)


def find_items(sources: Sequence[str | os.PathLike]) -> Found:
    """Return the images that files, folders, globs, lists and tables name: each file once, in order.

    The id of an image in a folder is the folder's own name and the path in it, `"photos/sub/cat.jpg"`, and
    likewise for a glob; so a data set may be moved. That of a file is its path as it is given. In lists and
    tables it is what stands there.

    Args:
        sources: an image, a folder (searched with its subfolders), a glob; a text file with a path per line;
            or a CSV, TSV or Parquet table with a column `path`, and `target` and `id` if they are known.
            Relative paths in lists and tables are relative to their file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a table has no such column, two images have one id, or there is no image.
    """
    found = Found()
    paths: set[str] = set()  # A file that two sources name is taken once.
    for source in sources:
        path = pathlib.Path(source)
        ending = "" if path.is_dir() else path.suffix.lower()
        if ending in _LISTS:
            found.items += [_item(path, {"path": line}) for line in _lines(path)]
        elif ending in _TABLES:
            found.items += [_item(path, row) for row in _table_rows(path)]
        else:
            for each in _files(os.fspath(source), found):
                absolute = os.path.abspath(each.path)
                if absolute not in paths:
                    found.items.append(each)
                    paths.add(absolute)
    if not found.items:
        raise ValueError(
            f"`data` must name images. Received: {', '.join(map(str, sources)) or 'nothing'}, where there is "
            f"none; {found._skipped() or 'no files'} skipped."
        )
    _check_ids(found.items)
    return found


def _files(source: str, found: Found) -> Iterator[Item]:
    """Yield the images that a file, folder or glob names, and count the files that are skipped."""
    photographs = find_photographs([source])
    for reason, files in zip(found.skipped, photographs[1:], strict=True):
        found.skipped[reason] += len(files)
    root = _root(source)
    for each in photographs.photographs:
        if each.source is None and not os.path.isdir(source):
            raise FileNotFoundError(f"`data` must name files. Received: {source!r}, and no file matches it.")
        # An OSError is that of a folder that can't be read; its row says so.
        if each.source is not None and not isinstance(each.source, ValueError):
            yield Item(_id(each.file, root), _text(each.file), None, each.source)


def _root(source: str) -> str | None:
    """Return the folder that a source searches, or `None` for a file."""
    if os.path.lexists(source):
        return source if os.path.isdir(source) else None
    parts = pathlib.Path(source).parts
    fixed = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return os.path.join(*parts[:fixed]) if fixed else "."


def _id(file: str, root: str | None) -> str:
    """Return the name of a file in the rows: with the folders from `root` on, and its own name."""
    if root is None:
        return _text(pathlib.PurePath(os.path.normpath(file)).as_posix())
    inside = pathlib.PurePath(os.path.relpath(file, root)).as_posix()
    name = os.path.basename(os.path.abspath(root))
    return _text(f"{name}/{inside}" if name and inside != "." else inside if inside != "." else name or file)


def _text(text: str) -> str:
    """Return text that UTF-8 can hold; the bytes of a file name that is none are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


# Lists and tables


def _lines(path) -> list[str]:
    """Return the lines of a list that are not empty. No other character than a line's end parts them."""
    lines = _read_text(path).replace("\r\n", "\n").split("\n")
    return [line for line in lines if line.strip()]


def _read_text(path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig", errors="strict")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path.name} must be a text file in UTF-8. Received: one that is not at byte {error.start}. "
            "Save it as UTF-8."
        ) from error


def _item(table, row) -> Item:
    name = row.get("path")
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{table.name} must name a file in each row's `path`. Received: path={name!r:.80}")
    path = os.path.join(table.parent, name)
    given = row.get("id")
    own = name if given is None or given == "" else str(given)
    return Item(_text(own), _text(path), _target(row.get("target"), table), path)


def _target(value, table) -> int | str | None:
    """Return the class in a table: a number, a label, or `None` where there is none."""
    if value is None or value == "" or value != value:  # NaN is how pandas writes a missing number.
        return None
    # Pandas makes real numbers of integers where some are missing.
    if isinstance(value, str):
        value = value.strip()
        return int(float(value)) if re.fullmatch(r"-?\d{1,9}(\.0*)?", value) else value or None
    if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
        return int(value)
    raise ValueError(
        f"`target` in {table.name} must be the number or label of a class, or empty. Received: {value!r:.80}"
    )


def _table_rows(path) -> list[dict[str, Any]]:
    if path.suffix.lower() == ".parquet":
        return _parquet_rows(path)
    text = io.StringIO(_read_text(path), newline="")
    try:
        reader = csv.DictReader(text, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        _check_columns(path, reader.fieldnames or [])
        return list(reader)
    except csv.Error as error:
        raise ValueError(f"{path.name} must be a table. Received: one with a damaged row: {error}") from error


def _parquet_rows(path) -> list[dict[str, Any]]:
    parquet = require("pyarrow.parquet", "pyarrow", extra="scale")
    if not path.exists():
        raise FileNotFoundError(f"`data` must name files. Received: {str(path)!r}, which doesn't exist.")
    try:
        names = parquet.read_schema(path).names
        _check_columns(path, names)
        return parquet.read_table(path, columns=[each for each in _COLUMNS if each in names]).to_pylist()
    except require("pyarrow", "pyarrow", extra="scale").ArrowException as error:
        raise ValueError(f"{path.name} must be a Parquet file. Received: {error}".splitlines()[0]) from error


def _check_columns(path, names) -> None:
    if "path" not in names:
        raise ValueError(f"{path.name} must have a column `path`. Received: {', '.join(map(str, names))}")


def _check_ids(items) -> None:
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise ValueError(
                f"Each image must be named once. Received: {item.id!r:.200} twice. Name the folder above, or "
                "a table with a column `id`."
            )
        seen.add(item.id)


# Data sets of Keras and TensorFlow


def array_items(data: Any) -> Iterator[Item]:
    """Yield the images of a `tf.data.Dataset` or `keras.utils.PyDataset`, as the model takes them.

    An image is named by what it holds, so that a shuffled data set can be taken up again.

    Args:
        data: yields batches of images `(N, H, W, C)`, or tuples that start with them; labels are not used.

    Raises:
        TypeError, ValueError: if it yields anything else.
    """
    if not hasattr(data, "__iter__") and not hasattr(data, "__getitem__"):
        raise TypeError(
            "`data` must be paths, a tf.data.Dataset or a keras.utils.PyDataset of batches of images. "
            f"Received: {type(data).__name__}"
        )
    counts: dict[str, int] = {}
    for batch in _batches(data):
        images = batch[0] if isinstance(batch, tuple | list) and len(batch) else batch
        images = np.asarray(images)
        if images.ndim < 3 or images.dtype.kind not in "biuf":
            raise ValueError(
                "`data` must give batches of images (N, H, W, C), or tuples that start with them. Received: "
                f"{type(batch).__name__} with {images.dtype} of shape {images.shape}. "
                "Batch it: data.batch(32)"
            )
        for image in images:
            name = hashlib.sha256(image.tobytes()).hexdigest()[:20]
            counts[name] = counts.get(name, 0) + 1
            yield Item(name if counts[name] == 1 else f"{name}-{counts[name]}", "", None, image)


def _batches(data) -> Iterator[Any]:
    if isinstance(data, np.ndarray):
        yield data
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):  # a PyDataset is no iterator
        for index in range(len(data)):
            yield data[index]
    else:
        yield from data

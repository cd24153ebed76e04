"""The images of a data set: files in folders, lists and tables, and data sets of Keras and TensorFlow.

`dataset` reads what `find_items` and `array_batches` give.
"""

import csv
import hashlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tf_gradcam._dataset.rows import Item
from tf_gradcam._optional import require
from tf_gradcam._run import find_photographs

_LISTS = (".txt", ".lst")
_TABLES = (".csv", ".tsv", ".parquet")


class Found:
    """The items that were found, and how many files were skipped, by reason."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.skipped: dict[str, int] = {}

    def __str__(self) -> str:
        """Return the counts in one line."""
        skipped = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items() if count)
        return f"{len(self.items)} images found, {skipped or 'none'} skipped"


def find_items(sources: Sequence[str | os.PathLike]) -> Found:
    """Return the images that files, folders, globs, lists and tables name: each file once, in order.

    Args:
        sources: an image, a folder (searched with its subfolders), a glob; a text file with a path per line;
            or a CSV, TSV or Parquet table with a column `path`, and `target` and `id` if they are known.
            Relative paths in lists and tables are relative to their file.

    Raises:
        ValueError: if a table has no such column, or two images have one id.
    """
    found = Found()
    plain = [
        str(source) for source in sources if pathlib.Path(source).suffix.lower() not in (*_LISTS, *_TABLES)
    ]
    if plain:
        photographs = find_photographs(plain)
        found.skipped = {
            "that are no photographs": len(photographs.no_photographs),
            "hidden": len(photographs.hidden),
            "that tf-gradcam wrote": len(photographs.own_pictures),
        }
        found.items += [Item(each.file, each.file, None, each.source) for each in photographs.photographs]
    for source in sources:
        path = pathlib.Path(source)
        if path.suffix.lower() in _LISTS:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            found.items += [_item(path, {"path": line.strip()}) for line in lines if line.strip()]
        elif path.suffix.lower() in _TABLES:
            found.items += [_item(path, row) for row in _table_rows(path)]
    _check_ids(found.items)
    return found


def _item(table, row) -> Item:
    path = os.path.join(table.parent, row["path"])
    target = row.get("target")
    if target in (None, ""):
        return Item(row.get("id") or row["path"], path, None, path)
    try:
        return Item(row.get("id") or row["path"], path, int(target), path)
    except ValueError as error:
        raise ValueError(
            f"`target` in {table.name} must be the number of a class, or empty. Received: {target!r:.80}"
        ) from error


def _table_rows(path) -> Iterator[dict[str, Any]]:
    if path.suffix.lower() == ".parquet":
        rows = require("pyarrow.parquet", "pyarrow", extra="scale").read_table(path).to_pylist()
    else:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
    if rows and "path" not in rows[0]:
        raise ValueError(f"{path.name} must have a column `path`. Received: {', '.join(rows[0])}")
    yield from rows


def _check_ids(items) -> None:
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise ValueError(f"Each image must be named once. Received: {item.id!r:.200} twice.")
        seen.add(item.id)


def array_items(data: Any) -> Iterator[Item]:
    """Yield the images of a `tf.data.Dataset` or `keras.utils.PyDataset`, as the model takes them.

    An image is named by what it holds, so that a shuffled data set can be taken up again.

    Args:
        data: yields batches of images `(N, H, W, C)`, or tuples that start with them; labels are not used.
    """
    counts: dict[str, int] = {}
    for batch in _batches(data):
        images = np.asarray(batch[0] if isinstance(batch, tuple | list) else batch)
        for image in images:
            name = hashlib.sha256(image.tobytes()).hexdigest()[:20]
            counts[name] = counts.get(name, 0) + 1
            yield Item(name if counts[name] == 1 else f"{name}-{counts[name]}", "", None, image)


def _batches(data) -> Iterator[Any]:
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):  # a PyDataset is no iterator
        for index in range(len(data)):
            yield data[index]
    else:
        yield from data

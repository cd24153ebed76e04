"""The rows of a run: their columns, and a record batch from an explanation. `dataset` calls it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam._images import boxes
from tf_gradcam._optional import require
from tf_gradcam._run import class_probability, class_scores

TOP = 5  # classes that a row names
_BOX_THRESHOLD = 0.15  # of the maximum; Grad-CAM, section 4.1
_BOX_SIDE = 112  # of the picture in which boxes are found


class Item(NamedTuple):
    """An image of a data set.

    Attributes:
        id: its name in the rows; no other has it.
        path: its file as text, or `""`.
        target: the class to explain, or its label; `None` for the predicted one.
        source: its path, an array as the data set has it, or the error that says why it can't be read.
    """

    id: str
    path: str
    target: int | str | None
    source: Any


class ReadItem(NamedTuple):
    """An image as the model takes it, or the error that reading it raised.

    Attributes:
        item: the image.
        image: `(h, w, C)`, or `None`.
        size: its own height and width in pixels.
        sha256: of its file, or `""`.
        error: what went wrong, or `""`.
    """

    item: Item
    image: np.ndarray | None = None
    size: tuple[int, int] = (0, 0)
    sha256: str = ""
    error: str = ""


class RowsAbout(NamedTuple):
    """What is the same in all rows: layer, method, and the names of the classes, or `None`."""

    layer: str
    method: str
    labels: Sequence[str] | None


class ExplainedBatch(NamedTuple):
    """The explanations of a batch, in NumPy.

    Attributes:
        maps: `(N, h, w)`, signed.
        scores: `(N,)`.
        classes: `(N,)`, or `None` if the target is no class.
        outputs: `(N, C)`, or `None` if the model's outputs are no classes.
        question: what was explained, as `target_text` returns it.
    """

    maps: np.ndarray
    scores: np.ndarray
    classes: np.ndarray | None
    outputs: np.ndarray | None
    question: str = ""


def make_schema(grid: Sequence[int], dtype: str) -> Any:
    """Return the `pyarrow.Schema` of rows with maps on a grid.

    Args:
        grid: the lengths of the map's axes.
        dtype: of the maps, `"float16"` or `"float32"`.
    """
    arrow = require("pyarrow", "pyarrow", extra="scale")
    best = arrow.struct([("class", arrow.int32()), ("label", arrow.string()), ("score", arrow.float32())])
    number = arrow.float16() if dtype == "float16" else arrow.float32()
    return arrow.schema(
        [
            ("id", arrow.string()),
            ("path", arrow.string()),
            ("sha256", arrow.string()),
            ("height", arrow.int32()),
            ("width", arrow.int32()),
            ("target", arrow.int32()),
            ("label", arrow.string()),
            ("score", arrow.float32()),
            ("probability", arrow.float32()),
            ("top", arrow.list_(best)),
            ("layer", arrow.string()),
            ("method", arrow.string()),
            ("map", arrow.fixed_shape_tensor(number, list(grid))),
            ("map_scale", arrow.float32()),
            ("peak", arrow.list_(arrow.float32())),
            ("box", arrow.list_(arrow.int32())),
            ("error", arrow.string()),
        ]
    )


def make_rows(
    read: Sequence[ReadItem], explained: ExplainedBatch | None, schema: Any, about: RowsAbout
) -> Any:
    """Return a `pyarrow.RecordBatch` with a row for each image, in order.

    Args:
        read: the images, those that couldn't be read too.
        explained: the explanations of those that could, in order; `None` if there are none.
        schema: that of `make_schema`.
        about: what is the same in all rows.
    """
    arrow = require("pyarrow", "pyarrow", extra="scale")
    rows: list[dict[str, Any]] = []
    place = 0
    for each in read:
        row = {"id": each.item.id, "path": each.item.path, "sha256": each.sha256, "error": each.error or None}
        if each.image is not None and explained is not None:
            row |= _explained_row(explained, place, each, about)
            place += 1
        rows.append(row)
    columns = {name: [row.get(name) for row in rows] for name in schema.names}
    maps = columns.pop("map")
    arrays = {name: arrow.array(values, schema.field(name).type) for name, values in columns.items()} | {
        "map": _tensor_column(arrow, maps, schema.field("map").type)
    }
    return arrow.RecordBatch.from_arrays([arrays[name] for name in schema.names], schema=schema)


def _explained_row(explained, place, read, about) -> dict[str, Any]:
    signed = explained.maps[place].astype(np.float32)
    if not (np.isfinite(signed).all() and np.isfinite(explained.scores[place])):
        return {"error": "the model's score and gradients must be finite. Received: NaN or infinity"}
    scale = float(np.abs(signed).max())
    row: dict[str, Any] = {
        "height": read.size[0],
        "width": read.size[1],
        "score": float(explained.scores[place]),
        "layer": about.layer,
        "method": about.method,
        # Scaled, as float16 holds nothing above 65504.
        "map": signed / scale if scale > 0 else signed,
        "map_scale": scale,
    }
    if explained.classes is not None:
        index = int(explained.classes[place])
        row |= {"target": index, "label": _label(index, about.labels)}
    if explained.outputs is not None:
        row |= _of_outputs(explained, place, about)
    return row | _places(signed, read.size)


def _of_outputs(explained, place, about) -> dict[str, Any]:
    """Return the best classes of an image, and the probability of the explained one."""
    output = explained.outputs[place]
    target = None if explained.classes is None else int(explained.classes[place])
    score = float(explained.scores[place])
    scores = class_scores(output, target, score, explained.question)
    numbers = np.arange(len(scores))
    # Of equal scores the explained class comes first, as none is better.
    best = np.lexsort((numbers, numbers != target, -scores))[:TOP]
    top = [
        {"class": int(index), "label": _label(int(index), about.labels), "score": float(scores[index])}
        for index in best
    ]
    return {"top": top, "probability": class_probability(output, target, score, explained.question)}


def _places(signed, size) -> dict[str, Any]:
    """Return the peak `[x, y]` and the box `[x1, y1, x2, y2]` of the evidence, in the image's own pixels."""
    evidence = np.maximum(signed, 0)
    if evidence.ndim != 2 or not evidence.any():
        return {}
    row, column = np.unravel_index(np.argmax(evidence), evidence.shape)
    factors = size[1] / evidence.shape[1], size[0] / evidence.shape[0]
    side = max(_BOX_SIDE, *evidence.shape)
    (found,) = boxes(evidence, _BOX_THRESHOLD, size=(side, side), most=1) or [None]
    place: dict[str, Any] = {"peak": [(column + 0.5) * factors[0], (row + 0.5) * factors[1]]}
    if found is not None:
        across, down = size[1] / side, size[0] / side
        x1, y1, x2, y2 = found.box
        place["box"] = [int(x1 * across), int(y1 * down), round(x2 * across), round(y2 * down)]
    return place


def _label(index, labels) -> str | None:
    return labels[index] if labels and index < len(labels) else None


def _tensor_column(arrow, maps, kind) -> Any:
    """Return maps, `None` for those that are missing, as a column of tensors."""
    blank = np.zeros(kind.shape, np.float32)
    values = np.stack([blank if each is None else each for each in maps])
    flat = arrow.array(values.astype(f"f{kind.value_type.bit_width // 8}").ravel())
    missing = arrow.array([each is None for each in maps])
    storage = arrow.FixedSizeListArray.from_arrays(flat, type=kind.storage_type, mask=missing)
    return arrow.ExtensionArray.from_storage(kind, storage)

"""Write a heatmap as one row of a Parquet file: `write_parquet`. `_catalogue` names it."""

import json
import pathlib

import numpy as np

from tf_gradcam._files import unfinished
from tf_gradcam._optional import require
from tf_gradcam.formats._scan import Scan, scaled_affine
from tf_gradcam.formats._writing import About


def write_parquet(path: pathlib.Path, scan: Scan, heatmap: np.ndarray, about: About) -> None:
    """Write a heatmap and what it is of as one row of a Parquet file.

    The columns are `file` (the scan's file name, without its folder), `method`, `label`, `model`, `shape`
    (a list of int64) and `heatmap` (a list of float32, the last axis varying fastest). The schema's metadata
    has JSON under `tf_gradcam`: `axes`, and of a scan with a place `space`, and `affine` and `spacing` of the
    heatmap's own grid.

    Args:
        path: `.parquet`.
        scan: any scan.
        heatmap: float32 `(*grid)`.
        about: the method, the label and the model.
    """
    arrow = require("pyarrow", "pyarrow", extra="scale")
    parquet = require("pyarrow.parquet", "pyarrow", extra="scale")
    place: dict[str, object] = {"axes": scan.axes}
    spatial = [cells for cells, axis in zip(heatmap.shape, scan.axes, strict=True) if axis != "t"]
    affine = scaled_affine(scan, tuple(spatial))
    if affine is not None:
        spacing = np.linalg.norm(affine[:, :-1], axis=0)
        place |= {"space": scan.space, "affine": affine.tolist(), "spacing": spacing.tolist()}
    fields = [(name, arrow.string()) for name in ("file", "method", "label", "model")]
    fields += [("shape", arrow.list_(arrow.int64())), ("heatmap", arrow.list_(arrow.float32()))]
    schema = arrow.schema(fields, metadata={"tf_gradcam": json.dumps(place)})
    row = {
        "file": scan.path.name,
        **about._asdict(),
        "shape": list(heatmap.shape),
        "heatmap": heatmap.ravel(),
    }
    with unfinished(path) as temporary:
        parquet.write_table(arrow.Table.from_pylist([row], schema=schema), temporary)

"""A data set of FiftyOne, with a heatmap for each image: `write_fiftyone`. `exports` calls it.

FiftyOne itself isn't needed: the files are JSON, in the form that its `FiftyOneDataset` importer takes.
"""

import base64
import io
import json
import os
import pathlib
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np


def write_fiftyone(
    rows: Iterable[tuple[dict[str, Any], np.ndarray]], highest: float, folder: pathlib.Path
) -> None:
    """Write a data set that FiftyOne imports.

    Args:
        rows: each row and its signed map. What speaks against the class is not shown.
        highest: the value that is red, of all maps.
        folder: the folder to write to.
    """
    (folder / "metadata.json").write_text(json.dumps({"media_type": "image"}), encoding="utf-8")
    with open(folder / "samples.json", "x", encoding="utf-8") as file:
        file.write('{"samples": [')
        for number, (row, values) in enumerate(rows):
            if not row["path"]:
                raise ValueError('`to="fiftyone"` needs rows of files. Received: rows of arrays.')
            file.write((",\n" if number else "\n") + json.dumps(_sample(row, values, highest)))
        file.write("\n]}\n")


def _sample(row, values, highest) -> dict[str, Any]:
    heatmap = {"_cls": "Heatmap", "map": _array(np.maximum(values, 0)), "range": [0.0, float(highest)]}
    sample = {
        "filepath": os.path.abspath(row["path"]),
        "tags": [],
        "tf_gradcam_id": row["id"],
        "score": row["score"],
        "gradcam": heatmap,
    }
    if row["target"] is not None:
        label = row["label"] or str(row["target"])
        sample["explained"] = {"_cls": "Classification", "label": label, "confidence": row["probability"]}
    return sample


def _array(values) -> str:
    """Return an array in FiftyOne's form, a compressed `.npy` file.

    Its viewer reads neither float16 nor arrays in Fortran's order.
    """
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(values, np.float32), allow_pickle=False)
    return base64.b64encode(zlib.compress(file.getvalue())).decode()

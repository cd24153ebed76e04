"""Runs made of made-up maps, written by what writes real ones: for the tests of `_report` and `_cli`."""

import pathlib

import cv2
import numpy as np

from tf_gradcam._dataset.items import Item
from tf_gradcam._dataset.parts import Parts
from tf_gradcam._dataset.rows import ExplainedBatch, ReadItem, RowsAbout, make_rows, make_schema

MANIFEST = {"tf_gradcam": "0.1.0", "model": "tiny", "method": "gradcam", "layer": "conv"}


def write_picture(path, size=(30, 40), seed=0, color=None):
    """Write a photograph of noise, or of one colour, and return its path."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    if color is not None:
        pixels[:] = color
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1])
    return str(path)


def read(name, path="", size=(30, 40), error="", sha256=""):
    image = None if error else np.zeros((2, 2, 3), np.uint8)
    return ReadItem(Item(name, path, None, path), image, size, sha256, error)


def write_run(folder, items, maps, classes=None, outputs=None, labels=None, manifest=MANIFEST, part=10_000):
    """Write a run to a folder.

    Args:
        folder: the folder.
        items: what `read` returns; those without an error have a map each, in order.
        maps: `(N, h, w)`, signed.
        classes: `(N,)`, or `None`.
        outputs: `(N, C)` probabilities, or `None`.
        labels: names of the classes.
        manifest: that of the run.
        part: rows in a part.
    """
    maps = np.asarray(maps, np.float32)
    classes = None if classes is None else np.asarray(classes)
    outputs = None if outputs is None else np.asarray(outputs, np.float64)
    scores = np.arange(len(maps), dtype=np.float32)
    if outputs is not None and classes is not None:
        scores = outputs[np.arange(len(maps)), classes].astype(np.float32)
    schema = make_schema(maps.shape[1:], "float32")
    about = RowsAbout(manifest["layer"], manifest["method"], labels)
    explained = ExplainedBatch(maps, scores, classes, outputs)
    with Parts(pathlib.Path(folder), schema, manifest, part) as parts:
        parts.add(make_rows(items, explained, schema, about))

"""Photographs of noise in files, and what a run makes of them: for the tests of `_run` and `_cli`."""

import json
import pathlib

import cv2
import keras
import numpy as np

from tf_gradcam._run import Classifier, Photograph, Request, explain_photographs

LABELS = ["ant", "bee", "cat", "dog", "eel"]


def write_photo(path, size=(20, 30), seed=0):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    path.write_bytes(cv2.imencode(".png", pixels)[1])
    return str(path)


def files(folder):
    return {str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob("*") if path.is_file()}


def read_rows(out="gradcam"):
    return json.loads(pathlib.Path(out, "explanations.json").read_text())


def unit(images):
    return images / 255


def unchanged(images):
    return images


def classify(model, preprocess=unit, labels=None):
    return Classifier(model, preprocess, labels and tuple(labels))


def run(classifier, *photos, out="gradcam", **asked):
    """Explain photographs by their paths; return their rows."""
    request = Request(pathlib.Path(out), **asked)
    photographs = [Photograph(photo, photo) for photo in photos]
    found = explain_photographs(photographs, request, classifier)
    return [finding.row for findings in found for finding in findings]


def head(units, activation, side=8, channels=3):
    """Return a small network that ends in `units`."""
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Conv2D(4, 3, name="conv"), keras.layers.GlobalAveragePooling2D()]
    return keras.Sequential(
        [keras.Input((side, side, channels)), *layers, keras.layers.Dense(units, activation=activation)]
    )

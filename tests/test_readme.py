"""The examples of the README and of docs/methods.md run as they stand, and their tables are true."""

import dataclasses
import pathlib
import re

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from conftest import chain
from matplotlib import pyplot

import tf_gradcam
from tf_gradcam import methods

README = pathlib.Path(__file__).parent.parent / "README.md"
METHODS = README.parent / "docs" / "methods.md"


def build(units, activation):
    """A model with the layers that the README names."""
    inner_images = keras.Input((224, 224, 4))
    conv = keras.layers.Conv2D(5, 3, strides=32, padding="same", name="conv5_block3_out")
    inner = keras.Model(inner_images, conv(inner_images), name="resnet")
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(units, activation=activation)]
    images = keras.Input((224, 224, 3))
    first = keras.layers.Conv2D(4, 3, padding="same", name="block5_conv3")
    return keras.Model(images, chain(images, [first, inner, *head]))


@pytest.mark.filterwarnings("ignore:Blank heatmap")  # The model is untrained.
def test_the_python_examples_run_as_they_stand(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    photographs = random.integers(0, 256, (3, 224, 224, 3), dtype="uint8")
    cv2.imwrite("cat.jpg", photographs[0])
    names = {
        "keras": keras,
        "tf": tf,
        "model": build(300, "softmax"),
        "preprocess_input": keras.applications.resnet50.preprocess_input,
        "photographs": photographs,
        "images": photographs / 255,
        "batches": [photographs],
    }
    assert len(blocks) == 10
    exec(blocks[0], names)
    assert names["explanation"].heatmap.shape == (1, 3, 224, 224)
    for block in blocks[1:4]:
        exec(block, names)
    assert names["heatmap"].shape == names["picture"].shape[:2] == (224, 224)
    assert names["explanation"].map.shape == (3, 7, 7)
    for block in blocks[4:]:
        exec(block, names)
    pyplot.close("all")
    assert names["heatmaps"].shape == (3, 224, 224)
    assert [each.shape for each in names["explanation"].map] == [(3, 224, 224), (3, 7, 7)]
    assert (tmp_path / "models" / "cat" / "1" / "saved_model.pb").exists()


def test_every_kind_of_model_in_the_table_is_a_test_and_every_test_is_in_the_table():
    table = README.read_text(encoding="utf-8").partition("| your model |")[2].partition("\n\n")[0]
    kinds = re.findall(r"`([^`]+)`", table)
    assert len(set(kinds)) == len(kinds)
    assert set(kinds) == set(zoo.KINDS)


def test_the_table_of_methods_is_that_of_the_module():
    table = METHODS.read_text(encoding="utf-8").partition("| method | map L |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split(" | ")] for line in table.splitlines()[2:]]
    written = {
        name.strip("|` "): (cost, signed == "yes", paper) for name, _, paper, _, cost, signed, *_ in rows
    }
    assert written == {name: about[1:] for name, about in methods.METHODS.items()}


@pytest.mark.slow
def test_the_examples_of_the_methods_run_as_they_stand(tmp_path, monkeypatch):
    page = METHODS.read_text(encoding="utf-8")
    at_image, locate, parts, made, own, concepts = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    images = keras.Input((16, 16, 3))
    steps = [keras.layers.Conv2D(4, 3, activation="relu", name=f"block{n}") for n in (3, 5, 7)]
    steps += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    model = keras.Model(images, chain(images, steps))
    random = np.random.default_rng(0)
    cv2.imwrite("cat.jpg", random.integers(0, 256, (16, 16, 3), dtype="uint8"))
    names = {"dataclasses": dataclasses, "tf": tf, "tf_gradcam": tf_gradcam, "GradCAM": tf_gradcam.GradCAM}
    names |= {"model": model, "images": random.random((2, 16, 16, 3))}
    names["make_gradcam_heatmap"] = tf_gradcam.make_gradcam_heatmap
    exec(locate, names | {"image": names["images"][0]})
    exec(parts, names)
    assert names["heatmaps"].shape == (2, 16, 16)
    before, after = keras.Input((8, 8, 3), name="before"), keras.Input((8, 8, 3), name="after")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Subtract()([before, after]))
    two_images = keras.Model([before, after], keras.layers.Dense(2)(pooled))
    waveform = keras.Input((20, 1))
    by_wave = keras.Model(waveform, keras.layers.Dense(2)(keras.layers.Flatten()(waveform)))
    pair = {"before": random.random((2, 8, 8, 3)), "after": random.random((2, 8, 8, 3))}
    exec(
        at_image,
        names | pair | {"model": by_wave, "waveforms": random.random((2, 20, 1)), "two_images": two_images},
    )
    for line in made.splitlines()[2:]:
        explain = eval(line.partition("  #")[0], {**names, "methods": methods})
        assert explain(names["images"]).heatmap.shape == (2, 16, 16)
    exec(own, names)
    assert names["explanation"].map.shape == (2, 10, 10)
    exec(concepts, names)
    assert names["found"].heatmaps.shape == (2, 4, 16, 16)

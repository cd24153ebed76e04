"""Explainers compiled by XLA: one compilation for each shape, the same heatmaps, and the same errors."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tf_gradcam._heatmap import place_map

# XLA writes a file for each module that it compiles, where the process was started with this flag.
_EXPLAIN = """
import json, pathlib, sys
import keras, numpy as np, tensorflow as tf
import tf_gradcam
from keras import layers

def network(*first):
    keras.utils.set_random_seed(0)
    last = layers.Conv2D(8, 3, strides=2, activation="relu"), layers.GlobalAveragePooling2D(), layers.Dense(5)
    return keras.Sequential([keras.Input((35, 35, 3)), *first, layers.Conv2D(8, 3, strides=2), *last])

def compilations():
    return len(list(pathlib.Path(sys.argv[1]).glob("*before_optimizations.txt")))

found = {}
for name, first in {
    "whole": (),
    "cropped": (layers.Cropping2D(4),),
    "padded": (layers.ZeroPadding2D(4), layers.Conv2D(4, 3)),
}.items():
    cam = tf_gradcam.GradCAM(network(*first))
    compiled = tf.function(lambda images: cam(images, 3).heatmap, jit_compile=True, autograph=False)
    random, before, counts, differences = np.random.default_rng(0), compilations(), [], []
    for _ in range(3):
        images = tf.constant(random.random((2, 35, 35, 3)), tf.float32)
        differences.append(float(np.abs(compiled(images) - cam(images, 3).heatmap).max()))
        counts.append(compilations() - before)
    found[name] = counts, max(differences)

counts, images = [], np.random.default_rng(0).random((100, 35, 35, 3)).astype("float32")
cam = tf_gradcam.GradCAM(network(layers.Cropping2D(4)), jit_compile=True)
for explain in (
    lambda: [cam(images[i : i + 1], i % 5) for i in range(100)],
    lambda: [cam(images[:3]) for _ in range(3)],
    lambda: [cam(images[:3, :, :, ::-1]) for _ in range(3)],
    lambda: [cam(images[:1], 0, size=(9, 9)) for _ in range(3)],
    lambda: [cam(images[:1], 0, size=(7, 9)) for _ in range(3)],
    lambda: [cam.scores(images[:2], 0) for _ in range(3)],
    lambda: [cam.freeze()(images[:1], 0), cam(images[:1], 0)],
):
    before = compilations()
    explain()
    counts.append(compilations() - before)
print(json.dumps([found, counts]))
"""


def test_xla_compiles_once_for_each_shape(tmp_path):
    environment = os.environ | {"XLA_FLAGS": f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text"}
    command = [sys.executable, "-c", _EXPLAIN, str(tmp_path)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    in_callers, in_explainer = json.loads(output.splitlines()[-1])
    assert [counts for counts, _ in in_callers.values()] == [[1, 1, 1]] * 3
    assert max(difference for _, difference in in_callers.values()) < 1e-5
    assert in_explainer == [1, 1, 0, 1, 1, 1, 1]  # For 100 images of other classes one.


@pytest.mark.parametrize("factor", [2, 3, 5, 4.5])
def test_xla_enlarges_by_any_factor_as_without_it(factor):
    values = tf.constant(np.random.default_rng(0).random((2, 4, 6)), tf.float32)
    size = tf.constant([int(4 * factor), int(6 * factor)])
    expected = tf.image.resize(values[..., None], size)[..., 0]
    compiled = tf.function(lambda: place_map(values, size, "bilinear"), jit_compile=True, autograph=False)
    np.testing.assert_allclose(compiled(), expected, atol=1e-6)

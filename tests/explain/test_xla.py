"""Explainers in `tf.function(jit_compile=True)`: one compilation for each shape, and the same heatmaps."""

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
print(json.dumps(found))
"""


def test_a_compiled_caller_compiles_once_wherever_the_map_lies(tmp_path):
    environment = os.environ | {"XLA_FLAGS": f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text"}
    command = [sys.executable, "-c", _EXPLAIN, str(tmp_path)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    found = json.loads(output.splitlines()[-1])
    assert [counts for counts, _ in found.values()] == [[1, 1, 1]] * 3
    assert max(difference for _, difference in found.values()) < 1e-5


@pytest.mark.parametrize("factor", [2, 3, 5, 4.5])
def test_xla_enlarges_by_any_factor_as_without_it(factor):
    values = tf.constant(np.random.default_rng(0).random((2, 4, 6)), tf.float32)
    size = tf.constant([int(4 * factor), int(6 * factor)])
    expected = tf.image.resize(values[..., None], size)[..., 0]
    compiled = tf.function(lambda: place_map(values, size, "bilinear"), jit_compile=True, autograph=False)
    np.testing.assert_allclose(compiled(), expected, atol=1e-6)

"""Training with the callback ends in the same bits as without: weights, seeds, global random state."""

import random
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import chain

from tf_gradcam.callbacks import GradCAMCallback

SIDE, COUNT, CLASSES = 12, 24, 3


class NoiseAtInference(keras.layers.Layer):
    """Takes new random numbers at each call, also at inference, as Monte Carlo dropout does it."""

    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(4)

    def call(self, features):
        noise = keras.random.normal(keras.ops.shape(features), dtype=features.dtype, seed=self.seeds)
        return features * (1 + noise / 10)


def layers(augmented=True):
    """Layers with state of every kind: seeds, moving statistics, noise."""
    return [
        *([keras.layers.RandomFlip()] if augmented else []),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.GaussianNoise(0.1),
        keras.layers.SpatialDropout2D(0.2),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dropout(0.3),
        NoiseAtInference(),
        keras.layers.Dense(CLASSES, activation="softmax", dtype="float32"),
    ]


class NoisyModel(keras.Model):
    """Built by its first batch; it draws from the global seeds of Keras and TensorFlow."""

    def __init__(self):
        super().__init__()
        self.steps = layers()

    def call(self, images, training=False):
        if training:
            images = images + 0.01 * keras.random.normal(keras.ops.shape(images), dtype=images.dtype)
            images = images + 0.01 * tf.random.normal(tf.shape(images), dtype=images.dtype)
        return chain(images, self.steps)  # Keras tells each layer whether it trains.


def build(kind):
    if kind == "subclassed":
        return NoisyModel()
    images = keras.Input((SIDE, SIDE, 3))
    if kind == "two inputs":
        others = keras.Input((SIDE, SIDE, 3))
        return keras.Model(
            [images, others], chain(keras.layers.Add()([images, others]), layers(augmented=False))
        )
    return keras.Model(images, chain(images, layers(augmented=kind != "jit_compile")))


def data(kind):
    values = np.random.default_rng(0).random((COUNT, SIDE, SIDE, 3)).astype("float32")
    return ([values, values[::-1]] if kind == "two inputs" else values), np.arange(COUNT) % CLASSES


def train(kind, *, policy="float32", every="epoch", with_it=True, metrics=(), **compile_options):
    """Return the state after three epochs, and the steps that were explained."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    keras.config.set_dtype_policy(policy)
    try:
        model = build(kind)
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile("adam", "sparse_categorical_crossentropy", **compile_options)
    images, classes = data(kind)
    elements = (tuple(images) if isinstance(images, list) else images, classes)
    dataset = tf.data.Dataset.from_tensor_slices(elements).shuffle(COUNT, seed=1).batch(4)
    explained = []
    options = {"target": "labels", "count": 5, "every": every, "metrics": metrics, "max_share": None}
    options["on_explained"] = lambda step, *_: explained.append(step)
    callbacks = [GradCAMCallback(dataset, **options)] if with_it else []
    history = model.fit(dataset, epochs=3, verbose=0, shuffle=False, callbacks=callbacks)
    optimizer = [np.asarray(variable) for variable in model.optimizer.variables]
    draws = [random.random(), np.random.random(), tf.random.uniform([]).numpy()]  # noqa: NPY002
    draws.append(np.asarray(keras.random.uniform([])))
    weights = [np.asarray(variable) for variable in model.variables]
    return [*weights, *optimizer, *draws, *map(np.array, history.history.values())], explained


@pytest.mark.parametrize(
    ("kind", "options", "steps"),
    [
        ("functional", {"metrics": ["deletion"]}, [0, 1, 2]),
        (
            "functional",
            {"policy": "mixed_float16", "steps_per_execution": 2, "every": 3},
            [4, 6, 10, 12, 16, 18],  # the first even numbers from each multiple of 3
        ),
        ("subclassed", {"policy": "mixed_bfloat16", "every": "2 epochs"}, [1, 2]),
        pytest.param("jit_compile", {"jit_compile": True}, [0, 1, 2], marks=pytest.mark.slow),
        ("two inputs", {"run_eagerly": True}, [0, 1, 2]),
    ],
    ids=["float32", "float16", "subclassed", "jit_compile", "two inputs"],
)
def test_nothing_of_the_training_changes(kind, options, steps):
    without, explained = train(kind, **options, with_it=False)
    assert explained == []
    with_it, explained = train(kind, **options)
    assert explained == steps
    assert len(with_it) == len(without)
    for one, other in zip(with_it, without, strict=True):
        np.testing.assert_array_equal(one, other)


ON_TWO_DEVICES = """
import keras, numpy as np, tensorflow as tf
from tf_gradcam import GradCAM
from tf_gradcam.callbacks import GradCAMCallback

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
images, classes = np.random.default_rng(0).random((32, 12, 12, 3)).astype("float32"), np.arange(32) % 3
weights, found = [], []
for with_it in (False, True):
    keras.utils.set_random_seed(0)
    reduce = tf.distribute.HierarchicalCopyAllReduce()
    strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"], cross_device_ops=reduce)
    with strategy.scope():
        layers = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.Dropout(0.2)]
        layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, activation="softmax")]
        model = keras.Sequential([keras.Input((12, 12, 3)), *layers])
        model.compile("adam", "sparse_categorical_crossentropy")
    hook = lambda step, explanation, *_: found.append(np.asarray(explanation.map))
    callback = GradCAMCallback(images[:3], target=0, max_share=None, on_explained=hook)
    callbacks = [callback] if with_it else []
    model.fit(images, classes, epochs=3, batch_size=8, verbose=0, callbacks=callbacks)
    weights.append(model.get_weights())
same = all(np.array_equal(one, other) for one, other in zip(*weights))
print(same, len(found), np.array_equal(found[-1], GradCAM(model)(images[:3], 0).map))
"""


@pytest.mark.slow
def test_nothing_changes_on_two_devices():
    command = [sys.executable, "-c", ON_TWO_DEVICES]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True 3 True"

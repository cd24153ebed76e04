"""Frozen explainers: the same answers from constants, and no answer from weights of the past."""

import gc
import tempfile
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import CLASSES, SIDE, build, chain, parts

from tf_gradcam import GradCAM, methods, targets
from tf_gradcam._freezing import snapshot as snapshot_module
from tf_gradcam._freezing.snapshot import WeightSnapshot


def assert_same(found, expected, tolerance=1e-5):
    for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == other.dtype
            one, other = np.asarray(one, "float64"), np.asarray(other, "float64")
            np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


# The same answers


# TensorFlow's swish has a gradient of its own.
@pytest.mark.parametrize("activation", ["relu", "swish"])
def test_within_a_tape_it_has_the_gradients_of_the_plain_one(activation, images):
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(4, 3, activation=activation)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="tanh")(x))
    plain = GradCAM(keras.Model(inputs, keras.layers.Dense(3)(x)))
    gradients = []
    for cam in (plain, plain.freeze()):
        tensor = tf.constant(images)
        cam(tensor)
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            score = cam(tensor, 1).score
        gradients.append(tape.gradient(score, tensor).numpy())
    assert np.any(gradients[0])
    np.testing.assert_allclose(gradients[1], gradients[0], rtol=0, atol=1e-5 * np.abs(gradients[0]).max())


@pytest.mark.parametrize(
    "layer",
    ["relu2", *(pytest.param(each, marks=pytest.mark.slow) for each in ("conv1", ["conv1", "relu2"]))],
)
@pytest.mark.product(kept=lambda model, layer: model == "functional" or layer == "relu2")
def test_a_frozen_explainer_answers_the_same_at_every_batch_size(model, layer):
    plain = GradCAM(model, layer)
    fast = plain.freeze()
    random = np.random.default_rng(0)
    for count in (3, 1, 8):
        images = random.normal(size=(count, SIDE, SIDE, 3)).astype("float32")
        assert_same(fast(images), plain(images))


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {"target": [4, 0, 2], "size": None},
        {"target": targets.Classes([1, 3])},
        {"target": targets.Contrast()},
        {"target": lambda outputs: outputs[:, 1], "size": (9, 20), "interpolation": "bicubic"},
    ],
    ids=lambda arguments: "-".join(f"{name} {type(value).__name__}" for name, value in arguments.items()),
)
def test_a_frozen_explainer_takes_every_target_and_size(functional, images, arguments):
    plain = GradCAM(functional)
    assert_same(plain.freeze()(images, **arguments), plain(images, **arguments))


# One that asks for gradients at the image, one for scores of other images, one for both of copies.
@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        *(pytest.param(name, marks=pytest.mark.full) for name in ("eigencam", "fullgrad", "shapleycam")),
        "guided_gradcam",
        methods.opticam(steps=4),
        methods.scorecam(channels=4),
        methods.smooth("layercam", samples=3),
    ],
    ids=str,
)
def test_a_frozen_explainer_takes_every_kind_of_method(functional, images, method):
    plain = GradCAM(functional, method=method)
    assert_same(plain.freeze()(images), plain(images), 1e-4)


def test_preprocess_goes_into_the_frozen_graph(functional):
    raw = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), "uint8")
    plain = GradCAM(functional, preprocess=lambda images: images / 127.5 - 1)
    assert_same(plain.freeze()(raw), plain(raw))


def test_half_precision_is_frozen_as_it_is(images):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = build("functional")
    finally:
        keras.config.set_dtype_policy("float32")
    plain = GradCAM(model)
    assert_same(plain.freeze()(images), plain(images), 1e-2)


def test_a_frozen_explainer_works_inside_a_tf_function(functional, images):
    fast = GradCAM(functional).freeze()
    inside = tf.function(lambda images: fast(images).map, autograph=False)
    assert_same(inside(tf.constant(images)), GradCAM(functional)(images).map)


@pytest.mark.slow
def test_the_real_model_gives_the_same_heatmap_frozen(lite0):
    images = np.random.default_rng(0).normal(size=(2, 224, 224, 3)).astype("float32")
    plain = GradCAM(lite0)
    for batch in (images, images[:1]):
        assert_same(plain.freeze()(batch), plain(batch), 1e-4)


# Loops, as in an LSTM

CLIP = (4, 9, 9, 3)
L = keras.layers


def clip(*layers):
    """A convolution over each frame of a clip, and layers over time."""
    keras.utils.set_random_seed(1)
    images = keras.Input(CLIP)
    x = L.TimeDistributed(L.Conv2D(3, 3, strides=2, activation="relu"), name="frames")(images)
    return keras.Model(images, chain(x, [*layers, L.Dense(3)]))


def over_time(layer):
    return lambda: clip(L.TimeDistributed(L.GlobalAveragePooling2D()), layer())


class Loop(keras.layers.Layer):
    """A dense layer inside one of Keras's loops."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.dense = kind, L.Dense(3)

    def build(self, shape):
        self.dense.build((None, shape[-1]))

    def call(self, x):
        ops, dense = keras.ops, self.dense
        if self.kind == "while":
            return ops.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, ops.tanh(dense(y))), (0, x))[1]
        if self.kind == "scan":
            return ops.scan(lambda sum, y: (ops.tanh(dense(sum + y)), sum), x, ops.stack([x, 2 * x]))[0]
        if self.kind == "map":
            return ops.map(lambda row: dense(row[None])[0], x)
        if self.kind == "vectorized_map":
            return ops.vectorized_map(lambda row: dense(row[None])[0], x)
        return tf.cond(tf.reduce_sum(x) > 0, lambda: dense(x), lambda: 2 * dense(x))

    def compute_output_shape(self, shape):
        return shape


def inside(kind):
    return lambda: clip(L.GlobalAveragePooling3D(), Loop(kind))


def full(value):
    return pytest.param(value, marks=pytest.mark.full)


LOOPS = {
    "LSTM": over_time(lambda: L.LSTM(4)),
    "Bidirectional GRU": over_time(lambda: L.Bidirectional(L.GRU(4))),
    "SimpleRNN": over_time(lambda: L.SimpleRNN(4)),
    "cells": over_time(lambda: L.RNN([L.GRUCell(4), L.LSTMCell(3)])),
    "unrolled": over_time(lambda: L.LSTM(4, unroll=True)),
    "ConvLSTM2D": lambda: clip(L.ConvLSTM2D(2, 3), L.GlobalAveragePooling2D()),
    **{kind: inside(kind) for kind in ("while", "scan", "map", "vectorized_map", "cond")},
}


@pytest.mark.parametrize(
    "kind", ["LSTM", "while", *(full(kind) for kind in LOOPS if kind not in ("LSTM", "while"))]
)
def test_a_model_with_a_loop_is_frozen(kind):
    model = LOOPS[kind]()
    clips = np.random.default_rng(0).normal(size=(2, *CLIP)).astype("float32")
    plain = GradCAM(model, "frames")
    fast = plain.freeze()
    assert_same(fast(clips, 1), plain(clips, 1))
    function = tf.function(lambda: fast(clips, 1).map, autograph=False)
    assert function.get_concrete_function().captured_inputs == []
    model.layers[-1].kernel.assign_add(tf.ones_like(model.layers[-1].kernel))
    with pytest.raises(ValueError, match="has changed since"):
        fast(clips, 1)


class LoopOfUnknown(keras.layers.Layer):
    """A loop that reads a variable which Keras doesn't know."""

    def __init__(self):
        super().__init__()
        self._holder = (tf.Variable(0.5),)

    def call(self, x):
        return tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * self._holder[0]), (0, x))[1]

    def compute_output_shape(self, shape):
        return shape


def test_a_variable_in_a_loop_that_keras_does_not_know_is_refused_with_the_reason():
    clips = np.ones((1, *CLIP), "float32")
    fast = GradCAM(clip(L.GlobalAveragePooling3D(), LoopOfUnknown()), "frames").freeze()
    with pytest.raises(ValueError, match="a loop that reads a tf.Variable which Keras does not list"):
        fast(clips)


# What changes nothing


@pytest.mark.parametrize("kind", ["functional", full("subclassed")])
def test_what_only_runs_the_model_is_no_change(kind, images):
    model = build(kind)
    labels = np.arange(len(images)) % CLASSES
    fast = GradCAM(model).freeze()
    expected = fast(images).map
    loss = "sparse_categorical_crossentropy"
    for _ in range(2):
        model.compile("sgd", loss, metrics=["accuracy"])
        model.predict(images, verbose=0)
        model.evaluate(images, labels, verbose=0)
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy())
        np.testing.assert_array_equal(fast(images).map, expected)


def test_a_model_of_a_strategy_is_frozen_in_its_scope_and_outside(images):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = build("functional")
        plain = GradCAM(model)
        inside = plain.freeze()
        assert_same(inside(images), plain(images))
    assert_same(inside(images), plain(images))
    assert_same(plain.freeze()(images), plain(images))


# Nothing but constants


def test_the_frozen_graph_reads_no_variable(functional, images):
    plain = GradCAM(functional)
    captured = [
        tf.function(lambda cam=cam: cam(images).map, autograph=False).get_concrete_function().captured_inputs
        for cam in (plain, plain.freeze())
    ]
    assert list(map(len, captured)) == [len(functional.variables), 0]


# The weights of one moment


def train(model, images):
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(images, np.arange(len(images)) % CLASSES, verbose=0)


def assign_the_bias_of_the_head(model, images):
    model.trainable_variables[-1].assign_add(np.arange(CLASSES, dtype="float32"))


def subtract(model, images):
    model.trainable_variables[-1].value.assign_sub(np.arange(CLASSES, dtype="float32"))


def scatter(model, images):
    model.trainable_variables[-1].value.scatter_nd_update([[1]], [5.0])


def assign_a_slice(model, images):
    model.trainable_variables[-1].value[1:2].assign([7.0])


def apply_an_optimizer(model, images):
    bias = model.trainable_variables[-1]
    keras.optimizers.Adam(0.1).apply([tf.range(CLASSES, dtype=tf.float32)], [bias])


def step_in_a_function(model, images, compiled=False):
    bias = model.trainable_variables[-1]
    step = tf.function(lambda x: bias.assign_add(x), autograph=False, jit_compile=compiled)
    step(np.arange(CLASSES, dtype="float32"))


def step_compiled_by_xla(model, images):
    step_in_a_function(model, images, compiled=True)


def load_a_file_of_weights(model, images):
    other = keras.models.clone_model(model)
    other.set_weights([weight + 1 for weight in model.get_weights()])
    with tempfile.TemporaryDirectory() as folder:
        other.save_weights(f"{folder}/weights.weights.h5")
        model.load_weights(f"{folder}/weights.weights.h5")


def load(model, images):
    model.set_weights([weight + 1 for weight in model.get_weights()])


IN_PLACE = [subtract, scatter, assign_a_slice, apply_an_optimizer, step_in_a_function, step_compiled_by_xla]
IN_PLACE += [load_a_file_of_weights]
CHANGES = [train, assign_the_bias_of_the_head, load]


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
@pytest.mark.parametrize("change", CHANGES)
def test_a_frozen_explainer_refuses_when_the_weights_have_changed(images, change):
    model = build("functional")
    plain = GradCAM(model)
    fast = plain.freeze()
    before = fast(images)
    change(model, images)
    with pytest.raises(ValueError, match=r"frozen at 20.* changed since. Call freeze\(\) again"):
        fast(images)
    assert_same(plain.freeze()(images), plain(images))
    assert not np.allclose(plain(images).outputs, before.outputs)


def test_every_way_to_change_a_weight_in_its_place_is_noticed_at_once(images):
    """The buffer of a variable is compared, which must never be written to while it is held."""
    model = build("functional")
    GradCAM(model).freeze()(images)  # It must not matter who else reads the weights.
    for change in IN_PLACE:
        snapshot = WeightSnapshot(model)
        snapshot.check()
        before = model.get_weights()[-1]
        change(model, images)
        assert not np.array_equal(model.get_weights()[-1], before)
        for check in (snapshot.check, snapshot.check_all):
            with pytest.raises(ValueError, match="has changed since"):
                check()


def test_the_same_numbers_in_another_buffer_are_no_change():
    model = build("functional")
    weights = model.get_weights()
    weights[0][0, 0, 0, 0] = np.nan
    model.set_weights(weights)
    snapshot = WeightSnapshot(model)
    model.set_weights(weights)
    snapshot.check_all()
    snapshot.check_all()
    model.weights[0].assign(np.negative(weights[0]))
    with pytest.raises(ValueError, match="has changed since"):
        snapshot.check_all()


def test_what_tells_no_address_is_compared_by_its_numbers(images, monkeypatch):
    model = build("functional")
    monkeypatch.setattr(snapshot_module, "_address", lambda tensor: None)
    fast = GradCAM(model).freeze()
    fast(images)
    assign_the_bias_of_the_head(model, images)
    with pytest.raises(ValueError, match="has changed since"):
        fast(images)


def test_what_is_traced_later_is_of_the_same_moment(images):
    """A first call after training would else mix the weights of two moments."""
    model = build("functional")
    fast = GradCAM(model).freeze()
    load(model, images)
    with pytest.raises(ValueError, match="has changed since"):
        fast(images)


def test_training_the_head_alone_is_noticed(images):
    model = build("functional")
    for layer in model.layers[:-1]:
        layer.trainable = False
    fast = GradCAM(model).freeze()
    train(model, images)
    with pytest.raises(ValueError, match="has changed since"):
        fast(images)


def test_a_model_that_was_never_called_can_not_be_frozen(images):
    model = keras.Sequential([keras.layers.Conv2D(2, 3), keras.layers.GlobalAveragePooling2D()])
    cam = GradCAM(model)
    with pytest.raises(ValueError, match="`model` must be built to be frozen"):
        cam.freeze()
    expected = cam(images)
    assert_same(cam.freeze()(images), expected)


def test_more_weights_than_a_graph_holds_are_refused(functional, monkeypatch):
    monkeypatch.setattr(snapshot_module, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="less than 2 GiB of weights to be frozen. Received: 0.0 GiB"):
        GradCAM(functional).freeze()


def test_a_frozen_explainer_goes_with_its_model(images):
    model = build("functional")
    fast = GradCAM(model).freeze()
    fast(images)
    alive = weakref.ref(model)
    del model, fast
    gc.collect()
    gc.collect()
    assert alive() is None


def backbone_and_head():
    """A frozen backbone and a head without a bias, whose kernel is its only weight."""
    keras.utils.set_random_seed(0)
    images = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, activation="relu")(images))
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(images, keras.layers.Dense(CLASSES, use_bias=False, activation="softmax")(x))
    for layer in model.layers[:-1]:
        layer.trainable = False
    return model


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
def test_a_head_without_a_bias_that_is_trained_alone_is_noticed_at_once(images):
    model = backbone_and_head()
    fast = GradCAM(model).freeze()
    fast(images)
    train(model, images)
    with pytest.raises(ValueError, match="has changed since"):
        fast(images)


def call_often(fast, images, model):
    """Until it is the turn of every weight, of Keras and not, to be looked at."""
    for _ in range(len(model.weights) // 2 + 1):
        fast(images)


def test_a_backbone_that_is_loaded_alone_is_noticed_within_some_calls(images):
    model = backbone_and_head()
    fast = GradCAM(model).freeze()
    fast(images)
    load(model.layers[1], images)
    with pytest.raises(ValueError, match="has changed since"):
        call_often(fast, images, model)


def test_another_question_after_any_change_is_refused_at_once(images):
    """It is folded then, and would else be of another moment than what was folded before."""
    model = backbone_and_head()
    fast = GradCAM(model).freeze()
    fast(images)
    kernel = model.layers[1].kernel
    value = kernel.numpy()
    value[0, 0, 0, 1] += 1e-3
    kernel.assign(value)
    with pytest.raises(ValueError, match="has changed since"):
        fast(images, size=None)


class Scaled(keras.layers.Layer):
    """With a variable that Keras doesn't know."""

    def __init__(self):
        super().__init__()
        self._holder = (tf.Variable(2.0),)

    def call(self, x):
        return x * self._holder[0]


def test_a_variable_that_keras_does_not_know_is_noticed(images):
    x = keras.Input((SIDE, SIDE, 3))
    scaled = Scaled()
    model = keras.Model(x, chain(x, [*parts()[:3], scaled, *parts()[3:]]))
    fast = GradCAM(model).freeze()
    fast(images)
    scaled._holder[0].assign(-1.0)
    with pytest.raises(ValueError, match="has changed since"):
        call_often(fast, images, model)


def test_a_sequential_model_that_grew_is_to_be_frozen_again(images):
    model = build("sequential")
    fast = GradCAM(model).freeze()
    fast(images)
    model.add(keras.layers.Dense(2))
    with pytest.raises(ValueError, match="has changed since"):
        fast(images)


def test_dropout_and_training_mode_change_no_weight(images):
    x = keras.Input((SIDE, SIDE, 3))
    *features, pool, scores = parts()
    model = keras.Model(x, chain(x, [*features, keras.layers.Dropout(0.5), pool, scores]))
    model.trainable = False
    fast = GradCAM(model, "relu2").freeze()
    expected = fast(images)
    model(images, training=True)
    assert_same(fast(images), expected)


class Looked(keras.layers.Layer):
    """What it adds stands in a table."""

    def __init__(self):
        super().__init__()
        pairs = tf.lookup.KeyValueTensorInitializer([0], [1.0], tf.int32, tf.float32)
        self._table = tf.lookup.StaticHashTable(pairs, 0.0)

    def call(self, x):
        return x + self._table.lookup(tf.constant(0))

    def compute_output_shape(self, shape):
        return shape


def test_a_table_can_not_be_frozen(images):
    x = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(x, chain(x, [*parts()[:3], Looked(), *parts()[3:]]))
    cam = GradCAM(model, "relu2")
    assert np.isfinite(cam(images).map).all()
    with pytest.raises(ValueError, match="nothing but weights to be frozen, no tables"):
        cam.freeze()(images)

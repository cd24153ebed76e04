"""Frozen explainers: the same answers from constants, and no answer from weights of the past."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import CLASSES, SIDE, build

from tf_gradcam import GradCAM, frozen, methods, targets


def assert_same(found, expected, tolerance=1e-5):
    for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == other.dtype
            one, other = np.asarray(one, "float64"), np.asarray(other, "float64")
            np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


# The same answers


@pytest.mark.parametrize("layer", ["conv1", "relu2", ["conv1", "relu2"]])
def test_a_frozen_explainer_answers_the_same_at_every_batch_size(model, layer):
    plain = GradCAM(model, layer)
    fast = plain.freeze()
    random = np.random.default_rng(0)
    for count in (3, 1, 8):
        images = random.normal(size=(count, SIDE, SIDE, 3)).astype("float32")
        assert_same(fast(images), plain(images))


@pytest.mark.parametrize(
    "arguments",
    [
        {"target": [4, 0, 2]},
        {"target": targets.Classes([1, 3])},
        {"target": targets.Contrast()},
        {"target": lambda outputs: outputs[:, 1]},
        {"size": None},
        {"size": (9, 20), "interpolation": "bicubic"},
    ],
    ids=lambda arguments: "-".join(f"{name} {type(value).__name__}" for name, value in arguments.items()),
)
def test_a_frozen_explainer_takes_every_target_and_size(functional, images, arguments):
    plain = GradCAM(functional)
    assert_same(plain.freeze()(images, **arguments), plain(images, **arguments))


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        "eigencam",
        "fullgrad",
        "guided_gradcam",
        "shapleycam",
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


def load(model, images):
    model.set_weights([weight + 1 for weight in model.get_weights()])


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
@pytest.mark.parametrize("change", [train, assign_the_bias_of_the_head, load])
def test_a_frozen_explainer_refuses_when_the_weights_have_changed(images, change):
    model = build("functional")
    plain = GradCAM(model)
    fast = plain.freeze()
    before = fast(images)
    change(model, images)
    with pytest.raises(ValueError, match=r"frozen at 20.* Call freeze\(\) again"):
        fast(images)
    assert_same(plain.freeze()(images), plain(images))
    assert not np.allclose(plain(images).outputs, before.outputs)


def test_what_is_traced_later_is_of_the_same_moment(images):
    """A first call after training would else mix the weights of two moments."""
    model = build("functional")
    fast = GradCAM(model).freeze()
    load(model, images)
    with pytest.raises(ValueError, match="have changed since"):
        fast(images)


def test_training_the_head_alone_is_noticed(images):
    model = build("functional")
    for layer in model.layers[:-1]:
        layer.trainable = False
    fast = GradCAM(model).freeze()
    train(model, images)
    with pytest.raises(ValueError, match="have changed since"):
        fast(images)


def test_a_model_that_was_never_called_can_not_be_frozen(images):
    model = keras.Sequential([keras.layers.Conv2D(2, 3), keras.layers.GlobalAveragePooling2D()])
    cam = GradCAM(model)
    with pytest.raises(ValueError, match="`model` must be built to be frozen"):
        cam.freeze()
    expected = cam(images)
    assert_same(cam.freeze()(images), expected)


def test_more_weights_than_a_graph_holds_are_refused(functional, monkeypatch):
    monkeypatch.setattr(frozen, "_MOST_BYTES", 100)
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

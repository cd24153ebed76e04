"""Deep feature factorization: concepts that are there, where they are, and what they speak for."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIDE
from oracle import Oracle

from tf_gradcam import deep_feature_factorization


@pytest.fixture(scope="module")
def painted():
    """A model whose layer shows an image's three channels, and two images of a red and a blue square.

    The layer is a 1x1 convolution, the head average pooling and a dense layer with a class for each channel.
    """
    steps = [
        keras.Input((8, 8, 3)),
        keras.layers.Conv2D(3, 1, activation="relu", name="conv"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3),
    ]
    model = keras.Sequential(steps)
    model.set_weights([np.eye(3)[None, None], np.zeros(3), 2 * np.eye(3), np.array([0.0, 0.0, 1.0])])
    images = np.zeros((2, 8, 8, 3), "float32")
    images[0, :4, :4, 0] = 3.0
    images[1, 4:, 4:, 2] = 5.0
    images[1, :2, :2, 0] = 1.5
    return model, images


def test_each_concept_is_found_where_it_is(painted):
    model, images = painted
    found = deep_feature_factorization(model, images, "conv", concepts=2)
    np.testing.assert_allclose(found.concepts, [[0, 0, 5], [3, 0, 0]], atol=1e-2)
    expected = np.zeros((2, 2, 8, 8))
    expected[0, 1, :4, :4] = 1
    expected[1, 0, 4:, 4:] = 1
    expected[1, 1, :2, :2] = 0.5  # half as strong as where it is strongest, in the other image
    np.testing.assert_allclose(found.maps, expected, atol=1e-2)
    np.testing.assert_allclose(found.heatmaps, expected, atol=1e-2)
    assert found.error < 1e-4


def test_a_concept_scores_what_the_network_answers_to_a_map_full_of_it(painted):
    model, images = painted
    found = deep_feature_factorization(model, images, "conv", concepts=2)
    # blue 5 everywhere: (0, 0, 2 * 5 + 1); red 3 everywhere: (2 * 3, 0, 1)
    np.testing.assert_allclose(found.scores, [[0, 0, 11], [6, 0, 1]], atol=0.05)


def test_fewer_concepts_leave_more_unexplained(painted):
    model, images = painted
    one, two = (deep_feature_factorization(model, images, "conv", concepts=n) for n in (1, 2))
    # Red alone has 16 * 3^2 + 4 * 1.5^2 = 153 of 153 + 16 * 5^2 = 553 squares; one concept takes the blue.
    np.testing.assert_allclose(one.error, 153 / 553, atol=1e-3)
    assert two.error < one.error


def test_the_concepts_and_their_places_make_up_the_activations(model, images):
    found = deep_feature_factorization(model, images, "conv1", concepts=8)
    activations = Oracle(model.get_weights(), images).activations["conv1"].sum(axis=-1)
    remade = np.einsum("npij,pk->nij", found.maps, found.concepts)
    np.testing.assert_allclose(remade, activations, atol=0.05 * np.max(activations))
    assert found.heatmaps.shape == (3, 8, SIDE, SIDE)
    assert found.scores.shape == (8, 5)


def test_size_and_preprocess_are_heeded(painted):
    model, images = painted
    assert deep_feature_factorization(model, images, "conv", 2, size=None).heatmaps.shape == (2, 2, 8, 8)
    assert deep_feature_factorization(model, images, "conv", 2, size=(5, 6)).heatmaps.shape == (2, 2, 5, 6)
    raw = (10 * images).astype("uint8")
    found = deep_feature_factorization(model, raw, "conv", 2, preprocess=lambda pixels: pixels / 10)
    np.testing.assert_allclose(found.concepts, [[0, 0, 5], [3, 0, 0]], atol=1e-2)


def test_heatmaps_are_as_large_as_the_photographs_before_they_were_preprocessed(painted):
    model, images = painted
    large = np.repeat(np.repeat(images, 2, axis=1), 3, axis=2)
    found = deep_feature_factorization(
        model, large, "conv", 2, preprocess=lambda pixels: tf.image.resize(pixels, (8, 8), "nearest")
    )
    assert found.heatmaps.shape == (2, 2, 16, 24)
    np.testing.assert_allclose(found.concepts, [[0, 0, 5], [3, 0, 0]], atol=1e-2)


def test_the_run_of_a_layer_is_chosen_by_call():
    images = keras.Input((8, 8, 3))
    conv = keras.layers.Conv2D(3, 1, name="conv")
    pooled = keras.layers.GlobalAveragePooling2D()(conv(keras.layers.ReLU()(conv(images))))
    model = keras.Model(images, pooled)
    model.set_weights([2 * np.eye(3)[None, None], np.zeros(3)])
    photographs = np.ones((1, 8, 8, 3), "float32")
    first, second = (deep_feature_factorization(model, photographs, "conv", 1, call=n) for n in (0, 1))
    np.testing.assert_allclose(first.concepts, [[2, 2, 2]], atol=1e-2)
    np.testing.assert_allclose(second.concepts, [[4, 4, 4]], atol=1e-2)


def test_a_model_of_a_map_has_concepts_without_scores():
    images = keras.Input((8, 8, 3))
    conv = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")
    model = keras.Model(images, keras.layers.Conv2D(2, 1)(conv(images)))
    found = deep_feature_factorization(model, np.random.default_rng(0).random((1, 8, 8, 3)), "conv", 2)
    assert found.scores is None
    assert found.maps.shape == (1, 2, 8, 8)


@pytest.mark.parametrize("concepts", [0, -1, 4, 1.5, True])
def test_concepts_must_be_a_number_that_there_can_be(painted, concepts):
    model, images = painted
    with pytest.raises(ValueError, match="`concepts` must be a whole number from 1 to 3"):
        deep_feature_factorization(model, images, "conv", concepts)


def test_a_layer_that_shows_nothing_is_refused(painted):
    model, images = painted
    with pytest.raises(ValueError, match="`layer` must have activations above 0"):
        deep_feature_factorization(model, -images, "conv", 2)


def test_several_layers_are_refused(painted):
    model, images = painted
    with pytest.raises(TypeError, match="`layer` must be one layer"):
        deep_feature_factorization(model, images, ["conv"], 2)


def test_without_scikit_learn_it_says_what_to_install(painted, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
    model, images = painted
    with pytest.raises(ImportError, match=r'pip install "tf_gradcam\[concepts\]"'):
        deep_feature_factorization(model, images)


def test_the_model_need_not_be_built():
    model = keras.Sequential(
        [keras.layers.Conv2D(3, 3, activation="relu"), keras.layers.GlobalMaxPooling2D()]
    )
    found = deep_feature_factorization(model, np.random.default_rng(0).random((2, 8, 8, 3)), concepts=2)
    assert found.heatmaps.shape == (2, 2, 8, 8)

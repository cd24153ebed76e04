"""The textbook's sub-model, on models where the textbook's own line fails."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import CLASSES, Subclassed, head, parts
from oracle import Oracle

from tf_gradcam import build_submodel


def test_the_textbook_recipe_works_on_the_submodel(model, images):
    submodel = build_submodel(model, "conv2")
    with tf.GradientTape() as tape:
        activations, logits = submodel(images)
        score = tf.reduce_max(logits, axis=-1)
    gradients = tape.gradient(score, activations)
    oracle = Oracle(model.get_weights(), images)
    np.testing.assert_allclose(activations, oracle.activations["conv2"], atol=1e-5)
    np.testing.assert_allclose(gradients, oracle.gradients["conv2"], atol=1e-6)


def test_the_submodel_is_functional_and_shares_its_weights(model, images):
    submodel = build_submodel(model, "conv2")
    assert isinstance(submodel, keras.src.models.Functional)
    assert [output.shape for output in submodel.outputs] == [(None, 8, 8, 6), (None, CLASSES)]
    model.set_weights([2 * weight for weight in model.get_weights()])
    oracle = Oracle(model.get_weights(), images)
    np.testing.assert_allclose(submodel(images)[1], oracle.logits, rtol=1e-4, atol=1e-4)


def test_layers_of_one_name_side_by_side_are_told_apart(images):
    model = Subclassed()
    model(images)
    model.conv1.name = model.conv2.name = "conv"
    for layer, channels in [(model.conv1, 8), (model.conv2, 6)]:
        assert build_submodel(model, layer)(images)[0].shape == (3, 8, 8, channels)


def test_the_submodel_can_be_saved_and_loaded(functional, images, tmp_path):
    submodel = build_submodel(functional, "conv2")
    submodel.save(tmp_path / "submodel.keras")
    loaded = keras.models.load_model(tmp_path / "submodel.keras")
    for answer, expected in zip(loaded(images), submodel(images), strict=True):
        np.testing.assert_allclose(answer, expected, atol=1e-6)


def test_logits_that_only_a_graph_shows_are_refused_outside_of_one(images):
    submodel = build_submodel(head(keras.layers.Lambda(lambda x: tf.nn.softmax(x))), "conv2")
    with pytest.raises(ValueError, match="Call the sub-model inside a tf.function"):
        submodel(images)


def test_a_submodel_needs_a_built_model():
    model = keras.Sequential(parts())
    with pytest.raises(ValueError, match="`model` must be built.*Call it once on an image"):
        build_submodel(model, "conv2")

"""A change of what a model computes is seen at the next call, and nothing else is taken for one."""

import gc
import weakref

import keras
import numpy as np
import pytest
from conftest import CLASSES, KINDS, SIDE, build, chain, parts

from tf_gradcam._model.fingerprint import structure_version

IMAGES = np.ones((2, SIDE, SIDE, 3), "float32")


def with_inner_sequential():
    inner = keras.Sequential([keras.layers.Dense(4, name="first"), keras.layers.Dense(4, name="second")])
    model = keras.Sequential([keras.Input((6,)), inner, keras.layers.Dense(2)])
    model(np.ones((1, 6)))
    return model, inner


def normalizing():
    normalization = keras.layers.Normalization(axis=-1)
    normalization.adapt(np.ones((4, 3), "float32"))
    model = keras.Sequential([keras.Input((3,)), normalization, keras.layers.Dense(2)])
    return model, normalization


def enable_lora(model):
    model.get_layer("scores").enable_lora(2)


def quantize(model):
    model.get_layer("scores").quantize("int8")


def replace_activation(model):
    model.get_layer("conv1").activation = keras.activations.tanh


def replace_dtype_policy(model):
    model.get_layer("conv2").dtype_policy = "mixed_bfloat16"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [enable_lora, quantize, replace_activation, replace_dtype_policy])
def test_a_changed_layer_is_seen(kind, change):
    model = build(kind)
    before = structure_version(model)
    holder = model.get_layer("inner") if kind == "nested" and change not in (enable_lora, quantize) else model
    change(holder)
    assert structure_version(model) > before


def test_a_nested_sequential_model_that_grew_is_seen():
    model, inner = with_inner_sequential()
    before = structure_version(model)
    inner.add(keras.layers.Dense(4, name="third"))
    assert structure_version(model) > before


def test_a_layer_in_the_place_of_another_is_seen():
    model, inner = with_inner_sequential()
    for sequential in (model, inner):
        before = structure_version(model)
        sequential.pop()
        sequential.add(keras.layers.Dense(2))
        assert structure_version(model) > before


def test_statistics_that_are_held_as_constants_are_seen():
    model, normalization = normalizing()
    before = structure_version(model)
    normalization.adapt(np.arange(12, dtype="float32").reshape(4, 3))
    assert structure_version(model) > before


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_prediction_are_no_change(kind):
    model = build(kind)
    before = structure_version(model)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(IMAGES, np.zeros(2), verbose=0)
    model.predict(IMAGES, verbose=0)
    model.evaluate(IMAGES, np.zeros(2), verbose=0)
    model.set_weights([2 * weight for weight in model.get_weights()])
    model.trainable = False
    assert structure_version(model) == before


def test_models_have_versions_of_their_own():
    first, second = build("functional"), build("functional")
    before = structure_version(first), structure_version(second)
    replace_activation(first)
    assert (structure_version(first) > before[0], structure_version(second) > before[1]) == (True, False)


def test_no_model_is_kept_alive():
    images = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(images, chain(images, parts()))
    assert model.output_shape == (None, CLASSES)
    structure_version(model)
    references = weakref.ref(model), weakref.ref(model.get_layer("conv1"))
    del model, images
    gc.collect()
    gc.collect()
    assert [reference() for reference in references] == [None, None]

"""A canary for each private name of Keras: where one fails, a new Keras has changed what is read there."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import KINDS, build, chain, parts

from tf_gradcam._model.keras_internals import (
    child_layers,
    functional_graph,
    has_noted_logits,
    inner_layers,
    is_functional,
    is_keras_own,
    is_rematerialized,
    nodes_in_order,
    noted_logits,
    variable_lists,
    without_rematerialization,
)


class Inside(keras.layers.Layer):
    """A layer with two layers inside, one of which has one inside."""

    def __init__(self):
        super().__init__()
        self.first = keras.layers.Dense(2, name="first")
        self.second = keras.layers.TimeDistributed(keras.layers.Dense(2, name="innermost"), name="second")


def test_functional_is_told_from_every_other_kind():
    assert [is_functional(build(kind)) for kind in KINDS] == [True, True, False, False]
    symbol = keras.Input((3,))
    assert not is_functional(keras.Function(symbol, symbol + 1))  # a function, but no model


def test_a_sequential_model_keeps_its_functional_graph():
    functional, nested, sequential, subclassed = map(build, KINDS)
    assert functional_graph(functional) is functional
    assert functional_graph(nested) is nested
    assert functional_graph(subclassed) is None
    graph = functional_graph(sequential)
    assert graph is not sequential
    assert graph.operations[1:] == sequential.layers
    assert functional_graph(keras.Sequential(parts())) is None  # not built


def test_nodes_are_in_order_of_execution_and_there_is_one_for_each_run():
    relu = keras.layers.ReLU(name="relu")
    images = keras.Input((4, 4, 3), name="images")
    x = relu(keras.layers.Conv2D(2, 1, name="conv")(images))
    model = keras.Model(images, relu(x * 2))
    names = [node.operation.name for node in nodes_in_order(model)]
    assert names[:3] == ["images", "conv", "relu"]
    assert names[-1] == "relu"
    assert len(names) == 5
    assert [node.outputs[0].shape[-1] for node in nodes_in_order(model)] == [3, 2, 2, 2, 2]


def test_the_input_is_in_the_structure_that_it_was_given_in():
    images = {"image": keras.Input((4, 4, 3), name="image"), "table": keras.Input((2,), name="table")}
    pooled = keras.layers.GlobalAveragePooling2D()(images["image"])
    model = keras.Model(images, keras.layers.Concatenate()([pooled, images["table"]]))
    assert model.input.keys() == images.keys()


def test_children_are_those_right_below():
    assert [each.name for each in child_layers(Inside())] == ["first", "second"]
    assert [each.name for each in child_layers(Inside().second)] == ["innermost"]
    assert [each.name for each in child_layers(build("subclassed"))] == [each.name for each in parts()]
    images = keras.Input((4,), name="images")
    model = keras.Model(images, images + 1)
    assert [type(each).__name__ for each in child_layers(model)] == ["InputLayer", "Add"]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_keras_notes_the_logits_of_its_own_activations(activation):
    dense = keras.layers.Dense(3, activation=activation)
    answer = dense(np.ones((1, 2), "float32"))
    assert has_noted_logits(answer)
    expected = np.ones((1, 2), "float32") @ dense.kernel.numpy() + dense.bias.numpy()
    np.testing.assert_allclose(noted_logits(answer), expected, rtol=1e-6)


def test_nothing_is_noted_on_what_is_no_probability():
    answer = keras.layers.Dense(3, activation="relu")(np.ones((1, 2), "float32"))
    assert not has_noted_logits(answer)
    assert noted_logits(tf.nn.softmax(answer)) is None  # TensorFlow's softmax notes nothing


def test_keras_own_layers_are_told_from_those_of_others():
    symbol = keras.Input((4,))
    added = chain(symbol, [keras.layers.Dense(2)]) + 1
    model = keras.Model(symbol, added)
    assert all(map(is_keras_own, model.operations))
    assert not is_keras_own(Inside())


def test_a_layer_lists_its_own_variables_and_layers():
    normalization = keras.layers.BatchNormalization()
    normalization.build((None, 3))
    trainable, others = variable_lists(normalization)
    assert [each.name for each in trainable] == ["gamma", "beta"]
    assert [each.name for each in others] == ["moving_mean", "moving_variance"]
    dense = keras.layers.Dense(2)
    dense.build((None, 3))
    lists = variable_lists(dense)
    dense.enable_lora(1)
    assert sum(map(len, lists)) == 4  # The very lists have grown.
    assert [each.name for each in inner_layers(Inside())] == ["first", "second"]


@pytest.mark.parametrize("mode", ["full", "activations", "larger_than", "list_of_layers"])
def test_layers_made_in_a_scope_of_rematerialization_are_recognized(mode):
    with keras.RematScope(mode=mode, layer_names=["inside"]):
        layer = keras.layers.Activation("relu", name="inside")
    assert is_rematerialized(layer)
    with without_rematerialization([layer, layer]):
        assert not is_rematerialized(layer)
    assert is_rematerialized(layer)
    assert not is_rematerialized(keras.layers.Activation("relu"))

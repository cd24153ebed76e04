"""One forward pass: the tap, what is read on the way, and the logits."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import head
from oracle import Oracle

from tf_gradcam import build_submodel, forward, layers
from tf_gradcam.forward import Read


def conv2(model):
    return layers.find_layer(model, "conv2")


# The tap


def test_a_tap_sees_and_replaces_what_a_layer_returns(model, images):
    plain = model(images)
    with forward.tap([conv2(model)], lambda layer, output: tf.zeros_like(output)):
        tapped = model(images)
    bias = layers.find_layer(model, "scores").bias
    np.testing.assert_allclose(tapped, tf.nn.softmax(tf.zeros_like(tapped) + bias), atol=1e-6)
    np.testing.assert_array_equal(model(images), plain)


def test_a_tap_leaves_the_layer_as_it_was_also_after_an_error(model):
    before = dict(vars(conv2(model)))
    with forward.tap([conv2(model)], lambda layer, output: output):
        assert "call" in vars(conv2(model))
    assert vars(conv2(model)) == before
    with pytest.raises(ZeroDivisionError), forward.tap([conv2(model)], lambda layer, output: output):
        1 / 0  # noqa: B018
    assert vars(conv2(model)) == before


def test_a_tap_keeps_a_call_that_was_there_before(functional):
    layer = conv2(functional)
    object.__setattr__(layer, "call", own := layer.call)
    with forward.tap([layer], lambda layer, output: output):
        pass
    assert vars(layer)["call"] is own


def test_other_threads_do_not_see_the_tap(functional, images):
    plain, answers = functional(images), []
    with forward.tap([conv2(functional)], lambda layer, output: output * 0):
        thread = threading.Thread(target=lambda: answers.append(functional(images)))
        thread.start()
        thread.join()
    np.testing.assert_array_equal(answers[0], plain)


# The forward pass


@pytest.mark.parametrize("layer", ["conv1", "conv2", "relu2"])
def test_forward_reads_activations_and_logits(model, images, layer):
    oracle = Oracle(model.get_weights(), images)

    @tf.function
    def read(x):
        (activations,), outputs = forward.forward(model, x, [Read(layers.find_layer(model, layer))])
        return activations, outputs, forward.find_logits(outputs)

    activations, outputs, logits = read(images)
    np.testing.assert_allclose(activations, oracle.activations[layer], atol=1e-5)
    np.testing.assert_allclose(logits, oracle.logits, atol=1e-5)
    np.testing.assert_allclose(outputs, model(images), atol=1e-6)


@pytest.mark.parametrize(
    "end",
    [
        [keras.layers.Softmax()],
        [keras.layers.Activation("softmax", dtype="float32")],
        [keras.layers.Activation("sigmoid")],
        [keras.layers.Activation("log_softmax")],
        [keras.layers.Softmax(), keras.layers.Identity()],
        [keras.layers.Softmax(), keras.layers.Reshape((3, 1)), keras.layers.Reshape((3,))],
        [keras.layers.Reshape((3, 1)), keras.layers.Softmax(axis=1), keras.layers.Reshape((3,))],
        [keras.layers.Reshape((1, 3)), keras.layers.Softmax(), keras.layers.Flatten()],
        [keras.layers.Softmax(), keras.layers.Activation("linear", dtype="float64")],
        [keras.layers.Lambda(lambda x: tf.nn.softmax(x))],
    ],
    ids=str,
)
def test_logits_are_found_behind_softmax_and_sigmoid(end, images):
    model = head(*end)
    units = keras.Model(model.inputs[0], model.get_layer("units").output)(images)
    _, logits = build_submodel(model, "conv2").predict(images, verbose=0)
    np.testing.assert_allclose(logits, units, atol=1e-6)


@pytest.mark.parametrize("activation", [None, "relu", "tanh"])
def test_other_outputs_are_their_own_logits(activation, images):
    model = head(activation=activation)
    _, logits = build_submodel(model, "conv2")(images)
    np.testing.assert_allclose(logits, model(images), atol=1e-6)

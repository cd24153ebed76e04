"""One forward pass: the tap, what is read on the way, and the logits."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIDE, head
from oracle import Oracle

from tf_gradcam import build_submodel
from tf_gradcam._graph.graph import (
    ancestors,
    concatenated_parts,
    find_token_start,
    flattened_grids,
    non_affine_operations,
    operations_between,
)
from tf_gradcam._model.forward import LayerCall, forward, tap
from tf_gradcam._model.layers import find_layer
from tf_gradcam._model.logits import find_logits


def conv2(model):
    return find_layer(model, "conv2")


# The tap


def test_a_tap_sees_and_replaces_what_a_layer_returns(model, images):
    plain = model(images)
    with tap([conv2(model)], lambda layer, output: tf.zeros_like(output)):
        tapped = model(images)
    bias = find_layer(model, "scores").bias
    np.testing.assert_allclose(tapped, tf.nn.softmax(tf.zeros_like(tapped) + bias), atol=1e-6)
    np.testing.assert_array_equal(model(images), plain)


def test_a_tap_leaves_the_layer_as_it_was_also_after_an_error(model):
    before = dict(vars(conv2(model)))
    with tap([conv2(model)], lambda layer, output: output):
        assert "call" in vars(conv2(model))
    assert vars(conv2(model)) == before
    with pytest.raises(ZeroDivisionError), tap([conv2(model)], lambda layer, output: output):
        1 / 0  # noqa: B018
    assert vars(conv2(model)) == before


def test_a_tap_keeps_a_call_that_was_there_before(functional):
    layer = conv2(functional)
    object.__setattr__(layer, "call", own := layer.call)
    with tap([layer], lambda layer, output: output):
        pass
    assert vars(layer)["call"] is own


def test_other_threads_do_not_see_the_tap(functional, images):
    plain, answers = functional(images), []
    with tap([conv2(functional)], lambda layer, output: output * 0):
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
        (activations,), outputs = forward(model, x, [LayerCall(find_layer(model, layer))])
        return activations, outputs, find_logits(outputs)

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


def test_logits_are_found_where_a_detector_joins_them_to_its_boxes(images):
    base = head()
    boxes, scores = keras.layers.Dense(4)(base.output), keras.layers.Dense(2)(base.output)
    end = [boxes, keras.layers.Activation("sigmoid")(scores)]
    rows = [keras.layers.Reshape((1, -1))(each) for each in end]
    model = keras.Model(base.inputs[0], keras.layers.Concatenate()(rows))
    _, logits = build_submodel(model, "conv2").predict(images, verbose=0)
    expected = keras.Model(model.inputs[0], [boxes, scores])(images)
    np.testing.assert_allclose(logits[:, 0], tf.concat(expected, -1), atol=1e-6)


def test_the_two_sides_of_a_sigmoid_that_are_joined_have_opposite_logits(images):
    base = head()
    unit = keras.layers.Dense(1)(base.output)
    yes = keras.layers.Activation("sigmoid")(unit)
    model = keras.Model(base.inputs[0], keras.layers.Concatenate()([1 - yes, yes]))
    _, logits = build_submodel(model, "conv2").predict(images, verbose=0)
    expected = keras.Model(base.inputs[0], unit)(images)
    np.testing.assert_allclose(logits, tf.concat([-expected, expected], 1), atol=1e-6)


# Reading several layers, and one of several runs


class Twice(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv = keras.layers.Conv2D(3, 3, padding="same", name="conv")

    def call(self, images):
        return tf.reduce_mean(self.conv(self.conv(images)), axis=(1, 2))


def test_each_run_of_a_layer_can_be_read(images):
    model = Twice()
    model(images)
    first = model.conv(images)
    reads = [LayerCall(model.conv, 1), LayerCall(model.conv, 0)]
    activations, outputs = forward(model, images, reads)
    np.testing.assert_allclose(activations[1], first, atol=1e-6)
    np.testing.assert_allclose(activations[0], model.conv(first), atol=1e-6)
    np.testing.assert_allclose(outputs, model(images), atol=1e-6)


def test_reading_two_runs_differentiates_each(images):
    model = Twice()
    model(images)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        activations, outputs = forward(
            model, images, [LayerCall(model.conv, 0), LayerCall(model.conv, 1)], tape.watch
        )
        score = outputs[:, 1]
    early, late = tape.gradient(score, activations)
    one = tf.one_hot(tf.fill((3, SIDE, SIDE), 1), 3) / SIDE**2
    np.testing.assert_allclose(late, one, atol=1e-6)
    kernel = model.conv.kernel
    expected = tf.nn.conv2d_transpose(one, kernel, tf.shape(one), 1, "SAME")
    np.testing.assert_allclose(early, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            None,
            "`layer` must run once, or `call` must say.*ran 2 times. Give call=0 for the first, up to call=1",
        ),
        (2, "`call` must be a run of the layer, from 0 to 1. Received: call=2.*ran 2 times"),
    ],
)
def test_a_run_that_is_not_said_or_not_there_is_refused(images, call, message):
    model = Twice()
    model(images)
    with pytest.raises(ValueError, match=message):
        forward(model, images, [LayerCall(model.conv, call)])


def test_a_layer_that_never_runs_is_refused(images):
    model = Twice()
    model.idle = keras.layers.ReLU(name="idle")
    with pytest.raises(ValueError, match="`layer` must run when the model is called.*'idle'"):
        forward(model, images, [LayerCall(model.idle)])


def test_a_layer_that_returns_several_tensors_is_refused(images):
    x = keras.Input((SIDE, SIDE, 3))
    lstm = keras.layers.ConvLSTM2D(2, 3, return_state=True, name="lstm")
    outputs = lstm(keras.layers.Reshape((1, SIDE, SIDE, 3))(x))
    with pytest.raises(ValueError, match="`layer` must return one tensor.*'lstm', which returns"):
        forward(keras.Model(x, outputs[0]), images, [LayerCall(lstm)])


# Going back through a graph


def test_ancestors_are_found_from_the_nearest_on_and_not_past_a_stop():
    with tf.Graph().as_default():
        x, other = tf.compat.v1.placeholder(tf.float32, (2, 3)), tf.compat.v1.placeholder(tf.float32, (3, 4))
        root = tf.sqrt(x)
        product = tf.matmul(root, other)
        result = tf.exp(product)
        assert list(ancestors([result])) == [each.op for each in (result, product, root, other, x)]
        assert list(ancestors([result], lambda op: op.type == "MatMul")) == [result.op]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((2, 3, 5, 8), (2, 15, 8), [(3, 5)]),
        ((None, 3, 5, 8), (-1, 15, 8), [(3, 5)]),
        ((2, 3, 5, 4, 4, 8), (2, 15, 128), [(3, 5)]),  # patches of 4 x 4 pixels
        ((2, 8, 3, 5), (2, 8, 15), []),  # the heads of 8 tokens, unless it is then transposed
        ((2, 15, 8), (2, 3, 5, 8), []),
        ((2, 3, 5, 8), (2, 120), []),
        ((None, None, 5, 8), (-1, 15, 8), []),
    ],
)
def test_flattened_grids_are_told_by_the_reshapes(before, after, expected):
    with tf.Graph().as_default():
        x = tf.compat.v1.placeholder(tf.float32, before)
        assert flattened_grids([tf.reshape(x, after).op]) == expected


def test_grids_with_channels_first_are_transposed_and_joined_heads_are_not():
    with tf.Graph().as_default():
        heads = tf.reshape(tf.compat.v1.placeholder(tf.float32, (2, 17, 2, 8)), (2, 17, 16))
        first = tf.reshape(tf.compat.v1.placeholder(tf.float32, (2, 8, 3, 5)), (2, 8, 15))
        tf.transpose(first, (0, 2, 1))
        patches = tf.reshape(tf.compat.v1.placeholder(tf.float32, (2, 4, 4, 8)), (2, 16, 8))
        assert flattened_grids([heads.op, first.op, patches.op]) == [(4, 4), (3, 5)]


def test_an_output_is_taken_apart_into_the_levels_it_was_joined_from():
    with tf.Graph().as_default():
        levels = [tf.compat.v1.placeholder(tf.float32, (2, count, 6)) for count in (16, 4, 1)]
        inner = tf.concat(levels[1:], axis=1)
        output = tf.identity(tf.sigmoid(tf.concat([levels[0], tf.reshape(inner, (2, 5, 6))], axis=1)))
        assert [each.op for each in concatenated_parts(output)] == [each.op for each in levels]
        alone = tf.exp(levels[0])
        assert concatenated_parts(alone) == [alone]


@pytest.mark.parametrize(
    ("pieces", "start"),
    [
        ([1, 15], 1),
        ([15, 1], 0),
        ([1, 2, 15], 3),
        ([15, 3], 0),
        ([4, 5], None),
    ],
)
def test_places_are_found_among_the_tokens_they_were_joined_with(pieces, start):
    with tf.Graph().as_default():
        tokens = tf.concat([tf.compat.v1.placeholder(tf.float32, (None, n, 8)) for n in pieces], axis=1)
        assert find_token_start(ancestors([tf.exp(tokens)]), sum(pieces), 15) == start


def test_places_are_found_where_tokens_were_joined_twice():
    with tf.Graph().as_default():
        one, places, two = (tf.compat.v1.placeholder(tf.float32, (None, n, 8)) for n in (1, 15, 2))
        tokens = tf.concat([two, tf.exp(tf.concat([one, places], axis=1))], axis=1)
        assert find_token_start(ancestors([tokens]), 18, 15) == 3


# The way between two tensors


@pytest.fixture
def graph():
    """A little graph, the operations of which are known by name."""
    with tf.Graph().as_default() as graph:
        x, other = (tf.compat.v1.placeholder(tf.float32, (2, 4, 4, 3), name) for name in ("x", "other"))
        kernel = tf.ones((3, 5), name="kernel")
        doubled = tf.multiply(x, 2.0, name="doubled")
        tf.sqrt(doubled, name="aside")
        pooled = tf.reduce_mean(tf.add(doubled, other, name="sum"), axis=(1, 2), name="pooled")
        tf.matmul(pooled, kernel, name="product")
        tf.exp(other, name="elsewhere")
    return graph


def names(operations):
    return [each.name for each in operations]


def test_what_is_between_two_tensors_is_what_one_reaches_the_other_through(graph):
    x, end = graph.get_tensor_by_name("x:0"), graph.get_tensor_by_name("product:0")
    assert names(operations_between(x, end)) == ["doubled", "sum", "pooled", "product"]
    doubled = graph.get_tensor_by_name("doubled:0")
    assert names(operations_between(doubled, end)) == ["sum", "pooled", "product"]
    assert names(operations_between(graph.get_tensor_by_name("other:0"), end)) == ["sum", "pooled", "product"]


def test_nothing_is_between_tensors_that_do_not_depend_on_each_other(graph):
    end, elsewhere = graph.get_tensor_by_name("product:0"), graph.get_tensor_by_name("elsewhere:0")
    assert operations_between(graph.get_tensor_by_name("x:0"), elsewhere) == []
    assert operations_between(end, graph.get_tensor_by_name("x:0")) == []
    assert operations_between(end, end) == []


def test_of_an_operation_with_several_outputs_only_what_comes_of_the_given_one_counts():
    with tf.Graph().as_default():
        left, right = tf.split(tf.compat.v1.placeholder(tf.float32, (2, 6)), 2, axis=1)
        end = tf.add(tf.exp(left, name="of_left"), tf.sin(right, name="of_right"), name="end")
        assert names(operations_between(left, end)) == ["of_left", "end"]


def test_a_pooled_dense_head_is_affine_and_what_is_not_is_told(graph):
    x = graph.get_tensor_by_name("x:0")
    assert non_affine_operations(x, graph.get_tensor_by_name("product:0")) == []
    assert names(non_affine_operations(x, graph.get_tensor_by_name("aside:0"))) == ["aside"]


@pytest.mark.parametrize(
    ("step", "is_affine"),
    [
        (lambda x: x + 1, True),
        (lambda x: 1 - x, True),
        (lambda x: x - x, True),
        (lambda x: 3 * x, True),
        (lambda x: tf.cast(tf.reshape(x, (3, 2)), tf.float64), True),
        (lambda x: tf.nn.bias_add(x, tf.ones(3)), True),
        (lambda x: tf.squeeze(x[:, None] + 0, 1), False),  # a slice is not known to be
        (lambda x: x * x, False),
        (lambda x: x * tf.exp(x), False),
        (lambda x: tf.matmul(x, x, transpose_b=True), False),
        (lambda x: 1 / x, False),
        (tf.nn.relu, False),
        (tf.nn.softmax, False),
        (lambda x: tf.reduce_max(x, 1), False),
    ],
)
def test_a_product_is_affine_in_one_of_its_factors(step, is_affine):
    with tf.Graph().as_default():
        x = tf.compat.v1.placeholder(tf.float32, (2, 3))
        assert (non_affine_operations(x, step(x)) == []) == is_affine


# Going on with other activations


def test_the_model_goes_on_with_what_replaces_a_layers_activations(model, images):
    read = LayerCall(find_layer(model, "relu2"))
    (activations,), plain = forward(model, images, [read])
    seen, outputs = forward(model, images, [read], replace=[activations])
    np.testing.assert_array_equal(outputs, plain)
    seen, outputs = forward(model, images, [read], replace=[2 * activations])
    np.testing.assert_array_equal(seen[0], activations)  # what the layer itself returned
    dense = find_layer(model, "scores")
    pooled = 2 * tf.reduce_mean(activations, axis=(1, 2))
    np.testing.assert_allclose(outputs, dense(pooled), atol=1e-5)
    np.testing.assert_array_equal(model(images), plain)


def test_only_the_run_that_is_read_is_replaced(images):
    model = Twice()
    model(images)
    other = tf.random.stateless_normal((3, SIDE, SIDE, 3), (0, 0))
    _, outputs = forward(model, images, [LayerCall(model.conv, 0)], replace=[other])
    np.testing.assert_allclose(outputs, tf.reduce_mean(model.conv(other), axis=(1, 2)), atol=1e-6)
    _, outputs = forward(model, images, [LayerCall(model.conv, 1)], replace=[other])
    np.testing.assert_allclose(outputs, tf.reduce_mean(other, axis=(1, 2)), atol=1e-6)


def test_what_is_replaced_is_no_part_of_the_way_to_the_outputs(functional, images):
    @tf.function(autograph=False)
    def run(x):
        relu2 = find_layer(functional, "relu2")
        _, outputs = forward(functional, x, [LayerCall(relu2)], replace=[tf.ones((3, 8, 8, 6))])
        assert not any(operation.type == "Conv2D" for operation in ancestors([outputs]))
        return outputs

    dense = find_layer(functional, "scores")
    np.testing.assert_allclose(run(tf.constant(images)), dense(tf.ones((3, 6))), atol=1e-6)

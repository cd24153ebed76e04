"""What small networks spend beside their large convolutions: maps of one place, paddings, the first swish."""

import numpy as np
import pytest
import tensorflow as tf

from tf_gradcam._freezing import graph_function as graph_module
from tf_gradcam._freezing.folding import frozen_graph
from tf_gradcam._freezing.graph_function import graph_function
from tf_gradcam._freezing.graph_nodes import GraphNodes
from tf_gradcam._freezing.single_places import use_products
from tf_gradcam._freezing.tensorflow_internals import has_onednn
from tf_gradcam._freezing.weight_graph import evaluated, weight_graph, without_needless_control

needs_onednn = pytest.mark.skipif(not has_onednn(), reason="this TensorFlow computes without oneDNN")


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def concrete(function, *shape):
    return tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec(shape))


def operations(graph):
    return [node.op for node in graph.definition.node]


@pytest.fixture
def fused(monkeypatch):
    """Return the function that gives a function's frozen form, and the operations in it as they run."""
    seen = []
    keep_filters = graph_module.keep_filters

    def spy(graph):
        found = keep_filters(graph)
        seen.append(operations(graph))
        return found

    monkeypatch.setattr(graph_module, "keep_filters", spy)

    def freeze(function):
        return graph_function(frozen_graph(function, None)), seen[-1]

    return freeze


# Maps of one place

ACTIVATIONS = {"swish": lambda y: y * tf.sigmoid(y), "relu": tf.nn.relu, "silu": tf.nn.silu}


@needs_onednn
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_squeeze_and_excite_are_products_and_give_the_same(activation, fused):
    down, up = tf.Variable(random(1, 1, 24, 6)), tf.Variable(random(1, 1, 6, 24, seed=1))
    shift = tf.Variable(random(6, seed=2))

    def gate(x):
        y = tf.reduce_mean(x, [1, 2], keepdims=True)
        y = ACTIVATIONS[activation](tf.nn.bias_add(tf.nn.conv2d(y, down, 1, "SAME"), shift))
        return x * tf.sigmoid(tf.nn.conv2d(y, up, 1, "VALID"))

    function = concrete(gate, None, None, None, 24)
    run, kinds = fused(function)
    assert not any("Conv2D" in kind or kind == "_MklSwish" for kind in kinds)
    for shape in [(1, 7, 7, 24), (3, 4, 5, 24)]:
        x = tf.constant(random(*shape, seed=3) * 4)
        np.testing.assert_allclose(run(x)[0], function(x), rtol=1e-5, atol=1e-6)


NO_PRODUCTS = {
    "a larger map": (lambda x, w: tf.nn.conv2d(x[:, :1, :2], w[:1, :1], 1, "SAME")),
    "a larger filter": (lambda x, w: tf.nn.conv2d(x[:, :1, :1], w, 1, "SAME")),
    "groups": (lambda x, w: tf.nn.conv2d(x[:, :1, :1], w[:1, :1, :2], 1, "SAME")),
    "padding": (lambda x, w: tf.nn.conv2d(x[:, :1, :1], w[:1, :1], 1, [[0, 0], [1, 1], [1, 1], [0, 0]])),
}


def after_check(x, filters):
    with tf.control_dependencies([tf.raw_ops.Assert(condition=tf.reduce_max(x) < 5, data=[x])]):
        return tf.nn.conv2d(x, filters, 1, "SAME")


NO_PRODUCTS["after a check"] = lambda x, w: after_check(x[:, :1, :1], w[:1, :1])


@pytest.mark.parametrize("kind", NO_PRODUCTS)
def test_any_other_convolution_is_no_product(kind):
    filters = tf.Variable(random(3, 3, 4, 8))
    graph = evaluated(weight_graph(concrete(lambda x: NO_PRODUCTS[kind](x, filters), 2, 5, 5, 4)))
    nodes = GraphNodes(graph)
    use_products(nodes)
    assert "Conv2D" in operations(nodes.weight_graph())


def test_only_the_swish_of_one_place_is_kept_apart():
    filters = tf.Variable(random(1, 1, 4, 8))

    def both(x):
        large = x * tf.sigmoid(x)
        small = tf.nn.conv2d(large[:, :1, :1], filters, 1, "SAME")
        return large, tf.sigmoid(small) * small, small * tf.sigmoid(2 * small)

    function = concrete(both, None, 5, 5, 4)
    nodes = GraphNodes(evaluated(weight_graph(function)))
    use_products(nodes)
    graph = nodes.weight_graph()
    assert operations(graph).count("MulNoNan") == 1
    x = tf.constant(random(2, 5, 5, 4) * 50)  # Where some sigmoids are 0.
    for found, expected in zip(graph_function(graph)(x), function(x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


# Paddings

AROUND = [[0, 0], [0, 1], [2, 1], [0, 0]]


def depthwise(x, filters, multiplier=1):
    return tf.nn.depthwise_conv2d(x, filters[..., :multiplier], [1, 2, 2, 1], "VALID")


PADDED = {
    "plain": lambda x, w, b: tf.nn.relu(tf.nn.conv2d(tf.pad(x, AROUND), w, 2, "VALID") + b),
    "depthwise": lambda x, w, b: tf.nn.relu6(depthwise(tf.pad(x, AROUND), w) + b[:4]),
    "depthwise, swish": lambda x, w, b: tf.nn.silu(depthwise(tf.pad(x, AROUND), w) + b[:4]),
}
NOT_PADDED = {
    "read twice": lambda x, w, b: PADDED["plain"](x, w, b) + tf.reduce_sum(tf.pad(x, AROUND)),
    "with ones": lambda x, w, b: tf.nn.conv2d(tf.pad(x, AROUND, constant_values=1), w, 2, "VALID") + b,
    "images": lambda x, w, b: tf.nn.conv2d(tf.pad(x, [[1, 0], *AROUND[1:]]), w, 2, "VALID") + b,
    "and the same again": lambda x, w, b: tf.nn.conv2d(tf.pad(x, AROUND), w, 2, "SAME") + b,
    "two of each": lambda x, w, b: depthwise(tf.pad(x, AROUND), w, 2) + b,
    "of each image's size": lambda x, w, b: (
        tf.nn.conv2d(tf.pad(x, tf.stack([[0, 0], [0, tf.shape(x)[1]], [0, 1], [0, 0]])), w, 2, "VALID") + b
    ),
}


def assert_the_same(run, function):
    """Compare with `function` run eagerly: compiled, TensorFlow 2.21 drops a padding of the batch axis."""
    for shape in [(1, 8, 8, 4), (3, 9, 7, 4), (1, 8, 8, 4)]:
        x = tf.constant(random(*shape, seed=4))
        expected = function(x).numpy()
        np.testing.assert_allclose(run(x)[0], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@needs_onednn
@pytest.mark.parametrize("kind", [*PADDED, *NOT_PADDED])
def test_zeros_around_a_map_are_part_of_the_convolution(kind, fused):
    filters, bias = tf.Variable(random(3, 3, 4, 8)), tf.Variable(random(8, seed=1))
    chain = {**PADDED, **NOT_PADDED}[kind]
    function = concrete(lambda x: chain(x, filters, bias), None, None, None, 4)
    run, kinds = fused(function)
    assert any(each in ("Pad", "PadV2") for each in kinds) == (kind in NOT_PADDED)
    assert_the_same(run, lambda x: chain(x, filters, bias))


# Control inputs


def test_only_what_leads_to_a_check_is_waited_for():
    def answer(x):
        with tf.control_dependencies([tf.constant(1.0)]):
            y = tf.exp(x)
        with tf.control_dependencies([tf.raw_ops.Assert(condition=x < 5, data=[x])]):
            passed = tf.identity(x)
        with tf.control_dependencies([passed]):
            return y + tf.sqrt(x)

    graph = without_needless_control(weight_graph(concrete(answer)))
    waiting = {node.op for node in graph.definition.node if any(each[0] == "^" for each in node.input)}
    assert "Exp" not in waiting
    assert {"Sqrt", "Identity"} <= waiting
    run = graph_function(graph)
    assert run(tf.constant(4.0))[0].numpy() == pytest.approx(np.exp(4) + 2)
    with pytest.raises(tf.errors.InvalidArgumentError):
        run(tf.constant(6.0))

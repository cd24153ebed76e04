"""A graph beside its weights: what depends on them alone is computed once, and scales go into filters."""

import numpy as np
import pytest
import tensorflow as tf

from tf_gradcam._freezing import graph_function as graph_module
from tf_gradcam._freezing.folding import frozen_graph
from tf_gradcam._freezing.graph_function import graph_function, plain_function
from tf_gradcam._freezing.weight_graph import evaluated, node_name, weight_graph

SIDE = 6


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def concrete(function, *specs):
    return tf.function(function, autograph=False).get_concrete_function(*specs)


def operations(graph):
    return [node.op for node in graph.definition.node]


# Beside its weights


def test_what_depends_on_weights_alone_is_computed_once():
    a, b = tf.Variable(random(3)), tf.Variable(random(3, seed=1))
    nested = tf.function(lambda x: x * tf.exp(a) + tf.stack(tf.unstack(tf.stack([a, b]))[::-1])[0])
    graph = weight_graph(concrete(lambda x: (nested(x), a + b, x), tf.TensorSpec([None, 3])))
    assert set(graph.weights) >= {node.name for node in graph.definition.node if node.op == "Placeholder"} - {
        "x"
    }
    rest = evaluated(graph)
    assert not {"Exp", "Pack", "Unpack"} & set(operations(rest))
    a.assign(tf.zeros(3))  # The values are those of the moment.
    x = random(2, 3, seed=2)
    a_then, b_then = random(3), random(3, seed=1)
    inside = concrete(lambda x: tuple(plain_function(rest)(x)), tf.TensorSpec([None, 3]))
    assert inside.captured_inputs == []
    by_xla = tf.function(lambda x: tuple(plain_function(rest)(x)), autograph=False, jit_compile=True)
    for found in (graph_function(rest)(tf.constant(x)), inside(tf.constant(x)), by_xla(tf.constant(x))):
        np.testing.assert_allclose(found[0], x * np.exp(a_then) + b_then, rtol=1e-5)
        np.testing.assert_allclose(found[1], a_then + b_then, rtol=1e-6)
        np.testing.assert_array_equal(found[2], x)


def test_random_numbers_are_drawn_in_every_call():
    scale = tf.Variable(2.0)
    graph = evaluated(weight_graph(concrete(lambda x: x + tf.random.normal([4]) * scale, tf.TensorSpec([]))))
    run = graph_function(graph)
    assert not np.array_equal(run(tf.constant(0.0))[0], run(tf.constant(0.0))[0])


def test_a_loop_or_a_table_gives_no_graph_beside_weights():
    weight = tf.Variable(1.0)
    loop = concrete(lambda x: tf.while_loop(lambda y: y < 3, lambda y: y + weight, [x])[0], tf.TensorSpec([]))
    pairs = tf.lookup.KeyValueTensorInitializer([0], [1.0], tf.int32, tf.float32)
    table = tf.lookup.StaticHashTable(pairs, 0.0)
    looked = concrete(lambda x: x + table.lookup(tf.constant(0)), tf.TensorSpec([]))
    gathered = tf.Variable(random(5, 2))
    rows = concrete(lambda i: tf.nn.embedding_lookup(gathered, i), tf.TensorSpec([None], tf.int32))
    assert [weight_graph(each) for each in (loop, looked, rows)] == [None, None, None]


# Scales and shifts after a convolution


def convolution(x, kernel):
    depthwise = kernel.shape[-2] != 1 and kernel.shape[-1] <= 2
    if depthwise:
        return tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME")
    return tf.nn.conv2d(x, kernel, 1, "SAME")


KERNELS = {"plain": (3, 3, 4, 8), "depthwise": (3, 3, 4, 2)}
IMAGE = tf.TensorSpec([None, SIDE, SIDE, 4])


@pytest.mark.parametrize("kind", KERNELS)
def test_scales_and_shifts_become_one_bias(kind):
    kernel = tf.Variable(random(*KERNELS[kind]))
    scale, other, shift = (tf.Variable(random(8, seed=seed)) for seed in (1, 2, 3))

    def chain(x):
        y = tf.nn.bias_add(convolution(x, kernel), shift)
        return tf.nn.relu(2 * (tf.reshape(other, [1, 1, 1, 8]) + (y - shift * other) * scale) - other)

    function = concrete(chain, IMAGE)
    graph = frozen_graph(function, None)
    left = [name for name in operations(graph) if name in ("Mul", "Add", "AddV2", "Sub", "BiasAdd")]
    assert left == ["BiasAdd"]
    x = tf.constant(random(2, SIDE, SIDE, 4, seed=4))
    np.testing.assert_allclose(graph_function(graph)(x)[0], function(x), rtol=1e-4, atol=1e-4)


def test_what_only_a_gradient_left_behind_does_not_keep_a_scale():
    kernel, scale = tf.Variable(random(3, 3, 4, 8)), tf.Variable(random(8, seed=1))

    def gradient(x):
        y = convolution(x, kernel) * scale
        return tf.gradients(tf.reduce_sum(tf.nn.relu(y)), [x])[0], tf.nn.relu(y)

    function = concrete(gradient, IMAGE)
    graph = frozen_graph(function, None)
    left = operations(graph)
    assert "Mul" not in left
    x = tf.constant(random(2, SIDE, SIDE, 4, seed=4))
    for found, expected in zip(graph_function(graph)(x), function(x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


UNFOLDED = {
    "used twice": lambda y, scale: y * scale + tf.reduce_sum(y),
    "from the left": lambda y, scale: scale - y,
    "along the width": lambda y, scale: y * tf.reshape(scale, [1, 1, 8, 1])[:, :, :SIDE],
    "by itself": lambda y, scale: y * y * scale[0],
    "with more axes": lambda y, scale: y * tf.reshape(scale, [1, 1, 1, 1, 8]),
}


@pytest.mark.parametrize("kind", UNFOLDED)
def test_what_is_no_scale_of_channels_is_not_folded(kind):
    kernel, scale = tf.Variable(random(*KERNELS["plain"])), tf.Variable(random(8, seed=1))
    function = concrete(lambda x: UNFOLDED[kind](convolution(x, kernel), scale), IMAGE)
    graph = frozen_graph(function, None)
    assert "BiasAdd" not in operations(graph)
    x = tf.constant(random(2, SIDE, SIDE, 4, seed=4))
    np.testing.assert_allclose(graph_function(graph)(x)[0], function(x), rtol=1e-4, atol=1e-4)


def test_a_convolution_that_is_an_output_keeps_its_values():
    kernel, scale = tf.Variable(random(*KERNELS["plain"])), tf.Variable(random(8, seed=1))

    def both(x):
        y = convolution(x, kernel)
        return y, y * scale

    function = concrete(both, IMAGE)
    run = graph_function(frozen_graph(function, None))
    x = tf.constant(random(2, SIDE, SIDE, 4, seed=4))
    for found, expected in zip(run(x), function(x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


# With filters that oneDNN keeps

ACTIVATIONS = {
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "elu": tf.nn.elu,
    "swish": lambda y: y * tf.sigmoid(y),
    "tanh": tf.tanh,
    "leaky relu": tf.nn.leaky_relu,
    "gelu": tf.nn.gelu,
    "none": tf.identity,
}


def network(activate, seed):
    """Return a function with each kind of convolution, with an activation after each."""
    kernel, depthwise = (
        tf.Variable(random(3, 3, 4, 128, seed=seed)),
        tf.Variable(random(3, 3, 128, 1, seed=seed)),
    )
    point, shift = tf.Variable(random(1, 1, 128, 64)), tf.Variable(random(128, seed=seed))

    def call(x):
        y = activate(tf.nn.conv2d(x, kernel, 1, "SAME") + shift)
        z = activate(tf.nn.depthwise_conv2d(y, depthwise, [1, 2, 2, 1], "SAME") + shift)
        z = tf.nn.conv2d(z, point, 1, "VALID")
        return activate(tf.nn.conv2d(z, tf.transpose(point, [0, 1, 3, 2]), 1, "VALID") + shift + z[..., :1])

    return concrete(call, tf.TensorSpec([None, None, None, 4]))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_after_a_convolution_gives_the_same_at_every_size(activation):
    """Also with other weights: an operation that kept a filter must not use it in another graph."""
    for seed in (0, 1):
        function = network(ACTIVATIONS[activation], seed)
        run = graph_function(frozen_graph(function, None))
        for shape in [(1, SIDE, SIDE, 4), (3, 9, 8, 4), (1, SIDE, SIDE, 4)]:
            x = tf.constant(random(*shape, seed=4))
            expected = function(x).numpy()
            np.testing.assert_allclose(run(x)[0], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("slope", [0.05, 0.3])
@pytest.mark.parametrize("scaled", [True, False])
def test_a_leaky_relu_after_a_sum_keeps_its_slope(slope, scaled):
    kernel, scale, shift = (
        tf.Variable(random(3, 3, 4, 4)),
        tf.Variable(random(4)),
        tf.Variable(random(4, seed=1)),
    )

    def call(x):
        y = tf.nn.conv2d(x, kernel, 1, "SAME")
        y = y * scale + shift if scaled else tf.nn.bias_add(y, shift)
        return tf.nn.leaky_relu(y + x, slope)

    x = tf.constant(random(2, SIDE, SIDE, 4, seed=4))
    run = graph_function(frozen_graph(concrete(call, IMAGE), None))
    # Eager steps, as TensorFlow 2.21 takes a slope of 0.2 in a compiled function.
    np.testing.assert_allclose(run(x)[0], call(x), rtol=0, atol=1e-5 * np.abs(call(x)).max())


def test_without_onednn_the_weights_are_constants(monkeypatch):
    monkeypatch.setattr(graph_module, "_keeps_filters", lambda graph: False)
    function = network(tf.nn.relu, 0)
    run = graph_function(frozen_graph(function, None))
    x = tf.constant(random(2, SIDE, SIDE, 4, seed=4))
    expected = function(x).numpy()
    np.testing.assert_allclose(run(x)[0], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_large_filters_are_arguments_and_no_constants():
    kernel = tf.Variable(random(3, 3, 64, 64))
    function = concrete(
        lambda x: tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME")), tf.TensorSpec([1, 8, 8, 64])
    )
    graph = evaluated(weight_graph(function))
    assert graph.definition.ByteSize() < 10_000 < 4 * 3 * 3 * 64 * 64
    assert [node_name(each) for each in graph.weights] == list(graph.weights)

"""Scales folded into weights: the same numbers from fewer operations, and only where nothing else changes."""

import numpy as np
import pytest
import tensorflow as tf

from tf_gradcam._freezing.folded_scales import fold_scales
from tf_gradcam._freezing.graph_function import graph_function
from tf_gradcam._freezing.graph_nodes import GraphNodes
from tf_gradcam._freezing.weight_graph import constant_graph


def numbers(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype("float32")


KERNEL, THIN, MATRIX = numbers(3, 3, 4, 6), numbers(3, 3, 4, 2), numbers(4, 6)
SIX, EIGHT = numbers(6), numbers(8)


def normalized(x, scale, shift):
    return scale * (x + shift) - shift


def backward(x):
    (kernel, scale), shape = (KERNEL, SIX), tf.concat([tf.shape(x)[:3], [4]], 0)
    y = tf.nn.conv2d(x, kernel, 1, "SAME")
    return tf.raw_ops.Conv2DBackpropInput(
        input_sizes=shape, filter=kernel, out_backprop=tf.tanh(y) * scale, strides=[1] * 4, padding="SAME"
    )


CASES = {
    "convolution": lambda x: tf.nn.relu(normalized(tf.nn.conv2d(x, KERNEL, 1, "SAME"), SIX, SIX)),
    "with a bias": lambda x: normalized(tf.nn.bias_add(tf.nn.conv2d(x, KERNEL, 1, "SAME"), SIX), SIX, 2.0),
    "depthwise": lambda x: normalized(tf.nn.depthwise_conv2d(x, THIN, [1] * 4, "SAME"), EIGHT, EIGHT),
    "divided": lambda x: tf.nn.conv2d(x, KERNEL, 1, "SAME") / SIX.reshape(1, 1, 6) + 1.0,
    "product": lambda x: normalized(tf.matmul(x[:, 0, 0], MATRIX), SIX, SIX),
    "backward": backward,
}


def folded(function):
    """Return a function as it is and with its scales folded, and the operations of the second."""
    concrete = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec([None, 5, 5, 4]))
    nodes = GraphNodes(constant_graph(concrete))
    fold_scales(nodes)
    graph = nodes.weight_graph()
    return concrete, graph_function(graph), [node.op for node in graph.definition.node]


@pytest.mark.parametrize("name", CASES)
def test_scales_and_shifts_go_into_the_weights(name):
    before, after, operations = folded(CASES[name])
    images = tf.constant(numbers(2, 5, 5, 4))
    expected = before(images)
    np.testing.assert_allclose(after(images)[0], expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert not {"Mul", "AddV2", "Sub", "RealDiv"} & set(operations)
    assert operations.count("BiasAdd") == (name != "backward")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (lambda y: (SIX * y, y))(
            tf.nn.conv2d(x, KERNEL, 1, "SAME")
        ),  # The result before is needed.
        lambda x: tf.nn.conv2d(x, KERNEL, 1, "SAME") * numbers(5, 1),  # Another number for each row.
        lambda x: tf.nn.conv2d(x, KERNEL, 1, "SAME") * x[..., :1],  # Not a constant.
        lambda x: 1.0 / tf.nn.conv2d(x, KERNEL, 1, "SAME"),
        lambda x: tf.matmul(x[:, 0, 0], MATRIX) + numbers(1, 1, 6),  # It adds an axis.
        lambda x: tf.nn.conv2d_transpose(  # It repeats a channel.
            x[..., :1] * SIX, KERNEL, tf.concat([tf.shape(x)[:3], [4]], 0), 1
        ),
    ],
)
def test_anything_else_stays_as_it_is(function):
    before, after, operations = folded(function)
    images = tf.constant(numbers(2, 5, 5, 4))
    for one, other in zip(after(images), tf.nest.flatten(before(images)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert "BiasAdd" not in operations
    assert {"Mul", "RealDiv", "AddV2"} & set(operations)

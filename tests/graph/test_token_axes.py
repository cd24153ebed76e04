"""Where tokens are after reshapes, transposes and products: which softmaxes are attention between them."""

import pytest
import tensorflow as tf

from tf_gradcam._graph.graph import operations_between
from tf_gradcam._graph.token_axes import token_attention

T, D, HEADS = 16, 32, 2  # A head is as wide as there are tokens.


def turned(x, order):
    return tf.transpose(x, order)


def product(query, key):
    return tf.nn.softmax(tf.matmul(query, key, transpose_b=True))


def split(x):
    return turned(tf.reshape(x, (-1, T, HEADS, D // HEADS)), (0, 2, 1, 3))


def split_with_open_length(x):
    return turned(tf.reshape(x, (tf.shape(x)[0], -1, HEADS, D // HEADS)), (0, 2, 1, 3))


def dense(x, width=D):
    return tf.tensordot(x, tf.ones((x.shape[-1], width)), 1)


def one_by_one(x):
    """Return the tokens with the first one apart, as where only patches are turned by their positions."""
    x = split(x)
    return tf.concat([x[:, :, :1], 2 * x[:, :, 1:]], axis=2)


def convolved(x):
    grid = tf.reshape(x, (-1, 4, 4, D))
    return split(tf.reshape(tf.nn.conv2d(grid, tf.ones((3, 3, D, D)), 1, "SAME"), (-1, T, D)))


def stacked(x):
    every = turned(tf.reshape(dense(x, 3 * D), (-1, T, 3, HEADS, D // HEADS)), (2, 0, 3, 1, 4))
    return product(every[0], tf.gather(every, 1))


BETWEEN_TOKENS = {
    "one head": lambda x: product(x, dense(x)),
    "heads": lambda x: product(split(dense(x)), split(x)),
    "a length left open": lambda x: product(split_with_open_length(dense(x)), split_with_open_length(x)),
    "einsum": lambda x: tf.nn.softmax(
        tf.einsum("...tnh,...snh->...nts", *[tf.reshape(x, (-1, T, 2, T))] * 2)
    ),
    "queries, keys and values in one": stacked,
    "the first token apart": lambda x: product(one_by_one(x), split(x)),
    "a convolution on the grid": lambda x: product(convolved(x), split(x)),
    "heads talk to each other": lambda x: tf.nn.softmax(
        tf.einsum("nhts,hg->ngts", tf.matmul(split(x), split(x), transpose_b=True), tf.ones((2, 2)))
    ),
}


def windows(x):
    x = tf.reshape(x, (-1, 2, 2, 2, 2, D))
    return tf.reshape(turned(x, (0, 1, 3, 2, 4, 5)), (-1, 4, D))


def channels(x):
    return turned(split(x), (0, 1, 3, 2))


BETWEEN_OTHERS = {
    "channels": lambda x: product(channels(dense(x)), channels(x)),
    "windows": lambda x: product(windows(x), windows(x)),
    "fewer keys": lambda x: product(split(x), split(x)[:, :, ::4]),
    "heads beside images": lambda x: product(*[tf.reshape(split(x), (-1, T, D // HEADS))] * 2),
}

NO_ATTENTION = {
    "a memory": lambda x: tf.nn.softmax(tf.matmul(split(dense(x)), tf.ones((HEADS, D // HEADS, T)))),
    "a router": lambda x: tf.nn.softmax(dense(x, 4)),
}


def found(function, images=None):
    def traced(x):
        x = tf.identity(x)
        starts.append(x)
        return function(x)

    starts: list = []
    graph = tf.function(traced, autograph=False).get_concrete_function(tf.TensorSpec((images, T, D))).graph
    steps = operations_between(starts[0], graph.outputs[0].op.inputs[0])
    return token_attention(starts[0], steps, T)


@pytest.mark.parametrize("images", [None, 3])
def test_attention_is_between_tokens_that_keep_their_axis(images):
    for name, function in BETWEEN_TOKENS.items():
        tokens, others = found(function, images)
        assert (len(tokens), len(others)) == (1, 0), name


@pytest.mark.parametrize("images", [None, 3])
def test_what_is_as_long_as_tokens_is_not_taken_for_them(images):
    for name, function in BETWEEN_OTHERS.items():
        tokens, others = found(function, images)
        assert (len(tokens), len(others)) == (0, 1), name
    for name, function in NO_ATTENTION.items():
        assert found(function, images) == ([], []), name

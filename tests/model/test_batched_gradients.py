"""Gradients of several scores at once are those of each score alone, operation by operation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_gradcam._model import batched_gradients

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(2, 6, 6, 4))


def weights(*shape):
    return tf.constant(RANDOM.normal(size=shape))


def pooled(x):
    return tf.reduce_mean(x, [1, 2]) @ weights(x.shape[-1], 3)


def convolved(size, strides=1, padding="SAME"):
    return lambda x: tf.nn.conv2d(x, weights(size, size, 4, 5), strides, padding)


def depthwise(size, stride=1, padding="SAME", multiplier=1):
    strides = [1, stride, stride, 1]
    return lambda x: tf.nn.depthwise_conv2d(x, weights(size, size, 4, multiplier), strides, padding)


def squeezed_and_excited(x):
    return x * tf.sigmoid(tf.reduce_mean(x, [1, 2], keepdims=True))


def attention(x):
    tokens = tf.reshape(x, [-1, 36, 4])
    scores = tf.nn.softmax(tf.einsum("nik,njk->nij", tokens, tokens @ weights(4, 4)))
    return tf.reshape(scores @ tokens, [-1, 6, 6, 4])


def multiplied_from_the_left(x):
    product = tf.matmul(weights(4, 4), tf.reshape(x, [-1, 4]), transpose_b=True)
    return tf.reshape(tf.transpose(product), [-1, 6, 6, 4])


def normalized(x):
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + 1e-3)


def branched(x):
    left, right = tf.split(x, 2, axis=-1)
    lowered = tf.pad(left, [[0, 0], [1, 0], [0, 0], [0, 0]])[:, 1:]
    return tf.concat([tf.nn.relu(left), right[:, ::-1], lowered], axis=-1)


def of_many_functions(x):
    return tf.exp(tf.tanh(x)) * tf.nn.elu(x) - tf.nn.softplus(x) * abs(x) + tf.math.erf(x)


def deep(x):
    """Sixteen residual blocks: twice as many ways at each."""
    for _ in range(16):
        x = x + 0.3 * tf.nn.relu(tf.nn.conv2d(x, weights(1, 1, 4, 4), 1, "SAME"))
    return x


WAYS = {
    "relu, sum with itself": lambda x: tf.nn.relu(x) + 2 * x - x / weights(4),
    "relu6 of a scaled one": lambda x: tf.nn.relu6(x * weights(4) + weights(4)),
    "silu": tf.nn.silu,
    "gelu": lambda x: tf.nn.gelu(x) + keras.activations.gelu(x, approximate=True),
    "many functions": of_many_functions,
    "quotient": lambda x: x / (1 + x * x),
    "1 x 1": convolved(1),
    "1 x 1, wider than its input": convolved(1, padding=[[0, 0], [1, 1], [2, 0], [0, 0]]),
    "3 x 3": convolved(3),
    "3 x 3, strides": convolved(3, strides=2),
    "3 x 3, valid": convolved(3, padding="VALID"),
    "5 x 5, depthwise": depthwise(5),
    "3 x 3, depthwise, strides": depthwise(3, stride=2),
    "4 x 4, depthwise": depthwise(4),
    "3 x 3, depthwise, valid": depthwise(3, padding="VALID"),
    "3 x 3, depthwise, two each": depthwise(3, multiplier=2),
    "max pooling": lambda x: tf.nn.max_pool2d(x, 3, 2, "SAME"),
    "average pooling": lambda x: tf.nn.avg_pool2d(x, 2, 1, "VALID"),
    "squeezed and excited": squeezed_and_excited,
    "attention": attention,
    "normalized": normalized,
    "product from the right": multiplied_from_the_left,
    "branched": branched,
    "deep": deep,
    "less than its batch": lambda x: x - tf.reduce_mean(x, 0, keepdims=True),
    "by its first": lambda x: x / (2 + x[:1] ** 2),
    "its first by all": lambda x: tf.nn.tanh(x[:1]) * x,
    "larger of two": lambda x: tf.maximum(x, tf.where(x > 1, x * x, -x)),
    "stopped": lambda x: x * tf.stop_gradient(x) + tf.nn.log_softmax(x),
}


def both(way, images, **options):
    """Four weighings of three scores: the batched gradients, and those of each alone. Or `None`."""
    seeds = tf.constant(RANDOM.normal(size=(4, len(images), 3)), images.dtype)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, 6, 6, 4], images.dtype)])
    def run(images):
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            activations = tf.identity(images)
            tape.watch(activations)
            score = way(activations)
        backward = batched_gradients(score, [activations], **options)
        if backward is None:
            return None
        alone = [tape.gradient(score, activations, seed) for seed in tf.unstack(seeds)]
        together = tf.map_fn(lambda some: backward.function(some)[0], tf.reshape(seeds, [2, 2, -1, 3]))
        return tf.concat(tf.unstack(together, num=2), 0), tf.stack(alone)

    return run(tf.constant(images))


@pytest.mark.parametrize("way", WAYS)
def test_each_has_the_gradients_that_it_has_alone(way):
    together, alone = both(lambda x: pooled(WAYS[way](x)), IMAGES)
    assert np.any(alone)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-12 * np.abs(alone).max())


MEANS = [
    "1 x 1",
    "1 x 1, wider than its input",
    "3 x 3, strides",
    "relu, sum with itself",
    "deep",
    "squeezed and excited",
]


@pytest.mark.parametrize("way", MEANS)
def test_means_of_gradients_are_those_over_the_grid(way):
    together, alone = both(lambda x: pooled(WAYS[way](x)), IMAGES, only_means=True)
    expected = np.mean(alone, axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(together, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@tf.custom_gradient
def clipped(x):
    return tf.identity(x), lambda upstream: tf.clip_by_value(upstream, -0.01, 0.01)


def looped(x):
    return tf.while_loop(lambda step, _: step < 3, lambda step, values: (step + 1, values * x), (0, x))[1]


@pytest.mark.parametrize(
    "way",
    {
        "custom gradient": clipped,
        "loop": looped,
        "function": tf.function(tf.nn.relu, autograph=False),
        "half precision inside": lambda x: tf.cast(tf.cast(x, tf.float16), tf.float64),
        "Python": lambda x: tf.ensure_shape(tf.py_function(lambda y: y, [x], tf.float64), x.shape),
        "no path": lambda x: tf.zeros_like(x) + 1,
    }.items(),
    ids=lambda pair: pair[0],
)
def test_there_are_none_where_they_are_not_surely_right(way):
    assert both(lambda x: pooled(way[1](x)), IMAGES) is None


def test_there_are_none_for_activations_in_half_precision():
    def way(x):
        return tf.cast(pooled(tf.cast(x, tf.float64)), tf.float32)

    assert both(way, IMAGES.astype("float16")) is None

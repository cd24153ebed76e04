"""How many pixels lie between two cells of a layer's grid: by convolutions and poolings, or not known."""

import keras
import pytest
import tensorflow as tf
from keras import layers

from tf_gradcam._graph import strides_between


def branches(images):
    """A residual block: both branches have the same stride."""
    short = layers.Conv2D(4, 1, strides=2)(images)
    long = layers.Conv2D(4, 3, strides=2, padding="same")(layers.BatchNormalization()(images))
    return layers.Add()([short, long])


def excited(images):
    """Squeeze and excitation: factors without a grid come to the map."""
    factors = layers.Dense(3)(layers.GlobalAveragePooling2D(keepdims=True)(images))
    return layers.Conv2D(2, 3, strides=3)(layers.Multiply()([images, factors]))


def chain(*steps):
    return keras.Sequential(steps)


@pytest.mark.parametrize(
    ("shape", "body", "expected"),
    [
        ((32, 3), layers.Conv1D(4, 3, strides=2), [2]),
        ((32, 3), chain(layers.Conv1D(4, 3), layers.MaxPooling1D(3), layers.Conv1D(4, 3)), [3]),
        ((32, 24, 3), layers.Conv2D(4, 3, strides=(2, 1)), [2, 1]),
        ((32, 24, 3), chain(layers.ZeroPadding2D(), layers.DepthwiseConv2D(3, strides=2)), [2, 2]),
        ((32, 24, 3), chain(layers.Conv2D(4, 3, dilation_rate=2), layers.AveragePooling2D(4)), [4, 4]),
        ((32, 24, 3), branches, [2, 2]),
        ((32, 24, 3), excited, [3, 3]),
        ((16, 16, 8, 1), chain(layers.Conv3D(2, 3, strides=(1, 2, 2)), layers.MaxPooling3D()), [2, 4, 4]),
        ((5, 16, 16, 1), layers.TimeDistributed(layers.Conv2D(2, 3, strides=2)), [1, 2, 2]),
        ((32, 24, 3), chain(layers.Resizing(16, 16), layers.Conv2D(4, 3)), None),
        ((32, 24, 3), chain(layers.MaxPooling2D(), layers.UpSampling2D(interpolation="bilinear")), None),
        ((32, 24, 3), chain(layers.MaxPooling2D(), layers.Conv2DTranspose(2, 2, strides=2)), None),
    ],
)
def test_the_strides_are_multiplied_along_the_way(shape, body, expected):
    images = keras.Input(shape)
    model = keras.Model(images, body(images))
    found = []

    def trace(batch):
        outputs = model(batch)
        found.append(strides_between(batch, len(shape) - 1, outputs))
        return outputs

    tf.function(trace).get_concrete_function(tf.TensorSpec([2, *shape]))
    assert found[-1] == expected

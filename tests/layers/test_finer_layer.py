"""The layers that `"locate"` finds: the default layer, and the last on the next finer grid."""

import keras
import numpy as np
import pytest
from keras import layers

from tf_gradcam._layers import locating_layers


def names(model, images=None):
    return [call.layer.name for call in locating_layers(model, images)]


def head(x):
    return layers.Dense(3)(layers.GlobalAveragePooling2D()(x))


def residual(side=32):
    start = keras.Input((side, side, 3))
    x = layers.Conv2D(4, 3, 2, "same", name="stem")(start)
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="inside")(x)
    x = layers.Activation("relu", name="stage1")(layers.Add(name="join1")([x, y]))
    y = layers.Conv2D(4, 3, 2, "same", activation="relu", name="down")(x)
    z = layers.Conv2D(4, 1, 2, name="shortcut")(x)
    x = layers.Activation("relu", name="stage2")(layers.Add(name="join2")([y, z]))
    return keras.Model(start, head(x))


def wide():
    """The finer grid ends in two branches, so that no layer of theirs is on every path."""
    start = keras.Input((32, 32, 3))
    stem = layers.Conv2D(4, 3, 2, "same", name="stem")(start)
    left = layers.Conv2D(4, 3, padding="same", activation="relu", name="left")(stem)
    right = layers.Conv2D(4, 3, padding="same", activation="relu", name="right")(stem)
    halves = [layers.MaxPooling2D(name=f"pool_{one.name}")(one) for one in (left, right)]
    return keras.Model(start, head(layers.Concatenate(name="joined")(halves)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = layers.Conv2D(4, 3, 2, "same", name="first")
        self.second = layers.Conv2D(4, 3, 2, "same", name="second")
        self.end = keras.Sequential([layers.GlobalAveragePooling2D(), layers.Dense(3)])

    def call(self, x):
        return self.end(self.second(self.first(x)))


def volume():
    start = keras.Input((8, 8, 8, 1))
    x = layers.Conv3D(2, 3, 2, "same", name="fine")(start)
    x = layers.Conv3D(2, 3, 2, "same", name="coarse")(x)
    return keras.Model(start, layers.Dense(2)(layers.GlobalAveragePooling3D()(x)))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (residual, ["stage1", "stage2"]),
        (lambda: residual(None), ["stage1", "stage2"]),
        (wide, ["stem", "joined"]),
        (volume, ["fine", "coarse"]),
    ],
)
def test_the_finer_layer_is_the_last_that_all_evidence_goes_through(make, expected):
    assert names(make()) == expected


def test_a_subclassed_model_is_traced():
    model, images = Subclassed(), np.zeros((1, 16, 16, 3), "float32")
    model(images)
    assert names(model, images) == ["first", "second"]


def test_a_nested_model_has_its_layers_found():
    inner = residual()
    start = keras.Input((32, 32, 3))
    assert names(keras.Model(start, inner(start))) == ["stage1", "stage2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MobileNetV2", ["block_13_expand_relu", "out_relu"]),
        ("ResNet50", ["conv4_block6_out", "conv5_block3_out"]),
        ("VGG16", ["block4_conv3", "block5_conv3"]),
        ("InceptionV3", ["mixed7", "mixed10"]),
    ],
)
@pytest.mark.product(kept=lambda name, expected: name in ("MobileNetV2", "ResNet50"))
def test_applications(name, expected):
    assert names(getattr(keras.applications, name)(weights=None)) == expected

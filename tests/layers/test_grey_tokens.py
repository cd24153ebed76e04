"""Tokens of grey images without a channel axis, and of signals that the model takes for such images."""

import keras
import numpy as np
from keras import layers, ops

from tf_gradcam import GradCAM, list_layers

IMAGES = np.random.default_rng(0).uniform(size=(2, 12, 20, 1)).astype("float32")


def body(start, patches):
    tokens = layers.Reshape((-1, 8))(patches)
    for index in range(2):
        attention = layers.MultiHeadAttention(2, 4)(tokens, tokens)
        tokens = layers.Add(name=f"block{index}")([tokens, attention])
    return keras.Model(start, layers.Dense(3)(ops.mean(ops.tanh(tokens), axis=1)))


def test_a_grey_image_without_a_channel_axis_has_the_map_of_one_with_it():
    keras.utils.set_random_seed(0)
    grey, patch = keras.Input((12, 20)), layers.Conv2D(8, 4, 4)
    model = body(grey, patch(layers.Reshape((12, 20, 1))(grey)))
    start = keras.Input((12, 20, 1))
    same = body(start, layers.Conv2D(8, 4, 4)(start))
    same.set_weights(model.get_weights())
    for method, layer in [("legrad", None), ("gradcam", "block1"), ("reciprocam", "block0")]:
        found = GradCAM(model, layer, method=method)(IMAGES[..., 0], 1)
        expected = GradCAM(same, layer, method=method)(IMAGES, 1)
        assert found.map.shape == (2, 3, 5)
        np.testing.assert_allclose(found.map, expected.map, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(found.heatmap, expected.heatmap, atol=1e-5)
        assert np.ptp(expected.map) > 0
    shapes = {one.path: one.shape for one in list_layers(model)}
    assert shapes["block1"] == (3, 5, 8)


def test_electrodes_that_are_convolved_to_one_leave_a_signal():
    start = keras.Input((6, 32))  # Heads and their width make as many channels as there are tokens.
    signals = layers.Conv2D(8, (6, 4), (6, 4))(layers.Reshape((6, 32, 1))(start))
    found = GradCAM(body(start, signals), "block1")(IMAGES.reshape(-1)[:384].reshape(2, 6, 32), 1)
    assert found.map.shape == (2, 8)


def test_merged_heads_are_not_taken_for_the_grid_of_a_video():
    start = keras.Input((4, 8, 8, 3))  # Eight tokens, and two heads of four channels.
    model = body(start, layers.Conv3D(8, (2, 4, 4), (2, 4, 4))(start))
    assert "block1" not in [one.path for one in list_layers(model)]


def test_tokens_of_channels_first_patches_are_on_their_grid():
    start = keras.Input((12, 20, 3))
    patches = ops.transpose(layers.Conv2D(8, 4, 4)(start), (0, 3, 1, 2))
    model = body(start, ops.swapaxes(ops.reshape(patches, (-1, 8, 15)), 1, 2))
    assert {one.path: one.shape for one in list_layers(model)}["block1"] == (3, 5, 8)

"""The heatmap lies where the pixels came from: a network whose map is the brightness of the image."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_gradcam import GradCAM, deep_feature_factorization, make_gradcam_heatmap

layers = keras.layers


def brightness(image, *before):
    """A model whose map is the mean brightness of 4 by 4 pixels of what it sees."""
    x = image
    for layer in before:
        x = layer(x)
    x = layers.AveragePooling2D(4)(x)
    x = layers.Conv2D(4, 1, activation="relu", kernel_initializer="ones", use_bias=False, name="bright")(x)
    return keras.Model(image, layers.Dense(2, kernel_initializer="ones")(layers.GlobalAveragePooling2D()(x)))


def spot(height, width, y, x, radius=4):
    image = np.zeros((height, width, 3), "float32")
    image[y - radius : y + radius, x - radius : x + radius] = 1
    return image


def centre(heatmap):
    """Return the centre of mass of a heatmap, in pixels from the left upper edge."""
    heatmap = np.asarray(heatmap, float)
    grid = np.mgrid[tuple(slice(length) for length in heatmap.shape)] + 0.5
    return [float((heatmap * positions).sum() / heatmap.sum()) for positions in grid]


SPOT = spot(96, 128, 62, 88)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Resizing(64, 64),
        layers.CenterCrop(64, 64),
        layers.Resizing(64, 64, crop_to_aspect_ratio=True),
        layers.Resizing(64, 64, pad_to_aspect_ratio=True),
        layers.Cropping2D(((32, 0), (0, 0))),
        layers.ZeroPadding2D(32),
        layers.Permute((2, 1, 3)),
    ],
    ids=["resize", "centre", "aspect crop", "aspect pad", "crop", "pad", "transpose"],
)
def test_a_layer_that_crops_or_pads_does_not_move_the_heatmap(layer):
    heatmap = make_gradcam_heatmap(brightness(keras.Input((96, 128, 3)), layer), SPOT, target=0)
    assert heatmap.shape == (96, 128)
    assert heatmap.max() == 1
    np.testing.assert_allclose(centre(heatmap), [62, 88], atol=1)


@pytest.fixture(scope="module")
def bright():
    return brightness(keras.Input((64, 64, 3)))


PREPROCESSES = {
    "resize": lambda x: tf.image.resize(x, (64, 64)),
    "central crop": lambda x: tf.image.resize(tf.image.central_crop(x, 0.875), (64, 64)),
    "letterbox": lambda x: tf.image.resize_with_pad(x, 64, 64),
    "aspect crop": lambda x: keras.ops.image.resize(x, (64, 64), crop_to_aspect_ratio=True),
    "flip": lambda x: tf.image.flip_left_right(tf.image.resize(x, (64, 64))),
    "function": tf.function(lambda x: tf.image.resize_with_pad(x, 64, 64)),
}


@pytest.mark.parametrize("name", PREPROCESSES)
def test_a_preprocess_that_crops_or_pads_does_not_move_the_heatmap(name, bright):
    cam = GradCAM(bright, preprocess=PREPROCESSES[name])
    wide, high = spot(120, 200, 30, 60, 6), spot(150, 100, 80, 40, 6)
    np.testing.assert_allclose(centre(cam(wide[None], 0).heatmap[0]), [30, 60], atol=1.7)
    # Another size in the same trace.
    np.testing.assert_allclose(centre(cam(high[None], 0).heatmap[0]), [80, 40], atol=1.7)


def test_what_was_cropped_away_is_0():
    model = brightness(keras.Input((96, 128, 3)), layers.Cropping2D(((32, 0), (0, 16))))
    heatmap = make_gradcam_heatmap(model, np.ones((96, 128, 3)), target=0)
    expected = np.zeros((96, 128))
    expected[32:, :112] = 1
    np.testing.assert_array_equal(heatmap, expected)


def test_evidence_in_the_padding_is_said():
    inverted = layers.Lambda(lambda x: 1 - x)
    model = brightness(keras.Input((16, 16, 3)), layers.ZeroPadding2D(8), inverted)
    with pytest.warns(UserWarning, match="all evidence lies where the image was padded"):
        heatmap = make_gradcam_heatmap(model, np.ones((16, 16, 3)), target=0, interpolation="nearest")
    assert not heatmap.any()


@pytest.fixture(scope="module")
def cropped():
    return brightness(
        keras.Input((96, 128, 3)),
        layers.Conv2D(3, 1, kernel_initializer="ones", name="early"),
        layers.Cropping2D(((32, 0), (0, 16)), name="crop"),
    )


def test_sizes_and_several_layers(cropped):
    cam = GradCAM(cropped, ["early", "bright"])
    explanation = cam(SPOT[None], 0)
    for heatmap in (explanation.heatmap, *explanation.heatmaps):
        np.testing.assert_allclose(centre(heatmap[0]), [62, 88], atol=0.5)
    for heatmap in cam(SPOT[None], 0, size=(192, 64)).heatmaps:
        np.testing.assert_allclose(centre(heatmap[0]), [124, 44], atol=1)
    for heatmap in cam(SPOT[None], 0, size=None).heatmaps:  # on the grid of the early layer
        np.testing.assert_allclose(centre(heatmap[0]), [62, 88], atol=1)
    # The map stays on the layer's own grid.
    assert explanation.map[1].shape == (1, 16, 28)
    np.testing.assert_allclose(centre(explanation.map[1][0]), [(62 - 32) / 4, 88 / 4], atol=0.1)
    frozen = cam.freeze()(SPOT[None], 0)
    np.testing.assert_allclose(frozen.heatmap, explanation.heatmap, atol=1e-5)


@pytest.mark.parametrize(
    "method",
    ["gradient", "guided_gradcam", pytest.param("opticam", marks=pytest.mark.slow), "scorecam", "fullgrad"],
)
def test_methods_that_look_at_the_image(method, cropped, bright):
    heatmap = GradCAM(cropped, None, method=method)(SPOT[None], 0).heatmap[0]
    np.testing.assert_allclose(centre(heatmap), [62, 88], atol=1)
    cam = GradCAM(bright, method=method, preprocess=PREPROCESSES["letterbox"])
    # One cell is 12.5 pixels of the photograph.
    np.testing.assert_allclose(centre(cam(spot(120, 200, 30, 60, 6)[None], 0).heatmap[0]), [30, 60], atol=6)


def test_score_cam_masks_what_the_layer_saw(cropped):
    """The mask of a channel is its map where the layer saw it, so the masked image keeps the spot."""
    seen = GradCAM(cropped, "bright", method="scorecam")
    model = brightness(keras.Input((64, 112, 3)), layers.Conv2D(3, 1, kernel_initializer="ones"))
    alone = GradCAM(model, "bright", method="scorecam")
    expected = alone(SPOT[None, 32:, :112], 0).map
    np.testing.assert_allclose(seen(SPOT[None], 0).map, expected, rtol=1e-5)


def test_volumes_signals_and_channels_first():
    image = keras.Input((16, 32, 48, 1))
    x = layers.AveragePooling3D(2)(layers.Cropping3D(((4, 0), (8, 0), (0, 16)))(image))
    x = layers.GlobalAveragePooling3D()(layers.Conv3D(2, 1, kernel_initializer="ones", activation="relu")(x))
    volume = np.zeros((16, 32, 48, 1))
    volume[7:9, 19:21, 19:21] = 1
    heatmap = make_gradcam_heatmap(
        keras.Model(image, layers.Dense(2, "relu", True, "ones")(x)), volume, target=0
    )
    np.testing.assert_allclose(centre(heatmap), [8, 20, 20], atol=0.5)

    image = keras.Input((100, 1))
    x = layers.AveragePooling1D(2)(layers.Cropping1D((20, 0))(image))
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(2, 1, kernel_initializer="ones", activation="relu")(x))
    signal = np.zeros((100, 1))
    signal[58:62] = 1
    heatmap = make_gradcam_heatmap(
        keras.Model(image, layers.Dense(2, "relu", True, "ones")(x)), signal, target=0
    )
    np.testing.assert_allclose(centre(heatmap), [60], atol=0.5)

    first = {"data_format": "channels_first"}
    image = keras.Input((3, 96, 128))
    x = layers.AveragePooling2D(4, **first)(layers.Cropping2D(((32, 0), (0, 16)), **first)(image))
    x = layers.Conv2D(2, 1, kernel_initializer="ones", activation="relu", **first)(x)
    x = layers.GlobalAveragePooling2D(**first)(x)
    model = keras.Model(image, layers.Dense(2, "relu", True, "ones")(x))
    heatmap = make_gradcam_heatmap(model, SPOT.transpose(2, 0, 1), target=0)
    np.testing.assert_allclose(centre(heatmap), [62, 88], atol=0.5)


def test_the_frames_of_a_video():
    video = keras.Input((3, 96, 128, 3))
    x = layers.TimeDistributed(layers.Cropping2D(((32, 0), (0, 16))))(video)
    x = layers.TimeDistributed(layers.AveragePooling2D(4))(x)
    x = layers.TimeDistributed(layers.Conv2D(2, 1, kernel_initializer="ones", activation="relu"))(x)
    model = keras.Model(video, layers.Dense(2, "relu", True, "ones")(layers.GlobalAveragePooling3D()(x)))
    heatmap = make_gradcam_heatmap(model, np.stack([SPOT] * 3), target=0)
    np.testing.assert_allclose(centre(heatmap), [1.5, 62, 88], atol=0.5)


def test_concepts(cropped):
    pytest.importorskip("sklearn", reason="the extra `concepts` is not installed")
    found = deep_feature_factorization(cropped, SPOT[None], "bright", concepts=1)
    np.testing.assert_allclose(centre(found.heatmaps[0, 0]), [62, 88], atol=0.5)


def test_what_cannot_be_followed_is_said(bright):
    def each(images):
        return tf.map_fn(lambda x: tf.image.resize_with_pad(x, 64, 64), images)

    cam = GradCAM(bright, preprocess=each)
    with pytest.warns(UserWarning, match="may be misplaced.*pass through 'Pad'"):
        cam(SPOT[None], 0)
    with warnings.catch_warnings():  # once
        warnings.simplefilter("error")
        cam(SPOT[None], 1)


@pytest.mark.parametrize("network", ["mobilenet_v2", "resnet", "densenet"])
def test_the_usual_preprocess_input_is_no_reason_to_warn(network, bright):
    prepare = getattr(keras.applications, network).preprocess_input
    cam = GradCAM(bright, preprocess=lambda x: prepare(tf.image.resize(x, (64, 64))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cam(SPOT[None], 0).heatmap.shape == (1, 96, 128)

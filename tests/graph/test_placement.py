"""Where tensors lie on the image, by frames worked out by hand; `tests/explain/test_placed.py` has maps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_gradcam._graph import Places
from tf_gradcam._layers import draws_whole_image

layers = keras.layers
H, W = 60, 80  # Of the image.
GRU = layers.GRU(3, return_sequences=True)


def place(function, shape=(None, H, W, 3), axes=(1, 2), grid_axes=(1, 2), sides=(H, W)):
    """Return the frame (None for all of the image), the order of the axes, and the unknown operations."""
    found = {}

    def trace(image):
        end = function(image)
        places = Places(image, axes, end)
        placement = places.of(end, grid_axes)
        found.update(unknown=places.unknown, order=None)
        if placement is None:
            return None
        found["order"] = None if placement.order is None else placement.order.op.get_attr("value")
        if placement.order is not None:
            found["order"] = tf.get_static_value(placement.order).tolist()
        return placement.frame

    traced = tf.function(trace, autograph=False).get_concrete_function(tf.TensorSpec(shape))
    image = tf.zeros([2 if length is None else length for length in shape[:1]] + list(sides) + [3])
    frame = traced(image if len(shape) == 4 else tf.zeros([2, *sides]))
    return None if frame is None else frame.numpy(), found["order"], found["unknown"]


def convolved(x, kernel=3, strides=1, padding="VALID"):
    return tf.nn.conv2d(x, tf.zeros([kernel, kernel, x.shape[-1], 2]), strides, padding)


def padded(x, before, after):
    return tf.pad(x, [[0, 0], [before, after], [before, after], [0, 0]])


WHOLE = [
    lambda x: tf.image.resize(x, (20, 20)),
    lambda x: convolved(tf.image.resize(x, (20, 20)) / 255 - 1, 3, 2, "SAME"),
    lambda x: x[..., ::-1],  # RGB to BGR
    lambda x: x[:, ::2, ::2],
    lambda x: tf.reverse(x, [-1]),
    lambda x: tf.image.rgb_to_grayscale(x),
    lambda x: tf.stack([x[..., 0], x[..., 2], x[..., 1]], axis=-1),
    lambda x: convolved(padded(x, 1, 1)),  # VGG
    lambda x: convolved(padded(x, 3, 3), 7, 2),  # ResNet
    lambda x: convolved(padded(x, 0, 1), 3, 2),  # MobileNet
    lambda x: tf.nn.max_pool2d(padded(x, 1, 1), 3, 2, "VALID"),
    lambda x: convolved(tf.nn.relu(padded(x, 1, 1) * 2)),
    lambda x: tf.nn.conv2d(padded(x, 2, 2), tf.zeros([3, 3, 3, 2]), 1, "VALID", dilations=2),
    lambda x: layers.ZeroPadding2D(1)(x)[:, 1:-1, 1:-1],
    lambda x: keras.applications.resnet.preprocess_input(tf.image.resize(x, (32, 32))),
    # The branch that was cropped to fit, as in a U-Net, does not move the other one.
    lambda x: tf.concat([layers.UpSampling2D(2)(convolved(x, 6, 2)), x[:, 2:-2, 2:-2]], -1),
    lambda x: x[:, 1:, 1:] * tf.reduce_mean(x, [1, 2], keepdims=True) + tf.nn.max_pool2d(x, 2, 1, "VALID"),
]


@pytest.mark.parametrize("function", WHOLE)
def test_what_does_not_crop_pad_or_turn_lies_on_the_whole_image(function):
    frame, order, unknown = place(function)
    if frame is not None:
        np.testing.assert_allclose(frame, [[0, 1], [0, 1]], atol=1e-6)
    assert (order, unknown) == (None, [])


MOVED = {
    "slice": (lambda x: x[:, 15:, 8:-4], [[15 / 60, 1], [8 / 80, 76 / 80]]),
    "tf.slice": (lambda x: tf.slice(x, [0, 15, 0, 0], [-1, 30, -1, 3]), [[0.25, 0.75], [0, 1]]),
    "layer": (layers.Cropping2D(((15, 0), (0, 20))), [[0.25, 1], [0, 0.75]]),
    "centre": (layers.CenterCrop(40, 60), [[1 / 6, 5 / 6], [10 / 80, 70 / 80]]),
    "central_crop": (lambda x: tf.image.central_crop(x, 0.5), [[0.25, 0.75], [0.25, 0.75]]),
    "split": (lambda x: tf.split(x, [20, 40], axis=1)[1], [[1 / 3, 1], [0, 1]]),
    "aspect crop": (layers.Resizing(32, 32, crop_to_aspect_ratio=True), [[0, 1], [0.125, 0.875]]),
    "aspect pad": (layers.Resizing(32, 32, pad_to_aspect_ratio=True), [[-10 / 60, 70 / 60], [0, 1]]),
    "resize_with_pad": (lambda x: tf.image.resize_with_pad(x, 80, 80), [[-10 / 60, 70 / 60], [0, 1]]),
    "crop_or_pad": (
        lambda x: tf.image.resize_with_crop_or_pad(x, 80, 60),
        [[-10 / 60, 70 / 60], [0.125, 0.875]],
    ),
    "padding": (layers.ZeroPadding2D(((0, 30), (20, 40))), [[0, 1.5], [-0.25, 1.5]]),
    "padding, convolved": (lambda x: convolved(padded(x, 6, 6)), [[-0.1, 1.1], [-0.075, 1.075]]),
    "padding, patches": (lambda x: convolved(padded(x, 0, 4), 16, 16), [[0, 64 / 60], [0, 84 / 80]]),
    "padding, same": (
        lambda x: convolved(padded(x, 3, 3), 7, 1, "SAME"),
        [[-0.05, 1.05], [-3 / 80, 83 / 80]],
    ),
    "mirror": (
        lambda x: tf.pad(x, [[0, 0], [6, 6], [0, 0], [0, 0]], "SYMMETRIC"),
        [[-0.1, 1.1], [0, 1]],
    ),
    "concat": (lambda x: tf.concat([tf.zeros_like(x[:, :, :8]), x], 2), [[0, 1], [-0.1, 1]]),
    "flip": (tf.image.flip_left_right, [[0, 1], [1, 0]]),
    "flip by slice": (lambda x: x[:, ::-1], [[1, 0], [0, 1]]),
    "flip of a crop": (lambda x: x[:, :30, ::-1], [[0, 0.5], [1, 0]]),
    "crop of a flip": (lambda x: x[:, ::-1][:, :15], [[1, 0.75], [0, 1]]),
    "crop of a crop": (lambda x: tf.image.resize(x[:, 30:], (20, 20))[:, 10:], [[0.75, 1], [0, 1]]),
    "batch": (lambda x: tf.stack([x[0], x[1]])[:, 15:], [[0.25, 1], [0, 1]]),
    "function": (tf.function(lambda x: x[:, 15:] / 2), [[0.25, 1], [0, 1]]),
    "branch": (lambda x: tf.cond(tf.shape(x)[1] > 50, lambda: x[:, 15:], lambda: x), [[0.25, 1], [0, 1]]),
    "sequential": (
        keras.Sequential([layers.Rescaling(2.0), layers.Cropping2D(15), layers.Conv2D(2, 3)]),
        [[0.25, 0.75], [15 / 80, 65 / 80]],
    ),
}


@pytest.mark.parametrize("name", MOVED)
@pytest.mark.parametrize("sides", ["fixed", "open"])
def test_crops_pads_and_flips_are_followed(name, sides):
    function, expected = MOVED[name]
    is_old = tuple(map(int, keras.__version__.split(".")[:2])) < (3, 7)
    if (name, sides) == ("centre", "open") and is_old:
        pytest.skip("CenterCrop of Keras 3.6 needs to know the sides.")
    shape = (None, H, W, 3) if sides == "fixed" else (None, None, None, 3)
    frame, order, unknown = place(function, shape)
    np.testing.assert_allclose(frame, expected, atol=1e-6)
    assert (order, unknown) == (None, [])


def test_transposed_axes_are_put_in_order():
    frame, order, _ = place(lambda x: tf.transpose(x[:, 15:], [0, 2, 1, 3]))
    np.testing.assert_allclose(frame, [[0.25, 1], [0, 1]])
    assert order == [1, 0]
    frame, order, _ = place(tf.image.rot90)  # counter-clockwise: the last column comes first
    np.testing.assert_allclose(frame, [[0, 1], [1, 0]])
    assert order == [1, 0]
    frame, _, _ = place(lambda x: tf.transpose(x[:, 15:], [0, 3, 1, 2]), grid_axes=(2, 3))
    np.testing.assert_allclose(frame, [[0.25, 1], [0, 1]])


def test_a_random_crop_is_followed_with_its_own_numbers():
    def crop(x):
        return tf.image.random_crop(x, [2, 30, 80, 3], seed=1)

    frame, _, unknown = place(crop)
    assert unknown == []
    assert frame[0][1] - frame[0][0] == pytest.approx(0.5)
    assert 0 <= frame[0][0] <= 0.5


def test_tokens_lie_where_the_grid_did():
    def tokens(x):
        patches = convolved(x[:, 20:], 4, 4)
        return tf.concat([tf.zeros_like(patches[:, 0, :1]), tf.reshape(patches, [2, 10 * 20, 2])], 1)

    frame, order, _ = place(tokens, grid_axes=())
    np.testing.assert_allclose(frame, [[1 / 3, 1], [0, 1]])
    assert order is None


def test_a_dilated_causal_convolution_is_not_moved():
    causal = layers.Conv1D(2, 5, dilation_rate=2, padding="causal")
    assert place(causal, (None, H, W), (1,), (1,))[0] is None


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: tf.gather(x, [5, 3, 1], axis=1), "GatherV2"),
        (lambda x: tf.image.crop_and_resize(x, tf.zeros([2, 4]), [0, 1], (8, 8)), "CropAndResize"),
        (lambda x: tf.ensure_shape(tf.numpy_function(np.flip, [x], tf.float32), x.shape), "PyFunc"),
        (lambda x: tf.map_fn(lambda one: tf.image.resize_with_pad(one, 8, 8), x), "Pad"),
    ],
)
def test_operations_that_cannot_be_followed_are_named(function, name):
    assert place(function)[2] == [name]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tf.gather(x, [2, 1, 0], axis=-1),
        lambda x: tf.map_fn(tf.image.per_image_standardization, x),
        lambda x: GRU(x[:, :, 0]),
        # In the network, features may be gathered as it likes.
        lambda x: tf.gather(convolved(x), [5, 3, 1], axis=1),
    ],
)
def test_operations_that_leave_positions_alone_are_not_named(function):
    assert place(function)[2] == []


# Keras's graph


def model_of(*parts):
    return keras.Sequential([keras.Input((32, 32, 3)), *parts, layers.GlobalAveragePooling2D()])


@pytest.mark.parametrize(
    ("expected", "parts"),
    [
        (True, [layers.Conv2D(2, 3, strides=2, padding="same")]),
        (True, [layers.Resizing(16, 16), layers.Rescaling(2.0), layers.RandomFlip(), layers.Conv2D(2, 3)]),
        (True, [layers.ZeroPadding2D(3), layers.Conv2D(2, 7, strides=2)]),
        (True, [layers.ZeroPadding2D(((0, 1), (0, 1))), layers.DepthwiseConv2D(3, strides=2)]),
        (True, [layers.ZeroPadding2D(1), layers.MaxPooling2D(3, 2)]),
        (False, [layers.ZeroPadding2D(3), layers.Conv2D(2, 7, padding="same")]),
        (False, [layers.ZeroPadding2D(4), layers.Conv2D(2, 7)]),
        (False, [layers.ZeroPadding2D(1), layers.Conv2D(2, 4, strides=4)]),
        (False, [layers.ZeroPadding2D(1), layers.ReLU(), layers.Conv2D(2, 3)]),
        (False, [layers.Cropping2D(3)]),
        (False, [layers.CenterCrop(16, 16)]),
        (False, [layers.Resizing(16, 16, pad_to_aspect_ratio=True)]),
        (False, [layers.Lambda(lambda x: x[:, 4:])]),
        (False, [layers.Permute((2, 1, 3))]),
    ],
)
def test_what_keras_graph_says_without_a_trace(expected, parts):
    assert draws_whole_image(model_of(*parts)) is expected


def check_that_it_is_drawn_whole(model):
    frame, order, unknown = place(
        lambda x: model(x, training=False),
        (None, *model.input_shape[1:]),
        grid_axes=(),
        sides=model.input_shape[1:3],
    )
    assert (frame, order, unknown) == (None, None, [])
    assert draws_whole_image(model)


def test_mobilenet_is_drawn_over_the_whole_image():
    check_that_it_is_drawn_whole(
        keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, weights=None, classes=2)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["ResNet50", "ResNet50V2", "EfficientNetB0", "DenseNet121", "InceptionV3", "ConvNeXtTiny"]
)
@pytest.mark.product(kept=lambda name: name == "EfficientNetB0")
def test_applications_are_drawn_over_the_whole_image(name):
    check_that_it_is_drawn_whole(getattr(keras.applications, name)(weights=None, classes=2))

"""Explainers frozen in half precision: nearly the same answers, what stays in float32, and what is refused.

The networks are too small to gain: `free_casts` lets the library take half precision wherever it can.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIDE, build

from tf_gradcam import GradCAM, methods
from tf_gradcam._freezing import half_hardware, half_precision
from tf_gradcam._freezing.folding import frozen_graph
from tf_gradcam._freezing.graph_function import graph_function

L = keras.layers
R = tf.raw_ops


@pytest.fixture(autouse=True)
def supported(monkeypatch):
    """Take this machine for one that is faster in half precision: the numbers do not depend on it."""
    monkeypatch.setattr(half_hardware, "is_faster_on_cpu", lambda precision: True)


@pytest.fixture
def free_casts(monkeypatch):
    monkeypatch.setattr(half_precision, "_CAST", 0.0)
    monkeypatch.setattr(half_precision, "_CAST_START", 0.0)


def assert_near(found, expected, most=0.03):
    """Assert that all results have the same type and differ, but by no more than rounding."""
    for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            one, other = np.asarray(one, "float64"), np.asarray(other, "float64")
            np.testing.assert_allclose(one, other, rtol=0, atol=most * np.abs(other).max())
    assert np.any(np.asarray(found.map) != np.asarray(expected.map))


def rich():
    """A network of many kinds of operations, with a layer in the middle."""
    keras.utils.set_random_seed(0)
    images = keras.Input((32, 32, 3))
    x = L.ReLU(6)(L.BatchNormalization(gamma_initializer="random_uniform")(L.Conv2D(16, 3, 2)(images)))
    x = L.DepthwiseConv2D(3, padding="same", name="middle")(L.ZeroPadding2D(1)(x))
    y = L.Activation("swish")(L.BatchNormalization()(L.Conv2D(16, 1)(x)))
    gate = L.Conv2D(16, 1, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(y))
    x = L.Add()([x, L.Conv2D(16, 3, padding="same", use_bias=False)(y * gate)])
    x = L.Concatenate()([L.MaxPooling2D(2)(x), L.AveragePooling2D(2)(x)])
    x = L.Conv2DTranspose(12, 3, 2, activation="leaky_relu")(x)
    x = L.Conv2D(12, 3, dilation_rate=2, activation="relu", name="last")(L.UpSampling2D(2)(x))
    x = L.Dense(20, activation="relu")(L.GlobalAveragePooling2D()(x))
    return keras.Model(images, L.Dense(5, activation="softmax")(x))


# Nearly the same answers


@pytest.mark.product(kept=lambda model: model in ("functional", "subclassed"))
def test_half_precision_answers_nearly_the_same_at_every_batch_size(model, free_casts):
    plain = GradCAM(model)
    fast = plain.freeze(precision="bfloat16")
    assert (fast.precision, plain.precision) == ("bfloat16", None)
    assert repr(fast).endswith("frozen, precision='bfloat16')")
    random = np.random.default_rng(0)
    for count in (3, 1):
        images = random.normal(size=(count, SIDE, SIDE, 3)).astype("float32")
        assert_near(fast(images, 1), plain(images, 1))


@pytest.mark.parametrize(
    ("layer", "method"),
    [
        ("middle", "gradcam"),
        pytest.param("last", "layercam", marks=pytest.mark.full),
        pytest.param("middle", "gradcam_plus_plus", marks=pytest.mark.full),
        *(
            pytest.param(layer, method, marks=pytest.mark.slow)
            for layer, method in [
                ("last", methods.scorecam(channels=4)),
                (None, "gradient"),
                (["middle", "last"], "gradcam"),
            ]
        ),
    ],
    ids=str,
)
def test_every_method_and_layer_is_nearly_the_same(layer, method, free_casts):
    images = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype("float32")
    plain = GradCAM(rich(), layer, method=method)
    fast = plain.freeze(precision="bfloat16")
    found, expected = fast(images, 2), plain(images, 2)
    if method == "gradient":  # Through all layers, signs of single numbers may change at every ReLU.
        errors = np.abs(found.heatmap - expected.heatmap)
        assert 0 < errors.mean() < 0.03
    elif isinstance(layer, list):
        np.testing.assert_allclose(found.heatmap, expected.heatmap, atol=0.05)
        assert np.any(found.heatmap != expected.heatmap)
    else:
        assert_near(found, expected, 0.05)


class OwnFilter(L.Layer):
    """A convolution whose filter depends on the images."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(3, 3, shape[-1], 16))
        self.bias = self.add_weight(shape=(16,), initializer="random_normal")

    def call(self, inputs):
        kernel = self.kernel * (1 + keras.ops.mean(inputs))
        return keras.ops.relu(keras.ops.conv(inputs, kernel, padding="same") + self.bias)


def test_convolutions_with_leaky_relu_or_a_filter_that_is_no_weight_run_in_half_precision(free_casts):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = L.LeakyReLU(0.4)(L.BatchNormalization()(L.Conv2D(16, 3, use_bias=False)(inputs)))
    x = L.LeakyReLU(0.1)(x + L.Conv2D(16, 3, padding="same")(x))
    x = L.Conv2D(8, 3, activation="relu", name="last")(OwnFilter()(x))
    plain = GradCAM(keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x))), "last")
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    assert_near(plain.freeze(precision="bfloat16")(images, 1), plain(images, 1), 0.1)


class Branches(L.Layer):
    def call(self, x):
        return tf.cond(tf.reduce_mean(x) > 0, lambda: x * 1.5, lambda: x - 0.5)

    def compute_output_shape(self, shape):
        return shape


def test_branches_in_the_loop_of_a_method_are_answered_or_refused_in_a_sentence(free_casts):
    """Grappler gives the functions of such a loop other names."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    x = L.Conv2D(8, 3, activation="relu")(Branches()(L.Conv2D(8, 3, activation="relu")(inputs)))
    model = keras.Model(inputs, L.Dense(3)(L.Dense(7, activation="relu")(L.GlobalAveragePooling2D()(x))))
    cam = GradCAM(model, method=methods.integrated_gradients(3))
    with pytest.raises(ValueError, match="in which no convolution or matrix product takes less time"):
        cam.freeze(precision="bfloat16")(np.ones((2, 12, 12, 3), np.float32), 1)


def test_float16_is_nearer_than_bfloat16(functional, images, free_casts):
    plain = GradCAM(functional)
    expected = plain(images, 1).map
    errors = [
        np.abs(plain.freeze(precision=each)(images, 1).map - expected).max()
        for each in ("bfloat16", "float16")
    ]
    assert 0 < errors[1] < errors[0] / 2


def test_inside_a_tf_function_and_after_a_change_of_weights_it_is_as_every_frozen_one(images, free_casts):
    model = build("functional")
    fast = GradCAM(model).freeze(precision="bfloat16")
    expected = fast(images, 1).map
    inside = tf.function(lambda images: fast(images, 1).map, autograph=False)
    np.testing.assert_array_equal(inside(tf.constant(images)), expected)
    model.layers[-1].kernel.assign_add(tf.ones_like(model.layers[-1].kernel))
    with pytest.raises(ValueError, match="has changed since"):
        fast(images, 1)
    with pytest.raises(ValueError, match="has changed since"):
        fast.check(images)


def test_a_loop_stays_in_float32(free_casts):
    clips = np.random.default_rng(0).normal(size=(2, 4, 9, 9, 3)).astype("float32")
    images = keras.Input(clips.shape[1:])
    x = L.TimeDistributed(L.Conv2D(3, 3, activation="relu"), name="frames")(images)
    x = L.LSTM(4)(L.TimeDistributed(L.GlobalAveragePooling2D())(x))
    plain = GradCAM(keras.Model(images, L.Dense(3)(x)), "frames")
    assert_near(plain.freeze(precision="bfloat16")(clips, 1), plain(clips, 1))


# What runs in half precision


class Answers(NamedTuple):
    """Outputs with the names of an `Explanation`'s fields, on which the choice depends."""

    map: Any
    score: Any
    outputs: Any


def types(function, *shapes, precision="bfloat16"):
    """Return the type of each convolution and product of a function, and its graph in half precision."""
    signature = [tf.TensorSpec(shape) for shape in shapes]
    concrete = tf.function(function, autograph=False).get_concrete_function(*signature)
    half = frozen_graph(concrete, precision)
    nodes = [node for node in half.definition.node if node.op in half_precision._PRODUCTS]
    return [(node.op, tf.as_dtype(node.attr["T"].type).name) for node in nodes], half


def weights(*shape):
    return tf.constant(np.random.default_rng(0).normal(size=shape).astype("float32"))


def test_only_what_takes_less_time_runs_in_half_precision():
    kernel, large = weights(1, 1, 4, 4), weights(3, 3, 4, 512)

    def answer(images):
        features = tf.nn.conv2d(tf.nn.tanh(images), kernel, 1, "SAME")
        grown = tf.nn.relu(tf.nn.conv2d(tf.tanh(features), large, 1, "SAME"))
        return Answers(tf.reduce_mean(grown, -1), tf.reduce_mean(grown, [1, 2, 3]), tf.shape(grown))

    found, half = types(answer, [None, 64, 64, 4])
    assert found == [("Conv2D", "float32"), ("Conv2D", "bfloat16")]
    (kept,) = half.weights.values()  # Smaller ones are constants of the graph.
    assert (kept.dtype, kept.shape) == (tf.bfloat16, large.shape)
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 4)).astype("float32")
    np.testing.assert_array_equal(graph_function(half)(tf.constant(images))[-1], [2, 64, 64, 512])


def test_the_last_product_before_scores_and_the_arithmetic_of_maps_stay_in_float32(free_casts):
    kernel, hidden, head = weights(3, 3, 3, 8), weights(8, 6), weights(6, 4)

    def answer(images):
        features = tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "SAME"))
        logits = tf.nn.relu(tf.reduce_mean(features, [1, 2]) @ hidden) @ head
        with tf.name_scope(half_precision.FLOAT32_SCOPE):
            drawn = tf.matmul(tf.reduce_sum(features * features, -1), weights(5, 5))
        return Answers(drawn, tf.reduce_max(logits, -1), {"a": tf.nn.softmax(logits)})

    found, half = types(answer, [None, 5, 5, 3])
    assert sorted(found) == [
        ("BatchMatMulV2", "float32"),  # of the heatmap
        ("Conv2D", "bfloat16"),
        ("MatMul", "bfloat16"),
        ("MatMul", "float32"),  # the head
    ]
    (product,) = [node for node in half.definition.node if node.op in ("Mul", "Square")]
    assert product.attr["T"].type == tf.float32.as_datatype_enum


def test_the_logits_of_a_segmentation_stay_in_float32_and_a_mean_lets_them_go(free_casts):
    kernel, last = weights(3, 3, 3, 8), weights(1, 1, 8, 4)

    def answer(images, is_pooled):
        logits = tf.nn.bias_add(
            tf.nn.conv2d(tf.nn.conv2d(images, kernel, 1, "SAME"), last, 1, "SAME"), [1.0] * 4
        )
        pooled = tf.reduce_mean(logits, [1, 2])
        return Answers(None, pooled[:, 0], tf.nn.softmax(pooled if is_pooled else logits))

    assert types(lambda images: answer(images, False), [None, 5, 5, 3])[0][1:] == [("Conv2D", "float32")]
    assert types(lambda images: answer(images, True), [None, 5, 5, 3])[0][1:] == [("Conv2D", "bfloat16")]


def test_a_depthwise_convolution_right_after_the_first_stays_in_float32_with_it(free_casts):
    first, thin, last = weights(3, 3, 3, 8), weights(3, 3, 8, 1), weights(1, 1, 8, 8)

    def answer(images):
        x = tf.nn.conv2d(images, first, 1, "SAME")
        for _ in range(2):
            x = tf.nn.relu(tf.nn.conv2d(tf.nn.depthwise_conv2d(x, thin, [1] * 4, "SAME"), last, 1, "SAME"))
        pooled = tf.reduce_mean(x, [1, 2])
        return Answers(None, pooled[:, 0], pooled)

    found = [dtype for _, dtype in types(answer, [None, 9, 9, 3])[0]]
    assert sorted(found) == ["bfloat16"] * 3 + ["float32"] * 2


def image(dtype, *shape):
    return tf.cast(np.random.default_rng(len(shape)).normal(size=shape).astype("float32"), dtype)


def operations(dtype):
    """Return the result of every operation that may run in half precision, by its name."""
    x, y, z = image(dtype, 2, 8, 8, 4), image(dtype, 2, 8, 8, 6), image(dtype, 2, 4, 8, 8, 4)
    kernel, cube, thin = image(dtype, 3, 3, 4, 6), image(dtype, 3, 3, 3, 4, 6), image(dtype, 3, 3, 4, 1)
    ones, windows = {"strides": [1] * 4, "padding": "SAME"}, {"ksize": [1, 2, 2, 1], "strides": [1, 2, 2, 1]}
    windows["padding"] = "SAME"
    pooled, pads = x[:, ::2, ::2], [[0, 0], [1, 1], [1, 1], [0, 0]]
    features = {name: getattr(R, name)(features=x) for name in ("Relu", "Relu6", "Elu", "LeakyRelu")}
    slopes = {
        name: getattr(R, name)(gradients=x, features=x[::-1])
        for name in ("ReluGrad", "Relu6Grad", "LeakyReluGrad")
    }
    pairs = {name: getattr(R, name)(x=x, y=x[::-1]) for name in ("Add", "AddV2", "Sub", "Mul")}
    back = {"input_sizes": x.shape, "out_backprop": y, "filter": kernel}
    return {
        **features,
        **slopes,
        **pairs,
        "Conv2D": R.Conv2D(input=x, filter=kernel, **ones),
        "Conv3D": R.Conv3D(input=z, filter=cube, strides=[1] * 5, padding="SAME"),
        "DepthwiseConv2dNative": R.DepthwiseConv2dNative(input=x, filter=thin, **ones),
        "MatMul": tf.matmul(x[0, 0], kernel[0, 0]),
        "BatchMatMul": R.BatchMatMul(x=x, y=tf.transpose(x, [0, 1, 3, 2])),
        "BatchMatMulV2": R.BatchMatMulV2(x=x, y=kernel[0, 0]),
        "Einsum": R.Einsum(inputs=[x, kernel[0, 0]], equation="nhwc,cd->nhwd"),
        "Conv2DBackpropInput": R.Conv2DBackpropInput(**back, **ones),
        "Conv3DBackpropInputV2": R.Conv3DBackpropInputV2(
            input_sizes=z.shape,
            filter=cube,
            out_backprop=image(dtype, 2, 4, 8, 8, 6),
            strides=[1] * 5,
            padding="SAME",
        ),
        "DepthwiseConv2dNativeBackpropInput": R.DepthwiseConv2dNativeBackpropInput(
            input_sizes=x.shape, filter=thin, out_backprop=x, **ones
        ),
        "BiasAdd": R.BiasAdd(value=x, bias=x[0, 0, 0]),
        "SelectV2": R.SelectV2(condition=x > 0, t=x, e=x[::-1]),
        "MaxPool": R.MaxPool(input=x, **windows),
        "AvgPool": R.AvgPool(value=x, **windows),
        "MaxPoolGrad": R.MaxPoolGrad(
            orig_input=x, orig_output=R.MaxPool(input=x, **windows), grad=pooled, **windows
        ),
        "AvgPoolGrad": R.AvgPoolGrad(orig_input_shape=x.shape, grad=pooled, **windows),
        "DepthToSpace": R.DepthToSpace(input=x, block_size=2),
        "SpaceToDepth": R.SpaceToDepth(input=x, block_size=2),
        "SpaceToBatchND": R.SpaceToBatchND(input=x, block_shape=[2, 2], paddings=[[0, 0]] * 2),
        "BatchToSpaceND": R.BatchToSpaceND(
            input=tf.tile(x, [2, 1, 1, 1]), block_shape=[2, 2], crops=[[0, 0]] * 2
        ),
        "Identity": tf.identity(x),
        "Reshape": tf.reshape(x, [2, -1]),
        "Squeeze": R.Squeeze(input=x[:1], axis=[0]),
        "ExpandDims": R.ExpandDims(input=x, axis=0),
        "BroadcastTo": R.BroadcastTo(input=x[:1], shape=x.shape),
        "Tile": R.Tile(input=x, multiples=[1, 2, 1, 1]),
        "StridedSlice": x[:, 1:7:2],
        "Slice": R.Slice(input=x, begin=[0, 1, 1, 0], size=[2, 3, 3, 4]),
        "ResizeNearestNeighbor": R.ResizeNearestNeighbor(images=x, size=[16, 16]),
        "MirrorPad": R.MirrorPad(input=x, paddings=pads, mode="REFLECT"),
        "Pad": R.Pad(input=x, paddings=pads),
        "Transpose": R.Transpose(x=x, perm=[0, 3, 1, 2]),
        "ConcatV2": R.ConcatV2(values=[x, x], axis=-1),
    }


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_tensorflow_has_every_operation_of_the_tables_in_half_precision(precision):
    found, expected = operations(half_hardware.PRECISIONS[precision]), operations(tf.float32)
    assert found.keys() == half_precision._PRODUCTS.keys() | half_precision._BETWEEN.keys()
    for name, result in found.items():
        assert result.dtype.name == precision, name
        error = np.abs(np.asarray(result, "float64") - expected[name]).max()
        assert error <= 0.02 * np.abs(expected[name]).max(), name


# What is refused


@pytest.mark.parametrize(
    ("precision", "error", "text"),
    [
        (
            "int8",
            ValueError,
            "`precision` must be None or one of 'bfloat16', 'float16'. Received: precision='int8'",
        ),
        (tf.bfloat16, TypeError, "`precision` must be a name or None"),
    ],
)
def test_an_unknown_precision_is_refused(functional, precision, error, text):
    with pytest.raises(error, match=text):
        GradCAM(functional).freeze(precision=precision)


def test_a_processor_without_instructions_is_refused(functional, monkeypatch):
    monkeypatch.setattr(half_hardware, "is_faster_on_cpu", lambda precision: False)
    with pytest.raises(ValueError, match="that this processor has instructions for. Received: 'bfloat16'"):
        GradCAM(functional).freeze(precision="bfloat16")
    assert GradCAM(functional).freeze().precision is None


def test_a_model_that_does_not_gain_is_refused_with_the_reason(functional, images):
    with pytest.raises(ValueError, match="takes less time in bfloat16. .*: .* and a model too small"):
        GradCAM(functional).freeze(precision="bfloat16")(images)


@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16"])
def test_a_model_of_another_type_is_refused_with_its_type(dtype, images, free_casts):
    keras.config.set_dtype_policy(dtype)
    try:
        model = build("functional")
    finally:
        keras.config.set_dtype_policy("float32")
    with pytest.raises(ValueError, match=f"a model that computes in {dtype.removeprefix('mixed_')}"):
        GradCAM(model).freeze(precision="bfloat16")(images)


def test_a_mixed_model_runs_its_float32_layers_in_half_precision_too(free_casts):
    images = keras.Input((SIDE, SIDE, 3))
    x = L.Conv2D(8, 3, activation="relu", dtype="mixed_bfloat16")(images)
    x = L.Conv2D(8, 3, activation="relu", name="last")(x)
    plain = GradCAM(keras.Model(images, L.Dense(3)(L.GlobalAveragePooling2D()(x))))
    batch = np.random.default_rng(0).normal(size=(2, SIDE, SIDE, 3)).astype("float32")
    assert_near(plain.freeze(precision="bfloat16")(batch, 1), plain(batch, 1))

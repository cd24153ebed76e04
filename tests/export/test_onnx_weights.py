"""Weights folded in an ONNX model: it answers as before, and quantizers see constants."""

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tf_gradcam import GradCAM
from tf_gradcam._export import convert
from tf_gradcam._export.onnx_weights import fold_weights

L = keras.layers
IMAGES = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype("float32")
RANDOM = np.random.default_rng(1)


def random(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def model_of(nodes, weights, constants):
    """Return a model from `x` to `y` whose weights are inputs, as the converter gives it."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])]
    inputs += [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, each.shape) for name, each in weights.items()
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    initializers = [onnx.numpy_helper.from_array(each, name) for name, each in constants.items()]
    graph = helper.make_graph(nodes, "net", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model, **inputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def fold(nodes, weights, constants=None):
    """Return the kinds of the nodes left after folding; assert that the model answers as before."""
    model = model_of(nodes, weights, constants or {})
    before = run(model, x=IMAGES, **weights)
    fold_weights(model, weights)
    np.testing.assert_allclose(run(model, x=IMAGES), before, rtol=1e-5, atol=1e-5)
    return model, [node.op_type for node in model.graph.node]


def convolve(filters="turned", output="y", **attributes):
    return helper.make_node("Conv", ["x", filters], [output], **attributes)


def test_a_chain_of_reshapes_and_transposes_becomes_the_filters():
    nodes = [
        helper.make_node("Reshape", ["w", "shape"], ["long"]),
        helper.make_node("Unsqueeze", ["long", "axes"], ["longer"]),
        helper.make_node("Squeeze", ["longer", "axes"], ["long_again"]),
        helper.make_node("Identity", ["long_again"], ["same"]),
        helper.make_node("Transpose", ["same"], ["turned"], perm=[3, 2, 0, 1]),
        convolve(),
    ]
    constants = {"shape": np.array([3, 0, 3, 80]), "axes": np.array([0])}
    model, kinds = fold(nodes, {"w": random(3, 3, 240)}, {**constants, "shape": np.array([3, 3, 3, -1])})
    assert kinds == ["Conv"]
    assert [list(each.dims) for each in model.graph.initializer] == [[80, 3, 3, 3]]
    # A length of 0 is the length that was there.
    nodes[0] = helper.make_node("Reshape", ["w", "shape"], ["long"])
    assert fold(nodes, {"w": random(3, 3, 240)}, constants)[1] == ["Conv"]


@pytest.mark.parametrize("shape", [(5, 1, 1), (1, 5, 1, 1), (1,), ()])
def test_scales_and_biases_after_a_convolution_become_its_own(shape):
    nodes = [
        convolve("w", "a"),
        helper.make_node("Mul", ["scale", "a"], ["b"]),
        helper.make_node("Add", ["b", "bias"], ["c"]),
        helper.make_node("Sub", ["c", "mean"], ["d"]),
        helper.make_node("Mul", ["d", "scale"], ["y"]),
    ]
    constants = {name: random(*shape) for name in ("scale", "bias", "mean")}
    assert fold(nodes, {"w": random(5, 3, 3, 3)}, constants)[1] == ["Conv"]


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Sub", ["c", "a"], ["y"]),  # the other way round
        helper.make_node("Mul", ["a", "columns"], ["y"]),  # not one number for each channel
        helper.make_node("Div", ["a", "c"], ["y"]),
        helper.make_node("Mul", ["a", "a"], ["y"]),
    ],
)
def test_what_is_no_scale_of_the_channels_stays(node):
    constants = {"c": random(5, 1, 1), "columns": random(6)}
    assert fold([convolve("w", "a"), node], {"w": random(5, 3, 3, 3)}, constants)[1] == ["Conv", node.op_type]


def test_a_convolution_that_another_operation_looks_at_keeps_its_scale():
    nodes = [
        convolve("w", "a"),
        helper.make_node("Mul", ["a", "c"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    assert fold(nodes, {"w": random(5, 3, 3, 3)}, {"c": random(5, 1, 1)})[1] == ["Conv", "Mul", "Add"]


def test_filters_of_two_convolutions_stay_one():
    nodes = [
        helper.make_node("Transpose", ["w"], ["turned"], perm=[3, 2, 0, 1]),
        helper.make_node("Transpose", ["w"], ["turned_too"], perm=[3, 2, 0, 1]),
        convolve("turned", "a"),
        helper.make_node("Mul", ["a", "c"], ["b"]),
        convolve("turned_too", "d"),
        helper.make_node("Add", ["b", "d"], ["y"]),
    ]
    model, kinds = fold(nodes, {"w": random(3, 3, 3, 700)}, {"c": random(700, 1, 1)})
    assert kinds == ["Conv", "Mul", "Conv", "Add"]
    assert sorted(len(each.dims) for each in model.graph.initializer) == [3, 4]


def test_no_second_copy_of_large_weights_is_made():
    """The forward pass takes them as they are, the gradient transposed: a `Gemm` transposes by itself."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["a"]),
        helper.make_node("Transpose", ["w"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["a", "turned"], ["y"]),
    ]
    weights = {"w": random(192, 100)}
    model, kinds = fold(nodes, weights)
    assert kinds == ["Flatten", "MatMul", "Gemm"]
    assert len(model.graph.initializer) == 1
    # Three axes are more than a `Gemm` takes: the transpose stays, and runs when the file is loaded.
    rows = [helper.make_node("Reshape", ["x", "shape"], ["rows"]), *nodes[1:]]
    model, kinds = fold(rows, weights, {"shape": np.array([-1, 1, 192])})
    assert kinds == ["Reshape", "MatMul", "Transpose", "MatMul"]


def test_a_file_takes_every_weight_as_it_is(tmp_path):
    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3))
    x = L.Conv2D(160, 3, activation="relu", bias_initializer="normal", name="early")(images)
    x = L.BatchNormalization()(L.Conv2D(128, 1, use_bias=False)(x))
    x = L.BatchNormalization()(L.DepthwiseConv2D(3)(L.Activation("relu6")(x)))
    x = L.Dense(200)(L.GlobalAveragePooling2D()(L.Activation("relu6")(x)))
    cam = GradCAM(keras.Model(images, x), "early")
    for layer in cam.model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.set_weights([RANDOM.uniform(0.5, 2, each.shape) for each in layer.get_weights()])
    graph = onnx.load(convert(cam, tmp_path / "model.onnx", "onnx")).graph
    constants = {each.name for each in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 5  # three forward, two back
    assert all(node.input[1] in constants for node in convolutions)
    assert not [node for node in graph.node if node.op_type == "Transpose" and node.input[0] in constants]
    forward = [node for node in convolutions if "gradient_tape" not in node.name]
    assert all(len(node.input) == 3 for node in forward), "the scale is in the filters, the mean in the bias"
    held = sum(onnx.numpy_helper.to_array(each).size for each in graph.initializer)
    assert held < cam.model.count_params() + 128 * 160 + 9 * 128 + 1000

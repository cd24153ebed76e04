"""Files of half or a quarter of the size: their weights have 16 or 8 bits. `single_file` calls it.

They compute in float32: with activations of 8 bits too many heatmaps have their maximum elsewhere.
"""

import contextlib
import importlib
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_gradcam._arrays import check_no_data_set, check_no_paths, real_array
from tf_gradcam._checks import did_you_mean
from tf_gradcam._export.rounded_weights import SMALL

PRECISIONS = "float32", "float16", "int8"
_BATCH = 8  # images that calibration computes at once
_STEPS = 127


def check_precision(precision: Any, calibration: Any, format: str) -> None:
    """Raise if `precision` and `calibration` don't fit each other or the format, or a package is missing."""
    if not isinstance(precision, str) or precision not in PRECISIONS:
        hint = did_you_mean(str(precision), PRECISIONS)
        text = f"`precision` must be one of {list(PRECISIONS)}. Received: precision={precision!r:.80}. {hint}"
        raise ValueError(text.rstrip())
    if format == "tensorflow" and precision != "float32":
        raise ValueError(
            "`precision` is for files without TensorFlow: a SavedModel computes with its variables. "
            f"Received: precision={precision!r} and format='tensorflow'. Choose format='litert', 'onnx' or "
            "'openvino'."
        )
    if precision == "int8" and calibration is None:
        raise ValueError(
            "`calibration` must be given for precision='int8': 20 to 50 images as the model will see. "
            "Received: calibration=None"
        )
    if precision != "int8" and calibration is not None:
        raise ValueError(
            f"`calibration` is for precision='int8' alone. Received: precision={precision!r} and images. "
            "Leave it out."
        )
    if format == "litert" and precision != "float32":
        try:
            importlib.import_module("ai_edge_quantizer")
        except ImportError as error:
            raise ImportError(
                f"precision={precision!r} for format='litert' needs ai-edge-quantizer. Install it: "
                'pip install "tf_gradcam[litert-precision]"'
            ) from error


def calibration_batches(
    calibration: Any, names: Sequence[str], specs: Sequence[tf.TensorSpec]
) -> list[dict[str, np.ndarray]]:
    """Return images for calibration in batches, by the names of the inputs.

    Raises:
        TypeError, ValueError: if they are not what the file will take.
    """
    if not isinstance(calibration, Mapping):
        if len(names) > 1:
            raise ValueError(
                f"`calibration` must be a dict with an array for each of {list(names)}. "
                f"Received: {type(calibration).__name__}"
            )
        calibration = {names[0]: calibration}
    if set(calibration) != set(names):
        raise ValueError(
            f"`calibration` must have an array for each of {list(names)}. Received: {list(calibration)!s:.99}"
        )
    arrays = {name: _checked(name, calibration[name], spec) for name, spec in zip(names, specs, strict=True)}
    counts = {len(each) for each in arrays.values()}
    if len(counts) > 1:
        raise ValueError(f"`calibration` must have one number of images. Received: {sorted(counts)}")
    return [
        {name: each[start : start + _BATCH] for name, each in arrays.items()}
        for start in range(0, counts.pop(), _BATCH)
    ]


def _checked(name: str, values: Any, spec: tf.TensorSpec) -> np.ndarray:
    check_no_data_set("calibration", values)
    check_no_paths("calibration", values)
    array, dtype = real_array("calibration", values), np.dtype(spec.dtype.as_numpy_dtype)
    shape = tuple(spec.shape[1:])
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape or len(array) == 0:
        expected = ", ".join(map(str, ("N", *shape)))
        raise ValueError(
            f"`calibration` must be one image or more, ({expected}), as the file takes {name!r}. "
            f"Received: shape {array.shape}"
        )
    if dtype.kind in "iu" and array.dtype != dtype:
        raise TypeError(
            f"`calibration` must be {dtype.name}, as the file takes {name!r}. Received: {array.dtype}"
        )
    array = array.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("`calibration` must be finite. Received: NaN or infinity")
    return array


def shrink(path: pathlib.Path, format: str, precision: str) -> None:
    """Write a file again with weights of fewer bits."""
    {"litert": _shrink_litert, "onnx": _shrink_onnx, "openvino": _shrink_openvino}[format](path, precision)


def whole_numbers(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return weights as int8, the step of each channel, and the axis of the channels.

    The axis is the one that changes the weights least: rounded weights have one that changes nothing.
    """
    best = None
    for axis in range(weights.ndim):
        others = tuple(each for each in range(weights.ndim) if each != axis)
        step = np.abs(weights).max(others, keepdims=True) / _STEPS
        numbers = np.round(weights / np.where(step == 0, 1, step))
        error = float(np.abs(numbers * step - weights).max())
        if best is None or error < best[0]:
            best = error, numbers.astype(np.int8), step.ravel().astype(np.float32), axis
    assert best is not None
    return best[1:]


def _shrink_onnx(path: pathlib.Path, precision: str) -> None:
    import onnx

    model = onnx.load(path)
    graph, nodes, constants = model.graph, [], []
    for initializer in list(graph.initializer):
        weights = onnx.numpy_helper.to_array(initializer)
        if weights.dtype != np.float32 or weights.size < SMALL:
            continue
        graph.initializer.remove(initializer)
        name, stored = initializer.name, f"{initializer.name}/{precision}"
        if precision == "float16":
            constants.append(onnx.numpy_helper.from_array(weights.astype(np.float16), stored))
            nodes.append(onnx.helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
            continue
        # Not DequantizeLinear: ONNX Runtime computes that at every call, and these once.
        numbers, steps, axis = whole_numbers(weights)
        constants.append(onnx.numpy_helper.from_array(numbers, stored))
        shape = [-1 if each == axis else 1 for each in range(weights.ndim)]
        constants.append(onnx.numpy_helper.from_array(steps.reshape(shape), f"{name}/steps"))
        nodes.append(onnx.helper.make_node("Cast", [stored], [f"{name}/whole"], to=onnx.TensorProto.FLOAT))
        nodes.append(onnx.helper.make_node("Mul", [f"{name}/whole", f"{name}/steps"], [name]))
    graph.initializer.extend(constants)
    following = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *following])
    path.write_bytes(model.SerializeToString())


def _shrink_openvino(path: pathlib.Path, precision: str) -> None:
    import openvino
    from openvino import opset13

    model = openvino.Core().read_model(path)
    if precision == "int8":
        for node in model.get_ordered_ops():
            if node.get_type_name() != "Constant" or node.get_element_type() != openvino.Type.f32:
                continue
            weights = node.data
            if weights.size < SMALL:
                continue
            numbers, steps, axis = whole_numbers(weights)
            shape = [-1 if each == axis else 1 for each in range(weights.ndim)]
            whole = opset13.convert(opset13.constant(numbers), "f32")
            product = opset13.multiply(whole, opset13.constant(steps.reshape(shape)))
            for port in list(node.output(0).get_target_inputs()):
                port.replace_source_output(product.output(0))
    smaller = path.with_name(f"smaller-{path.name}")  # Never the file itself, which is still read.
    openvino.save_model(model, smaller, compress_to_fp16=precision == "float16")
    del model  # It reads the old file.
    for suffix in (".bin", ".xml"):
        smaller.with_suffix(suffix).replace(path.with_suffix(suffix))


def _shrink_litert(path: pathlib.Path, precision: str) -> None:
    """Store the weights of convolutions and products with fewer bits.

    The converter of TensorFlow stores every constant as float16, also the largest float32 that tells infinity
    from numbers: 65504 then, above which finite results are taken for infinity.
    """
    from ai_edge_quantizer import qtyping, quantizer, recipe, recipe_manager

    names, is_whole = qtyping.TFLOperationName, precision == "int8"
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=qtyping.TensorQuantizationConfig(
            num_bits=8 if is_whole else 16,
            symmetric=True,
            granularity=qtyping.QuantGranularity.CHANNELWISE,
            dtype=qtyping.TensorDataType.INT if is_whole else qtyping.TensorDataType.FLOAT,
        ),
        explicit_dequantize=True,
        min_weight_elements=SMALL,
    )
    algorithms = recipe.AlgorithmName
    algorithm = algorithms.MIN_MAX_UNIFORM_QUANT if is_whole else algorithms.FLOAT_CASTING
    rules = recipe_manager.RecipeManager()
    for name in (names.CONV_2D, names.DEPTHWISE_CONV_2D, names.FULLY_CONNECTED):
        rules.add_quantization_config(".*", name, config, algorithm)
    engine = quantizer.Quantizer(str(path), rules.get_quantization_recipe())
    with contextlib.redirect_stderr(io.StringIO()):  # One of its bars can't be turned off.
        quantized = engine.quantize(enable_progress_report=False, enable_progress_bar=False)
    path.write_bytes(bytes(quantized.quantized_model))

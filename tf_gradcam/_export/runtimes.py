"""An explainer as one file for LiteRT, ONNX Runtime or OpenVINO, which needs no TensorFlow to answer."""

import contextlib
import importlib
import logging
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._explain import Explanation, GradCAM, fold_variables
from tf_gradcam._export.plain_graph import LARGE, rewrite
from tf_gradcam._export.plain_operations import Refused
from tf_gradcam._model import default_layer, layer_path, require_specs

SUFFIXES = {"litert": ".tflite", "onnx": ".onnx", "openvino": ".xml"}
_NEEDS = {
    "litert": ["ai_edge_litert.interpreter"],
    "onnx": ["tf2onnx", "onnxruntime"],
    "openvino": ["openvino"],
}
_OPSET = 18  # the newest that tf2onnx writes
_MOST_APART = 1e-3  # more than the rounding that, at an early layer, moves the maximum of a pooling


# What every format knows, and what an error may say for other reasons.
_COMMON = {"Add", "Cast", "Concat", "Const", "Identity", "MatMul", "Max", "Mean", "Mul", "Pad", "Placeholder"}


_COMMON |= {"Range", "Reshape", "Shape", "Slice", "Squeeze", "Sum", "Tile", "Transpose"}


def convert(
    cam: GradCAM,
    path: str | os.PathLike,
    format: str,
    *,
    target: Any = None,
    size: str | tuple[int, int] | None = "input",
    interpolation: str = "bilinear",
) -> pathlib.Path:
    """Write one file that answers scores and heatmap with the weights of now, for one image or more.

    Its function takes `images`, or the model's inputs by their names, and answers `scores`, what the model
    returns; `heatmap`, `(N, H, W)` float32 in `[0, 1]`; and `class`, `(N,)` int32, where the target is one.
    A `preprocess` is in it, and the images are then uint8, of the model's height and width. In the file there
    are only built-in operations. Before it gets its name it is run once, beside TensorFlow.

    Args:
        cam: of a built model with one output.
        path: the file, which is replaced if it is there: a `.tflite`, an `.onnx`, or an `.xml`, for which
            OpenVINO writes a `.bin` of the same name beside it.
        format: `"litert"`, `"onnx"` or `"openvino"`.
        target: what to explain in every image; see `GradCAM`.
        size: the heatmap's size; see `GradCAM`.
        interpolation: how it is resized; see `GradCAM`.

    Returns:
        The path.

    Raises:
        ImportError: if a package is missing, with the extra that brings it.
        ValueError: if `format` is unknown or `path` is called otherwise; if the model has several outputs, or
            a height or width that is open; or if there is no such file of what `cam` computes.

    Example:

    ```python
    convert(GradCAM(model), "cat.tflite", "litert")
    answer = runner("cat.tflite")({"images": images})
    ```
    """
    path = _checked(path, format)
    _import(format)
    takes, concrete = _trace(cam, target, size, interpolation)
    answers = sorted(concrete.structured_outputs)
    try:
        definition = rewrite(fold_variables(concrete, inline=True), takes, answers)
        graph = Graph(definition, takes, answers)
    except Refused as error:
        raise _lacking(cam, format, error.operation.type, error.operation.name) from None
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=path.parent) as folder:
        unfinished = pathlib.Path(folder) / path.name
        try:
            with _quiet():
                _WRITE[format](graph, unfinished)
            apart = _apart(concrete, graph, runner(unfinished))
        except Exception as error:  # each of these libraries raises what it likes
            raise _not_written(cam, format, graph, error) from None
        if not apart < _MOST_APART:
            raise ValueError(
                f"`format` must answer what TensorFlow does. Received: format={format!r}, whose answers are "
                f"{apart:.2g} away. Choose another format, a later layer, or a model in float32."
            )
        for each in sorted(unfinished.parent.iterdir()):  # the weights before what refers to them
            each.replace(path.parent / each.name)
    return path


def named_outputs(explanation: Explanation) -> dict[str, tf.Tensor]:
    """Return what a file or server answers: `scores`, `heatmap` and, where the target is one, `class`.

    Raises:
        ValueError: if the model has several outputs.
    """
    if not tf.is_tensor(explanation.outputs):
        raise ValueError(
            "`model` must have one output to be served with its heatmaps. Received one that returns "
            f"{type(explanation.outputs).__name__}. Make a keras.Model with the one that counts."
        )
    answer = {"scores": explanation.outputs, "heatmap": explanation.heatmap}
    return answer if explanation.target is None else {**answer, "class": explanation.target}


def runner(path: str | os.PathLike) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """Load a file that `convert` wrote, and return its function: arrays by name to arrays by name.

    Raises:
        ImportError: if the package that runs it is missing.
    """
    path = pathlib.Path(path)
    format = next(name for name, suffix in SUFFIXES.items() if suffix == path.suffix)
    _import(format)
    return _RUN[format](path)


class Graph(NamedTuple):
    """A graph in plain operations, and what its inputs and outputs are called."""

    definition: tf.compat.v1.GraphDef
    takes: Sequence[str]
    answers: Sequence[str]


def _imported(graph) -> tf.Graph:
    with tf.Graph().as_default() as whole:
        tf.graph_util.import_graph_def(graph.definition, name="")
    return whole


# LiteRT


def _write_litert(graph, path) -> None:
    folder = str(path.with_name("saved_model"))
    # A SavedModel of TensorFlow 1 keeps the names, and takes half the memory that one of a tf.function does.
    with tf.compat.v1.Session(graph=_imported(graph)) as session:
        takes, answers = (
            {name: session.graph.get_tensor_by_name(f"{name}:0") for name in names} for names in graph[1:]
        )
        tf.compat.v1.saved_model.simple_save(session, folder, takes, answers)
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())
    shutil.rmtree(folder)


def _run_litert(path):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    function = interpreter.get_signature_runner()
    return lambda arrays: function(**arrays)


# ONNX


def _write_onnx(graph, path) -> None:
    import onnx
    import tf2onnx

    # Weights are inputs until all else is converted: the converter would copy them dozens of times.
    weights, definition = _without_weights(graph.definition)
    takes, answers = ([f"{name}:0" for name in names] for names in ([*graph.takes, *weights], graph.answers))
    model, _ = tf2onnx.convert.from_graph_def(
        definition,
        name="gradcam",
        input_names=takes,
        output_names=answers,
        opset=_OPSET,
        tensors_to_rename={name: name.removesuffix(":0") for name in takes + answers},
    )
    held = [onnx.numpy_helper.from_array(values, name) for name, values in weights.items()]
    model.graph.initializer.extend(held)
    for value in list(model.graph.input):
        if value.name in weights:
            model.graph.input.remove(value)
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    path.write_bytes(model.SerializeToString())


def _without_weights(definition):
    """Return the large constants by name, and the graph with placeholders for them."""
    weights, nodes = {}, []
    for node in definition.node:
        tensor = node.attr["value"].tensor if node.op == "Const" else None
        shape = tf.TensorShape(None if tensor is None else tensor.tensor_shape)
        if tensor is not None and shape.num_elements() > LARGE:
            weights[node.name] = tf.make_ndarray(tensor)
            node = tf.compat.v1.NodeDef(name=node.name, op="Placeholder")
            node.attr["dtype"].type = tensor.dtype
            node.attr["shape"].shape.CopyFrom(shape.as_proto())
        nodes.append(node)
    return weights, tf.compat.v1.GraphDef(node=nodes, versions=definition.versions)


def _run_onnx(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return lambda arrays: dict(zip(names, session.run(names, dict(arrays)), strict=True))


# OpenVINO


def _write_openvino(graph, path) -> None:
    import openvino

    model = openvino.convert_model(_imported(graph))
    for port in [*model.inputs, *model.outputs]:
        names = [name for name in [*graph.takes, *graph.answers] if f"{name}:0" in port.names]
        port.get_tensor().set_names(set(names))
    openvino.save_model(model, path, compress_to_fp16=False)


def _run_openvino(path):
    import openvino

    precise = {"INFERENCE_PRECISION_HINT": "f32"}  # else bfloat16, where the processor has it
    model = openvino.Core().compile_model(path, "CPU", precise)

    def function(arrays):
        answers = model(dict(arrays))
        return {port.any_name: answers[port] for port in model.outputs}

    return function


_WRITE = {"litert": _write_litert, "onnx": _write_onnx, "openvino": _write_openvino}
_RUN = {"litert": _run_litert, "onnx": _run_onnx, "openvino": _run_openvino}


# What is written


def _trace(cam, target, size, interpolation):
    """Return the names of what the file takes, and the function of that."""
    specs = require_specs(cam.model)
    flat = keras.tree.flatten(specs)
    if len(flat) == 1:
        flat = [tf.TensorSpec(flat[0].shape, flat[0].dtype, "images")]
    names = [each.name or f"images_{place}" for place, each in enumerate(flat)]
    if any(None in each.shape[1:] for each in flat):
        shapes = [tuple(each.shape) for each in flat]
        raise ValueError(
            f"`model` must take images of one height and width to go into a file. Received: {shapes}. Make a "
            "keras.Model around it: keras.Input((height, width, channels)), and what it returns for that."
        )
    if cam.preprocess is not None:
        flat = [each if each.shape.rank < 4 else tf.TensorSpec(each.shape, tf.uint8) for each in flat]

    def explain(*tensors):
        images = keras.tree.pack_sequence_as(specs, tensors)
        return named_outputs(cam(images, target, size=size, interpolation=interpolation))

    return names, tf.function(explain, autograph=False).get_concrete_function(*flat)


def _apart(concrete, graph, run) -> float:
    """Return how far what a file answers to noise is from what TensorFlow does."""
    random, arrays = np.random.default_rng(0), {}
    for name, each in zip(graph.takes, concrete.structured_input_signature[0], strict=True):
        noise = random.uniform(size=[2, *each.shape[1:]])
        arrays[name] = (255 * noise if each.dtype == tf.uint8 else noise).astype(each.dtype.as_numpy_dtype)
    expected, found = concrete(*map(tf.constant, arrays.values())), run(arrays)
    apart = 0.0
    for name in graph.answers:
        values = expected[name].numpy().astype(np.float64)
        # Logits may be large, and are then told by so many digits.
        scale = max(1.0, np.abs(values).max())
        apart = np.maximum(apart, np.abs(found[name] - values).max() / scale)
    return float(apart)


# What is asked for, and what goes wrong


def _checked(path, format) -> pathlib.Path:
    path = pathlib.Path(path)
    if format not in SUFFIXES:
        raise ValueError(f"`format` must be one of {list(SUFFIXES)}. Received: format={format!r}")
    if path.suffix != SUFFIXES[format]:
        raise ValueError(
            f"`path` must end in {SUFFIXES[format]!r} for format={format!r}. Received: path={str(path)!r}"
        )
    if not path.parent.is_dir():
        raise ValueError(f"`path` must be in a folder that is there. Received: path={str(path)!r}")
    return path


def _import(format) -> None:
    for name in _NEEDS[format]:
        try:
            importlib.import_module(name)
        except ImportError as error:
            package = name.partition(".")[0].replace("_", "-")
            raise ImportError(
                f'format={format!r} needs {package}. Install it: pip install "tf_gradcam[{format}]"'
            ) from error


@contextlib.contextmanager
def _quiet():
    """Keep converters from telling the developer of TensorFlow programs what the user can't help."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "tf2onnx")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def _not_written(cam, format, graph, error) -> ValueError:
    """Return what to say of an error: most often it names an operation that a format lacks."""
    words = set(re.findall(r"\w+", str(error)))
    for node in graph.definition.node:
        if node.op in words - _COMMON:
            return _lacking(cam, format, node.op, node.name)
    return ValueError(
        f"`format` must have a file for what `model`, `layer` and `method` compute. Received: "
        f"format={format!r}, of which its library says: {str(error).strip():.200}"
    )


def _lacking(cam, format, kind, name) -> ValueError:
    place = re.sub("StatefulPartitionedCall[^/]*/|gradient_tape/", "", name)
    return ValueError(
        f"`format` must know all that `model`, `layer` and `method` compute. Received: format={format!r}, "
        f"which has no {kind!r} ({place}). {_advice(cam, kind, name)}"
    )


def _advice(cam, kind, name) -> str:
    if kind in ("If", "StatelessIf", "StatelessWhile", "While"):
        return "Choose a method without loops, as 'gradcam' or 'layercam', or format='tensorflow'."
    if "gradient" not in name:
        return "Choose another format, or format='tensorflow'."
    last = default_layer(cam.model).layer
    if cam.layer is last:
        return "Choose a layer after it, a method without gradients, or format='tensorflow'."
    return f"Choose a layer after it: layer={layer_path(cam.model, last)!r} is the last with a map."

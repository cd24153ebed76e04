"""LiteRT, ONNX Runtime and OpenVINO: write a graph as a file of theirs. `single_file` calls it.

The libraries are optional and imported when needed. `_runtimes` runs the files.
"""

import contextlib
import logging
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_gradcam._export.onnx_weights import fold_weights
from tf_gradcam._export.plain_graph import LARGE_CONSTANT
from tf_gradcam._export.precision import shrink
from tf_gradcam._runtimes import require_packages as require_modules

_PACKAGES = {
    "litert": ["ai_edge_litert.interpreter"],
    "onnx": ["tf2onnx", "onnxruntime"],
    "openvino": ["openvino"],
}
_OPSET = 18  # the newest that tf2onnx writes


class Graph(NamedTuple):
    """A graph in plain operations, and the names of its inputs and outputs.

    Attributes:
        definition: the graph. Its placeholders and its last operations have these names.
        input_names: one for each input.
        output_names: one for each output.
    """

    definition: tf.compat.v1.GraphDef
    input_names: Sequence[str]
    output_names: Sequence[str]


def require_packages(format: str) -> None:
    """Import the packages that write and run a format.

    Raises:
        ImportError: if one is missing, with the extra that installs it.
    """
    require_modules(format, _PACKAGES[format])


def write_graph(graph: Graph, path: pathlib.Path, format: str, precision: str = "float32") -> None:
    """Write a graph as a file of a format. Whatever its converter raises is passed on."""
    with _silence_converters():
        _WRITERS[format](graph, path)
        if precision != "float32":
            shrink(path, format, precision)


@contextlib.contextmanager
def _silence_converters() -> Iterator[None]:
    """Silence the loggers of the converters, whose messages are for their own developers."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "tf2onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _imported_graph(definition: tf.compat.v1.GraphDef) -> tf.Graph:
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(definition, name="")
    return graph


# LiteRT


def _write_litert(graph: Graph, path: pathlib.Path) -> None:
    folder = str(path.with_name("saved_model"))
    # A SavedModel of TensorFlow 1 keeps the names, and takes half the memory of one of a tf.function.
    with tf.compat.v1.Session(graph=_imported_graph(graph.definition)) as session:

        def tensors(names):
            return {name: session.graph.get_tensor_by_name(f"{name}:0") for name in names}

        inputs, outputs = tensors(graph.input_names), tensors(graph.output_names)
        tf.compat.v1.saved_model.simple_save(session, folder, inputs, outputs)
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())
    shutil.rmtree(folder)


# ONNX


def _write_onnx(graph: Graph, path: pathlib.Path) -> None:
    import tf2onnx

    # The converter would copy the weights dozens of times, so they are inputs until it is done.
    weights, definition = _weights_as_placeholders(graph.definition)
    inputs = [f"{name}:0" for name in [*graph.input_names, *weights]]
    outputs = [f"{name}:0" for name in graph.output_names]
    model, _ = tf2onnx.convert.from_graph_def(
        definition,
        name="gradcam",
        input_names=inputs,
        output_names=outputs,
        opset=_OPSET,
        tensors_to_rename={name: name.removesuffix(":0") for name in inputs + outputs},
    )
    fold_weights(model, weights)
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    path.write_bytes(model.SerializeToString())


def _weights_as_placeholders(definition) -> tuple[dict[str, np.ndarray], tf.compat.v1.GraphDef]:
    """Return the large constants by name, and the graph with placeholders in place of them."""
    weights, nodes = {}, []
    for node in definition.node:
        tensor = node.attr["value"].tensor if node.op == "Const" else None
        shape = tf.TensorShape(None if tensor is None else tensor.tensor_shape)
        if tensor is not None and shape.num_elements() > LARGE_CONSTANT:
            weights[node.name] = tf.make_ndarray(tensor)
            node = tf.compat.v1.NodeDef(name=node.name, op="Placeholder")
            node.attr["dtype"].type = tensor.dtype
            node.attr["shape"].shape.CopyFrom(shape.as_proto())
        nodes.append(node)
    return weights, tf.compat.v1.GraphDef(node=nodes, versions=definition.versions)


# OpenVINO


def _write_openvino(graph: Graph, path: pathlib.Path) -> None:
    import openvino

    model = openvino.convert_model(_imported_graph(graph.definition))
    for port in [*model.inputs, *model.outputs]:
        names = [name for name in [*graph.input_names, *graph.output_names] if f"{name}:0" in port.names]
        port.get_tensor().set_names(set(names))
    openvino.save_model(model, path, compress_to_fp16=False)


_WRITERS: dict[str, Callable[[Graph, pathlib.Path], Any]] = {
    "litert": _write_litert,
    "onnx": _write_onnx,
    "openvino": _write_openvino,
}

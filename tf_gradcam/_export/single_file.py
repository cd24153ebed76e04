"""An explainer as one file for LiteRT, ONNX Runtime or OpenVINO. `export` and the benchmarks call it."""

import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._ending import at_sudden_end
from tf_gradcam._explain import GradCAM
from tf_gradcam._export.described import describe_question, library_versions
from tf_gradcam._export.disk import disk_error
from tf_gradcam._export.plain_graph import rewrite
from tf_gradcam._export.plain_windows import UnsupportedOperation
from tf_gradcam._export.precision import calibration_batches, check_precision
from tf_gradcam._export.rounded_weights import round_weights
from tf_gradcam._export.runtimes import Graph, require_packages, write_graph
from tf_gradcam._export.signatures import (
    OUTPUTS,
    check_input_names,
    check_label_count,
    count_classes,
    named_outputs,
)
from tf_gradcam._freezing import fold_variables, loops_with_variables
from tf_gradcam._heatmap import Interpolation
from tf_gradcam._layers import default_layer
from tf_gradcam._methods import is_formula, reciprocam
from tf_gradcam._model import layer_path, require_specs, walk_layers
from tf_gradcam._runtimes import SUFFIXES, Arrays, check_notes, runner, write_notes

# Above what rounding does: at an early layer it may move the maximum of a pooling to another place.
_MAX_DIFFERENCES = {"float32": 1e-3, "float16": 0.05, "int8": 0.25}
# Operations that every format has: where an error names one, that is not the reason.
_COMMON_OPERATIONS = {
    *("Add", "Cast", "Concat", "Const", "Identity", "MatMul", "Max", "Mean", "Mul", "Pad", "Placeholder"),
    *("Range", "Reshape", "Shape", "Slice", "Squeeze", "Sum", "Tile", "Transpose"),
}
_LOOPS_AND_BRANCHES = {"If", "StatelessIf", "StatelessWhile", "While"}


def convert(
    cam: GradCAM,
    path: str | os.PathLike,
    format: str,
    *,
    target: Any = None,
    labels: list[str] | None = None,
    size: str | tuple[int, int] | None = "input",
    interpolation: Interpolation | None = None,
    precision: str = "float32",
    calibration: Any = None,
) -> pathlib.Path:
    """Write one file that returns scores and heatmaps, with the current weights as constants.

    Its function takes `images`, or the model's inputs by name, in batches of one or more. It returns
    `scores`, the model's output; `heatmap`, `(N, H, W)` float32 in `[0, 1]`; `score`, `(N,)`, the score that
    is explained; `map`, `(N, h, w)`, the signed map on the layer's grid, for one layer; and `class`, `(N,)`
    int32, if a class is explained. If `cam` has a `preprocess`, it is part of the file, and the images are
    uint8, of the model's height and width. The file uses built-in operations only. Its results on noise are
    compared with TensorFlow's before it is moved to `path`.

    Args:
        cam: the explainer of a built model with one output.
        path: the file, which is replaced if it exists: a `.tflite`, an `.onnx`, or an `.xml`, beside which
            OpenVINO writes a `.bin` of the same name.
        format: `"litert"`, `"onnx"` or `"openvino"`.
        target: what to explain in every image; see `GradCAM`.
        labels: the names of the classes, which the file notes.
        size: the size of the heatmap; see `GradCAM`.
        interpolation: how the heatmap is resized; see `GradCAM`.
        precision: how weights are stored; see `export_gradcam`.
        calibration: images for `"int8"`; see `export_gradcam`.

    Returns:
        The path.

    Raises:
        ImportError: if a package is missing, with the extra that installs it.
        ValueError: if `format` is unknown or `path` has another suffix; if the model has several outputs, or
            an open height or width; or if the format can't express what `cam` computes.

    Example:

    ```python
    convert(GradCAM(model), "cat.tflite", "litert")
    answer = runner("cat.tflite")({"images": images})
    ```
    """
    path = _check_path(path, format)
    check_precision(precision, calibration, format)
    require_packages(format)
    input_names, concrete = _trace(cam, target, size, interpolation)
    output_names = sorted(concrete.structured_outputs)
    check_label_count(labels, count_classes(concrete.structured_outputs))
    about = {"model": cam.model.name, "inputs": list(input_names), "labels": labels}
    question = describe_question(cam, target, size, interpolation)
    notes = {**question, **about, "versions": library_versions()}
    check_notes(notes)
    if loops := loops_with_variables(concrete):
        raise _missing_operation_error(cam, format, "While", loops[0])
    try:
        definition = rewrite(fold_variables(concrete, inline=True), input_names, output_names)
    except UnsupportedOperation as error:
        operation = error.operation
        raise _missing_operation_error(cam, format, operation.type, operation.name) from None
    batches = _trial_batches(concrete, input_names, calibration)
    if precision == "int8":
        definition = round_weights(definition, "scores", batches)
    graph = Graph(definition, input_names, output_names)
    with (
        tempfile.TemporaryDirectory(prefix=".unfinished-", dir=path.parent) as folder,
        at_sudden_end(lambda: shutil.rmtree(folder, ignore_errors=True)),
    ):
        unfinished = pathlib.Path(folder) / path.name
        try:
            write_graph(graph, unfinished, format, precision)
            write_notes(unfinished, format, notes)
            difference = _difference(concrete, graph, unfinished, batches, precision)
        except Exception as error:  # Each of these libraries has its own exceptions.
            if (disk := disk_error(error, path)) is not None:
                raise disk from error
            raise _conversion_error(cam, format, graph, error) from None
        if not difference < _MAX_DIFFERENCES[precision]:  # Also where it is NaN.
            raise _difference_error(format, precision, graph, difference)
        for file in sorted(unfinished.parent.iterdir()):  # The .bin first: the .xml refers to it.
            file.replace(path.parent / file.name)
    return path


def _check_path(path: str | os.PathLike, format: str) -> pathlib.Path:
    path = pathlib.Path(path)
    if format not in SUFFIXES:
        raise ValueError(f"`format` must be one of {list(SUFFIXES)}. Received: format={format!r}")
    if path.suffix != SUFFIXES[format]:
        raise ValueError(
            f"`path` must end in {SUFFIXES[format]!r} for format={format!r}. Received: path={str(path)!r}"
        )
    if not path.parent.is_dir():
        raise ValueError(f"`path` must be in a folder that exists. Received: path={str(path)!r}")
    return path


def _trace(cam, target, size, interpolation) -> tuple[Sequence[str], tf.types.experimental.ConcreteFunction]:
    """Return the names of the inputs, and the function from these inputs to the outputs by name."""
    structure = require_specs(cam.model)
    specs = keras.tree.flatten(structure)
    if len(specs) == 1:
        specs = [tf.TensorSpec(specs[0].shape, specs[0].dtype, "images")]
    names = [spec.name or f"images_{position}" for position, spec in enumerate(specs)]
    check_input_names(names, OUTPUTS)
    if any(None in spec.shape[1:] for spec in specs):
        shapes = [tuple(spec.shape) for spec in specs]
        raise ValueError(
            "`model` must take images of one height and width to be written to one file. Received: "
            f"{shapes}. Make a keras.Model around it: keras.Input((height, width, channels)), and what it "
            "returns for that."
        )
    if cam.preprocess is not None:
        specs = [spec if spec.shape.rank < 4 else tf.TensorSpec(spec.shape, tf.uint8) for spec in specs]

    def explain(*tensors):
        images = keras.tree.pack_sequence_as(structure, tensors)
        return named_outputs(cam(images, target, size=size, interpolation=interpolation))

    return names, tf.function(explain, autograph=False).get_concrete_function(*specs)


def _trial_batches(concrete, names: Sequence[str], calibration: Any) -> list[dict[str, np.ndarray]]:
    """Return the images of the calibration, or noise, in batches by the names of the inputs."""
    specs = concrete.structured_input_signature[0]
    if calibration is not None:
        return calibration_batches(calibration, names, specs)
    random = np.random.default_rng(0)
    arrays = {}
    for name, spec in zip(names, specs, strict=True):
        noise = random.uniform(size=[2, *spec.shape[1:]])
        arrays[name] = (255 * noise if spec.dtype == tf.uint8 else noise).astype(spec.dtype.as_numpy_dtype)
    return [arrays]


def _difference(concrete, graph: Graph, path: pathlib.Path, batches, precision: str) -> float:
    """Return by how much the results of a file differ from those of TensorFlow.

    It is the largest difference of any result. Weights of fewer bits may exchange two classes that are almost
    equal, and then the heatmap is another one: for these it is the median of the images' largest differences.
    """
    run, differences = runner(path), []
    for batch in batches:
        found, expected = run(batch), concrete(*map(tf.constant, batch.values()))
        if precision == "float32":
            differences.append(_compare(expected, found, graph.output_names))
            continue
        names = [name for name in graph.output_names if name != "class"]
        for index in range(len(expected["heatmap"])):
            row = slice(index, index + 1)
            one_expected = {name: expected[name][row] for name in names}
            differences.append(_compare(one_expected, {name: found[name][row] for name in names}, names))
    return float(np.max(differences) if precision == "float32" else np.median(differences))


def _compare(expected, found: Arrays, output_names: Sequence[str]) -> float:
    difference = 0.0
    for name in output_names:
        values = expected[name].numpy().astype(np.float64)
        # Logits may be large: what counts is how many digits agree.
        scale = max(1.0, np.abs(values).max())
        difference = np.maximum(difference, np.abs(found[name] - values).max() / scale)  # NaN stays NaN.
    return float(difference)


def _difference_error(format: str, precision: str, graph: Graph, difference: float) -> ValueError:
    if precision == "float32":
        return ValueError(
            f"`format` must give the same results as TensorFlow. Received: format={format!r}, whose "
            f"results differ by {difference:.2g}. {_advice_for_numbers(graph)}"
        )
    way_out = {
        "float16": "Leave `precision` out: weights of the model are out of the range of float16.",
        "int8": "Give more images, as the model will see them, to `calibration`; or choose "
        "precision='float16'.",
    }[precision]
    return ValueError(
        f"`precision` must keep the results of TensorFlow within {_MAX_DIFFERENCES[precision]}, for half of "
        f"the images at least. Received: precision={precision!r} and format={format!r}, whose results differ "
        f"by {difference:.2g}. {way_out}"
    )


def _conversion_error(cam, format: str, graph: Graph, error: Exception) -> ValueError:
    """Return the error to raise for a converter's: most often that one names an operation it lacks."""
    if numbers := _other_floats(graph):
        return ValueError(
            f"`model` must compute in numbers that `format` has. Received: format={format!r}, and a model "
            f"with {numbers}. {_advice_for_numbers(graph)}"
        )
    words = set(re.findall(r"\w+", str(error)))
    for node in graph.definition.node:
        if node.op in words - _COMMON_OPERATIONS:
            return _missing_operation_error(cam, format, node.op, node.name)
    return ValueError(
        "`format` must be able to express what `model`, `layer` and `method` compute. Received: "
        f"format={format!r}, whose library fails with: {str(error).strip():.200}"
    )


def _other_floats(graph: Graph) -> str:
    """Return the floating-point dtypes besides float32 that a graph computes in, such as `"float16"`."""
    types = {node.attr["T"].type for node in graph.definition.node if "T" in node.attr} - {0}
    found = {tf.as_dtype(one) for one in types} - {tf.float32}
    return " and ".join(sorted(one.name for one in found if one.is_floating))


def _advice_for_numbers(graph: Graph) -> str:
    """Return what to do where a format's results are not those of TensorFlow."""
    if _other_floats(graph):
        return "Build the model with the dtype policy 'float32', and give it these weights."
    return "Choose another format or a later layer."


def _missing_operation_error(cam, format: str, kind: str, name: str) -> ValueError:
    short_name = re.sub("StatefulPartitionedCall[^/]*/|gradient_tape/", "", name)
    return ValueError(
        "`format` must have every operation that `model`, `layer` and `method` need. Received: "
        f"format={format!r}, which has no {kind!r} ({short_name}). {_advice(cam, kind, name)}"
    )


def _advice(cam, kind: str, name: str) -> str:
    """Return what to do where a format lacks an operation."""
    if kind in _LOOPS_AND_BRANCHES:
        return _advice_without_loops(cam)
    if "gradient" not in name:
        return "Choose another format, or format='tensorflow'."
    last = default_layer(cam.model).layer
    if cam.layer is last:
        return "Choose a layer after it, a method without gradients, or format='tensorflow'."
    return f"Choose a layer after it: layer={layer_path(cam.model, last)!r} is the last with a map."


def _advice_without_loops(cam) -> str:
    if isinstance(cam.method, reciprocam):
        return "Give the method as many `places` as the layer has: methods.reciprocam(places=...)."
    if not is_formula(cam.method):
        return "Choose a method without loops, as 'gradcam' or 'layercam', or format='tensorflow'."
    loops = [
        path
        for path, layer in walk_layers(cam.model)
        if isinstance(layer, keras.layers.RNN) and not layer.unroll
    ]
    if loops:
        return (
            f"Build these layers with `unroll=True`, and give the model its weights: {loops}. Or choose "
            "format='tensorflow'."
        )
    return "The model, or a target of several scores, has it. Choose format='tensorflow'."

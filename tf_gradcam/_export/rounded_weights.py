"""Weights rounded to 8 bits, with biases that make up for it. `single_file` calls it.

Rounding moves the mean of each output of a convolution, and layer by layer these errors add up. They are the
error of the filters times the mean of what the convolution takes. That is subtracted after the convolution,
where runtimes join it with the bias (Nagel et al., ICCV 2019, section 4.2).
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_gradcam._graph import ancestors

SMALL = 2**12  # Fewer weights stay as they are: the file would hardly be smaller.
_STEPS = 127  # the largest whole number of 8 bits whose negative is one, too


class _Product(NamedTuple):
    """A convolution or a matrix product with constant weights.

    Attributes:
        operation: the operation.
        axes: the axes of the weights over which one step is shared: all but those of the output channels.
    """

    operation: tf.Operation
    axes: tuple[int, ...]


def round_weights(
    definition: tf.compat.v1.GraphDef, scores_name: str, batches: Sequence[Mapping[str, np.ndarray]]
) -> tf.compat.v1.GraphDef:
    """Return a graph whose forward pass has weights that 8 bits hold, and the same means on some images.

    Args:
        definition: the graph in plain operations.
        scores_name: the name of the model's output: what it depends on is the forward pass.
        batches: images by the names of the inputs.

    Returns:
        A graph of the same inputs and outputs. Each filter is a whole number from -127 to 127 times a step.
    """
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(definition, name="")
        products = _products(graph.get_tensor_by_name(f"{scores_name}:0"))
        inputs = _means(graph, [operation.inputs[0].name for operation, _ in products], batches)
    changed = tf.compat.v1.GraphDef()
    changed.CopyFrom(definition)
    errors = _round_constants(changed, products)
    moved = {
        operation.name: _moved_mean(operation, errors[operation.inputs[1].op.name], mean)
        for (operation, _), mean in zip(products, inputs, strict=True)
    }
    _subtract_after(changed, moved)
    return changed


def _round_constants(definition, products: Sequence[_Product]) -> dict[str, np.ndarray]:
    """Round the weights of the products, and return by how much, by the names of their constants."""
    nodes = {node.name: node for node in definition.node}
    errors: dict[str, np.ndarray] = {}
    for operation, axes in products:
        name = operation.inputs[1].op.name
        if name not in errors:
            value = nodes[name].attr["value"].tensor
            weights = tf.make_ndarray(value)
            rounded = _rounded(weights, axes)
            value.CopyFrom(tf.make_tensor_proto(rounded))
            errors[name] = rounded.astype(np.float64) - weights
    return errors


def _products(scores: tf.Tensor) -> list[_Product]:
    """Return the convolutions and matrix products that the scores depend on, of channels last."""
    found = []
    for operation in ancestors([scores]):
        kind = operation.type
        if (
            kind not in ("Conv2D", "DepthwiseConv2dNative", "MatMul")
            or operation.inputs[1].op.type != "Const"
        ):
            continue
        if kind == "MatMul":
            if not operation.get_attr("transpose_a"):
                found.append(_Product(operation, (1,) if operation.get_attr("transpose_b") else (0,)))
        elif operation.get_attr("data_format") == b"NHWC" and _has_one_group(operation):
            found.append(_Product(operation, (0, 1, 2) if kind == "Conv2D" else (0, 1)))
    weights = [product.operation.inputs[1] for product in found]
    large = [each.dtype == tf.float32 and each.shape.num_elements() >= SMALL for each in weights]
    return list(itertools.compress(found, large))


def _has_one_group(operation: tf.Operation) -> bool:
    images, filters = operation.inputs
    return images.shape[-1] is not None and images.shape[-1] == filters.shape[2]


def _means(
    graph: tf.Graph, names: Sequence[str], batches: Sequence[Mapping[str, np.ndarray]]
) -> list[np.ndarray]:
    """Return the mean of each channel of tensors, by their names."""
    with graph.as_default(), tf.compat.v1.Session() as session:
        tensors = [graph.get_tensor_by_name(name) for name in names]
        means = [tf.reduce_mean(each, list(range(each.shape.rank - 1))) for each in tensors]
        found = [
            session.run(means, {f"{name}:0": values for name, values in batch.items()}) for batch in batches
        ]
    counts = [len(next(iter(batch.values()))) for batch in batches]
    return [np.average(np.asarray(each, np.float64), 0, counts) for each in zip(*found, strict=True)]


def _rounded(weights: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    step = np.abs(weights).max(axes, keepdims=True) / _STEPS
    return (np.round(weights / np.where(step == 0, 1, step)) * step).astype(weights.dtype)


def _moved_mean(operation: tf.Operation, error: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return by how much the rounded weights move the mean of each output channel."""
    if operation.type == "MatMul":
        return (error if operation.get_attr("transpose_b") else error.T) @ mean
    summed = error.sum((0, 1))  # (C, K), or (C, M) for a depthwise convolution
    return mean @ summed if operation.type == "Conv2D" else (mean[:, None] * summed).ravel()


def _subtract_after(definition, moved: Mapping[str, np.ndarray]) -> None:
    """Subtract numbers, one for each channel, from outputs of operations, by their names."""
    for node in definition.node:
        node.input[:] = [
            f"{name}/corrected" if name.removesuffix(":0") in moved else name for name in node.input
        ]
    for name, numbers in moved.items():
        constant = definition.node.add(name=f"{name}/moved", op="Const")
        constant.attr["dtype"].type = tf.float32.as_datatype_enum
        constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(-numbers.astype(np.float32)))
        added = definition.node.add(name=f"{name}/corrected", op="AddV2", input=[name, constant.name])
        added.attr["T"].type = tf.float32.as_datatype_enum

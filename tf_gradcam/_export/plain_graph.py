"""Rewrite a frozen graph with operations that runtimes without TensorFlow know. `single_file` calls it.

These runtimes lack the gradients of layers, and much of the arithmetic on shapes. Shapes depend on nothing
but the number of images, so their values are measured at a few batch sizes and written as constants.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from tf_gradcam._export.plain_operations import (
    REWRITES,
    REWRITES_WITH_NUMBERS,
    LinearInBatchSize,
    Numbers,
    copy_operation,
)
from tf_gradcam._export.plain_windows import UnsupportedOperation
from tf_gradcam._graph import ancestors

# Constants with more numbers are weights: shapes and the vectors of a normalization have fewer.
LARGE_CONSTANT = 2**14
_BATCH_SIZES = (2, 3, 5)  # to measure at
_SHAPE_OPERATIONS = ("OnesLike", "Rank", "Shape", "ShapeN", "Size", "ZerosLike")
_IDENTITIES = ("CheckNumerics", "EnsureShape", "Identity", "IdentityN", "PreventGradient", "StopGradient")


def rewrite(
    concrete: tf.types.experimental.ConcreteFunction, input_names: Sequence[str], output_names: Sequence[str]
) -> tf.compat.v1.GraphDef:
    """Return the graph of `concrete` in plain operations: no gradient of a layer, few operations on shapes.

    Args:
        concrete: without variables and function calls, of tensors `(N, ...)` whose only open length is N.
        input_names: what to name its inputs.
        output_names: what to name its outputs.

    Raises:
        UnsupportedOperation: if it has a loop, a branch, or a gradient that can't be rewritten.
    """
    needed = ancestors(concrete.outputs)
    operations = [operation for operation in concrete.graph.get_operations() if operation in needed]
    for operation in operations:
        if any(attribute.type == "func" for attribute in operation.op_def.attr):
            raise UnsupportedOperation(operation)
    numbers = _measure_numbers(concrete, operations)
    with tf.Graph().as_default() as graph:
        new_tensors = {
            tensor.ref(): tf.compat.v1.placeholder(tensor.dtype, tensor.shape, name)
            for tensor, name in zip(concrete.inputs, input_names, strict=True)
        }
        batch_size = tf.shape(new_tensors[concrete.inputs[0].ref()])[0]
        for operation in operations:
            if operation.type == "Placeholder":
                continue
            measured = [numbers.get(tensor.ref()) for tensor in operation.outputs]
            if None in measured:
                inputs = [new_tensors[tensor.ref()] for tensor in operation.inputs]
                outputs = _rewrite_operation(operation, inputs, numbers)
            else:
                outputs = [number.tensor(batch_size) for number in measured if number is not None]
            for old, new in zip(operation.outputs, outputs, strict=False):
                new_tensors[old.ref()] = new
        for tensor, name in zip(concrete.outputs, output_names, strict=True):
            tf.identity(new_tensors[tensor.ref()], name)
    return _pruned(graph, input_names, output_names)


def _pruned(graph, input_names, output_names) -> tf.compat.v1.GraphDef:
    """Return the definition of a graph without the operations that no output needs."""
    outputs = [graph.get_tensor_by_name(f"{name}:0") for name in output_names]
    kept = {*input_names, *(operation.name for operation in ancestors(outputs))}
    definition = graph.as_graph_def()
    for index in reversed(range(len(definition.node))):
        if definition.node[index].name not in kept:
            del definition.node[index]  # In place: a copy would need the memory of the weights again.
    return definition


def _rewrite_operation(operation: tf.Operation, inputs: list[tf.Tensor], numbers: Numbers) -> list[tf.Tensor]:
    """Return the outputs of one operation, written in plain ones."""
    kind = operation.type
    if kind in _IDENTITIES:
        return inputs
    with tf.name_scope(operation.name + "/"):
        if kind in REWRITES:
            return [REWRITES[kind](operation, *inputs)]
        if kind in REWRITES_WITH_NUMBERS:
            return [REWRITES_WITH_NUMBERS[kind](operation, inputs, numbers)]
    if kind.endswith("Grad") or "Backprop" in kind:
        raise UnsupportedOperation(operation)
    return copy_operation(operation, inputs)


def _measure_numbers(concrete, operations: Sequence[tf.Operation]) -> Numbers:
    """Return the value of each tensor that depends on nothing but the number of images.

    A tensor whose value is not linear in that number is left out.
    """
    tensors = _image_independent_tensors(operations)
    # No shape depends on the weights, so zeros take their place: those need no memory in a graph.
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        copies = {
            tensor.ref(): tf.compat.v1.placeholder(tensor.dtype, tensor.shape) for tensor in concrete.inputs
        }
        for operation in operations:
            if operation.type == "Placeholder":
                continue
            if _is_large_constant(operation):
                outputs = [tf.zeros(operation.outputs[0].shape, operation.outputs[0].dtype)]
            else:
                outputs = copy_operation(operation, [copies[tensor.ref()] for tensor in operation.inputs])
            for old, copy in zip(operation.outputs, outputs, strict=True):
                copies[old.ref()] = copy
        values_by_batch_size = []
        for batch_size in _BATCH_SIZES:
            images = {
                copies[tensor.ref()]: np.zeros([batch_size, *tensor.shape[1:]], tensor.dtype.as_numpy_dtype)
                for tensor in concrete.inputs
            }
            fetched = session.run([copies[tensor.ref()] for tensor in tensors], images)
            values_by_batch_size.append(fetched)
    numbers = {}
    for tensor, values in zip(tensors, zip(*values_by_batch_size, strict=True), strict=True):
        number = _fit_line(values)
        if number is not None:
            numbers[tensor.ref()] = number
    return numbers


def _image_independent_tensors(operations: Sequence[tf.Operation]) -> list[tf.Tensor]:
    """Return the computed tensors that depend on the images' shapes at most, not on their pixels."""
    independent: set[tf.Operation] = set()
    tensors: list[tf.Tensor] = []
    for operation in operations:
        if operation.type == "Placeholder" or operation.op_def.is_stateful or _is_large_constant(operation):
            continue
        if operation.type in _SHAPE_OPERATIONS or all(
            tensor.op in independent for tensor in operation.inputs
        ):
            independent.add(operation)
            if operation.inputs and operation.type not in _IDENTITIES:
                tensors += operation.outputs
    return tensors


def _is_large_constant(operation: tf.Operation) -> bool:
    return operation.type == "Const" and operation.outputs[0].shape.num_elements() > LARGE_CONSTANT


def _fit_line(values: Iterable[np.ndarray]) -> LinearInBatchSize | None:
    """Return what has these values at `_BATCH_SIZES`, or `None` if they don't lie on a line."""
    first, second, third = (np.asarray(value) for value in values)
    if not first.shape == second.shape == third.shape:
        return None
    if np.array_equal(first, second) and np.array_equal(first, third):
        return LinearInBatchSize(None, first)
    if not np.issubdtype(first.dtype, np.integer):
        return None
    slope = second - first
    line = LinearInBatchSize(slope, first - _BATCH_SIZES[0] * slope)
    fits = all(map(np.array_equal, map(line.at, _BATCH_SIZES), (first, second, third)))
    return line if fits else None

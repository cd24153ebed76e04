"""Read a TensorFlow graph: what a tensor depends on, and which operations are between two tensors.

Called while a model is being traced, by discovery, scenes, methods and exports.
"""

import collections
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def ancestors(
    tensors: Iterable[tf.Tensor], stop: Callable[[tf.Operation], bool] | None = None
) -> dict[tf.Operation, None]:
    """Return the operations on which `tensors` depend, the nearest first.

    Args:
        tensors: tensors of one graph.
        stop: function that returns `True` for an operation to leave out, with all operations before it.
    """
    found: dict[tf.Operation, None] = {}
    waiting = collections.deque(tensor.op for tensor in tensors)
    while waiting:
        operation = waiting.popleft()
        if operation in found or (stop is not None and stop(operation)):
            continue
        found[operation] = None
        waiting += [tensor.op for tensor in operation.inputs]
    return found


def has_channel_axis(image: tf.Tensor, end: tf.Tensor) -> bool:
    """Return whether the last axis of an input `image` holds channels, to judge by its way to `end`.

    It does not if the model appends a channel axis, or flattens `(N, h, w)` to a vector.
    """
    if image.shape.rank < 3 or image.shape[-1] == 1:
        return image.shape.rank > 2
    lengths = list(image.shape[1:])
    copies = {image.ref()}
    for operation in operations_between(image, end):
        if not any(tensor.ref() in copies for tensor in operation.inputs) or not operation.outputs:
            continue
        output = operation.outputs[0]
        after = list(output.shape[1:]) if output.shape.rank else []
        if after == lengths:  # as a cast or a rescaling
            copies.add(output.ref())
        is_flattened = operation.type == "Reshape" and len(lengths) == 2 and len(after) == 1
        if after == [*lengths, 1] or is_flattened:
            return False
    return True


_SHAPE_OPERATIONS = ("Rank", "Shape", "ShapeN", "Size")  # Operations that read a shape, not values.


def operations_between(start: tf.Tensor, end: tf.Tensor) -> list[tf.Operation]:
    """Return the operations between `start` and `end`, whose values depend on `start`, in order."""
    path = ancestors([end], lambda operation: operation is start.op)
    return operations_reached([start], end.graph, path)


def operations_after(starts: Sequence[tf.Tensor], end: tf.Tensor) -> list[tf.Operation]:
    """Return the operations on the way to `end` whose values depend on one of `starts`, in order.

    One of `starts` may depend on another.
    """
    return operations_reached(starts, end.graph, ancestors([end]))


def operations_reached(
    starts: Sequence[tf.Tensor], graph: tf.Graph, path: Container[tf.Operation]
) -> list[tf.Operation]:
    """Return the operations of `path`, in `graph`, whose values depend on one of `starts`, in order."""
    reached, found = {start.ref() for start in starts}, []
    for operation in graph.get_operations():
        reads_values = operation in path and operation.type not in _SHAPE_OPERATIONS
        if reads_values and any(tensor.ref() in reached for tensor in operation.inputs):
            reached.update(tensor.ref() for tensor in operation.outputs)
            found.append(operation)
    return found


# Operations that are affine in their input. Of the two factors of a product, only one may vary.
_AFFINE = {"AddV2", "BiasAdd", "Cast", "Identity", "MatMul", "Mean", "Mul", "Reshape", "Squeeze", "Sub"}


def non_affine_operations(start: tf.Tensor, end: tf.Tensor) -> list[tf.Operation]:
    """Return the operations between `start` and `end` that are not affine.

    There are none in a head of average pooling and a dense layer.
    """
    steps = operations_between(start, end)
    varying = {start.ref(), *(output.ref() for step in steps for output in step.outputs)}

    def is_affine(step):
        is_product = step.type in ("MatMul", "Mul")
        factors = sum(factor.ref() in varying for factor in step.inputs) if is_product else 1
        return step.type in _AFFINE and factors == 1

    return [step for step in steps if not is_affine(step)]


def mean_poolings(start: tf.Tensor, end: tf.Tensor, axes: Sequence[int]) -> list[tf.Tensor]:
    """Return the means of `start` over `axes`; `[]` if `end` depends on `start` by anything else."""
    copies, found = {start.ref()}, []
    for step in operations_between(start, end):
        if not any(tensor.ref() in copies for tensor in step.inputs):
            continue
        if step.type in ("Cast", "Identity"):
            copies.add(step.outputs[0].ref())
        elif step.type == "Mean" and _reduced_axes(step) == set(axes):
            found.append(step.outputs[0])
        else:
            return []
    return found


def _reduced_axes(mean) -> set[int] | None:
    axes = tf.get_static_value(mean.inputs[1])
    return None if axes is None else {int(axis) % mean.inputs[0].shape.rank for axis in np.ravel(axes)}


def is_dense_head(start: tf.Tensor, end: tf.Tensor) -> bool:
    """Return whether `end` is an affine function of `start`, row by row, in float32 or float64."""
    steps = operations_between(start, end)
    outputs = [output for step in steps for output in step.outputs]
    varying = {start.ref(), *(output.ref() for output in outputs)}

    def keeps_rows(step):
        if step.type == "MatMul":
            return step.inputs[0].ref() in varying and not step.get_attr("transpose_a")
        return step.type not in ("Mean", "Reshape")

    is_precise = all(tensor.dtype in (tf.float32, tf.float64) for tensor in [start, *outputs])
    is_affine = bool(steps) and not non_affine_operations(start, end)
    return is_affine and is_precise and all(map(keeps_rows, steps))


def find_token_start(operations: Iterable[tf.Operation], tokens: int, patches: int) -> int | None:
    """Return the position of the first patch among tokens that were concatenated from several tensors.

    Args:
        operations: operations on which the tokens depend, the nearest first.
        tokens: number of tokens.
        patches: number of tokens that are patches.

    Returns:
        The position, or `None` if the patches were not concatenated with other tokens.
    """
    for operation in operations:
        if operation.type != "ConcatV2" or operation.outputs[0].shape[1:2] != [tokens]:
            continue
        lengths = [part.shape[1] if part.shape.rank == 3 else None for part in operation.inputs[:-1]]
        for index, length in enumerate(lengths):
            before = [one for one in lengths[:index] if one is not None]
            if len(before) < index or length is None or not patches <= length < tokens:
                continue
            inner_start: int | None = 0
            if length > patches:
                inner_start = find_token_start(ancestors([operation.inputs[index]]), length, patches)
            if inner_start is not None:
                return sum(before) + inner_start
    return None


def flattened_grids(operations: Iterable[tf.Operation]) -> list[tuple[int, int]]:
    """Return each `(h, w)` that one of `operations` reshapes to `h * w` tokens, the most likely first.

    `(N, h, w, ...)` becomes `(N, h * w, ...)`. With channels first, `(N, C, h, w)` becomes `(N, C, h * w)`,
    and is then transposed; attention merges its heads by the same reshape, but transposes nothing after it.
    """
    reshapes = [one for one in operations if one.type == "Reshape"]
    found, channels_first = [], []
    for one in reshapes:
        before, after = one.inputs[0].shape, one.outputs[0].shape
        if not before.rank or not after.rank:
            continue
        grid = tuple(before[1:3])
        if before.rank > 3 and None not in grid and after[1:2] in [[None], [grid[0] * grid[1]]]:
            found.append(grid)
        elif before.rank == 4 and after.rank == 3 and None not in before[2:] and before[1] == after[1]:
            readers = [each.type for each in one.outputs[0].consumers()]
            channels_first += [tuple(before[2:])] if "Transpose" in readers else []
    return found + channels_first


def function_graph(call: tf.Operation, attribute: str = "f", graph: tf.Graph | None = None) -> Any | None:
    """Return the graph of the function that `call` runs, or `None` if it cannot be read.

    Args:
        call: an operation that runs a function.
        attribute: its attribute with the name of the function.
        graph: the graph that knows the function, by default that of `call`.
    """
    try:  # TensorFlow has no public way to a function of a graph.
        return (graph or call.graph)._get_function(call.get_attr(attribute).name).graph
    except Exception:  # Whatever is private may change.
        return None


def concatenated_parts(output: tf.Tensor) -> list[tf.Tensor]:
    """Return the tensors that `output` was concatenated or stacked from, as a detector's, or `[output]`."""
    operation = output.op
    while operation.type in _PASSING:
        operation = operation.inputs[0].op
    parts = {"ConcatV2": operation.inputs[:-1], "Pack": operation.inputs}.get(operation.type)
    return [output] if parts is None else [part for one in parts for part in concatenated_parts(one)]


_PASSING = ("Cast", "ExpandDims", "Identity", "Reshape", "Sigmoid", "Softmax", "Squeeze", "Transpose")

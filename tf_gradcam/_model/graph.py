"""Read a TensorFlow graph: what a tensor depends on, and what is between two tensors.

Called while a model is being traced, by whoever asks how layer, image and score hang together.
"""

import collections
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf


def ancestors(
    tensors: Iterable[tf.Tensor], stop: Callable[[tf.Operation], bool] | None = None
) -> dict[tf.Operation, None]:
    """Return the operations of a graph that `tensors` depend on, the nearest first.

    Args:
        tensors: of one graph.
        stop: where it returns `True`, the operation and those before it are left out.
    """
    found: dict[tf.Operation, None] = {}
    waiting = collections.deque(tensor.op for tensor in tensors)
    while waiting:
        operation = waiting.popleft()
        if operation in found or (stop is not None and stop(operation)):
            continue
        found[operation] = None
        waiting += [each.op for each in operation.inputs]
    return found


_READ_SHAPES = ("Rank", "Shape", "ShapeN", "Size")  # operations that look at a shape, not at a value


def operations_between(start: tf.Tensor, end: tf.Tensor) -> list[tf.Operation]:
    """Return the operations by which the values of `end` depend on those of `start`, in order."""
    path = ancestors([end], lambda operation: operation is start.op)
    reached, found = {start.ref()}, []
    for operation in end.graph.get_operations():
        reads_values = operation in path and operation.type not in _READ_SHAPES
        if reads_values and any(each.ref() in reached for each in operation.inputs):
            reached.update(each.ref() for each in operation.outputs)
            found.append(operation)
    return found


# Operations that keep an affine function affine. Of the two factors of a product, only one may vary.
_AFFINE = {"AddV2", "BiasAdd", "Cast", "Identity", "MatMul", "Mean", "Mul", "Reshape", "Squeeze", "Sub"}


def non_affine_operations(start: tf.Tensor, end: tf.Tensor) -> list[tf.Operation]:
    """Return the operations that keep `end` from being an affine function of `start`.

    A pooled dense head has none.
    """
    steps = operations_between(start, end)
    varying = {start.ref(), *(each.ref() for step in steps for each in step.outputs)}

    def is_affine(step):
        is_product = step.type in ("MatMul", "Mul")
        factors = sum(each.ref() in varying for each in step.inputs) if is_product else 1
        return step.type in _AFFINE and factors == 1

    return [step for step in steps if not is_affine(step)]


def mean_poolings(start: tf.Tensor, end: tf.Tensor, axes: Sequence[int]) -> list[tf.Tensor]:
    """Return the means of `start` over `axes`, if `end` depends on `start` by nothing else; else `[]`."""
    same, found = {start.ref()}, []
    for step in operations_between(start, end):
        if not any(each.ref() in same for each in step.inputs):
            continue
        if step.type in ("Cast", "Identity"):
            same.add(step.outputs[0].ref())
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
    outputs = [each for step in steps for each in step.outputs]
    varying = {start.ref(), *(each.ref() for each in outputs)}

    def keeps_rows(step):
        if step.type == "MatMul":
            return step.inputs[0].ref() in varying and not step.get_attr("transpose_a")
        return step.type not in ("Mean", "Reshape")

    is_precise = all(each.dtype in (tf.float32, tf.float64) for each in [start, *outputs])
    is_affine = bool(steps) and not non_affine_operations(start, end)
    return is_affine and is_precise and all(map(keeps_rows, steps))


def find_token_start(operations: Iterable[tf.Operation], tokens: int, places: int) -> int | None:
    """Return the position of the first patch among tokens that were joined from several pieces.

    Args:
        operations: those that the tokens depend on, the nearest first.
        tokens: how many tokens there are.
        places: how many of them are patches.

    Returns:
        The position, or `None` if the patches were not joined with others.
    """
    for operation in operations:
        if operation.type != "ConcatV2" or operation.outputs[0].shape[1:2] != [tokens]:
            continue
        lengths = [piece.shape[1] if piece.shape.rank == 3 else None for piece in operation.inputs[:-1]]
        for index, length in enumerate(lengths):
            before = [each for each in lengths[:index] if each is not None]
            if len(before) < index or length is None or not places <= length < tokens:
                continue
            inner: int | None = 0
            if length > places:
                inner = find_token_start(ancestors([operation.inputs[index]]), length, places)
            if inner is not None:
                return sum(before) + inner
    return None


def flattened_grids(operations: Iterable[tf.Operation]) -> list[tuple[int, int]]:
    """Return each `(h, w)` that one of `operations` reshapes to `h * w` tokens, the likelier first.

    `(N, h, w, ...)` becomes `(N, h * w, ...)`. With channels first, `(N, C, h, w)` becomes `(N, C, h * w)`;
    these come last, as attention joins its heads in the same way.
    """
    shapes = [(each.inputs[0].shape, each.outputs[0].shape) for each in operations if each.type == "Reshape"]
    shapes = [(tuple(before), tuple(after)) for before, after in shapes if before.rank and after.rank]
    found, channels_first = [], []
    for before, after in shapes:
        places = before[1:3]
        if len(before) > 3 and None not in places and after[1:2] in [(None,), (places[0] * places[1],)]:
            found.append(places)
        elif len(before) == 4 and len(after) == 3 and None not in before[2:] and before[1] == after[1]:
            channels_first.append(before[2:])
    return found + channels_first


def concatenated_parts(output: tf.Tensor) -> list[tf.Tensor]:
    """Return the tensors that `output` was concatenated from, as a detector's from its levels, or itself."""
    operation = output.op
    while operation.type in ("Cast", "Identity", "Reshape", "Sigmoid", "Softmax", "Transpose"):
        operation = operation.inputs[0].op
    if operation.type != "ConcatV2":
        return [output]
    return [piece for each in operation.inputs[:-1] for piece in concatenated_parts(each)]

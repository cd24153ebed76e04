"""Read a TensorFlow graph: what a tensor comes out of, and what is between two of them."""

import collections
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf


def ancestors(
    tensors: Iterable[tf.Tensor], stop: Callable[[tf.Operation], bool] | None = None
) -> dict[tf.Operation, None]:
    """Return the operations of a graph that `tensors` come out of, the nearest first, but not past `stop`."""
    found, waiting = {}, collections.deque(tensor.op for tensor in tensors)
    while waiting:
        operation = waiting.popleft()
        if operation in found or (stop is not None and stop(operation)):
            continue
        found[operation] = None
        waiting += [each.op for each in operation.inputs]
    return found


_OF_SHAPES = ("Rank", "Shape", "ShapeN", "Size")  # operations that look at no value


def operations_between(start: tf.Tensor, end: tf.Tensor) -> list[tf.Operation]:
    """Return the operations through which the values of `end` depend on those of `start`, in their order."""
    way = ancestors([end], lambda operation: operation is start.op)
    reached, found = {start.ref()}, []
    for operation in end.graph.get_operations():
        of_values = operation in way and operation.type not in _OF_SHAPES
        if of_values and any(each.ref() in reached for each in operation.inputs):
            reached.update(each.ref() for each in operation.outputs)
            found.append(operation)
    return found


# Steps that keep an affine function affine; of two factors only one may depend on what it is a function of.
_AFFINE = {"AddV2", "BiasAdd", "Cast", "Identity", "MatMul", "Mean", "Mul", "Reshape", "Squeeze", "Sub"}


def non_affine_operations(start: tf.Tensor, end: tf.Tensor) -> list[tf.Operation]:
    """Return the operations for which `end` is no affine function of `start`, as a pooled dense head is."""
    steps = operations_between(start, end)
    depends = {start.ref(), *(each.ref() for step in steps for each in step.outputs)}

    def is_affine(step):
        factors = sum(each.ref() in depends for each in step.inputs) if step.type in ("MatMul", "Mul") else 1
        return step.type in _AFFINE and factors == 1

    return [step for step in steps if not is_affine(step)]


def mean_poolings(start: tf.Tensor, end: tf.Tensor, axes: Sequence[int]) -> list[tf.Tensor]:
    """Return the means over `axes` of `start` if they are all that `end` gets of it; else nothing."""
    same, found = {start.ref()}, []
    for step in operations_between(start, end):
        if not any(each.ref() in same for each in step.inputs):
            continue
        if step.type in ("Cast", "Identity"):
            same.add(step.outputs[0].ref())
        elif step.type == "Mean" and _reduced(step) == set(axes):
            found.append(step.outputs[0])
        else:
            return []
    return found


def _reduced(mean) -> set[int] | None:
    axes = tf.get_static_value(mean.inputs[1])
    return None if axes is None else {int(axis) % mean.inputs[0].shape.rank for axis in np.ravel(axes)}


def is_dense_head(start: tf.Tensor, end: tf.Tensor) -> bool:
    """Whether `end` is an affine function of `start`, in full precision and row by row."""
    steps = operations_between(start, end)
    outputs = [each for step in steps for each in step.outputs]
    depends = {start.ref(), *(each.ref() for each in outputs)}
    by_row = all(
        step.type not in ("Mean", "Reshape")
        and (step.type != "MatMul" or (step.inputs[0].ref() in depends and not step.get_attr("transpose_a")))
        for step in steps
    )
    in_full = all(each.dtype in (tf.float32, tf.float64) for each in [start, *outputs])
    return bool(steps) and by_row and in_full and not non_affine_operations(start, end)


def find_token_start(operations: Iterable[tf.Operation], tokens: int, places: int) -> int | None:
    """Return where among `tokens` those `places` begin that were joined with others; `None` if nowhere."""
    for operation in operations:
        if operation.type != "ConcatV2" or operation.outputs[0].shape[1:2] != [tokens]:
            continue
        lengths = [piece.shape[1] if piece.shape.rank == 3 else None for piece in operation.inputs[:-1]]
        for index, length in enumerate(lengths):
            before = lengths[:index]
            if None in before or length is None or not places <= length < tokens:
                continue
            inner = 0
            if length > places:
                inner = find_token_start(ancestors([operation.inputs[index]]), length, places)
            if inner is not None:
                return sum(before) + inner
    return None


def flattened_grids(operations: Iterable[tf.Operation]) -> list[tuple[int, int]]:
    """Return each `(h, w)` that one of `operations` reshapes to `h * w` tokens, the likelier first.

    `(N, h, w, ...)` becomes `(N, h * w, ...)`. With channels first `(N, C, h, w)` becomes `(N, C, h * w)`,
    but so does attention join its heads.
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
    """Return what `output` was put together from, as a detector's is from its levels; or else itself."""
    operation = output.op
    while operation.type in ("Cast", "Identity", "Reshape", "Sigmoid", "Softmax", "Transpose"):
        operation = operation.inputs[0].op
    if operation.type != "ConcatV2":
        return [output]
    return [piece for each in operation.inputs[:-1] for piece in concatenated_parts(each)]

"""What single operations of a TensorFlow graph do to the positions of a tensor. `placement` calls it."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

HIDING = ("If", "PartitionedCall", "StatefulPartitionedCall", "StatelessIf", "StatelessWhile", "While")
_IN_BODIES = ("ConcatV2", "MirrorPad", "Pad", "PadV2", "ReverseV2", "Slice", "StridedSlice")
# Operations that may move positions in a way that their arguments do not say.
MOVING = (
    *("CropAndResize", "EagerPyFunc", "ExtractGlimpse", "ExtractGlimpseV2", "Gather", "GatherNd", "GatherV2"),
    *("ImageProjectiveTransformV2", "ImageProjectiveTransformV3", "PyFunc", "PyFuncStateless"),
)
_CONVOLUTIONS = ("Conv2D", "Conv3D", "DepthwiseConv2dNative")
_POOLINGS = ("AvgPool", "AvgPool3D", "MaxPool", "MaxPool3D")
WINDOWED = (*_CONVOLUTIONS, *_POOLINGS)
WEIGHTED = (*_CONVOLUTIONS, "BatchMatMulV2", "Conv2DBackpropInput", "Einsum", "MatMul")
_REDUCTIONS = ("All", "Any", "Max", "Mean", "Min", "Prod", "Sum")


def is_number(value: Any) -> bool:
    """Return whether `value` is a Python number, not a tensor."""
    return isinstance(value, int | float)


def length(tensor: tf.Tensor, axis: int) -> Any:
    """Return the length of an axis as a number, or as a float32 tensor if it is open."""
    known = tensor.shape[axis]
    if known is not None:
        return known
    # The length of what is filled with one value is known without filling it.
    operation = tensor.op
    while operation.type in ("Cast", "Identity", "Mul"):
        same_rank = [one for one in operation.inputs if one.shape.rank == tensor.shape.rank]
        if len(same_rank) != 1:
            break
        operation = same_rank[0].op
    if operation.type == "Fill":
        return _elements(operation.inputs[0], tensor.shape.rank)[axis]
    return tf.cast(tf.shape(tensor)[axis], tf.float32)


def _elements(vector: tf.Tensor, count: int) -> list:
    """Return the numbers in a vector: Python numbers where they are constant, float32 tensors elsewhere."""
    known = tf.get_static_value(vector, partial=True)
    if known is None:
        known = [None] * count
    return [
        tf.cast(vector[index], tf.float32) if each is None else int(each) for index, each in enumerate(known)
    ]


def paddings_of(operation: tf.Operation) -> list[tuple[Any, Any]]:
    """Return (before, after) for each axis of a padding."""
    paddings, rank = operation.inputs[1], operation.inputs[0].shape.rank
    known = tf.get_static_value(paddings)
    if known is not None:
        return [(int(before), int(after)) for before, after in known]
    if paddings.op.type == "Pack":
        rows = [_elements(row, 2) for row in paddings.op.inputs]
    else:
        rows = [_elements(paddings[axis], 2) for axis in range(rank)]
    return [(before, after) for before, after in rows]


def reversed_axes(operation: tf.Operation) -> list[int] | None:
    """Return the axes that a reversal reverses, or `None` if they are not known."""
    axes = tf.get_static_value(operation.inputs[1])
    rank = operation.inputs[0].shape.rank
    return None if axes is None else [int(axis) % rank for axis in axes]


def slices_of(operation: tf.Operation) -> tuple[Callable, list] | None:
    """Return a function from an output to the share of each axis that it holds, and the axes that are kept.

    The second is, for each axis of the output, the axis of the input, or `None` for a new one.
    """
    return {
        "Slice": _slice,
        "Split": _split,
        "SplitV": _split,
        "StridedSlice": _strided_slice,
        "Unpack": _unpack,
    }[operation.type](operation)


def _share(values, axis, begin, end):
    """Return the share of an axis between two positions."""
    positions = length(values, axis)
    return begin / positions, end / positions


def _slice(operation):
    values, begin, size = operation.inputs
    rank = values.shape.rank
    begins, sizes = _elements(begin, rank), _elements(size, rank)
    shares = {}
    for axis, (first, count) in enumerate(zip(begins, sizes, strict=True)):
        if is_number(count) and count == -1:
            whole = is_number(first) and first == 0
            shares[axis] = (0, 1) if whole else (_share(values, axis, first, first)[0], 1.0)
        else:
            shares[axis] = _share(values, axis, first, first + count)
    return (lambda output: shares), list(range(rank))


def _split(operation):
    values = operation.inputs[1] if operation.type == "Split" else operation.inputs[0]
    axis = tf.get_static_value(operation.inputs[0] if operation.type == "Split" else operation.inputs[2])
    if axis is None:
        return None
    axis, outputs = int(axis) % values.shape.rank, list(operation.outputs)

    def shares(output):
        number = next(index for index, each in enumerate(outputs) if each is output)
        before = sum(length(each, axis) for each in outputs[:number])
        return {axis: _share(values, axis, before, before + length(output, axis))}

    return shares, list(range(values.shape.rank))


def _unpack(operation):
    axis = operation.get_attr("axis") % operation.inputs[0].shape.rank
    return (lambda output: {}), [one for one in range(operation.inputs[0].shape.rank) if one != axis]


def _strided_slice(operation):
    values, begin, end, strides = operation.inputs
    rank, count = values.shape.rank, begin.shape[0]
    steps = tf.get_static_value(strides)
    if count is None or steps is None:
        return None
    begins, ends = _elements(begin, count), _elements(end, count)
    masks = {
        name: operation.get_attr(f"{name}_mask")
        for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }

    def has(name, index):
        return bool(masks[name] >> index & 1)

    shares, kept, axis = {}, [], 0
    for index in range(count):
        if has("ellipsis", index):
            after = sum(not has("new_axis", later) for later in range(index + 1, count))
            kept += range(axis, rank - after)
            axis = rank - after
        elif has("new_axis", index):
            kept.append(None)
        else:
            if not has("shrink_axis", index):
                kept.append(axis)
                first = None if has("begin", index) else begins[index]
                last = None if has("end", index) else ends[index]
                shares[axis] = _strided_share(values, axis, first, last, int(steps[index]))
            axis += 1
    return (lambda output: shares), [*kept, *range(axis, rank)]


def _strided_share(values, axis, first, last, step):
    """Return the share of an axis in `[first:last:step]`; what is left out by the step counts as covered."""
    if first is None and last is None:
        return (0, 1) if step > 0 else (1, 0)
    positions = length(values, axis)

    def position(value):
        """Return a position from 0 to the length, as Python counts."""
        if is_number(value) and is_number(positions):
            return min(max(value + positions if value < 0 else value, 0), positions)
        value = tf.cast(value, tf.float32)
        return tf.clip_by_value(
            tf.where(value < 0, value + positions, value), 0.0, tf.cast(positions, tf.float32)
        )

    if step < 0:  # From `first` down to `last`, without `last`.
        start = positions if first is None else position(first) + 1
        stop = 0 if last is None else position(last) + 1
        return start / positions, stop / positions
    start = 0 if first is None else position(first)
    stop = positions if last is None else position(last)
    if step > 1 and is_number(start):
        start -= start % step
    return start / positions, stop / positions


def kept_axes(operation: tf.Operation, index: int, axes: Sequence[int | None]) -> tuple | None:
    """Return for each axis of the output the axis of the image, or `None` if one of them is lost.

    Args:
        operation: the operation.
        index: its input to follow.
        axes: for each axis of that input the axis of the image, or `None`.
    """
    values, output = operation.inputs[index], operation.outputs[0]
    if output.shape.rank is None:
        return None
    if operation.type == "Transpose":
        order = tf.get_static_value(operation.inputs[1])
        return None if order is None else tuple(axes[axis] for axis in order)
    sources = source_axes(operation, values, output)
    if sources is None:
        return None
    found = tuple(None if source is None else axes[source] for source in sources)
    is_complete = {axis for axis in axes if axis is not None} <= set(found)
    return found if is_complete else None


def source_axes(operation: tf.Operation, values: tf.Tensor, output: tf.Tensor) -> list | None:
    """Return for each axis of an output the axis of its input `values` that it is, or `None`."""
    before, after = values.shape.rank, output.shape.rank
    if operation.type == "ExpandDims":
        axis = tf.get_static_value(operation.inputs[1])
        if axis is None:
            return None
        axis = int(axis) % after
        return [*range(axis), None, *range(axis, before)]
    if operation.type == "Squeeze":
        dropped = {axis % before for axis in operation.get_attr("squeeze_dims")}
        return [axis for axis in range(before) if axis not in dropped] if dropped else None
    if operation.type == "Reshape":
        return _reshaped_axes(tuple(values.shape), tuple(output.shape))
    if operation.type in _REDUCTIONS:
        reduced = tf.get_static_value(operation.inputs[1])
        if reduced is None:
            return None
        dropped = {int(axis) % before for axis in reduced.reshape(-1)}
        kept = [None if axis in dropped else axis for axis in range(before)]
        return kept if operation.get_attr("keep_dims") else [axis for axis in kept if axis is not None]
    if operation.type == "Pack":
        axis = operation.get_attr("axis") % after
        return [*range(axis), None, *range(axis, before)]
    return list(range(before)) if before == after else None


def _reshaped_axes(before, after) -> list:
    """Return the axes that a reshape keeps, from the end or else from the start."""
    found: list[int | None] = [None] * len(after)
    for back in range(1, min(len(before), len(after)) + 1):
        if before[-back] != after[-back]:
            break
        found[-back] = len(before) - back
    for axis, (old, new) in enumerate(zip(before, after, strict=False)):
        if old != new or axis in found:
            break
        found[axis] = axis
    return found


def absorbs_padding(operation: tf.Operation, axes: Sequence[int | None], padding: Sequence[Any]) -> bool:
    """Return whether a padding belongs to a convolution or pooling with overlapping windows.

    It does if it adds no more positions than padding of kind "same" may, as in a ResNet or MobileNet.

    Args:
        operation: the convolution or pooling.
        axes: for each axis of its input the axis of the image, or `None`.
        padding: number of positions that were added to each axis of the image.
    """
    if operation.get_attr("padding") != b"VALID":
        return False
    rank = len(axes)
    first = 2 if operation.get_attr("data_format").startswith(b"NC") else 1
    strides = operation.get_attr("strides")
    for axis, image_axis in enumerate(axes):
        if image_axis is None or (is_number(padding[image_axis]) and padding[image_axis] == 0):
            continue
        if operation.type in _POOLINGS:
            kernel, dilation = operation.get_attr("ksize")[axis], 1
        else:
            kernel = operation.inputs[1].shape[axis - first] if first <= axis < first + rank - 2 else None
            dilation = operation.get_attr("dilations")[axis]
        reach = ((kernel or 1) - 1) * dilation
        added = padding[image_axis]
        if not is_number(added) or added > reach or reach + 1 <= strides[axis]:
            return False
    return True


def spread_padding(operation: tf.Operation, axes: Sequence[int | None], padding: Sequence[Any]) -> tuple:
    """Return how many positions of `padding` are in each part that a space-to-batch makes."""
    blocks = tf.get_static_value(operation.inputs[1])
    found = list(padding)
    for image_axis, block in zip(axes[1:], [] if blocks is None else blocks, strict=False):
        if image_axis is not None and is_number(found[image_axis]):
            found[image_axis] = -(-found[image_axis] // int(block))
    return tuple(found)


def moving_operations_inside(operation: tf.Operation) -> list[str]:
    """Return the types of operations that may move positions, in the functions that `operation` calls."""
    library = _library(operation.graph)
    waiting, seen, found = _called(operation.node_def), set(), set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in library:
            continue
        seen.add(name)
        with tf.init_scope():
            body = function_def_to_graph(library[name])
        for inner in body.get_operations():
            waiting += _called(inner.node_def)
            if inner.type in MOVING or (inner.type in _IN_BODIES and _takes_image(inner)):
                found.add(inner.type)
    return sorted(found)


def _takes_image(operation) -> bool:
    """Return whether an operation in the body of a function may take an image, and not a shape."""
    rank = operation.inputs[0].shape.rank
    if rank is None:  # The state of a recurrent layer is sliced and concatenated.
        return operation.type not in ("ConcatV2", "StridedSlice")
    return rank >= 3


def _library(graph) -> dict:
    return {each.signature.name: each for each in graph.as_graph_def().library.function}


def _called(node) -> list[str]:
    return [value.func.name for value in node.attr.values() if value.func.name]


def inlined(operation: tf.Operation) -> list[tuple[list, list]] | None:
    """Return the operations and results of the function that a call runs, or of both of a branch.

    Copies of them are added to the graph; only what is needed of them will run. Returns `None` for a loop.
    """
    if operation.type in ("StatelessWhile", "While"):
        return None
    is_branch = operation.type in ("If", "StatelessIf")
    names = [
        operation.get_attr(name).name for name in (("then_branch", "else_branch") if is_branch else ("f",))
    ]
    arguments = operation.inputs[1:] if is_branch else operation.inputs
    return [_import(operation, name, arguments) for name in names]


def _import(operation, name, arguments):
    library = _library(operation.graph)
    with tf.init_scope():
        body = function_def_to_graph(library[name])
    definition = body.as_graph_def()
    given = {tensor.name: argument for tensor, argument in zip(body.inputs, arguments, strict=True)}
    operations = [each.name for each in body.get_operations() if each.type != "Placeholder"]
    elements = [*operations, *(tensor.name for tensor in body.outputs)]
    found = tf.graph_util.import_graph_def(definition, given, elements, name="placement")
    return found[: len(operations)], found[len(operations) :]

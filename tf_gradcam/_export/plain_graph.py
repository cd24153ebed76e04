"""A frozen graph, written anew from operations that runtimes without TensorFlow know.

What they lack is gradients of layers, and arithmetic on shapes: how large a tensor is depends on nothing but
how many images there are, so the numbers are measured at some counts and written down.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_gradcam._export.plain_operations import (
    WRITERS,
    WRITERS_BY_NUMBERS,
    CountNumber,
    Refused,
    copy_operation,
)
from tf_gradcam._model import ancestors

_COUNTS = (2, 3, 5)  # of images, to measure at
LARGE = 2**14  # numbers in a constant that is no shape, nor a vector of a normalization
_LOOK_AT_SHAPES = ("OnesLike", "Rank", "Shape", "ShapeN", "Size", "ZerosLike")
_PASS_ON = ("CheckNumerics", "EnsureShape", "Identity", "IdentityN", "PreventGradient", "StopGradient")


def rewrite(
    concrete: tf.types.experimental.ConcreteFunction, takes: Sequence[str], answers: Sequence[str]
) -> tf.compat.v1.GraphDef:
    """Return the graph of `concrete` in plain operations: no gradient of a layer, and little on shapes.

    Args:
        concrete: with no variables and no function calls in it, of tensors `(N, ...)`, N alone open.
        takes: what to call its inputs.
        answers: what to call its outputs.

    Raises:
        Refused: if it holds a loop, a branch, or a gradient that there is no way to write.
    """
    wanted = ancestors(concrete.outputs)
    operations = [each for each in concrete.graph.get_operations() if each in wanted]
    for operation in operations:
        if any(each.type == "func" for each in operation.op_def.attr):
            raise Refused(operation)
    numbers = _measure(concrete, operations)
    with tf.Graph().as_default() as graph:
        new = {
            each.ref(): tf.compat.v1.placeholder(each.dtype, each.shape, name)
            for each, name in zip(concrete.inputs, takes, strict=True)
        }
        count = tf.shape(new[concrete.inputs[0].ref()])[0]
        for operation in operations:
            if operation.type == "Placeholder":
                continue
            known = [numbers.get(each.ref()) for each in operation.outputs]
            if None in known:
                outputs = _written(operation, [new[each.ref()] for each in operation.inputs], numbers)
            else:
                outputs = [number.tensor(count) for number in known]
            new.update({old.ref(): each for old, each in zip(operation.outputs, outputs, strict=False)})
        for tensor, name in zip(concrete.outputs, answers, strict=True):
            tf.identity(new[tensor.ref()], name)
        used = {each.name for each in ancestors(graph.get_tensor_by_name(f"{name}:0") for name in answers)}
    definition = graph.as_graph_def()
    for place in reversed(range(len(definition.node))):
        if definition.node[place].name not in {*used, *takes}:
            del definition.node[place]  # in place: a copy would double the weights
    return definition


def _measure(concrete, operations) -> dict:
    """Return the number that each tensor holds which looks at no image, if it is one."""
    looks_at_none, asked = set(), []
    for operation in operations:
        if operation.type == "Placeholder" or operation.op_def.is_stateful or _is_large(operation):
            continue
        if operation.type in _LOOK_AT_SHAPES or all(each.op in looks_at_none for each in operation.inputs):
            looks_at_none.add(operation)
            if operation.inputs and operation.type not in _PASS_ON:
                asked += operation.outputs
    # The weights matter to no shape: zeros do, which take no memory in a graph.
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        new = {each.ref(): tf.compat.v1.placeholder(each.dtype, each.shape) for each in concrete.inputs}
        for operation in operations:
            if operation.type == "Placeholder":
                continue
            if _is_large(operation):
                copied = [tf.zeros(operation.outputs[0].shape, operation.outputs[0].dtype)]
            else:
                copied = copy_operation(operation, [new[each.ref()] for each in operation.inputs])
            new.update({old.ref(): each for old, each in zip(operation.outputs, copied, strict=True)})
        answers = []
        for count in _COUNTS:
            shapes = [(each, [count, *each.shape[1:]]) for each in concrete.inputs]
            images = {new[each.ref()]: np.zeros(shape, each.dtype.as_numpy_dtype) for each, shape in shapes}
            answers.append(session.run([new[each.ref()] for each in asked], images))
    found = zip(asked, map(_number, zip(*answers, strict=True)), strict=True)
    return {tensor.ref(): number for tensor, number in found if number is not None}


def _is_large(operation) -> bool:
    return operation.type == "Const" and operation.outputs[0].shape.num_elements() > LARGE


def _number(values) -> CountNumber | None:
    """Return what holds `values` at the counts that were measured; `None` if it is no line."""
    first, second, _ = values = [np.asarray(each) for each in values]
    if any(each.shape != first.shape for each in values):
        return None
    if all(np.array_equal(each, first) for each in values):
        return CountNumber(None, first)
    if not np.issubdtype(first.dtype, np.integer):
        return None
    line = CountNumber(second - first, first - _COUNTS[0] * (second - first))
    return line if all(map(np.array_equal, map(line.at, _COUNTS), values)) else None


def _written(operation, inputs, numbers) -> list[tf.Tensor]:
    kind = operation.type
    if kind in _PASS_ON:
        return inputs
    with tf.name_scope(operation.name + "/"):
        if kind in WRITERS:
            return [WRITERS[kind](operation, *inputs)]
        if kind in WRITERS_BY_NUMBERS:
            return [WRITERS_BY_NUMBERS[kind](operation, inputs, numbers)]
    if kind.endswith("Grad") or "Backprop" in kind:
        raise Refused(operation)
    return copy_operation(operation, inputs)

"""What single operations do to the gradients of C scores at once. Called by `batched_gradients`.

Gradients by a tensor `(N, ...)` are `(C, N, ...)`. An operation that works on each number for itself only
multiplies them, by a factor that is the same for all scores. Such factors are gathered, and multiplied in one
step. Any other operation has a function from the gradients by its outputs to those by its inputs.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import tensorflow as tf

# Operations whose output at a place depends on the one input at that place.
_OF_ONE_NUMBER = {
    *(
        "Abs",
        "Atan",
        "Cos",
        "Elu",
        "Erf",
        "Erfc",
        "Exp",
        "Expm1",
        "Identity",
        "LeakyRelu",
        "Log",
        "Log1p",
        "Neg",
    ),
    *("Reciprocal", "Relu", "Relu6", "Rsqrt", "Selu", "Sigmoid", "Sin", "Softplus", "Softsign", "Sqrt"),
    *("Square", "Tanh"),
}
_OF_TWO_NUMBERS = {"Add", "AddV2", "BiasAdd", "Mul", "RealDiv", "Sub"}
# Operations whose own gradient TensorFlow can vectorize over the scores. What the map of every kind of model
# in the tests was compared for, and no more.
_VECTORIZED = {
    *("Add", "AddV2", "AvgPool", "AvgPool3D", "BatchMatMulV2", "BiasAdd", "BroadcastTo", "Cast", "ConcatV2"),
    *("Einsum", "ExpandDims", "GatherNd", "GatherV2", "LogSoftmax", "MatMul", "Max", "MaxPool", "Maximum"),
    *("Mean", "Min", "Minimum", "Mul", "Pack", "Pad", "PadV2", "Pow", "RealDiv", "Reshape", "Select"),
    *("SelectV2", "Slice", "Softmax", "Split", "SplitV", "SquaredDifference", "Squeeze", "StridedSlice"),
    *("Sub", "Sum", "Tile", "Transpose", "Unpack"),
}
_KEEPS_ROWS = {
    "AvgPool",
    "Conv2D",
    "DepthwiseConv2dNative",
    "EnsureShape",
    "MaxPool",
    "Softmax",
    *_OF_ONE_NUMBER,
}


class Term(NamedTuple):
    """A part of the gradients by a tensor: values that one pass computes, times a factor.

    Attributes:
        slot: position of the values `(C, ...)` among those of the pass.
        factor: the factor, the same for all scores; `None` for 1.
        is_whole: whether the product has the shape of the tensor, and is not to be repeated to it.
    """

    slot: int
    factor: tf.Tensor | None = None
    is_whole: bool = True

    def times(self, factor: tf.Tensor | None, is_whole: bool) -> "Term":
        """Return the term, multiplied by another factor."""
        both = factor if self.factor is None else self.factor if factor is None else self.factor * factor
        return Term(self.slot, both, self.is_whole or is_whole)


def sum_of(terms: Sequence[Term], tensor: tf.Tensor) -> Callable[[Sequence[tf.Tensor]], tf.Tensor]:
    """Return the function from the values of a pass to the gradients by `tensor`, the sum of its terms."""

    def total(values):
        products = [values[slot] if factor is None else values[slot] * factor for slot, factor, _ in terms]
        found = sum(products[1:], start=products[0])
        if any(term.is_whole for term in terms):
            return found
        return tf.broadcast_to(found, [tf.shape(found)[0], *lengths_of(tensor)])

    return total


def mean_of(terms: Sequence[Term]) -> Callable[[Sequence[tf.Tensor]], tf.Tensor]:
    """Return the function from the values of a pass to the gradients' means over the grid, `(C, N, 1, 1, K)`.

    What is to be repeated over the grid is its own mean.
    """

    def total(values):
        products = [values[slot] if factor is None else values[slot] * factor for slot, factor, _ in terms]
        means = [tf.reduce_mean(product, axis=[2, 3], keepdims=True) for product in products]
        return sum(means[1:], start=means[0])

    return total


def lengths_of(tensor: tf.Tensor) -> list[int | tf.Tensor]:
    """Return the lengths of the axes: a number where it is known, so that shapes stay known in loops.

    To be called within a loop where they are used: XLA knows the shape of a tensor from outside, but not the
    value of a number from there.
    """
    if tensor.shape.is_fully_defined():
        return list(tensor.shape)
    dynamic = tf.unstack(tf.shape(tensor))
    return [dynamic[axis] if length is None else length for axis, length in enumerate(tensor.shape)]


class Factor(NamedTuple):
    """What an operation multiplies the gradients by: `value`, or `None` for 1, and whether in full shape."""

    value: tf.Tensor | None
    is_whole: bool = False


def find_factors(operation: tf.Operation, varying: set, rows: dict) -> list[tuple[tf.Tensor, Factor]] | None:
    """Return each input that varies, with its factor; `None` if the operation does more than multiply.

    Args:
        operation: an operation between the activations and the score.
        varying: references to the tensors that depend on the activations.
        rows: as `row_sources` returns.
    """
    if has_custom_gradient(operation):
        source = _input_of_silu(operation)
        return None if source is None else [(source, _slope(operation, source))]
    if operation.type in ("EnsureShape", "Identity"):
        return [(operation.inputs[0], Factor(None))]
    if operation.type in _OF_ONE_NUMBER:
        return [(operation.inputs[0], _slope(operation, operation.inputs[0]))]
    if operation.type not in _OF_TWO_NUMBERS:
        return None
    positions = [index for index, each in enumerate(operation.inputs) if each.ref() in varying]
    is_quotient_by_them = operation.type == "RealDiv" and 1 in positions
    if is_quotient_by_them or not all(_is_repeated(operation, index, rows) for index in positions):
        return None
    return [(operation.inputs[index], _factor_of_two(operation, index)) for index in positions]


def _slope(operation, source) -> Factor:
    (slope,) = tf.gradients(operation.outputs[0], [source], stop_gradients=list(operation.inputs))
    return Factor(slope, is_whole=True)


def _factor_of_two(operation, position) -> Factor:
    other = operation.inputs[1 - position]
    if operation.type == "Mul":
        return Factor(other)
    if operation.type == "RealDiv":
        return Factor(1 / other)
    minus = tf.constant(-1, other.dtype)
    return Factor(minus if operation.type == "Sub" and position == 1 else None)


def _is_repeated(operation, position, rows) -> bool:
    """Return whether the input at `position` surely has the shape of the output, and is not repeated."""
    source, other = operation.inputs[position], operation.inputs[1 - position]
    if operation.type == "BiasAdd":
        return position == 0
    if source.shape.rank is None or other.shape.rank is None or source.shape.rank < other.shape.rank:
        return False
    lengths = [1] * (source.shape.rank - other.shape.rank) + list(other.shape)
    for axis, (own, length) in enumerate(zip(source.shape, lengths, strict=True)):
        is_long = own is not None and (own > 1 or own == length)
        is_row = axis == 0 and rows[source.ref()] == rows[other.ref()]
        if length != 1 and not is_long and not is_row:
            return False
    return True


def row_sources(operations: Iterable[tf.Operation]) -> dict:
    """Return by references of tensors that of the tensor from which they have their number of rows, axis 0.

    Two tensors with the same one have as many rows. Those of which nothing is known have their own.

    Args:
        operations: operations of one graph, in order.
    """
    rows: dict = {}
    for operation in operations:
        for output in operation.outputs:
            source = _source_of_rows(operation, output, rows) if operation.inputs else None
            rows[output.ref()] = output.ref() if source is None else source
    return rows


def _source_of_rows(operation, output, rows):
    first = operation.inputs[0]
    if operation.type in _KEEPS_ROWS or (
        operation.type == "MatMul" and not operation.get_attr("transpose_a")
    ):
        return rows.get(first.ref())
    if operation.type == "IdentityN":
        return rows.get(operation.inputs[output.value_index].ref())
    if operation.type in ("Max", "Mean", "Sum"):
        axes = tf.get_static_value(operation.inputs[1])
        is_known = axes is not None and first.shape.rank
        is_row_kept = is_known and all(axis % first.shape.rank for axis in axes.reshape(-1))
        return rows.get(first.ref()) if is_row_kept else None
    if operation.type == "Reshape":
        before, after = first.shape, output.shape
        keeps_rows = before.rank and after.rank and before[1:].num_elements() == after[1:].num_elements()
        return rows.get(first.ref()) if keeps_rows and before[1:].is_fully_defined() else None
    if operation.type in _OF_TWO_NUMBERS:
        rank = output.shape.rank
        tall = [each for each in operation.inputs if each.shape.rank == rank and rank and each.shape[0] != 1]
        sources = {rows.get(each.ref()) for each in tall}
        return sources.pop() if len(sources) == 1 else None
    return None


def has_custom_gradient(operation: tf.Operation) -> bool:
    """Return whether a `tf.custom_gradient` or an override replaces the operation's gradient."""
    try:
        operation.get_attr("_gradient_op_type")
    except ValueError:
        return False
    return True


def _input_of_silu(operation) -> tf.Tensor | None:
    """Return x if the operation ends `tf.nn.silu(x)`, which has a custom gradient to save memory."""
    if operation.type != "IdentityN" or len(operation.inputs) < 2 or operation.inputs[0].op.type != "Mul":
        return None
    result, source = operation.inputs[:2]
    factors = list(result.op.inputs)
    is_silu = factors[0] is source and factors[1].op.type == "Sigmoid"
    return source if is_silu else None


class Backward(NamedTuple):
    """The way back through one operation, for many scores at once.

    Attributes:
        function: gradients `(C, ...)` by each output, `None` where there are none, to those by the inputs.
        is_whole: whether the results have the shapes of the inputs, and are not to be repeated to them.
        mean: the same for the means of the gradients over an input's grid, if they take less time.
    """

    function: Callable[[Sequence[tf.Tensor | None]], list[tf.Tensor]]
    is_whole: bool = True
    mean: Callable[[Sequence[tf.Tensor | None]], list[tf.Tensor]] | None = None


def find_backward(operation: tf.Operation, sources: Sequence[tf.Tensor]) -> Backward | None:
    """Return the way back through `operation`, or `None` if none is known to be right.

    Args:
        operation: an operation between the activations and the score.
        sources: its inputs that depend on the activations, each once.
    """
    if has_custom_gradient(operation):
        return None
    rule = _RULES.get(operation.type)
    only_first = len(sources) == 1 and sources[0] is operation.inputs[0]
    found = rule(operation) if rule is not None and only_first else None
    if found is None and operation.type in _VECTORIZED:
        return _own_gradient(operation, sources)
    return found


def _own_gradient(operation, sources) -> Backward:
    def backward(gradients):
        pairs = zip(operation.outputs, gradients, strict=True)
        outputs, given = zip(*[pair for pair in pairs if pair[1] is not None], strict=True)

        def of_one_score(seeds):
            found = tf.gradients(list(outputs), sources, seeds, stop_gradients=list(operation.inputs))
            pairs = zip(sources, found, strict=True)
            return [tf.zeros_like(one) if each is None else tf.convert_to_tensor(each) for one, each in pairs]

        return tf.vectorized_map(of_one_score, list(given), fallback_to_while_loop=False)

    return Backward(backward)


def _convolution(operation) -> Backward:
    source, filters = operation.inputs
    names = ("strides", "padding", "explicit_paddings", "data_format", "dilations")
    options = {name: operation.get_attr(name) for name in names}
    is_depthwise = operation.type == "DepthwiseConv2dNative"
    transposed = (
        tf.raw_ops.DepthwiseConv2dNativeBackpropInput if is_depthwise else tf.raw_ops.Conv2DBackpropInput
    )

    def backward(gradients):
        rows, lengths = _as_rows(gradients[0]), lengths_of(source)
        sizes = tf.stack([tf.shape(rows)[0], *lengths[1:]])
        found = transposed(input_sizes=sizes, filter=filters, out_backprop=rows, **options)
        return [_by_score(found, gradients[0], lengths)]

    return Backward(backward, mean=None if is_depthwise else _mean_of_pointwise(operation, options))


def _mean_of_pointwise(operation, options):
    """Return the function to the means over the grid, if each place is taken once, by a 1 x 1 convolution."""
    source, filters = operation.inputs
    is_pointwise = filters.shape[:2] == [1, 1] and filters.shape[2] == source.shape[-1]
    if options["padding"] == b"EXPLICIT":  # Places of the padding are none of the input's.
        return None
    if not is_pointwise or options["strides"] != [1] * 4 or options["data_format"] != b"NHWC":
        return None
    weights = tf.squeeze(filters, [0, 1])

    def mean(gradients):
        means = tf.reduce_mean(gradients[0], axis=[2, 3], keepdims=True)
        found = tf.matmul(_as_rows(means)[:, 0, 0], weights, transpose_b=True)
        lengths = [*lengths_of(means)[1:-1], filters.shape[2]]
        return [_by_score(found, gradients[0], lengths)]

    return mean


def _depthwise_convolution(operation) -> Backward:
    """Return the way back: with stride 1 a convolution too, which is faster on a processor."""
    source, filters = operation.inputs
    sizes = filters.shape
    odd = sizes.is_fully_defined() and sizes[0] % 2 == 1 and sizes[1] % 2 == 1 and sizes[3] == 1
    plain = operation.get_attr("padding") == b"SAME" and operation.get_attr("data_format") == b"NHWC"
    ones = [operation.get_attr(name) == [1] * 4 for name in ("strides", "dilations")]
    if not (odd and plain and all(ones)):
        return _convolution(operation)
    places = sizes[0] * sizes[1]  # Turned by half: the last place first. Gathering is faster than reversing.
    turned = tf.gather(tf.reshape(filters, [places, sizes[2]]), range(places - 1, -1, -1))
    turned = tf.reshape(turned, sizes)

    def backward(gradients):
        found = tf.nn.depthwise_conv2d(_as_rows(gradients[0]), turned, [1] * 4, "SAME")
        return [_by_score(found, gradients[0], lengths_of(source))]

    return Backward(backward)


def _product(operation) -> Backward | None:
    source, weights = operation.inputs
    if operation.get_attr("transpose_a"):
        return None
    is_transposed = operation.get_attr("transpose_b")

    def backward(gradients):
        found = tf.matmul(_as_rows(gradients[0]), weights, transpose_b=not is_transposed)
        return [_by_score(found, gradients[0], lengths_of(source))]

    return Backward(backward)


def _mean(operation) -> Backward | None:
    """Return the way back, with results of length 1 on the axes of the mean."""
    source, axes = operation.inputs
    axes = tf.get_static_value(axes)
    if axes is None:
        return None
    reduced = {axis % source.shape.rank for axis in axes.reshape(-1)}

    def backward(given):
        lengths = lengths_of(source)
        kept = [1 if axis in reduced else length for axis, length in enumerate(lengths)]
        count = tf.cast(math.prod(lengths[axis] for axis in reduced), source.dtype)
        return [_by_score(given[0] / count, given[0], kept)]

    return Backward(backward, is_whole=False)


_RULES = {
    "Conv2D": _convolution,
    "DepthwiseConv2dNative": _depthwise_convolution,
    "MatMul": _product,
    "Mean": _mean,
}


def _as_rows(gradients):
    """Return gradients `(C, N, ...)` as `(C * N, ...)`."""
    count, rows, *lengths = lengths_of(gradients)
    return tf.reshape(gradients, [count * rows, *lengths])


def _by_score(found, gradients, lengths):
    """Return `found` as `(C, *lengths)`, with the C of `gradients`."""
    return tf.reshape(found, [lengths_of(gradients)[0], *lengths])

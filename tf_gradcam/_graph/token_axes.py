"""Follow images and tokens along the axes of tensors, to the attention between tokens: `token_attention`.

Called by `token_blocks`. The shape of an attention does not tell what it is between: as many channels, or as
many slots of a memory, as there are tokens have the same one.
"""

from collections.abc import Container, Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_gradcam._graph.graph_steps import WEIGHTED, slices_of, source_axes

_PRODUCTS = ("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "MatMul")
_SLICES = ("Slice", "Split", "SplitV", "StridedSlice", "Unpack")
_RESHAPES = ("Reshape", "Squeeze")


class _Axes(NamedTuple):
    """Neighbouring axes that are the images, all tokens, which may lie on a grid, or both."""

    kind: str  # "images", "tokens" or "both", as dense layers merge them
    first: int
    last: int


def softmaxes(steps: Sequence[tf.Operation]) -> list[tf.Tensor]:
    """Return the results of softmaxes in `steps` that may be attention: they have more than two axes."""
    outputs = [step.outputs[0] for step in steps if step.type == "Softmax"]
    return [one for one in outputs if one.shape.rank is None or one.shape.rank > 2]


def token_attention(
    start: tf.Tensor, steps: Sequence[tf.Operation], count: int | None
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Return the attention between all tokens in `steps`, and the attention between anything else.

    A softmax is attention if it is of products of two tensors that depend on the image, as queries and keys
    do. A gate or the router of a mixture of experts is of a product with weights.

    Args:
        start: the tokens before the first attention, `(N, T, D)`.
        steps: the operations that depend on the image, in order.
        count: the number T of tokens, or `None` if it is not known.
    """
    depending = {out.ref() for step in steps for out in step.outputs}
    followed = _followed(start, steps)
    between_tokens, others = [], []
    for weights in softmaxes(steps):
        if _is_between_tokens(weights, count, followed.get(weights.ref(), set())):
            between_tokens.append(weights)
        elif _is_of_products_of_two(weights, depending):
            others.append(weights)
    return between_tokens, others


def _is_between_tokens(weights, count, axes) -> bool:
    """Return whether `weights` `(N, T, T)` or `(N, heads, T, T)` have images and tokens on these axes."""
    rank = weights.shape.rank
    if rank not in (3, 4) or not {*weights.shape[-2:]} <= {count, None}:
        return False
    rows, columns = _Axes("tokens", rank - 2, rank - 2), _Axes("tokens", rank - 1, rank - 1)
    return {_Axes("images", 0, 0), rows, columns} <= axes


def _is_of_products_of_two(weights, depending: Container) -> bool:
    """Return whether the softmax `weights` is of a product of two tensors that are both in `depending`."""
    waiting, seen = [weights.op.inputs[0]], set()
    while waiting:
        tensor = waiting.pop()
        if tensor.ref() in seen or tensor.ref() not in depending:
            continue
        seen.add(tensor.ref())
        if tensor.op.type not in (*_PRODUCTS, *WEIGHTED):
            waiting += tensor.op.inputs
        elif all(factor.ref() in depending for factor in tensor.op.inputs[:2]):
            return True
    return False


def _followed(start, steps) -> dict:
    """Return where the images and tokens of `start` `(N, T, D)` are in what `steps` make of it."""
    found: dict = {start.ref(): {_Axes("images", 0, 0), _Axes("tokens", 1, 1), _Axes("both", 0, 1)}}
    for step in steps:
        for index, tensor in enumerate(step.inputs):
            for axes in found.get(tensor.ref(), ()):
                for output in step.outputs:
                    moved = _moved(step, index, output, axes)
                    if moved is not None:
                        found.setdefault(output.ref(), set()).update(
                            _parts(moved, step, output, start.shape[1])
                        )
    return found


def _parts(axes, step, output, count) -> list[_Axes]:
    """Return `axes`, and images and `count` tokens one by one where they were both and are apart again."""
    length, unknown = _elements(tuple(output.shape[1 : axes.last + 1]))
    is_apart = count is None or (length, unknown) == (count, 0) or (unknown and _is_given_images(step))
    if axes.kind != "both" or axes.last == 0 or not is_apart:
        return [axes]
    return [axes, _Axes("images", 0, 0), _Axes("tokens", 1, axes.last)]


def _is_given_images(step) -> bool:
    """Return whether a reshape is given the number of images, so that a length left to it is what it was."""
    given = tf.get_static_value(step.inputs[1], partial=True) if step.type == "Reshape" else None
    return given is not None and len(given) > 1 and (given[0] is None or given[0] > 0)


def _moved(step, index, output, axes) -> _Axes | None:
    """Return where `axes` of an input of `step` are in `output`, or `None` if they are lost."""
    values = step.inputs[index]
    if values.shape.rank is None or output.shape.rank is None:
        return None
    if step.type in _RESHAPES:
        return _reshaped(axes, tuple(values.shape), _lengths(output))
    sources = _sources(step, index, values, output)
    places = [sources.index(axis) if axis in sources else None for axis in range(axes.first, axes.last + 1)]
    first, length = places[0], len(places)
    if first is None or places != list(range(first, first + length)):
        return None
    return _Axes(axes.kind, first, first + length - 1)


def _sources(step, index, values, output) -> list[int | None]:
    """Return for each axis of `output` the axis of the input `values` that it is, or `None`."""
    rank = output.shape.rank
    lost: list[int | None] = [None] * rank
    if step.type == "Transpose":
        order = tf.get_static_value(step.inputs[1])
        return lost if order is None else list(order)
    if step.type == "Einsum":
        return _einsum_sources(step, index, values.shape.rank, rank)
    if step.type in _SLICES:
        sliced = slices_of(step)
        return lost if sliced is None else sliced[1]
    if step.type in _PRODUCTS:
        return _product_sources(step, index, values.shape.rank, rank)
    if step.type in ("Gather", "GatherNd", "GatherV2"):
        return _gather_sources(step, index, values.shape.rank, step.inputs[1].shape.rank) or lost
    new = rank - values.shape.rank  # Broadcasting adds axes in front.
    broadcast = [None if axis < new else axis - new for axis in range(rank)] if new > 0 else lost
    found: list[int | None] = source_axes(step, values, output) or broadcast
    if step.type in WEIGHTED:  # A convolution mixes channels.
        channel = 1 if step.get_attr("data_format").startswith(b"NC") else rank - 1
        found = [None if axis == channel else axis for axis in found] if index == 0 else lost
    return found


def _einsum_sources(step, index, before, after) -> list[int | None]:
    terms, result = step.get_attr("equation").decode().split("->")

    def names(term, rank):
        start, dots, end = term.partition("...")
        middle = range(len(start) + len(end) - rank, 0) if dots else ()
        return [*start, *middle, *end]

    given = names(terms.split(",")[index], before)
    return [given.index(name) if name in given else None for name in names(result, after)]


def _product_sources(step, index, before, after) -> list[int | None]:
    flags = ("transpose_a", "transpose_b") if step.type == "MatMul" else ("adj_x", "adj_y")
    is_turned = step.get_attr(flags[index])
    kept = before - (1 if bool(index) != is_turned else 2)  # The other one is summed over.
    batch = [axis if axis >= 0 else None for axis in range(before - after, before - 2)]
    return [*batch, None, kept] if index else [*batch, kept, None]


def _gather_sources(step, index, before, of_indices) -> list[int | None] | None:
    axis = tf.get_static_value(step.inputs[2]) if step.type == "GatherV2" else None
    if index or axis is None or of_indices is None or step.get_attr("batch_dims"):
        return None
    axis = int(axis) % before
    return [*range(axis), *[None] * of_indices, *range(axis + 1, before)]


def _reshaped(axes, before, after) -> _Axes | None:
    """Return where `axes` of the shape `before` are in `after`: as many elements, and as many behind them."""
    elements = _elements(before[axes.first : axes.last + 1])
    behind = _elements(before[axes.last + 1 :])
    stops = [stop for stop in range(1, len(after) + 1) if _elements(after[stop:]) == behind]
    if axes.first == 0:  # With as many elements behind them, these are as many.
        return _Axes(axes.kind, 0, stops[0] - 1) if stops else None
    ranges = [(start, stop) for stop in stops for start in range(1, stop)]
    fitting = [each for each in ranges if _elements(after[slice(*each)]) == elements]
    if not fitting:
        return None
    first, stop = min(fitting, key=lambda each: each[1] - each[0])  # Without axes of length 1.
    return _Axes(axes.kind, first, stop - 1)


def _lengths(matrix) -> tuple[int | None, ...]:
    """Return the shape of a tensor: that of the weights for a matrix that `tf.tensordot` leaves open."""
    lengths = tuple(matrix.shape)
    for reader in matrix.consumers():
        if reader.type == "MatMul" and reader.inputs[0] is matrix and not reader.get_attr("transpose_a"):
            return (*lengths[:-1], reader.inputs[1].shape[1 if reader.get_attr("transpose_b") else 0])
    return lengths


def _elements(lengths: Sequence[int | None]) -> tuple[int, int]:
    """Return the product of the known ones of `lengths`, and the number of unknown ones."""
    product = 1
    for length in lengths:
        product *= 1 if length is None else length
    return product, sum(length is None for length in lengths)

"""The blocks of a vision transformer in a TensorFlow graph, their attention and tokens: `token_blocks`.

Called by `legrad`, which reads every block, and where its layer is found.
"""

import collections
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_gradcam._graph.graph import ancestors, operations_reached


class TokenBlock(NamedTuple):
    """A block of a vision transformer.

    Attributes:
        attention: its attention, after the softmax, `(N, heads, T, T)`: a row for each query.
        tokens: the tokens after the block, `(N, T, D)`.
    """

    attention: tf.Tensor
    tokens: tf.Tensor


def token_blocks(
    starts: Sequence[tf.Tensor], ends: Sequence[tf.Tensor], last: tf.Tensor | None = None
) -> list[TokenBlock]:
    """Return the blocks between images and outputs, in order of execution.

    A block adds what its attention makes of the tokens to the tokens. The tokens after a block are the last
    tensor `(N, T, D)` before the next attention on which everything depends that follows. After the last
    block they are the last such tensor that is a sum. Where the block before ends in a normalization of its
    sum (post-norm), so does the last one; elsewhere (pre-norm) a normalization of it is part of the head.

    Args:
        starts: the images.
        ends: the outputs, or a score.
        last: the tokens after the last block to return. By default the last block that there is.

    Raises:
        ValueError: if there are no such blocks, some whose attention is not between all tokens, or a last
            block that ends otherwise than the block before.
    """
    steps = operations_reached(starts, ends[0].graph, ancestors(ends))
    number = {step: index for index, step in enumerate(steps)}
    narrow = _bottlenecks(starts, ends, steps)
    if last is not None:
        narrow = narrow[: next((index for index, one in enumerate(narrow, 1) if one is last), 0)]
    sums = _residual_sums(narrow, starts, steps)
    if not sums:
        raise _error("no tokens, a sum, on which everything depends that follows", last)
    attentions = _attentions(steps, sums[-1])
    path = ancestors([sums[-1]])
    if last is None and attentions[-1].op not in path:
        raise _error(f"no tokens after {attentions[-1].op.name!r} on which everything depends that follows")
    attentions = [weights for weights in attentions if weights.op in path]
    if not attentions:
        raise _error("no attention between all tokens")
    alike = [tensor for tensor in narrow if tensor.shape.is_compatible_with(sums[-1].shape)]
    found = []
    for attention, following in itertools.pairwise(attentions):
        path = ancestors([following])
        after = [one for one in alike if one.op in path and number[one.op] > number[attention.op]]
        if not after:
            raise _error(f"no tokens after {attention.op.name!r} on which everything depends that follows")
        found.append(after[-1])
    ends_of_last = [
        one
        for one in alike
        if (number[one.op] >= number[sums[-1].op] if last is None else one is last)
        if not found or _end(one, sums, steps, number) == _end(found[-1], sums, steps, number)
    ]  # With one block there is none to compare with, but any tensor after its sum leads to the same map.
    if not ends_of_last:
        raise _error(
            "a last block that ends otherwise than the block before it; if the head adds to the tokens, give "
            "the last block as `layer`",
            last,
        )
    return [TokenBlock(*pair) for pair in zip(attentions, [*found, ends_of_last[0]], strict=True)]


def _bottlenecks(starts, ends, steps) -> list[tf.Tensor]:
    """Return the tensors that every path from `starts` to `ends` leads through, of `steps` in order."""
    unread = collections.Counter(tensor.ref() for step in steps for tensor in step.inputs)
    unread.update(end.ref() for end in ends)
    waiting, found = {start.ref() for start in starts}, []  # Results that are still to be read.
    for step in steps:
        unread.subtract(tensor.ref() for tensor in step.inputs)
        waiting.update(tensor.ref() for tensor in step.outputs)
        waiting = {reference for reference in waiting if unread[reference] > 0}
        if len(waiting) == 1:
            found += [tensor for tensor in step.outputs if tensor.ref() in waiting]
    return found


def _residual_sums(narrow, starts, steps) -> list[tf.Tensor]:
    """Return the tokens of `narrow` that are a sum of others of `narrow` and of what was made of them."""
    depending = {start.ref() for start in starts} | {out.ref() for step in steps for out in step.outputs}
    known = {tensor.ref() for tensor in narrow}
    return [
        tensor
        for tensor in narrow
        if tensor.shape.rank == 3
        if tensor.shape[:1].is_compatible_with(starts[0].shape[:1])  # Windows are folded into this axis.
        if _is_residual_sum(tensor, known, depending)
    ]


def _end(tensor, sums, steps, number) -> tuple[tf.DType, list[str]]:
    """Return the dtype of `tensor`, and the operations from the last of `sums` to it: none in pre-norm."""
    first = max((number[one.op] for one in sums if number[one.op] <= number[tensor.op]), default=-1) + 1
    types = [step.type for step in steps[first : number[tensor.op] + 1]]
    return tensor.dtype, [each for each in types if each not in ("Cast", "Identity")]


def _is_residual_sum(tensor, narrow, depending) -> bool:
    """Return whether `tensor` is a sum of one of `narrow` and of something else that depends on the image."""
    summands = {summand.ref() for summand in _summands(tensor)} & depending
    return len(summands) > 1 and bool(summands & narrow)


def _summands(tensor) -> Iterator[tf.Tensor]:
    operation = without_copies(tensor).op
    for summand in operation.inputs if operation.type in ("Add", "AddN", "AddV2") else []:
        yield without_copies(summand)
        yield from _summands(summand)


def without_copies(tensor: tf.Tensor) -> tf.Tensor:
    """Return the tensor of which `tensor` is a copy, or `tensor`."""
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor


def _attentions(steps, tokens) -> list[tf.Tensor]:
    """Return the attention between all tokens `(N, T, D)` in `steps`, before `tokens` and after them."""
    found, count, path = [], tokens.shape[1], ancestors([tokens])
    outputs = [step.outputs[0] for step in steps if step.type == "Softmax"]
    for weights in [one for one in outputs if one.shape.rank is None or one.shape.rank > 2]:
        lengths = [None, None] if weights.shape.rank is None else list(weights.shape[-2:])
        if weights.shape.rank == 4 and {*lengths} <= {count, None}:
            found.append(weights)
        elif weights.op in path and 1 not in lengths:
            raise _error(f"attention {weights.shape}, which is not between all {count} tokens")
    if not found:
        raise _error("no attention between all tokens")
    return found


def _error(received: str, last: tf.Tensor | None = None) -> ValueError:
    if last is not None:
        return ValueError(
            "`layer` must return the tokens after a block of a vision transformer, for `method` 'legrad': a "
            "sum, or its normalization if the blocks before end in one. "
            f"Received: a layer that returns {last.shape}, but not such tokens, or not all that the score "
            "depends on. Give layer=None for the last block."
        )
    return ValueError(
        "`method` must not be 'legrad' unless the model is a vision transformer: blocks with attention "
        "(N, heads, T, T) between all T tokens, added to the tokens, and a head on the last block. "
        f"Received: a model with {received}. Choose another method, such as 'gradcam'."
    )

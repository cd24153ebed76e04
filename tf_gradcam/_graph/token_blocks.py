"""The blocks of a vision transformer in a TensorFlow graph, their attention and tokens: `token_blocks`.

Called by `legrad`, which reads every block, and where its layer is found.
"""

import bisect
import collections
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_gradcam._graph.graph import ancestors, operations_reached
from tf_gradcam._graph.token_axes import softmaxes, token_attention

_MAX_SUMS = 2  # A block adds its attention, and what a perceptron makes of it.


class TokenBlock(NamedTuple):
    """A block of a vision transformer.

    Attributes:
        attention: its attention, after the softmax, `(N, heads, T, T)`, or `(N, T, T)` for one head without
            an axis: a row for each query.
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
            block that ends otherwise than the blocks before, or with more sums.
    """
    try:
        return _blocks(_read(starts, ends, last), last)
    except ValueError:
        if last is not None:  # Without any block another `layer` is of no help, and this error says so.
            _read(starts, ends, None)
        raise


class _Found(NamedTuple):
    steps: list[tf.Operation]  # All that depends on the images, in order.
    number: dict[tf.Operation, int]  # Their positions.
    alike: list[tf.Tensor]  # Tokens on which everything depends that follows.
    sums: list[tf.Tensor]  # Those that are residual sums.
    attentions: list[tf.Tensor]  # Before the last sum.


def _read(starts, ends, last) -> _Found:
    steps = operations_reached(starts, ends[0].graph, ancestors(ends))
    number = {step: index for index, step in enumerate(steps)}
    narrow = _bottlenecks(starts, ends, steps)
    if last is not None:
        narrow = narrow[: next((index for index, one in enumerate(narrow, 1) if one is last), 0)]
    sums = _residual_sums(narrow, starts, steps)
    if not sums:
        raise _error("no tokens, a sum, on which everything depends that follows", last)
    alike = [tensor for tensor in narrow if tensor.shape.is_compatible_with(sums[-1].shape)]
    attentions = _attentions(steps, number, alike, sums[-1])
    path = ancestors([sums[-1]])
    if last is None and attentions[-1].op not in path:
        raise _error(f"no tokens after {attentions[-1].op.name!r} on which everything depends that follows")
    attentions = [weights for weights in attentions if weights.op in path]
    if not attentions:
        raise _error("no attention between all tokens")
    return _Found(steps, number, alike, sums, attentions)


def _blocks(read: _Found, last) -> list[TokenBlock]:
    steps, number, alike, sums, attentions = read
    if last is None:
        _check_sums(attentions, sums, number)
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
        raise (
            _last_block_error("ends otherwise than the block before it") if last is None else _error("", last)
        )
    return [TokenBlock(*pair) for pair in zip(attentions, [*found, ends_of_last[0]], strict=True)]


def _check_sums(attentions, sums, number) -> None:
    """Raise an error if more sums follow the last of `attentions` than any before: the head may add some."""
    starts = [number[weights.op] for weights in attentions]
    counts = collections.Counter(bisect.bisect(starts, number[one.op]) for one in sums)
    before = [counts[index] for index in range(1, len(starts))]
    if counts[len(starts)] > max(before, default=_MAX_SUMS):
        raise _last_block_error("has more sums than the blocks before it")


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
        if tensor.shape.rank == 3 and tensor.shape[1] != 1  # A head may add to what it pools, one token.
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
    found = {_without_factors(summand, depending).ref() for summand in _summands(tensor)} & depending
    return len(found) > 1 and bool(found & narrow)


def _summands(tensor) -> Iterator[tf.Tensor]:
    operation = without_copies(tensor).op
    for summand in operation.inputs if operation.type in ("Add", "AddN", "AddV2") else []:
        yield without_copies(summand)
        yield from _summands(summand)


def _without_factors(tensor, depending) -> tf.Tensor:
    """Return what `tensor` is a copy of, also times factors that do not depend on the image."""
    tensor = without_copies(tensor)
    while tensor.op.type == "Mul":
        factors = [one for one in tensor.op.inputs if one.ref() in depending]
        if len(factors) != 1 or factors[0].shape.rank != tensor.shape.rank:
            break
        tensor = without_copies(factors[0])
    return tensor


def without_copies(tensor: tf.Tensor) -> tf.Tensor:
    """Return the tensor of which `tensor` is a copy, or `tensor`."""
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor


def _attentions(steps, number, alike, tokens) -> list[tf.Tensor]:
    """Return the attention between all tokens `(N, T, D)` in `steps`, before `tokens` and after them."""
    path, count = ancestors([tokens]), tokens.shape[1]
    before = [[one for one in alike if number[one.op] < number[each.op]] for each in softmaxes(steps)]
    start = next((tensors[-1] for tensors in before if tensors), tokens)
    found, others = token_attention(start, steps, count)
    for weights in others:
        is_pooling = weights.shape.rank is not None and 1 in weights.shape[-2:]
        if weights.op in path and not is_pooling:
            shape = weights.shape if weights.shape.rank is None else (None, *weights.shape[1:])
            raise _error(f"attention {shape}, which is not between all {count} tokens")
    if not found:
        raise _error("no attention between all tokens")
    return found


def _last_block_error(received: str) -> ValueError:
    return ValueError(
        "`layer` must be the last block for `method` 'legrad' if the head adds to the tokens, or if the "
        f"blocks differ. Received: layer=None, and a model whose last block {received}. Give the last block "
        "as `layer`, or choose another method, such as 'gradcam'."
    )


def _error(received: str, last: tf.Tensor | None = None) -> ValueError:
    if last is not None:
        return ValueError(
            "`layer` must return the tokens after a block of a vision transformer, for `method` 'legrad': a "
            "sum, or its normalization if the blocks before end in one. "
            f"Received: a layer that returns {last.shape}, but not such tokens, or not all that the score "
            "depends on. Give the last block that it depends on, or layer=None for the last of the model."
        )
    return ValueError(
        "`method` must not be 'legrad' unless the model is a vision transformer: blocks with attention "
        "(N, heads, T, T) or (N, T, T) between all T tokens, added to the tokens, and a head on the last "
        f"block. Received: a model with {received}. Choose another method, such as 'gradcam'."
    )

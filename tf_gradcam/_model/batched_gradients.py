"""The gradients of many scores by one backward pass: `batched_gradients`, called by `_signed_maps`.

The operations between activations and scores are read from the graph. Their gradients are linear in what
comes from the score, so those of C scores go through each operation together, as a batch of C * N.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_gradcam._graph import ancestors, operations_after
from tf_gradcam._model.batched_rules import (
    Backward,
    Term,
    find_backward,
    find_factors,
    mean_of,
    row_sources,
    sum_of,
)


class BatchedGradients(NamedTuple):
    """The backward pass from scores to activations, for many scores at once.

    Attributes:
        function: from seeds `(C, *score.shape)` to the gradients `(C, ...)` by each of the activations.
        largest: number of elements of the largest tensor on the way, int32.
    """

    function: Callable[[tf.Tensor], list[tf.Tensor]]
    largest: tf.Tensor


def batched_gradients(
    score: tf.Tensor, activations: Sequence[tf.Tensor], only_means: bool = False
) -> BatchedGradients | None:
    """Return the backward pass from `score` to each of `activations`, or `None` if none is surely right.

    It is built from the graph that is being traced, of which the tensors must be part. There is none in half
    precision, with loops, and with operations whose batched gradients have not been tested.

    Args:
        score: `(N, M)`.
        activations: activations of one or several layers.
        only_means: whether gradients by activations `(N, h, w, K)` may be their means over the grid,
            `(C, N, 1, 1, K)`.
    """
    operations = operations_after(activations, score)
    outputs = [output for operation in operations for output in operation.outputs]
    varying = [one for one in (*activations, *outputs) if one.dtype.is_floating or one.dtype.is_complex]
    if any(one.dtype not in (tf.float32, tf.float64) or one.shape.rank is None for one in varying):
        return None
    plan = _plan(score, activations, operations, {one.ref() for one in varying}, only_means)
    if plan is None or any(one.ref() not in plan.terms for one in activations):
        return None
    ends = [
        mean_of(plan.terms[one.ref()]) if only_means else sum_of(plan.terms[one.ref()], one)
        for one in activations
    ]

    def function(seeds):
        values = [seeds]
        for step in plan.steps:
            values += step(values)
        return [total(values) for total in ends]

    return BatchedGradients(function, _largest(varying))


class _Plan(NamedTuple):
    """The terms of the gradients by each tensor, and the steps that compute their values in turn."""

    terms: dict
    steps: list[Callable[[Sequence[tf.Tensor]], list[tf.Tensor]]]


def _plan(score, activations, operations, varying, only_means) -> _Plan | None:
    """Return the way back through `operations`, or `None` if one is not known."""
    path = ancestors([score])
    rows = row_sources(each for each in score.graph.get_operations() if each in path)
    last = {one.ref() for one in activations if only_means and one.op not in operations}
    terms, steps, count = {score.ref(): [Term(0)]}, [], 1
    for operation in reversed(operations):
        if operation.type == "StopGradient" or not any(one.ref() in terms for one in operation.outputs):
            continue
        factors = find_factors(operation, varying, rows)
        if factors is not None:
            (output,) = (one for one in operation.outputs if one.ref() in terms)
            if len(terms[output.ref()]) > 1:  # Else the number of terms would double at each branch.
                steps.append(_sum_step(sum_of(terms[output.ref()], output)))
                terms[output.ref()], count = [Term(count)], count + 1
            (term,) = terms[output.ref()]
            for source, factor in factors:
                terms.setdefault(source.ref(), []).append(term.times(*factor))
            continue
        references = dict.fromkeys(one.ref() for one in operation.inputs if one.ref() in varying)
        found = find_backward(operation, [one.deref() for one in references])
        if found is None:
            return None
        steps.append(_backward_step(operation, found, terms, set(references) <= last))
        for reference in references:
            terms.setdefault(reference, []).append(Term(count, None, found.is_whole))
            count += 1
    return _Plan(terms, steps)


def _sum_step(total):
    return lambda values: [total(values)]


def _backward_step(operation, backward: Backward, terms, is_last):
    sums = [sum_of(terms[one.ref()], one) if one.ref() in terms else None for one in operation.outputs]
    function = backward.mean if is_last and backward.mean is not None else backward.function
    return lambda values: function([None if total is None else total(values) for total in sums])


def _largest(tensors):
    """Return the number of elements of the largest of `tensors`; few of them are counted in the graph."""
    known = [one for one in tensors if one.shape.rank and one.shape[1:].is_fully_defined()]
    counted = [one for one in tensors if not (one.shape.rank and one.shape[1:].is_fully_defined())]
    if known:
        counted.append(max(known, key=lambda one: one.shape[1:].num_elements() * (one.shape[0] or 1)))
    return tf.reduce_max(tf.stack([tf.size(one) for one in counted]))

"""Prove that a tensor holds probabilities, by the graph that computes it. `_explain` warns about these."""

import math
from typing import Any

import tensorflow as tf

from tf_gradcam._graph.graph import ancestors, function_graph

_ROUNDING = 1e-5
_UNKNOWN = (-math.inf, math.inf)

# Operations whose values lie between the lowest and highest value of their inputs at these positions.
_ALL = slice(None)
_WITHIN_INPUTS = {
    **dict.fromkeys(("Cast", "CheckNumerics", "EnsureShape", "Identity", "PreventGradient"), slice(1)),
    **dict.fromkeys(("BroadcastTo", "ExpandDims", "Reshape", "Squeeze", "Tile", "Transpose"), slice(1)),
    **dict.fromkeys(("GatherNd", "GatherV2", "Slice", "SplitV", "StridedSlice", "Unpack"), slice(1)),
    **dict.fromkeys(("AvgPool", "Max", "MaxPool", "Mean", "Min", "StopGradient"), slice(1)),
    **dict.fromkeys(("ResizeBilinear", "ResizeNearestNeighbor", "ReverseV2", "TopKV2"), slice(1)),
    **dict.fromkeys(("Select", "SelectV2"), slice(1, None)),
    "ConcatV2": slice(-1),
    "Pack": _ALL,
    "Split": slice(1, None),
}


def is_probability(tensor: Any) -> bool:
    """Return whether the graph proves that `tensor` holds probabilities: values from 0 to 1.

    They must come from a sigmoid or softmax, such as the mean of several, or from what does the same: a
    hard sigmoid, a sparsemax, numbers divided by their sum. A clip of arbitrary numbers to [0, 1], as in many
    regressions, does not count. `False` means that it is not known.
    """
    if tf.executing_eagerly() or not tf.is_tensor(tensor) or not tensor.dtype.is_floating:
        return False
    low, high = _bounds(tensor, {})
    return low >= -_ROUNDING and high <= 1 + _ROUNDING


def _bounds(tensor, known) -> tuple[float, float]:
    """Return the lowest and highest value that the graph allows; `known` holds those that were found."""
    key = tensor.ref()
    if key not in known:
        known[key] = _UNKNOWN  # while it is computed
        known[key] = _bounds_of(tensor, known)
    return known[key]


def _bounds_of(tensor, known):
    operation = tensor.op
    if operation.type in ("Sigmoid", "Softmax") or _is_known_pattern(operation):
        return 0.0, 1.0
    if operation.type == "Const":
        value = tf.get_static_value(tensor)
        numeric = value is not None and value.size and tensor.dtype.is_floating
        return (float(value.min()), float(value.max())) if numeric else _UNKNOWN
    if operation.type == "Cast" and operation.inputs[0].dtype == tf.bool:
        return 0.0, 1.0
    if operation.type == "IdentityN":
        return _bounds(operation.inputs[tensor.value_index], known)
    if operation.type in _WITHIN_INPUTS:
        return _union([_bounds(one, known) for one in operation.inputs[_WITHIN_INPUTS[operation.type]]])
    if operation.type in ("If", "StatelessIf"):
        bodies = [function_graph(operation, branch) for branch in ("then_branch", "else_branch")]
        known_bodies = [body for body in bodies if body is not None]
        if len(known_bodies) < 2:
            return _UNKNOWN
        return _union([_bounds(body.outputs[tensor.value_index], {}) for body in known_bodies])
    if operation.type in ("AddN", "AddV2", "Sub", "Mul", "RealDiv", "Maximum", "Minimum"):
        return _bounds_of_arithmetic(operation.type, [_bounds(one, known) for one in operation.inputs])
    return _UNKNOWN


def _union(bounds):
    return min(low for low, _ in bounds), max(high for _, high in bounds)


def _bounds_of_arithmetic(kind, bounds):
    if any(math.inf in map(abs, one) for one in bounds):
        return _UNKNOWN
    lows, highs = zip(*bounds, strict=True)
    if kind in ("AddN", "AddV2"):
        return sum(lows), sum(highs)
    if kind == "Sub":
        return lows[0] - highs[1], highs[0] - lows[1]
    if kind in ("Maximum", "Minimum"):
        choose = max if kind == "Maximum" else min
        return choose(lows), choose(highs)
    if kind == "RealDiv":
        if lows[1] <= 0 <= highs[1]:
            return _UNKNOWN
        lows, highs = (lows[0], 1 / highs[1]), (highs[0], 1 / lows[1])
    products = [a * b for a in (lows[0], highs[0]) for b in (lows[1], highs[1])]
    return min(products), max(products)


def _is_known_pattern(operation) -> bool:
    """Return whether `operation` ends a hard sigmoid, a sparse sigmoid, a sparsemax, or x / sum(x)."""
    inputs = operation.inputs
    if operation.type in ("Mul", "RealDiv"):
        if inputs[0].op.type == "Relu6":
            factor = tf.get_static_value(inputs[1])
            factor = None if factor is None or factor.size != 1 else float(factor.item())
            wanted = 6 if operation.type == "RealDiv" else 1 / 6
            return factor is not None and math.isclose(factor, wanted, rel_tol=1e-3)
        if operation.type == "RealDiv" and inputs[1].op.type == "Sum":
            positive = _strip(inputs[0]).op.type in (
                "Exp",
                "Relu",
                "Softplus",
                "Square",
                "Sigmoid",
                "Softmax",
            )
            summed, divided = _strip(inputs[1].op.inputs[0]), _strip(inputs[0])
            is_same = summed is divided or (
                summed.op.type == divided.op.type and summed.op.inputs[0] is divided.op.inputs[0]
            )
            return positive and is_same
    if operation.type == "SelectV2" and inputs[2].op.type == "SelectV2":
        ends = [tf.get_static_value(one) for one in (inputs[1], inputs[2].op.inputs[1])]
        return all(one is not None and one.size == 1 for one in ends) and [float(e.item()) for e in ends] == [
            0,
            1,
        ]
    if operation.type in ("Maximum", "Relu") and inputs[0].op.type == "Sub":
        return any(one.type == "Cumsum" for one in ancestors([inputs[0].op.inputs[1]]))
    return False


def _strip(tensor):
    while tensor.op.type in ("Cast", "Identity"):
        tensor = tensor.op.inputs[0]
    return tensor

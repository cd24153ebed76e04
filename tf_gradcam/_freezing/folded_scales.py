"""Scales and shifts around a convolution, as of batch normalization, folded into its weights.

`half_precision` calls it: TensorFlow would fold them into weights that are rounded already, and leaves those
after a bias or a depthwise convolution where they are.
"""

import numpy as np
import tensorflow as tf

from tf_gradcam._freezing.graph_nodes import GraphNodes

_FORWARD = ("Conv2D", "Conv3D", "DepthwiseConv2dNative", "MatMul")
_BACKWARD = ("Conv2DBackpropInput", "Conv3DBackpropInputV2", "DepthwiseConv2dNativeBackpropInput")
_DEPTHWISE = ("DepthwiseConv2dNative", "DepthwiseConv2dNativeBackpropInput")


def fold_scales(graph: GraphNodes) -> None:
    """Fold what each channel is multiplied by after a convolution, or before its backward pass, into it."""
    for node in graph.in_order():
        if node.op in _FORWARD and _has_constant_weights(graph, node):
            _fold_after(graph, node)
        elif node.op in _BACKWARD and _has_constant_weights(graph, node):
            _fold_before(graph, node)


def _has_constant_weights(graph, node) -> bool:
    if not graph.is_constant(node.input[1]) or not _is_float32(node):
        return False
    if node.op == "MatMul":
        return not (node.attr["transpose_a"].b or node.attr["transpose_b"].b)
    return node.attr["data_format"].s in (b"", b"NHWC", b"NDHWC")


def _is_float32(node) -> bool:
    return node.attr["T"].type == tf.float32.as_datatype_enum


def _channel_shape(node, weights) -> tuple[int, ...]:
    """Return the shape of the weights' last axes, over which the channels of the result run."""
    return weights.shape[-2:] if node.op in _DEPTHWISE else weights.shape[-1:]


def _fold_after(graph, node) -> None:
    """Replace the scales and shifts after a convolution or product by other weights and one bias."""
    weights = graph.value(node.input[1])
    channels = _channel_shape(node, weights)
    scale, shift = np.ones(channels), np.zeros(channels)
    last, steps = node, []
    while (step := graph.only_reader(last)) is not None:
        if step.op == "Identity":
            last = step
            continue
        found = _scale_and_shift(graph, step, last, int(np.prod(channels)))
        if found is None:
            break
        factor, term = (each.reshape(channels) for each in found)
        scale, shift, last = scale * factor, shift * factor + term, step
        steps.append(step)
    if not steps or (len(steps) == 1 and last.op == "BiasAdd"):
        return
    if np.any(scale != 1):
        scaled = (weights * scale).astype("float32")
        graph.connect(node, 1, graph.add_weight(f"{last.name}/scaled_weights", scaled, tf.float32))
    bias = graph.add_weight(f"{last.name}/folded_bias", shift.ravel().astype("float32"), tf.float32)
    graph.replace(last, "BiasAdd", [node.name, bias])
    for step in reversed(steps[:-1]):
        graph.remove(step)


def _fold_before(graph, node) -> None:
    """Fold a scale of the gradients that go into the backward pass of a convolution into its weights."""
    scaling = graph.nodes.get(node.input[2])
    if scaling is None or scaling.op != "Mul" or graph.only_reader(scaling) is None:
        return
    weights = graph.value(node.input[1])
    channels = _channel_shape(node, weights)
    for position in (0, 1):
        factor = _per_channel(graph, scaling, position, int(np.prod(channels)))
        gradients = scaling.input[1 - position]  # Of one channel, they would be repeated by the product.
        if factor is not None and graph.shape(gradients)[-1] == factor.size:
            scaled = (weights * factor.reshape(channels)).astype("float32")
            name = graph.add_weight(f"{node.name}/scaled_weights", scaled, tf.float32)
            graph.connect(node, 1, name)
            graph.connect(node, 2, gradients)
            return


def _scale_and_shift(graph, step, last, channels) -> tuple[np.ndarray, np.ndarray] | None:
    """Return what `step` multiplies each channel of `last` by and adds to it, or `None` if it does more."""
    if not _is_float32(step) or step.op not in ("BiasAdd", "AddV2", "Add", "Sub", "Mul", "RealDiv"):
        return None
    if step.op == "BiasAdd" and step.attr["data_format"].s not in (b"", b"NHWC"):
        return None
    position = 1 if step.input[0] == last.name else 0
    if position == 0 and step.op in ("Sub", "RealDiv"):
        return None
    value = _per_channel(graph, step, position, channels)
    if value is None:
        return None
    one, zero = np.ones(channels), np.zeros(channels)
    if step.op in ("Mul", "RealDiv"):
        return (value if step.op == "Mul" else 1 / value), zero
    return one, (-value if step.op == "Sub" else value)


def _per_channel(graph, step, position, channels) -> np.ndarray | None:
    """Return an operand of `step` as float64 numbers for each channel, or `None` if it is none."""
    if any(name.startswith("^") for name in step.input) or not graph.is_constant(step.input[position]):
        return None
    value = graph.value(step.input[position])
    rank = graph.shape(step.input[1 - position]).rank
    if rank is None or value.ndim > rank or value.size not in (1, channels):
        return None
    if value.size > 1 and value.shape[-1] != channels:
        return None
    return np.broadcast_to(value.astype("float64").ravel(), (channels,))

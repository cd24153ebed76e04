"""Scales and shifts after a convolution, such as batch normalization's, folded into its filter and one bias.

`frozen` calls it. TensorFlow's optimizer does not fold a scale into a depthwise convolution, nor past a bias.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from tf_gradcam._explain.weight_graph import (
    WeightGraph,
    data_inputs,
    make_placeholder,
    node_name,
    replace_inputs,
    with_nodes,
)

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
_SHIFTS = ("AddV2", "Add", "Sub", "BiasAdd")


class _Chain(NamedTuple):
    """What follows a convolution: its nodes, and `y * scale + shift` of `(channels,)`, or `None`."""

    nodes: list[Any]
    scale: tf.Tensor | None
    shift: tf.Tensor | None


def with_folded_scales(graph: WeightGraph) -> WeightGraph:
    """Return the graph with the scales and shifts after each convolution as one bias."""
    users: dict[str, list[Any]] = {}
    for node in graph.definition.node:
        for source in data_inputs(node):
            users.setdefault(node_name(source), []).append(node)
    weights, added = dict(graph.weights), []
    removed: set[str] = set()
    for node in graph.definition.node:
        kernel = weights.get(node_name(node.input[1])) if node.op in _CONVOLUTIONS else None
        if kernel is None or node.attr["data_format"].s != b"NHWC":
            continue
        chain = _chain(node, graph, users)
        if not chain.nodes:
            continue
        last = chain.nodes[-1]
        removed.update(each.name for each in chain.nodes[:-1])
        if chain.scale is not None:
            # Of a depthwise filter, the last two axes are the channels.
            added.append(tf.compat.v1.NodeDef(name=f"{node.name}/scaled_filter"))
            weights[added[-1].name] = kernel * tf.reshape(
                chain.scale, [-1, *_channel_shape(node, kernel)[1:]]
            )
            replace_inputs(node, [node.input[0], added[-1].name, *node.input[2:]])
        if chain.shift is None:
            _become(last, "Identity", [node.name], kernel.dtype)
            continue
        added.append(tf.compat.v1.NodeDef(name=f"{node.name}/shift"))
        weights[added[-1].name] = chain.shift
        _become(last, "BiasAdd", [node.name, added[-1].name], kernel.dtype)
    for placeholder in added:
        make_placeholder(placeholder, weights[placeholder.name])
    kept = [node for node in graph.definition.node if node.name not in removed]
    return graph._replace(definition=with_nodes(graph.definition, [*added, *kept]), weights=weights)


def _channel_shape(node, kernel):
    """Return the shape of the axes of a filter that are the channels of its output."""
    return kernel.shape[-1:] if node.op == "Conv2D" else kernel.shape[-2:]


def _chain(conv, graph, users):
    """Return the chain of scales and shifts that only lead on from the convolution `conv`."""
    channels = _channel_shape(conv, graph.weights[node_name(conv.input[1])]).num_elements()
    outputs = set(map(node_name, graph.outputs))
    chain, node, passed = _Chain([], None, None), conv, []
    while node.name not in outputs and len(users.get(node.name, [])) == 1:
        (user,) = users[node.name]
        passed.append(user)
        if user.op != "Identity":
            vector = _operand(user, node, graph.weights, channels)
            if vector is None:
                break
            chain = _extended(chain, user, vector)._replace(nodes=list(passed))
        node = user
    return chain


def _operand(user, node, weights, channels):
    """Return what a scale or shift of `node` multiplies with or adds, as `(channels,)`; else `None`."""
    if user.op != "Mul" and user.op not in _SHIFTS:
        return None
    first, second = data_inputs(user)
    if node_name(first) != node.name and user.op in ("Sub", "BiasAdd"):
        return None
    value = weights.get(node_name(second if node_name(first) == node.name else first))
    if value is None or value.shape.rank > 4 or value.shape.num_elements() not in (1, channels):
        return None
    if value.shape.num_elements() != 1 and value.shape[-1] != channels:
        return None
    return tf.broadcast_to(tf.reshape(value, [-1]), [channels])


def _extended(chain, user, vector):
    """Return the chain with the scale or shift of one more step."""
    if user.op == "Mul":
        scale = vector if chain.scale is None else chain.scale * vector
        return chain._replace(scale=scale, shift=None if chain.shift is None else chain.shift * vector)
    vector = -vector if user.op == "Sub" else vector
    return chain._replace(shift=vector if chain.shift is None else chain.shift + vector)


def _become(node, operation, inputs, dtype):
    """Turn a node into another operation, without control inputs: what it was had no other effect."""
    node.op = operation
    replace_inputs(node, inputs)
    node.ClearField("attr")
    node.attr["T"].type = dtype.as_datatype_enum
    if operation == "BiasAdd":
        node.attr["data_format"].s = b"NHWC"

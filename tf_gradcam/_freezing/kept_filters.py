"""Convolutions whose filters oneDNN keeps in its own layout, as arguments too. `graph_function` calls it.

TensorFlow puts the same operations in the place of any convolution whose filter is a constant.
"""

from collections import Counter
from typing import Any

import tensorflow as tf

from tf_gradcam._freezing.weight_graph import (
    WeightGraph,
    make_placeholder,
    node_name,
    replace_inputs,
    with_nodes,
)

_CONVOLUTIONS = ("Conv2D", "_FusedConv2D", "DepthwiseConv2dNative", "_FusedDepthwiseConv2dNative")
_SWISH = b"_MklSwish"
_KEPT = (tf.float32, tf.bfloat16)
# What oneDNN computes together with a convolution.
_FUSED = {
    (b"BiasAdd",),
    (b"BiasAdd", b"Relu"),
    (b"BiasAdd", b"Relu6"),
    (b"BiasAdd", b"Elu"),
    (b"BiasAdd", b"Add"),
    (b"BiasAdd", b"Add", b"Relu"),
    (b"BiasAdd", _SWISH),
}


def with_grouped_swish(graph: WeightGraph) -> WeightGraph:
    """Return the graph with each depthwise convolution before a swish as a grouped one that computes both.

    oneDNN has the fused operation for convolutions of all kinds, TensorFlow only for those by `Conv2D`.
    """
    nodes = {node.name: node for node in graph.definition.node}
    users = Counter(node_name(each) for node in nodes.values() for each in node.input)
    users.update(map(node_name, graph.outputs))
    weights, added, removed = dict(graph.weights), [], set()
    for swish in graph.definition.node:
        conv = nodes[node_name(swish.input[0])] if swish.op == _SWISH.decode() else None
        if conv is None or users[conv.name] > 1 or not _is_depthwise_with_bias(conv, weights):
            continue
        kernel = weights[node_name(conv.input[1])]
        height, width, channels, _ = kernel.shape
        added.append(tf.compat.v1.NodeDef(name=f"{swish.name}/grouped_filter"))
        weights[added[-1].name] = tf.reshape(kernel, [height, width, 1, channels])
        make_placeholder(added[-1], weights[added[-1].name])
        swish.op = "_FusedConv2D"
        swish.ClearField("attr")
        for name in ("T", "num_args", "strides", "padding", "data_format", "dilations"):
            swish.attr[name].CopyFrom(conv.attr[name])
        swish.attr["TArgs"].list.type.append(conv.attr["T"].type)
        swish.attr["fused_ops"].list.s.extend([b"BiasAdd", _SWISH])
        replace_inputs(swish, [conv.input[0], added[-1].name, *conv.input[2:]])
        removed.add(conv.name)
    kept = [node for node in graph.definition.node if node.name not in removed]
    return graph._replace(definition=with_nodes(graph.definition, [*added, *kept]), weights=weights)


def filter_names(graph: WeightGraph) -> set[str]:
    """Return the names of the weights that are filters of convolutions."""
    convolutions = [node for node in graph.definition.node if node.op in _CONVOLUTIONS]
    return {node_name(node.input[1]) for node in convolutions} & set(graph.weights)


def keep_filters(graph: WeightGraph) -> set[str]:
    """Tell oneDNN that filters never change, and return the names of those where that is not possible.

    These must be constants.
    """
    convolutions = [node for node in graph.definition.node if node.op in _CONVOLUTIONS]
    lost = [node_name(node.input[1]) for node in convolutions if not _keep_filter(node, graph.weights)]
    return set(lost) & set(graph.weights)


def _is_depthwise_with_bias(node, weights):
    """Return whether a node is a depthwise convolution with a bias, of one output for each channel."""
    if node.op != "_FusedDepthwiseConv2dNative" or node.attr["T"].type != tf.float32.as_datatype_enum:
        return False
    kernel = weights.get(node_name(node.input[1]))
    is_plain = list(node.attr["fused_ops"].list.s) == [b"BiasAdd"] and not _is_padded(node)
    return is_plain and kernel is not None and kernel.shape[-1] == 1


def _is_padded(node):
    # To look up an attribute that is not there would create it.
    return "explicit_paddings" in node.attr and bool(node.attr["explicit_paddings"].list.i)


def _keep_filter(node: Any, weights) -> bool:
    """Tell oneDNN that the filter of a convolution never changes; return whether that was possible."""
    if node.op not in _CONVOLUTIONS or node_name(node.input[1]) not in weights:
        return False
    is_depthwise = "Depthwise" in node.op
    fused = tuple(node.attr["fused_ops"].list.s) if node.op.startswith("_Fused") else (b"BiasAdd",)
    is_known = tf.as_dtype(node.attr["T"].type) in _KEPT
    if not is_known or fused not in _FUSED or (is_depthwise and _is_padded(node)):
        return False
    node.op = "_MklNative" + node.op.removeprefix("_")
    if is_depthwise:
        node.attr.pop("explicit_paddings", None)  # The operation has none.
    for name in [name for name in node.attr if name.startswith("_")]:
        del node.attr[name]
    node.attr["is_filter_const"].b = True
    node.attr["_kernel"].s = b"MklNameChangeOp"
    return True

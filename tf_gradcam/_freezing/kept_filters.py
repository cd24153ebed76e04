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
_PADDED = ("_FusedConv2D", "_FusedDepthwiseConv2dNative")
# Attributes that fused convolutions of both kinds have.
_SHARED = (
    *("T", "num_args", "strides", "padding", "data_format", "dilations"),
    *("fused_ops", "epsilon", "leakyrelu_alpha"),
)
_SWISH = b"_MklSwish"
_KEPT = (tf.float32, tf.bfloat16)
# What oneDNN computes together with a convolution.
_FUSED = {
    (b"BiasAdd",),
    (b"BiasAdd", b"Relu"),
    (b"BiasAdd", b"Relu6"),
    (b"BiasAdd", b"Elu"),
    (b"BiasAdd", b"LeakyRelu"),
    (b"BiasAdd", b"Add"),
    (b"BiasAdd", b"Add", b"Relu"),
    (b"BiasAdd", b"Add", b"LeakyRelu"),
    (b"BiasAdd", _SWISH),
}


def with_more_fused(graph: WeightGraph) -> WeightGraph:
    """Return the graph with convolutions that also compute what TensorFlow leaves beside them.

    These are a swish after a depthwise convolution, and a padding with zeros before any. oneDNN has both for
    a grouped convolution, which a depthwise one is; TensorFlow's depthwise operation has neither.
    """
    nodes = {node.name: node for node in graph.definition.node}
    users = Counter(node_name(each) for node in nodes.values() for each in node.input)
    users.update(map(node_name, graph.outputs))
    weights, removed = dict(graph.weights), set()
    for swish in list(nodes.values()):
        conv: Any = nodes[node_name(swish.input[0])] if swish.op == _SWISH.decode() else None
        if conv is not None and users[conv.name] == 1 and _becomes_grouped(conv, weights, [b"BiasAdd"]):
            swish.CopyFrom(_renamed(conv, swish.name))
            swish.attr["fused_ops"].list.s.append(_SWISH)
            removed.add(conv.name)
            _group(swish, weights, nodes)
    for node in list(nodes.values()):
        pad: Any = (
            nodes[node_name(node.input[0])] if node.op in _PADDED and node.name not in removed else None
        )
        paddings = None if pad is None or users[pad.name] > 1 else _zeros_around(pad, nodes)
        is_plain = paddings is not None and node.attr["data_format"].s in (b"", b"NHWC")
        if not is_plain or node.attr["padding"].s != b"VALID":
            continue
        if "Depthwise" in node.op:
            if not _becomes_grouped(node, weights):
                continue
            _group(node, weights, nodes)
        node.attr["padding"].s = b"EXPLICIT"
        node.attr["explicit_paddings"].list.i[:] = paddings
        replace_inputs(node, [pad.input[0], *node.input[1:]])
        removed.add(pad.name)
    kept = [node for name, node in nodes.items() if name not in removed]
    return graph._replace(definition=with_nodes(graph.definition, kept), weights=weights)


def _renamed(node, name):
    copied = type(node)()
    copied.CopyFrom(node)
    copied.name = name
    return copied


def _group(node, weights, nodes) -> None:
    """Turn a depthwise convolution into a grouped one."""
    height, width, channels, _ = weights[node_name(node.input[1])].shape
    added = tf.compat.v1.NodeDef(name=f"{node.name}/grouped_filter")
    weights[added.name] = tf.reshape(weights[node_name(node.input[1])], [height, width, 1, channels])
    make_placeholder(added, weights[added.name])
    nodes[added.name] = added
    types = [node.attr["T"].type] * node.attr["num_args"].i
    replace_inputs(node, [node.input[0], added.name, *node.input[2:]])
    node.op = "_FusedConv2D"
    for name in [name for name in node.attr if name not in _SHARED]:
        del node.attr[name]
    node.attr["TArgs"].list.type.extend(types)


def _zeros_around(node, nodes) -> list[int] | None:
    """Return the numbers of zeros that a node adds around each map, before and after each axis, or `None`."""
    sizes = nodes[node_name(node.input[1])] if node.op == "Pad" and len(node.input) == 2 else None
    if sizes is None or sizes.op != "Const":
        return None
    found = tf.make_ndarray(sizes.attr["value"].tensor)
    return found.ravel().tolist() if found.shape == (4, 2) and not found[[0, 3]].any() else None


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


def _becomes_grouped(node, weights, fused=None) -> bool:
    """Return whether a node is a depthwise convolution with a bias, of one output for each channel."""
    if node.op != "_FusedDepthwiseConv2dNative" or node.attr["T"].type != tf.float32.as_datatype_enum:
        return False
    kernel = weights.get(node_name(node.input[1]))
    is_fused = fused is None or list(node.attr["fused_ops"].list.s) == fused
    return is_fused and not _is_padded(node) and kernel is not None and kernel.shape[-1] == 1


def _is_padded(node):
    # To look up an attribute that is not there would create it.
    return "explicit_paddings" in node.attr and bool(node.attr["explicit_paddings"].list.i)


def _keep_filter(node: Any, weights) -> bool:
    """Tell oneDNN that the filter of a convolution never changes; return whether that was possible.

    In half precision it is oneDNN's operation for any filter: TensorFlow's own fused one has no such type.
    """
    if node.op not in _CONVOLUTIONS:
        return False
    dtype, is_weight = tf.as_dtype(node.attr["T"].type), node_name(node.input[1]) in weights
    is_depthwise = "Depthwise" in node.op
    fused = tuple(node.attr["fused_ops"].list.s) if node.op.startswith("_Fused") else (b"BiasAdd",)
    is_known = dtype in _KEPT and (is_weight or dtype == tf.bfloat16)
    if not is_known or fused not in _FUSED or (is_depthwise and _is_padded(node)):
        return False
    node.op = "_MklNative" + node.op.removeprefix("_")
    if is_depthwise:
        node.attr.pop("explicit_paddings", None)  # The operation has none.
    for name in [name for name in node.attr if name.startswith("_")]:
        del node.attr[name]
    node.attr["is_filter_const"].b = is_weight
    node.attr["_kernel"].s = b"MklNameChangeOp"
    return is_weight

"""Convolutions on maps of one place as matrix products, as of squeeze-and-excite. `graph_function` calls it.

To start a convolution takes oneDNN longer than to compute it on such a map.
"""

import tensorflow as tf

from tf_gradcam._freezing.graph_nodes import GraphNodes
from tf_gradcam._freezing.weight_graph import make_constant, node_name


def use_products(graph: GraphNodes) -> None:
    """Replace each 1 x 1 convolution of a map `(N, 1, 1, K)` by a product, and keep its swish apart."""
    for node in list(graph.nodes.values()):
        if node.op == "Conv2D" and _is_product(graph, node):
            _replace_convolution(graph, node)
        elif node.op == "Mul" and _has_one_place(graph, node.name) and _is_swish(graph, node):
            # TensorFlow turns a `Mul` into oneDNN's swish, and not this one, which is the same for finite
            # numbers.
            node.op = "MulNoNan"


def _replace_convolution(graph, node) -> None:
    weights = graph.value(node.input[1])
    rows = graph.add("Squeeze", f"{node.name}/rows", [node.input[0]], T=tf.float32)
    graph.nodes[rows].attr["squeeze_dims"].list.i.extend([1, 2])
    matrix = graph.add_weight(f"{node.name}/matrix", weights[0, 0], tf.float32)
    product = graph.add("MatMul", f"{node.name}/product", [rows, matrix], T=tf.float32)
    shape = graph.add("Const", f"{node.name}/shape", [])
    make_constant(graph.nodes[shape], tf.make_tensor_proto([-1, 1, 1, weights.shape[-1]], tf.int32))
    graph.replace(node, "Reshape", [product, shape])
    node.attr["Tshape"].type = tf.int32.as_datatype_enum


def _has_one_place(graph, name) -> bool:
    shape = graph.shape(name)
    return shape.rank == 4 and shape[1] == 1 and shape[2] == 1


def _is_product(graph, node) -> bool:
    """Return whether a convolution multiplies a map of one place by constant weights."""
    if node.attr["T"].type != tf.float32.as_datatype_enum or not graph.is_constant(node.input[1]):
        return False
    if len(node.input) > 2:  # It waits for a check.
        return False
    if node.attr["data_format"].s not in (b"", b"NHWC") or node.attr["padding"].s == b"EXPLICIT":
        return False
    height, width, channels, _ = graph.shape(node.input[1])
    is_pointwise = height == width == 1 and channels == graph.shape(node.input[0])[-1]
    return is_pointwise and _has_one_place(graph, node.input[0])


def _is_swish(graph, node) -> bool:
    """Return whether a node multiplies a tensor by its sigmoid, which becomes the second factor."""
    for position in (0, 1):
        sigmoid = graph.nodes[node_name(node.input[position])]
        other = node.input[1 - position]
        if sigmoid.op == "Sigmoid" and sigmoid.input[0] == other:
            first, second = other, node.input[position]
            graph.connect(node, 0, first)
            graph.connect(node, 1, second)
            return True
    return False

"""A graph beside its weights as a function: fused, and with the largest weights as arguments.

`folding` calls it. A constant is copied by every step that TensorFlow prepares a graph with, six times in
all; an argument never is. oneDNN must know that a filter never changes, to bring it into its own layout only
once.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tf_gradcam._freezing.graph_nodes import GraphNodes
from tf_gradcam._freezing.kept_filters import filter_names, keep_filters, with_more_fused
from tf_gradcam._freezing.single_places import use_products
from tf_gradcam._freezing.tensorflow_internals import (
    CPU,
    call_flat,
    fused_graph,
    has_onednn,
    simplified_graph,
)
from tf_gradcam._freezing.weight_graph import (
    WeightGraph,
    data_inputs,
    make_constant,
    make_placeholder,
    node_name,
    with_nodes,
    without_needless_control,
)

_LARGE = 2**14  # bytes of a weight, above which it is no constant


def graph_function(graph: WeightGraph) -> Callable[..., list[tf.Tensor]]:
    """Return the graph as a function from flat arguments to a flat list of outputs."""
    graph = graph._replace(definition=with_nodes(graph.definition, graph.definition.node))
    fused = _fused(graph) if _keeps_filters(graph) else _with_constants(graph, graph.weights)
    values = list(fused.weights.values())

    def outputs(*tensors):
        names = [*(spec.name for spec in fused.inputs), *fused.weights]
        return _imported(fused, dict(zip(names, tensors, strict=True)))

    specs = [tf.TensorSpec(each.shape, each.dtype) for each in [*fused.inputs, *values]]
    concrete = tf.function(outputs, autograph=False).get_concrete_function(*specs)
    return lambda *tensors: call_flat(concrete, [*tensors, *values])


def plain_function(graph: WeightGraph) -> Callable[..., list[tf.Tensor]]:
    """Return the graph as a function of operations that have gradients and that XLA knows.

    The weights are its constants. It is traced when it is called.
    """

    def outputs(*tensors):
        copied = graph._replace(definition=with_nodes(graph.definition, graph.definition.node))
        constant = _with_constants(copied, copied.weights)
        names = [spec.name for spec in constant.inputs]
        return _imported(constant, dict(zip(names, tensors, strict=True)))

    specs = [tf.TensorSpec(each.shape, each.dtype) for each in graph.inputs]
    return tf.function(outputs, input_signature=specs, autograph=False)


def _imported(graph, given):
    """Return the outputs of the graph, imported into the one under construction with these tensors.

    Their placeholders are not imported: XLA compiles no graph with a placeholder, also if nothing uses it.
    """
    used = {node_name(source) for node in graph.definition.node for source in data_inputs(node)}
    nodes = [node for node in graph.definition.node if node.name not in given]
    computed = [output for output in graph.outputs if node_name(output) not in given]
    tensors = {name: tensor for name, tensor in given.items() if name in used}
    definition = with_nodes(graph.definition, nodes)
    found = tf.graph_util.import_graph_def(definition, tensors, computed, name="")
    values = {**given, **dict(zip(computed, found, strict=True))}
    return [values[node_name(output) if node_name(output) in given else output] for output in graph.outputs]


def _keeps_filters(graph) -> bool:
    """Return whether convolutions are computed by oneDNN, which can be told to keep a filter."""
    is_plain = not graph.definition.library.function
    return is_plain and has_onednn() and not tf.config.list_logical_devices("GPU")


def _fused(graph):
    """Return the graph with operations fused as TensorFlow would, and with filters that oneDNN keeps."""
    filters = filter_names(graph)
    small = {name for name, value in graph.weights.items() if not _is_large(value)}
    graph = _with_constants(graph, small - filters)
    for node in graph.definition.node:
        node.device = CPU  # Nothing is fused on an unknown device.
    graph = graph._replace(definition=simplified_graph(graph.definition, graph.kept_nodes()))
    nodes = GraphNodes(without_needless_control(graph))
    use_products(nodes)
    graph = nodes.weight_graph()
    for number, node in enumerate(graph.definition.node):
        if node.name in graph.weights:  # Only what looks constant is fused.
            make_constant(node, _stand_in(number, graph.weights[node.name]))
    slopes = {node.name: node.attr["alpha"].f for node in graph.definition.node if node.op == "LeakyRelu"}
    definition = fused_graph(graph.definition, graph.kept_nodes())
    for node in definition.node:
        node.device = ""
        if "leakyrelu_alpha" in node.attr and node.name in slopes:
            # TensorFlow 2.21 forgets the slope of a LeakyReLU after a sum, and takes 0.2.
            node.attr["leakyrelu_alpha"].f = slopes[node.name]
        if node.name in graph.weights:
            make_placeholder(node, graph.weights[node.name])
    graph = with_more_fused(graph._replace(definition=definition))
    return _with_constants(graph, keep_filters(graph))


def _stand_in(number, value):
    """Return a constant of the shape of `value`; each has another number, so that none are merged."""
    whole = {1: "uint8", 2: "uint16", 4: "float32", 8: "float64"}[value.dtype.size]
    # Not every number can be in half precision, but its bits.
    filled = np.array(number + 2**14, whole).view(value.dtype.as_numpy_dtype)
    return tf.compat.v1.make_tensor_proto(filled, value.dtype, value.shape)


def _is_large(value):
    """Return whether a weight is better not a constant."""
    return value.dtype.is_floating and value.dtype.size * value.shape.num_elements() > _LARGE


def _with_constants(graph, names):
    """Return the graph with these weights as constants, and without those that it does not use."""
    names = set(names)
    for node in graph.definition.node:
        if node.name in names and node.name in graph.weights:
            value = graph.weights[node.name]
            make_constant(node, tf.make_tensor_proto(value.numpy(), value.dtype, value.shape))
    used = {node_name(source) for node in graph.definition.node for source in node.input}
    used.update(map(node_name, graph.outputs))
    weights = {name: value for name, value in graph.weights.items() if name in used and name not in names}
    nodes = [
        node
        for node in graph.definition.node
        if node.name in weights or node.name not in graph.weights or node.name in names
    ]
    return graph._replace(definition=with_nodes(graph.definition, nodes), weights=weights)

"""Every private name of TensorFlow that this library uses, each behind a function. Used to freeze.

`tests/explain/test_tensorflow_internals.py` has a test for each, which fails if a new version changes it.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, device_properties_pb2, meta_graph_pb2, rewriter_config_pb2
from tensorflow.python.eager import record
from tensorflow.python.framework import op_def_registry
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.grappler import cluster, tf_optimizer
from tensorflow.python.util import _pywrap_util_port

CPU = "/job:localhost/replica:0/task:0/device:CPU:0"
_LOWERED = "_lower_using_switch_merge"  # Attribute of loops and conditions that run as many operations.
GraphDef = Any  # `tf.compat.v1.GraphDef`, which has no types.


def variables_to_constants(
    concrete: tf.types.experimental.ConcreteFunction, inline: bool
) -> tf.types.experimental.ConcreteFunction:
    """Return `concrete` with the current values of its variables as constants.

    The functions that it calls are inlined. TensorFlow's public way, its LiteRT converter, writes a file.
    Loops are not lowered: they would run without a limit on memory.

    Args:
        concrete: the function.
        inline: whether to inline also functions that were folded before.
    """
    return convert_variables_to_constants_v2(concrete, False, aggressive_inlining=inline)


def call_flat(
    concrete: tf.types.experimental.ConcreteFunction, tensors: Iterable[tf.Tensor]
) -> list[tf.Tensor]:
    """Return the outputs of a function without captured inputs, as a flat list.

    A folded function is public to call, but has no argument names, and searches for them in every call.
    `_call_flat` takes the inputs in their order.
    """
    return concrete._call_flat(list(tensors), [])


def inlined_graph(concrete: tf.types.experimental.ConcreteFunction) -> GraphDef:
    """Return the graph of `concrete` with the functions that it calls inlined, loops excepted."""
    definition = concrete.graph.as_graph_def()
    nodes = [definition.node, *(function.node_def for function in definition.library.function)]
    for node in itertools.chain.from_iterable(nodes):
        if _LOWERED in node.attr:
            node.attr[_LOWERED].b = False
    for function in definition.library.function:
        function.attr.pop("api_implements", None)  # Another form of a function, which keeps it from inlining.
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.optimizers.append("function")
    return _optimized(definition, [each.op.name for each in (*concrete.inputs, *concrete.outputs)], config)


def simplified_graph(definition: GraphDef, kept: Sequence[str]) -> GraphDef:
    """Return a graph as TensorFlow's optimizer, Grappler, makes it, except that nothing is fused.

    Args:
        definition: the graph.
        kept: names of the nodes that stay.
    """
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.remapping = rewriter_config_pb2.RewriterConfig.OFF
    return _optimized(definition, kept, config)


def fused_graph(definition: GraphDef, kept: Sequence[str]) -> GraphDef:
    """Return a graph whose operations are fused as Grappler does it, and nothing else is changed."""
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.optimizers.append("remap")
    return _optimized(definition, kept, config)


def cleaned_graph(definition: GraphDef, kept: Sequence[str]) -> GraphDef:
    """Return a graph without what is not needed, its constant expressions computed, nothing fused.

    A graph whose functions Grappler would replace, as it does with those of loops, stays as it is.
    """
    config = config_pb2.ConfigProto()
    options = config.graph_options.rewrite_options
    options.meta_optimizer_iterations = options.ONE
    options.optimizers.extend(["pruning", "constfold", "dependency"])
    cleaned = _optimized(definition, kept, config)
    attributes = [attribute for node in cleaned.node for attribute in node.attr.values()]
    called = {each.name for attribute in attributes for each in (attribute.func, *attribute.list.func)}
    if not called <= {"", *(each.signature.name for each in definition.library.function)}:
        return definition
    cleaned.library.CopyFrom(definition.library)  # As they are registered: others would be refused.
    return cleaned


def _optimized(definition, kept, config):
    meta_graph = meta_graph_pb2.MetaGraphDef(graph_def=definition)
    meta_graph.collection_def["train_op"].node_list.value.extend(kept)
    config.graph_options.rewrite_options.min_graph_nodes = -1  # Small ones too.
    # Devices of its own would be looked for, by a session and with lines in the log, in each run.
    device = device_properties_pb2.NamedDevice(name=CPU)
    device.properties.type, device.properties.frequency, device.properties.num_cores = "CPU", 1000, 1
    described = cluster.Cluster(devices=[device])
    return tf_optimizer.OptimizeGraph(config, meta_graph, verbose=False, cluster=described)


def is_known(operation: str) -> bool:
    """Return whether this is an operation, and not the name of a function."""
    return op_def_registry.get(operation) is not None


def is_stateful(operation: str) -> bool:
    """Return whether an operation can give something else for the same inputs, or does more than give."""
    return op_def_registry.get(operation).is_stateful


def may_record() -> bool:
    """Return whether a `tf.GradientTape` is open, which may watch what is computed now."""
    return record.could_possibly_record()


def has_onednn() -> bool:
    """Return whether this TensorFlow computes by oneDNN on the CPU."""
    return _pywrap_util_port.IsMklEnabled()

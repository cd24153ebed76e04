"""Every private name of TensorFlow that this library uses, each behind a function. Used by `frozen` alone.

`tests/explain/test_tensorflow_internals.py` has a test for each, which fails if a new version changes it.
"""

from collections.abc import Iterable

import tensorflow as tf
from tensorflow.core.protobuf.config_pb2 import ConfigProto
from tensorflow.core.protobuf.meta_graph_pb2 import CollectionDef
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.grappler import tf_optimizer


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


def optimized_graph(concrete: tf.types.experimental.ConcreteFunction) -> tf.compat.v1.GraphDef:
    """Return the graph of a function with its constant expressions computed and nothing that is not needed.

    Scales after convolutions go into their weights. TensorFlow does all this before it runs a function, and
    more after it; there is no public way to the graph between them.
    """
    graph_def = concrete.graph.as_graph_def()
    meta_graph = tf.compat.v1.train.export_meta_graph(graph_def=graph_def, graph=concrete.graph)
    kept = CollectionDef()
    kept.node_list.value.extend(tensor.name for tensor in [*concrete.inputs, *concrete.outputs])
    meta_graph.collection_def["train_op"].CopyFrom(kept)
    config = ConfigProto()
    options = config.graph_options.rewrite_options
    options.min_graph_nodes = -1  # Also small graphs.
    options.meta_optimizer_iterations = options.ONE
    options.optimizers.extend(["pruning", "constfold", "dependency"])
    optimized = tf_optimizer.OptimizeGraph(config, meta_graph, False)
    optimized.library.CopyFrom(
        graph_def.library
    )  # As they are registered: other definitions would be refused.
    return optimized

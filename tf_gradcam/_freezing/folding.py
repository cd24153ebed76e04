"""Fold a model's weights into a compiled function: `frozen_function` and `fold_variables`.

The explainer calls the first for `GradCAM.freeze`, exports the second.
"""

import itertools
from collections.abc import Callable

import tensorflow as tf

from tf_gradcam._freezing.folded_scales import fold_scales
from tf_gradcam._freezing.graph_function import graph_function, plain_function
from tf_gradcam._freezing.graph_nodes import GraphNodes
from tf_gradcam._freezing.half_precision import use_half_precision
from tf_gradcam._freezing.tensorflow_internals import (
    call_flat,
    cleaned_graph,
    may_record,
    variables_to_constants,
)
from tf_gradcam._freezing.weight_graph import WeightGraph, constant_graph, evaluated, weight_graph

_LOOPS = ("StatelessWhile", "While")  # types of operations
_WEIGHTS_ONLY = "`model` must hold nothing but weights to be frozen, no tables, generators or float8."


def fold_variables(
    concrete: tf.types.experimental.ConcreteFunction, inline: bool = False
) -> tf.types.experimental.ConcreteFunction:
    """Return `concrete` with its variables turned into constants.

    Args:
        concrete: the function.
        inline: whether to inline all functions that it calls, also those with variables folded before.

    Raises:
        ValueError: if it holds anything but weights, such as a table or a random generator.
    """
    # TensorFlow can't fold it, and leaves functions behind that fail when they are deleted.
    if loops_with_variables(concrete) and any("while_grad" in node.name for node in _loops(concrete)):
        raise ValueError(
            f"{_WEIGHTS_ONLY} Received: a loop that reads a tf.Variable which Keras does not list. Read it "
            "before the loop, or create it by `add_weight`."
        )
    try:
        with tf.init_scope():  # The caller may be tracing a tf.function.
            folded = variables_to_constants(concrete, inline)
            arguments = len(concrete.inputs) - len(concrete.captured_inputs)
            if folded.captured_inputs or len(folded.inputs) != arguments:
                raise TypeError(f"it takes {folded.inputs[arguments:]}")
            return folded
    except (TypeError, ValueError, tf.errors.OpError) as error:
        raise ValueError(
            f"{_WEIGHTS_ONLY} Received: a model that TensorFlow cannot convert to constants: {error!s:.200}"
        ) from error


def frozen_function(
    concrete: tf.types.experimental.ConcreteFunction, precision: str | None = None
) -> Callable:
    """Return `concrete` with its variables turned into constants, so that TensorFlow can optimize it.

    Batch normalization is folded into convolutions, and these are fused with the operations after them.

    Args:
        concrete: the function. Its outputs are a named tuple.
        precision: a key of `PRECISIONS`, for convolutions and products in half precision.

    Raises:
        ValueError: as `fold_variables` does, and as `use_half_precision` does.
    """
    structure = concrete.structured_outputs
    # `None` in the structure is not an output of the graph.
    is_tensor = [leaf is not None for leaf in tf.nest.flatten(structure)]
    compute = _folded_call(concrete, precision)

    def call(*tensors):
        outputs = iter(compute([tf.convert_to_tensor(tensor) for tensor in tensors]))
        leaves = [next(outputs) if present else None for present in is_tensor]
        return tf.nest.pack_sequence_as(structure, leaves)

    call.structured_outputs = structure  # type: ignore[attr-defined]  # as on a ConcreteFunction
    return call


def _folded_call(concrete, precision):
    """Return the function from a list of tensors to those of the outputs."""
    with tf.init_scope():  # The caller may be tracing a tf.function.
        graph = frozen_graph(concrete, precision)
        if graph is None:
            folded = fold_variables(concrete)
            return lambda tensors: call_flat(folded, tensors)
        run, plain = graph_function(graph), plain_function(graph)

    def call(tensors):
        if may_record():
            # Fused operations have no gradient, and one with a gradient of its own, as a swish, has it in the
            # trace alone.
            return [each for each in tf.nest.flatten(concrete(*tensors)) if each is not None]
        return run(*tensors) if tf.executing_eagerly() else plain(*tensors)  # XLA knows no fused operation.

    return call


def frozen_graph(
    concrete: tf.types.experimental.ConcreteFunction, precision: str | None
) -> WeightGraph | None:
    """Return the graph of a function with what depends on weights alone computed, and scales folded in.

    Returns `None` if it has loops, in which nothing is changed.

    Args:
        concrete: the function.
        precision: see `frozen_function`; with one, a graph with loops has its constants inside.
    """
    graph = weight_graph(concrete)
    if graph is None and precision is None:
        return None
    graph = constant_graph(fold_variables(concrete)) if graph is None else evaluated(graph)
    if precision is not None:
        graph = graph._replace(definition=cleaned_graph(graph.definition, graph.kept_nodes()))
    nodes = GraphNodes(graph)
    fold_scales(nodes)
    if precision is not None:
        use_half_precision(nodes, _answers(graph, concrete.structured_outputs), precision)
    return nodes.weight_graph()


def _answers(graph, structure) -> list[str]:
    """Return the names of the tensors that are scores and outputs of the model."""
    fields = [
        field
        for field, value in zip(structure._fields, structure, strict=True)
        for leaf in tf.nest.flatten(value)
        if leaf is not None
    ]
    return [name for field, name in zip(fields, graph.outputs, strict=True) if field in ("score", "outputs")]


def loops_with_variables(concrete: tf.types.experimental.ConcreteFunction) -> list[str]:
    """Return the names of the loops that take variables, and not their values."""
    if not any(tensor.dtype == tf.resource for tensor in concrete.captured_inputs):
        return []  # A definition of the graph would copy its constants.
    resource = tf.resource.as_datatype_enum
    return [node.name for node in _loops(concrete) if resource in node.attr["T"].list.type]


def _loops(concrete):
    graph = concrete.graph.as_graph_def()
    nodes = itertools.chain(graph.node, *(function.node_def for function in graph.library.function))
    return [node for node in nodes if node.op in _LOOPS]

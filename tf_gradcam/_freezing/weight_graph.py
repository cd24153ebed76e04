"""A compiled function as a graph beside its weights, and what depends on weights alone computed once.

`frozen` calls it. As constants of a graph, the weights would be copied in each step from Python to kernels.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import tensorflow as tf

from tf_gradcam._freezing.tensorflow_internals import inlined_graph, is_known, is_stateful

GraphDef = Any  # `tf.compat.v1.GraphDef` and its nodes, which have no types.
_PLACEHOLDER = "Placeholder"


class WeightGraph(NamedTuple):
    """A graph without functions and variables, whose weights are placeholders.

    Attributes:
        definition: the graph.
        weights: the value of each weight, by the name of its placeholder.
        inputs: specs of the arguments in their order, each with the name of its placeholder.
        outputs: names of the output tensors.
    """

    definition: GraphDef
    weights: dict[str, tf.Tensor]
    inputs: list[tf.TensorSpec]
    outputs: list[str]

    def kept_nodes(self) -> list[str]:
        """Return the names of the nodes that any other form of the graph has too."""
        names = [*(spec.name for spec in self.inputs), *self.weights, *map(node_name, self.outputs)]
        return list(dict.fromkeys(names))


def node_name(source: str) -> str:
    """Return the name of the node that an input of a node refers to."""
    return source.removeprefix("^").partition(":")[0]


def data_inputs(node: Any) -> list[str]:
    """Return the inputs of a node without its control inputs."""
    return [source for source in node.input if not source.startswith("^")]


def read_by(node: Any) -> list[str]:
    """Return the names of the nodes whose results a node reads."""
    return [node_name(source) for source in data_inputs(node)]


def replace_inputs(node: Any, inputs: Iterable[str]) -> None:
    """Give a node other inputs."""
    inputs = list(inputs)
    node.ClearField("input")
    node.input.extend(inputs)


def make_placeholder(node: Any, value: tf.Tensor) -> None:
    """Turn a node into the placeholder of a weight."""
    node.op = _PLACEHOLDER
    node.ClearField("input")
    node.ClearField("attr")
    node.attr["dtype"].type = value.dtype.as_datatype_enum
    node.attr["shape"].shape.CopyFrom(value.shape.as_proto())


def make_constant(node: Any, tensor: Any) -> None:
    """Turn a node into a constant, whose value is a `TensorProto`."""
    node.op = "Const"
    node.ClearField("input")
    node.ClearField("attr")
    node.attr["dtype"].type = tensor.dtype
    node.attr["value"].tensor.CopyFrom(tensor)


def with_nodes(definition: GraphDef, nodes: Iterable[Any]) -> GraphDef:
    """Return a graph of other nodes, without control inputs that are not among them."""
    graph = tf.compat.v1.GraphDef(versions=definition.versions, library=definition.library)
    graph.node.extend(nodes)
    names = {node.name for node in graph.node}
    for node in graph.node:
        if len(data_inputs(node)) < len(node.input):
            replace_inputs(node, [each for each in node.input if each[0] != "^" or each[1:] in names])
    return graph


def without_needless_control(graph: WeightGraph) -> WeightGraph:
    """Return the graph without control inputs that do not lead to a check, such as those from constants.

    Grappler leaves them where it has computed a constant, and fuses no operation that has one.
    """
    stateful = [node.name for node in graph.definition.node if is_stateful(node.op)]
    needed = _downstream(graph, stateful, with_control=True)
    for node in graph.definition.node:
        inputs = [each for each in node.input if each[0] != "^" or each[1:] in needed]
        if len(inputs) < len(node.input):
            replace_inputs(node, inputs)
    return graph


def weight_graph(concrete: tf.types.experimental.ConcreteFunction) -> WeightGraph | None:
    """Return the graph of `concrete` beside the present values of its variables.

    Returns `None` if the graph has loops or other functions, or takes a resource that is not only read as a
    variable, such as a table.
    """
    definition = inlined_graph(concrete)
    if any(_calls_function(node) for node in definition.node):
        return None
    captured = {inner.op.name: outer for outer, inner in concrete.graph.captures}
    resources = _resources(definition, captured)
    weights = {}
    for node in definition.node:
        if node.name in resources:
            continue
        read = [resources[name] for name in map(node_name, data_inputs(node)) if name in resources]
        if read and node.op != "ReadVariableOp":
            return None
        if read:
            dtype = tf.as_dtype(node.attr["dtype"].type)
            weights[node.name] = tf.raw_ops.ReadVariableOp(resource=read[0], dtype=dtype)
        elif node.name in captured and node.op == _PLACEHOLDER:
            weights[node.name] = captured[node.name]
        if node.name in weights:
            make_placeholder(node, weights[node.name])
    inputs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, tensor.op.name)
        for tensor in concrete.inputs
        if tensor.op.name not in captured
    ]
    nodes = [node for node in definition.node if node.name not in resources]
    for node in nodes:
        node.attr.pop("_class", None)  # Where inlining wants it to be: at arguments and resources.
    outputs = [tensor.name for tensor in concrete.outputs]
    return pruned(WeightGraph(with_nodes(definition, nodes), weights, inputs, outputs))


def constant_graph(folded: tf.types.experimental.ConcreteFunction) -> WeightGraph:
    """Return the graph of a function without variables, with its constants inside and its functions."""
    inputs = [tf.TensorSpec(tensor.shape, tensor.dtype, tensor.op.name) for tensor in folded.inputs]
    outputs = [tensor.name for tensor in folded.outputs]
    return pruned(WeightGraph(folded.graph.as_graph_def(), {}, inputs, outputs))


def pruned(graph: WeightGraph) -> WeightGraph:
    """Return the graph without the nodes and weights that neither outputs nor checks in the graph need.

    A gradient leaves nodes behind that nothing reads, but that would count as readers of what they read.
    """
    nodes = {node.name: node for node in graph.definition.node}
    found = {spec.name for spec in graph.inputs} | set(map(node_name, graph.outputs))
    found |= {name for name, node in nodes.items() if is_known(node.op) and is_stateful(node.op)}
    waiting = list(found)
    while waiting:
        new = set(map(node_name, nodes[waiting.pop()].input)) - found
        found |= new
        waiting += new
    kept = [node for name, node in nodes.items() if name in found]
    weights = {name: value for name, value in graph.weights.items() if name in found}
    return graph._replace(definition=with_nodes(graph.definition, kept), weights=weights)


def evaluated(graph: WeightGraph) -> WeightGraph:
    """Return the graph with all that depends on weights alone computed; these values are its weights."""
    arguments = [spec.name for spec in graph.inputs]
    changing = _downstream(
        graph, [*arguments, *(node.name for node in graph.definition.node if is_stateful(node.op))]
    )
    constants = _downstream(graph, graph.weights) - changing
    rest = [node for node in graph.definition.node if node.name not in constants]
    sources = [source for node in rest for source in data_inputs(node)]
    needed = [each for each in dict.fromkeys([*sources, *graph.outputs]) if node_name(each) in constants]
    weights, placeholders = {}, {}
    for number, (source, value) in enumerate(zip(needed, _values(graph, needed), strict=True)):
        # No name of the graph: an output "name:1" would need another one.
        placeholder = tf.compat.v1.NodeDef(name=f"weight_{number}/{node_name(source)}")
        make_placeholder(placeholder, value)
        weights[placeholder.name], placeholders[source] = value, placeholder
    for node in rest:
        replace_inputs(
            node, [placeholders[each].name if each in placeholders else each for each in node.input]
        )
    outputs = [f"{placeholders[each].name}:0" if each in placeholders else each for each in graph.outputs]
    definition = with_nodes(graph.definition, [*placeholders.values(), *rest])
    return WeightGraph(definition, weights, graph.inputs, outputs)


def _calls_function(node):
    """Return whether a node calls a function of the graph's library, as loops do."""
    attributes = node.attr.values()
    return not is_known(node.op) or any(each.HasField("func") or each.list.func for each in attributes)


def _resources(definition, captured):
    """Return the captured resource of each node that is one or hands one on."""
    resource = tf.resource.as_datatype_enum
    nodes = definition.node
    found = {
        node.name: captured[node.name]
        for node in nodes
        if node.name in captured and node.attr["dtype"].type == resource
    }
    waiting = [node for node in nodes if node.op == "Identity" and node.attr["T"].type == resource]
    while known := [node for node in waiting if node_name(node.input[0]) in found]:
        found.update({node.name: found[node_name(node.input[0])] for node in known})
        waiting = [node for node in waiting if node.name not in found]
    return found


def _downstream(graph, names, with_control=False):
    """Return the names of the nodes that depend on those given, and these."""
    users: dict[str, list[str]] = {}
    for node in graph.definition.node:
        for source in node.input if with_control else data_inputs(node):
            users.setdefault(node_name(source), []).append(node.name)
    found, waiting = set(names), list(names)
    while waiting:
        new = [user for user in users.get(waiting.pop(), []) if user not in found]
        found.update(new)
        waiting += new
    return found


def _values(graph, tensors):
    """Return the values of tensors that depend on weights alone."""
    nodes = {node.name: node for node in graph.definition.node}
    values = {tensor: graph.weights.get(node_name(tensor)) for tensor in tensors}
    computed = [tensor for tensor, value in values.items() if value is None]
    needed, waiting = {}, [node_name(tensor) for tensor in computed]
    while waiting:
        node = nodes[waiting.pop()]
        if node.name not in needed:
            needed[node.name] = node
            waiting += map(node_name, data_inputs(node))
    # No control inputs: nothing that depends on weights alone has to wait.
    part = tf.compat.v1.GraphDef(versions=graph.definition.versions)
    for node in needed.values():
        part.node.add().CopyFrom(node)
        replace_inputs(part.node[-1], data_inputs(node))
    if computed:
        weights = {name: graph.weights[name] for name in needed if name in graph.weights}
        values.update(zip(computed, _run(part, computed, weights), strict=True))
    return list(values.values())


def _run(definition, tensors, weights):
    """Return the values of tensors of a graph, computed once.

    A session does so in a fifth of the time of a `tf.function`, which prepares to compute often.
    """
    options = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
    options.graph_options.rewrite_options.disable_meta_optimizer = True
    names = [tensor if ":" in tensor else f"{tensor}:0" for tensor in tensors]
    given = {f"{name}:0": value.numpy() for name, value in weights.items()}
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(definition, name="")
        with tf.compat.v1.Session(graph=graph, config=options) as session:
            found = session.run(names, given)
    return [tf.constant(value) for value in found]

"""The nodes of a graph beside its weights: who reads whom, sizes, and changes. What rewrites one uses it.

A graph definition is a list of nodes that name their inputs; this gives the same nodes by their names.
"""

import numpy as np
import tensorflow as tf

from tf_gradcam._freezing.weight_graph import WeightGraph, make_placeholder, node_name, pruned

_OPEN_LENGTH = 32  # Taken for an axis whose length is open, other than the batch axis.


class GraphNodes:
    """The nodes of a graph definition, which is changed in place.

    Args:
        graph: the graph and its weights.
    """

    def __init__(self, graph: WeightGraph):
        self._graph = graph
        self.outputs = graph.outputs
        self._weights = dict(graph.weights)
        self._output_nodes = set(map(node_name, graph.outputs))
        with tf.Graph().as_default() as imported:
            tf.import_graph_def(graph.definition, name="")
        self._shapes = {
            one.name: [output.shape for output in one.outputs] for one in imported.get_operations()
        }
        self.nodes = {node.name: node for node in graph.definition.node}
        self.readers: dict[str, list] = {name: [] for name in self.nodes}
        for node in graph.definition.node:
            for name in node.input:
                self.readers[node_name(name)].append(node)

    def in_order(self) -> list:
        """Return the nodes, each after those that it reads."""
        missing = {name: len(node.input) for name, node in self.nodes.items()}
        ready = [node for name, node in self.nodes.items() if not missing[name]]
        for node in ready:  # It grows.
            for reader in self.readers[node.name]:
                missing[reader.name] -= 1
                if not missing[reader.name]:
                    ready.append(reader)
        return ready

    def shape(self, name: str) -> tf.TensorShape:
        """Return the shape of a tensor, as far as it is known."""
        number = name.partition(":")[2]
        return self._shapes[node_name(name)][int(number or 0)]

    def elements(self, name: str) -> float:
        """Return about how many numbers a tensor has for one image."""
        shape = self.shape(name)
        if shape.rank is None:
            return float(_OPEN_LENGTH**3)
        return float(np.prod([_OPEN_LENGTH if one is None else one for one in shape.as_list()[1:]]))

    def is_constant(self, name: str) -> bool:
        """Return whether a tensor is a weight or a constant."""
        return node_name(name) in self._weights or self.nodes[node_name(name)].op == "Const"

    def value(self, name: str) -> np.ndarray:
        """Return the value of a weight or constant."""
        if node_name(name) in self._weights:
            return self._weights[node_name(name)].numpy()
        return tf.make_ndarray(self.nodes[node_name(name)].attr["value"].tensor)

    def only_reader(self, node):
        """Return the node that alone reads `node`, or `None`; an output counts as a reader."""
        readers = self.readers[node.name]
        return readers[0] if len(readers) == 1 and node.name not in self._output_nodes else None

    def add(self, op: str, name: str, inputs: list[str], like: str | None = None, **types: tf.DType) -> str:
        """Add a node with attributes that are types, and return its name; its shape is that of `like`."""
        node = self._graph.definition.node.add(op=op, name=name)
        for key, dtype in types.items():
            node.attr[key].type = dtype.as_datatype_enum
        self.nodes[name], self.readers[name] = node, []
        if like is not None:
            self._shapes[name] = [self.shape(like)]
        for each in inputs:
            node.input.append(each)
            self.readers[node_name(each)].append(node)
        return name

    def add_weight(self, name: str, value: np.ndarray, dtype: tf.DType) -> str:
        """Add a weight, and return its name."""
        self.add("Placeholder", name, [])
        self._weights[name] = tf.cast(value, dtype)
        make_placeholder(self.nodes[name], self._weights[name])
        self._shapes[name] = [tf.TensorShape(value.shape)]
        return name

    def connect(self, node, position: int, name: str) -> None:
        """Let an input of a node be another tensor."""
        self.readers[node_name(node.input[position])].remove(node)
        node.input[position] = name
        self.readers[node_name(name)].append(node)

    def replace(self, node, op: str, inputs: list[str]) -> None:
        """Let a node with one result in float32 be another operation on other tensors."""
        self._disconnect(node)
        node.op = op
        node.attr.clear()
        node.attr["T"].type = tf.float32.as_datatype_enum
        for name in inputs:
            node.input.append(name)
            self.readers[node_name(name)].append(node)

    def remove(self, node) -> None:
        """Remove a node that nothing is to read any more."""
        self._disconnect(node)
        del self.nodes[node.name], self.readers[node.name]

    def _disconnect(self, node):
        for name in node.input:
            self.readers[node_name(name)].remove(node)
        node.ClearField("input")

    def weight_graph(self) -> WeightGraph:
        """Return the graph without the nodes and weights that nothing needs any more."""
        return pruned(self._graph._replace(weights=self._weights))

"""The nodes of a folded function's graph: who reads whom, sizes, and changes. `half_precision` uses it.

A graph definition is a list of nodes that name their inputs; this gives the same nodes by their names.
"""

import numpy as np
import tensorflow as tf

_OPEN_LENGTH = 32  # Taken for an axis whose length is open, other than the batch axis.


def source(name: str) -> str:
    """Return the name of the node that an input comes from."""
    return name.lstrip("^").partition(":")[0]


def read_by(node) -> list[str]:
    """Return the names of the nodes whose results a node reads, without those that only run before it."""
    return [source(name) for name in node.input if not name.startswith("^")]


class GraphNodes:
    """The nodes of a graph definition, which is changed in place.

    Args:
        graph_def: the definition.
        outputs: names of the tensors that the function returns.
    """

    def __init__(self, graph_def: tf.compat.v1.GraphDef, outputs: list[str]):
        self.graph_def = graph_def
        self.outputs = outputs
        self._output_nodes = set(map(source, outputs))
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(graph_def, name="")
        self._shapes = {one.name: [output.shape for output in one.outputs] for one in graph.get_operations()}
        self.nodes = {node.name: node for node in graph_def.node}
        self.readers: dict[str, list] = {name: [] for name in self.nodes}
        for node in graph_def.node:
            for name in node.input:
                self.readers[source(name)].append(node)

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
        return self._shapes[source(name)][int(number or 0)]

    def elements(self, name: str) -> float:
        """Return about how many numbers a tensor has for one image."""
        shape = self.shape(name)
        if shape.rank is None:
            return float(_OPEN_LENGTH**3)
        return float(np.prod([_OPEN_LENGTH if one is None else one for one in shape.as_list()[1:]]))

    def is_constant(self, name: str) -> bool:
        """Return whether a tensor is a constant."""
        return self.nodes[source(name)].op == "Const"

    def value(self, name: str) -> np.ndarray:
        """Return the value of a constant."""
        return tf.make_ndarray(self.nodes[source(name)].attr["value"].tensor)

    def only_reader(self, node):
        """Return the node that alone reads `node`, or `None`; an output counts as a reader."""
        readers = self.readers[node.name]
        return readers[0] if len(readers) == 1 and node.name not in self._output_nodes else None

    def add(self, op: str, name: str, inputs: list[str], like: str | None = None, **types: tf.DType) -> str:
        """Add a node with attributes that are types, and return its name; its shape is that of `like`."""
        node = self.graph_def.node.add(op=op, name=name)
        for key, dtype in types.items():
            node.attr[key].type = dtype.as_datatype_enum
        self.nodes[name], self.readers[name] = node, []
        if like is not None:
            self._shapes[name] = [self.shape(like)]
        for each in inputs:
            node.input.append(each)
            self.readers[source(each)].append(node)
        return name

    def add_constant(self, name: str, value: np.ndarray, dtype: tf.DType) -> str:
        """Add a constant, and return its name."""
        self.add("Const", name, [], dtype=dtype)
        self.nodes[name].attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype=dtype))
        self._shapes[name] = [tf.TensorShape(value.shape)]
        return name

    def connect(self, node, position: int, name: str) -> None:
        """Let an input of a node be another tensor."""
        self.readers[source(node.input[position])].remove(node)
        node.input[position] = name
        self.readers[source(name)].append(node)

    def replace(self, node, op: str, inputs: list[str]) -> None:
        """Let a node with one result in float32 be another operation on other tensors."""
        self._disconnect(node)
        node.op = op
        node.attr.clear()
        node.attr["T"].type = tf.float32.as_datatype_enum
        for name in inputs:
            node.input.append(name)
            self.readers[source(name)].append(node)

    def remove(self, node) -> None:
        """Remove a node that nothing is to read any more."""
        self._disconnect(node)
        del self.nodes[node.name], self.readers[node.name]

    def _disconnect(self, node):
        for name in node.input:
            self.readers[source(name)].remove(node)
        node.ClearField("input")

    def needed(self) -> tf.compat.v1.GraphDef:
        """Return the definition without the nodes that nothing needs any more."""
        found = {name for name, node in self.nodes.items() if node.op == "Placeholder"} | self._output_nodes
        waiting = list(found)
        while waiting:
            for name in map(source, self.nodes[waiting.pop()].input):
                if name not in found:
                    found.add(name)
                    waiting.append(name)
        kept = tf.compat.v1.GraphDef(versions=self.graph_def.versions, library=self.graph_def.library)
        kept.node.extend(node for node in self.graph_def.node if node.name in found)
        return kept

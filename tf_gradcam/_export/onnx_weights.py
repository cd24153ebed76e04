"""The weights of an ONNX model as its operations take them: transposed, scaled, once. `runtimes` calls it.

The converter leaves transposes of weights in the model. Runtimes fold them when they load it, but quantizers
look for weights that are constants, and take what comes out of a transpose for activations.
"""

import collections
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from tf_gradcam._export.plain_graph import LARGE_CONSTANT

Node = Any  # an onnx.NodeProto
_PER_CHANNEL = "Add", "Mul", "Sub"


class _Model:
    """An ONNX graph with its constants as arrays, and who uses what.

    Attributes:
        graph: the `GraphProto`. Its initializers are in `constants` until `write` puts them back.
        constants: arrays by name.
        ranks: the number of axes of a value, by name, where it is known.
        users: the nodes that take a value, by name.
        outputs: the names of the graph's outputs.
    """

    def __init__(self, graph: Any, weights: Mapping[str, np.ndarray], ranks: Mapping[str, int]):
        import onnx

        self.graph, self.ranks = graph, ranks
        self.constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
        self.constants |= weights
        self.outputs = {each.name for each in graph.output}
        self.users: dict[str, list[Node]] = collections.defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.users[name].append(node)

    def only_user(self, name: str) -> Node | None:
        """Return the node that takes a value, if it is one alone, and once."""
        users = self.users[name]
        return users[0] if len(users) == 1 and name not in self.outputs else None

    def replace(self, name: str, new_name: str) -> None:
        """Let all who take one value take another."""
        for node in self.users.pop(name, []):
            node.input[:] = [new_name if each == name else each for each in node.input]
            if all(node is not user for user in self.users[new_name]):
                self.users[new_name].append(node)

    def remove(self, nodes: Iterable[Node]) -> None:
        gone = {id(node) for node in nodes}
        for node in nodes:
            for name in node.input:
                self.users[name] = [user for user in self.users[name] if id(user) != id(node)]
        for index in reversed(range(len(self.graph.node))):
            if id(self.graph.node[index]) in gone:
                del self.graph.node[index]

    def write(self) -> None:
        """Put the constants that are used into the graph."""
        import onnx

        del self.graph.initializer[:]
        for name, values in self.constants.items():
            if self.users[name] or name in self.outputs:
                self.graph.initializer.append(
                    onnx.numpy_helper.from_array(np.asarray(values, order="C"), name)
                )


def fold_weights(model: Any, weights: Mapping[str, np.ndarray]) -> None:
    """Put weights into an ONNX model, and fold into them what changes nothing but weights.

    That is every transpose and reshape of a weight, where no copy of the weight stays behind, and the scale
    and the bias that a normalization multiplies and adds after a convolution.

    Args:
        model: the `ModelProto`, which is changed. Its inputs include one for each weight, with its shape.
        weights: the arrays by the names of these inputs.
    """
    ranks = _ranks(model)
    for value in list(model.graph.input):
        if value.name in weights:
            model.graph.input.remove(value)
    held = _Model(model.graph, weights, ranks)
    _transpose_within_products(held)
    _fold_layouts(held)
    _fold_scales(held)
    held.write()


def _ranks(model) -> dict[str, int]:
    """Return the number of axes of each value, as far as ONNX finds it out."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {value.name: value.type.tensor_type for value in values}
    return {name: len(kind.shape.dim) for name, kind in types.items() if kind.HasField("shape")}


def _attribute(node: Node, name: str, default: Any = None) -> Any:
    import onnx

    found = [each for each in node.attribute if each.name == name]
    return onnx.helper.get_attribute_value(found[0]) if found else default


def _transpose_within_products(held: _Model) -> None:
    """Turn `x @ transpose(weights)` into a `Gemm`, which transposes by itself.

    A dense layer's weights are so in the file once, though its gradient takes them transposed.
    """
    import onnx

    for transpose in [node for node in held.graph.node if node.op_type == "Transpose"]:
        weights, product = held.constants.get(transpose.input[0]), held.only_user(transpose.output[0])
        if weights is None or weights.ndim != 2 or product is None or product.op_type != "MatMul":
            continue
        is_second = product.input[1] == transpose.output[0] and product.input[0] not in held.constants
        if not is_second or held.ranks.get(product.input[0]) != 2:
            continue
        held.remove([transpose])
        held.replace(transpose.output[0], transpose.input[0])
        product.op_type = "Gemm"
        product.attribute.append(onnx.helper.make_attribute("transB", 1))


def _fold_layouts(held: _Model) -> None:
    """Fold each transpose and reshape of a weight that leaves no copy of it behind."""
    folded: dict[tuple[str, str], str] = {}  # by the weight and what is done with it
    gone = []
    for node in held.graph.node:
        name, change = (node.input[0] if node.input else ""), _LAYOUTS.get(node.op_type)
        if change is None or not all(each in held.constants for each in node.input):
            continue
        values = held.constants[name]
        if values.size > LARGE_CONSTANT and not _all_alike(held.users[name]):
            continue
        key = name, _what_it_does(node, held.constants)
        if key not in folded:
            arguments = [held.constants[each] for each in node.input[1:]]
            held.constants[node.output[0]] = change(node, values, *arguments)
            folded[key] = node.output[0]
        else:
            held.replace(node.output[0], folded[key])
        gone.append(node)
    held.remove(gone)


def _what_it_does(node: Node, constants: Mapping[str, np.ndarray]) -> str:
    attributes = sorted(each.SerializeToString() for each in node.attribute)
    return f"{node.op_type} {attributes} {[constants[name].tolist() for name in node.input[1:]]}"


def _all_alike(nodes: list[Node]) -> bool:
    """Return whether nodes all do the same with their first input."""
    kinds = {
        (node.op_type, *node.input[1:], *(each.SerializeToString() for each in node.attribute))
        for node in nodes
    }
    return len(kinds) == 1


def _transposed(node: Node, values: np.ndarray) -> np.ndarray:
    return values.transpose(_attribute(node, "perm"))


def _reshaped(node: Node, values: np.ndarray, shape: np.ndarray) -> np.ndarray:
    kept = [] if _attribute(node, "allowzero", 0) else np.flatnonzero(shape == 0)
    return values.reshape(
        [values.shape[axis] if axis in kept else length for axis, length in enumerate(shape)]
    )


def _squeezed(_: Node, values: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
    return values.squeeze(None if axes is None else tuple(axes.tolist()))


def _unsqueezed(_: Node, values: np.ndarray, axes: np.ndarray) -> np.ndarray:
    return np.expand_dims(values, tuple(axes.tolist()))


_LAYOUTS: dict[str, Callable[..., np.ndarray]] = {
    "Identity": lambda _, values: values,
    "Reshape": _reshaped,
    "Squeeze": _squeezed,
    "Transpose": _transposed,
    "Unsqueeze": _unsqueezed,
}


def _fold_scales(held: _Model) -> None:
    """Fold what a normalization multiplies and adds after a convolution into its filters and its bias."""
    for convolution in [node for node in held.graph.node if node.op_type == "Conv"]:
        while (after := held.only_user(convolution.output[0])) is not None:
            if not _fold_scale(held, convolution, after):
                break
            held.remove([after])
            convolution.output[0] = after.output[0]


def _fold_scale(held: _Model, convolution: Node, after: Node) -> bool:
    """Fold one operation into the convolution before it, and return whether that was possible."""
    filters_name, *bias_names = convolution.input[1:]
    owned = [held.only_user(name) is convolution and name in held.constants for name in convolution.input[1:]]
    if after.op_type not in _PER_CHANNEL or not all(owned):
        return False
    position = list(after.input).index(convolution.output[0])
    numbers, filters = held.constants.get(after.input[1 - position]), held.constants[filters_name]
    if numbers is None or numbers.dtype != filters.dtype or (after.op_type, position) == ("Sub", 1):
        return False
    per_channel = _per_channel(numbers, len(filters), filters.ndim)
    if per_channel is None:
        return False
    bias = held.constants[bias_names[0]] if bias_names else np.zeros(len(filters), filters.dtype)
    if after.op_type == "Mul":
        held.constants[filters_name] = filters * per_channel.reshape([-1] + [1] * (filters.ndim - 1))
        bias = bias * per_channel
    else:
        bias = bias + per_channel if after.op_type == "Add" else bias - per_channel
    if not bias_names and after.op_type != "Mul":
        bias_names = [f"{filters_name}/bias_of_{convolution.output[0]}"]
        convolution.input.append(bias_names[0])
        held.users[bias_names[0]] = [convolution]
    if bias_names:
        held.constants[bias_names[0]] = bias
    return True


def _per_channel(numbers: np.ndarray, channels: int, rank: int) -> np.ndarray | None:
    """Return one number for each channel of `(N, C, ...)`; `None` if they differ along another axis."""
    if numbers.ndim > rank:
        return None
    shape = (1,) * (rank - numbers.ndim) + numbers.shape
    if any(length != 1 for axis, length in enumerate(shape) if axis != 1) or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(numbers.reshape(shape[1]), [channels])

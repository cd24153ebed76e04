"""A folded function with its convolutions and products in half precision, where that takes less time.

`folding` calls it for `GradCAM.freeze(precision=...)`. What to run in half precision is the cheapest cut of
the graph: an operation gains or loses, and each tensor between the two parts costs a cast. Scores, maps and
heatmaps stay in float32.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_gradcam._freezing.graph_nodes import GraphNodes
from tf_gradcam._freezing.half_hardware import PRECISIONS
from tf_gradcam._freezing.minimum_cut import CutGraph
from tf_gradcam._freezing.weight_graph import node_name, read_by

FLOAT32_SCOPE = "stays_in_float32"  # In the names of operations that are left alone.
_FLOAT32 = tf.float32.as_datatype_enum

# Nanoseconds of one core, measured on a processor with AVX512_BF16: what half precision adds or saves.
_GAIN_OF_A_PRODUCT = 0.0088  # for each multiplication of a convolution or matrix product
_GAIN_OF_A_WEIGHT = 0.1  # for each weight that is read
_GAIN_OF_DEPTHWISE = 0.02  # for each result of a depthwise convolution, which computes in float32
_CAST, _CAST_START = 0.13, 3000.0  # for each number, and for each operation more

# The operations that can change their type, with the inputs that have it. `None` stands for all.
_PRODUCTS: dict[str, tuple[int, ...] | None] = {
    "Conv2D": None,
    "Conv3D": None,
    "DepthwiseConv2dNative": None,
    "MatMul": None,
    "BatchMatMul": None,
    "BatchMatMulV2": None,
    "Einsum": None,
    "Conv2DBackpropInput": (1, 2),
    "Conv3DBackpropInputV2": (1, 2),
    "DepthwiseConv2dNativeBackpropInput": (1, 2),
}
# TensorFlow fuses these into the convolution before them.
_FUSED = ("BiasAdd", "AddV2", "Add", "Relu", "Relu6", "Elu", "LeakyRelu")
# With what a result's number costs more in half precision: TensorFlow's loops over float32 are faster.
_BETWEEN: dict[str, tuple[tuple[int, ...] | None, float]] = {
    **dict.fromkeys(("BiasAdd", "AddV2", "Add", "Sub", "Mul", "Relu", "LeakyRelu"), (None, 0.2)),
    **dict.fromkeys(("ReluGrad", "Relu6Grad", "LeakyReluGrad"), (None, 0.2)),
    "Relu6": (None, 0.6),
    "Elu": (None, 1.0),
    "SelectV2": ((1, 2), 0.1),
    **dict.fromkeys(("MaxPool", "AvgPool", "MaxPoolGrad", "DepthToSpace", "SpaceToDepth"), (None, 0.0)),
    **dict.fromkeys(("Identity", "Reshape", "Squeeze", "ExpandDims", "BroadcastTo", "Tile"), ((0,), 0.0)),
    **dict.fromkeys(("StridedSlice", "Slice", "ResizeNearestNeighbor", "MirrorPad"), ((0,), 0.0)),
    **dict.fromkeys(("Pad", "Transpose", "SpaceToBatchND", "BatchToSpaceND"), ((0,), -0.05)),
    "AvgPoolGrad": ((1,), 0.0),
    "ConcatV2": ((), -0.05),  # All but the last input.
}
_MEANS = ("Mean", "Sum", "AvgPool")
_OF_SHAPE = ("Shape", "Size", "Rank")


def use_half_precision(graph: GraphNodes, answers: Sequence[str], precision: str) -> None:
    """Run a graph in half precision where that takes less time; its inputs and outputs keep their types.

    Args:
        graph: the graph, which is changed.
        answers: names of the outputs that are scores and outputs of the model.
        precision: a key of `PRECISIONS`.

    Raises:
        ValueError: if it has no convolution or matrix product of float32 that would gain.
    """
    chosen = _cheapest(graph, _candidates(graph, answers))
    if not any(graph.nodes[name].op in _PRODUCTS for name in chosen):
        raise ValueError(
            "`precision` must be None for a model in which no convolution or matrix product takes less time "
            f"in {precision}. Received: precision={precision!r} and {_found(graph)}. Use freeze() without it."
        )
    _cast(graph, chosen, PRECISIONS[precision])


def _found(graph) -> str:
    """Return in words the types of the model's convolutions and products."""
    nodes = [node for name, node in graph.nodes.items() if FLOAT32_SCOPE not in name]
    products = [node for node in nodes if node.op in _PRODUCTS]
    types = sorted({tf.as_dtype(node.attr["T"].type).name for node in products})
    if not types:
        return "a model without convolutions and matrix products outside of loops"
    if "float32" not in types:
        return f"a model that computes in {' and '.join(types)}"
    return "a model too small, or with none but the last before its scores"


def typed_inputs(node) -> list[int]:
    """Return the positions of the inputs that change their type with the operation."""
    data = [i for i, name in enumerate(node.input) if not name.startswith("^")]
    positions = _PRODUCTS[node.op] if node.op in _PRODUCTS else _BETWEEN[node.op][0]
    if node.op == "ConcatV2":
        return data[:-1]
    return data if positions is None else list(positions)


# What may change its type


class _Candidates(NamedTuple):
    """The nodes that may run in half precision, by the first of those that TensorFlow runs as one."""

    groups: dict[str, list[str]]  # Name of the first node -> names of all, in their order.
    group_of: dict[str, str]


def _candidates(graph, answers) -> _Candidates:
    returned = set(map(node_name, graph.outputs))
    known = {
        name
        for name, node in graph.nodes.items()
        if (node.op in _PRODUCTS or node.op in _BETWEEN)
        and node.attr["T"].type == _FLOAT32
        and FLOAT32_SCOPE not in name
        and name not in returned
    }
    weighted = {name for name in known if _weights(graph, graph.nodes[name])}
    # The arithmetic of maps leads to no weights.
    leading = (known & _ancestors(graph, weighted)) | weighted
    leading -= _heads(graph, weighted, answers) | _early_depthwise(graph, weighted)
    groups: dict[str, list[str]] = {}
    group_of: dict[str, str] = {}
    for node in graph.in_order():
        if node.name in leading and node.name not in group_of:
            groups[node.name] = _run_as_one(graph, node, known - group_of.keys())
            group_of |= dict.fromkeys(groups[node.name], node.name)
    return _Candidates(groups, group_of)


def _weights(graph, node) -> set[str]:
    """Return the constants that a product multiplies by."""
    if node.op not in _PRODUCTS:
        return set()
    return {node_name(node.input[i]) for i in typed_inputs(node) if graph.is_constant(node.input[i])}


def _ancestors(graph, names) -> set[str]:
    """Return the nodes that lead to the named ones."""
    found, waiting = set(), list(names)
    while waiting:
        for name in read_by(graph.nodes[waiting.pop()]):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


def _heads(graph, weighted, answers) -> set[str]:
    """Return the last products before scores and outputs, and those of the backward pass with their weights.

    Rounded logits could change the class. A product that a mean follows is none of them.
    """
    heads, seen, waiting = set(), set(), list(map(node_name, answers))
    while waiting:
        name = waiting.pop()
        if name in weighted:
            heads.add(name)
        elif name not in seen and graph.nodes[name].op not in (*_MEANS, *_OF_SHAPE):
            seen.add(name)
            waiting += read_by(graph.nodes[name])
    weights = {each for name in heads for each in _weights(graph, graph.nodes[name])}
    return {name for name in weighted if weights & _weights(graph, graph.nodes[name])}


def _early_depthwise(graph, weighted) -> set[str]:
    """Return a depthwise convolution right after the first convolution, and this one.

    Its channels have very different ranges (Nagel et al., "Data-Free Quantization", 2019), and all layers
    depend on it: in EfficientNet-Lite0 more than half of the difference from float32 comes from these two.
    """
    depths: dict[str, int] = {}  # Products on the shortest way from the images.
    for node in graph.in_order():
        before = [depths[name] for name in read_by(node) if name in depths]
        is_input = node.op == "Placeholder" and not graph.is_constant(node.name)
        if is_input and (graph.shape(node.name).rank or 4) > 2:
            depths[node.name] = 0
        elif before:
            depths[node.name] = min(before) + (node.name in weighted)
    early = {name for name in weighted if depths.get(name, 3) <= 2}
    thin = {name for name in early if graph.nodes[name].op == "DepthwiseConv2dNative"}
    return thin | (early & _ancestors(graph, thin))


def _run_as_one(graph, node, free) -> list[str]:
    """Return the names of a node and of those that TensorFlow fuses with it: bias, sum, activation."""
    names = [node.name]
    if node.op not in _PRODUCTS or "Backprop" in node.op:
        return names
    reader = graph.only_reader(node)
    while reader is not None and reader.op in _FUSED and reader.name in free:
        names.append(reader.name)
        if reader.op not in ("BiasAdd", "AddV2", "Add"):
            break
        reader = graph.only_reader(reader)
    return names


# What gains


def _cheapest(graph, candidates) -> set[str]:
    """Return the names of the nodes that run in half precision, so that all takes the least time."""
    cut = CutGraph()
    readers: dict[str, set[str]] = {name: set() for name in candidates.group_of}
    for group, names in candidates.groups.items():
        cost = _extra_cost(graph, names)
        if cost < 0:
            cut.add("half", group, -cost)
        else:
            cut.add(group, "float32", cost)
        for name in names:
            for position in typed_inputs(graph.nodes[name]):
                tensor = graph.nodes[name].input[position]
                if not graph.is_constant(tensor):
                    readers.setdefault(node_name(tensor), set()).add(group)
    for name in candidates.group_of:
        if any(not _takes_half(candidates, each, name) for each in graph.readers[name]):
            readers[name].add("float32")
    for name, groups in readers.items():
        writer = candidates.group_of.get(name, "float32")
        cost = _CAST * graph.elements(name) + _CAST_START
        for group in groups - {writer}:  # One cast for all readers.
            cut.add((name, "to float32"), group)
            if group != "float32":
                cut.add(group, (name, "to half"))
        if writer != "float32":
            cut.add(writer, (name, "to float32"), cost)
        cut.add((name, "to half"), writer, cost)
    chosen = cut.source_side("half", "float32")
    return {name for group, names in candidates.groups.items() if group in chosen for name in names}


def _takes_half(candidates, reader, name) -> bool:
    """Return whether a reader can take half precision: a candidate, or one that asks for the shape only."""
    if reader.op in _OF_SHAPE:
        return True
    if reader.name not in candidates.group_of:
        return False
    return any(node_name(reader.input[position]) == name for position in typed_inputs(reader))


def _extra_cost(graph, names) -> float:
    """Return how many nanoseconds more nodes that run as one take in half precision."""
    node = graph.nodes[names[0]]
    if node.op in _BETWEEN:
        return _BETWEEN[node.op][1] * graph.elements(node.name)
    first, second = (node.input[position] for position in typed_inputs(node)[:2])
    weights = float(graph.shape(second).num_elements() or 0)
    if "Depthwise" in node.op:
        return -_GAIN_OF_DEPTHWISE * graph.elements(second if "Backprop" in node.op else node.name)
    if "Conv" in node.op:
        length = graph.shape(first if "Backprop" in node.op else second)[-1] or 1
        written = graph.elements(second if "Backprop" in node.op else node.name)
        weights = float(graph.shape(first if "Backprop" in node.op else second).num_elements() or 0)
        return -_GAIN_OF_A_PRODUCT * written * weights / length - _GAIN_OF_A_WEIGHT * weights
    inner = graph.shape(first)[-1] if graph.shape(first).rank else None
    weights = weights if graph.is_constant(second) else 0.0
    return -_GAIN_OF_A_PRODUCT * graph.elements(node.name) * (inner or 64) - _GAIN_OF_A_WEIGHT * weights


# Casts


def _cast(graph, chosen, dtype) -> None:
    """Change the type of the chosen nodes and of their constants, and cast what goes in and out."""
    casted: dict[tuple[str, str], str] = {}

    def cast(name, to, **types):
        key = node_name(name), to
        if key not in casted:
            new = f"{node_name(name)}/{to}"
            if to == "half" and graph.is_constant(name):
                casted[key] = graph.add_weight(new, graph.value(name), dtype)
            else:
                casted[key] = graph.add("Cast", new, [name], **types)
        return casted[key]

    for name in sorted(chosen):
        node = graph.nodes[name]
        node.attr["T"].type = dtype.as_datatype_enum
        for position in typed_inputs(node):
            if node_name(node.input[position]) not in chosen:
                half = cast(node.input[position], "half", SrcT=tf.float32, DstT=dtype)
                graph.connect(node, position, half)
    for name in sorted(chosen):
        for reader in list(graph.readers[name]):
            if reader.op in _OF_SHAPE:
                reader.attr["T"].type = dtype.as_datatype_enum
            elif reader.name not in chosen:
                for position, each in enumerate(reader.input):
                    if node_name(each) == name and not each.startswith("^"):
                        graph.connect(reader, position, cast(name, "float32", SrcT=dtype, DstT=tf.float32))

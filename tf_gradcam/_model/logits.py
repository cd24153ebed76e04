"""Find the logits, the inputs of a final softmax or sigmoid. Called after every forward pass."""

import collections
from collections.abc import Set
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._graph import ancestors, function_graph
from tf_gradcam._model.keras_internals import has_noted_logits, noted_logits
from tf_gradcam._targets import note_independent, note_ranking


def find_logits(outputs: Any) -> Any:
    """Return the logits of each output: the input of its final softmax or sigmoid.

    The search goes back through operations that only move numbers, such as a reshape, a slice, a
    concatenation or a cast, and applies them to the logits; and into functions of the model's own. The logits
    are the output itself if there is neither, and `None` if a function cannot be read.
    """
    return keras.tree.map_structure(_logits_of_output, outputs)


def logits_need_graph(outputs: Any) -> bool:
    """Return whether the logits of the symbolic `outputs` can only be found in their graph."""
    flat = keras.tree.flatten(outputs)
    return any(_logits_of_output(output) is not output and not has_noted_logits(output) for output in flat)


class _Activation(NamedTuple):
    """An activation that was found, or the end of a part without one.

    Attributes:
        name: name of its operation; `None` for a part without activation.
        classes: number of classes of a softmax over the last axis; else `None`.
        is_one_of_many: whether the part is a single class of a softmax.
    """

    name: str | None
    classes: int | None = None
    is_one_of_many: bool = False


_SIGMOID = _Activation("Sigmoid")  # All are alike: their logits can be compared with each other.
_NO_ACTIVATION = _Activation(None)


class _Found(NamedTuple):
    """The logits of a tensor.

    Attributes:
        logits: logits of the shape of the tensor.
        activations: the activation of each part that the tensor is joined from.
        is_log: whether the tensor holds logarithms of probabilities.
    """

    logits: tf.Tensor
    activations: tuple[_Activation, ...]
    is_log: bool = False


class _HiddenInFunction(Exception):
    """The logits are computed inside a function that cannot be read."""


def _logits_of_output(output: Any) -> Any:
    if tf.executing_eagerly():  # There is no graph to read; Keras attaches logits to its own activations.
        logits = noted_logits(output)
        return output if logits is None else logits
    if not tf.is_tensor(output):
        return output
    try:
        found = _Search().find(output)
        alone = set() if found is None else _classes_alone(found)
        if alone:
            found = _Search(alone).find(output)
    except _HiddenInFunction:
        return None
    if found is None:
        return output
    if set(found.activations) == {_SIGMOID}:
        note_independent(found.logits)
    elif len(set(found.activations)) > 1 and output.shape[-1] != 1:
        note_ranking(found.logits, _ranking_of_joined(output, found, alone))
    return found.logits


def _ranking_of_joined(output, found, alone) -> tf.Tensor:
    """Return the values by which classes are ranked in an `output` that is joined from different parts.

    Logits of several softmaxes cannot be compared; their probabilities can. What has no softmax or sigmoid,
    such as the box beside a detector's classes, is no class, and comes last.
    """
    if _NO_ACTIVATION not in found.activations:
        return output
    marks = _Search(alone, only_marks=True).find(output)
    return output if marks is None else tf.cast(output, marks.logits.dtype) + marks.logits


def _classes_alone(found) -> set[str]:
    """Return the names of the softmaxes of which the output has a single class.

    Such a class is answered with yes or no, like a sigmoid unit: `softmax([a, b])[1] == sigmoid(b - a)`.
    """
    counts = collections.Counter(activation.name for activation in found.activations)
    return {one.name for one in found.activations if one.is_one_of_many and counts[one.name] == 1}


# Operations that return the numbers of their first input unchanged.
_IDENTITIES = ("Cast", "CheckNumerics", "CheckNumericsV2", "EnsureShape", "Identity", "PreventGradient")
# Operations that move numbers, with the position of the input that is moved.
_SLICES = {
    "GatherNd": 0,
    "GatherV2": 0,
    "Slice": 0,
    "Split": 1,
    "SplitV": 0,
    "StridedSlice": 0,
    "Unpack": 0,
}
_MOVES = {
    **_SLICES,
    "BroadcastTo": 0,
    "DepthToSpace": 0,
    "ExpandDims": 0,
    "Reshape": 0,
    "ResizeNearestNeighbor": 0,
    "ReverseV2": 0,
    "Roll": 0,
    "SpaceToDepth": 0,
    "Squeeze": 0,
    "Tile": 0,
    "Transpose": 0,
}
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


class _Search:
    """A search for the logits of a tensor, back from it through its graph.

    Args:
        alone: names of softmaxes to take for a sigmoid of the difference of their two classes.
        functions: the graph that knows the functions that are called, by default that of the tensor.
        only_marks: whether to return, in place of logits, 0, and minus infinity for parts without activation.
    """

    def __init__(
        self, alone: Set[str] = frozenset(), functions: tf.Graph | None = None, only_marks: bool = False
    ):
        self._alone = alone
        self._only_marks = only_marks
        self._functions = functions
        self._known: dict[Any, _Found | None] = {}
        self._moved: dict[str, list[tf.Tensor]] = {}

    def find(self, tensor: tf.Tensor) -> _Found | None:
        """Return the logits of `tensor`; `None` if it does not come from a softmax or sigmoid."""
        key = tensor.ref()
        if key not in self._known:
            found = self._find(tensor) if tensor.dtype.is_floating else None
            if found is not None and self._only_marks and _NO_ACTIVATION not in found.activations:
                found = found._replace(logits=tf.zeros_like(found.logits))
            self._known[key] = found
        return self._known[key]

    def _find(self, tensor) -> _Found | None:
        operation = tensor.op
        if operation.type in ("Softmax", "LogSoftmax"):
            return self._of_softmax(operation, operation.inputs[0])
        if operation.type == "Sigmoid":
            return _Found(operation.inputs[0], (_SIGMOID,))
        if operation.type in _IDENTITIES:
            return self.find(operation.inputs[0])
        if operation.type == "IdentityN":
            return self._behind_custom_gradient(tensor)
        if operation.type in _MOVES:
            return self._behind_move(tensor)
        if operation.type in ("ConcatV2", "Pack"):
            return self._behind_join(operation)
        if operation.type in _CALLS:
            return self._in_function(tensor)
        return self._behind_arithmetic(operation)

    def _of_softmax(self, operation, logits) -> _Found | None:
        is_log = operation.type == "LogSoftmax"
        classes = logits.shape[-1]
        if operation.name not in self._alone:
            return _Found(logits, (_Activation(operation.name, classes),), is_log)
        if classes != 2:  # The logit of one class against all others is not in the graph.
            return None
        return _Found(logits - tf.reverse(logits, [-1]), (_SIGMOID,), is_log)

    def _behind_move(self, tensor) -> _Found | None:
        operation = tensor.op
        position = _MOVES[operation.type]
        source = operation.inputs[position]
        found = self.find(source)
        if found is None:
            return None
        if operation.name not in self._moved:
            inputs = list(operation.inputs)
            inputs[position] = found.logits
            self._moved[operation.name] = _repeat(operation, inputs)
        found = found._replace(logits=self._moved[operation.name][tensor.value_index])
        if operation.type in _SLICES and len(found.activations) == 1:
            (activation,) = found.activations
            if _is_single_class(activation, source, tensor):
                found = found._replace(activations=(activation._replace(is_one_of_many=True),))
        return found

    def _behind_join(self, operation) -> _Found | None:
        """Return the logits of each part with an activation, joined with the other parts as they are."""
        parts = list(operation.inputs if operation.type == "Pack" else operation.inputs[:-1])
        found = [self.find(part) for part in parts]
        if all(one is None for one in found):
            return None
        each = [
            _Found(self._without_activation(part), (_NO_ACTIVATION,)) if one is None else one
            for part, one in zip(parts, found, strict=True)
        ]
        dtype = max((one.logits.dtype for one in each), key=lambda dtype: dtype.size)
        inputs = [tf.cast(one.logits, dtype) for one in each]
        (joined,) = _repeat(operation, [*inputs, *operation.inputs[len(parts) :]])
        activations = tuple(activation for one in each for activation in one.activations)
        return _Found(joined, activations, all(one.is_log for one in found if one is not None))

    def _without_activation(self, part) -> tf.Tensor:
        return tf.fill(tf.shape(part), tf.constant(-np.inf, part.dtype)) if self._only_marks else part

    def _behind_arithmetic(self, operation) -> _Found | None:
        """Return the logits behind a logarithm, a clip, `1 - sigmoid` or a softmax or sigmoid in steps."""
        logits = _input_of_softmax_in_steps(operation)
        if logits is not None:
            if operation.name in self._alone:
                return None
            activation = _Activation(operation.name, logits.shape[-1])
            return _Found(logits, (activation,), operation.type == "Sub")
        if operation.type == "Neg" and operation.inputs[0].op.type == "Softplus":
            return _Found(-operation.inputs[0].op.inputs[0], (_SIGMOID,), is_log=True)
        if operation.type in ("Exp", "Log"):
            return self._behind_logarithm(operation)
        if operation.type == "Sub" and _is_constant(operation.inputs[0], 1, 1):
            found = self.find(operation.inputs[1])
            is_sigmoid = found is not None and set(found.activations) == {_SIGMOID} and not found.is_log
            return found._replace(logits=-found.logits) if found is not None and is_sigmoid else None
        if operation.type in ("Maximum", "Minimum"):
            clipped = [one for one in operation.inputs if tf.get_static_value(one) is None]
            found = self.find(clipped[0]) if len(clipped) == 1 else None
            return found if found is not None and _NO_ACTIVATION not in found.activations else None
        return None

    def _behind_logarithm(self, operation) -> _Found | None:
        (source,) = operation.inputs
        if operation.type == "Log" and source.op.type in ("Add", "AddV2"):  # log(p + 1e-7)
            terms = [term for term in source.op.inputs if not _is_constant(term, 0, 1e-3)]
            source = terms[0] if len(terms) == 1 else source
        found = self.find(source)
        if found is None or _NO_ACTIVATION in found.activations or found.is_log != (operation.type == "Exp"):
            return None
        return found._replace(is_log=not found.is_log)

    def _behind_custom_gradient(self, tensor) -> _Found | None:
        """Return the logits behind a function with a gradient of its own, such as `tf.recompute_grad`."""
        found = self.find(tensor.op.inputs[tensor.value_index])
        if found is None or not _has_own_gradient(tensor.op):
            return found
        if any(found.logits is one for one in tensor.op.inputs):
            return found
        return found._replace(logits=_on_tape(found.logits, tensor.op.inputs))

    def _in_function(self, tensor) -> _Found | None:
        """Return the logits inside the function that computes `tensor`, computed by a copy of that function.

        Raises:
            _HiddenInFunction: if the function cannot be read.
        """
        body = function_graph(tensor.op, graph=self._functions)
        if body is None:
            raise _HiddenInFunction
        results: list[_Found | None] = []
        prefix = f"{tensor.op.name}:"  # Other functions may have operations of the same names.
        alone = {name.removeprefix(prefix) for name in self._alone if name.startswith(prefix)}

        def copied(*inputs):
            output = _import(body, body.outputs[tensor.value_index], inputs)
            results.append(_Search(alone, body, self._only_marks).find(output))
            return None if results[-1] is None else results[-1].logits

        logits = tf.function(copied, autograph=False)(*tensor.op.inputs)
        if logits is None or results[-1] is None:
            return None
        logits.set_shape(tensor.shape)
        activations = tuple(
            one if one in (_SIGMOID, _NO_ACTIVATION) else one._replace(name=f"{prefix}{one.name}")
            for one in results[-1].activations
        )
        return results[-1]._replace(logits=logits, activations=activations)


def _has_own_gradient(operation) -> bool:
    """Return whether `operation` has another gradient than TensorFlow's, as `tf.custom_gradient` gives it."""
    return "_gradient_op_type" in operation.node_def.attr


def _is_single_class(activation, source, part) -> bool:
    """Return whether `part` is one class of `source`, which comes from a softmax over the last axis."""
    classes = activation.classes
    if not classes or classes == 1 or source.shape.rank is None or part.shape.rank is None:
        return False
    before, after = (
        tf.TensorShape([length or 1 for length in each.shape.as_list()]).num_elements()
        for each in (source, part)
    )
    return after * classes == before and part.shape[-1] != classes


def _is_constant(tensor, low: float, high: float) -> bool:
    """Return whether `tensor` is a constant number in `[low, high]`."""
    value = tf.get_static_value(tensor)
    return value is not None and value.size == 1 and low <= value.item() <= high


def _input_of_softmax_in_steps(operation) -> tf.Tensor | None:
    """Return x if `operation` is the end of a softmax or log-softmax of x in single steps.

    These are `exp(x) / sum(exp(x))`, and `x - logsumexp(x)` (Keras's softmax over several axes is its
    exponential). In both, x may be less its maximum, which changes nothing.
    """
    if operation.type == "RealDiv" and operation.inputs[0].op.type == "Exp":
        total = operation.inputs[1].op
        if total.type != "Sum" or total.inputs[0].op.type != "Exp" or not total.get_attr("keep_dims"):
            return None
        exponent = operation.inputs[0].op.inputs[0]
        return _without_shift(exponent) if total.inputs[0].op.inputs[0] is exponent else None
    if operation.type == "Sub":
        x, total = operation.inputs
        terms = total.op.inputs if total.op.type == "AddV2" else [total]
        sums = [term.op.inputs[0].op for term in terms if term.op.type == "Log"]
        if len(sums) != 1 or sums[0].type != "Sum" or sums[0].inputs[0].op.type != "Exp":
            return None
        exponent = sums[0].inputs[0].op.inputs[0]
        return x if exponent is x or _without_shift(exponent) is x else None
    return None


def _without_shift(exponent) -> tf.Tensor:
    """Return x if `exponent` is x less a maximum of x, else `exponent`."""
    if exponent.op.type != "Sub":
        return exponent
    x, shift = exponent.op.inputs
    highest = next((each for each in ancestors([shift]) if each.type == "Max"), None)
    return (
        x if highest is not None and highest.inputs[0] is x and shift.shape.rank == x.shape.rank else exponent
    )


# Names of arguments that TensorFlow changed in Python.
_RENAMED = {"dim": "axis", "split_dim": "axis", "squeeze_dims": "axis"}


def _repeat(operation: tf.Operation, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    """Return the outputs of the same operation on other inputs."""
    definition, arguments, position = operation.op_def, {}, 0
    implied: set[str] = set()  # Attributes that follow from the inputs.
    for one in definition.input_arg:
        implied |= {one.type_attr, one.number_attr}
        count = operation.get_attr(one.number_attr) if one.number_attr else 1
        given = inputs[position : position + count]
        arguments[one.name] = given if one.number_attr else given[0]
        position += count
    names = [attribute.name for attribute in definition.attr if attribute.name not in implied]
    arguments |= {name: operation.get_attr(name) for name in names}
    renamed = {_RENAMED.get(name, name): value for name, value in arguments.items()}
    outputs = getattr(tf.raw_ops, operation.type)(**renamed)
    return outputs if isinstance(outputs, list) else [outputs]


def _on_tape(logits: tf.Tensor, inputs: list[tf.Tensor]) -> tf.Tensor:
    """Return `logits` so that a tape knows how they depend on `inputs`.

    TensorFlow records a function with a gradient of its own as one step, and nothing inside it.
    """
    path = ancestors([logits])
    sources = [one for one in inputs if one.op in path and one.dtype.is_floating]
    if not sources:
        return logits

    @tf.custom_gradient
    def recorded(*_):
        def gradient(upstream, variables=()):
            gradients = tf.gradients(logits, sources, upstream, unconnected_gradients="zero")
            return (gradients, [None] * len(variables)) if variables else gradients

        return tf.identity(logits), gradient

    return recorded(*sources)


def _import(body: Any, output: tf.Tensor, inputs: tuple[tf.Tensor, ...]) -> tf.Tensor:
    """Copy what computes `output` in `body`, the graph of a function, into the current graph."""
    needed = {operation.name for operation in ancestors([output])}
    definition = body.as_graph_def()
    nodes = [node for node in definition.node if node.name in needed]
    for node in nodes:  # Nothing that `output` does not depend on, such as an assignment, is run again.
        kept = [name for name in node.input if name.removeprefix("^").partition(":")[0] in needed]
        node.input[:] = kept
    copied = tf.compat.v1.GraphDef(node=nodes, library=definition.library, versions=definition.versions)
    pairs = zip(body.inputs, inputs, strict=True)
    replaced = {one.name: given for one, given in pairs if one.op.name in needed}
    (found,) = tf.graph_util.import_graph_def(copied, replaced, [output.name], name="copied")
    return found

"""Fold a model's weights into a compiled function, and detect that the weights have changed since.

The explainer uses it for `GradCAM.freeze`; exports call `fold_variables`.
"""

import contextlib
import ctypes
import datetime
import itertools
from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._explain.folded_scales import with_folded_scales
from tf_gradcam._explain.graph_function import graph_function, graph_outputs
from tf_gradcam._explain.tensorflow_internals import call_flat, variables_to_constants
from tf_gradcam._explain.weight_graph import evaluated, weight_graph

MOST_BYTES = 2**31  # Of weights: the limit of a graph.
_LOOPS = ("StatelessWhile", "While")  # types of operations
_WEIGHTS_ONLY = "`model` must hold nothing but weights to be frozen, no tables, generators or float8."
_CAPSULE_POINTER = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


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


def frozen_function(concrete: tf.types.experimental.ConcreteFunction) -> Callable:
    """Return `concrete` with its variables turned into constants, so that TensorFlow can optimize it.

    Batch normalization is folded into convolutions, and these are fused with the operations after them.

    Raises:
        ValueError: as `fold_variables` does.
    """
    structure = concrete.structured_outputs
    # `None` in the structure is not an output of the graph.
    is_tensor = [leaf is not None for leaf in tf.nest.flatten(structure)]
    compute = _folded_call(concrete)

    def call(*tensors):
        outputs = iter(compute([tf.convert_to_tensor(tensor) for tensor in tensors]))
        leaves = [next(outputs) if present else None for present in is_tensor]
        return tf.nest.pack_sequence_as(structure, leaves)

    call.structured_outputs = structure  # type: ignore[attr-defined]  # as on a ConcreteFunction
    return call


def _folded_call(concrete):
    """Return the function from a list of tensors to those of the outputs."""
    with tf.init_scope():  # The caller may be tracing a tf.function.
        graph = weight_graph(concrete)
        if graph is not None:
            # A rewrite of the graph belongs here: it is small, its weights are placeholders, and what the
            # rewrite computes of weights alone is computed once if `evaluated` follows.
            graph = with_folded_scales(evaluated(graph))
            run = graph_function(graph)
    if graph is None:
        folded = fold_variables(concrete)
        return lambda tensors: call_flat(folded, tensors)
    return lambda tensors: run(*tensors) if tf.executing_eagerly() else graph_outputs(graph, tensors)


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


def weight_bytes(model: keras.Model) -> int:
    """Return the size of the weights of `model` in bytes."""
    return sum(weight.value.dtype.size * weight.value.shape.num_elements() for weight in model.weights)


class WeightSnapshot:
    """A model's weights at one moment, to detect changes.

    It holds the tensors that the variables had. As long as one is held, TensorFlow writes to another buffer,
    and no other tensor gets this one: a variable that still has the same buffer has the same value. So the
    numbers, which would have to be copied from a GPU, need not be looked at.
    """

    def __init__(self, model: keras.Model):
        size = weight_bytes(model)
        if size >= MOST_BYTES:
            raise ValueError(
                f"`model` must have less than 2 GiB of weights to be frozen. Received: {size / 2**30:.1f} GiB"
            )
        self._moment = datetime.datetime.now().isoformat(" ", "seconds")
        self._values: dict = {}  # Reference to a variable -> its value, and the address of it.
        self.note(weight.value for weight in model.weights)
        # Any training also trains the head.
        self._head = [weight.value for weight in (model.trainable_weights or model.weights)[-2:]]

    def note(self, variables: Iterable[tf.Variable]) -> None:
        """Hold the value of each of `variables` that is not held yet."""
        for variable in variables:
            if variable.ref() not in self._values:
                value = _value(variable)
                self._values[variable.ref()] = value, _address(value)
        self._next_variables = itertools.cycle([reference.deref() for reference in self._values])

    def check(self) -> None:
        """Raise a `ValueError` if the head, or one of the next two weights in turn, has changed."""
        if any(map(self._has_changed, [*self._head, *itertools.islice(self._next_variables, 2)])):
            raise self.changed_error()

    def check_all(self) -> None:
        """Raise a `ValueError` if any number of any weight has changed."""
        if any(self._has_changed(reference.deref()) for reference in list(self._values)):
            raise self.changed_error()

    def changed_error(self) -> ValueError:
        """Return the error for a model that has changed since it was frozen."""
        return ValueError(
            f"This GradCAM was frozen at {self._moment}, and its model has changed since. "
            "Call freeze() again on the GradCAM that was not frozen."
        )

    def _has_changed(self, variable) -> bool:
        held, held_address = self._values[variable.ref()]
        value = _value(variable)
        address = _address(value)
        if address is not None and address == held_address:
            return False
        # The same numbers in another buffer, as after set_weights(get_weights()), are no change.
        if not np.array_equal(*(np.atleast_1d(each.numpy()).view("uint8") for each in (value, held))):
            return True
        self._values[variable.ref()] = value, address
        return False


def _value(variable) -> tf.Tensor:
    """Return the tensor that a variable has now, not a copy."""
    if tf.distribute.has_strategy():  # In its scope a mirrored variable is to be read from one of its copies.
        variable = tf.distribute.get_strategy().experimental_local_results(variable)[0]
    with contextlib.nullcontext() if tf.executing_eagerly() else tf.init_scope():
        return tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)


def _address(tensor: tf.Tensor) -> int | None:
    """Return the address of a tensor's buffer on its device, or `None` if TensorFlow does not tell."""
    try:
        capsule = tf.experimental.dlpack.to_dlpack(tensor)
    except (TypeError, ValueError, RuntimeError, tf.errors.OpError):  # Such as float8, or on several devices.
        return None
    # A DLManagedTensor begins with its DLTensor, and this with the pointer to the data.
    return ctypes.c_void_p.from_address(_CAPSULE_POINTER(capsule, b"dltensor")).value

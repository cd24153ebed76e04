"""A model's weights at one moment, to tell whether they have changed since: `WeightSnapshot`.

The explainer has one for `GradCAM.freeze`; exports call `weight_bytes`.
"""

import contextlib
import ctypes
import datetime
import itertools
from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

MOST_BYTES = 2**31  # Of weights: the limit of a graph.
_CAPSULE_POINTER = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


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

"""A compiled function with the weights of one moment in it, and how to notice that they changed since.

The explainer uses it for `GradCAM.freeze`; exports take `fold_variables` to write files.
"""

import contextlib
import datetime
import itertools
import zlib
from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

MOST_BYTES = 2**31  # of weights: a graph can't hold more
_SAMPLED = 1024  # numbers of a weight that are compared at a call


def fold_variables(
    concrete: tf.types.experimental.ConcreteFunction, inline: bool = False
) -> tf.types.experimental.ConcreteFunction:
    """Return `concrete` with its variables turned into constants.

    Args:
        concrete: the function.
        inline: whether to inline all functions that it calls, also those whose variables were folded before.

    Raises:
        ValueError: if it holds something other than weights, such as a table or a random generator.
    """
    try:
        with tf.init_scope():  # also in a tf.function of the user's
            # Loops as they are: lowered, they would run with no limit on the memory.
            found = convert_variables_to_constants_v2(concrete, False, aggressive_inlining=inline)
            arguments = len(concrete.inputs) - len(concrete.captured_inputs)
            if found.captured_inputs or len(found.inputs) != arguments:
                raise TypeError(f"it takes {found.inputs[arguments:]}")
            return found
    except (TypeError, ValueError, tf.errors.OpError) as error:
        raise ValueError(
            "`model` must hold nothing but weights to be frozen, no tables, generators or numbers of 8 bits. "
            f"Received one that TensorFlow can't make constant: {error!s:.200}"
        ) from error


def frozen_function(concrete: tf.types.experimental.ConcreteFunction) -> Callable:
    """Return `concrete` with its variables turned into constants, which TensorFlow then computes with once.

    Batch normalization is folded into convolutions, and these are fused with what follows.

    Raises:
        ValueError: as `fold_variables` does.
    """
    structure = concrete.structured_outputs
    # What is `None` in an answer is no output of the graph.
    is_tensor = [leaf is not None for leaf in tf.nest.flatten(structure)]
    folded = fold_variables(concrete)

    def call(*tensors):
        # Not `folded(...)`: it has lost the arguments' names, and looks for them at every call.
        answers = iter(folded._call_flat(list(map(tf.convert_to_tensor, tensors)), []))
        leaves = [next(answers) if present else None for present in is_tensor]
        return tf.nest.pack_sequence_as(structure, leaves)

    call.structured_outputs = structure  # type: ignore[attr-defined]  # as a ConcreteFunction has it
    return call


def weight_bytes(model: keras.Model) -> int:
    """Return how many bytes the weights of `model` take."""
    return sum(weight.value.dtype.size * weight.value.shape.num_elements() for weight in model.weights)


class WeightSnapshot:
    """The weights of a model at one moment, to tell whether they still are what they were."""

    def __init__(self, model: keras.Model):
        held = weight_bytes(model)
        if held >= MOST_BYTES:
            raise ValueError(
                f"`model` must have less than 2 GiB of weights to be frozen. Received: {held / 2**30:.1f} GiB"
            )
        self._moment = datetime.datetime.now().isoformat(" ", "seconds")
        self._noted: dict = {}  # reference to a variable -> (sample, checksum)
        self.note(weight.value for weight in model.weights)
        # Whatever is trained, the head is trained too.
        self._head = [weight.value for weight in (model.trainable_weights or model.weights)[-2:]]

    def note(self, variables: Iterable[tf.Variable]) -> None:
        """Note a sample and a checksum of each of `variables` that was not noted before."""
        for each in variables:
            if each.ref() not in self._noted:
                self._noted[each.ref()] = _sample(each), _checksum(each)
        self._turn = itertools.cycle([each.deref() for each in self._noted])

    def check(self) -> None:
        """Raise a `ValueError` if a sample of the head, or of two other weights by turns, has changed."""
        looked_at = [*self._head, *itertools.islice(self._turn, 2)]
        if any(_sample(each) != self._noted[each.ref()][0] for each in looked_at):
            raise self.changed_error()

    def check_all(self) -> None:
        """Raise a `ValueError` if any number of any weight has changed."""
        if any(_checksum(each.deref()) != checksum for each, (_, checksum) in self._noted.items()):
            raise self.changed_error()

    def changed_error(self) -> ValueError:
        """Return the error for a model that changed since."""
        return ValueError(
            f"This GradCAM was frozen at {self._moment}, and its model has changed since. "
            "Call freeze() again on the GradCAM that it was made from."
        )


def _numbers(variable, step=1) -> np.ndarray:
    """Return every `step`-th number of a variable, flat."""
    with contextlib.nullcontext() if tf.executing_eagerly() else tf.init_scope():
        value = tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)
        if "CPU" not in value.device:  # To copy all of it to the host would take too long.
            return tf.reshape(value, [-1])[::step].numpy()
        # A view of the memory, which numpy() would copy. There is no such view of bfloat16.
        array = value.numpy() if value.dtype == tf.bfloat16 else np.asarray(memoryview(value))
    return array.reshape(-1)[::step]


def _sample(variable) -> bytes:
    return _numbers(variable, max(1, variable.shape.num_elements() // _SAMPLED)).tobytes()


def _checksum(variable) -> int:
    return zlib.crc32(_numbers(variable).tobytes())

"""A compiled function with the weights of one moment in it, and how to notice that they changed since."""

import contextlib
import datetime

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

_MOST_BYTES = 2**31  # of weights: a graph can't hold more
_SAMPLED = 4  # weights that are compared at each call, in a tenth of a millisecond
_SMALL = 4096  # numbers in one of them


def fold(concrete: tf.types.experimental.ConcreteFunction) -> tf.types.experimental.ConcreteFunction:
    """Return `concrete` with its variables turned into constants, which TensorFlow then computes with once.

    Batch normalization is folded into convolutions, and these are fused with what follows.
    """
    structure = concrete.structured_outputs
    is_tensor = [leaf is not None for leaf in tf.nest.flatten(structure)]

    def call(*tensors):
        answers = iter(constant(*tensors))
        leaves = [next(answers) if present else None for present in is_tensor]
        return tf.nest.pack_sequence_as(structure, leaves)

    with tf.init_scope():  # also in a tf.function of the user's
        # Loops as they are: lowered, they would run with no limit on the memory.
        constant = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
        # Called as it is, it would bind its arguments anew each time, which takes longer than the network.
        signature, _ = concrete.structured_input_signature
        return tf.function(call, autograph=False).get_concrete_function(*signature)


class Weights:
    """The weights of a model at one moment: a sample of them, to tell whether they still are what they were.

    Training changes every weight that is trained, and loading changes all of them.
    """

    def __init__(self, model: keras.Model):
        held = sum(weight.value.dtype.size * weight.value.shape.num_elements() for weight in model.weights)
        if held >= _MOST_BYTES:
            raise ValueError(
                f"`model` must have less than 2 GiB of weights to be frozen. Received: {held / 2**30:.1f} GiB"
            )
        trained = model.trainable_variables or model.variables
        small = [each for each in trained if each.value.shape.num_elements() <= _SMALL] or trained
        # From the last, as the head is what is always trained.
        self._sample = [(each, _bytes(each)) for each in small[:: -max(1, len(small) // _SAMPLED)]]
        self._moment = datetime.datetime.now().isoformat(" ", "seconds")

    def check(self) -> None:
        """Raise a `ValueError` if they have changed."""
        with contextlib.nullcontext() if tf.executing_eagerly() else tf.init_scope():
            changed = any(_bytes(each) != value for each, value in self._sample)
        if changed:
            raise ValueError(
                f"This GradCAM was frozen at {self._moment}, and its model's weights have changed since. "
                "Call freeze() again on the GradCAM that it was made from."
            )


def _bytes(variable) -> bytes:
    # Keras's own way to the numbers takes twice as long.
    value = variable.value
    return tf.raw_ops.ReadVariableOp(resource=value.handle, dtype=value.dtype).numpy().tobytes()

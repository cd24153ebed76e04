"""What is asked about images: target, size and interpolation, checked; and what a trace for it is kept by."""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam import targets
from tf_gradcam._heatmap import INTERPOLATIONS
from tf_gradcam._methods import Method, is_classless
from tf_gradcam._targets import holds_callable, target_arrays, trace_key


class Question(NamedTuple):
    """What is asked about images.

    Attributes:
        specs: of what the images are cast to, in the structure that the model takes.
        target: as `to_rows` returns it, or `None`.
        size: as `parse_size` returns it.
        interpolation: a method of `tf.image.resize`.
    """

    specs: Any
    target: Any
    size: Any
    interpolation: str

    def target_arrays(self) -> list:
        """Return the arrays in the target, flat."""
        return [] if self.target is None else target_arrays(self.target)

    def size_arrays(self) -> list[np.ndarray]:
        """Return the size in a list, if it is given in pixels."""
        return [] if self.size is None or isinstance(self.size, str) else [self.size]

    def holds_callable(self) -> bool:
        """Return whether there is a callable in the target."""
        return self.target is not None and holds_callable(self.target)

    def trace_key(self, tensors: list) -> "TraceKey":
        """Return what a trace is made for: all of the question but its numbers, and the images' dtypes."""
        one = isinstance(self.specs, tf.TensorSpec)
        shapes = self.specs if one else repr(self.specs)
        images = tensors[:1] if one else tensors[: len(keras.tree.flatten(self.specs))]
        dtypes = tuple(each.dtype for each in images)
        target = None if self.target is None else trace_key(self.target)
        size = self.size if isinstance(self.size, str) else np.shape(self.size)
        return TraceKey(shapes, dtypes, target, size, self.interpolation)


class TraceKey(NamedTuple):
    """What a trace is made for; see `Question`. It keeps no callable alive."""

    shapes: Any
    dtypes: tuple
    target: Any
    size: Any
    interpolation: str


def check_question(method: Method, target: Any, interpolation: str) -> None:
    """Raise a `ValueError` if `method` knows no target, or if there is no such interpolation."""
    if not _leaves_the_class_open(target) and is_classless(method):
        raise ValueError(
            f"`target` must be None for a method whose map is the same for every class. Received: "
            f"target={target!r:.80}"
        )
    if interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"`interpolation` must be one of {INTERPOLATIONS}. Received: interpolation={interpolation!r}"
        )


def _leaves_the_class_open(target) -> bool:
    """Return whether `target` names no class; it may still have to say which output is meant."""
    return target is None or (isinstance(target, targets.Output) and target.target is None)

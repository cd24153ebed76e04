"""A question about images: target, size and interpolation, and the key of its trace. Called by explainers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam import targets
from tf_gradcam._heatmap import Interpolation
from tf_gradcam._methods import Method, is_classless
from tf_gradcam._signed_maps import cast_to_specs
from tf_gradcam._targets import holds_callable, target_arrays, to_rows, trace_key, with_arrays


class Question(NamedTuple):
    """What to explain of images, and in which form.

    Attributes:
        specs: specs that the images are cast to, in the structure that the model takes.
        target: target as `to_rows` returns it, or `None`.
        size: size as `parse_size` returns it.
        interpolation: as `parse_interpolation` returns it; `None` to ask for no heatmap.
        signed: whether the heatmap keeps its negative values; without a heatmap, whether to ask for the
            signed maps, and not for the score alone.
    """

    specs: Any
    target: Any
    size: Any
    interpolation: Interpolation | None
    signed: bool = False

    def target_arrays(self) -> list:
        """Return a flat list of the arrays in the target."""
        return [] if self.target is None else target_arrays(self.target)

    def size_arrays(self) -> list[np.ndarray]:
        """Return `[size]` for a size in pixels, or `[]`."""
        return [] if self.size is None or isinstance(self.size, str) else [self.size]

    def arrays(self) -> list:
        """Return the arrays in target and size: those arguments of the trace that come after the images."""
        return [*self.target_arrays(), *self.size_arrays()]

    def unpack(self, tensors: Sequence[tf.Tensor]) -> tuple[Any, Any]:
        """Return the images, cast to the specs, and the target, from the arguments of the trace."""
        count = len(keras.tree.flatten(self.specs))
        images = keras.tree.pack_sequence_as(self.specs, tensors[:count])
        if self.target is None:  # Predicted classes need a row for each image too.
            rows = to_rows(None, tf.shape(tensors[0])[0])
        else:
            rows = with_arrays(self.target, tensors[count : count + len(self.target_arrays())])
        return cast_to_specs(images, self.specs), rows

    def lengths(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor | None:
        """Return the size in pixels from the arguments of the trace; `None` if it is no argument."""
        position = len(keras.tree.flatten(self.specs)) + len(self.target_arrays())
        return tensors[position] if self.size_arrays() else None

    def holds_callable(self) -> bool:
        """Return whether the target contains a callable."""
        return self.target is not None and holds_callable(self.target)

    def trace_key(self, tensors: list) -> "TraceKey":
        """Return the key of the trace: all of the question except its numbers, and the images' dtypes."""
        is_one_input = isinstance(self.specs, tf.TensorSpec)
        shapes = self.specs if is_one_input else repr(self.specs)
        images = tensors[:1] if is_one_input else tensors[: len(keras.tree.flatten(self.specs))]
        dtypes = tuple(image.dtype for image in images)
        target = None if self.target is None else trace_key(self.target)
        size = self.size if isinstance(self.size, str) else np.shape(self.size)
        return TraceKey(shapes, dtypes, target, size, self.interpolation, self.signed)


class TraceKey(NamedTuple):
    """The key of a trace; see `Question`. It holds weak references to callables."""

    shapes: Any
    dtypes: tuple
    target: Any
    size: Any
    interpolation: Interpolation | None
    signed: bool


def check_target_taken(method: Method, target: Any) -> None:
    """Raise a `ValueError` if `target` names a class and the map of `method` is the same for every class."""
    if not _names_no_class(target) and is_classless(method):
        raise ValueError(
            f"`target` must be None for a method whose map is the same for every class. Received: "
            f"target={target!r:.80}"
        )


def check_signed(signed: bool, several: bool) -> None:
    """Raise a `ValueError` if heatmaps of several layers are to be signed."""
    if signed and several:
        raise ValueError(
            "`signed` must be False for several layers: only positive evidence can be fused. "
            "Received: signed=True. Explain each layer by itself."
        )


def _names_no_class(target) -> bool:
    """Return whether `target` names no class; it may name an output."""
    return target is None or (isinstance(target, targets.Output) and target.target is None)

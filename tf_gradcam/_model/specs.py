"""What a model takes: the shapes and dtypes of its inputs, as TensorFlow specs.

Called by all that traces a model. Three questions are told apart: what the model itself declares
(`declared_specs`), what to trace it for when images are at hand (`specs_to_trace`), and what to trace a
`preprocess` for (`raw_image_specs`).
"""

import inspect
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_gradcam._model.keras_internals import functional_graph

_TRIAL_SIDE = 128  # pixels of a trial image, where the model leaves its height or width open


def declared_specs(model: keras.Model) -> Any:
    """Return a `tf.TensorSpec` with open batch for each input, in the structure that `model` takes.

    Returns `None` where nothing tells: a subclassed model that was never called, or that takes several
    arguments, of which Keras notes the first only.
    """
    functional = functional_graph(model)
    if functional is not None:
        return keras.tree.map_structure(_spec_of_symbolic, functional.input)
    shapes = (model.get_build_config() or {}).get("input_shape")
    if shapes is None or count_call_arguments(model) > 1:
        return None
    return _specs_of_shapes(shapes, model.variable_dtype)


def count_call_arguments(model: keras.Model) -> int:
    """Return how many required arguments the `call` of a model has, but for `training` and `mask`."""
    parameters = inspect.signature(model.call).parameters.values()
    required = [each for each in parameters if each.default is each.empty and "VAR" not in each.kind.name]
    return len([each for each in required if each.name not in ("training", "mask")])


def specs_to_trace(model: keras.Model, images: Any) -> Any:
    """Return the specs to trace `model` for: what it declares, or those of `images` if it has no graph."""
    if functional_graph(model) is not None:
        return declared_specs(model)
    alone = tf.is_tensor(images)

    def spec(image):
        # Whole numbers beside an image may be indices, as for an embedding: they keep their dtype.
        is_index = image.dtype.is_integer and image.shape.rank < 4 and not alone
        dtype = image.dtype if is_index else model.variable_dtype
        return tf.TensorSpec([None, *image.shape[1:]], dtype)

    return keras.tree.map_structure(spec, images)


def with_trial_sides(spec: tf.TensorSpec) -> tf.TensorSpec:
    """Return a spec whose open lengths are those of a trial image; the batch stays open."""
    shape = [_TRIAL_SIDE if length is None else length for length in spec.shape[1:]]
    return tf.TensorSpec([None, *shape], spec.dtype)


def _spec_of_symbolic(symbolic):
    return tf.TensorSpec([None, *symbolic.shape[1:]], symbolic.dtype, symbolic.name)


def _specs_of_shapes(shapes, dtype):
    if isinstance(shapes, dict):
        return {name: _specs_of_shapes(shape, dtype) for name, shape in shapes.items()}
    if all(isinstance(length, int | None) for length in shapes):
        return tf.TensorSpec([None, *shapes[1:]], dtype)
    return tuple(_specs_of_shapes(shape, dtype) for shape in shapes)


def raw_image_specs(images: Any) -> Any:
    """Return the specs of raw images, as `preprocess` takes them: every axis open but the channels."""
    return keras.tree.map_structure(
        lambda image: tf.TensorSpec(with_open_sides(image.shape), tf.float32), images
    )


def with_open_sides(shape: Sequence[int | None]) -> list[int | None]:
    """Return the shape of a batch of images with every axis open but the channels."""
    channels = 1 if is_channels_first(shape) else len(shape) - 1
    return [length if axis == channels else None for axis, length in enumerate(shape)]


def is_channels_first(shape: Sequence[int | None], unknown: bool = False) -> bool:
    """Return whether the shape of a batch of images has its channels first.

    Args:
        shape: of the images, with the batch.
        unknown: what to return where the shape does not tell: where both ends or neither may be channels.
    """
    few = (1, 3, 4)
    is_clear = len(shape) == 4 and (shape[1] in few) != (shape[-1] in few)
    return shape[1] in few if is_clear else unknown

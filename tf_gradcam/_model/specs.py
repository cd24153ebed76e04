"""The shapes and dtypes of a model's inputs, as TensorFlow specs. Called by everything that traces a model.

`declared_specs` are those that the model declares, `specs_to_trace` those to trace it for, given images, and
`raw_image_specs` those to trace a `preprocess` for.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_gradcam._arrays import is_channels_first
from tf_gradcam._model.keras_internals import functional_graph

_TRIAL_SIDE = 128  # Height or width of a trial image, in pixels, if the model leaves it open.


def declared_specs(model: keras.Model) -> Any:
    """Return a `tf.TensorSpec` with an open batch axis for each input, in the structure that `model` takes.

    Returns `None` if they are not known: for a subclassed model that was never called, or that takes several
    arguments, of which Keras records only the first.
    """
    functional = functional_graph(model)
    if functional is not None:
        return keras.tree.map_structure(_spec_from_symbolic, functional.input)
    shapes = (model.get_build_config() or {}).get("input_shape")
    if shapes is None or count_call_arguments(model) > 1:
        return None
    return _specs_from_shapes(shapes, model.variable_dtype)


def count_call_arguments(model: keras.Model) -> int:
    """Return the number of required arguments of the model's `call`, without `training` and `mask`."""
    parameters = inspect.signature(model.call).parameters.values()
    required = [one for one in parameters if one.default is one.empty and "VAR" not in one.kind.name]
    return len([one for one in required if one.name not in ("training", "mask")])


def specs_to_trace(model: keras.Model, images: Any) -> Any:
    """Return the specs to trace `model` for: those that it declares, or those of `images` without a graph."""
    if functional_graph(model) is not None:
        return declared_specs(model)
    is_one_input = tf.is_tensor(images)

    def spec(image):
        # Integers beside an image may be the indices of an embedding: they keep their dtype.
        is_index = image.dtype.is_integer and image.shape.rank < 4 and not is_one_input
        dtype = image.dtype if is_index else model.variable_dtype
        return tf.TensorSpec([None, *image.shape[1:]], dtype)

    return keras.tree.map_structure(spec, images)


def with_trial_sides(spec: tf.TensorSpec) -> tf.TensorSpec:
    """Return a spec with the lengths of a trial image for open axes, except the batch axis."""
    shape = [_TRIAL_SIDE if length is None else length for length in spec.shape[1:]]
    return tf.TensorSpec([None, *shape], spec.dtype)


def _spec_from_symbolic(symbolic):
    return tf.TensorSpec([None, *symbolic.shape[1:]], symbolic.dtype, symbolic.name)


def _specs_from_shapes(shapes, dtype):
    if isinstance(shapes, dict):
        return {name: _specs_from_shapes(shape, dtype) for name, shape in shapes.items()}
    if all(isinstance(length, int | None) for length in shapes):
        return tf.TensorSpec([None, *shapes[1:]], dtype)
    return tuple(_specs_from_shapes(shape, dtype) for shape in shapes)


def raw_image_specs(images: Any) -> Any:
    """Return the specs of raw images for `preprocess`: every axis is open except the channel axis."""
    return keras.tree.map_structure(
        lambda image: tf.TensorSpec(with_open_sides(image.shape), tf.float32), images
    )


def with_open_sides(shape: Sequence[int | None]) -> list[int | None]:
    """Return the shape of a batch of images with every axis open except the channel axis."""
    channels = 1 if is_channels_first(shape) else len(shape) - 1
    return [length if axis == channels else None for axis, length in enumerate(shape)]

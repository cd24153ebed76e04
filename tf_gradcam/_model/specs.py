"""What a model takes: the shapes and dtypes of its inputs."""

import inspect
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

_SIDE = 128  # of a trial image, where the model leaves it open


def with_trial_sides(spec) -> tf.TensorSpec:
    shape = [_SIDE if length is None else length for length in spec.shape[1:]]
    return tf.TensorSpec([None, *shape], spec.dtype)


def functional_graph(model: keras.Model) -> keras.Model | None:
    """Return the functional graph of a functional or Sequential model, or `None` where there is none."""
    functional = getattr(model, "_functional", None) or model
    return functional if isinstance(functional, keras.src.models.Functional) else None


def declared_specs(model: keras.Model) -> Any:
    """Return a `tf.TensorSpec` with open batch for each input, in the structure that `model` takes.

    `None` where nothing tells: a model with no graph that was never called.
    """
    functional = functional_graph(model)
    if functional is not None:
        return keras.tree.map_structure(_spec, functional._inputs_struct)
    shapes = (model.get_build_config() or {}).get("input_shape")
    if shapes is None or count_call_arguments(model) > 1:  # of which Keras notes the first only
        return None
    return _specs_of_shapes(shapes, model.variable_dtype)


def count_call_arguments(model: keras.Model) -> int:
    """Return how many inputs the `call` of a model asks for as arguments of their own."""
    parameters = inspect.signature(model.call).parameters.values()
    required = [each for each in parameters if each.default is each.empty and "VAR" not in each.kind.name]
    return len([each for each in required if each.name not in ("training", "mask")])


def specs_to_trace(model: keras.Model, images: Any) -> Any:
    """Return the specs to trace `model` for: its own, or where it has no graph, those of `images`."""
    if functional_graph(model) is not None:
        return declared_specs(model)
    alone = tf.is_tensor(images)

    def spec(image):
        # Numbers beside an image may be indices, of an embedding say.
        is_index = image.dtype.is_integer and image.shape.rank < 4 and not alone
        dtype = image.dtype if is_index else model.variable_dtype
        return tf.TensorSpec([None, *image.shape[1:]], dtype)

    return keras.tree.map_structure(spec, images)


def _spec(symbolic):
    return tf.TensorSpec([None, *symbolic.shape[1:]], symbolic.dtype, symbolic.name)


def _specs_of_shapes(shapes, dtype):
    if isinstance(shapes, dict):
        return {name: _specs_of_shapes(shape, dtype) for name, shape in shapes.items()}
    if all(isinstance(length, int | None) for length in shapes):
        return tf.TensorSpec([None, *shapes[1:]], dtype)
    return tuple(_specs_of_shapes(shape, dtype) for shape in shapes)


def raw_image_specs(images: Any) -> Any:
    """Return the specs of raw images that some preprocessing takes: every axis open but the channels."""

    return keras.tree.map_structure(
        lambda image: tf.TensorSpec(with_open_sides(image.shape), tf.float32), images
    )


def with_open_sides(shape: Sequence[int | None]) -> list[int | None]:
    """Return the shape of an image, with the batch, with every axis open but the channels."""
    channels = 1 if is_channels_first(shape) else len(shape) - 1
    return [length if axis == channels else None for axis, length in enumerate(shape)]


def is_channels_first(image: Sequence[int | None], unknown: bool = False) -> bool:
    """Whether the shape of an image, with the batch, tells that its channels come first; else `unknown`."""
    few = (1, 3, 4)
    told = len(image) == 4 and (image[1] in few) != (image[-1] in few)
    return image[1] in few if told else unknown

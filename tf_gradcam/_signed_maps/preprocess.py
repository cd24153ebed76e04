"""Prepare images for the model: the user's `preprocess`, and a cast to its dtypes. Called by explainers."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_gradcam._arrays import prepared_shape_error

# The text by which the explainer recognizes an error of the running graph.
OUT_OF_RANGE = "`preprocess` must return numbers from"


def apply_preprocess(preprocess: Callable | None, images: Any) -> Any:
    """Return `preprocess(images)`, with the images cast to float32; without a `preprocess`, the images.

    Raises:
        TypeError: if `preprocess` returned nothing.
    """
    if preprocess is None:
        return images
    prepared = preprocess(keras.tree.map_structure(lambda image: tf.cast(image, tf.float32), images))
    if prepared is None:
        raise TypeError(
            "`preprocess` must return the images that the model takes. Received: None. End it with "
            "`return images`; what it does must not be in place."
        )
    return prepared


def cast_to_specs(images: Any, specs: Any) -> Any:
    """Return `images` in the dtypes of `specs`, both in the structure that the model takes."""
    return keras.tree.map_structure(lambda spec, image: tf.cast(image, spec.dtype), specs, images)


def check_preprocessed(images: Any, specs: Any) -> Any:
    """Return preprocessed images in the model's dtypes, with their shapes checked.

    Raises:
        ValueError: if the model does not accept the shape. Open lengths are checked when the graph runs.
    """

    def check(spec, image):
        if not spec.shape.is_compatible_with(image.shape):
            raise prepared_shape_error(image.shape, spec.shape)
        if spec.dtype.is_integer and image.dtype.is_floating:
            limits = f"{spec.dtype.min} to {spec.dtype.max}, as the model takes {spec.dtype.name}."
            in_range = (image >= spec.dtype.min) & (image <= spec.dtype.max)  # False for NaN.
            check = tf.debugging.Assert(tf.reduce_all(in_range), [f"{OUT_OF_RANGE} {limits}"])
            with tf.control_dependencies([] if check is None else [check]):
                image = tf.identity(image)
        return tf.ensure_shape(tf.cast(image, spec.dtype), spec.shape)

    return keras.tree.map_structure(check, specs, images)

"""Prepare images for the model: the user's `preprocess`, and a cast to its dtypes. Called by explainers."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def apply_preprocess(preprocess: Callable | None, images: Any) -> Any:
    """Return `preprocess(images)`, with the images cast to float32; without a `preprocess`, the images."""
    if preprocess is None:
        return images
    return preprocess(keras.tree.map_structure(lambda image: tf.cast(image, tf.float32), images))


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
            raise ValueError(
                f"`preprocess` must return what the model takes, {spec.shape}. Received: {image.shape}"
            )
        return tf.ensure_shape(tf.cast(image, spec.dtype), spec.shape)

    return keras.tree.map_structure(check, specs, images)

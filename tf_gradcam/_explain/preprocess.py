"""Images on their way into the model: through the user's `preprocess`, and to the model's dtypes."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def apply_preprocess(preprocess: Callable | None, images: Any) -> Any:
    """Return what `preprocess` makes of images, which it is given as float32; without one, the images."""
    if preprocess is None:
        return images
    return preprocess(keras.tree.map_structure(lambda image: tf.cast(image, tf.float32), images))


def cast_to_specs(images: Any, specs: Any) -> Any:
    """Return `images` in the dtypes of `specs`, both in the structure that the model takes."""
    return keras.tree.map_structure(lambda spec, image: tf.cast(image, spec.dtype), specs, images)


def check_preprocessed(images: Any, specs: Any) -> Any:
    """Return what `preprocess` returned, in the model's dtypes and with its shape checked.

    Raises:
        ValueError: if the model can't take the shape; where that is open, when the graph runs.
    """

    def check(spec, image):
        if not spec.shape.is_compatible_with(image.shape):
            raise ValueError(
                f"`preprocess` must return what the model takes, {spec.shape}. Received: {image.shape}"
            )
        return tf.ensure_shape(tf.cast(image, spec.dtype), spec.shape)

    return keras.tree.map_structure(check, specs, images)

"""Images with NaN or infinity are answered with NaN. Called by `signed_maps` and by the explainer.

A compiled convolution with a ReLU returns 0 for NaN, so that the answer would look like any other.
"""

from typing import Any

import keras
import tensorflow as tf

from tf_gradcam._tensors import at_least_float32


def not_finite(images: Any, one_answer: bool = False) -> tf.Tensor | None:
    """Return NaN for each image that holds NaN or infinity, and 0 for the others: `(N,)` float32.

    Args:
        images: the inputs of the model.
        one_answer: whether the model gives one answer for all images: the mark is `(1,)` then.

    Returns:
        `None` if no input is of floating-point numbers.
    """
    # A sum is finite if all that it sums is, and half as costly as a look at each number.
    sums = [
        tf.reduce_sum(at_least_float32(image), axis=range(1, image.shape.rank))
        for image in keras.tree.flatten(images)
        if image.dtype.is_floating and (image.shape.rank or 0) > 1
    ]
    # Not `tf.math.is_finite`, which LiteRT lacks.
    finite = [tf.abs(each) <= each.dtype.max for each in sums]
    if not finite:
        return None
    all_finite = finite[0] if len(finite) == 1 else tf.reduce_all(tf.stack(finite), axis=0)
    all_finite = tf.reduce_all(all_finite, keepdims=True) if one_answer else all_finite
    return tf.where(all_finite, 0.0, float("nan"))


def with_nan(values: Any, marks: tf.Tensor | None) -> Any:
    """Return `values` `(N, ...)` with NaN for each image that `marks`, of `not_finite`, marks.

    Values that are no floating-point numbers are returned unchanged.
    """
    if marks is None or not tf.is_tensor(values) or not values.dtype.is_floating or not values.shape.rank:
        return values
    if marks.shape[0] != 1:
        rows = tf.shape(values)[0]  # A model may return more or fewer rows than images.
        marks = tf.pad(marks, [[0, rows]])[:rows]
    return values + tf.cast(
        tf.reshape(marks, [marks.shape[0] or -1] + [1] * (values.shape.rank - 1)), values.dtype
    )

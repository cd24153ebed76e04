"""How many answers a model gives for a batch: one for each image, or one for all. Called by `signed_maps`.

A model with one answer for all takes the batch as one sample, such as a bag of patches that attend to each
other. Its score has one row, and every image has a map: the gradient of the one score.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam import targets
from tf_gradcam._targets import find_output, score_target, target_arrays, with_arrays

ANSWER_COUNT = "one answer for each image"  # The text by which the explainer recognizes the error.


def score_answers(
    target: Any, outputs: Any, logits: Any, images: tf.Tensor
) -> tuple[Any, tf.Tensor, tf.Tensor | None]:
    """Return the target with a row for each answer, its score, and the class index of the score.

    Args:
        target: target as `to_rows` returns it, with a row for each image.
        outputs: outputs of the model.
        logits: their logits.
        images: one of the inputs of the model.

    Raises:
        ValueError: if a target for one answer has a mask.
        tf.errors.InvalidArgumentError: when the graph runs, with the text `ANSWER_COUNT` if there are neither
            one answer nor as many as images; or if the rows for one answer differ.
    """
    explained = _explained_outputs(target, outputs)
    arrays = target_arrays(target)
    if explained and all(is_one_answer(output, images) for output in explained):
        target = _with_one_row(target, arrays)
    elif explained and arrays:
        # TensorFlow's own error for an index without a row comes first, unless the index waits for the check.
        with _checked_count(explained[0], images):
            target = with_arrays(target, [tf.identity(array) for array in arrays])
    score, index = score_target(target, outputs, logits)
    if not (explained and arrays) and not is_one_answer(score, images):
        with _checked_count(score, images):
            score = tf.identity(score)
    return target, score, index


def is_one_answer(answers: tf.Tensor, images: tf.Tensor) -> bool:
    """Return whether `answers` are known to have one row, and `images` not."""
    return bool(answers.shape.rank) and answers.shape[0] == 1 and images.shape[0] != 1


def check_one_target(target: Any, score: tf.Tensor) -> None:
    """Raise a `ValueError` if `target` has different rows where the `score` is one for all images.

    The graph has this check too, for a target whose values are known only in it. XLA leaves it out.
    """
    if score.shape[0] != 1:
        return
    for array in target_arrays(target):
        if isinstance(array, np.ndarray) and (array != array[:1]).any():
            raise ValueError(_ONE_TARGET)


def _explained_outputs(target, outputs) -> list[tf.Tensor]:
    """Return the outputs that `target` reads; `[]` for a callable, which may read any."""
    while isinstance(target, targets.Output | targets.Against):
        if isinstance(target, targets.Output):
            outputs = find_output(target.name, outputs)
        target = target.target
    flat = [] if callable(target) else keras.tree.flatten(outputs)
    return [output for output in flat if tf.is_tensor(output) and output.shape.rank]


def _with_one_row(target, arrays):
    """Return `target` with the first of its rows, which must be equal."""
    if any(isinstance(one, targets.Region) and one.mask is not None for one in (target, *_inner(target))):
        raise ValueError(
            "`target` must have no mask if the model gives one answer for all images of a batch. "
            "Received: a Region with a mask. Give a class, or a callable outputs -> (1,)."
        )
    with tf.control_dependencies(
        [
            tf.debugging.assert_equal(array, tf.broadcast_to(array[:1], tf.shape(array)), _ONE_TARGET)
            for array in arrays
        ]
    ):
        return with_arrays(target, [tf.identity(array[:1]) for array in arrays])


_ONE_TARGET = (
    "`target` must be one for all images if the model gives one answer for all images of a batch. "
    "Received: different ones. Give one class."
)


def _inner(target):
    while hasattr(target, "target"):
        target = target.target
        yield target


def _checked_count(answers, images):
    """Return a context in which operations wait for the check that there is an answer for each image."""
    known = answers.shape[0], images.shape[0]
    if None not in known and known[0] == known[1]:
        return tf.control_dependencies([])
    rows, image_count = tf.shape(answers)[0], tf.shape(images)[0]
    check = tf.debugging.assert_equal(rows, image_count, ANSWER_COUNT)
    return tf.control_dependencies([] if check is None else [check])

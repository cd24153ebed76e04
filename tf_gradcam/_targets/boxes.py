"""Targets of a dense detector: a box by its number, or the one that overlaps a given box."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_gradcam._targets.outputs import given_or_best, pick, with_class_index
from tf_gradcam._tensors import at_least_float32


class Detection(NamedTuple):
    """A class of one of the A boxes that a dense detector predicts: its logit.

    Its outputs are one tensor `(N, A, 4 + classes)`, boxes first, or boxes `(N, A, 4)` and class scores
    `(N, A, classes)`: a pair, or a dict that names the boxes. Give `split` for any other order or column, as
    for boxes by middle and size, or an objectness before the classes.

    Attributes:
        anchor: which of the boxes, an int or one per image `(N,)`.
        index: class, an int or one per image `(N,)`; by default the best of that box.
        split: for any other outputs, `outputs -> (boxes, scores)`, shaped as above. It is called on the
            logits, too. The range of classes and boxes isn't checked, as nothing tells it.
    """

    anchor: Any
    index: Any = None
    split: Callable | None = None

    def score(self, outputs, logits):
        _, scores = _boxes_and_scores(logits, self.split)
        scores = pick(scores, self.anchor)
        index = given_or_best(self.index, scores)
        return pick(scores, index), index

    def pinned(self, outputs, logits):
        return with_class_index(self, outputs, logits)


class Box(NamedTuple):
    """A class of the predicted box that overlaps a given one best: its logit, as in `Detection`.

    Overlap is intersection over union. Where there is none the score is 0, and the heatmap blank.

    Attributes:
        box: `(4,)` or one per image `(N, 4)`: corners `(x1, y1, x2, y2)`, in the coordinates of the model's
            boxes, which must be corners as well; `split` may turn them into such.
        index: class, an int or one per image `(N,)`; by default the best of that box.
        split: as in `Detection`.
    """

    box: Any
    index: Any = None
    split: Callable | None = None

    def score(self, outputs, logits):
        return _Where(*self._best(outputs)).score(outputs, logits)

    def pinned(self, outputs, logits):
        overlaps, detection = self._best(outputs)
        return _Where(overlaps, detection.pinned(outputs, logits))

    def _best(self, outputs):
        boxes, _ = _boxes_and_scores(outputs, self.split)
        overlaps = _overlaps(at_least_float32(boxes), self.box)
        anchor = tf.argmax(overlaps, axis=1, output_type=tf.int32)
        return pick(overlaps, anchor), Detection(anchor, self.index, self.split)


class _Where(NamedTuple):
    """A target of which the score is 0 where `weights` `(N,)` are."""

    weights: tf.Tensor
    target: Any

    def score(self, outputs, logits):
        value, index = self.target.score(outputs, logits)
        return tf.where(self.weights > 0, value, tf.zeros_like(value)), index


def _boxes_and_scores(outputs, split):
    """Return the boxes `(N, A, 4)` and class scores `(N, A, classes)` of a dense detector."""
    flat = keras.tree.flatten(outputs)
    if split is not None:
        parts = split(outputs)
    elif len(flat) == 1:
        parts = flat[0][..., :4], flat[0][..., 4:]
    else:
        parts = flat if _tells_boxes(outputs, flat) else flat[::-1]
    parts = [each for each in keras.tree.flatten(parts) if each is not None]
    shapes = [tuple(each.shape) for each in parts]
    if [len(shape) for shape in shapes] != [3, 3] or shapes[0][2] != 4 or shapes[1][2] == 0:
        raise ValueError(
            "Detection or Box as `target` needs a model that returns boxes and class scores, (N, A, 4) and "
            f"(N, A, classes), or both in one. Received: shapes {shapes}. Give split, a callable "
            "outputs -> (boxes, scores)."
        )
    return parts


def _tells_boxes(outputs, flat) -> bool:
    """Whether the first of two parts is the boxes: by its name, or else as only it has four columns."""
    if isinstance(outputs, dict):
        named = [any(each in str(key).lower() for each in ("box", "reg", "loc")) for key in sorted(outputs)]
        if sum(named) == 1:
            return named[0]
    columns = [each.shape[-1] for each in flat]
    if columns == [4, 4]:
        raise ValueError(
            "Detection or Box as `target` must know the boxes from the class scores. Received: both have "
            "four columns. Give split, a callable outputs -> (boxes, scores)."
        )
    return columns[0] == 4


def _overlaps(boxes, box):
    """Return the intersection over union `(N, A)` of boxes `(N, A, 4)` and one box per image `(N, 4)`."""

    def area(low, high):
        return tf.reduce_prod(tf.nn.relu(high - low), axis=-1)

    low, high = boxes[..., :2], boxes[..., 2:]
    given_low, given_high = tf.split(tf.cast(box, boxes.dtype)[:, None], 2, axis=-1)
    both = area(tf.maximum(low, given_low), tf.minimum(high, given_high))
    return tf.math.divide_no_nan(both, area(low, high) + area(given_low, given_high) - both)

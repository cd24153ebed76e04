"""Targets for a dense detector: a box by its index, or the one that overlaps a given box. See `targets`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_gradcam._targets.outputs import given_or_best, in_range, pick, with_class_index
from tf_gradcam._tensors import at_least_float32


class Detection(NamedTuple):
    """The logit of a class for one of the A boxes that a dense detector predicts.

    The outputs are one tensor `(N, A, 4 + classes)`, boxes first, or boxes `(N, A, 4)` and class scores
    `(N, A, classes)`: a pair, or a dict whose keys name the boxes. Give `split` for any other layout, such as
    boxes as centre and size, or an objectness column before the classes.

    Attributes:
        anchor: index of the box, an int or one per image `(N,)`.
        index: class, an int or one per image `(N,)`; by default the best class of that box.
        split: function for any other layout, `outputs -> (boxes, scores)`, with the shapes above. It is also
            called on the logits. With it, the range of `anchor` and `index` is not checked.
    """

    anchor: Any
    index: Any = None
    split: Callable | None = None

    def score(self, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        _, scores = _boxes_and_scores(logits, self.split)
        scores = pick(scores, in_range(self.anchor, tf.shape(scores)[1], "box"))
        index = given_or_best(self.index, scores)
        return pick(scores, index), index

    def pinned(self, outputs: Any, logits: Any) -> Any:
        return with_class_index(self, outputs, logits)


class Box(NamedTuple):
    """The logit of a class for the predicted box with the largest overlap with a given box.

    Overlap is intersection over union. If no predicted box overlaps, the score is 0 and the heatmap blank.

    Attributes:
        box: `(4,)` or one per image `(N, 4)`: corners `(x1, y1, x2, y2)`, in the coordinates of the model's
            boxes, which must be corners as well; `split` may convert them.
        index: class, an int or one per image `(N,)`; by default the best class of that box.
        split: as in `Detection`.
    """

    box: Any
    index: Any = None
    split: Callable | None = None

    def score(self, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        return _ZeroWithoutOverlap(*self._best_detection(outputs)).score(outputs, logits)

    def pinned(self, outputs: Any, logits: Any) -> Any:
        overlaps, detection = self._best_detection(outputs)
        return _ZeroWithoutOverlap(overlaps, detection.pinned(outputs, logits))

    def _best_detection(self, outputs):
        """Return the largest overlap `(N,)`, and the `Detection` of the box that has it."""
        boxes, _ = _boxes_and_scores(outputs, self.split)
        overlaps = _overlaps(at_least_float32(boxes), self.box)
        anchor = tf.argmax(overlaps, axis=1, output_type=tf.int32)
        return pick(overlaps, anchor), Detection(anchor, self.index, self.split)


class _ZeroWithoutOverlap(NamedTuple):
    """A target whose score is 0 for the images where `overlaps` `(N,)` is 0."""

    overlaps: tf.Tensor
    target: Any

    def score(self, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        value, index = self.target.score(outputs, logits)
        return tf.where(self.overlaps > 0, value, tf.zeros_like(value)), index


def _boxes_and_scores(outputs, split):
    """Return the boxes `(N, A, 4)` and class scores `(N, A, classes)` of a dense detector."""
    flat = keras.tree.flatten(outputs)
    if split is not None:
        tensors = split(outputs)
    elif len(flat) == 1:
        tensors = flat[0][..., :4], flat[0][..., 4:]
    else:
        tensors = flat if _boxes_come_first(outputs, flat) else flat[::-1]
    tensors = [tensor for tensor in keras.tree.flatten(tensors) if tensor is not None]
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if [len(shape) for shape in shapes] != [3, 3] or shapes[0][2] != 4 or shapes[1][2] == 0:
        raise ValueError(
            "Detection or Box as `target` needs a model that returns boxes and class scores, (N, A, 4) and "
            f"(N, A, classes), or both in one. Received: shapes {shapes}. Give split, a callable "
            "outputs -> (boxes, scores)."
        )
    return tensors


def _boxes_come_first(outputs, flat) -> bool:
    """Return whether the first of two outputs is the boxes: by its key, or because only it has 4 columns."""
    if isinstance(outputs, dict):
        named = [any(word in str(key).lower() for word in ("box", "reg", "loc")) for key in sorted(outputs)]
        if sum(named) == 1:
            return named[0]
    columns = [output.shape[-1] for output in flat]
    if columns == [4, 4]:
        raise ValueError(
            "Detection or Box as `target` must distinguish boxes from class scores. Received: both have "
            "four columns. Give split, a callable outputs -> (boxes, scores)."
        )
    return columns[0] == 4


def _overlaps(boxes, box):
    """Return the intersection over union `(N, A)` of boxes `(N, A, 4)` and one box per image `(N, 4)`."""

    def area(low, high):
        return tf.reduce_prod(tf.nn.relu(high - low), axis=-1)

    low, high = boxes[..., :2], boxes[..., 2:]
    given_low, given_high = tf.split(tf.cast(box, boxes.dtype)[:, None], 2, axis=-1)
    intersection = area(tf.maximum(low, given_low), tf.minimum(high, given_high))
    return tf.math.divide_no_nan(intersection, area(low, high) + area(given_low, given_high) - intersection)

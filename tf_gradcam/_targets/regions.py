"""The target for a segmentation: a class over a region of pixels. Public through `tf_gradcam.targets`."""

from typing import Any, NamedTuple

import tensorflow as tf

from tf_gradcam._targets.outputs import (
    both_sides,
    given_or_best,
    only_logits,
    only_output,
    pick,
    ranking,
    with_class_index,
    without_class,
    wrong_outputs_error,
)
from tf_gradcam._tensors import at_least_float32


class Region(NamedTuple):
    """The logit of a class of a segmentation `(N, *grid, classes)`, summed over a region of pixels.

    The region is the mask or, without one, the pixels where the class is predicted; if there are none, the
    score is 0 and the heatmap blank. One channel `(N, *grid, 1)` with a final sigmoid has two classes, as in
    `Binary`. Without a sigmoid it has no classes and needs a mask, over which its values are summed. For CTC,
    `(N, steps, symbols)`, the class predicted most often is nearly always the blank: give the symbol.

    Source: Vinogradova et al., "Towards Interpretable Semantic Segmentation via Gradient-weighted Class
    Activation Mapping", AAAI 2020 (Seg-Grad-CAM).

    Attributes:
        index: class, an int or one per image `(N,)`; by default the class predicted most often, in the mask
            if there is one; for a sigmoid side 1, if it is predicted anywhere.
        mask: `(*grid)` or one per image `(N, *grid)`, on the grid of the outputs: bool, or weights >= 0.
    """

    index: Any = None
    mask: Any = None

    def score(self, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        outputs, logits = only_output(outputs), only_logits(logits)
        if not logits.shape.rank or logits.shape.rank < 3:
            raise wrong_outputs_error("Region", "(N, *grid, classes)", logits, "Give a class instead.")
        weights = None if self.mask is None else _pixel_weights(self.mask, logits)
        if logits.shape[-1] == 1 and logits is outputs:
            if weights is None:
                advice = "Give Binary for yes or no, Region(mask=mask), or a callable outputs -> (N,)."
                raise wrong_outputs_error(
                    "None or a class", "several channels, or one after a sigmoid", logits, advice
                )
            sums = _sum_pixels(_flatten_pixels(logits)[..., 0], weights)
            return without_class(self.index, sums), None
        class_values = _flatten_pixels(both_sides(logits))
        predicted = tf.argmax(_flatten_pixels(both_sides(ranking(logits))), axis=-1, output_type=tf.int32)
        counts = _count_classes(predicted, weights, tf.shape(class_values)[-1])
        if logits.shape[-1] == 1:  # Side 0 is the background, which is never the default.
            counts *= tf.constant([0, 1], counts.dtype)
        index = given_or_best(self.index, counts)
        values = pick(class_values, index[:, None], axis=2)[..., 0]
        return _sum_pixels(values, predicted == index[:, None] if weights is None else weights), index

    def pinned(self, outputs: Any, logits: Any) -> Any:
        index = with_class_index(self, outputs, logits).index
        if self.mask is not None:
            grid = tf.shape(only_logits(logits))[:-1]
            return Region(index, tf.broadcast_to(self.mask, grid))
        ranked = both_sides(ranking(only_logits(logits)))
        predicted = tf.argmax(ranked, axis=-1, output_type=tf.int32)
        mask = predicted == tf.reshape(index, [-1] + [1] * (predicted.shape.rank - 1))
        return Region(index, tf.cast(mask, tf.float32))


def _count_classes(predicted, weights, count):
    """Return how many pixels of each image have each class, or the sum of their weights: `(N, count)`."""
    # `tf.math.bincount` calls it with a size that depends on the values, which no other runtime accepts.
    no_weights = tf.zeros([0], tf.int32)
    return tf.raw_ops.DenseBincount(
        input=predicted, size=count, weights=no_weights if weights is None else weights
    )


def _flatten_pixels(values):
    """Return `(N, *grid, classes)` as `(N, pixels, classes)`."""
    shape = tf.shape(values)
    return tf.reshape(at_least_float32(values), [shape[0], -1, shape[-1]])


def _pixel_weights(mask, outputs):
    """Return `mask` as one weight for each pixel of `outputs` `(N, *grid, classes)`: `(N, pixels)`."""
    check_mask(mask, outputs)
    shape = tf.shape(outputs)[:-1]
    mask = mask if len(mask.shape) == outputs.shape.rank - 1 else mask[None]
    if not outputs.shape[1:-1].is_fully_defined():  # Otherwise `check_range` checks it.
        message = "`target` must have a mask on the grid of the model's outputs."
        tf.debugging.assert_equal(tf.shape(mask)[1:], shape[1:], message)
    return tf.reshape(tf.broadcast_to(mask, shape), [shape[0], -1])


def check_mask(mask: Any, outputs: Any, count: int | None = None) -> None:
    """Raise a `ValueError` unless `mask` has the grid of `outputs`, for all or for each of `count` images."""
    grid = tf.TensorShape(outputs.shape)[1:-1]
    batch, shape = mask.shape[: -grid.rank], mask.shape[-grid.rank :]
    if len(batch) > 1 or not grid.is_compatible_with(shape) or (count and len(batch) and batch[0] != count):
        raise ValueError(
            f"`target` must have a mask on the grid of the model's outputs, {tuple(grid)}, or one for each "
            f"image. Received: mask of shape {tuple(mask.shape)}. Resize it to that grid."
        )


def _sum_pixels(values, weights):
    """Return the weighted sums of `values` `(N, pixels)`, which may be infinite where the weight is 0."""
    weights = tf.cast(weights, values.dtype)
    return tf.reduce_sum(tf.where(weights > 0, weights * values, tf.zeros_like(values)), axis=1)

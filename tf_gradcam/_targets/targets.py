"""What to explain: named tuples whose `score` turns a model's answer into one number per image.

For a pixel, a masked region or a box take `method="hirescam"` or `"layercam"`: Grad-CAM averages gradients
over all places, and so shows whatever else looks alike.

The numbers in a target are arrays with one row per image, so that other numbers never trace anew. Its method
`score(outputs, logits)` returns the score and the class index it belongs to, int32 of the same shape, or
`None` where it belongs to none. Where it leaves a choice to the model, `fixed(outputs, logits)` returns it
with that choice made, so that altered copies of the images are scored for the same thing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

PREDICTED = -1  # stands for None in a tensor
_OR_A_CALLABLE = "Give a callable outputs -> (N,) that says what to explain."


class Class(NamedTuple):
    """The logit of a class: what a final softmax or sigmoid is given, or the output where there is neither.

    A single sigmoid unit has two classes, as in `Binary`; a single unit with no sigmoid has none, and is
    explained as it is. Outputs `(N, *grid, classes)` are taken for a segmentation, and the class for its
    `Region`. A detector's may look just the same: say `Detection` or `Box`.

    Attributes:
        index: class, an int or one per image `(N,)`; by default each image's own predicted class.
    """

    index: Any = None

    def score(self, outputs, logits):
        outputs, logits = only_output(outputs), _shown(logits)
        if not logits.shape.rank or logits.shape.rank < 2:
            raise _wrong_outputs("None or a class", "(N, classes)", logits, _OR_A_CALLABLE)
        if logits.shape.rank > 2:
            return Region(self.index).score(outputs, logits)
        if logits.shape[-1] == 1 and logits is outputs:
            return logits[:, 0], None
        logits = _both_sides(logits)
        index = _or_best(self.index, logits)
        return _pick(logits, index), index

    def fixed(self, outputs, logits):
        is_map = _shown(logits).shape.rank > 2
        return Region(self.index).fixed(outputs, logits) if is_map else _with_index(self, outputs, logits)


class Classes(NamedTuple):
    """Several classes at once, each as `Class` explains it: one map for each from a single forward pass.

    Attributes:
        indices: M classes `(M,)`, or others for each image `(N, M)`.
    """

    indices: Any

    def score(self, outputs, logits):
        outputs, logits = only_output(outputs), _shown(logits)
        if logits.shape.rank == 2 and logits.shape[-1] != 1:
            return _pick(logits, self.indices), tf.convert_to_tensor(self.indices)
        return self._each().score(outputs, logits)

    def fixed(self, outputs, logits):
        return _Each(tuple(each.fixed(outputs, logits) for each in self._each().targets))

    def _each(self):
        return _Each(tuple(map(Class, tf.unstack(self.indices, axis=1))))


class TopClasses(NamedTuple):
    """The best classes of each image, best first, each as `Class` explains it: `Classes` chosen by the model.

    Attributes:
        count: how many, from 1 to as many as the model has.
    """

    count: int

    def score(self, outputs, logits):
        return self._found(logits).score(outputs, logits)

    def fixed(self, outputs, logits):
        return self._found(logits).fixed(outputs, logits)

    def _found(self, logits):
        logits = _shown(logits)
        if logits.shape.rank != 2 or logits.shape[-1] == 1:
            advice = "Give Binary for yes or no, Classes of a segmentation."
            raise _wrong_outputs("TopClasses", "(N, classes), at least two", logits, advice)
        if self.count > (logits.shape[-1] or self.count):
            raise ValueError(
                f"`target` must be at most as many classes as the model has, {logits.shape[-1]}. "
                f"Received: TopClasses({self.count})"
            )
        return Classes(tf.math.top_k(logits, self.count).indices)


class _Each(NamedTuple):
    """Several targets at once, their scores side by side."""

    targets: tuple

    def score(self, outputs, logits):
        each = [target.score(outputs, logits) for target in self.targets]
        scores, indices = zip(*each, strict=True)
        return tf.stack(scores, axis=1), None if indices[0] is None else tf.stack(indices, axis=1)


class Binary(NamedTuple):
    """One side of a single unit that says yes or no: its logit for side 1, minus its logit for side 0.

    On a map `(N, *grid, 1)`, of pixels that say yes or no, it is that side's `Region`.

    Attributes:
        index: side, 0 or 1 or one per image `(N,)`; by default the side each image falls on.
    """

    index: Any = None

    def score(self, outputs, logits):
        logits = _shown(logits)
        if not logits.shape.rank or logits.shape.rank < 2 or logits.shape[-1] != 1:
            raise _wrong_outputs("Binary", "(N, 1)", logits, "Give a class instead.")
        return _OfSigmoid(Class(self.index)).score(outputs, logits)

    def fixed(self, outputs, logits):
        logits = _shown(logits)
        return _OfSigmoid(Class(self.index).fixed(tf.sigmoid(logits), logits))


class _OfSigmoid(NamedTuple):
    """A target on a model with a sigmoid at its end."""

    target: Any

    def score(self, outputs, logits):
        logits = _shown(logits)
        return self.target.score(tf.sigmoid(logits), logits)


class Probability(NamedTuple):
    """What a final softmax or sigmoid says of a class; for side 0 of a single sigmoid unit, 1 minus that.

    Attributes:
        index: class, an int or one per image `(N,)`; by default each image's own predicted class.
    """

    index: Any = None

    def score(self, outputs, logits):
        outputs, logits = only_output(outputs), _shown(logits)
        if outputs.shape.rank != 2 or logits is outputs:
            needs = "(N, classes) from a softmax or sigmoid"
            advice = "Give a class, Value for a raw output, or a callable outputs -> (N,)."
            raise _wrong_outputs("Probability", needs, outputs, advice)
        index = _or_best(self.index, _both_sides(logits))
        both = outputs if outputs.shape[-1] != 1 else tf.concat([1 - outputs, outputs], axis=-1)
        return _pick(both, index), index

    def fixed(self, outputs, logits):
        return _with_index(self, outputs, logits)


class Value(NamedTuple):
    """The raw output of one unit, just as the model returns it: a regression, or a probability as such.

    Attributes:
        index: unit, an int or one per image `(N,)`; by default the first.
    """

    index: Any = 0

    def score(self, outputs, logits):
        outputs = only_output(outputs)
        if outputs.shape.rank != 2:
            raise _wrong_outputs("Value", "(N, units)", outputs, _OR_A_CALLABLE)
        return _pick(outputs, self.index), None


class Output(NamedTuple):
    """One of several outputs, and what to explain of it.

    Attributes:
        name: key of a dict of outputs, the model's name for an output, or a position among all outputs in the
            order of `keras.tree.flatten`.
        target: anything that explains a model with this output alone; by default its predicted class.
    """

    name: str | int
    target: Any = None

    def score(self, outputs, logits):
        return score_target(self.target, *self.found(outputs, logits))

    def fixed(self, outputs, logits):
        return self._replace(target=pin_choices(self.target, *self.found(outputs, logits)))

    def found(self, outputs, logits):
        """Return that output and its logits."""
        logits = None if logits is None else find_output(self.name, logits)
        return find_output(self.name, outputs), logits


class Similarity(NamedTuple):
    """The cosine similarity of an embedding `(N, D)`, as the model returns it, to a reference.

    An embedding of zeros points nowhere: its score is 0, and its heatmap blank.

    Attributes:
        reference: `(D,)`, or one per image `(N, D)`.
    """

    reference: Any

    def score(self, outputs, logits):
        outputs = only_output(outputs)
        if outputs.shape.rank != 2:
            raise _wrong_outputs("Similarity", "embeddings (N, D)", outputs, _OR_A_CALLABLE)
        if not outputs.shape[1:].is_compatible_with(self.reference.shape[1:]):
            raise ValueError(
                f"`target` must have a reference as long as the model's embeddings, {outputs.shape[1]}. "
                f"Received: {self.reference.shape[1]} numbers. Take what the same model answers."
            )
        embedding = at_least_float32(outputs)
        reference = tf.cast(self.reference, embedding.dtype)
        return tf.reduce_sum(_unit_length(embedding) * _unit_length(reference), axis=1), None


class Contrast(NamedTuple):
    """Why one class rather than another: the difference of their logits. Its class index is the former.

    Attributes:
        index: class, an int or one per image `(N,)`; by default each image's own predicted class.
        other: the class it is compared to, likewise; by default the best of all others, the runner-up.
    """

    index: Any = None
    other: Any = None

    def score(self, outputs, logits):
        index, other = self.fixed(outputs, logits)
        logits = _shown(logits)
        return _pick(logits, index) - _pick(logits, other), index

    def fixed(self, outputs, logits):
        logits = _shown(logits)
        if logits.shape.rank != 2 or logits.shape[-1] == 1:
            advice = "Give Binary for a single unit: its logit is the contrast of its two sides."
            raise _wrong_outputs("Contrast", "(N, classes), at least two", logits, advice)
        index = _or_best(self.index, logits)
        taken = tf.one_hot(index, tf.shape(logits)[1], on_value=True, off_value=False)
        other = _or_best(self.other, tf.where(taken, tf.constant(-np.inf, logits.dtype), logits))
        return Contrast(index, other)


class Against(NamedTuple):
    """The counterfactual, what speaks against a target: minus its score.

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV 2017, section 3.3.

    Attributes:
        target: anything that can be explained; by default each image's own predicted class.
    """

    target: Any = None

    def score(self, outputs, logits):
        value, index = score_target(self.target, outputs, logits)
        return -value, index

    def fixed(self, outputs, logits):
        return Against(pin_choices(self.target, outputs, logits))


class Region(NamedTuple):
    """A class of a segmentation `(N, *grid, classes)`: its logit, summed over a region of pixels.

    The region is a mask or, without one, the pixels where the class is predicted; where it is predicted
    nowhere, the score is 0 and the heatmap blank. One channel `(N, *grid, 1)` has two classes if it ends in a
    sigmoid, as in `Binary`; if not it has none, and needs a mask, over which its values are summed.

    Source: Vinogradova et al., "Towards Interpretable Semantic Segmentation via Gradient-weighted Class
    Activation Mapping", AAAI 2020 (Seg-Grad-CAM).

    Attributes:
        index: class, an int or one per image `(N,)`; by default the one that is predicted most often, in the
            mask if there is one; of a sigmoid's two sides 1, if it is predicted at all.
        mask: `(*grid)` or one per image `(N, *grid)`, on the grid of the outputs: bool, or weights >= 0.
    """

    index: Any = None
    mask: Any = None

    def score(self, outputs, logits):
        outputs, logits = only_output(outputs), _shown(logits)
        if not logits.shape.rank or logits.shape.rank < 3:
            raise _wrong_outputs("Region", "(N, *grid, classes)", logits, "Give a class instead.")
        weights = None if self.mask is None else _weights(self.mask, logits)
        if logits.shape[-1] == 1 and logits is outputs:
            if weights is None:
                advice = "Give Binary for yes or no, Region(mask=mask), or a callable outputs -> (N,)."
                raise _wrong_outputs("None or a class", "several channels, or a sigmoid's", logits, advice)
            return _sum(_pixels(logits)[..., 0], weights), None
        sides = _pixels(_both_sides(logits))
        predicted = tf.argmax(sides, axis=-1, output_type=tf.int32)
        classes = tf.shape(sides)[-1]
        counts = tf.math.bincount(predicted, weights, minlength=classes, maxlength=classes, axis=-1)
        if logits.shape[-1] == 1:  # Side 0 is the background, however large.
            counts *= tf.constant([0, 1], counts.dtype)
        index = _or_best(self.index, counts)
        values = tf.gather(sides, index[:, None], axis=2, batch_dims=1)[..., 0]
        return _sum(values, predicted == index[:, None] if weights is None else weights), index

    def fixed(self, outputs, logits):
        index = _with_index(self, outputs, logits).index
        if self.mask is not None:
            grid = tf.shape(_shown(logits))[:-1]
            return Region(index, tf.broadcast_to(self.mask, grid))
        predicted = tf.argmax(_both_sides(_shown(logits)), axis=-1, output_type=tf.int32)
        mask = predicted == tf.reshape(index, [-1] + [1] * (predicted.shape.rank - 1))
        return Region(index, tf.cast(mask, tf.float32))


class Pixel(NamedTuple):
    """A class of a segmentation `(N, *grid, classes)` at one pixel, explained as `Class` does an image's.

    Source: Vinogradova et al. 2020, as `Region`: a region of one pixel.

    Attributes:
        position: `(row, column)` on the grid of the outputs, or one per image `(N, 2)`; in a volume
            `(depth, row, column)`, in a signal `(step,)`.
        index: class, an int or one per image `(N,)`; by default the one that is predicted there.
    """

    position: Any
    index: Any = None

    def score(self, outputs, logits):
        outputs, logits = only_output(outputs), _shown(logits)
        axes = self.position.shape[1]
        if logits.shape.rank != axes + 2:
            advice = "Give the position one number for each axis of the grid."
            raise _wrong_outputs(f"Pixel at {axes} numbers", f"a grid of {axes} axes", logits, advice)
        where = tf.concat([tf.range(tf.shape(logits)[0])[:, None], self.position], axis=1)
        pixel = tf.gather_nd(outputs, where)
        return Class(self.index).score(pixel, pixel if logits is outputs else tf.gather_nd(logits, where))

    def fixed(self, outputs, logits):
        return _with_index(self, outputs, logits)


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
        scores = _pick(scores, self.anchor)
        index = _or_best(self.index, scores)
        return _pick(scores, index), index

    def fixed(self, outputs, logits):
        return _with_index(self, outputs, logits)


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

    def fixed(self, outputs, logits):
        overlaps, detection = self._best(outputs)
        return _Where(overlaps, detection.fixed(outputs, logits))

    def _best(self, outputs):
        boxes, _ = _boxes_and_scores(outputs, self.split)
        overlaps = _overlaps(at_least_float32(boxes), self.box)
        anchor = tf.argmax(overlaps, axis=1, output_type=tf.int32)
        return _pick(overlaps, anchor), Detection(anchor, self.index, self.split)


class _Where(NamedTuple):
    """A target of which the score is 0 where `weights` `(N,)` are."""

    weights: tf.Tensor
    target: Any

    def score(self, outputs, logits):
        value, index = self.target.score(outputs, logits)
        return tf.where(self.weights > 0, value, tf.zeros_like(value)), index


TARGETS = (Class, Classes, TopClasses, Binary, Probability, Value, Output, Similarity, Contrast, Against)
TARGETS += (Region, Pixel, Detection, Box)


def _pick(values, index):
    """Return `values[i, index[i]]` for each image i. A one-hot product would hide an index out of range."""
    return tf.gather(values, index, batch_dims=1)


def _or_best(index, values):
    """Return `index`, and where none is given that of the largest of `values` `(N, classes)`."""
    return tf.where(tf.equal(index, PREDICTED), tf.argmax(values, axis=-1, output_type=tf.int32), index)


def _with_index(target, outputs, logits):
    """Return `target` with the class index that its score belongs to, if there is one."""
    _, index = target.score(outputs, logits)
    return target if index is None else target._replace(index=index)


def _both_sides(logits):
    """Return the logits of both sides of a single unit, `(..., 2)`, or those of several units as they are."""
    return tf.concat([-logits, logits], axis=-1) if logits.shape[-1] == 1 else logits


def at_least_float32(values):
    """Return `values` as float32 or float64: in float16, areas and sums over pixels overflow."""
    return values if values.dtype == tf.float64 else tf.cast(values, tf.float32)


def _unit_length(vectors):
    squares = tf.reduce_sum(vectors**2, axis=1, keepdims=True)
    is_zero = tf.equal(squares, 0)  # There a square root's gradient is infinite.
    lengths = tf.sqrt(tf.where(is_zero, tf.ones_like(squares), squares))
    return tf.where(is_zero, tf.zeros_like(vectors), vectors / lengths)


def _pixels(values):
    """Return `(N, *grid, classes)` as `(N, pixels, classes)`."""
    shape = tf.shape(values)
    return tf.reshape(at_least_float32(values), [shape[0], -1, shape[-1]])


def _weights(mask, outputs):
    """Return `mask` with one weight for each pixel of `outputs` `(N, *grid, classes)`: `(N, pixels)`."""
    check_mask(mask, outputs)
    shape = tf.shape(outputs)[:-1]
    mask = mask if len(mask.shape) == outputs.shape.rank - 1 else mask[None]
    if not outputs.shape[1:-1].is_fully_defined():  # else `check_range` has seen to it
        message = "`target` must have a mask of the grid of the model's outputs."
        tf.debugging.assert_equal(tf.shape(mask)[1:], shape[1:], message)
    return tf.reshape(tf.broadcast_to(mask, shape), [shape[0], -1])


def check_mask(mask, outputs, count=None) -> None:
    grid = tf.TensorShape(outputs.shape)[1:-1]
    batch, shape = mask.shape[: -grid.rank], mask.shape[-grid.rank :]
    if len(batch) > 1 or not grid.is_compatible_with(shape) or (count and len(batch) and batch[0] != count):
        raise ValueError(
            f"`target` must have a mask of the grid of the model's outputs, {tuple(grid)}, or one for each "
            f"image. Received: mask of shape {tuple(mask.shape)}. Resize it to that grid."
        )


def _sum(values, weights):
    """Return the weighted sums of `values` `(N, pixels)`, which may be infinite where there is no weight."""
    weights = tf.cast(weights, values.dtype)
    return tf.reduce_sum(tf.where(weights > 0, weights * values, tf.zeros_like(values)), axis=1)


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


def only_output(outputs):
    """Return the one output of a model that may pack it in a list."""
    flat = keras.tree.flatten(outputs)
    if len(flat) != 1:
        names = list(outputs if isinstance(outputs, dict) else range(len(flat)))
        raise ValueError(
            f"`target` must say which of the model's {len(flat)} outputs to explain, {names}: "
            f"targets.Output({names[0]!r}, target). A detector's take targets.Detection or Box, and any "
            "outputs take a callable outputs -> (N,)."
        )
    return flat[0]


def _shown(logits):
    """Return the logits of a model's one output, if its graph shows them."""
    logits = only_output(logits)
    if logits is None:
        raise ValueError(
            "`model` must show its logits. Received: an output that comes out of a tf.function of its own. "
            "Take the decorator off, or give as `target` a Value or a callable outputs -> (N,)."
        )
    return logits


class OutputName(NamedTuple):
    """The name that was given to `Output`, and the names that the model has for its outputs, if any."""

    given: str | int
    known: tuple[str, ...]


def find_output(name, outputs):
    """Return the output of that name, which may again be a structure of outputs."""
    if isinstance(outputs, dict) and name.given in outputs:
        return outputs[name.given]
    flat = keras.tree.flatten(outputs)
    position = name.known.index(name.given) if name.given in name.known else name.given
    if position not in range(len(flat)):
        names = list(outputs if isinstance(outputs, dict) else name.known)
        raise ValueError(
            f"`target` must name one of the model's {len(flat)} outputs, {f'{names} or ' if names else ''}by "
            f"a position from 0 to {len(flat) - 1}. Received: Output({name.given!r})"
        )
    return flat[position]


def _wrong_outputs(target, needs, outputs, advice) -> ValueError:
    return ValueError(
        f"{target} as `target` needs a model that returns {needs}. "
        f"Received: outputs of shape {tuple(outputs.shape)}. {advice}"
    )


def score_target(target: Any, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Return the score of `target`, `(N,)` or `(N, M)`, and the class index it belongs to or `None`.

    Args:
        target: as `per_image` returns it.
        outputs: what the model returned.
        logits: for each output what its final softmax or sigmoid was given, or the very same output where
            there is neither. A callable, also one in `Output` or `Against`, does without: `None`.
    """
    if not callable(target):
        return target.score(outputs, logits)
    value = target(outputs)
    if not tf.is_tensor(value) or value.shape.rank not in (1, 2):
        raise ValueError(
            "`target` must return one number per image, a tensor (N,), or several, (N, M). "
            f"Received: {getattr(value, 'shape', type(value).__name__)}"
        )
    return value, None


def pin_choices(target: Any, outputs: Any, logits: Any) -> Any:
    """Return `target` with every choice made that it leaves to the model, as these outputs make it.

    Args:
        target: as `per_image` returns it.
        outputs: what the model returned.
        logits: as `score` takes them.
    """
    return target.fixed(outputs, logits) if hasattr(target, "fixed") else target


def class_logits(target: Any, outputs: Any, logits: Any) -> tf.Tensor | None:
    """Return the logits `(N, classes)` of which `target`'s score is one, or `None` where there are none."""
    while isinstance(target, Output):
        outputs, logits = target.found(outputs, logits)
        target = target.target
    is_class = all(
        isinstance(each, Class | Classes | TopClasses) for each in getattr(target, "targets", [target])
    )
    flat = keras.tree.flatten(logits)
    if not is_class or len(flat) != 1 or flat[0].shape.rank != 2 or flat[0].shape[-1] == 1:
        return None
    return at_least_float32(flat[0])

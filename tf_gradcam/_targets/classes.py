"""Targets that are classes, units, embeddings or pixels of an output. Public through `tf_gradcam.targets`."""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._targets.boxes import Box, Detection
from tf_gradcam._targets.outputs import (
    OR_A_CALLABLE,
    are_rivals,
    both_sides,
    find_output,
    given_or_best,
    in_range,
    only_logits,
    only_output,
    pick,
    ranking,
    with_class_index,
    without_class,
    wrong_outputs_error,
)
from tf_gradcam._targets.regions import Region
from tf_gradcam._targets.scores import pin_choices, score_target
from tf_gradcam._tensors import at_least_float32


class Class(NamedTuple):
    """The logit of a class: the input of a final softmax or sigmoid, or the output of a model with neither.

    A single sigmoid unit has two classes, as in `Binary`; a single unit with no sigmoid has none, and its
    output is explained. Outputs `(N, *grid, classes)` are taken as a segmentation, and the class as its
    `Region`. The outputs of a detector may have the same shape: give `Detection` or `Box` for these.

    Of several softmaxes that are joined to one vector, the predicted class is the one with the highest
    probability, because logits of different softmaxes cannot be compared. Numbers that are joined to
    probabilities, such as a box, are never predicted. Of an ordinal head, one sigmoid for each threshold, the
    first threshold is always predicted: give the one that matters.

    Attributes:
        index: class, an int or one per image `(N,)`; by default each image's own predicted class.
    """

    index: Any = None

    def score(self, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        outputs, logits = only_output(outputs), only_logits(logits)
        if not logits.shape.rank or logits.shape.rank < 2:
            raise wrong_outputs_error("None or a class", "(N, classes)", logits, OR_A_CALLABLE)
        if logits.shape.rank > 2:
            return Region(self.index).score(outputs, logits)
        if logits.shape[-1] == 1 and logits is outputs:
            return without_class(self.index, logits[:, 0]), None
        index = given_or_best(self.index, both_sides(ranking(logits)))
        return pick(both_sides(logits), index), index

    def pinned(self, outputs: Any, logits: Any) -> Any:
        is_map = only_logits(logits).shape.rank > 2
        return (
            Region(self.index).pinned(outputs, logits) if is_map else with_class_index(self, outputs, logits)
        )


class Classes(NamedTuple):
    """Several classes at once, each explained as by `Class`: one map for each, from a single forward pass.

    Attributes:
        indices: M classes `(M,)`, or M classes for each image `(N, M)`.
    """

    indices: Any

    def score(self, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        outputs, logits = only_output(outputs), only_logits(logits)
        if logits.shape.rank == 2 and logits.shape[-1] != 1:
            indices = in_range(self.indices, tf.shape(logits)[1])
            return pick(logits, indices), indices
        return self._as_targets().score(outputs, logits)

    def pinned(self, outputs: Any, logits: Any) -> Any:
        return _SeveralTargets(tuple(target.pinned(outputs, logits) for target in self._as_targets().targets))

    def _as_targets(self):
        return _SeveralTargets(tuple(map(Class, tf.unstack(self.indices, axis=1))))


class TopClasses(NamedTuple):
    """The classes with the largest logits of each image, largest first, each explained as by `Class`.

    Attributes:
        count: number of classes, from 1 to the number of classes of the model.
    """

    count: Any  # An int. It is annotated `Any` because a tuple has a method of this name.

    def score(self, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        return self._as_classes(logits).score(outputs, logits)

    def pinned(self, outputs: Any, logits: Any) -> Any:
        return self._as_classes(logits).pinned(outputs, logits)

    def _as_classes(self, logits):
        logits = only_logits(logits)
        if logits.shape.rank != 2 or logits.shape[-1] == 1:
            advice = "Give Binary for a single unit, or Classes for a segmentation."
            raise wrong_outputs_error("TopClasses", "(N, classes), at least two", logits, advice)
        if self.count > (logits.shape[-1] or self.count):
            raise ValueError(
                f"`target` must have a count of at most the model's number of classes, {logits.shape[-1]}. "
                f"Received: TopClasses({self.count})"
            )
        return Classes(tf.math.top_k(ranking(logits), self.count).indices)


class _SeveralTargets(NamedTuple):
    """Several targets at once, with their scores stacked as `(N, M)`."""

    targets: tuple

    def score(self, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        pairs = [target.score(outputs, logits) for target in self.targets]
        scores, indices = zip(*pairs, strict=True)
        return tf.stack(scores, axis=1), None if indices[0] is None else tf.stack(indices, axis=1)


class Binary(NamedTuple):
    """One side of a single unit for yes or no: its logit for side 1, minus its logit for side 0.

    On a segmentation `(N, *grid, 1)` with one such unit for each pixel, it is the `Region` of that side.

    Attributes:
        index: side, 0 or 1 or one per image `(N,)`; by default the predicted side of each image.
    """

    index: Any = None

    def score(self, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        logits = only_logits(logits)
        if not logits.shape.rank or logits.shape.rank < 2 or logits.shape[-1] != 1:
            raise wrong_outputs_error("Binary", "(N, 1)", logits, "Give a class instead.")
        return _WithSigmoid(Class(self.index)).score(outputs, logits)

    def pinned(self, outputs: Any, logits: Any) -> Any:
        logits = only_logits(logits)
        return _WithSigmoid(Class(self.index).pinned(tf.sigmoid(logits), logits))


class _WithSigmoid(NamedTuple):
    """A target that is scored as if the model's single unit ended in a sigmoid."""

    target: Any

    def score(self, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        logits = only_logits(logits)
        return self.target.score(tf.sigmoid(logits), logits)


class Probability(NamedTuple):
    """The probability of a class after a final softmax or sigmoid; for side 0 of a single unit, 1 minus it.

    Attributes:
        index: class, an int or one per image `(N,)`; by default each image's own predicted class.
    """

    index: Any = None

    def score(self, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        outputs, logits = only_output(outputs), only_logits(logits)
        if outputs.shape.rank != 2 or logits is outputs:
            needs = "(N, classes) from a softmax or sigmoid"
            advice = "Give a class, Value for a raw output, or a callable outputs -> (N,)."
            raise wrong_outputs_error("Probability", needs, outputs, advice)
        index = given_or_best(self.index, both_sides(ranking(logits)))
        probabilities = outputs if outputs.shape[-1] != 1 else tf.concat([1 - outputs, outputs], axis=-1)
        return pick(probabilities, index), index

    def pinned(self, outputs: Any, logits: Any) -> Any:
        return with_class_index(self, outputs, logits)


class Value(NamedTuple):
    """The output of one unit as the model returns it, such as a regression or a probability.

    Attributes:
        index: unit, an int or one per image `(N,)`; by default the first.
    """

    index: Any = 0

    def score(self, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        outputs = only_output(outputs)
        if outputs.shape.rank != 2:
            raise wrong_outputs_error("Value", "(N, units)", outputs, OR_A_CALLABLE)
        return pick(outputs, in_range(self.index, tf.shape(outputs)[1], "unit")), None


class Output(NamedTuple):
    """One of several outputs, and the target that explains it.

    Attributes:
        name: key of a dict of outputs, the model's name for an output, or a position among all outputs in the
            order of `keras.tree.flatten`.
        target: any target for a model with only this output; by default its predicted class.
    """

    name: str | int
    target: Any = None

    def score(self, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        return score_target(self.target, *self.found(outputs, logits))

    def pinned(self, outputs: Any, logits: Any) -> Any:
        return self._replace(target=pin_choices(self.target, *self.found(outputs, logits)))

    def found(self, outputs: Any, logits: Any) -> tuple[Any, Any]:
        """Return the output of this name and its logits."""
        logits = None if logits is None else find_output(self.name, logits)
        return find_output(self.name, outputs), logits


class Similarity(NamedTuple):
    """The cosine similarity of an embedding `(N, D)`, as the model returns it, to a reference.

    An embedding of zeros has no direction: its score is 0, and its heatmap blank.

    Attributes:
        reference: `(D,)`, or one per image `(N, D)`.
    """

    reference: Any

    def score(self, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        outputs = only_output(outputs)
        if outputs.shape.rank != 2:
            raise wrong_outputs_error("Similarity", "embeddings (N, D)", outputs, OR_A_CALLABLE)
        if not outputs.shape[1:].is_compatible_with(self.reference.shape[1:]):
            raise ValueError(
                f"`target` must have a reference as long as the model's embeddings, {outputs.shape[1]}. "
                f"Received: {self.reference.shape[1]} numbers. Use an embedding of the same model."
            )
        embedding = at_least_float32(outputs)
        reference = tf.cast(self.reference, embedding.dtype)
        return tf.reduce_sum(_unit_length(embedding) * _unit_length(reference), axis=1), None


class Contrast(NamedTuple):
    """The difference of two logits: why one class rather than another. Its class index is the first class.

    Attributes:
        index: class, an int or one per image `(N,)`; by default each image's own predicted class.
        other: class to compare with, an int or one per image `(N,)`; by default the best other class.
    """

    index: Any = None
    other: Any = None

    def score(self, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        index, other = self.pinned(outputs, logits)
        logits = only_logits(logits)
        return pick(logits, index) - pick(logits, other), index

    def pinned(self, outputs: Any, logits: Any) -> Any:
        logits = only_logits(logits)
        if logits.shape.rank != 2 or logits.shape[-1] == 1:
            advice = "Give Binary for a single unit: its logit is the contrast of its two sides."
            raise wrong_outputs_error("Contrast", "(N, classes), at least two", logits, advice)
        ranked = ranking(logits)
        index = given_or_best(self.index, ranked)
        taken = tf.one_hot(index, tf.shape(ranked)[1], on_value=True, off_value=False)
        other = given_or_best(self.other, tf.where(taken, tf.constant(-np.inf, ranked.dtype), ranked))
        return Contrast(index, other)


class Against(NamedTuple):
    """The counterfactual, the evidence against a target: minus its score.

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV 2017, section 3.3.

    Attributes:
        target: any other target; by default each image's own predicted class.
    """

    target: Any = None

    def score(self, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        value, index = score_target(self.target, outputs, logits)
        return -value, index

    def pinned(self, outputs: Any, logits: Any) -> Any:
        return Against(pin_choices(self.target, outputs, logits))


def _unit_length(vectors):
    squares = tf.reduce_sum(vectors**2, axis=1, keepdims=True)
    is_zero = tf.equal(squares, 0)  # The gradient of the square root is infinite at 0.
    lengths = tf.sqrt(tf.where(is_zero, tf.ones_like(squares), squares))
    return tf.where(is_zero, tf.zeros_like(vectors), vectors / lengths)


class Pixel(NamedTuple):
    """A class of a segmentation `(N, *grid, classes)` at one pixel, explained as by `Class`.

    Source: Vinogradova et al. 2020, as for `Region`, with a region of one pixel.

    Attributes:
        position: `(row, column)` on the grid of the outputs, or one per image `(N, 2)`; in a volume
            `(depth, row, column)`, in a signal `(step,)`.
        index: class, an int or one per image `(N,)`; by default the class that is predicted at that pixel.
    """

    position: Any
    index: Any = None

    def score(self, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        outputs, logits = only_output(outputs), only_logits(logits)
        axes = self.position.shape[1]
        if logits.shape.rank != axes + 2:
            advice = "Give a position with one number for each axis of the grid."
            raise wrong_outputs_error(f"Pixel at {axes} numbers", f"a grid of {axes} axes", logits, advice)
        grid = tf.shape(logits)[1:-1]
        position = in_range(self.position, grid, "pixel")
        pixels = tf.concat([tf.range(tf.shape(logits)[0])[:, None], position], axis=1)
        values = tf.gather_nd(outputs, pixels)
        return Class(self.index).score(values, values if logits is outputs else tf.gather_nd(logits, pixels))

    def pinned(self, outputs: Any, logits: Any) -> Any:
        return with_class_index(self, outputs, logits)


def log_odds(target: Any, outputs: Any, logits: Any, score: tf.Tensor, index: Any) -> tf.Tensor:
    """Return the `score` of a class minus that of the others together: `y_c - log(sum of exp(y_i), i != c)`.

    After a softmax this is log(p / (1 - p)): its gradient is that of p, scaled, and does not saturate. A
    score that is no class among rivals is returned unchanged; a sigmoid's logit is its log-odds already.
    """
    values = class_logits(target, outputs, logits, rivals=True)
    if values is None:
        return score
    own = tf.one_hot(index, tf.shape(values)[1], on_value=True, off_value=False)
    every = values if score.shape.rank == 1 else values[:, None]
    others = tf.where(own, tf.constant(values.dtype.min, values.dtype), every)
    return tf.cast(score, values.dtype) - tf.reduce_logsumexp(others, axis=-1)


def class_logits(target: Any, outputs: Any, logits: Any, rivals: bool = False) -> tf.Tensor | None:
    """Return the logits `(N, classes)` that contain the score of `target`, or `None` if it is not a logit.

    With `rivals`, only logits of which more for one class is less for the others.
    """
    while isinstance(target, Output):
        outputs, logits = target.found(outputs, logits)
        target = target.target
    is_class = all(
        isinstance(one, Class | Classes | TopClasses) for one in getattr(target, "targets", [target])
    )
    flat = keras.tree.flatten(logits)
    if not is_class or len(flat) != 1 or flat[0].shape.rank != 2 or flat[0].shape[-1] == 1:
        return None
    if rivals and not are_rivals(flat[0]):
        return None
    return at_least_float32(flat[0])


def taken_for_logits(target: Any, outputs: Any, logits: Any) -> list[Any]:
    """Return the outputs that `target` takes for their own logits, because no other logits are known."""
    while isinstance(target, Output | Against):
        if isinstance(target, Output):
            outputs, logits = target.found(outputs, logits)
        target = target.target
    if not isinstance(target, _OF_LOGITS):
        return []
    pairs = zip(keras.tree.flatten(outputs), keras.tree.flatten(logits), strict=True)
    return [output for output, its_logits in pairs if its_logits is output]


_OF_LOGITS = (Binary, Box, Class, Classes, Contrast, Detection, Pixel, Region, TopClasses)

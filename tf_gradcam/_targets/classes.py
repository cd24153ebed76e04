"""Targets that are classes, units or embeddings of an output `(N, classes)`."""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._targets.outputs import (
    OR_A_CALLABLE,
    both_sides,
    find_output,
    given_or_best,
    only_logits,
    only_output,
    pick,
    with_class_index,
    wrong_outputs_error,
)
from tf_gradcam._targets.regions import Region
from tf_gradcam._targets.scores import pin_choices, score_target
from tf_gradcam._tensors import at_least_float32


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
        outputs, logits = only_output(outputs), only_logits(logits)
        if not logits.shape.rank or logits.shape.rank < 2:
            raise wrong_outputs_error("None or a class", "(N, classes)", logits, OR_A_CALLABLE)
        if logits.shape.rank > 2:
            return Region(self.index).score(outputs, logits)
        if logits.shape[-1] == 1 and logits is outputs:
            return logits[:, 0], None
        logits = both_sides(logits)
        index = given_or_best(self.index, logits)
        return pick(logits, index), index

    def pinned(self, outputs, logits):
        is_map = only_logits(logits).shape.rank > 2
        return (
            Region(self.index).pinned(outputs, logits) if is_map else with_class_index(self, outputs, logits)
        )


class Classes(NamedTuple):
    """Several classes at once, each as `Class` explains it: one map for each from a single forward pass.

    Attributes:
        indices: M classes `(M,)`, or others for each image `(N, M)`.
    """

    indices: Any

    def score(self, outputs, logits):
        outputs, logits = only_output(outputs), only_logits(logits)
        if logits.shape.rank == 2 and logits.shape[-1] != 1:
            return pick(logits, self.indices), tf.convert_to_tensor(self.indices)
        return self._each().score(outputs, logits)

    def pinned(self, outputs, logits):
        return _Each(tuple(each.pinned(outputs, logits) for each in self._each().targets))

    def _each(self):
        return _Each(tuple(map(Class, tf.unstack(self.indices, axis=1))))


class TopClasses(NamedTuple):
    """The best classes of each image, best first, each as `Class` explains it: `Classes` chosen by the model.

    Attributes:
        count: how many, from 1 to as many as the model has.
    """

    count: Any  # an int; `Any`, as a tuple has a method of this name

    def score(self, outputs, logits):
        return self._found(logits).score(outputs, logits)

    def pinned(self, outputs, logits):
        return self._found(logits).pinned(outputs, logits)

    def _found(self, logits):
        logits = only_logits(logits)
        if logits.shape.rank != 2 or logits.shape[-1] == 1:
            advice = "Give Binary for yes or no, Classes of a segmentation."
            raise wrong_outputs_error("TopClasses", "(N, classes), at least two", logits, advice)
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
        logits = only_logits(logits)
        if not logits.shape.rank or logits.shape.rank < 2 or logits.shape[-1] != 1:
            raise wrong_outputs_error("Binary", "(N, 1)", logits, "Give a class instead.")
        return _OfSigmoid(Class(self.index)).score(outputs, logits)

    def pinned(self, outputs, logits):
        logits = only_logits(logits)
        return _OfSigmoid(Class(self.index).pinned(tf.sigmoid(logits), logits))


class _OfSigmoid(NamedTuple):
    """A target on a model with a sigmoid at its end."""

    target: Any

    def score(self, outputs, logits):
        logits = only_logits(logits)
        return self.target.score(tf.sigmoid(logits), logits)


class Probability(NamedTuple):
    """What a final softmax or sigmoid says of a class; for side 0 of a single sigmoid unit, 1 minus that.

    Attributes:
        index: class, an int or one per image `(N,)`; by default each image's own predicted class.
    """

    index: Any = None

    def score(self, outputs, logits):
        outputs, logits = only_output(outputs), only_logits(logits)
        if outputs.shape.rank != 2 or logits is outputs:
            needs = "(N, classes) from a softmax or sigmoid"
            advice = "Give a class, Value for a raw output, or a callable outputs -> (N,)."
            raise wrong_outputs_error("Probability", needs, outputs, advice)
        index = given_or_best(self.index, both_sides(logits))
        both = outputs if outputs.shape[-1] != 1 else tf.concat([1 - outputs, outputs], axis=-1)
        return pick(both, index), index

    def pinned(self, outputs, logits):
        return with_class_index(self, outputs, logits)


class Value(NamedTuple):
    """The raw output of one unit, just as the model returns it: a regression, or a probability as such.

    Attributes:
        index: unit, an int or one per image `(N,)`; by default the first.
    """

    index: Any = 0

    def score(self, outputs, logits):
        outputs = only_output(outputs)
        if outputs.shape.rank != 2:
            raise wrong_outputs_error("Value", "(N, units)", outputs, OR_A_CALLABLE)
        return pick(outputs, self.index), None


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

    def pinned(self, outputs, logits):
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
            raise wrong_outputs_error("Similarity", "embeddings (N, D)", outputs, OR_A_CALLABLE)
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
        index, other = self.pinned(outputs, logits)
        logits = only_logits(logits)
        return pick(logits, index) - pick(logits, other), index

    def pinned(self, outputs, logits):
        logits = only_logits(logits)
        if logits.shape.rank != 2 or logits.shape[-1] == 1:
            advice = "Give Binary for a single unit: its logit is the contrast of its two sides."
            raise wrong_outputs_error("Contrast", "(N, classes), at least two", logits, advice)
        index = given_or_best(self.index, logits)
        taken = tf.one_hot(index, tf.shape(logits)[1], on_value=True, off_value=False)
        other = given_or_best(self.other, tf.where(taken, tf.constant(-np.inf, logits.dtype), logits))
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

    def pinned(self, outputs, logits):
        return Against(pin_choices(self.target, outputs, logits))


def _unit_length(vectors):
    squares = tf.reduce_sum(vectors**2, axis=1, keepdims=True)
    is_zero = tf.equal(squares, 0)  # There a square root's gradient is infinite.
    lengths = tf.sqrt(tf.where(is_zero, tf.ones_like(squares), squares))
    return tf.where(is_zero, tf.zeros_like(vectors), vectors / lengths)


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
        outputs, logits = only_output(outputs), only_logits(logits)
        axes = self.position.shape[1]
        if logits.shape.rank != axes + 2:
            advice = "Give the position one number for each axis of the grid."
            raise wrong_outputs_error(f"Pixel at {axes} numbers", f"a grid of {axes} axes", logits, advice)
        where = tf.concat([tf.range(tf.shape(logits)[0])[:, None], self.position], axis=1)
        pixel = tf.gather_nd(outputs, where)
        return Class(self.index).score(pixel, pixel if logits is outputs else tf.gather_nd(logits, where))

    def pinned(self, outputs, logits):
        return with_class_index(self, outputs, logits)


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

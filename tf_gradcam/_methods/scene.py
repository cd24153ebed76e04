"""The scene that a method looks at: images, a layer's activations, a score, and how they change.

`_explain` makes the first scene of an explanation with `make_scene`; a method makes others from it.
"""

import dataclasses
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_gradcam._model import (
    ForwardPass,
    Grid,
    LayerCall,
    ancestors,
    check_gradient,
    find_logits,
    forward,
    from_grid,
    graph_gradient,
    not_on_path_error,
    operations_between,
    to_grid,
)
from tf_gradcam._targets import class_logits, score_target, target_arrays, with_arrays
from tf_gradcam._tensors import at_least_float32, repeat_batch


class SourceImage(NamedTuple):
    """The input that a layer looks at.

    Attributes:
        position: its place among the model's inputs, flat.
        image: the tensor.
        channels_first: whether its channels come right after the batch.
        has_channels: whether it has any.
    """

    position: int
    image: tf.Tensor
    channels_first: bool
    has_channels: bool

    def with_channels_last(self, values: tf.Tensor) -> tf.Tensor:
        """Return values of the image's shape as float `(N, *axes, C)`."""
        values = at_least_float32(values)
        if not self.has_channels:
            return values[..., None]
        if not self.channels_first:
            return values
        return tf.transpose(values, [0, *range(2, values.shape.rank), 1])

    def as_the_model_takes_it(self, values: tf.Tensor) -> tf.Tensor:
        """Return `(N, *axes, C)` as the model takes it: the inverse of `with_channels_last`."""
        if not self.has_channels:
            values = values[..., 0]
        elif self.channels_first:
            values = tf.transpose(values, [0, values.shape.rank - 1, *range(1, values.shape.rank - 1)])
        if self.image.dtype.is_integer:
            values = tf.round(values)
        return tf.saturate_cast(values, self.image.dtype)


class SceneContext(NamedTuple):
    """What all scenes of one explanation share.

    Attributes:
        model: the model.
        layer_call: the layer, and which of its runs.
        grid: of its activations.
        images: what the model is called on first, N of each, in the structure that it takes.
        source: which of them the layer looks at.
        target: as `pin_choices` returns it, with N rows.
        column: which of a target's several scores is explained, or `None` where it has one.
    """

    model: keras.Model
    layer_call: LayerCall
    grid: Grid
    images: Any
    source: SourceImage
    target: Any
    column: tf.Tensor | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """A batch of images as a method sees it: one layer's activations, one score, and how they change.

    A method with `explain(scene)` is given one. It belongs to the graph that is being traced: in the body of
    a loop, look at the scenes that `at` returns there.

    Attributes:
        image: `(N, *axes, C)` float: the input that the layer looks at, as the model takes it, but with its
            channels last, and with one channel where it has none.
        activations: `(N, *grid, K)` float: what the layer returns, on its grid.
        score: `(N,)` float: the target's score.
        index: `(N,)` int32, the class that is explained, or `None` where the target is no class.
        logits: `(N, classes)` float where the score is one of several logits; else `None`.
        layer_output: the tensor that the layer returned, in the graph.
        model_input: the tensor that the model was given, in the graph.
    """

    image: tf.Tensor
    activations: tf.Tensor
    score: tf.Tensor
    index: tf.Tensor | None
    logits: tf.Tensor | None
    layer_output: tf.Tensor
    model_input: tf.Tensor
    _context: SceneContext = dataclasses.field(repr=False)
    _images: Any = dataclasses.field(repr=False)
    _target: Any = dataclasses.field(repr=False)

    def gradients(self, of: tf.Tensor) -> tf.Tensor:
        """Differentiate a tensor of this scene by the activations.

        Args:
            of: a tensor that was computed from this scene, such as `score`; its sum is differentiated.

        Returns:
            `(N, *grid, K)` float: zeros where `of` does not depend on the activations, but the score does.

        Raises:
            ValueError: if the score does not depend on the layer.
        """
        grid = self._context.grid
        gradient = graph_gradient(of, self.layer_output)
        if gradient is None and self.layer_output.op not in ancestors([self.score]):
            raise not_on_path_error(self._context.layer_call.layer.name)
        if gradient is None:
            return tf.zeros_like(self.activations)
        return to_grid(check_gradient(gradient, self.score, grid), grid)

    def image_gradients(self, of: tf.Tensor) -> tf.Tensor:
        """Differentiate a tensor of this scene by the image.

        Args:
            of: a tensor that was computed from this scene, such as `score`; its sum is differentiated.

        Returns:
            `(N, *axes, C)` float.

        Raises:
            ValueError: if there is no such gradient, as where the model looks up whole numbers.
        """
        found = [graph_gradient(of, each) for each in _differentiable(self.model_input, self.score)]
        present = [each for each in found if each is not None]
        if not present:
            raise ValueError(
                "`method` needs the gradient by the image, and there is none. Received: a model that takes "
                f"{self.model_input.dtype.name}, by which its score can't be differentiated."
            )
        return self._context.source.with_channels_last(tf.add_n(present))

    def at(self, image: tf.Tensor) -> "Scene":
        """Run the model on other images.

        Args:
            image: `(R * N, *axes, C)` float, R copies of the batch, one after another.

        Returns:
            Their scene, with the same target; a class that was left to the model stays the one of the first
            images.

        Raises:
            ValueError: if the model looks up whole numbers, as it does with words.
        """
        if _is_looked_up(self.model_input, self.score):
            raise ValueError(
                "`method` must not compute with what the model looks up, as words by their numbers. "
                f"Received: a model that takes {self.model_input.dtype.name}. Choose a method that leaves "
                "the input as it is."
            )
        context = self._context
        images, target = self._copies(tf.shape(image)[0] // tf.shape(self.model_input)[0])
        flat = keras.tree.flatten(images)
        flat[context.source.position] = context.source.as_the_model_takes_it(image)
        images = keras.tree.pack_sequence_as(images, flat)
        return make_scene(context, images, forward(context.model, images, [context.layer_call]), target)

    def tail(self, activations: tf.Tensor) -> tf.Tensor:
        """Run the network on from the layer with other activations.

        Nothing is computed that only the layer itself needed.

        Args:
            activations: `(R * N, *grid, K)` float, R copies of the batch, one after another.

        Returns:
            Their score, `(R * N,)` float.
        """
        context = self._context
        copies = tf.shape(activations)[0] // tf.shape(self.layer_output)[0]
        images, target = self._copies(copies)
        own = repeat_batch(self.layer_output, copies)
        values = from_grid(tf.cast(activations, self.layer_output.dtype), context.grid, own)
        outputs = forward(context.model, images, [context.layer_call], replace=[values]).outputs
        score, _ = _score_column(context, target, outputs, find_logits(outputs))
        return tf.cast(score, self.activations.dtype)

    def _copies(self, count):
        """Return the model's inputs and the target, as `count` copies of the batch, one after another."""
        arrays = [repeat_batch(each, count) for each in target_arrays(self._target)]
        target = with_arrays(self._target, arrays) if arrays else self._target
        return keras.tree.map_structure(lambda image: repeat_batch(image, count), self._images), target


def make_scene(context: SceneContext, images: Any, passed: ForwardPass, target: Any) -> Scene:
    """Return the scene of `images`, whose forward pass was `passed`.

    Args:
        context: what it shares with all scenes of its explanation.
        images: in the structure that the model takes, R copies of the batch.
        passed: with the activations of the context's layer.
        target: the context's, with R copies of its rows.
    """
    layer_output = passed.activations[0]
    model_input = keras.tree.flatten(images)[context.source.position]
    activations = to_grid(at_least_float32(layer_output), context.grid)
    logits = find_logits(passed.outputs)
    score, index = _score_column(context, target, passed.outputs, logits)
    return Scene(
        image=context.source.with_channels_last(model_input),
        activations=activations,
        score=tf.cast(score, activations.dtype),  # one precision for all that a method computes
        index=index,
        logits=class_logits(target, passed.outputs, logits),
        layer_output=layer_output,
        model_input=model_input,
        _context=context,
        _images=images,
        _target=target,
    )


def _score_column(context, target, outputs, logits):
    """Return the score `(N,)` that is explained and its class index: of several scores, the context's."""
    score, index = score_target(target, outputs, logits)
    if context.column is None:
        return score, index
    return score[:, context.column], None if index is None else index[:, context.column]


def _differentiable(image, score):
    """Return the tensors to differentiate by: the image, or what whole numbers are cast to."""
    if not image.dtype.is_integer:
        return [image]
    casts = [
        each.outputs[0]
        for each in operations_between(image, score)
        if each.type == "Cast" and each.inputs[0] is image
    ]
    return [each for each in casts if each.dtype.is_floating]


def _is_looked_up(numbers, score):
    """Return whether whole numbers stand for something, as for words: they never become real numbers."""
    if not numbers.dtype.is_integer:
        return False
    whole = {numbers.ref()}
    for operation in operations_between(numbers, score):
        if operation.type == "Shape" or not any(each.ref() in whole for each in operation.inputs):
            continue
        if operation.type == "Cast" and operation.outputs[0].dtype.is_floating:
            return False
        whole.update(each.ref() for each in operation.outputs if each.dtype.is_integer)
    return True

"""The scene, the input of a method: images, a layer's activations, a score and their gradients.

`_explain` makes the first scene of an explanation with `make_scene`; methods make further scenes from it.
"""

import dataclasses
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_gradcam._graph import (
    Placement,
    Places,
    TokenBlock,
    ancestors,
    operations_between,
    token_blocks,
)
from tf_gradcam._model import (
    ForwardPass,
    Grid,
    LayerCall,
    check_gradient,
    find_logits,
    forward,
    from_grid,
    graph_gradient,
    not_on_path_error,
    spatial_axes,
    to_grid,
)
from tf_gradcam._targets import class_logits, score_target, target_arrays, with_arrays
from tf_gradcam._tensors import at_least_float32, repeat_batch


class SourceImage(NamedTuple):
    """The input image on which a layer depends.

    Attributes:
        position: its position among the model's flattened inputs.
        image: the tensor.
        channels_first: whether the channel axis comes right after the batch axis.
        has_channels: whether it has a channel axis.
    """

    position: int
    image: tf.Tensor
    channels_first: bool
    has_channels: bool

    def with_channels_last(self, values: tf.Tensor) -> tf.Tensor:
        """Return values with the image's shape as float `(N, *axes, C)`."""
        values = at_least_float32(values)
        if not self.has_channels:
            return values[..., None]
        if not self.channels_first:
            return values
        return tf.transpose(values, [0, *range(2, values.shape.rank), 1])

    def as_the_model_takes_it(self, values: tf.Tensor) -> tf.Tensor:
        """Return `(N, *axes, C)` with the model's own axes and dtype: the inverse of `with_channels_last`."""
        if not self.has_channels:
            values = values[..., 0]
        elif self.channels_first:
            values = tf.transpose(values, [0, values.shape.rank - 1, *range(1, values.shape.rank - 1)])
        if self.image.dtype.is_integer:
            values = tf.round(values)
        return tf.saturate_cast(values, self.image.dtype)


class SceneContext(NamedTuple):
    """The data that all scenes of one explanation share.

    Attributes:
        model: the model.
        layer_call: the layer, and which of its runs; `None` for a method at the image.
        grid: the grid of its activations; `None` for a method at the image.
        images: the original inputs, N of each, in the structure that the model takes.
        source: the input on which the layer depends, or that a method at the image explains.
        target: the target as `pin_choices` returns it, with N rows.
        column: which of the target's M scores is explained, or `None` for a target with one score.
        one_answer: whether the model gives one answer for all N images, as for a bag of patches.
    """

    model: keras.Model
    layer_call: LayerCall | None
    grid: Grid | None
    images: Any
    source: SourceImage
    target: Any
    column: tf.Tensor | None = None
    one_answer: bool = False

    @property
    def layer_calls(self) -> list[LayerCall]:
        """The layer call in a list, which is empty for a method at the image."""
        return [] if self.layer_call is None else [self.layer_call]


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """A batch of images with one layer's activations and one score, and their gradients.

    It is the argument of a method's `explain(scene)`. Its tensors belong to the graph that is being traced:
    in the body of a loop, use the scenes that `at` returns there. For a method with `at_image` there is no
    layer: the image takes its place. Of a model with one answer for all images, as for a bag of patches,
    score, index and logits have one row.

    Attributes:
        image: the input on which the layer depends, `(N, *axes, C)` float, in the value range of the model's
            input, with the channels last and a channel axis of length 1 if it has none.
        activations: the layer's activations on its grid, `(N, *grid, K)` float.
        score: the target's score, `(N,)` float; `(N, M)` for M scores if the method has `takes_all_scores`.
        index: the class that is explained, `(N,)` int32, or `None` if the target is not a class.
        logits: `(N, classes)` float if the score is one of several logits, else `None`.
        layer_output: the tensor that the layer returned, in the graph.
        model_input: the tensor that the model was called on, in the graph.
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
        """Return the gradient of a tensor of this scene with respect to the activations.

        Args:
            of: a tensor that was computed from this scene, such as `score`; its sum is differentiated.

        Returns:
            `(N, *grid, K)` float: zeros if the score depends on the activations, but `of` does not.

        Raises:
            ValueError: if the score does not depend on the layer.
        """
        grid, layer_call = self._context.grid, self._context.layer_call
        if grid is None or layer_call is None:
            return self.image_gradients(of)
        gradient = graph_gradient(of, self.layer_output)
        if gradient is None and self.layer_output.op not in ancestors([self.score]):
            raise not_on_path_error(layer_call.layer.name)
        if gradient is None:
            return tf.zeros_like(self.activations)
        return to_grid(check_gradient(gradient, self.model_input, grid), grid)

    def image_gradients(self, of: tf.Tensor) -> tf.Tensor:
        """Return the gradient of a tensor of this scene with respect to the image.

        Args:
            of: a tensor that was computed from this scene, such as `score`; its sum is differentiated.

        Returns:
            `(N, *axes, C)` float.

        Raises:
            ValueError: if there is no gradient, as for integers that index an embedding.
        """
        sources = _differentiable(self.model_input, self.score)
        gradients = [graph_gradient(of, source) for source in sources]
        present = [gradient for gradient in gradients if gradient is not None]
        if not present:
            raise ValueError(
                "`method` needs the gradient of the score with respect to the image, and there is none. "
                f"Received: a model that takes {self.model_input.dtype.name}. Choose a method that does not "
                "need this gradient, such as 'gradcam'."
            )
        return self._context.source.with_channels_last(tf.add_n(present))

    def at(self, image: tf.Tensor) -> "Scene":
        """Run the model on other images.

        Args:
            image: `(R * N, *axes, C)` float, R copies of the batch, one after another.

        Returns:
            Their scene, with the same target. A class that the model chose stays the one that it chose for
            the original images.

        Raises:
            ValueError: if the input is integers that index an embedding.
        """
        if _are_indices(self.model_input, self.score):
            raise ValueError(
                "`method` must not change an input of indices, such as the token numbers of an embedding. "
                f"Received: a model that takes {self.model_input.dtype.name}. Choose a method that does not "
                "change the input, such as 'gradcam'."
            )
        context = self._context
        if context.one_answer and image is not self.image:
            raise _one_answer_error()
        images, target = self._copies(tf.shape(image)[0] // tf.shape(self.model_input)[0])
        flat = keras.tree.flatten(images)
        flat[context.source.position] = context.source.as_the_model_takes_it(image)
        images = keras.tree.pack_sequence_as(images, flat)
        return make_scene(context, images, forward(context.model, images, context.layer_calls), target)

    def tail(self, activations: tf.Tensor) -> tf.Tensor:
        """Run the part of the network after the layer on other activations.

        Operations that only the layer itself needs are not computed.

        Args:
            activations: `(R * N, *grid, K)` float, R copies of the batch, one after another.

        Returns:
            Their score, `(R * N,)` float, or `(R * N, M)` if the scene has M scores.
        """
        if self._context.grid is None:
            return self.at(activations).score
        copies = tf.shape(activations)[0] // tf.shape(self.layer_output)[0]
        original = repeat_batch(self.layer_output, copies)
        values = from_grid(tf.cast(activations, self.layer_output.dtype), self._context.grid, original)
        return self.tail_of_output(values)

    def tail_of_output(self, layer_output: tf.Tensor) -> tf.Tensor:
        """Run the part of the network after the layer on other outputs of the layer.

        Unlike `tail` it replaces what has no place on the grid too: a class token and registers.

        Args:
            layer_output: of the dtype and shape of the scene's `layer_output`, with R copies of the batch,
                one after another.

        Returns:
            Their score, `(R * N,)` float, or `(R * N, M)` if the scene has M scores.
        """
        context = self._context
        if context.one_answer:
            raise _one_answer_error()
        images, target = self._copies(tf.shape(layer_output)[0] // tf.shape(self.layer_output)[0])
        outputs = forward(context.model, images, context.layer_calls, replace=[layer_output]).outputs
        score, _ = _score_column(context, target, outputs, find_logits(outputs))
        return tf.cast(score, self.activations.dtype)

    def places(self, end: tf.Tensor | None = None) -> Places:
        """Return where tensors of this scene lie on the image that the model takes.

        Args:
            end: the last tensor to follow the image to; the layer's output by default.
        """
        source, grid = self._context.source, self._context.grid
        rank = self.image.shape.rank - 2 if grid is None or end is not None else len(grid.shape)
        axes = spatial_axes(self.model_input, rank, source.channels_first)
        return Places(self.model_input, axes or (), self.layer_output if end is None else end)

    def token_blocks(self) -> list[TokenBlock]:
        """Return the blocks of a vision transformer up to the layer, which returns the tokens after the last.

        Raises:
            ValueError: if the layer returns no tokens after a block.
        """
        return token_blocks([self.model_input], [self.score], self.layer_output)

    def map_of_tokens(self, values: tf.Tensor) -> tf.Tensor:
        """Return one value for each token of the layer, `(N, T)`, as the map `(N, *grid)` of its patches.

        Of a signal, whose tokens are its grid, the values are the map.

        Raises:
            ValueError: if the layer does not return the tokens of the patches of an image or signal.
        """
        grid = self._context.grid
        if grid is not None and grid.extra is None and not grid.channels_first and len(grid.shape) == 1:
            return values
        if grid is None or grid.extra is None:
            raise ValueError(
                "`method` needs a layer that returns the tokens of the patches of an image or signal. "
                f"Received: a layer that returns {self.layer_output.shape}. Choose another layer or method."
            )
        return to_grid(values[..., None], grid)[..., 0]

    def layer_placement(self) -> Placement | None:
        """Return where the layer's map lies on the image that the model takes; `None` for all of it."""
        grid = self._context.grid
        return None if grid is None else self.places().of(self.layer_output, grid.axes())

    def _copies(self, count):
        """Return `count` copies of the model's inputs and of the target, one after another."""
        arrays = [repeat_batch(array, count) for array in target_arrays(self._target)]
        target = with_arrays(self._target, arrays) if arrays else self._target
        return keras.tree.map_structure(lambda image: repeat_batch(image, count), self._images), target


def make_scene(context: SceneContext, images: Any, passed: ForwardPass, target: Any) -> Scene:
    """Return the scene of `images`, given their forward pass.

    Args:
        context: the data that all scenes of the explanation share.
        images: inputs in the structure that the model takes, R copies of the batch.
        passed: the forward pass of `images`, with the activations of the context's layer, if it has one.
        target: the context's target, with R copies of its rows.
    """
    model_input = keras.tree.flatten(images)[context.source.position]
    image = activations = context.source.with_channels_last(model_input)
    layer_output = model_input
    if context.grid is not None:
        layer_output = passed.activations[0]
        activations = to_grid(at_least_float32(layer_output), context.grid)
    logits = find_logits(passed.outputs)
    score, index = _score_column(context, target, passed.outputs, logits)
    return Scene(
        image=image,
        activations=activations,
        score=tf.cast(score, activations.dtype),  # Methods compute in one precision.
        index=index,
        logits=class_logits(target, passed.outputs, logits),
        layer_output=layer_output,
        model_input=model_input,
        _context=context,
        _images=images,
        _target=target,
    )


def _one_answer_error() -> ValueError:
    return ValueError(
        "`method` must not run the model on altered images or activations if the model gives one answer for "
        "all images of a batch. Received: a model that returns one row for a batch. Choose a method that "
        "only differentiates, such as 'gradcam'."
    )


def _score_column(context, target, outputs, logits):
    """Return the score `(N,)` that is explained and its class index; of M scores, the context's column."""
    score, index = score_target(target, outputs, logits)
    if context.column is None:
        return score, index
    return score[:, context.column], None if index is None else index[:, context.column]


def _differentiable(image, score):
    """Return the tensors to differentiate by: the image, or float casts of an integer one."""
    if not image.dtype.is_integer:
        return [image]
    casts = [
        operation.outputs[0]
        for operation in operations_between(image, score)
        if operation.type == "Cast" and operation.inputs[0] is image
    ]
    return [cast for cast in casts if cast.dtype.is_floating]


def _are_indices(model_input, score):
    """Return whether the input is integers that are never cast to float, as the indices of an embedding."""
    if not model_input.dtype.is_integer:
        return False
    integers = {model_input.ref()}
    for operation in operations_between(model_input, score):
        if operation.type == "Shape" or not any(tensor.ref() in integers for tensor in operation.inputs):
            continue
        if operation.type == "Cast" and operation.outputs[0].dtype.is_floating:
            return False
        integers.update(tensor.ref() for tensor in operation.outputs if tensor.dtype.is_integer)
    return True

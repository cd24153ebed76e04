"""What a method may ask for beyond activations and gradients: other images, other activations, and the way
between image, layer and score."""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_gradcam._methods.protocol import Scene
from tf_gradcam._model import (
    ForwardPass,
    Grid,
    LayerCall,
    ancestors,
    find_logits,
    forward,
    from_grid,
    operations_between,
    to_grid,
)
from tf_gradcam._targets import class_logits, score_target, target_arrays, with_arrays
from tf_gradcam._tensors import at_least_float32

# What an error of the running graph is known by.
ONE_MAP_PER_IMAGE = "one map for each image"
PATCHES_COUNT = "patches that the score depends on"


class SourceImage(NamedTuple):
    """The input that a layer looks at.

    Attributes:
        position: among the model's inputs, flat.
        image: the tensor.
        channels_first: whether its channels come right after the batch.
        has_channels: whether it has any.
    """

    position: int
    image: tf.Tensor
    channels_first: bool
    has_channels: bool

    def shown(self, values):
        """Return values of the image's shape as float `(N, *axes, C)`."""
        values = at_least_float32(values)
        if not self.has_channels:
            return values[..., None]
        if not self.channels_first:
            return values
        return tf.transpose(values, [0, *range(2, values.shape.rank), 1])

    def taken(self, values):
        """Return `(N, *axes, C)` as the model takes it: the inverse of `shown`."""
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
        read: the layer.
        grid: of its activations.
        images: what the model is called on first, N of each, in the structure that it takes.
        source: which of them the layer looks at.
        target: as `targets.fixed` returns it, with N rows.
        column: which of a target's several scores is explained, or `None` where it has one.
    """

    model: keras.Model
    read: LayerCall
    grid: Grid
    images: Any
    source: SourceImage
    target: Any
    column: tf.Tensor | None = None


def make_scene(stage: SceneContext, images: Any, passed: ForwardPass, target: Any) -> Scene:
    """Return the scene of `images`, whose forward pass was `passed`.

    Args:
        stage: what it shares with all scenes of its explanation.
        images: in the structure that the model takes, R copies of the batch.
        passed: with the activations of the stage's layer.
        target: the stage's, with R copies of its rows.
    """
    source, layer_output = stage.source, passed.activations[0]
    model_input = keras.tree.flatten(images)[source.position]
    logits = find_logits(passed.outputs)
    score, index = score_target(target, passed.outputs, logits)
    if stage.column is not None:
        score, index = score[:, stage.column], None if index is None else index[:, stage.column]

    activations = to_grid(at_least_float32(layer_output), stage.grid)
    score = tf.cast(score, activations.dtype)  # one precision for all that a method computes

    def gradients(of):
        gradient = _differentiate(of, layer_output)
        if gradient is None and layer_output.op not in ancestors([score]):
            raise not_on_path_error(stage.read.layer.name)
        if gradient is None:
            return tf.zeros_like(activations)
        return to_grid(check_gradient(gradient, score, stage.grid), stage.grid)

    def image_gradients(of):
        found = [_differentiate(of, each) for each in _real(model_input, score)]
        found = [each for each in found if each is not None]
        if not found:
            raise ValueError(
                "`method` needs the gradient by the image, and there is none. Received: a model that takes "
                f"{model_input.dtype.name}, to which its score doesn't answer by degrees."
            )
        return source.shown(tf.add_n(found))

    def at(image):
        if _is_looked_up(model_input, score):
            raise ValueError(
                "`method` must not compute with what the model looks up, as words by their numbers. "
                f"Received: a model that takes {model_input.dtype.name}. Choose a method that leaves the "
                "input as it is."
            )
        copies = tf.shape(image)[0] // tf.shape(model_input)[0]
        others, other_target = _copied(images, target, copies)
        flat = keras.tree.flatten(others)
        flat[source.position] = source.taken(image)
        others = keras.tree.pack_sequence_as(others, flat)
        return make_scene(stage, others, forward(stage.model, others, [stage.read]), other_target)

    def tail(values):
        copies = tf.shape(values)[0] // tf.shape(layer_output)[0]
        others, other_target = _copied(images, target, copies)
        own = _tile(layer_output, copies)
        values = from_grid(tf.cast(values, layer_output.dtype), stage.grid, own)
        outputs = forward(stage.model, others, [stage.read], replace=[values]).outputs
        value, _ = score_target(other_target, outputs, find_logits(outputs))
        return tf.cast(value if stage.column is None else value[:, stage.column], activations.dtype)

    return Scene(
        source.shown(model_input),
        activations,
        score,
        index,
        class_logits(target, passed.outputs, logits),
        gradients,
        image_gradients,
        at,
        tail,
        layer_output,
        model_input,
    )


def _real(image, score):
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
    """Whether whole numbers stand for something, as for words: on no way to the score do they become real."""
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


def _copied(images, target, copies):
    """Return images and target, each as so many copies of the batch one after another."""
    numbers = [_tile(each, copies) for each in target_arrays(target)]
    target = with_arrays(target, numbers) if numbers else target
    return keras.tree.map_structure(lambda image: _tile(image, copies), images), target


def _tile(values, copies):
    return tf.tile(values, [copies] + [1] * (len(values.shape) - 1))


def _differentiate(of, by):
    """Return the gradient in float32, or float64 where `by` is; `None` where `of` doesn't depend on it."""
    (gradient,) = tf.gradients(of, [by])
    if gradient is None:
        return None
    outputs = [output for operation in operations_between(by, of) for output in operation.outputs]
    if not any(output.dtype == tf.float16 for output in [by, *outputs]):
        return at_least_float32(tf.convert_to_tensor(gradient))
    (scaled,) = tf.gradients(1024 * of, [by])
    return undo_scaling(tf.convert_to_tensor(gradient), tf.convert_to_tensor(scaled))


def undo_scaling(gradient: tf.Tensor, scaled: tf.Tensor) -> tf.Tensor:
    """Return a gradient that went through float16, given the one of 1024 times the score.

    Spread over many places a gradient vanishes in float16, and scaled up another overflows.
    """
    scaled = at_least_float32(scaled) / 1024
    return tf.where(tf.math.is_finite(scaled), scaled, at_least_float32(gradient))


def check_gradient(gradient: tf.Tensor, score: tf.Tensor, grid: Grid) -> tf.Tensor:
    """Return `gradient`, with a complaint in the graph for what only its values can tell."""
    rows, images = tf.shape(gradient)[0], tf.shape(score)[0]
    complaints = [tf.debugging.assert_equal(rows, images, ONE_MAP_PER_IMAGE)]
    if grid.extra:
        counts = tf.reduce_any(to_grid(gradient, grid) != 0)
        complaints.append(tf.debugging.Assert(counts | tf.reduce_all(gradient == 0), [PATCHES_COUNT]))
    with tf.control_dependencies([each for each in complaints if each is not None]):
        return tf.identity(gradient)


def not_on_path_error(layer: str) -> ValueError:
    return ValueError(
        f"`layer` must be on the way to the score. Received: layer={layer!r}, on which the target's score "
        "doesn't depend. Choose a layer before the output that is explained."
    )

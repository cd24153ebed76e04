"""Methods that look at the image itself: its gradient, and what is made of it.

Each is a frozen dataclass whose fields are its parameters, so that equal ones share what was compiled for
them. Those with `at_image` read no layer: their map lies on the image, pixel by pixel. One with a `formula`
makes its map of an image and a gradient, which may be the mean over noisy copies of the image.
"""

import contextlib
import dataclasses
import math
import numbers
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
import tensorflow as tf

from tf_gradcam._checks import check_counts
from tf_gradcam._heatmap import resize_map
from tf_gradcam._methods.chunks import copies_per_pass, sum_chunks
from tf_gradcam._methods.formulas import gradcam
from tf_gradcam._methods.scene import Scene
from tf_gradcam._model import operations_between


@dataclasses.dataclass(frozen=True)
class gradient:
    """The gradient of the score by the image: `L = max_c |dS/dx_c|`, never negative.

    It tells which pixels matter, not in which direction. With the mean over noisy copies of the image in
    place of the gradient it is SmoothGrad (Smilkov et al., 2017).

    Source: Simonyan et al., "Deep Inside Convolutional Networks", ICLR Workshops 2014, section 3.1.
    """

    at_image: ClassVar[bool] = True

    def formula(self, image: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
        """Return the map `(N, *axes)` of an image and a gradient `(N, *axes, C)`."""
        return _strength(gradients)

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *axes)`."""
        return self.formula(scene.image, scene.image_gradients(scene.score))


@dataclasses.dataclass(frozen=True)
class gradient_x_input:
    """Gradient times input: `L = sum_c x_c dS/dx_c`.

    For a network of ReLUs without biases it sums to the score; what is missing else are the terms of the
    biases, see `fullgrad`. A pixel that the model takes as 0 gets 0.

    Source: Shrikumar et al., "Not Just a Black Box", 2016.
    """

    at_image: ClassVar[bool] = True

    def formula(self, image: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
        """Return the map `(N, *axes)` of an image and a gradient `(N, *axes, C)`."""
        return tf.reduce_sum(image * gradients, axis=-1)

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *axes)`."""
        return self.formula(scene.image, scene.image_gradients(scene.score))


@dataclasses.dataclass(frozen=True)
class integrated_gradients:
    """Integrated gradients: `L = sum_c (x_c - b_c) * integral_0^1 dS/dx_c(b + t (x - b)) dt`.

    The integral is the mean over the middles of `steps` equal parts of the way. The map sums to
    `S(x) - S(b)`, but for the error of the integral: where the two differ, take more steps.

    Source: Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017, equation 1.

    Attributes:
        steps: points on the way from the baseline to the image, each a forward and a backward pass.
        baseline: the image `b` without evidence, as the model takes it: a number for all its pixels, or one
            for each channel. A pixel like the baseline gets 0.
        batch: how many images on the way run at once, at least one for each image.
    """

    at_image: ClassVar[bool] = True

    steps: int = 32
    baseline: float | tuple[float, ...] = 0.0
    batch: int = 8

    def __post_init__(self):
        check_counts(self, "steps", "batch")
        object.__setattr__(self, "baseline", _checked_baseline(self.baseline))

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *axes)`."""
        image = scene.image
        baseline = self._for_channels(image)

        def step(indices):
            way = (tf.cast(indices, image.dtype) + 0.5) / self.steps
            way = tf.reshape(way, [-1] + [1] * image.shape.rank)
            points = baseline + way * (image - baseline)
            there = scene.at(tf.reshape(points, tf.concat([[-1], tf.shape(image)[1:]], axis=0)))
            gradients = there.image_gradients(there.score)
            return (tf.reduce_sum(tf.reshape(gradients, tf.shape(points)), axis=0),)

        copies = copies_per_pass(self.batch, image)
        (gradients,) = sum_chunks(self.steps, copies, step, [tf.zeros_like(image)])
        return tf.reduce_sum((image - baseline) * gradients / self.steps, axis=-1)

    def _for_channels(self, image):
        if np.size(self.baseline) not in (1, image.shape[-1]):
            raise ValueError(
                f"`baseline` must be a number, or one for each of the image's {image.shape[-1]} channels. "
                f"Received: baseline={self.baseline!r}"
            )
        return tf.constant(self.baseline, image.dtype)


def _checked_baseline(baseline):
    several = isinstance(baseline, Iterable)
    values = tuple(baseline) if several else (baseline,)
    if not values or not all(isinstance(each, numbers.Real) and math.isfinite(each) for each in values):
        raise ValueError(
            "`baseline` must be a number in the model's own units, or one for each channel. "
            f"Received: baseline={baseline!r}"
        )
    return tuple(map(float, values)) if several else float(baseline)


@dataclasses.dataclass(frozen=True)
class guided_backprop:
    """Guided backpropagation: `max_c |dS/dx_c|`, with ReLUs that pass on positive gradients alone.

    A ReLU or ReLU6 lets a gradient through where it is positive and its input was too; all else is
    differentiated as ever, also leaky ReLUs. The model is not changed.

    It shows edges, nearly the same ones for every class, and also for a network whose weights are random
    (Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018): a picture of what the image offers
    rather than an explanation of the score.

    Source: Springenberg et al., "Striving for Simplicity", ICLR Workshops 2015, section 4.
    """

    at_image: ClassVar[bool] = True

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *axes)`."""
        return _strength(_guided_gradients(scene))


@dataclasses.dataclass(frozen=True)
class guided_gradcam:
    """Guided Grad-CAM: the map of `guided_backprop` times `ReLU(L)` of Grad-CAM, resized to the image.

    It has the sharp edges of the one where the other sees the class, and shares what `guided_backprop` says
    of sanity checks.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017, section 3.2. There the picture has colours; this map has
    the strongest channel of each pixel.
    """

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map on the image, `(N, *axes)`."""
        coarse = tf.nn.relu(gradcam(scene.activations, scene.gradients(scene.score)))
        coarse = enlarge_to_image(coarse, scene)
        fine = _strength(_guided_gradients(scene))
        # A layer that sees one frame of a video, or its last state, has a map for all frames.
        while coarse.shape.rank < fine.shape.rank:
            coarse = coarse[:, None]
        return fine * coarse


def _strength(gradients):
    return tf.reduce_max(tf.abs(gradients), axis=-1)


def enlarge_to_image(coarse, scene):
    size = tf.shape(scene.image)[1:-1]
    return tf.cast(resize_map(coarse, size, "bilinear"), scene.image.dtype)


def _guided_relu(operation, upstream):
    return tf.raw_ops.ReluGrad(gradients=tf.nn.relu(upstream), features=operation.outputs[0])


def _guided_relu6(operation, upstream):
    return tf.raw_ops.Relu6Grad(gradients=tf.nn.relu(upstream), features=operation.outputs[0])


# Operation -> the name that TensorFlow knows its guided gradient by.
_GUIDED = {"Relu": "TFGradCAMGuidedRelu", "Relu6": "TFGradCAMGuidedRelu6"}


def _register(name, function):
    with contextlib.suppress(KeyError):  # After a reload of this module TensorFlow keeps the one it has.
        tf.RegisterGradient(name)(function)


_register(_GUIDED["Relu"], _guided_relu)


_register(_GUIDED["Relu6"], _guided_relu6)


def _guided_gradients(scene):
    """Return the gradient of the score by the image `(N, *axes, C)`, guided by ReLUs."""
    # Which gradient an operation has is decided when it is made: hence once more through the model.
    with tf.compat.v1.get_default_graph().gradient_override_map(_GUIDED):
        guided = scene.at(scene.image)
    operations = operations_between(guided.model_input, guided.score)
    _check_relus(operations)
    return guided.image_gradients(guided.score)


def _check_relus(operations):
    if any(kind in _GUIDED for kind in operations_inside_functions(operations)):
        raise ValueError(
            "`method` must not be guided backpropagation where ReLUs are hidden. Received: a model with some "
            'inside a tf.function or a loop of its own. Take the decorator off, or use method="gradient".'
        )
    if not any(operation.type in _GUIDED for operation in operations):
        raise ValueError(
            "`method` must not be guided backpropagation where there is no ReLU. Received: a model with none "
            'between image and score, whose guided gradient is the gradient. Use method="gradient".'
        )


def operations_inside_functions(operations):
    """Yield the types of all operations in the functions that `operations` call."""
    waiting = [operation.node_def for operation in operations if called_functions(operation.node_def)]
    if not waiting:
        return
    library = operations[0].graph.as_graph_def().library.function
    bodies = {function.signature.name: function.node_def for function in library}
    while waiting:
        for name in called_functions(waiting.pop()):
            nodes = bodies.pop(name, ())
            yield from (node.op for node in nodes)
            waiting += nodes


def called_functions(node):
    return [value.func.name for value in node.attr.values() if value.func.name]

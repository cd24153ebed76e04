"""Methods that use the gradient of the score with respect to the image. Listed in `registry`.

Each is a frozen dataclass whose fields are its parameters, so that equal methods share one trace. A method
with `at_image` reads no layer: its map lies on the pixels of the image. A method with `formula` computes its
map from an image and a gradient, which may be the mean over noisy copies of the image.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tf_gradcam._arrays import array_or_empty
from tf_gradcam._checks import check_counts
from tf_gradcam._graph import Placement, operations_between
from tf_gradcam._heatmap import place_map
from tf_gradcam._methods.chunks import copies_per_pass, sum_chunks, sum_of_copies
from tf_gradcam._methods.formulas import gradcam
from tf_gradcam._methods.scene import Scene


@dataclasses.dataclass(frozen=True)
class gradient:
    """Gradient of the score with respect to the image: `L = max_c |dS/dx_c|`, never negative.

    It shows which pixels matter, not in which direction. With the mean gradient over noisy copies of the
    image it is SmoothGrad (Smilkov et al., 2017).

    Source: Simonyan et al., "Deep Inside Convolutional Networks", ICLR Workshops 2014, section 3.1.
    """

    at_image: ClassVar[bool] = True

    def formula(self, image: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
        """Return the map `(N, *axes)` from an image and a gradient `(N, *axes, C)`."""
        return _strength(gradients)

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *axes)`."""
        return self.formula(scene.image, scene.image_gradients(scene.score))


@dataclasses.dataclass(frozen=True)
class gradient_x_input:
    """Gradient times input: `L = sum_c x_c dS/dx_c`.

    For a network of ReLUs without biases the map sums to the score; otherwise the terms of the biases are
    missing, see `fullgrad`. A pixel with the value 0, as the model takes it, is 0 in the map.

    Source: Shrikumar et al., "Not Just a Black Box", 2016.
    """

    at_image: ClassVar[bool] = True

    def formula(self, image: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
        """Return the map `(N, *axes)` from an image and a gradient `(N, *axes, C)`."""
        return tf.reduce_sum(image * gradients, axis=-1)

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *axes)`."""
        return self.formula(scene.image, scene.image_gradients(scene.score))


@dataclasses.dataclass(frozen=True)
class integrated_gradients:
    """Integrated gradients: `L = sum_c (x_c - b_c) * integral_0^1 dS/dx_c(b + t (x - b)) dt`.

    The integral is approximated by the mean over the midpoints of `steps` equal intervals. The map sums to
    `S(x) - S(b)`, up to the error of that approximation: if the two differ, take more steps.

    Source: Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017, equation 1.

    Attributes:
        steps: number of points on the path from the baseline to the image, each one forward and one backward
            pass.
        baseline: image `b` without evidence, as the model takes it: one number for all pixels, or one for
            each channel. A pixel that equals the baseline is 0 in the map.
        batch: number of images that run at once; at least one point of every image runs.
    """

    at_image: ClassVar[bool] = True

    steps: int = 32
    baseline: float | tuple[float, ...] = 0.0
    batch: int = 8

    def __post_init__(self) -> None:
        check_counts(self, "steps", "batch")
        object.__setattr__(self, "baseline", _checked_baseline(self.baseline))

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *axes)`."""
        image = scene.image
        baseline = self._baseline_tensor(image)

        def step(indices, weights):
            fraction = (tf.cast(indices, image.dtype) + 0.5) / self.steps
            fraction = tf.reshape(fraction, [-1] + [1] * image.shape.rank)
            points = baseline + fraction * (image - baseline)
            scenes = scene.at(tf.reshape(points, tf.concat([[-1], tf.shape(image)[1:]], axis=0)))
            gradients = scenes.image_gradients(scenes.score)
            return [sum_of_copies(gradients, image, weights)]

        copies = copies_per_pass(self.batch, image)
        (gradients,) = sum_chunks(self.steps, copies, step, [tf.zeros_like(image)])
        return tf.reduce_sum((image - baseline) * gradients / self.steps, axis=-1)

    def _baseline_tensor(self, image):
        if np.size(self.baseline) not in (1, image.shape[-1]):
            raise ValueError(
                f"`baseline` must be one number, or one for each of the image's {image.shape[-1]} channels. "
                f"Received: baseline={self.baseline!r}"
            )
        return tf.constant(self.baseline, image.dtype)


def _checked_baseline(baseline):
    values = array_or_empty(baseline)
    is_number = values.ndim < 2 and values.size > 0 and values.dtype.kind in "iuf"
    if not is_number or not np.isfinite(values).all():
        raise ValueError(
            "`baseline` must be one number in the units of the model's input, or one for each channel. "
            f"Received: baseline={baseline!r:.80}"
        )
    return tuple(map(float, values)) if values.ndim else float(values)


@dataclasses.dataclass(frozen=True)
class guided_backprop:
    """Guided backpropagation: `max_c |dS/dx_c|`, with ReLUs that pass only positive gradients back.

    A ReLU or ReLU6 passes a gradient back where the gradient and the input of the ReLU are positive; all
    other operations, including leaky ReLUs, have their usual gradient. The model is not changed.

    It shows edges, nearly the same ones for every class, and also for a network with random weights (Adebayo
    et al., "Sanity Checks for Saliency Maps", NeurIPS 2018): it shows the content of the image rather than
    explaining the score.

    Source: Springenberg et al., "Striving for Simplicity", ICLR Workshops 2015, section 4.
    """

    at_image: ClassVar[bool] = True

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *axes)`."""
        return _strength(_guided_gradients(scene))


@dataclasses.dataclass(frozen=True)
class guided_gradcam:
    """Guided Grad-CAM: the map of `guided_backprop` times `ReLU(L)` of Grad-CAM, resized to the image.

    It shows the edges of `guided_backprop` where Grad-CAM is positive. The sanity checks named in
    `guided_backprop` concern it too.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017, section 3.2. The paper shows a colour image; this map is
    the maximum over the channels of each pixel.
    """

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map on the image, `(N, *axes)`."""
        coarse = tf.nn.relu(gradcam(scene.activations, scene.gradients(scene.score)))
        coarse = enlarge_to_image(coarse, scene, scene.layer_placement())
        fine = _strength(_guided_gradients(scene))
        # A map without the time axis of a video is used for all frames.
        while coarse.shape.rank < fine.shape.rank:
            coarse = coarse[:, None]
        return fine * coarse


def _strength(gradients):
    """Return the maximum of the absolute gradients over the channels, `(N, *axes)`."""
    return tf.reduce_max(tf.abs(gradients), axis=-1)


def enlarge_to_image(coarse: tf.Tensor, scene: Scene, placement: Placement | None) -> tf.Tensor:
    """Return the map `coarse`, `(N, *grid)`, resized to where it lies on the image of `scene`."""
    size = tf.shape(scene.image)[-coarse.shape.rank : -1]
    return tf.cast(place_map(coarse, size, "bilinear", placement), scene.image.dtype)


def _guided_relu(operation, upstream):
    return tf.raw_ops.ReluGrad(gradients=tf.nn.relu(upstream), features=operation.outputs[0])


def _guided_relu6(operation, upstream):
    return tf.raw_ops.Relu6Grad(gradients=tf.nn.relu(upstream), features=operation.outputs[0])


# Operation type -> the name under which its guided gradient is registered with TensorFlow.
_GUIDED = {"Relu": "TFGradCAMGuidedRelu", "Relu6": "TFGradCAMGuidedRelu6"}


def _register(name, function):
    with contextlib.suppress(KeyError):  # After a reload of this module the name is registered already.
        tf.RegisterGradient(name)(function)


_register(_GUIDED["Relu"], _guided_relu)


_register(_GUIDED["Relu6"], _guided_relu6)


def _guided_gradients(scene):
    """Return the guided gradient of the score with respect to the image, `(N, *axes, C)`."""
    # TensorFlow fixes the gradient of an operation when it creates the operation: run the model again.
    with tf.compat.v1.get_default_graph().gradient_override_map(_GUIDED):
        guided = scene.at(scene.image)
    operations = operations_between(guided.model_input, guided.score)
    _check_relus(operations)
    return guided.image_gradients(guided.score)


def _check_relus(operations):
    if any(kind in _GUIDED for kind in operations_inside_functions(operations)):
        raise ValueError(
            "`method` must not be guided backpropagation for a model with hidden ReLUs. Received: a model "
            "with ReLUs inside its own tf.function or loop. Remove the decorator, or use "
            'method="gradient".'
        )
    if not any(operation.type in _GUIDED for operation in operations):
        raise ValueError(
            "`method` must not be guided backpropagation for a model with no ReLU. Received: a model without "
            "ReLUs between image and score, whose guided gradient is the plain gradient. "
            'Use method="gradient".'
        )


def operations_inside_functions(operations: Sequence[tf.Operation]) -> Iterator[str]:
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


def called_functions(node: Any) -> list[str]:
    """Return the names of the functions that a `NodeDef` calls."""
    return [value.func.name for value in node.attr.values() if value.func.name]

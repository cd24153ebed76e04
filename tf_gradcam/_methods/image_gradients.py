"""Methods that look at the image itself: its gradient, and what is made of it.

Each is a frozen dataclass whose fields are its parameters, so that equal ones share what was compiled for
them. Those with `at_image` read no layer: their map lies on the image, pixel by pixel. One with a `formula`
makes its map of an image and a gradient, which may be the mean over noisy copies of the image.
"""

import collections
import contextlib
import dataclasses
import math
import numbers
import re
from collections.abc import Iterable
from typing import ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from tf_gradcam._checks import check_counts
from tf_gradcam._methods import chunks as loops
from tf_gradcam._methods import formulas
from tf_gradcam._model import maps
from tf_gradcam._model.forward import operations_between


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

    def explain(self, scene) -> tf.Tensor:
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

    def explain(self, scene) -> tf.Tensor:
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

    def explain(self, scene) -> tf.Tensor:
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

        copies = loops.copies_per_pass(self.batch, image)
        (gradients,) = loops.sum_chunks(self.steps, copies, step, [tf.zeros_like(image)])
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

    def explain(self, scene) -> tf.Tensor:
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

    def explain(self, scene) -> tf.Tensor:
        """Return the map on the image, `(N, *axes)`."""
        coarse = tf.nn.relu(formulas.gradcam(scene.activations, scene.gradients(scene.score)))
        coarse = _enlarged(coarse, scene)
        fine = _strength(_guided_gradients(scene))
        # A layer that sees one frame of a video, or its last state, has a map for all frames.
        while coarse.shape.rank < fine.shape.rank:
            coarse = coarse[:, None]
        return fine * coarse


def _strength(gradients):
    return tf.reduce_max(tf.abs(gradients), axis=-1)


def _enlarged(coarse, scene):
    size = tf.shape(scene.image)[1:-1]
    return tf.cast(maps.resize_map(coarse, size, "bilinear"), scene.image.dtype)


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
    if any(kind in _GUIDED for kind in _inside_functions(operations)):
        raise ValueError(
            "`method` must not be guided backpropagation where ReLUs are hidden. Received: a model with some "
            'inside a tf.function or a loop of its own. Take the decorator off, or use method="gradient".'
        )
    if not any(operation.type in _GUIDED for operation in operations):
        raise ValueError(
            "`method` must not be guided backpropagation where there is no ReLU. Received: a model with none "
            'between image and score, whose guided gradient is the gradient. Use method="gradient".'
        )


def _inside_functions(operations):
    """Yield the types of all operations in the functions that `operations` call."""
    waiting = [operation.node_def for operation in operations if _functions(operation.node_def)]
    if not waiting:
        return
    library = operations[0].graph.as_graph_def().library.function
    bodies = {function.signature.name: function.node_def for function in library}
    while waiting:
        for name in _functions(waiting.pop()):
            nodes = bodies.pop(name, ())
            yield from (node.op for node in nodes)
            waiting += nodes


def _functions(node):
    return [value.func.name for value in node.attr.values() if value.func.name]


@dataclasses.dataclass(frozen=True)
class fullgrad:
    """FullGrad: `L = sum_c psi(x_c dS/dx_c) + sum_l sum_k psi(b_lk dS/dz_lk)`, never negative.

    The score is the sum of `x dS/dx` and, for each operation `z = f(u)` of the network, of its bias times
    `dS/dz`, see `full_gradients`; the map shows where these terms are strong, of whatever sign. `psi` is the
    absolute value, scaled to [0, 1] for each image and operation, resized to the image.

    A bias counts where its operation keeps the image's grid, as convolutions do. Those of the head have no
    place in the image, and neither have those among the tokens of a transformer: their map is that of the
    input's term and of what comes before the tokens.

    Source: Srinivas & Fleuret, "Full-Gradient Representation for Neural Network Visualization", NeurIPS
    2019, section 4. As in the authors' code all channels of a term have one scale. Unlike there, what is
    neither linear nor a ReLU has its implicit bias, as in the paper; and resizing takes pixels as areas, as
    everywhere in this library.
    """

    at_image: ClassVar[bool] = True

    def explain(self, scene) -> tf.Tensor:
        """Return the map `(N, *axes)`."""
        image = scene.image
        steps = _steps(scene.model_input, scene.score)
        found = _on_the_grid(image, scene.model_input, steps)
        steps = [step for step in steps if any(output.ref() in found for output in step.outputs)]
        shown = tf.reduce_sum(_rescaled(image * scene.image_gradients(scene.score)), axis=-1)
        same_grid = collections.defaultdict(list)
        for output, term in _bias_terms(scene.score, steps):
            # Resizing is linear: the sum over the channels comes first, as there are hundreds.
            summed = tf.reduce_sum(_rescaled(term), axis=found[output.ref()])
            same_grid[tuple(summed.shape) if None not in summed.shape[1:] else output.ref()].append(summed)
        return tf.add_n([shown, *(_enlarged(tf.add_n(each), scene) for each in same_grid.values())])


def _rescaled(term):
    """Return the absolute values of `(N, ...)`, scaled to [0, 1] for each image."""
    axes = list(range(1, term.shape.rank))
    strength = tf.abs(term)
    strength -= tf.reduce_min(strength, axes, keepdims=True)
    return tf.math.divide_no_nan(strength, tf.reduce_max(strength, axes, keepdims=True))


def full_gradients(image: tf.Tensor, score: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Take a score apart: what the image and what each bias of the network adds to it.

    Together they are the score, but for rounding, for any network: `S = sum x dS/dx + sum_l sum b_l dS/dz_l`
    over its operations `z = f(u)`, with `b = f(u) - J u` and `J = df/du`. What is linear or a ReLU has no
    bias; that of an addition is the constant that is added; all others are implicit biases. Operations are
    TensorFlow's: a layer normalization, say, is several, a `tf.function` or loop of the model's own is one.

    Source: Srinivas & Fleuret, "Full-Gradient Representation for Neural Network Visualization", NeurIPS 2019,
    section 3.

    Args:
        image: float, of the graph that is being traced; other inputs of the model count as constants.
        score: what came out of it.

    Returns:
        `image * dS/dimage`, of the image's shape, and `b_l dS/dz_l` of each operation that has a bias.
    """
    (by_image,) = tf.gradients(score, [image], unconnected_gradients="zero")
    terms = _bias_terms(score, _steps(image, score))
    return image * by_image, [term for _, term in terms]


class _Step(NamedTuple):
    """An operation on the way from the image to the score, `outputs = f(inputs)`: those that count.

    Attributes:
        operation: the operation.
        inputs: what changes with the image.
        outputs: what the score depends on.
    """

    operation: tf.Operation
    inputs: list[tf.Tensor]
    outputs: list[tf.Tensor]


def _steps(image, score):
    way = operations_between(image, score)
    read = {each.ref() for operation in way for each in operation.inputs} | {score.ref()}
    moving, steps = {image.ref()}, []
    for operation in way:
        inputs = _distinct(each for each in operation.inputs if each.ref() in moving)
        if inputs:  # A shape, say, comes out of the image too, but no gradient goes through it.
            outputs = [each for each in operation.outputs if each.ref() in read]
            _check_no_list(outputs)
            steps.append(_Step(operation, inputs, _floats(outputs)))
            moving.update(each.ref() for each in _floats(outputs))
    return steps


def _check_no_list(outputs):
    if any(each.dtype == tf.variant for each in outputs):
        raise ValueError(
            "`method` must not be fullgrad where a network runs step by step, as recurrent layers do. "
            f"Received: a model with {outputs[0].op.name!r} between image and score. "
            'Use method="integrated_gradients".'
        )


def _distinct(tensors):
    return [each.deref() for each in dict.fromkeys(tensor.ref() for tensor in tensors)]


def _floats(tensors):
    return [each for each in tensors if each.dtype.is_floating]


def _bias_terms(score, steps):
    """Return what each of `steps` returned with its bias times the gradient, where it has any."""
    outputs = [each for step in steps for each in step.outputs]
    gradients = dict(zip(map(tf.Tensor.ref, outputs), tf.gradients(score, outputs), strict=True))
    terms = []
    for step in steps:
        for output, bias in _biases(step):
            slope = gradients[output.ref()]
            if slope is not None:
                slope = tf.cast(tf.convert_to_tensor(slope), score.dtype)
                terms.append((output, tf.cast(bias, score.dtype) * slope))
    return terms


# Operations of degree one: `f(u, v, ...)` is what its derivatives make of `u, v, ...`.
_HOMOGENEOUS = re.compile(
    "Abs|Add|AddN|AddV2|AvgPool|AvgPool3D|BatchToSpaceND|Cast|ConcatV2|DepthToSpace|ExpandDims|GatherV2|Identity|"
    "LeakyRelu|Max|MaxPool|MaxPool3D|Maximum|Mean|Min|Minimum|MirrorPad|Neg|Pack|Pad|Relu|Reshape|ResizeBicubic|"
    "ResizeBilinear|ResizeNearestNeighbor|Select|SelectV2|Slice|SpaceToBatchND|SpaceToDepth|Split|SplitV|Squeeze|"
    "StridedSlice|Sub|Sum|Tile|Transpose|Unpack"
)
# Operations that are linear in each of two inputs.
_BILINEAR = re.compile(
    "BatchMatMul|BatchMatMulV2|BatchMatMulV3|Conv2D|Conv2DBackpropInput|Conv3D|Conv3DBackpropInputV2|"
    "DepthwiseConv2dNative|Einsum|MatMul|Mul"
)


# Convolutions alone, in the function that Keras puts them into where they are in groups.
_OF_CONVOLUTIONS = {"Cast", "Const", "Conv2D", "Conv3D", "Identity", "NoOp", "ReadVariableOp", "Transpose"}


def _biases(step):
    """Return pairs of an output `z = f(u)` and its bias `z - J u`, or none where that is known to be 0."""
    if _has_no_bias(step):
        return []
    constant = _added(step)
    if constant is not None:
        return [(step.outputs[0], constant)]
    return [(output, output - linear) for output, linear in zip(step.outputs, _linear(step), strict=True)]


def _has_no_bias(step):
    """Whether it is known. Elsewhere an error of rounding would be scaled up to a map of its own."""
    operation, moving = step.operation, {each.ref() for each in step.inputs}
    moves = [each.ref() in moving for each in _floats(operation.inputs)]
    if _HOMOGENEOUS.fullmatch(operation.type):
        return all(moves)
    if _BILINEAR.fullmatch(operation.type):
        return sum(moves) == 1
    return bool(_functions(operation.node_def)) and _OF_CONVOLUTIONS.issuperset(
        _inside_functions([operation])
    )


def _added(step):
    """Return the constant that an operation adds; `None` if it does anything else.

    It is `z - u` as well, but with fewer digits.
    """
    kind = step.operation.type
    if kind not in ("Add", "AddV2", "BiasAdd", "Sub") or len(step.inputs) > 1:
        return None
    first, second = step.operation.inputs
    if second is step.inputs[0]:
        return first
    if kind == "BiasAdd" and step.operation.get_attr("data_format") == b"NCHW":
        return tf.reshape(second, [-1] + [1] * (first.shape.rank - 2))
    return -second if kind == "Sub" else second


def _linear(step):
    """Return `J u` for each output: the derivative of the gradient that comes out by the one that goes in."""
    seeds = [tf.ones_like(each) for each in step.outputs]
    slopes = tf.gradients(step.outputs, step.inputs, seeds, stop_gradients=step.inputs)
    pairs = [pair for pair in zip(slopes, step.inputs, strict=True) if pair[0] is not None]
    if not pairs:
        return [tf.zeros_like(each) for each in step.outputs]
    slopes, inputs = zip(*pairs, strict=True)
    slopes = [tf.convert_to_tensor(slope) for slope in slopes]
    return tf.gradients(slopes, seeds, inputs, unconnected_gradients="zero")


# Operations that take one grid of an image to another.
_TO_ANOTHER_GRID = re.compile(
    "AvgPool|AvgPool3D|BatchToSpaceND|Conv2D|Conv2DBackpropInput|Conv3D|Conv3DBackpropInputV2|DepthToSpace|"
    "DepthwiseConv2dNative|ExpandDims|MaxPool|MaxPool3D|MirrorPad|Pad|PadV2|PartitionedCall|ResizeBicubic|"
    "ResizeBilinear|ResizeNearestNeighbor|Slice|SpaceToBatchND|SpaceToDepth|Squeeze|StatefulPartitionedCall|"
    "StridedSlice"
)


def _on_the_grid(image, model_input, steps):
    """Return the channels' axis of each tensor that has as many axes as `image` and lies on a grid of it.

    A grid is known by its lengths, so that it is found again after it was flattened and restored.
    """
    grids, axes = {tuple(image.shape[1:-1])}, {}
    for operation, inputs, outputs in [_Step(model_input.op, [], [model_input]), *steps]:
        before = [axes[each.ref()] for each in inputs if each.ref() in axes]
        for output in outputs:
            known = [axis for axis in (-1, 1) if _places(output, axis) in grids]
            if known:
                axes[output.ref()] = known[0]
            elif before and _TO_ANOTHER_GRID.fullmatch(operation.type):
                places = _places(output, before[0])
                if set(places) - {1}:  # A single place is no grid.
                    grids.add(places)
                    axes[output.ref()] = before[0]
    return {tensor: axis for tensor, axis in axes.items() if tensor.deref().shape.rank == image.shape.rank}


def _places(tensor, axis):
    """Return the lengths of a tensor without its batch and its channels, which are on `axis`."""
    shape = list(tensor.shape[1:]) if tensor.shape.rank else []
    return tuple(shape[1:] if axis == 1 else shape[:-1])

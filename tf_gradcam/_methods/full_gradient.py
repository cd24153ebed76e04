"""FullGrad: the score, taken apart into what the image and each bias add to it."""

import collections
import dataclasses
import re
from typing import ClassVar, NamedTuple

import tensorflow as tf

from tf_gradcam._methods.image_gradients import (
    called_functions,
    enlarge_to_image,
    operations_inside_functions,
)
from tf_gradcam._methods.scene import Scene
from tf_gradcam._model import operations_between


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

    def explain(self, scene: Scene) -> tf.Tensor:
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
        return tf.add_n([shown, *(enlarge_to_image(tf.add_n(each), scene) for each in same_grid.values())])


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
    return bool(called_functions(operation.node_def)) and _OF_CONVOLUTIONS.issuperset(
        operations_inside_functions([operation])
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

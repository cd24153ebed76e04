"""FullGrad: the score as a sum of a term of the image and a term of each bias. Listed in `registry`."""

import collections
import dataclasses
import re
from typing import ClassVar, NamedTuple

import tensorflow as tf

from tf_gradcam._graph import operations_between
from tf_gradcam._methods.image_gradients import (
    called_functions,
    enlarge_to_image,
    operations_inside_functions,
)
from tf_gradcam._methods.scene import Scene

_ROUNDING = 1e-4  # of the largest term


@dataclasses.dataclass(frozen=True)
class fullgrad:
    """FullGrad: `L = sum_c psi(x_c dS/dx_c) + sum_l sum_k psi(b_lk dS/dz_lk)`, never negative.

    The score is the sum of `x dS/dx` and, for each operation `z = f(u)` of the network, of its bias times
    `dS/dz`, see `full_gradients`; the map shows where these terms have a large absolute value. `psi` is the
    absolute value, scaled to [0, 1] for each image and operation, resized to the image.

    A bias counts if the output of its operation has a grid, as that of a convolution. Biases of the head and
    of operations on the tokens of a transformer have no position in the image and are left out: the map of a
    transformer consists of the term of the input and of the operations before the tokens.

    Source: Srinivas & Fleuret, "Full-Gradient Representation for Neural Network Visualization", NeurIPS
    2019, section 4. As in the authors' code, all channels of a term have one scale. Unlike in that code,
    operations that are neither linear nor a ReLU have an implicit bias, as in the paper; and resizing takes
    pixels as areas, as everywhere in this library.
    """

    at_image: ClassVar[bool] = True

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *axes)`."""
        image = scene.image
        steps = _operation_steps(scene.model_input, scene.score)
        channel_axes = _channel_axes_on_grids(image, scene.model_input, steps)
        steps = [step for step in steps if any(output.ref() in channel_axes for output in step.outputs)]
        image_term = image * scene.image_gradients(scene.score)
        image_map = tf.reduce_sum(_rescaled(image_term), axis=-1)
        places = scene.places(scene.score)
        maps_by_grid = collections.defaultdict(list)
        enlarged = []
        for output, term in _without_rounding(_bias_terms(scene.score, steps), image_term):
            # Resizing is linear: summing over the channels first means one map to resize instead of hundreds.
            bias_map = tf.reduce_sum(_rescaled(term), axis=channel_axes[output.ref()])
            first = 1 if channel_axes[output.ref()] == -1 else 2
            axes = range(first, first + output.shape.rank - 2)
            placement = places.of(output, axes)
            if placement is not None:
                enlarged.append(enlarge_to_image(bias_map, scene, placement))
                continue
            grid = tuple(bias_map.shape) if None not in bias_map.shape[1:] else output.ref()
            maps_by_grid[grid].append(bias_map)
        enlarged += [enlarge_to_image(tf.add_n(maps), scene, None) for maps in maps_by_grid.values()]
        return tf.add_n([image_map, *enlarged])


def _without_rounding(bias_terms, image_term):
    """Return the terms without those of a `StopGradient` that are nothing but rounding errors.

    Keras stops the gradient of the mean in a variance, where it is 0; what rounding leaves of it would be
    scaled to [0, 1].
    """

    def highest(term):
        return tf.reduce_max(tf.abs(term), list(range(1, term.shape.rank)))

    largest = tf.reduce_max([highest(term) for term in (image_term, *(term for _, term in bias_terms))], 0)
    for output, term in bias_terms:
        if output.op.type == "StopGradient":
            counts = tf.reshape(highest(term) > _ROUNDING * largest, [-1] + [1] * (term.shape.rank - 1))
            term = tf.where(counts, term, tf.zeros_like(term))
        yield output, term


def _rescaled(term):
    """Return the absolute values of `(N, ...)`, scaled to [0, 1] for each image."""
    axes = list(range(1, term.shape.rank))
    strength = tf.abs(term)
    strength -= tf.reduce_min(strength, axes, keepdims=True)
    return tf.math.divide_no_nan(strength, tf.reduce_max(strength, axes, keepdims=True))


def full_gradients(image: tf.Tensor, score: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Split a score into the contributions of the image and of each bias of the network.

    Their sum is the score, up to rounding, for any network: `S = sum x dS/dx + sum_l sum b_l dS/dz_l` over
    its operations `z = f(u)`, with `b = f(u) - J u` and `J = df/du`. A linear operation and a ReLU have no
    bias; the bias of an addition is the constant that is added; all others are implicit biases. Operations
    are TensorFlow's: a layer normalization is several, a `tf.function` or loop in the model is one.

    Source: Srinivas & Fleuret, "Full-Gradient Representation for Neural Network Visualization", NeurIPS 2019,
    section 3.

    Args:
        image: float tensor of the graph that is being traced; other inputs of the model count as constants.
        score: tensor that was computed from it.

    Returns:
        `image * dS/dimage`, of the image's shape, and a list of `b_l dS/dz_l` for each operation with a bias.
    """
    (image_gradient,) = tf.gradients(score, [image], unconnected_gradients="zero")
    terms = _bias_terms(score, _operation_steps(image, score))
    return image * image_gradient, [term for _, term in terms]


class _Step(NamedTuple):
    """An operation on the path from the image to the score, `outputs = f(inputs)`.

    Attributes:
        operation: the operation.
        inputs: its inputs that depend on the image.
        outputs: its float outputs that the score depends on.
    """

    operation: tf.Operation
    inputs: list[tf.Tensor]
    outputs: list[tf.Tensor]


def _operation_steps(image, score):
    """Return the steps from `image` to `score`, in order of execution."""
    path = operations_between(image, score)
    read = {tensor.ref() for operation in path for tensor in operation.inputs} | {score.ref()}
    varying, steps = {image.ref()}, []
    for operation in path:
        inputs = _distinct(tensor for tensor in operation.inputs if tensor.ref() in varying)
        if inputs:  # Integers are computed from the image too, but have no gradient.
            outputs = [tensor for tensor in operation.outputs if tensor.ref() in read]
            _check_not_recurrent(outputs)
            steps.append(_Step(operation, inputs, _float_tensors(outputs)))
            varying.update(tensor.ref() for tensor in _float_tensors(outputs))
    return steps


def _check_not_recurrent(outputs):
    if any(tensor.dtype == tf.variant for tensor in outputs):
        raise ValueError(
            "`method` must not be fullgrad for a model with recurrent layers or loops. "
            f"Received: a model with {outputs[0].op.name!r} between image and score. "
            'Use method="integrated_gradients".'
        )


def _distinct(tensors):
    return [reference.deref() for reference in dict.fromkeys(tensor.ref() for tensor in tensors)]


def _float_tensors(tensors):
    return [tensor for tensor in tensors if tensor.dtype.is_floating]


def _bias_terms(score, steps):
    """Return pairs of an output of `steps` and its bias times its gradient, where it has a bias."""
    outputs = [output for step in steps for output in step.outputs]
    gradients = dict(zip(map(tf.Tensor.ref, outputs), tf.gradients(score, outputs), strict=True))
    terms = []
    for step in steps:
        for output, bias in _output_biases(step):
            gradient = gradients[output.ref()]
            if gradient is not None:
                gradient = tf.cast(tf.convert_to_tensor(gradient), score.dtype)
                terms.append((output, tf.cast(bias, score.dtype) * gradient))
    return terms


# Homogeneous operations of degree one, `f(u) = J u`: they have no bias.
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


# The operations inside a function in which Keras runs a convolution with groups.
_IN_CONVOLUTION = {"Cast", "Const", "Conv2D", "Conv3D", "Identity", "NoOp", "ReadVariableOp", "Transpose"}


def _output_biases(step):
    """Return pairs of an output `z = f(u)` and its bias `z - J u`; none if it is known to be 0."""
    if _has_no_bias(step):
        return []
    constant = _added_constant(step)
    if constant is not None:
        return [(step.outputs[0], constant)]
    return [
        (output, output - linear) for output, linear in zip(step.outputs, _linear_terms(step), strict=True)
    ]


def _has_no_bias(step):
    """Return whether the bias is known to be 0: rounding errors of `z - J u` would be scaled to [0, 1]."""
    operation, inputs = step.operation, {tensor.ref() for tensor in step.inputs}
    varies = [tensor.ref() in inputs for tensor in _float_tensors(operation.inputs)]
    if _HOMOGENEOUS.fullmatch(operation.type):
        return all(varies)
    if _BILINEAR.fullmatch(operation.type):
        return sum(varies) == 1
    return bool(called_functions(operation.node_def)) and _IN_CONVOLUTION.issuperset(
        operations_inside_functions([operation])
    )


def _added_constant(step):
    """Return the constant that an addition or subtraction adds to its input; `None` for any other operation.

    It equals `z - u`, which would lose digits to rounding.
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


def _linear_terms(step):
    """Return `J u` for each output, by differentiating the backward pass with respect to its seeds."""
    seeds = [tf.ones_like(output) for output in step.outputs]
    gradients = tf.gradients(step.outputs, step.inputs, seeds, stop_gradients=step.inputs)
    pairs = [pair for pair in zip(gradients, step.inputs, strict=True) if pair[0] is not None]
    if not pairs:
        return [tf.zeros_like(output) for output in step.outputs]
    gradients, inputs = zip(*pairs, strict=True)
    gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
    return tf.gradients(gradients, seeds, inputs, unconnected_gradients="zero")


# Operations whose output may lie on another grid of the image than their input.
_TO_ANOTHER_GRID = re.compile(
    "AvgPool|AvgPool3D|BatchToSpaceND|Conv2D|Conv2DBackpropInput|Conv3D|Conv3DBackpropInputV2|DepthToSpace|"
    "DepthwiseConv2dNative|ExpandDims|MaxPool|MaxPool3D|MirrorPad|Pad|PadV2|PartitionedCall|ResizeBicubic|"
    "ResizeBilinear|ResizeNearestNeighbor|Slice|SpaceToBatchND|SpaceToDepth|Squeeze|StatefulPartitionedCall|"
    "StridedSlice"
)


def _channel_axes_on_grids(image, model_input, steps):
    """Return the channel axis of each tensor that has as many axes as `image` and lies on a grid of it.

    A grid is recognized by its lengths, so that it is found again after it was flattened and restored.
    """
    grids, axes = {tuple(image.shape[1:-1])}, {}
    for operation, inputs, outputs in [_Step(model_input.op, [], [model_input]), *steps]:
        input_axes = [axes[tensor.ref()] for tensor in inputs if tensor.ref() in axes]
        for output in outputs:
            known = [axis for axis in (-1, 1) if _grid_lengths(output, axis) in grids]
            if known:
                axes[output.ref()] = known[0]
            elif input_axes and _TO_ANOTHER_GRID.fullmatch(operation.type):
                grid = _grid_lengths(output, input_axes[0])
                if set(grid) - {1}:  # A single position is no grid.
                    grids.add(grid)
                    axes[output.ref()] = input_axes[0]
    return {tensor: axis for tensor, axis in axes.items() if tensor.deref().shape.rank == image.shape.rank}


def _grid_lengths(tensor, channel_axis):
    """Return the lengths of a tensor without its batch axis and its channel axis."""
    shape = list(tensor.shape[1:]) if tensor.shape.rank else []
    return tuple(shape[1:] if channel_axis == 1 else shape[:-1])

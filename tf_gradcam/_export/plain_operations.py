"""Each operation that runtimes without TensorFlow lack, rewritten in plain ones. `plain_graph` looks them up.

Poolings and convolutions, which have windows, are in `plain_windows`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_gradcam._export import plain_windows
from tf_gradcam._export.plain_windows import UnsupportedOperation, keep_where

_SELU_SCALE, _SELU_SCALE_ALPHA = 1.0507009873554805, 1.7580993408473768
_IMAGES = 5  # A number of images for a trial, which no slice takes by chance.
_ERFC_COEFFICIENTS = 0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429


class LinearInBatchSize:
    """The value of a tensor that depends on nothing but the number N of images: `slope * N + start`.

    Attributes:
        slope: an array of integers; `None` for a constant.
        start: an array of the same shape.
    """

    def __init__(self, slope: np.ndarray | None, start: np.ndarray):
        self.slope, self.start = slope, start

    def tensor(self, batch_size: tf.Tensor) -> tf.Tensor:
        """Return it as a tensor for a batch size that is known when the graph runs."""
        if self.slope is None:
            return tf.constant(self.start)
        return tf.cast(batch_size, self.start.dtype) * self.slope + self.start

    def at(self, batch_size: int) -> np.ndarray:
        """Return it as an array for one batch size."""
        return self.start if self.slope is None else self.slope * batch_size + self.start

    def as_shape(self) -> tf.Tensor | None:
        """Return it as a shape with at most one length of -1; `None` if more lengths depend on N."""
        if self.slope is None:
            return tf.constant(self.start)
        if np.count_nonzero(self.slope) > 1 or np.any(self.start[self.slope == 0] < 1):
            return None
        return tf.constant(np.where(self.slope == 0, self.start, -1))


Numbers = Mapping[Any, LinearInBatchSize]  # by the `ref()` of a tensor of the old graph


def copy_operation(operation: tf.Operation, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    """Add the same operation to the current graph, and return its outputs."""
    copied = tf.compat.v1.get_default_graph().create_op(
        operation.type,
        inputs,
        [tensor.dtype for tensor in operation.outputs],
        name=operation.name,
        attrs={name: value for name, value in operation.node_def.attr.items() if name[0] != "_"},
        op_def=operation.op_def,
    )
    for old, new in zip(operation.outputs, copied.outputs, strict=True):
        new.set_shape(old.shape)
    return copied.outputs


def _evaluate(function):
    """Return what `function` computes from constants, in a graph of its own: nothing runs in the new one."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        return session.run(function())


# With numbers: each takes the old operation, the new inputs and what was measured


def _reshape(operation, inputs, numbers):
    number = numbers.get(operation.inputs[1].ref())
    shape = None if number is None else number.as_shape()
    return copy_operation(operation, inputs if shape is None else [inputs[0], shape])[0]


def _with_fixed_shape(position):
    """Return the rewrite of an operation whose input at `position` is the shape of its output.

    It is reshaped to that shape with -1 for the batch, so that the lengths after it are known.
    """

    def rewrite(operation, inputs, numbers):
        number = numbers.get(operation.inputs[position].ref())
        shape = None if number is None or number.slope is None else number.as_shape()
        (output,) = copy_operation(operation, inputs)
        return output if shape is None else tf.reshape(output, shape)

    return rewrite


def _slice_gradient(operation, inputs, numbers):
    """Return the gradient of a slice, if that is the same block of every image: padded with zeros."""
    number, (*limits, gradient) = numbers.get(operation.inputs[0].ref()), inputs[1:]
    limits = [tf.get_static_value(limit) for limit in limits]
    if number is None or any(limit is None for limit in limits):
        raise UnsupportedOperation(operation)
    lengths = number.at(_IMAGES)
    mask_names = [f"{name}_mask" for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")]
    options = {name: operation.get_attr(name) for name in mask_names}
    options |= dict(zip(("begin", "end", "strides"), limits, strict=True))
    # Slice the index of every element, to see which elements are taken.
    indices = np.arange(np.prod(lengths)).reshape(lengths)
    (sliced,) = _evaluate(lambda: [tf.raw_ops.StridedSlice(input=indices, **options)])
    positions = np.array(np.unravel_index(sliced.ravel(), lengths))
    first, last = positions.min(axis=1), positions.max(axis=1)
    sizes = last - first + 1
    is_block = np.array_equal(sliced.ravel(), np.sort(sliced.ravel())) and sizes.prod() == sliced.size
    has_images = np.zeros(len(lengths), bool) if number.slope is None else number.slope != 0
    takes_every_image = np.array_equal(sizes[has_images], lengths[has_images])
    if not is_block or not takes_every_image or has_images.sum() > 1:
        raise UnsupportedOperation(operation)
    block = tf.reshape(gradient, np.where(has_images, -1, sizes))
    return tf.pad(block, np.stack([first, lengths - last - 1], axis=1))


def _segment_sum(operation, values, segments, count):
    """Return the sum of each segment: the gradient of what was picked from the outputs of each image."""
    lengths = values.shape[1:]
    if segments.shape.rank != 1 or not lengths.is_fully_defined():
        raise UnsupportedOperation(operation)
    is_in_segment = tf.equal(tf.expand_dims(tf.range(count), 1), tf.expand_dims(segments, 0))
    rows = tf.reshape(values, [-1, lengths.num_elements()])
    return tf.reshape(tf.cast(is_in_segment, values.dtype) @ rows, [-1, *lengths])


def _dense_bincount(operation, values, size, weights):
    """Return how often each whole number is in each row, or the sum of its weights."""
    size = tf.get_static_value(size)
    if size is None or values.shape.rank != 2 or operation.get_attr("binary_output"):
        raise UnsupportedOperation(operation)
    marks = tf.cast(tf.equal(tf.expand_dims(values, -1), np.arange(size)), weights.dtype)
    if weights.shape.rank == 1:  # An empty tensor stands for no weights.
        return tf.reduce_sum(marks, axis=1)
    return tf.reduce_sum(marks * tf.expand_dims(weights, -1), axis=1)


# Activations: each takes the old operation and its new inputs


def _relu_gradient(_, gradient, output):
    return keep_where(output > 0, gradient)


def _relu6_gradient(_, gradient, output):
    return keep_where((output > 0) & (output < 6), gradient)


def _leaky_relu_gradient(operation, gradient, features):
    return tf.where(features > 0, gradient, operation.get_attr("alpha") * gradient)


def _elu_gradient(_, gradient, output):
    return tf.where(output < 0, gradient * (output + 1), gradient)


def _selu_gradient(_, gradient, output):
    scale = tf.constant(_SELU_SCALE, output.dtype)
    return gradient * tf.where(output < 0, output + _SELU_SCALE_ALPHA, scale)


# Arithmetic


def _divide_no_nan(_, values, divisor):
    is_zero = tf.equal(divisor, 0)
    quotient = values / tf.where(is_zero, tf.ones_like(divisor), divisor)
    return tf.where(is_zero, tf.zeros([], values.dtype), quotient)


def _sum(operation, values, axes):
    """Return a sum over few axes: the gradient of a repetition has ten axes, most of length 1."""
    known_axes, shape = tf.get_static_value(axes), list(values.shape)
    if known_axes is not None and known_axes.size == 0:  # XNNPACK, in LiteRT, fails on it.
        return values
    if known_axes is None or len(shape) <= 4 or shape.count(None) > 1:
        return copy_operation(operation, [values, axes])[0]
    lengths = [-1 if length is None else length for length in shape]
    reduced = {int(axis) % len(shape) for axis in known_axes.ravel()}
    long_axes = [axis for axis, length in enumerate(lengths) if length != 1]
    total = tf.reduce_sum(
        tf.reshape(values, [lengths[axis] for axis in long_axes]),
        [position for position, axis in enumerate(long_axes) if axis in reduced],
    )
    keeps_axes = operation.get_attr("keep_dims")
    remaining = [
        1 if axis in reduced else length
        for axis, length in enumerate(lengths)
        if keeps_axes or axis not in reduced
    ]
    return tf.reshape(total, remaining)


def _erfc(_, values):
    """Abramowitz & Stegun, 7.1.26: error at most 1.5e-7."""
    positive = tf.abs(values)
    t = 1 / (1 + 0.3275911 * positive)
    series = tf.zeros_like(t)
    for coefficient in reversed(_ERFC_COEFFICIENTS):
        series = t * (coefficient + series)
    result = series * tf.exp(-positive * positive)
    return tf.where(values < 0, 2 - result, result)


def _matrix_product(operation, left, right):
    """Return a product; of whole numbers by float32, exact up to 2**24.

    LiteRT has none of int8, and OpenVINO 2026.4 keeps the sums within int8: `findings` shows it.
    """
    if left.dtype.is_floating:
        return copy_operation(operation, [left, right])[0]
    factors = [tf.cast(each, tf.float32) for each in (left, right)]
    transposed = {"adjoint_a": operation.get_attr("adj_x"), "adjoint_b": operation.get_attr("adj_y")}
    return tf.cast(tf.round(tf.matmul(*factors, **transposed)), operation.outputs[0].dtype)


# Resizing: each axis is a matrix product


def _resize(operation, images, size, *scale_and_translation):
    size = tf.get_static_value(size)
    options = dict(
        zip(("scale", "translation"), map(tf.get_static_value, scale_and_translation), strict=False)
    )
    if size is None or None in images.shape[1:]:
        raise UnsupportedOperation(operation)
    rows, columns = _resize_matrices(operation, images.shape[1:3], size, options)
    return _multiply_rows_and_columns(rows, images, columns.T)


def _resize_gradient(operation, gradient, _):
    size_before = operation.outputs[0].shape[1:3]
    if None in [*size_before, *gradient.shape[1:]]:
        raise UnsupportedOperation(operation)
    rows, columns = _resize_matrices(operation, size_before, gradient.shape[1:3], {})
    return _multiply_rows_and_columns(rows.T, gradient, columns)


def _resize_matrices(operation, size_before, size_after, options):
    """Return the matrices `(H, h)` and `(W, w)` that resize `(h, w)` to `(H, W)`."""
    resize = getattr(tf.raw_ops, operation.type.removesuffix("Grad"))
    attributes = [attribute.name for attribute in operation.op_def.attr if attribute.name != "T"]
    options = {**options, **{name: operation.get_attr(name) for name in attributes}}
    height, width = size_before
    # Images that are 1 in one row, or one column, and 0 elsewhere.
    single_rows = np.eye(height, dtype=np.float32)[:, :, None, None].repeat(width, axis=2)
    single_columns = np.eye(width, dtype=np.float32)[:, None, :, None].repeat(height, axis=1)
    rows, columns = _evaluate(
        lambda: [
            resize(images=images, size=size_after, **options) for images in (single_rows, single_columns)
        ]
    )
    return rows[:, :, 0, 0].T, columns[:, 0, :, 0].T


def _multiply_rows_and_columns(rows, values, columns):
    """Return `rows @ values @ columns` for each image and channel of `(N, h, w, C)`."""
    lengths = [values.shape[-1], rows.shape[0], columns.shape[1]]
    pictures = tf.reshape(tf.transpose(values, [0, 3, 1, 2]), [-1, *values.shape[1:3]])
    pictures = tf.matmul(tf.matmul(rows, pictures), columns)
    return tf.transpose(tf.reshape(pictures, [-1, *lengths]), [0, 2, 3, 1])


# By the type of the operation. Called with the operation and its new inputs.
REWRITES: dict[str, Callable[..., tf.Tensor]] = {
    "AvgPoolGrad": plain_windows.average_pool_gradient,
    "BatchMatMulV3": _matrix_product,
    "ClipByValue": lambda _, values, low, high: tf.minimum(tf.maximum(values, low), high),
    "Conv2DBackpropInput": plain_windows.convolution_gradient,
    "DepthwiseConv2dNativeBackpropInput": plain_windows.depthwise_convolution_gradient,
    "DenseBincount": _dense_bincount,
    "DivNoNan": _divide_no_nan,
    "EluGrad": _elu_gradient,
    "Erf": lambda _, values: 1 - _erfc(_, values),
    "Erfc": _erfc,
    "LeakyReluGrad": _leaky_relu_gradient,
    "MaxPoolGrad": plain_windows.max_pool_gradient,
    "ReciprocalGrad": lambda _, output, gradient: -gradient * output * output,
    "Relu6Grad": _relu6_gradient,
    "ReluGrad": _relu_gradient,
    "ResizeArea": _resize,
    "ResizeBicubic": _resize,
    "ResizeBicubicGrad": _resize_gradient,
    "ResizeBilinearGrad": _resize_gradient,
    "ResizeNearestNeighborGrad": _resize_gradient,
    "RsqrtGrad": lambda _, output, gradient: gradient * -0.5 * output * output * output,
    "ScaleAndTranslate": _resize,
    "SeluGrad": _selu_gradient,
    "SigmoidGrad": lambda _, output, gradient: gradient * output * (1 - output),
    "SoftsignGrad": lambda _, gradient, features: gradient / (1 + tf.abs(features)) ** 2,
    "SqrtGrad": lambda _, output, gradient: gradient * 0.5 / output,
    "Sum": _sum,
    "TanhGrad": lambda _, output, gradient: gradient * (1 - output * output),
    "UnsortedSegmentSum": _segment_sum,
}
# Called with the operation, the list of its new inputs, and the measured `Numbers`.
REWRITES_WITH_NUMBERS: dict[str, Callable[..., tf.Tensor]] = {
    "BroadcastTo": _with_fixed_shape(1),
    "Fill": _with_fixed_shape(0),
    "Reshape": _reshape,
    "Slice": _with_fixed_shape(2),
    "StridedSliceGrad": _slice_gradient,
}

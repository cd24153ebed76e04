"""The gradients of poolings and convolutions in plain operations. `plain_operations` lists them.

Each takes the operation of the old graph and its inputs in the new one, and returns the gradient with respect
to the images, `(N, H, W, C)`.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf


class UnsupportedOperation(Exception):
    """An operation that can't be rewritten.

    Attributes:
        operation: of the old graph.
    """

    def __init__(self, operation: tf.Operation):
        super().__init__(operation.type)
        self.operation = operation


class _Windows(NamedTuple):
    """Where the windows of a pooling or a convolution lie along one axis.

    Attributes:
        axis: 1 for the height, 2 for the width.
        size: the length of a window.
        step: the distance from one window to the next.
        window_count: the number of windows.
        before: the length of the padding before the image.
        length: the length of the image.
    """

    axis: int
    size: int
    step: int
    window_count: int
    before: int
    length: int

    @property
    def total(self) -> int:
        """The length from the start of the first window to the end of the last one."""
        return (self.window_count - 1) * self.step + self.size


def max_pool_gradient(
    operation: tf.Operation, images: tf.Tensor, pooled: tf.Tensor, gradient: tf.Tensor
) -> tf.Tensor:
    """Return the gradient of `MaxPoolGrad`: it goes to the first of the largest pixels of each window."""
    sizes = operation.get_attr("ksize")[1:3]
    vertical, horizontal = _find_windows(operation, sizes, images.shape, pooled.shape)
    padded = images
    for windows in (vertical, horizontal):
        after = max(windows.total - windows.before - windows.length, 0)
        padded = _pad(padded, windows.axis, windows.before, after, images.dtype.min)
    found_before = None
    shares: list[list[tf.Tensor]] = []
    for row in range(vertical.size):
        pixels_of_row = _slice(padded, 1, row, vertical.window_count, vertical.step)
        shares.append([])
        for column in range(horizontal.size):
            pixels = _slice(pixels_of_row, 2, column, horizontal.window_count, horizontal.step)
            is_largest = tf.equal(pixels, pooled)
            if found_before is None:
                found_before = is_largest
            else:
                is_largest, found_before = is_largest & ~found_before, is_largest | found_before
            shares[-1].append(keep_where(is_largest, gradient))
    return _overlap_add_both(shares, vertical, horizontal)


def average_pool_gradient(operation: tf.Operation, _: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """Return the gradient of `AvgPoolGrad`: it is spread evenly over the pixels of each window."""
    sizes = operation.get_attr("ksize")[1:3]
    vertical, horizontal = _find_windows(operation, sizes, operation.outputs[0].shape, gradient.shape)
    pixel_counts = []  # without the padding
    for windows in (vertical, horizontal):
        first = np.arange(windows.window_count) * windows.step - windows.before
        pixel_counts.append(np.minimum(first + windows.size, windows.length) - np.maximum(first, 0))
    share = gradient / tf.constant(np.multiply.outer(*pixel_counts)[None, :, :, None], gradient.dtype)
    return _overlap_add_both([[share] * horizontal.size] * vertical.size, vertical, horizontal)


def convolution_gradient(
    operation: tf.Operation, _: tf.Tensor, filters: tf.Tensor, gradient: tf.Tensor
) -> tf.Tensor:
    """Return the gradient of `Conv2DBackpropInput`, as a convolution of stride 1."""
    spaced, flipped, dilations = _space_out_and_flip(operation, filters, gradient)
    return tf.nn.conv2d(spaced, flipped.transpose(0, 1, 3, 2), 1, "VALID", dilations=dilations)


def depthwise_convolution_gradient(
    operation: tf.Operation, _: tf.Tensor, filters: tf.Tensor, gradient: tf.Tensor
) -> tf.Tensor:
    """Return the gradient of `DepthwiseConv2dNativeBackpropInput`, as a convolution of stride 1."""
    if filters.shape[-1] > 1:
        return convolution_gradient(operation, _, filters, gradient)  # one group for each channel
    spaced, flipped, dilations = _space_out_and_flip(operation, filters, gradient)
    return tf.nn.depthwise_conv2d(spaced, flipped, [1] * 4, "VALID", dilations=dilations)


def keep_where(condition: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Return `values` where the condition is true, and 0 elsewhere."""
    return tf.where(condition, values, tf.zeros([], values.dtype))


def _find_windows(operation, sizes, image_shape, output_shape) -> list[_Windows]:
    """Return the windows along the height and along the width."""
    padding = operation.get_attr("padding")
    if operation.get_attr("data_format") != b"NHWC" or None in [*image_shape[1:3], *output_shape[1:3]]:
        raise UnsupportedOperation(operation)
    found = []
    for axis in (1, 2):
        size, step = sizes[axis - 1], operation.get_attr("strides")[axis]
        windows = _Windows(axis, size, step, output_shape[axis], 0, image_shape[axis])
        before = max(windows.total - windows.length, 0) // 2 if padding == b"SAME" else 0
        if padding == b"EXPLICIT":
            before = operation.get_attr("explicit_paddings")[2 * axis]
        found.append(windows._replace(before=before))
    return found


def _pad(values, axis, before, after, value=0):
    if before == after == 0:
        return values
    paddings = [[before, after] if index == axis else [0, 0] for index in range(values.shape.rank)]
    return tf.pad(values, paddings, constant_values=value)


def _slice(values, axis, start, length, step=1):
    """Return `length` rows (axis 1) or columns (axis 2) from `start`, each `step` after the one before."""
    if start == 0 and step == 1 and length == values.shape[axis]:
        return values
    positions = slice(start, start + (length - 1) * step + 1, step)
    return values[:, positions] if axis == 1 else values[:, :, positions]


def _overlap_add(pieces, windows: _Windows):
    """Return the image that is the sum of overlapping windows along one axis.

    `pieces[i]` has, for each window, what is at the position i of that window. Positions that are a multiple
    of the step apart belong to the same pixels, so they are added first, one sum for each remainder of
    position and step; then the sums are interleaved.
    """
    axis, step = windows.axis, windows.step
    most_steps = math.ceil(len(pieces) / step) - 1
    sums = []
    for remainder in range(min(step, len(pieces))):
        shifted = [
            _pad(piece, axis, steps, most_steps - steps)
            for steps, piece in enumerate(pieces[remainder::step])
        ]
        sums.append(shifted[0] if len(shifted) == 1 else tf.add_n(shifted))
    sums += [tf.zeros_like(sums[0])] * (step - len(sums))
    padded_image = sums[0]
    if step > 1:
        lengths = [-1, *padded_image.shape[1:]]
        lengths[axis] *= step
        padded_image = tf.reshape(tf.stack(sums, axis + 1), lengths)
    end = windows.before + windows.length
    padded_image = _pad(padded_image, axis, 0, max(end - padded_image.shape[axis], 0))
    return _slice(padded_image, axis, windows.before, windows.length)


def _overlap_add_both(shares, vertical: _Windows, horizontal: _Windows):
    """Return the image that is the sum of its windows; `shares[i][j]` is at row i and column j of each."""
    return _overlap_add([_overlap_add(row, horizontal) for row in shares], vertical)


def _space_out_and_flip(operation, filters, gradient):
    """Return the gradient with zeros between the steps, the filters flipped, and the dilations.

    A convolution of the two, of stride 1, is the gradient with respect to the images.
    """
    filters, dilations = tf.get_static_value(filters), operation.get_attr("dilations")[1:3]
    if filters is None:
        raise UnsupportedOperation(operation)
    sizes = [(size - 1) * dilation + 1 for size, dilation in zip(filters.shape[:2], dilations, strict=True)]
    for windows in _find_windows(operation, sizes, operation.outputs[0].shape, gradient.shape):
        if windows.before >= windows.size:
            raise UnsupportedOperation(operation)
        spaced_length = (windows.window_count - 1) * windows.step + 1
        gradient = _overlap_add([gradient], windows._replace(before=0, length=spaced_length))
        after = windows.length + windows.before - spaced_length
        gradient = _pad(gradient, windows.axis, windows.size - 1 - windows.before, after)
    return gradient, filters[::-1, ::-1], dilations

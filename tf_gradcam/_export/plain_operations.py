"""Each operation that runtimes without TensorFlow lack, written in plain ones."""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf


class Refused(Exception):
    """There is no way to write `operation`."""

    def __init__(self, operation: tf.Operation):
        super().__init__(operation.type)
        self.operation = operation


class CountNumber:
    """What a tensor holds that depends on no more than the number N of images: `slope * N + start`."""

    def __init__(self, slope, start):
        self.slope, self.start = slope, start

    def tensor(self, count):
        if self.slope is None:
            return tf.constant(self.start)
        return tf.cast(count, self.start.dtype) * self.slope + self.start

    def at(self, count):
        return self.start if self.slope is None else self.slope * count + self.start

    def lengths(self):
        """Return it as a shape, in which one length may be left open; `None` where more would be."""
        if self.slope is None:
            return tf.constant(self.start)
        if np.count_nonzero(self.slope) > 1 or np.any(self.start[self.slope == 0] < 1):
            return None
        return tf.constant(np.where(self.slope == 0, self.start, -1))


def copy_operation(operation, inputs):
    copied = tf.compat.v1.get_default_graph().create_op(
        operation.type,
        inputs,
        [each.dtype for each in operation.outputs],
        name=operation.name,
        attrs={name: value for name, value in operation.node_def.attr.items() if name[0] != "_"},
        op_def=operation.op_def,
    )
    for old, each in zip(operation.outputs, copied.outputs, strict=True):
        each.set_shape(old.shape)
    return copied.outputs


def _run(function):
    """Return what `function` computes from constants: in the graph that is being written, nothing runs."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        return session.run(function())


def _reshape(operation, inputs, numbers):
    number = numbers.get(operation.inputs[1].ref())
    lengths = None if number is None else number.lengths()
    return copy_operation(operation, inputs if lengths is None else [inputs[0], lengths])[0]


def _slice_gradient(operation, inputs, numbers):
    """Return what was cut out of some numbers, padded to where it was: one block of each image's."""
    number, (*limits, gradient) = numbers.get(operation.inputs[0].ref()), inputs[1:]
    limits = [tf.get_static_value(each) for each in limits]
    if number is None or any(each is None for each in limits):
        raise Refused(operation)
    lengths, masks = number.at(2), {}
    for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis"):
        masks[f"{name}_mask"] = operation.get_attr(f"{name}_mask")
    whole = np.arange(np.prod(lengths)).reshape(lengths)
    limits = dict(zip(("begin", "end", "strides"), limits, strict=True))
    (cut,) = _run(lambda: [tf.raw_ops.StridedSlice(input=whole, **limits, **masks)])
    places = np.array(np.unravel_index(cut.ravel(), lengths))
    first, last = places.min(axis=1), places.max(axis=1)
    sizes = last - first + 1
    is_block = np.array_equal(cut.ravel(), np.sort(cut.ravel())) and sizes.prod() == cut.size
    if not is_block or sizes[0] != 2 or number.at(3)[0] != 3:
        raise Refused(operation)
    block = tf.reshape(gradient, [-1, *sizes[1:]])
    return tf.pad(block, np.stack([first, lengths - last - 1], axis=1))


def _segment_sum(operation, inputs, numbers):
    """Return the sum for each segment: the way back of what was picked from each image's numbers."""
    values, segments, count = inputs
    number = numbers.get(operation.inputs[2].ref())
    if values.shape.rank != 1 or number is None or (number.slope is not None and number.start != 0):
        raise Refused(operation)
    of_image = int(number.start if number.slope is None else number.slope)
    images = segments // of_image
    picked = tf.one_hot(segments - images * of_image, of_image, dtype=values.dtype) * values[:, None]
    rows = tf.equal(tf.range(count // of_image)[:, None], images[None])
    return tf.reshape(tf.cast(rows, values.dtype) @ picked, [-1])


def _where(condition, values):
    return tf.where(condition, values, tf.zeros([], values.dtype))


def _relu(_, gradient, output):
    return _where(output > 0, gradient)


def _relu6(_, gradient, output):
    return _where((output > 0) & (output < 6), gradient)


def _leaky_relu(operation, gradient, features):
    return tf.where(features > 0, gradient, operation.get_attr("alpha") * gradient)


def _elu(_, gradient, output):
    return tf.where(output < 0, gradient * (output + 1), gradient)


def _selu(_, gradient, output):
    scale, scale_alpha = 1.0507009873554805, 1.7580993408473768
    return gradient * tf.where(output < 0, output + scale_alpha, tf.constant(scale, output.dtype))


def _divide(_, values, by):
    is_zero = tf.equal(by, 0)
    return tf.where(is_zero, tf.zeros([], values.dtype), values / tf.where(is_zero, tf.ones_like(by), by))


def _sum(operation, values, axes):
    """Return a sum, over few axes: the way back of a repetition has ten, most of length 1."""
    known, shape = tf.get_static_value(axes), list(values.shape)
    if known is not None and known.size == 0:  # XNNPACK fails on it
        return values
    if known is None or len(shape) <= 4 or shape.count(None) > 1:
        return copy_operation(operation, [values, axes])[0]
    lengths = [-1 if length is None else length for length in shape]
    reduced = {int(axis) % len(shape) for axis in known.ravel()}
    long = [axis for axis, length in enumerate(lengths) if length != 1]
    total = tf.reduce_sum(
        tf.reshape(values, [lengths[axis] for axis in long]),
        [place for place, axis in enumerate(long) if axis in reduced],
    )
    keeps = operation.get_attr("keep_dims")
    left = [
        1 if axis in reduced else length
        for axis, length in enumerate(lengths)
        if keeps or axis not in reduced
    ]
    return tf.reshape(total, left)


_ERF = 0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429


def _erfc(_, values):
    """Abramowitz & Stegun, 7.1.26: right to 1.5e-7."""
    positive = tf.abs(values)
    t = 1 / (1 + 0.3275911 * positive)
    series = tf.zeros_like(t)
    for factor in reversed(_ERF):
        series = t * (factor + series)
    rest = series * tf.exp(-positive * positive)
    return tf.where(values < 0, 2 - rest, rest)


def _resizing(operation, before, after, others):
    """Return the matrices `(H, h)` and `(W, w)` from lengths `(h, w)` to `(H, W)`."""
    kind = operation.type.removesuffix("Grad")
    attributes = [each.name for each in operation.op_def.attr if each.name != "T"]
    options = {name: operation.get_attr(name) for name in attributes}
    resize = getattr(tf.raw_ops, kind)
    height, width = before
    # Each row of an image, or column, by itself.
    rows = np.eye(height, dtype=np.float32)[:, :, None, None].repeat(width, axis=2)
    columns = np.eye(width, dtype=np.float32)[:, None, :, None].repeat(height, axis=1)
    high, wide = _run(
        lambda: [resize(images=each, size=after, **others, **options) for each in (rows, columns)]
    )
    return high[:, :, 0, 0].T, wide[:, 0, :, 0].T


def _between(high, values, wide):
    """Return `(N, h, w, C)` between two matrices `(H, h)` and `(w, W)`."""
    lengths = [values.shape[-1], high.shape[0], wide.shape[1]]
    pictures = tf.reshape(tf.transpose(values, [0, 3, 1, 2]), [-1, *values.shape[1:3]])
    pictures = tf.matmul(tf.matmul(high, pictures), wide)
    return tf.transpose(tf.reshape(pictures, [-1, *lengths]), [0, 2, 3, 1])


def _resize(operation, images, size, *scale_and_translation):
    size, others = tf.get_static_value(size), map(tf.get_static_value, scale_and_translation)
    others = dict(zip(("scale", "translation"), others, strict=False))
    if size is None or None in images.shape[1:]:
        raise Refused(operation)
    high, wide = _resizing(operation, images.shape[1:3], size, others)
    return _between(high, images, wide.T)


def _resize_gradient(operation, gradient, _):
    before = operation.outputs[0].shape[1:3]
    if None in [*before, *gradient.shape[1:]]:
        raise Refused(operation)
    high, wide = _resizing(operation, before, gradient.shape[1:3], {})
    return _between(high.T, gradient, wide)


class _Window(NamedTuple):
    """How windows lie on one axis.

    Attributes:
        axis: 1 for the height, 2 for the width.
        size: how far a window reaches.
        step: from one to the next.
        count: how many there are.
        before: how much padding is before the images.
        length: of the images.
    """

    axis: int
    size: int
    step: int
    count: int
    before: int
    length: int

    @property
    def reach(self):
        """How far they reach together."""
        return (self.count - 1) * self.step + self.size


def _windows(operation, sizes, images, output) -> list[_Window]:
    padding = operation.get_attr("padding")
    if operation.get_attr("data_format") != b"NHWC" or None in [*images[1:3], *output[1:3]]:
        raise Refused(operation)
    found = []
    for axis in (1, 2):
        size, step = sizes[axis - 1], operation.get_attr("strides")[axis]
        window = _Window(axis, size, step, output[axis], 0, images[axis])
        before = max(window.reach - window.length, 0) // 2 if padding == b"SAME" else 0
        if padding == b"EXPLICIT":
            before = operation.get_attr("explicit_paddings")[2 * axis]
        found.append(window._replace(before=before))
    return found


def _pad(values, axis, before, after, value=0):
    if before == after == 0:
        return values
    around = [[before, after] if each == axis else [0, 0] for each in range(values.shape.rank)]
    return tf.pad(values, around, constant_values=value)


def _cut(values, axis, start, length, step=1):
    if start == 0 and step == 1 and length == values.shape[axis]:
        return values
    places = slice(start, start + (length - 1) * step + 1, step)
    return values[:, places] if axis == 1 else values[:, :, places]


def _spread(pieces, window):
    """Return the sum of `pieces`, number i at the place i of each window, on the images' axis."""
    axis, _, step, *_ = window
    most = math.ceil(len(pieces) / step) - 1
    phases = []
    for phase in range(min(step, len(pieces))):
        moved = [_pad(each, axis, place, most - place) for place, each in enumerate(pieces[phase::step])]
        phases.append(moved[0] if len(moved) == 1 else tf.add_n(moved))
    phases += [tf.zeros_like(phases[0])] * (step - len(phases))
    together = phases[0]
    if step > 1:
        lengths = [-1, *together.shape[1:]]
        lengths[axis] *= step
        together = tf.reshape(tf.stack(phases, axis + 1), lengths)
    end = window.before + window.length
    together = _pad(together, axis, 0, max(end - together.shape[axis], 0))
    return _cut(together, axis, window.before, window.length)


def _from_shares(shares, high, wide):
    """Return what the images' places are given by all windows, from what each gives to its own, in rows."""
    return _spread([_spread(row, wide) for row in shares], high)


def _max_pool(operation, images, pooled, gradient):
    high, wide = _windows(operation, operation.get_attr("ksize")[1:3], images.shape, pooled.shape)
    padded = images
    for window in (high, wide):
        after = max(window.reach - window.before - window.length, 0)
        padded = _pad(padded, window.axis, window.before, after, images.dtype.min)
    taken, shares = None, []
    for row in range(high.size):
        rows = _cut(padded, 1, row, high.count, high.step)
        shares.append([])
        for column in range(wide.size):
            here = tf.equal(_cut(rows, 2, column, wide.count, wide.step), pooled)
            # Of equals, the first one takes it all.
            here, taken = (here, here) if taken is None else (here & ~taken, here | taken)
            shares[-1].append(_where(here, gradient))
    return _from_shares(shares, high, wide)


def _average_pool(operation, _, gradient):
    sizes = operation.get_attr("ksize")[1:3]
    high, wide = _windows(operation, sizes, operation.outputs[0].shape, gradient.shape)
    inside = []
    for window in (high, wide):
        first = np.arange(window.count) * window.step - window.before
        inside.append(np.minimum(first + window.size, window.length) - np.maximum(first, 0))
    share = gradient / tf.constant(np.multiply.outer(*inside)[None, :, :, None], gradient.dtype)
    return _from_shares([[share] * wide.size] * high.size, high, wide)


def _turned(operation, filters, gradient):
    """Return the gradient of a convolution spaced out, and the filters turned, to be convolved with them."""
    filters, dilations = tf.get_static_value(filters), operation.get_attr("dilations")[1:3]
    if filters is None:
        raise Refused(operation)
    sizes = [(size - 1) * step + 1 for size, step in zip(filters.shape[:2], dilations, strict=True)]
    for window in _windows(operation, sizes, operation.outputs[0].shape, gradient.shape):
        axis, size, step, count, before, length = window
        if before >= size:
            raise Refused(operation)
        reach = (count - 1) * step + 1
        gradient = _spread([gradient], window._replace(before=0, length=reach))
        gradient = _pad(gradient, axis, size - 1 - before, length + before - reach)
    return gradient, filters[::-1, ::-1], dilations


def _convolution(operation, _, filters, gradient):
    spaced, filters, dilations = _turned(operation, filters, gradient)
    return tf.nn.conv2d(spaced, filters.transpose(0, 1, 3, 2), 1, "VALID", dilations=dilations)


def _depthwise_convolution(operation, _, filters, gradient):
    if filters.shape[-1] > 1:
        return _convolution(operation, _, filters, gradient)  # a group for each channel
    spaced, filters, dilations = _turned(operation, filters, gradient)
    return tf.nn.depthwise_conv2d(spaced, filters, [1] * 4, "VALID", dilations=dilations)


WRITERS = {
    "AvgPoolGrad": _average_pool,
    "ClipByValue": lambda _, values, low, high: tf.minimum(tf.maximum(values, low), high),
    "Conv2DBackpropInput": _convolution,
    "DepthwiseConv2dNativeBackpropInput": _depthwise_convolution,
    "DivNoNan": _divide,
    "EluGrad": _elu,
    "Erf": lambda _, values: 1 - _erfc(_, values),
    "Erfc": _erfc,
    "LeakyReluGrad": _leaky_relu,
    "MaxPoolGrad": _max_pool,
    "ReciprocalGrad": lambda _, output, gradient: -gradient * output * output,
    "Relu6Grad": _relu6,
    "ReluGrad": _relu,
    "ResizeArea": _resize,
    "ResizeBicubic": _resize,
    "ResizeBicubicGrad": _resize_gradient,
    "ResizeBilinearGrad": _resize_gradient,
    "ResizeNearestNeighborGrad": _resize_gradient,
    "RsqrtGrad": lambda _, output, gradient: gradient * -0.5 * output * output * output,
    "ScaleAndTranslate": _resize,
    "SeluGrad": _selu,
    "SigmoidGrad": lambda _, output, gradient: gradient * output * (1 - output),
    "SoftsignGrad": lambda _, gradient, features: gradient / (1 + tf.abs(features)) ** 2,
    "SqrtGrad": lambda _, output, gradient: gradient * 0.5 / output,
    "Sum": _sum,
    "TanhGrad": lambda _, output, gradient: gradient * (1 - output * output),
}
WRITERS_BY_NUMBERS = {
    "Reshape": _reshape,
    "StridedSliceGrad": _slice_gradient,
    "UnsortedSegmentSum": _segment_sum,
}

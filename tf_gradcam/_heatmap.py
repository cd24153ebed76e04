"""Signed map to heatmap: ReLU, resize, divide by the maximum; fusion of heatmaps. Called by explainers."""

import numbers
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from tf_gradcam._arrays import array_or_empty
from tf_gradcam._checks import did_you_mean
from tf_gradcam._tensors import at_least_float32

Interpolation: TypeAlias = str | tuple[str, float]  # A method of `tf.image.resize`, or ("gaussian", cells).

INTERPOLATIONS = [value for name, value in vars(tf.image.ResizeMethod).items() if name.isupper()]
_WITHOUT_OVERSHOOT = ("area", "bilinear", "nearest")  # Their results are within the range of the input.
FUSIONS = ("mean", "max", "layercam", "refinecam")
_FARTHEST = 2**15  # Pixels that a map may extend beyond the image.
LARGEST_SIDE = 2**14  # Of a heatmap, in pixels; its square bounds a volume. A larger one takes gigabytes.


def parse_size(size: Any) -> Any:
    """Return `"input"`, `None`, or the lengths as an array. Other lengths then need no new trace."""
    if size is None or (isinstance(size, str) and size == "input"):
        return size
    rule = (
        '"input", None or (height, width) in pixels: one length for each axis of the grid, up to '
        f"{LARGEST_SIDE}, of product up to {LARGEST_SIDE**2}"
    )
    lengths = np.atleast_1d(array_or_empty(size))
    are_integers = lengths.dtype.kind in "iu" and lengths.shape in [(1,), (2,), (3,)]
    if not are_integers or lengths.min() < 1 or lengths.max() > LARGEST_SIDE:
        raise ValueError(f"`size` must be {rule}. Received: size={size!r:.80}")
    if np.prod(lengths, dtype=np.int64) > LARGEST_SIDE**2:
        raise ValueError(f"`size` must be {rule}. Received: size={size!r:.80}")
    return lengths.astype(np.int32)


def parse_interpolation(interpolation: Any) -> Interpolation:
    """Return a method of `tf.image.resize`, or `("gaussian", cells)` with a float."""
    if isinstance(interpolation, str) and interpolation in INTERPOLATIONS:
        return interpolation
    if isinstance(interpolation, tuple | list) and len(interpolation) == 2:
        name, cells = interpolation
        is_gaussian = isinstance(name, str) and name == "gaussian"
        if (
            is_gaussian
            and isinstance(cells, numbers.Real)
            and not isinstance(cells, bool)
            and 0.1 <= float(cells) <= 100
        ):
            return "gaussian", float(cells)
    hint = did_you_mean(str(interpolation), INTERPOLATIONS)
    raise ValueError(
        f"`interpolation` must be one of {INTERPOLATIONS}, or ('gaussian', cells) with a standard deviation "
        f"of 0.1 to 100 cells of the grid. Received: interpolation={interpolation!r:.80}. {hint}".rstrip()
    )


def to_heatmap(
    signed_map: tf.Tensor,
    size: tf.Tensor | None,
    interpolation: Interpolation,
    placement: Any = None,
    scores: tf.Tensor | None = None,
) -> tf.Tensor:
    """Apply ReLU, resize, and divide by the maximum, in this order. A map without positive values becomes 0.

    Args:
        signed_map: `(B, *grid)`.
        size: lengths to resize the grid to, or `None` to keep it.
        interpolation: as `parse_interpolation` returns it.
        placement: where the map lies on an image of that size; see `place_map`.
        scores: number of scores, M, if all N images share them, `B = N M`: the maps of one score are then
            divided by their common maximum.

    Returns:
        `(B, *size)` float32 in `[0, 1]`.
    """
    positive = tf.nn.relu(tf.cast(signed_map, tf.float32))
    if size is not None:
        positive = place_map(positive, size, interpolation, placement)
        if isinstance(interpolation, str) and interpolation not in _WITHOUT_OVERSHOOT:
            positive = tf.nn.relu(positive)  # Remove the overshoot below 0.
    return _divide_by_maximum(positive, scores)


def to_signed_heatmap(
    signed_map: tf.Tensor,
    size: tf.Tensor | None,
    interpolation: Interpolation,
    placement: Any = None,
    scores: tf.Tensor | None = None,
) -> tf.Tensor:
    """Resize, and divide by the largest absolute value: `(B, *size)` in `[-1, 1]`. See `to_heatmap`."""
    heatmap = tf.cast(signed_map, tf.float32)
    if size is not None:
        heatmap = place_map(heatmap, size, interpolation, placement)
    return tf.math.divide_no_nan(heatmap, _largest(tf.abs(heatmap), scores))


def _divide_by_maximum(heatmaps, scores=None):
    return tf.math.divide_no_nan(heatmaps, _largest(heatmaps, scores))


def _largest(heatmaps, scores):
    """Return the maximum of each heatmap, or of all images' heatmaps for each of their `scores`."""
    axes = list(range(1, heatmaps.shape.rank))
    largest = tf.reduce_max(heatmaps, axis=axes, keepdims=True)
    if scores is None:
        return largest
    of_each_score = tf.reshape(largest, tf.concat([[-1, scores], tf.shape(largest)[1:]], 0))
    common = tf.reduce_max(of_each_score, axis=0, keepdims=True)
    return tf.reshape(tf.broadcast_to(common, tf.shape(of_each_score)), tf.shape(largest))


def place_map(
    values: tf.Tensor, size: tf.Tensor, interpolation: Interpolation, placement: Any = None
) -> tf.Tensor:
    """Resize `(B, *grid)` to where it lies on an image of `size`. Where nothing was seen it is 0.

    Args:
        values: maps `(B, *grid)`.
        size: lengths of the image.
        interpolation: a method of `tf.image.resize`, or `("gaussian", cells)`.
        placement: `None` if the map lies on the whole image; else its `frame`, `flipped` and `order`, as
            `tf_gradcam._model.Placement` has them. The edges are rounded to whole pixels of `size`.

    Returns:
        `(B, *size)` float32; float64 for bilinear maps in float64: methods run the network on them.
    """
    values, lengths = at_least_float32(values), tf.cast(size, tf.int32)
    first, extents, flipped = tf.zeros_like(lengths), lengths, None
    if placement is not None:
        if placement.order is not None:
            values = tf.transpose(values, tf.concat([[0], 1 + placement.order], axis=0))
        edges = tf.round(placement.frame * tf.cast(lengths, tf.float32)[:, None])
        edges = tf.cast(tf.clip_by_value(edges, -_FARTHEST, _FARTHEST), tf.int32)
        first = tf.reduce_min(edges, axis=1)
        extents, flipped = tf.maximum(tf.reduce_max(edges, axis=1) - first, 1), placement.flipped
    # Run eagerly, one resize takes a fraction of the time of the many small steps of the weights.
    in_steps = interpolation != "bilinear" or not (
        tf.executing_eagerly() and placement is None and values.dtype == tf.float32
    )
    if in_steps and (interpolation == "bilinear" or not isinstance(interpolation, str)):
        return _draw_by_weights(values, lengths, interpolation, first, extents, flipped)
    resized = _resize_by_tensorflow(values, extents, interpolation)
    return resized if placement is None else _cut(resized, lengths, first, flipped)


def _draw_by_weights(values, lengths, interpolation, first, extents, flipped) -> tf.Tensor:
    """Draw each axis by one product of matrices: the weight of each cell for each pixel.

    It is faster than `tf.image.resize`, whose bilinear values XLA gets wrong where it enlarges by an odd
    whole factor (TensorFlow 2.21); and no shape depends on where the map lies: XLA would compile anew.
    """
    axes, dtype = values.shape.rank - 1, values.dtype
    for axis in reversed(range(axes)):  # The last one first, as it is the cheapest.
        count = values.shape[axis + 1] or tf.shape(values)[axis + 1]
        is_flipped = None if flipped is None else flipped[axis]
        weights = _weights(interpolation, count, lengths[axis], first[axis], extents[axis], is_flipped, dtype)
        if axis == axes - 1:
            values = tf.matmul(values, weights)
        elif axis == axes - 2:
            values = tf.matmul(weights, values, transpose_a=True)
        else:
            shape = tf.shape(values)
            before, after = shape[: axis + 1], shape[axis + 2 :]
            planes = tf.reshape(values, tf.concat([before, [count, tf.reduce_prod(after)]], 0))
            drawn = tf.matmul(weights, planes, transpose_a=True)
            values = tf.reshape(drawn, tf.concat([before, lengths[axis : axis + 1], after], 0))
    return values


def _weights(interpolation, count, length, first, extent, flipped, dtype) -> tf.Tensor:
    """Return the weight of each cell for each pixel, `(count, length)`; 0 for pixels beside the map.

    The kernel of `tf.image.resize` that it calls Gaussian ends after 1.5 cells and has a fixed deviation of
    0.5; this one is whole.
    """
    pixels = tf.range(length) - first
    is_inside = (pixels >= 0) & (pixels < extent)
    if flipped is not None:
        pixels = tf.where(flipped, extent - 1 - pixels, pixels)
    count = tf.cast(count, dtype)
    cells_per_pixel = count / tf.cast(extent, dtype)
    centres = (tf.cast(pixels, dtype) + 0.5) * cells_per_pixel - 0.5  # Of the pixels, in cells.
    if isinstance(interpolation, str):  # Bilinear: beyond the outer centres, the outer cells go on.
        centres = tf.clip_by_value(centres, 0.0, count - 1)
        weights = tf.nn.relu(1 - tf.abs(centres[None, :] - tf.range(count)[:, None]))
    else:
        deviation = interpolation[1] * tf.maximum(tf.cast(1, dtype), cells_per_pixel)
        distances = (centres[None, :] - tf.range(count)[:, None]) / deviation
        # A softmax, as far from all cells the sum of the weights is 0 in float32.
        weights = tf.nn.softmax(-0.5 * distances**2, axis=0)
    return weights * tf.cast(is_inside, dtype)


def _resize_by_tensorflow(values, size, interpolation) -> tf.Tensor:
    """Resize `(B, *grid)`: the last two axes as an image, the axes before them one by one."""
    rank = values.shape.rank - 1
    if rank > 1:
        lengths = tf.shape(values)
        images = tf.reshape(values, [-1, lengths[-2], lengths[-1], 1])
        images = tf.image.resize(images, size[-2:], interpolation)
        values = tf.reshape(images, tf.concat([lengths[:-2], size[-2:]], axis=0))
    for axis in range(1, rank - 1 if rank > 1 else 2):
        lengths = tf.shape(values)
        before, after = tf.reduce_prod(lengths[:axis]), tf.reduce_prod(lengths[axis + 1 :])
        lines = tf.reshape(values, tf.stack([before, lengths[axis], 1, after]))
        lines = tf.image.resize(lines, tf.stack([size[axis - 1], 1]), interpolation)
        values = tf.reshape(lines, tf.concat([lengths[:axis], size[axis - 1 : axis], lengths[axis + 1 :]], 0))
    return values


def _cut(resized, lengths, first, flipped) -> tf.Tensor:
    """Cut and pad maps that begin at pixel `first` of an image of `lengths`."""
    axes = resized.shape.rank - 1
    for axis in range(axes if flipped is not None else 0):
        count = tf.shape(resized)[axis + 1]
        positions = tf.range(count)
        positions = tf.where(flipped[axis], count - 1 - positions, positions)
        resized = tf.gather(resized, positions, axis=axis + 1)
    counts = tf.shape(resized)[1:]
    start = tf.clip_by_value(-first, 0, counts)
    kept = tf.maximum(tf.minimum(counts, lengths - first) - start, 0)
    before = tf.clip_by_value(first, 0, lengths - kept)
    visible = tf.slice(resized, tf.concat([[0], start], 0), tf.concat([[-1], kept], 0))
    return tf.pad(visible, tf.concat([[[0, 0]], tf.stack([before, lengths - kept - before], axis=1)], axis=0))


def fuse_heatmaps(
    heatmaps: Sequence[tf.Tensor], grids: Sequence[int], fusion: str, scores: tf.Tensor | None = None
) -> tf.Tensor:
    """Fuse several heatmaps, each in `[0, 1]` and all of one size, into one.

    Args:
        heatmaps: heatmaps `(B, *size)`, one for each layer.
        grids: number of positions in the grid of each layer.
        fusion: `"mean"`, `"max"`, `"refinecam"` (their product) or `"layercam"`: the maximum, after
            `tanh(2 M)` of all heatmaps except those from the coarsest grid (Jiang et al., "LayerCAM", 2021,
            equation 8, for shallow layers).
        scores: as in `to_heatmap`.
    """
    if fusion == "layercam":
        coarsest = tf.reduce_min(tf.stack(grids))
        heatmaps = [
            tf.where(tf.equal(positions, coarsest), heatmap, tf.tanh(2 * heatmap))
            for heatmap, positions in zip(heatmaps, grids, strict=True)
        ]
    stacked = tf.stack(heatmaps)
    reduce = {"mean": tf.reduce_mean, "refinecam": tf.reduce_prod}.get(fusion, tf.reduce_max)
    return _divide_by_maximum(reduce(stacked, axis=0), scores)

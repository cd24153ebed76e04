"""From a signed map to a heatmap: ReLU, resize, divide; and several heatmaps as one."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

INTERPOLATIONS = [value for name, value in vars(tf.image.ResizeMethod).items() if name.isupper()]
_WITHIN = ("area", "bilinear", "nearest")  # those that stay between the values they look at
FUSIONS = ("mean", "max", "layercam", "refinecam")
LARGEST_SIDE = 2**14  # of a heatmap, in pixels; beyond it one takes gigabytes


def parse_size(size):
    """Return `"input"`, `None`, or the lengths as an array: data, so that others never trace anew."""
    if size is None or (isinstance(size, str) and size == "input"):
        return size
    lengths = np.atleast_1d(np.asarray(size)) if np.ndim(size) < 2 else np.zeros(0)
    whole = lengths.dtype.kind in "iu" and 1 <= lengths.size <= 3
    if not whole or lengths.min() < 1 or lengths.max() > LARGEST_SIDE:
        raise ValueError(
            '`size` must be "input", None or (height, width) in pixels, a length for each axis of the grid, '
            f"up to {LARGEST_SIDE}. Received: size={size!r}"
        )
    return lengths.astype(np.int32)


def to_heatmap(signed_map: tf.Tensor, size: tf.Tensor | None, interpolation: str) -> tf.Tensor:
    """ReLU, resize, divide by the maximum, in this order. No evidence at all is 0, not 0/0.

    Args:
        signed_map: `(B, *grid)`.
        size: the lengths to resize the grid to, or `None`.
        interpolation: a method of `tf.image.resize`.

    Returns:
        `(B, *size)` float32 in `[0, 1]`.
    """
    positive = tf.nn.relu(tf.cast(signed_map, tf.float32))
    if size is not None:
        positive = resize_map(positive, size, interpolation)
        if interpolation not in _WITHIN:
            positive = tf.nn.relu(positive)  # It overshoots below 0.
    return _scaled(positive)


def _scaled(heatmaps):
    axes = range(1, heatmaps.shape.rank)
    return tf.math.divide_no_nan(heatmaps, tf.reduce_max(heatmaps, axis=list(axes), keepdims=True))


def resize_map(values, size, interpolation):
    """Resize `(B, *grid)`: the last two axes as an image, those before them one by one."""
    rank = values.shape.rank - 1
    if rank > 1:
        lengths = tf.shape(values)
        pictures = tf.reshape(values, [-1, lengths[-2], lengths[-1], 1])
        pictures = tf.image.resize(pictures, size[-2:], interpolation)
        values = tf.reshape(pictures, tf.concat([lengths[:-2], size[-2:]], axis=0))
    for axis in range(1, rank - 1 if rank > 1 else 2):
        lengths = tf.shape(values)
        before, after = tf.reduce_prod(lengths[:axis]), tf.reduce_prod(lengths[axis + 1 :])
        lines = tf.reshape(values, tf.stack([before, lengths[axis], 1, after]))
        lines = tf.image.resize(lines, tf.stack([size[axis - 1], 1]), interpolation)
        values = tf.reshape(lines, tf.concat([lengths[:axis], size[axis - 1 : axis], lengths[axis + 1 :]], 0))
    return values


def fuse_heatmaps(heatmaps: Sequence[tf.Tensor], grids: Sequence[int], fusion: str) -> tf.Tensor:
    """Return one heatmap of several, each in `[0, 1]` and all of one size.

    Args:
        heatmaps: `(B, *size)` each.
        grids: how many places the grid of each had.
        fusion: `"mean"`, `"max"`, `"refinecam"`, their product, or `"layercam"`: the maximum after
            `tanh(2 M)` of all but those from the coarsest grid (Jiang et al., "LayerCAM", 2021, equation 8,
            for shallow layers).
    """
    if fusion == "layercam":
        coarsest = tf.reduce_min(tf.stack(grids))
        heatmaps = [
            tf.where(tf.equal(places, coarsest), heatmap, tf.tanh(2 * heatmap))
            for heatmap, places in zip(heatmaps, grids, strict=True)
        ]
    together = tf.stack(heatmaps)
    reduce = {"mean": tf.reduce_mean, "refinecam": tf.reduce_prod}.get(fusion, tf.reduce_max)
    return _scaled(reduce(together, axis=0))

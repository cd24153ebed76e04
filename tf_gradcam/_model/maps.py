"""From what a layer returns to a heatmap: its grid, its size, its scale, and several heatmaps as one.

A grid has one axis for a signal, two for an image, three for a volume or a video. The tokens of a vision
transformer are a grid in disguise.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_gradcam._model.inputs import is_channels_first

INTERPOLATIONS = [value for name, value in vars(tf.image.ResizeMethod).items() if name.isupper()]
_WITHIN = ("area", "bilinear", "nearest")  # those that stay between the values they look at
FUSIONS = ("mean", "max", "layercam", "refinecam")
LARGEST_SIDE = 2**14  # of a heatmap, in pixels; beyond it one takes gigabytes
_MOST_EXTRA = 8  # tokens that are no patch: a class token and registers


class Grid(NamedTuple):
    """Where the places of a map are in activations.

    Attributes:
        shape: the grid's lengths, `None` where they vary.
        channels: number of channels.
        extra: how many tokens are no place of the grid; `None` where there are no tokens.
        channels_first: whether the channels come right after the batch.
        start: the first token that is a place of the grid.
    """

    shape: tuple[int | None, ...]
    channels: int | None
    extra: int | None = None
    channels_first: bool = False
    start: int = 0


def find_grid(
    shape: Sequence[int | None],
    images: Sequence[Sequence[int | None]],
    channels_first: bool = False,
    flattened: Sequence[tuple[int, int]] = (),
) -> Grid | None:
    """Return the grid of activations, or `None` where they have none with more than one place.

    Args:
        shape: of the activations, with the batch.
        images: shapes of the inputs that they depend on, with the batch. What comes of a signal is a signal,
            and three axes that come of an image are tokens.
        channels_first: whether the layer has its channels right after the batch.
        flattened: grids `(h, w)` that were flattened on the way to tokens, the likelier first.
    """
    if len(shape) < 3:
        return None
    if len(shape) == 3 and max(map(len, images), default=0) > 3:
        return _token_grid(shape, flattened)
    *places, channels = (*shape[2:], shape[1]) if channels_first else shape[1:]
    if math.prod(1 if length is None else length for length in places) <= 1 and None not in places:
        return None
    return Grid(tuple(places), channels, None, channels_first)


def _token_grid(shape, flattened) -> Grid | None:
    _, tokens, channels = shape
    fitting = [each for each in flattened if tokens is not None and 1 < math.prod(each) <= tokens]
    grid = max(fitting, key=math.prod, default=None)
    if grid is None or tokens - math.prod(grid) > _MOST_EXTRA:
        return None
    return Grid(tuple(grid), channels, tokens - math.prod(grid))


def to_grid(values: tf.Tensor, grid: Grid) -> tf.Tensor:
    """Return activations, or their gradients, as `(N, *grid, K)`."""
    if grid.channels_first:
        return tf.transpose(values, [0, *range(2, values.shape.rank), 1])
    if grid.extra is None:
        return values
    tokens = values[:, grid.start : grid.start + math.prod(grid.shape)]
    return tf.reshape(tokens, [-1, *grid.shape, values.shape[-1]])


def from_grid(values: tf.Tensor, grid: Grid, activations: tf.Tensor) -> tf.Tensor:
    """Return `values` `(N, *grid, K)` as the layer returns them: the inverse of `to_grid`.

    Tokens that are no place of the grid are those of `activations`.
    """
    if grid.channels_first:
        return tf.transpose(values, [0, values.shape.rank - 1, *range(1, values.shape.rank - 1)])
    if grid.extra is None:
        return values
    end = grid.start + math.prod(grid.shape)
    tokens = tf.reshape(values, [-1, math.prod(grid.shape), values.shape[-1]])
    return tf.concat([activations[:, : grid.start], tokens, activations[:, end:]], axis=1)


def spatial_lengths(image: tf.Tensor, rank: int, channels_first: bool) -> tf.Tensor | None:
    """Return the lengths of the last `rank` axes of an image that are no channels, or `None` if too few.

    An image with one axis more than the grid, the batch's, has no channels. Of a video the last two axes are
    taken for a map of all its frames.
    """
    axes = image.shape.rank
    if axes == rank + 1:  # but a signal of one channel is no picture
        return None if image.shape[-1] == 1 else tf.shape(image)[1:]
    if axes < rank + 2:
        return None
    first = is_channels_first(image.shape, unknown=channels_first)
    return tf.shape(image)[-rank:] if first else tf.shape(image)[-rank - 1 : -1]


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

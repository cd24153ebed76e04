"""Where the places of a map are in what a layer returns."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_gradcam._model.specs import is_channels_first

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

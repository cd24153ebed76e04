"""Where the places of a map are in what a layer returns, and activations to their grid and back.

A grid has one axis for a signal, two for an image, three for a volume or a video. The tokens of a vision
transformer are the flattened places of a grid. Called by whoever reads activations.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_gradcam._model.specs import is_channels_first

_MOST_EXTRA = 8  # tokens that are no patch, such as a class token and registers


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
        images: shapes of the inputs that they depend on, with the batch. Three axes are a signal where the
            input is one, and tokens where it is an image.
        channels_first: whether the layer has its channels right after the batch.
        flattened: grids `(h, w)` that were flattened on the path to the tokens, the likelier first.
    """
    if len(shape) < 3:
        return None
    if len(shape) == 3 and max(map(len, images), default=0) > 3:
        return _token_grid(shape, flattened)
    *places, channels = (*shape[2:], shape[1]) if channels_first else shape[1:]
    if place_count(places) <= 1 and None not in places:
        return None
    return Grid(tuple(places), channels, None, channels_first)


def _token_grid(shape, flattened) -> Grid | None:
    _, tokens, channels = shape
    fitting = [each for each in flattened if tokens is not None and 1 < math.prod(each) <= tokens]
    grid = max(fitting, key=math.prod, default=None)
    if grid is None or tokens - math.prod(grid) > _MOST_EXTRA:
        return None
    return Grid(tuple(grid), channels, tokens - math.prod(grid))


def place_count(shape: Sequence[int | None]) -> int:
    """Return how many places a grid of this shape has; a length that varies counts as 1."""
    return math.prod(1 if length is None else length for length in shape)


def to_grid(values: tf.Tensor, grid: Grid) -> tf.Tensor:
    """Return activations, or their gradients, as `(N, *grid, K)`."""
    if grid.channels_first:
        return tf.transpose(values, [0, *range(2, values.shape.rank), 1])
    if grid.extra is None:
        return values
    tokens = values[:, grid.start : grid.start + place_count(grid.shape)]
    return tf.reshape(tokens, [-1, *grid.shape, values.shape[-1]])


def from_grid(values: tf.Tensor, grid: Grid, activations: tf.Tensor) -> tf.Tensor:
    """Return `values` `(N, *grid, K)` as the layer returns them: the inverse of `to_grid`.

    Tokens that are no place of the grid are those of `activations`.
    """
    if grid.channels_first:
        return tf.transpose(values, [0, values.shape.rank - 1, *range(1, values.shape.rank - 1)])
    if grid.extra is None:
        return values
    end = grid.start + place_count(grid.shape)
    tokens = tf.reshape(values, [-1, place_count(grid.shape), values.shape[-1]])
    return tf.concat([activations[:, : grid.start], tokens, activations[:, end:]], axis=1)


def spatial_lengths(image: tf.Tensor, rank: int, channels_first: bool) -> tf.Tensor | None:
    """Return the lengths of the last `rank` axes of an image, not counting channels.

    An image with the batch's axis and `rank` others has no channels. Of a video, the last two axes are those
    of a map for all its frames. Returns `None` where the image has too few axes.
    """
    axes = image.shape.rank
    if axes == rank + 1:  # A last axis of length 1 holds the channel of a signal.
        return None if image.shape[-1] == 1 else tf.shape(image)[1:]
    if axes < rank + 2:
        return None
    first = is_channels_first(image.shape, unknown=channels_first)
    return tf.shape(image)[-rank:] if first else tf.shape(image)[-rank - 1 : -1]

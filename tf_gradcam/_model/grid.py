"""The grid of a layer's activations, and the conversion of activations to their grid and back.

A grid has one axis for a signal, two for an image, three for a volume or a video. The tokens of a vision
transformer are the flattened positions of a grid. Called by everything that reads activations.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_gradcam._model.specs import is_channels_first

_MAX_EXTRA = 8  # Number of tokens that are not patches, such as a class token and registers.


class Grid(NamedTuple):
    """The layout of a map in activations.

    Attributes:
        shape: lengths of the grid, `None` where they vary.
        channels: number of channels.
        extra: number of tokens that are not positions of the grid; `None` if there are no tokens.
        channels_first: whether the channel axis comes right after the batch axis.
        start: index of the first token that is a position of the grid.
    """

    shape: tuple[int | None, ...]
    channels: int | None
    extra: int | None = None
    channels_first: bool = False
    start: int = 0

    def axes(self) -> range:
        """Return the axes of the activations that are the grid: none for tokens."""
        first = 2 if self.channels_first else 1
        return range(first, first + (0 if self.extra is not None else len(self.shape)))


def find_grid(
    shape: Sequence[int | None],
    images: Sequence[Sequence[int | None]],
    channels_first: bool = False,
    flattened: Sequence[tuple[int, int]] = (),
) -> Grid | None:
    """Return the grid of activations, or `None` if they have none with more than one position.

    Args:
        shape: shape of the activations, with the batch axis.
        images: shapes of the inputs on which they depend, with the batch axis. Activations with three axes
            are a signal if the input is one, and tokens if it is an image.
        channels_first: whether the channel axis of the layer comes right after the batch axis.
        flattened: grids `(h, w)` that were flattened on the path to the tokens, the most likely first.
    """
    if len(shape) < 3:
        return None
    if len(shape) == 3 and max(map(len, images), default=0) > 3:
        return _token_grid(shape, flattened)
    *lengths, channels = (*shape[2:], shape[1]) if channels_first else shape[1:]
    if position_count(lengths) <= 1 and None not in lengths:
        return None
    return Grid(tuple(lengths), channels, None, channels_first)


def _token_grid(shape, flattened) -> Grid | None:
    _, tokens, channels = shape
    fitting = [grid for grid in flattened if tokens is not None and 1 < math.prod(grid) <= tokens]
    grid = max(fitting, key=math.prod, default=None)
    if grid is None or tokens - math.prod(grid) > _MAX_EXTRA:
        return None
    return Grid(tuple(grid), channels, tokens - math.prod(grid))


def position_count(shape: Sequence[int | None]) -> int:
    """Return the number of positions of a grid of this shape; a length that varies counts as 1."""
    return math.prod(1 if length is None else length for length in shape)


def to_grid(values: tf.Tensor, grid: Grid) -> tf.Tensor:
    """Return activations, or their gradients, as `(N, *grid, K)`."""
    if grid.channels_first:
        return tf.transpose(values, [0, *range(2, values.shape.rank), 1])
    if grid.extra is None:
        return values
    tokens = values[:, grid.start : grid.start + position_count(grid.shape)]
    return tf.reshape(tokens, [-1, *grid.shape, values.shape[-1]])


def from_grid(values: tf.Tensor, grid: Grid, activations: tf.Tensor) -> tf.Tensor:
    """Return `values` `(N, *grid, K)` in the layout of the layer's output: the inverse of `to_grid`.

    Tokens that are not positions of the grid are taken from `activations`.
    """
    if grid.channels_first:
        return tf.transpose(values, [0, values.shape.rank - 1, *range(1, values.shape.rank - 1)])
    if grid.extra is None:
        return values
    end = grid.start + position_count(grid.shape)
    tokens = tf.reshape(values, [-1, position_count(grid.shape), values.shape[-1]])
    return tf.concat([activations[:, : grid.start], tokens, activations[:, end:]], axis=1)


def spatial_axes(image: tf.Tensor, rank: int, channels_first: bool) -> range | None:
    """Return the last `rank` axes of an image, not counting the channel axis.

    An image with a batch axis and `rank` further axes has no channel axis. For a map of a whole video, they
    are the last two axes of its frames. Returns `None` if the image has too few axes.
    """
    axes = image.shape.rank
    if axes == rank + 1:  # A last axis of length 1 is the channel axis of a signal.
        return None if image.shape[-1] == 1 else range(1, axes)
    if axes < rank + 2:
        return None
    first = is_channels_first(image.shape, unknown=channels_first)
    return range(axes - rank, axes) if first else range(axes - rank - 1, axes - 1)

"""Enlarge a heatmap to its photograph, smoothly: `enlarge`. Whatever draws a heatmap calls it."""

import functools

import numpy as np

from tf_gradcam._optional import require

_MOST_CELLS = 128  # of a finer grid a cell is a few pixels, and its facets can't be seen


def enlarge(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a heatmap: monotone cubic curves between the cells where an axis grows, area averages elsewhere.

    A bilinear enlargement of 7 x 7 cells has creases along every row and column of cells, which look like
    facets of the object. This one has none: its slope has no jumps. It passes through the values of the
    cells, rises or falls from a cell to its neighbour without a turn, and so keeps the peak in its place; a
    bicubic one overshoots, and a Gaussian lowers the peak and moves it.

    Source: Fritsch and Butland, "A method for constructing local monotone piecewise cubic interpolants",
    1984, for even steps: the slope at a cell is the harmonic mean of the slopes on both sides, and 0 where
    their signs differ. As a surface: Hermite's of these values and slopes, with twists of 0. Half a cell at
    the border is constant.

    Args:
        values: `(h, w)`, finite.
        size: `(height, width)` in pixels.

    Returns:
        float32 array `(height, width)`, within the range of `values`.
    """
    cv2 = require("cv2", "opencv-python")
    height, width = size
    values = values.astype(np.float32)
    low, high = values.min(), values.max()
    shrunk = min(width, values.shape[1]), min(height, values.shape[0])
    values = cv2.resize(values, shrunk, interpolation=cv2.INTER_AREA)
    if max(values.shape) > _MOST_CELLS:
        values = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    elif values.shape != (height, width):
        down, across = _hermite(values.shape[0], height), _hermite(values.shape[1], width)
        rows = down @ np.concatenate([values, _slopes(values)])
        slopes = down[:, : len(values)] @ _slopes(values.T).T
        values = np.concatenate([rows, slopes], axis=1) @ across.T
    return np.clip(values, low, high)  # Rounding may leave a value slightly outside.


def _slopes(values) -> np.ndarray:
    """Return the slope along the first axis at each cell, for a cell."""
    steps = np.diff(values, axis=0)
    before, after = steps[:-1], steps[1:]
    slopes = np.zeros_like(values)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        means = 2 / (1 / before + 1 / after)
    slopes[1:-1] = np.where(np.sign(before) * np.sign(after) > 0, means, 0)
    return slopes


@functools.lru_cache(16)
def _hermite(count: int, length: int) -> np.ndarray:
    """Return the weights `(length, 2 * count)` of the cells' values and slopes at the centres of pixels."""
    place = np.clip((np.arange(length) + 0.5) * count / length - 0.5, 0, count - 1)
    low = place.astype(int)
    high, share = np.minimum(low + 1, count - 1), place - low
    weights = np.zeros((length, 2 * count), np.float32)
    rows = np.arange(length)
    rising = share**2 * (3 - 2 * share)
    weights[rows, high] = rising
    weights[rows, low] += 1 - rising
    weights[rows, count + high] = share**2 * (share - 1)
    weights[rows, count + low] += share * (1 - share) ** 2
    return weights

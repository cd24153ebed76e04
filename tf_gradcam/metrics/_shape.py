"""The shape of a map by itself: sparseness and entropy. Called by users, and by the tables of `metrics`."""

from typing import Any

import numpy as np

from tf_gradcam.metrics._inputs import as_maps, finite_rows


def sparseness(maps: Any) -> np.ndarray:
    """Measure how unequal the positive part of a map is: the Gini index.

    `sum_i (2 i - n - 1) a_i / (n sum a)`, where a are the n values in rising order. 0 for a uniform map,
    `1 - 1 / n` for a single pixel. Higher is easier to read; it says nothing of whether the map is right, and
    maps of different size or interpolation should not be compared.

    Source: Chalasani et al., "Concise Explanations of Neural Networks using Adversarial Training", ICML 2020,
    without absolute values.

    Args:
        maps: `(N, *axes)`, signed or heatmaps.

    Returns:
        `(N,)`, float64 in [0, 1); NaN where a map has no positive value or is not finite.
    """
    values = np.sort(_shares(maps), axis=1)
    count = values.shape[1]
    return values @ (2 * np.arange(1, count + 1) - count - 1) / count


def entropy(maps: Any) -> np.ndarray:
    """Measure how spread out the positive part of a map is: its entropy in nats.

    `-sum p log p`, where p are the values divided by their sum. 0 for a single pixel, `log n` for a uniform
    map of n pixels. Lower is easier to read; it says nothing of whether the map is right.

    Source: Bhatt et al., "Evaluating and Aggregating Feature-based Model Explanations", IJCAI 2020
    (complexity), without absolute values.

    Args:
        maps: `(N, *axes)`, signed or heatmaps.

    Returns:
        `(N,)`, float64 of 0 or more; NaN where a map has no positive value or is not finite.
    """
    shares = _shares(maps)
    logarithms = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.maximum(0, -(shares * logarithms).sum(axis=1))


def _shares(maps):
    """Return the positive values of each map divided by their sum, `(N, n)`; NaN where there are none."""
    maps = as_maps(maps)
    rows = np.where(np.isfinite(maps), np.maximum(maps, 0), 0).reshape(len(maps), -1)
    largest = rows.max(axis=1, keepdims=True)
    rows = np.divide(rows, largest, out=np.full_like(rows, np.nan), where=largest > 0)
    rows[~finite_rows(maps)] = np.nan
    return rows / rows.sum(axis=1, keepdims=True)

"""Similarity of two maps of each image, signed: the sanity checks compare maps by it. So may users."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tf_gradcam.metrics._inputs import finite_rows, two_batches

_SSIM_SIGMA, _SSIM_RADIUS = 1.5, 5
_SSIM_K1, _SSIM_K2 = 0.01, 0.03


def pearson(first: Any, second: Any) -> np.ndarray:
    """Return Pearson's correlation of the values of two maps of each image.

    1 for the same map, also if it is scaled or shifted; -1 for its negative. In [-1, 1].

    Args:
        first: `(N, *axes)`, signed.
        second: `(N, *axes)`, signed.

    Returns:
        `(N,)`, float64; NaN where a map is constant or not finite.

    Raises:
        ValueError: if the shapes differ.
    """
    first, second = two_batches(first, second)
    return _correlation(first.reshape(len(first), -1), second.reshape(len(second), -1))


def spearman(first: Any, second: Any) -> np.ndarray:
    """Return Spearman's rank correlation of the values of two maps of each image.

    1 where both order the pixels alike, -1 where one is the reverse of the other. In [-1, 1]. Equal values
    share the mean of their ranks. Take signed maps: in heatmaps, the zeros of both decide.

    Source: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, without absolute values.

    Args:
        first: `(N, *axes)`, signed.
        second: `(N, *axes)`, signed.

    Returns:
        `(N,)`, float64; NaN where a map is constant or not finite.

    Raises:
        ValueError: if the shapes differ.
    """
    first, second = two_batches(first, second)
    finite = finite_rows(first, second)
    ranks = [average_ranks(np.where(np.isfinite(maps), maps, 0)) for maps in (first, second)]
    return np.where(finite, _correlation(*ranks), np.nan)


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks from 1 in each row of `(N, ...)` as `(N, P)`; equal values share their mean rank."""
    rows = values.reshape(len(values), -1)
    ranks = np.empty(rows.shape)
    for row, out in zip(rows, ranks, strict=True):
        order = np.argsort(row, kind="stable")
        begins = np.flatnonzero(np.diff(row[order], prepend=np.nan) != 0)
        ends = np.append(begins[1:], row.size)
        out[order] = np.repeat((begins + ends + 1) / 2, ends - begins)
    return ranks


def _correlation(first, second):
    """Return the correlation of the rows of two arrays `(N, P)`, NaN for a constant row."""
    finite = finite_rows(first, second)
    correlations = np.full(len(first), np.nan)
    for row in np.flatnonzero(finite):
        one, other = first[row], second[row]
        if one.min() == one.max() or other.min() == other.max():
            continue  # The mean of equal numbers may differ from them by a rounding error.
        one, other = one - one.mean(), other - other.mean()
        one, other = one / np.abs(one).max(), other / np.abs(other).max()
        norms = np.sqrt((one * one).sum() * (other * other).sum())
        correlations[row] = np.clip((one * other).sum() / norms, -1, 1)
    return correlations


def ssim(first: Any, second: Any) -> np.ndarray:
    """Return the structural similarity of two maps of each image.

    The mean of `(2 m1 m2 + c1)(2 s12 + c2) / ((m1^2 + m2^2 + c1)(s1^2 + s2^2 + c2))` over Gaussian windows of
    11 pixels (sigma 1.5) inside the map, fewer where the map is smaller; `c1 = .01^2` and `c2 = .03^2`. 1 for
    the same map; in [-1, 1].

    SSIM is made for pixels from 0 to a maximum: where means and covariance are negative, their product is
    positive, and a map would be similar to its own negative. So each map is first divided by its largest
    absolute value, as it has no unit, and shifted from [-1, 1] to [0, 1]: 0 becomes 0.5.

    It is high for two maps that are flat nearly everywhere, whatever they show: read it beside `spearman`.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004,
    equation 13.

    Args:
        first: `(N, *axes)`, signed.
        second: `(N, *axes)`, signed.

    Returns:
        `(N,)`, float64; NaN where a map is 0 everywhere or not finite.

    Raises:
        ValueError: if the shapes differ.
    """
    first, second = (_from_0_to_1(maps) for maps in two_batches(first, second))
    c1, c2 = _SSIM_K1**2, _SSIM_K2**2
    mean1, mean2 = _window_means(first), _window_means(second)
    variance1 = _window_means(first**2) - mean1**2
    variance2 = _window_means(second**2) - mean2**2
    covariance = _window_means(first * second) - mean1 * mean2
    below = (mean1**2 + mean2**2 + c1) * (variance1 + variance2 + c2)
    above = (2 * mean1 * mean2 + c1) * (2 * covariance + c2)
    return (above / below).mean(axis=tuple(range(1, first.ndim)))


def _from_0_to_1(maps):
    """Return maps with 0 as 0.5 and their largest absolute value as 1 or 0; NaN if there is none."""
    finite = np.isfinite(maps)
    axes = tuple(range(1, maps.ndim))
    largest = np.abs(np.where(finite, maps, 0)).max(axes, keepdims=True)
    usable = finite.all(axes, keepdims=True) & (largest > 0)
    scaled = np.divide(maps, largest, out=np.full_like(maps, np.nan), where=usable)
    return (scaled + 1) / 2


def _window_means(maps):
    """Return the Gaussian means of all windows that lie inside maps `(N, *axes)`."""
    for axis in range(1, maps.ndim):
        lines = np.moveaxis(maps, axis, 0)
        radius = min(_SSIM_RADIUS, (len(lines) - 1) // 2)
        taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / _SSIM_SIGMA) ** 2)
        length = len(lines) - 2 * radius
        means = sum(tap * lines[start : start + length] for start, tap in enumerate(taps / taps.sum()))
        maps = np.moveaxis(means, 0, axis)
    return maps


SIMILARITIES: Mapping[str, Callable[[Any, Any], np.ndarray]] = {
    "spearman": spearman,
    "pearson": pearson,
    "ssim": ssim,
}

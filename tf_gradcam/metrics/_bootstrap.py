"""Confidence intervals by bootstrap. Called by users, and by the tables of `metrics`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam.metrics._inputs import check_positive, generator, values_of_images

_RESAMPLES = 2000
_VALUES_AT_ONCE = 2**22


class Interval(NamedTuple):
    """A number of a data set with its confidence interval.

    Attributes:
        value: the number, such as the mean; NaN if no image has one.
        low: lower end of the interval.
        high: upper end of the interval.
        counted: number of images it is made of.
        missing: number of images that were left out, because their value is NaN.
    """

    value: float
    low: float
    high: float
    counted: int
    missing: int


def confidence_interval(values: Any, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Return the mean of a metric over images, with a percentile bootstrap interval.

    2000 times as many images are drawn with replacement as there are; the interval holds the middle `level`
    of their means. With fewer than about 20 images it is too narrow.

    Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.

    Args:
        values: one number for each image, `(N,)`. NaN is left out and counted, infinity is not.
        level: share of the bootstrap means inside the interval, above 0 and below 1.
        seed: seed of the draws.

    Returns:
        An `Interval`: `value`, `low`, `high`, `counted` and `missing`.

    Raises:
        ValueError: if `values` is not `(N,)`, or `level` is out of range.
    """
    (array,) = values_of_images(values=values)
    return interval_of(array[:, None], lambda means: means[..., 0], level, seed)


def interval_of(
    values: np.ndarray, combine: Callable[[np.ndarray], np.ndarray], level: float, seed: int
) -> Interval:
    """Return `combine(means (..., K)) -> (...)` of columns `(N, K)`, without rows that hold a NaN."""
    check_positive(level=level, below=1)
    random = generator(seed)
    present = values[~np.isnan(values).any(axis=1)]
    count, missing = len(present), len(values) - len(present)
    if not count:
        return Interval(np.nan, np.nan, np.nan, 0, missing)
    draws = []
    at_once = max(1, _VALUES_AT_ONCE // count)
    for start in range(0, _RESAMPLES, at_once):
        chosen = random.integers(0, count, (min(at_once, _RESAMPLES - start), count))
        draws.append(combine(present[chosen].mean(axis=1)))
    low, high = np.quantile(np.concatenate(draws), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(combine(present.mean(axis=0))), float(low), float(high), count, missing)

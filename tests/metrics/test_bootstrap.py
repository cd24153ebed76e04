"""Confidence intervals: NaN is counted, seeds are kept to, the interval covers what it should."""

import numpy as np
import pytest

from tf_gradcam import metrics


def test_nan_is_left_out_and_counted():
    interval = metrics.confidence_interval([1, np.nan, 3, np.nan, np.nan])
    assert (interval.value, interval.counted, interval.missing) == (2, 2, 3)
    assert (interval.low, interval.high) == (1, 3)
    nothing = metrics.confidence_interval([np.nan, np.nan])
    assert np.isnan(nothing[:3]).all()
    assert nothing[3:] == (0, 2)


def test_one_value_has_no_width_and_a_seed_repeats_itself():
    assert metrics.confidence_interval([0.3])[:3] == (0.3, 0.3, 0.3)
    values = np.random.default_rng(0).normal(size=50)
    assert metrics.confidence_interval(values) == metrics.confidence_interval(values)
    assert metrics.confidence_interval(values) != metrics.confidence_interval(values, seed=1)


def test_it_is_that_of_the_normal_distribution_for_many_values():
    values = np.random.default_rng(1).normal(3, 2, size=400)
    for level, width in ((0.95, 1.96), (0.8, 1.2816)):
        interval = metrics.confidence_interval(values, level=level)
        error = width * values.std() / 20
        assert interval.value == pytest.approx(values.mean())
        assert interval.low == pytest.approx(values.mean() - error, abs=error / 8)
        assert interval.high == pytest.approx(values.mean() + error, abs=error / 8)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="`values` must be one number for each image"):
        metrics.confidence_interval([[1, 2]])
    with pytest.raises(ValueError, match="`level` must be a number above 0 and below 1"):
        metrics.confidence_interval([1, 2], level=95)

"""Pearson, Spearman and SSIM of two maps: by hand, and against SciPy and scikit-image."""

import numpy as np
import pytest
import scipy.stats
import skimage.metrics

from tf_gradcam import metrics

FUNCTIONS = [metrics.pearson, metrics.spearman, metrics.ssim]
RANDOM = np.random.default_rng(0)
FIRST, SECOND = RANDOM.normal(size=(2, 3, 14, 17))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_map_is_like_itself_at_any_scale_and_unlike_its_negative(function):
    np.testing.assert_allclose(function(FIRST, FIRST), 1)
    np.testing.assert_allclose(function(FIRST, 1e6 * FIRST), 1)
    np.testing.assert_allclose(function(FIRST, SECOND), function(SECOND, FIRST))
    assert (function(FIRST, -FIRST) < -0.6).all()
    if function is not metrics.ssim:
        np.testing.assert_allclose(function(FIRST, -FIRST), -1)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_constant_map_has_no_correlation_with_anything(function):
    constant = np.full_like(FIRST, 0.1)
    for other in (constant, FIRST):
        assert np.isnan(function(constant, other)).all() == (function is not metrics.ssim)
        assert np.isnan(function(0 * constant, other)).all()


def test_pearson_equals_numpy():
    for row, result in enumerate(metrics.pearson(FIRST, SECOND)):
        assert result == pytest.approx(np.corrcoef(FIRST[row].ravel(), SECOND[row].ravel())[0, 1], abs=1e-12)


def test_spearman_shares_the_ranks_of_equal_values():
    first, second = np.array([[1.0, 2, 2, 3]]), np.array([[1.0, 3, 2, 4]])  # ranks 1, 2.5, 2.5, 4
    np.testing.assert_allclose(metrics.spearman(first, second), [4.5 / np.sqrt(4.5 * 5)])
    rounded = FIRST.round(), np.maximum(SECOND.round(1), 0)
    for row, result in enumerate(metrics.spearman(*rounded)):
        expected = scipy.stats.spearmanr(rounded[0][row].ravel(), rounded[1][row].ravel()).statistic
        assert result == pytest.approx(expected, abs=1e-12)


def test_ssim_is_that_of_scikit_image():
    first, second = FIRST, FIRST + 0.3 * SECOND
    for row, result in enumerate(metrics.ssim(first, second)):
        one, other = ((maps[row] / np.abs(maps[row]).max() + 1) / 2 for maps in (first, second))
        expected = skimage.metrics.structural_similarity(
            one,
            other,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
        )
        assert result == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("axes", [(2,), (7,), (40,), (3, 20), (12, 13, 14)], ids=str)
def test_ssim_takes_signals_volumes_and_small_maps(axes):
    first, second = np.random.default_rng(1).normal(size=(2, 2, *axes))
    np.testing.assert_allclose(metrics.ssim(first, first), 1)
    assert (metrics.ssim(first, second) < 0.999).all()


def test_the_shapes_must_be_the_same():
    for function in FUNCTIONS:
        with pytest.raises(ValueError, match="`first` and `second` must have one shape"):
            function(FIRST, SECOND[:, 1:])

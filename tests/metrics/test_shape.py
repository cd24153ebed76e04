"""Sparseness and entropy: numbers by hand, and pairs of pixels."""

import numpy as np
import pytest

from tf_gradcam import metrics


def test_one_pixel_and_a_uniform_map_by_hand():
    maps = [[0, 1, 0, 0], [2, 2, 2, 2], [-1, 3, -5, 0]]
    np.testing.assert_allclose(metrics.sparseness(maps), [0.75, 0, 0.75], atol=1e-15)
    np.testing.assert_allclose(metrics.entropy(maps), [0, np.log(4), 0], atol=1e-15)


def test_a_map_without_positive_values_has_neither():
    maps = np.array([[0.0, 0], [-1, -2], [1, 0]])
    for function in (metrics.sparseness, metrics.entropy):
        np.testing.assert_array_equal(np.isnan(function(maps)), [True, True, False])


def test_the_gini_index_is_the_mean_difference_of_pairs():
    maps = np.random.default_rng(0).normal(size=(3, 5, 6))
    for row, result in enumerate(metrics.sparseness(maps)):
        values = np.maximum(maps[row].ravel(), 0)
        pairs = sum(abs(a - b) for a in values for b in values)
        assert result == pytest.approx(pairs / (2 * values.size * values.sum()), abs=1e-12)


def test_entropy_equals_a_loop_and_neither_depends_on_the_scale():
    maps = np.random.default_rng(1).normal(size=(3, 4, 3, 2))
    for row, result in enumerate(metrics.entropy(maps)):
        values = [value for value in maps[row].ravel() if value > 0]
        shares = [value / sum(values) for value in values]
        assert result == pytest.approx(-sum(share * np.log(share) for share in shares), abs=1e-12)
    for function in (metrics.sparseness, metrics.entropy):
        np.testing.assert_allclose(function(1e300 * maps), function(maps))
        np.testing.assert_allclose(function(1e-300 * maps), function(maps))

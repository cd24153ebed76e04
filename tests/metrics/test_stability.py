"""Infidelity, mu-fidelity and max-sensitivity: closed forms, and loops over samples."""

import numpy as np
import pytest

from tf_gradcam import metrics


def bent(images):
    flat = images.reshape(len(images), -1).astype(float)
    return np.tanh(flat @ np.sin(np.arange(flat.shape[1])) / 3)


@pytest.mark.parametrize("scale", [1, 2, -0.1])
def test_infidelity_of_a_linear_score_and_its_gradient_is_0_at_any_scale(scale):
    weights = np.random.default_rng(0).normal(size=(2, 5, 6))
    images = np.random.default_rng(1).normal(size=(2, 5, 6, 3))

    def linear(images):
        return np.einsum("nhwc,nhw->n", images, np.resize(weights, (len(images), 5, 6)))

    np.testing.assert_allclose(metrics.infidelity(linear, images, scale * weights), 0, atol=1e-20)


def test_infidelity_equals_a_loop_over_samples():
    random = np.random.default_rng(2)
    images, maps = random.normal(size=(3, 4, 5, 2)), random.normal(size=(3, 4, 5))
    result = metrics.infidelity(bent, images, maps, noise=0.2, samples=7, seed=3, batch_size=10)
    fields = np.random.default_rng(3).standard_normal((7, 4, 5, 2), np.float32)
    for row in range(3):
        image, spread = images[row], images[row].max() - images[row].min()
        products, changes = [], []
        for field in fields:
            change = 0.2 * spread * field
            products.append(sum(maps[row, i, j] * change[i, j].sum() for i in range(4) for j in range(5)))
            changes.append(bent(image[None])[0] - bent((image - change)[None])[0])
        products, changes = np.array(products), np.array(changes)
        beta = (products * changes).mean() / (products**2).mean()
        assert result[row] == pytest.approx(((beta * products - changes) ** 2).mean(), abs=1e-12)


def test_infidelity_of_a_blank_map_is_the_mean_square_of_the_change_and_no_map_is_worse():
    images = np.random.default_rng(4).normal(size=(1, 5, 5, 1))
    maps = np.random.default_rng(5).normal(size=(20, 5, 5))
    blank = metrics.infidelity(bent, images, np.zeros((1, 5, 5)))
    others = metrics.infidelity(bent, np.repeat(images, 20, 0), maps)
    assert 0 < others.min() < others.max() < blank[0]


def test_mu_fidelity_of_an_additive_score_and_its_contributions_is_1():
    random = np.random.default_rng(6)
    images = random.normal(size=(2, 12, 13, 2))

    def additive(images):
        return images.sum(axis=(1, 2, 3))

    contributions = images.sum(axis=-1)
    for scale, expected in ((3, 1), (-1, -1)):
        value = metrics.mu_fidelity(additive, images, scale * contributions, baseline="zero", samples=20)
        np.testing.assert_allclose(value, expected)


def test_mu_fidelity_equals_a_loop_over_sets_of_cells():
    random = np.random.default_rng(7)
    images, maps = random.normal(size=(2, 7, 8, 1)), random.normal(size=(2, 7, 8))
    result = metrics.mu_fidelity(
        bent, images, maps, baseline="mean", cells=3, share=0.4, samples=9, seed=8, batch_size=5
    )
    draws = np.random.default_rng(8)
    chosen = [set(draws.permutation(9)[:4].tolist()) for _ in range(9)]
    for row in range(2):
        sums, falls = [], []
        for cells in chosen:
            image, total = images[row].copy(), 0
            for i in range(7):
                for j in range(8):
                    if (i * 3 // 7) * 3 + j * 3 // 8 in cells:
                        image[i, j] = images[row].mean()
                        total += maps[row, i, j]
            sums.append(total)
            falls.append(bent(images[[row]])[0] - bent(image[None])[0])
        assert result[row] == pytest.approx(np.corrcoef(sums, falls)[0, 1], abs=1e-9)


def test_mu_fidelity_is_nan_where_nothing_varies():
    images, maps = np.ones((1, 6, 6, 1)), np.random.default_rng(9).normal(size=(1, 6, 6))
    assert np.isnan(metrics.mu_fidelity(lambda x: np.ones(len(x)), images, maps, baseline="zero"))
    assert np.isnan(metrics.mu_fidelity(bent, images, np.ones((1, 6, 6)), baseline="zero", cells=3))


def test_more_cells_than_pixels_are_pixels():
    images = np.random.default_rng(10).normal(size=(1, 4, 1))
    several, many = (
        metrics.mu_fidelity(bent, images, images[..., 0], baseline="zero", cells=cells) for cells in (4, 99)
    )
    np.testing.assert_array_equal(several, many)


def test_max_sensitivity_of_a_constant_explainer_is_0():
    images, maps = np.random.default_rng(11).random((3, 4, 4, 1)), np.ones((3, 4, 4))
    np.testing.assert_array_equal(metrics.max_sensitivity(lambda x: maps, images, maps), 0)


def test_max_sensitivity_equals_a_loop_over_samples():
    images = np.random.default_rng(12).normal(size=(3, 4, 5, 2))

    def explain(images):
        return images[..., 0] * images[..., 1]

    maps = explain(images)
    result = metrics.max_sensitivity(explain, images, maps, radius=0.1, samples=5, seed=1)
    draws = np.random.default_rng(1)
    fields = [2 * draws.random((4, 5, 2), np.float32).astype(float) - 1 for _ in range(5)]
    for row in range(3):
        reach = 0.1 * (images[row].max() - images[row].min())
        norms = [np.linalg.norm(explain(images[row] + reach * field) - maps[row]) for field in fields]
        assert result[row] == pytest.approx(max(norms) / np.linalg.norm(maps[row]), abs=1e-7)


def test_max_sensitivity_grows_with_the_radius_and_is_nan_for_a_blank_map():
    images = np.random.default_rng(13).random((1, 9, 1))

    def explain(images):
        return images[..., 0]

    near, far = (
        metrics.max_sensitivity(explain, images, images[..., 0], radius=radius) for radius in (0.02, 0.2)
    )
    np.testing.assert_allclose(far, 10 * near)
    assert np.isnan(metrics.max_sensitivity(explain, images, np.zeros((1, 9))))


def test_arguments_are_checked():
    images, maps = np.ones((1, 4, 4, 1)), np.ones((1, 4, 4))
    with pytest.raises(ValueError, match="`samples` must be a whole number from 1"):
        metrics.infidelity(bent, images, maps, samples=0)
    with pytest.raises(ValueError, match="`noise` must be a number above 0"):
        metrics.infidelity(bent, images, maps, noise=0)
    with pytest.raises(ValueError, match="`radius` must be a number above 0"):
        metrics.max_sensitivity(bent, images, maps, radius=-1)
    with pytest.raises(ValueError, match="`share` must be a number above 0 and below 1"):
        metrics.mu_fidelity(bent, images, maps, baseline="zero", share=1)
    with pytest.raises(ValueError, match="`samples` must be 2 or more"):
        metrics.mu_fidelity(bent, images, maps, baseline="zero", samples=1)
    with pytest.raises(ValueError, match="What `explain` returns must have one value for each pixel"):
        metrics.max_sensitivity(lambda x: np.ones((1, 2, 2)), images, maps)
    with pytest.raises(TypeError, match="`explain` must be a callable"):
        metrics.max_sensitivity(maps, images, maps)

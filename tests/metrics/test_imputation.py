"""Baselines, and ROAD's linear system against a dense solver."""

import itertools

import numpy as np
import pytest

from tf_gradcam import metrics
from tf_gradcam.metrics import _imputation


def dense(image, removed):
    """Write the system as in the paper, one row for each pixel that is missing, and solve it."""
    places = [tuple(place) for place in np.argwhere(removed)]
    number = {place: index for index, place in enumerate(places)}
    matrix, right = np.zeros((len(places),) * 2), np.zeros((len(places), image.shape[-1]))
    for place, row in number.items():
        total = 0
        for shift in itertools.product((-1, 0, 1), repeat=removed.ndim):
            near = tuple(np.add(place, shift))
            if not any(shift) or any(not 0 <= i < n for i, n in zip(near, removed.shape, strict=True)):
                continue
            weight = {1: 1 / 6, 2: 1 / 12, 3: 1 / 24}[sum(map(abs, shift))]
            total += weight
            if near in number:
                matrix[row, number[near]] -= weight
            else:
                right[row] += weight * image[near]
        matrix[row, row] = total
    filled = image.copy()
    filled[removed] = np.linalg.solve(matrix, right)
    return filled


def test_the_centre_and_the_corner_of_nine_pixels_have_the_values_worked_out_by_hand():
    image = np.array([[12, 6, 12], [6, 0, 6], [12, 6, 12.0]])[None, ..., None]
    removed = np.zeros((1, 3, 3), bool)
    removed[0, 1, 1] = True
    filled = metrics.noisy_linear_imputation(image, removed, noise=0)
    assert filled[0, 1, 1, 0] == pytest.approx(8)
    image[0, 1, 1] = 12
    removed = np.zeros((1, 3, 3), bool)
    removed[0, 0, 0] = True
    assert metrics.noisy_linear_imputation(image, removed, noise=0)[0, 0, 0, 0] == pytest.approx(7.2)


@pytest.mark.parametrize("axes", [(1,), (2,), (23,), (1, 9), (9, 12), (3, 4, 5), (5, 6, 7)], ids=str)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_it_solves_the_system_of_the_paper(axes, share):
    random = np.random.default_rng(1)
    images = 100 + 30 * random.normal(size=(2, *axes, 3))
    removed = random.random((2, *axes)) < share
    removed.reshape(2, -1)[:, 0] = False  # One pixel is known.
    filled = metrics.noisy_linear_imputation(images, removed, noise=0)
    for row in range(2):
        np.testing.assert_allclose(filled[row], dense(images[row], removed[row]), rtol=1e-7)


def test_it_fills_one_large_hole():
    image = np.random.default_rng(2).normal(size=(1, 25, 23, 1))
    removed = np.zeros((1, 25, 23), bool)
    removed[0, 2:23, 3:] = True
    filled = metrics.noisy_linear_imputation(image, removed, noise=0)
    np.testing.assert_allclose(filled[0], dense(image[0], removed[0]), atol=1e-7)


def test_a_constant_image_stays_constant_and_what_is_left_is_not_touched():
    removed = np.random.default_rng(3).random((1, 4, 4)) < 0.75
    image = np.full((1, 4, 4, 2), 0.3)
    np.testing.assert_allclose(metrics.noisy_linear_imputation(image, removed), image, rtol=0, atol=1e-15)
    image = np.random.default_rng(4).normal(size=(1, 4, 4, 2)).astype("float32")
    filled = metrics.noisy_linear_imputation(image, removed, noise=0.1)
    assert filled.dtype == np.float32
    np.testing.assert_array_equal(filled[~removed], image[~removed])


def test_an_image_without_any_pixel_left_becomes_its_mean():
    images = np.random.default_rng(5).normal(size=(2, 5, 6, 3))
    filled = metrics.noisy_linear_imputation(images, np.ones((2, 5, 6), bool), noise=0)
    np.testing.assert_allclose(filled, np.broadcast_to(images.mean((1, 2), keepdims=True), images.shape))


def test_noise_is_a_share_of_the_range_and_the_same_for_every_image():
    images = np.zeros((2, 50, 50, 1))
    images[:, 0, 0, 0] = 1, 255
    removed = np.ones((2, 50, 50), bool)
    removed[:, :3, :3] = False
    noisy, plain = (metrics.noisy_linear_imputation(images, removed, noise=noise) for noise in (0.01, 0))
    noise = noisy - plain
    assert noise[0][removed[0]].std() == pytest.approx(0.01, rel=0.05)
    np.testing.assert_allclose(noise[1], 255 * noise[0], atol=1e-12)
    other = metrics.noisy_linear_imputation(images, removed, noise=0.01, seed=1)
    assert not np.allclose(other, noisy, atol=1e-4)


def test_images_do_not_depend_on_each_other():
    random = np.random.default_rng(6)
    images, removed = random.normal(size=(4, 9, 8, 2)), random.random((4, 9, 8)) < 0.6
    images[1] *= 1e6
    images[2] = np.nan
    together = metrics.noisy_linear_imputation(images, removed)
    apart = [metrics.noisy_linear_imputation(images[[i]], removed[[i]])[0] for i in range(4)]
    np.testing.assert_array_equal(together, apart)
    assert np.isnan(together[2]).all()
    assert np.isfinite(together[[0, 1, 3]]).all()


def test_what_is_removed_must_be_bool_and_fit():
    with pytest.raises(TypeError, match="`removed` must be bool"):
        metrics.noisy_linear_imputation(np.ones((1, 3, 3, 1)), np.ones((1, 3, 3)))
    with pytest.raises(ValueError, match=r"`removed` must have one value for each pixel of `images`"):
        metrics.noisy_linear_imputation(np.ones((1, 3, 3, 1)), np.ones((1, 3), bool))
    with pytest.raises(ValueError, match="`noise` must be a number of 0 or more"):
        metrics.noisy_linear_imputation(np.ones((1, 3, 3, 1)), np.ones((1, 3, 3), bool), noise=-1)


def test_baselines_by_hand():
    images = np.array([[[0.0, 10], [2, 30]], [[5, 5], [5, 5]]])  # (2, 2, 2): two signals, two channels
    fixed = {name: _imputation.Fill(images, name, 0).fixed for name in ("zero", "mean", "noise")}
    np.testing.assert_array_equal(fixed["zero"], 0)
    np.testing.assert_array_equal(fixed["mean"], [[[1, 20], [1, 20]], [[5, 5], [5, 5]]])
    noise = fixed["noise"]
    assert ((images.min(1, keepdims=True) <= noise) & (noise <= images.max(1, keepdims=True))).all()
    np.testing.assert_array_equal(noise[1], 5)
    assert len(np.unique(noise[0])) == 4
    assert not np.array_equal(_imputation.Fill(images, "noise", 1).fixed, noise)


def test_the_blur_is_that_of_rise_at_its_size_and_smaller_for_small_images():
    point = np.zeros((1, 224, 230, 1))
    point[0, 100, 120] = 1
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 5) ** 2)
    taps /= taps.sum()
    blurred = _imputation.blur(point)[0, ..., 0]
    np.testing.assert_allclose(blurred[95:106, 115:126], np.outer(taps, taps), atol=1e-15)
    assert np.count_nonzero(blurred) == 121
    small = _imputation.blur(point[:, 90:110, 110:130])
    assert np.count_nonzero(small) == 9
    np.testing.assert_allclose(small.sum(), 1)
    np.testing.assert_allclose(_imputation.blur(np.full((1, 30, 40, 2), 3.0)), 3)
    assert _imputation.blur(np.ones((1, 4, 3), "float32")).dtype == np.float32

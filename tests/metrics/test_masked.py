"""Average drop, increase, gain, coherency, complexity, ADCC and ARCC: numbers by hand."""

import numpy as np
import pytest

from tf_gradcam import metrics

IMAGES = np.ones((1, 2, 2, 1))
MAPS = np.array([[[1.0, 0], [0, 0]]])


def answers(full, masked):
    """A score of `full` for the whole image, `masked` for the image times a map."""
    return lambda images: np.where(images.mean(axis=(1, 2, 3)) == 1, full, masked)


@pytest.mark.parametrize(
    ("full", "masked", "drop", "grows", "gain"),
    [
        (0.8, 0.6, 0.25, 0, 0),
        (0.8, 0.9, 0, 1, 0.5),
        (0.8, 0.8, 0, 0, 0),
        (0.5, 0, 1, 0, 0),
        (0, 0.5, np.nan, 1, 0.5),
        (1, 0.75, 0.25, 0, np.nan),
        (0.5, np.nan, np.nan, np.nan, np.nan),
    ],
)
def test_drop_increase_and_gain_by_hand(full, masked, drop, grows, gain):
    score = answers(full, masked)
    for function, expected in (
        (metrics.average_drop, drop),
        (metrics.increase, grows),
        (metrics.average_gain, gain),
    ):
        np.testing.assert_allclose(function(score, IMAGES, MAPS), [expected], atol=1e-12)


def test_the_image_is_multiplied_by_the_positive_part_divided_by_its_maximum():
    seen = []

    def score(images):
        seen.append(images)
        return np.full(len(images), 0.5)

    images = np.full((1, 4, 2), 3, "float32")
    metrics.average_drop(score, images, [[-5.0, 0, 2, 4]])
    np.testing.assert_array_equal(seen[0][1], [[0, 0], [0, 0], [1.5, 1.5], [3, 3]])
    assert seen[0].dtype == np.float32
    metrics.average_drop(score, images, [[-5.0, -1, 0, -4]])  # blank
    np.testing.assert_array_equal(seen[1][1], np.zeros((4, 2)))


@pytest.mark.parametrize("value", [-0.1, 1.1, 12.0])
def test_logits_are_refused(value):
    for function in (metrics.average_drop, metrics.increase, metrics.average_gain):
        with pytest.raises(ValueError, match="`score` must return probabilities in"):
            function(answers(0.5, value), IMAGES, MAPS)


def test_coherency_is_1_for_the_same_map_0_for_its_negative_and_half_for_none():
    random = np.random.default_rng(0)
    images, maps = random.random((3, 4, 5, 2)), random.normal(size=(3, 4, 5))
    np.testing.assert_allclose(metrics.coherency(lambda _: 2 * maps + 1, images, maps), 1)
    np.testing.assert_allclose(metrics.coherency(lambda _: -maps, images, maps), 0, atol=1e-12)
    maps, other = np.array([[1.0, 1, 0, 0]]), np.array([[1.0, 0, 1, 0]])
    np.testing.assert_allclose(metrics.coherency(lambda _: other, np.ones((1, 4, 1)), maps), 0.5)
    assert np.isnan(metrics.coherency(lambda _: np.ones((1, 4)), np.ones((1, 4, 1)), maps))


def test_coherency_explains_all_masked_images_at_once_in_their_order():
    images = np.random.default_rng(1).random((5, 6, 1))
    maps = np.random.default_rng(2).random((5, 6))
    seen = []
    metrics.coherency(lambda masked: seen.append(masked) or masked[..., 0], images, maps)
    (masked,) = seen
    np.testing.assert_allclose(masked, images * (maps / maps.max(1, keepdims=True))[..., None])


def test_complexity_by_hand():
    maps = [[1, 1, 1, 1], [0, 3, 0, 0], [0, 0, 0, 0], [-1, -2, 2, 1]]
    np.testing.assert_allclose(metrics.complexity(maps), [1, 0.25, 0, 0.375])


def test_adcc_by_hand_and_of_each_image_is_not_that_of_the_means():
    np.testing.assert_allclose(metrics.adcc([1], [0.25], [0.2]), [0.837209], atol=5e-7)
    parts = [1, 1], [0, 0], [0, 1]
    np.testing.assert_allclose(metrics.adcc(*parts), [1, 0])
    assert metrics.adcc(*parts).mean() == 0.5
    of_means = metrics.adcc_of_means(*parts)
    assert of_means.value == pytest.approx(0.75)
    assert (of_means.low, of_means.high, of_means.counted, of_means.missing) == (0, 1, 2, 0)
    assert np.isnan(metrics.adcc([np.nan], [0.5], [0.5]))


def test_adcc_of_means_leaves_out_and_counts_images_without_one_of_the_parts():
    of_means = metrics.adcc_of_means([1, np.nan, 1], [0, 0, 0], [0, 0.5, 1])
    assert (of_means.value, of_means.counted, of_means.missing) == (pytest.approx(0.75), 2, 1)


def test_arcc_by_hand():
    np.testing.assert_allclose(metrics.arcc([1, 1, 1], [0, 0, 0], [0.25, -0.25, 0.75]), [0.75, 0, 1])
    assert np.isnan(metrics.arcc([1], [0], [np.nan]))


def test_the_parts_of_adcc_must_have_one_length():
    with pytest.raises(ValueError, match="`complexity` must be one number for each image .N,., as many as"):
        metrics.adcc([1, 1], [0], [0, 0])
    with pytest.raises(ValueError, match="`road` must be one number for each image"):
        metrics.arcc([1], [0], 0.5)

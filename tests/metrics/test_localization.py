"""Maps against masks: numbers by hand, loops over pixels, scikit-learn, OpenCV, blank maps, empty masks."""

import cv2
import numpy as np
import pytest
import sklearn.metrics

from tf_gradcam import metrics

AGAINST_MASKS = [
    metrics.pointing_game,
    metrics.energy,
    metrics.rank_accuracy,
    metrics.roc_auc,
    metrics.auprc,
    metrics.iou,
]
RANDOM = np.random.default_rng(0)
MAPS = RANDOM.normal(size=(6, 9, 10)).round(1)  # rounded: with equal values
MASKS = RANDOM.random((6, 9, 10)) < np.array([0.02, 0.1, 0.3, 0.5, 0.8, 0.95])[:, None, None]
MASKS[:, 3, 4] = True


def test_a_uniform_map_gets_the_share_of_the_area_and_an_auc_of_half():
    masks = np.zeros((1, 6, 8), bool)
    masks[0, 2:4, 1:7] = True  # 12 of 48
    uniform = np.ones((1, 6, 8))
    for function in (metrics.energy, metrics.rank_accuracy, metrics.auprc, metrics.iou):
        np.testing.assert_allclose(function(uniform, masks), [0.25])
    np.testing.assert_allclose(metrics.pointing_game(uniform, masks, tolerance=0), [0.25])
    np.testing.assert_allclose(metrics.roc_auc(uniform, masks), [0.5])


def test_a_blank_map_hits_by_its_share_and_has_no_energy():
    masks = np.zeros((1, 4, 4), bool)
    masks[0, 0, 0] = True
    blank = np.zeros((1, 4, 4))
    np.testing.assert_allclose(metrics.pointing_game(blank, masks, tolerance=0), [1 / 16])
    np.testing.assert_allclose(metrics.pointing_game(blank, masks, tolerance=1), [3 / 16])
    np.testing.assert_allclose(metrics.pointing_game(blank, masks), [1])  # Every pixel is within 15.
    np.testing.assert_allclose(metrics.iou(blank, masks), [0])
    assert np.isnan(metrics.energy(blank, masks))


@pytest.mark.parametrize("function", AGAINST_MASKS)
def test_an_empty_mask_is_nan_and_not_a_hit(function):
    masks = MASKS.copy()
    masks[2] = False
    result = function(MAPS, masks)
    np.testing.assert_array_equal(np.isnan(result), [False, False, True, False, False, False])
    masks[2] = True
    assert np.isnan(function(MAPS, masks)[2]) == (function is metrics.roc_auc)


@pytest.mark.parametrize("function", AGAINST_MASKS)
def test_boxes_are_masks(function):
    boxes = np.array([[2, 1, 5, 4]] * 6)
    masks = np.zeros((6, 9, 10), bool)
    masks[:, 1:4, 2:5] = True
    np.testing.assert_array_equal(function(MAPS, boxes), function(MAPS, masks))


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 2, 15])
def test_the_pointing_game_equals_a_loop_over_pixels(tolerance):
    maps = np.maximum(MAPS, 0)
    maps[3] = np.minimum(maps[3], 0.5)
    result = metrics.pointing_game(maps, MASKS, tolerance=tolerance)
    for row in range(6):
        peaks, objects = np.argwhere(maps[row] == maps[row].max()), np.argwhere(MASKS[row])
        hits = [any(((peak - place) ** 2).sum() <= tolerance**2 for place in objects) for peak in peaks]
        assert result[row] == pytest.approx(np.mean(hits))


def test_the_tolerance_is_a_circle_in_three_dimensions_too():
    maps, masks = np.zeros((4, 7, 7, 7)), np.zeros((4, 7, 7, 7), bool)
    masks[:, 3, 3, 3] = True
    for row, place in enumerate([(5, 4, 3), (5, 5, 4), (3, 3, 6), (2, 1, 1)]):
        maps[(row, *place)] = 1
    np.testing.assert_array_equal(metrics.pointing_game(maps, masks, tolerance=3), [1, 1, 1, 1])
    np.testing.assert_array_equal(metrics.pointing_game(maps, masks, tolerance=2.5), [1, 0, 0, 0])


def test_energy_equals_a_loop_over_pixels():
    result = metrics.energy(MAPS, MASKS)
    for row in range(6):
        pairs = list(zip(MAPS[row].ravel(), MASKS[row].ravel(), strict=True))
        inside = sum(max(value, 0) for value, hit in pairs if hit)
        assert result[row] == pytest.approx(inside / sum(max(value, 0) for value, _ in pairs))


def test_grid_pointing_is_the_energy_of_the_cell():
    maps = np.zeros((4, 5, 6))
    maps[:, 0, 0], maps[:, 1, 4], maps[:, 4, 1], maps[:, 4, 5] = 1, 2, 3, 4
    maps[:, 0, 1] = -9
    np.testing.assert_allclose(metrics.grid_pointing(maps, [0, 1, 2, 3]), [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(metrics.grid_pointing(np.ones((4, 6, 6)), [0, 1, 2, 3]), 0.25)
    np.testing.assert_allclose(metrics.grid_pointing(np.ones((2, 6, 6)), [0, 8], side=3), 1 / 9)
    np.testing.assert_allclose(metrics.grid_pointing(np.ones((1, 4, 4, 4)), [7]), 1 / 8)
    assert np.isnan(metrics.grid_pointing(np.zeros((1, 4, 4)), [0]))


def test_rank_accuracy_by_hand_and_with_ties_as_the_mean_over_all_choices():
    maps = np.array([[5.0, 4, 3, 2, 1, 0]])
    np.testing.assert_allclose(
        metrics.rank_accuracy(maps, [[True, False, True, True, False, False]]), [2 / 3]
    )
    maps = np.array([[9.0, 1, 1, 1, 0, 0]])  # one of three ones is among the two highest
    np.testing.assert_allclose(
        metrics.rank_accuracy(maps, [[True, True, False, False, False, False]]), [2 / 3]
    )
    untied = MAPS + np.random.default_rng(1).normal(size=MAPS.shape) * 1e-3
    for row in range(6):
        count = MASKS[row].sum()
        top = np.argsort(-untied[row].ravel())[:count]
        result = metrics.rank_accuracy(untied[[row]], MASKS[[row]])
        assert result[0] == pytest.approx(MASKS[row].ravel()[top].mean())


def test_roc_auc_counts_pairs_of_pixels():
    result = metrics.roc_auc(MAPS, MASKS)
    for row in range(6):
        inside, outside = MAPS[row][MASKS[row]], MAPS[row][~MASKS[row]]
        difference = inside[:, None] - outside
        assert result[row] == pytest.approx(((difference > 0) + 0.5 * (difference == 0)).mean(), abs=1e-12)
        expected = sklearn.metrics.roc_auc_score(MASKS[row].ravel(), MAPS[row].ravel())
        assert result[row] == pytest.approx(expected, abs=1e-12)


def test_auprc_is_average_precision():
    np.testing.assert_allclose(metrics.auprc([[4.0, 3, 2, 1]], [[True, False, True, False]]), [5 / 6])
    result = metrics.auprc(MAPS, MASKS)
    for row in range(6):
        expected = sklearn.metrics.average_precision_score(MASKS[row].ravel(), MAPS[row].ravel())
        assert result[row] == pytest.approx(expected, abs=1e-12)


def test_iou_by_hand():
    maps = np.array([[-9, 0, 0.15, 0.151, 0.5, 1]])
    masks = [[False, False, False, True, True, False]]
    np.testing.assert_allclose(metrics.iou(maps, masks), [2 / 3])
    np.testing.assert_allclose(metrics.iou(10 * maps, masks), [2 / 3])
    np.testing.assert_allclose(metrics.iou(maps, masks, threshold=0.4), [1 / 3])


def test_otsu_is_that_of_opencv():
    maps = np.random.default_rng(2).random((5, 30, 40)) ** 3
    maps[0, :, :20] += 1
    masks = np.random.default_rng(3).random((5, 30, 40)) < 0.3
    result = metrics.iou(maps, masks, threshold="otsu")
    for row in range(5):
        levels = np.round(255 * maps[row] / maps[row].max()).astype("uint8")
        _, found = cv2.threshold(levels, 0, 1, cv2.THRESH_OTSU)
        found = found.astype(bool)
        expected = (found & masks[row]).sum() / (found | masks[row]).sum()
        assert result[row] == pytest.approx(expected)


def test_arguments_are_checked():
    with pytest.raises(TypeError, match="`masks` must be bool"):
        metrics.energy(MAPS, MASKS.astype(int))
    with pytest.raises(
        ValueError, match=r"`masks` must have one value for each pixel of `maps`, here \(6, 9"
    ):
        metrics.energy(MAPS, MASKS[:5])
    with pytest.raises(ValueError, match="`tolerance` must be a number of 0 or more"):
        metrics.pointing_game(MAPS, MASKS, tolerance=-1)
    with pytest.raises(ValueError, match='`threshold` must be a number or "otsu"'):
        metrics.iou(MAPS, MASKS, threshold="Otsu's")
    for threshold in (0, 1, 15, None):
        with pytest.raises(ValueError, match="`threshold` must be a number above 0 and below 1"):
            metrics.iou(MAPS, MASKS, threshold=threshold)
    with pytest.raises(ValueError, match="`cells` must be an integer for each map"):
        metrics.grid_pointing(MAPS, [0, 1])
    with pytest.raises(ValueError, match="`cells` must be from 0 to 3"):
        metrics.grid_pointing(MAPS, [0, 1, 2, 3, 4, 0])
    with pytest.raises(ValueError, match="`side` must be at most the size of the maps"):
        metrics.grid_pointing(MAPS, [0] * 6, side=10)

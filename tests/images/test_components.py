"""Boxes and masks: tiny heatmaps drawn by hand, OpenCV's Otsu, and overlaps worked out by hand."""

import json
import types

import cv2
import numpy as np
import pytest
import tensorflow as tf

from tf_gradcam import HeatmapBox, box_iou, boxes, masks, targets

# Two parts above 0.15: on the left 4 pixels of 0.25, on the right 2 that touch at a corner, 1 and 0.5.
HEATMAP = np.array(
    [
        [0.00, 0.00, 0.00, 1.00, 0.00],
        [0.25, 0.25, 0.00, 0.00, 0.50],
        [0.25, 0.25, 0.00, 0.10, 0.00],
    ]
)
RIGHT = HeatmapBox((3, 0, 5, 2), 0.75, 1.5 / 2.6, 2)
LEFT = HeatmapBox((0, 1, 2, 3), 0.25, 1 / 2.6, 4)


def corners(found):
    return [each.box for each in found]


def blobs(side, count=1, seed=0):
    """Smooth random heatmaps."""
    noise = np.random.default_rng(seed).random((count, 9, 9), np.float32)
    return np.stack([cv2.resize(each, (side, side)) for each in noise])


# One heatmap


def test_boxes_are_corners_with_score_share_and_area_the_strongest_first():
    found = boxes(HEATMAP)
    assert corners(found) == [(3, 0, 5, 2), (0, 1, 2, 3)]
    for each, expected in zip(found, [RIGHT, LEFT], strict=True):
        assert each[1:] == pytest.approx(expected[1:])
        assert [type(number) for number in each.box] == [int] * 4
        assert (type(each.score), type(each.share), type(each.area)) == (float, float, int)


def test_masks_are_what_is_above_and_of_the_first_component_only_if_asked():
    expected = np.array([[0, 0, 0, 1, 0], [1, 1, 0, 0, 1], [1, 1, 0, 0, 0]], bool)
    assert masks(HEATMAP).dtype == bool
    np.testing.assert_array_equal(masks(HEATMAP), expected)
    np.testing.assert_array_equal(masks(HEATMAP, most=1), expected & [False, False, False, True, True])
    np.testing.assert_array_equal(
        masks(HEATMAP, most=1, sort="area"), expected & [True, True, False, False, False]
    )


@pytest.mark.parametrize(("sort", "first"), [("share", RIGHT.box), ("score", RIGHT.box), ("area", LEFT.box)])
def test_the_first_box_is_that_of_the_order_that_is_asked_for(sort, first):
    assert corners(boxes(HEATMAP, sort=sort, most=1)) == [first]
    assert len(boxes(HEATMAP, sort=sort, most=5)) == 2


def test_share_and_score_are_different_orders():
    wide_and_faint = np.array([[0.5, 0.5, 0.5, 0.0, 1.0]])
    assert corners(boxes(wide_and_faint)) == [(0, 0, 3, 1), (4, 0, 5, 1)]
    assert corners(boxes(wide_and_faint, sort="score")) == [(4, 0, 5, 1), (0, 0, 3, 1)]


def test_equal_boxes_are_in_order_from_top_to_bottom_then_from_left_to_right():
    checks = np.zeros((5, 5))
    checks[::2, ::2] = 1
    places = [(x, y, x + 1, y + 1) for y in (0, 2, 4) for x in (0, 2, 4)]
    for sort in ("share", "score", "area"):
        assert corners(boxes(checks, sort=sort)) == places
        assert corners(boxes(checks, sort=sort, most=2)) == places[:2]


def test_pixels_that_touch_at_a_corner_are_one_component_whose_area_is_not_that_of_its_box():
    (diagonal,) = boxes(np.eye(4))
    assert diagonal == HeatmapBox((0, 0, 4, 4), 1, 1, 4)
    (other_diagonal,) = boxes(np.eye(4)[:, ::-1])
    assert other_diagonal == diagonal


def test_a_heatmap_of_zeros_has_no_box_and_one_of_ones_is_a_box():
    for threshold in (0, 0.15, "otsu"):
        assert boxes(np.zeros((3, 4)), threshold) == []
        assert not masks(np.zeros((3, 4)), threshold).any()
        assert boxes(np.ones((3, 4)), threshold) == [HeatmapBox((0, 0, 4, 3), 1, 1, 12)]
    assert boxes([[1e-40]]) == [HeatmapBox((0, 0, 1, 1), pytest.approx(1e-40), 1, 1)]


def test_components_are_those_that_a_walk_over_the_neighbours_finds():
    noise = np.random.default_rng(0).random((12, 17))
    remaining = {(int(y), int(x)) for y, x in np.argwhere(noise > 0.6 * noise.max())}
    expected = set()
    while remaining:
        part, border = set(), {remaining.pop()}
        while border:
            part |= border
            around = {(y + i, x + j) for y, x in border for i in (-1, 0, 1) for j in (-1, 0, 1)}
            border = around & remaining
            remaining -= border
        ys, xs = zip(*part, strict=True)
        score = np.mean([noise[position] for position in part])
        expected.add((min(xs), min(ys), max(xs) + 1, max(ys) + 1, len(part), round(score, 9)))
    found = boxes(noise, 0.6)
    assert {(*each.box, each.area, round(each.score, 9)) for each in found} == expected
    assert sorted(found, key=lambda each: -each.share) == found


# Thresholds


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_value_at_the_threshold_is_not_above_it(dtype):
    # 0.1 of float32 is above 0.1 of float64.
    for threshold in np.linspace(0, 0.99, 100):
        heatmap = np.array([[threshold, 1]], dtype)
        threshold = float(heatmap[0, 0]) if dtype == "float16" else threshold
        assert masks(heatmap, threshold).tolist() == [[False, True]]


def test_the_threshold_is_a_fraction_of_each_maximum_or_of_one_scale():
    faint = 0.1 * HEATMAP
    assert corners(boxes(faint)) == corners(boxes(HEATMAP))
    assert boxes(faint, scale=1) == []
    assert corners(boxes(faint, 0.04, scale=1)) == [(3, 0, 5, 2)]
    assert corners(boxes(faint, 0.4, scale=0.1)) == [(3, 0, 5, 2)]
    assert boxes(HEATMAP, 1.5, scale=1) == []
    assert len(boxes(3 * HEATMAP, 1.5, scale=1)) == 1
    assert boxes(HEATMAP, 1e300, scale=1e300) == []


@pytest.mark.parametrize("seed", range(5))
def test_otsu_is_that_of_opencv(seed):
    heatmap = blobs(40, seed=seed)[0] ** 3
    heatmap /= heatmap.max()
    levels = np.rint(255 * heatmap).astype(np.uint8)
    _, expected = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(masks(heatmap, "otsu"), expected)
    np.testing.assert_array_equal(masks(2 * heatmap, "otsu"), expected)


def test_otsu_separates_two_heaps():
    heatmap = np.array([[0.1, 0.15, 0.2, 0.8, 0.85, 1]])
    assert masks(heatmap, "otsu").tolist() == [[False] * 3 + [True] * 3]


# The photograph's pixels


def test_boxes_and_masks_grow_with_the_photograph():
    assert corners(boxes(HEATMAP, size=(6, 20))) == [(12, 0, 20, 4), (0, 2, 8, 6)]
    first, _ = boxes(HEATMAP, size=(6, 20))
    assert first == RIGHT._replace(box=first.box, area=2 * 2 * 4, score=first.score, share=first.share)
    assert first[1:3] == pytest.approx(RIGHT[1:3])
    expected = np.repeat(np.repeat(masks(HEATMAP), 2, axis=0), 4, axis=1)
    np.testing.assert_array_equal(masks(HEATMAP, size=(6, 20)), expected)


@pytest.mark.parametrize("size", [(3, 5), (7, 8), (10, 9), [31, 100], np.array([6, 5], np.uint8)])
def test_a_box_is_the_tight_box_of_its_mask_in_a_photograph_of_any_larger_size(size):
    for sort in ("share", "area"):
        (found,) = boxes(HEATMAP, size=size, sort=sort, most=1)
        mask = masks(HEATMAP, size=size, sort=sort, most=1)
        assert mask.shape == tuple(size)
        ys, xs = np.nonzero(mask)
        assert found.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert found.area == len(ys)
    centres = [
        ((np.arange(new) + 0.5) * old / new).astype(int) for old, new in zip((3, 5), size, strict=True)
    ]
    np.testing.assert_array_equal(masks(HEATMAP, size=size), masks(HEATMAP)[np.ix_(*centres)])


def test_in_a_smaller_photograph_a_box_holds_its_mask_and_what_lies_between_the_pixels_is_left_out():
    heatmap = np.zeros((9, 9))
    heatmap[1, 1:8] = heatmap[4, 3] = 1  # The centres of a third are at 1, 4 and 7.
    assert corners(boxes(heatmap)) == [(1, 1, 8, 2), (3, 4, 4, 5)]
    (only,) = boxes(heatmap, size=(3, 3))
    assert (only.box, only.area) == ((0, 0, 3, 1), 3)
    assert masks(heatmap, size=(3, 3)).sum() == 3


# Batches and explanations


def test_a_batch_has_a_list_for_each_heatmap():
    batch = np.stack([HEATMAP, 0 * HEATMAP, HEATMAP[:, ::-1]])
    found = boxes(batch)
    assert [corners(each) for each in found] == [
        [(3, 0, 5, 2), (0, 1, 2, 3)],
        [],
        [(0, 0, 2, 2), (3, 1, 5, 3)],
    ]
    np.testing.assert_array_equal(masks(batch), [masks(each) for each in batch])
    assert boxes(tf.constant(batch)) == found
    assert boxes(batch[:0]) == []
    assert masks(batch[:0], size=(2, 2)).shape == (0, 2, 2)


def test_an_explanation_has_a_list_for_each_image_and_class():
    batch = np.stack([HEATMAP, 0 * HEATMAP, HEATMAP[:, ::-1], HEATMAP.T[:3, :3].repeat(2, 1)[:, 1:]])
    one = types.SimpleNamespace(heatmap=batch[:, :, :3], score=np.zeros(4))
    assert boxes(one) == boxes(batch[:, :, :3])
    bag = types.SimpleNamespace(heatmap=batch[:, :, :3], score=np.zeros(1))  # one score, a map for each
    assert boxes(bag) == boxes(one)
    classes = types.SimpleNamespace(heatmap=batch[:, :, :3].reshape(2, 2, 3, 3), score=np.zeros((2, 2)))
    flat = boxes(one)
    assert boxes(classes) == [flat[:2], flat[2:]]
    assert masks(classes, size=(4, 6)).shape == (2, 2, 4, 6)
    volume = types.SimpleNamespace(heatmap=np.zeros((2, 3, 4, 5)), score=np.zeros(2))
    with pytest.raises(
        ValueError, match=r"`heatmap` must be .*an Explanation with heatmaps of the shape \(2, 3"
    ):
        boxes(volume)


# What is refused


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01])
@pytest.mark.parametrize("call", [boxes, masks])
def test_a_heatmap_that_is_not_finite_or_signed_is_refused(call, value):
    heatmap = HEATMAP.copy()
    heatmap[0, 0] = value
    with pytest.raises(ValueError, match=r"`heatmap` must be finite, and 0 or more.*np\.maximum"):
        call(heatmap)


@pytest.mark.parametrize("shape", [(), (5,), (0, 5), (2, 3, 0), (2, 2, 3, 3)])
def test_a_heatmap_of_another_rank_is_refused(shape):
    for call in (boxes, masks):
        with pytest.raises(ValueError, match=r"`heatmap` must be \(H, W\), \(N, H, W\).*Received: shape"):
            call(np.zeros(shape))


def test_a_heatmap_larger_than_any_photograph_is_refused_before_memory_runs_out():
    with pytest.raises(ValueError, match="`heatmap` must have at most 100,000,000 pixels"):
        boxes(np.broadcast_to(np.float32(1), (10**6, 10**6)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"threshold": 1},
            "`threshold` must be 'otsu' or a number of 0 or more and below 1, or give `scale`",
        ),
        ({"threshold": -0.1, "scale": 1}, "`threshold` must be 'otsu' or a number of 0 or more. Received"),
        ({"threshold": np.nan}, "`threshold` must be"),
        ({"threshold": True}, "`threshold` must be"),
        ({"threshold": None}, "`threshold` must be"),
        ({"threshold": "Otsu"}, "`threshold` must be a number or 'otsu'. .*'Otsu'. Did you mean 'otsu'"),
        ({"threshold": "otsu", "scale": 1}, "`scale` must be None with threshold='otsu'"),
        ({"scale": 0}, "`scale` must be None or a number above 0"),
        ({"scale": "max"}, "`scale` must be None or a number above 0"),
        ({"size": (3,)}, r"`size` must be None or \(height, width\)"),
        ({"sort": "heat"}, "`sort` must be one of"),
        ({"sort": "scores"}, "`sort` must be one of .*Did you mean 'score'"),
        ({"most": 0}, "`most` must be None or a whole number from 1"),
        ({"most": 1.0}, "`most` must be None or a whole number from 1"),
    ],
    ids=str,
)
def test_an_odd_option_is_refused_by_its_name(options, message):
    for call in (boxes, masks):
        with pytest.raises(ValueError, match=message):
            call(HEATMAP, **options)


# COCO's form, and overlaps


def test_the_form_of_coco_has_width_and_height_and_is_json():
    found = [each.coco() for each in boxes(HEATMAP)]
    assert [each["bbox"] for each in found] == [[3, 0, 2, 2], [0, 1, 2, 2]]
    assert [each["area"] for each in found] == [2, 4]
    assert json.loads(json.dumps(found)) == found


def test_the_overlaps_are_those_worked_out_by_hand():
    ours = [(0, 0, 4, 2), (2, 1, 6, 3), (1, 1, 1, 5)]  # the last has no area
    given = [(0, 0, 4, 2), (4, 0, 8, 2), (0, 0, 8, 4)]
    # 2 x 1 of 8 + 8 - 2 pixels; 8 of 32
    expected = [[1, 0, 8 / 32], [2 / 14, 2 / 14, 8 / 32], [0, 0, 0]]
    np.testing.assert_allclose(box_iou(ours, given), expected, rtol=1e-12)
    np.testing.assert_allclose(box_iou(np.array(ours), tf.constant(given)), expected, rtol=1e-12)
    assert box_iou(ours, given[:1]).shape == (3, 1)
    assert box_iou([], given).shape == (0, 3)
    assert box_iou([(1, 1, 1, 5)], [(1, 1, 1, 5)]) == 0


def test_what_boxes_returns_overlaps_what_it_was_drawn_from():
    found = boxes(HEATMAP)
    np.testing.assert_array_equal(box_iou(found, [(3, 0, 5, 2), (0, 1, 2, 3)]), np.eye(2))
    np.testing.assert_array_equal(box_iou(found[:1], found), [[1, 0]])


def test_a_box_is_what_the_target_box_takes():
    """The detector's box that overlaps best is the same by both."""
    found = boxes(HEATMAP)[0]
    detected = np.array([[[0, 0, 2, 2], [2, 0, 5, 2], [3, 1, 5, 3]]], np.float32)
    scores = np.array([[[1.0], [2.0], [3.0]]], np.float32)
    overlaps = box_iou([found], detected[0])
    np.testing.assert_allclose(overlaps, [[0, 4 / 6, 2 / 6]])
    detector = tf.constant(detected), tf.constant(scores)
    score, _ = targets.Box([found.box], 0).score(detector, detector)
    assert score.numpy().tolist() == [scores[0, overlaps.argmax(), 0]]


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ((0, 0, 1, 1), r"`others` must be .*Received: shape \(4,\). Give a single box in a list"),
        ([(0, 0, 1)], r"`others` must be the boxes of one picture, \(A, 4\)"),
        (
            np.zeros((2, 3, 4)),
            "`others` must be the boxes of one picture.*of several pictures the boxes of one",
        ),
        ([(0, 0, np.nan, 1)], "`others` must have finite corners"),
        ([(5, 5, 2, 2)], r"`others` must have finite corners .*give \(x, y, x \+ width, y \+ height\)"),
    ],
)
def test_odd_boxes_are_refused(odd, message):
    with pytest.raises(ValueError, match=message):
        box_iou([(0, 0, 1, 1)], odd)
    with pytest.raises(ValueError, match=message.replace("others", "boxes")):
        box_iou(odd, [(0, 0, 1, 1)])

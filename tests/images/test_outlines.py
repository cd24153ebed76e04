"""Outlines lie where the level is crossed, boxes and masks where they are."""

import numpy as np
import pytest

import tf_gradcam
from tf_gradcam import contour, draw_boxes, draw_masks

SIDE = 128
GREY = np.full((SIDE, SIDE, 3), 128, np.uint8)
Y, X = np.mgrid[:SIDE, :SIDE]
RADII = np.hypot(X - 63.5, Y - 63.5)
CONE = np.clip(1 - RADII / 60, 0, 1)


def is_drawn(picture, ground=GREY):
    return (picture != ground).any(axis=-1)


@pytest.mark.parametrize("level", [0.25, 0.5, 0.75])
def test_a_contour_lies_where_the_level_is_crossed(level):
    picture = contour(GREY, CONE, level, width=2)
    line = np.abs(picture.astype(int) - 128).sum(axis=-1)
    radius = 60 * (1 - level)
    # The line is 2 pixels wide, with an edge of one more on both sides; a pixel is half covered at most.
    assert not is_drawn(picture)[np.abs(RADII - radius) > 2.75].any()
    assert is_drawn(picture)[np.abs(RADII - radius) < 2.25].all()
    color = tf_gradcam.colorize(np.array([[level]]), "turbo")[0, 0]
    on_line = picture[np.abs(RADII - radius) < 0.4]
    assert np.abs(on_line.astype(int) - color).max() <= 2
    assert line.max() > 50


def test_a_line_is_seen_on_black_and_on_white():
    for ground in (0, 255):
        photograph = np.full((SIDE, SIDE, 3), ground, np.uint8)
        picture = contour(photograph, CONE, [0.9, 0.5])
        assert np.abs(picture.astype(int) - ground).max() > 120


def test_signed_contours_run_on_both_sides_of_0():
    wave = np.sin(X / SIDE * 2 * np.pi) * 3
    picture = contour(GREY, wave, signed=True).astype(int)
    left, right = picture[:, : SIDE // 2], picture[:, SIDE // 2 :]
    assert (left[..., 0] - left[..., 2]).max() > 60 > (left[..., 2] - left[..., 0]).max()  # red is for
    assert (right[..., 2] - right[..., 0]).max() > 60 > (right[..., 0] - right[..., 2]).max()


def test_levels_that_are_not_reached_draw_nothing():
    np.testing.assert_array_equal(contour(GREY, 0.2 * CONE, 0.5), GREY)
    np.testing.assert_array_equal(contour(GREY, np.zeros((7, 7))), GREY)
    np.testing.assert_array_equal(contour(GREY, np.ones((7, 7))), GREY)
    assert is_drawn(contour(GREY, 0.2 * CONE, 0.5, vmax=0.2)).any()


def test_boxes_are_drawn_inside_their_edges_with_captions():
    boxes = [(20, 30, 60, 90), (70, 5, 100, 50)]
    picture = draw_boxes(GREY, boxes, width=2)
    white = (picture == 255).all(axis=-1)
    rows, columns = np.nonzero(white[:, :65])
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == boxes[0]
    assert not is_drawn(picture)[34:86, 24:56].any()  # the inside
    named = draw_boxes(GREY, boxes, captions=["first", ""], width=2)
    assert is_drawn(named, picture)[:30, 20:60].any()
    assert not is_drawn(named, picture)[:, 70:].any()
    np.testing.assert_array_equal(draw_boxes(GREY, []), GREY)
    found = tf_gradcam.boxes(CONE, 0.5)
    np.testing.assert_array_equal(draw_boxes(GREY, found), draw_boxes(GREY, [found[0].box]))
    assert (draw_boxes(GREY, found, color=(255, 0, 0)) == (255, 0, 0)).all(axis=-1).any()


def test_the_outline_of_a_mask_lies_on_its_edge():
    mask = RADII < 40
    picture = draw_masks(GREY, mask, width=2)
    white = (picture > 200).all(axis=-1)
    assert white.any()
    assert np.abs(RADII[white] - 40).max() < 2.1
    assert not is_drawn(picture)[np.abs(RADII - 40) > 4].any()
    both = draw_masks(GREY, np.stack([mask, RADII < 20]), width=2)
    assert is_drawn(both)[np.abs(RADII - 20) < 0.5].all()
    for mask in (np.zeros((SIDE, SIDE), bool), np.ones((SIDE, SIDE), bool)):
        np.testing.assert_array_equal(draw_masks(GREY, mask), GREY)


@pytest.mark.parametrize("levels", [0, 1, -0.5, [], [0.5, 2], "half", [[0.5]], True, np.nan])
def test_levels_outside_0_to_1_are_refused(levels):
    with pytest.raises(
        ValueError, match=r"`levels` must be numbers in \(0, 1\): shares of `vmax`. Received: levels="
    ):
        contour(GREY, CONE, levels)
    with pytest.raises(ValueError, match=r"`levels` must be numbers in \(-1, 1\), not 0"):
        contour(GREY, CONE, 0, signed=True)


@pytest.mark.parametrize("width", [0, -1, np.nan, "2", True, 1e9])
def test_a_width_that_is_none_is_refused(width):
    for draw in (lambda: contour(GREY, CONE, width=width), lambda: draw_boxes(GREY, [], width=width)):
        with pytest.raises(
            ValueError, match="`width` must be None or pixels from 0.5 to 1000. Received: width="
        ):
            draw()
    with pytest.raises(ValueError, match="`width` must be None or pixels"):
        draw_masks(GREY, CONE > 0.5, width=width)


def test_boxes_and_masks_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"`boxes` must be the boxes of one picture"):
        draw_boxes(GREY, (1, 2, 3, 4))
    with pytest.raises(ValueError, match="`captions` must have one line for each of 1 boxes. Received: 2"):
        draw_boxes(GREY, [(1, 2, 3, 4)], captions=["a", "b"])
    with pytest.raises(TypeError, match="`captions` must be a list of strings. Received: 1"):
        draw_boxes(GREY, [(1, 2, 3, 4)], captions=[1])
    for color in ((1, 2), (256, 0, 0), "red", (0.5, 0.5, 0.5)):
        with pytest.raises(ValueError, match="`color` must be"):
            draw_boxes(GREY, [], color=color)
    for masks in (np.ones((4, 4), bool), np.ones((SIDE, SIDE)), np.ones((1, 1, SIDE, SIDE), bool)):
        with pytest.raises(ValueError, match="`masks` must be bool"):
            draw_masks(GREY, masks)

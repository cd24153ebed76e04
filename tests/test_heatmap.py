"""From a signed map to a heatmap: size, ReLU, resize, divide; several in one."""

from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from tf_gradcam import _heatmap
from tf_gradcam._heatmap import (
    FUSIONS,
    INTERPOLATIONS,
    fuse_heatmaps,
    parse_interpolation,
    parse_size,
    to_heatmap,
)


def place_map(values, size, interpolation, placement=None):
    """Place a map in a graph, where bilinear ones are drawn by weights, and compare with eager mode."""
    eagerly = _heatmap.place_map(values, size, interpolation, placement)
    if interpolation != "bilinear" or placement is not None:
        return eagerly
    in_graph = tf.function(lambda *maps: _heatmap.place_map(*maps, "bilinear"), autograph=False)(values, size)
    np.testing.assert_allclose(in_graph, eagerly, atol=1e-6 * max(1, np.abs(eagerly).max(initial=0)))
    return in_graph


# Sizes


@pytest.mark.parametrize(
    "size", ["same", (), (0, 3), (2.5, 3), (1, 2, 3, 4), ((3, 4),), True, -1, (3, 2**14 + 1)]
)
def test_what_is_no_size_is_refused(size):
    with pytest.raises(ValueError, match="`size` must be"):
        parse_size(size)


def test_sizes_become_numbers():
    assert parse_size(None) is None
    assert parse_size("input") == "input"
    for size, expected in [(7, [7]), ((3, 4), [3, 4]), ([2, 3, 4], [2, 3, 4]), (np.array([5, 6]), [5, 6])]:
        assert parse_size(size).tolist() == expected
        assert parse_size(size).dtype == np.int32


def test_heatmaps_are_relu_then_resized_then_divided_by_their_maximum():
    signed_map = tf.constant([[[-1.0, 1.0], [2.0, -3.0]]])
    expected = tf.image.resize([[[0.0], [1.0]], [[2.0], [0.0]]], (5, 7))[..., 0].numpy()
    np.testing.assert_allclose(
        to_heatmap(signed_map, tf.constant([5, 7]), "bilinear")[0], expected / expected.max()
    )
    np.testing.assert_array_equal(to_heatmap(signed_map, None, "bilinear")[0], [[0, 0.5], [1, 0]])


def test_no_evidence_is_zeros():
    np.testing.assert_array_equal(
        to_heatmap(-tf.ones((1, 2, 3)), tf.constant([4, 5]), "bicubic"), np.zeros((1, 4, 5))
    )


def linear(values, size):
    """Linear interpolation between the centres of cells, the last one going on to the edge."""
    centres = (np.arange(size) + 0.5) * len(values) / size - 0.5
    return np.interp(centres, np.arange(len(values)), values)


def test_signals_and_volumes_are_interpolated_along_every_axis():
    random = np.random.default_rng(0)
    signal = random.uniform(size=(2, 5)).astype("float32")
    resized = place_map(tf.constant(signal), tf.constant([12]), "bilinear")
    np.testing.assert_allclose(resized, [linear(each, 12) for each in signal], rtol=1e-5)
    volume = random.uniform(size=(2, 3, 4, 5)).astype("float32")
    expected = volume
    for axis, size in enumerate((7, 9, 6), start=1):
        expected = np.apply_along_axis(linear, axis, expected, size)
    resized = place_map(tf.constant(volume), tf.constant([7, 9, 6]), "bilinear")
    np.testing.assert_allclose(resized, expected, rtol=1e-5)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_every_kernel_keeps_a_constant_on_every_grid(interpolation, rank):
    grid, size = (3, 4, 5, 2)[:rank], (6, 7, 4, 3)[:rank]
    resized = place_map(tf.fill((2, *grid), 0.5), tf.constant(size), interpolation)
    np.testing.assert_allclose(resized, np.full((2, *size), 0.5), atol=1e-5)


# Several heatmaps in one


def test_heatmaps_are_fused_by_mean_maximum_product_or_as_layercam():
    shallow = tf.constant([[[0.5, 1.0], [0.0, 0.25]]])
    deep = tf.constant([[[1.0, 0.0], [0.5, 0.5]]])
    fused = {fusion: fuse_heatmaps([shallow, deep], [16, 4], fusion)[0] for fusion in FUSIONS}
    np.testing.assert_allclose(fused["mean"], np.array([[0.75, 0.5], [0.25, 0.375]]) / 0.75)
    np.testing.assert_allclose(fused["max"], [[1, 1], [0.5, 0.5]])
    tanh = np.tanh(2 * shallow.numpy()[0])  # 0.76, 0.96, 0, 0.46
    np.testing.assert_allclose(fused["layercam"], [[1, tanh[0, 1]], [0.5, 0.5]], rtol=1e-6)
    # The products are 0.5, 0, 0 and 0.125.
    np.testing.assert_allclose(fused["refinecam"], [[1, 0], [0, 0.25]])


def test_layers_without_evidence_leave_the_others_as_they_are():
    heatmap = tf.constant([[[0.5, 1.0]]])
    for fusion in ("mean", "max"):
        np.testing.assert_allclose(fuse_heatmaps([heatmap, 0 * heatmap], [2, 2], fusion), heatmap)


class _Placement(NamedTuple):
    frame: tf.Tensor
    flipped: tf.Tensor | None = None
    order: tf.Tensor | None = None


@pytest.mark.parametrize("size", [(4, 6), (8, 12)])
def test_a_map_is_placed_where_it_lies(size):
    values = np.arange(1.0, 5).reshape(1, 2, 2)

    def placed(*placement):
        signed_map = tf.constant(values, tf.float32)
        found = place_map(signed_map, tf.constant(size), "nearest", _Placement(*placement))
        return found.numpy()[0, :: size[0] // 4, :: size[1] // 6]

    crop = tf.constant([[0.5, 1.0], [0.0, 2 / 3]])
    expected = np.zeros((4, 6))
    expected[2:, :4] = [[1, 1, 2, 2], [3, 3, 4, 4]]
    np.testing.assert_array_equal(placed(crop), expected)
    flipped = placed(crop[:, ::-1], tf.constant([True, True]))
    np.testing.assert_array_equal(flipped[2:, :4], expected[2:, :4][::-1, ::-1])
    np.testing.assert_array_equal(
        placed(crop, None, tf.constant([1, 0]))[2:, :4], [[1, 1, 3, 3], [2, 2, 4, 4]]
    )
    padded = tf.constant([[-0.5, 1.5], [0.0, 1.0]])  # a padding of half the height on either side
    np.testing.assert_array_equal(placed(padded), [[1] * 3 + [2] * 3] * 2 + [[3] * 3 + [4] * 3] * 2)
    outside = tf.constant([[1.5, 2.0], [0.0, 1.0]])
    np.testing.assert_array_equal(placed(outside), np.zeros((4, 6)))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("first", "last"), [(-3, 11), (2, 8), (0, 8), (5, 14), (9, 12)])
def test_a_map_is_interpolated_over_its_own_frame(first, last, flip):
    values = np.random.default_rng(0).random((2, 3, 4)).astype("float32")
    edges = (last, first) if flip else (first, last)
    placement = _Placement(tf.constant([edges, (0, 8)], tf.float32) / 8, tf.constant([flip, False]))
    found = place_map(tf.constant(values), tf.constant([8, 8]), "bilinear", placement)
    resized = tf.image.resize(values[..., None], (last - first, 8)).numpy()[..., 0]
    expected = np.zeros((2, 8, 8))
    for row in range(max(0, first), min(8, last)):
        expected[:, row] = resized[:, last - 1 - row if flip else row - first]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_no_maps_are_placed_as_no_maps():
    for grid in [(3,), (3, 4), (2, 3, 4)]:
        size = [2 * length for length in grid]
        assert place_map(tf.zeros((0, *grid)), tf.constant(size), "bilinear").shape == (0, *size)


def test_the_maximum_is_that_of_the_visible_part():
    signed_map = tf.constant([[[8.0, 8.0], [2.0, 1.0], [1.0, 2.0], [8.0, 8.0]]])
    padded = _Placement(tf.constant([[-0.5, 1.5], [0.0, 1.0]]))
    heatmap = to_heatmap(signed_map, tf.constant([2, 2]), "nearest", padded)
    np.testing.assert_array_equal(heatmap, [[[1, 0.5], [0.5, 1]]])


# The Gaussian


@pytest.mark.parametrize(
    ("grid", "size"), [((5,), (13,)), ((3, 4), (10, 7)), ((2, 3, 4), (5, 6, 7)), ((6, 5), (2, 3))]
)
@pytest.mark.parametrize("cells", [0.1, 0.8, 2.0])
def test_the_gaussian_is_a_mean_over_cells_weighted_by_their_distance(grid, size, cells):
    values = np.random.default_rng(0).uniform(size=(2, *grid))
    expected = values
    for axis, (count, length) in enumerate(zip(grid, size, strict=True), 1):
        weights = np.zeros((length, count))
        for pixel in range(length):
            centre = (pixel + 0.5) * count / length - 0.5
            deviation = cells * max(1, count / length)
            weights[pixel] = [np.exp(-0.5 * ((centre - cell) / deviation) ** 2) for cell in range(count)]
            weights[pixel] /= weights[pixel].sum()
        expected = np.moveaxis(np.tensordot(weights, expected, [1, axis]), 0, axis)
    found = place_map(tf.constant(values, tf.float32), tf.constant(size), ("gaussian", cells))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_gaussian_keeps_a_constant_and_draws_a_peak_round():
    flat = place_map(tf.fill([1, 3, 3], 2.0), tf.constant([9, 9]), ("gaussian", 0.8))
    np.testing.assert_allclose(flat, np.full((1, 9, 9), 2.0), rtol=1e-6)
    peak = tf.constant(
        [[[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 1.0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]]
    )
    drawn = place_map(peak, tf.constant([35, 35]), ("gaussian", 0.8))[0].numpy()
    assert np.unravel_index(drawn.argmax(), drawn.shape) == (17, 17)
    np.testing.assert_allclose(drawn[17, 10], drawn[10, 17], rtol=1e-5)


@pytest.mark.parametrize("interpolation", [("gaussian", 0.8), ["gaussian", 1], "gaussian", "area"])
def test_interpolations_that_are_known(interpolation):
    parsed = parse_interpolation(interpolation)
    assert parsed == (interpolation if isinstance(interpolation, str) else ("gaussian", interpolation[1]))


@pytest.mark.parametrize(
    "interpolation",
    [
        ("gaussian", 0),
        ("gaussian", "0.8"),
        ("bilinear", 1),
        ("gaussian",),
        ("gaussian", True),
        [np.zeros(3), 1],
        0.8,
        "gauss",
    ],
)
def test_interpolations_that_are_not(interpolation):
    with pytest.raises(ValueError, match="`interpolation` must be one of"):
        parse_interpolation(interpolation)

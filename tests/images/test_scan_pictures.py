"""Scans in `load_image`, `overlay` and `show`: which values are black and white, which slices are shown."""

import pathlib

import numpy as np
import pytest
from matplotlib import pyplot

import tf_gradcam
from tf_gradcam import formats
from tf_gradcam._images import hottest_slices


def make_scan(values, axes="yx", **about):
    return formats.Scan(values=values, axes=axes, format="made up", path=pathlib.Path("made.up"), **about)


CT = make_scan(np.array([[-1000, -160, 40, 240, 1000]], np.int16)[..., None], limits=(-1000.0, 1000.0))


# Black and white


@pytest.mark.parametrize(
    ("options", "grey"),
    [
        ({}, [0, 107, 133, 158, 255]),  # the file's own limits
        ({"window": (40, 400)}, [0, 0, 128, 255, 255]),
        ({"limits": (-160, 240)}, [0, 0, 128, 255, 255]),
        ({"percentiles": (25, 75)}, [0, 0, 128, 255, 255]),  # the second value and the fourth
    ],
)
def test_a_scan_is_shown_as_it_is_asked_for(options, grey):
    picture = tf_gradcam.load_image(CT, **options)
    np.testing.assert_array_equal(picture, np.repeat(np.array(grey)[None, :, None], 3, axis=-1))


def test_windows_of_the_file_are_taken_by_their_number():
    scan = make_scan(CT.values, windows=((0.0, 2000.0), (40.0, 400.0)))
    np.testing.assert_array_equal(scan.picture(window=1), CT.picture(window=(40, 400)))
    with pytest.raises(ValueError, match=r"`window` must be .* one of the file's 2 windows.*window=2"):
        scan.picture(window=2)


def test_nodata_is_black_and_in_no_percentile():
    values = np.array([[-9999, 10, 20, 30]], np.float32)[..., None]
    scan = make_scan(values, valid=np.array([[False, True, True, True]]))
    np.testing.assert_array_equal(scan.picture(percentiles=(0, 100))[0, :, 0], [0, 0, 128, 255])
    np.testing.assert_array_equal(scan.filled()[0, :, 0], [0, 10, 20, 30])
    np.testing.assert_array_equal(np.asarray(scan), scan.filled())


def test_bands_are_counted_from_1():
    values = np.arange(5, dtype=np.uint8) * np.ones((2, 2, 1), np.uint8)
    scan = make_scan(values)
    assert tf_gradcam.load_image(scan, bands=(5, 4, 1))[0, 0].tolist() == [4, 3, 0]
    assert tf_gradcam.load_image(scan, bands=(2,))[0, 0].tolist() == [1, 1, 1]
    assert tf_gradcam.load_image(values, bands=(5, 4, 1))[0, 0].tolist() == [4, 3, 0]  # an array likewise
    with pytest.raises(ValueError, match=r"`bands` must be one or three numbers of bands from 1 to 5"):
        scan.picture(bands=(0, 1, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": (40, 400), "limits": (0, 1)}, "Give one of `window`, `limits` and `percentiles`"),
        ({"window": (40, 0)}, r"`window` must be \(center, width\)"),
        ({"limits": (1, 1)}, r"`limits` must be \(low, high\)"),
        ({"percentiles": (0, 101)}, r"`percentiles` must be \(low, high\).* 0 <= low < high <= 100"),
        ({"window": 0}, "one of the file's 0 windows"),
    ],
)
@pytest.mark.parametrize("source", [CT, CT.values], ids=["scan", "array"])
def test_limits_that_are_none_are_refused(source, options, message):
    with pytest.raises(ValueError, match=message):
        tf_gradcam.load_image(source, **options)


@pytest.mark.parametrize("dtype", ["uint8", "bool", "float32"])
def test_values_with_a_range_of_their_own_are_shown_as_they_are(dtype):
    values = np.array([[0, 1]], dtype)[..., None]
    expected = {"uint8": [0, 1]}.get(dtype, [0, 255])
    assert make_scan(values).picture()[0, :, 0].tolist() == expected


def test_a_large_scene_is_thinned_out():
    scan = make_scan(np.broadcast_to(np.uint8(7), (9000, 10, 1)))
    assert scan.picture().shape == (3000, 10, 3)


# Volumes


def made_up_volume():
    values = np.zeros((40, 8, 8, 1), np.uint8)
    heatmap = np.zeros((10, 4, 4), np.float32)
    heatmap[5, 1, 2] = 1
    return make_scan(values, "zyx"), heatmap


def test_a_figure_of_a_volume_shows_the_slices_with_most_heat():
    scan, heatmap = made_up_volume()
    figure = tf_gradcam.show(scan, heatmap)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    pyplot.close(figure)
    # The map of cell 5 of 10 lies in the middle of slices 20 to 23, counted from 0.
    assert "slice 22 of 40" in titles or "slice 23 of 40" in titles
    assert len(titles) == 6


def test_an_overlay_of_a_volume_has_all_slices():
    scan, heatmap = made_up_volume()
    pictures = tf_gradcam.overlay(scan, heatmap, fade=True)
    assert pictures.shape == (40, 8, 8, 3)
    hottest = pictures.astype(int).sum(axis=-1).reshape(40, -1).max(axis=1)
    assert set(np.flatnonzero(hottest == hottest.max())) == {21, 22}
    assert hottest[10] == 0


def test_frames_are_named_by_their_seconds():
    values = np.zeros((3, 4, 4, 3), np.uint8)
    scan = make_scan(values, "tyx", times=np.array([0.0, 0.04, 0.12]))
    figure = tf_gradcam.show(scan, np.ones((3, 2, 2), np.float32))
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    pyplot.close(figure)
    assert titles == ["0.00 s", "0.04 s", "0.12 s"]


@pytest.mark.parametrize("space", ["RAS mm", "LPS mm"])
@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, 1), (-1, -1)], ids=str)
def test_a_patient_is_drawn_as_radiologists_look(space, signs):
    values = np.zeros((2, 4, 6, 1), np.uint8)
    affine = np.array([[0, 0, signs[1], 0], [0, signs[0], 0, 0], [2, 0, 0, 0]], float)
    scan = make_scan(values, "zyx", affine=affine, space=space)
    # The right front of the patient: the lowest x and y in LPS, the highest in RAS.
    corner = 1 if space == "LPS mm" else -1
    row, column = (0 if sign == corner else -1 for sign in signs)
    values[:, row, column] = 255
    shown = hottest_slices(scan, "heatmap", np.ones((2, 4, 6), np.float32))
    assert all(picture[0, 0, 0] == 255 for picture in shown.pictures)


def test_one_slice_of_a_volume_is_a_picture():
    scan, _ = made_up_volume()
    assert scan.picture(index=-1).shape == (8, 8, 3)
    with pytest.raises(IndexError, match="`index` must be below 40"):
        scan.picture(index=40)
    with pytest.raises(ValueError, match=r"`source` must be one image.*picture\(index=0\)"):
        tf_gradcam.load_image(scan)
    with pytest.raises(ValueError, match=r"`heatmap` must be \(d, h, w\)"):
        tf_gradcam.overlay(scan, np.ones((4, 4)))


# Places


def test_a_heatmap_on_its_own_grid_covers_the_same_place():
    affine = np.array([[10.0, 0, 500], [0, -10, 800]])  # the centres of rows are 10 apart
    scan = make_scan(np.zeros((6, 8, 1)), affine=affine, space="metres")
    scaled = formats._scan.scaled_affine(scan, (2, 2))
    edges = [affine @ [-0.5, -0.5, 1], affine @ [5.5, 7.5, 1]]
    np.testing.assert_allclose([scaled @ [-0.5, -0.5, 1], scaled @ [1.5, 1.5, 1]], edges)
    assert scan.spacing == (10, 10)
    np.testing.assert_allclose(scan.position((2, 3)), [520, 770])
    with pytest.raises(ValueError, match="`scan` must have a geometry"):
        CT.position((0, 0))

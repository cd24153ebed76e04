"""Which value gets the full colour: one scale, signed maps, and what an `Explanation` is drawn from."""

import pathlib
import types

import cv2
import matplotlib.pyplot
import numpy as np
import pytest
from conftest import SIDE, head

import tf_gradcam
from tf_gradcam import GradCAM, colorize, compare, overlay, show
from tf_gradcam._images.draw import colormap_colors
from tf_gradcam._images.enlarge import enlarge
from tf_gradcam.formats import Scan

GREY = np.full((14, 21, 3), 100, np.uint8)
RAMP = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def explained(maps, size=(14, 21), score=None):
    """An `Explanation` as `GradCAM` makes it: each map after ReLU, enlarged bilinearly, over its maximum."""
    maps = np.asarray(maps, np.float32)
    flat = [cv2.resize(np.maximum(each, 0), size[::-1]) for each in maps.reshape(-1, *maps.shape[-2:])]
    heatmaps = np.stack([each / (each.max() or 1) for each in flat]).reshape(*maps.shape[:-2], *size)
    score = np.zeros(maps.shape[:-2]) if score is None else np.asarray(score)
    return types.SimpleNamespace(heatmap=heatmaps, map=maps, score=score, target=None, outputs=None)


def panels(figure):
    return [axis.images[0].get_array() for axis in figure.axes if axis.images]


def words(figure):
    """What is written under the colour bar."""
    (bar,) = (axis for axis in figure.axes if axis.get_xlabel())
    return [tick.get_text() for tick in bar.get_xticklabels()], bar.get_xlabel()


# Enlarging


def test_enlarging_passes_through_the_cells_and_stays_between_them():
    values = np.random.default_rng(0).random((7, 5)).astype(np.float32)
    fitted = enlarge(values, (7 * 9, 5 * 9))
    np.testing.assert_allclose(fitted[4::9, 4::9], values, atol=1e-6)  # the centres of the cells
    assert fitted.min() >= values.min()
    assert fitted.max() <= values.max()
    peak = np.unravel_index(fitted.argmax(), fitted.shape)
    assert (peak[0] // 9, peak[1] // 9) == np.unravel_index(values.argmax(), values.shape)
    for row, column in np.ndindex(6, 4):  # between four cells no value is beyond them
        square = fitted[4 + 9 * row : 14 + 9 * row, 4 + 9 * column : 14 + 9 * column]
        four = values[row : row + 2, column : column + 2]
        assert four.min() - 1e-6 <= square.min()
        assert square.max() <= four.max() + 1e-6


def test_enlarging_has_no_creases():
    values = np.random.default_rng(1).random((6, 6)).astype(np.float32)
    smooth, creased = enlarge(values, (600, 600)), cv2.resize(values, (600, 600))
    # A crease is a jump of the slope from one pixel to the next.
    jumps = [np.abs(np.diff(each, n=2, axis=0)).max() for each in (smooth, creased)]
    assert jumps[0] < jumps[1] / 10


def test_a_straight_slope_stays_straight_and_a_fine_grid_is_averaged():
    ramp = np.arange(5, dtype=np.float32)[None].repeat(3, 0)
    fitted = enlarge(ramp, (3, 50))
    np.testing.assert_allclose(fitted[0, 15:35], np.arange(15, 35) / 10 - 0.45, atol=1e-5)
    np.testing.assert_allclose(
        enlarge(np.arange(16, dtype=np.float32).reshape(4, 4), (2, 2)), [[2.5, 4.5], [10.5, 12.5]]
    )
    assert enlarge(np.ones((600, 1), np.float32), (700, 9)).shape == (700, 9)


# One scale


def test_a_heatmap_of_0_leaves_the_photograph_byte_for_byte():
    photograph = np.random.default_rng(0).integers(0, 256, (14, 21, 3), dtype=np.uint8)
    for options in ({}, {"vmax": 3}, {"vmax": "batch"}, {"signed": True}, {"alpha": 1}):
        np.testing.assert_array_equal(overlay(photograph, np.zeros((2, 3)), **options), photograph)
    half = np.array([[0, 0, 1.0]])
    np.testing.assert_array_equal(overlay(photograph, half)[:, :10], photograph[:, :10])


def test_twice_the_vmax_is_half_the_heat():
    full, half = np.full((2, 3), 0.8), np.full((2, 3), 0.4)
    np.testing.assert_array_equal(overlay(GREY, full, vmax=2), overlay(GREY, half, vmax=1))
    np.testing.assert_array_equal(overlay(GREY, full * 1e3, vmax=2e3), overlay(GREY, half))
    np.testing.assert_array_equal(colorize(full, vmax=2), colorize(half))
    # 0.8 of 1.6 is 0.5: 100 + 0.7 * 0.5 * (colour - 100)
    expected = 100 + 0.35 * (colormap_colors("plasma")[128].astype(float) - 100)
    np.testing.assert_allclose(overlay(GREY, full, vmax=1.6)[0, 0], expected, atol=0.51)


def test_what_is_negative_is_0_and_what_is_above_vmax_is_full():
    np.testing.assert_array_equal(colorize(RAMP * 4, vmax=2), colorize(np.clip(RAMP * 2, 0, 1)))
    np.testing.assert_array_equal(colorize(RAMP, vmax="batch"), colorize(np.maximum(RAMP, 0)))


def test_vmax_of_an_explanation_is_in_the_units_of_its_map():
    found = explained([[[0, 2, 0], [0, 0, 4.0]]])
    smooth = np.array([[0, 0.5, 0], [0, 0, 1]])
    np.testing.assert_array_equal(overlay(GREY, found), overlay(GREY, smooth))
    np.testing.assert_array_equal(overlay(GREY, found, vmax=8), overlay(GREY, smooth / 2))
    np.testing.assert_array_equal(overlay(GREY, found, vmax=4), overlay(GREY, found))


def test_a_heatmap_that_is_not_its_map_enlarged_is_drawn_where_it_lies():
    found = explained([[[0, 2, 0], [0, 0, 4.0]]])
    placed = types.SimpleNamespace(**{**vars(found), "heatmap": np.roll(found.heatmap, 3, axis=2)})
    np.testing.assert_array_equal(overlay(GREY, placed), overlay(GREY, placed.heatmap[0]))
    np.testing.assert_array_equal(overlay(GREY, placed, vmax=8), overlay(GREY, placed.heatmap[0] / 2))


def test_rows_in_one_scale_show_which_image_has_less_evidence():
    found = explained([[[0, 4.0]], [[1.0, 0]]], score=[1, 2])
    own, batch = show([GREY] * 2, found), show([GREY] * 2, found, vmax="batch")
    assert [each.max() for each in panels(own)[1::3]] == [1, 1]
    assert [each.max() for each in panels(batch)[1::3]] == [1, 0.25]
    assert words(own) == (["0", "0.5", "1"], "each divided by its own maximum: not comparable")
    assert words(batch) == (["0", "2", "4"], "one scale for all, in the units of the map")
    assert words(show(GREY, np.full((2, 2), 0.4))) == (["0", "0.5", "1"], "heatmap as given")
    assert words(show([GREY] * 2, found, vmax=8))[0] == ["0", "4", "8"]


def test_the_classes_of_an_image_share_one_scale():
    maps = [[[[0, 4.0]], [[1.0, 0]]], [[[3.0, 0]], [[0, 6.0]]]]
    figure = show([GREY] * 2, explained(maps))
    assert [each.max() for each in panels(figure)[1::3]] == [1, 0.25, 0.5, 1]
    assert words(figure)[1] == "one scale for each image, and its maximum is 1"
    assert words(show(GREY, explained(maps[:1])))[0] == ["0", "2", "4"]
    without = explained(maps)
    without.map = (without.map, without.map)  # of two layers: no common unit
    figure = show([GREY] * 2, without)
    np.testing.assert_allclose([each.max() for each in panels(figure)[1::3]], 1, atol=1e-6)
    assert words(figure)[1] == "each divided by its own maximum: not comparable"
    for draw in (lambda: show([GREY] * 2, without, vmax=3), lambda: show([GREY] * 2, without, vmax="batch")):
        with pytest.raises(ValueError, match="`vmax` must be None for an Explanation of several layers"):
            draw()


def test_a_bag_of_images_keeps_its_one_scale():
    found = explained([[[0, 4.0]], [[1.0, 0]]], score=[7])
    found.heatmap[1] /= 4  # what `GradCAM` answers where one score explains all images
    figure = show([GREY] * 2, found)
    assert [each.max() for each in panels(figure)[1::3]] == [1, 0.25]


# Signed


def test_signed_0_is_neutral_and_the_ends_are_as_strong():
    colors = colormap_colors("blue_red").astype(int)
    assert np.ptp(colors[[127, 128]]) <= 1
    assert colors[127].min() > 240
    assert colors[0].argmax() == 2
    assert colors[255].argmax() == 0
    light = np.array([0.2126, 0.7152, 0.0722])
    steps = np.diff(((colors / 255) ** 2.2 @ light) ** (1 / 2.2))
    assert (steps[:126] > 0).all()
    assert (steps[129:] < 0).all()
    ramp = np.array([[-1.0, 0, 1]])
    np.testing.assert_array_equal(colorize(ramp, signed=True), [colors[[0, 128, 255]]])
    picture = overlay(GREY, np.array([[-3.0, 0, 3]]), signed=True, alpha=0.5)
    np.testing.assert_array_equal(picture[:, 10], GREY[:, 10])
    np.testing.assert_allclose(picture[0, [0, -1]], 50 + colors[[0, 255]] / 2, atol=0.51)


def test_the_signed_map_of_an_explanation_is_drawn():
    signed_map = np.array([[[-4.0, 0, 2]]])
    found = explained(signed_map)
    expected = overlay(GREY, signed_map[0] / 4, signed=True)
    np.testing.assert_array_equal(overlay(GREY, found, signed=True), expected)
    asked = types.SimpleNamespace(**{**vars(found), "heatmap": cv2.resize(signed_map[0] / 4, (21, 14))[None]})
    np.testing.assert_array_equal(overlay(GREY, asked, signed=True), expected)
    np.testing.assert_array_equal(
        overlay(GREY, found, signed=True, vmax=8), overlay(GREY, signed_map[0] / 8, signed=True, vmax=1)
    )
    figure = show(GREY, found, signed=True)
    assert words(figure) == (["against: -1", "0", "for: 1"], "divided by its own maximum")
    assert words(show(GREY, found, signed=True, vmax=8))[0] == ["against: -8", "0", "for: 8"]
    assert figure.axes[1].images[0].get_clim() == (-1, 1)


def test_a_signed_map_whose_place_is_unknown_is_refused():
    found = explained([[[-4.0, 0, 2]]])
    blank = explained([[[-4.0, -1, 0]]])
    found.heatmap = np.roll(found.heatmap, 3, axis=2)
    for each in (found, blank):
        with pytest.raises(ValueError, match=r"where its signed map lies.*cam\(images, signed=True\)"):
            overlay(GREY, each, signed=True)
    np.testing.assert_array_equal(  # what the error advises
        overlay(GREY, blank.map[0], signed=True), overlay(GREY, blank.map[0] / 4, signed=True)
    )
    blank.map = (blank.map, blank.map)
    with pytest.raises(ValueError, match="one signed map for each heatmap.*Explain one layer"):
        overlay(GREY, blank, signed=True)


@pytest.mark.parametrize("method", ["gradcam", "eigencam"])
def test_what_gradcam_answers_is_drawn_from_its_map(method):
    images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype="uint8")
    cam = GradCAM(head(activation="softmax"), method=method)
    found = cam(images)
    for index, image in enumerate(images):
        one = type(found)(*(each[index : index + 1] for each in found[:4]), found.outputs, found.heatmaps)
        positive = np.maximum(found.map[index], 0)
        np.testing.assert_array_equal(one.overlay(image), overlay(image, positive / positive.max()))
    signed = cam(images, signed=True)
    for drawn, expected in zip(
        panels(show(list(images), signed, signed=True)),
        panels(show(list(images), found, signed=True)),
        strict=True,
    ):
        np.testing.assert_allclose(drawn, expected, atol=1)
    top = float(np.max(found.map))
    np.testing.assert_allclose(
        panels(show(list(images), found, vmax=2 * top))[1::3],
        np.stack([enlarge(np.maximum(each, 0) / 2 / top, (SIDE, SIDE)) for each in found.map]),
        atol=1e-6,
    )


# Errors


@pytest.mark.parametrize("vmax", [0, -1, np.inf, np.nan, True, "batches", [1]])
def test_vmax_that_is_no_scale_is_refused(vmax):
    for draw in (overlay, show, tf_gradcam.contour):
        with pytest.raises(
            ValueError, match='`vmax` must be None, "batch" or a finite number above 0. Received: vmax='
        ):
            draw(GREY, np.zeros((2, 2)), vmax=vmax)
    with pytest.raises(ValueError, match="Did you mean 'batch'"):
        colorize(np.zeros((2, 2)), vmax="bach")


@pytest.mark.parametrize("name", ["signed", "fade"])
def test_what_is_no_bool_is_refused(name):
    for draw in (overlay, show):
        with pytest.raises(TypeError, match=f"`{name}` must be True or False. Received: {name}=1"):
            draw(GREY, np.zeros((2, 2)), **{name: 1})


def test_values_that_are_not_finite_are_refused():
    for options in ({"vmax": 1}, {"signed": True}, {"vmax": "batch"}):
        with pytest.raises(ValueError, match="`heatmap` must hold finite values"):
            overlay(GREY, np.array([[0, np.nan]]), **options)
        with pytest.raises(ValueError, match="`explanation` must hold finite values"):
            show(GREY, np.array([[0, np.inf]]), **options)


# Volumes and videos


def volume(axes="tyx"):
    times = np.arange(2) / 10 if axes == "tyx" else None
    values = np.full((2, 14, 21, 3), 100, np.uint8)
    return Scan(values=values, axes=axes, format="array", path=pathlib.Path("clip.npy"), times=times)


def test_the_frames_of_a_clip_are_drawn_in_one_scale():
    found = explained([[[0, 4.0]], [[1.0, 0]]])
    expected = [overlay(GREY, np.array(each)) for each in ([[0, 1.0]], [[0.25, 0]])]
    for drawn in (overlay(volume(), found), overlay(volume(), found, vmax=4)):
        np.testing.assert_array_equal(drawn, expected)
    figure = show(volume(), found)
    assert [each.max() for each in panels(figure)[1::3]] == [1, 0.25]
    faint = np.array([[[0, 0.4]], [[0.1, 0]]])  # an array is drawn as it is
    np.testing.assert_array_equal(overlay(volume(), faint)[0], overlay(GREY, faint[0]))
    np.testing.assert_array_equal(overlay(volume(), faint, vmax="batch"), expected)


def test_a_volume_is_drawn_signed_and_with_contours():
    heat = np.array([[[-2.0, 0, 1]], [[0, 0, 1]]])
    drawn = overlay(volume("zyx"), heat, signed=True)
    np.testing.assert_array_equal(drawn, [overlay(GREY, each, signed=True, vmax=2) for each in heat])
    lines = tf_gradcam.contour(volume("zyx"), np.abs(heat), 0.75, vmax=2)
    assert lines.shape == (2, 14, 21, 3)
    assert [(each != GREY).any() for each in lines] == [True, False]
    with pytest.raises(ValueError, match=r"`heatmap` must be \(d, h, w\), the heatmap of a volume or video"):
        tf_gradcam.contour(volume(), np.eye(3))


def test_a_blank_frame_does_not_make_the_others_faint():
    found = explained([[[0, 0.01]], [[-1.0, -1]]])
    assert [each.max() for each in panels(show(volume(), found))[1::3]] == [1, 0]
    np.testing.assert_array_equal(overlay(volume(), found)[0], overlay(GREY, np.array([[0, 1.0]])))
    assert words(show(volume(), found, vmax="batch"))[0] == ["0", "0.005", "0.01"]
    blank = explained(-np.ones((2, 1, 2)))
    assert words(show(volume(), blank)) == ([], "blank: nothing speaks for the target")


def words_of_slices(explanation, **options):
    return words(show(volume(), explanation, **options))


def test_the_colour_bar_of_slices_says_that_they_share_one_scale():
    heat = np.array([[[-2.0, 0, 1]], [[0, 0, 1]]])
    one_scale = "one scale for all, and its maximum is 1"
    assert words_of_slices(np.maximum(heat, 0)) == (["0", "0.5", "1"], one_scale)
    assert words_of_slices(heat, signed=True) == (["against: -1", "0", "for: 1"], one_scale)
    assert words_of_slices(np.maximum(heat, 0) / 2)[1] == "heatmaps as given, in one scale"
    assert words_of_slices(explained([[[0, 4.0]], [[1.0, 0]]]))[1] == one_scale
    assert words_of_slices(np.maximum(heat, 0), vmax=4) == (
        ["0", "2", "4"],
        "one scale for all, in the units of the map",
    )
    frames = explained([[[0, 4.0]], [[1.0, 0]]])
    frames.map = (frames.map, frames.map)  # of two layers: no common unit
    assert words_of_slices(frames)[1] == "each divided by its own maximum: not comparable"


def test_where_nothing_speaks_for_anything_the_colour_bar_has_no_numbers():
    classes = explained(-np.ones((2, 3, 2, 2)))
    classes.target = np.tile([1, 2, 3], (2, 1))
    for draw in (show, compare):
        for vmax in (None, "batch"):
            assert words(draw([GREY, GREY], classes, vmax=vmax)) == (
                [],
                "blank: nothing speaks for any class",
            )
    assert words(compare([GREY, GREY], classes, vmax=2))[0] == ["0", "1", "2"]
    blank = explained([[[-1.0, -2]]])
    assert words(show(GREY, blank)) == ([], "blank: nothing speaks for the target")
    nothing = explained([[[0.0, 0]]])
    nothing.target = np.array([3])
    assert words(show(GREY, nothing)) == ([], "blank: nothing speaks for the class")
    assert words(show(GREY, np.zeros((2, 2)))) == ([], "blank: no value is above 0")
    assert words(show(GREY, np.zeros((2, 2)), signed=True)) == ([], "blank: all values are 0")
    assert words_of_slices(np.zeros((2, 2, 2))) == ([], "blank: no value is above 0")


def test_grey_photographs_may_be_a_batch_without_channels():
    greys = np.arange(2 * 6 * 7, dtype=np.uint8).reshape(2, 6, 7)
    heat = np.random.default_rng(0).random((2, 3, 3))
    for drawn, expected in zip(panels(show(greys, heat)), panels(show(greys[..., None], heat)), strict=True):
        np.testing.assert_array_equal(drawn, expected)
    classes = explained(np.ones((2, 3, 2, 2)))
    assert len(panels(compare(greys, classes))) == 2 * 4
    for draw, other in ((show, heat[:1]), (show, heat[0]), (show, [*heat, np.eye(4)]), (compare, classes)):
        images = greys if draw is show else greys[:1]
        with pytest.raises(ValueError, match=r"Received: shape .* heatmaps for \d.*images\[\.\.\., None\]"):
            draw(images, other)


# A volume that is no `Scan`, and classes of a volume


def of_volume(classes=1):
    axes = (1, 2, 3, 3) if classes == 1 else (1, classes, 2, 3, 3)
    maps = np.random.default_rng(0).normal(size=axes)
    score = np.ones(maps.shape[:-3])
    return types.SimpleNamespace(
        heatmap=np.clip(maps, 0, 1), map=maps, score=score, target=np.ones(score.shape, int), outputs=None
    )


@pytest.mark.parametrize("draw", [show, overlay, tf_gradcam.montage, tf_gradcam.contour])
def test_an_array_of_a_volume_is_refused_with_what_can_be_drawn(draw):
    levels = {"levels": [0.5]} if draw is tf_gradcam.contour else {}
    found = of_volume()
    for raw in (np.full((2, 14, 21, 1), 400.0), np.full((2, 14, 21), 400.0)):
        for explanation in (found, found.heatmap):
            with pytest.raises(
                ValueError, match=r"must be a tf_gradcam.formats.Scan .*\(2, 14, 21.*one slice"
            ):
                draw(raw, explanation, **levels)


def test_several_classes_of_a_volume_are_refused_with_the_cure():
    for draw in (show, overlay, compare):
        with pytest.raises(ValueError, match="Explain one class"):
            draw(volume(), of_volume(2))
    with pytest.raises(ValueError, match="Explain one class"):
        compare(np.zeros((2, 14, 21, 1)), of_volume(2))


def test_the_class_of_a_volume_is_named_once_above_its_slices():
    found = of_volume()
    figure = show(volume("zyx"), found, labels=["healthy", "lesion"])
    assert figure.get_suptitle() == "lesion, score 1.00"
    assert [axis.get_title() for axis in figure.axes if axis.get_title()] == ["slice 1 of 2", "slice 2 of 2"]
    assert show(volume("zyx"), found).get_suptitle() == "class 1, score 1.00"
    assert show(volume("zyx"), found, titles=["a", "b"]).get_suptitle() == ""
    assert show(volume("zyx"), found.heatmap).get_suptitle() == ""
    for explanation, labels, message in (
        (found, ["x"], "`labels` must name every class"),
        (found.heatmap, ["x", "y"], "`labels` must go with an `Explanation` of classes"),
    ):
        with pytest.raises(ValueError, match=message):
            show(volume("zyx"), explanation, labels=labels)
    with pytest.raises(TypeError, match="`labels` must be"):
        show(volume("zyx"), found, labels="xy")


def test_frames_explained_one_by_one_are_named_one_by_one():
    found = explained([[[0, 4.0]], [[1.0, 0]]], score=[2, 3])
    found.target = np.array([1, 0])
    figure = show(volume(), found, labels=["still", "moving"])
    names = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert names == ["0.00 s: moving, score 2.00", "0.10 s: still, score 3.00"]
    assert figure.get_suptitle() == ""

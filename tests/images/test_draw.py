"""Pictures: the colours, the blend worked out by hand, and a figure in which things line up."""

import fractions
import pickle
import sys
import types

import cv2
import matplotlib.figure
import matplotlib.pyplot
import nbclient
import nbformat
import numpy as np
import PIL.Image
import pytest
import skimage.data
from conftest import SIDE, head

from tf_gradcam import GradCAM, targets
from tf_gradcam._images.draw import colorize, overlay, overlay_concepts
from tf_gradcam._images.figure import show
from tf_gradcam._images.titles import explanation_titles

COLD, HOT = (0, 0, 128), (128, 0, 0)  # the ends of jet, in RGB
GREY = np.full((2, 3, 3), 100, np.uint8)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture(scope="module")
def photograph():
    return skimage.data.chelsea()


@pytest.fixture(scope="module")
def heatmap():
    """A warm spot, on a grid as networks have it; its first row is cold."""
    y, x = np.mgrid[-1:1:7j, -1:1:7j]
    spot = np.exp(-4 * (y**2 + x**2)).astype(np.float32)
    spot[0] = 0
    return spot / spot.max()


def explanation(heatmaps, target=(285, 967), score=(9.312, -1.5), outputs=None):
    """What `GradCAM` answers, as far as it is drawn."""
    target = None if target is None else np.array(target)
    return types.SimpleNamespace(heatmap=heatmaps, score=np.array(score), target=target, outputs=outputs)


def softmax(logits):
    powers = np.exp(logits)
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-np.array(logits)))


def panels(figure):
    """The arrays that were drawn: for each row photograph, heatmap and overlay."""
    return [axis.images[0].get_array() for axis in figure.axes if axis.images]


def titles(figure):
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


# colorize


def test_jet_runs_from_dark_blue_to_dark_red_in_rgb():
    colours = colorize(np.array([[0.0, 0.5, 1.0]]), "jet")
    assert colours.dtype == np.uint8
    assert tuple(colours[0, 0]) == COLD
    assert tuple(colours[0, 2]) == HOT
    assert colours[0, 1].argmax() == 1  # green in the middle


@pytest.mark.parametrize("name", ["viridis", "Inferno", "TURBO"])
def test_another_colormap_is_the_one_matplotlib_knows(name):
    values = np.linspace(0, 1, 256)[None]
    expected = matplotlib.colormaps[name.lower()](values)[..., :3] * 255
    np.testing.assert_allclose(colorize(values, name), expected, atol=2)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("jett", "Did you mean 'jet'.*"), ("virdis", "Did you mean 'viridis'.*"), ("RdBu", "")],
)
def test_an_unknown_colormap_lists_the_known_ones_and_names_the_nearest(name, nearest):
    with pytest.raises(
        ValueError, match=rf"`colormap` must be one of .*inferno.*colormap='{name}'\. ?{nearest}$"
    ):
        colorize(np.zeros((2, 2)), name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01, 200])
def test_a_heatmap_outside_0_to_1_is_refused(photograph, value):
    heatmap = np.zeros((7, 7))
    heatmap[3, 3] = value
    draw = {"heatmap": [colorize, lambda heatmap: overlay(photograph, heatmap)]}
    draw["heatmaps"] = [lambda heatmap: overlay_concepts(photograph, heatmap[None])]
    draw["explanation"] = [lambda heatmap: show(GREY, heatmap)]
    for name, function in [(name, each) for name, functions in draw.items() for each in functions]:
        with pytest.raises(ValueError, match=rf"`{name}` must be in \[0, 1\].*signed map"):
            function(heatmap)


def test_a_hair_beyond_0_or_1_is_cut_off():
    np.testing.assert_array_equal(colorize(np.array([[-1e-7, 1 + 1e-7]]), "jet"), [[COLD, HOT]])


@pytest.mark.parametrize("shape", [(), (7,), (2, 7, 7), (7, 7, 1), (0, 7)])
def test_a_heatmap_of_another_rank_is_refused(shape):
    for draw in (colorize, lambda heatmap: overlay(GREY, heatmap)):
        with pytest.raises(ValueError, match=r"`heatmap` must have the shape \(H, W\). Received: shape \("):
            draw(np.zeros(shape))


def test_a_heatmap_or_colormap_of_another_type_is_a_type_error():
    with pytest.raises(TypeError, match="`heatmap` must be an array or tensor of real numbers"):
        colorize("heatmap")
    with pytest.raises(TypeError, match="`colormap` must be a name"):
        colorize(np.zeros((2, 2)), cv2.COLORMAP_JET)


# overlay


@pytest.mark.parametrize(
    ("value", "alpha", "fade", "pixel"),
    [
        (0, 0.4, False, (60, 60, 111)),  # 0.6 * 100 + 0.4 * (0, 0, 128)
        (1, 0.4, False, (111, 60, 60)),
        (0, 0.4, True, (100, 100, 100)),
        (1, 0.4, True, (111, 60, 60)),
        (0, 1, False, COLD),
        (1, 1, True, HOT),
        (1, 0, False, (100, 100, 100)),
        (1, 0.75, False, (121, 25, 25)),
    ],
)
def test_the_blend_is_the_one_worked_out_by_hand(value, alpha, fade, pixel):
    picture = overlay(GREY, np.full((2, 3), value), alpha=alpha, colormap="jet", fade=fade)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, np.broadcast_to(pixel, (2, 3, 3)))


def test_a_faded_overlay_weighs_the_colour_by_the_heatmap():
    heatmap = np.full((2, 3), 0.6)
    colour = colorize(heatmap)[0, 0].astype(float)
    expected = 0.7 * 100 + 0.3 * colour  # 0.5 * 0.6 = 0.3
    np.testing.assert_allclose(overlay(GREY, heatmap, alpha=0.5, fade=True)[0, 0], expected, atol=0.5)


def test_the_photograph_is_untouched_where_a_faded_heatmap_is_cold(photograph, heatmap):
    picture = overlay(photograph, heatmap, alpha=1, fade=True)
    cold = len(photograph) // 14  # the upper half of the grid's first row
    np.testing.assert_array_equal(picture[:cold], photograph[:cold])
    assert np.abs(picture[150] - photograph[150].astype(int)).max() > 50


def test_brightness_is_never_rescaled():
    dark = np.full((8, 8, 3), 10, np.uint8)
    assert (
        overlay(dark, np.ones((2, 2)), alpha=0.1, colormap="jet").max() == 22
    )  # 0.9 * 10 + 0.1 * 128 = 21.8
    dark[0, 0] = 255
    assert overlay(dark, np.ones((2, 2)), alpha=0.1, colormap="jet")[4, 4].tolist() == [22, 9, 9]


@pytest.mark.parametrize("fade", [True, False])
@pytest.mark.parametrize("number", [np.float64, np.float16, fractions.Fraction])
def test_alpha_may_be_any_number(number, fade):
    heatmap = np.linspace(0, 1, 6, dtype="float32").reshape(2, 3)
    drawn = [overlay(GREY, heatmap, alpha=alpha, fade=fade) for alpha in (number(0.5), 0.5)]
    np.testing.assert_array_equal(*drawn)


def test_alpha_0_is_the_photograph_and_alpha_1_the_colours(photograph):
    heatmap = np.random.default_rng(0).random(photograph.shape[:2])
    np.testing.assert_array_equal(overlay(photograph, heatmap, alpha=0), photograph)
    np.testing.assert_array_equal(overlay(photograph, heatmap, alpha=1, fade=False), colorize(heatmap))


@pytest.mark.parametrize("grid", [(1, 1), (7, 7), (1, 7, 7), (5, 9), (224, 224), (600, 31), (1000, 1500)])
def test_the_photograph_keeps_its_size_whatever_the_grid(photograph, grid):
    values = np.random.default_rng(0).random(grid)
    assert overlay(photograph, values).shape == photograph.shape


def test_averaging_that_ends_a_hair_beyond_1_is_still_1():
    # For this grid and size OpenCV's area means of ones come to 1.0000018.
    picture = overlay(np.zeros((1, 167), np.uint8), np.ones((126, 203)), alpha=1, colormap="jet")
    np.testing.assert_array_equal(picture, np.broadcast_to(HOT, (1, 167, 3)))


def test_the_heatmap_is_interpolated_and_not_mirrored():
    black = np.zeros((1, 4, 3), np.uint8)
    picture = overlay(black, np.array([[0.0, 1.0]]), alpha=1, fade=False)
    # 3 t^2 - 2 t^3 at a quarter and three quarters of the way between the cells
    np.testing.assert_array_equal(picture, colorize(np.array([[0, 0.15625, 0.84375, 1]])))


def test_red_stays_red_from_a_path_bytes_a_pil_image_and_an_array(tmp_path):
    red = PIL.Image.new("RGB", (8, 8), (250, 0, 0))
    path = tmp_path / "red.png"
    red.save(path)
    for image in (path, str(path), path.read_bytes(), red, np.asarray(red)):
        assert overlay(image, np.ones((2, 2)), alpha=0.5, colormap="jet")[4, 4].tolist() == [189, 0, 0]


def test_an_explanation_of_one_image_is_a_heatmap(photograph, heatmap):
    explained = types.SimpleNamespace(heatmap=heatmap[None])
    np.testing.assert_array_equal(overlay(photograph, explained), overlay(photograph, heatmap))


@pytest.mark.parametrize(
    ("count", "score", "received", "example"),
    [
        (2, np.zeros(2), r"\(2, 7, 7\)", r"heatmap\[0\]"),
        (1, np.zeros((1, 3)), r"\(1, 3, 7, 7\)", r"heatmap\[0, 0\]"),
        (2, np.zeros((2, 1)), r"\(2, 1, 7, 7\)", r"heatmap\[0, 0\]"),
        (2, np.zeros(1), r"\(2, 7, 7\)", r"heatmap\[0\]"),  # a bag of images with one score
    ],
)
def test_an_explanation_of_several_heatmaps_says_which_to_give(count, score, received, example):
    explained = types.SimpleNamespace(heatmap=np.zeros((count, *score.shape[1:], 7, 7)), score=score)
    with pytest.raises(ValueError, match=f"`heatmap` must be one heatmap. Received: .*{received}.*{example}"):
        overlay(GREY, explained)


def test_an_explanation_of_one_class_asked_for_in_a_list_is_one_heatmap(heatmap):
    explained = types.SimpleNamespace(heatmap=heatmap[None, None], score=np.zeros((1, 1)))
    np.testing.assert_array_equal(overlay(GREY, explained), overlay(GREY, heatmap))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, np.nan, "0.4", None, [0.4], True, np.True_])
def test_alpha_outside_0_to_1_is_refused(alpha):
    for draw in (overlay, show):
        with pytest.raises(ValueError, match=r"`alpha` must be a number in \[0, 1\]. Received: alpha="):
            draw(GREY, np.zeros((2, 2)), alpha=alpha)


def test_a_preprocessed_image_is_refused(photograph, heatmap):
    with pytest.raises(ValueError, match="the photograph"):
        overlay(photograph / 127.5 - 1, heatmap)


# overlay_concepts


def test_each_pixel_has_the_colour_of_its_strongest_concept():
    heatmaps = np.array([[[1, 0, 0.2]], [[0.5, 0, 0.8]]])
    picture = overlay_concepts(GREY[:1], heatmaps, alpha=1.0, colormap="hsv")
    # hsv begins in red, (255, 0, 0), and is cyan, (0, 255, 255), half way round; 0.8 of it over the grey of
    # 100: 100 + 0.8 * (0 - 100) = 20 and 100 + 0.8 * (255 - 100) = 224
    np.testing.assert_allclose(picture[0], [(255, 0, 0), (100, 100, 100), (20, 224, 224)], atol=6)


def test_alpha_and_colormap_change_the_concepts_too():
    heatmaps = np.ones((2, 2, 3))
    default = overlay_concepts(GREY, heatmaps)
    assert not np.array_equal(default, overlay_concepts(GREY, heatmaps, alpha=0.3))
    assert not np.array_equal(default, overlay_concepts(GREY, heatmaps, colormap="twilight"))
    np.testing.assert_array_equal(overlay_concepts(GREY, heatmaps, alpha=0), GREY)


@pytest.mark.parametrize("heatmaps", [np.ones((2, 2, 2, 3)), np.ones((2, 3)), np.ones((0, 2, 3))])
def test_concepts_must_be_those_of_one_image(heatmaps):
    with pytest.raises(ValueError, match="`heatmaps` must be"):
        overlay_concepts(GREY, heatmaps)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, "much", True])
def test_an_alpha_that_is_no_weight_is_refused_for_concepts_too(alpha):
    with pytest.raises(ValueError, match="`alpha` must be a number in"):
        overlay_concepts(GREY, np.ones((2, 2, 3)), alpha=alpha)


# show


def test_one_row_shows_photograph_heatmap_and_overlay(photograph, heatmap):
    figure = show(photograph, heatmap)
    assert isinstance(figure, matplotlib.figure.Figure)
    left, middle, right = panels(figure)
    np.testing.assert_array_equal(left, photograph)
    assert middle.shape == photograph.shape[:2]
    np.testing.assert_array_equal(right, overlay(photograph, heatmap))
    assert titles(figure) == []


def test_heatmap_panel_and_colour_bar_have_the_overlays_colours(photograph, heatmap):
    figure = show(photograph, heatmap, colormap="viridis")
    drawn = figure.axes[1].images[0]
    assert drawn.get_clim() == (0, 1)
    colours = np.rint(drawn.cmap(np.linspace(0, 1, 256))[:, :3] * 255)
    np.testing.assert_array_equal(colours, colorize(np.linspace(0, 1, 256)[None], "viridis")[0])
    assert drawn.colorbar.mappable is drawn
    assert [tick.get_text() for tick in drawn.colorbar.ax.get_xticklabels()] == ["0", "0.5", "1"]


def test_rows_of_an_explanation_are_titled_with_class_and_score(photograph, heatmap):
    images = [photograph, skimage.data.coffee()]
    heatmaps = np.stack([heatmap, heatmap[:, ::-1]])
    figure = show(images, explanation(heatmaps))
    assert titles(figure) == ["class 285, score 9.31", "class 967, score -1.50"]
    assert titles(show(images, explanation(heatmaps, target=None))) == ["score 9.31", "score -1.50"]
    assert titles(show(images, explanation(heatmaps), titles=["cat", "cup"])) == ["cat", "cup"]
    assert titles(show(photograph, heatmap, titles="cat")) == ["cat"]


def test_a_contact_sheet_has_a_row_for_each_image_of_any_size(heatmap):
    images = [skimage.data.chelsea(), skimage.data.coffee(), skimage.data.rocket()[:, 200:420]]
    heatmaps = [heatmap, np.zeros((14, 14)), np.ones((1, 3, 5))]
    figure = show(images, heatmaps)
    for index, (image, values) in enumerate(zip(images, heatmaps, strict=True)):
        left, _, right = panels(figure)[3 * index : 3 * index + 3]
        np.testing.assert_array_equal(left, image)
        np.testing.assert_array_equal(right, overlay(image, values))


def test_batches_are_lists(heatmap):
    batch = np.stack([skimage.data.chelsea()[:50, :60], skimage.data.coffee()[:50, :60]])
    heatmaps = np.stack([heatmap, 1 - heatmap])
    from_lists = panels(show(list(batch), list(heatmaps)))
    for drawn, expected in zip(panels(show(batch, heatmaps)), from_lists, strict=True):
        np.testing.assert_array_equal(drawn, expected)


def test_the_panels_line_up(photograph, heatmap):
    images = [photograph, skimage.data.astronaut(), skimage.data.rocket()[:, 200:420]]
    figure = show(images, [heatmap] * 3, titles=["cat", "a title that is much wider than its panel " * 2, ""])
    figure.draw_without_rendering()
    boxes = np.array([axis.get_position().bounds for axis in figure.axes if axis.images]).reshape(3, 3, 4)
    np.testing.assert_allclose(boxes[:, :, 1], boxes[:, :1, 1].repeat(3, 1), atol=1e-3)  # bottoms of a row
    np.testing.assert_allclose(boxes[:, :, 3], boxes[:, :1, 3].repeat(3, 1), atol=1e-3)  # heights of a row
    centres = boxes[:, :, 0] + boxes[:, :, 2] / 2
    np.testing.assert_allclose(centres, centres[:1].repeat(3, 0), atol=1e-3)
    bar = figure.axes[7].images[0].colorbar.ax.get_position()
    np.testing.assert_allclose([bar.x0, bar.width], boxes[0, 1, [0, 2]], atol=5e-3)
    np.testing.assert_allclose(
        boxes[1, :, 2], boxes[0, :, 2], atol=5e-3
    )  # a square is as wide as a landscape
    assert boxes[0, :, 2].sum() > 0.9  # hardly any blank between them


@pytest.mark.parametrize("shape", [(1, 1), (1, 1000), (1000, 1), (300, 20)])
def test_thin_images_still_make_a_figure_of_sane_size(heatmap, shape):
    figure = show(np.zeros(shape, np.uint8), heatmap, titles="thin")
    figure.draw_without_rendering()
    assert (figure.get_size_inches() > 1).all()
    assert (figure.get_size_inches() < 12).all()


def test_large_photographs_are_drawn_smaller(heatmap):
    left, middle, right = panels(show(np.zeros((300, 2400, 3), np.uint8), heatmap))
    assert left.shape == right.shape == (150, 1200, 3)
    assert middle.shape == (150, 1200)


def test_a_long_title_wraps_inside_the_figure(photograph, heatmap):
    figure = show(photograph, heatmap, titles="a title that is wider than the figure " * 5)
    figure.draw_without_rendering()
    title, frame = figure.axes[1].title.get_window_extent(), figure.bbox
    assert frame.x0 <= title.x0 < title.x1 <= frame.x1
    assert frame.y0 <= title.y0 < title.y1 <= frame.y1


def test_a_dollar_sign_in_a_title_is_no_mathematics(photograph, heatmap):
    show(photograph, heatmap, titles=r"cat $\broken{ 5$.png").draw_without_rendering()


@pytest.mark.parametrize(
    "change",
    [{"alpha": 0.8}, {"colormap": "viridis"}, {"fade": False}, {"vmax": 2}, {"signed": True}],
)
def test_every_option_changes_the_picture(photograph, heatmap, change):
    assert (overlay(photograph, heatmap, **change) != overlay(photograph, heatmap)).any()
    drawn = panels(show(photograph, heatmap, **change))[2]
    np.testing.assert_array_equal(drawn, overlay(photograph, heatmap, **change))


@pytest.mark.parametrize(
    ("images", "heatmaps", "titles", "message"),
    [
        (2, 1, None, "`explanation` must have one heatmap for each image.*Received: 1 for 2"),
        (1, 3, None, "`explanation` must have one heatmap for each image.*Received: 3 for 1"),
        (0, 0, None, "`explanation` must have one heatmap.*at least one"),
        (2, 2, "cat", "`titles` must have one title for each row.*Received: 1 for 2"),
        (1, 1, ["a", "b"], "`titles` must have one title for each row.*Received: 2 for 1"),
    ],
)
def test_numbers_that_do_not_match_are_refused_and_leave_no_figure(images, heatmaps, titles, message):
    with pytest.raises(ValueError, match=message):
        show([GREY] * images, [np.zeros((2, 2))] * heatmaps, titles=titles)
    assert matplotlib.pyplot.get_fignums() == []


@pytest.mark.parametrize("titles", [[281, 282], (None, "cat"), np.array([281, 282])])
def test_numbers_as_titles_are_refused(titles):
    with pytest.raises(
        TypeError, match=r"`titles` must be strings. Received: (281|None|np.int64).*str\(.*`labels`"
    ):
        show([GREY] * 2, [np.zeros((2, 2))] * 2, titles=titles)


# show: labels and probabilities

HEATMAPS = np.zeros((2, 2, 2))
LOGITS = np.array([[0.0, 2.0, 1.0], [3.0, -1.0, 0.0]])


@pytest.mark.parametrize(
    "labels", [["dog", "cat", "cup"], np.array(["dog", "cat", "cup"]), {1: "cat", 0: "dog"}]
)
def test_labels_name_the_classes(labels):
    explained = explanation(HEATMAPS, target=(1, 0))
    assert titles(show([GREY] * 2, explained, labels=labels)) == ["cat, score 9.31", "dog, score -1.50"]
    assert titles(show([GREY] * 2, explained, labels=labels, titles=["a", "b"])) == ["a", "b"]


def test_a_title_says_the_probability_of_a_softmax():
    # e^2 / (1 + e^2 + e^1) = 0.665 and e^3 / (e^3 + e^-1 + 1) = 0.936
    explained = explanation(HEATMAPS, (1, 0), (2.0, 3.0), softmax(LOGITS))
    expected = ["class 1 (probability 0.67), score 2.00", "class 0 (probability 0.94), score 3.00"]
    assert titles(show([GREY] * 2, explained)) == explanation_titles(explained) == expected
    explained.score = np.array([0.665, 0.936])  # of `targets.Probability`
    expected = ["class 1 (probability 0.67), score 0.67", "class 0 (probability 0.94), score 0.94"]
    assert explanation_titles(explained) == expected


def test_a_title_says_the_probability_of_each_of_several_sigmoids():
    # 1 / (1 + e^-2) = 0.881, 1 / (1 + e^-3) = 0.953
    explained = explanation(HEATMAPS, (1, 0), (2.0, 3.0), sigmoid(LOGITS))
    expected = ["class 1 (probability 0.88), score 2.00", "class 0 (probability 0.95), score 3.00"]
    assert explanation_titles(explained) == expected


@pytest.mark.parametrize("score", [(2.0, 3.0), (0.881, 0.953)], ids=["logits", "probabilities"])
def test_a_title_says_the_probability_of_the_side_of_a_single_sigmoid(score):
    outputs = sigmoid([[2.0], [-3.0]])  # the second image is on side 0
    explained = explanation(HEATMAPS, (1, 0), score, outputs)
    written = explanation_titles(explained, ["no", "yes"])
    first, second = (f"{value:.2f}" for value in score)
    assert written == [f"yes (probability 0.88), score {first}", f"no (probability 0.95), score {second}"]


@pytest.mark.parametrize(
    "outputs",
    [
        LOGITS,
        LOGITS / 10 + 0.5,  # in [0, 1], and still neither a softmax nor a sigmoid
        {"scores": softmax(LOGITS)},
        softmax(LOGITS)[:, None],
        softmax(LOGITS)[:1],
        softmax(LOGITS) * [[1], [np.nan]],
        np.array([[0.3], [0.7]]),
        softmax(LOGITS)[:, :1],
    ],
    ids=["logits", "in 0 to 1", "dict", "of pixels", "one image", "nan", "one unit", "fewer classes"],
)
def test_a_title_says_the_score_where_there_is_no_probability(outputs):
    explained = explanation(HEATMAPS, (1, 0), (2.5, 3.21), outputs)
    assert explanation_titles(explained) == ["class 1, score 2.50", "class 0, score 3.21"]


def test_a_tiny_probability_is_not_0():
    explained = explanation(HEATMAPS, (1, 1), (2.0, -1.0), np.array([[0.9951, 0.0049], [0.995, 0.005]]))
    expected = ["class 1 (probability < 0.01), score 2.00", "class 1 (probability 0.01), score -1.00"]
    assert explanation_titles(explained) == expected


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (["dog"], ValueError, "`labels` must name every class.*Received: 1 names, none for class 1"),
        ({0: "dog"}, ValueError, "`labels` must name every class.*Received: 1 names, none for class 1"),
        ([0, 1], TypeError, "`labels` must be strings. Received: 1 .of type int. for class 1"),
        ("cat", TypeError, "`labels` must be a sequence of names. Received: labels='cat'"),
        (3, TypeError, "`labels` must be a sequence of names. Received: labels=3"),
    ],
)
def test_labels_that_name_nothing_are_refused(labels, error, message):
    with pytest.raises(error, match=message):
        show([GREY] * 2, explanation(HEATMAPS, target=(1, 0)), labels=labels)
    assert matplotlib.pyplot.get_fignums() == []


@pytest.mark.parametrize("draw", [overlay, show])
def test_photograph_and_heatmap_exchanged_are_refused(draw):
    argument = {overlay: "heatmap", show: "explanation"}[draw]
    message = f"`image` must be the photograph.*Give the photograph first, then the {argument}"
    exchanged = [(np.zeros((2, 2)), given) for given in ("cat.jpg", b"", PIL.Image.new("RGB", (2, 2)))]
    for image, heatmap in [*exchanged, (explanation(HEATMAPS), GREY)]:
        with pytest.raises(TypeError, match=message):
            draw(image, heatmap)


@pytest.mark.parametrize("draw", [overlay, overlay_concepts, show])
@pytest.mark.parametrize(
    ("image", "error"),
    [
        (b"no image", ValueError),
        (object(), TypeError),
        (np.zeros((2, 3, 5)), ValueError),
        (np.full((2, 2, 3), 300), ValueError),
        (PIL.Image.fromarray(np.full((2, 2), -7, np.int32)), ValueError),
    ],
    ids=["bytes", "type", "shape", "range", "pillow"],
)
def test_an_error_about_the_photograph_names_image(draw, image, error):
    heatmap = np.zeros((1, 2, 2)) if draw is overlay_concepts else np.zeros((2, 2))
    with pytest.raises(error, match="^`image` must"):
        draw(image, heatmap)


def test_labels_without_classes_are_refused():
    for explained in (explanation(HEATMAPS, target=None), HEATMAPS):
        with pytest.raises(ValueError, match="`labels` must go with an `Explanation` of classes.*`titles`"):
            show([GREY] * 2, explained, labels=["dog", "cat"])


# show: several classes


def test_several_classes_have_a_row_each_image_by_image():
    heatmaps = np.random.default_rng(0).random((2, 3, 4, 5))
    images, classes = [GREY, GREY + 50], np.array([[1, 2, 0], [0, 2, 1]])
    logits = np.take_along_axis(LOGITS, classes, axis=1)
    explained = explanation(heatmaps, classes, logits, softmax(LOGITS))
    figure = show(images, explained, labels=["dog", "cat", "cup"])
    expected = [(image, heatmap) for image, each in zip(images, heatmaps, strict=True) for heatmap in each]
    for row, (image, heatmap) in enumerate(expected):
        left, _, right = panels(figure)[3 * row : 3 * row + 3]
        np.testing.assert_array_equal(left, image)
        np.testing.assert_array_equal(right, overlay(image, heatmap))
    assert titles(figure) == [
        "cat (probability 0.67), score 2.00",
        "cup (probability 0.24), score 1.00",
        "dog (probability 0.09), score 0.00",
        "dog (probability 0.94), score 3.00",
        "cup (probability 0.05), score 0.00",
        "cat (probability 0.02), score -1.00",
    ]
    assert titles(show(images, explained, titles=list("abcdef"))) == list("abcdef")
    for given in (list("ab"), list("abc")):
        with pytest.raises(ValueError, match=f"one title for each row.*Received: {len(given)} for 6"):
            show(images, explained, titles=given)
    with pytest.raises(ValueError, match="one heatmap for each image.*Received: 2 for 3"):
        show([*images, GREY], explained)


def test_classes_that_are_the_same_for_all_images_are_named_too():
    explained = explanation(np.zeros((2, 2, 2, 2)), (1, 0), [[2.0, 0.0], [-1.0, 3.0]], softmax(LOGITS))
    written = explanation_titles(explained)
    assert [title.partition(" (")[0] for title in written] == ["class 1", "class 0"] * 2


def test_explanations_of_one_image_each_may_be_listed(heatmap):
    listed = [types.SimpleNamespace(heatmap=each[None]) for each in (heatmap, heatmap[::-1])]
    from_arrays = panels(show([GREY] * 2, [heatmap, heatmap[::-1]]))
    for drawn, expected in zip(panels(show([GREY] * 2, listed)), from_arrays, strict=True):
        np.testing.assert_array_equal(drawn, expected)


def test_the_explanation_of_a_volume_is_no_row_of_classes():
    explained = explanation(np.zeros((1, 3, 4, 5)), (1,), (2.0,))
    with pytest.raises(
        ValueError,
        match=r"`image` must be a .*Scan of a volume.*Received: an array of shape \(2, 3, 3\).* or one slice",
    ):
        show(GREY, explained)


@pytest.fixture(scope="module")
def photographs_of_the_network():
    return np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype="uint8")


def test_what_gradcam_answers_is_drawn_with_labels_and_probabilities(photographs_of_the_network):
    images = photographs_of_the_network
    cam = GradCAM(head(activation="softmax"))
    explained = cam(images, targets.TopClasses(3))
    figure = show(list(images), explained, labels=["dog", "cat", "cup"])
    assert len(panels(figure)) == 2 * 3 * 3
    best = np.argsort(-explained.outputs.numpy(), axis=1)
    assert [title.partition(" (")[0] for title in titles(figure)] == [
        ["dog", "cat", "cup"][index] for index in best.ravel()
    ]
    probabilities = np.take_along_axis(explained.outputs.numpy(), best, axis=1).ravel()
    expected = [f"{value:.2f}" if value >= 0.005 else "< 0.01" for value in probabilities]
    written = [title.partition("probability ")[2].partition(")")[0] for title in titles(figure)]
    assert written == expected
    alone = cam(images[:1], targets.TopClasses(3))
    assert len(panels(show(images[0], alone))) == 3 * 3
    with pytest.raises(ValueError, match=r"shape \(1, 3, 17, 17\). Give one of them, .*heatmap\[0, 0\]"):
        overlay(images[0], alone)


@pytest.mark.parametrize("target", [targets.Against(1), targets.Contrast(1, 0)], ids=["Against", "Contrast"])
def test_a_title_says_the_score_of_what_speaks_against_a_class(target, photographs_of_the_network):
    images = photographs_of_the_network[:1]
    explained = GradCAM(head(activation="softmax"))(images, target)
    index, score = int(explained.target[0]), float(explained.score[0])
    probability = float(explained.outputs[0, index])
    (title,) = titles(show(images, explained, labels=["dog", "cat", "cup"]))
    assert title == f"{['dog', 'cat', 'cup'][index]} (probability {probability:.2f}), score {score:.2f}"


def test_what_gradcam_answers_of_logits_is_drawn_with_scores(photographs_of_the_network):
    images = photographs_of_the_network
    explained = GradCAM(head())(images)
    classes, scores = explained.outputs.numpy().argmax(1), explained.outputs.numpy().max(1)
    expected = [f"class {index}, score {score:.2f}" for index, score in zip(classes, scores, strict=True)]
    assert titles(show(images, explained)) == expected


# show: in a notebook

CELLS = {  # what is in a cell, and how many pictures that must draw
    "import tf_gradcam, numpy as np\nG, H = np.full((6, 8, 3), 100, 'uint8'), np.eye(3)": 0,
    "tf_gradcam.show(G, H)": 1,
    "tf_gradcam.show(G, H);": 1,
    "tf_gradcam.show(G, H)\nprint('after')": 1,
    "for _ in range(3):\n    tf_gradcam.show(G, H)": 3,
    "tf_gradcam.show(G, H)\ntf_gradcam.show(G, H)": 2,
    "figure = tf_gradcam.show(G, H)\nfigure.suptitle('cat')\nfigure": 1,
    "figure": 1,
    "from IPython.display import display\ndisplay(tf_gradcam.show(G, H))\nprint('after')": 1,
    "import matplotlib.pyplot as plt\ntf_gradcam.show(G, H)\nplt.show()": 1,
    "figure.savefig(__import__('io').BytesIO())\nassert plt.get_fignums() == []": 0,
    "%config InlineBackend.close_figures = False\ntf_gradcam.show(G, H)": 1,
}


@pytest.mark.slow
# The kernel's own machinery: it is torn down while its sockets are still being closed.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_notebook_draws_every_figure_once():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    drawn = {
        cell.source: sum("image/png" in output.get("data", {}) for output in cell.outputs)
        for cell in notebook.cells
    }
    assert drawn == CELLS


def test_a_figure_that_ipython_displays_is_not_drawn_again_by_the_inline_backend(monkeypatch, heatmap):
    figure = show(GREY, heatmap)
    assert figure._repr_mimebundle_(include=None, exclude=None) == {}
    assert matplotlib.pyplot.fignum_exists(figure.number)  # Agg draws nothing at the end of a cell.
    monkeypatch.setattr(matplotlib, "get_backend", lambda: "module://matplotlib_inline.backend_inline")
    assert figure._repr_mimebundle_(include=None, exclude=None) == {}
    assert matplotlib.pyplot.get_fignums() == []


def test_a_figure_is_pickled_as_any_other(heatmap):
    again = pickle.loads(pickle.dumps(show(GREY, heatmap, titles="cat")))
    assert titles(again) == ["cat"]


# Optional packages


def test_without_opencv_the_error_says_what_to_install(monkeypatch, heatmap):
    monkeypatch.setitem(sys.modules, "cv2", None)
    for draw in (lambda: colorize(heatmap), lambda: overlay(GREY, heatmap), lambda: show(GREY, heatmap)):
        with pytest.raises(ImportError, match="pip install opencv-python"):
            draw()


def test_without_matplotlib_only_figures_fail_and_say_what_to_install(monkeypatch, heatmap):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    assert overlay(GREY, heatmap).shape == GREY.shape
    with pytest.raises(ImportError, match="pip install matplotlib$"):
        show(GREY, heatmap)

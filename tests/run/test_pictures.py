"""The pictures: those of the library, of the asked format, and comparisons that cut no title."""

import pathlib

import keras
import numpy as np
import pytest
from conftest import build
from photo_files import LABELS, classify, run, write_photo

import tf_gradcam
from tf_gradcam._run import Finding, Request
from tf_gradcam._run.pictures import find_boxes


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def classifier():
    return classify(build("functional"), labels=LABELS)


def overlays_of(classifier, *photos, **asked):
    rows = run(classifier, *photos, **asked)
    return [pathlib.Path("gradcam", row["overlay"]).read_bytes() for row in rows]


def test_the_pictures_are_those_of_the_library_at_the_size_of_the_photograph(classifier):
    photo = write_photo("photo.png", size=(40, 23))
    run(classifier, photo, alpha=0.7, colormap="turbo", fade=True)
    image = tf_gradcam.load_image(photo, size=(17, 17)) / np.float32(255)
    # An explanation is drawn from the layer's grid, without the facets of a heatmap that was enlarged before.
    found = tf_gradcam.GradCAM(classifier.model)(image, size=(40, 23))
    overlay = tf_gradcam.overlay(photo, found, alpha=0.7, colormap="turbo", fade=True)
    heatmap = tf_gradcam.overlay(photo, found, alpha=1, colormap="turbo", fade=False)
    faceted = tf_gradcam.overlay(photo, found.heatmap, alpha=0.7, colormap="turbo", fade=True)
    assert np.abs(faceted.astype(int) - overlay).max() > 8
    written = [tf_gradcam.load_image(f"gradcam/photo-{kind}.png") for kind in ("heatmap", "overlay")]
    for picture, expected in zip(written, [heatmap, overlay], strict=True):
        assert picture.shape == (40, 23, 3)
        # A heatmap of another batch may differ in its last bit, and the colour by one step.
        assert np.abs(picture.astype(int) - expected).max() <= 4


def test_one_scale_and_contours_are_those_of_the_library(classifier):
    photo = write_photo("photo.png", size=(17, 17))
    image = tf_gradcam.load_image(photo) / np.float32(255)
    found = tf_gradcam.GradCAM(classifier.model)(image)
    top = float(np.max(found.map))
    assert top > 0
    (row,) = run(classifier, photo, vmax=2 * top)
    half = tf_gradcam.overlay(photo, found, vmax=2 * top)
    drawn = tf_gradcam.load_image(pathlib.Path("gradcam", row["overlay"]))
    assert np.abs(drawn.astype(int) - half).max() <= 4
    (row,) = run(classifier, photo, contour=(0.3, 0.6), out="lines")
    drawn = tf_gradcam.load_image(pathlib.Path("lines", row["overlay"]))
    expected = tf_gradcam.contour(photo, found, (0.3, 0.6))
    assert np.abs(drawn.astype(int) - expected).mean() < 1
    with pytest.raises(ValueError, match="`vmax` must be None for several layers"):
        run(classifier, photo, vmax=1, layer=("conv1", "conv2"))


def test_the_pictures_can_be_jpeg_files(classifier):
    photo = write_photo("photo.png", size=(40, 23))
    run(classifier, photo)
    (row,) = run(classifier, photo, format="jpg", out="small")
    assert [row["overlay"], row["heatmap"]] == ["photo-overlay.jpg", "photo-heatmap.jpg"]
    for kind in ("overlay", "heatmap"):
        written = pathlib.Path(f"small/photo-{kind}.jpg")
        assert written.read_bytes().startswith(b"\xff\xd8\xff")
        exact = tf_gradcam.load_image(f"gradcam/photo-{kind}.png")
        lossy = tf_gradcam.load_image(written)
        assert (lossy != exact).any()
        # The photograph is noise, of which only the mean colour outlives the compression.
        np.testing.assert_allclose(lossy.mean((0, 1)), exact.mean((0, 1)), atol=4)


@pytest.mark.parametrize("threshold", [0.9, "otsu"])
def test_a_row_has_its_boxes_if_asked_and_the_overlay_shows_them(threshold, classifier):
    photo = write_photo("photo.png", size=(40, 23))
    (plain,) = run(classifier, photo, out="plain")
    (row,) = run(classifier, photo, boxes=threshold)
    image = tf_gradcam.load_image(photo, size=(17, 17)) / np.float32(255)
    heatmap = tf_gradcam.make_gradcam_heatmap(classifier.model, image, size=(40, 23))
    expected = tf_gradcam.boxes(heatmap, threshold)
    found = row.pop("boxes")
    assert {**row, "seconds": plain["seconds"]} == plain  # and without the option a row has no boxes
    assert [(each["bbox"], each["area"]) for each in found] == [
        (each.coco()["bbox"], each.area) for each in expected
    ]
    assert [each["score"] for each in found] == pytest.approx([each.score for each in expected], abs=1e-4)
    before, after = (
        tf_gradcam.load_image(f"{out}/photo-overlay.png").astype(int) for out in ("plain", "gradcam")
    )
    x, y, width, height = found[0]["bbox"]
    for column in (x, x + width - 1):
        assert (after[y : y + height, column] == 255).all()
    for line in (y, y + height - 1):
        assert (after[line, x : x + width] == 255).all()
    far = np.ones((40, 23), bool)  # from each frame, which has a black edge
    for x, y, width, height in (each["bbox"] for each in found):
        far[max(y - 2, 0) : y + height + 2, max(x - 2, 0) : x + width + 2] = False
    assert far.any() or threshold == "otsu"
    np.testing.assert_array_equal(after[far], before[far])


def test_a_map_of_many_specks_has_100_boxes_and_a_blank_one_none():
    image, specks = np.zeros((60, 60, 3), np.uint8), np.zeros((60, 60), np.float32)
    request = Request(pathlib.Path("gradcam"), boxes=0.5)
    assert find_boxes(Finding({}, image, specks), request) == []
    specks[::2, ::2] = 1
    assert len(tf_gradcam.boxes(specks, 0.5)) == 900
    assert find_boxes(Finding({}, image, specks), request) == tf_gradcam.boxes(specks, 0.5, most=100)


def test_an_odd_threshold_is_refused_before_anything_is_written(classifier):
    photo = write_photo("photo.png")
    with pytest.raises(ValueError, match="`threshold` must be 'otsu' or a number.*Received: threshold=2"):
        run(classifier, photo, boxes=2)
    assert not pathlib.Path("gradcam").exists()


def test_several_layers_are_named_in_the_row_and_fused_as_asked(classifier):
    photo, layers = write_photo("a.png"), ["conv1", "relu2"]
    overlays = set()
    for fusion in ("mean", "max"):
        (row,) = run(classifier, photo, layer=layers, fuse=fusion)
        overlays.add(pathlib.Path("gradcam", row["overlay"]).read_bytes())
    assert len(overlays) == 2
    assert row["layer"] == "conv1, relu2"


def test_a_model_with_channels_first_sees_the_same():
    def classifier(data_format, shape):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Conv2D(4, 3, data_format=data_format)]
        layers += [keras.layers.GlobalAveragePooling2D(data_format=data_format), keras.layers.Dense(3)]
        return classify(keras.Sequential([keras.Input(shape), *layers]))

    photo = write_photo("a.png")
    last = overlays_of(classifier("channels_last", (9, 12, 3)), photo)
    assert overlays_of(classifier("channels_first", (3, 9, 12)), photo) == last


# Several methods


@pytest.mark.slow
def test_a_comparison_wraps_into_rows_and_cuts_no_title(classifier):
    labels = [f"${label}$ whose name is so long that it stands in two lines or more" for label in LABELS]
    classifier = classifier._replace(labels=tuple(labels))
    shapes = []
    for names in ("gradcam,layercam", "gradcam,layercam,eigencam,hirescam,gradient"):
        run(classifier, write_photo("a.png", size=(30, 30)), methods=tuple(names.split(",")))
        picture = tf_gradcam.load_image("gradcam/a-methods.png")
        edges = [picture[0], picture[-1], picture[:, 0], picture[:, -1]]
        assert all((edge == 255).all() for edge in edges)
        shapes.append(picture.shape)
    one_row, two_rows = shapes  # of 3 panels each
    assert two_rows[1] == one_row[1]
    assert 1.8 * one_row[0] < two_rows[0] < 2 * one_row[0]


@pytest.mark.slow
def test_a_budget_of_channels_changes_the_map_of_the_methods_that_have_one(classifier):
    photo, several = write_photo("a.png"), ("gradcam", "scorecam")
    all_channels = overlays_of(classifier, photo, methods=several)
    one_channel = overlays_of(classifier, photo, methods=several, channels=1)
    assert all_channels[0] == one_channel[0]
    assert all_channels[1] != one_channel[1]


def test_a_method_among_several_draws_what_it_draws_alone(classifier):
    photo = write_photo("a.png")
    run(classifier, photo, methods=("layercam", "gradient_x_input"), layer="conv1", out="both")
    run(classifier, photo, methods=("layercam",), layer="conv1", out="alone")
    for kind in ("overlay", "heatmap"):
        alone = pathlib.Path(f"alone/a-{kind}.png").read_bytes()
        assert pathlib.Path(f"both/a-layercam-{kind}.png").read_bytes() == alone
        assert pathlib.Path(f"both/a-gradient_x_input-{kind}.png").read_bytes() != alone

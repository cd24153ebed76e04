"""Montages have the hottest first, each picture in its place; files are whole; classes stand side by side."""

import pathlib
import types

import cv2
import matplotlib.pyplot
import numpy as np
import pytest

import tf_gradcam
from tf_gradcam import compare, formats, montage, overlay, save

COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (9, 9, 9)]
PICTURES = [np.full((20, 30, 3), color, np.uint8) for color in COLORS]
GREY = np.full((8, 12, 3), 100, np.uint8)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def volume(times=None):
    scan = formats.Scan(
        values=np.full((24, 8, 8, 1), 50, np.uint8),
        axes="zyx" if times is None else "tyx",
        format="array",
        path=pathlib.Path("scan.npy"),
        times=times,
    )
    heat = np.zeros((24, 4, 4), np.float32)
    for place, value in ((3, 0.2), (12, 1.0), (20, 0.6)):
        heat[place, 1, 2] = value
    return scan, heat


def colors_at(sheet, places):
    return [tuple(map(int, sheet[place])) for place in places]


def panels(figure):
    return [axis.images[0].get_array() for axis in figure.axes if axis.images]


# montage


def test_pictures_lie_in_rows_in_their_order():
    sheet = montage(PICTURES, columns=2, side=30)
    assert sheet.shape == (3 * 20 + 4 * 4, 2 * 30 + 3 * 4, 3)
    places = [(4 + 24 * row + 10, 4 + 34 * column + 15) for row in range(3) for column in range(2)]
    assert colors_at(sheet, places) == [*COLORS, (255, 255, 255)]
    np.testing.assert_array_equal(montage(np.stack(PICTURES), columns=2, side=30), sheet)
    assert montage(PICTURES, side=30).shape[1] == 3 * 30 + 4 * 4  # 3 columns for 5 pictures


def test_captions_have_a_line_of_their_own_and_are_cut_to_the_width():
    plain, named = (montage(PICTURES[:1], side=128, captions=each) for each in (None, ["é" * 200]))
    assert len(named) > len(plain)
    assert named.shape[1] == plain.shape[1]
    line = len(named) - len(plain)
    np.testing.assert_array_equal(named[4 + line :], plain[4:])
    assert named[4 : 4 + line, 4:-4].min() < 100  # letters
    assert named[:, :4].min() == 255


def test_pictures_of_any_size_are_scaled_to_one_side():
    sheet = montage([np.zeros((400, 100, 3), np.uint8), np.zeros((10, 20), np.uint8)], side=64)
    black = (sheet == 0).all(axis=-1)
    assert black[:, 4:68].any(axis=1).sum() == 64
    assert black[:, 72:].any(axis=1).sum() == 32
    assert black[:, 72:].any(axis=0).sum() == 64


def test_a_montage_of_a_volume_begins_with_the_hottest_slice():
    scan, heat = volume()
    sheet = montage(scan, heat, most=3, columns=3, side=64)
    line = len(sheet) - 64 - 8
    drawn = [sheet[4 + line : 68 + line, 4 + 68 * column : 68 + 68 * column] for column in range(3)]
    strength = [np.abs(each.astype(int) - 50).max() for each in drawn]
    assert strength == sorted(strength, reverse=True)
    assert strength[0] > strength[1] + 20 > strength[2] + 40
    slice_13 = np.full((64, 64, 3), 50, np.uint8)
    np.testing.assert_array_equal(drawn[0], overlay(slice_13, heat[12]))
    video, heat = volume(np.arange(24) / 10)
    assert montage(video, heat, most=1, side=64).shape == (64 + line + 8, 72, 3)


def test_heatmaps_of_a_montage_are_in_one_scale():
    heatmaps = [np.full((2, 3), 4.0), np.full((2, 3), 1.0)]
    sheet = montage([GREY, GREY], heatmaps, columns=2, side=16)
    full, quarter = (overlay(GREY, np.full((2, 3), value))[0, 0] for value in (1, 0.25))
    assert colors_at(sheet, [(8, 10), (8, 30)]) == [tuple(full), tuple(quarter)]
    own = montage([GREY, GREY], [each / each.max() for each in heatmaps], columns=2, side=16, vmax=None)
    assert colors_at(own, [(8, 10), (8, 30)]) == [tuple(full), tuple(full)]


def test_wrong_arguments_of_a_montage_are_refused():
    scan, heat = volume()
    for name, value in (("side", 15), ("side", 1.5), ("most", 0), ("columns", 0), ("columns", True)):
        with pytest.raises(ValueError, match=f"`{name}` must be a whole number from .*{name}={value}"):
            montage(PICTURES, **{name: value})
    with pytest.raises(ValueError, match="`images` must have at least one picture"):
        montage([])
    with pytest.raises(ValueError, match="`captions` must have one for each of 5 images. Received: 1"):
        montage(PICTURES, captions=["a"])
    for captions in ("abcde", [1] * 5):
        with pytest.raises(TypeError, match="`captions` must be a list of strings"):
            montage(PICTURES, captions=captions)
    with pytest.raises(ValueError, match="`heatmaps` must have one for each of 5 images. Received: 2"):
        montage(PICTURES, [np.ones((2, 2))] * 2)
    with pytest.raises(ValueError, match="`heatmaps` must say which slices"):
        montage(scan)
    with pytest.raises(ValueError, match="`captions` must be None for a volume or video"):
        montage(scan, heat, captions=["a"])
    with pytest.raises(ValueError, match="^`images` must"):
        montage([np.full((2, 2, 3), 300)])
    with pytest.raises(TypeError, match="`images` must be the photograph"):
        montage(np.ones((2, 2, 2)), "cat.jpg")


# save


@pytest.mark.parametrize("ending", [".png", ".tif", ".TIFF", ".bmp", ".webp", ".jpg", ".jpeg"])
def test_a_saved_picture_is_read_again(tmp_path, ending):
    picture = np.zeros((24, 32, 3), np.uint8)
    picture[:, :16] = (255, 0, 0)
    save(tmp_path / f"picture{ending}", picture, quality=100)
    again = tf_gradcam.load_image(tmp_path / f"picture{ending}")
    atol = 40 if ending in (".jpg", ".jpeg", ".webp") else 0
    np.testing.assert_allclose(again[:, [2, -2]].astype(int), picture[:, [2, -2]].astype(int), atol=atol)
    save(str(tmp_path / f"grey{ending}"), picture[..., 0])
    assert len(list(tmp_path.iterdir())) == 2  # and no unfinished file


def test_the_quality_of_a_jpeg_is_chosen(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    sizes = []
    for quality in (20, 95):
        save(tmp_path / "noise.jpg", noise, quality=quality)
        sizes.append((tmp_path / "noise.jpg").stat().st_size)
    assert sizes[0] < sizes[1] / 2


def test_figures_are_saved_too(tmp_path):
    figure = tf_gradcam.show(GREY, np.eye(2))
    for ending in (".png", ".pdf", ".svg", ".jpg"):
        save(tmp_path / f"figure{ending}", figure)
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert tf_gradcam.load_image(tmp_path / "figure.png").shape[1] > 500
    with pytest.raises(ValueError, match=r"`path` must end in one of .*\.svg. Received: path='figure.bmp'"):
        save("figure.bmp", figure)


def test_what_is_no_picture_is_refused_and_the_earlier_file_kept(tmp_path):
    path = tmp_path / "picture.png"
    save(path, GREY)
    before = path.read_bytes()
    wrong = [
        np.zeros((2, 2, 3)),
        np.zeros((3, 2, 2, 3), np.uint8),
        np.zeros((2, 2, 4), np.uint8),
        np.zeros((0, 2), np.uint8),
    ]
    for picture in wrong:
        with pytest.raises(ValueError, match="`picture` must be uint8"):
            save(path, picture)
    with pytest.raises(TypeError, match="`picture` must be a uint8 array, or the figure"):
        save(path, "cat.jpg")
    for name in ("picture", "picture.gif", "picture.svg"):
        with pytest.raises(ValueError, match="`path` must end in one of .png"):
            save(tmp_path / name, GREY)
    for quality in (0, 101, 9.5, True):
        with pytest.raises(ValueError, match="`quality` must be a whole number from 1 to 100"):
            save(path, GREY, quality=quality)
    with pytest.raises(ValueError, match="`picture` must fit into the format .jpg"):
        save(tmp_path / "long.jpg", np.zeros((1, 70_000), np.uint8))
    with pytest.raises(OSError, match="nowhere"):
        save(tmp_path / "nowhere" / "picture.png", GREY)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["picture.png"]


# compare


def explained(images, classes):
    maps = np.zeros((images, classes, 2, 3), np.float32)
    for place in np.ndindex(images, classes):
        maps[place][0, place[1]] = 4 / (1 + sum(place))
    flat = [cv2.resize(each, (12, 8)) for each in maps.reshape(-1, 2, 3)]
    heatmaps = np.stack([each / each.max() for each in flat]).reshape(images, classes, 8, 12)
    score = np.zeros((images, classes))
    target = np.tile(np.arange(classes), (images, 1))
    return types.SimpleNamespace(heatmap=heatmaps, map=maps, score=score, target=target, outputs=None)


def test_class_stands_against_class_in_one_scale():
    found = explained(1, 3)
    figure = compare(GREY, found, labels=["cat", "dog", "cup"])
    photograph, *overlays = panels(figure)[:4]
    np.testing.assert_array_equal(photograph, GREY)
    for drawn, values in zip(overlays, found.map[0], strict=True):
        np.testing.assert_array_equal(drawn, overlay(GREY, values / 4))
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ["cat, score 0.00", "dog, score 0.00", "cup, score 0.00"]
    assert "one scale for all, in the units of the map" in [axis.get_xlabel() for axis in figure.axes]


def test_each_image_has_a_row_and_a_scale():
    figure = compare([GREY, GREY], explained(2, 2), titles=list("abcd"))
    assert len([axis for axis in figure.axes if axis.images]) == 2 * 3
    assert "one scale for each image, and its maximum is 1" in [axis.get_xlabel() for axis in figure.axes]


def test_heatmaps_of_several_methods_stand_side_by_side_and_titles_inside():
    figure = compare(
        GREY, [np.eye(2), 0.5 * np.eye(2)], titles=["a title much too long for one panel " * 2, "$b"]
    )
    np.testing.assert_array_equal(panels(figure)[2], overlay(GREY, 0.5 * np.eye(2)))
    figure.draw_without_rendering()
    for axis in figure.axes:
        box = axis.title.get_window_extent()
        assert not axis.get_title() or box.y1 <= figure.bbox.y1 + 1


def test_numbers_that_do_not_match_are_refused_by_compare():
    with pytest.raises(
        ValueError, match="`image` must be one photograph, if heatmaps are listed. Received: 2"
    ):
        compare([GREY, GREY], [np.eye(2)] * 2)
    with pytest.raises(
        ValueError, match="`explanation` must have one row of classes for each image.*1 for 2"
    ):
        compare([GREY, GREY], explained(1, 2))
    with pytest.raises(ValueError, match="`titles` must have one title for each row.*Received: 1 for 2"):
        compare(GREY, explained(1, 2), titles="a")
    with pytest.raises(TypeError, match="`image` must be the photograph"):
        compare(explained(1, 2), GREY)
    assert matplotlib.pyplot.get_fignums() == []


def test_a_path_and_a_picture_that_are_swapped_are_told(tmp_path):
    with pytest.raises(TypeError, match="`path` must be a path.* ndarray. Swap `path` and `picture`"):
        save(np.zeros((4, 4, 3), np.uint8), tmp_path / "x.png")

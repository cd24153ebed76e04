"""Photographs: found, fitted to a model, named without clashes, and those of the demo."""

import numpy as np
import pytest
from photo_files import classify, files, head, run, unchanged, write_photo

import tf_gradcam
from tf_gradcam._run import demo_photographs, find_photographs, read_photograph
from tf_gradcam._run.photographs import Photograph, picture_names


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def test_a_file_a_folder_or_a_glob_gives_its_photographs_in_order():
    for path in ("d/b.png", "d/a.PNG", "d/deep/c.png", "e/2.png", "e/1.png", "cat[1].png"):
        write_photo(path)

    def found(pattern):
        return [photograph.file for photograph in find_photographs(pattern)]

    assert found("d") == ["d/a.PNG", "d/b.png"]
    assert found("e/?.png") == ["e/1.png", "e/2.png"]
    assert found("d/**/c.png") == ["d/deep/c.png"]
    assert found("cat[1].png") == ["cat[1].png"]
    assert find_photographs("none.png") == [Photograph("none.png", None)]
    with pytest.raises(FileNotFoundError, match="no photograph is there, and none matches"):
        read_photograph(Photograph("none.png", None))


def test_photographs_of_one_name_do_not_overwrite_each_other(functional):
    photos = [write_photo(path) for path in ("c/CAT.png", "a/cat.png", "b/cat.png", "cat_2.png")]
    rows = run(classify(functional), *photos)
    overlays = [row["overlay"] for row in rows]
    assert overlays == [f"{name}-overlay.png" for name in ("CAT", "cat_2", "cat_3", "cat_2_2")]
    assert set(overlays) < files("gradcam")
    assert picture_names(Photograph(photo, photo) for photo in photos) == ["CAT", "cat_2", "cat_3", "cat_2_2"]
    again = run(classify(functional), *photos, out="again")
    assert [row["overlay"] for row in again] == overlays


# How a model sees them


def test_a_grey_model_sees_grey():
    model = head(3, "softmax", channels=1)
    (row,) = run(classify(model, unchanged), write_photo("a.png"))
    assert "error" not in row


def test_a_model_that_takes_no_photograph_is_left_to_python():
    with pytest.raises(ValueError, match="`model` must take one photograph"):
        run(classify(head(3, "softmax", channels=13), unchanged), write_photo("a.png"))


def test_a_model_of_no_fixed_size_sees_the_photograph_in_its_proportions():
    seen = []

    def see(images):
        seen.append(images.shape)
        return images

    photos = [write_photo("long.png", size=(40, 2048)), write_photo("small.png", size=(9, 11))]
    rows = run(classify(head(3, "softmax", side=None), see), *photos)
    assert ["error" in row for row in rows] == [False, False]
    assert seen[-2:] == [(1, 10, 512, 3), (1, 9, 11, 3)]


# The demo's


def test_the_demo_has_six_photographs():
    photographs = demo_photographs()
    assert [photograph.file for photograph in photographs] == [
        "chelsea.png",
        "coffee.png",
        "camera.png",
        "rocket.jpg",
        "china.jpg",
        "flower.jpg",
    ]


@pytest.mark.slow
def test_the_heatmap_sits_on_the_thing(lite0):
    boxes = [(0.1, 0.9, 0.1, 0.85), (0, 0.8, 0.2, 0.8), (0.3, 1, 0.3, 1), (0.2, 0.9, 0.2, 0.8)]
    images = [read_photograph(photograph) for photograph in demo_photographs()[:4]]
    small = np.stack([tf_gradcam.load_image(image, size=(224, 224)) for image in images])
    cam = tf_gradcam.GradCAM(lite0)
    heatmaps = cam(tf_gradcam.pretrained.preprocess(small), size=(100, 100)).heatmap.numpy()
    for heatmap, box in zip(heatmaps, boxes, strict=True):
        top, bottom, left, right = (round(100 * edge) for edge in box)
        hot = heatmap > 0.5
        assert hot[top:bottom, left:right].sum() > 0.9 * hot.sum()

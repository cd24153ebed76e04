"""Photographs: found, fitted to a model, named without clashes, and those of the demo."""

import os
import pathlib
import time

import keras
import numpy as np
import pytest
from photo_files import classify, files, head, run, unchanged, write_photo

import tf_gradcam
from tf_gradcam import load_image
from tf_gradcam._run import demo_photographs, find_photographs, read_photograph
from tf_gradcam._run.photographs import Photograph, count_pixels, picture_names


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def test_a_file_a_folder_or_a_glob_gives_its_photographs_in_order():
    for path in ("d/b.png", "d/a.PNG", "d/deep/c.png", "e/2.png", "e/1.png", "cat[1].png"):
        write_photo(path)

    def found(pattern):
        return [photograph.file for photograph in find_photographs([pattern]).photographs]

    assert found("d") == ["d/a.PNG", "d/b.png", "d/deep/c.png"]
    assert found("e/?.png") == ["e/1.png", "e/2.png"]
    assert found("d/**/c.png") == ["d/deep/c.png"]
    assert found("cat[1].png") == ["cat[1].png"]
    assert find_photographs(["none.png"]).photographs == [Photograph("none.png", None)]
    with pytest.raises(FileNotFoundError, match="no such file, and no file matches this pattern"):
        read_photograph(Photograph("none.png", None))


def test_a_folder_is_searched_with_its_subfolders_and_what_is_skipped_is_known():
    for path in ("d/z.png", "d/b/c/x.jpg", "d/b/a.png", "d/a.png/inside.png", "d/.hidden/x.png", "d/.x.png"):
        write_photo(path)
    for path in ("d/notes.txt", "d/b/none", "d/b/c/data.npz"):
        pathlib.Path(path).touch()
    found = find_photographs(["d", "d/b", "d/b/n*"])
    files = ["d/a.png/inside.png", "d/b/a.png", "d/b/c/x.jpg", "d/z.png", "d/b/none"]
    assert [photograph.file for photograph in found.photographs] == files
    assert found.no_photographs == {"d/notes.txt", "d/b/c/data.npz"}
    assert found.hidden == {"d/.hidden", "d/.x.png"}
    # A folder that is named is searched, hidden or not, and so is one that a glob finds.
    for pattern in ("d/.hidden", "d/.hid*"):
        (photograph,) = find_photographs([pattern]).photographs
        assert photograph.file == "d/.hidden/x.png"


def test_symbolic_links_are_followed_and_lead_nowhere_twice():
    write_photo("d/b/cat.png")
    write_photo("elsewhere/dog.png")
    os.symlink("..", "d/b/up")
    os.symlink("b", "d/same")
    os.symlink("../elsewhere", "d/other")
    os.symlink("b/cat.png", "d/link.png")
    os.symlink("nowhere", "d/broken.png")
    found = find_photographs(["d"]).photographs
    files = ["d/b/cat.png", "d/broken.png", "d/link.png", "d/other/dog.png"]
    assert [photograph.file for photograph in found] == files
    with pytest.raises(FileNotFoundError):
        read_photograph(found[1])


def test_a_folder_that_can_not_be_read_is_reported(monkeypatch):
    write_photo("d/a.png")
    os.mkdir("d/locked")
    listdir = os.listdir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    first, locked = find_photographs(["d"]).photographs
    assert (first.file, locked.file) == ("d/a.png", "d/locked")
    with pytest.raises(PermissionError, match="Permission denied: 'd/locked'"):
        read_photograph(locked)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_or_a_device_among_photographs_is_an_error_and_not_waited_for(functional):
    write_photo("d/a.png")
    os.mkfifo("d/pipe.png")
    os.symlink("/dev/zero", "d/zero.png")
    start = time.monotonic()
    found = find_photographs(["d", "d/p*.png"]).photographs
    assert [count_pixels(photograph) for photograph in found] == [600, 0, 0]
    errors = []
    for photograph in found[1:]:
        with pytest.raises(ValueError, match="which is not a file") as raised:
            read_photograph(photograph)
        errors.append(str(raised.value))
    rows = run(classify(functional), *(photograph.file for photograph in found))
    assert [row.get("error") for row in rows] == [None, *errors]
    assert time.monotonic() - start < 60


# Names of pictures


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_no_file_but_a_picture_of_an_earlier_run_is_replaced(functional, ending):
    photos = [write_photo(f"d/{name}.png", seed=seed) for seed, name in enumerate(("cat", "dog"))]
    mine = write_photo(f"d/cat-heatmap.{ending}", seed=9)
    before = pathlib.Path(mine).read_bytes()
    overlays = [f"cat_2-overlay.{ending}", f"dog-overlay.{ending}"]
    for _ in range(2):  # The second time, these are pictures of an earlier run.
        rows = run(classify(functional), *photos, out="d", format=ending)
        assert [row["overlay"] for row in rows] == overlays
        assert pathlib.Path(mine).read_bytes() == before
        found = find_photographs(["d", mine])
        assert {photograph.file for photograph in found.photographs} == {*photos, mine}
        assert len(found.own_pictures) == 4


def test_a_picture_of_an_earlier_run_that_is_explained_is_not_replaced(functional):
    photo = write_photo("cat.png")
    run(classify(functional), photo, out="d")
    own = "d/cat-overlay.png"
    before = pathlib.Path(own).read_bytes()
    rows = run(classify(functional), photo, own, out="d")
    assert [row["overlay"] for row in rows] == ["cat_2-overlay.png", "cat-overlay-overlay.png"]
    assert pathlib.Path(own).read_bytes() == before


def test_pictures_that_were_written_here_are_not_explained_unless_there_is_nothing_else(functional):
    run(classify(functional), write_photo("cat.png"), methods=("gradcam", "gradient"), out="d")
    pictures = {f"d/{name}" for name in files("d")}
    assert len(pictures) == 5
    found = find_photographs(sorted(pictures))
    assert found.own_pictures == pictures
    assert {photograph.file for photograph in found.photographs} == pictures
    for photograph in found.photographs:
        with pytest.raises(ValueError, match="contains only pictures that tf_gradcam wrote"):
            read_photograph(photograph)


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
    layers = [keras.layers.Conv1D(4, 3), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(3)]
    signals = keras.Sequential([keras.Input((8, 3)), *layers])
    with pytest.raises(ValueError, match="`model` must take one photograph"):
        run(classify(signals, unchanged), write_photo("a.png"))


def test_a_photograph_is_no_image_of_13_bands():
    (row,) = run(classify(head(3, "softmax", channels=13), unchanged), write_photo("a.png"))
    assert "`model` must take as many channels as the file has bands, 3" in row["error"]


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


def test_a_long_run_is_frozen_and_finds_the_same(monkeypatch):
    frozen = []
    freeze = tf_gradcam.GradCAM.freeze
    monkeypatch.setattr(tf_gradcam.GradCAM, "freeze", lambda cam: frozen.append(cam) or freeze(cam))
    classifier, asked = classify(head(5, "softmax")), {"top": 2}
    photos = [write_photo(f"{number}.png", seed=number) for number in range(3)]
    rows = run(classifier, *photos, out="short", **asked)
    assert not frozen
    monkeypatch.setattr("tf_gradcam._run.run.PAYS_TO_FREEZE", 3)
    for row, expected in zip(run(classifier, *photos, out="long", **asked), rows, strict=True):
        assert row["score"] == pytest.approx(expected["score"], abs=1e-5)
        assert row["probability"] == pytest.approx(expected["probability"], abs=1e-5)
        varying = {"score", "probability", "seconds"}
        assert {key: row[key] for key in row.keys() - varying} == {
            key: expected[key] for key in expected.keys() - varying
        }
    assert len(frozen) == 1
    assert files("long") == files("short")
    for name in (name for name in files("short") if "overlay" in name):
        pictures = [load_image(f"{folder}/{name}").astype(int) for folder in ("short", "long")]
        assert np.abs(pictures[0] - pictures[1]).max() <= 1

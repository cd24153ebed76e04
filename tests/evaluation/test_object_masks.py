"""Masks of photographs: found by name, read from PNG files, fitted to what the model takes."""

import pathlib

import numpy as np
import PIL.Image
import pytest

from tf_gradcam._evaluation.object_masks import read_mask, resize_mask, split_masks
from tf_gradcam._run import Photograph


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("masks").mkdir()


def photographs(*files):
    return [Photograph(file, file) for file in files]


def write_mask(mode, values, file="masks/a.png"):
    image = PIL.Image.fromarray(np.asarray(values, np.uint8), "L" if mode == "P" else None)
    if mode == "P":
        image = image.convert("L").copy()
        image = PIL.Image.frombytes("P", image.size, image.tobytes())
        image.putpalette([0, 0, 0] * 256)  # Every colour is black: the index counts.
    image.convert("1").save(file) if mode == "1" else image.save(file)
    return file


# Found


def test_a_mask_has_the_stem_of_its_photograph():
    for name in ("cat.png", "dog.PNG", "eel.jpg"):
        pathlib.Path("masks", name).touch()
    others, masks = split_masks(photographs("x/cat.jpg", "dog.tif", "eel.jpg", "cat.dog.jpg"), "masks")
    assert [each.file for each in others] == ["x/cat.jpg", "dog.tif", "eel.jpg", "cat.dog.jpg"]
    assert masks == {"x/cat.jpg": pathlib.Path("masks/cat.png"), "dog.tif": pathlib.Path("masks/dog.PNG")}


def test_masks_below_the_photographs_are_no_photographs():
    pathlib.Path("masks/cat.png").touch()
    others, masks = split_masks(photographs("cat.jpg", "./masks/cat.png"), "masks")
    assert [each.file for each in others] == list(masks) == ["cat.jpg"]


@pytest.mark.parametrize(
    ("files", "folder", "error", "said"),
    [
        (
            ["cat.jpg"],
            "nowhere",
            NotADirectoryError,
            "`masks` must be a folder of PNG files. Received: nowhere",
        ),
        (
            ["dog.jpg"],
            "masks",
            ValueError,
            "named like it: cat.png for cat.jpg. Received: masks, which has none",
        ),
        (["a/cat.jpg", "b/cat.jpg"], "masks", ValueError, "must differ. Received: a/cat.jpg and b/cat.jpg"),
    ],
)
def test_a_folder_that_can_not_be_meant_is_refused(files, folder, error, said):
    pathlib.Path("masks/cat.png").touch()
    with pytest.raises(error, match=said):
        split_masks(photographs(*files), folder)


# Read

OBJECT = np.array([[0, 1, 0], [0, 255, 7]])


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGB"])
def test_whatever_is_not_zero_is_the_object(mode):
    values = OBJECT
    if mode == "1":
        values = 255 * (OBJECT > 0)
    if mode == "RGB":
        values = np.stack([0 * OBJECT, 0 * OBJECT, OBJECT], axis=-1)
    read = read_mask(write_mask(mode, values), (20, 30))
    assert read.dtype == bool
    np.testing.assert_array_equal(read, OBJECT > 0)


def test_a_mask_has_the_proportions_of_its_photograph_to_a_pixel():
    file = write_mask("L", np.ones((67, 100)))
    assert read_mask(file, (133, 200)).all()
    with pytest.raises(ValueError, match="proportions of its photograph, 100 x 67. Received: .*, 67 x 100"):
        read_mask(file, (100, 67))


def test_what_is_no_mask_is_refused():
    PIL.Image.new("RGBA", (3, 2)).save("masks/alpha.png")
    PIL.Image.new("I;16", (3, 2)).save("masks/deep.png")
    PIL.Image.new("L", (3, 2)).save("masks/other.jpg")
    PIL.Image.new("L", (300, 200)).save("masks/whole.png")
    whole = pathlib.Path("masks/whole.png").read_bytes()
    pathlib.Path("masks/cut.png").write_bytes(whole[:60])
    pathlib.Path("masks/flipped.png").write_bytes(whole[:50] + b"\xff" + whole[51:])
    for name in ("alpha.png", "deep.png", "other.jpg", "cut.png", "flipped.png", "missing.png"):
        with pytest.raises(ValueError, match=f"mask must be a PNG of 8 bits.*{name}"):
            read_mask(f"masks/{name}", (2, 3))


# Fitted


def test_a_cell_is_of_the_object_if_half_of_it_is():
    mask = np.zeros((4, 4), bool)
    mask[:2, 0] = True  # half of the first cell
    mask[0, 2] = True  # a quarter of the second
    np.testing.assert_array_equal(resize_mask(mask, (2, 2)), [[True, False], [False, False]])


def test_an_object_smaller_than_a_pixel_does_not_vanish():
    mask = np.zeros((8, 8), bool)
    assert not resize_mask(mask, (2, 2)).any()
    mask[5, 1] = True
    np.testing.assert_array_equal(resize_mask(mask, (2, 2)), [[False, False], [True, False]])

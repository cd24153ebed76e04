"""What a model sees of files of more than 8 bits: their own values; and what people see of them."""

import pathlib

import cv2
import numpy as np
import PIL.Image
import pytest
from photo_files import classify, head, run, write_photo

import tf_gradcam
from tf_gradcam._run import Photograph, find_photographs, read_photograph
from tf_gradcam._run.fitting import fit_to_spec
from tf_gradcam._run.photographs import make_viewable

GREY12 = cv2.resize(np.random.default_rng(0).integers(0, 4096, (4, 5), np.uint16), (30, 20))
SIGNED = GREY12.astype(np.int16) - 1024
UNIT = (GREY12 / 4095).astype(np.float32)
RGB16 = cv2.resize(np.random.default_rng(0).integers(0, 65536, (4, 5, 3), np.uint16), (30, 20))


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def write(path, values):
    values = values[..., ::-1] if values.ndim == 3 else values
    if path.endswith(".pgm"):
        header = b"P5\n%d %d\n4095\n" % values.shape[::-1]
        pathlib.Path(path).write_bytes(header + values.astype(">u2").tobytes())
    else:
        pathlib.Path(path).write_bytes(cv2.imencode(pathlib.Path(path).suffix, values)[1])
    return path


FILES = {
    "12 bits.png": GREY12,
    "12 bits.tif": GREY12,
    "12 bits.pgm": GREY12,
    "signed.tif": SIGNED,
    "float.tif": UNIT,
    "colours.png": RGB16,
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", FILES)
def test_the_files_own_values_reach_preprocess(name, channels):
    seen = []

    def see(images):
        seen.append(np.asarray(images))
        return images / np.float32(4095)

    model = head(3, "softmax", side=None, channels=channels)
    (row,) = run(classify(model, see), write(name, FILES[name]))
    assert "error" not in row
    assert seen[-1].dtype == np.float32
    expected = FILES[name].astype(np.float32)
    if channels == 1 and expected.ndim == 3:
        expected = expected @ np.array([0.299, 0.587, 0.114], np.float32)
        np.testing.assert_allclose(seen[-1][0, ..., 0], expected, rtol=1e-5)
    else:
        expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], channels, axis=-1)
        np.testing.assert_array_equal(seen[-1][0], expected)
    scores = np.asarray(model(expected.reshape(1, 20, 30, -1)[..., :channels] / np.float32(4095)))
    if channels == 3 or FILES[name].ndim == 2:
        assert row["class"] == scores.argmax()
        assert row["probability"] == pytest.approx(scores.max(), abs=1e-5)


def test_a_folder_gives_the_photographs_of_every_ending_that_is_read():
    for name in FILES:
        write(name, FILES[name])
    assert len(find_photographs(["."]).photographs) == len(FILES)


def test_values_are_resized_as_such_and_not_rounded():
    spec = head(3, "softmax", side=8).inputs[0]
    photo = write("12 bits.png", GREY12)
    seen = fit_to_spec(read_photograph(Photograph(photo, photo)), spec)
    expected = cv2.resize(GREY12.astype(np.float32), (8, 8), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(seen[0, ..., 1], expected, atol=0.01)
    assert seen.max() > 255


def test_a_photograph_of_8_bits_is_seen_as_load_image_reads_it():
    photo = write_photo("a.png")
    spec = head(3, "softmax", side=8).inputs[0]
    values = read_photograph(Photograph(photo, photo))
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(fit_to_spec(values, spec)[0], tf_gradcam.load_image(photo, size=(8, 8)))


@pytest.mark.parametrize("name", FILES)
def test_pictures_show_the_whole_range_of_the_data(name):
    (row,) = run(classify(head(3, "softmax")), write(name, FILES[name]), alpha=0.0)
    picture = tf_gradcam.load_image(pathlib.Path("gradcam", row["overlay"]))
    low, high = (FILES[name].min(), FILES[name].max()) if name == "signed.tif" else (0, 4095)
    low, high = {"float.tif": (0, 1), "colours.png": (0, 65535)}.get(name, (low, high))
    expected = (FILES[name].astype(float) - low) / (high - low) * 255
    expected = expected if expected.ndim == 3 else expected[..., None]
    assert np.abs(picture - expected).max() <= 1


@pytest.mark.parametrize(
    ("values", "pixels"),
    [
        (np.array([0, 7, 255], np.uint8), [0, 7, 255]),
        (np.array([0, 7, 255], np.uint16), [0, 7, 255]),
        (np.array([0, 1023], np.uint16), [0, 255]),
        (np.array([0, 513], np.uint16), [0, 128]),
        (np.array([-1000, 0, 1000], np.int16), [0, 128, 255]),
        (np.array([5, 5], np.int16), [0, 0]),
        (np.array([0.0, 0.5], np.float32), [0, 128]),
        (np.array([-1.0, 3.0], np.float32), [0, 255]),
    ],
)
def test_values_of_any_range_can_be_looked_at(values, pixels):
    picture = make_viewable(np.repeat(values[None, :, None], 3, axis=-1))
    np.testing.assert_array_equal(picture[0, :, 0], pixels)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_photograph_with_values_that_are_not_finite_is_an_error(value):
    values = UNIT.copy()
    values[3, 4] = value
    PIL.Image.fromarray(values).save("holes.tif")
    (row,) = run(classify(head(3, "softmax")), "holes.tif")
    assert "must hold finite values" in row["error"]

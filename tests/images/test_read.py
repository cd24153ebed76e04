"""Photographs: one picture, however it arrives; and nothing a hostile file says is believed."""

import io
import os
import pathlib
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import PIL.Image
import pytest
import skimage.data
import tensorflow as tf

from tf_gradcam._files import read as image
from tf_gradcam._files.read import MAX_BYTES
from tf_gradcam._images.read import load_image, resize_pixels

ORIENTATION = 0x112  # the EXIF tag
RED = np.full((4, 6, 3), (255, 0, 0), np.uint8)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)


def encode(picture, format="PNG", **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def png(width, height, body=b""):
    """A PNG by hand: 8-bit RGB that announces any size, whatever its body holds."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(body)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


# One photograph, however it arrives


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_red_stays_red_as_path_bytes_pil_image_array_and_tensor(tmp_path, format):
    picture = PIL.Image.fromarray(RED)
    data = encode(picture, format)
    path = tmp_path / "red"
    path.write_bytes(data)
    opened = PIL.Image.open(path)
    for source in (
        path,
        str(path),
        data,
        bytearray(data),
        opened,
        picture,
        RED,
        RED.tolist(),
        tf.constant(RED),
    ):
        pixels = load_image(source)
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, RED)
    opened.close()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_every_mode_gives_the_same_pixels_by_opencv_and_by_pillow(noise, mode):
    picture = PIL.Image.fromarray(noise).convert(mode)
    expected = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(load_image(picture), expected)
    np.testing.assert_array_equal(load_image(encode(picture)), expected)


def test_transparency_is_dropped_and_hidden_colours_are_seen(noise):
    alpha = np.where(np.arange(40) < 20, 0, 255).astype(np.uint8)
    rgba = np.dstack([noise, np.broadcast_to(alpha, (30, 40))])
    picture = PIL.Image.fromarray(rgba)
    for source in (rgba, picture, encode(picture)):
        np.testing.assert_array_equal(load_image(source), noise)


def test_a_palette_with_transparency_raises_no_warning(noise):
    data = encode(PIL.Image.fromarray(noise).quantize(16), transparency=bytes([0, 128]))
    np.testing.assert_array_equal(load_image(data), load_image(PIL.Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_upper_eight(format):
    grey = np.array([[0, 255, 256, 65535], [128 * 256, 128 * 256 + 255, 1, 511]], np.uint16)
    picture = PIL.Image.fromarray(grey)
    expected = np.repeat(np.array([[0, 0, 1, 255], [128, 128, 0, 1]])[..., None], 3, axis=-1)
    np.testing.assert_array_equal(load_image(picture), expected)
    np.testing.assert_array_equal(load_image(encode(picture, format)), expected)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda pixels: pixels),
        (3, lambda pixels: pixels[::-1, ::-1]),
        (6, lambda pixels: np.rot90(pixels, -1)),
        (8, np.rot90),
    ],
)
def test_exif_turns_the_photograph_upright(format, orientation, upright):
    photograph = skimage.data.chelsea()[:96, :128]
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(PIL.Image.fromarray(photograph), format, exif=exif)
    for source in (data, PIL.Image.open(io.BytesIO(data))):
        pixels = load_image(source)
        assert pixels.shape == upright(photograph).shape
        assert np.abs(pixels - upright(photograph).astype(float)).mean() < (3 if format == "JPEG" else 1e-9)


def test_what_is_loaded_is_the_callers_own(noise):
    for source in (noise, PIL.Image.fromarray(noise), encode(PIL.Image.fromarray(noise))):
        load_image(source)[:] = 0
        assert load_image(source).any()


# Arrays


@pytest.mark.parametrize(
    ("values", "pixels"),
    [
        (np.array([[True, False]]), [[255, 0]]),
        (np.array([[0, 7, 255]], np.int64), [[0, 7, 255]]),
        (np.array([[0, 7, 255]], np.uint16), [[0, 7, 255]]),
        (np.array([[0.0, 0.5, 0.9, 1.0]]), [[0, 128, 230, 255]]),  # 127.5 to even; 229.5 to even
        (np.array([[0.0, 0.2, 1.0]], np.float16), [[0, 51, 255]]),
        (np.array([[0.0, 1.6, 254.6]], np.float32), [[0, 2, 255]]),
        (np.array([[0.0, 0.2, 1 + 1e-6]], np.float32), [[0, 51, 255]]),
        (np.array([[-1e-6, 255 + 1e-4]]), [[0, 255]]),
    ],
)
def test_values_become_pixels(values, pixels):
    for source in (values, values[..., None]):
        np.testing.assert_array_equal(load_image(source), np.repeat(np.array(pixels)[..., None], 3, axis=-1))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_all_levels_survive_on_either_scale(dtype):
    levels = np.arange(256).reshape(16, 16)
    np.testing.assert_array_equal(load_image(levels.astype(dtype))[..., 0], levels)
    np.testing.assert_array_equal(load_image((levels / 255).astype(np.float32))[..., 0], levels)


@pytest.mark.parametrize("value", [-1, -0.01, 256, 255.6, 1e30, np.nan, np.inf, -np.inf])
def test_values_that_are_no_pixels_ask_for_the_photograph(value):
    pixels = np.zeros((4, 4, 3), np.asarray(value).dtype)
    pixels[1, 2, 0] = value
    with pytest.raises(
        ValueError, match=r"`source` must be in \[0, 255\].*Give the photograph, not the preprocessed image"
    ):
        load_image(pixels)


@pytest.mark.parametrize("shape", [(), (5,), (4, 4, 2), (3, 8, 8), (1, 4, 4, 3), (0, 4, 3), (4, 0)])
def test_an_array_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"`source` must be one image \(H, W\).*Received: shape \("):
        load_image(np.zeros(shape))


@pytest.mark.parametrize("source", [None, object(), ["cat.jpg"], {"a": 1}, 1j, [[0], [0, 0]]])
def test_what_can_be_no_photograph_is_a_type_error(source):
    with pytest.raises(TypeError, match=r"`source` must be a path, bytes, a PIL image.*of type "):
        load_image(source)


# Window


SIXTEEN = np.array([[0, 1000, 2047, 4095], [4096, 65535, 500, 3000]], np.uint16)


def test_a_window_is_mapped_to_0_to_255_and_clipped():
    expected = np.rint(np.clip(SIXTEEN / 4095, 0, 1) * 255).astype(np.uint8)
    expected = np.repeat(expected[..., None], 3, axis=-1)
    picture = PIL.Image.fromarray(SIXTEEN)
    for source in (SIXTEEN, picture, encode(picture), encode(picture, "TIFF"), tf.constant(SIXTEEN)):
        np.testing.assert_array_equal(load_image(source, limits=(0, 4095)), expected)
    resized = load_image(encode(picture), size=(4, 8), limits=(0, 4095))
    np.testing.assert_array_equal(resized, load_image(expected, size=(4, 8)))


@pytest.mark.parametrize(
    ("values", "window", "pixels"),
    [
        (np.array([[-1000, 0, 1000, 3000]], np.int16), (-1000, 1000), [[0, 128, 255, 255]]),
        (np.array([[-1.0, 0.0, 3.0]], np.float32), (-1, 3), [[0, 64, 255]]),
        (np.array([[0, 128, 255]], np.uint8), (128, 255), [[0, 0, 255]]),
        (np.array([[0, 2**31, 2**32 - 1]], np.uint32), (0, 2**32 - 1), [[0, 128, 255]]),
        (np.array([[0.0, 0.25, 1.0]], np.float16), np.array([0, 0.5]), [[0, 128, 255]]),
    ],
)
def test_a_window_makes_pixels_of_any_real_numbers(values, window, pixels):
    expected = np.repeat(np.array(pixels)[..., None], 3, axis=-1)
    np.testing.assert_array_equal(load_image(values, limits=window), expected)
    with_alpha = np.stack([values] * 4, axis=-1)
    np.testing.assert_array_equal(load_image(with_alpha, limits=window), expected)


def test_values_without_a_range_ask_for_a_window():
    for values in (SIXTEEN, SIXTEEN.astype(np.float32), -SIXTEEN.astype(np.int32)):
        with pytest.raises(ValueError, match=r"`source` must be in \[0, 255\].*limits=\(low, high\)"):
            load_image(values)
    for values in (SIXTEEN.astype(np.float32), SIXTEEN.astype(np.int32)):
        for source in (PIL.Image.fromarray(values), encode(PIL.Image.fromarray(values), "TIFF")):
            with pytest.raises(
                ValueError, match=r"`source` must hold uint8 or uint16.*from 0 to 6\.?.*limits="
            ):
                load_image(source)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_have_no_place_in_a_window(value):
    with pytest.raises(ValueError, match="`source` must hold finite values"):
        load_image(np.array([[0, value]]), limits=(0, 1))


@pytest.mark.parametrize(
    "window", [5, (1,), (0, 1, 2), (1, 1), (2, 1), (0, np.nan), (0, np.inf), ("a", "b"), (False, True), "ab"]
)
def test_a_window_that_is_none_is_refused(window):
    with pytest.raises(ValueError, match=r"`limits` must be \(low, high\).*Received: limits="):
        load_image(RED, limits=window)


# Size


def test_size_is_height_and_width_and_squashes():
    halves = np.repeat(np.array([[0, 200]], np.uint8), 4, axis=0)  # black on the left
    assert load_image(halves, size=(2, 6)).shape == (2, 6, 3)
    np.testing.assert_array_equal(load_image(halves, size=(1, 1)), [[[100, 100, 100]]])
    np.testing.assert_array_equal(load_image(halves, size=(1, 4))[0, :, 0], [0, 50, 150, 200])


def test_shrinking_averages_along_an_axis_even_while_the_other_grows():
    stripes = np.tile(np.array([100, 0, 0, 0], np.uint8), (2, 50))
    np.testing.assert_array_equal(load_image(stripes, size=(8, 50)), np.full((8, 50, 3), 25))


def area_weights(length, count):
    """Return the share of each of `length` pixels in each of `count` averages."""
    edges = np.arange(count + 1) * length / count
    starts = np.arange(length)
    shares = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return np.maximum(shares, 0) * count / length


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_any_number_of_channels_is_resized_as_each_alone(dtype):
    random = np.random.default_rng(0)
    for count in (1, 3, 4, 5, 8, 13, 600):
        pixels = random.integers(0, 256, (20, 25, count)).astype(dtype)
        for size in ((10, 5), (8, 9), (33, 40), (33, 9)):  # by whole factors, by others, larger, one of each
            found = resize_pixels(pixels, size)
            assert found.shape == (*size, count)
            alone = [resize_pixels(pixels[..., band].copy(), size) for band in range(count)]
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, np.stack(alone, -1))
        shrunk = resize_pixels(pixels, (8, 9))
        expected = np.einsum("ih,hwc,jw->ijc", area_weights(20, 8), pixels.astype(float), area_weights(25, 9))
        np.testing.assert_allclose(shrunk, expected, atol=0.51 if dtype == "uint8" else 1e-3)


def test_its_own_size_changes_no_pixel(noise):
    np.testing.assert_array_equal(load_image(noise, size=np.array([30, 40])), noise)
    np.testing.assert_array_equal(load_image(noise, size=[30, 40]), noise)


@pytest.mark.parametrize(
    "size", [224, (224,), (0, 5), (5, -1), (2.0, 2.0), "input", (True, 5.5), (10**6, 10**6)]
)
def test_a_size_that_is_none_is_refused(noise, size):
    with pytest.raises(ValueError, match=r"`size` must be None or \(height, width\).*Received: size="):
        load_image(noise, size)


# Hostile files


@pytest.mark.parametrize(
    ("width", "height"), [(50_000, 50_000), (10_001, 10_000), (2**31 - 1, 2**31 - 1)], ids=str
)
def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch, width, height):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="`source` must be an image of at most 100,000,000 pixels"):
        load_image(png(width, height))


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_the_limit_holds_for_every_format_and_for_pil_images(monkeypatch, noise, format):
    monkeypatch.setattr(image, "MAX_PIXELS", 30 * 40 - 1)
    picture = PIL.Image.fromarray(noise)
    for source in (encode(picture, format), picture):
        with pytest.raises(ValueError, match="at most 1,199 pixels.*40 x 30"):
            load_image(source)
    monkeypatch.setattr(image, "MAX_PIXELS", 30 * 40)
    assert load_image(encode(picture, format)).shape == (30, 40, 3)


def test_between_pillows_limit_and_ours_there_is_no_warning(monkeypatch, noise):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 30 * 40 - 1)
    np.testing.assert_array_equal(load_image(encode(PIL.Image.fromarray(noise))), noise)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("part", [0.05, 0.5, 0.9])
def test_a_file_cut_short_is_refused(noise, format, part):
    data = encode(PIL.Image.fromarray(noise), format)
    with pytest.raises(ValueError, match="`source` must be .*Received: [0-9]+ bytes"):
        load_image(data[: int(part * len(data))])


def test_a_pil_image_cut_short_is_refused(noise):
    data = encode(PIL.Image.fromarray(noise))
    with pytest.raises(ValueError, match="`source` must be a complete image.*40 x 30"):
        load_image(PIL.Image.open(io.BytesIO(data[: len(data) // 2])))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 5000,
        b"just a text\n",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        b"<!DOCTYPE html><html></html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        png(0, 5),
        png(64, 64, b"\0" * 100),
    ],
    ids=lambda data: repr(data[:8]),
)
def test_what_is_no_image_is_refused_whatever_its_name(tmp_path, data):
    path = tmp_path / "cat.png"
    path.write_bytes(data)
    for source in (path, data):
        with pytest.raises(ValueError, match=f"`source` must be .*Received: {len(data)} bytes"):
            load_image(source)


def test_a_chunk_that_lies_about_its_length_is_not_allocated(monkeypatch, noise):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    data = encode(PIL.Image.fromarray(noise))
    at = data.index(b"IDAT") - 4
    lying = data[:at] + struct.pack(">I", 2**31 - 1) + data[at + 4 :]
    with pytest.raises(ValueError, match="`source` must be an image.*whether the file is complete"):
        load_image(lying)


@pytest.mark.parametrize("format", ["EPS", "PDF", "PCX", "TGA", "ICO"])
def test_pillows_rarer_formats_are_not_even_opened(noise, format):
    with pytest.raises(ValueError, match="`source` must be an image, one of JPEG, PNG, "):
        load_image(encode(PIL.Image.fromarray(noise), format))


def test_flipped_bytes_give_a_picture_or_a_value_error_and_nothing_else(monkeypatch):
    monkeypatch.setattr(image, "MAX_PIXELS", 100_000)  # what a flipped byte inflates takes time
    random = np.random.default_rng(0)
    photograph = PIL.Image.fromarray(skimage.data.chelsea()[:40, :40])
    for format in ("JPEG", "PNG", "WEBP", "TIFF", "GIF"):
        data = np.frombuffer(encode(photograph, format), np.uint8)
        for _ in range(40):
            flipped = data.copy()
            flipped[random.integers(0, min(len(data), 300), 3)] = random.integers(0, 256, 3)
            try:
                answer = f"`source` of shape {load_image(flipped.tobytes()).shape}"
            except ValueError as error:
                answer = str(error)
            assert answer.startswith("`source`")


@pytest.mark.parametrize(
    "address",
    ["https://example.org/cat.png", "s3://bucket/scan.dcm", pathlib.Path("https://example.org/a.png")],
)
def test_an_address_is_not_read(address):
    with pytest.raises(ValueError, match="`source` must be a path.*these aren't read. Download it first"):
        load_image(address)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        load_image(tmp_path / "nowhere.png")


@pytest.mark.parametrize("path", [pathlib.Path(__file__).parent, os.devnull])
def test_a_folder_or_device_is_no_image_file(path):
    with pytest.raises(ValueError, match="`source` must be the path of an image file") as raised:
        load_image(path)
    assert str(path) in str(raised.value)


def test_a_file_of_too_many_bytes_is_not_even_read(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: takes no room
    monkeypatch.setattr(pathlib.Path, "read_bytes", lambda _: pytest.fail("read"))
    with pytest.raises(ValueError, match=r"at most 400,000,000 bytes.*large\.png.*400,000,001"):
        load_image(path)


# Optional packages


def test_without_opencv_arrays_load_and_a_file_says_what_to_install(monkeypatch):
    data = encode(PIL.Image.fromarray(RED))
    monkeypatch.setitem(sys.modules, "cv2", None)
    np.testing.assert_array_equal(load_image(RED), RED)
    for source, size in ((data, None), (RED, (2, 2))):
        with pytest.raises(ImportError, match="pip install opencv-python .or opencv-python-headless"):
            load_image(source, size)


def test_without_pillow_a_file_says_what_to_install(monkeypatch):
    data = encode(PIL.Image.fromarray(RED))
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match="pip install pillow$"):
        load_image(data)


def test_importing_loads_no_heavy_package():
    script = """if True:
        import sys, tf_gradcam._images
        loaded = {"cv2", "matplotlib", "PIL", "tensorflow", "keras"} & set(sys.modules)
        assert not loaded, loaded
    """
    subprocess.run([sys.executable, "-c", script], check=True, cwd=pathlib.Path(image.__file__).parents[2])

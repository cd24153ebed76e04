"""In the graph: what `load_image` and `overlay` do, from and to encoded files."""

import functools
import io

import cv2
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from tf_gradcam import load_image, overlay
from tf_gradcam._export.photographs import (
    _declared_size,
    _exif_orientation,
    _first_frame,
    decode_photograph,
    fit_to_model,
    heatmap_png,
    overlay_png,
    resize,
    shrink,
)
from tf_gradcam._images.read import resize_pixels

PIXELS = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), (70, 43))


def file(kind, pixels=PIXELS, **options):
    data = io.BytesIO()
    PIL.Image.fromarray(pixels).save(data, kind, **options)
    return data.getvalue()


FILES = {
    "JPEG": file("JPEG"),
    "progressive JPEG": file("JPEG", progressive=True),
    "PNG": file("PNG"),
    "grey PNG": file("PNG", PIXELS[..., 0]),
    "PNG with transparency": file("PNG", np.dstack([PIXELS, PIXELS[..., 0]])),
    "GIF": file("GIF"),
    "BMP": file("BMP"),
    "WebP": file("WEBP"),
    "lossless WebP": file("WEBP", lossless=True),
    "extended WebP": file("WEBP", exif=b"Exif\0\0II*\0"),
}


def jit(function):
    """Return `function` of one string as a server runs it: as a graph."""
    return tf.function(function, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


decode = jit(lambda data: decode_photograph(data, 3))
declared_size, orientation_of = jit(_declared_size), jit(_exif_orientation)


@functools.cache
def fit(size, channels=3):
    """Return the graph that makes of a file what a model of that size gets, traced once."""
    return jit(lambda data: fit_to_model(data, decode_photograph(data, channels), size))


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_a_file_is_decoded_as_load_image_does(data):
    if data.startswith(b"RIFF") and not hasattr(tf.io, "decode_webp"):
        pytest.skip("this TensorFlow is too old to read WebP")
    np.testing.assert_array_equal(decode(data), load_image(data))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("quality", [10, 50, 75, 95, 100])
def test_a_jpeg_has_the_pixels_of_the_client(quality, subsampling, progressive):
    noise = np.random.default_rng(2).integers(0, 256, (43, 70, 3), np.uint8)
    for pixels in (PIXELS, noise):
        data = file("JPEG", pixels, quality=quality, subsampling=subsampling, progressive=progressive)
        np.testing.assert_array_equal(decode(data), load_image(data))
        np.testing.assert_array_equal(decode(data), PIL.Image.open(io.BytesIO(data)))


# PNG files of 16 bits


def png_of_16_bits(values):
    values = values[..., ::-1] if values.ndim == 3 else values
    return cv2.imencode(".png", values)[1].tobytes()


VALUES = np.random.default_rng(3).integers(0, 65536, (43, 70, 3), np.uint16)
OF_16_BITS = {
    "grey": VALUES[..., 0],
    "12 bits": VALUES[..., 0] >> 4,
    "RGB": VALUES,
    "RGB of 12 bits": VALUES >> 4,
}


@pytest.mark.parametrize("values", OF_16_BITS.values(), ids=OF_16_BITS)
def test_a_png_of_16_bits_is_drawn_with_the_pixels_of_load_image(values):
    data = png_of_16_bits(values)
    np.testing.assert_array_equal(decode(data), load_image(data))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(43, 70), (8, 8), (60, 20)])
@pytest.mark.parametrize("values", OF_16_BITS.values(), ids=OF_16_BITS)
def test_a_model_gets_the_values_of_a_png_of_16_bits(values, size, channels):
    data = png_of_16_bits(values)
    seen = fit(size, channels)(data).numpy()
    assert seen.dtype == np.float32
    expected = values.astype(np.float32)
    if channels == 1 and values.ndim == 3:
        expected = expected @ np.array([0.299, 0.587, 0.114], np.float32)
    expected = resize_pixels(expected, size)
    expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], channels, axis=-1)
    np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=0.5)
    if size == (43, 70) and values.ndim == 2:
        np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_a_model_gets_the_pixels_of_any_other_file(data):
    if data.startswith(b"RIFF") and not hasattr(tf.io, "decode_webp"):
        pytest.skip("this TensorFlow is too old to read WebP")
    np.testing.assert_array_equal(fit((20, 30))(data), resize(decode(data), (20, 30)))


@pytest.mark.parametrize("name", [name for name in FILES if name != "GIF"])
def test_the_size_is_known_before_anything_is_decoded(name):
    assert [int(length) for length in declared_size(FILES[name])] == [43, 70]


def moving(*frames):
    data = io.BytesIO()
    first, *others = map(PIL.Image.fromarray, frames)
    first.save(data, "GIF", save_all=True, append_images=others, comment=b"it moves")
    return data.getvalue()


def test_of_a_gif_that_moves_only_the_first_frame_is_given_to_the_decoder():
    data = moving(PIXELS, PIXELS[::-1], PIXELS[:, ::-1])
    height, width, first = jit(_first_frame)(data)
    assert (int(height), int(width)) == (43, 70)
    assert len(first.numpy()) < len(data) / 2
    np.testing.assert_array_equal(decode(data), load_image(data))
    assert PIL.Image.open(io.BytesIO(first.numpy())).n_frames == 1


def test_a_gif_is_as_large_as_its_frame_whatever_it_announces():
    data = bytearray(file("GIF", np.zeros((12_000, 12_000), np.uint8)))
    data[6:10] = b"\x0a\x00\x0a\x00"
    with pytest.raises(tf.errors.InvalidArgumentError, match="100,000,000 pixels.*12000. .12000"):
        decode(bytes(data))


@pytest.mark.parametrize("length", [6, 10, 13, 20, 100, 900])
def test_a_gif_that_is_cut_short_is_refused(length):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(FILES["GIF"][:length])


def test_a_bitmap_with_a_palette_is_refused():
    data = io.BytesIO()
    PIL.Image.fromarray(PIXELS).convert("P").save(data, "BMP")
    with pytest.raises(tf.errors.InvalidArgumentError, match="BMP files .of 24 or 32 bits."):
        decode(data.getvalue())


def turned(orientation, endian="<", before=b""):
    """A JPEG whose EXIF tells an orientation, and a few tags more."""
    exif = PIL.Image.Exif()
    exif.endian = endian
    exif[0x10F], exif[0x112], exif[0x132] = "a camera", orientation, "2026:11:27 22:30:00"
    data = file("JPEG", exif=exif)
    return data[:2] + before + data[2:]


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_turned_upright_as_load_image_does(orientation, endian):
    data = turned(orientation, endian)
    assert int(orientation_of(data)) == orientation
    pixels = load_image(data)
    assert pixels.shape == ((70, 43, 3) if orientation >= 5 else (43, 70, 3))
    np.testing.assert_array_equal(decode(data), pixels)


def test_the_orientation_is_found_behind_another_segment():
    comment = b"\xff\xfe\x00\x12" + 16 * b"c"
    assert int(orientation_of(turned(6, before=comment))) == 6


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_there_is_not_turns_nothing(orientation):
    assert decode(turned(orientation)).shape == (43, 70, 3)


def test_damaged_exif_turns_nothing_or_something_and_never_fails():
    data = turned(6)
    start, random = data.index(b"Exif"), np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(data)
        for place in random.integers(start, start + 60, 3):
            damaged[place] = random.integers(256)
        assert 1 <= int(orientation_of(bytes(damaged))) <= 8
    for length in range(start, start + 60):
        assert 1 <= int(orientation_of(data[:length])) <= 8


def test_a_bitmap_may_be_upside_down():
    data = bytearray(FILES["BMP"])
    data[22:26] = (-43).to_bytes(4, "little", signed=True)
    height, width = declared_size(bytes(data))
    assert (int(height), int(width)) == (43, 70)


def test_grey_is_asked_for_by_one_channel():
    grey = jit(lambda data: decode_photograph(data, 1))(FILES["GIF"])
    assert grey.shape == (43, 70, 1)
    assert np.abs(grey[..., 0].numpy().astype(int) - cv2.cvtColor(load_image(FILES["GIF"]), 7)).max() <= 1


@pytest.mark.parametrize("size", [(20, 30), (200, 300), (20, 300), (43, 70), (1, 1)])
def test_pixels_are_resized_as_load_image_does(size):
    difference = resize(PIXELS, size).numpy().astype(int) - resize_pixels(PIXELS, size)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("shape", "expected"), [((3000, 30), (1024, 10)), ((5, 5), (5, 5)), ((1, 5000), (1, 1024))]
)
def test_what_is_long_is_shrunk_in_its_proportions(shape, expected):
    assert shrink(tf.zeros((*shape, 3), tf.uint8)).shape == (*expected, 3)


def test_a_heatmap_is_a_grey_picture():
    data = heatmap_png(tf.constant([[0.0, 0.2], [0.999, 1.0]])).numpy()
    grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert grey.tolist() == [[0, 51], [255, 255]]


@pytest.mark.parametrize("channels", [1, 3])
def test_an_overlay_is_what_overlay_draws(channels):
    heatmap = np.random.default_rng(1).random((7, 7), np.float32)
    photograph = PIXELS[..., :channels]
    drawn = load_image(overlay_png(photograph, heatmap).numpy()).astype(int)
    # Resized by TensorFlow and by OpenCV, a level may be the next one, and its colour 4 further, of 40 %.
    assert np.abs(drawn - overlay(photograph, heatmap)).max() <= 2

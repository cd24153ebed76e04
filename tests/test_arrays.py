"""Whatever a user gives as an array of real numbers, or why it is none."""

import pathlib

import keras
import ml_dtypes
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tf_gradcam._arrays import (
    array_or_empty,
    check_no_data_set,
    check_no_paths,
    prepared_shape_error,
    rank_error,
    real_array,
    shape_error,
)

VALUES = [[0, 1, 2], [3, 4, 5]]
REAL = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
REAL += ["float16", "float32", "float64", ">f4", ">i2", np.longdouble]


@pytest.mark.parametrize("dtype", REAL)
def test_every_real_dtype_is_taken(dtype):
    array = np.array(VALUES, dtype)
    np.testing.assert_array_equal(real_array("heatmap", array), array)
    assert real_array("heatmap", array).dtype.itemsize <= 8


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"])
def test_the_dtypes_of_ml_dtypes_become_float32(name):
    found = real_array("heatmap", np.array(VALUES, getattr(ml_dtypes, name)))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, VALUES)


@pytest.mark.parametrize(
    "value",
    [tf.constant(VALUES), tf.constant(VALUES, tf.bfloat16), tf.Variable(VALUES), keras.Variable(VALUES)],
)
def test_tensors_and_variables_are_taken(value):
    np.testing.assert_array_equal(real_array("heatmap", value), VALUES)


def test_an_array_is_not_copied():
    array = np.ones((2, 3))
    assert np.shares_memory(real_array("heatmap", array), array)


class Unwilling:
    def __array__(self, *args, **kwargs):
        raise RuntimeError("not now")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "dtype is object"),
        ("cat", "dtype is <U3"),
        (1j, "dtype is complex128"),
        (np.zeros(2, "datetime64[s]"), "dtype is datetime64"),
        (np.zeros(2, [("a", "f4")]), "dtype is .*a"),
        ([[1], [2, 3]], "Its parts differ in shape"),
        (scipy.sparse.eye(3), r"Give a dense array: .toarray\(\)"),
        (Unwilling(), "not now"),
        (keras.Input((3,)), "symbolic"),
    ],
)
def test_what_holds_no_real_numbers_is_refused_with_the_reason(value, reason):
    with pytest.raises(TypeError, match=f"`heatmap` must be an array or tensor of real numbers.*{reason}"):
        real_array("heatmap", value)
    assert array_or_empty(value).size == 0


@pytest.mark.parametrize("wrapped", [lambda one: one, lambda one: [one, one], lambda one: ([one], [one])])
def test_masked_values_are_not_taken_for_what_is_below_the_mask(wrapped):
    masked = np.ma.masked_equal([1.0, -9999.0, 2.0], -9999)
    with pytest.raises(ValueError, match=r"`volume` must have a number everywhere.*1 of 3.*array.filled"):
        real_array("volume", wrapped(masked))
    np.testing.assert_array_equal(real_array("volume", np.ma.masked_array([1, 2])), [1, 2])


GREY, OPEN_GREY, RGB, OPEN_RGB = (
    (None, 28, 28, 1),
    (None, None, None, 1),
    (None, 32, 32, 3),
    (None, None, None, 3),
)
FIRST_GREY, FIRST_RGB, VOLUME = (None, 1, 28, 28), (None, 3, 32, 32), (None, 33, 41, 25, 1)


@pytest.mark.parametrize(
    ("given", "expected", "code"),
    [
        ((28, 28), GREY, "images[..., None]"),
        ((5, 28, 28), GREY, "images[..., None]"),
        ((28, 28), OPEN_GREY, "images[..., None]"),
        ((5, 28, 28), OPEN_GREY, "images[..., None]"),
        ((33, 41, 25), VOLUME, "images[..., None]"),
        ((2, 33, 41, 25), VOLUME, "images[..., None]"),
        ((28, 28, 3), GREY, "images.mean(-1, keepdims=True)"),
        ((28, 28, 3), OPEN_GREY, "images.mean(-1, keepdims=True)"),
        ((2, 28, 28, 4), GREY, "images[..., :3].mean(-1, keepdims=True)"),
        ((32, 32, 4), RGB, "images[..., :3]"),
        ((2, 32, 32, 4), OPEN_RGB, "images[..., :3]"),
        ((32, 32, 1), RGB, "np.repeat(images, 3, -1)"),
        ((32, 32), RGB, "np.stack([images] * 3, -1)"),
        ((3, 32, 32), RGB, "np.moveaxis(images, 0, -1)"),
        ((2, 3, 32, 32), RGB, "np.moveaxis(images, 1, -1)"),
        ((2, 1, 28, 28), GREY, "np.moveaxis(images, 1, -1)"),
        ((28, 28), FIRST_GREY, "np.expand_dims(images, 0)"),
        ((5, 28, 28), FIRST_GREY, "np.expand_dims(images, 1)"),
        ((32, 32, 3), FIRST_RGB, "np.moveaxis(images, -1, 0)"),
        ((2, 32, 32, 3), FIRST_RGB, "np.moveaxis(images, -1, 1)"),
        ((2, 4, 32, 32), FIRST_RGB, "images[..., :3, :, :]"),
        ((3, 28, 28), FIRST_GREY, "images.mean(-3, keepdims=True)"),
    ],
)
def test_the_advice_for_a_shape_makes_it_fit(given, expected, code):
    batched = len(given) in (len(expected), len(expected) - 1)
    error = (
        shape_error("images", given, expected, "") if batched else rank_error("images", [given], [expected])
    )
    message = str(error)
    assert f"Received: {'' if batched else 'shape '}{given}" in message
    assert message.endswith(f": {code}")
    fitting = eval(code, {"np": np, "images": np.zeros(given)}).shape
    wanted = expected if len(fitting) == len(expected) else expected[1:]
    assert len(fitting) == len(wanted)
    assert all(want in (None, length) for want, length in zip(wanted, fitting, strict=True))


@pytest.mark.parametrize(
    ("given", "expected", "hint"),
    [
        ((32, 32, 1), GREY, "Resize."),
        ((2, 30, 30, 3), GREY, "It must have 1 channel, and it comes last. Average the colours: "),
        ((28, 28, 13), GREY, "It must have 1 channel, and it comes last."),
        ((34, 41, 25, 1), VOLUME, "Crop or resample it first."),
    ],
)
def test_a_shape_that_no_axis_makes_fit_is_told_its_size_or_channels(given, expected, hint):
    assert hint in str(shape_error("images", given, expected, "Resize."))


def test_a_shape_from_preprocess_is_told_the_axis_that_the_images_lack():
    message = str(prepared_shape_error((None, None, None, 28), GREY))
    assert message.endswith("If `images` have no channel axis, add it: images[..., None]")
    assert "images.mean(-1, keepdims=True)" in str(prepared_shape_error((None, None, None, 3), GREY))
    assert str(prepared_shape_error((None, 30, 30, 1), GREY)).endswith("Received: (None, 30, 30, 1)")


def test_data_sets_and_their_elements_are_told_from_arrays():
    images, labels = np.zeros((2, 8, 8, 3)), np.zeros(2)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(2)
    element = next(iter(dataset))
    for given in (dataset, iter(dataset), element, (images, labels), [images, np.eye(2)], (*element, labels)):
        with pytest.raises(TypeError, match="`img` .*Take the images: for images, labels in dataset"):
            check_no_data_set("img", given)
    for given in (
        images,
        [images, images],
        [[0.0, 1.0], [2.0, 3.0]],
        (images[0, 0], labels),
        "cat.jpg",
        None,
    ):
        check_no_data_set("img", given)


@pytest.mark.parametrize("given", ["cat.jpg", b"cat", ["a", "b"], np.array(["a"]), (pathlib.Path("a"),)])
def test_paths_are_told_from_arrays(given):
    with pytest.raises(
        TypeError, match=r"`images` must be an array of images.*np.stack\(.tf_gradcam.load_image"
    ):
        check_no_paths("images", given)


UNEQUAL = [np.zeros((4, 4, 3)), np.zeros((5, 4, 3))]  # Another check says what is wrong with it.


@pytest.mark.parametrize(
    "given", [np.zeros((2, 3)), [], [[1, 2]], None, np.float32(1), tf.zeros((2, 3)), UNEQUAL]
)
def test_arrays_are_no_paths(given):
    check_no_paths("images", given)

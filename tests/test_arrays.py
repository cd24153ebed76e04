"""Whatever a user gives as an array of real numbers, or why it is none."""

import keras
import ml_dtypes
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tf_gradcam._arrays import array_or_empty, real_array

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

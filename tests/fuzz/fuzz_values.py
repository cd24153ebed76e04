"""Arguments for `fuzz_calls`: good ones, in many forms that mean the same, and odd ones."""

import decimal
import fractions
import functools
import io
import pathlib
from typing import Any, NamedTuple

import keras
import ml_dtypes
import numpy as np
import PIL.Image
import scipy.sparse
import tensorflow as tf


class Good(NamedTuple):
    """A good argument: values of one `key` mean the same, and must give the same result."""

    key: Any
    value: Any


class Odd(NamedTuple):
    """An odd argument; `never` says that it is right for no argument of any function."""

    value: Any
    never: bool = False


def same(key, *values):
    return [Good(key, value) for value in values]


@functools.cache
def images():
    """Return a dict from the number of images to the same images in many forms, exact in bfloat16."""
    random = np.random.default_rng(0)
    found = {}
    for count in (1, 3):
        array = random.integers(-8, 9, (count, 17, 17, 3)).astype("float32") / 4
        forms = [array, array.astype("float64"), array.astype("float16"), array.astype(ml_dtypes.bfloat16)]
        forms += [array.astype(np.longdouble), array.astype(">f4"), np.asfortranarray(array), array.tolist()]
        forms += [
            tf.constant(array),
            tf.constant(array, tf.bfloat16),
            tf.Variable(array),
            keras.Variable(array),
        ]
        forms += [np.ma.masked_array(array), array[::-1][::-1], list(array), [array]]
        forms += [array[0], tf.constant(array[0])] if count == 1 else []
        found[count] = same(("images", count), *forms)
    return found


@functools.cache
def photographs():
    """Return the same photograph, RGB of 8 bits, in many forms."""
    pixels = np.random.default_rng(1).integers(0, 256, (12, 10, 3), dtype="uint8")
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    forms = [
        pixels,
        file.getvalue(),
        bytearray(file.getvalue()),
        PIL.Image.fromarray(pixels),
        pixels.tolist(),
    ]
    forms += [
        pixels.astype(dtype)
        for dtype in ("int16", "int64", "uint64", "float32", "float64", ">i4", np.longdouble)
    ]
    forms += [
        tf.constant(pixels),
        tf.Variable(pixels),
        keras.Variable(pixels, dtype="uint8"),
        np.ma.masked_array(pixels),
    ]
    forms += [
        pixels.astype(ml_dtypes.bfloat16),
        tf.constant(pixels, tf.bfloat16),
        np.dstack([pixels, pixels[..., 0]]),
    ]
    return same("photograph", *forms)


@functools.cache
def heatmaps():
    """Return the same heatmap in many forms; its values are exact in bfloat16."""
    heatmap = np.random.default_rng(2).integers(0, 65, (4, 5)).astype("float32") / 64
    forms = [heatmap, heatmap[None], heatmap.tolist(), np.ma.masked_array(heatmap), tf.constant(heatmap)]
    forms += [
        heatmap.astype(dtype) for dtype in ("float64", "float16", np.longdouble, ml_dtypes.bfloat16, ">f8")
    ]
    return same(
        "heatmap", *forms, tf.constant(heatmap, tf.bfloat16), tf.Variable(heatmap), keras.Variable(heatmap)
    )


class Unwilling:
    """An object that is no array, and says so in its own way."""

    def __array__(self, *args, **kwargs):
        raise RuntimeError("no")

    def __repr__(self):
        return "Unwilling()"


@functools.cache
def odd_values():
    with tf.Graph().as_default():
        dead = tf.compat.v1.placeholder(tf.float32, (3, 17, 17, 3))
        dead_class = tf.compat.v1.placeholder(tf.int32, (3,))
    number = np.arange(12).reshape(3, 4)
    masked = np.ma.masked_less(np.arange(3 * 17 * 17 * 3).reshape(3, 17, 17, 3) / 1e4, 0.05)
    never = [
        object(),
        1j,
        number * 1j,
        [[1], [2, 3]],
        np.array([object()]),
        np.array("2020-01-01", "datetime64[D]"),
    ]
    never += [
        np.zeros(3, "datetime64[s]"),
        np.zeros((4, 5), [("a", "f4")]),
        np.zeros((17, 17, 3), "timedelta64[s]"),
    ]
    never += [masked, masked[0], masked[0, ..., 0], [masked[0], masked[0]], np.ma.masked, dead, dead_class]
    never += [
        keras.Input((17, 17, 3)),
        scipy.sparse.eye(4),
        tf.sparse.from_dense(np.eye(4)),
        Unwilling(),
        [Unwilling()],
    ]
    never += [
        tf.ragged.constant([[1], [2, 3]]),
        tf.constant("cat"),
        tf.constant([b"cat"]),
        {1, 2},
        ...,
        [None],
    ]
    never += [
        decimal.Decimal("NaN"),
        memoryview(b""),
        np.array(["a", "b"]),
        np.full((17, 17, 3), None),
        [{}],
        [b""],
        [object],
    ]
    never += [
        np.broadcast_to(np.float32(0), (2, 30000, 30000, 3)),
        np.broadcast_to(np.uint8(0), (3, 10**6, 10**6)),
    ]
    maybe = [
        None,
        True,
        False,
        np.True_,
        0,
        -1,
        1,
        3,
        2**31,
        2**70,
        -(2**70),
        0.5,
        1.5,
        -0.0,
        1e300,
        float("nan"),
        float("inf"),
    ]
    maybe += [
        "",
        "cat",
        "conv1",
        "a\0b",
        "é\ud800",
        "x" * 5000,
        "gradcam",
        b"",
        b"cat",
        bytearray(b"\xff\xd8"),
        pathlib.Path("none"),
    ]
    maybe += [
        [],
        (),
        {},
        [0],
        [0, 1],
        (5, 9),
        (1, 2, 3),
        [1, 2, 3, 4],
        {"a": 1},
        {0: "a"},
        range(3),
        np.int64(0),
        np.int8(-1),
    ]
    maybe += [
        np.uint64(2**63),
        np.float32(0.5),
        np.float16("nan"),
        fractions.Fraction(1, 2),
        decimal.Decimal("0.5"),
        number,
    ]
    maybe += [
        np.zeros((0, 17, 17, 3)),
        np.zeros(()),
        np.zeros((1,) * 8),
        np.ones((2, 2)),
        np.full((17, 17, 3), np.nan),
        np.eye(5),
    ]
    maybe += [
        np.ones((17, 17, 4)),
        np.ones((3, 16, 17, 3)),
        np.ones((3, 3, 17, 17)),
        np.full((4, 5), 2.0),
        np.full((4, 5), -1.0),
    ]
    maybe += [
        tf.constant(1),
        tf.constant([1, 2]),
        tf.Variable(1),
        keras.Variable(0),
        tf.zeros((0, 3)),
        tf.constant(2**40),
        (2**14, 1),
    ]
    maybe += [
        lambda *a: 1 / 0,
        lambda *a: None,
        lambda *a: a[0],
        len,
        np.float32,
        keras.layers.Dense(2),
        keras.Sequential(),
        [np.ones((17, 17, 3)), np.ones(3)],
    ]
    maybe += [
        ml_dtypes.bfloat16(0.5),
        np.zeros(2, ml_dtypes.int4),
        np.ones((4, 5), ml_dtypes.float8_e4m3fn),
        (2**14, 2**14, 2**14),
        [[[]]],
    ]
    return [Odd(value, True) for value in never] + [Odd(value) for value in maybe]

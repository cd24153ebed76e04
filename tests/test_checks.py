"""Checks of parameters: counts, numbers, seeds; suggestions of names; text that is safe to print."""

import math
import types

import numpy as np
import pytest

from tf_gradcam._checks import (
    check_counts,
    check_number,
    check_seed,
    did_you_mean,
    is_whole,
    one_line,
    printable,
)


def of(value):
    return types.SimpleNamespace(value=value, seed=value)


@pytest.mark.parametrize("value", [1, 7, np.int64(3)])
def test_whole_numbers_from_1_are_counts(value):
    check_counts(of(value), "value")


@pytest.mark.parametrize("value", [0, -1, 1.5, 2.0, True, "2", None])
def test_anything_else_is_no_count(value):
    with pytest.raises(ValueError, match=f"`value` must be a whole number from 1. Received: value={value!r}"):
        check_counts(of(value), "value")


def test_none_is_a_count_where_it_is_optional():
    check_counts(of(None), optional=("value",))
    with pytest.raises(ValueError, match="`value` must be a whole number from 1 or None. Received: value=0"):
        check_counts(of(0), optional=("value",))


@pytest.mark.parametrize(
    ("limits", "good", "bad"),
    [
        ({}, [0.1, np.float32(3)], [0, -1, math.inf, math.nan, "1", True, None]),
        ({"above": None}, [0, 2.5], [-0.1, math.nan, math.inf]),
        ({"below": 1}, [0.5], [0, 1, 2]),
        ({"above": -math.inf}, [-3, 0], [-math.inf, math.nan]),
    ],
)
def test_numbers_have_limits(limits, good, bad):
    for value in good:
        check_number(of(value), "value", **limits)
    for value in bad:
        with pytest.raises(ValueError, match="`value` must be a number"):
            check_number(of(value), "value", **limits)


def test_seeds_are_whole_numbers_of_32_bits():
    for value in (0, -5, 2**31 - 1, np.int32(4)):
        check_seed(of(value))
    for value in (1.5, 2**31, True, None):
        with pytest.raises(ValueError, match="`seed` must be a whole number of 32 bits"):
            check_seed(of(value))


@pytest.mark.parametrize("value", [0, -3, 2**70, np.int8(1), np.uint64(5)])
def test_integers_of_python_and_numpy_are_whole(value):
    assert is_whole(value)


@pytest.mark.parametrize("value", [1.0, True, np.True_, "1", None, np.float32(1), [1]])
def test_anything_else_is_not_whole(value):
    assert not is_whole(value)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("gradcamm", "Did you mean 'gradcam'?"),
        ("GradCAM", "Did you mean 'gradcam'?"),
        ("block1-conv", "Did you mean 'block1_conv' or 'block2_conv'?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_similar_names_are_suggested_the_most_similar_first(name, suggestion):
    assert did_you_mean(name, ["gradcam", "block2_conv", "block1_conv", "eigen"]) == suggestion


def test_at_most_as_many_names_are_suggested_as_asked_for():
    known = ["conv1", "conv2", "conv3", "conv4"]
    assert did_you_mean("conv", known, most=1).count("conv") == 1
    assert did_you_mean("conv", known).count("conv") == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", "a cat"),
        ("caf\xe9 \U0001f408", "caf\xe9 \U0001f408"),
        ("\x1b[2Jcat\r", "\\x1b[2Jcat\\r"),
        ("\udcff", "\\udcff"),
        (ValueError("a\nb"), "a\\nb"),
    ],
)
def test_what_is_not_printable_is_escaped(text, expected):
    assert printable(text) == expected
    printable(text).encode("utf-8")


def test_several_lines_become_one():
    assert one_line("  a\n  b\tc \x1b ") == "a b c \\x1b"

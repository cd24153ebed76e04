"""Checks of parameters: what is a count, a number, a seed."""

import math
import types

import numpy as np
import pytest

from tf_gradcam._checks import check_counts, check_number, check_seed


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

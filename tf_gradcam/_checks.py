"""Checks of the parameters of methods, which are made before any model is at hand."""

import math
import numbers
from typing import Any


def check_counts(method: Any, *names: str, optional: tuple[str, ...] = ()) -> None:
    """Raise a `ValueError` unless these fields are whole numbers from 1, or `None` if optional."""
    for name in (*names, *optional):
        value = getattr(method, name)
        if name in optional and value is None:
            continue
        if not is_whole(value) or value < 1:
            default = " or None" if name in optional else ""
            raise ValueError(f"`{name}` must be a whole number from 1{default}. Received: {name}={value!r}")


def check_number(method: Any, name: str, above: float | None = 0, below: float = math.inf) -> None:
    """Raise a `ValueError` unless this field is a number between `above` and `below`, or 0 if it may be."""
    value = getattr(method, name)
    is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_real or not value < below or not (value >= 0 if above is None else value > above):
        limits = "of 0 or more" if above is None else f"above {above}"
        limits += f" and below {below}" if below < math.inf else ""
        raise ValueError(f"`{name}` must be a number {limits}. Received: {name}={value!r}")


def check_seed(method: Any) -> None:
    if not is_whole(method.seed) or not -(2**31) <= method.seed < 2**31:
        raise ValueError(f"`seed` must be a whole number of 32 bits. Received: seed={method.seed!r}")


def is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)

"""Checks of arguments, and the words of their errors: numbers, ranges, "did you mean", one line of text.

Every package calls it. It imports nothing but the standard library.
"""

import difflib
import math
import numbers
from collections.abc import Iterable
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


def did_you_mean(name: str, known: Iterable[str], most: int = 3) -> str:
    """Return `"Did you mean 'a' or 'b'?"` with the known names most like `name`, or `""` if none is.

    Upper and lower case, hyphens and underscores count as the same.
    """
    by_plain_name = {_plain(each): each for each in known}
    near = difflib.get_close_matches(_plain(name), by_plain_name, most)
    return f"Did you mean {' or '.join(repr(by_plain_name[each]) for each in near)}?" if near else ""


def _plain(name):
    return name.casefold().replace("-", "_")


def printable(text: Any) -> str:
    """Return text with escapes in place of what would move a terminal's cursor or can't be encoded."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def one_line(text: Any) -> str:
    """Return text in one printable line, with single spaces."""
    return printable(" ".join(str(text).split()))

"""Checks of numbers and errors, "did you mean", and text that is safe to print. Every package calls them.

It imports nothing but the standard library.
"""

import difflib
import errno
import math
import numbers
import os
import re
from collections.abc import Iterable
from typing import Any

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def check_counts(method: Any, *names: str, optional: tuple[str, ...] = ()) -> None:
    """Raise a `ValueError` unless these fields of a method are whole numbers from 1.

    Args:
        method: the object with the fields.
        *names: fields that must be whole numbers from 1.
        optional: fields that may be `None`, too.
    """
    for name in (*names, *optional):
        value = getattr(method, name)
        if name in optional and value is None:
            continue
        if not is_whole(value) or value < 1:
            default = " or None" if name in optional else ""
            raise ValueError(f"`{name}` must be a whole number from 1{default}. Received: {name}={value!r}")


def check_number(method: Any, name: str, above: float | None = 0, below: float = math.inf) -> None:
    """Raise a `ValueError` unless this field of a method is a number within limits.

    Args:
        method: the object with the field.
        name: the field.
        above: a limit that the number must exceed; `None` for a number of 0 or more.
        below: a limit that the number must not reach.
    """
    value = getattr(method, name)
    is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_real or not value < below or not (value >= 0 if above is None else value > above):
        limits = "of 0 or more" if above is None else f"above {above}"
        limits += f" and below {below}" if below < math.inf else ""
        raise ValueError(f"`{name}` must be a number {limits}. Received: {name}={value!r}")


def check_seed(method: Any) -> None:
    """Raise a `ValueError` unless the field `seed` of a method is a signed whole number of 32 bits."""
    if not is_whole(method.seed) or not -(2**31) <= method.seed < 2**31:
        raise ValueError(f"`seed` must be a whole number of 32 bits. Received: seed={method.seed!r}")


def check_path(name: str, path: Any) -> None:
    """Raise a `TypeError` if a value is no path."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"`{name}` must be a path, and comes first. Received: an object of type {type(path).__name__}."
        )


def check_no_address(name: str, path: str | os.PathLike) -> None:
    """Raise a `ValueError` if a path is the address of something in a network."""
    # Of two slashes pathlib leaves one. A drive of Windows has one letter.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", os.fsdecode(path)):
        raise ValueError(
            f"`{name}` must be a path. Received: {path!r:.200}, an address, and these aren't read. "
            'Download it first, as by keras.utils.get_file("cat.jpg", address).'
        )


def is_whole(value: Any) -> bool:
    """Return whether a value is an integer, Python's or NumPy's, and not a bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def did_you_mean(name: str, known: Iterable[str], most: int = 3) -> str:
    """Suggest known names that are similar to a name.

    Upper and lower case, and hyphens and underscores, count as the same.

    Args:
        name: the name that is not known.
        known: the names that are.
        most: how many to suggest at most.

    Returns:
        `"Did you mean 'a' or 'b'?"`, the most similar first, or `""` if none is similar.
    """
    known_by_spelling = {_normalized(known_name): known_name for known_name in known}
    similar = difflib.get_close_matches(_normalized(name), known_by_spelling, most)
    if not similar:
        return ""
    return f"Did you mean {' or '.join(repr(known_by_spelling[spelling]) for spelling in similar)}?"


def _normalized(name) -> str:
    return name.casefold().replace("-", "_")


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error says that there is no space left on a disk, or in a user's share of it."""
    return isinstance(error, OSError) and error.errno in _FULL


def printable(text: Any) -> str:
    """Return text with escapes, such as `\\x1b`, in place of the characters that are not printable.

    These could move a terminal's cursor, or cannot be encoded.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(text)
    )


def one_line(text: Any) -> str:
    """Return text as one printable line, with single spaces."""
    return printable(" ".join(str(text).split()))

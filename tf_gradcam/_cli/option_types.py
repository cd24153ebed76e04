"""What the value of an option must be, as functions from its text; `arguments` gives them to the parser."""

import argparse
import math


def count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1. Received: {text}")
    return int(text)


def gpus(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not (0 < number < 1 or (number >= 1 and number.is_integer())):
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 1, or a share such as 0.5. Received: {text}"
        )
    return number


def pair(text: str) -> tuple[float, float]:
    try:
        first, second = (float(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be two numbers, as in 40,400. Received: {text}") from None
    return first, second


def band_numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(number) for number in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3) or min(numbers) < 1:
        raise argparse.ArgumentTypeError(
            f"must be one or three numbers from 1, as in 4,3,2. Received: {text}"
        )
    return numbers


def fraction_or_otsu(text: str) -> float | str:
    try:
        return text if text == "otsu" else fraction(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"must be otsu, or {str(error).removeprefix('must be ')}") from None


def levels(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(number) for number in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < number < 1 for number in numbers):
        raise argparse.ArgumentTypeError(f"must be numbers above 0 and below 1. Received: {text}")
    return numbers


def above_0(text: str) -> float:
    number = _number(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0. Received: {text}")
    return number


def fraction(text: str) -> float:
    number = _number(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 and below 1. Received: {text}")
    return number


def names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",")))


def _number(text) -> float:
    """Return the number that a text is; NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan

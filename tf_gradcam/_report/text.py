"""Text and numbers for a page, escaped and of bounded length. `page` and `cards` call it."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

from tf_gradcam._checks import printable

_MOST_CHARACTERS = 200


def escape(text: Any, most: int = _MOST_CHARACTERS) -> str:
    """Return text for HTML, also for an attribute in double quotes; cut after `most` characters."""
    text = printable(text)
    return html.escape(text if len(text) <= most else f"{text[: most - 1]}…")


def class_name(index: int | None, label: str | None) -> str:
    """Return what a class is called, not escaped."""
    if label:
        return label
    return "no class" if index is None else f"class {index}"


def format_number(value: float | None) -> str:
    """Return a number with three digits, and `none` without one."""
    return "none" if value is None else f"{value:.3g}"


def format_share(value: float | None) -> str:
    """Return a number in [0, 1] in percent, and `none` without one."""
    return "none" if value is None else f"{100 * value:.1f} %"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table of escaped text; the first cell of each row is its heading."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    lines = []
    for first, *rest in rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"

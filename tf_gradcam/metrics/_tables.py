"""How tables look: as text, as HTML, as plain records. Called by `Table`, `Sanity` and `Trust`."""

import html
import math
from collections.abc import Sequence
from typing import Any

from tf_gradcam._checks import printable


def plain_table(header: Sequence[str], rows: Sequence[Sequence[Any]], notes: Sequence[str] = ()) -> str:
    """Return a table as lines of text: words to the left, numbers to the right."""
    cells = [list(header), *([cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric = [
        all(isinstance(row[place], int | float | None) for row in rows) for place in range(len(header))
    ]
    lines = [
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([*lines, *notes])


def html_table(header: Sequence[str], rows: Sequence[Sequence[Any]], notes: Sequence[str] = ()) -> str:
    """Return the same table as HTML. All text is escaped."""

    def row_of(tag, values):
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell(value))}</{tag}>" for value in values) + "</tr>"

    body = "".join(row_of("td", row) for row in rows)
    paragraphs = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    return f"<table><thead>{row_of('th', header)}</thead><tbody>{body}</tbody></table>{paragraphs}"


def cell(value: Any) -> str:
    """Return a value as the text of a cell: four digits, and nothing for what is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return printable(str(value))


def record(row: Any) -> dict[str, Any]:
    """Return a named tuple as a dict of what JSON can hold: `None` for NaN, lists for arrays."""
    return {name: as_json(value) for name, value in row._asdict().items()}


def as_json(value: Any) -> Any:
    """Return a value as JSON can hold it."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [as_json(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""The results of a run: its JSON file, and what a title or table says of a row."""

import json
import os
import pathlib
from typing import Any

from tf_gradcam._checks import printable

RESULTS_FILE = "explanations.json"


def write_results(rows: list[dict[str, Any]], out: pathlib.Path) -> None:
    """Write the rows as JSON: all of them or none, so call it last."""
    path = out / RESULTS_FILE
    text = json.dumps(rows, indent=2, allow_nan=False)
    unfinished = path.with_name(f".{RESULTS_FILE}.unfinished")
    unfinished.write_text(f"{text}\n", encoding="utf-8")
    os.replace(unfinished, path)


def remove_results(out: pathlib.Path) -> None:
    """Remove the JSON of an earlier run, which would tell of pictures that change now."""
    (out / RESULTS_FILE).unlink(missing_ok=True)


def format_probability(row: dict[str, Any]) -> str:
    """Return a row's probability in percent, or `""` if it has none."""
    return "" if row["probability"] is None else f"{row['probability']:.1%}"


def format_class(row: dict[str, Any]) -> str:
    """Return the class that a row is about, and its probability if there is one."""
    return printable(f"{row['label']} {format_probability(row)}".strip())

"""The results of a run: its JSON file, and what a title or table says of a row."""

import json
import pathlib
from typing import Any

from tf_gradcam._checks import printable
from tf_gradcam._run.files import write_file

RESULTS_FILE = "explanations.json"
UNFINISHED_RESULTS_FILE = "explanations-unfinished.json"


def write_results(rows: list[dict[str, Any]], out: pathlib.Path, finished: bool = True) -> str:
    """Write the rows as JSON: all of them or none, so call it last.

    Args:
        rows: what the run found.
        out: the folder to write to.
        finished: whether the run came to its end. The rows of one that didn't go to a file of their own, so
            that they don't pass for all rows, and leave the results of an earlier run alone. That file is
            removed when a later run is finished.

    Returns:
        The name of the file.
    """
    name = RESULTS_FILE if finished else UNFINISHED_RESULTS_FILE
    text = json.dumps(rows, indent=2, allow_nan=False)
    write_file(out / name, f"{text}\n".encode())
    if finished:
        (out / UNFINISHED_RESULTS_FILE).unlink(missing_ok=True)
    return name


def format_probability(row: dict[str, Any]) -> str:
    """Return a row's probability in percent, or `""` if it has none."""
    return "" if row["probability"] is None else f"{row['probability']:.1%}"


def format_class(row: dict[str, Any]) -> str:
    """Return the class that a row is about, and its probability if there is one."""
    return printable(f"{row['label']} {format_probability(row)}".strip())

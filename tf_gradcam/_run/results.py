"""Write the results of a run as JSON, and format a row for titles and tables.

`pictures` and the command line call it.
"""

import json
import pathlib
from typing import Any

from tf_gradcam._checks import printable
from tf_gradcam._files import write_file
from tf_gradcam._run.files import RESULTS_FILE, UNFINISHED_RESULTS_FILE, keep_earlier_names


def write_results(rows: list[dict[str, Any]], out: pathlib.Path, finished: bool = True) -> str:
    """Write the rows of a run as a JSON file.

    Args:
        rows: all rows of the run; the file is replaced as a whole.
        out: the folder to write to.
        finished: whether the run is finished. The rows of an unfinished run are written to another file, so
            that they are not taken for all rows, and the results of an earlier run stay. A later run that is
            finished removes that file.

    Returns:
        The name of the file.
    """
    keep_earlier_names(out, rows)
    name = RESULTS_FILE if finished else UNFINISHED_RESULTS_FILE
    text = json.dumps(rows, indent=2 if finished else None, allow_nan=False)  # An end has no time to indent.
    write_file(out / name, f"{text}\n".encode())
    if finished:
        (out / UNFINISHED_RESULTS_FILE).unlink(missing_ok=True)
    return name


def format_probability(row: dict[str, Any]) -> str:
    """Return a row's probability in percent, or `""` if it has none."""
    return "" if row["probability"] is None else f"{row['probability']:.1%}"


def format_class(row: dict[str, Any]) -> str:
    """Return the class of a row, and its probability if there is one."""
    return printable(f"{row['label']} {format_probability(row)}".strip())

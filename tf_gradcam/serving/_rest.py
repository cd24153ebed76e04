"""The JSON of TensorFlow Serving's REST API as arrays. `serving.answers` calls it."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_gradcam.serving._arrays import object_array

ONLY_OUTPUT = "output"  # what an only output is called, as REST leaves out its name


def parse_json(text: str | bytes | bytearray) -> Any:
    """Parse the text of a response, or raise a `ValueError` that shows how it begins."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # Too many nested brackets are a RecursionError.
        raise ValueError(
            f"`response` must be JSON: {error}. Received: {len(text)} characters that begin with "
            f"{text[:60]!r}. Give the body of the server's response."
        ) from error


def output_columns(response: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the value of each output by its name, the batch first.

    Args:
        response: parsed JSON in REST's row format (`predictions`) or column format (`outputs`); or outputs by
            their names.

    Raises:
        ValueError: if the server reports an error, or the rows differ.
    """
    # An array may be an output that is called "outputs" or "error".
    from_json = {name: value for name, value in response.items() if not hasattr(value, "shape")}
    if from_json.get("error"):
        raise ValueError(
            f"`response` must hold outputs. The server answered with an error: {from_json['error']!s:.1000}"
        )
    if "predictions" in from_json:
        return _columns_from_rows(from_json["predictions"])
    if "outputs" in from_json:
        columns = from_json["outputs"]
        return columns if _has_names(columns) else {ONLY_OUTPUT: columns}
    if not response:
        raise ValueError("`response` must have outputs. Received: an empty dict.")
    return response


def array_from_json(name: str, value: Any) -> np.ndarray:
    """Return the value of an output, nested lists or an array, as an array of numbers, strings or bytes."""
    if hasattr(value, "shape"):  # an array or tensor already
        return np.asarray(value)
    try:
        # Objects first: in an array of NumPy's own strings, each takes the memory of the longest.
        cells = np.asarray(value, dtype=object)
        types = set(map(type, cells.ravel()))
        if types <= {bool, int, float}:
            return cells.astype(types.pop() if len(types) == 1 else float)
        if types == {dict}:
            return object_array([_decode_base64(cell) for cell in cells.ravel()], cells.shape)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"Output {name!r} of `response` can't be read: {error}") from error
    if types == {str}:
        return cells
    received = ", ".join(sorted(kind.__name__ for kind in types))
    hint = " Lists at the same depth differ in length." if list in types else ""
    raise ValueError(
        f"Output {name!r} of `response` must be an array of numbers, of strings or of bytes. Received: "
        f"values of type {received} in the shape {cells.shape}.{hint}"
    )


def _columns_from_rows(rows) -> Mapping:
    if not isinstance(rows, list):
        raise ValueError(f"`predictions` must be a list of one row for each image. Received: {rows!r:.80}")
    if not any(map(_has_names, rows)):
        return {ONLY_OUTPUT: rows}
    names = set(rows[0]) if _has_names(rows[0]) else set()
    if not all(_has_names(row) and set(row) == names for row in rows):
        raise ValueError(
            "`predictions` must have the same outputs in every row. Received: rows with different outputs."
        )
    return {name: [row[name] for row in rows] for name in rows[0]}


def _has_names(value) -> bool:
    """Tell a dict of outputs from bytes, which are a dict in JSON: `{"b64": "..."}`."""
    return isinstance(value, Mapping) and set(value) != {"b64"}


def _decode_base64(cell) -> bytes:
    if set(cell) != {"b64"} or not isinstance(cell["b64"], str):
        raise ValueError(f'bytes must be {{"b64": "..."}}. Received: {cell!r:.80}')
    return base64.b64decode(cell["b64"], validate=True)

"""A response of a model server as arrays: `answers`. Users call it, and `serving.heatmap` does."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_gradcam.serving._arrays import object_array
from tf_gradcam.serving._grpc import array_from_proto
from tf_gradcam.serving._rest import array_from_json, output_columns, parse_json


def answers(response: Any) -> dict[str, np.ndarray]:
    """Return every output of a response by its name.

    REST and gRPC give the same arrays, except that JSON has no dtypes.

    Args:
        response: what TensorFlow Serving answered. From REST the text, as `str` or bytes, or the parsed JSON,
            `{"predictions": [...]}` or `{"outputs": ...}`. From gRPC the `PredictResponse`, of any compiled
            stubs: only its fields are read. Or a dict of arrays or tensors, as this function returns it, or
            as a signature does that was loaded in Python.

    Returns:
        A dict of arrays, the batch first: numbers, or Python objects (dtype object): `bytes` in an output
        whose name ends in `_bytes`, and else `str`. REST gives an only output without its name: it is called
        `"output"`.

    Raises:
        TypeError: if `response` is of another type.
        ValueError: if it reports an error, which is quoted, or is malformed.

    Example:

    ```python
    reply = requests.post("http://localhost:8501/v1/models/cat:predict", json=request)
    serving.answers(reply.content)["class"]  # (N,)
    ```
    """
    if isinstance(response, str | bytes | bytearray):
        response = parse_json(response)
    if isinstance(response, Mapping):
        outputs = {name: array_from_json(name, value) for name, value in output_columns(response).items()}
    elif isinstance(getattr(response, "outputs", None), Mapping):
        outputs = {name: array_from_proto(name, tensor) for name, tensor in response.outputs.items()}
    else:
        raise TypeError(
            "`response` must be REST's JSON (str, bytes, dict), gRPC's PredictResponse, or a dict of arrays. "
            f"Received: {response!r:.80} (of type {type(response).__name__})"
        )
    if not all(isinstance(name, str) for name in outputs):
        raise ValueError(
            f"`response` must have outputs with names. Received: the names {list(outputs)!r:.80}"
        )
    return {name: _as_text(values) if _is_text(name, values) else values for name, values in outputs.items()}


def _is_text(name, values) -> bool:
    """Tell text from bytes by the name of the output, as TensorFlow Serving's REST API does."""
    return values.dtype == object and not name.endswith("_bytes")


def _as_text(values) -> np.ndarray:
    decoded = [cell.decode(errors="replace") if isinstance(cell, bytes) else cell for cell in values.ravel()]
    return object_array(decoded, values.shape)

"""What is checked of a file before a runtime gets it: `verify`. `loaded` calls it.

Runtimes are written in C++ for files that they trust. What is looked at here is read by Python, where a wrong
offset is an error and no crash. Anything wrong is a `ValueError` that says what.
"""

import importlib
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from tf_gradcam._runtimes.fingerprint import hash_files

_ONE_FILE = "tf_gradcam.export_gradcam writes one file that holds all of its numbers"
# Which fields of ONNX's messages hold which messages, by their numbers in onnx.proto.
_ONNX_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # fields of a tensor whose numbers are in another file
_MOST_NESTED = 100
_BIN_SHA256 = re.compile(rb"bin_sha256&quot;: &quot;([0-9a-f]{64})&quot;")  # as `write_notes` writes it


def verify(path: pathlib.Path, format: str) -> None:
    """Raise a `ValueError` or `FileNotFoundError` unless a file looks like one of its format.

    Args:
        path: the file.
        format: `"litert"`, `"onnx"` or `"openvino"`.
    """
    {"litert": _verify_litert, "onnx": _verify_onnx, "openvino": _verify_openvino}[format](path)


def _verify_litert(path: pathlib.Path) -> None:
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise ValueError("it is no LiteRT file")
    schema: Any = importlib.import_module("ai_edge_litert.schema_py_generated")
    try:
        model = schema.ModelT.InitFromPackedBuf(data, 0)  # It reads whatever the file refers to.
    except Exception as error:  # Whatever a wrong offset leads to.
        raise ValueError("it is cut short or damaged") from error
    if any(code.customCode for code in model.operatorCodes or []):
        raise ValueError("it has operations of its own, which are never loaded")
    if not model.subgraphs or not model.signatureDefs:
        raise ValueError("it has no signature")
    for graph in model.subgraphs:
        _check_graph(graph, len(model.operatorCodes or []), len(model.buffers or []))
    for signature in model.signatureDefs:
        if not 0 <= signature.subgraphIndex < len(model.subgraphs):
            raise ValueError("it is damaged")
        count = len(model.subgraphs[signature.subgraphIndex].tensors)
        _check_positions([each.tensorIndex for each in [*signature.inputs, *signature.outputs]], count)


def _check_graph(graph: Any, code_count: int, buffer_count: int) -> None:
    """Raise a `ValueError` if a graph refers to tensors, buffers or operations that are not there."""
    tensors = graph.tensors or []
    _check_positions([tensor.buffer for tensor in tensors], buffer_count)
    _check_positions(_integers(graph.inputs), len(tensors))
    _check_positions(_integers(graph.outputs), len(tensors))
    for operator in graph.operators or []:
        _check_positions([operator.opcodeIndex], code_count)
        used = [*_integers(operator.inputs), *_integers(operator.outputs)]
        _check_positions([each for each in used if each != -1], len(tensors))  # -1: an input that is left out


def _integers(values: Any) -> list[int]:
    return [] if values is None else [int(value) for value in values]


def _check_positions(positions: list[int], count: int) -> None:
    if positions and not 0 <= min(positions) <= max(positions) < count:
        raise ValueError("it is damaged")


def _verify_onnx(path: pathlib.Path) -> None:
    try:
        _check_no_other_file(memoryview(path.read_bytes()), "model", 0)
    except (IndexError, RecursionError) as error:
        raise ValueError("it is cut short, damaged, or no ONNX file") from error


def _check_no_other_file(message: memoryview, kind: str, depth: int) -> None:
    """Raise a `ValueError` if the numbers of a tensor in a message of ONNX are in another file."""
    if depth > _MOST_NESTED:
        raise RecursionError
    for number, value in _fields(message):
        if kind == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)):
            raise ValueError(f"it refers to another file, and {_ONE_FILE}")
        inner = _ONNX_MESSAGES[kind].get(number)
        if inner is not None and isinstance(value, memoryview):
            _check_no_other_file(value, inner, depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field of a protocol buffer: an integer, or what a field of bytes holds.

    Raises:
        IndexError: if it is cut short, or no protocol buffer.
    """
    start = 0
    while start < len(message):
        key, start = _varint(message, start)
        kind = key & 7
        if kind == 0:
            value, start = _varint(message, start)
            yield key >> 3, value
            continue
        if kind == 2:
            length, start = _varint(message, start)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise IndexError
        if start + length > len(message):
            raise IndexError
        yield key >> 3, message[start : start + length]
        start += length


def _varint(message: memoryview, start: int) -> tuple[int, int]:
    """Return a number stored in groups of seven bits, the lowest first, and the position after it."""
    number = 0
    for position in range(10):
        byte = message[start + position]
        number |= (byte & 127) << 7 * position
        if byte < 128:
            return number, start + position + 1
    raise IndexError


def _verify_openvino(path: pathlib.Path) -> None:
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise FileNotFoundError(
            f"`path` must have its numbers beside it, in {weights.name!r}. Received: path={str(path)!r} "
            "alone. OpenVINO needs both files that tf_gradcam.export_gradcam writes."
        )
    content = path.read_bytes()
    beginning = content[:1000].removeprefix(b"\xef\xbb\xbf").lstrip()
    if not beginning.startswith(b"<") or b"<net" not in beginning:
        raise ValueError("it is no OpenVINO file")
    noted = _BIN_SHA256.findall(content)  # In the notes, which come last.
    if noted and noted[-1].decode() != hash_files([weights]):
        raise ValueError(f"its numbers in {weights.name!r} are those of another file, or damaged")

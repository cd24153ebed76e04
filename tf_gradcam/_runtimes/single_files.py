"""LiteRT, ONNX Runtime and OpenVINO: load a file of theirs, and run it: `runner`.

`load`, `_export`, tests and benchmarks call it. The libraries are optional and imported when needed.
"""

import importlib
import os
import pathlib
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam._runtimes.notes import notes_of_litert, parse_notes

SUFFIXES = {"litert": ".tflite", "onnx": ".onnx", "openvino": ".xml"}
_MODULES = {"litert": "ai_edge_litert.interpreter", "onnx": "onnxruntime", "openvino": "openvino"}
_ONNX_DTYPES = {"float": "float32", "double": "float64"}  # Others are called as NumPy calls them.

Arrays = Mapping[str, np.ndarray]


class InputSpec(NamedTuple):
    """What a file takes as one of its inputs.

    Attributes:
        name: its name.
        shape: its lengths; `None` for one that is open, as the first, the number of images.
        dtype: the name of its dtype, such as `"float32"`.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str


class Runner(NamedTuple):
    """The function of a file, from arrays by name to arrays by name; threads may call it at the same time.

    Attributes:
        function: that function.
        inputs: what it takes.
        outputs: the names of what it returns.
        notes: what `export_gradcam` noted in the file; empty for a file of others.
    """

    function: Callable[[Arrays], dict[str, np.ndarray]]
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    notes: dict[str, Any]

    def __call__(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """Return the outputs by name."""
        return self.function(arrays)


def runner(path: str | os.PathLike, threads: int | None = None) -> Runner:
    """Load a file that `export_gradcam` wrote, and return its function.

    Args:
        path: the file, whose suffix says its format.
        threads: how many threads it uses, or `None` for the runtime's own number.

    Raises:
        ImportError: if the package that runs it is missing.
    """
    path = pathlib.Path(path)
    format = next(name for name, suffix in SUFFIXES.items() if suffix == path.suffix.lower())
    require_runtime(format)
    return _RUNNERS[format](path, threads)


def require_runtime(format: str) -> None:
    """Import the package that runs a format.

    Raises:
        ImportError: if it is missing, with the extra that installs it.
    """
    require_packages(format, [_MODULES[format]])


def require_packages(format: str, modules: list[str]) -> None:
    """Import modules, or raise an `ImportError` that names the extra that installs them."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            package = name.partition(".")[0].replace("_", "-")
            raise ImportError(
                f'format={format!r} needs {package}. Install it: pip install "tf_gradcam[{format}]"'
            ) from error


def _run_litert(path: pathlib.Path, threads: int | None) -> Runner:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    function = interpreter.get_signature_runner()
    lock = threading.Lock()  # An interpreter has one place for its inputs.

    def run(arrays: Arrays) -> dict[str, np.ndarray]:
        with lock:
            return function(**arrays)

    inputs = [
        InputSpec(name, _lengths(about["shape_signature"]), np.dtype(about["dtype"]).name)
        for name, about in function.get_input_details().items()
    ]
    return Runner(run, tuple(inputs), tuple(function.get_output_details()), notes_of_litert(path))


def _run_onnx(path: pathlib.Path, threads: int | None) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal errors only
    if threads is not None:
        options.intra_op_num_threads = threads
    # With the fallback it says on stdout that it tries a damaged file again.
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"], enable_fallback=0)
    names = [output.name for output in session.get_outputs()]

    def run(arrays: Arrays) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, arrays), strict=True))

    inputs = []
    for each in session.get_inputs():
        kind = each.type.removeprefix("tensor(").removesuffix(")")
        inputs.append(InputSpec(each.name, _lengths(each.shape), _ONNX_DTYPES.get(kind, kind)))
    notes = parse_notes(session.get_modelmeta().custom_metadata_map.get("gradcam"))
    return Runner(run, tuple(inputs), tuple(names), notes)


def _run_openvino(path: pathlib.Path, threads: int | None) -> Runner:
    import openvino

    # Without the hint it computes in bfloat16 on processors that have it.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    graph = openvino.Core().read_model(path)
    notes = parse_notes(graph.get_rt_info(["gradcam"]).value if graph.has_rt_info(["gradcam"]) else None)
    model = openvino.Core().compile_model(graph, "CPU", settings)
    lock = threading.Lock()  # A compiled model has one place for its inputs.
    names = [
        port.any_name for port in graph.outputs
    ]  # Compiled, a port may have names of inner tensors, too.

    def run(arrays: Arrays) -> dict[str, np.ndarray]:
        with lock:
            outputs = model(dict(arrays))
            return {name: outputs[position] for position, name in enumerate(names)}

    inputs = [
        InputSpec(
            port.any_name,
            tuple(length.get_length() if length.is_static else None for length in port.partial_shape),
            port.element_type.to_dtype().name,
        )
        for port in graph.inputs
    ]
    return Runner(run, tuple(inputs), tuple(names), notes)


def _lengths(shape) -> tuple[int | None, ...]:
    """Return lengths with `None` for those that are open: a runtime says a name, or -1."""
    return tuple(None if isinstance(each, str) or each is None or each < 0 else int(each) for each in shape)


_RUNNERS: dict[str, Callable[[pathlib.Path, int | None], Runner]] = {
    "litert": _run_litert,
    "onnx": _run_onnx,
    "openvino": _run_openvino,
}

"""Build `run_signatures.cc`, and call a SavedModel's signatures in it: in a process that has no Python."""

import contextlib
import pathlib
import shutil
import subprocess

import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

SOURCE = pathlib.Path(__file__).with_name("run_signatures.cc")
LIBRARIES = pathlib.Path(tf.sysconfig.get_lib())


class Refused(Exception):
    """What a signature answers with instead: `CODE: message`."""


def why_not() -> str | None:
    """Return why the program can't be built here; `None` if it can."""
    if shutil.which("g++") is None:
        return "there is no g++"
    if not (LIBRARIES / "libtensorflow_cc.so.2").exists():
        return "this TensorFlow comes without its C++ library"
    return None


def build(folder) -> pathlib.Path:
    """Return the program, built in `folder`."""
    program = pathlib.Path(folder, "run_signatures")
    # -w: TensorFlow's headers warn of one another.
    flags = ["-w", *tf.sysconfig.get_compile_flags(), *tf.sysconfig.get_link_flags()]
    flags += ["-Wl,--no-as-needed", "-l:libtensorflow_cc.so.2", f"-Wl,-rpath,{LIBRARIES}"]
    subprocess.run(["g++", SOURCE, "-o", program, *flags], check=True)
    return program


class Loaded:
    """A loaded SavedModel, called as `loaded(signature, **inputs)`."""

    def __init__(self, process: subprocess.Popen, folder: pathlib.Path):
        self._process, self._folder = process, folder
        self.seconds = None  # that the last call took in the model

    def __call__(self, signature: str, **inputs) -> dict:
        """Return the outputs as `{name: array}`.

        Raises:
            Refused: if the model answers with an error, or its process has ended.
        """
        files = {name: self._folder / f"{name}.input" for name in inputs}
        for name, file in files.items():
            file.write_bytes(tf.make_tensor_proto(inputs[name]).SerializeToString())
        given = [f"{name}={file}" for name, file in files.items()]
        with contextlib.suppress(BrokenPipeError):  # what the process said at its end is read below
            print(signature, self._folder, *given, file=self._process.stdin, flush=True)
        told = self._process.stdout.readline()
        if not told.startswith("OK "):
            raise Refused(told or f"the process ended with {self._process.wait()}")
        self.seconds = float(told.split()[1])
        return {file.stem: _read(file) for file in self._folder.glob("*.pb")}


@contextlib.contextmanager
def load(program, model, folder):
    """Load a SavedModel in a process of its own, which exchanges files in `folder`."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([program, model], **pipes) as process:
        yield Loaded(process, pathlib.Path(folder))
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def _read(file):
    array = tf.make_ndarray(TensorProto.FromString(file.read_bytes()))
    file.unlink()
    return array

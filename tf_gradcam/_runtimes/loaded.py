"""`load`, and the explainer that it returns. Users call them, and so do runs over files and data sets."""

import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from tf_gradcam._checks import is_whole, one_line
from tf_gradcam._explanation import Explanation
from tf_gradcam._runtimes.described import describe_target, has_function, is_described
from tf_gradcam._runtimes.fingerprint import Fingerprint
from tf_gradcam._runtimes.inputs import as_arrays
from tf_gradcam._runtimes.single_files import SUFFIXES, InputSpec, Runner, require_runtime, runner
from tf_gradcam._runtimes.verify import verify

_MOST_THREADS = 1024
_OUTPUTS = {"heatmap", "score", "scores"}  # of every file, besides others
_FIXED = ("size", "interpolation", "signed")  # arguments of `GradCAM` that a file holds
_OTHERWISE = ", or write another file: tf_gradcam.export_gradcam(..., {name}=...)"
_OWN_CHOICE = re.compile(r"\b(?:index|target)=None\b")  # of a class, in the text of a target
_SIGNED = ": the signed map is `explanation.map`, which show(..., signed=True) draws"


class LoadedExplainer:
    """Explains images with a file that `export_gradcam` wrote, as a `GradCAM` does; `load` makes it.

    Threads may call it at the same time; LiteRT and OpenVINO then answer one after the other. It can be
    pickled: the other process loads the file again.

    Attributes:
        path: the file, or the folder of a SavedModel's version.
        name: the name of the model.
        format: `"tensorflow"`, `"litert"`, `"onnx"` or `"openvino"`.
        inputs: what it takes, in order: a tuple of `(name, shape, dtype)`; a length that is open is `None`.
        threads: the number of threads that was asked for; `None` for the runtime's own.
        notes: what the file says about itself: `"layer"`, `"method"`, `"target"`, `"size"`, `"preprocess"`,
            `"versions"` and more. Empty if another program rewrote the file without it.
    """

    def __init__(
        self,
        path: pathlib.Path,
        format: str,
        threads: int | None,
        runners: dict[str, Runner],
        fingerprint: Fingerprint,
    ) -> None:
        self.path, self.format, self.threads = path, format, threads
        self._fingerprint = fingerprint
        self._runners = runners
        self._runner = runners["gradcam"]
        self.notes = self._runner.notes
        self.name = str(self.notes.get("model", path.stem))
        self.inputs, self._is_order_known = _in_order(self._runner.inputs, self.notes.get("inputs"))

    def __repr__(self) -> str:
        """Return the file, its format and threads, what it takes, and what it explains, in one line."""
        parts = [repr(str(self.path)), f"format={self.format!r}", f"threads={self.threads}"]
        parts += [f"{spec.name}={spec.dtype} {spec.shape}" for spec in self.inputs]
        parts += [f"{name}={self.notes[name]!r:.80}" for name in ("layer", "method") if name in self.notes]
        return f"LoadedExplainer({', '.join(one_line(part) for part in [*parts, self.explains])})"

    def __reduce__(self) -> tuple:
        """Be pickled as the whole path, and the SHA-256 by which another file there is refused."""
        return _load_same, (self._fingerprint.path, self.threads, self.sha256)

    @property
    def sha256(self) -> str:
        """A SHA-256 of all that it was loaded from, read when it is first asked for.

        Raises:
            ValueError: if the file was changed between the two.
        """
        return self._fingerprint.sha256()

    @property
    def takes_classes(self) -> bool:
        """Whether it explains any class that is asked for, as a SavedModel may."""
        return "gradcam_class" in self._runners

    @property
    def chooses_class(self) -> bool:
        """Whether it explains a class of its own choice in each image, such as the predicted one."""
        target = self.notes.get("target")
        return "class" in self._runner.outputs and (
            target is None or _OWN_CHOICE.search(str(target)) is not None
        )

    @property
    def explains(self) -> str:
        """What it explains of an image, in a few words."""
        if "target" not in self.notes:
            return "explains what it was exported for"
        target = self.notes["target"]
        return "explains the predicted class" if target is None else f"explains target={target!s:.80}"

    @property
    def fitting_inputs(self) -> tuple[InputSpec, ...]:
        """As `inputs`, with the model's own height and width where the file's `preprocess` takes any."""
        own = self._runners.get("serving_default", self._runner).inputs
        if len(own) != len(self.inputs):
            return self.inputs
        pairs = zip(self.inputs, own, strict=True)
        return tuple(given._replace(shape=_closed(given.shape, of_model.shape)) for given, of_model in pairs)

    def __call__(self, images: Any, target: Any = None, **fixed: Any) -> Explanation:
        """Explain a batch of images.

        Args:
            images: `(N, H, W, C)`, or `(H, W, C)` for a batch of one; array of any real dtype, as the model
                takes it, or raw pixels from 0 to 255 if the file holds a `preprocess`. For several inputs a
                list of arrays, or a dict by their names. Values are not rescaled.
            target: `None` for what the file was exported for. A SavedModel of a model with classes also takes
                a class, or one for each image; and `targets.TopClasses(k)` if it was exported with
                `top_k=k`.
            **fixed: arguments that `GradCAM` takes, as `size`. They are refused: the file holds them.

        Returns:
            An `Explanation` of NumPy arrays. Of a file with several layers, `map` is `None` and `heatmaps` is
            empty.

        Raises:
            TypeError: if `images` does not hold real numbers.
            ValueError: if the images have the wrong shape, contain NaN, or are empty; or if the file can't
                explain this target.
        """
        for name in fixed:
            if name not in _FIXED:
                raise TypeError(
                    f"An explainer takes no argument `{name}`. Received: {name}={fixed[name]!r:.80}"
                )
            raise ValueError(
                f"`{name}` was fixed when the file was exported. Received: {name}={fixed[name]!r:.80}. Leave "
                f"it out{_OTHERWISE.format(name=name) if name != 'signed' else _SIGNED}."
            )
        if not self._is_order_known and not isinstance(images, dict):
            raise ValueError(
                "`images` must be a dict by the names of the inputs, as the file does not say in which order "
                f"the model takes them. Received: a {type(images).__name__}. The names are "
                f"{', '.join(repr(spec.name) for spec in self.inputs)}."
            )
        arrays = as_arrays(images, self.inputs)
        if target is None:
            return _as_explanation(self._runner(arrays))
        plain = _plain_classes(target, len(next(iter(arrays.values()))))
        if "target" in self.notes and is_described(str(self.notes["target"]), target, plain):
            return _as_explanation(self._runner(arrays))
        return _as_explanation(self._run_target(arrays, plain))

    def _run_target(self, arrays: dict[str, np.ndarray], target: Any) -> dict[str, np.ndarray]:
        """Return the answers of the signature that explains a given target."""
        if self.format == "tensorflow":
            from tf_gradcam import targets  # Late: it imports TensorFlow.

            if isinstance(target, targets.TopClasses) and "gradcam_top_k" in self._runners:
                top_k = self.notes.get("top_k")
                if target == targets.TopClasses(top_k):
                    return self._runners["gradcam_top_k"](arrays)
                raise ValueError(
                    f"`target` must have the count that the file was exported with, {top_k}. Received: "
                    f"target={target!r:.80}. Give TopClasses({top_k}), or export with another `top_k`."
                )
            if "gradcam_class" in self._runners and not hasattr(target, "_fields"):
                count = len(next(iter(arrays.values())))
                return self._runners["gradcam_class"]({**arrays, "class_index": _classes(target, count)})
        never = " A function is never compared with the file's." if has_function(target) else ""
        raise ValueError(
            f"`target` was fixed when the file was exported: it {self.explains}. Received: "
            f"target={describe_target(target):.80}.{never} Leave it out, or write another file: "
            "tf_gradcam.export_gradcam(..., target=...)."
        )


def load(path: str | os.PathLike, threads: int | None = None) -> LoadedExplainer:
    """Load what `export_gradcam` wrote, as an explainer that is called as `GradCAM` is.

    Of a `.tflite`, an `.onnx` or an `.xml` file neither TensorFlow nor Keras is imported. It needs
    `ai-edge-litert`, `onnxruntime` or `openvino`, and NumPy; pictures need OpenCV.

    A file is checked before its runtime gets it: one that is cut short, has operations of its own or refers
    to other files is refused. Load a SavedModel only if you trust it: TensorFlow runs its graph, which may
    read and write files.

    Args:
        path: the file; or a folder of a SavedModel, of whose versions the newest is loaded.
        threads: how many threads a heatmap is computed with, from 1; `None` for the runtime's own number:
            all cores, and one for LiteRT. For a SavedModel it must be `None`: TensorFlow has one number of
            threads for the process, `tf.config.threading`.

    Returns:
        A `LoadedExplainer`.

    Raises:
        FileNotFoundError: if there is no such file, or an `.xml` has no `.bin` beside it.
        ImportError: if the runtime is not installed, with the extra that installs it.
        TypeError: if `path` is not a path.
        ValueError: if it is no file that `export_gradcam` wrote, or a damaged one; or if `threads` is no
            number of threads.

    Example:

    ```python
    explainer = tf_gradcam.load("cat.onnx", threads=2)
    explanation = explainer(images)  # (N, H, W, C), as the model takes them
    explanation.overlay(photograph)
    ```
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"`path` must be a path. Received: path={path!r:.80} (of type {type(path).__name__})")
    text = os.fsdecode(path)
    if not text or "\0" in text:
        raise ValueError(f"`path` must be a file or folder. Received: path={text!r:.80}")
    path = pathlib.Path(text)
    by_suffix = {suffix: name for name, suffix in SUFFIXES.items()}
    format = "tensorflow" if path.is_dir() else by_suffix.get(path.suffix.lower())
    threads = _checked_threads(threads, format)
    if format is None or not path.exists():
        kind = ValueError if path.exists() else FileNotFoundError
        received = "which is none of these" if path.exists() else "which doesn't exist"
        advice = "tf_gradcam.export_gradcam writes such a file."
        if path.suffix.lower() in (".keras", ".h5", ".hdf5"):
            advice = f"For a Keras model: tf_gradcam.GradCAM(keras.models.load_model({str(path)!r}))."
        raise kind(
            f"`path` must be {_or(SUFFIXES.values())} file, or the folder of a SavedModel. Received: "
            f"path={str(path)!r}, {received}. {advice}"
        )
    if format != "tensorflow":
        require_runtime(format)
        fingerprint = Fingerprint(os.path.abspath(path), format)  # before it is read
        runners = _loaded_or_error(path, lambda: _load_file(path, format, threads))
        return LoadedExplainer(path, format, threads, runners, fingerprint)
    return _load_savedmodel(path)


def _load_same(path: str, threads: int | None, sha256: str) -> LoadedExplainer:
    """Load what an explainer was pickled from; any other file is refused."""
    loaded = load(path, threads)
    if loaded.sha256 != sha256:
        raise ValueError(
            f"`path` must lead to the file that the explainer was pickled with. Received: path={path!r}, "
            "which holds another one now. Load that: tf_gradcam.load(path)."
        )
    return loaded


def is_exported(path: str | os.PathLike) -> bool:
    """Return whether a path is that of a file which `load` takes, by its suffix, or of a folder."""
    return needs_no_tensorflow(path) or os.path.isdir(path)


def needs_no_tensorflow(path: str | os.PathLike) -> bool:
    """Return whether a path is that of a file which `load` takes without TensorFlow, by its suffix."""
    return os.fspath(path).lower().endswith(tuple(SUFFIXES.values()))


def _load_file(path: pathlib.Path, format: str, threads: int | None) -> dict[str, Runner]:
    verify(path, format)
    return {"gradcam": runner(path, threads)}


def _load_savedmodel(path: pathlib.Path) -> LoadedExplainer:
    from tf_gradcam._runtimes.savedmodel import newest_version, savedmodel_runners

    version = _loaded_or_error(path, lambda: newest_version(path), check=False)
    fingerprint = Fingerprint(os.path.abspath(version), "tensorflow")
    runners = _loaded_or_error(path, lambda: savedmodel_runners(version))
    return LoadedExplainer(version, "tensorflow", None, runners, fingerprint)


def _loaded_or_error(path: pathlib.Path, load: Callable[[], Any], check: bool = True) -> Any:
    """Return what a function loads; whatever it raises about the file becomes one kind of error."""
    try:
        loaded = load()
        outputs = loaded["gradcam"].outputs if check and "gradcam" in loaded else ()
        if check and not set(outputs) >= _OUTPUTS:
            answers = ", ".join(map(repr, outputs)) or "nothing that explains"
            raise ValueError(
                f"it answers {answers}, and must answer {', '.join(map(repr, sorted(_OUTPUTS)))}"
            )
    except (FileNotFoundError, PermissionError, ImportError, MemoryError):
        raise
    except Exception as error:  # Each of the runtimes has its own exceptions.
        raise ValueError(
            "`path` must be what tf_gradcam.export_gradcam wrote, whole. Received: "
            f"path={str(path)!r}: {one_line(error):.300}. Export the model again."
        ) from error
    return loaded


def _checked_threads(threads: Any, format: str | None) -> int | None:
    """Return the number of threads as Python's own integer, which all runtimes take."""
    if threads is None:
        return None
    if not is_whole(threads) or not 1 <= threads <= _MOST_THREADS:
        raise ValueError(
            f"`threads` must be None or a whole number from 1 to {_MOST_THREADS}. Received: "
            f"threads={threads!r:.80}"
        )
    if format == "tensorflow":
        raise ValueError(
            f"`threads` must be None for a SavedModel. Received: threads={threads}. TensorFlow has one "
            "number for the process: tf.config.threading.set_intra_op_parallelism_threads, before its first "
            "operation."
        )
    return int(threads)


def _in_order(specs: tuple[InputSpec, ...], names: Any) -> tuple[tuple[InputSpec, ...], bool]:
    """Return specs in the order of the model's inputs, which no file keeps, and whether it is known."""
    by_name = {spec.name: spec for spec in specs}
    is_order = isinstance(names, list) and sorted(map(str, names)) == sorted(by_name)
    return tuple(by_name[name] for name in names) if is_order else specs, is_order or len(specs) == 1


def _closed(shape: tuple[int | None, ...], of_model: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """Return a shape with the lengths of the model's where it is open."""
    if len(shape) != len(of_model):
        return shape
    return tuple(own if length is None else length for length, own in zip(shape, of_model, strict=True))


def _plain_classes(target: Any, count: int) -> Any:
    """Return a target with plain numbers for its classes: `Class(1)`, `[1]` and `array([1])` become 1.

    Args:
        target: any target.
        count: number of images; a class for each of them becomes one number where all are the same.
    """
    if hasattr(target, "_fields"):
        if type(target).__name__ == "Class":  # By name, as an import of `targets` imports TensorFlow.
            return _plain_classes(target.index, count)
        fields = [name for name in ("index", "target") if name in target._fields]
        return target._replace(**{name: _plain_classes(getattr(target, name), count) for name in fields})
    try:
        classes = np.asarray(target)
    except (TypeError, ValueError):  # of lists of several lengths
        return target
    if classes.dtype.kind in "iu" and classes.shape in ((), (count,)) and (classes == classes.flat[0]).all():
        return int(classes.flat[0])
    return target


def _classes(target: Any, count: int) -> np.ndarray:
    """Return a class for each image, `(N,)` int32."""
    classes, limits = np.asarray(target), np.iinfo(np.int32)
    is_known = classes.dtype.kind in "iu" and classes.shape in ((), (count,))
    if not is_known or not (limits.min <= classes.min() and classes.max() <= limits.max):
        raise ValueError(
            f"`target` must be a class, or one for each of {count} images. Received: target={target!r:.80}"
        )
    return np.broadcast_to(classes, (count,)).astype(np.int32)


def _as_explanation(answers: dict[str, np.ndarray]) -> Explanation:
    heatmap, signed_map = answers["heatmap"], answers.get("map")
    heatmaps = () if signed_map is None else (heatmap,)
    return Explanation(
        heatmap, signed_map, answers["score"], answers.get("class"), answers["scores"], heatmaps
    )


def _or(names) -> str:
    *names, last = names
    return f"a {', '.join(names)} or {last}"

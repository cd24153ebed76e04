"""Load the classifier that `--model`, `--preprocess` and `--labels` name. The commands call it."""

import contextlib
import importlib
import os
import pathlib
import sys
from collections.abc import Callable

from tf_gradcam._checks import did_you_mean, one_line
from tf_gradcam._cli.terminal import import_tensorflow, without_log
from tf_gradcam._run import Classifier, check_preprocess, file_labels, load_model_file
from tf_gradcam._runtimes import load, needs_no_tensorflow

EMBEDDED = "efficientnet_lite0"
_MODEL_FILES = (".keras", ".h5", ".hdf5")


def load_classifier(
    model: str,
    preprocess: str | None = None,
    labels: str | None = None,
    *,
    exported: bool = False,
    threads: int | None = None,
) -> Classifier:
    """Return the classifier that the options `--model`, `--preprocess` and `--labels` name.

    Args:
        model: `EMBEDDED`, a class of `keras.applications`, which gets its ImageNet weights, or the path of a
            `.keras` or `.h5` file, which is loaded in Keras's safe mode: it can't run code of its own; or,
            with `exported`, what `tf-gradcam export` wrote.
        preprocess: `"unit"`, a module of `keras.applications`, or `"MODULE:FUNCTION"`; `None` for a named
            model's own, and for nothing where the model is a file.
        labels: path of a text file with a class per line, or `None` for the model's own, if they are known.
        exported: whether the command takes an exported model.
        threads: how many threads an exported file computes with; `None` for its runtime's own number.

    Raises:
        ImportError, OSError, ValueError: naming the option, if there is no such model, function or file, or
            if the model can't be loaded or isn't safe.
    """
    names = _read_labels(labels) if labels else None  # first, as a model takes longer
    if is_exported(model):
        if not exported:
            raise _needs_keras(model)
        return _load_exported(model, preprocess, names, threads)
    if threads is not None:
        raise ValueError(
            f"`threads` is for an exported file: .tflite, .onnx or .xml. Received: {threads}, and {model}. "
            "TensorFlow takes its number from TF_NUM_INTRAOP_THREADS."
        )
    import_tensorflow()
    from tf_gradcam import pretrained

    if model == EMBEDDED:
        classifier = Classifier(pretrained.efficientnet_lite0(), pretrained.preprocess, pretrained.labels())
    elif model.lower().endswith(_MODEL_FILES):
        classifier = Classifier(load_model_file(model), unchanged, None)
    else:
        classifier = _build_application(model)
    if preprocess:
        classifier = classifier._replace(preprocess=_preprocess(preprocess))
    return classifier._replace(labels=names) if names else classifier


def check_needs_keras(model: str) -> None:
    """Raise a `ValueError` if `--model` is a file of an exported model; TensorFlow is not imported for it."""
    if needs_no_tensorflow(model):
        raise _needs_keras(model)


def _needs_keras(model) -> ValueError:
    return ValueError(
        f"`--model` must be a Keras model for this command. Received: {model}, an exported one. Only "
        "`explain` and `run` take it."
    )


def is_exported(model: str) -> bool:
    """Return whether `--model` names a file or folder that `tf-gradcam export` writes."""
    if needs_no_tensorflow(model):
        return True
    if model == EMBEDDED or not os.path.isdir(model):
        return False
    import keras  # Late: only a folder may have the name of a model.

    return not callable(getattr(keras.applications, model, None))


def _load_exported(
    path: str, preprocess: str | None, labels: tuple[str, ...] | None, threads: int | None
) -> Classifier:
    try:
        with without_log():
            model = load(path, threads)
    except (FileNotFoundError, ValueError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        text = str(error).replace("`path`", "`--model`").replace("Received: path=", "Received: ", 1)
        raise kind(text) from error
    if preprocess:
        check_preprocess(model, preprocess)
    return Classifier(
        model, _preprocess(preprocess) if preprocess else unchanged, labels or file_labels(model)
    )


def _read_labels(path) -> tuple[str, ...]:
    """Return the lines of a text file, without a byte-order mark."""
    must = "`--labels` must be a text file with a class per line"
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{must}. Received: {path}, which doesn't exist.") from error
    except OSError as error:
        raise OSError(f"{must}. Received: {path}, which can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{must}, in UTF-8. Received: {path}, which is not UTF-8 at byte {error.start}. Save it as UTF-8."
        ) from error
    if "\0" in text:
        raise ValueError(f"{must}, in UTF-8. Received: {path}, which is no text. Save it as UTF-8.")
    lines = text.strip().splitlines()
    if not lines:
        raise ValueError(f"{must}. Received: {path}, which is empty.")
    return tuple(line.strip() for line in lines)


def unchanged(images):
    """Return the images unchanged: the preprocessing of a model file without `--preprocess`."""
    return images


def _build_application(name) -> Classifier:
    import keras

    from tf_gradcam import pretrained

    names = [each for each, build in vars(keras.applications).items() if callable(build)]
    if name not in names:
        raise ValueError(
            f"`--model` must be {EMBEDDED}, a class of keras.applications, or a .keras or .h5 file. "
            f"Received: {name}. {did_you_mean(name, [EMBEDDED, *names])}"
        )
    build = getattr(keras.applications, name)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where the progress of a download belongs
            model = build(weights="imagenet")
    except Exception as error:  # Keras raises a bare Exception when a download fails.
        raise ValueError(
            f"`--model {name}` needs its ImageNet weights, which couldn't be downloaded: {one_line(error)}. "
            f"Offline, --model {EMBEDDED} or a file works."
        ) from error
    # Keras publishes some of these functions one module away from the class they belong to.
    return Classifier(model, sys.modules[build.__module__].preprocess_input, pretrained.labels())


def _preprocess(name) -> Callable:
    """Return the function that `--preprocess` names."""
    if name == "unit":
        return lambda images: images / 255
    if ":" in name:
        return _import_function(*name.split(":", 1))
    import_tensorflow()
    import keras  # Late: an exported file needs none of it.

    modules = [
        each for each, module in vars(keras.applications).items() if hasattr(module, "preprocess_input")
    ]
    if name not in modules:
        raise ValueError(
            "`--preprocess` must be unit, a module of keras.applications, or MODULE:FUNCTION. "
            f"Received: {name}. {did_you_mean(name, modules)}"
        )
    return getattr(keras.applications, name).preprocess_input


def _import_function(module, function) -> Callable:
    if "" not in sys.path:
        sys.path.append("")  # the current folder, after all that is installed
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"`--preprocess` must be MODULE:FUNCTION. Received: {module}:{function}, and {error}."
        ) from error
    if not callable(found):
        raise ValueError(
            f"`--preprocess` must name a function. Received: {module}:{function}, which is none."
        )
    return found

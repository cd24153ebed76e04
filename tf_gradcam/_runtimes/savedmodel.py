"""A SavedModel that `export_gradcam` wrote, run by TensorFlow: `savedmodel_runners`. `loaded` calls it.

Only here does this package import TensorFlow.
"""

import functools
import pathlib
import re
from typing import Any

import numpy as np

from tf_gradcam._checks import one_line
from tf_gradcam._runtimes.notes import parse_notes
from tf_gradcam._runtimes.single_files import Arrays, InputSpec, Runner

_MANIFEST = pathlib.Path("assets.extra", "gradcam.json")


def newest_version(folder: pathlib.Path) -> pathlib.Path:
    """Return the version of a model that a server would run, or the folder itself where it is one.

    Raises:
        ValueError: if it is no folder of versions that `export_gradcam` wrote.
    """
    if not (folder / "saved_model.pb").is_file():
        versions = [int(path.name) for path in folder.glob("*/") if path.name.isdecimal()]
        folder = folder / str(max(versions)) if versions else folder
    missing = [name for name in ("saved_model.pb", _MANIFEST) if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"it has no {missing[0]}")
    return folder


def _request_error(arrays: Arrays, reason: str) -> ValueError:
    """Return the error for arrays that the graph of a model refuses."""
    highest = re.search(r"a class from 0 to (\d+)", reason)
    if "class_index" in arrays and highest is not None:
        classes = f"{arrays['class_index'].tolist()!s:.80}"
        return ValueError(f"`target` must be a class from 0 to {highest[1]}. Received: target={classes}")
    shapes = " and ".join(str(array.shape) for array in arrays.values())
    return ValueError(
        f"`images` must have a shape that the model and its `preprocess` take. Received: {shapes}, and "
        f"TensorFlow says: {reason:.300}"
    )


def savedmodel_runners(version: pathlib.Path) -> dict[str, Runner]:
    """Load a version of a model, and return the functions of its signatures that take images, by name."""
    import tensorflow as tf

    notes = parse_notes((version / _MANIFEST).read_bytes())
    try:
        loaded = tf.saved_model.load(str(version))
    except (tf.errors.OpError, OSError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"TensorFlow can't load it: {one_line(error):.200}") from error

    def run(name: str, arrays: Arrays) -> dict[str, np.ndarray]:
        tensors = {key: tf.constant(array) for key, array in arrays.items()}
        try:
            # `loaded` must live as long as its signatures.
            outputs = loaded.signatures[name](**tensors)
        except tf.errors.InvalidArgumentError as error:
            raise _request_error(arrays, one_line(error)) from error
        return {key: tensor.numpy() for key, tensor in outputs.items()}

    runners = {}
    for name in ("gradcam", "gradcam_class", "gradcam_top_k", "serving_default"):
        if name in loaded.signatures:
            signature: Any = loaded.signatures[name]
            specs = signature.structured_input_signature[1].values()
            inputs = tuple(
                InputSpec(spec.name, tuple(spec.shape.as_list()), spec.dtype.name)
                for spec in specs
                if spec.name != "class_index"
            )
            outputs = tuple(signature.structured_outputs)
            runners[name] = Runner(functools.partial(run, name), inputs, outputs, notes)
    return runners

"""What decides the results of a run, as JSON can hold it: the journals of `_run` and `_dataset` hold it.

A run with another manifest than the one that a folder holds is refused.
"""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tf_gradcam import __version__
from tf_gradcam._run.file_models import file_manifest
from tf_gradcam._run.request import Classifier, Request, class_index
from tf_gradcam._runtimes import LoadedExplainer

if TYPE_CHECKING:
    import keras

# What a manifest notes, and a later run may have another of: Keras names a model anew in each process, and
# other versions of these packages give the same results but for rounding.
_NOTED = ("model", "keras", "tensorflow")


def model_manifest(model: "keras.Model | LoadedExplainer", labels: Sequence[str] | None) -> dict[str, Any]:
    """Return what tells a model from others, and the versions that run it."""
    about = file_manifest(model) if isinstance(model, LoadedExplainer) else _keras_manifest(model)
    return {**about, "labels_sha256": hashlib.sha256("\n".join(labels or ()).encode()).hexdigest()}


def _keras_manifest(model) -> dict[str, Any]:
    import keras
    import tensorflow as tf

    from tf_gradcam._run.model_hashes import hash_layers, hash_weights

    return {
        "tf_gradcam": __version__,
        "keras": keras.version(),
        "tensorflow": tf.__version__,
        "model": model.name,
        "model_sha256": hash_weights(model),
        "layers_sha256": hash_layers(model),
    }


def request_manifest(request: Request, classifier: Classifier, preprocess: str | None) -> dict[str, Any]:
    """Return what decides the rows and pictures of a request.

    Args:
        request: everything in it but the folder decides them.
        classifier: the model and its labels.
        preprocess: the name of the preprocessing; `None` for the model's own.
    """
    asked = dataclasses.asdict(request)
    del asked["out"]
    model = classifier.model
    if isinstance(model, LoadedExplainer) and not model.takes_classes:
        # Its own target is explained, whether it was asked for or not; any other is refused.
        asked["target"] = model.notes.get("target")
        if request.target is not None:
            asked["target"] = str(class_index(request.target, classifier.labels))
    manifest = {**model_manifest(classifier.model, classifier.labels), **asked, "preprocess": preprocess}
    return json.loads(json.dumps(manifest))  # as it comes back from a file


def check_manifest(folder: pathlib.Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise a `ValueError` that names what differs between the manifest found in a folder and a run's."""
    keys = [key for key in {**wanted, **found} if key not in _NOTED]
    differing = [key for key in keys if wanted.get(key) != found.get(key)]
    if differing:
        parts = [f"{key} was {found.get(key)!r:.80}, and is {wanted.get(key)!r:.80}" for key in differing]
        raise ValueError(
            f"`out` must be a new folder, or one of a run with the same model and options. Received: "
            f"{folder}, where {'; '.join(parts)}. Choose another folder, or begin anew: `restart`."
        )


def without_addresses(text: str) -> str:
    """Return a `repr` without the addresses of functions, which are others in each process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)

"""The folder of a SavedModel's version: the signatures and a manifest. `export` writes it."""

import datetime
import hashlib
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from tf_gradcam._ending import at_sudden_end
from tf_gradcam._explain import GradCAM
from tf_gradcam._export.described import describe_question, library_versions
from tf_gradcam._export.disk import disk_error
from tf_gradcam._export.signatures import Signature, accept_empty_batch
from tf_gradcam._model import require_specs


def write_savedmodel(
    path: pathlib.Path, cam: GradCAM, signatures: Mapping[str, Signature], settings: Mapping[str, Any]
) -> pathlib.Path:
    """Write the next version of a model, and return its folder.

    Args:
        path: the folder of the model, which holds its versions.
        cam: the explainer, not frozen.
        signatures: those that explain, by name. Those of the model itself are added.
        settings: the arguments of `export_gradcam` that are not in `cam`, for the manifest.
    """
    serve = Signature(accept_empty_batch(lambda *images: cam.model(*images)), [require_specs(cam.model)])
    signatures = {"serve": serve, "serving_default": serve, **signatures}
    # Keras's own archive: a tf.Module that holds a Keras 3 model can be loaded by Python only.
    archive = keras.export.ExportArchive()
    archive.track(cam.model)
    for name, (function, specs) in signatures.items():
        archive.add_endpoint(name, function, specs)

    def write(folder):
        # Custom gradients, as of guided backpropagation, can't be saved, and serving needs none.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        archive.write_out(os.fspath(folder), options=options, verbose=False)
        _write_manifest(folder, _manifest(cam, signatures, settings))

    return _write_next_version(path, write)


def _write_next_version(path: pathlib.Path, write: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """Write a folder, and rename it to the next free number in `path` when it is complete."""
    path.mkdir(parents=True, exist_ok=True)
    unfinished = path / f".unfinished-{uuid.uuid4().hex}"  # Not a number: a server ignores it.
    try:
        with at_sudden_end(lambda: shutil.rmtree(unfinished, ignore_errors=True)):
            _write_or_name(write, unfinished, path)
            while True:
                taken = [int(entry.name) for entry in path.iterdir() if entry.name.isdecimal()]
                version = path / str(max(taken, default=0) + 1)
                try:
                    return unfinished.rename(version)
                except OSError:
                    if not version.exists():  # If it exists, another process took the number.
                        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_or_name(write, unfinished: pathlib.Path, path: pathlib.Path) -> None:
    """Write a folder; an error of the disk names `path`, and not the folder that is removed again."""
    try:
        write(unfinished)
    except (OSError, tf.errors.OpError) as error:
        disk = disk_error(error, path)
        if disk is None:
            raise
        raise disk from error


def _manifest(cam: GradCAM, signatures, settings) -> dict[str, Any]:
    checksum = hashlib.sha256()
    for weight in cam.model.weights:
        checksum.update(weight.numpy().tobytes())
    return {
        **describe_question(cam, settings["target"], settings["size"], settings["interpolation"]),
        "frozen": settings["frozen"],
        "labels": settings["labels"],
        "top_k": settings["top_k"],
        "boxes": settings["boxes"],
        "inputs": [spec.name for spec in keras.tree.flatten(signatures["gradcam"].specs[0])],
        "signatures": list(signatures),
        "weights_sha256": checksum.hexdigest(),
        "versions": library_versions(),
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _write_manifest(folder: pathlib.Path, manifest: Mapping[str, Any]) -> None:
    path = folder / "assets.extra" / "gradcam.json"
    path.parent.mkdir()
    path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")

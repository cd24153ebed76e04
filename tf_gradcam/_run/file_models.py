"""A file that `tf_gradcam.load` loaded, where a run takes a model and its explainer.

`findings`, `chosen_methods`, `manifest`, `_dataset` and the command line call it. What a run needs of a model
is the spec of its input; of an explainer a call with `images`, `target` and `size`, and the names of its
layer and method.
"""

import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tf_gradcam import __version__
from tf_gradcam._explain import GradCAM
from tf_gradcam._explanation import Explanation
from tf_gradcam._images import resize_pixels
from tf_gradcam._methods import method_name
from tf_gradcam._model import layer_path, require_specs
from tf_gradcam._run.request import Request
from tf_gradcam._runtimes import LoadedExplainer

_CHUNK = 2**20


class FileCam:
    """Explains with a loaded file, called as a run calls a `GradCAM`.

    Args:
        model: the loaded file.
    """

    def __init__(self, model: LoadedExplainer) -> None:
        self.model = model

    def __call__(self, images: Any, target: Any = None, *, size: Any = None) -> Explanation:
        """Return the file's explanation; with `size`, `(H, W)`, its heatmaps are enlarged to that size."""
        explanation = self.model(images, target)
        if size is None:
            return explanation
        heatmaps = [resize_pixels(heatmap, size) for heatmap in explanation.heatmap]
        return explanation._replace(heatmap=np.stack(heatmaps))


def input_spec(model: keras.Model | LoadedExplainer) -> Any:
    """Return the spec of a model's input, with `shape` and `dtype`; a tuple of them for several inputs."""
    if not isinstance(model, LoadedExplainer):
        return require_specs(model)
    inputs = model.fitting_inputs
    return inputs[0] if len(inputs) == 1 else inputs


def layer_name(cam: GradCAM | FileCam) -> str:
    """Return what rows call the layer: its path, several paths, or `"image"`."""
    if isinstance(cam, FileCam):
        return ", ".join(str(name or "image") for name in _notes_list(cam, "layer")) or "unknown"
    layers = cam.layer if isinstance(cam.layer, tuple) else (cam.layer,)
    return "image" if cam.layer is None else ", ".join(layer_path(cam.model, each) for each in layers)


def name_of_method(cam: GradCAM | FileCam) -> str:
    """Return what rows call the method."""
    if not isinstance(cam, FileCam):
        return method_name(cam.method)
    method = str(cam.model.notes.get("method", "unknown"))
    return method.removeprefix("tf_gradcam.methods.")


def check_file_request(model: LoadedExplainer, request: Request) -> None:
    """Raise a `ValueError` if a request asks for what a file can't do: what it explains is fixed in it."""
    asked = {
        name: getattr(request, name) for name in ("layer", "call", "fuse", "output", "channels", "sliding")
    }
    for name, value in asked.items():
        if value is not None:
            raise refusal(name, value)
    if request.top > 1 and model.format != "tensorflow":
        raise refusal("top", request.top)
    if len(request.methods) > 1:
        raise refusal("method", ", ".join(request.methods))


def refusal(name: str, value: Any) -> ValueError:
    """Return the error for an option that a file can't honour."""
    return ValueError(
        f"`{name}` must be left out for an exported file, which explains in the one way that it was exported "
        f"for. Received: {value!s:.80}. Explain with the Keras model, or export another file."
    )


def file_manifest(model: LoadedExplainer, labels: Sequence[str] | None) -> dict[str, Any]:
    """Return what tells a file from others, as `model_manifest` does for a model."""
    return {
        "tf_gradcam": __version__,
        "model": model.name,
        "model_sha256": _hash_of_files(model),
        "engine": model.format,
        "labels_sha256": hashlib.sha256("\n".join(labels or ()).encode()).hexdigest(),
    }


def _hash_of_files(model: LoadedExplainer) -> str:
    """Return a SHA-256 of all that the model is loaded from."""
    path, digest = pathlib.Path(model.path), hashlib.sha256()
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    if model.format == "openvino":
        files.append(path.with_suffix(".bin"))
    for file in files:
        with file.open("rb") as opened:
            while chunk := opened.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _notes_list(cam, name) -> list:
    value = cam.model.notes.get(name)
    return value if isinstance(value, list) else []

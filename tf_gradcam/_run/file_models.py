"""A file that `tf_gradcam.load` loaded, where a run takes a model and its explainer.

`findings`, `chosen_methods`, `manifest`, `_dataset` and the command line call it. What a run needs of a model
is the spec of its input; of an explainer a call with `images`, `target` and `size`, and the names of its
layer and method.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_gradcam import __version__
from tf_gradcam._explanation import Explanation
from tf_gradcam._images import coarse_heatmaps, resize_bilinear
from tf_gradcam._run.request import Request
from tf_gradcam._runtimes import LoadedExplainer

if TYPE_CHECKING:
    import keras

    from tf_gradcam._explain import GradCAM


class FileCam:
    """Explains with a loaded file, called as a run calls a `GradCAM`.

    Args:
        model: the loaded file.
    """

    def __init__(self, model: LoadedExplainer) -> None:
        self.model = model

    def __call__(
        self, images: Any, target: Any = None, *, size: Any = None, signed: bool = False
    ) -> Explanation:
        """Return the file's explanation; with `size`, `(H, W)`, its heatmaps have that size.

        They are those of the Keras model: enlarged from the layer's grid and divided by their maximum. Where
        the file's heatmap is more than its map enlarged, as that of several layers or of a model that crops,
        the heatmap itself is enlarged. With `signed` they are the signed maps, enlarged and divided by their
        largest absolute value.

        Raises:
            ValueError: with `signed`, if the file doesn't say where its map lies on the image.
        """
        explanation = self.model(images, target)
        if size is None and not signed:
            return explanation
        size = explanation.heatmap.shape[1:] if size is None else size
        grids = coarse_heatmaps(explanation)
        pairs = zip(explanation.heatmap, grids, strict=True)
        sources = [heatmap if grid is None else grid for heatmap, grid in pairs]
        if signed:
            _check_placed(explanation, grids)
            sources = explanation.map
        heatmaps = np.stack([resize_bilinear(source.astype(np.float32), size) for source in sources])
        if explanation.map is not None:  # Those of several layers are not divided once more.
            highest = np.abs(heatmaps).max(axis=(1, 2), keepdims=True)
            heatmaps = np.divide(heatmaps, highest, out=heatmaps, where=highest > 0)
        return explanation._replace(heatmap=heatmaps)


def _check_placed(explanation: Explanation, grids: Sequence[Any]) -> None:
    """Raise a `ValueError` unless the heatmaps of a file's explanation are its maps enlarged."""
    maps = explanation.map
    is_placed = maps is not None and all(
        grid is not None or heatmap.shape == signed_map.shape or not heatmap.any()
        for grid, heatmap, signed_map in zip(grids, explanation.heatmap, maps, strict=True)
    )
    if not is_placed:
        raise ValueError(
            "`signed` needs a file whose heatmap is its map enlarged. Received: one of several layers, of a "
            "model that crops, or exported with another interpolation. Explain with the Keras model."
        )


def input_spec(model: "keras.Model | LoadedExplainer") -> Any:
    """Return the spec of a model's input, with `shape` and `dtype`; a tuple of them for several inputs."""
    if not isinstance(model, LoadedExplainer):
        from tf_gradcam._model import require_specs

        return require_specs(model)
    inputs = model.fitting_inputs
    return inputs[0] if len(inputs) == 1 else inputs


def layer_name(cam: "GradCAM | FileCam") -> str:
    """Return what rows call the layer: its path, several paths, or `"image"`."""
    if isinstance(cam, FileCam):
        return ", ".join(str(name or "image") for name in _notes_list(cam, "layer")) or "unknown"
    from tf_gradcam._model import layer_path

    layers = cam.layer if isinstance(cam.layer, tuple) else (cam.layer,)
    return "image" if cam.layer is None else ", ".join(layer_path(cam.model, each) for each in layers)


def name_of_method(cam: "GradCAM | FileCam") -> str:
    """Return what rows call the method."""
    if not isinstance(cam, FileCam):
        from tf_gradcam._methods import method_name

        return method_name(cam.method)
    notes = cam.model.notes
    if "method_name" in notes:
        return str(notes["method_name"])
    # An older file says `tf_gradcam.methods.layercam`, or `finercam(gamma=1.0, classes=3)`.
    method = str(notes.get("method", "unknown")).removeprefix("tf_gradcam.methods.")
    return method.partition("(")[0] or method


def is_file_classless(model: LoadedExplainer) -> bool:
    """Return whether a file's method makes the same map for every class."""
    return model.notes.get("classless") is True


def check_slices_have_class(model: LoadedExplainer) -> None:
    """Raise a `ValueError` if a file would explain another class in each slice of a volume or video."""
    if model.chooses_class and not is_file_classless(model):
        raise ValueError(
            "`model` must explain one class in all slices of a volume or video. Received: "
            f"{model.path}, which {model.explains}. Export it with a class: target=...; or explain with the "
            "Keras model, or with a SavedModel of any class."
        )


def file_labels(model: LoadedExplainer) -> tuple[str, ...] | None:
    """Return the names of the classes that a file notes, if it does."""
    labels = model.notes.get("labels")
    return tuple(map(str, labels)) if isinstance(labels, list) else None


def check_file_request(model: LoadedExplainer, request: Request) -> None:
    """Raise a `ValueError` if a request asks for what a file can't do: what it explains is fixed in it."""
    asked = {
        name: getattr(request, name) for name in ("layer", "call", "fuse", "output", "channels", "sliding")
    }
    for name, value in asked.items():
        if value is not None:
            raise refusal(name, value)
    if is_file_classless(model) and (request.target is not None or request.top > 1):
        raise ValueError(
            "`target` and `top` need a method that explains a class. Received: "
            f"{model.path}, whose method makes the same map for every class. Leave them out."
        )
    if request.top > 1 and model.format != "tensorflow":
        raise refusal("top", request.top)
    if len(request.methods) > 1:
        raise refusal("method", ", ".join(request.methods))


def check_preprocess(model: LoadedExplainer, name: str) -> None:
    """Raise a `ValueError` if a preprocessing is given, and the file has its own."""
    own = model.notes.get("preprocess")
    if own:
        raise ValueError(
            f"`preprocess` must be left out, as the file has its own. Received: {name:.80}, and "
            f"{model.path} with {own}."
        )


def refusal(name: str, value: Any) -> ValueError:
    """Return the error for an option that a file can't honour."""
    return ValueError(
        f"`{name}` must be left out for an exported file, which explains in the one way that it was exported "
        f"for. Received: {value!s:.80}. Explain with the Keras model, or export another file."
    )


def file_manifest(model: LoadedExplainer) -> dict[str, Any]:
    """Return what tells a file from others; `model_manifest` adds the labels."""
    return {
        "tf_gradcam": __version__,
        "model": model.name,
        "model_sha256": model.sha256,
        "engine": model.format,
    }


def _notes_list(cam, name) -> list:
    value = cam.model.notes.get(name)
    return value if isinstance(value, list) else []

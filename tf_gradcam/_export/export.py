"""`export_gradcam`, and the checks of its arguments. Users and the command line call it."""

import numbers
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._checks import did_you_mean
from tf_gradcam._explain import GradCAM, Layers
from tf_gradcam._export.precision import check_precision
from tf_gradcam._export.savedmodel import write_savedmodel
from tf_gradcam._export.signatures import CALLS_PYTHON, explaining_signatures, photograph_spec
from tf_gradcam._export.single_file import convert
from tf_gradcam._freezing import MOST_BYTES, weight_bytes
from tf_gradcam._heatmap import Interpolation
from tf_gradcam._methods import Method, reports_progress
from tf_gradcam._model import require_specs
from tf_gradcam._runtimes import SUFFIXES

_TRIAL_SIDE = 64  # pixels: height and width of the trial images where the model leaves them open


def export_gradcam(
    model: keras.Model | GradCAM,
    path: str | os.PathLike,
    *,
    layer: Layers = None,
    method: str | Method | None = None,
    target: Any = None,
    labels: Sequence[str] | None = None,
    preprocess: Callable[[tf.Tensor], tf.Tensor] | None = None,
    size: str | tuple[int, int] | None = "input",
    interpolation: Interpolation | None = None,
    frozen: bool = False,
    top_k: int | None = None,
    boxes: float | None = None,
    format: str = "tensorflow",
    precision: str = "float32",
    calibration: Any = None,
) -> pathlib.Path:
    """Write a model that returns scores and heatmaps, for a server or device without tf_gradcam.

    By default this is a SavedModel for TensorFlow Serving. It takes batches of any size, also empty ones, and
    the first axis of every output is the batch. Its signatures:

    * `serving_default` and `serve`: the same as `model.export` writes, so existing clients keep working.
    * `gradcam`: takes `images`, as the model does (several inputs are named as in `serve`). Returns `scores`,
      the model's output; `heatmap`, `(N, H, W)` float32 in `[0, 1]`; `score`, `(N,)`, the score that is
      explained, for a class its logit; `map`, `(N, h, w)`, the signed map on the layer's grid, for one layer;
      `class`, the explained class, `(N,)` int32; and, with `labels`, `label`, the name of that class. A model
      without classes, such as a single unit without a sigmoid, returns neither `class` nor `label`.
    * `gradcam_class`, for a model with classes: as `gradcam`, but explains `class_index`, `(N,)` int32.
    * `gradcam_top_k`, with `top_k`: as `gradcam`, but explains the K highest classes: `class` and `label` are
      `(N, K)` and `heatmap` is `(N, K, H, W)`.
    * `gradcam_bytes`, for a model that takes one image of fixed size with one or three channels: takes
      `image_bytes`, `(N,)` JPEG, PNG, GIF, WebP or BMP files (24 or 32 bits per pixel) of any size. Returns
      `scores`, `class`, `label`; `overlay_png_bytes`, `(N,)`, the photograph with its heatmap, its longer
      side at most 1024 pixels; and `heatmap_png_bytes`, `(N,)`, the heatmap in 256 grey levels. Photographs
      are turned upright and resized to the model's input, and their pixels, 0 to 255, are passed to
      `preprocess`, or to the model if there is none.

    With `boxes` every signature with heatmaps also returns `box`, `(N, 4)` int32, the corners
    `(x1, y1, x2, y2)` of the first of the boxes that `tf_gradcam.boxes` finds, and its `box_score`, `(N,)`
    float32, the mean of the heatmap there; `gradcam_top_k` returns `(N, K, 4)` and `(N, K)`. They are in the
    heatmap's pixels, and of `gradcam_bytes` in those of the upright photograph. Both are 0 for a heatmap of
    zeros. `tf_gradcam.serving.boxes` finds all boxes of a served heatmap.

    A class out of range, or bytes that are not an image, raise INVALID_ARGUMENT with a message. For an image
    with NaN or infinity, `scores` and `heatmap` are NaN, in every format.

    The other formats are a single file that returns what `gradcam` does, except `label`. Its weights are
    constants, and it uses only operations that are built into the runtime. Take its outputs by their names:
    their order depends on the format. It takes images of the model's
    height and width, uint8 if there is a `preprocess`. Its results are compared with TensorFlow's before it
    is moved to `path`.

    Args:
        model: a built `keras.Model` with one output, as `GradCAM` takes it; or a `GradCAM`, whose `layer`,
            `method`, `preprocess`, `call` and `fuse` are then used.
        path: for a SavedModel the folder of the model. A new version is written into it under the next free
            number: `"models/cat"` for `"models/cat/1"`. A version appears only when it is complete. For other
            formats the file, which is replaced if it exists. Both must be on a local disk.
        layer: the layer to explain; see `GradCAM`.
        method: the method, `"gradcam"` by default; see `GradCAM`.
        target: what `gradcam` and `gradcam_bytes` explain instead of the predicted class, the same for every
            image; see `GradCAM`. `gradcam_class` and `gradcam_top_k` are then left out.
        labels: the names of the classes, one per class.
        preprocess: is called in the graph before the model, in every signature but `serving_default` and
            `serve`. The images are then uint8 `(N, H, W, C)` with the model's number of channels, of any
            height and width that `preprocess` takes. Without it the images are what the model takes.
        size: the size of the heatmap; see `GradCAM`.
        interpolation: how the heatmap is resized; see `GradCAM`.
        frozen: whether the heatmaps are computed with weights that are constants; see `GradCAM.freeze`. This
            is faster, but the SavedModel, at most 2 GiB, then has another copy of the weights for each
            signature. Otherwise it has two copies, as Keras writes them.
        top_k: how many classes `gradcam_top_k` explains.
        boxes: the threshold of `box`, such as 0.15, a fraction of the heatmap's maximum, 0 or more and below
            1; `None` for no boxes.
        format: `"tensorflow"`; or `"litert"` for a `.tflite` file, `"onnx"` for an `.onnx` file, `"openvino"`
            for an `.xml` file and a `.bin` file beside it. The last three take no `top_k` or
            `boxes`, note the `labels` in the file, and are always frozen.
        precision: how such a file stores weights: `"float32"`; `"float16"`, half the size; or `"int8"`, a
            quarter, for which `calibration` is needed. It computes in float32 all the same, so it is not
            faster. `docs/formats.md` says by how much heatmaps differ.
        calibration: for `"int8"`, 20 to 50 images that are like those to explain: `(N, H, W, C)`, as the
            file takes them, with `preprocess` uint8; for several inputs a dict of arrays by their names.
            Rounding moves the mean of each channel; what these images show of it is subtracted (Nagel et
            al., ICCV 2019). The file's results are compared with TensorFlow's on them.

    Returns:
        The file; or the folder of the version, which also holds a manifest, `assets.extra/gradcam.json`, with
        the layer, method, labels, library versions and a checksum of the weights.

    Raises:
        ImportError: if the packages for another format are missing.
        OSError: if the files can't be written, as on a full disk.
        TypeError, ValueError: as `GradCAM` does; if `model` isn't built or has several outputs; if `method`,
            `preprocess` or `target` calls Python; if `labels` or `top_k` don't fit the model's classes or the
            format; if `boxes` is no such threshold, or the heatmaps are not `(H, W)`; if `precision` or
            `calibration` is none of these; or if the format lacks an operation, which the error names with
            what to do.

    Example:

    ```python
    tf_gradcam.export_gradcam(model, "models/cat", labels=["lynx", "tabby"])
    answer = tf.saved_model.load("models/cat/1").signatures["gradcam"](images=images)
    ```
    """
    cam = _as_explainer(model, layer, method, preprocess)
    _check_no_progress(cam.method)
    path = _check_path(path, format)
    check_precision(precision, calibration, format)
    _check_boxes(boxes)
    map_options: dict[str, Any] = {"size": size, "interpolation": interpolation}
    names = _check_labels(labels)
    try:
        if target is not None:
            _explain_black_images(cam, target, map_options)
        if format != "tensorflow":
            _check_savedmodel_only(format, frozen=frozen, top_k=top_k, boxes=boxes)
            weights: dict[str, Any] = {"precision": precision, "calibration": calibration}
            return convert(cam, path, format, target=target, labels=names, **map_options, **weights)
        explainer = cam.freeze() if frozen else cam
        signatures = explaining_signatures(explainer, target, names, top_k, boxes, map_options)
    except NotImplementedError as error:  # TensorFlow raises it where NumPy is called with its tensors.
        raise ValueError(f"{CALLS_PYTHON} Received one that calls NumPy: {error!s:.200}") from error
    if explainer.is_frozen:
        _check_frozen_size(cam.model, len(signatures))
    settings = {"frozen": explainer.is_frozen, "labels": names, "top_k": top_k and int(top_k)}
    threshold = None if boxes is None else float(boxes)
    return write_savedmodel(
        path, cam, signatures, {"target": target, **map_options, **settings, "boxes": threshold}
    )


def _as_explainer(model, layer, method, preprocess) -> GradCAM:
    if not isinstance(model, GradCAM):
        return GradCAM(model, layer, method="gradcam" if method is None else method, preprocess=preprocess)
    if (layer, method, preprocess) != (None, None, None):
        raise ValueError(
            "`layer`, `method` and `preprocess` must be left out where `model` is a GradCAM with its own. "
            f"Received: layer={layer!r}, method={method!r}, preprocess={preprocess!r}"
        )
    if model.jit_compile:
        raise ValueError(
            "`model` must be a GradCAM without jit_compile: what is exported is compiled where it runs. "
            "Received: a GradCAM with jit_compile=True"
        )
    return model


def _check_no_progress(method) -> None:
    """Raise a `ValueError` if a method, or one that it wraps, reports its progress to a Python function."""
    if reports_progress(method):
        raise ValueError(
            f"`method` must not report its progress: a server can't call Python. Received: {method}"
        )


def _check_path(path: str | os.PathLike, format: str) -> pathlib.Path:
    if not isinstance(format, str) or format not in ("tensorflow", *SUFFIXES):
        known = ["tensorflow", *SUFFIXES]
        hint = did_you_mean(str(format), known)
        raise ValueError(f"`format` must be one of {known}. Received: format={format!r:.80}. {hint}".rstrip())
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"`path` must be a path. Received: path={path!r:.80} (of type {type(path).__name__})")
    text = os.fspath(path)
    if not text or "://" in text or "\0" in text:
        raise ValueError(f"`path` must be a folder on a local disk. Received: path={text!r}")
    path = pathlib.Path(text)
    if format == "tensorflow" and (path.is_file() or path.suffix in SUFFIXES.values()):
        by_suffix = {suffix: known for known, suffix in SUFFIXES.items()}
        other = f". Or give format={by_suffix[path.suffix]!r}" if path.suffix in by_suffix else ""
        raise ValueError(
            "`path` must be a folder of the model's versions for format='tensorflow'. "
            f"Received: path={text!r}{other}"
        )
    return path


def _check_boxes(boxes: Any) -> None:
    if boxes is None:
        return
    is_number = isinstance(boxes, numbers.Real) and not isinstance(boxes, bool)
    if not is_number or not 0 <= boxes < 1:
        raise ValueError(
            "`boxes` must be None or a threshold, a number of 0 or more and below 1. "
            f"Received: boxes={boxes!r:.80}. For others call tf_gradcam.serving.boxes in the client."
        )


def _check_labels(labels: Any) -> list[str] | None:
    """Return the labels as a list of plain strings."""
    if labels is None:
        return None
    is_ordered = isinstance(labels, Sequence | np.ndarray) and not isinstance(labels, str)
    if not is_ordered or not all(isinstance(label, str) for label in labels):
        raise TypeError(f"`labels` must be a list of str, a name for each class. Received: {labels!r:.80}")
    return [str(label) for label in labels]


def _check_savedmodel_only(format: str, **options: Any) -> None:
    for name, value in options.items():
        if value or (name == "boxes" and value is not None):  # A threshold may be 0.
            raise ValueError(
                f"`{name}` is for format='tensorflow' alone. Received: {name}={value!r:.80} and "
                f"format={format!r}. Leave it out: such a file is frozen and explains one class."
            )


def _check_frozen_size(model: keras.Model, signature_count: int) -> None:
    held = weight_bytes(model)
    if held * signature_count >= MOST_BYTES:  # A SavedModel can't hold more in its graphs.
        raise ValueError(
            f"`frozen` needs less than 2 GiB for {signature_count} signatures with the weights in each. "
            f"Received: a model with {held / 2**30:.1f} GiB of weights. Leave out `top_k` or `frozen`."
        )


def _explain_black_images(cam: GradCAM, target: Any, map_options: Mapping[str, Any]) -> None:
    """Explain batches of black images, so that a wrong target raises now and not on the server."""
    specs = require_specs(cam.model)

    def zeros(spec, count):
        sides = [length or _TRIAL_SIDE for length in spec.shape[1:]]
        dtype = spec.dtype if cam.preprocess is None else photograph_spec(spec).dtype
        return tf.zeros([count, *sides], dtype)

    for count in (1, 2):  # A target with one number per image fits at most one of these batch sizes.
        images = keras.tree.map_structure(lambda spec, count=count: zeros(spec, count), specs)
        cam(images, target, **map_options)

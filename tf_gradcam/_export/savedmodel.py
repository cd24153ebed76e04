"""Save a model together with its Grad-CAM, for a server or a device."""

import datetime
import hashlib
import itertools
import json
import os
import pathlib
import re
import shutil
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam import __version__, targets
from tf_gradcam._checks import is_whole
from tf_gradcam._explain import MOST_BYTES, GradCAM, Layers, weight_bytes
from tf_gradcam._export.photographs import decode_photograph, heatmap_png, overlay_png, resize, shrink
from tf_gradcam._export.runtimes import SUFFIXES, convert, named_outputs
from tf_gradcam._methods import Method, is_classless
from tf_gradcam._model import is_channels_first, layer_path, require_specs, with_open_sides

_TRACED = "`preprocess`, `target` and `method` must be TensorFlow's operations: a server can't call Python."
_TRIED = 64  # pixels, where a model leaves it open


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
    interpolation: str = "bilinear",
    frozen: bool = False,
    top_k: int | None = None,
    format: str = "tensorflow",
) -> pathlib.Path:
    """Write a model that answers scores and heatmaps, for a server or a device that needs no tf_gradcam.

    By default it is a SavedModel, for TensorFlow Serving. Its batch is open, also to no images at all, and
    every output has the batch's axis. The signatures:

    * `serving_default` and `serve`: what `model.export` writes, so that existing clients notice nothing.
    * `gradcam`: from `images`, what the model takes (several inputs are called as in `serve`), to `scores`,
      what the model returns; `heatmap`, `(N, H, W)` float32 in `[0, 1]`; `class`, the class that it explains,
      `(N,)` int32; and `label`, that class's name, where there are labels. A model with no classes, as a
      single unit without sigmoid, has neither of the last two.
    * `gradcam_class`, of a model with classes: the same for those that are asked for, `class_index`, `(N,)`
      int32.
    * `gradcam_top_k`, if `top_k` is given: the same for the best classes, with `class` and `label` `(N, K)`
      and `heatmap` `(N, K, H, W)`.
    * `gradcam_bytes`, of a model that takes one image of known size in one or three channels: from
      `image_bytes`, `(N,)` JPEG, PNG, GIF, WebP or BMP files (of 24 or 32 bits) of any sizes, to `scores`,
      `class` and `label`; `overlay_png_bytes`, `(N,)`, the photograph under its heatmap, its longer side at
      most 1024 pixels; and `heatmap_png_bytes`, `(N,)`, the heatmap in 256 levels of grey. The photographs,
      upright, are squashed to the model's size, and their pixels of 0 to 255 given to `preprocess`, or to the
      model if there is none.

    A class out of range, or bytes that are no image, are refused with a sentence, as INVALID_ARGUMENT.

    Other formats are one file with what `gradcam` answers but for the label, the weights folded in, and only
    operations that the runtime itself has. It takes images of the model's height and width, uint8 where there
    is a `preprocess`. The file is run beside TensorFlow before it gets its name.

    Args:
        model: a built `keras.Model` with one output, as `GradCAM` takes it; or a `GradCAM`, which brings
            `layer`, `method` and `preprocess` along, and `call` and `fuse`.
        path: the model's folder. The version is a number in it, the next one that is free: `"models/cat"` for
            `"models/cat/1"`. A version appears whole or not at all. For other formats the file, which is
            replaced if it is there. Either is on this machine's disk.
        layer: the layer to explain; see `GradCAM`.
        method: the formula, by default `"gradcam"`; see `GradCAM`.
        target: what `gradcam` and `gradcam_bytes` explain, the same for every image, in place of its
            predicted class; see `GradCAM`. The other two signatures are then left out.
        labels: the names of the classes, one for each.
        preprocess: called in the graph before the model, by all but `serving_default`; the images are then
            raw uint8 `(N, H, W, C)` of any height and width that `preprocess` takes, with as many channels as
            the model takes. Without it they are what the model takes.
        size: the heatmap's size; see `GradCAM`.
        interpolation: how it is resized; see `GradCAM`.
        frozen: whether the heatmaps come from a graph with the weights folded in; see `GradCAM.freeze`. It is
            faster, and the file holds the weights once more for each signature, of 2 GiB at most. Without it
            they are there twice, as Keras writes them.
        top_k: how many classes `gradcam_top_k` explains.
        format: `"tensorflow"`; or `"litert"` for a `.tflite`, `"onnx"` for an `.onnx`, `"openvino"` for an
            `.xml` and a `.bin` beside it. These have no `labels` and no `top_k`, and are always frozen.

    Returns:
        The file; or the version's folder, which holds a manifest, `assets.extra/gradcam.json`: layer, method,
        labels, versions and a checksum of the weights.

    Raises:
        ImportError: if the packages for another format are missing.
        OSError: if it can't be written.
        TypeError, ValueError: as `GradCAM` does, or if `model` isn't built or has several outputs, if
            `method`, `preprocess` or `target` calls Python, if `labels` or `top_k` don't fit the model's
            classes or the format, or if that has no such operations; then one is named, and what to do.

    Example:

    ```python
    tf_gradcam.export_gradcam(model, "models/cat", labels=["lynx", "tabby"])
    answer = tf.saved_model.load("models/cat/1").signatures["gradcam"](images=images)
    ```
    """
    cam = _explainer(model, layer, method, preprocess)
    _check_progress(cam.method)
    path = _checked_path(path, format)
    look = {"size": size, "interpolation": interpolation}
    try:
        if target is not None:
            _try(cam, target, look)
        if format != "tensorflow":
            _check_savedmodel_only(format, labels=labels, frozen=frozen, top_k=top_k)
            return convert(cam, path, format, target=target, **look)
        labels = _checked_labels(labels)
        explainer = cam.freeze() if frozen else cam
        endpoints = _endpoints(explainer, target, labels, top_k, look)
    except NotImplementedError as error:  # what TensorFlow raises where NumPy is given its tensors
        raise ValueError(f"{_TRACED} Received one that calls NumPy: {error!s:.200}") from error
    if explainer.is_frozen:
        _check_bytes(cam.model, len(endpoints))
    serve = _padded(lambda *images: cam.model(*images)), [require_specs(cam.model)]
    endpoints = {"serve": serve, "serving_default": serve, **endpoints}
    # Keras's own archive: a tf.Module around a Keras 3 model loads in Python, but nowhere else.
    archive = keras.export.ExportArchive()
    archive.track(cam.model)
    for name, (function, signature) in endpoints.items():
        archive.add_endpoint(name, function, signature)

    def write(folder):
        # Nobody trains what is served; and the gradients of guided backpropagation can't be saved.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        archive.write_out(os.fspath(folder), options=options, verbose=False)
        lengths = size if size is None or isinstance(size, str) else np.ravel(size).tolist()
        about = {"target": _told(target), "size": lengths, "interpolation": interpolation}
        about |= {"frozen": explainer.is_frozen, "labels": labels, "top_k": top_k and int(top_k)}
        _write_manifest(folder, cam, {**about, "signatures": list(endpoints)})

    return _next_version(path, write)


def _explainer(model, layer, method, preprocess) -> GradCAM:
    if not isinstance(model, GradCAM):
        return GradCAM(model, layer, method="gradcam" if method is None else method, preprocess=preprocess)
    if (layer, method, preprocess) != (None, None, None):
        raise ValueError(
            "`layer`, `method` and `preprocess` must be left out where `model` is a GradCAM with its own. "
            f"Received: layer={layer!r}, method={method!r}, preprocess={preprocess!r}"
        )
    return model


def _check_progress(method) -> None:
    while method is not None:
        if getattr(method, "progress", None) is not None:
            raise ValueError(
                f"`method` must not report its progress: a server can't call Python. Received: {method}"
            )
        method = getattr(method, "method", None)


def _try(cam, target, look) -> None:
    """Explain black images: what is wrong with a target shows before the server."""
    specs = require_specs(cam.model)

    def zeros(spec, count):
        sides = [length or _TRIED for length in spec.shape[1:]]
        return tf.zeros([count, *sides], spec.dtype if cam.preprocess is None else _raw(spec).dtype)

    for count in (1, 2):  # A target of one number for each image fits one of these at most.
        images = keras.tree.map_structure(lambda spec, count=count: zeros(spec, count), specs)
        cam(images, target, **look)


def _check_savedmodel_only(format, **options) -> None:
    for name, value in options.items():
        if value:
            raise ValueError(
                f"`{name}` is for format='tensorflow' alone. Received: {name}={value!r:.80} and "
                f"format={format!r}. Leave it out: such a file is frozen and explains one class."
            )


# The signatures


def _endpoints(cam, target, labels, top_k, look) -> dict[str, tuple[Callable, list]]:
    """Return the signatures that explain, by name: each a function, and the specs of what it takes."""
    specs = require_specs(cam.model)
    if cam.preprocess is not None:
        specs = keras.tree.map_structure(_raw, specs)
    if isinstance(specs, tf.TensorSpec):
        specs = tf.TensorSpec(specs.shape, specs.dtype, "images")

    def explain(images, target):
        answer = named_outputs(cam(images, target, **look))
        if labels is None or "class" not in answer:
            return answer
        return {**answer, "label": tf.gather(labels, answer["class"])}

    explain_target = _padded(lambda images: explain(images, target))
    traced = tf.function(explain_target, autograph=False).get_concrete_function(specs)
    _check_operations(traced)
    answer = traced.structured_outputs
    scores = answer["scores"].shape
    # A unit that says yes or no has two classes.
    classes = max(2, scores[-1]) if "class" in answer else None
    _check_count(labels, classes)
    any_class = classes is not None and target is None and not is_classless(cam.method)
    _check_top_k(top_k, classes if any_class and scores.rank == 2 and scores[-1] > 1 else None)
    endpoints = {"gradcam": (explain_target, [specs])}
    if any_class:
        index = tf.TensorSpec([None], tf.int32, "class_index")
        endpoints["gradcam_class"] = _padded(_of_class(explain, classes)), [specs, index]
    if top_k is not None:
        best = targets.TopClasses(top_k)
        endpoints["gradcam_top_k"] = _padded(lambda images: explain(images, best)), [specs]
    photograph = _photograph(require_specs(cam.model))
    if photograph is not None and answer["heatmap"].shape.rank == 3:
        data = tf.TensorSpec([None], tf.string, "image_bytes")
        endpoints["gradcam_bytes"] = _of_bytes(explain_target, *photograph), [data]
    return endpoints


def _raw(spec) -> tf.TensorSpec:
    """Return the spec of a raw photograph, or of a table as it is."""
    return spec if spec.shape.rank < 4 else tf.TensorSpec(with_open_sides(spec.shape), tf.uint8, spec.name)


def _padded(function) -> Callable:
    """Return `function`, but one that also takes no images at all, on which oneDNN's convolutions fail."""

    def call(*args):  # what has no name is called args_0 by TensorFlow, and by `model.export` then
        none = tf.equal(tf.shape(keras.tree.flatten(args)[0])[0], 0)

        def with_one(tensor):
            # Not tf.pad, which oneDNN takes into the convolution.
            shape = tf.concat([[tf.cast(none, tf.int32)], tf.shape(tensor)[1:]], axis=0)
            return tf.concat([tensor, tf.zeros(shape, tensor.dtype)], axis=0)

        def without(tensor):
            return tensor[: tf.where(none, 0, tf.shape(tensor)[0])]

        return keras.tree.map_structure(without, function(*keras.tree.map_structure(with_one, args)))

    return call


def _of_class(explain, classes) -> Callable:
    """Return the function of images and class indices, one for each image."""

    def explain_class(images, class_index):
        count = tf.shape(keras.tree.flatten(images)[0])[0]
        known = tf.reduce_all((class_index >= 0) & (class_index < classes))
        rule = f"`class_index` must hold a class from 0 to {classes - 1} for each image. Received:"
        check = tf.debugging.Assert(known & tf.equal(tf.size(class_index), count), [rule, class_index])
        with tf.control_dependencies([check]):
            return explain(images, targets.Class(tf.identity(class_index)))

    return explain_class


def _photograph(spec) -> tuple | None:
    """Return size, channels and whether they come first, if a model takes one photograph of known size."""
    if not isinstance(spec, tf.TensorSpec) or spec.shape.rank != 4:
        return None
    first = is_channels_first(spec.shape)
    channels, *size = spec.shape[1:] if first else (spec.shape[-1], *spec.shape[1:-1])
    return None if None in size or channels not in (1, 3) else (size, channels, first)


def _of_bytes(explain, size, channels, channels_first) -> Callable:
    """Return the function of encoded photographs, which answers pictures."""

    def read(data):
        pixels = decode_photograph(data, channels)
        fitted = tf.ensure_shape(resize(pixels, size), [*size, channels])
        # In a string, as these are of different sizes.
        return fitted, tf.io.serialize_tensor(shrink(pixels))

    def draw(picture_and_heatmap):
        picture, heatmap = picture_and_heatmap
        pixels = tf.io.parse_tensor(picture, tf.uint8)
        return overlay_png(pixels, heatmap), heatmap_png(heatmap)

    def explain_bytes(image_bytes):
        kinds = tf.TensorSpec([*size, channels], tf.uint8), tf.TensorSpec([], tf.string)
        # A few at a time: each may take hundreds of megabytes.
        images, pictures = tf.map_fn(read, image_bytes, parallel_iterations=4, fn_output_signature=kinds)
        answer = explain(tf.transpose(images, [0, 3, 1, 2]) if channels_first else images)
        files = tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.string)
        drawn = tf.map_fn(draw, (pictures, answer.pop("heatmap")), fn_output_signature=files)
        return {**answer, "overlay_png_bytes": drawn[0], "heatmap_png_bytes": drawn[1]}

    return explain_bytes


# What is asked for


def _checked_path(path, format) -> pathlib.Path:
    if format not in ("tensorflow", *SUFFIXES):
        raise ValueError(f"`format` must be one of {['tensorflow', *SUFFIXES]}. Received: format={format!r}")
    text = os.fspath(path)
    if not text or "://" in text:
        raise ValueError(f"`path` must be a folder on this machine's disk. Received: path={text!r}")
    path = pathlib.Path(text)
    if format == "tensorflow" and (path.is_file() or path.suffix in SUFFIXES.values()):
        raise ValueError(
            "`path` must be a folder of the model's versions for format='tensorflow'. "
            f"Received: path={text!r}"
        )
    return path


def _checked_labels(labels) -> list[str] | None:
    if labels is None:
        return None
    ordered = isinstance(labels, Sequence | np.ndarray) and not isinstance(labels, str)
    if not ordered or not all(isinstance(label, str) for label in labels):
        raise TypeError(f"`labels` must be a list of str, a name for each class. Received: {labels!r:.80}")
    return [str(label) for label in labels]


def _check_count(labels, classes) -> None:
    if labels is not None and len(labels) != (classes or 0):
        has = "no classes to name" if classes is None else f"{classes} classes"
        raise ValueError(
            f"`labels` must have a name for each class. Received: {len(labels)} for a model with {has}."
        )


def _check_top_k(top_k, classes) -> None:
    if top_k is None:
        return
    if classes is None:
        raise ValueError(
            "`top_k` needs classes to choose from: a model that returns (N, classes), a method that tells "
            f"them apart, and no `target`. Received: top_k={top_k!r}"
        )
    if not is_whole(top_k) or not 0 < top_k <= classes:
        raise ValueError(f"`top_k` must be a whole number from 1 to {classes}. Received: top_k={top_k!r}")


def _check_operations(traced) -> None:
    """Raise a `ValueError` if a graph calls Python, which a server doesn't have."""
    graph = traced.graph.as_graph_def()
    nodes = itertools.chain(graph.node, *(each.node_def for each in graph.library.function))
    found = {node.op for node in nodes} & {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
    if found:
        raise ValueError(f"{_TRACED} Received one that calls Python, by tf.numpy_function or tf.py_function.")


def _check_bytes(model, signatures) -> None:
    held = weight_bytes(model)
    if held * signatures >= MOST_BYTES:  # as a graph in a file can't hold more, either
        raise ValueError(
            f"`frozen` needs less than 2 GiB for {signatures} signatures with the weights in each. Received: "
            f"a model with {held / 2**30:.1f} GiB of weights. Leave out `top_k` or `frozen`."
        )


# The folder


def _next_version(path, write) -> pathlib.Path:
    """Write a folder, and give it the next number in `path` once it is whole."""
    path.mkdir(parents=True, exist_ok=True)
    unfinished = path / f".unfinished-{uuid.uuid4().hex}"  # no number: a server that watches looks over it
    try:
        write(unfinished)
        while True:
            taken = [int(each.name) for each in path.iterdir() if each.name.isdecimal()]
            version = path / str(max(taken, default=0) + 1)
            try:
                return unfinished.rename(version)
            except OSError:
                if not version.exists():  # If it does, somebody was faster.
                    raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_manifest(folder, cam, about) -> None:
    explained = cam.layer if isinstance(cam.layer, tuple) else (cam.layer,)
    checksum = hashlib.sha256()
    for weight in cam.model.weights:
        checksum.update(weight.numpy().tobytes())
    manifest = {
        "layer": [None if each is None else layer_path(cam.model, each) for each in explained],
        "call": cam.call,
        "fuse": cam.fuse,
        "method": _told(cam.method),
        "preprocess": _told(cam.preprocess),
        **about,
        "weights_sha256": checksum.hexdigest(),
        "versions": {"tf_gradcam": __version__, "tensorflow": tf.__version__, "keras": keras.__version__},
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    path = folder / "assets.extra" / "gradcam.json"
    path.parent.mkdir()
    path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _told(what) -> str | None:
    """Return what tells a method, function or target, but no address in memory."""
    if what is None or not hasattr(what, "__qualname__"):
        return what if what is None else repr(what)
    public = re.sub(r"^tf_gradcam\._methods\.\w+", "tf_gradcam.methods", what.__module__)
    return f"{public}.{what.__qualname__}"

"""The signatures that return heatmaps, for `export` to save; `single_file` takes the names of the outputs.

All of it is TensorFlow operations: a server has no Python.
"""

import itertools
import keyword
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_gradcam import targets
from tf_gradcam._checks import is_whole
from tf_gradcam._explain import Explanation, GradCAM
from tf_gradcam._export.components import place_box, strongest_box
from tf_gradcam._export.photographs import (
    decode_photograph,
    fit_to_model,
    heatmap_png,
    overlay_png,
    shrink,
)
from tf_gradcam._methods import is_classless
from tf_gradcam._model import is_channels_first, require_specs, with_open_sides

CALLS_PYTHON = (
    "`preprocess`, `target` and `method` must be TensorFlow's operations: a server can't call Python."
)
OUTPUTS = "class", "heatmap", "map", "score", "scores"  # the names of what is returned
_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.>-]*")  # of an operation of TensorFlow
_PYTHON_OPERATIONS = {"EagerPyFunc", "PyFunc", "PyFuncStateless"}


class Signature(NamedTuple):
    """A function to be served, and the specs of its arguments.

    Attributes:
        function: of tensors, to a tensor or to tensors by name.
        specs: one `tf.TensorSpec`, or a structure of them, for each argument.
    """

    function: Callable[..., Any]
    specs: list


class _PhotographInput(NamedTuple):
    """What a model takes that takes one photograph of fixed size."""

    size: list[int]  # height, width
    channels: int
    channels_first: bool


def explaining_signatures(
    cam: GradCAM,
    target: Any,
    labels: list[str] | None,
    top_k: int | None,
    boxes: float | None,
    map_options: Mapping[str, Any],
) -> dict[str, Signature]:
    """Return the signatures that explain images, by name; see `export_gradcam`.

    Args:
        cam: the explainer, frozen or not, of a built model with one output.
        target: what to explain; `None` for the predicted class.
        labels: the names of the classes, or `None`.
        top_k: how many classes `gradcam_top_k` explains, or `None` for no such signature.
        boxes: the threshold of the box of each heatmap, or `None` for no boxes.
        map_options: `size` and `interpolation`, passed to `cam`.

    Raises:
        ValueError: if the graph calls Python, `labels` or `top_k` don't fit the model's classes, or `boxes`
            not its heatmaps.
    """
    specs = _image_specs(cam)
    check_input_names(spec.name for spec in keras.tree.flatten(require_specs(cam.model)) if spec.name)

    def explain(images, target):
        explanation = cam(images, target, **map_options)
        outputs = named_outputs(explanation)
        if boxes is not None:
            outputs["box"], outputs["box_score"] = _box(explanation, boxes)
        if labels is None or "class" not in outputs:
            return outputs
        return {**outputs, "label": tf.gather(labels, outputs["class"])}

    explain_target = accept_empty_batch(lambda images: explain(images, target))
    traced = tf.function(explain_target, autograph=False).get_concrete_function(specs)
    _check_operations(traced)
    outputs = traced.structured_outputs
    scores, class_count = outputs["scores"].shape, count_classes(outputs)
    check_label_count(labels, class_count)
    can_choose = class_count is not None and target is None and not is_classless(cam.method)
    _check_top_k(top_k, class_count if can_choose and scores.rank == 2 and scores[-1] > 1 else None)
    signatures = {"gradcam": Signature(explain_target, [specs])}
    if can_choose:
        index = tf.TensorSpec([None], tf.int32, "class_index")
        explain_class = accept_empty_batch(_explain_given_class(explain, class_count))
        signatures["gradcam_class"] = Signature(explain_class, [specs, index])
    if top_k is not None:
        best = targets.TopClasses(top_k)
        explain_best = accept_empty_batch(lambda images: explain(images, best))
        signatures["gradcam_top_k"] = Signature(explain_best, [specs])
    photograph = _photograph_input(require_specs(cam.model))
    if photograph is not None and outputs["heatmap"].shape.rank == 3:
        data = tf.TensorSpec([None], tf.string, "image_bytes")
        signatures["gradcam_bytes"] = Signature(_explain_encoded(explain_target, photograph), [data])
    return signatures


def _box(explanation: Explanation, threshold: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the strongest box of each heatmap, and its score; see `export_gradcam`."""
    heatmap = explanation.heatmap
    if heatmap.shape.rank - explanation.score.shape.rank != 2:
        raise ValueError(
            "`boxes` needs heatmaps (H, W). Received: a model of signals or volumes, whose heatmaps have the "
            f"shape {heatmap.shape}. Leave it out."
        )
    return strongest_box(heatmap, threshold)


def named_outputs(explanation: Explanation) -> dict[str, tf.Tensor]:
    """Return `scores`, `heatmap`, `score`, for one layer its `map`, and if a class is explained `class`.

    Raises:
        ValueError: if the model has several outputs.
    """
    if not tf.is_tensor(explanation.outputs):
        raise ValueError(
            "`model` must have one output to be served with its heatmaps. Received one that returns "
            f"{type(explanation.outputs).__name__}. Make a keras.Model that returns the output to explain."
        )
    outputs = {"scores": explanation.outputs, "heatmap": explanation.heatmap, "score": explanation.score}
    if not isinstance(explanation.map, tuple):  # Several layers have no map in common.
        outputs["map"] = explanation.map
    return outputs if explanation.target is None else {**outputs, "class": explanation.target}


def accept_empty_batch(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function`, changed so that it also accepts a batch of no images.

    The convolutions of oneDNN fail on an empty batch, so one image of zeros is added to it, and what is
    returned for that image is removed again.
    """

    def call(*args):  # TensorFlow names an unnamed argument args_0, and so does `model.export`.
        is_empty = tf.equal(tf.shape(keras.tree.flatten(args)[0])[0], 0)

        def add_image(tensor):
            # Not by tf.pad, which oneDNN merges into the convolution.
            shape = tf.concat([[tf.cast(is_empty, tf.int32)], tf.shape(tensor)[1:]], axis=0)
            return tf.concat([tensor, tf.zeros(shape, tensor.dtype)], axis=0)

        def remove_image(tensor):
            return tensor[: tf.where(is_empty, 0, tf.shape(tensor)[0])]

        outputs = function(*keras.tree.map_structure(add_image, args))
        return keras.tree.map_structure(remove_image, outputs)

    return call


def photograph_spec(spec: tf.TensorSpec) -> tf.TensorSpec:
    """Return the spec of uint8 photographs of any size for the spec of images; any other spec as it is."""
    if spec.shape.rank < 4:
        return spec
    return tf.TensorSpec(with_open_sides(spec.shape), tf.uint8, spec.name)


def _image_specs(cam):
    """Return the spec, or the structure of specs, of the images that the explainer takes."""
    specs = require_specs(cam.model)
    if cam.preprocess is not None:
        specs = keras.tree.map_structure(photograph_spec, specs)
    if isinstance(specs, tf.TensorSpec):
        specs = tf.TensorSpec(specs.shape, specs.dtype, "images")
    return specs


def _explain_given_class(explain, class_count) -> Callable[..., Any]:
    """Return the function of images and class indices, one for each image."""

    def explain_class(images, class_index):
        count = tf.shape(keras.tree.flatten(images)[0])[0]
        in_range = tf.reduce_all((class_index >= 0) & (class_index < class_count))
        rule = f"`class_index` must hold a class from 0 to {class_count - 1} for each image. Received:"
        check = tf.debugging.Assert(in_range & tf.equal(tf.size(class_index), count), [rule, class_index])
        with tf.control_dependencies([check]):
            return explain(images, targets.Class(tf.identity(class_index)))

    return explain_class


def _explain_encoded(explain, photograph: _PhotographInput) -> Callable[..., Any]:
    """Return the function of encoded photographs, which returns PNG files."""
    size, channels, channels_first = photograph

    def read(data):
        pixels = decode_photograph(data, channels)
        fitted = tf.ensure_shape(fit_to_model(data, pixels, size), [*size, channels])
        # As a string: the photographs have different sizes.
        return fitted, tf.io.serialize_tensor(shrink(pixels)), tf.shape(pixels)[:2]

    def draw(picture_and_heatmap):
        picture, heatmap = picture_and_heatmap
        pixels = tf.io.parse_tensor(picture, tf.uint8)
        return overlay_png(pixels, heatmap), heatmap_png(heatmap)

    def explain_bytes(image_bytes):
        of_photograph = (
            tf.TensorSpec([*size, channels], tf.float32),
            tf.TensorSpec([], tf.string),
            tf.TensorSpec([2], tf.int32),
        )
        # Four at a time: each may take hundreds of megabytes.
        images, pictures, sizes = tf.map_fn(
            read, image_bytes, parallel_iterations=4, fn_output_signature=of_photograph
        )
        outputs = explain(tf.transpose(images, [0, 3, 1, 2]) if channels_first else images)
        outputs = {name: tensor for name, tensor in outputs.items() if name not in ("map", "score")}
        if "box" in outputs:
            heatmap_size = tf.shape(outputs["heatmap"])[1:]
            outputs["box"] = place_box(outputs["box"], heatmap_size, sizes)
        two_files = tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.string)
        overlays, heatmaps = tf.map_fn(
            draw, (pictures, outputs.pop("heatmap")), fn_output_signature=two_files
        )
        return {**outputs, "overlay_png_bytes": overlays, "heatmap_png_bytes": heatmaps}

    return explain_bytes


def _photograph_input(spec) -> _PhotographInput | None:
    """Return what the model takes if that is one photograph of fixed size, else `None`."""
    if not isinstance(spec, tf.TensorSpec) or spec.shape.rank != 4:
        return None
    channels_first = is_channels_first(spec.shape)
    channels, *size = spec.shape[1:] if channels_first else (spec.shape[-1], *spec.shape[1:-1])
    if None in size or channels not in (1, 3):
        return None
    return _PhotographInput(size, channels, channels_first)


def _check_operations(traced: tf.types.experimental.ConcreteFunction) -> None:
    """Raise a `ValueError` if a graph calls Python, which a server doesn't have."""
    graph = traced.graph.as_graph_def()
    nodes = itertools.chain(graph.node, *(function.node_def for function in graph.library.function))
    if any(node.op in _PYTHON_OPERATIONS for node in nodes):
        raise ValueError(
            f"{CALLS_PYTHON} Received one that calls Python, by tf.numpy_function or tf.py_function."
        )


def check_input_names(names: Iterable[str], taken: Iterable[str] = ()) -> None:
    """Raise a `ValueError` if an input has a name that no exported model can have, or one of `taken`."""
    taken = list(taken)
    for name in names:
        if name in taken or keyword.iskeyword(name) or not _NAME.fullmatch(name):
            others = f" The outputs are called {', '.join(taken)}." if taken else ""
            raise ValueError(
                "`model` must have inputs with names of their own, of letters, digits, dots, hyphens and "
                "underscores after a letter or digit, and no words of Python. Received: an input "
                f"{name!r}.{others} Rename it: keras.Input(shape, name=...)."
            )


def count_classes(outputs: Any) -> int | None:
    """Return how many classes the traced outputs of a heatmap have; `None` where no class is explained."""
    # A sigmoid unit that answers yes or no has two classes.
    return max(2, outputs["scores"].shape[-1]) if "class" in outputs else None


def check_label_count(labels: list[str] | None, class_count: int | None) -> None:
    """Raise a `ValueError` unless there is a name for each class."""
    if labels is not None and len(labels) != (class_count or 0):
        classes = "no classes to name" if class_count is None else f"{class_count} classes"
        raise ValueError(
            f"`labels` must have a name for each class. Received: {len(labels)} for a model with {classes}."
        )


def _check_top_k(top_k: Any, class_count: int | None) -> None:
    """Raise a `ValueError` if `top_k` is not from 1 to `class_count`.

    `class_count` is `None` if there are no classes to choose from.
    """
    if top_k is None:
        return
    if class_count is None:
        raise ValueError(
            "`top_k` needs classes to choose from: a model that returns (N, classes), a method that explains "
            f"a class, and no `target`. Received: top_k={top_k!r}"
        )
    if not is_whole(top_k) or not 0 < top_k <= class_count:
        raise ValueError(f"`top_k` must be a whole number from 1 to {class_count}. Received: top_k={top_k!r}")

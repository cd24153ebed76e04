"""Save a model together with its Grad-CAM, for TensorFlow Serving."""

import os
from collections.abc import Callable

import keras
import tensorflow as tf

from tf_gradcam import layers
from tf_gradcam.cam import GradCAM
from tf_gradcam.inputs import opened
from tf_gradcam.methods import Method


def export_gradcam(
    model: keras.Model,
    path: str | os.PathLike,
    layer: str | keras.Layer | None = None,
    *,
    method: str | Method = "gradcam",
    preprocess: Callable[[tf.Tensor], tf.Tensor] | None = None,
    size: str | tuple[int, int] | None = "input",
    interpolation: str = "bilinear",
) -> None:
    """Write a SavedModel that answers scores and heatmap. It can be loaded without this library.

    It has two endpoints, both with an open batch. `serving_default` answers what `model` answers, so that
    existing clients notice nothing. `gradcam` answers a dict: `scores`, what the model returns; `heatmap`,
    `(N, H, W)` float32 in `[0, 1]`, for each image's predicted class; and `class`, that class, `(N,)` int32
    (absent where the model has no classes, but a single unit without sigmoid).

    Args:
        model: a built `keras.Model` with one output, as `GradCAM` takes it. Several inputs keep their names;
            one is called `images`.
        path: the folder to write. TensorFlow Serving looks for a number below the model's name:
            `"models/cat/1"`.
        layer: the layer to explain; see `GradCAM`.
        method: the formula; see `GradCAM`.
        preprocess: called in the graph before the model; the images of both endpoints are then raw uint8
            `(N, H, W, C)` of any height and width that `preprocess` takes, with as many channels as the model
            takes. Without it they are what the model takes.
        size: the heatmap's size; see `GradCAM`.
        interpolation: how it is resized; see `GradCAM`.

    Raises:
        TypeError, ValueError: as `GradCAM` does, or if `model` isn't built, or `method` reports its progress.

    Example:

    ```python
    tf_gradcam.export_gradcam(model, "models/cat/1")
    answer = tf.saved_model.load("models/cat/1").signatures["gradcam"](images=images)
    ```
    """
    inner = method
    while inner is not None:
        if getattr(inner, "progress", None) is not None:
            raise ValueError(
                f"`method` must not report its progress: a server can't call Python. Received: {inner}"
            )
        inner = getattr(inner, "method", None)
    cam = GradCAM(model, layer, method=method, preprocess=preprocess)
    specs = layers.specs_of(model)
    if preprocess is not None:
        specs = keras.tree.map_structure(_raw, specs)
    if isinstance(specs, tf.TensorSpec):
        specs = tf.TensorSpec(specs.shape, specs.dtype, "images")

    def explain(images):
        explanation = cam(images, size=size, interpolation=interpolation)
        answer = {"scores": explanation.outputs, "heatmap": explanation.heatmap}
        return answer if explanation.target is None else {**answer, "class": explanation.target}

    # Keras's own archive: a tf.Module around a Keras 3 model loads in Python, but nowhere else.
    archive = keras.export.ExportArchive()
    archive.track(model)
    signature = [specs]
    # Read off the explanation: the graph optimiser drops what these outputs don't need.
    archive.add_endpoint("serving_default", lambda images: cam(images).outputs, signature)
    archive.add_endpoint("gradcam", explain, signature)
    # Nobody trains what is served; and the gradients of guided backpropagation can't be saved.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    archive.write_out(os.fspath(path), options=options, verbose=False)


def _raw(spec) -> tf.TensorSpec:
    """Return the spec of a raw photograph, or of a table as it is."""
    return spec if spec.shape.rank < 4 else tf.TensorSpec(opened(spec.shape), tf.uint8, spec.name)

"""The public API: `make_gradcam_heatmap`, one call for a heatmap. Users call it."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._explain.requested import Layers
from tf_gradcam._explain.shared import shared_explainer
from tf_gradcam._heatmap import Interpolation
from tf_gradcam._methods import Method


def make_gradcam_heatmap(
    model: keras.Model,
    img: Any,
    layer: Layers = None,
    target: Any = None,
    *,
    call: int | None = None,
    method: str | Method | Sequence[str | Method] = "gradcam",
    fuse: str | None = None,
    size: str | int | Sequence[int] | None = "input",
    interpolation: Interpolation | None = None,
) -> np.ndarray:
    """Return a heatmap of the evidence in an image for a class.

    The first call with a model, layer and method runs without compiling if possible, because compiling takes
    seconds. The second call compiles; later calls take about as long as the model's forward pass, for any
    class, image and batch size. The compiled function is deleted with the model.

    Args:
        model: any `keras.Model`: functional, Sequential, nested or subclassed. A model that was never called
            is built by a call on the image.
        img: one image `(H, W, C)` or `(1, H, W, C)`, or a batch `(N, H, W, C)`: array or tensor of any real
            dtype, preprocessed for the model: values are not rescaled. For a model with several inputs, a
            list or dict of arrays.
        layer: name, path (`"inner/conv"`), `keras.Layer`, a list of them, or `None` for the last layer with a
            map; see `GradCAM`.
        target: what to explain; see `GradCAM`. `None` is each image's own predicted class.
        call: number of the run of a layer that runs several times; see `GradCAM`.
        method: name or callable; see `GradCAM`. A callable with a reference to the model keeps it in memory.
        fuse: how to fuse the heatmaps of several layers; see `GradCAM`.
        size: `"input"`, `None` for the layer's own grid, or `(height, width)`; see `GradCAM`.
        interpolation: how the map is resized; see `GradCAM`.

    Returns:
        float32 array in `[0, 1]`: `(H, W)` for one image, `(N, H, W)` for a batch; for a signal `(T,)`, for a
        volume or video `(D, H, W)`; with `targets.Classes` an axis for the classes before these axes. It is
        all zeros, with a warning, if there is no evidence for the target.

    Raises:
        TypeError, ValueError: as `GradCAM` does, and a `ValueError` if the map contains NaN or infinity.

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV 2017.

    Example:

    ```python
    heatmap = tf_gradcam.make_gradcam_heatmap(model, image, "top_conv")
    tf_gradcam.show(photograph, heatmap)
    ```
    """
    if isinstance(img, keras.Model) and not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must come first, then `img`. Received: an image first, then a model. Swap them."
        )
    # The heatmap is copied to the host anyway; there the image can be checked for NaN.
    img = _on_host(img)
    explainer, version = shared_explainer(model, layer, call, method, fuse)
    explanation = explainer.explain("img", img, target, size, interpolation, True, version)
    maps = explanation.map if isinstance(explanation.map, tuple) else (explanation.map,)
    signed_maps = [one.numpy() for one in maps]
    if not all(np.isfinite(signed_map).all() for signed_map in signed_maps):
        raise ValueError(
            "`model` must return finite scores and gradients. Received: NaN or infinity in the map of `img`. "
            "Check the weights for NaN, and the target for a score that is too large."
        )
    heatmap = explanation.heatmap.numpy()
    names = None if explainer.layer is None else explainer.layer_names
    _warn_if_blank(signed_maps, heatmap, explanation.score.shape, explanation.target, names)
    return heatmap[0] if len(heatmap) == 1 else heatmap


def _on_host(img):
    """Return `img` with NumPy arrays in place of tensors."""
    if isinstance(img, dict):
        return {name: _on_host(array) for name, array in img.items()}
    if isinstance(img, list | tuple) and any(map(tf.is_tensor, img)):
        return type(img)(map(_on_host, img))
    if not tf.is_tensor(img):
        return img
    if not hasattr(img, "numpy"):
        raise ValueError(
            "`img` must hold numbers. Received: a symbolic tensor. In a tf.function, use GradCAM."
        )
    return img.numpy()


def _warn_if_blank(signed_maps, heatmap, shape, target, layer_names) -> None:
    """Warn if a heatmap has no positive value; `shape` is that of the score, `(N,)` or `(N, M)`."""
    count = int(np.prod(shape))
    flat = [signed_map.reshape(count, -1) for signed_map in signed_maps]
    has_evidence = np.max([signed_map.max(axis=1) for signed_map in flat], axis=0) > 0
    is_blank = ~has_evidence
    if len(flat) == 1:
        is_blank |= heatmap.reshape(count, -1).max(axis=1) <= 0
    blank = np.flatnonzero(is_blank)
    if len(blank) == 0:
        return
    first = blank[0]
    target = "the target" if target is None else f"class {target.numpy().ravel()[first]}"
    has_negative = any(signed_map[first].any() for signed_map in flat)
    reason = "all evidence is against it" if has_negative else "the gradients or activations are 0"
    if has_evidence[first]:
        reason = "all evidence lies where the image was padded, or between the pixels of the heatmap"
    where = "in it" if layer_names is None else f"at layer {layer_names!r}"
    warnings.warn(
        f"Blank heatmap for {len(blank)} of {count} images: in image {first * shape[0] // count}, nothing "
        f"{where} is evidence for {target}: {reason}. Try another layer, target or method; the signed map "
        "is GradCAM(model, layer)(images).map.",
        stacklevel=3,
    )

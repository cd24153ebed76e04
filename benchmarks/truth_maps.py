"""The maps that truth.py compares: noise, and methods with layers, interpolation and target."""

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np

import tf_gradcam
from tf_gradcam import methods, targets

BATCH = 20
LAST, FINER, FINEST = 0, 1, 2  # layers: the last one, and the last on a grid twice and four times as fine


def logit(indices):
    return indices


class Map(NamedTuple):
    """How a map is made.

    Attributes:
        method: as `GradCAM` takes it; or a function from images and a source of randomness to noise.
        layers: numbers in a world's layers; none for methods whose map lies on the image.
        target: returns the target, given the classes' indices; `None` for methods without a class.
        few: whether it takes so long that only few cases are explained.
    """

    method: Any
    layers: tuple[int, ...] = (LAST,)
    fuse: str | None = None
    interpolation: str | tuple[str, float] = "bilinear"
    target: Callable | None = logit
    few: bool = False


def pixel_noise(images, random):
    return random.random(images.shape[:3])


def coarse_noise(images, random):
    """Return noise as smooth as a heatmap from a grid of 7 x 7."""
    height, width = images.shape[1:3]
    return np.stack([cv2.resize(random.random((7, 7)), (width, height)) for _ in images])


def _last(method, **options):
    return Map(method, interpolation="gaussian", **options)


MAPS = {
    "noise, by pixel": Map(pixel_noise),
    "noise, 7 x 7": Map(coarse_noise),
    "gradcam (the default: bilinear)": Map("gradcam"),
    "gradcam": _last("gradcam"),
    "gradcam, gaussian of 0.8 cells": Map("gradcam", interpolation=("gaussian", 0.8)),
    "locate": Map("locate", (), interpolation=("gaussian", 0.8)),
    "gradcam, finer": _last("gradcam", layers=(FINER,)),
    "hirescam, finer": _last("hirescam", layers=(FINER,)),
    "gradcam_elementwise": _last("gradcam_elementwise"),
    "gradcam_elementwise, finer": _last("gradcam_elementwise", layers=(FINER,)),
    "layercam, last + finer + finest, fuse layercam": _last(
        "layercam", layers=(LAST, FINER, FINEST), fuse="layercam"
    ),
    "gradcam_plus_plus": _last("gradcam_plus_plus"),
    "gradcam_plus_plus, last + finer, refinecam": _last(
        "gradcam_plus_plus", layers=(LAST, FINER), fuse="refinecam"
    ),
    "hirescam, last + finer, refinecam, probability": _last(
        "hirescam", layers=(LAST, FINER), fuse="refinecam", target=targets.Probability
    ),
    "gradcam_elementwise, last + finer, refinecam": _last(
        "gradcam_elementwise", layers=(LAST, FINER), fuse="refinecam"
    ),
    "finercam": _last("finercam"),
    "eigencam": _last("eigencam", target=None),
    "eigengradcam": _last("eigengradcam"),
    "fem": _last("fem", target=None),
    "scorecam, 32 channels": _last(methods.scorecam(channels=32), few=True),
    "rise, 100 masks": Map(methods.rise(100), (), target=targets.Probability, few=True),
    "gradient": Map("gradient", ()),
    "smoothgrad, 8 samples": Map(methods.smooth("gradient", samples=8), (), few=True),
    "gradient_x_input": Map("gradient_x_input", ()),
    "guided_backprop": Map("guided_backprop", ()),
    "guided_gradcam": Map("guided_gradcam", ()),
    "fullgrad": Map("fullgrad", ()),
}


def explainer(model, names: list[str], how: Map) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return a function from images and classes to heatmaps `(N, H, W)`.

    Args:
        model: the network.
        names: its layers, the last one first.
        how: the map.
    """
    if how.method in (pixel_noise, coarse_noise):
        return lambda images, _: how.method(images, np.random.default_rng(0))
    layers = [names[place] for place in how.layers] or [None]
    layer = layers if len(layers) > 1 else layers[0]
    cam = tf_gradcam.GradCAM(model, layer, method=how.method, fuse=how.fuse)

    def heatmaps(images, classes):
        found = []
        for start in range(0, len(images), BATCH):
            part = slice(start, start + BATCH)
            target = how.target(classes[part]) if how.target else None
            explanation = cam(images[part], target, interpolation=how.interpolation)
            found.append(explanation.heatmap.numpy())
        return np.concatenate(found)

    return heatmaps

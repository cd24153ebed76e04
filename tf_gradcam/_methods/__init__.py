"""Methods: signed maps from activations, gradients and scores. Used by `methods`, `_explain`, `_export`."""

from tf_gradcam._methods.formulas import gradcam, hirescam
from tf_gradcam._methods.protocol import (
    Method,
    is_at_image,
    is_classless,
    is_formula,
    is_slow,
    reports_progress,
    takes_channels,
    takes_gradients,
)
from tf_gradcam._methods.registry import get, method_name
from tf_gradcam._methods.scene import Scene, SceneContext, SourceImage, make_scene

__all__ = [
    "Method",
    "Scene",
    "SceneContext",
    "SourceImage",
    "get",
    "gradcam",
    "hirescam",
    "is_at_image",
    "is_classless",
    "is_formula",
    "is_slow",
    "make_scene",
    "method_name",
    "reports_progress",
    "takes_channels",
    "takes_gradients",
]

"""Methods: signed maps from activations, gradients and scores. Used by `methods`, `_explain`, `_export`."""

from tf_gradcam._methods.formulas import gradcam, hirescam
from tf_gradcam._methods.presets import PRESETS
from tf_gradcam._methods.protocol import (
    Method,
    Preset,
    apply_method,
    is_at_image,
    is_classless,
    is_formula,
    is_slow,
    methods_of_layers,
    reads_blocks,
    reports_progress,
    takes_all_scores,
    takes_channels,
    takes_gradients,
)
from tf_gradcam._methods.reciprocal import reciprocam
from tf_gradcam._methods.registry import get, keeps_rows_apart, method_name
from tf_gradcam._methods.scene import Scene, SceneContext, SourceImage, make_scene

__all__ = [
    "PRESETS",
    "Method",
    "Preset",
    "Scene",
    "SceneContext",
    "SourceImage",
    "apply_method",
    "get",
    "gradcam",
    "hirescam",
    "is_at_image",
    "is_classless",
    "is_formula",
    "is_slow",
    "keeps_rows_apart",
    "make_scene",
    "method_name",
    "methods_of_layers",
    "reads_blocks",
    "reciprocam",
    "reports_progress",
    "takes_all_scores",
    "takes_channels",
    "takes_gradients",
]

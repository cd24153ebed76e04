"""What turns activations, gradients and scores into a map."""

from tf_gradcam._methods.formulas import gradcam, hirescam
from tf_gradcam._methods.protocol import is_classless, is_formula, takes_gradients
from tf_gradcam._methods.registry import Method
from tf_gradcam._methods.scene import (
    ONE_MAP_PER_IMAGE,
    PATCHES_COUNT,
    SceneContext,
    SourceImage,
    check_gradient,
    make_scene,
    not_on_path_error,
    undo_scaling,
)

__all__ = [
    "ONE_MAP_PER_IMAGE",
    "PATCHES_COUNT",
    "Method",
    "SceneContext",
    "SourceImage",
    "check_gradient",
    "gradcam",
    "hirescam",
    "is_classless",
    "is_formula",
    "make_scene",
    "not_on_path_error",
    "takes_gradients",
    "undo_scaling",
]

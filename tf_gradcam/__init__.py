"""Grad-CAM for any Keras model: where did the network see the evidence for this class?"""

import importlib

__version__ = "0.1.0"

# Loaded when first used: `tf-gradcam --help` need not wait for TensorFlow, nor tensors for matplotlib.
_HOMES = {
    "_explain": ["Explanation", "GradCAM", "make_gradcam_heatmap"],
    "_concepts": ["Factorization", "deep_feature_factorization"],
    "_model": ["list_layers"],
    "_submodel": ["build_submodel"],
    "_images": ["colorize", "load_image", "overlay", "overlay_concepts", "show"],
    "_export": ["export_gradcam"],
}
_MODULES = ["methods", "pretrained", "serving", "targets"]
__all__ = sorted(["__version__", *_MODULES, *(name for names in _HOMES.values() for name in names)])


def __getattr__(name):
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return __all__

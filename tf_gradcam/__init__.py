"""Grad-CAM for any Keras model: where did the network see the evidence for this class?"""

import typing as _typing

from tf_gradcam._registration import register_submodel_layer as _register_submodel_layer

__version__ = "0.1.0"

# For editors and type checkers. At run time each name is loaded when it is first used: `tf-gradcam --help`
# does not wait for TensorFlow, nor heatmaps for matplotlib.
if _typing.TYPE_CHECKING:
    from tf_gradcam import callbacks as callbacks
    from tf_gradcam import formats as formats
    from tf_gradcam import methods as methods
    from tf_gradcam import metrics as metrics
    from tf_gradcam import pretrained as pretrained
    from tf_gradcam import ray as ray
    from tf_gradcam import serving as serving
    from tf_gradcam import targets as targets
    from tf_gradcam._concepts import Factorization as Factorization
    from tf_gradcam._concepts import deep_feature_factorization as deep_feature_factorization
    from tf_gradcam._dataset import DatasetRun as DatasetRun
    from tf_gradcam._dataset import explain_dataset as explain_dataset
    from tf_gradcam._dataset import export_rows as export_rows
    from tf_gradcam._explain import GradCAM as GradCAM
    from tf_gradcam._explain import PrecisionCheck as PrecisionCheck
    from tf_gradcam._explain import SlidingExplanation as SlidingExplanation
    from tf_gradcam._explain import make_gradcam_heatmap as make_gradcam_heatmap
    from tf_gradcam._explanation import Explanation as Explanation
    from tf_gradcam._export import export_gradcam as export_gradcam
    from tf_gradcam._images import HeatmapBox as HeatmapBox
    from tf_gradcam._images import box_iou as box_iou
    from tf_gradcam._images import boxes as boxes
    from tf_gradcam._images import colorize as colorize
    from tf_gradcam._images import compare as compare
    from tf_gradcam._images import contour as contour
    from tf_gradcam._images import draw_boxes as draw_boxes
    from tf_gradcam._images import draw_masks as draw_masks
    from tf_gradcam._images import load_image as load_image
    from tf_gradcam._images import masks as masks
    from tf_gradcam._images import montage as montage
    from tf_gradcam._images import overlay as overlay
    from tf_gradcam._images import overlay_concepts as overlay_concepts
    from tf_gradcam._images import overlay_video as overlay_video
    from tf_gradcam._images import save as save
    from tf_gradcam._images import show as show
    from tf_gradcam._layers import LayerInfo as LayerInfo
    from tf_gradcam._layers import list_layers as list_layers
    from tf_gradcam._methods import Scene as Scene
    from tf_gradcam._report import write_report as write_report
    from tf_gradcam._runtimes import LoadedExplainer as LoadedExplainer
    from tf_gradcam._runtimes import load as load
    from tf_gradcam._submodel import build_submodel as build_submodel

_MODULES = ("callbacks", "formats", "methods", "metrics", "pretrained", "ray", "serving", "targets")
_HOMES = {
    "DatasetRun": "_dataset",
    "Explanation": "_explanation",
    "Factorization": "_concepts",
    "GradCAM": "_explain",
    "HeatmapBox": "_images",
    "LayerInfo": "_layers",
    "LoadedExplainer": "_runtimes",
    "PrecisionCheck": "_explain",
    "Scene": "_methods",
    "SlidingExplanation": "_explain",
    "box_iou": "_images",
    "boxes": "_images",
    "build_submodel": "_submodel",
    "colorize": "_images",
    "compare": "_images",
    "contour": "_images",
    "deep_feature_factorization": "_concepts",
    "draw_boxes": "_images",
    "draw_masks": "_images",
    "explain_dataset": "_dataset",
    "export_gradcam": "_export",
    "export_rows": "_dataset",
    "list_layers": "_layers",
    "load": "_runtimes",
    "load_image": "_images",
    "make_gradcam_heatmap": "_explain",
    "masks": "_images",
    "montage": "_images",
    "overlay": "_images",
    "overlay_concepts": "_images",
    "overlay_video": "_images",
    "save": "_images",
    "show": "_images",
    "write_report": "_report",
}
__all__ = [
    "DatasetRun",
    "Explanation",
    "Factorization",
    "GradCAM",
    "HeatmapBox",
    "LayerInfo",
    "LoadedExplainer",
    "PrecisionCheck",
    "Scene",
    "SlidingExplanation",
    "__version__",
    "box_iou",
    "boxes",
    "build_submodel",
    "callbacks",
    "colorize",
    "compare",
    "contour",
    "deep_feature_factorization",
    "draw_boxes",
    "draw_masks",
    "explain_dataset",
    "export_gradcam",
    "export_rows",
    "formats",
    "list_layers",
    "load",
    "load_image",
    "make_gradcam_heatmap",
    "masks",
    "methods",
    "metrics",
    "montage",
    "overlay",
    "overlay_concepts",
    "overlay_video",
    "pretrained",
    "ray",
    "save",
    "serving",
    "show",
    "targets",
    "write_report",
]

_register_submodel_layer()


def __getattr__(name: str) -> _typing.Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    from tf_gradcam._checks import did_you_mean

    hint = did_you_mean(name, __all__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. {hint}".rstrip())


def __dir__() -> list[str]:
    return __all__

"""Explain images: `GradCAM`, `make_gradcam_heatmap` and the explainer that both use. Public at top level."""

from tf_gradcam._explain.cam import GradCAM
from tf_gradcam._explain.explainer import Layers
from tf_gradcam._explain.one_call import make_gradcam_heatmap
from tf_gradcam._explain.precision_check import PrecisionCheck
from tf_gradcam._explain.sliding import SlidingExplanation
from tf_gradcam._explanation import Explanation

__all__ = [
    "Explanation",
    "GradCAM",
    "Layers",
    "PrecisionCheck",
    "SlidingExplanation",
    "make_gradcam_heatmap",
]

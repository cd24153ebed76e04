"""Explain images: `GradCAM`, `make_gradcam_heatmap` and the explainer that both use. Public at top level."""

from tf_gradcam._explain.cam import GradCAM, make_gradcam_heatmap
from tf_gradcam._explain.explainer import Layers
from tf_gradcam._explain.explanation import Explanation
from tf_gradcam._explain.frozen import MOST_BYTES, fold_variables, loops_with_variables, weight_bytes
from tf_gradcam._explain.placed import find_placements
from tf_gradcam._explain.preprocess import apply_preprocess, cast_to_specs
from tf_gradcam._explain.tapped import find_source, source_lengths, tapped_layer

__all__ = [
    "MOST_BYTES",
    "Explanation",
    "GradCAM",
    "Layers",
    "apply_preprocess",
    "cast_to_specs",
    "find_placements",
    "find_source",
    "fold_variables",
    "loops_with_variables",
    "make_gradcam_heatmap",
    "source_lengths",
    "tapped_layer",
    "weight_bytes",
]

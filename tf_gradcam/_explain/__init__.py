"""Explain images: the doors `GradCAM` and `make_gradcam_heatmap`, and the engine behind them."""

from tf_gradcam._explain.cam import Explanation, GradCAM, Layers, make_gradcam_heatmap
from tf_gradcam._explain.frozen import MOST_BYTES, fold_variables, weight_bytes
from tf_gradcam._explain.signed_maps import (
    apply_preprocess,
    cast_to_specs,
    find_source,
    require_grid,
    source_lengths,
)

__all__ = [
    "MOST_BYTES",
    "Explanation",
    "GradCAM",
    "Layers",
    "apply_preprocess",
    "cast_to_specs",
    "find_source",
    "fold_variables",
    "make_gradcam_heatmap",
    "require_grid",
    "source_lengths",
    "weight_bytes",
]

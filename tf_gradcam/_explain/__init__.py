"""Explain images: the doors `GradCAM` and `make_gradcam_heatmap`, and the engine behind them."""

from tf_gradcam._explain.cam import Explanation, GradCAM, make_gradcam_heatmap

__all__ = ["Explanation", "GradCAM", "make_gradcam_heatmap"]

"""Save a model together with its heatmaps."""

from tf_gradcam._export.savedmodel import export_gradcam

__all__ = ["export_gradcam"]

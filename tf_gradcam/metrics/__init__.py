"""How far a heatmap can be trusted: scenes whose truth is known."""

from tf_gradcam.metrics import truth

__all__ = ["truth"]

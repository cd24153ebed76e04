"""Callbacks for `model.fit`: the same images explained while a model trains. Users call it."""

from tf_gradcam.callbacks._callback import GradCAMCallback

__all__ = ["GradCAMCallback"]

"""Photographs in, pictures out; TensorFlow is never imported."""

from tf_gradcam._images.draw import colorize, overlay, overlay_concepts, show
from tf_gradcam._images.read import load_image

__all__ = ["colorize", "load_image", "overlay", "overlay_concepts", "show"]

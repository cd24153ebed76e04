"""Photographs in, pictures out; TensorFlow is never imported."""

from tf_gradcam._images.draw import colorize, overlay, overlay_concepts, show
from tf_gradcam._images.read import MAX_PIXELS, check_size, header_size, load_image, require, size_within

__all__ = [
    "MAX_PIXELS",
    "check_size",
    "colorize",
    "header_size",
    "load_image",
    "overlay",
    "overlay_concepts",
    "require",
    "show",
    "size_within",
]

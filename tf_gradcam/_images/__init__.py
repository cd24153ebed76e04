"""Read photographs and draw heatmaps over them, for users and other packages; never imports TensorFlow."""

from tf_gradcam._images.draw import colorize, overlay, overlay_concepts, overlay_named
from tf_gradcam._images.figure import show, show_named
from tf_gradcam._images.optional import packaged_file, require
from tf_gradcam._images.read import (
    MAX_PIXELS,
    check_size,
    header_size,
    load_image,
    read_values,
    resize_pixels,
    size_within,
)
from tf_gradcam._images.titles import class_probabilities

__all__ = [
    "MAX_PIXELS",
    "check_size",
    "class_probabilities",
    "colorize",
    "header_size",
    "load_image",
    "overlay",
    "overlay_concepts",
    "overlay_named",
    "packaged_file",
    "read_values",
    "require",
    "resize_pixels",
    "show",
    "show_named",
    "size_within",
]

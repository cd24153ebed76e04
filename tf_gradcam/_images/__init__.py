"""Read photographs, draw heatmaps over them, find boxes in heatmaps; never imports TensorFlow.

Users and the packages above call it.
"""

from tf_gradcam._images.clip import overlay_video
from tf_gradcam._images.components import HeatmapBox, box_iou, boxes, masks
from tf_gradcam._images.draw import colorize, overlay, overlay_concepts, overlay_named
from tf_gradcam._images.enlarge import enlarge
from tf_gradcam._images.figure import compare, show, show_named
from tf_gradcam._images.lettering import font
from tf_gradcam._images.outlines import contour, draw_boxes, draw_masks
from tf_gradcam._images.read import (
    check_size,
    load_image,
    read_values,
    resize_bilinear,
    resize_pixels,
    size_within,
)
from tf_gradcam._images.scale import ALPHA, Look, coarse_heatmaps
from tf_gradcam._images.sheets import montage, save
from tf_gradcam._images.titles import class_probabilities, label_of
from tf_gradcam._images.volume import fit_slices, hottest_slices, same_for_all_slices

__all__ = [
    "ALPHA",
    "HeatmapBox",
    "Look",
    "box_iou",
    "boxes",
    "check_size",
    "class_probabilities",
    "coarse_heatmaps",
    "colorize",
    "compare",
    "contour",
    "draw_boxes",
    "draw_masks",
    "enlarge",
    "fit_slices",
    "font",
    "hottest_slices",
    "label_of",
    "load_image",
    "masks",
    "montage",
    "overlay",
    "overlay_concepts",
    "overlay_named",
    "overlay_video",
    "read_values",
    "resize_bilinear",
    "resize_pixels",
    "same_for_all_slices",
    "save",
    "show",
    "show_named",
    "size_within",
]

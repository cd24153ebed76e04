"""Outlines on a photograph instead of colours: `contour`, `draw_boxes`, `draw_masks`.

Users call them, and so does the command line.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_gradcam._arrays import array_or_empty
from tf_gradcam._images.components import corners_of_boxes
from tf_gradcam._images.draw import check_order
from tf_gradcam._images.enlarge import enlarge
from tf_gradcam._images.lettering import put_text, text_size
from tf_gradcam._images.palette import colormap_colors
from tf_gradcam._images.read import read_pixels
from tf_gradcam._images.scale import Look, checked_look, scale_heats, scale_volume, single_heat
from tf_gradcam._images.volume import as_volume, check_no_volume, slice_pairs
from tf_gradcam._optional import require

_LEVELS, _SIGNED_LEVELS = (0.25, 0.5, 0.75), (-0.5, 0.5)
_LINE_COLORS = "turbo"  # bright at every level; the low ones of plasma can't be told from the dark edge
_COLOR = (255, 255, 255)
_HALO = np.zeros(3, np.float32)  # around each line: seen on white as the line is on black
_PIXELS_PER_WIDTH = 200  # of the photograph's longer side, for a width that is seen and hides little


def contour(
    image: Any,
    heatmap: Any,
    levels: Sequence[float] | float | None = None,
    *,
    vmax: float | str | None = None,
    signed: bool = False,
    colormap: str | None = None,
    width: float | None = None,
) -> np.ndarray:
    """Draw lines of equal heat on a photograph, instead of colours that hide it.

    A pixel between two lines keeps its colour. Each line has the colour of its level, blue for a low and red
    for a high one, and a dark edge, so that it is seen on black and on white.

    Args:
        image: the photograph, or a volume or video; see `overlay`.
        heatmap: the heatmap, or the `Explanation` of one image and one class; see `overlay`.
        levels: where the lines run, as shares of `vmax`: numbers in `(0, 1)`, or one number; if signed in
            `(-1, 1)` without 0. `None` for 0.25, 0.5 and 0.75, if signed for -0.5 and 0.5.
        vmax: the value of which `levels` are shares; see `overlay`.
        signed: whether lines run around what speaks against, too; see `overlay`.
        colormap: name of the colour map of the lines; see `colorize`. `None` for `"turbo"`, or `"blue_red"`
            if signed.
        width: of the lines in pixels, at least 0.5; `None` for 1 pixel for each 200 of the longer side, at
            least 1.5.

    Returns:
        uint8 array `(H, W, 3)`, RGB, of the photograph's height and width; `(D, H, W, 3)` for a volume or
        video.

    Raises:
        ImportError, FileNotFoundError, TypeError, ValueError: as `overlay` does, and if `levels` or `width`
            are none of the above.

    Example:

    ```python
    picture = tf_gradcam.contour("scan.dcm", explanation, [0.5])
    ```
    """
    look = checked_look(Look(vmax, signed, colormap=colormap))
    if colormap is None and not look.signed:
        look = look._replace(colormap=_LINE_COLORS)
    chosen = _checked_levels(levels, look.signed)
    _check_width(width)
    check_order("image", image, heatmap, "heatmap")
    scan = as_volume(image, "image")
    if scan is None:
        check_no_volume("image", image, heatmap)
        heat = single_heat("heatmap", heatmap, look.signed)
        pairs = [(read_pixels(image, "image"), scale_heats("heatmap", [[heat]], look).heatmaps[0])]
    else:
        pairs = slice_pairs(scan, "heatmap", scale_volume("heatmap", heatmap, look).heatmaps[0])
    table = colormap_colors(look.colormap)
    pictures = []
    for photograph, values in pairs:
        fitted = enlarge(values, photograph.shape[:2])
        shares = [(level + 1) / 2 if look.signed else level for level in chosen]
        colors = [table[round(255 * share)] for share in shares]
        lines = [(fitted, level, color) for level, color in zip(chosen, colors, strict=True)]
        pictures.append(_draw_lines(photograph, lines, width))
    return pictures[0] if scan is None else np.stack(pictures)


def draw_boxes(
    image: Any,
    boxes: Any,
    *,
    captions: Sequence[str] | None = None,
    color: Sequence[int] = _COLOR,
    width: float | None = None,
) -> np.ndarray:
    """Draw boxes on a picture, each with a dark edge and a caption, if there are any.

    Args:
        image: a picture, such as what `overlay` returned; see `load_image`.
        boxes: what `boxes` returns for one heatmap, or corners `(x1, y1, x2, y2)` in pixels of the picture,
            `(A, 4)`. The first one lies on top.
        captions: a line of text for each box, or `None`.
        color: of lines and captions, RGB in `[0, 255]`.
        width: of the lines in pixels, at least 0.5; see `contour`.

    Returns:
        uint8 array `(H, W, 3)`, RGB: a new picture.

    Raises:
        ImportError, FileNotFoundError, TypeError, ValueError: as `load_image` and `box_iou` do, and if
            another argument is none of the above.

    Example:

    ```python
    found = tf_gradcam.boxes(heatmap, size=photograph.shape[:2])
    picture = tf_gradcam.draw_boxes(photograph, found, captions=[f"{each.share:.0%}" for each in found])
    ```
    """
    picture = np.array(read_pixels(image, "image"))
    corners = corners_of_boxes("boxes", boxes)
    names = [""] * len(corners) if captions is None else _checked_captions(captions, len(corners))
    ink, thickness = _checked_color(color), _line_width(picture.shape, width)
    rows, columns = np.arange(len(picture))[:, None] + 0.5, np.arange(picture.shape[1]) + 0.5
    for (x1, y1, x2, y2), name in reversed(list(zip(corners, names, strict=True))):
        # The distance to the edge, 0 on it: the line lies half a width inside the box.
        across = np.maximum(
            np.abs(columns - (x1 + x2) / 2) - (x2 - x1) / 2, np.abs(rows - (y1 + y2) / 2) - (y2 - y1) / 2
        )
        picture = _draw_ink(picture, np.abs(across + thickness / 2), thickness, ink)
        if name:
            _put_caption(picture, name, (x1, y1, x2, y2), ink)
    return picture


def draw_masks(
    image: Any, masks: Any, *, color: Sequence[int] = _COLOR, width: float | None = None
) -> np.ndarray:
    """Draw the outlines of masks on a picture, with a dark edge.

    Args:
        image: a picture, such as what `overlay` returned; see `load_image`.
        masks: `(H, W)` or `(M, H, W)` bool, of the picture's height and width, such as those of `masks`.
        color: of the lines, RGB in `[0, 255]`.
        width: of the lines in pixels, at least 0.5; see `contour`.

    Returns:
        uint8 array `(H, W, 3)`, RGB: a new picture.

    Raises:
        ImportError, FileNotFoundError, TypeError, ValueError: as `load_image` does, and if another argument
            is none of the above.

    Example:

    ```python
    picture = tf_gradcam.draw_masks(photograph, tf_gradcam.masks(heatmap, size=photograph.shape[:2]))
    ```
    """
    picture = np.array(read_pixels(image, "image"))
    values = array_or_empty(masks)
    if values.dtype != bool or values.shape[-2:] != picture.shape[:2] or values.ndim not in (2, 3):
        raise ValueError(
            f"`masks` must be bool, (H, W) or (M, H, W), of the picture's size {picture.shape[:2]}. "
            f"Received: dtype {values.dtype} and shape {values.shape}. Give `size` to tf_gradcam.masks."
        )
    cv2, ink = require("cv2", "opencv-python"), _checked_color(color)
    thickness = _line_width(picture.shape, width)
    for mask in values.reshape(-1, *values.shape[-2:]).astype(np.uint8):
        if mask.any() and not mask.all():
            within, beyond = (cv2.distanceTransform(each, cv2.DIST_L2, 5) for each in (mask, 1 - mask))
            # The edge lies between two pixels, half a pixel from the centres of both.
            picture = _draw_ink(picture, within + beyond - 0.5, thickness, ink)
    return picture


# Lines


def _draw_lines(photograph, lines, width) -> np.ndarray:
    """Draw each line `(values, level, color)`: where the values, `(H, W)`, cross the level."""
    picture, thickness = np.array(photograph), _line_width(photograph.shape, width)
    for values, level, color in lines:
        if values.min() < level < values.max():
            picture = _draw_ink(picture, _distance(values, level, 2 * thickness + 2), thickness, color)
    return picture


def _distance(values, level, reach) -> np.ndarray:
    """Return the distance in pixels of each pixel to the line, as its slope tells; far away infinity."""
    cv2 = require("cv2", "opencv-python")
    inside = (values > level).astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    is_near = cv2.dilate(inside, kernel) != cv2.erode(inside, kernel)
    side = 2 * math.ceil(reach) + 1
    is_near = cv2.dilate(is_near.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
    padded = cv2.copyMakeBorder(values, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    across, down = (
        cv2.Sobel(padded, cv2.CV_32F, 1, 0, scale=1 / 8),
        cv2.Sobel(padded, cv2.CV_32F, 0, 1, scale=1 / 8),
    )
    slope = np.hypot(across, down)[1:-1, 1:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.abs(values - level) / slope
    return np.where(is_near & (slope > 0), distance, np.inf)


def _draw_ink(picture, distance, width, color) -> np.ndarray:
    """Draw a line where the distance to it is less than half the width, and a dark edge of half of it."""
    drawn = picture.astype(np.float32)
    edge = max(1.0, width / 2)
    for ink, half, weight in ((_HALO, width / 2 + edge, 0.6), (np.float32(color), width / 2, 1.0)):
        cover = weight * np.clip(half + 0.5 - distance, 0, 1)[..., None]
        drawn += cover * (ink - drawn)
    return np.rint(drawn).astype(np.uint8)


def _line_width(shape, width) -> float:
    return max(1.5, max(shape[:2]) / _PIXELS_PER_WIDTH) if width is None else float(_check_width(width))


def _put_caption(picture, text, box, color) -> None:
    """Write above the box, or below its upper edge where there is no room."""
    size = max(12, round(max(picture.shape[:2]) / 32))
    height = text_size(text, size)[1]
    x, y = round(box[0]), round(box[1]) - height
    put_text(picture, text, (max(0, x), y if y >= 0 else max(0, round(box[1]))), size, tuple(color))


# Checks


def _checked_levels(levels, signed) -> list[float]:
    if levels is None:
        return list(_SIGNED_LEVELS if signed else _LEVELS)
    values = np.atleast_1d(array_or_empty(levels))
    low = -1 if signed else 0
    is_list = values.ndim == 1 and len(values) > 0 and values.dtype.kind in "iuf"
    if not is_list or not ((values > low) & (values < 1) & (values != 0)).all():
        limits = "(-1, 1), not 0" if signed else "(0, 1)"
        raise ValueError(
            f"`levels` must be numbers in {limits}: shares of `vmax`. Received: levels={levels!r:.80}"
        )
    return [float(each) for each in values]


def _check_width(width) -> Any:
    is_number = isinstance(width, int | float | np.integer | np.floating) and not isinstance(width, bool)
    if width is not None and not (is_number and 0.5 <= width <= 1000):
        raise ValueError(f"`width` must be None or pixels from 0.5 to 1000. Received: width={width!r:.80}")
    return width


def _checked_color(color) -> np.ndarray:
    values = array_or_empty(color)
    is_color = (
        values.shape == (3,) and values.dtype.kind in "iu" and values.min() >= 0 and values.max() <= 255
    )
    if not is_color:
        raise ValueError(
            f"`color` must be (red, green, blue), integers in [0, 255]. Received: color={color!r:.80}"
        )
    return values.astype(np.float32)


def _checked_captions(captions, count) -> list[str]:
    names = list(captions) if isinstance(captions, list | tuple) else [captions]
    for name in names:
        if not isinstance(name, str):
            raise TypeError(
                f"`captions` must be a list of strings. Received: {name!r:.80} "
                f"(of type {type(name).__name__})"
            )
    if len(names) != count:
        raise ValueError(f"`captions` must have one line for each of {count} boxes. Received: {len(names)}")
    return names

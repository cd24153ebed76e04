"""Many pictures on one, and a picture in a file: `montage`, `save`. Users call them."""

import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_gradcam._arrays import real_array
from tf_gradcam._checks import is_whole
from tf_gradcam._files import unfinished, write_file
from tf_gradcam._images.draw import blend, check_order
from tf_gradcam._images.lettering import put_text, text_size
from tf_gradcam._images.read import read_pixels, resize_pixels
from tf_gradcam._images.scale import (
    ALPHA,
    Look,
    Scaled,
    checked_look,
    heats_of_images,
    scale_heats,
    scale_volume,
)
from tf_gradcam._images.volume import as_volume, check_no_volume, hottest_slices
from tf_gradcam._optional import require

_GAP = 4  # pixels between two pictures
_GROUND, _LETTERS = (255, 255, 255), (0, 0, 0)
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
_FIGURE_ENDINGS = (*_ENDINGS[:-1], ".pdf", ".svg")


def montage(
    images: Any,
    heatmaps: Any = None,
    *,
    captions: Sequence[str] | None = None,
    columns: int | None = None,
    side: int = 256,
    most: int = 12,
    vmax: float | str | None = "batch",
    signed: bool = False,
    alpha: float = ALPHA,
    colormap: str | None = None,
    fade: bool = True,
) -> np.ndarray:
    """Lay pictures out in rows on one picture, each with a caption; with heatmaps as overlays in one scale.

    Of a volume or video those slices or frames are taken that have most heat, the hottest first, and the
    captions name them.

    Args:
        images: a list of N pictures of any sizes, such as what `overlay` returned, or an array
            `(N, H, W, 3)`; or a volume or video, as a `tf_gradcam.formats.Scan` or its path.
        heatmaps: N heatmaps, or the `Explanation` of N images; see `show`. `None` to lay the pictures out as
            they are. For a volume or video `(d, h, w)`; see `overlay`.
        captions: one line for each picture; of a volume or video, the captions are given by it.
        columns: how many pictures a row has; `None` for about as many as there are rows.
        side: the longer side of each picture in pixels, from 16.
        most: of a volume or video, how many slices or frames are drawn at most.
        vmax: the value that gets the full colour; see `overlay`. `None` for each heatmap's own maximum.
        signed: whether what speaks against is drawn as well; see `overlay`.
        alpha: weight of the colours in `[0, 1]`; see `overlay`.
        colormap: name of a colour map; see `colorize`.
        fade: whether the colours fade with the heatmap; see `overlay`.

    Returns:
        uint8 array `(height, width, 3)`, RGB.

    Raises:
        ImportError, FileNotFoundError, TypeError, ValueError: as `overlay` does, and if the numbers of
            images, heatmaps and captions do not match, or another argument is none of the above.

    Example:

    ```python
    tf_gradcam.save("slices.png", tf_gradcam.montage("ct.nii.gz", explanation, most=6))
    ```
    """
    look = checked_look(Look(vmax, signed, alpha, colormap, fade))
    numbers = (("side", side, 16), ("most", most, 1), ("columns", 1 if columns is None else columns, 1))
    for name, value, low in numbers:
        if not is_whole(value) or not low <= value <= 4096:
            raise ValueError(
                f"`{name}` must be a whole number from {low} to 4096. Received: {name}={value!r:.80}"
            )
    scan = as_volume(images, "images")
    if scan is not None:
        pictures, names = _slices(scan, heatmaps, look, most, side)
        if captions is not None:
            raise ValueError(
                "`captions` must be None for a volume or video, which names its slices itself. "
                f"Received: captions={captions!r:.80}"
            )
    else:
        pictures = _pictures(images, heatmaps, look, side)
        names = _checked_captions(captions, len(pictures))
    return _lay_out(pictures, names, columns, side)


def _slices(scan, heatmap, look, most, side) -> tuple[list[np.ndarray], list[str]]:
    if heatmap is None:
        raise ValueError("`heatmaps` must say which slices of a volume or video are drawn. Received: None")
    scaled = scale_volume("heatmaps", heatmap, look).heatmaps[0]
    pictures, values, names = hottest_slices(scan, "heatmaps", scaled, most=most)
    order = sorted(range(len(values)), key=lambda index: -float(np.abs(values[index]).max()))
    drawn = [blend(_fit(pictures[index], side), values[index], look) for index in order]
    return drawn, [names[index] for index in order]


def _pictures(images, heatmaps, look, side) -> list[np.ndarray]:
    check_order("images", images, heatmaps, "heatmaps")
    check_no_volume("images", images, heatmaps)
    listed = list(images) if isinstance(images, list | tuple) else list(real_array("images", images))
    if not listed:
        raise ValueError("`images` must have at least one picture. Received: none")
    pictures = [_fit(read_pixels(each, "images"), side) for each in listed]
    if heatmaps is None:
        return pictures
    groups = heats_of_images("heatmaps", heatmaps, look.signed)
    scaled: Scaled = scale_heats("heatmaps", groups, look)
    if len(scaled.heatmaps) != len(pictures):
        raise ValueError(
            f"`heatmaps` must have one for each of {len(pictures)} images. Received: {len(scaled.heatmaps)}"
        )
    return [blend(picture, each, look) for picture, each in zip(pictures, scaled.heatmaps, strict=True)]


def _checked_captions(captions, count) -> list[str]:
    names = [""] * count if captions is None else list(captions)
    if isinstance(captions, str) or not all(isinstance(each, str) for each in names):
        raise TypeError(f"`captions` must be a list of strings. Received: captions={captions!r:.80}")
    if len(names) != count:
        raise ValueError(f"`captions` must have one for each of {count} images. Received: {len(names)}")
    return names


def _fit(picture, side) -> np.ndarray:
    """Return a picture whose longer side has this length."""
    height, width = picture.shape[:2]
    factor = side / max(height, width)
    size = max(1, round(height * factor)), max(1, round(width * factor))
    return resize_pixels(picture, size) if size != (height, width) else picture


def _lay_out(pictures, names, columns, side) -> np.ndarray:
    columns = min(len(pictures), columns or math.ceil(math.sqrt(len(pictures))))
    letters = max(11, side // 18)
    line = text_size("", letters)[1] if any(names) else 0
    width = max(each.shape[1] for each in pictures)
    starts = range(0, len(pictures), columns)
    heights = [max(len(each) for each in pictures[start : start + columns]) + line for start in starts]
    shape = sum(heights) + _GAP * (len(heights) + 1), columns * (width + _GAP) + _GAP, 3
    sheet = np.full(shape, _GROUND, np.uint8)
    top = _GAP
    for start, height in zip(starts, heights, strict=True):
        for column, picture in enumerate(pictures[start : start + columns]):
            left = _GAP + column * (width + _GAP)
            inset = left + (width - picture.shape[1]) // 2
            sheet[top + line : top + line + len(picture), inset : inset + picture.shape[1]] = picture
            if names[start + column]:
                cell = sheet[top : top + line, left : left + width]
                text = _shortened(names[start + column], letters, width)
                put_text(cell, text, (0, 0), letters, _LETTERS, _GROUND)
        top += height + _GAP
    return sheet


def _shortened(text, letters, width) -> str:
    """Return a text that fits into the width, with dots where it was cut."""
    if text_size(text, letters)[0] <= width:
        return text
    while text and text_size(text + "...", letters)[0] > width:
        text = text[:-1]
    return text + "..."


def save(path: str | os.PathLike, picture: Any, *, quality: int = 92) -> None:
    """Write a picture or figure to a file, completely or not at all.

    Args:
        path: where to; its ending is the format: `.png`, `.jpg`, `.jpeg`, `.webp`, `.tif`, `.tiff` or `.bmp`.
            A figure can be written as `.pdf` and `.svg`, too, and not as `.bmp`. An earlier file is replaced.
        picture: uint8 `(H, W, 3)`, RGB, or `(H, W)`, grey, such as what `overlay` returned; or the figure
            that `show` returned.
        quality: of a JPEG or WebP file, from 1 to 100.

    Raises:
        ImportError: if OpenCV is not installed.
        OSError: if it can't be written.
        TypeError: if `path` is no path, or `picture` is neither an array nor a figure.
        ValueError: if the ending is none of these, or `picture` has another shape or dtype, or is too large
            for the format.

    Example:

    ```python
    tf_gradcam.save("cat-heatmap.png", tf_gradcam.overlay("cat.jpg", heatmap))
    ```
    """
    if not isinstance(path, str | os.PathLike):
        swap = " Swap `path` and `picture`." if isinstance(picture, str | os.PathLike) else ""
        raise TypeError(f"`path` must be a path. Received: an object of type {type(path).__name__}.{swap}")
    ending = pathlib.Path(path).suffix.lower()
    is_figure = hasattr(picture, "savefig")
    endings = _FIGURE_ENDINGS if is_figure else _ENDINGS
    if ending not in endings:
        raise ValueError(f"`path` must end in one of {', '.join(endings)}. Received: path={str(path)!r:.200}")
    if not is_whole(quality) or not 1 <= quality <= 100:
        raise ValueError(f"`quality` must be a whole number from 1 to 100. Received: quality={quality!r:.80}")
    if is_figure:
        is_lossy = ending in (".jpg", ".jpeg", ".webp")
        with unfinished(path) as temporary:
            picture.savefig(temporary, **({"pil_kwargs": {"quality": int(quality)}} if is_lossy else {}))
        return
    write_file(path, _encoded(ending, picture, int(quality)))


def _encoded(ending, picture, quality) -> bytes:
    values = real_array("picture", picture, "a uint8 array, or the figure that `show` returned")
    is_picture = values.ndim == 2 or (values.ndim == 3 and values.shape[-1] == 3)
    if values.dtype != np.uint8 or not is_picture or values.size == 0:
        raise ValueError(
            f"`picture` must be uint8, (H, W, 3) or (H, W). Received: dtype {values.dtype} and shape "
            f"{values.shape}. Of a volume give one slice, or tf_gradcam.montage(...); a heatmap becomes a "
            "picture by tf_gradcam.colorize."
        )
    cv2 = require("cv2", "opencv-python")
    flags = dict.fromkeys((".jpg", ".jpeg"), cv2.IMWRITE_JPEG_QUALITY) | {".webp": cv2.IMWRITE_WEBP_QUALITY}
    options = [flags[ending], quality] if ending in flags else []
    pixels = values if values.ndim == 2 else cv2.cvtColor(values, cv2.COLOR_RGB2BGR)
    try:
        done, encoded = cv2.imencode(ending, pixels, options)
    except cv2.error:
        done = False
    if not done:
        raise ValueError(
            f"`picture` must fit into the format {ending}. Received: shape {values.shape}. Take .png."
        )
    return encoded.tobytes()

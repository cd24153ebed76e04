"""Colour a heatmap and blend it over its photograph: `colorize`, `overlay`, `overlay_concepts`.

Users call it, and so do `tf_gradcam.show`, the serving client and the command line.
"""

import os
from typing import Any

import numpy as np

from tf_gradcam._arrays import real_array
from tf_gradcam._images.enlarge import enlarge
from tf_gradcam._images.palette import colormap_colors
from tf_gradcam._images.read import read_pixels
from tf_gradcam._images.scale import (
    ALPHA,
    Heat,
    Look,
    check_alpha,
    checked_look,
    scale_heats,
    scale_volume,
    single_heat,
)
from tf_gradcam._images.volume import as_volume, check_no_volume, slice_pairs
from tf_gradcam._optional import require


def colorize(
    heatmap: Any, colormap: str | None = None, *, vmax: float | None = None, signed: bool = False
) -> np.ndarray:
    """Map the values of a heatmap to colours.

    Args:
        heatmap: `(H, W)` in `[0, 1]`, array or tensor; with `vmax` or `signed`, any finite values.
        colormap: name of an OpenCV colour map, such as `"jet"`, `"turbo"`, `"viridis"` or `"inferno"`, or
            `"blue_red"`. `None` for `"plasma"`, or `"blue_red"` if signed.
        vmax: the value that gets the last colour, above 0; see `overlay`.
        signed: whether 0 gets the colour in the middle; see `overlay`.

    Returns:
        uint8 array `(H, W, 3)`, RGB.

    Raises:
        ImportError: if OpenCV is not installed.
        TypeError: if `heatmap` does not hold real numbers or `colormap` is not a string.
        ValueError: if `heatmap` has another rank or values outside `[0, 1]`, or `colormap` is unknown.
    """
    look = checked_look(Look(vmax, signed, colormap=colormap))
    values = real_array("heatmap", heatmap)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"`heatmap` must have the shape (H, W). Received: shape {values.shape}")
    return _colors(scale_heats("heatmap", [[Heat(values)]], look).heatmaps[0], look)


def overlay(
    image: Any,
    heatmap: Any,
    *,
    vmax: float | str | None = None,
    signed: bool = False,
    alpha: float = ALPHA,
    colormap: str | None = None,
    fade: bool = True,
) -> np.ndarray:
    """Blend the colours of a heatmap over its photograph: `(1 - a) * image + a * colour`.

    The picture has the photograph's size. The photograph's brightness is not rescaled, and where there is no
    heat it is unchanged, byte for byte. A heatmap on a coarser grid is enlarged by monotone cubic curves:
    without the facets of a bilinear enlargement, and with its peak where it was. Of an `Explanation`, its map
    is enlarged so, if its heatmap is this map enlarged bilinearly, as by default.

    A heatmap is divided by its own maximum, so that an image without much evidence looks like any other.
    `vmax` draws several in one scale.

    Args:
        image: the photograph, not the preprocessed image: path, bytes, PIL image or array, as `load_image`
            takes it; or a `tf_gradcam.formats.Scan`, or the path of one. Of a volume or video, every slice or
            frame is drawn: for a long clip call `overlay_video`.
        heatmap: `(h, w)` or `(1, h, w)` in `[0, 1]` on any grid, or the `Explanation` of one image and one
            class. It is resized to the photograph. For a volume or video `(d, h, w)`.
        vmax: the value that gets the full colour, above 0; what is 0 or less is 0. For an `Explanation` it is
            in the units of its signed map, `explanation.map`; an array then may have any finite values.
            `None` for the heatmap as it is, divided by its own maximum; `"batch"` for the highest value of
            what is drawn: for a volume or video that of all slices or frames, as `None` is, too.
        signed: whether what speaks against is drawn as well, in the colours on the other side of a map that
            has its middle at 0, and `a` grows with the absolute value. Of an `Explanation`, its signed map is
            drawn; an array may have any finite values, which are divided by the largest absolute one.
        alpha: weight of the colours in `[0, 1]`: 0 gives the photograph, 1 the colours.
        colormap: name of a colour map; see `colorize`.
        fade: `True` for `a = alpha * heatmap`, so that the photograph is unchanged where the heatmap is 0;
            `False` for `a = alpha` everywhere.

    Returns:
        uint8 array `(H, W, 3)`, RGB, of the photograph's height and width; `(D, H, W, 3)` for a volume or
        video.

    Raises:
        ImportError, FileNotFoundError, TypeError, ValueError: as `load_image` and `colorize` do.
        TypeError: if `image` and `heatmap` are exchanged.
        ValueError: if `alpha` is not in `[0, 1]`, or `heatmap` is an `Explanation` of several heatmaps; if
            `vmax` is given for an `Explanation` of several layers, or `signed` for one whose map may not
            cover the image: that of `cam(images, signed=True)` can always be drawn.

    Example:

    ```python
    heatmap = tf_gradcam.make_gradcam_heatmap(model, images)
    picture = tf_gradcam.overlay("cat.jpg", heatmap)
    ```
    """
    return overlay_named("image", image, heatmap, Look(vmax, signed, alpha, colormap, fade))


def overlay_named(argument: str, image: Any, heatmap: Any, look: Look) -> np.ndarray:
    """Return what `overlay` returns; the errors name `argument` for the photograph."""
    look = checked_look(look)
    check_order(argument, image, heatmap, "heatmap")
    scan = as_volume(image, argument)
    if scan is not None:
        (values,) = scale_volume("heatmap", heatmap, look).heatmaps
        return np.stack(
            [blend(picture, each, look) for picture, each in slice_pairs(scan, "heatmap", values)]
        )
    check_no_volume(argument, image, heatmap)
    photograph = read_pixels(image, argument)
    heat = single_heat("heatmap", heatmap, look.signed)
    return blend(photograph, scale_heats("heatmap", [[heat]], look).heatmaps[0], look)


def overlay_concepts(image: Any, heatmaps: Any, *, alpha: float = 0.6, colormap: str = "hsv") -> np.ndarray:
    """Blend several heatmaps over a photograph; each pixel has the colour of the strongest one.

    Args:
        image: the photograph; see `overlay`.
        heatmaps: `(P, h, w)` in `[0, 1]`, as `deep_feature_factorization` returns them for one image.
        alpha: weight of the colours in `[0, 1]` where the strongest heatmap is 1.
        colormap: name of the OpenCV colour map from which the P colours are taken, evenly spaced.

    Returns:
        uint8 array `(H, W, 3)`, RGB, of the photograph's height and width.

    Raises:
        ImportError, FileNotFoundError, TypeError, ValueError: as `overlay` does.
    """
    photograph = read_pixels(image, "image")
    heatmaps = real_array("heatmaps", heatmaps)
    shape = heatmaps.shape
    if len(shape) != 3 or 0 in shape:
        raise ValueError(
            f"`heatmaps` must be (P, h, w), the heatmaps of one image. Received: shape {shape}. "
            "Of several images, give `heatmaps[0]`."
        )
    scaled = scale_heats("heatmaps", [[Heat(heatmap)] for heatmap in heatmaps], Look()).heatmaps
    fitted = np.stack([enlarge(heatmap, photograph.shape[:2]) for heatmap in scaled])
    # The last colour is not taken: a cyclic colour map ends in the colour that it begins with.
    colors = colormap_colors(colormap)[np.arange(len(fitted)) * 256 // len(fitted)].astype(np.float32)
    check_alpha(alpha)
    weight = alpha * fitted.max(axis=0)[..., None]
    base = photograph.astype(np.float32)
    return np.rint(base + weight * (colors[fitted.argmax(axis=0)] - base)).astype(np.uint8)


# What `show` uses, too


def check_order(argument: str, image: Any, heatmap: Any, heatmap_argument: str) -> None:
    """Raise a `TypeError` if photograph and heatmap are exchanged; the errors name the caller's arguments."""
    is_file = isinstance(heatmap, str | os.PathLike | bytes | bytearray) or hasattr(heatmap, "getexif")
    if hasattr(image, "heatmap") or is_file:
        raise TypeError(
            f"`{argument}` must be the photograph, and `{heatmap_argument}` what explains it. "
            f"Received: a {type(image).__name__} and a {type(heatmap).__name__}. "
            f"Give the photograph first, then the {heatmap_argument}."
        )


def blend(photograph: np.ndarray, heatmap: np.ndarray, look: Look) -> np.ndarray:
    """Blend the colours of a heatmap over a photograph `(H, W, 3)`; see `overlay`.

    Args:
        photograph: uint8, RGB.
        heatmap: `(h, w)` on any grid, in `[0, 1]`, or `[-1, 1]` if signed.
        look: a checked one.
    """
    cv2, fitted = require("cv2", "opencv-python"), enlarge(heatmap, photograph.shape[:2])
    alpha = float(look.alpha)  # A number of NumPy would make the weights float64.
    weight = alpha * np.abs(fitted) if look.fade else np.full_like(fitted, alpha)
    return cv2.blendLinear(_colors(fitted, look), photograph, weight, 1 - weight)


def _colors(values, look) -> np.ndarray:
    """Return the colours of values in `[0, 1]`, or `[-1, 1]` if signed, `(H, W, 3)` uint8."""
    shares = (values + 1) / 2 if look.signed else values
    cv2, colors = require("cv2", "opencv-python"), colormap_colors(look.colormap)
    levels = cv2.convertScaleAbs(shares, alpha=255)  # Rounded to the nearest, in a tenth of NumPy's time.
    return cv2.applyColorMap(levels, colors[:, None])  # The table is RGB, so the picture is, too.

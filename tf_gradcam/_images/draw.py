"""Colour a heatmap and blend it over its photograph: `colorize`, `overlay`, `overlay_concepts`.

Users call it, and so do `tf_gradcam.show`, the serving client and the command line.
"""

import numbers
import os
from typing import Any

import numpy as np

from tf_gradcam._arrays import real_array
from tf_gradcam._checks import did_you_mean
from tf_gradcam._images.read import read_pixels, resize_pixels
from tf_gradcam._images.volume import as_volume, slice_pairs
from tf_gradcam._optional import require


def colorize(heatmap: Any, colormap: str = "jet") -> np.ndarray:
    """Map the values of a heatmap to colours.

    Args:
        heatmap: `(H, W)` in `[0, 1]`, array or tensor.
        colormap: name of an OpenCV colour map, such as `"jet"`, `"turbo"`, `"viridis"` or `"inferno"`.

    Returns:
        uint8 array `(H, W, 3)`, RGB.

    Raises:
        ImportError: if OpenCV is not installed.
        TypeError: if `heatmap` does not hold real numbers or `colormap` is not a string.
        ValueError: if `heatmap` has another rank or values outside `[0, 1]`, or `colormap` is unknown.
    """
    cv2, colors = require("cv2", "opencv-python"), colormap_colors(colormap)
    # Rounded to the nearest level, in a tenth of NumPy's time.
    levels = cv2.convertScaleAbs(_check_heatmap("heatmap", heatmap), alpha=255)
    return cv2.applyColorMap(levels, colors[:, None])  # The table is RGB, so the picture is, too.


def overlay(
    image: Any, heatmap: Any, *, alpha: float = 0.4, colormap: str = "jet", fade: bool = False
) -> np.ndarray:
    """Blend the colours of a heatmap over its photograph: `(1 - a) * image + a * colour`.

    The picture has the photograph's size. The photograph's brightness is not rescaled.

    Args:
        image: the photograph, not the preprocessed image: path, bytes, PIL image or array, as `load_image`
            takes it; or a `tf_gradcam.formats.Scan`, or the path of one. Of a volume or video, every slice or
            frame is drawn: for a long clip call `overlay_video`.
        heatmap: `(h, w)` or `(1, h, w)` in `[0, 1]` on any grid, or the `Explanation` of one image and one
            class. It is resized to the photograph. For a volume or video `(d, h, w)`.
        alpha: weight of the colours in `[0, 1]`: 0 gives the photograph, 1 the colours.
        colormap: name of an OpenCV colour map; see `colorize`.
        fade: `False` for `a = alpha` everywhere; `True` for `a = alpha * heatmap`, so that the photograph is
            unchanged where the heatmap is 0.

    Returns:
        uint8 array `(H, W, 3)`, RGB, of the photograph's height and width; `(D, H, W, 3)` for a volume or
        video.

    Raises:
        ImportError, FileNotFoundError, TypeError, ValueError: as `load_image` and `colorize` do.
        TypeError: if `image` and `heatmap` are exchanged.
        ValueError: if `alpha` is not in `[0, 1]`, or `heatmap` is an `Explanation` of several heatmaps.

    Example:

    ```python
    heatmap = tf_gradcam.make_gradcam_heatmap(model, images)
    picture = tf_gradcam.overlay("cat.jpg", heatmap, fade=True)
    ```
    """
    return overlay_named("image", image, heatmap, alpha, colormap, fade)


def overlay_named(
    argument: str, image: Any, heatmap: Any, alpha: float, colormap: str, fade: bool
) -> np.ndarray:
    """Return what `overlay` returns; the errors name `argument` for the photograph."""
    check_order(argument, image, heatmap, "heatmap")
    scan = as_volume(image, argument)
    if scan is not None:
        pairs = slice_pairs(scan, "heatmap", heatmap)
        fitted = [(picture, fit_to_photograph("heatmap", each, picture)) for picture, each in pairs]
        return np.stack([blend(picture, each, alpha, colormap, fade) for picture, each in fitted])
    photograph = read_pixels(image, argument)
    return blend(photograph, fit_to_photograph("heatmap", heatmap, photograph), alpha, colormap, fade)


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
    fitted = np.stack([fit_to_photograph("heatmaps", heatmap, photograph) for heatmap in heatmaps])
    # The last colour is not taken: a cyclic colour map ends in the colour that it begins with.
    colors = colormap_colors(colormap)[np.arange(len(fitted)) * 256 // len(fitted)].astype(np.float32)
    weight = _checked_alpha(alpha) * fitted.max(axis=0)[..., None]
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


def colormap_colors(colormap: str) -> np.ndarray:
    """Return the 256 colours of an OpenCV colour map, `(256, 3)` uint8 RGB."""
    cv2 = require("cv2", "opencv-python")
    if not isinstance(colormap, str):
        raise TypeError(f"`colormap` must be a name. Received: colormap={colormap!r:.80}")
    code = getattr(cv2, f"COLORMAP_{colormap.upper()}", None)
    if code is None:
        known = [name[9:].lower() for name in dir(cv2) if name.startswith("COLORMAP_")]
        raise ValueError(
            f"`colormap` must be one of {', '.join(known)}. Received: colormap={colormap!r}. "
            f"{did_you_mean(colormap, known)}".rstrip()
        )
    levels = np.arange(256, dtype=np.uint8)[None]
    return cv2.cvtColor(cv2.applyColorMap(levels, code), cv2.COLOR_BGR2RGB)[0]


def fit_to_photograph(argument: str, heatmap: Any, photograph: np.ndarray) -> np.ndarray:
    """Resize a heatmap to the photograph, `(H, W)` float32 in `[0, 1]`; see `overlay` for what it may be.

    The errors name `argument`.
    """
    values = real_array(argument, _single_heatmap(argument, heatmap))
    values = values[0] if values.ndim == 3 and len(values) == 1 else values
    resized = resize_pixels(_check_heatmap(argument, values), photograph.shape[:2])
    return np.clip(resized, 0, 1, out=resized)  # Averaging in float32 may give a value slightly above 1.


def blend(photograph: np.ndarray, heatmap: np.ndarray, alpha: float, colormap: str, fade: bool) -> np.ndarray:
    """Blend the colours of a heatmap `(H, W)` over a photograph `(H, W, 3)`; see `overlay`."""
    alpha, colors = _checked_alpha(alpha), colorize(heatmap, colormap)
    if not isinstance(fade, bool | np.bool_):
        raise TypeError(f"`fade` must be True or False. Received: fade={fade!r:.80}")
    if not fade:
        return require("cv2", "opencv-python").addWeighted(colors, alpha, photograph, 1 - alpha, 0)
    base = photograph.astype(np.float32)
    return np.rint(base + alpha * heatmap[..., None] * (colors - base)).astype(np.uint8)


# Checks


def _check_heatmap(argument, heatmap) -> np.ndarray:
    values = real_array(argument, heatmap)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"`{argument}` must have the shape (H, W). Received: shape {values.shape}")
    if not (values.min() >= -1e-6 and values.max() <= 1 + 1e-6):  # also true for NaN
        raise ValueError(
            f"`{argument}` must be in [0, 1]. "
            f"Received: values from {values.min():.4g} to {values.max():.4g}. "
            "Give the heatmap, not the signed map, or divide it by its maximum."
        )
    return values.astype(np.float32)


def _single_heatmap(argument, heatmap):
    """Return the heatmap of an `Explanation` that has only one; anything else unchanged."""
    if not hasattr(heatmap, "heatmap"):
        return heatmap
    explanation, values = heatmap, real_array(argument, heatmap.heatmap)
    # Images, and classes where several were explained; the other axes are the heatmap's own.
    axes = np.ndim(explanation.score) if hasattr(explanation, "score") else values.ndim - 2
    leading = values.shape[:axes]  # Of a bag of images the score has one row, and the heatmap has them all.
    if np.prod(leading) != 1:
        first = ", ".join("0" * len(leading))
        raise ValueError(
            f"`{argument}` must be one heatmap. Received: an Explanation with heatmaps of the shape "
            f"{values.shape}. Give one of them, such as `explanation.heatmap[{first}]`, or call `show`: it "
            "draws all of them."
        )
    return values.reshape(values.shape[len(leading) :])


def _checked_alpha(alpha) -> float:
    is_number = isinstance(alpha, numbers.Real) and not isinstance(alpha, bool)
    if not is_number or not 0 <= alpha <= 1:
        raise ValueError(f"`alpha` must be a number in [0, 1]. Received: alpha={alpha!r:.80}")
    return float(alpha)

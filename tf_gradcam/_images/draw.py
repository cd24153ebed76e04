"""Pictures of heatmaps: coloured, laid over the photograph, or side by side in a figure."""

import difflib
import numbers
from typing import Any

import numpy as np

from tf_gradcam._images.read import load_image, require, resize_pixels, size_within

_DRAWN = 1200  # pixels along the longer side in a figure: enough for print, light in a contact sheet


def colorize(heatmap: Any, colormap: str = "jet") -> np.ndarray:
    """Give every value of a heatmap its colour.

    Args:
        heatmap: `(H, W)` in `[0, 1]`, array or tensor.
        colormap: name of an OpenCV colour map, such as `"jet"`, `"turbo"`, `"viridis"` or `"inferno"`.

    Returns:
        uint8 array `(H, W, 3)`, RGB.

    Raises:
        ImportError: if OpenCV is missing.
        TypeError: if `heatmap` holds no real numbers or `colormap` is no string.
        ValueError: if `heatmap` has another rank or values outside `[0, 1]`, or `colormap` is unknown.
    """
    cv2, palette = require("cv2", "opencv-python"), _palette(colormap)
    levels = np.rint(_check_heatmap(heatmap) * 255).astype(np.uint8)
    return cv2.applyColorMap(levels, palette[:, None])  # RGB in, RGB out


def overlay(
    image: Any, heatmap: Any, *, alpha: float = 0.4, colormap: str = "jet", fade: bool = False
) -> np.ndarray:
    """Lay a heatmap over its photograph: `(1 - a) * image + a * colour`.

    The photograph keeps its size, and its brightness is never rescaled.

    Args:
        image: the photograph, not the preprocessed image; whatever `load_image` takes.
        heatmap: `(h, w)` or `(1, h, w)` in `[0, 1]` on any grid, or the `Explanation` of one image; resized
            to the photograph.
        alpha: weight of the colours in `[0, 1]`: 0 is the photograph alone, 1 the colours alone.
        colormap: name of an OpenCV colour map; see `colorize`.
        fade: `False` for `a = alpha` everywhere; `True` for `a = alpha * heatmap`, which leaves the
            photograph as it is where the heatmap is 0.

    Returns:
        uint8 array `(H, W, 3)`, RGB, of the photograph's height and width.

    Raises:
        ImportError, FileNotFoundError, TypeError, ValueError: as `load_image` and `colorize` do, and a
            `ValueError` if `alpha` is outside `[0, 1]`.

    Example:

    ```python
    heatmap = tf_gradcam.make_gradcam_heatmap(model, images)
    picture = tf_gradcam.overlay("cat.jpg", heatmap, fade=True)
    ```
    """
    photograph = load_image(image)
    return _blend(photograph, _fit(heatmap, photograph), alpha, colormap, fade)


def overlay_concepts(image: Any, heatmaps: Any, *, alpha: float = 0.6, colormap: str = "hsv") -> np.ndarray:
    """Lay several heatmaps over a photograph, each in a colour of its own: the strongest wins a pixel.

    Args:
        image: the photograph; see `overlay`.
        heatmaps: `(P, h, w)` in `[0, 1]`, as `deep_feature_factorization` returns them for one image.
        alpha: weight of the colours in `[0, 1]` where the strongest heatmap is 1.
        colormap: name of the OpenCV colour map whose colours they get, at equal distances.

    Returns:
        uint8 array `(H, W, 3)`, RGB, of the photograph's height and width.

    Raises:
        ImportError, FileNotFoundError, TypeError, ValueError: as `overlay` does.
    """
    photograph = load_image(image)
    shape = np.shape(heatmaps)
    if len(shape) != 3 or 0 in shape:
        raise ValueError(
            f"`heatmaps` must be (P, h, w), those of one image: found.heatmaps[0]. Received: shape {shape}"
        )
    fitted = np.stack([_fit(each, photograph) for each in heatmaps])
    # A cyclic map ends in the colour that it begins with.
    colors = _palette(colormap)[np.arange(len(fitted)) * 256 // len(fitted)].astype(np.float32)
    weight = _checked_alpha(alpha) * fitted.max(axis=0)[..., None]
    base = photograph.astype(np.float32)
    return np.rint(base + weight * (colors[fitted.argmax(axis=0)] - base)).astype(np.uint8)


def show(
    image: Any,
    explanation: Any,
    *,
    titles: str | list[str] | None = None,
    alpha: float = 0.4,
    colormap: str = "jet",
    fade: bool = False,
):
    """Draw photograph, heatmap and overlay side by side, one row for each image.

    A notebook shows the figure by itself; elsewhere `figure.savefig("cat.png")` keeps it. Photographs of more
    than 1200 pixels along a side are drawn smaller; `overlay` keeps every pixel.

    Args:
        image: one photograph, whatever `load_image` takes, or a list of N, of any sizes; an array
            `(N, H, W, C)` counts as a list.
        explanation: an `Explanation`, one heatmap `(h, w)`, or N of them, `(N, h, w)` or a list; in `[0, 1]`.
        titles: one string for each image. `None` writes class and score if `explanation` is an `Explanation`,
            and else nothing.
        alpha: weight of the colours in `[0, 1]`; see `overlay`.
        colormap: name of an OpenCV colour map; see `colorize`.
        fade: whether the colours fade with the heatmap; see `overlay`.

    Returns:
        A `matplotlib.figure.Figure`, known to pyplot: `matplotlib.pyplot.close(figure)` lets go of it.

    Raises:
        ImportError: if matplotlib or OpenCV is missing.
        FileNotFoundError, TypeError, ValueError: as `overlay` does, and a `ValueError` unless there is one
            heatmap, and one title, for each image.

    Example:

    ```python
    explanation = cam(images)
    tf_gradcam.show(["cat.jpg", "dog.jpg"], explanation)
    ```
    """
    photographs = [_shrink(load_image(each)) for each in _list(image, rank=3)]
    heatmaps = _list(getattr(explanation, "heatmap", explanation), rank=2)
    _check_number("explanation", "heatmap", heatmaps, photographs)
    titles = _titles(explanation, len(photographs)) if titles is None else _list(titles, rank=0)
    _check_number("titles", "title", titles, photographs)
    rows = []
    for photograph, heatmap in zip(photographs, heatmaps, strict=True):
        heatmap = _fit(heatmap, photograph)
        rows.append((photograph, heatmap, _blend(photograph, heatmap, alpha, colormap, fade)))
    return _draw(rows, titles, _palette(colormap))


# Heatmaps and colours


def _palette(colormap) -> np.ndarray:
    """Return the 256 colours of a map, `(256, 3)` uint8 RGB."""
    cv2 = require("cv2", "opencv-python")
    if not isinstance(colormap, str):
        raise TypeError(f"`colormap` must be a name. Received: colormap={colormap!r}")
    code = getattr(cv2, f"COLORMAP_{colormap.upper()}", None)
    if code is None:
        known = ", ".join(_nearest(cv2, colormap))
        raise ValueError(f"`colormap` must be one of {known}. Received: colormap={colormap!r}")
    levels = np.arange(256, dtype=np.uint8)[None]
    return cv2.cvtColor(cv2.applyColorMap(levels, code), cv2.COLOR_BGR2RGB)[0]


def _nearest(cv2, colormap) -> list[str]:
    """Return every known name, the one most like `colormap` first."""
    known = [name[9:].lower() for name in dir(cv2) if name.startswith("COLORMAP_")]
    return sorted(known, key=lambda name: -difflib.SequenceMatcher(None, colormap.lower(), name).ratio())


def _check_heatmap(heatmap) -> np.ndarray:
    values = np.asarray(heatmap)
    if values.dtype.kind not in "biuf":
        raise TypeError(f"`heatmap` must hold real numbers. Received: {heatmap!r:.80}")
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"`heatmap` must have the shape (H, W). Received: shape {values.shape}")
    if not (values.min() >= -1e-6 and values.max() <= 1 + 1e-6):  # NaN too
        raise ValueError(
            f"`heatmap` must be in [0, 1]. Received: values from {values.min():.4g} to {values.max():.4g}. "
            "Take the heatmap, not the signed map; or divide it by its maximum."
        )
    return values.astype(np.float32)


def _fit(heatmap, photograph) -> np.ndarray:
    """Return the heatmap on the photograph's grid, `(H, W)` float32 in `[0, 1]`."""
    values = np.asarray(getattr(heatmap, "heatmap", heatmap))
    values = values[0] if values.ndim == 3 and len(values) == 1 else values
    # Averaging in float32 may end a hair beyond 1.
    return np.clip(resize_pixels(_check_heatmap(values), photograph.shape[:2]), 0, 1)


def _blend(photograph, heatmap, alpha, colormap, fade) -> np.ndarray:
    alpha, colors = _checked_alpha(alpha), colorize(heatmap, colormap)
    if not fade:
        return require("cv2", "opencv-python").addWeighted(colors, alpha, photograph, 1 - alpha, 0)
    base = photograph.astype(np.float32)
    return np.rint(base + alpha * heatmap[..., None] * (colors - base)).astype(np.uint8)


def _checked_alpha(alpha):
    if not (isinstance(alpha, numbers.Real) and 0 <= alpha <= 1):
        raise ValueError(f"`alpha` must be a number in [0, 1]. Received: alpha={alpha!r}")
    return alpha


# The figure


def _shrink(photograph) -> np.ndarray:
    return resize_pixels(photograph, size_within(photograph.shape[:2], _DRAWN))


def _list(value, rank) -> list:
    """Return a list of things of `rank`: a list or a batch as it is, one thing alone in a list."""
    if isinstance(value, list | tuple):
        return list(value)
    return list(value) if getattr(value, "ndim", rank) == rank + 1 else [value]


def _titles(explanation, number) -> list[str]:
    if not hasattr(explanation, "score"):
        return [""] * number
    scores = [f"score {score:.2f}" for score in np.asarray(explanation.score)]
    if explanation.target is None:
        return scores
    targets = np.asarray(explanation.target)
    return [f"class {target}, {score}" for target, score in zip(targets, scores, strict=True)]


def _check_number(name, noun, values, photographs) -> None:
    if len(values) != len(photographs) or not values:
        raise ValueError(
            f"`{name}` must have one {noun} for each image, and at least one. "
            f"Received: {len(values)} for {len(photographs)} images."
        )


def _draw(rows, titles, palette):
    pyplot = require("matplotlib.pyplot", "matplotlib")
    colors = require("matplotlib.colors", "matplotlib").ListedColormap(palette / 255)
    # In units of a full panel's width; what is taller than 1.2 is drawn narrower instead.
    ratios = np.clip([len(photograph) / photograph.shape[1] for photograph, _, _ in rows], 0.1, 4)
    heights = np.minimum(ratios, 1.2)
    figure, axes = pyplot.subplots(
        len(rows) + 1,  # the last row is the colour bar's
        3,
        figsize=(9.6 * max(heights / ratios) + 0.4, 3.2 * sum(heights) + 0.4 * len(rows) + 0.5),
        squeeze=False,
        height_ratios=[*heights, 0.03],
        layout="constrained",
    )
    figure.get_layout_engine().set(h_pad=0.08)
    for axis in axes.flat:
        axis.set_axis_off()
    for row, title, (photograph, heatmap, picture) in zip(axes, titles, rows, strict=False):
        row[0].imshow(photograph)
        values = row[1].imshow(heatmap, cmap=colors, vmin=0, vmax=1)
        row[2].imshow(picture)
        # File names make titles: a dollar sign in one opens no formula. (`wrap` overlooks `parse_math`.)
        row[1].set_title(title.replace("$", r"\$"), fontsize=11, wrap=True)
    bar = axes[-1, 1]
    bar.set_axis_on()
    figure.colorbar(values, cax=bar, orientation="horizontal", ticks=[0, 0.5, 1]).outline.set_visible(False)
    return figure

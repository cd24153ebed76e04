"""Draw photographs, heatmaps and overlays in a figure: `show`. Users and the command line call it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_gradcam._arrays import real_array
from tf_gradcam._images.draw import blend, check_order, colormap_colors, fit_to_photograph
from tf_gradcam._images.read import read_pixels, resize_pixels, size_within
from tf_gradcam._images.titles import explanation_titles
from tf_gradcam._images.volume import as_volume, hottest_slices
from tf_gradcam._optional import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FIGURE_SIDE = 1200  # longest side of a photograph in a figure, in pixels: enough for print, and a light file


def show(
    image: Any,
    explanation: Any,
    *,
    titles: str | Sequence[str] | None = None,
    labels: Sequence[str] | Mapping[int, str] | None = None,
    alpha: float = 0.4,
    colormap: str = "jet",
    fade: bool = False,
) -> "Figure":
    """Draw photograph, heatmap and overlay side by side, one row for each heatmap.

    A notebook with matplotlib's inline backend draws the figure once, at the end of the cell or as the cell's
    value. In a script, call `matplotlib.pyplot.show()` to open a window, or `figure.savefig("cat.png")` to
    write a file. Photographs of more than 1200 pixels along a side are drawn smaller; `overlay` keeps every
    pixel.

    Args:
        image: one photograph (path, bytes, PIL image or array, as `load_image` takes it), or a list of N, of
            any sizes, or an array `(N, H, W, C)`; or a `tf_gradcam.formats.Scan`, or the path of one. Of a
            volume or video, the up to six slices or frames with most heat are drawn.
        explanation: an `Explanation` of N images, with one class or M classes for each image; or one heatmap
            `(h, w)`, or N heatmaps, `(N, h, w)` or a list, in `[0, 1]`; for a volume `(d, h, w)`. With M
            classes for each image there are N * M rows: all classes of the first image, then those of the
            second.
        titles: one string for each row. With `None`, an `Explanation` of classes is titled with the class,
            the model's probability of it (if the outputs are probabilities) and the explained score:
            `"tabby (probability 0.78), score 9.12"`. The title of another `Explanation` is its score, and
            heatmaps have no title.
        labels: names of the classes, in the order of the model's outputs: a title says `"tabby"` instead of
            `"class 281"`. For a single sigmoid unit, the names of its sides 0 and 1. Not used if `titles` are
            given.
        alpha: weight of the colours in `[0, 1]`; see `overlay`.
        colormap: name of an OpenCV colour map; see `colorize`.
        fade: whether the colours fade with the heatmap; see `overlay`.

    Returns:
        A `matplotlib.figure.Figure` that pyplot knows: `matplotlib.pyplot.close(figure)` frees it.

    Raises:
        ImportError: if matplotlib or OpenCV is not installed.
        FileNotFoundError, TypeError, ValueError: as `overlay` does.
        TypeError: if a title or label is not a string, or `image` and `explanation` are exchanged.
        ValueError: if the numbers of images, heatmaps and titles do not match; if `labels` are given without
            an `Explanation` of classes, or do not name one of its classes.

    Example:

    ```python
    explanation = cam(images)
    tf_gradcam.show(["cat.jpg", "dog.jpg"], explanation, labels=labels)
    ```
    """
    return show_named(
        "image", image, explanation, titles=titles, labels=labels, alpha=alpha, colormap=colormap, fade=fade
    )


def show_named(
    argument: str,
    image: Any,
    explanation: Any,
    *,
    titles: Any,
    labels: Any,
    alpha: float,
    colormap: str,
    fade: bool,
) -> "Figure":
    """Return what `show` returns; the errors name `argument` for the photographs."""
    check_order(argument, image, explanation, "explanation")
    scan = as_volume(image, argument)
    if scan is not None:
        image, explanation, names = hottest_slices(scan, "explanation", explanation)
        titles = names if titles is None else titles
    photographs = [_shrink(read_pixels(each, argument)) for each in _as_list(argument, image, single_rank=3)]
    heatmaps = _heatmaps_of_each_image(explanation)
    _check_count("explanation", "heatmap", len(heatmaps), f"image of `{argument}`", len(photographs))
    row_count = sum(map(len, heatmaps))
    if titles is not None:
        title_list = _checked_titles(titles, row_count)
    else:
        title_list = explanation_titles(explanation, labels) or [""] * row_count
    rows = []
    for photograph, heatmaps_of_image in zip(photographs, heatmaps, strict=True):
        for heatmap in heatmaps_of_image:
            fitted = fit_to_photograph("explanation", heatmap, photograph)
            rows.append((photograph, fitted, blend(photograph, fitted, alpha, colormap, fade)))
    return _draw(rows, title_list, colormap_colors(colormap))


# Arguments


def _shrink(photograph) -> np.ndarray:
    return resize_pixels(photograph, size_within(photograph.shape[:2], _FIGURE_SIDE))


def _as_list(argument, value, single_rank) -> list:
    """Return a list or a batch as a list; a single thing, an array of `single_rank` axes, in a list."""
    if isinstance(value, list | tuple):
        return list(value)
    is_batch = getattr(value, "ndim", single_rank) == single_rank + 1
    return list(real_array(argument, value)) if is_batch else [value]


def _heatmaps_of_each_image(explanation) -> list[list]:
    """Return for each image the list of its heatmaps: one, or one for each class that was explained."""
    if not hasattr(explanation, "heatmap"):
        return [[heatmap] for heatmap in _as_list("explanation", explanation, single_rank=2)]
    heatmaps = list(real_array("explanation", explanation.heatmap))
    has_several_classes = np.ndim(getattr(explanation, "score", ())) == 2
    return [list(heatmap) if has_several_classes else [heatmap] for heatmap in heatmaps]


def _checked_titles(titles, row_count) -> list[str]:
    is_list = isinstance(titles, list | tuple) or (isinstance(titles, np.ndarray) and titles.ndim == 1)
    titles = list(titles) if is_list else [titles]
    for title in titles:
        if not isinstance(title, str):
            raise TypeError(
                f"`titles` must be strings. Received: {title!r:.80} (of type {type(title).__name__}). Give "
                "str(...) of it, or, to name classes, `labels`."
            )
    _check_count("titles", "title", len(titles), "row", row_count)
    return titles


def _check_count(argument, noun, count, unit, expected) -> None:
    if count != expected or count == 0:
        raise ValueError(
            f"`{argument}` must have one {noun} for each {unit}, and at least one. "
            f"Received: {count} for {expected}."
        )


# The figure


def _draw(rows, titles, colors) -> "Figure":
    pyplot = require("matplotlib.pyplot", "matplotlib")
    listed_colors = require("matplotlib.colors", "matplotlib").ListedColormap(colors / 255)
    from tf_gradcam._images.notebook import DrawnOnceFigure

    # In units of a full panel's width. A photograph taller than 1.2 is drawn narrower instead.
    ratios = np.clip([len(photograph) / photograph.shape[1] for photograph, _, _ in rows], 0.1, 4)
    heights = np.minimum(ratios, 1.2)
    figure, axes = pyplot.subplots(
        len(rows) + 1,  # the last row is the colour bar's
        3,
        figsize=(9.6 * max(heights / ratios) + 0.4, 3.2 * sum(heights) + 0.4 * len(rows) + 0.5),
        squeeze=False,
        height_ratios=[*heights, 0.03],
        layout="constrained",
        FigureClass=DrawnOnceFigure,
    )
    figure.get_layout_engine().set(h_pad=0.08)
    for axis in axes.flat:
        axis.set_axis_off()
    for panels, title, (photograph, heatmap, picture) in zip(axes, titles, rows, strict=False):
        panels[0].imshow(photograph)
        drawn_heatmap = panels[1].imshow(heatmap, cmap=listed_colors, vmin=0, vmax=1)
        panels[2].imshow(picture)
        # A dollar sign, as of a file name, must not start a formula. (`wrap` ignores `parse_math`.)
        panels[1].set_title(title.replace("$", r"\$"), fontsize=11, wrap=True)
    color_bar = axes[-1, 1]
    color_bar.set_axis_on()
    bar = figure.colorbar(drawn_heatmap, cax=color_bar, orientation="horizontal", ticks=[0, 0.5, 1])
    bar.outline.set_visible(False)
    return figure

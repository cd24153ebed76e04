"""Draw photographs, heatmaps and overlays in a figure: `show`, `compare`.

Users and the command line call it.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tf_gradcam._arrays import real_array
from tf_gradcam._images.draw import blend, check_order
from tf_gradcam._images.enlarge import enlarge
from tf_gradcam._images.palette import colormap_colors
from tf_gradcam._images.read import read_pixels, resize_pixels, size_within
from tf_gradcam._images.scale import (
    ALPHA,
    Look,
    Scaled,
    checked_look,
    heats_of_images,
    is_of_volume,
    scale_heats,
    scale_volume,
)
from tf_gradcam._images.titles import explanation_titles
from tf_gradcam._images.volume import as_volume, check_no_volume, hottest_slices
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
    vmax: float | str | None = None,
    signed: bool = False,
    alpha: float = ALPHA,
    colormap: str | None = None,
    fade: bool = True,
) -> "Figure":
    """Draw photograph, heatmap and overlay side by side, one row for each heatmap.

    Under the colour bar it says what the full colour stands for. By default it is the maximum of what
    explains one image: of its one heatmap, so that rows of several images can't be compared, or of all its
    classes, slices or frames, which have one scale. Where they have no common unit, as the maps of several
    layers, each heatmap has its own.

    A notebook with matplotlib's inline backend draws the figure once, at the end of the cell or as the cell's
    value. In a script, call `matplotlib.pyplot.show()` to open a window, or `tf_gradcam.save("cat.png",
    figure)` to write a file. Photographs of more than 1200 pixels along a side are drawn smaller; `overlay`
    keeps every pixel.

    Args:
        image: one photograph (path, bytes, PIL image or array, as `load_image` takes it), or a list of N, of
            any sizes, or an array `(N, H, W, C)`, or `(N, H, W)` of grey ones; or a
            `tf_gradcam.formats.Scan`, or the path of one. Of a volume or video, the up to six slices or
            frames with most heat are drawn.
        explanation: an `Explanation` of N images, with one class or M classes for each image; or one heatmap
            `(h, w)`, or N heatmaps, `(N, h, w)` or a list, in `[0, 1]`; for a volume `(d, h, w)`. With M
            classes for each image there are N * M rows: all classes of the first image, then those of the
            second.
        titles: one string for each row. With `None`, an `Explanation` of classes is titled with the class,
            the model's probability of it (if the outputs are probabilities) and the explained score:
            `"tabby (probability 0.78), score 9.12"`. The title of another `Explanation` is its score, and
            heatmaps have no title. The slices of a volume or video have names, and the class of the whole
            is named once, above them.
        labels: names of the classes, in the order of the model's outputs: a title says `"tabby"` instead of
            `"class 281"`. For a single sigmoid unit, the names of its sides 0 and 1. Not used if `titles` are
            given.
        vmax: the value that gets the full colour; see `overlay`. `"batch"` is the highest one of all rows, so
            that images with less evidence look paler. `None` for one scale for each image.
        signed: whether what speaks against is drawn as well; see `overlay`.
        alpha: weight of the colours in `[0, 1]`; see `overlay`.
        colormap: name of a colour map; see `colorize`.
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
    tf_gradcam.show(["cat.jpg", "dog.jpg"], explanation, labels=labels, vmax="batch")
    ```
    """
    look = Look(vmax, signed, alpha, colormap, fade)
    return show_named("image", image, explanation, titles, labels, look)


def show_named(argument: str, image: Any, explanation: Any, titles: Any, labels: Any, look: Look) -> "Figure":
    """Return what `show` returns; the errors name `argument` for the photographs."""
    look = checked_look(look)
    check_order(argument, image, explanation, "explanation")
    scan = as_volume(image, argument)
    heading = ""
    if scan is not None:
        scaled = scale_volume("explanation", explanation, look)
        said = [] if titles is not None else explanation_titles(explanation, labels) or []
        heading, of_each = (said[0], []) if len(said) == 1 else ("", said)
        shown = hottest_slices(scan, "explanation", scaled.heatmaps[0], titles=of_each)
        photographs, heatmaps = [_shrink(each) for each in shown.pictures], shown.heatmaps
        title_list = shown.names if titles is None else _checked_titles(titles, len(shown.names))
    else:
        check_no_volume(argument, image, explanation)
        photographs, scaled = _photographs_and_heatmaps(argument, image, explanation, look)
        heatmaps = scaled.heatmaps
        count = len(heatmaps)
        found = explanation_titles(explanation, labels) if titles is None else _checked_titles(titles, count)
        title_list = found or [""] * count
        photographs = [each for each in photographs for _ in range(count // len(photographs))]
    rows = [
        (photograph, enlarge(heatmap, photograph.shape[:2]), blend(photograph, heatmap, look))
        for photograph, heatmap in zip(photographs, heatmaps, strict=True)
    ]
    return _draw(rows, title_list, heading, _Bar(look, scaled, len(rows), _blank_words(explanation, look)))


def _photographs_and_heatmaps(argument, image, explanation, look) -> tuple[list, Scaled]:
    """Return N small photographs, and the heatmaps of each, image by image."""
    photographs = [_shrink(read_pixels(each, argument)) for each in _as_list(argument, image, explanation)]
    groups = heats_of_images("explanation", explanation, look.signed)
    count = len(explanation.heatmap) if hasattr(explanation, "heatmap") else len(groups)
    _check_count("explanation", "heatmap", count, f"image of `{argument}`", len(photographs))
    _check_flat(groups)
    return photographs, scale_heats("explanation", groups, look)


def compare(
    image: Any,
    explanation: Any,
    *,
    titles: str | Sequence[str] | None = None,
    labels: Sequence[str] | Mapping[int, str] | None = None,
    vmax: float | str | None = None,
    signed: bool = False,
    alpha: float = ALPHA,
    colormap: str | None = None,
    fade: bool = True,
) -> "Figure":
    """Draw a photograph and beside it an overlay for each class, in one scale: class against class.

    Args:
        image: one photograph, or a list of N; see `show`.
        explanation: an `Explanation` of N images and M classes for each, such as of `targets.Classes` or
            `targets.TopClasses(3)`; a row has one image. Or, for one photograph, M heatmaps, `(M, h, w)` or a
            list, in `[0, 1]`, such as those of several methods.
        titles: one string for each overlay. With `None` an `Explanation` is titled with its class, the
            model's probability of it and the explained score; see `show`.
        labels: names of the classes; see `show`.
        vmax: the value that gets the full colour. `None` for the highest one of all classes of an image, of a
            list of heatmaps for each as it is; `"batch"` for that of all images; see `overlay`.
        signed: whether what speaks against is drawn as well; see `overlay`.
        alpha: weight of the colours in `[0, 1]`; see `overlay`.
        colormap: name of a colour map; see `colorize`.
        fade: whether the colours fade with the heatmap; see `overlay`.

    Returns:
        A `matplotlib.figure.Figure`; see `show`.

    Raises:
        ImportError, FileNotFoundError, TypeError, ValueError: as `show` does.

    Example:

    ```python
    explanation = cam(images, tf_gradcam.targets.TopClasses(2))
    tf_gradcam.compare("cat-and-dog.jpg", explanation, labels=labels)
    ```
    """
    look = checked_look(Look(vmax, signed, alpha, colormap, fade))
    check_order("image", image, explanation, "explanation")
    if as_volume(image, "image") is not None or is_of_volume(explanation):
        raise ValueError(
            "`image` must be photographs. Received: a volume or video, or what explains one. Explain one "
            "class, such as cam(volume, 1), and call `show`."
        )
    photographs = [_shrink(read_pixels(each, "image")) for each in _as_list("image", image, explanation)]
    groups = heats_of_images("explanation", explanation, look.signed)
    scaled = scale_heats("explanation", groups, look)
    count, images = len(scaled.heatmaps), len(photographs)
    if hasattr(explanation, "heatmap"):
        _check_count("explanation", "row of classes", len(explanation.heatmap), "image of `image`", images)
    elif images != 1:
        raise ValueError(f"`image` must be one photograph, if heatmaps are listed. Received: {images}")
    _check_flat(groups)
    found = explanation_titles(explanation, labels) if titles is None else _checked_titles(titles, count)
    panels = zip(scaled.heatmaps, found or [""] * count, strict=True)
    rows = []
    for photograph in photographs:
        drawn = [
            (blend(photograph, heatmap, look), name) for heatmap, name in islice(panels, count // images)
        ]
        rows.append([(photograph, ""), *drawn])
    return _draw_panels(rows, _Bar(look, scaled, len(rows[0]) - 1, _blank_words(explanation, look)))


# Arguments


def _shrink(photograph) -> np.ndarray:
    return resize_pixels(photograph, size_within(photograph.shape[:2], _FIGURE_SIDE))


def _as_list(argument, images, explanation) -> list:
    """Return a list or a batch of images as a list; a single one in a list."""
    if isinstance(images, list | tuple):
        return list(images)
    axes = getattr(images, "ndim", None)
    if axes == 3 and images.shape[-1] not in (1, 3, 4):  # No photograph has this shape.
        heatmaps = getattr(explanation, "heatmap", explanation)
        count = len(heatmaps) if isinstance(heatmaps, list | tuple) or np.ndim(heatmaps) > 2 else 1
        if count != len(images):
            raise ValueError(
                f"`{argument}` must be one image (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a batch "
                f"(N, H, W, C). Received: shape {tuple(images.shape)} with heatmaps for {count}. Give a "
                "batch of grey images as images[..., None], and of an image with more channels those to draw."
            )
        axes = 4
    return list(real_array(argument, images)) if axes == 4 else [images]


def _check_flat(groups) -> None:
    for heat in (heat for group in groups for heat in group):
        if heat.values.ndim != 2 or heat.values.size == 0:
            raise ValueError(f"`explanation` must have the shape (H, W). Received: shape {heat.values.shape}")


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


class _Bar(NamedTuple):
    """The colour bar: colours and scale of so many heatmaps, and what it says if all are 0."""

    look: Look
    scaled: Scaled
    heatmaps: int
    blank: str


def _draw(rows, titles, heading, bar) -> "Figure":
    # In units of a full panel's width. A photograph taller than 1.2 is drawn narrower instead.
    ratios = np.clip([len(photograph) / photograph.shape[1] for photograph, _, _ in rows], 0.1, 4)
    heights = np.minimum(ratios, 1.2)
    above = 0.4 if heading else 0
    size = 9.6 * max(heights / ratios) + 0.4, 3.2 * sum(heights) + 0.4 * len(rows) + 1.0 + above
    figure, axes = _blank_figure(size, 3, heights)
    if heading:
        figure.suptitle("\n".join(textwrap.wrap(_plain(heading), max(20, int(10 * size[0])))), fontsize=12)
    colors = _mappable(bar.look)
    for panels, title, (photograph, heatmap, picture) in zip(axes, titles, rows, strict=False):
        panels[0].imshow(photograph)
        mappable = panels[1].imshow(heatmap, cmap=colors.cmap, norm=colors.norm)
        panels[2].imshow(picture)
        panels[1].set_title(_plain(title), fontsize=11, wrap=True)
    _draw_bar(figure, axes[-1, 1], mappable, bar)
    return figure


def _draw_panels(rows, bar) -> "Figure":
    """Draw rows of pictures with their titles, and one colour bar."""
    columns = len(rows[0])
    heights = [np.clip(len(row[0][0]) / row[0][0].shape[1], 0.1, 1.2) for row in rows]
    # `wrap` of a title is not seen by the layout, which would cut the second line off.
    titles = [["\n".join(_wrapped(title)) for _, title in row] for row in rows]
    lines = [max(title.count("\n") + 1 for title in row) for row in titles]
    size = 3.2 * max(columns, 2) + 0.2, 3.1 * sum(heights) + sum(0.2 + 0.2 * each for each in lines) + 0.8
    figure, axes = _blank_figure(size, columns, heights)
    for line, row, names in zip(axes, rows, titles, strict=False):
        for axis, (picture, _), name in zip(line, row, names, strict=True):
            axis.imshow(picture)
            axis.set_anchor("S")  # The room that is left is above, for the title.
            axis.set_title(_plain(name), fontsize=10)
    below = axes[-1, 1 if columns > 1 else 0]
    below.set_subplotspec(below.get_gridspec()[-1, 1:])  # below the overlays
    _draw_bar(figure, below, _mappable(bar.look), bar)
    return figure


def _blank_figure(size, columns, heights) -> tuple[Any, np.ndarray]:
    """Return a figure and its axes without frames, of which the last row is for the colour bar."""
    pyplot = require("matplotlib.pyplot", "matplotlib")
    from tf_gradcam._images.notebook import DrawnOnceFigure

    figure, axes = pyplot.subplots(
        len(heights) + 1,
        columns,
        figsize=size,
        squeeze=False,
        height_ratios=[*heights, 0.03],
        layout="constrained",
        FigureClass=DrawnOnceFigure,
    )
    figure.get_layout_engine().set(h_pad=0.08)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def _wrapped(title) -> list[str]:
    """Return the lines of a title above one panel; a class has a line for itself."""
    split = re.sub(r" \((probability [^)]*)\), score", r"\n\1, score", title)
    return [part for line in split.split("\n") for part in textwrap.wrap(line, 36)]


def _plain(title) -> str:
    """Return a title in which a dollar sign, as of a file name, starts no formula."""
    return title.replace("$", r"\$")  # `wrap` ignores `parse_math`.


def _mappable(look) -> Any:
    """Return the colours of a look and their range, as matplotlib takes them."""
    cm, colors = (require(f"matplotlib.{each}", "matplotlib") for each in ("cm", "colors"))
    table = colors.ListedColormap(colormap_colors(look.colormap) / 255)
    return cm.ScalarMappable(colors.Normalize(-1 if look.signed else 0, 1), table)


def _draw_bar(figure, axis, mappable, bar) -> None:
    """Draw the colour bar, and say below it what its ends stand for."""
    axis.set_axis_on()
    look, scaled = bar.look, bar.scaled
    ticks = [-1, 0, 1] if look.signed else [0, 0.5, 1]
    if scaled.kind == "blank":  # No value says what the ends are.
        ticks = []
    drawn = figure.colorbar(mappable, cax=axis, orientation="horizontal", ticks=ticks)
    if ticks:
        drawn.ax.set_xticklabels(_tick_words(scaled.top, ticks, look.signed))
        for text, side in zip(drawn.ax.get_xticklabels(), ("left", "center", "right"), strict=True):
            text.set_horizontalalignment(side)  # so that they don't widen the panel
    drawn.set_label(_scale_words(scaled.kind, bar.heatmaps) if ticks else bar.blank, fontsize=10)
    drawn.outline.set_visible(False)


def _blank_words(explanation, look) -> str:
    """Return what the colour bar says if all heatmaps are 0."""
    if not hasattr(explanation, "heatmap"):
        return "blank: all values are 0" if look.signed else "blank: no value is above 0"
    is_class = getattr(explanation, "target", None) is not None
    several = np.size(getattr(explanation, "score", 0)) > 1
    noun = ("any class" if several else "the class") if is_class else "the target"
    return f"blank: nothing speaks for {'or against ' if look.signed else ''}{noun}"


def _tick_words(top, ticks, signed) -> list[str]:
    numbers = [f"{tick * (1 if top is None else top):.3g}" for tick in ticks]
    return [f"against: {numbers[0]}", "0", f"for: {numbers[2]}"] if signed else numbers


def _scale_words(kind, count) -> str:
    several = count > 1
    return {
        "given": "heatmaps as given, in one scale" if several else "heatmap as given",
        "own": "each divided by its own maximum: not comparable" if several else "divided by its own maximum",
        "volume": "one scale for all, and its maximum is 1" if several else "divided by its own maximum",
        "image": "one scale for each image, and its maximum is 1",
        "one": "one scale for all, in the units of the map" if several else "in the units of the map",
    }[kind]

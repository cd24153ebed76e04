"""Draw and write findings: overlays, heatmaps, comparisons of methods, and the contact sheet.

`run` calls it for the pictures of each photograph, the command `demo` for the contact sheet.
"""

import io
import math
import pathlib
import textwrap
import threading
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from tf_gradcam._images import (
    HeatmapBox,
    boxes,
    colorize,
    contour,
    enlarge,
    load_image,
    overlay,
    show,
    size_within,
)
from tf_gradcam._run.files import write_picture
from tf_gradcam._run.findings import EVERY_CLASS, Finding
from tf_gradcam._run.request import Request
from tf_gradcam._run.results import format_class

_KINDS = ("overlay", "heatmap")
_COMPARISON_SIDE = 512  # longest side of a photograph in a comparison, in pixels
_MOST_COLUMNS = 5  # of a comparison
_PANEL_WIDTH = 2.6  # in inches
_GAP = 0.02  # between panels, as a share of a panel's width
_TITLE_MARGIN, _TITLE_LINE = 0.06, 0.07  # likewise
_MOST_BOXES = 100  # of a heatmap; a map at the image may have thousands of specks
_BOX_COLOR, _BOX_EDGE_COLOR = (255, 255, 255), (0, 0, 0)  # legible on every colour
_DRAWING = threading.Lock()  # matplotlib draws one figure at a time


def find_boxes(finding: Finding, request: Request, size: Sequence[int] | None = None) -> list[HeatmapBox]:
    """Return the boxes of a finding; none unless the request asks for boxes.

    Args:
        finding: with a heatmap.
        request: the threshold.
        size: height and width of the photograph, in whose pixels the boxes are; `None` for the heatmap's.
    """
    if request.boxes is None:
        return []
    heatmap = np.maximum(finding.heatmap, 0)  # It may be signed.
    return boxes(heatmap, request.boxes, size=size, most=_MOST_BOXES)


def draw_pictures(
    finding: Finding, request: Request, found: Sequence[HeatmapBox], size: Sequence[int] | None = None
) -> dict[str, np.ndarray]:
    """Return the overlay with boxes and the heatmap of a finding, RGB, by their keys in its row.

    `size` is what `find_boxes` got.
    """
    shape = np.shape(finding.heatmap)
    values = enlarge(scaled_heatmap(finding, request), shape)
    heatmap = colorize(values, request.colormap, **_signed(request))
    picture = draw_overlay(finding.image, values, request)
    factor = len(picture) / (shape[0] if size is None else size[0])  # Those of large scenes are smaller.
    for each in reversed(found):  # The first one lies on top.
        _draw_box(picture, [round(side * factor) for side in each.box])
    return dict(zip(_KINDS, (picture, heatmap), strict=True))


def _draw_box(picture, box) -> None:
    """Draw a white frame with black edges into a picture."""
    x1, y1, x2, y2 = box
    width = max(1, round(max(picture.shape) / 400))
    for color, thickness in ((_BOX_EDGE_COLOR, 3 * width), (_BOX_COLOR, width)):
        cv2.rectangle(picture, (x1, y1), (x2 - 1, y2 - 1), color, thickness)


def picture_files(name: str, request: Request) -> list[str]:
    """Return the names of all files that `write_pictures` may write for a photograph."""
    several = len(request.methods) > 1
    variants = request.methods if several else range(1, request.top + 1)
    names = [name + suffix_of(variant, rank, request) for rank, variant in enumerate(variants, start=1)]
    files = [f"{picture_name}-{kind}.{request.format}" for picture_name in names for kind in _KINDS]
    return [*files, _comparison_file(name)] if several else files


def write_pictures(
    findings: Sequence[Finding], name: str, request: Request, size: Sequence[int] | None = None
) -> list[Finding]:
    """Write the pictures of a photograph; return its findings, with the pictures' file names in the rows.

    `size` is the photograph's, or `None` if it is that of the heatmaps.
    """
    several = len(request.methods) > 1
    written = []
    for rank, finding in enumerate(findings, start=1):
        suffix = suffix_of(finding.row.get("method"), rank, request)
        found = find_boxes(finding, request, size)
        files = _write_files(finding, name + suffix, request, found, size)
        row = {**finding.row, **files}
        if request.boxes is not None:
            row["boxes"] = [each.coco() for each in found]
        written.append(finding._replace(row=row))
    if not several:
        return written
    comparison = _comparison_file(name)
    draw_comparison([findings], request.out / comparison, request)
    return [finding._replace(row={**finding.row, "comparison": comparison}) for finding in written]


def suffix_of(method, rank, request) -> str:
    """Return the end of a picture's name that distinguishes the findings in one photograph."""
    if len(request.methods) > 1:
        return f"-{method}"
    return f"-{rank}" if request.top > 1 else ""


def _comparison_file(name) -> str:
    return f"{name}-methods.png"


def _write_files(finding, name, request, found, size) -> dict[str, str]:
    """Write overlay and heatmap of a finding, and return their file names."""
    files = {}
    for kind, picture in draw_pictures(finding, request, found, size).items():
        files[kind] = f"{name}-{kind}.{request.format}"
        encodable, encoded = cv2.imencode(f".{request.format}", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        if not encodable:
            raise ValueError(f"the {kind} can't be written as {request.format}: OpenCV refuses it")
        write_picture(request.out / files[kind], encoded.tobytes())
    return files


def write_figure(figure: Any, path: pathlib.Path) -> None:
    """Write a figure of matplotlib as a PNG file, as `write_picture` does."""
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png", metadata={"Software": None})
    write_picture(path, encoded.getvalue())


def scaled_heatmap(finding: Finding, request: Request) -> np.ndarray:
    """Return what is drawn of a finding in the scale of the request: its own, or that of all findings.

    It is the heatmap, or the coarse one that it was enlarged from.
    """
    heatmap = np.asarray(finding.heatmap if finding.grid is None else finding.grid)
    if request.vmax is None:
        return heatmap
    if finding.highest is None:
        raise ValueError(
            "`vmax` must be None for several layers, whose maps have no common unit. "
            f"Received: vmax={request.vmax!r:.80}"
        )
    return np.clip(heatmap * np.float32(finding.highest / request.vmax), -1, 1)


def draw_overlay(image: np.ndarray, heatmap: np.ndarray, request: Request) -> np.ndarray:
    """Return a picture with the colours of a heatmap, or with its contours, as requested.

    The heatmap is in `[0, 1]`, or in `[-1, 1]` if it is signed.
    """
    if request.contour is not None:
        return contour(image, heatmap, request.contour, colormap=request.colormap)
    look: dict[str, Any] = {"alpha": request.alpha, "colormap": request.colormap, "fade": request.fade}
    return overlay(image, heatmap, **look, **_signed(request))


def _signed(request: Request) -> dict[str, Any]:
    """Return how values in `[-1, 1]` are drawn as they are, if the request is for signed heatmaps."""
    return {"signed": True, "vmax": 1.0} if request.signed else {}


def draw_contact_sheet(
    photographs: Sequence[Sequence[Finding]], path: pathlib.Path, request: Request
) -> None:
    """Draw the findings in all photographs on one sheet, and compare methods if there are several."""
    if len(request.methods) > 1:
        draw_comparison(photographs, path, request)
        return
    from matplotlib import pyplot

    findings = [finding for findings_of_image in photographs for finding in findings_of_image]
    figure = show(
        [finding.image for finding in findings],
        [scaled_heatmap(finding, request) for finding in findings],
        titles=[format_class(finding.row) for finding in findings],
        alpha=request.alpha,
        colormap=request.colormap,
        fade=request.fade,
    )
    write_figure(figure, path)
    pyplot.close(figure)


def draw_comparison(photographs: Sequence[Sequence[Finding]], path: pathlib.Path, request: Request) -> None:
    """Draw photographs, each followed by the overlays of its findings, in one or more rows."""
    panel_count = 1 + len(request.methods)
    columns = math.ceil(panel_count / math.ceil(panel_count / _MOST_COLUMNS))
    rows = []
    for findings in photographs:
        panels = _panels(findings, request)
        rows += [panels[start : start + columns] for start in range(0, panel_count, columns)]
    draw_panels(rows, columns, path)


def draw_panels(rows: list[list[tuple[np.ndarray, str]]], columns: int, path: pathlib.Path) -> None:
    """Draw rows of at most `columns` RGB pictures with their titles, and write them as a PNG file."""
    with _DRAWING:
        _save_panels(rows, columns, path)


def _panels(findings, request) -> list[tuple[np.ndarray, str]]:
    """Return small pictures and their titles: the photograph, then the overlay of each finding."""
    image = findings[0].image
    image = load_image(image, size=size_within(image.shape[:2], _COMPARISON_SIDE))
    classes = [format_class(finding.row) for finding in findings if finding.row["score"] is not None]
    title = classes[0] if classes else EVERY_CLASS
    panels = [(image, "\n".join(textwrap.wrap(title, 32, max_lines=2)))]
    for finding in findings:
        # The photograph's title names the class, so only a map of every class says so.
        about = f", {EVERY_CLASS}" if classes and finding.row["score"] is None else ""
        picture = draw_overlay(image, scaled_heatmap(finding, request), request)
        panels.append((picture, finding.row["method"] + about))
    return panels


def _save_panels(rows: list[list[tuple[np.ndarray, str]]], columns: int, path: Any) -> None:
    """Draw rows of pictures with their titles, and write them to a file."""
    from matplotlib.figure import Figure

    # In units of a panel's width. Placed by hand, as a layout engine cuts titles of two lines off.
    picture_heights = [min(1.2, len(row[0][0]) / row[0][0].shape[1]) for row in rows]
    title_lines = [max(title.count("\n") + 1 for _, title in row) for row in rows]
    title_heights = [_TITLE_MARGIN + _TITLE_LINE * lines for lines in title_lines]
    width = columns + _GAP * (columns + 1)
    height = sum(picture_heights) + sum(title_heights) + _GAP
    figure = Figure(figsize=(_PANEL_WIDTH * width, _PANEL_WIDTH * height), dpi=150)
    bottom = height
    for row, picture_height, title_height in zip(rows, picture_heights, title_heights, strict=True):
        bottom -= title_height + picture_height
        for column, (picture, title) in enumerate(row):
            left = _GAP + (1 + _GAP) * column
            axis = figure.add_axes((left / width, bottom / height, 1 / width, picture_height / height))
            axis.set_axis_off()
            axis.imshow(picture)
            axis.set_title(title.replace("$", r"\$"), fontsize=10)
    write_figure(figure, path)

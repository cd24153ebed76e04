"""From heatmaps to masks and boxes: `boxes`, `masks`, `box_iou`.

Users call them, and so do the serving client and the command line.
"""

import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam._arrays import real_array
from tf_gradcam._checks import did_you_mean, is_whole
from tf_gradcam._files import MAX_PIXELS
from tf_gradcam._images.read import check_size
from tf_gradcam._optional import require

_ORDERS = ("share", "score", "area")


class HeatmapBox(NamedTuple):
    """The tight box around one connected part of a heatmap above a threshold.

    Attributes:
        box: corners `(x1, y1, x2, y2)`, whole numbers of pixels from the upper left corner of the picture.
            Column `x1` and row `y1` are the first inside, `x2` and `y2` the first beyond, so `x2 - x1` is
            the width. `targets.Box` and `box_iou` take such corners.
        score: mean of the heatmap over the component.
        share: the component's share of the sum of the whole heatmap, in `[0, 1]`.
        area: pixels of the component, not of its box.
    """

    box: tuple[int, int, int, int]
    score: float
    share: float
    area: int

    def coco(self) -> dict[str, Any]:
        """Return `bbox` as `[x, y, width, height]`, `area` and `score`, as in COCO's JSON files."""
        x1, y1, x2, y2 = self.box
        return {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": self.area, "score": self.score}


def boxes(
    heatmap: Any,
    threshold: float | str = 0.15,
    *,
    scale: float | None = None,
    size: Sequence[int] | None = None,
    sort: str = "share",
    most: int | None = None,
) -> list[Any]:
    """Return the boxes around the connected parts of a heatmap above a threshold.

    Pixels that touch at a side or at a corner are connected. By default the threshold is 15 % of the
    heatmap's maximum (Selvaraju et al., "Grad-CAM", 2017, section 4.1); with `threshold=0.2, sort="area",
    most=1` the box is that of Zhou et al., "Learning Deep Features for Discriminative Localization", 2016.

    Args:
        heatmap: `(H, W)` or a batch `(N, H, W)`, 0 or more; or an `Explanation`, also of several classes. It
            need not end at 1: a map after ReLU is taken, too.
        threshold: a pixel counts if its value is **above** `threshold` times `scale`: a number of 0 or more,
            and below 1 without a `scale`. Or `"otsu"`, which separates low from high values best, for each
            heatmap anew (Otsu 1979, by OpenCV, on 256 levels up to the maximum).
        scale: what `threshold` is a fraction of. `None` for the maximum of each heatmap. With a number it is
            the same for all: `scale=1` makes `threshold` the value itself.
        size: `(height, width)` of the photograph in whose pixels the boxes are, or `None` for the heatmap's
            own. Threshold, components and scores are those of the heatmap as it is; then each pixel of the
            photograph belongs to the pixel of the heatmap that its centre lies in.
        sort: what boxes come first: those with the highest `"share"` of the heatmap, mean `"score"` or
            `"area"`. Equal ones are in order from top to bottom, then from left to right.
        most: how many boxes to return for each heatmap at most, such as 1 for the first; `None` for all.

    Returns:
        A list of `HeatmapBox` for a heatmap `(H, W)`; for a batch a list of such lists, one for each
        heatmap; for an `Explanation` of several classes nested once more. A heatmap of zeros has no box.

    Raises:
        ImportError: if OpenCV is not installed.
        TypeError: if `heatmap` does not hold real numbers.
        ValueError: if `heatmap` has another rank, NaN, infinity or negative values; if another argument is
            none of the above.

    Example:

    ```python
    heatmap = tf_gradcam.make_gradcam_heatmap(model, images)
    for found in tf_gradcam.boxes(heatmap, size=photograph.shape[:2]):
        x1, y1, x2, y2 = found.box
    ```
    """
    _check_options(threshold, scale, size, sort, most)
    values, leading = _heatmaps("heatmap", heatmap)
    found = [_components(each, threshold, scale, size, sort, most).boxes for each in values]
    return _nest(found, leading)


def masks(
    heatmap: Any,
    threshold: float | str = 0.15,
    *,
    scale: float | None = None,
    size: Sequence[int] | None = None,
    sort: str = "share",
    most: int | None = None,
) -> np.ndarray:
    """Return where a heatmap is above a threshold.

    Args:
        heatmap: `(H, W)` or a batch `(N, H, W)`, or an `Explanation`; see `boxes`.
        threshold: see `boxes`.
        scale: see `boxes`.
        size: `(height, width)` of the photograph, or `None` for the heatmap's own; see `boxes`.
        sort: which components come first; see `boxes`.
        most: how many components to keep of each heatmap at most; `None` for all.

    Returns:
        bool array of the heatmap's shape, `(H, W)` or `(N, H, W)`, with H and W from `size` if it is given.

    Raises:
        ImportError, TypeError, ValueError: as `boxes` does.

    Example:

    ```python
    mask = tf_gradcam.masks(heatmap, "otsu", size=photograph.shape[:2])
    photograph[~mask] = 0
    ```
    """
    _check_options(threshold, scale, size, sort, most)
    values, leading = _heatmaps("heatmap", heatmap)
    found = [_mask(_components(each, threshold, scale, size, sort, most), size) for each in values]
    return np.array(found, bool).reshape(*leading, *_placed_size(values.shape[1:], size))


def box_iou(boxes: Any, others: Any) -> np.ndarray:
    """Return the intersection over union of each box with each other box.

    Args:
        boxes: what `boxes` returns for one heatmap; or corners `(x1, y1, x2, y2)`, `(A, 4)`.
        others: boxes in one of the same forms, B of them, in the same pixels, such as given ones.

    Returns:
        float64 array `(A, B)` in `[0, 1]`; 0 for two boxes without area.

    Raises:
        TypeError: if the corners are not real numbers.
        ValueError: if they have another shape, are not finite, or `x2 < x1` or `y2 < y1`.

    Example:

    ```python
    overlaps = tf_gradcam.box_iou(tf_gradcam.boxes(heatmap), [(12, 30, 200, 180)])
    ```
    """
    first, second = corners_of_boxes("boxes", boxes)[:, None], corners_of_boxes("others", others)[None]

    def area(low, high):
        return np.maximum(high - low, 0).prod(axis=-1)

    low, high = np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])
    both = area(low, high)
    either = area(first[..., :2], first[..., 2:]) + area(second[..., :2], second[..., 2:]) - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


# The components of one heatmap


class _Components(NamedTuple):
    """The components of a heatmap `(h, w)` that are kept, in order.

    `labels` `(h, w)` has the number of a component everywhere, 0 for the background; `numbers` are those of
    the `boxes`.
    """

    labels: np.ndarray
    numbers: np.ndarray
    boxes: list[HeatmapBox]


def _components(heatmap, threshold, scale, size, sort, most) -> _Components:
    cv2, size = require("cv2", "opencv-python"), _placed_size(heatmap.shape, size)
    above = _above(heatmap, threshold, scale).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=8, ltype=cv2.CV_32S)
    left, top, width, height, own_areas = stats.T.astype(np.int64)
    areas = own_areas if size == heatmap.shape else _placed_areas(labels, count, size)
    sums = np.bincount(labels.ravel(), heatmap.ravel(), count)
    scores, shares = sums / np.maximum(own_areas, 1), sums / (sums.sum() or 1)
    order = np.lexsort((left, top, -{"share": shares, "score": scores, "area": areas}[sort]))
    # 0 is the background. A component may lie between the centres of a smaller photograph's pixels.
    numbers = order[(order > 0) & (areas[order] > 0)][:most]
    x1, x2 = (_place(edges[numbers], heatmap.shape[1], size[1]) for edges in (left, left + width))
    y1, y2 = (_place(edges[numbers], heatmap.shape[0], size[0]) for edges in (top, top + height))
    corners = np.stack([x1, y1, x2, y2], axis=-1).tolist()
    columns = (each[numbers].tolist() for each in (scores, shares, areas))
    found = [HeatmapBox(tuple(box), *rest) for box, *rest in zip(corners, *columns, strict=True)]
    return _Components(labels, numbers, found)


def _mask(components, size) -> np.ndarray:
    """Return where the components are, bool `(H, W)`."""
    is_kept = np.zeros(components.labels.max() + 1, bool)
    is_kept[components.numbers] = True
    mask = is_kept[components.labels]
    rows, columns = _source_pixels(mask.shape, _placed_size(mask.shape, size))
    return mask[rows][:, columns]


def _placed_size(shape, size) -> tuple[int, ...]:
    return shape if size is None else tuple(int(length) for length in size)


def _placed_areas(labels, count, size) -> np.ndarray:
    """Return how many pixels of the photograph each of `count` components has."""
    times = [
        np.bincount(sources, minlength=length)
        for sources, length in zip(_source_pixels(labels.shape, size), labels.shape, strict=True)
    ]
    return np.bincount(labels.ravel(), np.outer(*times).ravel(), count).astype(np.int64)


def _source_pixels(shape, size) -> list[np.ndarray]:
    """Return for each row, and for each column, of the photograph that of the heatmap its centre lies in."""
    return [
        (2 * np.arange(new_length) + 1) * length // (2 * new_length)
        for length, new_length in zip(shape, size, strict=True)
    ]


def _place(edges: np.ndarray, length: int, new_length: int) -> np.ndarray:
    """Return the first of `new_length` pixels whose centre is not before each edge, of 0 to `length`."""
    return -((length - 2 * edges * new_length) // (2 * length))


def _above(heatmap, threshold, scale) -> np.ndarray:
    """Return where a heatmap is above the threshold, bool."""
    maximum = heatmap.max()
    if threshold == "otsu":
        cv2 = require("cv2", "opencv-python")
        if maximum == 0:
            return np.zeros(heatmap.shape, bool)
        levels = np.rint(heatmap / maximum * 255).astype(np.uint8)
        level, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        return levels > level
    # In the heatmap's dtype: float32's 0.15 is above float64's.
    number = heatmap.dtype.type
    with np.errstate(over="ignore"):
        return heatmap > number(threshold) * number(maximum if scale is None else scale)


def _nest(flat: list, leading: tuple[int, ...]) -> Any:
    """Return a flat list as lists in lists of these lengths; its only item for no length."""
    if not leading:
        return flat[0]
    for length in leading[:0:-1]:
        flat = [flat[start : start + length] for start in range(0, len(flat), length)]
    return flat


# Checks


def _heatmaps(argument, heatmap) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return heatmaps `(N, H, W)`, float32 or float64, and the lengths of the axes before H and W."""
    is_explanation = hasattr(heatmap, "heatmap")
    values = real_array(argument, heatmap.heatmap if is_explanation else heatmap)
    axes = np.ndim(heatmap.score) if hasattr(heatmap, "score") else max(values.ndim - 2, 0)
    if values.ndim - axes != 2 or axes > (2 if is_explanation else 1) or 0 in values.shape[-2:]:
        what = "an Explanation with heatmaps of the shape" if is_explanation else "shape"
        raise ValueError(
            f"`{argument}` must be (H, W), (N, H, W), or an Explanation with a heatmap (H, W) for each image "
            f"or class. Received: {what} {values.shape}"
        )
    if values.shape[-2] * values.shape[-1] > MAX_PIXELS:
        raise ValueError(
            f"`{argument}` must have at most {MAX_PIXELS:,} pixels. Received: shape {values.shape}"
        )
    values = values.astype(np.float64 if values.dtype.itemsize == 8 else np.float32)
    leading = values.shape[:-2]
    values = values.reshape(-1, *values.shape[-2:])
    if values.size and not (values.min() >= -1e-6 and values.max() < np.inf):  # also true for NaN
        raise ValueError(
            f"`{argument}` must be finite, and 0 or more. "
            f"Received: values from {values.min():.4g} to {values.max():.4g}. "
            "Of a signed map, give what speaks for the class: np.maximum(map, 0)."
        )
    return np.maximum(values, 0), leading


def _check_options(threshold, scale, size, sort, most) -> None:
    check_size(size)
    if isinstance(threshold, str):
        if threshold != "otsu":
            hint = did_you_mean(threshold, ["otsu"])
            received = f"threshold={threshold!r:.80}. {hint}".rstrip()
            raise ValueError(f"`threshold` must be a number or 'otsu'. Received: {received}")
        if scale is not None:
            raise ValueError(
                "`scale` must be None with threshold='otsu', which finds its own. "
                f"Received: scale={scale!r:.80}"
            )
    elif not _is_number(threshold) or not 0 <= threshold < (1 if scale is None else np.inf):
        limits = "of 0 or more" if scale is not None else "of 0 or more and below 1, or give `scale`"
        raise ValueError(
            f"`threshold` must be 'otsu' or a number {limits}. Received: threshold={threshold!r:.80}"
        )
    if scale is not None and not (_is_number(scale) and 0 < scale < np.inf):
        raise ValueError(f"`scale` must be None or a number above 0. Received: scale={scale!r:.80}")
    if not isinstance(sort, str) or sort not in _ORDERS:
        hint = did_you_mean(str(sort), _ORDERS)
        raise ValueError(f"`sort` must be one of {_ORDERS}. Received: sort={sort!r:.80}. {hint}".rstrip())
    if most is not None and (not is_whole(most) or most < 1):
        raise ValueError(f"`most` must be None or a whole number from 1. Received: most={most!r:.80}")


def _is_number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def corners_of_boxes(argument: str, boxes: Any) -> np.ndarray:
    """Return corners `(A, 4)`, float64, of boxes in any form that `box_iou` takes."""
    if isinstance(boxes, list):
        boxes = [each.box if isinstance(each, HeatmapBox) else each for each in boxes]
        boxes = boxes or np.zeros((0, 4))
    corners = real_array(argument, boxes)
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise ValueError(
            f"`{argument}` must be the boxes of one picture, (A, 4). Received: shape {corners.shape}. Give a "
            "single box in a list, and of several pictures the boxes of one."
        )
    corners = corners.astype(np.float64)
    if not np.isfinite(corners).all() or (corners[:, 2:] < corners[:, :2]).any():
        raise ValueError(
            f"`{argument}` must have finite corners (x1, y1, x2, y2), x1 <= x2 and y1 <= y2. "
            f"Received: {corners.tolist()!r:.80}. Of (x, y, width, height), give (x, y, x + width, "
            "y + height)."
        )
    return corners

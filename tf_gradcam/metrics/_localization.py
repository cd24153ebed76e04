"""Maps against a truth: pointing game, energy, ranks, ROC, overlap. Called by users and `metrics`' tables."""

from typing import Any

import numpy as np

from tf_gradcam.metrics._inputs import (
    as_maps,
    check_count,
    check_nonnegative,
    check_positive,
    finite_rows,
    maps_and_masks,
)
from tf_gradcam.metrics._masked import as_heatmaps
from tf_gradcam.metrics._similarity import average_ranks


def pointing_game(maps: Any, masks: Any, tolerance: float = 15) -> np.ndarray:
    """Say for each image whether the highest value of its map lies on the object, or close to it.

    1 for a hit, 0 for a miss. Where several pixels share the maximum, the share of them that hits: a blank
    map gets the share of the image that counts as a hit. Higher is better; in [0, 1]. Compare it with the
    maximum in the centre of the image, which hits often in photographs.

    Source: Zhang et al., "Top-down Neural Attention by Excitation Backprop", IJCV 2018, section 4.1; the
    tolerance is a circle, as in TorchRay.

    Args:
        maps: `(N, *axes)`, signed or heatmaps.
        masks: the objects, bool `(N, *axes)`, or boxes as `box_masks` takes them.
        tolerance: how far from the object a hit may be, in pixels, 0 or more. The paper's 15 is meant for
            photographs of some 500 pixels: take less for small images.

    Returns:
        `(N,)`, float64; NaN where a mask is empty or a map is not finite.

    Raises:
        ValueError: if the maps and masks don't have one shape, or `tolerance` is negative.
        TypeError: if the masks are neither bool nor boxes.
    """
    maps, masks = maps_and_masks(maps, masks)
    check_nonnegative(tolerance=tolerance)
    axes = tuple(range(1, maps.ndim))
    highest = maps == maps.max(axes, keepdims=True)
    hits = highest & _near(masks, tolerance)
    shares = hits.sum(axes) / np.maximum(highest.sum(axes), 1)
    return np.where(finite_rows(maps) & masks.any(axes), shares, np.nan)


def _near(masks, tolerance):
    """Return which pixels are within `tolerance` of a mask, Euclidean, bool."""
    if not tolerance:
        return masks
    squares = np.where(masks, 0.0, np.inf)  # squared distance to the mask, along the axes so far
    for axis in range(1, masks.ndim):
        lines = np.moveaxis(squares, axis, 0)
        nearest = lines.copy()
        for shift in range(1, min(int(tolerance), len(lines) - 1) + 1):
            np.minimum(nearest[shift:], lines[:-shift] + shift**2, out=nearest[shift:])
            np.minimum(nearest[:-shift], lines[shift:] + shift**2, out=nearest[:-shift])
        squares = np.moveaxis(nearest, 0, axis)
    return squares <= tolerance**2


def energy(maps: Any, masks: Any) -> np.ndarray:
    """Return which share of the positive part of a map lies on the object.

    Higher is better; in [0, 1]. A uniform map gets the share of the image that the object covers: compare
    with it.

    Source: Wang et al., "Score-CAM", CVPR Workshops 2020, section 4.3 (energy-based pointing game).

    Args:
        maps: `(N, *axes)`, signed or heatmaps.
        masks: the objects, bool `(N, *axes)`, or boxes as `box_masks` takes them.

    Returns:
        `(N,)`, float64; NaN where a mask is empty, or a map has no positive value or is not finite.

    Raises:
        ValueError: if the maps and masks don't have one shape.
        TypeError: if the masks are neither bool nor boxes.
    """
    maps, masks = maps_and_masks(maps, masks)
    finite = finite_rows(maps)
    axes = tuple(range(1, maps.ndim))
    positive = as_heatmaps(np.where(np.isfinite(maps), maps, 0))  # scaled: the sum of huge values is finite
    total = positive.sum(axes)
    shares = np.divide((positive * masks).sum(axes), total, out=np.full(len(maps), np.nan), where=total > 0)
    return np.where(finite & masks.any(axes), shares, np.nan)


def grid_pointing(maps: Any, cells: Any, side: int = 2) -> np.ndarray:
    """Return which share of the positive part of a map lies in the cell of a mosaic that shows the class.

    Higher is better; in [0, 1]. A uniform map gets the share of the cell, 1/4 in a mosaic of 2 x 2.

    Source: Böhle et al., "Convolutional Dynamic Alignment Networks for Interpretable Classifications", CVPR
    2021.

    Args:
        maps: `(N, *axes)`, the maps of mosaics, signed or heatmaps. Where a side does not divide evenly,
            pixel `i` of `n` is in cell `i * side // n`.
        cells: the cell of the class that is explained, an integer for each image `(N,)`, by rows from 0.
        side: number of cells along each axis.

    Returns:
        `(N,)`, float64; NaN where a map has no positive value or is not finite.

    Raises:
        ValueError: if `cells` is not one valid number for each map, or `side` exceeds the size of a map.
    """
    maps = as_maps(maps)
    check_count(side=side)
    axes = maps.ndim - 1
    numbers = np.asarray(cells)
    if numbers.shape != (len(maps),) or numbers.dtype.kind not in "iu":
        raise ValueError(
            f"`cells` must be an integer for each map, ({len(maps)},). "
            f"Received: shape {numbers.shape}, dtype {numbers.dtype}"
        )
    if ((numbers < 0) | (numbers >= side**axes)).any():
        raise ValueError(f"`cells` must be from 0 to {side**axes - 1}. Received: cells={numbers.tolist()}")
    if side > min(maps.shape[1:]):
        raise ValueError(
            f"`side` must be at most the size of the maps, {maps.shape[1:]}. Received: side={side}"
        )
    cell_of = np.zeros(maps.shape[1:], dtype=int)
    for axis, length in enumerate(maps.shape[1:]):
        places = np.arange(length) * side // length
        cell_of = cell_of * side + places.reshape([-1 if each == axis else 1 for each in range(axes)])
    return energy(maps, cell_of == numbers.reshape(-1, *[1] * axes))


def rank_accuracy(maps: Any, masks: Any) -> np.ndarray:
    """Return which share of the highest pixels lies on the object, as many as the object has.

    Higher is better; in [0, 1]. Of pixels that share the value at which the choice ends, the mean over all
    choices counts, so that a uniform map gets the share of the image that the object covers.

    Source: Arras et al., "CLEVR-XAI", Information Fusion 2022 (relevance rank accuracy).

    Args:
        maps: `(N, *axes)`, signed.
        masks: the objects, bool `(N, *axes)`, or boxes as `box_masks` takes them.

    Returns:
        `(N,)`, float64; NaN where a mask is empty or a map is not finite.

    Raises:
        ValueError: if the maps and masks don't have one shape.
        TypeError: if the masks are neither bool nor boxes.
    """

    def accuracy(values, inside):
        count = inside.sum()
        last = np.partition(values, values.size - count)[values.size - count]
        above, tied = values > last, values == last
        hits = (above & inside).sum() + (count - above.sum()) * (tied & inside).sum() / tied.sum()
        return hits / count

    return _each(maps, masks, accuracy)


def roc_auc(maps: Any, masks: Any) -> np.ndarray:
    """Return the probability that a pixel of the object has a higher value than one beside it.

    The area under the ROC curve of the map as a classifier of pixels; equal values count one half. Higher is
    better; in [0, 1], and 0.5 for a constant map. For a small object it is high although most of the highest
    pixels miss it: read it beside `auprc`.

    Args:
        maps: `(N, *axes)`, signed.
        masks: the objects, bool `(N, *axes)`, or boxes as `box_masks` takes them.

    Returns:
        `(N,)`, float64; NaN where a mask is empty or covers the image, or a map is not finite.

    Raises:
        ValueError: if the maps and masks don't have one shape.
        TypeError: if the masks are neither bool nor boxes.
    """

    def area(values, inside):
        count = int(inside.sum())
        if count == inside.size:
            return np.nan
        ranks = average_ranks(values[None])[0]
        return (ranks[inside].sum() - count * (count + 1) / 2) / (count * (inside.size - count))

    return _each(maps, masks, area)


def auprc(maps: Any, masks: Any) -> np.ndarray:
    """Return the area under the curve of precision over recall of the map as a classifier of pixels.

    By steps: the mean of the precision at each pixel of the object (average precision), where pixels of one
    value are taken together. Higher is better; in [0, 1]. A constant map gets the share of the image that the
    object covers: compare with it.

    Args:
        maps: `(N, *axes)`, signed.
        masks: the objects, bool `(N, *axes)`, or boxes as `box_masks` takes them.

    Returns:
        `(N,)`, float64; NaN where a mask is empty or a map is not finite.

    Raises:
        ValueError: if the maps and masks don't have one shape.
        TypeError: if the masks are neither bool nor boxes.
    """

    def area(values, inside):
        order = np.argsort(-values, kind="stable")
        ends = np.flatnonzero(np.diff(values[order], append=np.nan) != 0)
        hits = np.cumsum(inside[order])[ends]
        return (np.diff(hits, prepend=0) * hits / (ends + 1)).sum() / inside.sum()

    return _each(maps, masks, area)


def iou(maps: Any, masks: Any, threshold: float | str = 0.15) -> np.ndarray:
    """Return the intersection over union of the object and the pixels of the heatmap above a threshold.

    Higher is better; in [0, 1]. The threshold decides much: a value that is chosen on the images that are
    measured makes every map look good.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017, section 4.1, for the threshold of 15 %; Otsu, "A
    Threshold Selection Method from Gray-Level Histograms", 1979, equation 18.

    Args:
        maps: `(N, *axes)`, signed or heatmaps. Only the positive part counts.
        masks: the objects, bool `(N, *axes)`, or boxes as `box_masks` takes them.
        threshold: as a share of the maximum of each map, above 0 and below 1; or `"otsu"`, which parts the
            values of each heatmap, in 256 steps, into two groups that vary least.

    Returns:
        `(N,)`, float64; 0 for a map without positive values, NaN where a mask is empty or a map is not
        finite.

    Raises:
        ValueError: if the maps and masks don't have one shape, or `threshold` is out of range.
        TypeError: if the masks are neither bool nor boxes.
    """
    if isinstance(threshold, str) and threshold != "otsu":
        raise ValueError(f'`threshold` must be a number or "otsu". Received: threshold={threshold!r}')
    if threshold != "otsu":
        check_positive(threshold=threshold, below=1)

    def overlap(values, inside):
        heatmap = as_heatmaps(values[None])[0]
        if threshold == "otsu":
            heatmap = np.round(255 * heatmap)
        found = heatmap > (_otsu(heatmap) if threshold == "otsu" else threshold)
        return (found & inside).sum() / (found | inside).sum()

    return _each(maps, masks, overlap)


def _otsu(levels):
    """Return the level in 0 to 255 up to which the lower group reaches, the first of equally good ones."""
    counts = np.bincount(levels.ravel().astype(int), minlength=256) / levels.size
    below = np.cumsum(counts)
    moments = np.cumsum(counts * np.arange(256))
    product = below * (1 - below)
    between = np.divide(
        (moments[-1] * below - moments) ** 2, product, out=np.zeros(256), where=product > 1e-12
    )
    return int(np.argmax(between))


def _each(maps, masks, measure):
    """Return `measure(values, inside)` of each map, flat; NaN where a mask is empty or a map not finite."""
    maps, masks = maps_and_masks(maps, masks)
    results = np.full(len(maps), np.nan)
    rows = finite_rows(maps) & masks.reshape(len(masks), -1).any(axis=1)
    for row in np.flatnonzero(rows):
        results[row] = measure(maps[row].ravel(), masks[row].ravel())
    return results

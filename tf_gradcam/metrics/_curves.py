"""Faithfulness by curves: deletion, insertion, ROAD. Called by users, and by the tables of `metrics`.

Pixels are replaced in the order of the map, and the score is followed. Only ranks count: the map is taken
signed, and pixels of one value, such as the zeros of a heatmap, come in an order drawn by `seed`, the same
for every image, not row by row.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam.metrics._imputation import Fill
from tf_gradcam.metrics._inputs import (
    check_choice,
    check_count,
    check_positive,
    finite_rows,
    generator,
    images_and_maps,
)
from tf_gradcam.metrics._scoring import Score, score_all

_PERCENTAGES = (10, 20, 30, 40, 50, 60, 70, 80, 90)


class Curve(NamedTuple):
    """The scores of images while their pixels are replaced.

    Attributes:
        fractions: share of the pixels that is replaced at each step, `(S,)` in [0, 1].
        scores: `(N, S)`, NaN for an image whose map or pixels are not all finite.
    """

    fractions: np.ndarray
    scores: np.ndarray

    def area(self) -> np.ndarray:
        """Return the area under the curve of each image by trapezoids, `(N,)`."""
        widths = np.diff(self.fractions)
        return (self.scores[:, 1:] + self.scores[:, :-1]) @ widths / 2


def deletion(
    score: Score,
    images: Any,
    maps: Any,
    *,
    baseline: str,
    steps: int = 50,
    seed: int = 0,
    batch_size: int = 32,
) -> np.ndarray:
    """Measure how fast the score falls when the pixels with the highest values are removed first.

    The area under the curve of the score over the share of removed pixels, by trapezoids, from the whole
    image to the baseline. Lower is better; the range is that of the score, [0, 1] for a probability.

    The baseline decides much: two explainers may change places with it, so report two. Only the order of the
    pixels counts, not the values of the map.

    Source: Petsiuk et al., "RISE", BMVC 2018. RISE takes `baseline="zero"` for images whose mean is 0, and as
    many steps as the image has rows.

    Args:
        score: callable `images -> (M,)`, the score of the class that the maps explain. It gets whole copies
            of the batch, one after another: for a class of each image take
            `np.resize(classes, len(images))`.
        images: `(N, *axes, C)`, 1 to 3 axes, as the model takes them.
        maps: `(N, *axes)`, signed or heatmaps.
        baseline: what replaces pixels. `"zero"`: 0, which is black or a mean colour, as the model takes it.
            `"mean"`: the mean of each channel of the image. `"blur"`: the blurred image, as `insertion` of
            RISE. `"noise"`: uniform noise in the range of each channel of the image. `"road"`: smoothly from
            the pixels that are left, see `noisy_linear_imputation`; slow.
        steps: number of steps, in each of which as many pixels are replaced; at most the number of pixels.
        seed: seed of the order of equal pixels and of noise, the same for every image.
        batch_size: number of images that are scored at once; at least one copy of the batch is.

    Returns:
        The areas `(N,)`, float64; NaN where a map, an image or a score is not finite.

    Raises:
        ValueError: if the maps don't have the size of the images, or an argument is out of range.
    """
    return deletion_curve(
        score, images, maps, baseline=baseline, steps=steps, seed=seed, batch_size=batch_size
    ).area()


def insertion(
    score: Score,
    images: Any,
    maps: Any,
    *,
    baseline: str,
    steps: int = 50,
    seed: int = 0,
    batch_size: int = 32,
) -> np.ndarray:
    """Measure how fast the score rises when the pixels with the highest values are put into a baseline first.

    The area under the curve of the score over the share of inserted pixels, by trapezoids, from the baseline
    to the whole image. Higher is better; the range is that of the score, [0, 1] for a probability. For an
    additive score, deletion and insertion add up to `f(x) + f(baseline)`.

    As for `deletion`, only the order counts, and two baselines should be reported.

    Source: Petsiuk et al., "RISE", BMVC 2018, with `baseline="blur"`.

    Args:
        score: as in `deletion`.
        images: as in `deletion`.
        maps: as in `deletion`.
        baseline: as in `deletion`: what the image is before any pixel is inserted.
        steps: as in `deletion`.
        seed: as in `deletion`.
        batch_size: as in `deletion`.

    Returns:
        The areas `(N,)`, float64; NaN where a map, an image or a score is not finite.

    Raises:
        ValueError: as in `deletion`.
    """
    return insertion_curve(
        score, images, maps, baseline=baseline, steps=steps, seed=seed, batch_size=batch_size
    ).area()


def deletion_curve(
    score: Score,
    images: Any,
    maps: Any,
    *,
    baseline: str,
    steps: int = 50,
    seed: int = 0,
    batch_size: int = 32,
) -> Curve:
    """Return the curve whose area `deletion` is, with its arguments: `steps + 1` scores an image."""
    return _curve(score, images, maps, False, baseline, steps, seed, batch_size)


def insertion_curve(
    score: Score,
    images: Any,
    maps: Any,
    *,
    baseline: str,
    steps: int = 50,
    seed: int = 0,
    batch_size: int = 32,
) -> Curve:
    """Return the curve whose area `insertion` is, with its arguments: `steps + 1` scores an image."""
    return _curve(score, images, maps, True, baseline, steps, seed, batch_size)


def _curve(score, images, maps, inserts, baseline, steps, seed, batch_size):
    images, maps = images_and_maps(images, maps)
    check_count(steps=steps, batch_size=batch_size)
    fill = Fill(images, baseline, seed)
    pixels = maps[0].size
    steps = min(steps, pixels)
    counts = np.arange(steps + 1) * pixels // steps
    altered = _altered(images, fill, _descending(maps, seed), counts, inserts)
    scores = score_all(score, altered, steps + 1, images, batch_size)
    scores[~finite_rows(images, maps)] = np.nan
    return Curve(counts / pixels, scores)


def _descending(maps, seed):
    """Return the pixels of each map from its highest value to its lowest, `(N, pixels)`, ties as drawn."""
    flat = maps.reshape(len(maps), -1)
    drawn = generator(seed).permutation(flat.shape[1])
    return drawn[np.argsort(-flat[:, drawn], axis=1, kind="stable")]


def _altered(images, fill, order, counts, inserts=False) -> Iterator[np.ndarray]:
    """Yield the images without the first `count` pixels of `order`, or with only these, for each count."""
    rows = np.arange(len(order))[:, None]
    if fill.fixed is None:
        ranks = np.empty_like(order)
        ranks[rows, order] = np.arange(order.shape[1])
        ranks = ranks.reshape(images.shape[:-1])
        for count in counts:
            yield fill.without(ranks >= count if inserts else ranks < count)
        return
    before, after = (fill.fixed, images) if inserts else (images, fill.fixed)
    shape = (*order.shape, images.shape[-1])
    current, after, done = before.reshape(shape).copy(), after.reshape(shape), 0
    for count in counts:
        new = order[:, done:count]
        current[rows, new] = after[rows, new]
        done = count
        yield current.reshape(images.shape)


def road(
    score: Score,
    images: Any,
    maps: Any,
    *,
    percentages: Sequence[float] = _PERCENTAGES,
    noise: float = 0.01,
    seed: int = 0,
    batch_size: int = 32,
) -> np.ndarray:
    """Compare removing the least and the most relevant pixels, filled so that holes are hard to see.

    `(mean over p of f(LeRF) - mean over p of f(MoRF)) / 2`, where p % of the pixels are removed, the least or
    the most relevant first. Higher is better; a map that says nothing has 0. In [-.5, .5] for a probability.

    Smooth maps are favoured: scattered pixels are filled nearly perfectly, and their removal changes nothing.

    Source: Rong et al., ICML 2022, whose measure is the accuracy at each p; this number of each image is
    that of pytorch-grad-cam's `ROADCombined`.

    Args:
        score: as in `deletion`.
        images: as in `deletion`.
        maps: as in `deletion`.
        percentages: shares of the pixels to remove, above 0 and below 100.
        noise: as in `noisy_linear_imputation`.
        seed: seed of the order of equal pixels and of the noise, the same for every image.
        batch_size: as in `deletion`.

    Returns:
        `(N,)`, float64; NaN where a map, an image or a score is not finite.

    Raises:
        ValueError: if the maps don't have the size of the images, or an argument is out of range.
    """

    def mean_score(order):
        return road_curve(
            score,
            images,
            maps,
            order=order,
            percentages=percentages,
            noise=noise,
            seed=seed,
            batch_size=batch_size,
        ).scores.mean(axis=1)

    return (mean_score("lerf") - mean_score("morf")) / 2


def road_curve(
    score: Score,
    images: Any,
    maps: Any,
    *,
    order: str,
    percentages: Sequence[float] = _PERCENTAGES,
    noise: float = 0.01,
    seed: int = 0,
    batch_size: int = 32,
) -> Curve:
    """Return the scores after removal of each share of pixels, one of the two curves that `road` compares.

    Args:
        score: as in `road`.
        images: as in `road`.
        maps: as in `road`.
        order: which pixels are removed first: `"morf"`, the most relevant, where low scores are good; or
            `"lerf"`, the least relevant, where high ones are.
        percentages: as in `road`.
        noise: as in `road`.
        seed: as in `road`.
        batch_size: as in `road`.
    """
    images, maps = images_and_maps(images, maps)
    check_choice("order", order, ("morf", "lerf"))
    check_count(batch_size=batch_size)
    shares = np.atleast_1d(percentages)
    if shares.ndim != 1 or not shares.size:
        raise ValueError(f"`percentages` must be one or more numbers. Received: percentages={percentages!r}")
    for share in shares.tolist():
        check_positive(percentages=share, below=100)
    counts = np.round(shares / 100 * maps[0].size).astype(int)
    fill = Fill(images, "road", seed, noise)
    removed = _descending(maps if order == "morf" else -maps, seed)
    scores = score_all(score, _altered(images, fill, removed, counts), len(counts), images, batch_size)
    scores[~finite_rows(images, maps)] = np.nan
    return Curve(counts / maps[0].size, scores)

"""Scores of the image times its heatmap: average drop, coherency, ADCC. Called by users and by tables.

They are here for comparison with papers. Multiplying makes the rest of the image 0, which is a baseline like
any other, and a map that covers everything loses nothing: a high number is no proof of a good map.
"""

from typing import Any

import numpy as np

from tf_gradcam.metrics._bootstrap import Interval, interval_of
from tf_gradcam.metrics._inputs import as_maps, finite_rows, images_and_maps, values_of_images
from tf_gradcam.metrics._scoring import Explain, Score, explain_once, score_all
from tf_gradcam.metrics._similarity import pearson


def as_heatmaps(maps: np.ndarray) -> np.ndarray:
    """Return maps in [0, 1]: the positive part, divided by its maximum. A heatmap stays what it is."""
    axes = tuple(range(1, maps.ndim))
    positive = np.maximum(maps, 0)
    largest = positive.max(axes, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.divide(positive, largest, out=np.zeros_like(positive), where=largest != 0)


def _masked(images, maps):
    return images * as_heatmaps(maps)[..., None].astype(images.dtype)


def masked_scores(
    score: Score, images: Any, maps: Any, *, batch_size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities of images, and of images times their heatmaps, `(N,)` each.

    `average_drop`, `increase` and `average_gain` are made of them: score once, and give both to
    `drop_between`, `increase_between` and `gain_between`. Arguments are those of `average_drop`.
    """
    images, maps = images_and_maps(images, maps)
    with np.errstate(invalid="ignore"):
        pair = [images, _masked(images, maps)]
    scores = score_all(score, pair, 2, images, batch_size)
    if ((scores < -1e-6) | (scores > 1 + 1e-6)).any():
        outside = scores[(scores < -1e-6) | (scores > 1 + 1e-6)][0]
        raise ValueError(
            f"`score` must return probabilities in [0, 1]: logits have no share. Received: {outside}. "
            "Apply softmax or sigmoid first"
        )
    scores[~finite_rows(images, maps)] = np.nan
    return scores[:, 0], scores[:, 1]


def drop_between(full: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """Return `relu(full - masked) / full`; 0 / 0 is NaN."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.maximum(full - masked, 0) / full


def increase_between(full: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """Return 1 where `masked` is above `full`, 0 where it is not, NaN where either is NaN."""
    return np.where(np.isnan(full) | np.isnan(masked), np.nan, masked > full)


def gain_between(full: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """Return `relu(masked - full) / (1 - full)`; 0 / 0 is NaN."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.maximum(masked - full, 0) / (1 - full)


def average_drop(score: Score, images: Any, maps: Any, *, batch_size: int = 32) -> np.ndarray:
    """Measure which share of the probability is lost when the image is multiplied by its heatmap.

    `relu(f(x) - f(x m)) / f(x)`, where m is the positive part of the map divided by its maximum. Lower is
    better; in [0, 1]. A heatmap of 1 everywhere has 0, the best value, so never report it alone.

    Source: Chattopadhay et al., "Grad-CAM++", WACV 2018, without the factor 100.

    Args:
        score: callable `images -> (M,)`, the probability of the class that the maps explain, not of the class
            that is predicted for the masked image. It gets whole copies of the batch, one after another: for
            a class of each image take `np.resize(classes, len(images))`.
        images: `(N, *axes, C)`, 1 to 3 axes, as the model takes them.
        maps: `(N, *axes)`, signed or heatmaps.
        batch_size: number of images that are scored at once; at least one copy of the batch is.

    Returns:
        `(N,)`, float64; NaN where f(x) is 0, or a map, an image or a score is not finite.

    Raises:
        ValueError: if the maps don't have the size of the images, or a score is no probability.
    """
    return drop_between(*masked_scores(score, images, maps, batch_size=batch_size))


def increase(score: Score, images: Any, maps: Any, *, batch_size: int = 32) -> np.ndarray:
    """Say for each image whether its probability grows when it is multiplied by its heatmap.

    `1[f(x m) > f(x)]`. Higher is better; 0 or 1. The mean over images is the papers' "increase in
    confidence".

    Source: Chattopadhay et al., "Grad-CAM++", WACV 2018, without the factor 100.

    Args:
        score: as in `average_drop`.
        images: as in `average_drop`.
        maps: as in `average_drop`.
        batch_size: as in `average_drop`.

    Returns:
        `(N,)`, float64; NaN where a map, an image or a score is not finite.

    Raises:
        ValueError: as in `average_drop`.
    """
    return increase_between(*masked_scores(score, images, maps, batch_size=batch_size))


def average_gain(score: Score, images: Any, maps: Any, *, batch_size: int = 32) -> np.ndarray:
    """Measure which share of the possible gain is made when the image is multiplied by its heatmap.

    `relu(f(x m) - f(x)) / (1 - f(x))`. Higher is better; in [0, 1].

    Source: Zhang et al., "Opti-CAM", CVIU 2024.

    Args:
        score: as in `average_drop`.
        images: as in `average_drop`.
        maps: as in `average_drop`.
        batch_size: as in `average_drop`.

    Returns:
        `(N,)`, float64; NaN where f(x) is exactly 1, or a map, an image or a score is not finite.

    Raises:
        ValueError: as in `average_drop`.
    """
    return gain_between(*masked_scores(score, images, maps, batch_size=batch_size))


def coherency(explain: Explain, images: Any, maps: Any) -> np.ndarray:
    """Measure whether the image times its heatmap has the same map as the image.

    `(Pearson(map of x, map of x m) + 1) / 2`, of signed maps. Higher is better; in [0, 1], where 0.5 is no
    correlation.

    Source: Poppi et al., "Revisiting The Evaluation of Class Activation Mapping for Explainability" (ADCC),
    CVPR Workshops 2021.

    Args:
        explain: callable `images -> maps`, called once with all N images in their order. It must explain the
            class that `maps` explain, not the class that is predicted for the masked image.
        images: `(N, *axes, C)`, 1 to 3 axes, as the model takes them.
        maps: `(N, *axes)`, what `explain` returns for `images`.

    Returns:
        `(N,)`, float64; NaN where a map is constant, or a map or image is not finite.

    Raises:
        ValueError: if the maps don't have the size of the images.
    """
    images, maps = images_and_maps(images, maps)
    with np.errstate(invalid="ignore"):
        again = explain_once(explain, _masked(images, maps))
    return np.where(finite_rows(images), (pearson(maps, again) + 1) / 2, np.nan)


def complexity(maps: Any) -> np.ndarray:
    """Measure how much of the image the heatmap covers: its mean.

    `sum m / number of pixels`, where m is the positive part of the map divided by its maximum. Lower is
    better; in [0, 1]. A blank map has 0, the best value, so never report it alone.

    Source: Poppi et al. (ADCC), CVPR Workshops 2021.

    Args:
        maps: `(N, *axes)`, signed or heatmaps.

    Returns:
        `(N,)`, float64; NaN where a map is not finite.
    """
    maps = as_maps(maps)
    finite = finite_rows(maps)
    maps = np.where(np.isfinite(maps), maps, 0)
    return np.where(finite, as_heatmaps(maps).reshape(len(maps), -1).mean(axis=1), np.nan)


def adcc(coherency: Any, complexity: Any, average_drop: Any) -> np.ndarray:
    """Combine coherency, complexity and average drop of each image: ADCC per image.

    `3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - average_drop))`, the harmonic mean; 0 if one of its
    terms is 0. Higher is better; in [0, 1]. The mean over images differs from `adcc_of_means`, which the
    tables of papers show.

    Source: Poppi et al. (ADCC), CVPR Workshops 2021, as in the authors' code.

    Args:
        coherency: what `metrics.coherency` returns, `(N,)`.
        complexity: what `metrics.complexity` returns, `(N,)`.
        average_drop: what `metrics.average_drop` returns, `(N,)`.

    Returns:
        `(N,)`, float64; NaN where one of the three is NaN.

    Raises:
        ValueError: if the three are not of one length.
    """
    coherent, covered, lost = values_of_images(
        coherency=coherency, complexity=complexity, average_drop=average_drop
    )
    return _harmonic_mean(coherent, 1 - covered, 1 - lost)


def adcc_of_means(
    coherency: Any, complexity: Any, average_drop: Any, *, level: float = 0.95, seed: int = 0
) -> Interval:
    """Combine the means of coherency, complexity and average drop over a data set: ADCC of means.

    It is what the tables of papers show. An image of which one of the three is NaN is left out of all means.

    Source: Poppi et al. (ADCC), CVPR Workshops 2021.

    Args:
        coherency: as in `adcc`.
        complexity: as in `adcc`.
        average_drop: as in `adcc`.
        level: as in `confidence_interval`.
        seed: as in `confidence_interval`.

    Returns:
        An `Interval`, whose `value` is the ADCC of the means.

    Raises:
        ValueError: as in `adcc`, or if `level` is out of range.
    """
    coherent, covered, lost = values_of_images(
        coherency=coherency, complexity=complexity, average_drop=average_drop
    )
    parts = np.stack([coherent, 1 - covered, 1 - lost], axis=1)
    return interval_of(parts, lambda means: _harmonic_mean(*np.moveaxis(means, -1, 0)), level, seed)


def arcc(coherency: Any, complexity: Any, road: Any) -> np.ndarray:
    """Combine coherency, complexity and ROAD of each image: ARCC.

    `3 / (1 / coherency + 1 / (1 - complexity) + 1 / clip(2 road, 0, 1))`, the harmonic mean; 0 if one of its
    terms is 0. Higher is better; in [0, 1].

    Source: pytorch-grad-cam, `metrics/arcc.py`, with `road` at `percentages=(20, 40, 60, 80)` of
    probabilities.

    Args:
        coherency: what `metrics.coherency` returns, `(N,)`.
        complexity: what `metrics.complexity` returns, `(N,)`.
        road: what `metrics.road` returns, `(N,)`.

    Returns:
        `(N,)`, float64; NaN where one of the three is NaN.

    Raises:
        ValueError: if the three are not of one length.
    """
    coherent, covered, gap = values_of_images(coherency=coherency, complexity=complexity, road=road)
    return _harmonic_mean(coherent, 1 - covered, np.clip(2 * gap, 0, 1))


def _harmonic_mean(*terms):
    with np.errstate(divide="ignore"):
        return len(terms) / sum(1 / np.maximum(term, 0) for term in terms)

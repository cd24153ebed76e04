"""Random perturbations: infidelity, mu-fidelity, max-sensitivity. Called by users and `metrics`' tables."""

from typing import Any

import numpy as np

from tf_gradcam.metrics._imputation import Fill
from tf_gradcam.metrics._inputs import (
    check_count,
    check_positive,
    finite_rows,
    generator,
    images_and_maps,
    spread,
)
from tf_gradcam.metrics._scoring import Explain, Score, explain_once, score_all
from tf_gradcam.metrics._similarity import pearson


def infidelity(
    score: Score,
    images: Any,
    maps: Any,
    *,
    noise: float = 0.1,
    samples: int = 50,
    seed: int = 0,
    batch_size: int = 32,
) -> np.ndarray:
    """Measure how badly the map predicts the change of the score under noise.

    `mean over I of (beta sum(I phi) - (f(x) - f(x - I)))^2`, where I is Gaussian noise on all pixels, phi the
    signed map, the same for every channel, and `beta = mean(sum(I phi) df) / mean(sum(I phi)^2)` the best
    scale of the map for that image: a map of an explainer has no unit of the score, so the measure without
    beta has no meaning for it. Lower is better; from 0 to `mean(df^2)`, which a blank map has, in squared
    units of the score.

    It takes the map for a gradient. Maps at the grid of a layer, which are smooth, predict little of a change
    by noise at single pixels: compare explainers of one kind.

    Source: Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019, definition 2.1;
    `normalize=True` of captum.

    Args:
        score: callable `images -> (M,)`, the score of the class that the maps explain. It gets whole copies
            of the batch, one after another: for a class of each image take
            `np.resize(classes, len(images))`.
        images: `(N, *axes, C)`, 1 to 3 axes, as the model takes them.
        maps: `(N, *axes)`, signed.
        noise: standard deviation of the noise, as a share of the range (maximum minus minimum) of each image.
        samples: number of noisy copies.
        seed: seed of the noise, which is the same for every image.
        batch_size: number of images that are scored at once; at least one copy of the batch is.

    Returns:
        `(N,)`, float64; NaN where a map, an image or a score is not finite.

    Raises:
        ValueError: if the maps don't have the size of the images, or an argument is out of range.
    """
    images, maps = images_and_maps(images, maps)
    check_positive(noise=noise)
    check_count(samples=samples, batch_size=batch_size)
    random = generator(seed)
    deviation = noise * spread(images)
    predicted = []

    def batches():
        yield images
        for _ in range(samples):
            field = random.standard_normal(images.shape[1:], np.float32)
            sums = (field.sum(axis=-1, dtype=np.float64) * maps).reshape(len(maps), -1).sum(axis=1)
            predicted.append(sums * deviation.ravel())
            yield images - deviation * field

    with np.errstate(invalid="ignore"):
        scores = score_all(score, batches(), samples + 1, images, batch_size)
        changes = scores[:, :1] - scores[:, 1:]
        products = np.stack(predicted, axis=1)
        square = (products**2).mean(axis=1)
        beta = np.divide((products * changes).mean(axis=1), square, out=np.zeros(len(maps)), where=square > 0)
        result = ((beta[:, None] * products - changes) ** 2).mean(axis=1)
    return np.where(finite_rows(images, maps), result, np.nan)


def mu_fidelity(
    score: Score,
    images: Any,
    maps: Any,
    *,
    baseline: str,
    cells: int = 9,
    share: float = 0.2,
    samples: int = 128,
    seed: int = 0,
    batch_size: int = 32,
) -> np.ndarray:
    """Correlate what the map says of hidden parts of the image with how much the score falls without them.

    `Pearson(sum of the map over the hidden pixels, f(x) - f(x without them))` over random sets of cells, all
    of one size. Higher is better; in [-1, 1]. Unlike `deletion`, it looks at the values of the map, not only
    their order, and hides far less of the image at once.

    Source: Bhatt et al., "Evaluating and Aggregating Feature-based Model Explanations", IJCAI 2020
    (faithfulness), with cells of pixels as features.

    Args:
        score: as in `infidelity`. Logits suit it better than probabilities, which saturate.
        images: as in `infidelity`.
        maps: as in `infidelity`.
        baseline: what replaces pixels, as in `deletion`.
        cells: number of cells along each axis; at most the number of pixels.
        share: share of the cells that are hidden at once, above 0 and below 1.
        samples: number of sets of cells, from 2.
        seed: seed of the sets and of the baseline's noise, the same for every image.
        batch_size: as in `infidelity`.

    Returns:
        `(N,)`, float64; NaN where the map or the score is the same for all sets, or a map, an image or a
        score is not finite.

    Raises:
        ValueError: if the maps don't have the size of the images, or an argument is out of range.
    """
    images, maps = images_and_maps(images, maps)
    check_count(cells=cells, samples=samples, batch_size=batch_size)
    check_positive(share=share, below=1)
    if samples < 2:
        raise ValueError(
            f"`samples` must be 2 or more: one pair has no correlation. Received: samples={samples}"
        )
    fill = Fill(images, baseline, seed)
    number_of, count = _cell_numbers(maps.shape[1:], cells)
    hidden_cells = min(max(1, round(share * count)), count - 1)
    random = generator(seed)
    hidden = np.zeros((samples, count), dtype=bool)
    for row in hidden:
        row[random.permutation(count)[:hidden_cells]] = True

    def batches():
        yield images
        for row in hidden:
            yield fill.without(row[number_of][None])

    scores = score_all(score, batches(), samples + 1, images, batch_size)
    sums = np.stack([np.bincount(number_of.ravel(), row.ravel(), count) for row in maps])
    finite = finite_rows(images, maps, scores)
    with np.errstate(invalid="ignore"):
        correlations = pearson(sums @ hidden.T, scores[:, :1] - scores[:, 1:])
    return np.where(finite, correlations, np.nan)


def _cell_numbers(size, cells):
    """Return the number of the cell of each pixel, of shape `size`, and how many cells there are."""
    numbers = np.zeros(size, dtype=int)
    count = 1
    for axis, length in enumerate(size):
        along = min(cells, length)
        places = (np.arange(length) * along) // length
        numbers = numbers * along + places.reshape([-1 if each == axis else 1 for each in range(len(size))])
        count *= along
    return numbers, count


def max_sensitivity(
    explain: Explain, images: Any, maps: Any, *, radius: float = 0.02, samples: int = 10, seed: int = 0
) -> np.ndarray:
    """Measure by how much noise that nobody sees changes the map, at worst.

    `max over x' of |map(x') - map(x)| / |map(x)|`, Euclidean norms of signed maps, with uniform noise in
    `[-radius, radius]`. Lower is better; from 0. An explainer that always answers the same map has 0, the
    best value, so never report it alone.

    Source: Yeh et al., NeurIPS 2019, definition 3.1, by sampling, divided by the norm as captum does.

    Args:
        explain: callable `images -> maps`, called `samples` times with all N noisy images in their order. It
            must explain the class that `maps` explain, not the class that is predicted for the noisy image.
        images: `(N, *axes, C)`, 1 to 3 axes, as the model takes them.
        maps: `(N, *axes)`, what `explain` returns for `images`, signed.
        radius: largest noise, as a share of the range (maximum minus minimum) of each image.
        samples: number of noisy copies.
        seed: seed of the noise, which is the same for every image.

    Returns:
        `(N,)`, float64; NaN where the map is 0 everywhere, or a map or an image is not finite.

    Raises:
        ValueError: if the maps don't have the size of the images, or an argument is out of range.
    """
    images, maps = images_and_maps(images, maps)
    check_positive(radius=radius)
    check_count(samples=samples)
    random = generator(seed)
    norms = np.sqrt((maps.reshape(len(maps), -1) ** 2).sum(axis=1))
    largest = np.zeros(len(maps))
    with np.errstate(invalid="ignore", divide="ignore"):
        reach = radius * spread(images)
        for _ in range(samples):
            field = 2 * random.random(images.shape[1:], np.float32) - 1
            noisy = explain_once(explain, images + reach * field)
            change = np.sqrt(((noisy - maps).reshape(len(maps), -1) ** 2).sum(axis=1))
            largest = np.maximum(largest, change)  # of NaN and a number: NaN
        sensitivity = np.divide(largest, norms, out=np.full(len(maps), np.nan), where=norms > 0)
    return np.where(finite_rows(images, maps), sensitivity, np.nan)

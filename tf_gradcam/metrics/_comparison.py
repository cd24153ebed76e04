"""Whose map is it: is it that of another class, or of another training? Called by users, and by `trust`."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tf_gradcam import targets
from tf_gradcam.metrics._explained import Cam, ExplainedBatch, explained_batches, rows_of
from tf_gradcam.metrics._inputs import check_choice, check_count, generator
from tf_gradcam.metrics._similarity import SIMILARITIES

_ROUNDING = 1e-3  # Of the largest value of a map; probabilities near 0 and 1 lose digits.


def other_class_similarity(
    cam: Cam,
    images: Any,
    target: Any = None,
    *,
    other: Any = None,
    measure: str = "spearman",
    seed: int = 0,
    batch_size: int = 32,
) -> np.ndarray:
    """Compare the map of the class with that of another class.

    A method that knows no class has 1. Two classes that look alike may rightly share a map.

    Source: Sixt et al., "When Explanations Lie", ICML 2020 (random logit).

    Args:
        cam: as in `sanity`.
        images: as in `sanity`.
        target: a class, one for each image, or `None` for the predicted class.
        other: the other class, an int or one for each image; by default one drawn for each image.
        measure: as in `sanity`.
        seed: seed of the other class.
        batch_size: as in `sanity`.

    Returns:
        `(N,)`, float64 in [-1, 1]; NaN where a map is constant or not finite, and where the other map is
        minus this one, as that of the other side of a single unit: it is so whatever the model learned.

    Raises:
        ValueError: if the target is no class, or the model has only one.
    """
    check_choice("measure", measure, SIMILARITIES)
    check_count(batch_size=batch_size)
    generator(seed)
    similar, start = [], 0
    for batch in explained_batches(cam, images, target, batch_size):
        stop = start + len(batch.images)
        if other is None:
            classes = other_classes(batch, start, seed)
        else:
            check_class(batch)
            classes = np.asarray(rows_of(other, len(images), start, stop).index)
        maps, other_maps = batch.grid_maps(), maps_of_other(batch, classes)
        numbers = SIMILARITIES[measure](maps, other_maps)
        similar.append(np.where(is_mirrored(batch, maps, other_maps), np.nan, numbers))
        start = stop
    return np.concatenate(similar)


def other_classes(batch: ExplainedBatch, first: int, seed: int) -> np.ndarray:
    """Return another class for each image of a batch, `(N,)`, by the number of the image from `first`."""
    check_class(batch)
    shape = batch.explanation.outputs.shape
    count = max(2, shape[1])  # A single unit has two sides.
    draws = [
        np.random.default_rng([seed % 2**32, number]).integers(1, count)
        for number in range(first, first + len(batch.images))
    ]
    return ((np.asarray(batch.target.index) + draws) % count).astype(np.int32)


def check_class(batch: ExplainedBatch) -> None:
    """Raise a `ValueError` unless the target is a class of one output `(N, classes)`."""
    is_class = isinstance(batch.target, targets.Class | targets.Probability | targets.Binary)
    shape = getattr(batch.explanation.outputs, "shape", ())
    if batch.explanation.target is None or not is_class or len(shape) != 2:
        raise ValueError(
            "`target` must be None or a class, for a model with one output (N, classes). Received: "
            f"target={type(batch.target).__name__}, and outputs of shape {tuple(shape) or None}"
        )


def maps_of_other(batch: ExplainedBatch, classes: np.ndarray) -> np.ndarray:
    """Return the maps of other classes for the images of a batch, `(N, *grid)`, as `grid_maps` does."""
    return batch.grid_maps(target=None if batch.is_classless else batch.target._replace(index=classes))


def is_mirrored(batch: ExplainedBatch, maps: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return where the map of the other class is minus that of the class, `(N,)` bool, up to rounding.

    The score of the other side of a single unit is minus the score, and so are both probabilities of a
    softmax of two. A method that is linear in the gradients then has minus the map, so that a similarity
    of -1 says nothing of the model. Other methods and scores are compared.

    Args:
        batch: the images with their target.
        maps: `(N, *grid)`, the maps of the class.
        other: maps of the other class, of the same shape.
    """
    if batch.has_several_layers:  # Their fused heatmaps hold no negative values to compare.
        is_unit = batch.explanation.outputs.shape[1] == 1
        return np.full(len(maps), is_unit and not batch.is_classless)
    axes = tuple(range(1, maps.ndim))
    largest = np.abs(maps).max(axes)
    return (largest > 0) & (np.abs(maps + other).max(axes) <= _ROUNDING * largest)


def repeatability(
    cams: Sequence[Cam],
    images: Any,
    target: Any = None,
    *,
    measure: str = "spearman",
    batch_size: int = 32,
) -> np.ndarray:
    """Compare the maps of several trained models: the mean similarity over all pairs of them.

    For one architecture that was trained several times it is repeatability, for several architectures
    reproducibility. It is 1 for one set of weights. Maps that differ between models which are equally good
    say more about the training than about the image.

    Source: Arun et al., "Assessing the Trustworthiness of Saliency Maps for Localizing Abnormalities in
    Medical Imaging", Radiology: Artificial Intelligence 2021, which takes SSIM.

    Args:
        cams: two or more of what `sanity` takes, such as `[cam, cam.with_weights(other_weights)]`. Their
            models take the same images.
        images: as in `sanity`.
        target: as in `sanity`; a class that is left to the model is the one that the first predicts.
        measure: as in `sanity`, of signed maps of the size of the images.
        batch_size: as in `sanity`.

    Returns:
        `(N,)`, float64 in [-1, 1]; NaN where a map is constant or not finite.

    Raises:
        ValueError: if there is only one cam, or an argument is out of range.
    """
    check_choice("measure", measure, SIMILARITIES)
    check_count(batch_size=batch_size)
    cams = list(cams)
    if len(cams) < 2:
        raise ValueError(f"`cams` must be two explainers or more. Received: {len(cams)}")
    means = []
    for maps in _maps_of_all(cams, images, target, batch_size):
        pairs = [SIMILARITIES[measure](*pair) for pair in itertools.combinations(maps, 2)]
        means.append(np.mean(pairs, axis=0))
    return np.concatenate(means)


def _maps_of_all(cams, images, target, batch_size) -> Iterator[list[np.ndarray]]:
    for batch in explained_batches(cams[0], images, target, batch_size):
        others = [ExplainedBatch(cam, batch.images, batch.target).signed_maps for cam in cams[1:]]
        yield [batch.signed_maps, *others]

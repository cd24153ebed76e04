"""The metrics that a table can hold, by name: what each needs, and how it is computed for a batch.

Called by `_evaluate`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from tf_gradcam.metrics._curves import deletion, insertion, road
from tf_gradcam.metrics._explained import ExplainedBatch
from tf_gradcam.metrics._localization import auprc, energy, iou, pointing_game, rank_accuracy, roc_auc
from tf_gradcam.metrics._masked import (
    adcc,
    arcc,
    coherency,
    complexity,
    drop_between,
    gain_between,
    increase_between,
    masked_scores,
)
from tf_gradcam.metrics._shape import entropy, sparseness
from tf_gradcam.metrics._stability import infidelity, max_sensitivity, mu_fidelity

_ARCC_PERCENTAGES = (20, 40, 60, 80)


class MapsOfBatch:
    """The maps to measure of a batch: those of the explainer, or others in their place.

    Args:
        batch: the images with their explanation.
        seed: seed of all metrics.
        batch_size: number of images that are scored at once.
        other: maps `(N, *axes)` of 0 or more in place of the explainer's, as if it always answered these.
    """

    def __init__(
        self, batch: ExplainedBatch, seed: int, batch_size: int, other: np.ndarray | None = None
    ) -> None:
        self.batch, self.other = batch, other
        self.images = batch.images
        self.scored = {"batch_size": batch_size}
        self.seeded = {"seed": seed}

    @property
    def heatmaps(self) -> np.ndarray:
        """Heatmaps in [0, 1], `(N, *axes)`."""
        return self.batch.heatmaps if self.other is None else self.other

    @property
    def signed(self) -> np.ndarray:
        """Signed maps, `(N, *axes)`."""
        return self.batch.signed_maps if self.other is None else self.other

    def explain(self, images: np.ndarray) -> np.ndarray:
        """Return the signed maps of altered images."""
        return self.batch.explain(images) if self.other is None else self.other

    @functools.cached_property
    def masked(self) -> tuple[np.ndarray, np.ndarray]:
        """The probabilities of the images, and of the images times their heatmaps."""
        return masked_scores(self.batch.probabilities, self.images, self.heatmaps, **self.scored)

    @functools.cached_property
    def coherency(self) -> np.ndarray:
        """What `metrics.coherency` returns."""
        return coherency(self.explain, self.images, self.signed)


class Metric(NamedTuple):
    """A metric of a table.

    Attributes:
        measure: function of a `MapsOfBatch`, and `baseline=`, `masks=` and options, that returns `(N,)`.
        better: `"higher"` or `"lower"`; `""` where neither is.
        needs: what it needs: `"baseline"`, `"masks"`, `"probability"`.
        options: the names of the options that it takes.
    """

    measure: Callable[..., np.ndarray]
    better: str
    needs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def _curve(function):
    def measure(maps, **options):
        return function(
            maps.batch.probabilities, maps.images, maps.signed, **{**maps.seeded, **maps.scored, **options}
        )

    return measure


def _insertion_minus_deletion(maps, **options):
    return _curve(insertion)(maps, **options) - _curve(deletion)(maps, **options)


def _of_score(function):
    def measure(maps, **options):
        return function(
            maps.batch.score, maps.images, maps.signed, **{**maps.seeded, **maps.scored, **options}
        )

    return measure


def _max_sensitivity(maps, **options):
    return max_sensitivity(maps.explain, maps.images, maps.signed, **{**maps.seeded, **options})


def _against_masks(function, signed):
    def measure(maps, masks, **options):
        return function(maps.signed if signed else maps.heatmaps, masks, **options)

    return measure


def _arcc(maps):
    gap = _curve(road)(maps, percentages=_ARCC_PERCENTAGES)
    return arcc(maps.coherency, complexity(maps.heatmaps), gap)


METRICS: Mapping[str, Metric] = {
    "deletion": Metric(_curve(deletion), "lower", ("baseline",), ("steps",)),
    "insertion": Metric(_curve(insertion), "higher", ("baseline",), ("steps",)),
    "insertion_minus_deletion": Metric(_insertion_minus_deletion, "higher", ("baseline",), ("steps",)),
    "mu_fidelity": Metric(_of_score(mu_fidelity), "higher", ("baseline",), ("cells", "share", "samples")),
    "road": Metric(_curve(road), "higher", (), ("percentages", "noise")),
    "infidelity": Metric(_of_score(infidelity), "lower", (), ("noise", "samples")),
    "max_sensitivity": Metric(_max_sensitivity, "lower", (), ("radius", "samples")),
    "average_drop": Metric(lambda maps: drop_between(*maps.masked), "lower", ("probability",)),
    "increase": Metric(lambda maps: increase_between(*maps.masked), "higher", ("probability",)),
    "average_gain": Metric(lambda maps: gain_between(*maps.masked), "higher", ("probability",)),
    "coherency": Metric(lambda maps: maps.coherency, "higher"),
    "complexity": Metric(lambda maps: complexity(maps.heatmaps), "lower"),
    "adcc": Metric(
        lambda maps: adcc(maps.coherency, complexity(maps.heatmaps), drop_between(*maps.masked)),
        "higher",
        ("probability",),
    ),
    "arcc": Metric(_arcc, "higher", ("probability",)),
    "sparseness": Metric(lambda maps: sparseness(maps.heatmaps), ""),
    "entropy": Metric(lambda maps: entropy(maps.heatmaps), ""),
    # A tie of positive pixels stays a tie; the pixels without evidence are in the order of the signed map.
    "rank_accuracy": Metric(_against_masks(rank_accuracy, True), "higher", ("masks",)),
    "roc_auc": Metric(_against_masks(roc_auc, True), "higher", ("masks",)),
    "auprc": Metric(_against_masks(auprc, True), "higher", ("masks",)),
    "pointing_game": Metric(_against_masks(pointing_game, False), "higher", ("masks",), ("tolerance",)),
    "energy": Metric(_against_masks(energy, False), "higher", ("masks",)),
    "iou": Metric(_against_masks(iou, False), "higher", ("masks",), ("threshold",)),
}


def noise_maps(first: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return a map of noise for each image, `(N, *axes)` in [0, 1]: 7 cells along each axis, drawn smoothly.

    An image gets the noise of its number, from `first`, whatever the batch.
    """
    maps = []
    for number in range(first, first + shape[0]):
        values = np.random.default_rng([seed % 2**32, number]).random([min(7, side) for side in shape[1:]])
        for axis, side in enumerate(shape[1:]):
            cells = values.shape[axis]
            places = (np.arange(side) + 0.5) * cells / side - 0.5
            line = functools.partial(np.interp, places, np.arange(cells))
            values = np.apply_along_axis(line, axis, values)
        maps.append(values)
    return np.stack(maps)


def centre_maps(shape: tuple[int, ...]) -> np.ndarray:
    """Return for each image the map that falls from 1 at its centre to 0 at its corners, `(N, *axes)`."""
    distance = np.zeros(shape[1:])
    for axis, side in enumerate(shape[1:]):
        along = np.abs(2 * (np.arange(side) + 0.5) / side - 1)
        distance = (
            distance + along.reshape([-1 if each == axis else 1 for each in range(len(shape) - 1)]) ** 2
        )
    return np.broadcast_to(1 - np.sqrt(distance / (len(shape) - 1)), shape)

"""Sanity checks: does a map depend on what the model learned? Called by users, and by `trust`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam.metrics._bootstrap import confidence_interval
from tf_gradcam.metrics._explained import Cam, ExplainedBatch, explained_batches
from tf_gradcam.metrics._inputs import check_choice, check_count, check_nonnegative, generator, spread
from tf_gradcam.metrics._randomized import random_weights
from tf_gradcam.metrics._similarity import SIMILARITIES
from tf_gradcam.metrics._tables import html_table, plain_table, record

_NOTHING, _EVERYTHING = "nothing", "everything"
_HIGHEST = 0.5  # Of the mean similarity of a map that passes.
_HEADER = ("randomized", "spearman", "pearson", "ssim", "low", "high", "images", "missing")


class Stage(NamedTuple):
    """How similar maps are to those of the trained model while some of it is random.

    Attributes:
        randomized: the last layer that was randomized, on the way from the output to the input.
        spearman: mean rank correlation over the images.
        pearson: mean correlation.
        ssim: mean structural similarity.
        low: lower end of the confidence interval of the similarity that was chosen.
        high: upper end of it.
        counted: number of images in these means.
        missing: number of images without one, as where a map is constant.
    """

    randomized: str
    spearman: float
    pearson: float
    ssim: float
    low: float
    high: float
    counted: int
    missing: int


class Sanity:
    """The result of `sanity`: a `Stage` for each state of the model, from trained to random.

    Attributes:
        stages: tuple of `Stage`.
        measure: the similarity that was chosen.
        values: that similarity of each image, `(N, stages)`.
        notes: sentences that belong to the numbers.
    """

    def __init__(
        self, stages: Sequence[Stage], measure: str, values: np.ndarray, notes: Sequence[str] = ()
    ) -> None:
        self.stages, self.measure, self.values = tuple(stages), measure, values
        self.notes = (*notes, self._verdict())

    @property
    def similarity(self) -> np.ndarray:
        """One number for each stage, from 1 where nothing is randomized; NaN where no image has one."""
        return np.array([getattr(stage, self.measure) for stage in self.stages])

    @property
    def mean_similarity(self) -> float:
        """The mean of the stages at which something is random."""
        later = self.similarity[1:]
        return float(np.nanmean(later)) if np.isfinite(later).any() else np.nan

    @property
    def passed(self) -> bool:
        """Whether maps change when what was learned is destroyed.

        That is, the mean similarity is at most 0.5, and so is that with everything random. The limit is a
        convention: read the numbers. False where there is none.
        """
        return bool(self.mean_similarity <= _HIGHEST and self.similarity[-1] <= _HIGHEST)

    def __repr__(self) -> str:
        """Return the table as lines of text."""
        return plain_table(_HEADER, self.stages, self.notes)

    def _repr_html_(self) -> str:
        return html_table(_HEADER, self.stages, self.notes)

    def to_dict(self) -> dict[str, Any]:
        """Return stages, verdict and notes for JSON, `None` in place of NaN."""
        stages = [record(stage) for stage in self.stages]
        return {
            "stages": stages,
            "measure": self.measure,
            "passed": self.passed,
            "notes": list(self.notes),
        }

    def _verdict(self) -> str:
        if np.isnan(self.mean_similarity):
            return "No verdict: no image has a map to compare."
        says = "passed: maps change" if self.passed else "failed: maps stay alike"
        return (
            f"Sanity check {says} when weights are randomized: mean {self.measure} "
            f"{self.mean_similarity:.2f}, at most {_HIGHEST} passes."
        )


def sanity(
    cam: Cam,
    images: Any,
    target: Any = None,
    *,
    order: str = "cascade",
    stages: int | None = None,
    measure: str = "spearman",
    samples: int = 1,
    noise: float = 0.1,
    level: float = 0.95,
    seed: int = 0,
    batch_size: int = 32,
) -> Sanity:
    """Compare maps with those of the same model with random weights, layer by layer from the output.

    The maps of a method that passes lose their likeness. One that fails draws the image, not what the model
    learned: an edge detector stays at 1. Passing is no proof that a map is right.

    The model is not touched. Each layer gets weights from its own initializer, batch normalization its first
    statistics; a weight without an initializer is drawn from a normal distribution of the same mean and
    deviation, which a note says. The class stays that of the trained model.

    Source: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, section 3; with `samples` above
    1, Hedström et al., "Sanity Checks Revisited", 2023, smooth MPRT.

    Args:
        cam: a `GradCAM` that is not frozen, or anything with its methods.
        images: `(N, *axes, C)`, as `cam` takes them.
        target: as in `evaluate`.
        order: `"cascade"`, where a layer stays random once it is, or `"independent"`, where each stage
            randomizes its own layers only.
        stages: number of stages; by default one for each layer with a kernel. The first is the layer nearest
            to the output, except if there is one stage; the last of a cascade is everything.
        measure: the similarity that counts: `"spearman"`, `"pearson"` or `"ssim"`, of signed maps on the
            layer's own grid.
        samples: number of noisy images that each map is averaged over; 1 is the image without noise.
        noise: standard deviation of that noise, as a share of the range of each image.
        level: share of bootstrap means inside the confidence intervals.
        seed: seed of weights, noise and bootstrap.
        batch_size: number of images that are explained at once.

    Returns:
        A `Sanity`; its `similarity` has one number for each stage.

    Raises:
        ValueError: if the scores are those of the trained model when everything is random, as for a model
            whose weights are no Keras variables; if `cam` is frozen; if an argument is out of range.
    """
    check_choice("order", order, ("cascade", "independent"))
    check_choice("measure", measure, SIMILARITIES)
    check_count(samples=samples, batch_size=batch_size)
    check_nonnegative(noise=noise)
    generator(seed)
    names: list[str] = []
    cams: list[Cam] = []
    notes: list[str] = []
    similar: dict[str, list] = {name: [] for name in SIMILARITIES}
    for batch in explained_batches(cam, images, target, batch_size):
        if not cams:
            names, cams, notes = _random_cams(batch, order, stages, seed)
        trained = _averaged(batch, None, samples, noise, seed)
        maps = [_averaged(batch, random, samples, noise, seed) for random in cams]
        for name, compare in SIMILARITIES.items():
            columns = [compare(trained, trained), *(compare(trained, other) for other in maps)]
            similar[name].append(np.stack(columns, axis=1))
    together = {name: np.concatenate(parts) for name, parts in similar.items()}
    rows = [
        _stage(name, {each: values[:, place] for each, values in together.items()}, measure, level, seed)
        for place, name in enumerate([_NOTHING, *names])
    ]
    return Sanity(rows, measure, together[measure], notes)


def _stage(name, values, measure, level, seed) -> Stage:
    chosen = confidence_interval(values[measure], level=level, seed=seed)
    ranks, linear, structural = (_mean(values[each]) for each in ("spearman", "pearson", "ssim"))
    return Stage(name, ranks, linear, structural, chosen.low, chosen.high, chosen.counted, chosen.missing)


def _mean(values) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else np.nan


def _random_cams(batch: ExplainedBatch, order, stages, seed) -> tuple[list[str], list[Cam], list[str]]:
    """Return the name of each stage, the explainer of each, and notes."""
    model = batch.cam.model
    weights, groups = random_weights(model, batch.images, seed)
    if not groups:
        raise ValueError("`cam` must explain a model with weights. Received: a model without any.")
    if stages is not None:
        check_count(stages=stages)
    everything = batch.cam.with_weights(weights.random)
    _check_changed(batch, everything)
    count = min(stages or len(groups), len(groups))
    ends = np.round(np.linspace(1, len(groups), count)).astype(int) if count > 1 else [len(groups)]
    names, cams = [], []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        chosen = groups[0 if order == "cascade" else start : end]
        names.append(groups[end - 1].name)
        positions = [position for group in chosen for position in group.positions]
        cams.append(batch.cam.with_weights(weights.with_random(positions)))
    if order == "cascade":
        names[-1] = _EVERYTHING
    notes = []
    if weights.without_initializer:
        notes.append(
            f"{len(weights.without_initializer)} of {len(weights.trained)} weights have no initializer: they "
            "were drawn from a normal distribution of the same mean and deviation."
        )
    return names, cams, notes


def _check_changed(batch, everything) -> None:
    before = np.asarray(batch.explanation.score, np.float64)
    after = np.asarray(everything.scores(batch.images, batch.target), np.float64)
    if np.allclose(before, after, rtol=1e-5, atol=1e-8, equal_nan=True):
        raise ValueError(
            "`cam` must explain a model whose scores depend on its Keras weights. Received: the same scores "
            "with all of them random. Weights that are plain tf.Variables, or in a layer that runs a "
            "SavedModel, can't be replaced."
        )


def _averaged(batch, cam, samples, noise, seed) -> np.ndarray:
    """Return the signed maps of a batch by `cam`, averaged over noisy images."""
    if samples == 1:
        return batch.grid_maps(cam)
    random, total = generator(seed), 0.0
    deviation = noise * spread(batch.images)
    for _ in range(samples):
        field = random.standard_normal(batch.images.shape[1:], np.float32)
        total = total + batch.grid_maps(
            cam, images=(batch.images + deviation * field).astype(batch.images.dtype)
        )
    return total / samples


def complexity_rise(
    cam: Cam, images: Any, target: Any = None, *, bins: int = 100, seed: int = 0, batch_size: int = 32
) -> np.ndarray:
    """Measure how much more complex maps become when everything is random: efficient MPRT.

    `(H(random) - H(trained)) / H(trained)`, where H is the entropy of the histogram of a map's values. Higher
    is better; a method that ignores the weights has 0. It needs one random model, and compares no positions.

    Source: Hedström et al., "Sanity Checks Revisited", 2023, efficient MPRT.

    Args:
        cam: as in `sanity`.
        images: as in `sanity`.
        target: as in `sanity`.
        bins: number of bins of each histogram, from the lowest value of a map to its highest, from 2.
        seed: seed of the weights.
        batch_size: as in `sanity`.

    Returns:
        `(N,)`, float64; NaN where a map is constant, as then H is 0, or not finite.

    Raises:
        ValueError: as `sanity` does.
    """
    check_count(bins=bins, batch_size=batch_size)
    generator(seed)
    random: Cam | None = None
    rises = []
    for batch in explained_batches(cam, images, target, batch_size):
        if random is None:
            _, (random,), _ = _random_cams(batch, "cascade", 1, seed)
        trained = _histogram_entropy(batch.grid_maps(), bins)
        rises.append((_histogram_entropy(batch.grid_maps(random), bins) - trained) / trained)
    return np.concatenate(rises)


def _histogram_entropy(maps, bins) -> np.ndarray:
    entropies = np.full(len(maps), np.nan)
    for place, one in enumerate(maps):
        if np.isfinite(one).all() and one.min() < one.max():
            counts = np.histogram(one, bins)[0]
            shares = counts[counts > 0] / one.size
            entropies[place] = -(shares * np.log(shares)).sum()
    return np.where(entropies > 0, entropies, np.nan)

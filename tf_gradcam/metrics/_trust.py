"""`trust`: a short table of how far heatmaps can be trusted, with a sentence for each number.

Called by `GradCAM.trust`, and by users.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam.metrics._bootstrap import Interval, confidence_interval
from tf_gradcam.metrics._comparison import is_mirrored, maps_of_other, other_classes
from tf_gradcam.metrics._curves import deletion, insertion
from tf_gradcam.metrics._explained import Cam, ExplainedBatch, explained_batches
from tf_gradcam.metrics._inputs import check_count, generator
from tf_gradcam.metrics._sanity import Sanity, sanity
from tf_gradcam.metrics._similarity import spearman
from tf_gradcam.metrics._stability import mu_fidelity
from tf_gradcam.metrics._tables import html_table, plain_table, record

_BASELINES = ("zero", "blur")
_STEPS, _SAMPLES, _STAGES = 8, 24, 3
_ALIKE = 0.9  # A rank correlation of maps of two classes.
_COMPARED, _NO_OTHER, _BLANK, _MIRRORED = range(4)  # Why an image has no similarity to another class.
_HEADER = ("check", "baseline", "mean", "low", "high", "images", "missing")

_FIDELITY, _CURVES = "mu-fidelity", "insertion minus deletion"
_SAYS = {
    _CURVES: (
        "the score depends more on what the heatmap shows than on the rest of the image",
        "the score may depend on a background, and then so does a faithful heatmap",
    ),
    _FIDELITY: (
        "the score falls more where the map is higher",
        "it hides a fifth of the image at once, and says nothing of single pixels",
    ),
}


class Check(NamedTuple):
    """A number in the table of `trust`.

    Attributes:
        check: what was measured.
        baseline: what stood in for removed pixels, or `None`.
        mean: the mean over the images.
        low: lower end of its 95 % confidence interval.
        high: upper end of it.
        counted: number of images in the mean.
        missing: number of images without a value.
        means: one sentence: what the number says of these heatmaps, and what it can't say.
        values: the value of each image, `(N,)`.
    """

    check: str
    baseline: str | None
    mean: float
    low: float
    high: float
    counted: int
    missing: int
    means: str
    values: np.ndarray


class Trust:
    """The result of `trust`: a `Check` for each number.

    Attributes:
        checks: tuple of `Check`.
    """

    def __init__(self, checks: Sequence[Check]) -> None:
        self.checks = tuple(checks)

    def __iter__(self):
        return iter(self.checks)

    def __len__(self) -> int:
        return len(self.checks)

    def __repr__(self) -> str:
        """Return the table, and a sentence for each check, as lines of text."""
        return plain_table(_HEADER, self._cells(), ["", *self._sentences()])

    def _repr_html_(self) -> str:
        return html_table(_HEADER, self._cells(), self._sentences())

    def to_dict(self) -> dict[str, Any]:
        """Return `{"checks": [...]}` for JSON: each check a dict, `None` in place of NaN."""
        return {"checks": [record(check) for check in self.checks]}

    def _cells(self):
        return [check[:7] for check in self.checks]

    def _sentences(self) -> list[str]:
        by_sentence = {each.means: each.check.partition(":")[0] for each in self.checks}
        return [f"{name}: {means}" for means, name in by_sentence.items()]


def trust(cam: Cam, images: Any, target: Any = None, *, seed: int = 0, batch_size: int = 32) -> Trust:
    """Measure in short how far the heatmaps of an explainer can be trusted on these images.

    Two measures of faithfulness with two baselines each, whether maps change with the weights, and whether
    they change with the class, which can't be asked of a single unit. Each comes with a sentence that says
    what it means and what it can't. No number says that a map is right; for that there must be masks, and
    `evaluate`.

    It takes 87 forward passes for each image, and a few for maps. Images and target must be such as
    `evaluate` takes.

    Args:
        cam: a `GradCAM` that is not frozen.
        images: `(N, *axes, C)`, as `cam` takes them. 64 of what the model is for tell more than 8.
        target: a class, one for each image, or `None` for each image's own predicted class; see `evaluate`.
        seed: seed of everything that is drawn.
        batch_size: largest number of images in memory at once, besides `images`.

    Returns:
        A `Trust`: print it.

    Raises:
        ValueError: if the target leaves more than a class to the model, `cam` is frozen, or the weights of
            the model can't be replaced; see `sanity`.
    """
    check_count(batch_size=batch_size)
    generator(seed)
    shown = sanity(cam, images, target, stages=_STAGES, seed=seed, batch_size=batch_size)
    values: dict[tuple, list] = {}
    without: list[np.ndarray] = []
    start = 0
    for batch in explained_batches(cam, images, target, batch_size):
        for baseline in _BASELINES:
            for name, numbers in _faithfulness(batch, baseline, seed, batch_size).items():
                values.setdefault((name, baseline), []).append(numbers)
        similar, reasons = _other_class(batch, start, seed)
        values.setdefault(("other class", None), []).append(similar)
        without.append(reasons)
        start += len(batch.images)
    values |= {
        (f"random weights: {stage.randomized}", None): [shown.values[:, place]]
        for place, stage in enumerate(shown.stages)
        if place
    }
    joined = {key: np.concatenate(parts) for key, parts in values.items()}
    return Trust(_checks(joined, shown, np.concatenate(without), seed))


def _checks(values: dict[tuple, np.ndarray], shown: Sanity, without: np.ndarray, seed) -> list[Check]:
    intervals = {key: confidence_interval(numbers, seed=seed) for key, numbers in values.items()}
    checks = []
    for (name, baseline), interval in intervals.items():
        if name.startswith("random weights"):
            means = _of_random_weights(shown)
        elif baseline is None:
            means = _of_other_class(interval, without)
        else:
            means = _of_faithfulness(name, [each for key, each in intervals.items() if key[0] == name])
        checks.append(Check(name, baseline, *interval, means, values[name, baseline]))
    order = [_FIDELITY, _CURVES]
    return sorted(checks, key=lambda check: order.index(check.check) if check.check in order else len(order))


def _of_faithfulness(name, intervals: Sequence[Interval]) -> str:
    says, but = _SAYS[name]
    if not any(interval.counted for interval in intervals):
        return "no image has a value."
    if all(interval.low > 0 for interval in intervals):
        return f"{says}, with both baselines; a map of noise has 0; {but}."
    if all(interval.high < 0 for interval in intervals):
        return f"worse than a map of noise, which has 0, with both baselines: it is not true that {says}."
    return f"not shown with both baselines that {says}: an interval reaches 0, which a map of noise has."


def _of_random_weights(shown: Sanity) -> str:
    if not shown.values.size or np.isnan(shown.mean_similarity):
        return "no image has a map to compare."
    says = (
        "maps change when weights are randomized from the output on, as they must; this is no proof that "
        "they are right"
        if shown.passed
        else "maps stay alike when weights are randomized from the output on: they show the image more than "
        "what the model learned; this check can't say which parts are wrong"
    )
    return f"{says} (mean {shown.mean_similarity:.2f}; 1 is the same map, at most 0.5 passes)."


def _of_other_class(interval: Interval, without: np.ndarray) -> str:
    """Return the sentence, given for each image why it has no number; see `_other_class`."""
    count = len(without)
    blank, mirrored = (without == _BLANK).sum(), (without == _MIRRORED).sum()
    if count and (without == _NO_OTHER).all():
        return "there is no other class to compare with."
    why = []
    if mirrored:
        where = "" if mirrored == count else f"in {mirrored} of {count} images "
        why.append(
            f"{where}there is nothing to compare: the map of the other side or class is minus this one "
            "whatever the model learned, as always with a single unit"
        )
    if blank:
        why.append(f"in {blank} of {count} images the map of a class drawn at random is blank")
    if not interval.counted:
        if blank and not mirrored:
            why.append("nothing in the image speaks for that class, so there is no similarity to measure")
        return ": ".join(why) + "." if why else "no image has a map to compare."
    kind = "hardly depend" if interval.value > _ALIKE else "depend"
    says = (
        f"maps {kind} on the class: the similarity to the map of a class drawn at random; 1 is the same map; "
        "classes that look alike may rightly share one"
    )
    return f"{says}; {'; '.join(why)}, and these have no number." if why else f"{says}."


def _faithfulness(batch: ExplainedBatch, baseline, seed, batch_size) -> dict[str, np.ndarray]:
    given = {"baseline": baseline, "seed": seed, "batch_size": batch_size}
    signed = batch.signed_maps
    curves = [
        curve(batch.probabilities, batch.images, signed, steps=_STEPS, **given)
        for curve in (insertion, deletion)
    ]
    fidelity = mu_fidelity(batch.score, batch.images, signed, samples=_SAMPLES, **given)
    return {_CURVES: curves[0] - curves[1], _FIDELITY: fidelity}


def _other_class(batch, start, seed) -> tuple[np.ndarray, np.ndarray]:
    """Return the similarity to the map of another class, and why it has none or `_COMPARED`, `(N,)` each."""
    try:
        classes = other_classes(batch, start, seed)
    except ValueError:  # There is no other class.
        return np.full(len(batch.images), np.nan), np.full(len(batch.images), _NO_OTHER)
    maps, other = batch.grid_maps(), maps_of_other(batch, classes)
    axes = tuple(range(1, maps.ndim))
    mirrored, is_blank = is_mirrored(batch, maps, other), maps.any(axes) & ~other.any(axes)
    reasons = np.where(mirrored, _MIRRORED, np.where(is_blank, _BLANK, _COMPARED))
    return np.where(mirrored, np.nan, spearman(maps, other)), reasons

"""The metrics of tf_gradcam beside those of pytorch-grad-cam, torch-cam and captum.

Where a library differs, what it computes instead must give its number. Called by compare.py.
"""

import functools
import importlib.metadata
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from metric_peers import (
    FOUR,
    NINE,
    SAMPLES,
    STEPS,
    captum_infidelity,
    captum_sensitivity,
    grad_cam_arcc,
    grad_cam_coherency,
    grad_cam_complexity,
    grad_cam_imputation,
    grad_cam_masked,
    grad_cam_road,
    noisy_images,
    our_arcc,
    our_coherency,
    our_complexity,
    our_curves,
    our_imputation,
    our_infidelity,
    our_masked,
    our_road,
    our_sensitivity,
    scenes,
    sensitivity,
    torch_cam_curves,
    torch_cam_masked,
)
from pytorch_grad_cam.metrics import road

from tf_gradcam import metrics

AGREES = 1e-5
GRAD_CAM, TORCH_CAM, CAPTUM = "pytorch-grad-cam", "torch-cam", "captum"
DATE = "30 November 2026"
PACKAGES = "grad-cam", "torchcam", "captum", "torch", "tensorflow", "numpy"
HEADER = ["metric", "library", "its name there", "from tf_gradcam", "verdict"]

# What they compute where they differ


def steps_rounded_up(scene, name="smooth", steps=50):
    """It takes n / steps pixels a step, rounded up, and fewer in the last one; ours are as even as can be.
    RISE fixes the pixels of a step. Both areas are over the share that is removed, so neither is wrong; with
    a number of steps that divides the pixels they are equal."""
    maps, size = getattr(scene, name), -(-scene.pixels // steps)
    counts = np.array([*range(0, scene.pixels, size), scene.pixels])
    ranks = np.argsort(np.argsort(-maps.ravel(), kind="stable")).reshape(maps.shape)
    areas = []
    for inserts in (False, True):
        kept = [(ranks < count) == inserts for count in counts]
        scores = [scene.score(scene.images * each[..., None])[0] for each in kept]
        areas.append([np.trapezoid(scores, counts / scene.pixels)])
    return np.array(areas)


def ties_by_row(scene):
    """Pixels of one value, here the zeros of a heatmap, come row by row from the top, so that the number
    depends on where in the image nothing was found; ours come in an order drawn by `seed`. RISE has no rule
    for them."""
    return steps_rounded_up(scene, "heatmap", STEPS)


def above_percentile(scene, shares=NINE, maps=None):
    """It removes what is at or above a percentile of the values: at some shares one pixel more than p %. The
    paper removes p % and has no rule for rounding; ours rounds to the nearest."""
    maps = scene.smooth if maps is None else maps
    return (_mean_score(scene, 1 - maps, shares) - _mean_score(scene, maps, shares)) / 2


def _mean_score(scene, values, shares):
    removed = [values >= np.percentile(values, share) for share in shares]
    filled = [metrics.noisy_linear_imputation(scene.images, each, noise=0) for each in removed]
    return np.mean([scene.score(each) for each in filled], axis=0)


def ties_above_percentile(scene):
    """All pixels of one value go at once: where half of a heatmap is 0, 50 % are removed where 10 % were
    asked for. The paper removes p %, as ours does, which draws by `seed` what goes first among equals."""
    return _mean_score(scene, 1 - scene.heatmap, (90,))


def arcc_above_percentile(scene):
    """As its ROAD."""
    maps = scene.explain(scene.images)
    return metrics.arcc(
        our_coherency(scene), metrics.complexity(maps), above_percentile(scene, shares=FOUR, maps=maps)
    )


def drop_not_divided(scene):
    """It is f(x) - f(x m), without the division by f(x) that makes it a share in the paper (Grad-CAM++), in
    torch-cam and in ours."""
    return our_masked(_drop, scene)


def _drop(score, images, maps):
    return np.maximum(score(images) - score(images * maps[..., None]), 0)


def map_in_its_units(scene):
    """The default, `normalize=False`, is the paper's definition 2.1, for maps in units of the score, such as
    gradients. A heatmap has no unit; ours always has the best scale, as the authors' code."""
    noisy = noisy_images(scene)
    predicted = ((scene.images - noisy) * (scene.smooth - 0.5)[..., None]).reshape(SAMPLES, -1).sum(axis=1)
    return np.mean((predicted - (scene.score(scene.images) - scene.score(noisy))) ** 2, keepdims=True)


TITLE = "## Metrics\n"
TEXT = """
[`tf_gradcam.metrics`](trust.md) beside what the libraries ship of it, made on {date} by
[`measures.py`](../benchmarks/parity/measures.py): the same images, the same maps, and the two *small*
networks in float64, which answer the probability of a class.
{versions}.

The map is the signed Grad-CAM map, scaled to [0, 1], which has no two equal values; or, as heatmaps are, the
same with 0 in half of its places. Where noise is drawn, captum gets the images that tf_gradcam made. *From
tf_gradcam* is the largest difference on three photographs and both networks, as a share of the metric; two
*agree* up to 1e-5.

{measures}
None of the three has a pointing game, energy, IoU, mu-fidelity or a randomization of weights. What
scikit-learn, SciPy and scikit-image have of it (ROC AUC, average precision, rank correlation, SSIM), the
tests compare with.

{notes}
"""


class Measure(NamedTuple):
    """A metric, ours and a library's, each a function of a scene.

    Attributes:
        name: in the table.
        library: whose it is.
        called: what the library calls it.
        ours: what tf_gradcam answers.
        theirs: what the library answers.
        instead: what it computes where it differs.
    """

    name: str
    library: str
    called: str
    ours: Callable
    theirs: Callable
    instead: Any = None


_of = functools.partial
_DROP, _RISE = _of(our_masked, metrics.average_drop), _of(our_masked, metrics.increase)
_CURVES = TORCH_CAM, "`DeletionInsertionMetric`"
MEASURES = (
    Measure(f"`deletion`, `insertion`, {STEPS} steps", *_CURVES, our_curves, torch_cam_curves),
    Measure(
        "the same from a blurred image",
        *_CURVES,
        *(_of(each, baseline="blur") for each in (our_curves, torch_cam_curves)),
    ),
    Measure(
        "the same in 50 steps",
        *_CURVES,
        *(_of(each, steps=50) for each in (our_curves, torch_cam_curves)),
        steps_rounded_up,
    ),
    Measure(
        "the same of a heatmap half of which is 0",
        *_CURVES,
        *(_of(each, name="heatmap") for each in (our_curves, torch_cam_curves)),
        ties_by_row,
    ),
    *(
        Measure(
            f'`road_curve`, `"{order}"`, at 10, 30, ..., 90 %',
            GRAD_CAM,
            f"`{called}`",
            *(_of(each, order=order) for each in (our_road, grad_cam_road)),
        )
        for order, called in (
            ("morf", "ROADMostRelevantFirstAverage"),
            ("lerf", "ROADLeastRelevantFirstAverage"),
        )
    ),
    Measure("`road`, at 10, 30, ..., 90 %", GRAD_CAM, "`ROADCombined`", our_road, grad_cam_road),
    Measure(
        "`road`, at 10, 20, ..., 90 %",
        GRAD_CAM,
        "`ROADCombined`",
        *(_of(each, shares=NINE) for each in (our_road, grad_cam_road)),
        above_percentile,
    ),
    Measure(
        '`road_curve`, `"lerf"`, at 10 %, of a heatmap half of which is 0',
        GRAD_CAM,
        "`ROADLeastRelevantFirst`",
        _of(our_road, order="lerf", shares=(10,), name="heatmap"),
        _of(grad_cam_road, order="lerf", shares=(90,), name="heatmap"),
        ties_above_percentile,
    ),
    Measure(
        "`noisy_linear_imputation`", GRAD_CAM, "`NoisyLinearImputer`", our_imputation, grad_cam_imputation
    ),
    Measure("`average_drop`", TORCH_CAM, "`ClassificationMetric`", _DROP, _of(torch_cam_masked, "avg_drop")),
    Measure(
        "`average_drop`",
        GRAD_CAM,
        "`DropInConfidence`",
        _DROP,
        _of(grad_cam_masked, "DropInConfidence"),
        drop_not_divided,
    ),
    Measure("`increase`", TORCH_CAM, "`ClassificationMetric`", _RISE, _of(torch_cam_masked, "conf_increase")),
    Measure(
        "`increase`",
        GRAD_CAM,
        "`IncreaseInConfidence`",
        _RISE,
        _of(grad_cam_masked, "IncreaseInConfidence"),
    ),
    Measure("`complexity`", GRAD_CAM, "`Complexity`", our_complexity, grad_cam_complexity),
    Measure("`coherency`", GRAD_CAM, "`Coherency`", our_coherency, grad_cam_coherency),
    Measure("`arcc`", GRAD_CAM, "`ARCC`", our_arcc, grad_cam_arcc, arcc_above_percentile),
    Measure("`infidelity`", CAPTUM, "`infidelity(normalize=True)`", our_infidelity, captum_infidelity),
    Measure(
        "`infidelity`",
        CAPTUM,
        "`infidelity`",
        our_infidelity,
        _of(captum_infidelity, normalize=False),
        map_in_its_units,
    ),
    Measure("`max_sensitivity`", CAPTUM, "`sensitivity_max`", our_sensitivity, captum_sensitivity),
)


# What came of it


def distance(found, expected):
    """Return the largest difference, as a share of the largest number expected; of 0 as it is."""
    return np.abs(found - expected).max() / (np.abs(expected).max() or 1)


def collect(pairs):
    """Return by measure the largest distance of ours and of what they compute instead from theirs."""
    found = dict.fromkeys(MEASURES, (0, 0))
    for scene in (scene for pair in pairs for scene in scenes(pair)):
        print(f"metrics, {scene.pair.name}, class {scene.index}", end=": ", flush=True)
        for measure in MEASURES:
            theirs = measure.theirs(scene)
            instead = np.inf if measure.instead is None else distance(measure.instead(scene), theirs)
            far = distance(measure.ours(scene), theirs), instead
            found[measure] = tuple(np.maximum(found[measure], far))
            print(f"{measure.called} {far[0]:.0e}", end="; ", flush=True)
        print()
    return found


def rows(found):
    for measure, (far, instead) in found.items():
        cell = f"{far:.0e}" if far <= AGREES else f"**{far:.0e}**"
        yield [measure.name, measure.library, measure.called, cell, verdict(measure, far, instead)]


def verdict(measure, far, instead):
    if far <= AGREES:
        return "agrees"
    if measure.instead is None:
        return "**differs**, and it is not known why"
    why = " ".join(measure.instead.__doc__.split())
    return f"**differs.** {why} This gives its number to {instead:.0e}."


def faults(found):
    """Yield what is neither agreement nor explained."""
    for measure, far in found.items():
        if min(far) > AGREES:
            yield f"{measure.name}: {measure.called} of {measure.library} differs, and it is not known why"


def notes(pair):
    """Return what else they do, measured on one network: a few sentences for each."""
    scene = next(scenes(pair))
    return [nothing_left(scene), noise_of_road(scene), blank_map(scene)]


def nothing_left(scene):
    metric = road.ROADMostRelevantFirst(10)
    with warnings.catch_warnings(action="ignore"):
        _, filled = metric(
            scene.tensors().float(),
            scene.heatmap,
            scene.target(),
            scene.net_of_float32,
            return_visualization=True,
        )
    return (
        "In pytorch-grad-cam `percentile=p` of ROAD removes 100 - p % of the pixels. Where the percentile of "
        "a heatmap is 0, all are removed, and the linear system is singular: of an image in "
        f"[{scene.images.min():.1f}, {scene.images.max():.1f}] it makes one in [{filled.min():.1g}, "
        f"{filled.max():.1g}]. tf_gradcam removes as many as were asked for."
    )


def noise_of_road(scene):
    given = scene.tensors().float(), scene.smooth, scene.target(), scene.net_of_float32
    values = [float(road.ROADCombined()(*given)[0]) for _ in range(5)]
    return (
        "Its noise of 0.01 is absolute and drawn anew in each call: five calls on one map answer "
        f"{min(values):.5f} to {max(values):.5f}. In tf_gradcam it is a share of the range of the image, and "
        "drawn by `seed`. For the table both have no noise. It takes float32 images only."
    )


def blank_map(scene):
    noisy = scene.tensors().repeat(SAMPLES, 1, 1, 1)
    theirs = float(sensitivity(scene, lambda images: np.zeros((len(images), 8, 8)), noisy)[0])
    blank = np.zeros(scene.images.shape[:-1])
    ours = metrics.max_sensitivity(lambda images: np.repeat(blank, len(images), 0), scene.images, blank)[0]
    return (
        f"captum's max-sensitivity of an explainer whose maps are 0 everywhere is {theirs:.0f}, the best "
        f"value; that of tf_gradcam {'NaN' if np.isnan(ours) else ours}: there is nothing to compare."
    )


def section(pairs):
    """Return the section of docs/parity.md, and what is not explained."""
    found = collect(pairs)
    lines = (HEADER, len(HEADER) * ["---"], *rows(found))
    text = TEXT.format(
        date=DATE,
        versions=", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES),
        measures="".join(f"| {' | '.join(line)} |\n" for line in lines),
        notes="\n".join(f"* {note}" for note in notes(pairs[0])),
    )
    return TITLE + text, list(faults(found))

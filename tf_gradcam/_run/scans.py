"""Explain volumes, videos, and scenes by windows: one heatmap on one scale for all. `run` calls it."""

import concurrent.futures
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tf_gradcam import formats
from tf_gradcam._run.chosen_methods import MethodExplainer
from tf_gradcam._run.file_models import FileCam, check_slices_have_class
from tf_gradcam._run.findings import (
    Finding,
    ImageExplanation,
    PhotographExplainer,
    highest_values,
    make_row,
)
from tf_gradcam._run.request import Request

_SLICES_IN_BATCH = 16
_SLICES_ASKED = 32  # for the class of a volume or video that is explained slice by slice
_MOST_CELLS = 2**24  # of a heatmap by windows; as many as a picture has pixels
_LONGEST_SIDE = 16_384  # of that heatmap

Report = Callable[[str], None]  # takes a few words on how far it is


def explain_scan(
    scan: formats.Scan, explainer: PhotographExplainer, request: Request, report: Report
) -> list[Finding]:
    """Explain a scan that is not explained as one image: return a finding for each method.

    A volume is explained as a whole by a model that takes volumes. By a model that takes images, a volume or
    video is explained slice by slice, for one class: the requested one, or the best on average of up to 32
    slices. With `request.sliding`, what the model takes as one image or volume is explained by windows of
    the model's own size.

    Returns:
        The findings; each heatmap is `(*axes)` on a grid of its own, divided by its maximum.

    Raises:
        ValueError: if the model takes no such scan, or if the request is for images only.
    """
    if request.top > 1:
        raise ValueError(f"`top` must be 1 for a volume or video, and for windows. Received: {request.top}")
    if request.boxes is not None and len(scan.axes) != 2:
        raise ValueError(
            f"`boxes` must be left out for a volume or video: boxes are of images. Received: {request.boxes}"
        )
    if len(scan.axes) == 3 and not explainer.takes_volumes:
        if request.sliding is not None:
            raise ValueError(
                "`sliding` must be left out for a volume or video by a model of images, which explains each "
                f"slice as a whole. Received: {request.sliding}"
            )
        index = _class_of_slices(scan, explainer)
        return [_explain_slices(scan, method, index, explainer, report) for method in explainer.methods]
    return [_explain(scan, method, explainer, request, report) for method in explainer.methods]


def place_of_peak(scan: formats.Scan, heatmap: np.ndarray) -> dict[str, Any]:
    """Return where the heatmap of a scan has its maximum, for a row: in the array, the world and time."""
    if not heatmap.any():
        return {}
    peak = np.unravel_index(np.argmax(heatmap), heatmap.shape)
    index = [
        (float(cell) + 0.5) * length / cells - 0.5
        for cell, length, cells in zip(peak, scan.shape, heatmap.shape, strict=False)
    ]
    place: dict[str, Any] = {"axes": scan.axes, "peak": [round(each, 2) for each in index]}
    if scan.affine is not None:
        # Ten digits: a degree of latitude is 111 km, and a pixel of a slide 0.00025 mm.
        place |= {"position": [float(f"{each:.10g}") for each in scan.position(index)], "space": scan.space}
    if scan.times is not None:
        frame = index[scan.axes.index("t")]
        place["seconds_at_peak"] = round(float(np.interp(frame, np.arange(len(scan.times)), scan.times)), 4)
    return place


def _explain(scan, method, explainer, request, report) -> Finding:
    image_axes = 3 if explainer.takes_volumes else 2
    if request.sliding is not None and len(scan.axes) == image_axes:
        return _explain_by_windows(scan, method, explainer, request, report)
    if explainer.takes_volumes and len(scan.axes) == 3:
        return _explain_volume(scan, method, explainer)
    kind = "volumes" if explainer.takes_volumes else "images"
    raise ValueError(
        f"`model` must take what the file holds. Received: a model that takes {kind}, and {scan!r}. "
        "Explain a part of it in Python: tf_gradcam.formats.read(path).values."
    )


def _explain_volume(scan, method: MethodExplainer, explainer: PhotographExplainer) -> Finding:
    start = time.perf_counter()
    target = None if method.classless else explainer.target
    explanation = method.cam(explainer.volume_to_input(scan.filled()), explainer.target_of(target), size=None)
    evidence = _evidence(explanation)
    (of_volume,) = explainer.split(explanation, time.perf_counter() - start)
    return _finding([of_volume], evidence[0], method, explainer)


def _explain_slices(
    scan, method: MethodExplainer, index: int | None, explainer: PhotographExplainer, report
) -> Finding:
    start = time.perf_counter()
    count = scan.shape[0]
    index = None if method.classless else index
    evidence, explanations, done = [], [], 0
    for inputs in _inputs_of_slices(scan, explainer, range(count)):
        explanation = method.cam(inputs, explainer.target_of(index), size=None)
        evidence.append(_evidence(explanation))
        explanations += explainer.split(explanation, 0.0)
        done += len(inputs)
        report(f"{'frame' if 't' in scan.axes else 'slice'} {done} of {count}")
    explanations[0] = explanations[0]._replace(seconds=time.perf_counter() - start)
    return _finding(explanations, np.concatenate(evidence), method, explainer)


def _explain_by_windows(
    scan, method: MethodExplainer, explainer: PhotographExplainer, request, report
) -> Finding:
    start = time.perf_counter()
    index = None if method.classless else explainer.target
    explained = method.cam.sliding(
        dataclasses.replace(scan, values=_PreprocessedValues(scan, explainer, report), fill=None),
        explainer.target_of(index),
        overlap=request.sliding,
        size=_size_by_windows(scan.shape[:-1]),
    )
    best = ImageExplanation(
        explained.heatmap[0],
        float(explained.score[0]),
        index,
        np.zeros(len(explainer.labels or ())),
        None,
        time.perf_counter() - start,
        highest_values(explained)[0],
    )
    return _finding([best], best.heatmap, method, explainer)


def _size_by_windows(lengths) -> tuple[int, ...]:
    """Return the size of the heatmap of a scan of these lengths: its own, or a whole fraction of it."""
    # The joined grid itself may reach beyond the scan, and a heatmap in a file covers the scan exactly.
    factor = 1
    while math.prod(-(-each // factor) for each in lengths) > _MOST_CELLS or max(lengths) > (
        factor * _LONGEST_SIDE
    ):
        factor += 1
    return tuple(-(-each // factor) for each in lengths)


class _PreprocessedValues:
    """The values of a scan, filled and preprocessed when they are sliced, as float32; reports each window."""

    def __init__(self, scan: formats.Scan, explainer: PhotographExplainer, report: Report) -> None:
        self.shape, self.dtype = (*scan.shape[:-1], explainer.channels), np.dtype(np.float32)
        self._scan, self._preprocess = scan, explainer.preprocess
        self._report, self._read = report, itertools.count(1)

    def __getitem__(self, place: Any) -> np.ndarray:
        self._report(f"window {next(self._read)}")
        return self._preprocess(self._scan.filled(place=place[:-1]).astype(np.float32))


def _class_of_slices(scan, explainer: PhotographExplainer) -> int | None:
    """Return the requested class, or the one with the highest mean output of some slices.

    `None` if no method explains a class, if the model has none, or if that of an exported file is fixed.

    Raises:
        ValueError: if an exported file explains each slice's predicted class, and no other.
    """
    methods = sorted((each for each in explainer.methods if not each.classless), key=lambda each: each.slow)
    if explainer.target is not None or not methods:
        return explainer.target
    method, count = methods[0], scan.shape[0]
    if isinstance(method.cam, FileCam) and not method.cam.model.takes_classes:
        check_slices_have_class(method.cam.model)
        return None
    asked = np.unique(np.linspace(0, count - 1, min(count, _SLICES_ASKED)).round().astype(int))
    answers: list[ImageExplanation] = []
    for inputs in _inputs_of_slices(scan, explainer, asked):
        answers += explainer.split(method.cam(inputs, explainer.target_of(None), size=None), 0.0)
    if answers[0].class_index is None:
        return None
    return int(np.mean([answer.scores for answer in answers], axis=0).argmax())


def _inputs_of_slices(scan, explainer, indices) -> Iterator[np.ndarray]:
    """Yield batches of slices as the model takes them; the next one is read while the caller works."""

    def read(start):
        chosen = indices[start : start + _SLICES_IN_BATCH]
        return explainer.to_inputs([scan.filled(place=int(index)) for index in chosen])

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, 0)
        for start in range(_SLICES_IN_BATCH, len(indices) + _SLICES_IN_BATCH, _SLICES_IN_BATCH):
            inputs = reading.result()
            if start < len(indices):
                reading = pool.submit(read, start)
            yield inputs


def _evidence(explanation) -> np.ndarray:
    """Return what speaks for the target, `(N, ...)` on the layer's grid, not yet on one scale.

    Of several layers it is their fused heatmap: each is already divided by its maximum.
    """
    if explanation.map is None or isinstance(explanation.map, tuple):
        return np.asarray(explanation.heatmap)
    return np.maximum(np.asarray(explanation.map), 0)


def _finding(explanations, evidence, method, explainer) -> Finding:
    """Return the finding of a scan: one heatmap, one row with the means over its slices."""
    highest = evidence.max()
    heatmap = (evidence / highest if highest > 0 else evidence).astype(np.float32)
    probabilities = [each.probability for each in explanations]
    whole = explanations[0]._replace(
        heatmap=heatmap,
        score=float(np.mean([each.score for each in explanations])),
        probability=None if None in probabilities else float(np.mean(probabilities)),
    )
    tops = [each.highest for each in explanations if each.highest is not None]
    top = max(tops) if len(tops) == len(explanations) else None
    return Finding(make_row(method, whole, explainer.labels), None, heatmap, top)

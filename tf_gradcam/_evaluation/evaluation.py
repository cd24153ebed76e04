"""Measure how far the heatmaps of photographs can be trusted. The command `evaluate` calls it.

Photographs are read and explained as a run does it; what they are as the model's input, and one number each
for every metric, stays in memory.
"""

import concurrent.futures
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from tf_gradcam import metrics, targets
from tf_gradcam._checks import one_line
from tf_gradcam._evaluation.object_masks import read_mask, resize_mask, split_masks
from tf_gradcam._files import lock_folder
from tf_gradcam._images import load_image, overlay, resize_pixels, size_within
from tf_gradcam._model import is_channels_first, require_specs
from tf_gradcam._run import (
    Classifier,
    Finding,
    Photograph,
    PhotographExplainer,
    ReadResult,
    Request,
    explain_batch,
    make_up_picture,
    read_batches,
)

AGAINST_MASKS = ("energy", "pointing_game", "rank_accuracy", "roc_auc", "auprc", "iou")
WITH_BASELINES = ("deletion", "insertion", "insertion_minus_deletion", "mu_fidelity")
WITH_PROBABILITY = ("average_drop", "increase", "average_gain", "adcc", "arcc")
OPEN_SIDE = 224  # height and width of photographs in pixels, for a model that has no fixed size
SANITY_STAGES = 8  # at most
THUMBNAIL_SIDE = 240  # longest side of a picture of the page, in pixels
_IN_BATCH, _PIXELS_IN_BATCH = 16, 64_000_000


class Measures(NamedTuple):
    """What to measure.

    Attributes:
        metrics: names, as `metrics.evaluate` takes them; none for the short table of `metrics.trust`.
        baselines: what replaces pixels, as `metrics.evaluate` takes it; `None` for its default.
        sanity: whether to randomize weights in up to `SANITY_STAGES` stages.
        masks: the folder of masks; `None` for none. Without a metric that needs masks, `"energy"` and
            `"pointing_game"` are added.
    """

    metrics: tuple[str, ...] = ()
    baselines: tuple[str, ...] | None = None
    sanity: bool = False
    masks: str | os.PathLike | None = None


class EvaluatedPhotograph(NamedTuple):
    """A photograph: its row in the results, and two small JPEG pictures, unless it has an `"error"`."""

    row: dict[str, Any]
    picture: bytes = b""
    overlay: bytes = b""


class Evaluation(NamedTuple):
    """All that was measured.

    Attributes:
        photographs: one for each photograph, in order.
        method: the name of the method.
        layer: what the results call the layer.
        tables: the `Trust`, `Table` and `Sanity` that were made, by title; none without photographs.
        notes: sentences about the photographs.
    """

    photographs: list[EvaluatedPhotograph]
    method: str
    layer: str
    tables: dict[str, Any]
    notes: list[str]


class _Input(NamedTuple):
    """A photograph as the model takes it, `(h, w, C)`, and its mask `(h, w)`, all False without one."""

    image: np.ndarray
    mask: np.ndarray


def evaluate_photographs(
    photographs: Sequence[Photograph],
    request: Request,
    measures: Measures,
    classifier: Classifier,
    advance: Callable[[], None] = lambda: None,
    report: Callable[[str], None] = lambda step: None,
) -> Evaluation:
    """Explain photographs by one method, and measure their heatmaps.

    The folder `request.out` is made and locked meanwhile; `write_evaluation` writes to it.
    Baselines replace pixels of what the model takes, after its preprocessing: zero is 0 there.

    Args:
        photographs: the photographs. Those that lie in the folder of masks are left out.
        request: one method, its layers and the class; what concerns pictures is not used.
        measures: what to measure.
        classifier: the model with its preprocessing.
        advance: called after each photograph that is read and explained.
        report: called with a few words before each long step that follows.

    Returns:
        An `Evaluation`. A photograph that can't be read or explained, or whose mask can't be read, has a row
        with an `"error"`, and is in no number.

    Raises:
        ValueError, TypeError, OSError: if the request can't be fulfilled.
    """
    names = choose_metrics(measures)
    masks: dict[str, pathlib.Path] = {}
    notes = []
    if measures.masks is not None:
        count = len(photographs)
        photographs, masks = split_masks(photographs, measures.masks)
        if len(photographs) < count:
            notes.append(f"Files in the folder of masks that were left out: {count - len(photographs)}.")
        if len(masks) < len(photographs):
            notes.append(
                f"Photographs without a mask: {len(photographs) - len(masks)} of {len(photographs)}. "
                "The metrics against masks leave them out, as missing."
            )
    reader = _Reader(request, classifier, masks)
    method = reader.explainer.methods[0]
    if names:  # Names and baselines are checked before any photograph is read, and so is the target.
        metrics.Evaluator(method.cam, metrics=names, **_baselines(measures))
    reader.rehearse_metrics("average_drop" if set(names) & set(WITH_PROBABILITY) else "sparseness")
    with lock_folder(request.out):  # A folder that can't be written to is refused before minutes of work.
        evaluated, inputs = reader.read(photographs, advance)
        tables = {}
        if inputs:
            tables = _measure(method.cam, inputs, reader.target, names, measures, report)
            evaluated = _with_values(evaluated, tables)
    failed = len(evaluated) - len(inputs)
    if failed:
        notes.append(f"Photographs with an error, which are in no number: {failed} of {len(evaluated)}.")
    return Evaluation(evaluated, method.name, method.layer, tables, notes)


def choose_metrics(measures: Measures) -> list[str]:
    """Return the names of the metrics of the table, without repetition; none if there is no table.

    Raises:
        ValueError: if masks or baselines are missing, or are for none of them.
    """
    names = list(dict.fromkeys(measures.metrics))
    needing = [name for name in names if name in AGAINST_MASKS]
    if needing and measures.masks is None:
        raise ValueError(
            f"`masks` must be given for {', '.join(needing)}. Received: none. Give the folder of masks."
        )
    if measures.baselines is not None and not set(names) & set(WITH_BASELINES):
        raise ValueError(
            f"`baselines` are for the metrics {', '.join(WITH_BASELINES)}. "
            f"Received: metrics {', '.join(names) or 'none'}. Leave it out, or name one of these."
        )
    if measures.masks is not None and not needing:
        names += AGAINST_MASKS[:2]
    return names


def _baselines(measures) -> dict[str, Any]:
    return {} if measures.baselines is None else {"baselines": measures.baselines}


def _measure(cam, inputs, target, names, measures, report) -> dict[str, Any]:
    """Return the tables by their titles."""
    images = np.stack([each.image for each in inputs])
    tables: dict[str, Any] = {}
    if not measures.metrics:
        report("the trust table")
        tables["trust"] = cam.trust(images, target)
    if names:
        report(", ".join(names))
        needs_masks = bool(set(names) & set(AGAINST_MASKS))
        tables["metrics"] = metrics.evaluate(
            cam,
            images,
            target,
            metrics=names,
            masks=np.stack([each.mask for each in inputs]) if needs_masks else None,
            **_baselines(measures),
        )
    if measures.sanity:
        report("the sanity check")
        tables["sanity"] = metrics.sanity(cam, images, target, stages=SANITY_STAGES)
    return tables


class _Reader:
    """Reads and explains photographs, and fits them and their masks to the model's input."""

    def __init__(self, request: Request, classifier: Classifier, masks: dict[str, pathlib.Path]) -> None:
        self._request = request
        self.explainer = PhotographExplainer(request, classifier)
        self.explainer.rehearse()
        index, name = self.explainer.target, request.output
        self.target = index if name is None else targets.Output(name, index)
        self._masks = masks
        shape = require_specs(classifier.model).shape
        if is_channels_first(shape):
            raise ValueError(
                "`model` must take images with channels last, as metrics do. "
                f"Received: a model that takes {tuple(shape)}"
            )
        height, width = (side or OPEN_SIDE for side in shape[1:3])
        self._open_size = (height, width) if None in shape[1:3] else None

    def rehearse_metrics(self, metric: str) -> None:
        """Measure a made-up picture, so that what metrics can't take is refused early."""
        made_up = self.explainer.to_inputs([self._fit(make_up_picture(self.explainer.channels))])
        cam = self.explainer.methods[0].cam
        try:
            metrics.evaluate(cam, made_up, self.target, metrics=[metric], references=False)
        except ValueError as error:
            raise ValueError(
                f"{error} In Python, metrics.evaluate takes every target of one score."
            ) from error

    def read(
        self, photographs: Sequence[Photograph], advance: Callable[[], None]
    ) -> tuple[list[EvaluatedPhotograph], list[_Input]]:
        """Return all photographs, and the inputs of those that could be read and explained."""
        evaluated, inputs = [], []
        named = [(photograph, photograph.file) for photograph in photographs]
        most = 1 if self.explainer.is_slow else _IN_BATCH
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for batch in read_batches(named, pool, most, _PIXELS_IN_BATCH):
                explained = explain_batch(batch, self._explain)
                for result, (finding,) in zip(batch, explained, strict=True):
                    photograph, fitted = self._finish(result, finding)
                    evaluated.append(photograph)
                    inputs += [] if fitted is None else [fitted]
                    advance()
        return evaluated, inputs

    def _explain(self, photographs: Sequence[ReadResult]) -> list[list[Finding]]:
        images = [each.image for each in photographs if each.image is not None]
        if not images:
            raise ValueError("the file must hold one image. Received: a volume or video")
        pictures = [each.viewable(self._request.picture) for each in photographs]
        return self.explainer.explain([self._fit(image) for image in images], pictures)

    def _fit(self, image) -> np.ndarray:
        """Give a photograph the fixed size that metrics need where the model has none."""
        if self._open_size is None:
            return image
        values = image if image.dtype == np.uint8 else image.astype(np.float32)
        return resize_pixels(values, self._open_size)

    def _finish(self, result: ReadResult, finding: Finding) -> tuple[EvaluatedPhotograph, _Input | None]:
        file = result.photograph.file
        row = {"file": file, **{key: value for key, value in finding.row.items() if key != "seconds"}}
        if "error" in row:
            return EvaluatedPhotograph(row), None
        assert result.image is not None
        path = self._masks.get(file)
        try:
            image = self.explainer.to_inputs([self._fit(result.image)])[0]
            mask = None if path is None else read_mask(path, result.image.shape[:2])
            pictures = _draw(result.viewable(self._request.picture), finding.heatmap, mask)
        except Exception as error:  # Whatever is wrong with one photograph, the others still count.
            return EvaluatedPhotograph({"file": file, "error": one_line(error) or type(error).__name__}), None
        if self._masks:
            row["mask"] = None if path is None else str(path)
        size = image.shape[:2]
        fitted = _Input(image, np.zeros(size, bool) if mask is None else resize_mask(mask, size))
        return EvaluatedPhotograph(row, *pictures), fitted


def _draw(image, heatmap, mask) -> tuple[bytes, bytes]:
    """Return small JPEG files of the photograph, and of its overlay with the outline of the mask."""
    size = size_within(image.shape[:2], THUMBNAIL_SIDE)
    small = load_image(image, size=size)
    over = overlay(small, heatmap)
    if mask is not None:
        outlines, _ = cv2.findContours(
            resize_mask(mask, size).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):  # legible on every colour
            cv2.drawContours(over, outlines, -1, color, thickness)
    return _jpeg(small), _jpeg(over)


def _jpeg(picture) -> bytes:
    _, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85]
    )
    return encoded.tobytes()


def _with_values(evaluated, tables) -> list[EvaluatedPhotograph]:
    """Return the photographs with `"values"` in the rows of those that were measured: by metric."""
    columns = _value_columns(tables)
    measured = iter(range(len(evaluated)))
    return [
        each
        if "error" in each.row
        else each._replace(row={**each.row, "values": _values_at(columns, next(measured))})
        for each in evaluated
    ]


def _value_columns(tables) -> dict[str, np.ndarray]:
    """Return the value of each measured photograph, `(N,)`, by the name of the metric and baseline."""
    columns = {}
    for check in tables.get("trust", ()):
        columns[_column(check.check, check.baseline)] = check.values
    for row in tables.get("metrics", ()):
        if len(row.values):  # Some numbers only the whole set has.
            columns[_column(row.metric, row.baseline)] = row.values
    if "sanity" in tables:
        shown = tables["sanity"]
        for place, stage in enumerate(shown.stages[1:], start=1):
            columns[f"sanity: {stage.randomized}"] = shown.values[:, place]
    return columns


def _column(name, baseline) -> str:
    return name if baseline is None else f"{name}, {baseline}"


def _values_at(columns, place) -> dict[str, float | None]:
    values = {name: float(column[place]) for name, column in columns.items()}
    return {name: round(value, 6) if np.isfinite(value) else None for name, value in values.items()}

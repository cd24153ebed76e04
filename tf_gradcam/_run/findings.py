"""Explain photographs: a heatmap and a row of the results for each method and class.

`run` makes the `PhotographExplainer`; `batches` calls it with photographs of one size.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam._checks import one_line
from tf_gradcam._files import take_bands
from tf_gradcam._images import coarse_heatmaps
from tf_gradcam._run.chosen_methods import MethodExplainer, make_explainers
from tf_gradcam._run.class_scores import class_probability, class_scores, target_text
from tf_gradcam._run.file_models import FileCam, input_spec
from tf_gradcam._run.fitting import (
    channels_of,
    check_fits_dtype,
    fit_channels,
    fit_to_spec,
    fit_volume_to_spec,
)
from tf_gradcam._run.freezing import freeze_if_possible
from tf_gradcam._run.request import Classifier, Request, class_index
from tf_gradcam._runtimes import LoadedExplainer

EVERY_CLASS = "every class"  # the label of a map that no class was chosen for


class Finding(NamedTuple):
    """The result of one method for one class in one photograph: a row, and the image and heatmap to draw.

    The row of a photograph that couldn't be explained has an `"error"`; image and heatmap are then `None`.
    `highest` is the value of the signed map where the heatmap is 1; `None` for several layers. `grid` is the
    heatmap before it was enlarged, which is drawn without facets; `None` where it is drawn as it is.
    """

    row: dict[str, Any]
    image: np.ndarray | None = None
    heatmap: np.ndarray | None = None
    highest: float | None = None
    grid: np.ndarray | None = None


class ImageExplanation(NamedTuple):
    """The explanation of one image of a batch, in NumPy.

    `scores` are what the model returned for each class. `probability` is that of the explained class, `None`
    if the model returns no probabilities. `seconds` is the image's share of the batch's time. `highest` and
    `grid` are those of a `Finding`.
    """

    heatmap: np.ndarray
    score: float
    class_index: int | None
    scores: np.ndarray
    probability: float | None
    seconds: float
    highest: float | None = None
    grid: np.ndarray | None = None


class PhotographExplainer:
    """Explains photographs with one classifier, as a request asks for.

    `is_slow` tells whether a photograph takes so long that it should be explained alone, not in a batch.
    `methods` are the requested methods with their explainers, and `target` is the requested class, if any.

    Args:
        request: the methods, layer, output and classes to explain.
        classifier: the model, its preprocessing and its labels.

    Raises:
        ValueError: if the request doesn't fit the classifier.
    """

    def __init__(self, request: Request, classifier: Classifier) -> None:
        self._request, self._classifier = request, classifier
        self.methods = make_explainers(classifier.model, request)
        self.is_slow = any(method.slow for method in self.methods)
        self.labels = classifier.labels
        spec = input_spec(classifier.model)
        self.takes_volumes, self.channels = len(getattr(spec, "shape", ())) == 5, channels_of(spec)
        requested = request.target
        self.target = None if requested is None else class_index(requested, classifier.labels)

    def explain(self, images: Sequence[np.ndarray], pictures: Sequence[np.ndarray]) -> list[list[Finding]]:
        """Explain photographs of one size; return the findings in each.

        Args:
            images: as `read_photograph` returns them.
            pictures: the same, for people to look at.
        """
        return self._explain(images, pictures, rehearsing=False)

    def rehearse(self) -> list[Finding]:
        """Explain a made-up picture, so that a wrong request is refused before any photograph is read.

        This also compiles, which would otherwise count as the first photograph's time. A slow method is only
        compiled, and the heatmap of its finding is zeros.
        """
        if self.takes_volumes:
            # 64 voxels a side, as a model of any size may shrink them by 32.
            volume = make_up_picture(4 * self.channels).reshape(64, 64, 64, -1)
            for method in self.methods:
                run = explain_and_time if isinstance(method.cam, FileCam) else compile_only
                self._explain_class(run, method, self.volume_to_input(volume), None, self.target)
            return []
        picture = make_up_picture()
        image = make_up_picture(self.channels)
        (findings,) = self._explain([image], [picture], rehearsing=True)
        return findings

    def _explain(self, images, pictures, rehearsing) -> list[list[Finding]]:
        inputs, size = self.to_inputs(images), images[0].shape[:2]
        findings: list[list[Finding]] = [[] for _ in images]
        for method in self.methods:
            run = compile_only if rehearsing and method.slow else explain_and_time
            explain_class = functools.partial(self._explain_class, run, method, inputs, size)
            target = None if method.classless else self.target
            batches = _explain_best_classes(explain_class, target, self._request.top)
            # In a rehearsal the second class is enough to show a `top` that is too high.
            for explanations in itertools.islice(batches, 2 if rehearsing else None):
                for findings_of_image, picture, explanation in zip(
                    findings, pictures, explanations, strict=True
                ):
                    row = make_row(method, explanation, self._classifier.labels)
                    drawn = explanation.heatmap, explanation.highest, explanation.grid
                    findings_of_image.append(Finding(row, picture, *drawn))
        return findings

    def freeze(self) -> None:
        """Freeze the explainers that were called and can be frozen: it pays for a thousand photographs."""
        self.methods = [each._replace(cam=freeze_if_possible(each.cam)) for each in self.methods]

    def to_inputs(self, images) -> np.ndarray:
        """Return photographs as the model takes them, `(N, h, w, C)`."""
        model, preprocess, _ = self._classifier
        spec = input_spec(model)
        # One by one, as a user's function may depend on the whole array, for example on its mean.
        inputs = [preprocess(fit_to_spec(self.take_bands(image), spec)) for image in images]
        for image, each in zip(images, inputs, strict=True):
            check_fits_dtype(each, image, spec)
        return np.concatenate([np.asarray(each) for each in inputs])

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """Return one float32 image of any size, `(*axes, C)`, preprocessed."""
        taken = self.take_bands(image)
        return np.asarray(self._classifier.preprocess(fit_channels(taken, self.channels, taken)[None]))[0]

    def volume_to_input(self, volume: np.ndarray) -> np.ndarray:
        """Return a volume `(D, H, W, C)` as the model takes it, `(1, d, h, w, C)`."""
        model, preprocess, _ = self._classifier
        spec = input_spec(model)
        taken = np.asarray(preprocess(fit_volume_to_spec(self.take_bands(volume), spec)))
        check_fits_dtype(taken, volume, spec)
        return taken

    def take_bands(self, image: np.ndarray) -> np.ndarray:
        """Return the requested bands of `(*axes, C)` for a model of as many channels; else all of them."""
        bands = self._request.picture.bands
        count = image.shape[-1]
        if bands is None or count <= 3 or count == self.channels or len(bands) != self.channels:
            return image
        return take_bands(image, bands)

    def _explain_class(self, run, method, inputs, size, index) -> list[ImageExplanation]:
        """Explain a batch for one class, a class per image, or the predicted ones where `index` is `None`."""
        signed = {"signed": True} if self._request.signed else {}
        explanation, seconds = run(method.cam, inputs, self.target_of(index), size=size, **signed)
        return self.split(explanation, seconds)

    def target_of(self, index: Any) -> Any:
        """Return the target for a class, a class per image, or the predicted ones where `index` is `None`."""
        name = self._request.output
        if name is None:
            return index
        from tf_gradcam import targets

        return targets.Output(name, index)

    def split(self, explanation: Any, seconds: float) -> list[ImageExplanation]:
        """Return the explanation of each image of a batch that took so many seconds."""
        model = self._classifier.model
        outputs = explained_output(model, explanation.outputs, self._request.output)
        return split_explanation(explanation, outputs, seconds, target_text(model), self._request.signed)


def make_up_picture(channels: int = 3) -> np.ndarray:
    """Return a picture to rehearse with, as `read_photograph` would return it."""
    # Not of one colour, as some preprocessing divides by the deviation.
    return np.arange(256 * 256 * channels).reshape(256, 256, channels).astype(np.uint8)


def explain_and_time(cam: Any, images: np.ndarray, target: Any, **asked: Any) -> tuple[Any, float]:
    """Return an explanation and the seconds it took."""
    start = time.perf_counter()
    explanation = cam(images, target, **asked)
    np.asarray(explanation.heatmap)  # A GPU is done when the heatmap is here.
    return explanation, time.perf_counter() - start


def compile_only(cam: Any, images: np.ndarray, target: Any, **asked: Any) -> tuple[Any, float]:
    """Compile what `explain_and_time` will run; return an explanation of zeros, and no time."""
    import tensorflow as tf

    def zeros(spec):
        return None if spec is None else tf.zeros([length or 1 for length in spec.shape], spec.dtype)

    trace = tf.function(lambda: cam(images, target, **asked), autograph=False).get_concrete_function()
    return tf.nest.map_structure(zeros, trace.structured_outputs), 0.0


def _explain_best_classes(
    explain_class: Callable[..., list[ImageExplanation]], target: int | None, top: int
) -> Iterator[list[ImageExplanation]]:
    """Yield the explanations of all images: for one class, then for the next best ones, `top` in all."""
    first = explain_class(target)
    yield first
    if top == 1:
        return
    classes = len(first[0].scores)
    if top > classes:
        raise ValueError(f"`top` must be at most {classes}, the number of classes. Received: {top}")
    next_best = [
        [int(index) for index in each.scores.argsort()[::-1] if index != each.class_index] for each in first
    ]
    for rank in range(top - 1):
        yield explain_class([best[rank] for best in next_best])


def split_explanation(
    explanation: Any, outputs: Any, seconds: float, target: str, signed: bool = False
) -> list[ImageExplanation]:
    """Return the explanation of each image of a batch.

    `outputs` are those of the explained output, `seconds` what the whole batch took, `target` its
    `target_text`, and `signed` whether the heatmaps are signed.
    """
    heatmaps, scores = np.asarray(explanation.heatmap), np.asarray(explanation.score)
    if len(scores) != len(heatmaps):
        raise ValueError(
            "`model` must give one answer for each photograph. Received: a model with one answer for a batch "
            f"of {len(heatmaps)}, as for a bag of patches. Explain bags with GradCAM."
        )
    has_class = explanation.target is not None
    classes = np.asarray(explanation.target) if has_class else [None] * len(heatmaps)
    explanations = []
    outputs, tops = np.asarray(outputs), highest_values(explanation, signed)
    grids = coarse_heatmaps(explanation)
    of_images = zip(heatmaps, scores, classes, outputs, tops, grids, strict=True)
    for heatmap, score, index, output, top, grid in of_images:
        explained = int(index) if has_class else None, float(score), target
        explanations.append(
            ImageExplanation(
                heatmap,
                float(score),
                int(index) if has_class else None,
                class_scores(output, *explained),
                class_probability(output, *explained),
                seconds / len(heatmaps),
                top,
                grid,
            )
        )
    return explanations


def highest_values(explanation: Any, signed: bool = False) -> list[float | None]:
    """Return the highest value of each signed map, or 0, or with `signed` its largest absolute value.

    `None` for several layers, which have no unit.
    """
    if explanation.map is None or isinstance(explanation.map, tuple):
        return [None] * len(explanation.heatmap)
    maps = np.abs(explanation.map) if signed else np.asarray(explanation.map)
    return [max(0.0, float(each.max())) for each in maps]


def explained_output(model, outputs, name):
    """Return the output of that name or position; of a model with one output, that. A file has one."""
    if isinstance(model, LoadedExplainer):
        return outputs
    from tf_gradcam import targets
    from tf_gradcam._targets import find_output, to_rows

    target = targets.Output(0 if name is None else name)
    return find_output(to_rows(target, 1, getattr(model, "output_names", None)).name, outputs)


def make_row(
    method: MethodExplainer, explanation: ImageExplanation, labels: Sequence[str] | None
) -> dict[str, Any]:
    """Return the row of an explanation in the results."""
    row = _class_and_score(explanation, labels)
    if method.classless:
        row = {"label": EVERY_CLASS, "class": None, "probability": None, "score": None}
    if not explanation.heatmap.any():
        where = "in the image" if method.layer == "image" else f"at layer {method.layer}"
        what = "stands out" if method.classless else f"speaks for {row['label']}"
        row["warning"] = one_line(f"blank heatmap: nothing {where} {what}")
    seconds = round(explanation.seconds, 4)
    return {**row, "layer": method.layer, "method": method.name, "seconds": seconds}


def _class_and_score(explanation, labels) -> dict[str, Any]:
    scores, score, index = explanation.scores, explanation.score, explanation.class_index
    if labels and len(labels) != len(scores):
        raise ValueError(
            f"`labels` must name {len(scores)} classes, one per line. Received: {len(labels)} lines"
        )
    if not abs(score) < float("inf"):
        raise ValueError(f"the model's score must be finite. Received: {score}")
    label = labels[index or 0] if labels else "output" if index is None else f"class {index}"
    return {"label": label, "class": index, "probability": explanation.probability, "score": score}


def make_error(error: Exception) -> Finding:
    """Return the finding of a photograph that couldn't be explained."""
    return Finding({"error": one_line(error) or type(error).__name__})

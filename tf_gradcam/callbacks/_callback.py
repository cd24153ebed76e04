"""`GradCAMCallback`: the same images explained while a model trains. Public in `tf_gradcam.callbacks`."""

import inspect
import json
import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import keras
import numpy as np

from tf_gradcam import metrics as metrics_package
from tf_gradcam import targets
from tf_gradcam._checks import is_whole
from tf_gradcam._explain import Explanation, GradCAM, Layers
from tf_gradcam._methods import Method
from tf_gradcam.callbacks._events import EventFile
from tf_gradcam.callbacks._pictures import (
    Numbers,
    caption,
    class_name,
    draw,
    numbers_of,
    photographs_of,
    read_photographs,
)
from tf_gradcam.callbacks._samples import classes_of, rows_taken, take_samples
from tf_gradcam.callbacks._schedule import TimeBudget, parse_every

OnExplained = Callable[[int, Explanation, dict[str, np.ndarray], dict[str, float]], Any]
_LARGEST = "largest"
_OF_THIS_RUN = {"_model": None, "_cam": None, "_largest": None}  # is not copied


class GradCAMCallback(keras.callbacks.Callback):
    """Explain the same images again and again while a model trains.

    Photograph and overlay side by side, scores, probabilities and metrics go to TensorBoard, to a function,
    or to both. One explainer is compiled, when training begins, and reads the weights of each moment. Nothing
    of the training changes: with and without the callback the weights are the same to the last bit.

    TensorBoard shows one picture for each image, `gradcam/image 0`, with a slider for the epochs, and of each
    number a curve for each image, such as `gradcam_score/image 0`. By default it keeps 10 of the epochs of a
    picture: `tensorboard --samples_per_plugin images=1000` keeps more.

    Args:
        images: the images, as the model takes them (or `preprocess`): an array `(N, H, W, C)`; for several
            inputs a list, tuple or dict of arrays; or a `tf.data.Dataset` or `keras.utils.PyDataset` as `fit`
            takes it. The first `count` are copied now. Of a `tf.data.Dataset` a copy is read, with shuffle
            seeds of its own, so that the order of training stays the same.
        log_dir: folder of the event file, such as `"logs/gradcam"` beside the folders of Keras's
            `TensorBoard(log_dir="logs")`; `None` to write none.
        target: what to explain, as `GradCAM` takes it: a class for each image, usually the true one, so that
            all epochs show the same, also as `fit` takes labels, `(N, 1)` or one-hot; `"labels"` for the
            classes that the data set yields beside the images; `None` for the class that the model predicts
            at that moment.
        layer: the layer; see `GradCAM`.
        call: see `GradCAM`.
        method: see `GradCAM`.
        fuse: see `GradCAM`.
        preprocess: see `GradCAM`.
        every: `"epoch"`, `"5 epochs"`, or a number of batches. Steps are those of Keras's `TensorBoard`: the
            number of the epoch, from 0; or the number of batches done, as `optimizer.iterations`. Of epochs,
            the last is always explained.
        count: most images; the first. `target`, `names`, `photographs` and `masks` may be of these alone, or
            of all that `images` has.
        names: a name for each image, for tags and captions; by default `"image 0"`.
        labels: names of the classes, in the order of the model's outputs, or a dict.
        photographs: what to draw in place of the images: one for each, as `load_image` takes it. Needed where
            no input has the heatmaps' shape. Without them, values in [0, 1] or [0, 255] are drawn as they
            are, others stretched from the lowest to the highest of each image.
        metrics: names of metrics, as `tf_gradcam.metrics.evaluate` takes them, such as `["deletion"]`. Each
            takes many forward passes.
        baselines: see `tf_gradcam.metrics.evaluate`.
        masks: see `tf_gradcam.metrics.evaluate`; one for each image.
        vmax: value of the signed map that has the strongest colour: `None` for the largest of each heatmap,
            so that every picture shows where the evidence is, and the curve of `peak` how much of it; a
            number for one scale over all images and epochs; `"largest"` for the largest of that image so far.
        on_explained: function `(step, explanation, pictures, scalars)` that is called after each explanation,
            when TensorBoard's file is written: the number of the step, an `Explanation`, and dicts of RGB
            pictures and of numbers by their tags. What it raises ends the training.
        max_share: most seconds of explanations for each second of training. If one took more, a warning says
            so once, and the next times are left out until it is below. `None` for no limit.

    Raises:
        ImportError: if `log_dir` is given and TensorBoard is not installed.
        TypeError, ValueError: if an argument is not as described; what depends on the model is checked when
            training begins, as `GradCAM` does it.

    Example:

    ```python
    pictures = GradCAMCallback(validation, "logs/gradcam", target="labels")
    model.fit(training, epochs=20, callbacks=[keras.callbacks.TensorBoard("logs"), pictures])
    ```
    """

    def __init__(
        self,
        images: Any,
        log_dir: str | os.PathLike[str] | None = None,
        *,
        target: Any = None,
        layer: Layers = None,
        call: int | None = None,
        method: str | Method | Sequence[str | Method] = "gradcam",
        fuse: str | None = None,
        preprocess: Callable[[Any], Any] | None = None,
        every: str | int = "epoch",
        count: int = 8,
        names: Sequence[str] | None = None,
        labels: Sequence[str] | Mapping[int, str] | None = None,
        photographs: Sequence[Any] | None = None,
        metrics: Sequence[str] = (),
        baselines: Sequence[str] = ("zero", "blur"),
        masks: Any = None,
        vmax: float | str | None = None,
        on_explained: OnExplained | None = None,
        max_share: float | None = 0.1,
    ) -> None:
        super().__init__()
        given = {
            name: value for name, value in locals().items() if name not in ("self", "images", "__class__")
        }
        self._given = given
        self._explainer_options = {name: given[name] for name in _EXPLAINER_OPTIONS}
        self._interval, self._unit = parse_every(every)
        # Keras may then call other callbacks of batches in a thread, as it does without this one.
        self.async_safe = self._unit == "epoch"
        _check_options(given)
        self._budget = TimeBudget(max_share)
        samples = take_samples(images, count)
        given.update({name: rows_taken(given[name], samples) for name in _FOR_EACH_IMAGE})
        self._images = samples.images
        self._target = classes_of(given["target"], samples.labels)
        self._names = _checked_names(given["names"], samples.number)
        photographs = given["photographs"]
        self._photographs = None if photographs is None else read_photographs(photographs, samples.number)
        self._events = None if log_dir is None else EventFile(log_dir)
        self._cam: GradCAM | None = None
        self._largest: dict[Any, float] = {}
        self._first_batch = self._last_batch = 0

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a copy: without model and explainer, which `fit` gives it."""
        return {**self.__dict__, **_OF_THIS_RUN, "_largest": {}}

    # Keras calls these.

    def set_model(self, model: keras.Model) -> None:
        """Take the model that will be trained; one explainer is made for each."""
        if self._cam is not None and self._cam.model is not model:
            self._cam = None
            self._largest = {}
            self._budget.forget()
        super().set_model(model)

    def on_train_begin(self, logs: Any = None) -> None:
        """Compile the explainer and try all of it once, without writing anything."""
        self._last_batch = 0
        if self.model.built:  # Otherwise the first step of training builds it.
            explanation, *_ = self._answer(0)
            self._check_labels(explanation)
            self._largest = {}
        if self._events is not None:
            self._events.open()
        self._budget.restart()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Count batches from those that the optimizer has seen."""
        iterations = getattr(getattr(self.model, "optimizer", None), "iterations", None)
        if self._unit == "batch":
            self._first_batch = self._last_batch if iterations is None else int(iterations)
            self._last_batch = self._first_batch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Explain if as many batches have passed as `every` says."""
        if self._unit != "batch":
            return
        done = self._first_batch + batch + 1  # With `steps_per_execution` more than one has passed.
        if done // self._interval > self._last_batch // self._interval:
            self._explain_within_budget(done)
        self._last_batch = done

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Explain if as many epochs have passed as `every` says, or if it is the last."""
        if self._unit != "epoch":
            return
        is_last = self.model.stop_training or epoch + 1 == (self.params or {}).get("epochs")
        if is_last or (epoch + 1) % self._interval == 0:
            self._explain_within_budget(epoch, is_last)

    def on_train_end(self, logs: Any = None) -> None:
        """Close TensorBoard's file."""
        if self._events is not None:
            self._events.close()

    # For a record of the run

    def get_config(self) -> dict[str, Any]:
        """Return the arguments as values for JSON, for the record of a run.

        Keras saves no callback with a model. What JSON has no form for is named in `"left_out"`, always the
        images among it.
        """
        plain = {name: _as_json(value) for name, value in self._given.items()}
        config = {name: value for name, value in plain.items() if value is not _NO_JSON}
        left_out = ["images", *(name for name in plain if name not in config)]
        return {**config, "left_out": left_out}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **left_out: Any) -> "GradCAMCallback":
        """Return a callback with the arguments of a config.

        Args:
            config: as `get_config` returns it.
            **left_out: the arguments that it names in `"left_out"`, or others in place of its own.

        Raises:
            ValueError: if one of them is missing.
        """
        missing = [name for name in config.get("left_out", ()) if name not in left_out]
        if missing:
            raise ValueError(f"`from_config` must get what the config left out. Received: no {missing}")
        arguments = {name: value for name, value in config.items() if name != "left_out"}
        return cls(**{**arguments, **left_out})

    # Explaining

    def _explain_within_budget(self, step: int, is_last: bool = False) -> None:
        if not self._budget.allows_another() and not is_last:
            return
        begun, traces = perf_counter(), self._cam is None
        explanation, pictures, scalars = self._answer(step)
        if self._events is not None:
            self._events.write(step, pictures, scalars)
        if self._given["on_explained"] is not None:
            self._given["on_explained"](step, explanation, pictures, scalars)
        self._budget.spend(begun, counts=not traces)

    def _answer(self, step: int) -> tuple[Explanation, dict[str, np.ndarray], dict[str, float]]:
        if self._cam is None:
            self._check_images()
            self._cam = GradCAM(self.model, **self._explainer_options)
        explanation = self._cam(self._images, self._target)
        if len(explanation.heatmap) != len(self._names):
            raise ValueError(
                f"`images` must be a batch. Received: {len(self._names)} rows, which the model takes for "
                f"{len(explanation.heatmap)}. Add a batch axis: images[None]."
            )
        found = numbers_of(explanation, isinstance(self._target, targets.Probability))
        tags = self._tags(found)
        return explanation, self._draw(step, explanation, found, tags), self._scalars(self._cam, found, tags)

    def _check_images(self) -> None:
        inputs = getattr(self.model, "inputs", None)
        if not inputs or self._given["preprocess"] is not None:
            return
        shapes = [tuple(each.shape) for each in keras.tree.flatten(inputs)]
        given = [array.ndim for array in keras.tree.flatten(self._images)]
        if sorted(given) != sorted(map(len, shapes)):  # A dict may be in another order.
            raise ValueError(
                f"`images` must be a batch for each input of the model, {shapes}. Received: arrays with "
                f"{given} axes. Of one image give images[None], of a list np.stack(images), of grey images "
                "images[..., None], of a data set of single images dataset.batch(32)."
            )

    def _check_labels(self, explanation) -> None:
        """Raise if a class has no name that is not explained now, but may be later: the predicted ones."""
        labels = self._given["labels"]
        shape: tuple[int, ...] = tuple(getattr(explanation.outputs, "shape", ()))
        is_predicted = self._target is None or isinstance(self._target, targets.TopClasses)
        if labels is not None and is_predicted and explanation.target is not None and len(shape) == 2:
            for index in range(max(2, shape[1])):
                class_name(index, labels)

    def _tags(self, found: Numbers) -> dict[Any, str]:
        """Return the tag of each map by its index in `found`: one for each image, or image and class."""
        if found.score.ndim == 1:
            return {(number,): name for number, name in enumerate(self._names)}
        tags = {}
        for number, rank in np.ndindex(found.score.shape):
            which = f"map {rank}"
            if found.target is not None and isinstance(self._target, targets.Classes):
                which = class_name(int(found.target[number, rank]), self._given["labels"])
            tags[number, rank] = f"{self._names[number]}/{which}"
        return tags

    def _scalars(self, cam: GradCAM, found: Numbers, tags: Mapping[Any, str]) -> dict[str, float]:
        scalars = {}
        for kind in ("score", "probability", "peak"):
            values = getattr(found, kind)
            if values is not None:
                scalars.update({f"gradcam_{kind}/{tag}": float(values[place]) for place, tag in tags.items()})
        if not self._given["metrics"]:
            return scalars
        table = metrics_package.evaluate(
            cam,
            self._images,
            self._target,
            metrics=self._given["metrics"],
            baselines=self._given["baselines"],
            masks=self._given["masks"],
            references=False,
        )
        for row in table:
            group = f"gradcam_{row.metric}{'' if row.baseline is None else f' {row.baseline}'}"
            scalars[f"{group}/mean"] = float(row.mean)
            each = zip(self._names, row.values, strict=False)  # A number of all images has no values.
            scalars.update({f"{group}/{name}": float(value) for name, value in each})
        return scalars

    def _draw(self, step, explanation, found, tags) -> dict[str, np.ndarray]:
        heatmaps = np.asarray(explanation.heatmap, np.float32)
        axes = heatmaps.ndim - found.score.ndim
        if axes == 1:  # A signal has no picture.
            return {}
        photographs = self._photographs or photographs_of(self._images, heatmaps.shape[-axes:])
        if photographs is None:
            raise ValueError(
                f"`photographs` must be given, one for each image: no input has the shape of the heatmaps, "
                f"{heatmaps.shape[-axes:]}."
            )
        pictures = {}
        for place, tag in tags.items():
            heatmap, vmax = heatmaps[place], self._scale(place, found)
            if vmax is not None:
                heatmap = np.minimum(heatmap * (found.peak[place] / vmax if vmax > 0 else 0), 1)
            lines = caption(f"{self._unit} {step}", found, place, self._given["labels"], vmax)
            photograph = photographs[place[0]]
            if axes == 3:
                index = int(np.nan_to_num(heatmap).max(axis=(1, 2)).argmax())
                lines[0] += f", slice {index + 1} of {len(heatmap)}"
                heatmap = heatmap[index]
                photograph = photograph[index] if photograph.ndim == 4 else photograph
            pictures[f"gradcam/{tag}"] = draw(photograph, heatmap, lines)
        return pictures

    def _scale(self, place, found) -> float | None:
        """Return the value that has the strongest colour, or `None` for the largest of the heatmap."""
        vmax = self._given["vmax"]
        if vmax is None:
            return None
        if found.peak is None:
            raise ValueError(
                f"`vmax` must be None for several layers: their heatmaps have no common unit. "
                f"Received: vmax={vmax!r}"
            )
        if vmax != _LARGEST:
            return float(vmax)
        if np.isfinite(found.peak[place]):
            self._largest[place] = max(self._largest.get(place, 0.0), float(found.peak[place]))
        return self._largest.get(place, 0.0)


_NO_JSON = object()
_FOR_EACH_IMAGE = ("target", "names", "photographs", "masks")
_EXPLAINER_OPTIONS = ("layer", "call", "method", "fuse", "preprocess")


def _as_json(value) -> Any:
    """Return a value as JSON would give it back, or `_NO_JSON` if something of it would be lost."""
    if callable(value) or isinstance(value, dict) or hasattr(value, "_fields"):
        return _NO_JSON
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if isinstance(value, np.ndarray) and value.ndim > 1:  # such as a mask: too long to be read
        return _NO_JSON
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    if isinstance(value, list | tuple):
        items = [_as_json(item) for item in value]
        return _NO_JSON if any(item is _NO_JSON for item in items) else items
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return _NO_JSON


def _check_options(given) -> None:
    if given["log_dir"] is None and given["on_explained"] is None:
        raise ValueError(
            "`log_dir` or `on_explained` must be given: nobody would see the pictures. Received: neither"
        )
    if given["on_explained"] is not None and not _takes_four(given["on_explained"]):
        raise TypeError(
            "`on_explained` must be a function (step, explanation, pictures, scalars). "
            f"Received: {given['on_explained']!r:.80}"
        )
    labels = given["labels"]
    if labels is not None and (isinstance(labels, str) or not hasattr(labels, "__getitem__")):
        raise TypeError(
            "`labels` must be a list of the classes' names, or a dict of them. "
            f"Received: labels={labels!r:.80}"
        )
    if isinstance(given["target"], str) and given["target"] != "labels":
        raise ValueError(
            "`target` must be a class for each image, another target of `GradCAM`, 'labels' or None. "
            f"Received: target={given['target']!r:.80}"
        )
    if not is_whole(given["count"]) or given["count"] < 1:
        raise ValueError(f"`count` must be a whole number from 1. Received: count={given['count']!r:.80}")
    for name, others in (("max_share", "None"), ("vmax", f"None or {_LARGEST!r}")):
        value = given[name]
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if value is None or (name == "vmax" and isinstance(value, str) and value == _LARGEST):
            continue
        if not is_number or not 0 < value < float("inf"):
            raise ValueError(
                f"`{name}` must be a number above 0, or {others}. Received: {name}={value!r:.80}"
            )
    if given["metrics"]:  # It checks their names.
        metrics_package.Evaluator(None, metrics=given["metrics"], baselines=given["baselines"])  # type: ignore[arg-type]
    elif given["masks"] is not None:
        raise ValueError("`masks` must go with `metrics` that need them. Received: masks without metrics")


def _takes_four(function) -> bool:
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*range(4))
    except TypeError:
        return False
    except ValueError:  # Some built-in functions don't say what they take.
        return True
    return True


def _checked_names(names, count) -> list[str]:
    if names is None:
        return [f"image {number}" for number in range(count)]
    if isinstance(names, str) or len(names) != count or len(set(names)) != count:
        raise ValueError(
            f"`names` must be a name for each of the {count} images, each another. Received: {names!r:.80}"
        )
    return list(map(str, names))

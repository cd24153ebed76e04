"""A batch of images explained by a `cam`, with one target for all that follows. Called by the tables.

A `cam` is used through its public methods only; `Cam` says which.
"""

import functools
from collections.abc import Iterator
from typing import Any, Protocol, Self

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam import targets
from tf_gradcam._arrays import check_no_data_set, check_no_paths
from tf_gradcam._methods import is_classless
from tf_gradcam._targets import target_arrays, to_rows, with_arrays
from tf_gradcam.metrics._inputs import as_images, finite_rows


class Cam(Protocol):
    """What the tables need of an explainer, such as a `GradCAM`."""

    @property
    def model(self) -> keras.Model:
        """The model that it explains."""

    @property
    def layer(self) -> Any:
        """The layer, a tuple of several, or `None`."""

    def __call__(self, images: Any, target: Any = None, *, size: Any = "input", signed: bool = False) -> Any:
        """Return an `Explanation`."""

    def scores(self, images: Any, target: Any = None) -> tf.Tensor:
        """Return the score of each image."""

    def with_weights(self, weights: Any) -> Self:
        """Return the same explainer for other weights."""


class ExplainedBatch:
    """Images with their explanation, and the target that all metrics share.

    Args:
        cam: a `Cam`.
        images: `(N, *axes, C)`.
        target: any target of one score; a class that it leaves to the model is that of these images.

    Attributes:
        images: float array `(N, *axes, C)`.
        target: the target with nothing left to the model.
        is_classless: whether the map is the same for every class, so that a target is only scored.
        explanation: the `Explanation`; for one layer, its heatmap is signed.
    """

    def __init__(self, cam: Cam, images: Any, target: Any) -> None:
        self.cam, self.images = cam, as_images(images)
        self._tensor = tf.convert_to_tensor(self.images)
        method = getattr(cam, "method", None)
        self.is_classless = method is not None and is_classless(method)
        self.explanation = self._explained(None if self.is_classless else target)
        if len(self.explanation.heatmap) != len(self.images):
            raise ValueError(
                "`images` must be a batch (N, *axes, C). Received: one image, of shape "
                f"{self.images.shape}. Add a batch axis to one image: image[None]"
            )
        self.has_several_layers = isinstance(self.explanation.map, tuple)
        self.target = pinned(target, self.explanation, len(self.images))

    def _explained(self, target):
        try:
            return self.cam(self._tensor, target, signed=not isinstance(self.cam.layer, tuple))
        except ValueError:
            if not isinstance(self.cam.layer, tuple):
                raise
        return self.cam(self._tensor, target)  # The layers were found by the first call.

    def grid_maps(self, cam: Cam | None = None, target: Any = None, images: Any = None) -> np.ndarray:
        """Return signed maps on the layer's grid, `(N, *grid)`, float64; of several layers, their heatmap.

        Args:
            cam: another `Cam` for the same images; by default the batch's own.
            target: another target.
            images: altered copies of these images, N of them.
        """
        if cam is None and images is None and (target is None or self.is_classless):
            return self._finite(_one_map(self.explanation))
        images = self._tensor if images is None else tf.convert_to_tensor(images)
        size = "input" if self.has_several_layers else None
        target = None if self.is_classless else (self.target if target is None else target)
        return self._finite(_one_map((cam or self.cam)(images, target, size=size)))

    @functools.cached_property
    def heatmaps(self) -> np.ndarray:
        """Heatmaps of the size of the images, `(N, *axes)` in [0, 1], float64."""
        if self.has_several_layers:
            return self._finite(self.explanation.heatmap)
        target = None if self.is_classless else self.target
        return self._finite(self.cam(self._tensor, target).heatmap)

    @functools.cached_property
    def signed_maps(self) -> np.ndarray:
        """Signed maps of the size of the images, `(N, *axes)`; of several layers, the heatmaps."""
        return self._finite(self.explanation.heatmap)

    def _finite(self, maps) -> np.ndarray:
        """Return maps, all NaN where the image or its signed map holds one: a ReLU may make it 0."""
        maps = np.array(maps, np.float64)
        signed = self.explanation.map if self.has_several_layers else [self.explanation.map]
        maps[~finite_rows(self.images, *map(np.asarray, signed))] = np.nan
        return maps

    def explain(self, images: np.ndarray) -> np.ndarray:
        """Return the signed maps of altered copies of these images, for the same target."""
        target = None if self.is_classless else self.target
        copied = _copied(target, len(self.images), len(images) // len(self.images))
        explanation = self.cam(tf.convert_to_tensor(images), copied, signed=not self.has_several_layers)
        return np.asarray(explanation.heatmap, np.float64)

    def score(self, images: np.ndarray) -> np.ndarray:
        """Return the explained score of whole copies of the batch, such as a logit: `(M,)`."""
        return self._scores(images, self.target)

    @functools.cached_property
    def probability(self) -> Any:
        """The target as a probability, or `None` where it is no class, or the model has no probabilities."""
        target = _as_probability(self.target)
        try:
            if target is not None:
                self.cam.scores(self._tensor, target)
        except ValueError:  # The model ends in neither a softmax nor a sigmoid.
            return None
        return target

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return the probability of whole copies of the batch, or the score if there is none: `(M,)`."""
        return self._scores(images, self.target if self.probability is None else self.probability)

    def _scores(self, images, target):
        copied = _copied(target, len(self.images), len(images) // len(self.images))
        return self.cam.scores(tf.convert_to_tensor(images), copied).numpy()


def explained_batches(cam: Cam, images: Any, target: Any, batch_size: int) -> Iterator[ExplainedBatch]:
    """Yield the images with their explanations, at most `batch_size` at once."""
    check_no_data_set("images", images)  # Which may have no length.
    check_no_paths("images", images)
    count = len(images)
    for start in range(0, count, batch_size):
        stop = min(start + batch_size, count)
        yield ExplainedBatch(cam, images[start:stop], rows_of(target, count, start, stop))


def rows_of(target: Any, count: int, start: int, stop: int) -> Any:
    """Return the target of the images `start` to `stop` of `count` images."""
    if target is None:
        return None
    if isinstance(target, targets.Output | targets.Against):
        return target._replace(target=rows_of(target.target, count, start, stop))
    rows = to_rows(target, count)
    if callable(rows):
        return rows
    arrays = [array if _is_mask(rows, array, count) else array[start:stop] for array in target_arrays(rows)]
    left = [name for name in getattr(target, "_fields", ()) if getattr(target, name) is None]
    return with_arrays(rows, arrays)._replace(**dict.fromkeys(left))  # None stays the model's choice.


def _is_mask(target, array, count) -> bool:
    """Return whether an array of the target is one mask for all images: it has no axis for these."""
    mask = getattr(target, "mask", None)
    return mask is not None and array is mask and (array.ndim < 3 or len(array) != count)


def _copied(target, count, copies):
    if target is None or copies == 1 or callable(target):
        return target
    if isinstance(target, targets.Output | targets.Against):
        return target._replace(target=_copied(target.target, count, copies))
    arrays = [
        array if _is_mask(target, array, count) else np.concatenate([array] * copies)
        for array in target_arrays(target)
    ]
    return with_arrays(target, arrays)


_OPEN = (
    "`target` must leave nothing to the model: altered images must be scored for the same choice. "
    "Received: {}. {}"
)
_ADVICE = {
    targets.Contrast: "Give `other` as well.",
    targets.Region: "Give a `mask`, as of the pixels where the class is predicted.",
    targets.Pixel: "Give an `index` as well.",
    targets.Box: "Give Detection(anchor, index).",
    targets.Detection: "Give an `index` as well.",
    targets.Classes: "Give one class for each image.",
    targets.TopClasses: "Give one class for each image.",
}


def pinned(target: Any, explanation: Any, count: int) -> Any:
    """Return the target with a row for each image, and the class that was explained in place of an open one.

    Raises:
        ValueError: if it leaves another choice to the model, which an explanation does not name.
    """
    if isinstance(target, targets.Output | targets.Against):
        return target._replace(target=pinned(target.target, explanation, count))
    rows = to_rows(target, count)
    if callable(rows):
        return rows
    index = None if explanation.target is None else np.asarray(explanation.target, np.int32)
    if isinstance(rows, targets.Class | targets.Binary | targets.Probability):
        flat = keras.tree.flatten(explanation.outputs)
        if flat and all(one is not None and one.shape.rank > 2 for one in flat):
            raise ValueError(_OPEN.format(f"a class of outputs {flat[0].shape}", _ADVICE[targets.Region]))
        if index is None:  # A single unit without classes leaves nothing open.
            return target if isinstance(target, tuple) and target.index is None else targets.Class()
        return rows._replace(index=_filled(rows.index, index))
    fields = {name: getattr(target, name) for name in getattr(target, "_fields", ())}
    is_open = any(name in fields and fields[name] is None for name in ("other", "mask"))
    is_open |= isinstance(target, targets.Pixel | targets.Detection) and fields["index"] is None
    if is_open or isinstance(target, targets.Box | targets.Classes | targets.TopClasses):
        raise ValueError(_OPEN.format(f"{type(target).__name__}", _ADVICE[type(target)]))
    is_filled = "index" in fields and index is not None and not isinstance(target, targets.Value)
    return rows._replace(index=_filled(rows.index, index)) if is_filled else rows


def _filled(given, explained):
    """Return classes, with those that were explained in place of those that were left to the model."""
    return np.where(np.asarray(given) < 0, explained, given).astype(np.int32)


def _as_probability(target):
    if isinstance(target, targets.Output):
        inner = _as_probability(target.target)
        return None if inner is None else target._replace(target=inner)
    if isinstance(target, targets.Class | targets.Probability):
        return targets.Probability(target.index)
    return None


def _one_map(explanation) -> np.ndarray:
    several = isinstance(explanation.map, tuple)
    return np.asarray(explanation.heatmap if several else explanation.map, np.float64)

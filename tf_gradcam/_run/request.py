"""The records that describe a run: its `Request` and its `Classifier`. Every step of a run reads them.

The command line makes them from its options, a benchmark makes them by hand.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tf_gradcam._checks import did_you_mean
from tf_gradcam._files import PictureOptions
from tf_gradcam._images import ALPHA
from tf_gradcam._runtimes import LoadedExplainer

if TYPE_CHECKING:
    import keras

AS_IT_IS = PictureOptions()  # as the file says


@dataclasses.dataclass(frozen=True)
class Request:
    """What a run explains, by which methods, and what it writes.

    Attributes:
        out: the folder to write to.
        methods: names of methods, each once.
        layer: name or path of a layer, several of them to fuse, or `None` for the default layer.
        call: which run of a layer that runs several times, from 0. With `None`, the layer must run once.
        fuse: how the maps of several layers become one; `None` for their mean.
        output: name or position of the output to explain, for a model with several.
        target: index or label of the class to explain; `None` for the predicted class.
        top: how many of the best classes to explain, from 1. More than one only by one method.
        channels: for methods that try the layer's channels one by one: how many of the strongest ones they
            try; `None` for all.
        format: file format of overlays and heatmaps, `"png"` or `"jpg"`.
        alpha: opacity of the heatmap, in [0, 1].
        colormap: the name of a colour map, as `tf_gradcam.colorize` takes it; `None` for the default.
        fade: whether the colours fade out where the heatmap is low.
        vmax: the value of the signed map that gets the full colour in every picture; `None` to divide each
            heatmap by its own maximum. For one layer.
        signed: whether what speaks against the class is drawn, too. Not with contours, nor for scans.
        contour: the levels of lines that are drawn instead of colours, as shares of the full colour.
        boxes: the threshold of the boxes in each heatmap, as `tf_gradcam.boxes` takes it; `None` for no
            boxes.
        picture: which values of a file are black and white in pictures, and which bands are shown.
        sliding: the overlap of the windows by which scans are explained, in [0, 1); `None` to fit them to
            the model's input as a whole.
    """

    out: pathlib.Path
    methods: tuple[str, ...] = ("gradcam",)
    layer: str | Sequence[str] | None = None
    call: int | None = None
    fuse: str | None = None
    output: str | int | None = None
    target: str | int | None = None
    top: int = 1
    channels: int | None = None
    format: str = "png"
    alpha: float = ALPHA
    colormap: str | None = None
    fade: bool = True
    vmax: float | None = None
    signed: bool = False
    contour: tuple[float, ...] | None = None
    boxes: float | str | None = None
    picture: PictureOptions = AS_IT_IS
    sliding: float | None = None


def shown_as(options: PictureOptions, values: Any, is_of_patient: bool) -> PictureOptions:
    """Return those of the options that are meant for a file; a run may have files of many kinds.

    A window is for scans of a patient, limits and percentiles are for more than 8 bits, and bands are for
    more than three channels.

    Args:
        options: what the run was asked for.
        values: array or array-like `(*axes, C)`.
        is_of_patient: whether the file is DICOM or NIfTI.
    """
    return PictureOptions(
        options.window if is_of_patient else None,
        None if values.dtype == np.uint8 else options.limits,
        None if values.dtype == np.uint8 else options.percentiles,
        options.bands if values.shape[-1] > 3 else None,
    )


class Classifier(NamedTuple):
    """A model or a loaded file, the preprocessing of its input, and the names of its classes, if known."""

    model: "keras.Model | LoadedExplainer"
    preprocess: Callable
    labels: tuple[str, ...] | None


def class_index(target: str | int, labels: Sequence[str] | None) -> int:
    """Return the class that a target means: an index, or a label in upper or lower case.

    Raises:
        ValueError: if there is no such label, or several.
    """
    if isinstance(target, int) or target.isdecimal():
        return int(target)
    if not labels:
        raise ValueError(
            f"`target` must be a class index, as the model's labels are unknown. Received: {target}. "
            "Give the names of its classes: `labels`"
        )
    matches = [index for index, label in enumerate(labels) if label.casefold() == target.casefold()]
    if len(matches) == 1:
        return matches[0]
    hint = f"It may be any of the classes {matches}." if matches else did_you_mean(target, labels)
    raise ValueError(f"`target` must be a class index or a label. Received: {target}. {hint}")

"""The arguments of `GradCAM.sliding`, checked before anything is read. Called by `sliding`."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._arrays import array_or_empty
from tf_gradcam._checks import is_whole
from tf_gradcam._explain.explainer import Explainer
from tf_gradcam._explain.windows import Source, open_source
from tf_gradcam._heatmap import LARGEST_SIDE, parse_size
from tf_gradcam._methods import is_classless
from tf_gradcam._model import count_call_arguments, declared_specs, is_channels_first
from tf_gradcam._targets import to_rows

_PREDICTED = -1  # in the rows of a target: the class that is predicted


def checked_source(explainer: Explainer, model: keras.Model, image: Any, is_raw: bool) -> Source:
    """Return the source of an image, with nothing read.

    Args:
        explainer: the explainer.
        model: its model.
        image: as `GradCAM.sliding` takes it.
        is_raw: whether a `preprocess` comes before the model.

    Raises:
        TypeError, ValueError: as `GradCAM.sliding` does.
    """
    specs = declared_specs(model)
    is_one_input = isinstance(specs, tf.TensorSpec) or (specs is None and count_call_arguments(model) < 2)
    flat = [] if specs is None else keras.tree.flatten(specs)
    if not is_one_input and len(flat) != 1:
        raise ValueError(
            "`sliding` needs a model with one input. Received: a model with several. Cut the windows "
            "yourself, and explain them in batches."
        )
    source = open_source(image)
    rank = flat[0].shape.rank - 1 if flat and not is_raw else None
    received = len(source.values.shape)
    if not 2 <= received <= 4 or rank not in (None, received):
        known = rank is not None and 2 <= rank <= 4
        expected = (
            f"{rank} axes, as the model takes them" if known else "2 to 4 axes, one of them for channels"
        )
        raise ValueError(
            f"`image` must be one image without a batch axis, with {expected}. Received: shape "
            f"{tuple(source.values.shape)}"
        )
    layer_calls = getattr(explainer, "layer_calls", [])  # A model that was never called has none yet.
    unknown = bool(layer_calls) and layer_calls[0].channels_first and not is_raw
    shape = (1, *source.values.shape) if is_raw or not flat else flat[0].shape
    return source._replace(channels_first=is_channels_first(shape, unknown))


def checked_window(model: keras.Model, window: Any, source: Source, is_raw: bool) -> tuple[int, ...]:
    """Return the length of a window along each axis of the image, by default what the model takes."""
    specs = declared_specs(model)
    axes = len(source.lengths)
    taken: list[int | None] = [None] * axes
    if specs is not None:
        shape = list(keras.tree.flatten(specs)[0].shape[1:])
        taken = shape[1:] if source.channels_first else shape[:-1]
    if window is None:
        if None in taken or len(taken) != axes:
            raise ValueError(
                "`window` must be given for a model that takes images of any size: its length along each of "
                f"the {axes} axes of the image. Received: window=None"
            )
        return tuple(length for length in taken if length is not None)
    lengths = array_or_empty(window)
    lengths = np.full(axes, lengths) if lengths.ndim == 0 else lengths
    if lengths.dtype.kind not in "iu" or lengths.shape != (axes,) or lengths.min() < 1:
        raise ValueError(
            f"`window` must be one length for each of the {axes} axes of the image, or one for all, in "
            f"pixels. Received: window={window!r:.80}"
        )
    found = tuple(map(int, lengths))
    if not is_raw and any(fixed not in (None, length) for fixed, length in zip(taken, found, strict=False)):
        raise ValueError(
            f"`window` must be what the model takes, {tuple(taken)}. Received: window={window!r:.80}. Leave "
            "it out."
        )
    return found


def checked_size(size: Any, lengths: Sequence[int]) -> tuple[int, ...] | None:
    """Return the lengths of the heatmap, or `None` for the grid."""
    parsed = parse_size(size)
    if parsed is None:
        return None
    found = tuple(lengths) if isinstance(parsed, str) else tuple(map(int, parsed))
    if len(found) != len(lengths):
        raise ValueError(
            f"`size` must hold one length for each of the {len(lengths)} axes of the image. "
            f"Received: size={size!r:.80}"
        )
    if isinstance(parsed, str) and (max(found) > LARGEST_SIDE or math.prod(found) > LARGEST_SIDE**2):
        raise ValueError(
            f"`size` must be None, for the grid of the layer, or smaller lengths, for an image of {found}: a "
            f"heatmap has at most {LARGEST_SIDE} pixels along an axis, and {LARGEST_SIDE**2} in all. "
            f"Received: size={size!r}"
        )
    return found


def check_numbers(overlap: Any, batch_size: Any) -> None:
    """Raise a `ValueError` unless these can be the overlap of windows and the size of a batch."""
    is_real = isinstance(overlap, numbers.Real) and not isinstance(overlap, bool)
    if not is_real or not 0 <= float(overlap) < 1:
        raise ValueError(
            "`overlap` must be a number from 0 up to, but not including, 1: the part of a window that the "
            f"next one shares. Received: overlap={overlap!r:.80}"
        )
    if not is_whole(batch_size) or batch_size < 1:
        raise ValueError(
            f"`batch_size` must be a whole number from 1. Received: batch_size={batch_size!r:.80}"
        )


def check_one_target(explainer: Explainer, target: Any, axes: int) -> None:
    """Raise a `ValueError` unless a target is the same for every window."""
    if is_classless(explainer.method):
        return  # Whether it must be None is checked where it is asked.
    of_one = to_rows(target, 1)
    if _is_chosen_by_model(of_one):
        raise ValueError(
            "`target` must name the class to explain, as each window would explain its own predicted class. "
            f"Received: target={target!r:.80}. Give a class, such as target=0."
        )
    try:
        to_rows(target, 2)
        has_rows = _has_several_masks(of_one, axes)
    except ValueError:
        has_rows = True
    if has_rows:
        raise ValueError(
            "`target` must be one for all windows. Received: one for each image. Give a single class, or a "
            "target without a batch axis."
        )


def _is_chosen_by_model(rows) -> bool:
    """Return whether a target, as `to_rows` returns it, leaves a class to the model."""
    for name, value in zip(
        getattr(rows, "_fields", ()), rows if isinstance(rows, tuple) else (), strict=True
    ):
        if name == "count" or (name == "target" and _is_chosen_by_model(value)):
            return True
        # Of the sum over a mask there may be no classes.
        is_index = name == "index" and getattr(rows, "mask", None) is None
        if is_index and not tf.is_symbolic_tensor(value) and np.any(np.asarray(value) == _PREDICTED):
            return True
    return False


def _has_several_masks(rows, axes) -> bool:
    if not hasattr(rows, "_fields"):
        return False
    mask = getattr(rows, "mask", None)
    inner = getattr(rows, "target", None)
    return (mask is not None and len(mask.shape) > axes) or _has_several_masks(inner, axes)

"""The pictures of a callback: photograph and overlay side by side, with a caption. The callback calls it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from PIL import Image, ImageDraw

from tf_gradcam._images import (
    class_probabilities,
    font,
    label_of,
    load_image,
    overlay,
    resize_pixels,
    size_within,
)

_MOST, _LEAST = 448, 192  # longest side of a photograph in a picture, in pixels
_WIDTH = 320  # of a picture at least, for its caption
_LOWEST_WHITE = 16  # Floating values in [0, 255] are brighter than this somewhere.
_GAP = 4
_LETTERS = 20  # Their size is the picture's width by this: TensorBoard draws all pictures equally wide.


class Numbers(NamedTuple):
    """The numbers of an explanation, each `(N,)`, or `(N, M)` for M maps of each image.

    Attributes:
        score: the explained score.
        target: the explained class, or `None`.
        probability: the model's probability of the class, or `None`.
        peak: the largest value of the signed map, 0 if none is above; `None` for several layers.
    """

    score: np.ndarray
    target: np.ndarray | None
    probability: np.ndarray | None
    peak: np.ndarray | None


def numbers_of(explanation: Any, is_probability: bool = False) -> Numbers:
    """Return the numbers of an `Explanation`.

    Args:
        explanation: the explanation.
        is_probability: whether the target is a probability, and no logit.
    """
    score = np.asarray(explanation.score, np.float64)
    probability = None
    if explanation.target is not None:
        outputs = keras.tree.flatten(explanation.outputs)
        if len(outputs) == 1:
            probability = class_probabilities(outputs[0], explanation.target, score)
        # The output of a single unit may be a logit that lies in [0, 1] by chance.
        if probability is not None and outputs[0].shape[-1] == 1 and not is_probability:
            sigmoid = 1 / (1 + np.exp(-np.clip(score, -50, 50)))
            probability = probability if np.allclose(probability, sigmoid, rtol=0, atol=0.01) else None
    shape = tuple(explanation.heatmap.shape[: score.ndim])  # A bag of images has one score.
    peak = None
    if not isinstance(explanation.map, tuple):
        maps = np.asarray(explanation.map, np.float64)
        peak = np.maximum(maps.reshape(*maps.shape[: score.ndim], -1).max(axis=-1), 0)
    rest = (explanation.target, probability, peak)
    target, probability, peak = (
        None if each is None else np.broadcast_to(np.asarray(each), shape) for each in rest
    )
    return Numbers(np.broadcast_to(score, shape), target, probability, peak)


def class_name(index: int, labels: Sequence[str] | Mapping[int, str] | None) -> str:
    """Return the name of a class.

    Raises:
        ValueError: if `labels` do not name it.
    """
    return f"class {index}" if labels is None else str(label_of(index, labels))


def caption(step: str, numbers: Numbers, place: Any, labels: Any, vmax: float | None) -> list[str]:
    """Return the two lines above a picture.

    Args:
        step: such as `"epoch 3"`.
        numbers: of the explanation.
        place: index of the map in them.
        labels: names of the classes, or `None`.
        vmax: value that has the strongest colour, or `None` for the largest of the heatmap.
    """
    first, second = step, f"score {numbers.score[place]:.4g}"
    if numbers.target is not None:
        first += f": {class_name(int(numbers.target[place]), labels)}"
    if numbers.probability is not None:
        first += f", probability {numbers.probability[place]:.2f}"
    if numbers.peak is not None:
        peak = numbers.peak[place]
        second += f", peak {peak:.3g}" if peak > 0 else ", no evidence" if peak == 0 else ", not finite"
        second += f" of {vmax:.3g}" if vmax is not None and peak > 0 else ""
    return [first, second]


def draw(photograph: np.ndarray, heatmap: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """Return a picture: the photograph, the overlay beside it, and lines of text above.

    Args:
        photograph: `(H, W, 3)` uint8.
        heatmap: `(h, w)` in `[0, 1]`; with a value that is not finite it is drawn as if it was empty.
        lines: the text.

    Returns:
        uint8 array, RGB.
    """
    photograph = _readable(photograph)
    heatmap = heatmap if np.isfinite(heatmap).all() else np.zeros_like(heatmap)
    panels = [photograph, overlay(photograph, heatmap)]
    height, width = photograph.shape[:2]
    whole = max(_WIDTH, 2 * width + _GAP)
    line = 5 * whole // (4 * _LETTERS)
    top = line * len(lines) + line // 2
    canvas = np.full((top + height, whole, 3), 255, np.uint8)
    for number, panel in enumerate(panels):
        left = number * (width + _GAP)
        canvas[top:, left : left + width] = panel
    return _write(canvas, lines)


def _readable(photograph) -> np.ndarray:
    """Return a photograph that is neither too large nor, by repeated pixels, too small to be looked at."""
    size = photograph.shape[:2]
    factor = -(-_LEAST // max(size))
    if factor > 1:
        return photograph.repeat(factor, axis=0).repeat(factor, axis=1)
    return photograph if max(size) <= _MOST else resize_pixels(photograph, size_within(size, _MOST))


def _write(canvas, lines) -> np.ndarray:
    picture, letters = Image.fromarray(canvas), font(canvas.shape[1] // _LETTERS)
    line, margin = 5 * letters.size // 4, letters.size // 4
    pen = ImageDraw.Draw(picture)
    for number, text in enumerate(lines):
        while len(text) > 1 and letters.getlength(text) > picture.width - 2 * margin:
            text = f"{text[:-2]}…"
        pen.text((margin, margin + number * line), text, fill=(0, 0, 0), font=letters)
    return np.asarray(picture)


# Photographs


def read_photographs(photographs: Sequence[Any], count: int) -> list[np.ndarray]:
    """Return photographs in any form that `load_image` takes as pixels, not larger than they are drawn.

    Raises:
        ValueError: if there is not one for each image.
    """
    if len(photographs) != count:
        raise ValueError(
            f"`photographs` must hold one for each of the {count} images. Received: {len(photographs)}"
        )
    pixels = [load_image(each) for each in photographs]
    return [resize_pixels(each, size_within(each.shape[:2], _MOST)) for each in pixels]


def photographs_of(images: Any, shape: Sequence[int]) -> list[np.ndarray] | None:
    """Return what the model sees as pixels: the first of its inputs that has the heatmaps' shape.

    Values within [0, 1] or [0, 255] are taken as they are. Others, such as those of normalized images, and
    fractions of which the largest is a little above 1, as contrast or a cubic resize makes them, are
    stretched from the lowest to the highest value of each image.

    Args:
        images: arrays `(N, H, W, C)`, or `(N, H, W)` of grey images, in the structure that the model takes.
        shape: `(H, W)` of the heatmaps, or `(D, H, W)`.

    Returns:
        N arrays `(H, W, 3)` or `(D, H, W, 3)`, uint8; `None` if no input has this shape.
    """
    for array in keras.tree.flatten(images):
        if array.ndim != len(shape) + 2:
            continue
        if array.shape[1:-1] == tuple(shape):
            return _as_pixels(array)
        if array.shape[2:] == tuple(shape):
            return _as_pixels(np.moveaxis(array, 1, -1))
    for array in keras.tree.flatten(images):
        if array.shape[1:] == tuple(shape):
            return _as_pixels(array[..., None])
    return None


def _as_pixels(array) -> list[np.ndarray]:
    values = np.asarray(array, np.float32)
    channels = values.shape[-1]
    values = values[..., :3] if channels in (3, 4) else values.mean(axis=-1, keepdims=True)
    low, high = values.min(), values.max()
    is_fraction = array.dtype.kind == "f" and 1 < high < _LOWEST_WHITE
    if low >= 0 and high <= 255 and not is_fraction:
        values = values * 255 if high <= 1 and array.dtype.kind in "fb" else values
    else:
        axes = tuple(range(1, values.ndim))
        lows = values.min(axis=axes, keepdims=True)
        ranges = values.max(axis=axes, keepdims=True) - lows
        values = (values - lows) * (255 / np.where(ranges > 0, ranges, 1))
    pixels = np.rint(values).astype(np.uint8)
    return list(np.broadcast_to(pixels, (*pixels.shape[:-1], 3)))

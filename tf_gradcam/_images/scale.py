"""What is drawn of a heatmap or `Explanation`, and which value gets the full colour.

The other modules that draw call it.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam._arrays import real_array
from tf_gradcam._checks import did_you_mean
from tf_gradcam._images.palette import signed_or_heat

ALPHA = 0.7  # of a faded overlay; with less, half the heat can hardly be seen
_AT_EDGE = 1e-6  # rounding may leave a value slightly outside [0, 1]
_SAME = 1e-3  # two enlargements of one map, by TensorFlow on any device and by NumPy


class Look(NamedTuple):
    """How a heatmap is drawn; see `tf_gradcam.overlay`."""

    vmax: Any = None
    signed: bool = False
    alpha: float = ALPHA
    colormap: Any = None
    fade: bool = True


class Heat(NamedTuple):
    """A heatmap to draw.

    Attributes:
        values: `(h, w)`, or `(d, h, w)` of a volume, as the heatmap is scaled.
        unit: what `values` are multiplied by to be in the units of the signed map; 1 for an array, which has
            no other, `None` where there is no such map.
    """

    values: np.ndarray
    unit: float | None = 1.0


class Scaled(NamedTuple):
    """Heatmaps in `[0, 1]`, or `[-1, 1]` if signed, in groups, and what 1 stands for.

    Attributes:
        heatmaps: image by image.
        kind: `"given"`, `"own"`, `"volume"`, `"image"` or `"one"`: values as they were given, divided by each
            heatmap's own maximum, by that of a whole volume, by the maximum of each image's heatmaps, or by
            one number for all. `"blank"` where nothing is above 0, so that nothing says what 1 is.
        top: that number, or `None`.
    """

    heatmaps: list[np.ndarray]
    kind: str
    top: float | None


def checked_look(look: Look) -> Look:
    """Return a look with its colour map, or raise for what it can't be."""
    for name in ("signed", "fade"):
        value = getattr(look, name)
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"`{name}` must be True or False. Received: {name}={value!r:.80}")
    check_alpha(look.alpha)
    check_vmax(look.vmax)
    return look._replace(colormap=signed_or_heat(look.colormap, look.signed))


def check_alpha(alpha: Any) -> None:
    if not _is_number(alpha) or not 0 <= alpha <= 1:
        raise ValueError(f"`alpha` must be a number in [0, 1]. Received: alpha={alpha!r:.80}")


def check_vmax(vmax: Any) -> None:
    """Raise a `ValueError` unless `vmax` is `None`, `"batch"` or a finite number above 0."""
    if vmax is None or (isinstance(vmax, str) and vmax == "batch"):
        return
    if not _is_number(vmax) or not 0 < vmax < math.inf:
        hint = did_you_mean(vmax, ["batch"]) if isinstance(vmax, str) else ""
        raise ValueError(
            f'`vmax` must be None, "batch" or a finite number above 0. Received: vmax={vmax!r:.80}. '
            f"{hint}".rstrip(" .")
            + "."
        )


def _is_number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


# From what users give to `Heat`


def heats_of_images(argument: str, explanation: Any, signed: bool) -> list[list[Heat]]:
    """Return for each image its heatmaps: one, or one for each class that was explained.

    Args:
        argument: the caller's argument that `explanation` is; the errors name it.
        explanation: an `Explanation`, a heatmap, a batch or list of heatmaps, or a list of explanations
            of one heatmap each.
        signed: whether what speaks against is drawn, too.
    """
    if hasattr(explanation, "heatmap"):
        return _explained(argument, explanation, signed)
    if isinstance(explanation, list | tuple):
        return [[single_heat(argument, each, signed)] for each in explanation]
    values = real_array(argument, explanation)
    return [[_array_heat(argument, each)] for each in (values if values.ndim == 3 else [values])]


def coarse_heatmaps(explanation: Any) -> list[np.ndarray | None]:
    """Return for each image of an `Explanation` its one heatmap on the layer's grid, scaled as it is.

    `None` where the heatmap is more than its map enlarged: of several layers, or of a model that crops.
    """
    heats = [heat for (heat,) in _explained("explanation", explanation, signed=False)]
    return [
        None if heat.values.shape == heatmap.shape else heat.values
        for heat, heatmap in zip(heats, explanation.heatmap, strict=True)
    ]


def single_heat(argument: str, heatmap: Any, signed: bool) -> Heat:
    """Return the heatmap `(h, w)` of one image and class."""
    if not hasattr(heatmap, "heatmap"):
        return _array_heat(argument, heatmap)
    groups = _explained(argument, heatmap, signed)
    if len(groups) != 1 or len(groups[0]) != 1:
        shape = np.shape(heatmap.heatmap)
        first = ", ".join("0" * _leading_axes(heatmap))
        raise ValueError(
            f"`{argument}` must be one heatmap. Received: an Explanation with heatmaps of the shape "
            f"{shape}. Give one of them, such as `explanation.heatmap[{first}]`, or call `show`: it "
            "draws all of them."
        )
    return groups[0][0]


def volume_heat(argument: str, heatmap: Any, signed: bool) -> Heat:
    """Return the heatmap `(d, h, w)` of a volume or video: of an `Explanation`, in the units of its map.

    An `Explanation` is that of one volume, or of a batch of frames, one heatmap for each.
    """
    if not hasattr(heatmap, "heatmap"):
        values = real_array(argument, heatmap)
        values = values[0] if values.ndim == 4 and len(values) == 1 else values
        heats = [Heat(values)]
    else:
        groups = _explained(argument, heatmap, signed)
        heats = [each for group in groups for each in group]
        if heats and heats[0].values.ndim == 2 and all(len(group) == 1 for group in groups):
            units = [each.unit for each in heats if each.unit is not None]
            if len(units) < len(heats):
                return Heat(np.stack([each.values for each in heats]), None)
            highest = (np.abs(each.values).max() * unit for each, unit in zip(heats, units, strict=True))
            top = float(max(highest)) or 1.0  # The unit of a blank frame says nothing.
            pairs = zip(heats, units, strict=True)
            return Heat(np.stack([each.values * (unit / top) for each, unit in pairs]), top)
    if len(heats) != 1 or heats[0].values.ndim != 3 or 0 in heats[0].values.shape:
        shape = np.shape(heatmap.heatmap) if hasattr(heatmap, "heatmap") else heats[0].values.shape
        cure = " Explain one class of one volume or video, such as cam(volume, 1)." if len(heats) > 1 else ""
        raise ValueError(
            f"`{argument}` must be (d, h, w), the heatmap of a volume or video. Received: shape {shape}."
            f"{cure}"
        )
    _check_finite(argument, heats[0].values)
    return heats[0]


def is_of_volume(explanation: Any) -> bool:
    """Return whether this is an `Explanation` of volumes or videos, with a heatmap `(d, h, w)` for each."""
    if not hasattr(explanation, "heatmap"):
        return False
    return np.ndim(explanation.heatmap) - _leading_axes(explanation) == 3


def _array_heat(argument, heatmap) -> Heat:
    values = real_array(argument, heatmap)
    values = values[0] if values.ndim == 3 and len(values) == 1 else values
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"`{argument}` must have the shape (H, W). Received: shape {values.shape}")
    return Heat(values)


def _leading_axes(explanation) -> int:
    """Return how many axes are of images and classes; the others are the heatmap's own."""
    return np.ndim(explanation.score) if hasattr(explanation, "score") else 1


def _explained(argument, explanation, signed) -> list[list[Heat]]:
    """Return the heatmaps of an `Explanation`, those in one group that have a score's row in common."""
    heatmaps = real_array(argument, explanation.heatmap)
    leading = heatmaps.shape[: _leading_axes(explanation)]
    maps = _maps(argument, explanation, heatmaps, len(leading))
    places = list(np.ndindex(leading))
    pairs = [(heatmaps[place], None if maps is None else maps[place]) for place in places]
    on_whole_image = maps is not None and _on_whole_image(pairs)
    if signed and not on_whole_image and not any(values.min() < 0 for values, _ in pairs if values.size):
        if maps is None:
            raise ValueError(
                f"`{argument}` must have one signed map for each heatmap, if signed=True. Received: an "
                f"{type(explanation).__name__} of several layers, or without a map. Explain one layer."
            )
        if not hasattr(explanation, "map_ends"):
            raise ValueError(
                f"`{argument}` must say where its signed map lies on the image. Received: an Explanation "
                "whose heatmap is not its map enlarged: of a model that crops, by another interpolation, or "
                "without anything that speaks for the target. Ask for the signed heatmap: "
                "cam(images, signed=True); or, if the map covers the whole image, give it as an array: "
                "explanation.map[0]."
            )
        pairs = [(values, _placed(explanation, values, signed_map)) for values, signed_map in pairs]
        on_whole_image = True
    heats = [_heat(*pair, signed, on_whole_image) for pair in pairs]
    rows = np.shape(explanation.score)[0] if np.ndim(getattr(explanation, "score", 0)) else len(heats)
    per_row = len(heats) // max(1, min(rows, len(heatmaps)))
    return [heats[start : start + per_row] for start in range(0, len(heats), max(1, per_row))]


def _maps(argument, explanation, heatmaps, axes):
    """Return the signed maps, or `None` if there are none, or those of several layers."""
    maps = getattr(explanation, "map", None)
    if maps is None or isinstance(maps, tuple):
        return None
    maps = real_array(argument, maps)
    return maps if maps.ndim == heatmaps.ndim and maps.shape[:axes] == heatmaps.shape[:axes] else None


def _heat(values, signed_map, signed, on_whole_image) -> Heat:
    if signed_map is None:
        return Heat(values, None)
    is_signed = bool(values.size) and values.min() < 0
    source = signed_map if is_signed or signed else np.maximum(signed_map, 0)
    highest = float(np.abs(source).max())
    if not np.isfinite(highest):
        return Heat(values, None)
    own = float(np.abs(values).max())
    if not on_whole_image:
        return Heat(values, highest / own if own > 0 else 1.0)
    # The map is drawn, and not the heatmap: its enlargement to the model's input has facets.
    share = 1.0 if signed and not is_signed else own  # below 1 where a bag of images has one scale
    if highest == 0 or share == 0:
        return Heat(np.zeros_like(source), 1.0)
    return Heat(source / highest * share, highest / share)


def _on_whole_image(pairs) -> bool:
    """Return whether each heatmap is its map enlarged bilinearly to the image; `False` if none has values.

    It is not where the model crops, pads or flips the image, or where the caller chose an interpolation.
    """
    shown = [(values, signed_map) for values, signed_map in pairs if values.size and values.any()]
    return bool(shown) and all(_is_enlarged(*pair) for pair in shown)


def _placed(explanation, values, signed_map) -> np.ndarray:
    """Return the signed map of a `SlidingExplanation` on the whole image; 0 where its heatmap has nodata."""
    ends, valid = explanation.map_ends, explanation.valid
    if valid is None and np.allclose(ends, 1, atol=1e-9):
        return signed_map
    placed = _enlarged(signed_map, values.shape, ends)
    return placed if valid is None else placed * valid


def _enlarged(source, shape, ends) -> np.ndarray:
    """Enlarge a map bilinearly to an image of this shape. It ends at these shares of the image's lengths."""
    for axis, (length, end) in enumerate(zip(shape, ends, strict=True)):
        count = source.shape[axis]
        place = np.clip((np.arange(length) + 0.5) * count / (length * end) - 0.5, 0, count - 1)
        low = np.minimum(place.astype(int), max(0, count - 2))
        share = (place - low).reshape([-1 if other == axis else 1 for other in range(len(shape))])
        first, second = source.take(low, axis), source.take(np.minimum(low + 1, count - 1), axis)
        source = first + share * (second - first)
    return source


def _is_enlarged(values, signed_map) -> bool:
    source = signed_map if values.min() < 0 else np.maximum(signed_map, 0)
    source = _enlarged(source, values.shape, [1] * values.ndim)
    highest = np.abs(source).max()
    return bool(highest > 0 and np.abs(source / highest * np.abs(values).max() - values).max() < _SAME)


# From `Heat` to [0, 1]


def scale_heats(argument: str, groups: Sequence[Sequence[Heat]], look: Look) -> Scaled:
    """Divide heatmaps by what gets the full colour; see `tf_gradcam.overlay`.

    Args:
        argument: the caller's argument that they were; the errors name it.
        groups: for each image its heatmaps.
        look: `vmax` and `signed`.
    """
    scaled = _scaled(argument, groups, look)
    has_none = not any(each.any() for each in scaled.heatmaps)
    return scaled._replace(kind="blank", top=None) if has_none and not _is_number(look.vmax) else scaled


def scale_volume(argument: str, explanation: Any, look: Look) -> Scaled:
    """Return the one heatmap `(d, h, w)` of a volume or video, scaled as a whole; see `volume_heat`."""
    heat = volume_heat(argument, explanation, look.signed)
    scaled = scale_heats(argument, [[heat]], look)
    # Frames without a common unit, as those of several layers, keep a scale for each.
    keep_own = heat.unit is None and not is_of_volume(explanation)
    return scaled._replace(kind="volume") if scaled.kind == "own" and not keep_own else scaled


def _scaled(argument, groups, look) -> Scaled:
    heats = [each for group in groups for each in group]
    have_units = all(each.unit is not None for each in heats)
    if look.vmax is not None or look.signed:
        for each in heats:
            _check_finite(argument, each.values)
    else:
        for each in heats:
            _check_range(argument, each.values)
    if look.vmax is not None and not have_units:
        raise ValueError(
            "`vmax` must be None for an Explanation of several layers, or without a map: their values have "
            f"no common unit. Received: vmax={look.vmax!r:.80}. Explain one layer."
        )
    is_one_group = len(groups) == 1 and len(heats) > 1 and have_units
    if look.vmax is not None or is_one_group:
        is_number = _is_number(look.vmax)
        top = float(look.vmax) if is_number else _highest(heats, look.signed)
        return Scaled(_divided(heats, top, look.signed), "one", top)
    scaled = [each for group in groups for each in _in_one_scale(group, look.signed)]
    if len(heats) > len(groups) and have_units:
        return Scaled(scaled, "image", None)
    is_own = all(abs(np.abs(each).max() - 1) < _AT_EDGE or not each.any() for each in scaled)
    return Scaled(scaled, "own" if is_own else "given", None)


def _in_one_scale(group, signed) -> list[np.ndarray]:
    """Return the heatmaps of one image: several are divided by their common maximum."""
    is_given = len(group) == 1 and not signed
    if is_given or any(each.unit is None for each in group):
        return [_clip(each.values, signed) for each in group]
    return _divided(group, _highest(group, signed), signed)


def _highest(heats, signed) -> float:
    tops = [np.abs(each.values).max() if signed else each.values.max() for each in heats]
    highest = (float(top) * each.unit for top, each in zip(tops, heats, strict=True))
    return max(0.0, max(highest, default=0.0))


def _divided(heats, top, signed) -> list[np.ndarray]:
    if top == 0:  # Nothing speaks for anything.
        return [np.zeros(each.values.shape, np.float32) for each in heats]
    with np.errstate(over="ignore"):  # far above a small `vmax`; it is clipped
        return [_clip(each.values.astype(np.float64) * each.unit / top, signed) for each in heats]


def _clip(values, signed) -> np.ndarray:
    return np.clip(values, -1 if signed else 0, 1).astype(np.float32)


def _check_finite(argument, values) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"`{argument}` must hold finite values. Received: values that are NaN or infinite.")


def _check_range(argument, values) -> None:
    if not (values.min() >= -_AT_EDGE and values.max() <= 1 + _AT_EDGE):  # also true for NaN
        raise ValueError(
            f"`{argument}` must be in [0, 1]. "
            f"Received: values from {values.min():.4g} to {values.max():.4g}. "
            "Give the heatmap, not the signed map; or `vmax`, the value that gets the full colour; or "
            "signed=True."
        )

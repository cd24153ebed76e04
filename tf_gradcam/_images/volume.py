"""Volumes and videos as pictures: which slices to show, and a heatmap on the slices of a scan.

`draw` and `figure` call it.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam import formats
from tf_gradcam._arrays import real_array
from tf_gradcam._files import OwnRange, PictureOptions, fix_limits
from tf_gradcam._images.read import as_scan
from tf_gradcam._images.scale import is_of_volume

SLICES_SHOWN = 6  # in a figure, at most
_SAMPLED_SLICES, _SAMPLED_SIDE = 32, 512  # for the limits of a whole scan
_AS_IT_IS = PictureOptions()
_TO_LPS = {"LPS mm": np.array([1, 1, 1]), "RAS mm": np.array([-1, -1, 1])}  # signs of the coordinates


class ShownSlices(NamedTuple):
    """Slices or frames of a scan: RGB pictures, the heatmap of each, and what each is called."""

    pictures: list[np.ndarray]
    heatmaps: list[np.ndarray]
    names: list[str]


def as_volume(source: Any, argument: str) -> formats.Scan | None:
    """Return a `Scan` of a volume or video, given as one or by its path; `None` for any other source."""
    scan = as_scan(source, argument)
    return scan if isinstance(scan, formats.Scan) and len(scan.axes) == 3 else None


def check_no_volume(argument: str, image: Any, explanation: Any) -> None:
    """Raise a `ValueError` if a heatmap is that of a volume or video, and `image` is not a `Scan` of it."""
    shape = getattr(image, "shape", None)
    if not is_of_volume(explanation):
        heatmap_shape: Any = () if hasattr(explanation, "heatmap") else getattr(explanation, "shape", ())
        # (1, d, h, w) with an array that is not one photograph; (1, M, h, w) with one is that of M classes.
        is_one = len(heatmap_shape) == 4 and heatmap_shape[0] == 1
        if not is_one or shape is None or len(shape) < 3 or _is_one_photograph(shape):
            return
    received = f"an array of shape {tuple(shape)}" if shape is not None else f"a {type(image).__name__}"
    raise ValueError(
        f"`{argument}` must be a tf_gradcam.formats.Scan of a volume or video, or its path, for a heatmap "
        f"(d, h, w). Received: {received}. Give what tf_gradcam.formats.read(path) returned; or one slice "
        "and its heatmap: volume[index] and explanation.heatmap[0][index]."
    )


def _is_one_photograph(shape) -> bool:
    """Return whether arrays of a shape are a photograph `(H, W, C)`, or a batch of one."""
    return shape[-1] in (1, 3, 4) and (len(shape) == 3 or (len(shape) == 4 and shape[0] == 1))


def fit_slices(argument: str, heatmap: Any, count: int) -> np.ndarray:
    """Return a heatmap `(d, h, w)` of a scan with one map for each of its slices, `(count, h, w)`.

    Between two maps it is interpolated linearly: each is the map of the middle of its share of the scan.
    """
    values = real_array(argument, getattr(heatmap, "heatmap", heatmap))
    if values.ndim == 4 and len(values) == 1:
        values = values[0]
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(
            f"`{argument}` must be (d, h, w), the heatmap of a volume or video. "
            f"Received: shape {values.shape}"
        )
    place = np.clip((np.arange(count) + 0.5) * len(values) / count - 0.5, 0, len(values) - 1)
    below = np.minimum(place.astype(int), max(0, len(values) - 2))
    share = (place - below).astype(np.float32)[:, None, None]
    above = np.minimum(below + 1, len(values) - 1)
    return values[below] * (1 - share) + values[above] * share


def hottest_slices(
    scan: formats.Scan,
    argument: str,
    heatmap: Any,
    options: PictureOptions = _AS_IT_IS,
    most: int = SLICES_SHOWN,
    titles: Sequence[str] = (),
) -> ShownSlices:
    """Return the slices with the largest absolute values of the heatmap, in order, and no two alike.

    Of a patient, they are turned as radiologists look at them.

    Args:
        scan: a volume or video.
        argument: the caller's argument that `heatmap` is; the errors name it.
        heatmap: `(d, h, w)` on any grid.
        options: which values are black and white, and which bands are shown.
        most: how many slices, at most.
        titles: what is said of each of the heatmaps along the first axis, after the names of its slices.
    """
    count = scan.shape[0]
    heatmaps = fit_slices(argument, heatmap, count)
    options = same_for_all_slices(scan, options)
    apart = max(1, count // (4 * most))
    chosen: list[int] = []
    for index in np.argsort(-np.abs(heatmaps).max(axis=(1, 2)), kind="stable"):
        if len(chosen) < most and all(abs(index - each) >= apart for each in chosen):
            chosen.append(int(index))
    chosen.sort()
    turn = _as_radiologists_look(scan)
    pictures = [scan.picture(**options._asdict(), index=index)[turn] for index in chosen]
    names = [_name(scan, index) for index in chosen]
    if titles:
        said = [titles[index * len(titles) // count] for index in chosen]
        names = [f"{name}: {title}" for name, title in zip(names, said, strict=True)]
    return ShownSlices(pictures, [heatmaps[index][turn] for index in chosen], names)


def same_for_all_slices(scan: formats.Scan, options: PictureOptions) -> PictureOptions:
    """Return options that draw every slice of a volume or video on one scale, that of its values.

    The values are those of up to 32 slices.
    """
    if scan.values.dtype == np.uint8 and options.percentiles is None:
        return options  # Every slice has the same limits then, and a video would have to be decoded.
    count = scan.shape[0]
    indices = np.unique(np.linspace(0, count - 1, min(count, _SAMPLED_SLICES)).round().astype(int))
    step = slice(None, None, math.ceil(max(scan.shape[1:3]) / _SAMPLED_SIDE))
    values = np.stack([np.asarray(scan.values[int(index), step, step]) for index in indices])
    valid = None
    if scan.valid is not None:
        valid = np.stack([np.asarray(scan.valid[int(index), step, step]) for index in indices])
    own = OwnRange(scan.limits, scan.windows, scan.tones, scan.negative)
    return fix_limits(values, valid, options, own)


def slice_pairs(scan: formats.Scan, argument: str, heatmap: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return a picture and a heatmap for each slice or frame of a scan."""
    heatmaps = fit_slices(argument, heatmap, scan.shape[0])
    return list(zip(scan.picture(), heatmaps, strict=True))


def _as_radiologists_look(scan) -> tuple[slice, slice]:
    """Return how to turn a slice: the patient's right is at the left, front or head at the top."""
    if scan.space not in _TO_LPS or scan.affine.shape != (3, 4):
        return slice(None), slice(None)
    directions = (_TO_LPS[scan.space][:, None] * scan.affine[:, 1:3]).T  # of rows and columns
    # Wanted are growing left and posterior, and falling superior.
    wanted = [each[np.abs(each).argmax()] * (1, 1, -1)[np.abs(each).argmax()] > 0 for each in directions]
    rows, columns = (slice(None) if is_so else slice(None, None, -1) for is_so in wanted)
    return rows, columns


def _name(scan, index) -> str:
    if scan.times is not None:
        return f"{scan.times[index]:.2f} s"
    return f"slice {index + 1} of {scan.shape[0]}"

"""Draw heatmaps over a video, in one scale over the clip: `overlay_video`.

Users and the command line call it.
"""

import collections
import concurrent.futures
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from tf_gradcam._arrays import real_array
from tf_gradcam._images.draw import blend
from tf_gradcam._images.scale import ALPHA, Heat, Look, checked_look, scale_heats
from tf_gradcam.formats import Scan, write_pictures

_AHEAD = 4  # pictures that are drawn while another is encoded


def overlay_video(
    path: str | os.PathLike,
    scan: Scan,
    heatmaps: Any,
    *,
    vmax: float | str | None = None,
    signed: bool = False,
    alpha: float = ALPHA,
    colormap: str | None = None,
    fade: bool = True,
) -> None:
    """Write a video with the colours of heatmaps blended over its frames, in one scale over the clip.

    What is 0 or less has no colour, and what is `vmax` or more the full one, in every frame.
    `Explanation.heatmap` is divided by the maximum of each frame, so that a frame without evidence looks like
    the best; `Explanation.map`, with one class for all frames, shows when there was evidence, too.

    Args:
        path: where to; it ends in `.mp4`, `.m4v` or `.mov`. It gets the times of the frames and no sound; see
            docs/fields/video.md.
        scan: a video, what `tf_gradcam.formats.read` returned.
        heatmaps: `(T, h, w)`, finite real numbers on any grid, signed or not: one for each frame, such as the
            joined `Explanation.map` of batches of frames. Or one for two or more frames, `(S, h, w)` with
            S <= (T + 1) / 2, of a model with an axis of time: each covers as many frames as any other, and
            between their centres they are interpolated. Also `(1, S, h, w)`, or an `Explanation`, of which
            `map` is taken.
        vmax: the value that gets the full colour, above 0. `None` or `"batch"` for the maximum over the clip.
        signed: whether what speaks against is drawn as well; see `overlay`. The maximum is then that of the
            absolute values.
        alpha: weight of the colours in `[0, 1]`; see `overlay`.
        colormap: name of a colour map; see `colorize`.
        fade: whether the colours fade with the heatmap; see `overlay`.

    Raises:
        ImportError: if PyAV or OpenCV is not installed.
        OSError: if it can't be written.
        TypeError: if `scan` is no `Scan`, or `heatmaps` do not hold real numbers.
        ValueError: if `scan` is no video, if the number of heatmaps doesn't fit, or another argument is none
            of the above.

    Example:

    ```python
    scan = tf_gradcam.formats.read("clip.mp4")
    cam = tf_gradcam.GradCAM(model)
    starts = range(0, len(scan.times), 16)
    maps = [cam(preprocess(scan.values[start : start + 16]), 281).map for start in starts]
    tf_gradcam.overlay_video("clip-heatmap.mp4", scan, np.concatenate(maps))
    ```
    """
    look = checked_look(Look(vmax, signed, alpha, colormap, fade))
    _check_scan(scan)
    count = scan.shape[0]
    maps = _checked_maps(heatmaps, count)
    if vmax is None or vmax == "batch":
        vmax = float(np.abs(maps).max() if signed else maps.max())
        look = look._replace(vmax=vmax if vmax > 0 else 1.0)  # Without evidence every heatmap is 0.

    def draw(number: int) -> np.ndarray:
        heat = Heat(_at_frame(maps, number, count, signed))
        (heatmap,) = scale_heats("heatmaps", [[heat]], look).heatmaps
        return blend(scan.values[number], heatmap, look)

    write_pictures(path, scan, _ahead(draw, count))


def _check_scan(scan) -> None:
    if not isinstance(scan, Scan):
        raise TypeError(
            "`scan` must be what tf_gradcam.formats.read returns for a video. "
            f"Received: {scan!r:.80} (of type {type(scan).__name__})"
        )
    if scan.axes != "tyx" or scan.values.dtype != np.uint8 or scan.shape[-1] != 3:
        raise ValueError(
            f"`scan` must hold RGB frames of 8 bits, as a video does. Received: {scan!r}. Draw its "
            "pictures with tf_gradcam.overlay, and write them with tf_gradcam.formats.write_pictures."
        )


def _checked_maps(heatmaps, count) -> np.ndarray:
    """Return the maps `(S, h, w)`, as they are."""
    maps = real_array("heatmaps", getattr(heatmaps, "map", heatmaps))
    if maps.ndim == 4 and len(maps) == 1:
        maps = maps[0]  # of one clip
    if maps.ndim != 3 or 0 in maps.shape:
        raise ValueError(f"`heatmaps` must be (T, h, w), one for each frame. Received: shape {maps.shape}")
    if len(maps) != count and len(maps) > (count + 1) // 2:
        raise ValueError(
            f"`heatmaps` must be {count}, one for each frame, or at most {(count + 1) // 2}, each for two "
            f"frames or more. Received: {len(maps)}"
        )
    if not np.isfinite(maps).all():
        raise ValueError("`heatmaps` must hold finite values. Received: values that are NaN or infinite.")
    return maps


def _at_frame(maps, number, count, signed) -> np.ndarray:
    """Return the map of a frame, float64: linear between the two whose centres are nearest."""
    place = min(max((number + 0.5) * len(maps) / count - 0.5, 0), len(maps) - 1)
    low = math.floor(place)
    between = maps[low : low + 2].astype(np.float64)
    between = between if signed else np.maximum(between, 0)
    return between[0] + (place - low) * (between[-1] - between[0])


def _ahead(draw, count) -> Iterator[np.ndarray]:
    """Yield `draw(0)`, `draw(1)`, ...; a thread draws the next ones meanwhile, in order."""
    # One thread: two would ask the decoder for frames out of order.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        drawn: collections.deque = collections.deque()
        for number in range(count):
            drawn.append(pool.submit(draw, number))
            if len(drawn) > _AHEAD:
                yield drawn.popleft().result()
        while drawn:
            yield drawn.popleft().result()

"""Write pictures as a video with the clip's own clock, by PyAV (FFmpeg): `write_video`.

`tf_gradcam.formats.write_pictures` calls it.
"""

import itertools
import pathlib
from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np

from tf_gradcam._files import unfinished
from tf_gradcam._optional import require
from tf_gradcam.formats._scan import Scan
from tf_gradcam.formats._video.reading import Clock

_CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov"}
_ENCODER = "libx264"
_OPTIONS = {"preset": "superfast", "crf": "18", "bf": "0"}  # Without B-frames every reader tells the times.
_BT709, _LIMITED = 1, 1  # H.273: matrix, primaries and transfer of BT.709; FFmpeg's AVCOL_RANGE_MPEG
_TICKS = 90_000  # per second, for clocks that are not of a video
_FASTEST = 1_000_000  # ticks per second: mp4 has 32 bits for those between two frames


def write_video(path: pathlib.Path, scan: Scan, pictures: Iterable[np.ndarray]) -> None:
    """Write pictures as H.264, each at the time of its frame of the scan.

    The first is at second 0. yuv420p holds an even number of rows and columns: where a picture has an odd
    number, its last row or column is repeated. Colours are of BT.709, limited range, and tagged as such.
    There is no sound, and none of the metadata of the source.

    Args:
        path: ends in `.mp4`, `.m4v` or `.mov`.
        scan: a video, or another scan with `times`.
        pictures: uint8 `(H, W, 3)`, one for each frame, all of one size; they are taken one by one.
    """
    if path.suffix.lower() not in _CONTAINERS:
        raise ValueError(f"`path` must end in {', '.join(_CONTAINERS)}. Received: {path.name!r}")
    clock, av = _clock(scan), require("av", "av", extra="video")
    with unfinished(path) as temporary:
        try:
            _encode(temporary, clock, _checked(pictures, len(clock.ticks)), av)
        except av.FFmpegError as error:
            if isinstance(error, OSError):  # of the disk; `unfinished` names the path
                raise
            raise ValueError(
                f"`pictures` must be what {_ENCODER} encodes. Received: {error!s:.160}"
            ) from error


def _clock(scan) -> Clock:
    """Return when the pictures are shown, from tick 0."""
    told = scan.header
    if isinstance(told, Clock) and told.time_base.denominator <= _FASTEST:
        ticks, numerator = told.ticks - told.ticks[0], told.time_base.numerator
        base = Fraction(1, told.time_base.denominator)
        return Clock(base, ticks * numerator, told.last * numerator, told.aspect)
    if scan.times is None:
        raise ValueError(
            f"`scan` must have times for a video. Received: {scan.path.name}, of {scan.format}, without."
        )
    ticks = np.rint((np.asarray(scan.times) - scan.times[0]) * _TICKS).astype(np.int64)
    if (np.diff(ticks) <= 0).any():
        raise ValueError("`scan` must have times in order. Received: times that do not increase.")
    base, last = Fraction(1, _TICKS), int(ticks[-1] - ticks[-2]) if len(ticks) > 1 else _TICKS // 25
    if isinstance(told, Clock):
        return Clock(base, ticks, max(1, round(told.last * told.time_base * _TICKS)), told.aspect)
    return Clock(base, ticks, last, Fraction(1))


def _checked(pictures, count) -> Iterator[np.ndarray]:
    """Yield the pictures, `count` of one size, with an even number of rows and columns."""
    number = 0
    first: tuple[int, ...] = ()
    for number, picture in enumerate(pictures, 1):
        shape: tuple[int, ...] = getattr(picture, "shape", ())
        dtype = getattr(picture, "dtype", type(picture).__name__)
        if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ValueError(f"`pictures` must be uint8 (H, W, 3). Received: {dtype} of the shape {shape}")
        first = first or shape
        if shape != first:
            raise ValueError(f"`pictures` must have one size. Received: shapes {first} and {shape}")
        if number > count:
            break
        odd = (0, shape[0] % 2), (0, shape[1] % 2), (0, 0)
        yield np.pad(picture, odd, mode="edge") if shape[0] % 2 or shape[1] % 2 else picture
    if number != count:
        received = f"more than {count}" if number > count else number
        raise ValueError(f"`pictures` must be {count}, one for each frame. Received: {received}")


def _encode(path, clock: Clock, pictures, av) -> None:
    """Encode pictures, one for each tick of the clock."""
    first = next(pictures)
    ends = np.append(clock.ticks[1:], clock.ticks[-1] + clock.last)
    durations = dict(zip(clock.ticks.tolist(), (ends - clock.ticks).tolist(), strict=True))
    rate = Fraction(len(ends), int(ends[-1])) / clock.time_base
    kind = _CONTAINERS[path.suffix.lower()]
    with av.open(str(path), "w", format=kind, options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(_ENCODER, rate=rate.limit_denominator(1001), options=dict(_OPTIONS))
        context = stream.codec_context
        context.height, context.width = first.shape[:2]
        context.pix_fmt = "yuv420p"
        context.time_base = stream.time_base = clock.time_base
        context.sample_aspect_ratio = clock.aspect
        context.color_range = _LIMITED
        context.colorspace = context.color_primaries = context.color_trc = _BT709

        def write(frame) -> None:
            for packet in stream.encode(frame):
                packet.duration = durations[packet.pts]
                container.mux(packet)

        colors = av.video.reformatter.VideoReformatter()
        for tick, picture in zip(durations, itertools.chain([first], pictures), strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = colors.reformat(frame, format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts, frame.time_base = tick, clock.time_base
            write(frame)
        write(None)

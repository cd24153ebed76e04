"""Read videos frame by frame, with the frames' own times, by PyAV (FFmpeg): `read_video`.

`tf_gradcam.formats.read` calls it.
"""

import math
import pathlib
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam._checks import is_whole
from tf_gradcam._optional import require
from tf_gradcam.formats._scan import Scan
from tf_gradcam.formats._video.file import Index, check_complete, decoded, index_of, open_video, sentences

_TILT = 0.02  # of a display matrix, that may be rounding: one degree
_AHEAD = 16  # frames that are rather decoded than skipped by a seek
_MAX_SLICE = 8 * 2**30  # bytes that are read at once, at most


class Clock(NamedTuple):
    """When the frames of a clip are shown: `Scan.header` of a video.

    Attributes:
        time_base: seconds of a tick.
        ticks: `(T,)` int64, strictly increasing.
        last: ticks for which the last frame is shown.
        aspect: width of a pixel divided by its height, of upright frames.
    """

    time_base: Fraction
    ticks: np.ndarray
    last: int
    aspect: Fraction


def read_video(path: pathlib.Path, start: float | None = None, stop: float | None = None) -> Scan:
    """Read a video: RGB frames that are decoded when they are sliced, upright, with their own times.

    The first video stream is read. `values` decodes in order, or from the key frame before; several threads
    may read it, one after the other. Times and the number of frames are those of the frames, not of the
    header. A sample aspect ratio is kept for writing, and no pixel is stretched.

    Args:
        path: the file.
        start: seconds from the first frame of the file; frames before are left out.
        stop: frames at this second and after are left out.
    """
    check_complete(path)
    with sentences(path):
        index, first = index_of(path)
        is_turned, *_ = _turn(first)
        size = (first.width, first.height) if is_turned else (first.height, first.width)
    seconds = (index.ticks - index.ticks[0]) * float(index.time_base)
    low, high = _interval(seconds, start, stop)
    after = index.ticks[high] - index.ticks[high - 1] if high < len(seconds) else index.last
    aspect = index.aspect if not is_turned else 1 / index.aspect
    return Scan(
        values=_Frames(path, index, range(low, high), size),
        axes="tyx",
        format="video",
        path=path,
        times=seconds[low:high],
        bands=("red", "green", "blue"),
        header=Clock(index.time_base, index.ticks[low:high], int(after), aspect),
    )


def _interval(seconds, start, stop) -> tuple[int, int]:
    """Return the first frame in `[start, stop)`, and the first beyond."""
    for name, value in (("start", start), ("stop", stop)):
        is_number = isinstance(value, float) or is_whole(value)
        if value is not None and not (is_number and math.isfinite(value)):
            raise ValueError(f"`{name}` must be a number of seconds. Received: {name}={value!r:.80}")
    low = 0 if start is None else int(np.searchsorted(seconds, start))
    high = len(seconds) if stop is None else int(np.searchsorted(seconds, stop))
    if low >= high:
        raise ValueError(
            "`start` and `stop` must leave a frame. Received: "
            f"start={start}, stop={stop} of a clip with frames from 0 to {seconds[-1]:.6g} s"
        )
    return low, high


# Frames


class _Frames:
    """The frames `(T, H, W, 3)` of a file, uint8 RGB: an array-like that decodes what is sliced.

    The first axis takes whatever NumPy takes there, the others whole numbers and slices. One frame is in
    memory besides what is returned. Threads take turns.
    """

    def __init__(self, path: pathlib.Path, index: Index, numbers: range, size: tuple[int, int]) -> None:
        self.shape = (len(numbers), *size, 3)
        self.dtype = np.dtype(np.uint8)
        self.ndim = 4
        self._numbers = np.array(numbers)
        self._decoder = _Decoder(path, index, size)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        parts = key if isinstance(key, tuple) else (key,)
        places = [place for place, part in enumerate(parts) if part is Ellipsis]
        for place in places:
            between = (slice(None),) * (self.ndim + 1 - len(parts))
            parts = (*parts[:place], *between, *parts[place + 1 :])
        first, rest = (parts[0], parts[1:]) if parts else (slice(None), ())
        numbers = self._numbers[first]
        part = np.broadcast_to(np.uint8(0), self.shape[1:])[rest].shape
        if numbers.size * math.prod(part) > _MAX_SLICE:
            raise ValueError(
                f"A slice of a video must have at most {_MAX_SLICE:,} bytes. Received: {numbers.size:,} "
                f"frames of {' x '.join(map(str, part))}. Take them in parts: scan.values[0:100]"
            )
        wanted, order = np.unique(numbers, return_inverse=True)
        read = np.empty((len(wanted), *part), np.uint8)
        with self._lock:
            for place, number in enumerate(wanted.tolist()):
                read[place] = self._decoder.frame(number)[rest]
        is_in_order = np.array_equal(wanted, numbers.reshape(-1))
        return (read if is_in_order else read[order.reshape(-1)]).reshape((*numbers.shape, *part))


class _Decoder:
    """Decodes the frame of a number, and stays behind it: the next one costs no seek."""

    def __init__(self, path, index, size) -> None:
        self._path, self._index, self._size = path, index, size
        self._container: Any = None
        self._stream: Any = None
        self._frames: Iterator[Any] = iter(())
        self._next = -1  # the number of the frame that comes next; below 0 if nothing can come
        self._is_damaged = False  # whether a frame since the last key frame was, so that the next ones are
        self._colors = require("av", "av", extra="video").video.reformatter.VideoReformatter()

    def frame(self, number) -> np.ndarray:
        """Return a frame `(H, W, 3)`."""
        with sentences(self._path):
            found = self._reach(number)
            if found is None or self._is_damaged:
                told = float((self._index.ticks[number] - self._index.ticks[0]) * self._index.time_base)
                raise ValueError(
                    f"`path` must be a video without damage. Received: {self._path.name!r}, whose frame at "
                    f"{told:.6g} s can't be decoded. Take frames before it, or long after."
                )
            is_turned, down, right = _turn(found)
            # The size may change in the middle of a recording.
            height, width = self._size[::-1] if is_turned else self._size
            found = self._colors.reformat(found, width, height, "rgb24", dst_color_range="JPEG")
            pixels = found.to_ndarray()
            return (pixels.swapaxes(0, 1) if is_turned else pixels)[::down, ::right]

    def _reach(self, number) -> Any:
        """Return a frame of FFmpeg, or `None` if it doesn't come."""
        ticks, keys = self._index.ticks, self._index.keys
        if keys is None:  # by counting
            if not 0 <= self._next <= number:
                self._restart()
            return self._forward(number)
        before = keys[: np.searchsorted(keys, ticks[number], side="right")]
        is_ahead = len(before) > 0 and ticks[min(self._next + _AHEAD, number)] < before[-1]
        if 0 <= self._next <= number and not is_ahead:
            found = self._forward(number)
            if found is not None:
                return found
        for tick in before[-1:-4:-1]:  # Some containers are found by a seek only after the place.
            if self._container is None:
                self._restart()
            self._container.seek(int(tick), stream=self._stream)
            self._start_at(self._number(before[-1]))
            found = self._forward(number, int(before[-1]))
            if found is not None:
                return found
        self._restart()
        return self._forward(number)

    def _restart(self) -> None:
        if self._container is not None:
            self._container.close()
        self._container, self._stream = open_video(self._path)
        self._start_at(0)

    def _start_at(self, number) -> None:
        self._frames = decoded(self._path, self._container, self._stream)
        self._is_damaged = False
        self._next = number

    def _forward(self, number, key=None) -> Any:
        """Decode up to a frame; what comes before the key frame may lack what it refers to."""
        place, self._next = self._next, -1  # An error leaves the decoder nowhere.
        for frame in self._frames:
            if frame is None:  # Its number is missing then.
                continue
            if key is not None and frame.pts != key:
                if frame.pts is not None and frame.pts > key:
                    return None
                continue
            key = None
            found = self._number(frame.pts) if self._index.keys is not None else place
            is_lost = found > place
            self._is_damaged = frame.is_corrupt or is_lost or (self._is_damaged and not frame.key_frame)
            place = max(place, found + 1)
            if found >= number:
                self._next = place
                return frame if found == number else None
        return None

    def _number(self, tick) -> int:
        """Return the number of a frame, or -1 if it is none of the index."""
        ticks = self._index.ticks
        place = -1 if tick is None else int(np.searchsorted(ticks, tick))
        return place if 0 <= place < len(ticks) and ticks[place] == tick else -1


def _turn(frame) -> tuple[bool, int, int]:
    """Return how a frame is shown: whether rows become columns, then the steps along rows and columns."""
    told = frame.side_data.get("DISPLAYMATRIX")
    if told is None:
        return False, 1, 1
    # A pixel at (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(bytes(told), np.int32)[:5].tolist()
    straight, across = max(abs(a), abs(d)), max(abs(b), abs(c))
    if min(straight, across) > _TILT * max(straight, across):
        raise ValueError(
            "`path` must be a video that is turned by quarters. Received: a display matrix that tilts it by "
            f"{frame.rotation} degrees. Turn it upright, such as by: ffmpeg -i FILE new.mp4"
        )
    right, down = (c, b) if across > straight else (a, d)
    return across > straight, -1 if down < 0 else 1, -1 if right < 0 else 1

"""Open a video by PyAV (FFmpeg), and list its frames and their times: `open_video`, `index_of`.

`reading` calls it.
"""

import contextlib
import itertools
import pathlib
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam._files import MAX_PIXELS
from tf_gradcam._optional import require

# What may be opened: files on this machine, and containers that name no other files, as playlists do.
_PROTOCOLS = "file"
_CONTAINERS = "mov,matroska,avi,mpeg,mpegts"
_PROBED = 8  # frames that are decoded before the packets' times are trusted
_BOXES = 100_000  # of an mp4 that are looked at, at most
_DEPTH = 10  # of boxes in boxes, as in FFmpeg


@contextlib.contextmanager
def sentences(path: pathlib.Path) -> Iterator[None]:
    """Turn errors of FFmpeg into a `ValueError` that says what the file must be."""
    av = require("av", "av", extra="video")
    try:
        yield
    except av.FFmpegError as error:
        raise ValueError(
            f"`path` must be a complete video of the ending's kind. Received: {path.name!r}, of which FFmpeg "
            f"says: {error.strerror}. It is damaged, encrypted, another kind of file, or has more than "
            f"{MAX_PIXELS:,} pixels in a frame. Save it anew, such as by: ffmpeg -i FILE new.mp4"
        ) from error


def open_video(path: pathlib.Path) -> tuple[Any, Any]:
    """Return the container and its first video stream, ready to decode."""
    av = require("av", "av", extra="video")
    limits = {"max_pixels": str(MAX_PIXELS)}
    only = {"protocol_whitelist": _PROTOCOLS, "format_whitelist": _CONTAINERS}
    container = av.open(str(path.absolute()), options={**limits, **only}, metadata_errors="ignore")
    # The cover of a piece of music is a stream of one picture.
    streams = [each for each in container.streams.video if not _is_cover(each)]
    if not streams or streams[0].codec_context is None:
        others = {"a cover" if each in container.streams.video else each.type for each in container.streams}
        found = ", ".join(sorted(others)) or "nothing"
        has = "a codec that FFmpeg doesn't know" if streams else f"no video, but {found}"
        container.close()
        raise ValueError(
            f"`path` must hold a video that FFmpeg decodes. Received: {path.name!r}, with {has}."
        )
    stream = streams[0]
    stream.thread_type = "AUTO"
    stream.codec_context.options = limits
    return container, stream


def _is_cover(stream) -> bool:
    return "attached_pic" in (stream.disposition.name or "")


def check_complete(path: pathlib.Path) -> None:
    """Raise a `ValueError` if a file ends before the end that its own lengths tell.

    FFmpeg reads a cut file as a shorter clip.
    """
    if not path.is_file():
        raise ValueError(f"`path` must be a file. Received: {str(path)!r}")
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(64)
        if head[:4] == b"RIFF" and len(head) >= 8:
            end = 8 + struct.unpack("<I", head[4:8])[0]
        elif head[:4] == b"\x1aE\xdf\xa3":
            end = _end_of_matroska(head)
        else:
            end = _end_of_boxes(file, size)
    if end > size:
        raise ValueError(
            f"`path` must be a complete video. Received: {path.name!r}, which has {size:,} of {end:,} bytes. "
            "Copy or download it again."
        )


def _end_of_matroska(head) -> int:
    """Return where the segment ends, or 0 where a recorder left that open."""
    place = 5 + (head[4] & 0x7F)  # The header of EBML has a length of one byte, as every writer makes it.
    if head[place : place + 4] != b"\x18S\x80g" or len(head) < place + 12:
        return 0
    width = 9 - head[place + 4].bit_length()
    field = head[place + 4 : place + 4 + width]
    length = int.from_bytes(field, "big") & ((1 << 7 * width) - 1)
    is_open = length == (1 << 7 * width) - 1
    return 0 if is_open else place + 4 + width + length


def _end_of_boxes(file, size) -> int:
    """Return where the last box with media of an mp4 ends, or 0 for another kind of file."""
    place = end = 0
    for _ in range(_BOXES):
        file.seek(place)
        length, kind, _ = _box(file.read(16))
        if length < 8 or not kind.isalnum():
            break
        if kind in (b"moov", b"moof") and place + length <= size:
            file.seek(place)
            _check_counts(file.read(length), size)
        place += length
        end = place if kind in (b"moov", b"mdat", b"moof") else end
        if place >= size:
            break
    return end


def _box(head) -> tuple[int, bytes, int]:
    """Return length, kind and begin of the body of a box (ISO/IEC 14496-12, 4.2); length 0 for none."""
    if len(head) < 8:
        return 0, b"", 8
    length, kind = struct.unpack(">I4s", head[:8])
    if length == 1 and len(head) >= 16:
        return struct.unpack(">Q", head[8:16])[0], kind, 16
    return length, kind, 8


def _check_counts(header, size) -> None:
    """Raise a `ValueError` if an mp4 tells more samples than it has bytes: FFmpeg takes memory for each."""
    most = max(_sample_counts(memoryview(header), 0), default=0)
    if most > size:
        raise ValueError(
            f"`path` must be a video with as many frames as its header tells. Received: {most:,} in {size:,} "
            "bytes. Save it anew, such as by: ffmpeg -i FILE new.mp4"
        )


def _sample_counts(boxes, depth) -> Iterator[int]:
    """Yield how many samples each table of a header tells. A body that holds no boxes looks as if empty."""
    place = 0
    while depth <= _DEPTH and place < len(boxes):
        length, kind, begin = _box(boxes[place : place + 16])
        if length < 8:
            break
        body = boxes[place + begin : place + length]
        first, second = struct.unpack(">II", bytes(body[4:12]).ljust(8, b"\0"))
        if kind == b"stsz":  # the size of all samples, or 0 before a table; their number
            yield second
        elif kind == b"trun":
            yield first
        elif kind in (b"stts", b"ctts"):  # the number of pairs: of samples, and of ticks
            pairs = body[8 : 8 + 8 * first]
            yield int(np.frombuffer(pairs[: len(pairs) // 8 * 8], ">u4")[::2].sum(dtype=np.int64))
        elif kind == b"cmov":  # compressed tables, which nobody has written for twenty years
            yield 1 << 32
        else:
            yield from _sample_counts(body, depth + 1)
        place += length


# The index: what frames there are, and when


class Index(NamedTuple):
    """All frames of a file, in the order in which they are shown.

    `ticks` are `(T,)` in units of `time_base`, `keys` those from which decoding can start; `None` where the
    decoder's times are no help, so that frames are counted from the start. `last` and `aspect` as in `Clock`.
    """

    ticks: np.ndarray
    keys: np.ndarray | None
    time_base: Fraction
    last: int
    aspect: Fraction


def index_of(path: pathlib.Path) -> tuple[Index, Any]:
    """Return the index of a file, and its first frame."""
    container, stream = open_video(path)
    with container:
        frames = list(itertools.islice(_from_first(decoded(path, container, stream)), _PROBED))
        frames = list(itertools.takewhile(lambda frame: frame is not None, frames))
        if not frames:
            raise ValueError(
                f"`path` must hold frames. Received: {path.name!r}, with none that can be decoded."
            )
        # Of these containers a packet says when its frame is shown.
        is_told = container.format.name.startswith(("mov", "matroska"))
    found = _from_packets(path, frames) if is_told else None
    return found or _from_frames(path), frames[0]


def decoded(path: pathlib.Path, container: Any, stream: Any) -> Iterator[Any]:
    """Yield the frames of a stream, and `None` for a packet that can't be decoded."""
    av = require("av", "av", extra="video")
    for packet in container.demux(stream):
        if packet.has_sidedata("encryption_info"):
            raise ValueError(f"`path` must not be encrypted. Received: {path.name!r}, which is.")
        try:
            yield from packet.decode()
        except av.InvalidDataError:
            yield None


def _from_first(frames) -> Iterator[Any]:
    """Leave out what comes before the first frame: a recording may start in the middle."""
    return itertools.dropwhile(lambda frame: frame is None, frames)


def _from_packets(path, frames) -> Index | None:
    """Make an index without decoding; `None` if the packets' times are not those of the first frames."""
    container, stream = open_video(path)
    with container:
        told: list[tuple[Any, bool, int]] = []
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise ValueError(
                    f"`path` must be a complete video. Received: {path.name!r}, with damaged packets. "
                    "Copy or download it again."
                )
            if packet.size and not packet.is_discard:  # The others are cut away by an edit list.
                told.append((packet.pts, packet.is_keyframe, packet.duration))
        if any(each.pts is None for each in frames) or any(pts is None for pts, _, _ in told):
            return None
        # A clip that was cut without encoding may start with frames whose reference is lost.
        told = sorted(each for each in told if each[0] >= frames[0].pts)
        times = [pts for pts, _, _ in told]
        if [each.pts for each in frames] != times[: len(frames)] or len(set(times)) != len(times):
            return None
        keys = np.array([pts for pts, is_key, _ in told if is_key], np.int64)
        return _finished(stream, np.array(times, np.int64), keys, told[-1][2])


def _from_frames(path) -> Index:
    """Make an index by decoding everything once."""
    container, stream = open_video(path)
    with container:
        told: list[tuple[Any, bool, int]] = []
        for frame in _from_first(decoded(path, container, stream)):
            if frame is None:
                raise ValueError(
                    f"`path` must be a video without damage. Received: {path.name!r}, of which the frame "
                    f"after the first {len(told)} can't be decoded."
                )
            told.append((frame.pts, bool(frame.key_frame), frame.duration))
        ticks = [each[0] for each in told]
        known = [tick for tick in ticks if tick is not None]
        if len(known) == len(ticks) and all(a < b for a, b in itertools.pairwise(ticks)):
            keys = np.array([tick for tick, is_key, _ in told if is_key], np.int64)
            return _finished(stream, np.array(ticks, np.int64), keys, told[-1][2])
        # AVI has no times of its own, so the decoder's guess may be in another order than the frames.
        times = np.array(sorted(known), np.int64)
        if len(times) != len(ticks) or (np.diff(times) <= 0).any():
            rate = stream.average_rate or stream.guessed_rate or 25
            times = np.arange(len(ticks)) * max(1, round(1 / (rate * stream.time_base)))
        return _finished(stream, times, None, told[-1][2])


def _finished(stream, ticks, keys, last) -> Index:
    if not last or last < 0:  # not told: as long as the one before
        last = int(ticks[-1] - ticks[-2]) if len(ticks) > 1 else max(1, round(1 / (25 * stream.time_base)))
    aspect = stream.codec_context.sample_aspect_ratio or stream.sample_aspect_ratio
    return Index(ticks, keys, stream.time_base, last, Fraction(aspect) if aspect else Fraction(1))

"""Videos are read by the clock of their frames, upright and in colour, and written with the same clock."""

import dataclasses
import pathlib
import struct
import subprocess
import threading
from fractions import Fraction
from shutil import which

import cv2
import numpy as np
import pytest

from tf_gradcam.formats import Scan, read, write_pictures
from tf_gradcam.formats._video import reading

av = pytest.importorskip("av", reason="PyAV is not installed")
needs_ffmpeg = pytest.mark.skipif(which("ffmpeg") is None, reason="ffmpeg is not installed")
needs_ffprobe = pytest.mark.skipif(which("ffprobe") is None, reason="ffprobe is not installed")
HEIGHT, WIDTH = 48, 64
TICKS = [0, 30, 45, 120, 123, 300, 330, 345, 420, 423, 600, 630, 645, 720, 723, 900]  # of 1/300 s, uneven


def frame_of(number, height=HEIGHT, width=WIDTH):
    """A grey picture with a white square in it that says the number: rows of 2, columns of 8."""
    picture = np.full((height, width, 3), 60, np.uint8)
    row, column = divmod(number, 8)
    picture[8 + 16 * row : 16 + 16 * row, 8 * column : 8 * column + 8] = 230
    return picture


def number_of(frame):
    """The number of a frame that `frame_of` made."""
    row, column = np.unravel_index(
        frame[..., 1].astype(int).reshape(6, 8, 8, 8).mean((1, 3)).argmax(), (6, 8)
    )
    return int(row - 1) // 2 * 8 + int(column)


def make(
    path, codec="libx264", ticks=TICKS, pictures=None, base=Fraction(1, 300), pixel="yuv420p", **options
):
    """Write a clip with PyAV: by default with B-frames, a key frame each 6 frames, and uneven times."""
    pictures = [frame_of(number) for number in range(len(ticks))] if pictures is None else pictures
    tags = {name: options.pop(name) for name in ("colorspace", "color_range", "aspect") if name in options}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={"g": "6", **options})
        first = pictures[0]
        stream.height, stream.width = first.shape[:2] if isinstance(first, np.ndarray) else (48, 64)
        stream.pix_fmt = pixel
        stream.codec_context.time_base = stream.time_base = base
        if "aspect" in tags:
            stream.codec_context.sample_aspect_ratio = tags["aspect"]
        for name in {"colorspace", "color_range"} & tags.keys():
            setattr(stream.codec_context, name, tags[name])
        for tick, picture in zip(ticks, pictures, strict=True):
            frame = picture if isinstance(picture, av.VideoFrame) else av.VideoFrame.from_ndarray(picture)
            frame.pts, frame.time_base = tick, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make(tmp_path_factory.mktemp("clip") / "clip.mp4", bf="2")


@pytest.fixture(scope="module")
def scan(clip):
    return read(clip)


def ffmpeg(*arguments):
    done = subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


# The clock


def test_a_clip_of_uneven_times_has_the_times_of_its_frames(scan):
    assert scan.shape == (16, HEIGHT, WIDTH, 3)
    assert (scan.format, scan.axes, scan.values.dtype) == ("video", "tyx", np.uint8)
    np.testing.assert_allclose(scan.times, np.array(TICKS) / 300, atol=1e-12)
    assert [number_of(frame) for frame in scan.values] == list(range(16))


@pytest.mark.parametrize(
    ("name", "codec", "even"),
    [
        ("clip.mkv", "libx264", False),
        ("clip.webm", "libvpx-vp9", False),
        ("clip.mov", "mpeg4", False),
        ("clip.mpg", "mpeg2video", True),
        ("clip.avi", "mpeg4", True),
        ("h264.avi", "libx264", True),  # AVI has no times, so those of B-frames are guessed in a wrong order
    ],
)
def test_every_container_gives_every_frame_once_and_in_order(tmp_path, name, codec, even):
    ticks, base = (range(16), Fraction(1, 25)) if even else (TICKS, Fraction(1, 300))
    scan = read(make(tmp_path / name, codec, list(ticks), base=base, b="4M"))
    rounding = 0 if even else 0.51e-3  # of Matroska, in milliseconds
    np.testing.assert_allclose(scan.times, np.array(ticks) * float(base), atol=rounding + 1e-9)
    assert [number_of(frame) for frame in scan.values[...]] == list(range(16))
    order = [9, 2, 15, 0, 7, 8, 1]  # forth and back: by seeks, or by counting
    assert [number_of(scan.values[number]) for number in order] == order


@needs_ffmpeg
def test_a_trimmed_clip_has_the_frames_of_its_edit_list_and_not_those_of_its_header(clip, tmp_path):
    ffmpeg("-ss", "0.5", "-i", clip, "-c", "copy", tmp_path / "trimmed.mp4")
    with av.open(str(tmp_path / "trimmed.mp4")) as container:
        told = container.streams.video[0].frames
    scan = read(tmp_path / "trimmed.mp4")
    shown = [number_of(frame) for frame in scan.values]
    assert shown == list(range(16 - len(shown), 16))
    assert len(shown) == len(scan.times) < told == 16
    np.testing.assert_allclose(np.diff(scan.times), np.diff(TICKS[-len(shown) :]) / 300, atol=1e-9)
    assert number_of(scan.values[0]) == shown[0]  # whose key frame is cut away


def test_start_and_stop_choose_frames_by_their_times(clip):
    part = read(clip, start=0.4, stop=2)
    np.testing.assert_allclose(part.times, np.array(TICKS[3:10]) / 300)
    assert [number_of(part.values[each]) for each in (0, -1)] == [3, 9]
    assert part.header.last == (600 - 423) * part.header.time_base.denominator // 300
    with pytest.raises(
        ValueError, match="`start` and `stop` must leave a frame. Received: start=2.5, stop=2.6"
    ):
        read(clip, start=2.5, stop=2.6)
    with pytest.raises(ValueError, match="`start` must be a number of seconds. Received: start='1'"):
        read(clip, start="1")
    with pytest.raises(TypeError, match="`begin`.*video takes start, stop"):
        read(clip, begin=1)


# Slices


@pytest.mark.parametrize(
    "key",
    [
        ...,
        5,
        -1,
        slice(3, 9),
        slice(None, None, -3),
        slice(8, 8),
        [4, 1, 1, 12],
        (slice(2, 4), slice(None, None, 2), 3),
        (..., 0),
        (7, ..., slice(1, 3)),
        np.arange(16) > 12,
    ],
    ids=str,
)
def test_a_slice_is_that_of_the_whole_array(scan, key):
    whole = np.asarray(scan.values)
    np.testing.assert_array_equal(scan.values[key], whole[key])
    assert scan.values[key].dtype == np.uint8


def test_frames_beyond_the_clip_and_slices_beyond_memory_are_refused(scan, monkeypatch):
    with pytest.raises(IndexError, match="out of bounds"):
        scan.values[16]
    monkeypatch.setattr("tf_gradcam.formats._video.reading._MAX_SLICE", 5 * HEIGHT * WIDTH * 3)
    assert scan.values[:5].shape[0] == 5
    with pytest.raises(
        ValueError, match="A slice of a video must have at most.*Received: 6 frames of 48 x 64"
    ):
        scan.values[:6]


def test_frames_in_order_cost_no_seek(clip, monkeypatch):
    scan, starts = read(clip), []
    start_at = reading._Decoder._start_at
    monkeypatch.setattr(reading._Decoder, "_start_at", lambda *args: (starts.append(1), start_at(*args)))
    assert [number_of(scan.values[number]) for number in range(16)] == list(range(16))
    count = len(starts)
    assert count <= 2  # to open, and to find the first
    assert number_of(scan.values[3]) == 3
    assert len(starts) == count + 1


def test_threads_take_turns(clip):
    scan, wrong = read(clip), []

    def look(numbers):
        wrong.extend(number for number in numbers if number_of(scan.values[number]) != number)

    orders = np.random.default_rng(0).permuted(np.tile(np.arange(16), (4, 1)), axis=1)
    threads = [threading.Thread(target=look, args=(order.tolist(),)) for order in orders]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert wrong == []


# Upright and in colour

QUARTERS = {  # a, b, c, d of the display matrix, and the same in NumPy
    "as it is": ((1, 0, 0, 1), lambda frame: frame),
    "90 clockwise": ((0, 1, -1, 0), lambda frame: np.rot90(frame, -1)),
    "180": ((-1, 0, 0, -1), lambda frame: np.rot90(frame, 2)),
    "90 anticlockwise": ((0, -1, 1, 0), np.rot90),
    "left to right": ((-1, 0, 0, 1), lambda frame: frame[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda frame: frame[::-1]),
    "transposed": ((0, 1, 1, 0), lambda frame: frame.swapaxes(0, 1)),
    "transposed across": ((0, -1, -1, 0), lambda frame: np.rot90(frame, 2).swapaxes(0, 1)),
}


def with_matrix(clip, path, a, b, c, d):
    """Copy an mp4 with another display matrix in its track's header (ISO/IEC 14496-12, 8.3.2)."""
    data = bytearray(clip.read_bytes())
    place = data.index(b"tkhd") + 4 + 4 + 5 * 4 + 2 * 4 + 4 * 2
    one = 1 << 16
    data[place : place + 36] = struct.pack(
        ">9i", int(a * one), int(b * one), 0, int(c * one), int(d * one), 0, 0, 0, 1 << 30
    )
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("turn", QUARTERS)
def test_frames_stand_upright(clip, scan, tmp_path, turn):
    matrix, upright = QUARTERS[turn]
    turned = read(with_matrix(clip, tmp_path / "turned.mp4", *matrix))
    expected = np.stack([upright(frame) for frame in scan.values[:3]])
    assert turned.shape == (16, *expected.shape[1:])
    np.testing.assert_array_equal(turned.values[:3], expected)


@needs_ffmpeg
@pytest.mark.parametrize("turn", ["90 clockwise", "180", "90 anticlockwise"])
def test_ffmpeg_turns_to_the_same_side(clip, tmp_path, turn):
    path = with_matrix(clip, tmp_path / "turned.mp4", *QUARTERS[turn][0])
    scan = read(path)
    other = ffmpeg("-i", path, "-frames:v", 1, "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    np.testing.assert_array_equal(scan.values[0], np.frombuffer(other, np.uint8).reshape(scan.shape[1:]))


def test_a_tilt_is_refused(clip, tmp_path):
    path = with_matrix(clip, tmp_path / "tilted.mp4", 0.87, 0.5, -0.5, 0.87)
    with pytest.raises(ValueError, match="`path` must be a video that is turned by quarters"):
        read(path)


MATRICES = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593), 2: (0.299, 0.114)}  # H.273: Kr, Kb
YCC = np.array([[120, 128, 128], [90, 160, 100], [180, 90, 150], [40, 140, 120]])


def rgb_of(ycc, matrix, is_full):
    """The RGB of 8-bit Y, Cb and Cr by H.273, equations 30 to 42, in float64."""
    y, b, r = ycc.astype(float).T
    y, b, r = (
        (y, b - 128, r - 128)
        if is_full
        else ((y - 16) / 219 * 255, (b - 128) / 224 * 255, (r - 128) / 224 * 255)
    )
    red, blue = MATRICES[matrix]
    green = 1 - red - blue
    out_r, out_b = y + 2 * (1 - red) * r, y + 2 * (1 - blue) * b
    return np.clip(np.stack([out_r, (y - red * out_r - blue * out_b) / green, out_b], axis=-1), 0, 255)


@pytest.mark.parametrize("pixel", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("is_full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", MATRICES)
def test_colours_are_those_of_the_matrix_and_the_range(tmp_path, pixel, matrix, is_full):
    scale = 4 if "10" in pixel else 1
    frames = []
    for levels in YCC:
        frame = av.VideoFrame(64, 48, pixel)
        for plane, level in zip(frame.planes, levels, strict=True):
            dtype = np.uint16 if scale == 4 else np.uint8
            plane.update(
                np.full(plane.buffer_size // np.dtype(dtype).itemsize, level * scale, dtype).tobytes()
            )
        frames.append(frame)
    path = make(
        tmp_path / "flat.mp4", ticks=range(4), pictures=frames, pixel=pixel, qp="1",
        colorspace=matrix, color_range=2 if is_full else 1,
    )  # fmt: skip
    got = read(path).values[:, 24, 32]
    np.testing.assert_allclose(got, rgb_of(YCC, matrix, is_full), atol=3)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("size", "pixel"), [((48, 64), "yuv420p"), ((47, 63), "yuv444p"), ((48, 64), "yuv420p10le")]
)
def test_frames_are_those_of_ffmpegs_own_command(tmp_path, size, pixel):
    y, x = np.mgrid[: size[0], : size[1]]
    pictures = [np.stack([2 * x + 3 * n, 2 * y + 40, 200 - x - y], -1).astype(np.uint8) for n in range(4)]
    path = make(tmp_path / "smooth.mp4", ticks=range(4), pictures=pictures, pixel=pixel)
    scan = read(path)
    other = ffmpeg("-i", path, "-f", "rawvideo", "-vsync", "0", "-pix_fmt", "rgb24", "-")
    assert scan.shape == (4, *size, 3)
    difference = scan.values[...].astype(int) - np.frombuffer(other, np.uint8).reshape(scan.shape)
    assert np.abs(difference).max() <= (0 if "10" not in pixel else 8)  # chroma is interpolated differently
    assert np.abs(difference).mean() <= 1


def test_a_size_that_changes_in_the_middle_is_scaled_to_the_first(tmp_path):
    halves = [make(tmp_path / f"{n}.mpg", "mpeg2video", range(16), [frame_of(i, *s) for i in range(16)],
                   Fraction(1, 25), b="4M") for n, s in enumerate([(48, 64), (96, 128)])]  # fmt: skip
    joined = tmp_path / "joined.mpg"
    joined.write_bytes(b"".join(half.read_bytes() for half in halves))
    scan = read(joined)
    frames = scan.values[...]
    assert frames.shape[1:] == (48, 64, 3)
    assert len(frames) > 16  # some of the second half
    assert frames[-1].max() > 200


# What is refused


def refused(path, match, **options):
    with pytest.raises(ValueError, match=match):
        read(path, **options).values[...]


@pytest.mark.parametrize("name", ["clip.mp4", "fast.mp4", "fragments.mp4", "clip.mkv", "clip.avi"])
def test_a_cut_file_is_refused(tmp_path, name):
    flags = {"fast.mp4": "+faststart", "fragments.mp4": "frag_keyframe+empty_moov"}.get(name)
    path = make(tmp_path / name)
    if flags:
        remuxed = tmp_path / "remuxed.mp4"
        with av.open(str(path)) as source, av.open(str(remuxed), "w", options={"movflags": flags}) as to:
            stream = to.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    to.mux(packet)
        path = remuxed
    data = path.read_bytes()
    for share in (0.3, 0.6, 0.95):
        path.write_bytes(data[: int(share * len(data))])
        refused(path, "`path` must be a complete video. Received: '.*', which has [0-9,]+ of [0-9,]+ bytes")


@pytest.mark.parametrize("number", [3, 10])
def test_a_damaged_frame_is_refused_with_those_that_refer_to_it(tmp_path, number):
    path = make(tmp_path / "damaged.mp4", bf="0")
    with av.open(str(path)) as container:
        packet = [each for each in container.demux(video=0) if each.size][number]
        place = slice(packet.pos + 8, packet.pos + packet.size)
    data = bytearray(path.read_bytes())
    data[place] = bytes(place.stop - place.start)
    path.write_bytes(data)
    scan, told = read(path), []
    for each in range(16):
        try:
            assert number_of(scan.values[each]) == each
        except ValueError as error:
            assert f"'damaged.mp4', whose frame at {TICKS[each] / 300:.6g} s can't be decoded" in str(error)  # noqa: PT017
            told.append(each)
    assert told == list(range(number, 6 * (number // 6 + 1)))  # up to the next key frame


@needs_ffmpeg
def test_an_encrypted_clip_is_refused(clip, tmp_path):
    key = ["-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "0" * 32, "-encryption_kid", "1" * 32]
    ffmpeg("-i", clip, "-c", "copy", *key, tmp_path / "locked.mp4")
    refused(tmp_path / "locked.mp4", "`path` must not be encrypted")


def test_files_without_a_video_are_refused(tmp_path):
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    refused(
        sound, "`path` must hold a video that FFmpeg decodes. Received: 'sound.mp4', with no video, but audio"
    )
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mkv").write_text("no video at all " * 9)
    (tmp_path / "folder.mp4").mkdir()
    refused(tmp_path / "empty.mp4", "`path` must be a complete video of the ending's kind")
    refused(tmp_path / "text.mkv", "`path` must be a complete video of the ending's kind")
    refused(tmp_path / "folder.mp4", "`path` must be a file")


def test_an_unknown_codec_is_refused(clip, tmp_path):
    path = tmp_path / "unknown.mp4"
    path.write_bytes(clip.read_bytes().replace(b"avc1", b"zzz1"))
    refused(path, "with a codec that FFmpeg doesn't know")


def test_files_that_name_other_files_are_not_followed(clip, tmp_path):
    playlists = {
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{clip}\n#EXT-X-ENDLIST\n",
        "concat.mkv": f"ffconcat version 1.0\nfile '{clip}'\n",
        "dash.mp4": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
        "sdp.avi": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "reference.mov": "RTSPtext\rrtsp://127.0.0.1/clip.mp4",
    }
    for name, text in playlists.items():
        (tmp_path / name).write_text(text)
        refused(tmp_path / name, "`path` must be a complete video of the ending's kind")


def test_a_frame_of_too_many_pixels_is_refused_before_it_is_decoded(clip, monkeypatch):
    monkeypatch.setattr("tf_gradcam.formats._video.file.MAX_PIXELS", HEIGHT * WIDTH - 1)
    refused(clip, "`path` must be a complete video of the ending's kind.*pixels in a frame")


@pytest.mark.parametrize(("table", "place"), [("stsz", 12), ("stts", 12), ("ctts", 12)])
def test_a_header_with_more_frames_than_bytes_is_refused_at_once(clip, tmp_path, table, place):
    data = bytearray(clip.read_bytes())
    struct.pack_into(">I", data, data.index(table.encode()) + place, len(data) + 1)
    (tmp_path / "many.mp4").write_bytes(data)
    refused(tmp_path / "many.mp4", "`path` must be a video with as many frames as its header tells")


# Written


def test_a_clip_is_written_with_its_own_clock(scan, tmp_path):
    path = tmp_path / "written.mp4"
    write_pictures(path, scan, (frame for frame in scan.values))
    again = read(path)
    np.testing.assert_allclose(again.times, scan.times, atol=1e-12)
    assert [number_of(frame) for frame in again.values] == list(range(16))
    assert again.header.last * again.header.time_base == scan.header.last * scan.header.time_base
    capture, told, seen = cv2.VideoCapture(str(path)), [], []
    while capture.grab():
        told.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        seen.append(number_of(capture.retrieve()[1]))
    np.testing.assert_allclose(told, scan.times, atol=1e-6)
    assert seen == list(range(16))


@pytest.mark.parametrize(("start", "stop", "count"), [(0.4, 2, 7), (1, 1.05, 1), (3, None, 1)])
def test_a_part_of_a_clip_is_written_from_second_0(clip, tmp_path, start, stop, count):
    part = read(clip, start=start, stop=stop)
    write_pictures(tmp_path / "part.mp4", part, part.values)
    again = read(tmp_path / "part.mp4")
    assert len(part.times) == len(again.times) == count
    np.testing.assert_allclose(again.times, part.times - part.times[0], atol=1e-12)
    assert again.header.last * again.header.time_base == part.header.last * part.header.time_base
    assert [number_of(frame) for frame in again.values] == [number_of(frame) for frame in part.values]


@needs_ffprobe
def test_ffprobe_finds_times_size_and_colours_as_written(scan, tmp_path):
    pictures = [frame_of(number, 47, 63) for number in range(16)]
    write_pictures(tmp_path / "written.mov", scan, pictures)
    entries = "stream=codec_name,width,height,pix_fmt,color_range,color_space,color_transfer,color_primaries"
    command = [
        "ffprobe",
        "-v",
        "error",
        "-show_entries",
        f"{entries}:packet=pts_time",
        "-of",
        "default=nk=1:nw=1",
    ]
    lines = subprocess.run(
        [*command, tmp_path / "written.mov"], capture_output=True, text=True
    ).stdout.split()
    *times, codec, width, height, pixel, limits, space, transfer, primaries = lines
    np.testing.assert_allclose(np.array(times, float), scan.times, atol=2e-6)
    assert (codec, width, height, pixel, limits) == ("h264", "64", "48", "yuv420p", "tv")
    assert space == transfer == primaries == "bt709"
    # The last column and row are there twice.
    np.testing.assert_allclose(read(tmp_path / "written.mov").values[0, :47, :63], pictures[0], atol=40)


def test_flat_colours_come_back_within_three_levels_for_a_second_reader(tmp_path):
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 120, 40]])
    pictures = np.broadcast_to(colors[:, None, None], (6, 32, 48, 3)).astype(np.uint8)
    times = np.array([0, 0.1, 0.15, 0.4, 0.41, 1])
    timed = Scan(values=pictures, axes="tyx", format="NumPy", path=pathlib.Path("x.npy"), times=times + 7)
    write_pictures(tmp_path / "flat.mp4", timed, pictures)
    np.testing.assert_allclose(read(tmp_path / "flat.mp4").times, times, atol=1e-9)
    np.testing.assert_allclose(read(tmp_path / "flat.mp4").values[:, 16, 24], colors, atol=3)
    if int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip(f"OpenCV {cv2.__version__} reads every file with BT.601, whatever its tag says.")
    capture = cv2.VideoCapture(str(tmp_path / "flat.mp4"))
    np.testing.assert_allclose([capture.read()[1][16, 24, ::-1] for _ in colors], colors, atol=3)


@pytest.mark.parametrize("base", [Fraction(1001, 30000), Fraction(1, 10**9)], ids=str)
def test_any_time_base_is_kept_to_a_microsecond(scan, tmp_path, base):
    clock = scan.header._replace(time_base=base, ticks=np.arange(16) * 7, last=14)
    timed = dataclasses.replace(scan, header=clock, times=clock.ticks * float(base))
    if base < Fraction(1, 10**6):  # ticks that mp4 can't count
        timed = dataclasses.replace(timed, times=timed.times * 10**7)
    write_pictures(tmp_path / "written.mp4", timed, timed.values)
    np.testing.assert_allclose(read(tmp_path / "written.mp4").times, timed.times, atol=6e-6)


def test_pixels_that_are_not_square_stay_so(tmp_path):
    wide = read(make(tmp_path / "wide.mkv", aspect=Fraction(4, 3)))
    assert wide.shape[1:3] == (HEIGHT, WIDTH)
    write_pictures(tmp_path / "written.mp4", wide, wide.values)
    with av.open(str(tmp_path / "written.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
    turned = read(with_matrix(tmp_path / "written.mp4", tmp_path / "turned.mp4", 0, 1, -1, 0))
    assert turned.header.aspect == Fraction(3, 4)


@pytest.mark.parametrize(
    ("pictures", "match"),
    [
        (lambda frames: frames[:15], "`pictures` must be 16, one for each frame. Received: 15"),
        (lambda frames: [*frames, frames[0]], "`pictures` must be 16.*Received: more than 16"),
        (lambda frames: [], "`pictures` must be 16.*Received: 0"),
        (lambda frames: [frames[0], frames[1, :40]], "`pictures` must have one size"),
        (lambda frames: frames / 255, "`pictures` must be uint8 .H, W, 3.. Received: float64"),
        (lambda frames: [None] * 16, "`pictures` must be uint8"),
        (lambda frames: (1 / 0 for _ in frames), None),
    ],
    ids=["few", "many", "none", "sizes", "floats", "nothing", "raises"],
)
def test_wrong_pictures_leave_no_file_and_an_earlier_one_as_it_was(scan, tmp_path, pictures, match):
    path = tmp_path / "written.mp4"
    path.write_bytes(b"before")
    error = pytest.raises(ValueError, match=match) if match else pytest.raises(ZeroDivisionError)
    with error:
        write_pictures(path, scan, pictures(np.asarray(scan.values)))
    assert [each.name for each in tmp_path.iterdir()] == ["written.mp4"]
    assert path.read_bytes() == b"before"


def test_what_can_not_be_written_is_said(scan, tmp_path):
    frames = scan.values[...]
    with pytest.raises(ValueError, match="`path` must end in .mp4, .m4v, .mov. Received: 'x.webm'"):
        write_pictures(tmp_path / "x.webm", scan, frames)
    with pytest.raises(FileNotFoundError, match="missing"):
        write_pictures(tmp_path / "missing" / "x.mp4", scan, frames)
    still = dataclasses.replace(scan, times=None, header=None)
    with pytest.raises(ValueError, match="`scan` must have times for a video"):
        write_pictures(tmp_path / "x.mp4", still, frames)
    back = dataclasses.replace(scan, times=scan.times[::-1], header=None)
    with pytest.raises(ValueError, match="`scan` must have times in order"):
        write_pictures(tmp_path / "x.mp4", back, frames)


def test_a_clip_can_be_written_over_itself(clip, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip.read_bytes())
    scan = read(path)
    write_pictures(path, scan, (255 - frame for frame in scan.values))
    assert read(path).values[0, 0, 0, 0] > 180

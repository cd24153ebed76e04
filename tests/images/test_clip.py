"""Heatmaps are drawn over a video in one scale, each at the place and second of its frame."""

import pathlib
from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pytest

import tf_gradcam
from tf_gradcam import formats, targets
from tf_gradcam._images import clip as clip_module

HEIGHT, WIDTH, COUNT = 32, 48, 12
TIMES = np.array([0, 2, 3, 8, 9, 20, 22, 23, 28, 29, 40, 60]) / 20  # seconds, uneven


def scan_of(frames, times=TIMES):
    return formats.Scan(values=frames, axes="tyx", format="video", path=pathlib.Path("clip.mp4"), times=times)


@pytest.fixture(scope="module")
def scan():
    return scan_of(np.random.default_rng(0).integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), dtype=np.uint8))


@pytest.fixture
def drawn(monkeypatch):
    """Return a function that calls `overlay_video` and returns the pictures, without a file."""
    found = []
    monkeypatch.setattr(clip_module, "write_pictures", lambda path, scan, pictures: found.extend(pictures))

    def draw(scan, heatmaps, **options):
        found.clear()
        tf_gradcam.overlay_video("clip.mp4", scan, heatmaps, **options)
        return np.stack(found)

    return draw


MAPS = np.random.default_rng(1).normal(size=(COUNT, 4, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("options", "scale"),
    [({}, MAPS.max()), ({"vmax": 0.5}, 0.5), ({"vmax": 9}, 9), ({"fade": True, "alpha": 0.7}, MAPS.max())],
    ids=str,
)
def test_every_frame_is_an_overlay_in_one_scale(scan, drawn, options, scale):
    overlay_options = {"colormap": "turbo", **{k: v for k, v in options.items() if k != "vmax"}}
    expected = [
        tf_gradcam.overlay(frame, np.clip(heatmap / np.float64(scale), 0, 1), **overlay_options)
        for frame, heatmap in zip(scan.values, MAPS, strict=True)
    ]
    np.testing.assert_array_equal(drawn(scan, MAPS, **{"colormap": "turbo", **options}), expected)


def test_an_explanation_is_drawn_by_its_map(scan, drawn):
    explanation = SimpleNamespace(map=MAPS[None], heatmap=np.ones_like(MAPS))
    np.testing.assert_array_equal(drawn(scan, explanation), drawn(scan, MAPS))


@pytest.mark.parametrize("factor", [1e-300, 1e300])
def test_the_unit_of_the_maps_does_not_matter(scan, drawn, factor):
    expected = drawn(scan, MAPS.astype(np.float64)).astype(int)
    np.testing.assert_allclose(drawn(scan, MAPS.astype(np.float64) * factor), expected, atol=1)


def test_maps_without_evidence_are_drawn_as_zeros(scan, drawn):
    np.testing.assert_array_equal(drawn(scan, -abs(MAPS)), drawn(scan, 0 * MAPS))
    np.testing.assert_array_equal(drawn(scan, 0 * MAPS, fade=True), scan.values)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6])
def test_fewer_maps_than_frames_are_interpolated_between_their_centres(drawn, count):
    black = scan_of(np.zeros((COUNT, 2, 2, 3), np.uint8))
    levels = np.linspace(0.2, 1, count) ** 2
    pictures = drawn(
        black, levels[:, None, None] * np.ones((1, 2, 2)), alpha=1, colormap="bone", vmax=1, fade=False
    )
    centres = (np.arange(count) + 0.5) * COUNT / count  # in frames; that of frame t is t + 0.5
    expected = [
        tf_gradcam.colorize(np.full((2, 2), np.interp(number + 0.5, centres, levels)), "bone")
        for number in range(COUNT)
    ]
    np.testing.assert_allclose(pictures.astype(int), np.array(expected).astype(int), atol=1)


@pytest.mark.parametrize(
    ("heatmaps", "options", "error", "match"),
    [
        (MAPS[:11], {}, ValueError, "`heatmaps` must be 12, one for each frame, or at most 6.*Received: 11"),
        (MAPS[:7], {}, ValueError, "Received: 7"),
        (np.concatenate([MAPS, MAPS]), {}, ValueError, "Received: 24"),
        (MAPS[0], {}, ValueError, "`heatmaps` must be .T, h, w.*Received: shape .4, 6."),
        (MAPS[:, None], {}, ValueError, "`heatmaps` must be .T, h, w.*Received: shape .12, 1, 4, 6."),
        (MAPS[:, :0], {}, ValueError, "`heatmaps` must be .T, h, w."),
        (MAPS * np.nan, {}, ValueError, "`heatmaps` must hold finite values"),
        (MAPS + np.inf, {}, ValueError, "`heatmaps` must hold finite values"),
        ("maps", {}, TypeError, "`heatmaps` must be an array"),
        (
            MAPS,
            {"vmax": 0},
            ValueError,
            '`vmax` must be None, "batch" or a finite number above 0. Received: vmax=0',
        ),
        (MAPS, {"vmax": True}, ValueError, "`vmax` must be"),
        (MAPS, {"vmax": np.inf}, ValueError, "`vmax` must be"),
        (MAPS, {"alpha": 2}, ValueError, "`alpha` must be a number in"),
        (MAPS, {"colormap": "jett"}, ValueError, "`colormap` must be one of"),
        (MAPS, {"fade": 1}, TypeError, "`fade` must be True or False"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_arguments_are_refused_and_no_file_is_left(scan, tmp_path, heatmaps, options, error, match):
    with pytest.raises(error, match=match):
        tf_gradcam.overlay_video(tmp_path / "clip.mp4", scan, heatmaps, **options)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_video_is_refused(scan, tmp_path):
    with pytest.raises(TypeError, match="`scan` must be what tf_gradcam.formats.read returns.*'clip.mp4'"):
        tf_gradcam.overlay_video(tmp_path / "to.mp4", "clip.mp4", MAPS)
    with pytest.raises(ValueError, match="`scan` must hold RGB frames of 8 bits"):
        tf_gradcam.overlay_video(tmp_path / "to.mp4", scan_of(scan.values.astype(np.uint16)), MAPS)


# The round trip


def test_the_peak_of_a_model_is_at_its_place_and_second_after_the_round_trip(tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed")
    dots = [(4 + 2 * number, 6 + 3 * number) for number in range(COUNT)]  # row, column
    lights = np.full(COUNT, 140)
    lights[7] = 250  # the one that counts: at 23 / 20 s
    frames = np.full((COUNT, HEIGHT, WIDTH, 3), 20, np.uint8)
    for frame, (row, column), light in zip(frames, dots, lights, strict=True):
        frame[row - 2 : row + 3, column - 2 : column + 3] = light
    formats.write_pictures(tmp_path / "clip.mp4", scan_of(frames), frames)
    scan = formats.read(tmp_path / "clip.mp4")
    np.testing.assert_allclose(scan.times, TIMES, atol=1e-9)

    images = keras.Input((HEIGHT, WIDTH, 3))
    light = keras.layers.Conv2D(1, 5, padding="same", activation="relu", name="light")
    model = keras.Model(images, keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(light(images))))
    light.set_weights([np.full((5, 5, 3, 1), 1 / 75, "float32"), np.full(1, -0.2, "float32")])
    model.layers[-1].set_weights([np.ones((1, 1), "float32"), np.zeros(1, "float32")])
    cam = tf_gradcam.GradCAM(model, "light", preprocess=lambda pixels: pixels / 255)
    starts = range(0, COUNT, 5)
    maps = [cam(scan.values[first : first + 5].astype("float32"), targets.Value()).map for first in starts]
    to = tmp_path / "explained.mp4"
    tf_gradcam.overlay_video(to, scan, np.concatenate(maps), alpha=1, colormap="bone", fade=False)

    capture, seen = cv2.VideoCapture(str(to)), []
    while capture.grab():
        seen.append((capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, capture.retrieve()[1].sum(axis=-1)))
    second, picture = max(seen, key=lambda each: each[1].max())
    assert second == pytest.approx(23 / 20, abs=1e-6)
    assert np.abs(np.subtract(np.unravel_index(picture.argmax(), picture.shape), dots[7])).max() <= 1
    # In one scale: the other dots are at 35 % to 55 % of the brightest, and each is at its place.
    for (_, other), place in zip(seen, dots, strict=True):
        assert other.max() == picture.max() or 0.2 < other.max() / picture.max() < 0.7
        assert np.abs(np.subtract(np.unravel_index(other.argmax(), other.shape), place)).max() <= 1

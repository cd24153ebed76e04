"""One heatmap of an image larger than the model: against the whole image's map, and a join in float64."""

import functools
import itertools
import pathlib

import keras
import matplotlib.pyplot
import numpy as np
import pytest
import tensorflow as tf

import tf_gradcam
from tf_gradcam import formats, targets
from tf_gradcam._explain.joined_windows import JoinedMap, make_cells, window_starts
from tf_gradcam._explain.windows import open_source

POOLINGS = {
    1: keras.layers.GlobalAveragePooling1D,
    2: keras.layers.GlobalAveragePooling2D,
    3: keras.layers.GlobalAveragePooling3D,
}
CONVOLUTIONS = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D}


@functools.cache
def network(axes=2, kernels=(4, 2), strides=(4, 2), padding="valid", channels=3):
    """Two convolutions, an average and a dense layer, for images of any size."""
    random = np.random.default_rng(axes)
    convolution = functools.partial(CONVOLUTIONS[axes], padding=padding)
    model = keras.Sequential(
        [
            keras.Input([None] * axes + [channels]),
            convolution(5, kernels[0], strides=strides[0], activation="relu", name="fine"),
            convolution(6, kernels[1], strides=strides[1], activation="tanh", name="coarse"),
            POOLINGS[axes](),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )
    model.set_weights([random.normal(scale=0.4, size=w.shape) for w in model.get_weights()])
    return model


@functools.cache
def explainer(*arguments, **options):
    """The explainer of the small network that most tests share, so that it is traced once."""
    return tf_gradcam.GradCAM(network(), *arguments, **options)


def picture(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


class Recorded:
    """An array of which only slices can be taken; it notes how much was taken at once."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.most = values, values.shape, values.dtype, 0

    def __getitem__(self, place):
        taken = self.values[place]
        self.most = max(self.most, taken.size)
        return taken

    def __array__(self, *_, **__):
        raise AssertionError("All of it was read.")


def scan(values, valid=None, axes="yx"):
    return formats.Scan(values=values, axes=axes, format="NumPy", path=pathlib.Path("scan.npy"), valid=valid)


# The same as the whole image


@pytest.mark.parametrize(
    ("axes", "kernels", "strides", "window", "lengths"),
    [
        (1, (4, 2), (4, 2), 32, (168,)),
        (2, (4, 2), (4, 2), 32, (96, 136)),
        (3, (2, 2), (2, 2), 16, (40, 24, 32)),
        # Without padding, a map has fewer cells than the window has strides.
        (1, (5, 3), (2, 2), 50, (182,)),
        (2, (3, 3), (2, 1), (31, 41), (71, 89)),
        (3, (3, 3), (1, 2), 17, (31, 23, 17)),
    ],
)
@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_without_padding_it_is_the_heatmap_of_the_whole_image(
    axes, kernels, strides, window, lengths, method
):
    cam = tf_gradcam.GradCAM(network(axes, kernels, strides), method=method)
    image = picture(*lengths, 3)
    whole, found = cam(image, 2), cam.sliding(image, 2, window=window, batch_size=5)
    assert found.heatmap.shape == whole.heatmap.shape == (1, *lengths)
    np.testing.assert_allclose(found.heatmap, whole.heatmap, atol=1e-5)
    signed = whole.map.numpy()
    np.testing.assert_allclose(found.map / found.map.max(), signed / signed.max(), atol=1e-5)
    assert found.target == [2]


@pytest.mark.parametrize("size", [None, (60, 50), 17])
def test_the_heatmap_of_another_size_is_that_of_the_whole_image(size):
    image = picture(96, 136, 3)
    size = (size, size) if isinstance(size, int) else size
    found = explainer().sliding(image, 1, window=32, size=size, interpolation="bicubic")
    expected = explainer()(image, 1, size=size, interpolation="bicubic").heatmap
    np.testing.assert_allclose(found.heatmap, expected, atol=1e-5)


def test_several_layers_are_joined_one_by_one_and_then_fused():
    image = picture(96, 136, 3)
    for fuse, size in itertools.product(["mean", "layercam"], ["input", None]):
        cam = explainer(("fine", "coarse"), fuse=fuse, method="hirescam")
        found = cam.sliding(image, 1, window=32, size=size)
        np.testing.assert_allclose(found.heatmap, cam(image, 1, size=size).heatmap, atol=1e-5)
    assert [each.shape for each in found.map] == [(1, 24, 34), (1, 12, 17)]


def test_locate_takes_windows_too():
    cam = tf_gradcam.GradCAM(network(), method="locate")
    image = picture(96, 136, 3)
    found = cam.sliding(image, 1, window=32)
    # Its score is a log-odds, which is another in each window: only the kind of result is known.
    assert [each.shape for each in found.map] == [(1, 24, 34), (1, 12, 17)]
    assert found.heatmap.shape == (1, 96, 136)
    assert found.heatmap.max() == 1


def test_several_classes_have_a_heatmap_each():
    image = picture(64, 48, 3)
    found = explainer().sliding(image, targets.Classes([3, 1]), window=32)
    assert found.heatmap.shape == (1, 2, 64, 48)
    assert found.scores.shape == (len(found.starts), 2)
    for number, index in enumerate([3, 1]):
        one = explainer().sliding(image, index, window=32)
        np.testing.assert_allclose(found.heatmap[:, number], one.heatmap, atol=1e-6)
        np.testing.assert_allclose(found.map[:, number], one.map, atol=1e-6)
    np.testing.assert_array_equal(found.target, [[3, 1]])
    picture_of_bytes = np.zeros((64, 48, 3), "uint8")
    figure = tf_gradcam.show(picture_of_bytes, found, labels=list("abcd"))
    assert figure.axes[1].get_title().startswith("d, score")
    matplotlib.pyplot.close(figure)


def test_a_map_lies_where_preprocess_took_its_pixels_from():
    def flipped(images):
        return images[:, :, ::-1] / 2

    image = picture(96, 136, 3)
    cam = tf_gradcam.GradCAM(network(), preprocess=flipped)
    found = cam.sliding(image, 1, window=32)
    np.testing.assert_allclose(found.heatmap, cam(image, 1).heatmap, atol=1e-5)


def test_where_preprocess_crops_each_window_the_windows_lie_closer():
    cam = tf_gradcam.GradCAM(network(), preprocess=lambda images: images[:, 8:-8, 8:-8])
    image = picture(96, 112, 3)
    found = cam.sliding(image, 1, window=48, overlap=0)
    np.testing.assert_array_equal(np.unique(found.starts[:, 0]), [0, 32, 48])
    inside = network()(image[None, 8:-8, 8:-8])
    expected = explainer()(image[8:-8, 8:-8], 1).map.numpy()[0]
    assert inside.shape == (1, 4)
    np.testing.assert_allclose(
        found.map[0, 1:-1, 1:-1] / found.map.max(), expected / expected.max(), atol=1e-5
    )
    assert not found.map[0, [0, -1]].any()  # Nothing was seen there.
    assert not found.map[0, :, [0, -1]].any()


# The join, against float64


def joined_by_hand(maps, starts, lengths, window, cell):
    """Join maps `(W, n, n)` place by place: linear interpolation, and the mean weighted by a Gaussian."""
    grid = [-(-length // cell) for length in lengths]
    total, weights = np.zeros(grid), np.zeros(grid)
    for signed_map, start in zip(maps.astype("float64"), starts, strict=True):
        for place in np.ndindex(*grid):
            rows, share = [], 1.0
            for number, first, length in zip(place, start, lengths, strict=True):
                centre = (number + 0.5) * cell
                if not first <= min(centre, length - 0.5) < first + window:
                    break
                rows.append((centre - first) / cell - 0.5)
                share *= np.exp(-0.5 * (((centre - first) / window - 0.5) * 8) ** 2)
            else:
                columns = np.arange(signed_map.shape[0])
                along = [np.interp(rows[1], columns, line) for line in signed_map]
                total[place] += share * np.interp(rows[0], columns, along)
                weights[place] += share
    assert (weights > 0).all()
    return total / weights


@pytest.mark.parametrize("lengths", [(75, 90), (64, 51), (33, 32)])
def test_the_join_is_that_of_float64_at_odd_lengths(lengths):
    image = picture(*lengths, 3)
    model = network(padding="same", kernels=(5, 3))
    cam = tf_gradcam.GradCAM(model)
    found = cam.sliding(image, 2, window=32, overlap=0.3, batch_size=3)
    assert found.starts.max(axis=0).tolist() == [length - 32 for length in lengths]
    windows = np.stack([image[a : a + 32, b : b + 32] for a, b in found.starts])
    alone = cam(windows, 2)
    np.testing.assert_allclose(found.scores, alone.score, rtol=1e-5, atol=1e-6)
    expected = joined_by_hand(alone.map.numpy(), found.starts, lengths, 32, 8)
    np.testing.assert_allclose(found.map[0], expected, atol=1e-6 * abs(expected).max())
    np.testing.assert_array_equal(found.score, [found.scores.max()])


EDGES = [(0, 1), (1, 0), (0.25, 0.75)]


@pytest.mark.parametrize("frame", EDGES, ids=str)
@pytest.mark.parametrize("stride", [None, 4], ids=str)
def test_a_constant_stays_constant_at_every_length_and_overlap(frame, stride):
    for length, window, count, step in itertools.product(
        [1, 7, 32, 33, 47, 64, 101], [12, 32, 33], [1, 3, 7, 8], [1, 5, 8, 12]
    ):
        cells = make_cells(length, window, count, frame, stride)
        starts = window_starts(length, window, min(step, round(window * abs(frame[1] - frame[0]))))
        joined = JoinedMap([cells], [starts], 2, np.dtype("float64"))
        for start in starts:
            joined.add((start,), np.array([[1.0] * count, [-3.0] * count]))
        values = joined.finish()
        seen = (np.arange(cells.cell_count) + 0.5) * cells.extent / cells.cell_count
        if frame == (0.25, 0.75):  # Cropped away at both ends.
            values = values[:, (seen >= 0.25 * window) & (seen < length - 0.25 * window)]
        np.testing.assert_allclose(values, np.broadcast_to([[1.0], [-3.0]], values.shape), atol=1e-12)


@pytest.mark.parametrize("frame", [(0, 1), (1, 0)], ids=str)
@pytest.mark.parametrize("count", [8, 7], ids=["whole cells", "fractions"])
def test_a_ramp_stays_in_its_place(frame, count):
    length, window = 117, 32
    cells = make_cells(length, window, count, frame)
    starts = window_starts(length, window, 13 if count == 7 else 12)
    joined = JoinedMap([cells], [starts], 1, np.dtype("float64"))
    for start in starts:
        centres = start + (np.arange(count) + 0.5) * window / count
        joined.add((start,), centres[None, :: 1 if frame == (0, 1) else -1])
    (found,) = joined.finish()
    expected = (np.arange(cells.cell_count) + 0.5) * cells.extent / cells.cell_count
    step = window / count
    inner = (expected > step / 2) & (expected < length - step / 2)
    # Beyond the centre of its last cell a window's map is constant; the Gaussian is small there.
    np.testing.assert_allclose(found[inner], expected[inner], atol=0.02 * step)


# What is read


def test_only_windows_are_read_and_batches_do_not_matter(tmp_path):
    values = np.random.default_rng(0).integers(0, 999, (75, 90, 3)).astype("uint16")
    expected = explainer().sliding(values, 2, window=32)
    recorded = Recorded(values)
    stored = np.memmap(tmp_path / "image", ">u2", "w+", shape=values.shape)  # of another byte order
    stored[:] = values
    lists = values.tolist()
    for image, size in [
        (recorded, 1),
        (stored, 100),
        (tf.constant(values), 3),
        (lists, 8),
        (scan(values), 4),
    ]:
        found = explainer().sliding(image, 2, window=32, batch_size=size)
        np.testing.assert_allclose(found.heatmap, expected.heatmap, atol=1e-6)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
        np.testing.assert_array_equal(found.starts, expected.starts)
    assert recorded.most == 32 * 32 * 3


def test_it_is_traced_once_for_all_images():
    traced = []

    def score(outputs):
        traced.append(outputs)
        return outputs[:, 1]

    cam = tf_gradcam.GradCAM(network())
    for lengths, size in [((75, 90), 4), ((64, 64), 100), ((20, 200), 1)]:
        found = cam.sliding(picture(*lengths, 3), score, window=32, batch_size=size)
    assert len(traced) == 1
    assert found.target is None
    assert repr(found) == (
        "SlidingExplanation(heatmap (1, 20, 200), map (1, 3, 25), 12 windows of 32 x 32, target None)"
    )


def test_where_the_image_is_shorter_than_a_window_there_are_zeros_and_no_heat():
    image = picture(20, 70, 3)
    found = explainer().sliding(image, 2, window=32)
    expected = explainer().sliding(np.pad(image, [(0, 12), (0, 0), (0, 0)]), 2, window=32)
    np.testing.assert_allclose(found.map, expected.map[:, :3], atol=1e-7)
    unscaled = expected.heatmap[:, :20]
    np.testing.assert_allclose(found.heatmap[:, :16], (unscaled / unscaled.max())[:, :16], atol=1e-5)
    assert found.heatmap.shape == (1, 20, 70)


def test_nodata_is_zero_for_the_model_and_in_the_heatmap():
    image, valid = picture(96, 120, 3), np.ones((96, 120), bool)
    valid[:, 64:] = False
    valid[:35, :35] = False
    image[~valid] = np.nan
    filled = np.where(valid[..., None], image, 0)
    found = explainer().sliding(scan(Recorded(image), Recorded(valid)), 2, window=32)
    assert (found.starts[:, 1] < 64).all()
    assert [0, 0] not in found.starts.tolist()
    assert not found.heatmap[0][~valid].any()
    assert found.heatmap.max() == 1
    expected = explainer()(filled, 2).heatmap.numpy()[0] * valid
    # Beside nodata, windows that were not run are not there to be interpolated.
    inner = np.zeros_like(valid)
    inner[40:, :56] = True
    np.testing.assert_allclose(found.heatmap[0][inner], (expected / expected.max())[inner], atol=1e-5)
    assert not found.map[0, :4, :4].any()
    assert not found.map[0, :, 8:].any()
    for size in [None, (10, 11), (200, 130)]:
        other = explainer().sliding(scan(image, valid), 2, window=32, size=size).heatmap[0]
        assert not other[: other.shape[0] // 3, : other.shape[1] // 4].any()
        assert not other[:, other.shape[1] * 2 // 3 :].any()
        assert other.max() == 1
    with pytest.raises(ValueError, match="`image` must have a valid place"):
        explainer().sliding(scan(image, np.zeros_like(valid)), 2, window=32)


def test_a_method_without_classes_takes_no_target():
    cam = tf_gradcam.GradCAM(network(), method="eigencam")
    found = cam.sliding(picture(40, 70, 3), window=32)
    assert found.target is None
    assert found.heatmap.max() == 1
    with pytest.raises(ValueError, match="`target` must be None for a method"):
        cam.sliding(picture(40, 70, 3), 1, window=32)


def test_a_method_at_the_image_is_joined_pixel_by_pixel():
    cam = tf_gradcam.GradCAM(network(), method="gradient")
    found = cam.sliding(picture(40, 70, 3), targets.Value(1), window=32)
    assert found.map.shape == found.heatmap.shape == (1, 40, 70)


def test_a_signal_of_one_channel_and_an_image_of_channels_first():
    signal = picture(90, 1)
    model = keras.Sequential(
        [
            keras.Input((32, 1)),
            *network(1, channels=1).layers[:2],
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    assert tf_gradcam.GradCAM(model).sliding(signal, 1).heatmap.shape == (1, 90)
    images = keras.Input((3, 32, 32))
    moved = keras.layers.Permute((2, 3, 1))(images)
    first = keras.Model(images, network()(moved))
    image = picture(96, 136, 3)
    found = tf_gradcam.GradCAM(first).sliding(np.moveaxis(image, -1, 0), 2)
    np.testing.assert_allclose(found.heatmap, explainer()(image, 2).heatmap, atol=1e-5)


def test_frozen_and_other_weights():
    image = picture(75, 90, 3)
    expected = explainer().sliding(image, 2, window=32)
    frozen = tf_gradcam.GradCAM(network()).freeze().sliding(image, 2, window=32)
    np.testing.assert_allclose(frozen.heatmap, expected.heatmap, atol=1e-4)
    halves = [weight / 2 for weight in network().get_weights()]
    other = explainer().with_weights(halves).sliding(image, 2, window=32)
    assert abs(other.map - expected.map).max() > 0.01 * expected.map.max()


def test_a_model_that_was_never_called_is_built_on_the_first_window():
    model = keras.Sequential(network().layers)
    assert tf_gradcam.GradCAM(model).sliding(picture(40, 70, 3), 1, window=32).heatmap.shape == (1, 40, 70)


# What is done with it


def test_it_is_drawn():
    image = np.random.default_rng(0).integers(0, 255, (75, 90, 3)).astype("uint8")
    found = explainer().sliding(image, 2, window=32)
    expected = tf_gradcam.overlay(image, found.heatmap[0])
    np.testing.assert_array_equal(tf_gradcam.overlay(image, found), expected)
    figure = tf_gradcam.show(image, found)
    assert figure.axes[1].get_title() == f"class 2, score {found.score[0]:.2f}"
    matplotlib.pyplot.close(figure)
    np.testing.assert_array_equal(found.overlay(image), expected)
    figure = found.show(image, labels=["sea", "wood", "town", "field"])
    assert figure.axes[1].get_title() == f"town, score {found.score[0]:.2f}"
    matplotlib.pyplot.close(figure)


def drawn_signed(image, found):
    figure = found.show(image, signed=True)
    values = figure.axes[1].images[0].get_array()
    matplotlib.pyplot.close(figure)
    return values


@pytest.mark.parametrize("sign", [1, -1], ids=["for", "against"])
def test_it_is_drawn_signed_with_nodata_and_without_anything_for_the_class(sign):
    image, valid = picture(64, 96, 3), np.ones((64, 96), bool)
    valid[:20, :30] = False
    found = explainer().sliding(scan(image, valid), 2, window=32)
    signed_map = sign * np.abs(found.map)
    heatmap = found.heatmap if sign == 1 else np.zeros_like(found.heatmap)
    found = found._replace(map=signed_map, heatmap=heatmap)
    photograph = np.zeros((64, 96, 3), np.uint8)
    drawn = drawn_signed(photograph, found)
    assert not drawn[~valid].any()
    # The map ends where the image does: it is enlarged by the whole number of pixels of a cell.
    assert found.map_ends == (1, 1)
    enlarged = tf.image.resize(signed_map[0][..., None], (64, 96)).numpy()[..., 0] * valid
    np.testing.assert_allclose(drawn, enlarged / np.abs(enlarged).max(), atol=1e-5)
    whole = found._replace(valid=None, heatmap=np.zeros_like(found.heatmap))
    expected = tf_gradcam.overlay(photograph, signed_map[0], signed=True)
    np.testing.assert_array_equal(whole.overlay(photograph, signed=True), expected)


def test_a_signed_map_that_ends_beyond_the_image_is_cut_at_its_edge():
    image = picture(77, 90, 3)
    found = explainer().sliding(image, 2, window=32)
    ends = [count * 8 / length for count, length in zip(found.map.shape[1:], (77, 90), strict=True)]
    assert max(ends) > 1
    np.testing.assert_allclose(found.map_ends, ends)
    drawn = drawn_signed(np.zeros((77, 90, 3), np.uint8), found)
    beyond = [count * 8 for count in found.map.shape[1:]]
    enlarged = tf.image.resize(found.map[0][..., None], beyond).numpy()[:77, :90, 0]
    np.testing.assert_allclose(drawn, enlarged / np.abs(enlarged).max(), atol=1e-5)


def test_several_layers_have_no_signed_picture():
    found = explainer(("fine", "coarse")).sliding(picture(40, 64, 3), 2, window=32)
    assert [len(ends) for ends in found.map_ends] == [2, 2]
    with pytest.raises(ValueError, match="one signed map.*SlidingExplanation of several layers.*Explain one"):
        found.overlay(np.zeros((40, 64, 3), np.uint8), signed=True)


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": None}, "`target` must name the class to explain"),
        ({"target": targets.Against()}, "`target` must name the class to explain"),
        ({"target": targets.Probability()}, "`target` must name the class to explain"),
        ({"target": targets.TopClasses(2)}, "`target` must name the class to explain"),
        ({"target": [1, 2]}, "`target`"),
        ({"target": [1]}, "`target` must be one for all windows"),
        ({"target": targets.Class([1])}, "`target` must be one for all windows"),
        ({"target": 4}, "`target` must be a class from"),
        ({"window": None}, "`window` must be given for a model that takes images of any size"),
        ({"window": (32, 32, 3)}, "`window` must be one length for each of the 2 axes"),
        ({"window": 0}, "`window` must be one length"),
        ({"window": 32.0}, "`window` must be one length"),
        ({"window": "32"}, "`window` must be one length"),
        ({"overlap": 1}, "`overlap` must be a number from 0"),
        ({"overlap": -0.1}, "`overlap` must be a number from 0"),
        ({"overlap": float("nan")}, "`overlap` must be a number from 0"),
        ({"overlap": True}, "`overlap` must be a number from 0"),
        ({"batch_size": 0}, "`batch_size` must be a whole number from 1"),
        ({"batch_size": 2.0}, "`batch_size` must be a whole number from 1"),
        ({"size": 40}, "`size` must hold one length for each of the 2 axes"),
        ({"size": "output"}, "`size` must be"),
        ({"interpolation": "linear"}, "`interpolation` must be one of"),
        ({"image": picture(1, 40, 70, 3)}, "`image` must be one image without a batch axis"),
        ({"image": picture(40, 70)}, "`image` must be one image"),
        ({"image": picture(40, 70, 4)}, "`image` must have the shape that the model takes"),
        ({"image": np.zeros(7)}, "`image` must be one image without a batch axis"),
        ({"image": np.zeros((0, 70, 3))}, "`image` must not be empty"),
        ({"image": np.full((40, 70, 3), np.nan)}, "`image` must be finite"),
        ({"image": np.ma.masked_less(picture(40, 70, 3), 0)}, "`image` must have a number everywhere"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_what_can_not_be_explained_is_refused(options, message):
    arguments = {"image": picture(40, 70, 3), "target": 1, "window": 32, **options}
    with pytest.raises(ValueError, match=message):
        explainer().sliding(arguments.pop("image"), arguments.pop("target"), **arguments)


@pytest.mark.parametrize("image", ["scene.tif", None, np.array([[["a", "b"]]]), {"x": 1}], ids=str)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(TypeError, match="`image` must be an array"):
        explainer().sliding(image, 1, window=32)


def test_an_image_with_a_heatmap_too_large_is_refused_before_it_is_read():
    values = Recorded(np.broadcast_to(np.float32(0), (20_000, 20_000, 3)))
    with pytest.raises(ValueError, match=r"`size` must be None, for the grid of the layer"):
        explainer().sliding(values, 1, window=32)
    assert values.most == 0
    cam = tf_gradcam.GradCAM(network(), method="gradient")
    with pytest.raises(ValueError, match="`image` must have a joined map of at most"):
        cam.sliding(values, targets.Value(1), window=32, size=None)


def test_a_class_that_each_window_chooses_is_refused_when_they_differ():
    images = keras.Input((16, 16, 2))
    features = keras.layers.Conv2D(2, 1, strides=2, use_bias=False, name="features")(images)
    model = keras.Model(images, keras.layers.Conv2D(2, 1, use_bias=False)(features))
    model.set_weights([np.eye(2)[None, None]] * 2)
    image = np.zeros((16, 48, 2), "float32")
    image[:, :32, 0] = image[:, 32:, 1] = 1
    cam = tf_gradcam.GradCAM(model, "features")
    whole = np.ones((8, 8), bool)
    with pytest.raises(ValueError, match="`target` must be one class for all windows.* such as 0 and 1"):
        cam.sliding(image, targets.Region(mask=whole), batch_size=1)
    with pytest.raises(ValueError, match="`target` must be one for all windows"):
        cam.sliding(image, targets.Region(1, np.stack([whole, whole])))
    np.testing.assert_array_equal(
        cam.sliding(image, targets.Region(1, whole)).map > 0, [[[0] * 16 + [1] * 8] * 8]
    )


def test_in_a_graph_it_is_refused():
    with pytest.raises(ValueError, match="`image` must hold numbers"):
        tf.function(lambda image: explainer().sliding(image, 1, window=32).heatmap, autograph=False)(
            picture(40, 70, 3)
        )


def test_what_fails_while_it_is_read_is_raised():
    class Damaged(Recorded):
        def __getitem__(self, place):
            if place[0].start:
                raise OSError("The file is damaged.")
            return super().__getitem__(place)

    with pytest.raises(OSError, match="damaged"):
        explainer().sliding(Damaged(picture(75, 90, 3)), 1, window=32)


def test_the_window_with_a_map_that_is_not_finite_is_named():
    image = picture(64, 64, 3)
    image[32:, 32:] = 3e38
    with pytest.raises(ValueError, match=r"NaN or infinity in the map of the window that begins at \("):
        explainer().sliding(image, 1, window=32, overlap=0)


def test_windows_that_the_model_does_not_take_are_refused():
    fixed = keras.Sequential([keras.Input((32, 32, 3)), *network().layers])
    cam = tf_gradcam.GradCAM(fixed)
    with pytest.raises(ValueError, match=r"`window` must be what the model takes, \(32, 32\)"):
        cam.sliding(picture(64, 64, 3), 1, window=16)
    np.testing.assert_array_equal(cam.sliding(picture(64, 64, 3), 1).window, [32, 32])
    images = [keras.Input((32, 32, 3)) for _ in range(2)]
    two = keras.Model(images, network()(images[0]) + network()(images[1]))
    with pytest.raises(ValueError, match="`sliding` needs a model with one input"):
        tf_gradcam.GradCAM(two, network().layers[1], call=0).sliding(picture(64, 64, 3), 1)


def test_a_layer_whose_grid_lacks_an_axis_of_the_image_is_refused():
    clips = keras.Input((4, 16, 16, 3))
    mean = keras.ops.mean(clips, axis=1)
    model = keras.Model(clips, network()(mean))
    with pytest.raises(ValueError, match="`layer` must have a grid with the 3 axes of the image"):
        tf_gradcam.GradCAM(model).sliding(picture(8, 32, 32, 3), 1)


@pytest.mark.parametrize(("fill", "expected"), [(0, 0), (None, -2000), (-1000, -1000)])
def test_nodata_of_a_window_is_what_the_scan_puts_there(fill, expected):
    values = np.full((6, 8, 1), -2000, np.int16)
    valid = np.zeros((6, 8), bool)
    valid[0] = True
    scan = formats.Scan(
        values=values, axes="yx", format="DICOM", path=pathlib.Path("a.dcm"), valid=valid, fill=fill
    )
    window, _ = open_source(scan).window((0, 0), (4, 4))
    assert (window[0, 0, 0], window[1, 1, 0]) == (-2000, expected)

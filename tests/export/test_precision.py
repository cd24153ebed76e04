"""Files with weights of 16 or 8 bits: how big, how right, and what is refused."""

import importlib.util

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_gradcam import GradCAM, export_gradcam
from tf_gradcam._export import SUFFIXES, convert, runner
from tf_gradcam._export.precision import calibration_batches, whole_numbers
from tf_gradcam._export.rounded_weights import round_weights

L = keras.layers
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.uniform(size=(12, 16, 16, 3)).astype("float32")
needs_quantizer = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_quantizer") is None, reason="ai-edge-quantizer is not installed"
)
FORMATS = [
    pytest.param("litert", marks=needs_quantizer),
    "onnx",
    pytest.param("openvino", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def cam():
    """An explainer whose weights are nearly all in large arrays, and whose gradient needs some of them."""
    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3))
    x = L.Conv2D(128, 3, strides=2, padding="same", activation="relu")(images)
    x = L.Activation("relu")(L.BatchNormalization()(L.Conv2D(160, 3, name="late")(x)))
    x = L.Conv2D(100, 3, activation="relu")(x)
    x = L.Dense(64, activation="softmax")(L.GlobalAveragePooling2D()(x))
    return GradCAM(keras.Model(images, x), "late")


def write(cam, folder, format, **options):
    path = convert(cam, folder / f"model{SUFFIXES[format]}", format, **options)
    return path, sum(each.stat().st_size for each in folder.iterdir())


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_fewer_bits_answers_nearly_the_same(cam, format, tmp_path):
    new = RANDOM.uniform(size=(8, 16, 16, 3)).astype("float32")
    expected = cam(new)
    (tmp_path / "float32").mkdir()
    _, float32_size = write(cam, tmp_path / "float32", format)
    limits = {"float16": (0.54, 2e-2, 1e-4), "int8": (0.3, 0.15, 1e-2)}
    for precision, (size_limit, heatmap_limit, score_limit) in limits.items():
        folder = tmp_path / precision
        folder.mkdir()
        calibration = IMAGES if precision == "int8" else None
        path, size = write(cam, folder, format, precision=precision, calibration=calibration)
        assert size < size_limit * float32_size
        answer = runner(path)({"images": new})
        same = answer["class"] == expected.target.numpy()
        assert same.mean() >= 0.7
        np.testing.assert_allclose(answer["heatmap"][same], expected.heatmap[same], atol=heatmap_limit)
        np.testing.assert_allclose(answer["scores"], expected.outputs, atol=score_limit)
        assert len(runner(path)({"images": new[:1]})["class"]) == 1


def test_whole_numbers_find_the_axis_of_the_channels():
    steps = np.array([0.5, 0.01, 3, 0], "float32")
    numbers = RANDOM.integers(-127, 128, (5, 4, 6)).astype("int8")
    numbers[0, :, 0] = 127
    found, found_steps, axis = whole_numbers(numbers * steps[:, None])
    assert axis == 1
    np.testing.assert_allclose(found_steps, steps, rtol=1e-6)
    np.testing.assert_array_equal(found[:, :3], numbers[:, :3])


def test_rounding_moves_no_mean_where_the_corrections_are_exact():
    """Without padding and what isn't linear, the mean of the output follows from that of the input."""
    weights = RANDOM.normal(size=(1, 1, 8, 600)).astype("float32")
    dense = RANDOM.normal(size=(600, 10)).astype("float32")
    with tf.Graph().as_default() as graph:
        images = tf.compat.v1.placeholder(tf.float32, [None, 4, 4, 8], "images")
        pooled = tf.reduce_mean(tf.nn.conv2d(images, weights, 1, "VALID"), [1, 2])
        tf.matmul(pooled, dense, name="scores")
    values = RANDOM.uniform(size=(6, 4, 4, 8)).astype("float32")
    batches = [{"images": values[:4]}, {"images": values[4:]}]
    changed = round_weights(graph.as_graph_def(), "scores", batches)

    def scores(definition, fetched):
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            tf.graph_util.import_graph_def(definition, name="")
            return session.run(fetched, {"images:0": values})

    before, after = scores(graph.as_graph_def(), "scores:0"), scores(changed, "scores/corrected:0")
    assert np.abs(after - before).max() > 1e-3  # It is rounded,
    np.testing.assert_allclose(after.mean(0), before.mean(0), atol=1e-4)  # but its means are as before.
    kept = {
        node.name: tf.make_ndarray(node.attr["value"].tensor) for node in changed.node if node.op == "Const"
    }
    rounded = next(each for each in kept.values() if each.shape == weights.shape)
    numbers = rounded / (np.abs(weights).max((0, 1, 2)) / 127)
    np.testing.assert_allclose(numbers, np.round(numbers), atol=1e-3)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"precision": "int4"}, "`precision` must be one of .*Received: precision='int4'"),
        ({"precision": 8}, "`precision` must be one of"),
        ({"precision": "int"}, "Did you mean 'int8'"),
        ({"precision": "int8"}, "`calibration` must be given"),
        ({"calibration": IMAGES}, "`calibration` is for precision='int8' alone"),
        ({"precision": "float16", "calibration": IMAGES}, "Leave it out"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(cam, tmp_path, options, match):
    with pytest.raises(ValueError, match=match):
        export_gradcam(cam, tmp_path / "model.onnx", format="onnx", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("calibration", "error", "match"),
    [
        (IMAGES[0], ValueError, r"\(N, 16, 16, 3\).*shape \(16, 16, 3\)"),
        (IMAGES[:0], ValueError, "one image or more"),
        (IMAGES[:, :8], ValueError, r"shape \(12, 8, 16, 3\)"),
        (np.full((1, 16, 16, 3), "a"), TypeError, "`calibration` must be an array of images"),
        (["a.jpg", "b.jpg"], TypeError, "`calibration` must be an array of images.*Read them first"),
        ([IMAGES[0], IMAGES[0, :8]], TypeError, "`calibration` must be an array.*Its parts differ in shape"),
        (np.ma.masked_less(IMAGES, 0.5), ValueError, "`calibration` must have a number everywhere"),
        (tf.data.Dataset.from_tensors(IMAGES), TypeError, "`calibration` must be .*Received: a data set"),
        ([IMAGES, np.ones(12)], TypeError, "`calibration` must be .*of images and labels"),
        ({"images": "a.jpg"}, TypeError, "`calibration` must be an array of images"),
        (IMAGES * np.nan, ValueError, "must be finite"),
        ({"pictures": IMAGES}, ValueError, r"\['images'\]"),
    ],
)
def test_images_that_the_file_does_not_take_are_refused(calibration, error, match):
    with pytest.raises(error, match=match):
        calibration_batches(calibration, ["images"], [tf.TensorSpec([None, 16, 16, 3], tf.float32)])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smaller.xml", "smaller-smaller.xml", "a.b.xml"])
def test_a_smaller_file_may_have_any_name(cam, name, tmp_path):
    path = convert(cam, tmp_path / name, "openvino", precision="float16")
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([name, f"{path.stem}.bin"])
    new = RANDOM.uniform(size=(2, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(runner(path)({"images": new})["heatmap"], cam(new).heatmap, atol=2e-2)


def test_several_inputs_are_calibrated_by_their_names():
    names, specs = ["left", "right"], [tf.TensorSpec([None, 2], tf.float32)] * 2
    batches = calibration_batches({"right": np.ones((9, 2)), "left": np.zeros((9, 2))}, names, specs)
    assert [len(batch["left"]) for batch in batches] == [8, 1]
    assert list(batches[1]["right"][0]) == [1, 1]
    with pytest.raises(ValueError, match="must be a dict with an array for each"):
        calibration_batches(np.ones((9, 2)), names, specs)
    with pytest.raises(ValueError, match=r"one number of images. Received: \[8, 9\]"):
        calibration_batches({"left": np.ones((9, 2)), "right": np.ones((8, 2))}, names, specs)


def test_a_savedmodel_has_no_precision(cam, tmp_path):
    with pytest.raises(ValueError, match="`precision` is for files without TensorFlow"):
        export_gradcam(cam, tmp_path / "model", precision="float16")


def test_calibration_is_of_the_dtype_that_the_file_takes(cam, tmp_path):
    raw = GradCAM(cam.model, "late", preprocess=lambda images: images / 255)
    options = {"format": "onnx", "precision": "int8"}
    with pytest.raises(TypeError, match="must be uint8, as the file takes 'images'. Received: float32"):
        export_gradcam(raw, tmp_path / "model.onnx", calibration=IMAGES, **options)
    bytes_ = (255 * IMAGES).astype("uint8")
    path = export_gradcam(raw, tmp_path / "model.onnx", calibration=bytes_, **options)
    assert runner(path)({"images": bytes_})["heatmap"].shape == (12, 16, 16)


def test_a_file_whose_heatmaps_are_wrong_is_refused(cam, tmp_path, monkeypatch):
    monkeypatch.setattr("tf_gradcam._export.precision._STEPS", 1)  # weights of -1, 0 and 1
    with pytest.raises(ValueError, match="`precision` must keep the results of TensorFlow within 0.25"):
        convert(cam, tmp_path / "model.onnx", "onnx", precision="int8", calibration=IMAGES)
    assert not list(tmp_path.iterdir())


def test_a_missing_quantizer_is_named_with_the_extra_that_brings_it(cam, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_quantizer", None)
    with pytest.raises(ImportError, match=r'pip install "tf_gradcam\[litert-precision\]"'):
        export_gradcam(cam, tmp_path / "model.tflite", format="litert", precision="float16")

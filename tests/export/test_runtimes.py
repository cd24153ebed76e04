"""One file for LiteRT, ONNX Runtime and OpenVINO: the explainer's answers, where TensorFlow is not."""

import errno
import functools
import json
import pathlib
import subprocess
import sys
import warnings
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import CLASSES, KINDS, SIDE, build, chain, head

from tf_gradcam import GradCAM, export_gradcam, targets
from tf_gradcam._export import SUFFIXES, convert, runner
from tf_gradcam._export.disk import disk_error
from tf_gradcam._export.runtimes import _WRITERS
from tf_gradcam._runtimes.single_files import _RUNNERS

FORMATS = ["litert", "onnx", pytest.param("openvino", marks=pytest.mark.slow)]
L = keras.layers


@pytest.fixture(params=FORMATS)
def format(request):
    return request.param


def full(value):
    return pytest.param(value, marks=pytest.mark.full)


def only(format, default):
    """Return the marks of a test of many formats: `full` but for `default`, which stands for them all.

    With `None` another case of the test stands for this one, too.
    """
    slow = [pytest.mark.slow] if format == "openvino" else []
    return slow + ([] if format == default else [pytest.mark.full])


def one_of(default):
    """Return the formats, all of them but `default` marked `full`."""
    return [pytest.param(format, marks=only(format, default)) for format in SUFFIXES]


def write_alone(cam, format, folder, **options):
    """Write a file in a folder of its own, where nothing else must be left."""
    path = folder / f"model{SUFFIXES[format]}"
    assert convert(cam, path, format, **options) == path
    beside = {path.with_suffix(".bin").name} if format == "openvino" else set()
    assert {each.name for each in folder.iterdir()} == {path.name} | beside
    return path


@pytest.fixture
def write(tmp_path):
    """Return the function that writes a file in a folder of its own."""
    return lambda cam, format, **options: write_alone(cam, format, tmp_path, **options)


class Written(NamedTuple):
    """A file, the explainer in it, and what was known before it was written."""

    cam: GradCAM
    path: pathlib.Path
    config: str
    map: np.ndarray
    heatmap: np.ndarray


@pytest.fixture(scope="module")
def written(images, tmp_path_factory):
    """Return a function of a network, a layer and a format to its file, which is written once."""

    @functools.cache
    def written(build, layer, format):
        cam = GradCAM(build(), layer)
        given = images if cam.model.input_shape[1:] == images.shape[1:] else noise(cam.model)
        before = cam(given)
        known = config_of(cam.model), before.map.numpy(), before.heatmap.numpy()
        return Written(cam, write_alone(cam, format, tmp_path_factory.mktemp(format)), *known)

    return written


def config_of(model):
    return json.dumps(model.get_config(), default=str)


def small():
    return build("functional")


def network(*layers, shape=(SIDE, SIDE, 3)):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input(shape), *layers])


def vgg():
    """What VGG ends in, small, after a ReLU6 and a window that overlaps."""
    return network(
        L.Conv2D(6, 3, activation="relu", name="early"),
        L.MaxPooling2D(3, 2, padding="same"),
        L.Conv2D(5, 3, activation="relu6", name="late"),
        L.MaxPooling2D(),
        L.Flatten(),
        L.Dense(7, activation="relu"),
        L.Dense(4, activation="softmax"),
    )


def modern():
    return network(
        L.Conv2D(6, 3, activation="gelu", name="early"),
        L.DepthwiseConv2D(3, strides=2, padding="same"),
        L.BatchNormalization(),
        L.Activation("swish"),
        L.AveragePooling2D(2, padding="same"),
        L.LayerNormalization(),
        L.UpSampling2D(2),
        L.Conv2D(4, 3, activation="hard_swish", name="late"),
        L.GlobalMaxPooling2D(),
        L.Dense(1, activation="sigmoid"),
    )


def residual():
    """A skip, squeeze and excite, and the way back through a stride."""
    keras.utils.set_random_seed(0)
    images = keras.Input((SIDE, SIDE, 3))
    x = L.Conv2D(6, 3, padding="same", activation="relu", name="early")(images)
    squeezed = L.Dense(6, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
    x = L.Add()([x, L.Conv2D(6, 3, padding="same")(L.Multiply()([x, squeezed]))])
    x = L.Conv2D(8, 3, strides=2, activation="relu", name="late")(x)
    return keras.Model(images, L.Dense(3)(L.GlobalAveragePooling2D()(x)))


def tokens():
    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3))
    x = L.Reshape((16, 8))(L.Conv2D(8, 4, strides=4, name="early")(images))
    normal = L.LayerNormalization()(x)
    x = L.Add()([x, L.MultiHeadAttention(2, 4)(normal, normal)])
    return keras.Model(images, L.Dense(3)(x[:, 0]))


def assert_agrees(cam, path, images, **options):
    run = runner(path)
    for count in (1, len(images)):
        answer = run({"images": images[:count]})
        expected = cam(images[:count], **options)
        one_layer = not isinstance(expected.map, tuple)
        assert sorted(answer) == sorted(
            {"scores", "score", "heatmap"}
            | ({"class"} if expected.target is not None else set())
            | ({"map"} if one_layer else set())
        )
        np.testing.assert_allclose(answer["score"], expected.score, atol=1e-5, rtol=1e-5)
        if one_layer:
            largest = max(1, np.abs(expected.map).max())
            np.testing.assert_allclose(answer["map"], expected.map, atol=1e-5 * largest)
        np.testing.assert_allclose(answer["heatmap"], expected.heatmap, atol=1e-5)
        np.testing.assert_allclose(answer["scores"], expected.outputs, atol=1e-5)
        assert answer["heatmap"].dtype == answer["scores"].dtype == np.float32
        if expected.target is not None:
            np.testing.assert_array_equal(answer["class"], expected.target)
            assert answer["class"].dtype == np.int32


def noise(model, count=3):
    return np.random.default_rng(2).normal(size=(count, *model.input_shape[1:])).astype("float32")


def test_the_file_answers_what_the_explainer_answers(images, format, written):
    cam, path, *_ = written(small, "conv1", format)
    assert_agrees(cam, path, images)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind == "subclassed" else pytest.mark.full) for kind in KINDS],
)
def test_every_kind_of_model_goes_into_a_file(kind, images, write):
    cam = GradCAM(build(kind))
    assert_agrees(cam, write(cam, "onnx"), images)


@pytest.mark.parametrize(
    ("build", "format"),
    [
        pytest.param(build, format, marks=only(format, default), id=f"{format}-{build.__name__}")
        for build, default in [(vgg, None), (modern, "litert"), (residual, "onnx"), (tokens, None)]
        for format in SUFFIXES
    ],
)
def test_the_way_back_to_an_early_layer_is_in_the_file(build, format, written):
    cam, path, *_ = written(build, "early", format)
    assert_agrees(cam, path, noise(cam.model))


@pytest.mark.full
@pytest.mark.parametrize(
    "method", ["hirescam", "layercam", "gradcam_plus_plus", "xgradcam", "fem", "finercam"]
)
def test_methods_of_one_pass_go_into_a_file(method, write):
    cam = GradCAM(vgg(), "late", method=method)
    assert_agrees(cam, write(cam, "onnx"), noise(cam.model))


@pytest.mark.parametrize(
    ("build", "format"),
    [
        pytest.param(small, "onnx", id="onnx-small"),
        *(pytest.param(vgg, each, marks=only(each, None), id=f"{each}-vgg") for each in SUFFIXES),
    ],
)
def test_a_method_that_explains_at_the_image_goes_into_a_file(build, format, write):
    cam = GradCAM(build(), method="guided_backprop")
    assert_agrees(cam, write(cam, format), noise(cam.model))


@pytest.mark.parametrize("method", ["gradcam_plus_plus", full("gradcam")])
def test_several_layers_go_into_a_file(functional, method, images, write):
    cam = GradCAM(functional, ["conv1", "conv2"], method=method)
    assert_agrees(cam, write(cam, "onnx"), images)


@pytest.mark.parametrize(
    "options",
    [
        {"target": targets.TopClasses(2), "size": (20, 30), "interpolation": "bicubic"},
        *(
            full(options)
            for options in (
                {"target": 2},
                {"target": targets.Contrast()},
                {"target": targets.TopClasses(2)},
                {"size": None},
                {"size": (20, 30)},
                {"interpolation": "bicubic"},
                {"interpolation": "gaussian"},
            )
        ),
    ],
    ids=str,
)
def test_every_argument_is_in_the_file(options, functional, images, write):
    cam = GradCAM(functional)
    path = write(cam, "onnx", **options)
    assert_agrees(cam, path, images, **options)
    answer, plain = runner(path)({"images": images})["heatmap"], cam(images).heatmap.numpy()
    assert answer.shape != plain.shape or not np.allclose(answer, plain, atol=1e-3)


@pytest.mark.parametrize("format", one_of("litert"))
def test_raw_photographs_go_in_with_preprocess(functional, format, write):
    cam = GradCAM(functional, preprocess=keras.applications.resnet.preprocess_input)
    raw = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3)).astype("uint8")
    assert_agrees(cam, write(cam, format), raw)


@pytest.mark.parametrize("format", one_of("onnx"))
def test_a_model_of_several_inputs_takes_them_by_name(images, format, write):
    keras.utils.set_random_seed(0)
    image, table = keras.Input((SIDE, SIDE, 3), name="image"), keras.Input((4,), name="table")
    x = L.MaxPooling2D()(L.Conv2D(5, 3, activation="relu")(image))
    model = keras.Model([image, table], L.Dense(3)(L.Concatenate()([L.Flatten()(x), table])))
    cam, numbers = GradCAM(model), np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    answer = runner(write(cam, format))({"image": images, "table": numbers})
    np.testing.assert_allclose(answer["heatmap"], cam([images, numbers]).heatmap, atol=1e-5)


@pytest.mark.parametrize("format", FORMATS[1:])  # LiteRT takes one image or more
def test_no_images_get_no_answers(images, format, written):
    answer = runner(written(small, "conv1", format).path)({"images": images[:0]})
    shapes = {name: values.shape for name, values in answer.items()}
    of_image = {"class": (0,), "score": (0,), "scores": (0, CLASSES)}
    assert shapes == {**of_image, "heatmap": (0, SIDE, SIDE), "map": (0, SIDE // 2, SIDE // 2)}


def segmenter(channels=3, activation="softmax"):
    keras.utils.set_random_seed(0)
    images = keras.Input((12, 12, 3))
    x = L.Conv2D(4, 3, strides=2, padding="same", activation="relu")(images)
    return keras.Model(images, L.Conv2D(channels, 1, activation=activation)(L.UpSampling2D()(x)))


def detector():
    """36 boxes, as corners, and the probabilities of 5 classes, in one tensor."""
    keras.utils.set_random_seed(0)
    images = keras.Input((12, 12, 3))
    x = L.Conv2D(4, 3, strides=2, padding="same", activation="relu")(images)
    low, side = (L.Reshape((36, 2))(L.Conv2D(2, 1)(x)) for _ in range(2))
    classes = L.Reshape((36, 5))(L.Conv2D(5, 1, activation="sigmoid")(x))
    return keras.Model(images, L.Concatenate()([low, low + keras.ops.exp(side), classes]))


MASK = np.zeros((12, 12), "float32")
MASK[2:6, 3:8] = 1, 1, 0.5, 2, 1


@pytest.mark.parametrize(
    ("build", "target", "format"),
    [
        pytest.param(build, target, format, marks=only(format, default), id=f"{format}-{name}")
        for name, build, target, default in [
            ("predicted", segmenter, None, None),
            ("region", segmenter, targets.Region(0), "onnx"),
            ("mask", segmenter, targets.Region(None, MASK), None),
            ("one channel", lambda: segmenter(1, "sigmoid"), None, None),
            ("detection", detector, targets.Detection(7), None),
            ("box", detector, targets.Box([-1.0, -1.0, 2.0, 1.5]), "litert"),
            ("box of a class", detector, targets.Box([-1.0, -1.0, 2.0, 1.5], 3), None),
        ]
        for format in SUFFIXES
    ],
)
def test_regions_and_boxes_go_into_a_file(build, target, format, write):
    cam = GradCAM(build())
    assert cam(noise(cam.model), target).heatmap.numpy().max() == 1  # There is something to agree on.
    assert_agrees(cam, write(cam, format, target=target), noise(cam.model), target=target)


def video(over_time):
    """A convolution over each frame, and a layer over the frames."""
    keras.utils.set_random_seed(0)
    frames = keras.Input((2, 9, 9, 3))
    x = L.TimeDistributed(L.Conv2D(3, 3, strides=2, activation="relu"), name="frames")(frames)
    x = L.TimeDistributed(L.GlobalAveragePooling2D())(x)
    return keras.Model(frames, L.Dense(3)(over_time(x)))


@pytest.mark.parametrize("format", one_of("onnx"))
def test_an_unrolled_lstm_goes_into_a_file(format, write):
    cam = GradCAM(video(L.LSTM(4, unroll=True)), "frames")
    assert_agrees(cam, write(cam, format), noise(cam.model))


def test_nan_is_answered_by_nan_and_touches_no_other_image(images, format, written):
    cam, path, *_ = written(small, "conv1", format)
    expected = cam(images)
    for wrong in (np.nan, np.inf):
        bad = images.copy()
        bad[1, 2, 3, 0] = wrong
        answer = runner(path)({"images": bad})
        for name, values in {"heatmap": expected.heatmap, "scores": expected.outputs}.items():
            assert np.isnan(answer[name][1]).all()
            np.testing.assert_allclose(answer[name][::2], values[::2], atol=1e-5)


def test_a_unit_without_sigmoid_has_no_class(images, write):
    cam = GradCAM(head(L.Dense(1)))
    assert_agrees(cam, write(cam, "onnx"), images)


def test_a_frozen_explainer_gives_the_same_file(functional, images, write):
    cam = GradCAM(functional).freeze()
    assert_agrees(cam, write(cam, "onnx"), images)


def test_the_weights_are_those_of_the_moment(images, written):
    cam, path, _, _, before = written(small, "conv1", "onnx")
    weights = cam.model.get_weights()
    cam.model.set_weights([-weight for weight in weights])
    np.testing.assert_allclose(runner(path)({"images": images})["heatmap"], before, atol=1e-5)
    assert not np.allclose(cam(images).heatmap, before, atol=1e-3)
    cam.model.set_weights(weights)


def test_a_litert_file_holds_built_in_operations_only(written):
    from ai_edge_litert import schema_py_generated as schema

    data = written(modern, "early", "litert").path.read_bytes()
    codes = [code.builtinCode for code in schema.ModelT.InitFromPackedBuf(data).operatorCodes]
    assert schema.BuiltinOperator.CUSTOM not in codes
    assert schema.BuiltinOperator.CONV_2D in codes


def test_seven_classes_are_no_reason_to_refuse(images, tmp_path):
    """The converter takes a whole number from 0 to 6 for a ReLU6, which LiteRT lacks for whole numbers."""
    pool = [L.Conv2D(4, 3), L.GlobalAveragePooling2D()]
    cam = GradCAM(keras.Sequential([keras.Input((SIDE, SIDE, 3)), *pool, L.Dense(7)]))
    answer = runner(convert(cam, tmp_path / "seven.tflite", "litert", target=6))({"images": images})
    np.testing.assert_allclose(answer["heatmap"], cam(images, 6).heatmap, atol=1e-5)


def test_an_onnx_file_passes_the_check_and_its_batch_has_a_name(written):
    import onnx

    model = onnx.load(written(small, "conv1", "onnx").path)
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        each.name: each.type.tensor_type.shape.dim for each in [*model.graph.input, *model.graph.output]
    }
    assert {name: [dim.dim_param or dim.dim_value for dim in dims] for name, dims in shapes.items()} == {
        "images": ["N", SIDE, SIDE, 3],
        "class": ["N"],
        "heatmap": ["N", SIDE, SIDE],
        "map": ["N", SIDE // 2, SIDE // 2],
        "score": ["N"],
        "scores": ["N", CLASSES],
    }


# Without TensorFlow

ALONE = """
import sys
for name in ("tensorflow", "keras", "tf_gradcam", "jax", "torch"):
    sys.modules[name] = None  # importing it is an error
import numpy
path, images = sys.argv[1], numpy.load(sys.argv[2])
"""
READERS = {
    "litert": """
from ai_edge_litert.interpreter import Interpreter
answer = Interpreter(path).get_signature_runner()(images=images)
""",
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
names = [each.name for each in session.get_outputs()]
answer = dict(zip(names, session.run(names, {"images": images})))
""",
    "openvino": """
import openvino
model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
answer = {port.any_name: value for port, value in model({"images": images}).items()}
""",
}


def test_the_file_answers_where_neither_tensorflow_nor_keras_nor_this_library_is(format, written, tmp_path):
    cam, path, *_ = written(small, "conv1", format)
    images = noise(cam.model)
    np.save(tmp_path / "images.npy", images)
    code = ALONE + READERS[format] + "numpy.savez('answer.npz', **answer)"
    subprocess.run([sys.executable, "-c", code, str(path), "images.npy"], cwd=tmp_path, check=True)
    answer, expected = np.load(tmp_path / "answer.npz"), cam(images)
    np.testing.assert_allclose(answer["heatmap"], expected.heatmap, atol=1e-5)
    np.testing.assert_allclose(answer["scores"], expected.outputs, atol=1e-5)
    np.testing.assert_array_equal(answer["class"], expected.target)


# What is refused


def refused(cam, tmp_path, format, match):
    with pytest.raises(ValueError, match=match) as caught:
        convert(cam, tmp_path / f"model{SUFFIXES[format]}", format)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # no converter's traceback
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", one_of("litert"))
def test_recipro_cam_runs_everywhere_as_it_has_no_loop(write, images, format):
    cam = GradCAM(build("functional"), "conv2", method="reciprocam")
    answer = runner(write(cam, format, target=2))({"images": images})
    np.testing.assert_allclose(answer["heatmap"], cam(images, 2).heatmap, atol=1e-5)


@pytest.mark.parametrize("format", one_of("onnx"))  # before any of them sees it
def test_a_loop_is_refused_with_its_name(functional, tmp_path, format):
    cam = GradCAM(functional, method="scorecam")
    refused(cam, tmp_path, format, "no 'While' .*Choose a method without loops")


@pytest.mark.parametrize("format", one_of("litert"))  # before any of them sees it
def test_an_lstm_is_refused_with_the_way_out(tmp_path, format):
    model = video(L.Bidirectional(L.LSTM(4, name="lstm"), name="both"))
    match = "no 'While' .*`unroll=True`.*: .'both/forward_lstm', 'both/backward_lstm'."
    refused(GradCAM(model, "frames"), tmp_path, format, match)


def test_a_loop_of_the_model_is_not_said_to_be_one_of_the_method(tmp_path):
    images = keras.Input((SIDE, SIDE, 3))
    x = L.GlobalAveragePooling2D()(L.Conv2D(3, 3, activation="relu")(images))
    x = L.Lambda(lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: x, lambda: 2 * x), output_shape=(3,))(x)
    refused(GradCAM(keras.Model(images, L.Dense(2)(x))), tmp_path, "onnx", "If' .*The model, or a target")


def quantized():
    model = network(L.Conv2D(4, 3), L.GlobalAveragePooling2D(), L.Dense(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It says that a convolution is not quantized.
        model.quantize("int8")
    return model


def half():
    return network(L.Conv2D(4, 3, dtype="mixed_float16"), L.GlobalAveragePooling2D(), L.Dense(3))


@pytest.mark.parametrize("format", one_of("litert"))
def test_layers_of_8_bits_go_into_a_file(format, write):
    cam = GradCAM(quantized())
    assert_agrees(cam, write(cam, format), noise(cam.model))


def test_numbers_that_a_format_does_not_have_are_the_reason(tmp_path):
    match = "a model with float16. Build the model with the dtype policy 'float32'"
    refused(GradCAM(half()), tmp_path, "litert", match)


def volume():
    return network(
        L.Conv3D(2, 3, name="early"),
        L.MaxPooling3D(2),
        L.Conv3D(2, 1, name="late"),
        L.Flatten(),
        L.Dense(3),
        shape=(8, 8, 8, 1),
    )


@pytest.mark.parametrize("format", one_of("litert"))  # before any of them sees it
def test_an_operation_that_there_is_no_way_to_write_is_refused_with_the_layer_to_choose(tmp_path, format):
    match = "no 'Conv3DBackpropInputV2' .*Choose a layer after it: layer='late' is the last"
    refused(GradCAM(volume(), "early"), tmp_path, format, match)


def test_an_operation_that_a_format_lacks_is_refused_with_its_name(tmp_path):
    @keras.saving.register_keras_serializable()
    def spectrum(x):
        return tf.abs(tf.signal.fft(tf.cast(x, tf.complex64)))

    images = keras.Input((SIDE, SIDE, 3))
    x = L.Conv2D(4, 3, activation="relu")(images)
    model = keras.Model(
        images, L.Dense(3)(L.Lambda(spectrum, output_shape=(4,))(L.GlobalAveragePooling2D()(x)))
    )
    refused(GradCAM(model, method="fem"), tmp_path, "onnx", "no 'FFT' .*Choose another format")


def test_answers_that_are_not_tensorflows_are_refused(functional, tmp_path, monkeypatch):
    def wrong(path, threads):
        return lambda arrays: {
            "scores": np.zeros((2, CLASSES)),
            "class": np.zeros(2),
            "heatmap": np.zeros((2, SIDE, SIDE)),
            "map": np.zeros((2, SIDE // 2, SIDE // 2)),
            "score": np.zeros(2),
        }

    monkeypatch.setitem(_WRITERS, "onnx", lambda graph, path: path.write_bytes(b"wrong"))
    monkeypatch.setitem(_RUNNERS, "onnx", wrong)
    refused(GradCAM(functional), tmp_path, "onnx", "`format` must give the same results as TensorFlow")


def test_a_full_disk_is_named_with_the_path(unchanged, tmp_path, monkeypatch):
    def fail(graph, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(_WRITERS, "onnx", fail)
    path = tmp_path / "model.onnx"
    with pytest.raises(OSError, match="`path` must be on a disk that can be written") as caught:
        convert(GradCAM(unchanged), path, "onnx")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
        (PermissionError(errno.EACCES, "Permission denied"), errno.EACCES),
        (RuntimeError("Can not write to model.bin: No space left on device"), errno.ENOSPC),
        (tf.errors.ResourceExhaustedError(None, None, "/a/b; No space left on device"), errno.ENOSPC),
        (tf.errors.PermissionDeniedError(None, None, "/a/b; Permission denied"), errno.EACCES),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"), None),
        (RuntimeError("a bug"), None),
    ],
    ids=repr,
)
def test_an_error_of_the_disk_is_told_from_others(raised, expected):
    assert getattr(disk_error(raised, "model.onnx"), "errno", None) == expected


def test_a_file_that_can_not_be_written_leaves_the_old_one_as_it_was(functional, tmp_path, monkeypatch):
    def fail(graph, path):
        path.write_bytes(b"half")
        raise RuntimeError("a bug")

    old = tmp_path / "model.onnx"
    old.write_bytes(b"old")
    monkeypatch.setitem(_WRITERS, "onnx", fail)
    with pytest.raises(ValueError, match="whose library fails with: a bug"):
        convert(GradCAM(functional), old, "onnx")
    assert old.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [old]


@pytest.mark.parametrize("package", ["ai_edge_litert", "onnxruntime", "openvino", "tf2onnx"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(functional, tmp_path, package, monkeypatch):
    extra = {"ai_edge_litert": "litert", "openvino": "openvino"}.get(package, "onnx")
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / f"model{SUFFIXES[extra]}"
    with pytest.raises(ImportError, match=rf"{package.replace('_', '-')}.*tf_gradcam\[{extra}\]"):
        convert(GradCAM(functional), path, extra)


@pytest.mark.parametrize(
    ("name", "format", "match"),
    [
        ("model.onnx", "coreml", "`format` must be one of"),
        ("model.tflite", "onnx", "`path` must end in '.onnx'"),
        ("missing/model.onnx", "onnx", "`path` must be in a folder that exists"),
    ],
)
def test_a_wrong_format_or_path_is_refused(functional, tmp_path, name, format, match):
    with pytest.raises(ValueError, match=match):
        convert(GradCAM(functional), tmp_path / name, format)


def test_a_model_of_several_outputs_is_refused(tmp_path):
    images = keras.Input((SIDE, SIDE, 3))
    x = L.GlobalAveragePooling2D()(L.Conv2D(4, 3)(images))
    model = keras.Model(images, [L.Dense(3)(x), L.Dense(2)(x)])
    with pytest.raises(ValueError, match="`model` must have one output"):
        convert(GradCAM(model), tmp_path / "m.onnx", "onnx", target=targets.Output(0))


@pytest.mark.parametrize("format", ["onnx", "tensorflow"])
@pytest.mark.parametrize("name", ["a b", "scores", "class", "_x"])
def test_inputs_with_names_that_can_not_be_are_refused(name, format, tmp_path):
    if (name, format) == ("scores", "tensorflow"):
        return  # A SavedModel may have an input and an output of one name.
    image, table = keras.Input((8, 8, 3), name=name), keras.Input((2,), name="table")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, name="conv")(image))
    scores = keras.layers.Dense(3)(keras.layers.Concatenate()([pooled, table]))
    path = tmp_path / ("model.onnx" if format == "onnx" else "model")
    words = f"`model` must have inputs with names of their own.*Received: an input '{name}'.*Rename it: keras"
    with pytest.raises(ValueError, match=words):
        export_gradcam(keras.Model([image, table], scores), path, format=format)
    assert not list(tmp_path.iterdir())


def test_notes_that_are_too_long_are_refused_before_anything_is_converted(functional, tmp_path, monkeypatch):
    monkeypatch.setattr("tf_gradcam._export.single_file.rewrite", None)
    labels = ["a" * 2**18] * 5
    with pytest.raises(ValueError, match="`labels` must leave a file's notes below"):
        export_gradcam(functional, tmp_path / "long.onnx", format="onnx", labels=labels)


def test_a_model_that_takes_any_size_is_refused_with_what_to_do(tmp_path):
    images = keras.Input((None, None, 3))
    model = keras.Model(images, chain(images, [L.Conv2D(4, 3), L.GlobalAveragePooling2D(), L.Dense(3)]))
    with pytest.raises(ValueError, match="one height and width .*keras.Input"):
        convert(GradCAM(model), tmp_path / "m.onnx", "onnx")


def test_the_model_is_what_it_was(images, written):
    cam, _, config, before, _ = written(small, "conv1", "onnx")
    np.testing.assert_array_equal(GradCAM(cam.model, "conv1")(images).map, before)
    assert config_of(cam.model) == config

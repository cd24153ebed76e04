"""The exported model: the same answers, without this library, from Python and from the command line."""

import errno
import io
import json
import subprocess
import sys

import cv2
import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from conftest import CLASSES, KINDS, SIDE, build, chain, parts

import tf_gradcam
from tf_gradcam import GradCAM, export_gradcam, load_image, methods, targets

LABELS = ["ant", "bee", "cat", "dog", "élan"]


def endpoints(version):
    return tf.saved_model.load(str(version)).signatures


def encoded(pixels, kind="png"):
    return cv2.imencode(f".{kind}", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()


def decoded(data):
    return load_image(data.numpy())


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A model with all that an export can have, and its signatures."""
    model = build("functional")
    version = export_gradcam(model, tmp_path_factory.mktemp("served"), labels=LABELS, top_k=2)
    return model, endpoints(version)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A functional model, its map before the export, and the version: exported without any option."""
    model = build("functional")
    images = np.random.default_rng(3).normal(size=(3, SIDE, SIDE, 3)).astype("float32")
    before = GradCAM(model)(images).map
    version = export_gradcam(model, tmp_path_factory.mktemp("plain"))
    np.testing.assert_array_equal(GradCAM(model)(images).map, before)  # It can be explained after it.
    return model, version


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=() if kind == "subclassed" else pytest.mark.full) for kind in KINDS],
)
def exported(request, tmp_path_factory):
    """A model of each kind, and the version that it was exported to without any option."""
    if request.param == "functional":
        return request.getfixturevalue("plain")
    model = build(request.param)
    return model, export_gradcam(model, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def preprocessed(tmp_path_factory):
    """A model, and the signatures of its export with a preprocessing that resizes and scales."""
    model = build("functional")
    version = export_gradcam(
        model,
        tmp_path_factory.mktemp("preprocessed"),
        preprocess=lambda x: tf.image.resize(x, (SIDE, SIDE)) / 100 - 1,
    )
    return model, endpoints(version)


@pytest.fixture(scope="module")
def frozen(plain, tmp_path_factory):
    """The version of the plain model with constant weights, exported where no more than these fit."""
    model, _ = plain
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tf_gradcam._export.export.MOST_BYTES", 4 * 4 * model.count_params())
        return export_gradcam(model, tmp_path_factory.mktemp("frozen"), frozen=True)


@pytest.fixture
def minimal():
    """A model that is exported fast: it has no classes, and takes no photographs."""
    images = keras.Input((8, 8, 4))
    return keras.Model(
        images, chain(images, [keras.layers.Conv2D(2, 3), *parts()[3:4], keras.layers.Dense(1)])
    )


def many_channels():
    """A nested model whose images are no photographs: the signature for these takes the most time."""
    images, outer = keras.Input((SIDE, SIDE, 4)), keras.Input((SIDE, SIDE, 4))
    *features, pool, scores = parts()
    inner = keras.Model(images, chain(images, features), name="inner")
    return keras.Model(outer, chain(outer, [inner, pool, scores]))


@pytest.fixture(scope="module")
def deep_images():
    """Three images `(3, 17, 17, 4)` for `many_channels`."""
    return np.random.default_rng(4).normal(size=(3, SIDE, SIDE, 4)).astype("float32")


# What is answered


def test_the_exported_model_answers_what_the_explainer_answers(exported, images):
    model, version = exported
    expected = GradCAM(model)(images)
    answer = endpoints(version)["gradcam"](images=tf.constant(images))
    assert sorted(answer) == ["class", "heatmap", "map", "score", "scores"]
    np.testing.assert_allclose(answer["map"], expected.map, atol=1e-5)
    np.testing.assert_allclose(answer["score"], expected.score, atol=1e-5)
    np.testing.assert_allclose(answer["scores"], expected.outputs, atol=1e-6)
    np.testing.assert_allclose(answer["heatmap"], expected.heatmap, atol=1e-5)
    np.testing.assert_array_equal(answer["class"], expected.target)


def test_existing_clients_get_what_the_model_answers(exported, images, tmp_path):
    model, version = exported
    model.export(tmp_path / "kerass", verbose=False)
    ours, kerass = endpoints(version), endpoints(tmp_path / "kerass")
    assert {"serve", "serving_default"} == set(kerass) < set(ours)
    for each in kerass:
        assert ours[each].structured_input_signature == kerass[each].structured_input_signature
        assert ours[each].structured_outputs == kerass[each].structured_outputs
        (name,) = ours[each].structured_input_signature[1]
        answer = ours[each](**{name: tf.constant(images)})["output_0"]
        np.testing.assert_allclose(answer, model(images), atol=1e-6)
    layer = keras.layers.TFSMLayer(str(version), call_endpoint="serve")  # Keras's own client
    np.testing.assert_allclose(layer(images), model(images), atol=1e-6)


def test_a_class_is_explained_that_is_asked_for(served, images):
    model, signatures = served
    expected = GradCAM(model)(images, [4, 0, 2])
    answer = signatures["gradcam_class"](images=tf.constant(images), class_index=tf.constant([4, 0, 2]))
    np.testing.assert_allclose(answer["heatmap"], expected.heatmap, atol=1e-5)
    np.testing.assert_allclose(answer["scores"], expected.outputs, atol=1e-6)
    assert answer["class"].numpy().tolist() == [4, 0, 2]
    assert [label.decode() for label in answer["label"].numpy()] == ["élan", "ant", "cat"]


@pytest.mark.parametrize("wrong", [[0, 1, CLASSES], [0, -1, 0], [10**9, 0, 0], [0, 1], [0, 1, 2, 3]])
def test_a_class_that_there_is_not_is_refused_with_a_sentence(served, images, wrong):
    _, signatures = served
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="`class_index` must hold a class from 0 to 4 for"
    ):
        signatures["gradcam_class"](images=tf.constant(images), class_index=tf.constant(wrong))


def test_the_best_classes_have_a_heatmap_each(served, images):
    model, signatures = served
    expected = GradCAM(model)(images, targets.TopClasses(2))
    answer = signatures["gradcam_top_k"](images=tf.constant(images))
    np.testing.assert_allclose(answer["heatmap"], expected.heatmap, atol=1e-5)
    np.testing.assert_array_equal(answer["class"], expected.target)
    names = [[LABELS[index] for index in row] for row in expected.target.numpy()]
    assert [[label.decode() for label in row] for row in answer["label"].numpy()] == names


def test_every_signature_answers_no_images_with_nothing(served):
    _, signatures = served
    none = tf.zeros((0, SIDE, SIDE, 3))
    (name,) = signatures["serving_default"].structured_input_signature[1]
    given = {
        "serve": {name: none},
        "serving_default": {name: none},
        "gradcam": {"images": none},
        "gradcam_class": {"images": none, "class_index": tf.zeros(0, tf.int32)},
        "gradcam_top_k": {"images": none},
        "gradcam_bytes": {"image_bytes": tf.zeros(0, tf.string)},
    }
    assert given.keys() == signatures.keys()
    for name, signature in signatures.items():
        for answer in signature(**given[name]).values():
            assert answer.shape[0] == 0


def test_every_answer_has_the_axis_of_the_batch(served, images):
    _, signatures = served
    for count in (1, 2, 3):
        for answer in signatures["gradcam_top_k"](images=tf.constant(images[:count])).values():
            assert answer.shape[0] == count


# Encoded photographs


@pytest.mark.parametrize("kind", ["jpg", "png", "bmp", "webp", "gif"])
def test_encoded_photographs_are_explained_as_they_are_read(served, kind):
    if kind == "webp" and not hasattr(tf.io, "decode_webp"):
        pytest.skip("this TensorFlow is too old to read WebP")
    model, signatures = served
    photographs = [cv2.resize(noise(5, 6, 3), (60, 40)), cv2.resize(noise(5, 6, 3, seed=1), (9, 31))]
    files = [encoded(each, kind) for each in photographs]
    expected = GradCAM(model)(np.stack([load_image(file, size=(SIDE, SIDE)) for file in files]))
    answer = signatures["gradcam_bytes"](image_bytes=tf.constant(files))
    # A JPEG is decoded to pixels that differ by a little; each is rounded to one of 256 levels.
    atol = 0.1 if kind == "jpg" else 0.02
    for heatmap, data in zip(expected.heatmap.numpy(), answer["heatmap_png_bytes"], strict=True):
        grey = cv2.imdecode(np.frombuffer(data.numpy(), np.uint8), cv2.IMREAD_UNCHANGED)
        assert grey.shape == (SIDE, SIDE)
        assert grey.max() == 255
        np.testing.assert_allclose(grey / 255, heatmap, atol=atol)
    np.testing.assert_array_equal(answer["class"], expected.target)
    assert [decoded(data).shape for data in answer["overlay_png_bytes"]] == [(40, 60, 3), (31, 9, 3)]


def test_an_overlay_is_that_of_the_library(served):
    _, signatures = served
    photograph = noise(40, 60, 3)
    answer = signatures["gradcam_bytes"](image_bytes=tf.constant([encoded(photograph)]))
    heatmap = decoded(answer["heatmap_png_bytes"][0])[..., 0] / 255
    difference = decoded(answer["overlay_png_bytes"][0]).astype(int) - tf_gradcam.overlay(photograph, heatmap)
    # The heatmap that is sent has 256 levels: a colour may be one or two of them further.
    assert np.abs(difference).max() <= 6


def test_the_overlay_of_a_large_photograph_is_smaller_and_keeps_its_proportions(served):
    _, signatures = served
    answer = signatures["gradcam_bytes"](
        image_bytes=tf.constant([encoded(np.zeros((2000, 500, 3), np.uint8))])
    )
    assert decoded(answer["overlay_png_bytes"][0]).shape == (1024, 256, 3)


def announced(width, height):
    """A PNG file of few bytes that announces so many pixels."""
    data = io.BytesIO()
    PIL.Image.new("L", (1, 1)).save(data, "PNG")
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return data.getvalue()[:16] + header + data.getvalue()[24:]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "`image_bytes` must be JPEG, PNG, GIF, WebP or BMP files"),
        (b"<html>", "`image_bytes` must be JPEG, PNG, GIF, WebP or BMP files"),
        (announced(60_000, 60_000), "100,000,000 pixels.*\\[60000\\] \\[60000\\]"),
        (announced(0, 10), "`image_bytes` must be"),
        (encoded(noise(40, 60, 3), "jpg")[:500], "Invalid JPEG data"),
        (encoded(noise(40, 60, 3), "png")[:500], "Invalid PNG data"),
        (encoded(noise(40, 60, 3), "jpg")[:10], "Invalid JPEG data"),
    ],
    ids=["nothing", "no image", "huge", "no width", "half a JPEG", "half a PNG", "start of a JPEG"],
)
def test_what_is_no_photograph_is_refused_with_a_sentence(served, data, told):
    _, signatures = served
    whole = encoded(noise(4, 4, 3))
    with pytest.raises(tf.errors.InvalidArgumentError, match=told):
        signatures["gradcam_bytes"](image_bytes=tf.constant([whole, data]))
    assert signatures["gradcam_bytes"](image_bytes=tf.constant([whole]))["class"].shape == 1  # and goes on


@pytest.mark.full
@pytest.mark.parametrize("shape", [(SIDE, SIDE, 1), (SIDE, 12, 3), (SIDE, 12, 1)])
def test_grey_and_oblong_photographs_are_squashed_to_what_the_model_takes(shape, tmp_path):
    model = keras.Sequential([keras.Input(shape), *parts()])
    version = export_gradcam(model, tmp_path)
    answer = endpoints(version)["gradcam_bytes"](image_bytes=tf.constant([encoded(noise(40, 60, 3))]))
    assert decoded(answer["heatmap_png_bytes"][0]).shape == (*shape[:2], 3)


def test_photographs_whose_channels_come_first_are_turned(tmp_path):
    images = keras.Input((3, SIDE, SIDE))
    model = keras.Model(images, chain(images, [keras.layers.Permute((2, 3, 1)), *parts()]))
    version = export_gradcam(model, tmp_path)
    photograph = cv2.resize(noise(5, 6, 3), (60, 40))
    fitted = load_image(photograph, size=(SIDE, SIDE)).transpose(2, 0, 1)[None]
    expected = GradCAM(model)(fitted)
    answer = endpoints(version)["gradcam_bytes"](image_bytes=tf.constant([encoded(photograph)]))
    np.testing.assert_allclose(answer["scores"], expected.outputs, atol=0.02)


@pytest.mark.parametrize(
    "shape", [(None, None, 3), (SIDE, 3), pytest.param((SIDE, SIDE, 13), marks=pytest.mark.full)]
)
def test_what_is_no_photograph_of_known_size_has_no_signature_for_bytes(shape, tmp_path):
    # A signal is pooled by another layer.
    convolution = keras.layers.Conv1D if len(shape) == 2 else keras.layers.Conv2D
    pooling = keras.layers.GlobalAveragePooling1D if len(shape) == 2 else keras.layers.GlobalAveragePooling2D
    body = [convolution(4, 3), pooling(), keras.layers.Dense(3, activation="softmax")]
    version = export_gradcam(keras.Sequential([keras.Input(shape), *body]), tmp_path)
    assert set(endpoints(version)) == {"serve", "serving_default", "gradcam", "gradcam_class"}


# What can be asked for


@pytest.mark.parametrize(
    "method",
    [
        "guided_backprop",  # with gradients of its own
        pytest.param("scorecam", marks=pytest.mark.full),  # with a loop, as in the test of the manifest
        pytest.param("finercam", marks=pytest.mark.full),
        pytest.param("smoothgrad", marks=pytest.mark.full),
        pytest.param("fullgrad", marks=pytest.mark.full),
    ],
)
def test_every_kind_of_method_can_be_exported(deep_images, method, tmp_path):
    model = many_channels()
    version = export_gradcam(model, tmp_path, method=method)
    answer = endpoints(version)["gradcam"](images=tf.constant(deep_images))
    expected = GradCAM(model, method=method)(deep_images).heatmap
    np.testing.assert_allclose(answer["heatmap"], expected, atol=1e-5)


def test_a_method_that_calls_python_is_not_exported(functional, tmp_path):
    with pytest.raises(ValueError, match="`method` must not report its progress"):
        export_gradcam(functional, tmp_path, method=methods.scorecam(progress=print))
    with pytest.raises(ValueError, match="`method` must not report its progress"):
        export_gradcam(functional, tmp_path, method=methods.smooth(methods.scorecam(progress=print)))


def test_a_method_without_a_class_is_not_asked_for_one(functional, images, tmp_path):
    signatures = endpoints(export_gradcam(functional, tmp_path, method="eigencam"))
    assert set(signatures) == {"serve", "serving_default", "gradcam", "gradcam_bytes"}
    with pytest.raises(ValueError, match="`top_k` needs classes to choose from"):
        export_gradcam(functional, tmp_path, method="eigencam", top_k=2)


def test_layer_size_and_interpolation_are_exported(deep_images, tmp_path):
    model, options = many_channels(), {"size": (5, 6), "interpolation": "nearest"}
    version = export_gradcam(model, tmp_path, layer="inner/conv1", **options)
    answer = endpoints(version)["gradcam"](images=tf.constant(deep_images))["heatmap"]
    expected = GradCAM(model, "inner/conv1")(deep_images, **options).heatmap
    np.testing.assert_allclose(answer, expected, atol=1e-5)
    assert answer.shape == (3, 5, 6)


@pytest.mark.full
def test_every_argument_changes_the_export(functional, images, tmp_path):
    def heatmap(name, raw=None, **options):
        version = export_gradcam(functional, tmp_path / name, **{"layer": "conv2", **options})
        given = tf.constant(images if raw is None else raw)
        return endpoints(version)["gradcam"](images=given)["heatmap"].numpy()

    raw = (images * 30 + 128).clip(0, 255).astype("uint8")
    plain = heatmap("plain")
    assert heatmap("size", size=(5, 6)).shape == (3, 5, 6)
    assert heatmap("grid", size=None).shape == (3, 8, 8)
    for other in [
        heatmap("layer", layer="conv1"),
        heatmap("method", method="hirescam"),
        heatmap("target", target=targets.Contrast()),
        heatmap("interpolation", interpolation="nearest"),
        heatmap("preprocess", preprocess=lambda x: tf.cast(x, tf.float32) / 9 - 3, raw=raw),
    ]:
        assert not np.allclose(plain, other, atol=1e-3)


def test_a_frozen_export_answers_the_same_from_more_bytes(plain, frozen, images):
    _, version = plain
    answers = [endpoints(each)["gradcam"](images=tf.constant(images)) for each in (version, frozen)]
    assert answers[0].keys() == answers[1].keys()
    for name, expected in answers[0].items():
        np.testing.assert_allclose(answers[1][name], expected, atol=1e-5)
    assert (frozen / "saved_model.pb").stat().st_size > (version / "saved_model.pb").stat().st_size


def test_a_frozen_lstm_is_exported(tmp_path):
    keras.utils.set_random_seed(0)
    frames = keras.Input((3, 9, 9, 3))
    x = keras.layers.TimeDistributed(keras.layers.Conv2D(3, 3, strides=2), name="frames")(frames)
    x = keras.layers.LSTM(4)(keras.layers.TimeDistributed(keras.layers.GlobalAveragePooling2D())(x))
    model, clips = keras.Model(frames, keras.layers.Dense(3)(x)), np.ones((2, 3, 9, 9, 3), "float32")
    signatures = endpoints(export_gradcam(model, tmp_path, layer="frames", frozen=True))
    answer = signatures["gradcam"](images=tf.constant(clips))
    np.testing.assert_allclose(answer["heatmap"], GradCAM(model, "frames")(clips).heatmap, atol=1e-5)


def test_a_full_disk_is_named_with_the_path(plain, tmp_path, monkeypatch):
    def fail(self, path, **options):
        raise tf.errors.ResourceExhaustedError(None, None, f"{path}/variables; No space left on device")

    monkeypatch.setattr(type(keras.export.ExportArchive()), "write_out", fail)
    with pytest.raises(OSError, match="`path` must be on a disk that can be written") as caught:
        export_gradcam(plain[0], tmp_path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("freeze", [pytest.param(False, marks=pytest.mark.full), True])
def test_an_explainer_is_exported_with_all_that_it_has(deep_images, freeze, tmp_path):
    cam = GradCAM(many_channels(), ["inner/conv1", "inner/conv2"], method="hirescam", fuse="max")
    version = export_gradcam(cam.freeze() if freeze else cam, tmp_path)
    answer = endpoints(version)["gradcam"](images=tf.constant(deep_images))
    np.testing.assert_allclose(answer["heatmap"], cam(deep_images).heatmap, atol=1e-5)


@pytest.mark.parametrize(
    "more",
    [{"layer": "conv1"}, {"method": "hirescam"}, {"method": "gradcam"}, {"preprocess": tf.identity}],
)
def test_what_an_explainer_brings_along_is_not_given_twice(functional, more, tmp_path):
    with pytest.raises(ValueError, match="must be left out where `model` is a GradCAM"):
        export_gradcam(GradCAM(functional), tmp_path, **more)


def test_a_target_is_explained_instead_of_the_class(functional, images, tmp_path):
    version = export_gradcam(functional, tmp_path, target=targets.Value(1))
    signatures = endpoints(version)
    assert set(signatures) == {"serve", "serving_default", "gradcam", "gradcam_bytes"}
    answer = signatures["gradcam"](images=tf.constant(images))
    assert sorted(answer) == ["heatmap", "map", "score", "scores"]
    expected = GradCAM(functional)(images, targets.Value(1)).heatmap
    np.testing.assert_allclose(answer["heatmap"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (CLASSES, "`target` must be a class from 0 to 4. Received: target=5"),
        ([1, 2], "`target` must hold one class for each of the 1 images. Received: 2"),
        ([1], "`target` must hold one class for each of the 2 images. Received: 1"),
        ("cat", "`target` must be None, a class"),
    ],
    ids=str,
)
def test_a_target_that_could_not_be_answered_is_refused(functional, target, told, tmp_path):
    with pytest.raises((TypeError, ValueError), match=told):
        export_gradcam(functional, tmp_path, target=target)
    assert list(tmp_path.iterdir()) == []


def calls_python(images):
    return tf.ensure_shape(tf.numpy_function(np.sqrt, [images], tf.float32), images.shape)


@pytest.mark.filterwarnings("ignore:The heatmap may be misplaced")  # Python may crop.
@pytest.mark.parametrize("preprocess", [calls_python, np.sqrt])
def test_what_calls_python_is_not_exported(functional, preprocess, tmp_path):
    with pytest.raises(
        ValueError, match="`preprocess`, `target` and `method` must be TensorFlow's operations"
    ):
        export_gradcam(functional, tmp_path, preprocess=preprocess)


def test_raw_photographs_of_any_size_go_in_with_preprocess(preprocessed):
    _, signatures = preprocessed
    assert signatures["gradcam"](images=tf.constant(noise(2, 30, 40, 3)))["heatmap"].shape == (2, 30, 40)
    # Existing clients know nothing of it.
    (given,) = signatures["serving_default"].structured_input_signature[1].values()
    assert given == tf.TensorSpec((None, SIDE, SIDE, 3), tf.float32, given.name)


def test_preprocess_is_given_the_pixels_of_encoded_photographs(preprocessed):
    model, signatures = preprocessed
    photograph = noise(SIDE, SIDE, 3)
    answer = signatures["gradcam_bytes"](image_bytes=tf.constant([encoded(photograph)]))
    expected = model(photograph[None] / np.float32(100) - 1)
    np.testing.assert_allclose(answer["scores"], expected, atol=1e-5)


def test_a_unit_without_sigmoid_has_no_class(minimal, tmp_path):
    signatures = endpoints(export_gradcam(minimal, tmp_path))
    assert sorted(signatures["gradcam"].structured_outputs) == ["heatmap", "map", "score", "scores"]
    assert "gradcam_class" not in signatures


def test_a_unit_that_says_yes_or_no_has_two_classes(deep_images, tmp_path):
    body = [*parts()[:-1], keras.layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential([keras.Input((SIDE, SIDE, 4)), *body])
    signatures = endpoints(export_gradcam(model, tmp_path, labels=["good", "bad"]))
    answer = signatures["gradcam_class"](images=tf.constant(deep_images), class_index=tf.constant([0, 1, 1]))
    assert answer["label"].numpy().tolist() == [b"good", b"bad", b"bad"]
    expected = GradCAM(model)(deep_images, [0, 1, 1]).heatmap
    np.testing.assert_allclose(answer["heatmap"], expected, atol=1e-5)


@pytest.mark.parametrize("labels", [["ant"], [*LABELS, "fly"]])
def test_labels_that_are_not_one_for_each_class_are_refused(functional, labels, tmp_path):
    with pytest.raises(ValueError, match="`labels` must have a name for each class. Received: [16] for"):
        export_gradcam(functional, tmp_path, labels=labels)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("labels", ["abcde", [1, 2, 3, 4, 5], set(LABELS), 3, iter(LABELS)])
def test_labels_that_are_no_names_are_refused(functional, labels, tmp_path):
    with pytest.raises(TypeError, match="`labels` must be a list of str"):
        export_gradcam(functional, tmp_path, labels=labels)


def test_best_classes_are_not_asked_of_a_unit_or_a_map(tmp_path):
    images = keras.Input((SIDE, SIDE, 3))
    features = keras.layers.Conv2D(4, 3)(images)
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    for scores in (keras.layers.Dense(1, "sigmoid")(pooled), keras.layers.Conv2D(3, 1)(features)):
        with pytest.raises(ValueError, match="`top_k` needs classes to choose from"):
            export_gradcam(keras.Model(images, scores), tmp_path, top_k=2)


@pytest.mark.parametrize("top_k", [0, CLASSES + 1, 1.5, True, "2"])
def test_a_number_of_best_classes_that_makes_no_sense_is_refused(functional, top_k, tmp_path):
    with pytest.raises(ValueError, match="`top_k` must be a whole number from 1 to 5. Received: top_k="):
        export_gradcam(functional, tmp_path, top_k=top_k)


def test_a_model_that_was_never_called_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`model` must be built"):
        export_gradcam(keras.Sequential(parts()), tmp_path)


def test_a_model_of_several_outputs_is_refused(tmp_path):
    images = keras.Input((SIDE, SIDE, 3))
    scores = chain(images, parts())
    model = keras.Model(images, [scores, scores * 2])
    with pytest.raises(ValueError, match="`model` must have one output to be served"):
        export_gradcam(model, tmp_path, target=targets.Output(0))


def test_the_model_can_be_explained_after_its_export(plain, images):
    model, _ = plain  # whose map before and after the export is the same
    np.testing.assert_array_equal(GradCAM(model)(images).map, GradCAM(build("functional"))(images).map)


@pytest.mark.parametrize("path", ["", "gs://bucket/cat", "cat.onnx", __file__])
def test_a_path_that_is_no_folder_here_is_refused(functional, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="`path` must be a folder"):
        export_gradcam(functional, path)
    assert list(tmp_path.iterdir()) == []


def test_a_format_that_there_is_not_is_refused(functional, tmp_path):
    with pytest.raises(
        ValueError, match="`format` must be one of .'tensorflow', 'litert', 'onnx', 'openvino'."
    ):
        export_gradcam(functional, tmp_path, format="tflite")


@pytest.mark.parametrize("more", [{"frozen": True}, {"top_k": 2}], ids=str)
def test_what_only_a_savedmodel_has_is_refused_for_a_file(functional, more, tmp_path):
    with pytest.raises(ValueError, match="is for format='tensorflow' alone"):
        export_gradcam(functional, tmp_path / "cat.onnx", format="onnx", **more)


def test_frozen_weights_that_no_file_holds_are_refused(functional, frozen, tmp_path, monkeypatch):
    signatures = 4  # with VGG16 it would be as many times 0.5 GB
    monkeypatch.setattr("tf_gradcam._export.export.MOST_BYTES", signatures * 4 * functional.count_params())
    with pytest.raises(ValueError, match="`frozen` needs less than 2 GiB for 4 signatures"):
        export_gradcam(functional, tmp_path, frozen=True, top_k=2)
    assert frozen.is_dir()  # where three signatures were enough


# The folder


def checksum(version):
    return json.loads((version / "assets.extra" / "gradcam.json").read_text("utf-8"))["weights_sha256"]


def test_each_export_is_the_next_version(minimal, tmp_path):
    folder = tmp_path / "deep" / "cat"
    (folder / "7").mkdir(parents=True)
    (folder / "notes").mkdir()
    assert export_gradcam(minimal, folder) == folder / "8"
    minimal.layers[-1].bias.assign_add(tf.ones(1))
    assert export_gradcam(minimal, folder) == folder / "9"
    assert checksum(folder / "8") != checksum(folder / "9")  # as the weights are others
    assert sorted(each.name for each in folder.iterdir()) == ["7", "8", "9", "notes"]


def test_an_export_that_fails_leaves_nothing_behind(minimal, tmp_path, monkeypatch):
    def fail(path, *_):
        assert any(tmp_path.glob(".unfinished-*/saved_model.pb"))  # It was about to be done.
        raise OSError("the disk is full")

    monkeypatch.setattr("tf_gradcam._export.savedmodel._write_manifest", fail)
    with pytest.raises(OSError, match="the disk is full"):
        export_gradcam(minimal, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_tells_what_was_exported(tmp_path):
    def halved(images):
        return images / 2

    model = many_channels()
    options = {"labels": LABELS, "top_k": np.int64(3), "preprocess": halved, "size": np.array([4, 5])}
    version = export_gradcam(model, tmp_path, **options)
    manifest = json.loads((version / "assets.extra" / "gradcam.json").read_text("utf-8"))
    assert manifest["layer"] == ["inner/relu2"]
    assert manifest["method"] == "tf_gradcam.methods.gradcam"
    assert manifest["preprocess"].endswith(
        "test_savedmodel.test_the_manifest_tells_what_was_exported.<locals>.halved"
    )
    assert manifest["labels"] == LABELS
    assert (manifest["top_k"], manifest["size"], manifest["frozen"]) == (3, [4, 5], False)
    assert set(manifest["signatures"]) == set(endpoints(version))
    assert manifest["versions"]["tensorflow"] == tf.__version__
    cam = GradCAM(model, method=methods.scorecam(channels=2))
    same = export_gradcam(cam.freeze(), tmp_path, target=targets.Contrast(1))
    manifest = json.loads((same / "assets.extra" / "gradcam.json").read_text("utf-8"))
    assert manifest["frozen"]
    assert "channels=2" in manifest["method"]
    assert manifest["target"].startswith("Contrast(index=1")
    assert checksum(version) == checksum(same)


# Without this library


@pytest.mark.full  # as the server of test_protocol
def test_it_loads_where_this_library_is_not(plain, images, tmp_path):
    model, version = plain
    np.save(tmp_path / "images.npy", images)
    code = """
import sys
sys.modules["tf_gradcam"] = sys.modules["keras"] = None
import numpy, tensorflow
gradcam = tensorflow.saved_model.load(sys.argv[1]).signatures["gradcam"]
numpy.save("heatmap.npy", gradcam(images=tensorflow.constant(numpy.load("images.npy")))["heatmap"])
"""
    subprocess.run([sys.executable, "-c", code, str(version)], cwd=tmp_path, check=True)
    expected = GradCAM(model)(images).heatmap
    np.testing.assert_allclose(np.load(tmp_path / "heatmap.npy"), expected, atol=1e-5)


# Several inputs


def two_inputs(arrange):
    image, table = keras.Input((SIDE, SIDE, 3), name="image"), keras.Input((4,), name="table")
    pooled = chain(image, parts()[:4])
    scores = keras.layers.Dense(3, activation="softmax")(keras.layers.Concatenate()([pooled, table]))
    return keras.Model(arrange(image, table), scores)


@pytest.mark.parametrize(
    "arrange",
    [
        pytest.param(lambda image, table: [image, table], id="list", marks=pytest.mark.full),
        pytest.param(lambda image, table: {"image": image, "table": table}, id="dict"),
    ],
)
def test_a_model_of_several_inputs_takes_them_by_name(arrange, images, tmp_path):
    model, table = two_inputs(arrange), np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    signatures = endpoints(export_gradcam(model, tmp_path))
    given = {"image": tf.constant(images), "table": tf.constant(table)}
    expected = GradCAM(model)(arrange(images, table))
    answer = signatures["gradcam"](**given)
    np.testing.assert_allclose(answer["heatmap"], expected.heatmap, atol=1e-5)
    np.testing.assert_array_equal(answer["class"], expected.target)
    (scores,) = signatures["serving_default"](**given).values()
    np.testing.assert_allclose(scores, expected.outputs, atol=1e-6)
    asked = signatures["gradcam_class"](**given, class_index=tf.constant([0, 1, 2]))
    expected = GradCAM(model)(arrange(images, table), [0, 1, 2])
    np.testing.assert_allclose(asked["heatmap"], expected.heatmap, atol=1e-5)
    assert "gradcam_bytes" not in signatures

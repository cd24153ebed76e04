"""The exported model in C++, loaded as TensorFlow Serving loads it, and on TensorFlow's command line.

TensorFlow 1's loader does the same in Python: it imports the graph and runs the restore operation. It runs
every signature too, also where there is no compiler.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import CLASSES, SIDE, build, preprocess
from server import loader

from tf_gradcam import GradCAM, boxes, export_gradcam

SIGNATURES = ["serving_default", "gradcam", "gradcam_class", "gradcam_top_k", "gradcam_bytes"]

in_cpp = pytest.mark.slow  # The program is compiled first.


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    if reason := loader.why_not():
        pytest.skip(reason)
    return loader.build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def run(program, served, tmp_path_factory):
    with loader.load(program, served / "1", tmp_path_factory.mktemp("answers")) as run:
        yield run


@pytest.fixture(scope="module")
def in_python(served):
    return tf.saved_model.load(str(served / "1")).signatures


@pytest.fixture
def module_with_model(images, tmp_path):
    """What export_gradcam must never write: Python loads it, nobody else does."""
    module = tf.Module()
    module.model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), keras.layers.Conv2D(2, 3)])
    spec = tf.TensorSpec([None, SIDE, SIDE, 3], name="images")
    module.call = tf.function(lambda images: {"scores": module.model(images)}, input_signature=[spec])
    folder = tmp_path / "1"
    tf.saved_model.save(module, str(folder), signatures={"gradcam": module.call})
    tf.saved_model.load(str(folder)).signatures["gradcam"](images=tf.constant(images))
    return folder


@pytest.fixture
def inputs(in_python, photographs):
    """Return a function of a signature's name to what it takes."""

    def inputs(signature, count=3):
        if signature == "serving_default":
            (name,) = in_python[signature].structured_input_signature[1]
            return {name: preprocess(photographs[:count]).numpy()}
        if signature == "gradcam_bytes":
            return {"image_bytes": np.array([png(each) for each in photographs[:count]], bytes)}
        given = {"images": photographs[:count]}
        if signature == "gradcam_class":
            given["class_index"] = np.arange(count, dtype="int32") + 1
        return given

    return inputs


def png(pixels) -> bytes:
    return cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()


def agree(answer, expected):
    assert set(answer) == set(expected)
    for name, value in expected.items():
        value = value.numpy()
        assert (answer[name].dtype, answer[name].shape) == (value.dtype, value.shape)
        if value.dtype.kind == "f":
            np.testing.assert_allclose(answer[name], value, atol=1e-5)
        else:
            np.testing.assert_array_equal(answer[name], value)


@contextlib.contextmanager
def restored(folder):
    """Load a SavedModel by its graph and restore operation, and return the function of its signatures."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))

        def run(signature, **inputs):
            signature = loaded.signature_def[signature]
            feeds = {signature.inputs[name].name: value for name, value in inputs.items()}
            return session.run({name: each.name for name, each in signature.outputs.items()}, feeds)

        yield run


def test_the_restored_graph_answers_what_python_answers(served, in_python, inputs):
    full, empty, expected = {}, {}, {}
    for signature in SIGNATURES:
        full[signature], empty[signature] = inputs(signature), inputs(signature, count=0)
        given = {name: tf.constant(value) for name, value in full[signature].items()}
        expected[signature] = in_python[signature](**given)
    with restored(served / "1") as run:
        for signature in SIGNATURES:
            agree(run(signature, **full[signature]), expected[signature])
            for name, value in run(signature, **empty[signature]).items():
                assert value.shape == (0, *expected[signature][name].shape[1:])


def test_a_module_that_holds_a_keras_model_can_not_be_restored(module_with_model):
    with (
        restored(module_with_model) as run,
        pytest.raises(tf.errors.FailedPreconditionError, match="Could not find variable"),
    ):
        run("gradcam", images=np.zeros((1, SIDE, SIDE, 3), "float32"))


@in_cpp
@pytest.mark.parametrize("signature", SIGNATURES)
def test_cpp_answers_what_python_answers(run, in_python, inputs, signature):
    given = inputs(signature)
    expected = in_python[signature](**{name: tf.constant(value) for name, value in given.items()})
    agree(run(signature, **given), expected)


@in_cpp
def test_cpp_answers_what_the_explainer_answers(run, photographs):
    cam = GradCAM(build("functional"), preprocess=preprocess)
    expected = cam(photographs)
    answer = run("gradcam", images=photographs)
    np.testing.assert_allclose(answer["scores"], expected.outputs, atol=1e-5)
    np.testing.assert_allclose(answer["heatmap"], expected.heatmap, atol=1e-5)
    np.testing.assert_array_equal(answer["class"], expected.target)
    assert answer["label"].tolist() == [f"class {index}".encode() for index in expected.target]
    asked = np.array([4, 0, 2], "int32")
    answer = run("gradcam_class", images=photographs, class_index=asked)
    np.testing.assert_allclose(answer["heatmap"], cam(photographs, asked).heatmap, atol=1e-5)
    np.testing.assert_array_equal(answer["class"], asked)


@in_cpp
@pytest.mark.parametrize("signature", SIGNATURES)
def test_cpp_answers_no_images_with_nothing(run, inputs, signature):
    full, empty = run(signature, **inputs(signature)), run(signature, **inputs(signature, count=0))
    assert {name: each.shape for name, each in empty.items()} == {
        name: (0, *each.shape[1:]) for name, each in full.items()
    }


def refused(run, signature, **inputs) -> str:
    with pytest.raises(loader.Refused) as error:
        run(signature, **inputs)
    assert str(error.value).startswith("INVALID_ARGUMENT: ")
    return str(error.value)


@in_cpp
def test_cpp_refuses_what_is_wrong_with_a_sentence_and_goes_on(run, photographs):
    good = run("gradcam", images=photographs)
    one = photographs[:1]
    for index in (CLASSES, -1, 10**9):
        told = refused(run, "gradcam_class", images=one, class_index=np.array([index], "int32"))
        assert "`class_index` must" in told
        assert str(index) in told
    huge = bytearray(png(one[0]))
    huge[16:24] = (60_000).to_bytes(4, "big") * 2
    for broken in (b"", b"no image at all", png(one[0])[:60], bytes(huge)):
        assert "image" in refused(run, "gradcam_bytes", image_bytes=np.array([broken], object))
    assert "uint8 but double" in refused(run, "gradcam", images=one.astype("float64"))
    assert "uint8 but string" in refused(run, "gradcam", images=np.array([b"cat"]))
    refused(run, "gradcam", images=one[0])
    refused(run, "gradcam")
    assert run("gradcam", images=photographs)["heatmap"].tolist() == good["heatmap"].tolist()


@in_cpp
def test_cpp_runs_the_frozen_graph(program, photographs, tmp_path):
    model = build("nested")
    export_gradcam(model, tmp_path / "tiny", preprocess=preprocess, frozen=True, boxes=0.5)
    with loader.load(program, tmp_path / "tiny" / "1", tmp_path) as run:
        answer = run("gradcam", images=photographs)
    expected = GradCAM(model, preprocess=preprocess)(photographs)
    np.testing.assert_allclose(answer["heatmap"], expected.heatmap, atol=1e-5)
    found = [found for (found,) in boxes(answer["heatmap"], 0.5, most=1)]
    assert answer["box"].tolist() == [list(each.box) for each in found]
    np.testing.assert_allclose(answer["box_score"], [each.score for each in found], atol=1e-6)


@in_cpp
def test_cpp_notices_a_module_that_holds_a_keras_model(program, module_with_model, images, tmp_path):
    with (
        loader.load(program, module_with_model, tmp_path) as run,
        pytest.raises(loader.Refused, match="Could not find variable"),
    ):
        run("gradcam", images=images)


@pytest.mark.full
@pytest.mark.parametrize("signature", SIGNATURES)
def test_saved_model_cli_runs_every_signature(served, in_python, inputs, signature, tmp_path):
    given = inputs(signature)
    for name, value in given.items():
        np.save(tmp_path / f"{name}.input.npy", value)
    files = ";".join(f"{name}={name}.input.npy" for name in given)
    command = [shutil.which("saved_model_cli", path=sysconfig.get_path("scripts")), "run"]
    command += ["--dir", served / "1", "--tag_set", "serve", "--signature_def", signature]
    command += ["--inputs", files, "--outdir", "."]
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    subprocess.run([sys.executable, *command], cwd=tmp_path, check=True, env=quiet)
    expected = in_python[signature](**{name: tf.constant(value) for name, value in given.items()})
    answer = {name: np.load(tmp_path / f"{name}.npy", allow_pickle=True) for name in expected}
    agree(answer, expected)

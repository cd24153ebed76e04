"""The exported model: the same answers, without this library, from Python and from the command line."""

import os
import shutil
import subprocess
import sys
import sysconfig

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIDE, build, chain, parts

from tf_gradcam import GradCAM, export_gradcam, methods


def endpoints(path):
    return tf.saved_model.load(str(path)).signatures


def test_the_exported_model_answers_what_the_explainer_answers(model, images, tmp_path):
    export_gradcam(model, tmp_path)
    expected = GradCAM(model)(images)
    answer = endpoints(tmp_path)["gradcam"](images=tf.constant(images))
    np.testing.assert_allclose(answer["scores"], expected.outputs, atol=1e-6)
    np.testing.assert_allclose(answer["heatmap"], expected.heatmap, atol=1e-5)
    np.testing.assert_array_equal(answer["class"], expected.target)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["finercam", "scorecam", "smoothgrad", "guided_backprop", "fullgrad"])
def test_every_kind_of_method_can_be_exported(functional, images, method, tmp_path):
    export_gradcam(functional, tmp_path, method=method)
    answer = endpoints(tmp_path)["gradcam"](images=tf.constant(images))
    np.testing.assert_allclose(
        answer["heatmap"], GradCAM(functional, method=method)(images).heatmap, atol=1e-5
    )


def test_a_method_that_calls_python_is_not_exported(functional, tmp_path):
    with pytest.raises(ValueError, match="`method` must not report its progress"):
        export_gradcam(functional, tmp_path, method=methods.scorecam(progress=print))
    with pytest.raises(ValueError, match="`method` must not report its progress"):
        export_gradcam(functional, tmp_path, method=methods.smooth(methods.scorecam(progress=print)))


def test_existing_clients_get_what_the_model_answers(model, images, tmp_path):
    export_gradcam(model, tmp_path)
    (answer,) = endpoints(tmp_path)["serving_default"](images=tf.constant(images)).values()
    np.testing.assert_allclose(answer, model(images), atol=1e-6)


def test_the_batch_is_open(functional, images, tmp_path):
    export_gradcam(functional, tmp_path)
    gradcam = endpoints(tmp_path)["gradcam"]
    for count in (1, 2, 3):
        assert gradcam(images=tf.constant(images[:count]))["heatmap"].shape == (count, SIDE, SIDE)


@pytest.mark.slow
def test_every_argument_changes_the_export(functional, images, tmp_path):
    def heatmap(name, *args, raw=None, **options):
        export_gradcam(functional, tmp_path / name, *args, **options)
        given = tf.constant(images if raw is None else raw)
        return endpoints(tmp_path / name)["gradcam"](images=given)["heatmap"].numpy()

    raw = (images * 30 + 128).clip(0, 255).astype("uint8")
    plain = heatmap("plain", "conv2")
    assert heatmap("size", "conv2", size=(5, 6)).shape == (3, 5, 6)
    assert heatmap("grid", "conv2", size=None).shape == (3, 8, 8)
    for other in [
        heatmap("layer", "conv1"),
        heatmap("method", "conv2", method="hirescam"),
        heatmap("interpolation", "conv2", interpolation="nearest"),
        heatmap("preprocess", "conv2", preprocess=lambda x: tf.cast(x, tf.float32) / 9 - 3, raw=raw),
    ]:
        assert not np.allclose(plain, other, atol=1e-3)


def test_raw_photographs_of_any_size_go_in_with_preprocess(functional, tmp_path):
    export_gradcam(functional, tmp_path, preprocess=lambda x: tf.image.resize(x, (SIDE, SIDE)))
    raw = np.random.default_rng(0).integers(0, 255, (2, 30, 40, 3), dtype="uint8")
    assert endpoints(tmp_path)["gradcam"](images=tf.constant(raw))["heatmap"].shape == (2, 30, 40)


def test_a_unit_without_sigmoid_has_no_class(images, tmp_path):
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *parts()[:-1], keras.layers.Dense(1)])
    export_gradcam(model, tmp_path)
    assert sorted(endpoints(tmp_path)["gradcam"].structured_outputs) == ["heatmap", "scores"]


def test_a_model_that_was_never_called_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`model` must be built"):
        export_gradcam(keras.Sequential(parts()), tmp_path)


def test_the_model_can_be_explained_after_its_export(images, tmp_path):
    model = build("functional")
    before = GradCAM(model)(images).map
    export_gradcam(model, tmp_path)
    np.testing.assert_array_equal(GradCAM(model)(images).map, before)


@pytest.mark.slow
def test_it_loads_where_this_library_is_not(functional, images, tmp_path):
    export_gradcam(functional, tmp_path / "model")
    np.save(tmp_path / "images.npy", images)
    code = """
import sys
sys.modules["tf_gradcam"] = sys.modules["keras"] = None
import numpy, tensorflow
gradcam = tensorflow.saved_model.load("model").signatures["gradcam"]
numpy.save("heatmap.npy", gradcam(images=tensorflow.constant(numpy.load("images.npy")))["heatmap"])
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    expected = GradCAM(functional)(images).heatmap
    np.testing.assert_allclose(np.load(tmp_path / "heatmap.npy"), expected, atol=1e-5)


@pytest.mark.slow
def test_saved_model_cli_runs_both_endpoints(functional, images, tmp_path):
    """The command line loads as TensorFlow Serving does: by the signatures alone."""
    command = shutil.which("saved_model_cli", path=sysconfig.get_path("scripts"))
    export_gradcam(functional, tmp_path / "model")
    np.save(tmp_path / "images.npy", images)
    for signature in ("gradcam", "serving_default"):
        arguments = ["run", "--dir", "model", "--tag_set", "serve", "--signature_def", signature]
        arguments += ["--inputs", "images=images.npy", "--outdir", "."]
        quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
        subprocess.run([sys.executable, command, *arguments], cwd=tmp_path, check=True, env=quiet)
    expected = GradCAM(functional)(images)
    np.testing.assert_allclose(np.load(tmp_path / "heatmap.npy"), expected.heatmap, atol=1e-5)
    np.testing.assert_array_equal(np.load(tmp_path / "class.npy"), expected.target)
    np.testing.assert_allclose(np.load(tmp_path / "output_0.npy"), expected.outputs, atol=1e-6)


def two_inputs(arrange):
    image, table = keras.Input((SIDE, SIDE, 3), name="image"), keras.Input((4,), name="table")
    pooled = chain(image, parts()[:4])
    scores = keras.layers.Dense(3, activation="softmax")(keras.layers.Concatenate()([pooled, table]))
    return keras.Model(arrange(image, table), scores)


@pytest.mark.parametrize(
    "arrange",
    [lambda image, table: [image, table], lambda image, table: {"image": image, "table": table}],
    ids=["list", "dict"],
)
def test_a_model_of_several_inputs_takes_them_by_name(arrange, images, tmp_path):
    model, table = two_inputs(arrange), np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    export_gradcam(model, tmp_path)
    expected = GradCAM(model)(arrange(images, table))
    answer = endpoints(tmp_path)["gradcam"](image=tf.constant(images), table=tf.constant(table))
    np.testing.assert_allclose(answer["heatmap"], expected.heatmap, atol=1e-5)
    np.testing.assert_array_equal(answer["class"], expected.target)
    (scores,) = endpoints(tmp_path)["serving_default"](
        image=tf.constant(images), table=tf.constant(table)
    ).values()
    np.testing.assert_allclose(scores, expected.outputs, atol=1e-6)

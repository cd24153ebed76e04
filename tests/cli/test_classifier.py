"""Classifiers by name or file: with the right preprocessing and labels, and no code of a file's own."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from tf_gradcam import pretrained
from tf_gradcam._cli.classifier import EMBEDDED, load_classifier

KERAS = tuple(map(int, keras.version().split(".")[:2]))


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def built_once(monkeypatch, lite0):
    """The embedded model, built once for all tests."""
    monkeypatch.setattr(pretrained, "efficientnet_lite0", lambda: lite0)


def test_the_embedded_model_comes_with_its_preprocessing_and_labels():
    model, preprocess, labels = load_classifier(EMBEDDED)
    assert model.output_shape == (None, 1000)
    assert (preprocess, labels) == (pretrained.preprocess, pretrained.labels())


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_a_file_comes_with_neither(functional, images, ending, monkeypatch):
    monkeypatch.setattr("tf_gradcam._run.model_files.SAFE_KERAS", (3, 0))  # We made this file ourselves.
    functional.save(f"tiny.{ending}")
    model, preprocess, labels = load_classifier(f"tiny.{ending}")
    np.testing.assert_allclose(model(images), functional(images), atol=1e-6)
    assert preprocess(images) is images
    assert labels is None


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.skipif(
    KERAS < (3, 12), reason="this Keras runs such code, so no file is loaded: see the next test"
)
def test_code_in_a_model_file_does_not_run(ending):
    evil = keras.layers.Lambda(lambda images: (__import__("os").makedirs("ran", exist_ok=True), images)[1])
    keras.Sequential([keras.Input((8, 8, 3)), evil, keras.layers.Flatten()]).save(f"evil.{ending}")
    os.rmdir("ran")
    keras.models.load_model(f"evil.{ending}", safe_mode=False)
    os.rmdir("ran")  # So the file does hold code that runs.
    with pytest.raises(ValueError, match="`model` must be a Keras model with no code of its own.*Lambda"):
        load_classifier(f"evil.{ending}")
    assert not pathlib.Path("ran").exists()


def test_a_keras_with_known_holes_loads_no_file(functional, monkeypatch):
    functional.save("tiny.keras")
    monkeypatch.setattr(keras, "version", lambda: "3.11.2")
    with pytest.raises(ImportError, match="`model` needs Keras 3.12 or newer.*Received: Keras 3.11.2"):
        load_classifier("tiny.keras")


@pytest.mark.skipif(KERAS < (3, 12), reason="this Keras loads no file: see the test above")
def test_a_file_that_is_no_model_is_refused():
    pathlib.Path("text.keras").write_text("no model")
    with pytest.raises(ValueError, match="Received: text.keras, which Keras refuses"):
        load_classifier("text.keras")
    with pytest.raises(FileNotFoundError, match="Received: none.keras, which doesn't exist"):
        load_classifier("none.keras")


def test_every_application_has_its_preprocessing():
    names = [name for name, build in vars(keras.applications).items() if callable(build)]
    assert len(names) >= 30
    assert all(
        callable(sys.modules[getattr(keras.applications, name).__module__].preprocess_input) for name in names
    )


def test_an_application_comes_with_its_weights_its_preprocessing_and_the_labels(monkeypatch):
    def offline(weights):
        asked.append(weights)
        return build(weights=None, alpha=0.25, input_shape=(32, 32, 3))

    asked, build = [], keras.applications.MobileNet
    offline.__module__ = build.__module__
    monkeypatch.setattr(keras.applications, "MobileNet", offline)
    loaded = load_classifier("MobileNet")
    assert asked == ["imagenet"]
    assert loaded.preprocess(np.full((1, 2, 2, 3), 255.0)).max() == 1
    assert loaded.labels[281] == "tabby"


def test_weights_that_cannot_be_downloaded_are_said_in_one_line(monkeypatch):
    def broken(weights):
        raise Exception("URL fetch failure\non https://example.org")

    monkeypatch.setattr(keras.applications, "ResNet50", broken)
    with pytest.raises(ValueError, match="couldn't be downloaded: URL fetch failure on https://example.org"):
        load_classifier("ResNet50")


NEEDS_KERAS = """
import sys
sys.modules.update(tensorflow=None, keras=None)  # An import of them raises.
from tf_gradcam._cli import main
model = ["--model", "small.onnx"]
main(["evaluate", "a.png", *model])
main(["layers", *model])
main(["export", *model, "--out", "served"])
main(["serve-check", "small.onnx", "a.png"])
"""


def test_a_single_file_is_refused_before_tensorflow_is_imported():
    pathlib.Path("small.onnx").touch()
    done = subprocess.run([sys.executable, "-c", NEEDS_KERAS], capture_output=True, text=True)
    *said, of_check = done.stderr.splitlines()
    words = "`--model` must be a Keras model for this command. Received: small.onnx, an exported one"
    assert len(said) == 3
    assert all(words in line for line in said)
    assert "must be a model's folder of versions" in of_check
    assert "tf-gradcam explain PHOTO --model small.onnx" in of_check


def test_threads_are_for_exported_files():
    with pytest.raises(ValueError, match=r"`threads` is for an exported file.*Received: 2, and small\.keras"):
        load_classifier("small.keras", threads=2)


def test_what_an_exported_file_is_called_stays_in_the_error():
    pathlib.Path("path=1.onnx").touch()
    with pytest.raises(ValueError, match=r"`--model` must .*Received: 'path=1\.onnx'"):
        load_classifier("path=1.onnx", exported=True)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="`--model` must be .*Did you mean 'ResNet50"):
        load_classifier("resnet_50")


@pytest.mark.usefixtures("built_once")
def test_preprocessing_and_labels_may_be_given():
    pathlib.Path("own.py").write_text("def halve(images):\n    return images / 2\n")
    pathlib.Path("labels.txt").write_text("ant\n bee \n")
    pixels = np.full((1, 2, 2, 3), 255.0)
    for name, expected in [("unit", 1.0), ("mobilenet_v2", 1.0), ("own:halve", 127.5)]:
        loaded = load_classifier(EMBEDDED, name, "labels.txt")
        assert loaded.preprocess(pixels.copy()).max() == expected
        assert loaded.labels == ("ant", "bee")


@pytest.mark.usefixtures("built_once")
@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("resnet5", ValueError, "`--preprocess` must be unit.*Did you mean 'resnet"),
        ("nowhere:halve", ImportError, "Received: nowhere:halve, and No module named 'nowhere'"),
        ("os:nothing", ValueError, "`--preprocess` must name a function. Received: os:nothing"),
        ("os:sep", ValueError, "which is none"),
    ],
)
def test_a_preprocessing_that_is_not_there_is_refused(name, error, message):
    with pytest.raises(error, match=message):
        load_classifier(EMBEDDED, name)


@pytest.mark.usefixtures("built_once")
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbfant\r\nbee\r\n", ("ant", "bee")),
        ("ant\nbée\n".encode(), ("ant", "bée")),
    ],
    ids=["byte-order mark", "UTF-8"],
)
def test_labels_are_the_lines_of_the_file_without_a_byte_order_mark(content, expected):
    pathlib.Path("labels.txt").write_bytes(content)
    assert load_classifier(EMBEDDED, labels="labels.txt").labels == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "which is empty"),
        (b"\xef\xbb\xbf \n\n", "which is empty"),
        ("ant\nbee\n".encode("utf-16"), "which is not UTF-8 at byte 0"),
        ("ant\nbee\n".encode("utf-16-le"), "which is no text"),
        (b"ant\nb\xe9e\n", "which is not UTF-8 at byte 5"),
    ],
    ids=["empty", "blank", "UTF-16", "UTF-16 without mark", "Latin-1"],
)
def test_labels_that_can_not_be_read_are_refused_before_a_model_is_loaded(content, said):
    pathlib.Path("labels.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"`--labels` must .*Received: labels\.txt, {said}"):
        load_classifier("no_such_model", labels="labels.txt")
    with pytest.raises(OSError, match=r"`--labels` must .*Received: \., which can't be read"):
        load_classifier("no_such_model", labels=".")

"""The command `export`: what it writes, and one line where it makes no sense."""

import errno
import json
import os
import pathlib
import sys

import pytest
import tensorflow as tf
from photo_files import LABELS

import tf_gradcam
from tf_gradcam._cli import main


@pytest.fixture(autouse=True)
def own_files(monkeypatch, tmp_path):
    """An empty folder, in which our own model files may be loaded by any Keras."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("tf_gradcam._run.model_files.SAFE_KERAS", (3, 0))


@pytest.fixture
def tiny(functional):
    functional.save("tiny.keras")
    pathlib.Path("labels.txt").write_text("\n".join(LABELS) + "\n")
    return ["--model", "tiny.keras", "--labels", "labels.txt", "--preprocess", "unit"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--out", "cat.onnx"], "`path` must be a folder of the model's versions for format='tensorflow'"),
        (["--out", "cat.onnx"], "Received: path='cat.onnx'. Or give format='onnx'"),
        (["--out", "cat.onnx", "--format", "onnx", "--top-k", "2"], "`--top-k` is for --format tensorflow"),
        (["--out", "cat.onnx", "--format", "onnx", "--boxes", "0"], "`--boxes` is for --format tensorflow"),
        (["--out", "cat.onnx", "--format", "onnx", "--frozen"], "`--frozen` is for --format tensorflow"),
        (["--out", "cat", "--format", "onnx"], "`path` must end in '.onnx'"),
        (["--out", "served", "--layer", "conv9"], "`--layer` must"),
        (
            ["--out", "served", "--preprocess", "rooted:root"],
            "`--preprocess`, `target` and `--method` must be TensorFlow's operations",
        ),
    ],
)
def test_an_export_that_makes_no_sense_gets_one_line(tiny, capsys, options, told):
    pathlib.Path("rooted.py").write_text("import numpy\ndef root(images): return numpy.sqrt(images)\n")
    assert main(["export", *tiny, *options]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert not {"cat", "served", "cat.onnx"} & set(os.listdir())


@pytest.mark.parametrize("kind", ["OSError", "TensorFlow", "a cause"])
def test_a_full_disk_is_said_in_one_line_with_the_path(tiny, capsys, monkeypatch, kind):
    def full(*args, **kwargs):
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if kind == "OSError":
            raise error
        if kind == "a cause":
            raise ValueError("`format` must have a file") from error
        raise tf.errors.ResourceExhaustedError(None, None, "served/x; No space left on device")

    monkeypatch.setattr(tf_gradcam, "export_gradcam", full)
    assert main(["export", *tiny, "--out", "served"]) == 3
    assert capsys.readouterr().err == "tf-gradcam: error: [Errno 28] No space left on device: 'served'\n"


def test_an_error_that_is_not_about_the_disk_is_passed_on(tiny, monkeypatch):
    def no_memory(*args, **kwargs):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(tf_gradcam, "export_gradcam", no_memory)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        main(["export", *tiny, "--out", "served"])


def test_a_file_with_no_preprocessing_takes_what_its_model_takes(tiny):
    assert main(["export", *tiny[:2], "--out", "served", "--boxes", "0.2"]) == 0
    signature = tf.saved_model.load("served/1").signatures["gradcam"]
    (spec,) = signature.structured_input_signature[1].values()
    assert (spec.dtype, spec.shape.as_list()) == (tf.float32, [None, 17, 17, 3])
    manifest = json.loads(pathlib.Path("served/1/assets.extra/gradcam.json").read_text("utf-8"))
    assert manifest["layer"] == ["relu2"]
    assert manifest["boxes"] == 0.2

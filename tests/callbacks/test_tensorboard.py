"""What the callback writes for TensorBoard, read by TensorBoard itself."""

import copy
import json
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import build

import tf_gradcam
from tf_gradcam.callbacks import GradCAMCallback
from tf_gradcam.callbacks._events import EventFile

pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

EPOCHS = 12  # TensorBoard keeps 10 of a picture, unless it is told otherwise.


@pytest.fixture(scope="module")
def run(tmp_path_factory, images):
    """A folder with the events of a training, beside those of Keras's callback, and what a hook got."""
    folder, seen = tmp_path_factory.mktemp("logs"), []
    model = build("functional")
    model.compile("sgd", "sparse_categorical_crossentropy")
    callback = GradCAMCallback(
        images,
        folder / "gradcam",
        target=[4, 0, 2],
        names=["a cat", "a dog", "Jürgen"],
        max_share=None,
        on_explained=lambda *found: seen.append(found),
    )
    # It leaves out what anyone writes at other steps than each seventh.
    keras_callback = keras.callbacks.TensorBoard(folder, update_freq=7)
    callbacks = [keras_callback, callback]
    model.fit(images, np.zeros(3), epochs=EPOCHS, batch_size=1, verbose=0, callbacks=callbacks)
    return folder, seen


def decoded(png):
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_the_file_holds_every_picture_and_number(run):
    folder, seen = run
    events = EventAccumulator(str(folder / "gradcam"), size_guidance={"tensors": 0})
    events.Reload()
    names = ["a cat", "a dog", "Jürgen"]
    pictures = [f"gradcam/{name}" for name in names]
    scalars = [f"gradcam_{kind}/{name}" for kind in ("score", "probability", "peak") for name in names]
    assert set(events.Tags()["tensors"]) == {*pictures, *scalars}
    for tag in [*pictures, *scalars]:
        assert [event.step for event in events.Tensors(tag)] == list(range(EPOCHS))
    for tag in pictures:
        for event, (_, _, drawn, _) in zip(events.Tensors(tag), seen, strict=True):
            width, height, png = event.tensor_proto.string_val  # One picture at each step.
            np.testing.assert_array_equal(decoded(png), drawn[tag])
            assert (int(height), int(width)) == drawn[tag].shape[:2]
    for event, (*_, numbers) in zip(events.Tensors(scalars[0]), seen, strict=True):
        assert tf.make_ndarray(event.tensor_proto) == pytest.approx(numbers[scalars[0]], rel=1e-6)


def test_what_was_explained_before_an_error_is_in_the_file(images, tmp_path):
    def fail(epoch, logs):
        if epoch == 1:
            raise RuntimeError("out of disk")

    model = build("functional")
    model.compile("sgd", "sparse_categorical_crossentropy")
    callback = GradCAMCallback(images[:1], tmp_path / "logs", max_share=None)
    failing = keras.callbacks.LambdaCallback(on_epoch_end=fail)
    with pytest.raises(RuntimeError, match="out of disk"):
        model.fit(images, np.zeros(3), epochs=3, verbose=0, callbacks=[callback, failing])

    def steps():
        events = EventAccumulator(str(tmp_path / "logs"), size_guidance={"tensors": 0}).Reload()
        return [event.step for event in events.Tensors("gradcam/image 0")]

    assert steps() == [0, 1]
    copy.deepcopy(callback)
    model.fit(images, np.zeros(3), initial_epoch=2, epochs=4, verbose=0, callbacks=[callback])
    assert steps() == [0, 1, 2, 3]
    assert len(list((tmp_path / "logs").iterdir())) == 2


def test_without_tensorboard_it_says_how_to_install_it(images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary.v2", None)
    with pytest.raises(ImportError, match=r'pip install "tf_gradcam\[tensorboard\]"'):
        GradCAMCallback(images, tmp_path)
    GradCAMCallback(images, on_explained=print)  # needs none


@pytest.mark.parametrize("name", ["file", "file/below", "new/folder"])
def test_a_folder_that_cannot_be_written_is_said(tmp_path, name):
    (tmp_path / "file").touch()
    events = EventFile(tmp_path / name)
    if name.startswith("new"):
        events.open()
        events.close()
    else:
        with pytest.raises(ValueError, match=r"`log_dir` must be a folder .* says: .*[Nn]ot a directory$"):
            events.open()


@pytest.mark.parametrize("log_dir", [3, b"logs", ""])
def test_a_folder_that_is_no_path_is_refused(log_dir):
    with pytest.raises((TypeError, ValueError), match="`log_dir` must be the path of a folder"):
        EventFile(log_dir)


# TensorBoard's own server


@pytest.fixture
def server(run, tmp_path):
    """The address of a TensorBoard that shows the run."""
    log = tmp_path / "log.txt"
    arguments = ["--logdir", str(run[0]), "--host", "127.0.0.1", "--port", "0"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", *arguments, "--samples_per_plugin", "images=50"],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        address, until = None, time.monotonic() + 120
        while address is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
            address = re.search(r"http://127.0.0.1:\d+/", log.read_text())
        yield address[0]
    finally:
        process.terminate()
        process.wait()


def get(address, path, **query):
    with urllib.request.urlopen(
        f"{address}data/{path}?{urllib.parse.urlencode(query)}", timeout=60
    ) as answer:
        return answer.read()


@pytest.mark.slow
def test_tensorboard_shows_the_pictures(run, server, images):
    _, seen = run
    tag, until = "gradcam/Jürgen", time.monotonic() + 60
    while True:  # It reads the files in the background.
        tags = json.loads(get(server, "plugin/images/tags"))
        found = (
            json.loads(get(server, "plugin/images/images", run="gradcam", tag=tag, sample=0)) if tags else []
        )
        if len(found) == EPOCHS:
            break
        assert time.monotonic() < until, (tags, found)
        time.sleep(0.2)
    assert set(tags) == {"gradcam"}
    assert set(tags["gradcam"]) == {"gradcam/a cat", "gradcam/a dog", tag}
    assert {each["samples"] for each in tags["gradcam"].values()} == {1}
    assert [each["step"] for each in found] == list(range(EPOCHS))
    last = dict(urllib.parse.parse_qsl(found[-1]["query"]))
    picture = decoded(get(server, "plugin/images/individualImage", **last))
    _, explanation, pictures, _ = seen[-1]
    np.testing.assert_array_equal(picture, pictures[tag])
    side = 17 * 12
    overlay = tf_gradcam.overlay(picture[-side:, :side], np.asarray(explanation.heatmap)[2])
    np.testing.assert_array_equal(picture[-side:, side + 4 : 2 * side + 4], overlay)
    scalars = json.loads(get(server, "plugin/scalars/tags"))["gradcam"]
    assert "gradcam_probability/a cat" in scalars

"""What tells the targets of files apart, and a file from another at the same path."""

import dataclasses
import os
import pickle
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIDE, build

import tf_gradcam
from tf_gradcam import export_gradcam, load, targets
from tf_gradcam._runtimes.described import describe_target, is_described

# Targets


def mask(row):
    """A mask of more numbers than NumPy prints, of which only one in its middle is another for each row."""
    values = np.zeros((64, 64), bool)
    values[row, 32] = True
    return values


@dataclasses.dataclass(frozen=True)
class Weighted:
    """A user's own target."""

    weights: np.ndarray

    def __call__(self, outputs):
        return tf.linalg.matvec(outputs, self.weights)


SEVERAL = [
    targets.Region(1, mask(30)),
    targets.Region(1, mask(31)),
    targets.Region(2, mask(30)),
    targets.Region(1, mask(30).astype("float32")),
    targets.Region(1, mask(30)[:, :40]),
    targets.Similarity(np.linspace(0, 1, 1500)),
    targets.Similarity(np.linspace(0, 1, 1500) + 1e-12),
    targets.Output("mask", targets.Region(1, mask(30))),
    targets.Output("mask", targets.Region(1, mask(31))),
    targets.Classes([0, 1]),
    targets.Classes([1, 0]),
    Weighted(np.arange(2000.0)),
    Weighted(np.arange(2000.0) + (np.arange(2000) == 900)),
    np.arange(1200),
    [mask(1), mask(2)],
    (mask(1),),
    {"a": mask(1)},
]


def test_targets_of_large_arrays_are_told_apart():
    texts = [describe_target(target) for target in SEVERAL]
    assert len(set(texts)) == len(SEVERAL)
    assert not any("..." in text for text in texts)
    for text, target in zip(texts, SEVERAL, strict=True):
        assert is_described(text, target, target)
    array, tensor = targets.Region(1, mask(30)), targets.Region(1, tf.constant(mask(30)))
    assert describe_target(array) == describe_target(tensor)
    assert describe_target(mask(30).tolist()) == describe_target(mask(30))
    assert describe_target(targets.Classes(np.array([0, 1]))) == "Classes(indices=[0, 1])"


def test_the_text_of_an_older_file_is_no_proof_where_it_is_cut_short():
    first, second = targets.Region(1, mask(30)), targets.Region(1, mask(31))
    assert repr(first) == repr(second)
    assert not is_described(repr(first), first, first)
    small = targets.Region(1, np.eye(3))
    assert is_described(repr(small), small, small)


@pytest.fixture(scope="module")
def of_masks(tmp_path_factory):
    """A file that explains a `Region` with a mask of more numbers than NumPy prints."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.Conv2D(3, 1, activation="softmax"),
        ]
    )
    path = tmp_path_factory.mktemp("masks") / "mask.onnx"
    return load(export_gradcam(model, path, format="onnx", target=SEVERAL[0]))


def test_another_mask_than_that_of_the_file_is_refused(of_masks):
    images = np.random.default_rng(0).uniform(size=(2, 64, 64, 3))
    np.testing.assert_array_equal(of_masks(images, SEVERAL[0]).heatmap, of_masks(images).heatmap)
    of_masks(images, targets.Region(np.int64(1), tf.constant(mask(30))))
    for other in SEVERAL[1:4]:
        with pytest.raises(ValueError, match=r"`target` was fixed .* Received: target=Region\(index="):
            of_masks(images, other)


def first_unit(outputs):
    return outputs[:, 0]


def test_functions_are_never_taken_for_the_same(images, tmp_path):
    path = export_gradcam(build("functional"), tmp_path / "own.onnx", format="onnx", target=first_unit)
    explainer = load(path)
    assert explainer.notes["target"] == "test_told_apart.first_unit"
    for given in (first_unit, lambda outputs: outputs[:, 0]):
        words = r"Received: target=test_told_apart\.\S+ A function is never compared with the file's"
        with pytest.raises(ValueError, match=words):
            explainer(images, given)
    assert not is_described(repr(first_unit), first_unit, first_unit)
    split = targets.Detection(1, split=first_unit)
    assert not is_described(describe_target(split), split, split)
    assert " at 0x" not in describe_target(split)


# Files


@pytest.fixture
def own(exported_file, tmp_path):
    """A file of the small network's Grad-CAM, which a test may replace."""
    return shutil.copy(exported_file(".onnx"), tmp_path / "own.onnx")


@pytest.fixture(scope="module")
def another(tmp_path_factory):
    """A file of another layer."""
    path = tmp_path_factory.mktemp("another") / "another.onnx"
    return export_gradcam(build("functional"), path, layer="conv2", format="onnx")


def test_a_pickled_explainer_refuses_another_file(own, another, images):
    pickled = pickle.dumps(load(own))
    assert pickle.loads(pickled)(images).heatmap.shape == (3, SIDE, SIDE)
    shutil.copy(another, own)
    with pytest.raises(ValueError, match="`path` must lead to the file that the explainer was pickled with"):
        pickle.loads(pickled)


def test_the_checksum_is_that_of_the_file_that_was_loaded(own, another, images):
    before, asked_before = load(own), load(own)
    checksum = asked_before.sha256
    shutil.copy(another, own)
    assert asked_before.sha256 == checksum
    assert pickle.dumps(asked_before)
    assert load(own).sha256 != checksum
    for ask in (lambda: before.sha256, lambda: pickle.dumps(before)):
        with pytest.raises(ValueError, match="`path` must lead to the file that was loaded. .*changed"):
            ask()
    os.remove(own)
    with pytest.raises(ValueError, match="changed or moved since. Load it again"):
        before.sha256  # noqa: B018
    assert before(images).heatmap.shape == (3, SIDE, SIDE)


def test_the_checksum_is_found_from_another_folder(own, images, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    explainer = load("own.onnx")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert re.fullmatch("[0-9a-f]{64}", explainer.sha256)
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(2)
    assert tf_gradcam.explain_dataset(explainer, dataset, "rows").explained == len(images)


def test_a_run_refuses_a_file_that_was_replaced_after_it_was_loaded(
    own, another, images, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    explainer = load(own)
    shutil.copy(another, own)
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(2)
    with pytest.raises(ValueError, match="changed or moved since"):
        tf_gradcam.explain_dataset(explainer, dataset, "rows")


def test_a_savedmodel_has_a_checksum_of_all_its_files(served, tmp_path):
    folder = shutil.copytree(served, tmp_path / "cat")
    explainer = load(folder)
    assert explainer.sha256 == load(served).sha256
    late = load(folder)
    (weights,) = folder.rglob("variables.data*")
    weights.write_bytes(b"others")
    with pytest.raises(ValueError, match="changed or moved since"):
        late.sha256  # noqa: B018


@pytest.mark.slow
def test_openvino_numbers_of_another_training_are_refused(exported_file, tmp_path):
    source = exported_file(".xml")
    path = shutil.copy(source, tmp_path / "small.xml")
    numbers = bytearray(source.with_suffix(".bin").read_bytes())
    shutil.copy(source.with_suffix(".bin"), tmp_path)
    explainer = load(path)
    assert "bin_sha256" in explainer.notes
    numbers[5] ^= 1
    (tmp_path / "small.bin").write_bytes(numbers)
    with pytest.raises(ValueError, match="its numbers in 'small.bin' are those of another file, or damaged"):
        load(path)
    with pytest.raises(ValueError, match="changed or moved since"):
        explainer.sha256  # noqa: B018


def test_threads_may_be_a_number_of_numpy(exported_file, images):
    for suffix in (".tflite", ".onnx"):
        explainer = load(exported_file(suffix), threads=np.int64(2))
        assert type(explainer.threads) is int
        assert explainer(images).heatmap.shape == (3, SIDE, SIDE)


def test_nothing_is_printed_about_a_damaged_file(exported_file, monkeypatch, capfd):
    def fail(*args):
        raise RuntimeError("damaged")

    monkeypatch.setattr("onnxruntime.InferenceSession._create_inference_session", fail)
    with pytest.raises(ValueError, match="`path` must be what tf_gradcam.export_gradcam wrote, .* damaged"):
        load(exported_file(".onnx"))
    assert capfd.readouterr().out == ""

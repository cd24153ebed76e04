"""Exported files of several methods and kinds of model in runs: what rows say, and what is refused."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pyarrow.dataset as pds
import pytest
from conftest import SIDE, build
from photo_files import read_rows, write_photo

import tf_gradcam
from tf_gradcam import GradCAM, export_gradcam, load
from tf_gradcam._cli import main
from tf_gradcam._run import FileCam, name_of_method

L = keras.layers


@pytest.fixture
def photos(plain):
    """The paths of two photographs in an empty folder."""
    return [write_photo(f"photos/{number}.png", (40, 60), number) for number in range(2)]


@pytest.fixture(scope="module")
def fine():
    """An explainer whose layer has a cell for each pixel of the input, 32 x 32, and a file of it."""
    keras.utils.set_random_seed(0)
    conv = L.Conv2D(8, 3, padding="same", activation="relu", name="conv")
    layers = [keras.Input((32, 32, 3)), conv, L.GlobalAveragePooling2D(), L.Dense(3)]
    return GradCAM(keras.Sequential(layers), "conv")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """A file of a model of volumes, 12 voxels a side."""
    keras.utils.set_random_seed(0)
    layers = [L.Conv3D(4, 3, activation="relu", name="conv3d"), L.GlobalAveragePooling3D(), L.Dense(3)]
    model = keras.Sequential([keras.Input((12, 12, 12, 1)), *layers])
    return export_gradcam(model, tmp_path_factory.mktemp("volumes") / "volumes.onnx", format="onnx")


# Heatmaps


@pytest.mark.parametrize("size", [(16, 16), (40, 32), (40, 30), (100, 20), (20, 100), (32, 32), (5, 7)])
def test_heatmaps_of_any_size_are_those_of_the_explainer(size, fine, tmp_path):
    explain = FileCam(load(export_gradcam(fine, tmp_path / "fine.onnx", format="onnx")))
    images = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(explain(images, size=size).heatmap, fine(images, size=size).heatmap, atol=1e-5)
    expected = fine(images, size=size, signed=True).heatmap
    np.testing.assert_allclose(explain(images, size=size, signed=True).heatmap, expected, atol=1e-5)


# Methods


@pytest.mark.parametrize(
    ("method", "path", "format"), [("fem", "fem.onnx", "onnx"), ("eigencam", "eigencam", "tensorflow")]
)
def test_a_method_that_explains_no_class_has_rows_of_none(method, path, format, photos, capsys):
    export_gradcam(build("functional"), path, method=method, format=format)
    explain = ["explain", "photos", "--model", path]
    assert main([*explain, "--out", "out"]) == 0
    for row in read_rows("out"):
        assert (row["label"], row["class"], row["probability"]) == ("every class", None, None)
        assert row["method"] == method
    for option in (["--target", "1"], ["--top", "2"]):
        assert main([*explain, *option, "--out", "other"]) == 2
        assert "need a method that explains a class" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["layercam", "finercam", "xgradcam", "reciprocam"])
def test_a_file_has_the_methods_name(method, photos, capsys):
    path = export_gradcam(build("functional"), f"{method}.onnx", method=method, format="onnx")
    explainer = load(path)
    assert name_of_method(FileCam(explainer)) == method
    asked = ["photos", "--model", str(path), "--method", method]
    assert main(["run", *asked, "--out", "rows", "--quiet"]) == 0
    assert main(["explain", *asked, "--out", "out"]) == 0
    assert {row["method"] for row in read_rows("out")} == {method}
    # Files of before have no such note.
    del explainer.notes["method_name"]
    assert name_of_method(FileCam(explainer)) == method


def test_the_text_of_other_methods_is_their_name(exported_file, monkeypatch):
    explainer = load(exported_file(".onnx"))
    monkeypatch.delitem(explainer.notes, "method_name", raising=False)
    for text, name in {"mine.cam": "mine.cam", "(1, 2)": "(1, 2)", "finercam(gamma=1.0)": "finercam"}.items():
        monkeypatch.setitem(explainer.notes, "method", text)
        assert name_of_method(FileCam(explainer)) == name


# Volumes and videos


@pytest.fixture
def slices(plain):
    """A volume that a model of images explains slice by slice, as the only file of a folder."""
    pathlib.Path("scans").mkdir()
    values = np.random.default_rng(1).integers(0, 255, (6, 20, 20, 3)).astype("uint16")
    np.save("scans/volume.npy", values)


def test_slices_are_explained_for_the_class_of_the_file(slices, capsys):
    model = build("functional")
    model.save("small.keras")
    export_gradcam(model, "two.onnx", format="onnx", target=2, layer="conv1")
    explain = ["explain", "scans/volume.npy"]
    assert main([*explain, "--model", "two.onnx", "--out", "out"]) == 0
    of_model = ["--model", "small.keras", "--layer", "conv1", "--target", "2", "--out", "expected"]
    assert main([*explain, *of_model]) == 0
    (row,), (expected,) = read_rows("out"), read_rows("expected")
    assert row["class"] == expected["class"] == 2
    np.testing.assert_allclose(row["score"], expected["score"], rtol=1e-4)
    assert main([*explain, "--model", "two.onnx", "--target", "2", "--out", "out"]) == 0
    capsys.readouterr()
    assert main([*explain, "--model", "two.onnx", "--target", "1", "--out", "other"]) == 2
    assert "`--target` was fixed when the file was exported" in capsys.readouterr().err


def test_slices_need_a_file_of_one_class(slices, capsys, monkeypatch):
    export_gradcam(build("functional"), "predicted.onnx", format="onnx")
    monkeypatch.setattr("tf_gradcam._run.scans._inputs_of_slices", None)  # Nothing is read.
    assert main(["explain", "scans/volume.npy", "--model", "predicted.onnx", "--out", "out"]) == 1
    (row,) = read_rows("out")
    assert "must explain one class in all slices" in row["error"]
    assert "predicted.onnx, which explains the predicted class. Export it with a class" in row["error"]
    assert "target=2" not in row["error"]


def test_slices_need_no_class_where_there_is_none(slices):
    for name, options in {
        "classless": {"method": "fem"},
        "regression": {},
    }.items():
        units = L.Dense(1 if name == "regression" else 3)
        layers = [L.Conv2D(4, 3, activation="relu"), L.GlobalAveragePooling2D(), units]
        model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *layers])
        path = str(export_gradcam(model, f"{name}.onnx", format="onnx", **options))
        assert main(["explain", "scans/volume.npy", "--model", path, "--out", name]) == 0
        (row,) = read_rows(name)
        assert row["class"] is None


def test_a_savedmodel_of_one_class_explains_slices(slices):
    export_gradcam(build("functional"), "fixed", target=2)
    export_gradcam(build("functional"), "any")
    for folder in ("fixed", "any"):
        assert main(["explain", "scans/volume.npy", "--model", folder, "--out", f"of_{folder}"]) == 0
    assert read_rows("of_fixed")[0]["class"] == 2


WITHOUT_TENSORFLOW = """
import sys
sys.modules.update(tensorflow=None, keras=None)  # An import of them raises.
from tf_gradcam._cli import main
print(main(["explain", "scans/volume.npy", "--model", sys.argv[1], "--out", "out"]), file=sys.stderr)
"""


def test_volumes_are_explained_where_tensorflow_and_keras_are_not_installed(slices, volumes):
    np.save("scans/volume.npy", np.random.default_rng(1).integers(0, 255, (14, 20, 20, 1)).astype("uint16"))
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, str(volumes)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "0", done.stderr
    (row,) = read_rows("out")
    assert row["layer"] == "conv3d"


# Data sets


def test_a_data_set_of_files_needs_a_model_of_photographs(photos, volumes, capsys):
    with pytest.raises(ValueError, match="`cam` must be of a model that takes photographs.*12, 12, 12, 1"):
        tf_gradcam.explain_dataset(volumes, "photos", "rows")
    layers = [L.Conv1D(4, 3, activation="relu"), L.GlobalAveragePooling1D(), L.Dense(3)]
    signals = keras.Sequential([keras.Input((32, 2)), *layers])
    path = str(export_gradcam(signals, "signals.onnx", format="onnx"))
    with pytest.raises(ValueError, match="takes photographs.*None, 32, 2"):
        tf_gradcam.explain_dataset(path, "photos", "rows")
    assert main(["run", "photos", "--model", path, "--out", "rows"]) == 2
    assert "`--model` must be of a model that takes photographs" in capsys.readouterr().err
    assert not pathlib.Path("rows").exists()


def test_what_is_no_explainer_is_refused_by_name(photos, unchanged):
    for given in (3, None, unchanged):
        with pytest.raises(TypeError, match="`cam` must be a GradCAM, or an exported file, .*Make one: "):
            tf_gradcam.explain_dataset(given, "photos", "rows")


def test_a_file_of_two_inputs_is_refused_as_the_model(photos, capsys):
    image, table = keras.Input((SIDE, SIDE, 3), name="photo"), keras.Input((4,), name="data")
    x = L.GlobalAveragePooling2D()(L.Conv2D(5, 3, activation="relu")(image))
    model = keras.Model([image, table], L.Dense(3)(L.Concatenate()([x, table])))
    path = str(export_gradcam(model, "two.onnx", format="onnx"))
    assert main(["run", "photos", "--model", path, "--out", "rows"]) == 2
    assert "`--model` must be of a model that takes one image" in capsys.readouterr().err


def test_a_run_goes_on_with_the_files_own_target_given_or_not(photos):
    fixed = export_gradcam(build("functional"), "fixed.onnx", format="onnx", target=2)
    folder = export_gradcam(build("functional"), "fixed", target=2)
    for number, path in enumerate([fixed, folder]):
        out = f"rows{number}"
        assert tf_gradcam.explain_dataset(path, "photos", out).explained == 2
        assert tf_gradcam.explain_dataset(path, "photos", out, target=2).skipped == 2
        assert tf_gradcam.explain_dataset(path, "photos", out).skipped == 2
        assert {row["target"] for row in pds.dataset(out, format="parquet").to_table().to_pylist()} == {2}
        with pytest.raises(ValueError, match="`target` was fixed when the file was exported"):
            tf_gradcam.explain_dataset(path, "photos", out, target=1)
    either = export_gradcam(build("functional"), "any")
    tf_gradcam.explain_dataset(either, "photos", "rows")
    with pytest.raises(ValueError, match="`out` must be a new folder.*target was None, and is '1'"):
        tf_gradcam.explain_dataset(either, "photos", "rows", target=1)

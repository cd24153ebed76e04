"""Exported files where a run takes a model: `tf-gradcam explain` and `run`, and `explain_dataset`."""

import json
import pathlib

import cv2
import numpy as np
import pyarrow.dataset as pds
import pytest
from conftest import SIDE, build
from photo_files import files, read_rows, write_photo

import tf_gradcam
from tf_gradcam._cli import main

COUNT = 3


@pytest.fixture(scope="module")
def cam():
    return tf_gradcam.GradCAM(build("functional"), "conv1")


@pytest.fixture
def photos(plain):
    """The paths of photographs in an empty folder."""
    return [write_photo(f"photos/{number}.png", (40, 60), number) for number in range(COUNT)]


def rows_by_id(out):
    return {row["id"]: row for row in pds.dataset(out, format="parquet").to_table().to_pylist()}


def assert_rows_are_those_of(cam, rows, photos):
    assert len(rows) == len(photos)
    for path in photos:
        expected, row = cam(tf_gradcam.load_image(path, size=(SIDE, SIDE)), size=None), rows[path]
        signed = np.array(row["map"]).reshape(expected.map.shape[1:]) * row["map_scale"]
        np.testing.assert_allclose(signed, expected.map[0], atol=1e-4 * np.abs(expected.map).max())
        np.testing.assert_allclose(row["score"], expected.score[0], rtol=1e-5)
        assert (row["target"], row["layer"], row["method"]) == (expected.target[0], "conv1", "gradcam")
        assert row["error"] is None


def test_rows_are_those_of_the_explainer(cam, photos, exported_file):
    path = exported_file(".onnx")
    for number, given in enumerate([path, str(path), tf_gradcam.load(path, threads=1)]):
        run = tf_gradcam.explain_dataset(given, "photos", f"rows{number}", dtype="float32", batch_size=2)
        assert run[1:] == (COUNT, 0, 0)
        assert_rows_are_those_of(cam, rows_by_id(f"rows{number}"), photos)
    assert tf_gradcam.explain_dataset(path, "photos", "rows0", dtype="float32")[1:] == (0, 0, COUNT)
    # Another file is another model, also where it answers the same.
    with pytest.raises(ValueError, match="`out` must be a new folder.*model_sha256 was"):
        tf_gradcam.explain_dataset(exported_file(".tflite"), "photos", "rows0", dtype="float32")
    with pytest.raises(ValueError, match="`target` was fixed when the file was exported"):
        tf_gradcam.explain_dataset(path, "photos", "rows3", target=1)
    with pytest.raises(FileNotFoundError, match="which doesn't exist"):
        tf_gradcam.explain_dataset("nothing.onnx", "photos", "rows3")


def test_a_savedmodel_explains_the_classes_of_a_table(photos, served, capsys):
    assert tf_gradcam.explain_dataset(served, "photos", "preprocessed")[1:] == (COUNT, 0, 0)
    folder = tf_gradcam.export_gradcam(build("functional"), "exported", layer="conv1")
    pathlib.Path("table.csv").write_text("path,target\n" + "".join(f"{path},3\n" for path in photos))
    tf_gradcam.explain_dataset(folder, "table.csv", "rows")
    assert {row["target"] for row in rows_by_id("rows").values()} == {3}
    assert main(["explain", photos[0], "--model", "exported", "--top", "2", "--out", "out"]) == 0
    assert len({row["class"] for row in read_rows("out")}) == 2


def test_the_command_run_takes_a_file(cam, photos, exported_file, capsys):
    path = str(exported_file(".tflite"))
    options = ["run", "photos", "--model", path, "--dtype", "float32", "--quiet"]
    assert main([*options, "--out", "rows"]) == 0
    assert_rows_are_those_of(cam, rows_by_id("rows"), photos)
    for more in (["--layer", "conv2"], ["--method", "layercam"], ["--output", "0"], ["--call", "0"]):
        assert main([*options, *more, "--out", "other"]) == 2
        assert f"`{more[0]}` must be left out for an exported file" in capsys.readouterr().err
    assert main([*options, "--method", "gradcam", "--out", "rows"]) == 0


def test_the_command_explain_takes_a_file(cam, photos, exported_file, capsys):
    path = str(exported_file(".onnx"))
    assert main(["explain", *photos, "--model", path, "--out", "out"]) == 0
    rows = read_rows("out")
    for file, row in zip(photos, rows, strict=True):
        expected = cam(tf_gradcam.load_image(file, size=(SIDE, SIDE)))
        assert (row["class"], row["layer"], row["method"]) == (expected.target[0], "conv1", "gradcam")
        heatmap = cv2.resize(expected.heatmap.numpy()[0], (60, 40), interpolation=cv2.INTER_LINEAR)
        drawn = tf_gradcam.load_image(f"out/{row['heatmap']}").astype(int)
        assert np.abs(drawn - tf_gradcam.colorize(heatmap)).max() <= 4  # a level of the colour map
    before = files("out")
    assert main(["explain", *photos, "--model", path, "--out", "out"]) == 0
    assert "3 of 3 photographs were explained before" in capsys.readouterr().err
    assert files("out") == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--layer", "conv2"], "`--layer` must be left out for an exported file"),
        (["--method", "layercam"], "`--method` must be left out for an exported file"),
        (["--method", "gradcam,layercam"], "`--method` must be left out for an exported file"),
        (["--top", "2"], "`--top` must be left out for an exported file"),
        (["--sliding", "--target", "1"], "`--sliding` must be left out for an exported file"),
        (["--target", "1"], "`--target` was fixed when the file was exported"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_a_file_cant_do_is_refused(options, words, photos, exported_file, capsys):
    assert main(["explain", photos[0], "--model", str(exported_file(".onnx")), "--out", "out", *options]) == 2
    assert words in capsys.readouterr().err
    assert not pathlib.Path("out", "explanations.json").exists()


def test_other_commands_take_keras_models_only(photos, exported_file, capsys):
    path = str(exported_file(".onnx"))
    commands = [["evaluate", photos[0]], ["layers"], ["export", "--out", "model"]]
    for command in commands:
        assert main([*command, "--model", path]) == 2
        assert "an exported one. Only `explain` and `run` take it" in capsys.readouterr().err


def test_a_file_with_its_own_preprocessing_takes_no_other(photos, served, capsys):
    options = ["explain", photos[0], "--model", str(served), "--out", "out"]
    assert main([*options, "--preprocess", "unit"]) == 2
    assert "`--preprocess` must be left out, as the file has its own" in capsys.readouterr().err
    assert main(options) == 0
    (row,) = json.loads(pathlib.Path("out", "explanations.json").read_text())
    assert row["label"].startswith("class ")  # the labels that were exported

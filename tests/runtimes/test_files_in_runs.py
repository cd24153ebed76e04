"""Exported files where a run takes a model: `tf-gradcam explain` and `run`, and `explain_dataset`."""

import itertools
import json
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import PIL.Image
import pyarrow.dataset as pds
import pytest
from conftest import SIDE, build, preprocess
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


WITHOUT_TENSORFLOW = """
import sys
sys.modules.update(tensorflow=None, keras=None)  # An import of them raises.
import numpy as np
import tf_gradcam.ray
from tf_gradcam._cli import main
path = sys.argv[1]
model = ["photos", "--model", path, "--threads", "1"]
codes = [
    main(["explain", *model, "--out", "pictures", "--boxes", "otsu"]),
    main(["run", *model, "--out", "rows", "--dtype", "float32", "--quiet", "--to", "csv,pictures"]),
    main(["report", "rows"]),
    main(["explain", "photos"]),
]
(rows,) = tf_gradcam.ray.explainer(path, threads=2)()({"path": np.array(["photos/0.png"])})
print(codes, rows["error"].to_pylist(), file=sys.stderr)
"""


@pytest.mark.parametrize("suffix", [".tflite", ".onnx", ".xml"])
def test_a_file_is_explained_where_tensorflow_and_keras_are_not_installed(suffix, cam, photos, exported_file):
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, str(exported_file(suffix))]
    done = subprocess.run(command, capture_output=True, text=True)
    *said, last = done.stderr.splitlines()
    assert last == "[0, 0, 0, 2] [None]", done.stderr
    assert "needs TensorFlow, which isn't installed: pip install tensorflow" in said[-1]
    assert_rows_are_those_of(cam, rows_by_id("rows"), photos)
    assert pathlib.Path("rows-report.html").exists()
    assert len(read_rows("pictures")) == len(files("rows-pictures") - {".tf_gradcam-export"}) == COUNT


def test_a_savedmodel_explains_the_classes_of_a_table(photos, served, capsys):
    assert tf_gradcam.explain_dataset(served, "photos", "preprocessed")[1:] == (COUNT, 0, 0)
    folder = tf_gradcam.export_gradcam(build("functional"), "exported", layer="conv1")
    pathlib.Path("table.csv").write_text("path,target\n" + "".join(f"{path},3\n" for path in photos))
    tf_gradcam.explain_dataset(folder, "table.csv", "rows")
    assert {row["target"] for row in rows_by_id("rows").values()} == {3}
    assert main(["explain", photos[0], "--model", "exported", "--top", "2", "--out", "out"]) == 0
    assert len({row["class"] for row in read_rows("out")}) == 2


def test_pixels_that_a_file_of_8_bits_can_not_take_are_said(plain, capsys):
    path = str(
        tf_gradcam.export_gradcam(build("functional"), "pixels.onnx", format="onnx", preprocess=preprocess)
    )
    write_photo("photos/8.png", (40, 60))
    values = np.random.default_rng(4).integers(0, 64_251, (40, 60, 3))
    values[0, 0] = 0, 64_250, 0
    cv2.imwrite("photos/16.png", values.astype("uint16"))
    cv2.imwrite("photos/dark.png", (values // 256).astype("uint16"))  # 16 bits that hold values of 8
    PIL.Image.fromarray((values[..., 0] / 65_535).astype("float32")).save("photos/of_one.tif")
    tf_gradcam.explain_dataset(path, "photos", "rows")
    errors = {name: row["error"] for name, row in rows_by_id("rows").items()}
    assert errors["photos/8.png"] is None
    assert errors["photos/dark.png"] is None
    assert (
        "takes uint8, whole numbers from 0 to 255. Received: a photograph of uint16"
        in errors["photos/16.png"]
    )
    assert "with values from 0 to 64250. Convert it to uint8" in errors["photos/16.png"]
    assert "a photograph of float32 with values from 0 to 0.98" in errors["photos/of_one.tif"]
    for command in (["run", "--quiet"], ["explain"]):
        assert main([*command, "photos", "--model", path, "--out", f"{command[0]}ed"]) == 1
    of_explain = {row["file"]: row.get("error") for row in read_rows("explained")}
    assert {
        name: error and error.replace("`--model`", "`model`") for name, error in of_explain.items()
    } == errors
    assert {name: row["error"] for name, row in rows_by_id("runed").items()} == errors
    # Of a model that takes floating values the file's own are explained.
    plain_file = tf_gradcam.export_gradcam(build("functional"), "plain.onnx", format="onnx")
    assert tf_gradcam.explain_dataset(plain_file, "photos", "plain")[1:] == (4, 0, 0)


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
    cam.model.save("small.keras")
    model = ["--model", "small.keras", "--layer", "conv1"]
    assert main(["explain", *photos, *model, "--out", "expected"]) == 0
    for row, expected in zip(read_rows("out"), read_rows("expected"), strict=True):
        for key in ("class", "layer", "method"):
            assert row[key] == expected[key]
        for kind in ("heatmap", "overlay"):
            names = f"out/{row[kind]}", f"expected/{expected[kind]}"
            drawn, of_model = (tf_gradcam.load_image(name).astype(int) for name in names)
            assert np.abs(drawn - of_model).max() <= 4  # a level of the colour map
    before = files("out")
    assert main(["explain", *photos, "--model", path, "--out", "out"]) == 0
    assert "3 of 3 photographs were explained before" in capsys.readouterr().err
    assert files("out") == before


def test_signed_heatmaps_are_drawn_as_the_library_draws_them(photos, capsys):
    cam = tf_gradcam.GradCAM(build("functional"), "conv2")
    cam.model.save("small.keras")
    tf_gradcam.export_gradcam(cam, "signed.onnx", format="onnx")
    models = {"file": ["signed.onnx"], "model": ["small.keras", "--layer", "conv2"]}
    options = {"own": [], "one": ["--vmax", "20", "--no-fade"]}
    images = [tf_gradcam.load_image(photo, size=(SIDE, SIDE)) for photo in photos]
    explanations = [cam(image, signed=True) for image in images]
    assert any(each.map.numpy().min() < 0 for each in explanations)
    looks = {"own": {}, "one": {"vmax": 20, "fade": False}}
    for (name, model), (scale, asked) in itertools.product(models.items(), options.items()):
        out = f"{name}-{scale}"
        assert main(["explain", *photos, "--model", *model, "--signed", *asked, "--out", out]) == 0
        for photo, explanation, row in zip(photos, explanations, read_rows(out), strict=True):
            drawn = tf_gradcam.load_image(f"{out}/{row['overlay']}").astype(int)
            expected = tf_gradcam.overlay(photo, explanation, signed=True, **looks[scale])
            assert np.abs(drawn - expected).max() <= 6  # two levels of the colours
    assert main(["explain", *photos, "--model", *models["file"], "--signed", "--contour", "0.5"]) == 2
    assert "`--contour` must be left out where `--signed` is asked for" in capsys.readouterr().err
    np.save("scan.npy", np.zeros((20, 20, 3), np.uint16))
    assert main(["explain", "scan.npy", "--model", *models["file"], "--signed"]) == 1
    assert "`--signed` must be left out for scans" in capsys.readouterr().err


def test_a_file_names_the_classes_that_it_was_exported_with(cam, photos):
    labels = ["ant", "bee", "cat", "dog", "eel"]
    path = tf_gradcam.export_gradcam(cam, "named.onnx", format="onnx", labels=labels)
    assert main(["explain", *photos, "--model", str(path), "--out", "out"]) == 0
    assert all(row["label"] == labels[row["class"]] for row in read_rows("out"))
    tf_gradcam.explain_dataset(path, "photos", "rows")
    assert all(row["label"] == labels[row["target"]] for row in rows_by_id("rows").values())
    assert main(["explain", *photos, "--model", str(path), "--labels", "others.txt", "--out", "out"]) == 2
    with pytest.raises(ValueError, match="`labels` must have a name for each class. Received: 4 for a model"):
        tf_gradcam.export_gradcam(cam, "named.onnx", format="onnx", labels=labels[:4])
    with pytest.raises(ValueError, match="`labels` must leave a file's notes below .* Received: notes of 13"):
        tf_gradcam.export_gradcam(cam, "named.onnx", format="onnx", labels=["a" * 2**18] * 5)
    assert tf_gradcam.load(path).notes["labels"] == labels


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

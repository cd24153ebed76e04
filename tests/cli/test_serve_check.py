"""The command `serve-check`: every signature of an export is run, and one that fails leaves the others."""

import argparse
import contextlib
import io
import json
import pathlib
import re

import cv2
import numpy as np
import pytest
import tensorflow as tf
from conftest import build
from photo_files import LABELS, files, write_photo

import tf_gradcam
from tf_gradcam._cli import main, serve_check

SIGNATURES = ["serve", "serving_default", "gradcam", "gradcam_class", "gradcam_top_k", "gradcam_bytes"]


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder of an exported model, and what the export said."""
    folder = tmp_path_factory.mktemp("exported")
    build("functional").save(folder / "tiny.keras")
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    options = ["--model", folder / "tiny.keras", "--labels", folder / "labels.txt", "--preprocess", "unit"]
    options += ["--layer", "conv2", "--method", "hirescam", "--top-k", "2", "--frozen"]
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr("tf_gradcam._run.model_files.SAFE_KERAS", (3, 0))  # We made this file ourselves.
        assert main(["export", *map(str, options), "--out", str(folder / "served")]) == 0
    return folder / "served", said.getvalue()


@pytest.mark.slow
def test_an_exported_model_is_checked_with_a_photograph(exported, capsys):
    served, said = exported
    assert "is written" in said
    manifest = json.loads((served / "1/assets.extra/gradcam.json").read_text("utf-8"))
    assert (manifest["layer"], manifest["method"]) == (["conv2"], "tf_gradcam.methods.hirescam")
    assert (manifest["labels"], manifest["top_k"], manifest["frozen"]) == (LABELS, 2, True)
    photo = write_photo("photo.png")
    for folder in (served, served / "1"):
        assert main(["serve-check", str(folder), photo, "--out", "looked"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        for name in SIGNATURES:
            assert re.search(rf"^ *{name} .*\d\.\d{{3}} *$", out, re.MULTILINE)
    assert files("looked") == {"photo-served.png"}
    # Five heatmaps, that of the best class twice: a row of the picture each.
    height, width, _ = tf_gradcam.load_image("looked/photo-served.png").shape
    assert height > width


@pytest.mark.slow
def test_a_signature_that_fails_leaves_the_others(exported, capsys, monkeypatch):
    served, _ = exported
    monkeypatch.setattr("tf_gradcam._run.fit_to_spec", lambda image, spec: 1 / 0)  # What takes pixels, fails.
    assert main(["serve-check", str(served), write_photo("photo.png")]) == 1
    out, err = capsys.readouterr()
    assert "gradcam_bytes" in out
    assert "error: gradcam_class: division by zero\n" in err


def test_float_signatures_take_the_files_own_values_and_uint8_ones_pixels():
    values = np.random.default_rng(0).integers(0, 65536, (6, 7, 3), np.uint16)
    pathlib.Path("deep.png").write_bytes(cv2.imencode(".png", values[..., ::-1])[1])
    for dtype, expected in (("float32", values), ("float16", values // 32), ("uint8", values >> 8)):
        spec = tf.TensorSpec((None, 6, 7, 3), dtype, name="images")
        given = values // 32 if dtype == "float16" else values  # float16 ends at 65504.
        made = serve_check._make_input(spec, given, "deep.png", 0, None)
        assert made.dtype == dtype
        np.testing.assert_array_equal(made[0], expected.astype(dtype))


def test_a_photograph_is_not_replaced_by_the_picture(capsys):
    # The names of pictures are cut at 50 characters, which here gives the name of the photograph.
    photo = write_photo(f"{'a' * 50}-served.png")
    before = pathlib.Path(photo).read_bytes()
    arguments = argparse.Namespace(photo=photo, out=".")
    pixels = tf_gradcam.load_image(photo)
    for _ in range(2):
        serve_check._draw_heatmaps(pixels, {"gradcam": np.zeros((20, 30))}, arguments)
        assert f"The heatmaps are in {'a' * 50}_2-served.png" in capsys.readouterr().out
        assert files(".") == {photo, f"{'a' * 50}_2-served.png"}
    assert pathlib.Path(photo).read_bytes() == before


def test_the_newest_version_is_checked(monkeypatch):
    monkeypatch.setattr("tensorflow.saved_model.load", lambda path: pytest.fail(f"loaded {path}"))
    for number in ("9", "10", "notes"):
        pathlib.Path("served", number).mkdir(parents=True)
    with pytest.raises(pytest.fail.Exception, match="loaded served.10"):
        main(["serve-check", "served", write_photo("photo.png")])


def test_a_folder_with_no_version_is_refused(capsys):
    assert main(["serve-check", ".", write_photo("photo.png")]) == 2
    assert "`DIR` must be a model's folder of versions" in capsys.readouterr().err

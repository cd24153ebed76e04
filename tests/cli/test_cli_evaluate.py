"""The command `evaluate`: its table, its files, its exit codes, and mistakes in one line."""

import errno
import json
import pathlib

import cv2
import numpy as np
import pytest
from conftest import build
from photo_files import LABELS, files, write_photo

from tf_gradcam import _evaluation
from tf_gradcam._cli import main

pytestmark = pytest.mark.usefixtures("plain")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Arguments for the small network."""
    folder = tmp_path_factory.mktemp("tiny")
    build("functional").save(folder / "tiny.keras")
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    return ["--model", folder / "tiny.keras", "--labels", folder / "labels.txt", "--preprocess", "unit"]


def evaluate(*arguments):
    """Evaluate, and return the exit code: argparse raises it where `main` returns it."""
    try:
        return main(["evaluate", *map(str, arguments)])
    except SystemExit as error:
        return error.code


def read_record(out="evaluation"):
    return json.loads(pathlib.Path(out, "evaluation.json").read_text())


def test_a_folder_with_masks_below_it_is_measured(tiny, capsys):
    for seed, name in enumerate(("a", "b", "c")):
        write_photo(f"photos/{name}.png", seed=seed)
    pathlib.Path("photos/masks").mkdir()
    cv2.imwrite("photos/masks/a.png", np.ones((20, 30), np.uint8))
    pathlib.Path("photos/notes.txt").touch()
    options = ["--masks", "photos/masks", "--metrics", "road,deletion", "--sanity", "--method", "layercam"]
    assert evaluate("photos", *tiny, *options, "--target", "dog", "--baselines", "mean") == 0
    out, err = capsys.readouterr()
    for said in ("road", "deletion", "mean", "energy", "pointing_game", "everything", "Sanity check"):
        assert said in out
    assert "Photographs without a mask: 2 of 3." in out
    assert "Files in the folder of masks that were left out: 1." in out
    assert out.endswith("evaluation.json and evaluation.html are in evaluation\n")
    assert "tf-gradcam: measuring the sanity check" in err
    assert "tf-gradcam: skipped files: 1 that are no photographs" in err
    assert files("evaluation") == {"evaluation.json", "evaluation.html"}
    record = read_record()
    assert [row["file"] for row in record["photographs"]] == [f"photos/{name}.png" for name in "abc"]
    assert {row["label"] for row in record["photographs"]} == {"dog"}
    assert record["method"] == "layercam"
    assert record["metrics"]["rows"][1]["baseline"] == "mean"


def test_a_broken_photograph_makes_the_exit_code_1_and_the_others_are_measured(tiny, capsys):
    write_photo("a.png")
    pathlib.Path("broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    assert evaluate("broken.jpg", "a.png", "missing.png", *tiny, "--out", "o") == 1
    out, err = capsys.readouterr()
    assert "Photographs with an error, which are in no number: 2 of 3." in out
    assert "tf-gradcam: error: broken.jpg: `source` must be an image" in err
    assert "tf-gradcam: error: missing.png: no such file" in err
    rows = read_record("o")["photographs"]
    assert ["error" in row for row in rows] == [True, False, True]
    assert "and no more" in pathlib.Path("o/evaluation.html").read_text()
    assert evaluate("missing.png", *tiny) == 1
    assert "No photograph could be measured." in capsys.readouterr().out


def test_mistakes_are_one_line_and_nothing_is_written(tiny, capsys):
    write_photo("a.png")
    for options, said in {
        ("--metrics", "rode"): "Did you mean 'road'",
        ("--metrics", "iou"): "`--masks` must be given for iou",
        ("--baselines", "zero"): "`--baselines` are for the metrics deletion",
        ("--masks", "nowhere"): "`--masks` must be a folder of PNG files. Received: nowhere",
        ("--masks", "."): "which has none for any of 0 photographs",
        ("--method", "gradcan"): "Did you mean 'gradcam'",
        ("--target", "dig"): "Did you mean 'dog'",
    }.items():
        assert evaluate("a.png", *tiny, *options) == 2
        err = capsys.readouterr().err
        assert len(err.splitlines()) == 1
        assert said in err
        assert not pathlib.Path("evaluation").exists()


def test_a_folder_that_can_not_be_written_to_is_refused_before_measuring(tiny, capsys, monkeypatch):
    write_photo("a.png")
    measured = []
    monkeypatch.setattr("tf_gradcam._evaluation.evaluation._measure", lambda *_: measured.append(1))
    assert evaluate("a.png", *tiny, "--out", "a.png/b") == 2
    assert "`--out` must be a folder that can be written to. Received: a.png/b: " in capsys.readouterr().err
    assert not measured


def test_a_full_disk_and_an_interrupt_have_the_codes_of_explain(tiny, capsys, monkeypatch):
    write_photo("a.png")
    command = ["a.png", *tiny, "--metrics", "sparseness"]
    pathlib.Path("evaluation").mkdir()
    pathlib.Path("evaluation/evaluation.json").write_text("{}")
    nothing = _evaluation.Evaluation([], "gradcam", "relu2", {}, [])

    def is_full(*args):
        raise OSError(errno.ENOSPC, "No space left on device", "evaluation.json")

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(_evaluation, "evaluate_photographs", lambda *args: nothing)
    monkeypatch.setattr(_evaluation, "write_evaluation", is_full)
    assert evaluate(*command) == 3
    monkeypatch.setattr(_evaluation, "evaluate_photographs", interrupt)
    assert evaluate(*command) == 130
    assert "interrupted" in capsys.readouterr().err
    assert read_record() == {}


def test_help_ends_with_three_examples(capsys):
    assert evaluate("--help") == 0
    *_, heading, first, second, third = capsys.readouterr().out.rstrip().splitlines()
    assert heading == "examples:"
    for example in (first, second, third):
        assert example.startswith("  tf-gradcam evaluate photos/ ")

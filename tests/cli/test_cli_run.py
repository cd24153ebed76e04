"""`tf-gradcam run`: counts, progress, exit codes, and what is left when a signal ends it."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pyarrow.dataset as pds
import pytest
from photo_files import head, write_photo

from tf_gradcam._cli import main
from tf_gradcam._cli import run as cli_run
from tf_gradcam._dataset.parts import read_manifest


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli_run, "SECONDS_BETWEEN_LINES", 3600.0)  # However busy the machine is.
    head(3, "softmax").save("model.keras")


def run(*arguments):
    return main(["run", *arguments, "--model", "model.keras", "--out", "rows"])


def read_ids():
    return pds.dataset("rows", format="parquet").to_table(columns=["id"])["id"].to_pylist()


def test_counts_are_said_first_and_errors_at_the_end(capsys):
    for number in range(3):
        write_photo(f"photos/sub/{number}.png", seed=number)
    pathlib.Path("photos/notes.md").write_text("x")
    assert run("photos") == 0
    out, err = capsys.readouterr()
    assert err.startswith("tf-gradcam: 4 files found, 3 images taken, 1 that are no photographs skipped")
    assert "3 images explained, 0 skipped that had a row before; the rows are in rows" in out
    pathlib.Path("photos/broken.png").write_bytes(b"no")
    assert run("photos", "--quiet") == 1
    out, err = capsys.readouterr()
    assert "1 image has an error; its row says which" in err
    assert "0 images explained, 3 skipped that had a row before" in out
    # Of the same images again, none is explained, and one still has an error.
    assert run("photos", "--quiet", "--to", "pictures") == 1
    out, err = capsys.readouterr()
    assert "0 images explained, 4 skipped that had a row before" in out
    assert "1 image has an error; its row says which" in err
    os.unlink("photos/sub/1.png")
    assert run("photos", "--quiet", "--to", "pictures") == 1
    out, err = capsys.readouterr()
    assert 'tf-gradcam: warning: `to="pictures"` needs what was explained, and skipped 1: ' in err
    assert sorted(path.name for path in pathlib.Path("rows-pictures").rglob("*.jpg")) == [
        "0.png-overlay.jpg",
        "2.png-overlay.jpg",
    ]


def test_a_draft_is_noted_in_the_manifest():
    assert run(write_photo("a.png"), "--draft") == 0
    (part,) = pathlib.Path("rows").glob("part-*")
    assert read_manifest(part)["draft"] is True


def test_a_wrong_request_ends_with_2(capsys):
    write_photo("photos/a.png")
    pathlib.Path("rows-pictures").mkdir()
    for arguments, message in [
        (("photos", "--target", "7"), "`--target` must be a class from 0 to 2. Received: target=7"),
        (("photo",), "`data` must name files. Received: 'photo'"),
        (("photos", "--layer", "none"), "none"),
        (("photos", "--to", "csv,pictures"), "rows-pictures, where something else lies. Rename it"),
    ]:
        assert run(*arguments) == 2
        assert message in capsys.readouterr().err
    assert not pathlib.Path("rows").exists()


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_labels_of_other_classes_are_refused_before_rows_are_removed(engine, capsys):
    if engine == "ray":
        pytest.importorskip("ray")
    write_photo("photos/a.png")
    assert run("photos") == 0
    for count in (2, 4):
        pathlib.Path("labels.txt").write_text("name\n" * count)
        assert run("photos", "--labels", "labels.txt", "--restart", "--engine", engine) == 2
        assert (
            f"`--labels` must name 3 classes, in the order of the model's outputs. Received: {count} names"
            in (capsys.readouterr().err)
        )
    assert read_ids() == ["photos/a.png"]


def test_help_names_the_exit_codes(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for words in ("130 when interrupted (Ctrl-C)", "143 when terminated", "3 when", "2 for wrong usage"):
        assert words in text


@pytest.mark.slow
@pytest.mark.usefixtures("default_signals")
@pytest.mark.skipif(os.name == "nt", reason="Windows sends no such signals to another process")
def test_a_signal_ends_a_run_and_keeps_all_rows():
    for number in range(3):
        write_photo(f"{number}.png", seed=number)
    lines = [f"{number % 3}.png,{number}" for number in range(20_000)]
    pathlib.Path("table.csv").write_text("\n".join(["path,id", *lines]))
    command = [sys.executable, "-m", "tf_gradcam", "run", "table.csv", "--model", "model.keras"]
    counts = []
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = subprocess.Popen([*command, "--out", "rows", "--batch-size", "4"], stderr=subprocess.PIPE)
        journal, begun = pathlib.Path("rows/.tf_gradcam-journal.arrows"), set()
        while len(begun) < 4:  # It has written rows.
            assert process.poll() is None, process.stderr.read()
            if journal.exists():
                begun.add(journal.stat().st_size)
            time.sleep(0.01)
        process.send_signal(number)
        error = process.communicate()[1].decode()
        assert process.returncode == code, error
        assert ("interrupted" if code == 130 else "terminated") in error
        ids = read_ids()
        assert len(ids) == len(set(ids))
        counts.append(len(ids))
        assert all(path.suffix == ".parquet" for path in pathlib.Path("rows").iterdir())
    assert 0 < counts[0] < counts[1]

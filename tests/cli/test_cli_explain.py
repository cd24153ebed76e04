"""The commands `explain` and `demo`: every photograph counts, and mistakes get one line."""

import contextlib
import errno
import importlib.util
import io
import os
import pathlib
import re
import threading
from typing import NamedTuple

import keras
import pytest
from conftest import build
from photo_files import LABELS, files, read_rows, write_photo

import tf_gradcam
from tf_gradcam._cli import main
from tf_gradcam._cli import terminal as cli_terminal
from tf_gradcam._run import Photograph, Request

pytestmark = pytest.mark.usefixtures("plain")
RESULTS = {"explanations.json", ".explanations.jsonl"}


@pytest.fixture(autouse=True)
def without_progress(monkeypatch):
    """Keep lines of progress out of what is compared, however busy the machine is."""
    monkeypatch.setattr(cli_terminal, "SECONDS_BETWEEN_LINES", 3600.0)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A folder with the small network of conftest.py in a file, and the names of its five classes."""
    folder = tmp_path_factory.mktemp("tiny")
    build("functional").save(folder / "tiny.keras")
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    return folder


@pytest.fixture(scope="module")
def tiny(model_folder):
    """Arguments for the small network."""
    model, labels = str(model_folder / "tiny.keras"), str(model_folder / "labels.txt")
    return ["--model", model, "--labels", labels, "--preprocess", "unit"]


def save(model, path="model.keras"):
    model.save(path)
    return ["--model", path]


def explain(*arguments):
    """Explain, and return the exit code: argparse raises it where `main` returns it."""
    try:
        return main(["explain", *map(str, arguments)])
    except SystemExit as error:
        return error.code


class Explained(NamedTuple):
    """What a run left: its rows without the seconds, its pictures, and what it printed."""

    out: str
    rows: list
    seconds: list
    pictures: list
    stdout: str
    stderr: str


def explain_photo(photo, *options, out="gradcam"):
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        assert explain(photo, *options) == 0
    rows = read_rows(out)
    seconds = [row.pop("seconds") for row in rows]
    pictures = [pathlib.Path(out, name).read_bytes() for name in sorted(files(out)) if "png" in name]
    return Explained(out, rows, seconds, pictures, stdout.getvalue(), stderr.getvalue())


@pytest.fixture(scope="module")
def plainly_explained(tiny, tmp_path_factory):
    """What becomes of one photograph with no options, once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("explained"))
        patch.setattr("tf_gradcam._run.model_files.SAFE_KERAS", (3, 0))
        for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            patch.delenv(name, raising=False)
        return explain_photo(write_photo("photo.png"), *tiny)


# What explain writes and says


def test_the_embedded_model_finds_the_cat_and_its_second_guess(capsys):
    folder = pathlib.Path(importlib.util.find_spec("skimage").origin).parent
    assert explain(folder / "data/chelsea.png", "--top", "2", "--out", "a") == 0
    first, second = read_rows("a")
    assert (first["label"], first["class"], first["layer"]) == ("Egyptian cat", 285, "top_activation")
    assert (second["label"], second["class"]) == ("tiger cat", 282)
    assert 0.75 < first["probability"] < 0.82
    assert first["probability"] > second["probability"]
    assert first["overlay"] == "chelsea-1-overlay.png"
    assert second["heatmap"] == "chelsea-2-heatmap.png"
    assert "Egyptian cat" in capsys.readouterr().out


def test_a_row_tells_all_there_is_to_know(plainly_explained, functional):
    row = dict(plainly_explained.rows[0])
    assert len(plainly_explained.rows) == 1
    image = tf_gradcam.load_image(write_photo("photo.png"), size=(17, 17))[None] / 255
    explanation = tf_gradcam.GradCAM(functional)(image.astype("float32"))
    index = int(explanation.target[0])
    assert plainly_explained.seconds[0] > 0
    assert row.pop("probability") == pytest.approx(float(explanation.outputs[0, index]), abs=1e-5)
    assert row.pop("score") == pytest.approx(float(explanation.score[0]), abs=1e-4)
    assert row == {
        "file": "photo.png",
        "label": LABELS[index],
        "class": index,
        "layer": "relu2",
        "method": "gradcam",
        "overlay": "photo-overlay.png",
        "heatmap": "photo-heatmap.png",
    }


def test_a_run_that_explains_nothing_says_that_no_picture_was_written(tiny, capsys):
    assert explain("missing.png", *tiny) == 1
    out = capsys.readouterr().out
    assert out.endswith("No picture was written; explanations.json is in gradcam\n")
    assert files("gradcam") == RESULTS


def test_a_broken_photograph_is_a_row_and_the_others_are_written(tiny, capsys):
    pathlib.Path("broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    pathlib.Path("notes.txt").write_text("no photograph")
    photos = [write_photo("a.png"), "broken.jpg", "notes.txt", "missing.png", write_photo("z.png")]
    assert explain(*photos, *tiny) == 1
    rows = read_rows()
    assert [row["file"] for row in rows] == photos
    assert ["error" in row for row in rows] == [False, True, True, True, False]
    pictures = {f"{name}-{kind}.png" for name in "az" for kind in ("overlay", "heatmap")}
    assert files("gradcam") == pictures | RESULTS
    out, err = capsys.readouterr()
    assert [line.split()[:2] for line in out.splitlines() if "error" in line] == [
        ["broken.jpg", "error"],
        ["notes.txt", "error"],
        ["missing.png", "error"],
    ]
    assert "tf-gradcam: error: notes.txt: `source` must be an image" in err
    assert "Traceback" not in err


def test_folders_and_globs_give_their_photographs_in_order_and_once(tiny):
    for path in ("d/b.png", "d/a.PNG", "d/deep/c.png", "e/2.png", "e/1.png"):
        write_photo(path)
    pathlib.Path("d/readme.txt").write_text("no photograph, and nobody asked for it by name")
    assert explain("e/?.png", "d", "e/1.png", "d/**/c.png", *tiny) == 0
    assert [row["file"] for row in read_rows()] == [
        "e/1.png",
        "e/2.png",
        "d/a.PNG",
        "d/b.png",
        "d/deep/c.png",
    ]


def test_what_is_skipped_in_folders_is_said_in_one_line(tiny, capsys):
    for path in ("d/cat.png", "d/deep/cat.png", "d/.cat.png", "d/.git/x.png"):
        write_photo(path)
    for path in ("d/notes.txt", "d/deep/data.csv"):
        pathlib.Path(path).touch()
    assert explain("d", *tiny, "--out", "d/out") == 0
    assert [row["file"] for row in read_rows("d/out")] == ["d/cat.png", "d/deep/cat.png"]
    assert [row["overlay"] for row in read_rows("d/out")] == ["cat-overlay.png", "cat_2-overlay.png"]
    said = "tf-gradcam: skipped files: 2 that are no photographs, 2 hidden\n"
    out, err = capsys.readouterr()
    assert err == said
    assert "skipped" not in out
    # The second time, its own pictures and its two files of rows are in the folder, too.
    assert explain("d", *tiny, "--out", "d/out") == 0
    assert [row["file"] for row in read_rows("d/out")] == ["d/cat.png", "d/deep/cat.png"]
    said = "tf-gradcam: skipped files: 3 that are no photographs, 3 hidden, 4 that tf-gradcam wrote\n"
    assert capsys.readouterr().err == f"tf-gradcam: 2 of 2 photographs were explained before\n{said}"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_among_the_photographs_holds_nothing_up(tiny, capsys):
    write_photo("d/a.png")
    os.mkfifo("d/pipe.png")
    assert explain("d", *tiny) == 1
    assert [("error" in row, row["file"]) for row in read_rows()] == [
        (False, "d/a.png"),
        (True, "d/pipe.png"),
    ]
    assert "error: d/pipe.png: `source` must be the path of an image file" in capsys.readouterr().err


def test_a_photograph_in_the_folder_of_the_pictures_is_not_replaced_by_one(tiny):
    photos = [write_photo(f"d/{name}.png", seed=seed) for seed, name in enumerate(("cat-overlay", "cat"))]
    before = pathlib.Path(photos[0]).read_bytes()
    for _ in range(2):
        assert explain("d", *tiny, "--out", "d") == 0
        assert [row["file"] for row in read_rows("d")] == photos
        assert read_rows("d")[1]["overlay"] == "cat_2-overlay.png"
        assert pathlib.Path(photos[0]).read_bytes() == before
    # A shell that expands d/*.png names the pictures of the first run.
    assert explain(*sorted(pathlib.Path("d").glob("*.png")), *tiny, "--out", "d") == 0
    assert [row["file"] for row in read_rows("d")] == photos


def test_an_empty_folder_is_an_error_row(tiny):
    pathlib.Path("empty").mkdir()
    assert explain("empty", *tiny) == 1
    assert [row["file"] for row in read_rows() if "error" in row] == ["empty"]


HOSTILE = [
    "[red]evil.png",
    ":cat: [/].png",
    "new\nline\x1b[31m.png",
    "..png",
    "-rf.png",
    "é ☕.png",
    "é" * 125 + ".png",
]


def test_a_hostile_name_is_printed_as_it_is_and_writes_nowhere_else(tiny, capsys):
    names = [name.replace("/", "_") for name in HOSTILE]
    for name in names:
        write_photo(pathlib.Path("photos", name))
    before = files(".")
    # A hidden file must be named itself.
    assert explain("photos", "photos/..png", *tiny, "--out", "photos/../out") == 0
    new = files(".") - before
    assert len(new) == 2 * len(names) + 2
    assert {os.path.dirname(path) for path in new} == {"out"}
    pictures = files("out") - RESULTS
    assert all(re.fullmatch(r"\w[\w.-]*-(overlay|heatmap)\.png", name) for name in pictures)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    for name in names:
        printed = name.replace("\n", "\\n").replace("\x1b", "\\x1b")
        assert printed in out or len(printed) > 80
    assert {row["file"] for row in read_rows("out")} == {os.path.join("photos", name) for name in names}


def test_a_label_is_no_markup(tiny, capsys):
    pathlib.Path("labels.txt").write_text("\n".join(f"[bold]{label}[/bold]" for label in LABELS))
    assert explain(write_photo("a.png"), *tiny, "--labels", "labels.txt") == 0
    assert "[bold]" in capsys.readouterr().out


def test_the_bar_shows_on_a_terminal_only_and_never_on_stdout(plainly_explained, tiny, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    explain(write_photo("a.png"), *tiny)
    terminal = capsys.readouterr()
    assert plainly_explained.stderr == ""
    assert "Loading" in terminal.err
    assert "Explaining" in terminal.err
    assert "100%" in terminal.err
    assert "Explaining" not in plainly_explained.stdout + terminal.out


def test_where_there_is_no_terminal_a_line_is_said_now_and_then(tiny, capsys, monkeypatch):
    monkeypatch.setattr(cli_terminal, "SECONDS_BETWEEN_LINES", 0.05)
    assert explain(write_photo("a.png"), write_photo("b.png"), *tiny) == 0
    out, err = capsys.readouterr()
    first, *_ = lines = err.splitlines()
    assert first == "tf-gradcam: explained 0 of 2"  # while the model is loading
    assert all(re.fullmatch(r"tf-gradcam: explained [012] of 2", line) for line in lines)
    assert "explained" not in out
    assert not [thread for thread in threading.enumerate() if "report" in thread.name]


def test_a_blank_heatmap_is_said_of_its_method_where_there_are_several(functional, capsys):
    functional.set_weights([0 * weight for weight in functional.get_weights()])
    options = [write_photo("a.png"), *save(functional)]
    assert explain(*options) == 0
    (row,) = read_rows()
    assert row["warning"] == "blank heatmap: nothing at layer relu2 speaks for class 0"
    assert f"tf-gradcam: warning: a.png: {row['warning']}" in capsys.readouterr().err
    assert explain(*options, "--method", "eigencam,gradient", "--restart") == 0
    assert capsys.readouterr().err.splitlines() == [
        "tf-gradcam: warning: a.png eigencam: blank heatmap: nothing at layer relu2 stands out",
        "tf-gradcam: warning: a.png gradient: blank heatmap: nothing in the image speaks for class 0",
    ]


def test_several_methods_are_a_row_each_and_one_picture(plainly_explained, tiny, capsys):
    photos = [write_photo("a.png"), "missing.png"]
    assert explain(*photos, *tiny, "--method", "gradcam, eigencam,gradient,gradcam", "--target", "dog") == 1
    *rows, missing = read_rows()
    assert [(row["method"], row["layer"]) for row in rows] == [
        ("gradcam", "relu2"),
        ("eigencam", "relu2"),
        ("gradient", "image"),
    ]
    assert [(row["label"], row["class"]) for row in rows] == [("dog", 3), ("every class", None), ("dog", 3)]
    assert rows[0]["score"] == rows[2]["score"]
    assert rows[0]["probability"] == rows[2]["probability"]
    assert (rows[1]["score"], rows[1]["probability"]) == (None, None)
    assert set(missing) == {"file", "error"}
    pictures = {f"a-{row['method']}-{kind}.png": row[kind] for row in rows for kind in ("overlay", "heatmap")}
    assert list(pictures) == list(pictures.values())
    assert {row["comparison"] for row in rows} == {"a-methods.png"}
    assert files("gradcam") == {*pictures, "a-methods.png", *RESULTS}
    out, err = capsys.readouterr()
    assert out.split()[:3] == ["photo", "method", "label"]
    assert err == "tf-gradcam: error: missing.png: no such file, and no file matches this pattern\n"
    assert "method" not in plainly_explained.stdout


# Options


def test_the_same_run_again_gives_the_same(plainly_explained, tiny):
    again = explain_photo(write_photo("photo.png"), *tiny)
    assert (again.out, again.rows) == (plainly_explained.out, plainly_explained.rows)
    assert again.pictures == plainly_explained.pictures


@pytest.mark.parametrize(
    "option",
    [
        ["--layer", "conv1"],
        ["--layer", "conv1", "--layer", "conv2"],
        ["--target", "4"],
        ["--top", "2"],
        ["--method", "hirescam"],
        ["--alpha", "0.9"],
        ["--no-fade"],
        ["--vmax", "9"],
        ["--contour", "0.5"],
        ["--colormap", "viridis"],
        ["--labels", "other.txt"],
        ["--preprocess", "mobilenet_v2"],
        ["--model", "other.keras"],
        ["--out", "elsewhere"],
        ["--format", "jpg"],
        ["--boxes", "0.15"],
    ],
    ids=" ".join,
)
def test_every_option_changes_something(option, plainly_explained, tiny, functional):
    pathlib.Path("other.txt").write_text("\n".join(reversed(LABELS)))
    if "other.keras" in option:
        functional.set_weights([weight / 2 for weight in functional.get_weights()])
        functional.save("other.keras")
    out = "elsewhere" if "--out" in option else "gradcam"
    changed = explain_photo(write_photo("photo.png"), *tiny, *option, out=out)
    same = plainly_explained
    assert (changed.out, changed.rows, changed.pictures) != (same.out, same.rows, same.pictures)


def overlay_of(photo, *options):
    assert explain(photo, *options, "--restart") == 0
    return pathlib.Path("gradcam", read_rows()[0]["overlay"]).read_bytes()


def test_several_layers_are_fused_as_asked(tiny):
    photo, layers = write_photo("a.png"), ["--layer", "conv1", "--layer", "relu2"]
    overlays = {overlay_of(photo, *tiny, *layers, "--fuse", fusion) for fusion in ("mean", "max")}
    assert len(overlays) == 2
    assert read_rows()[0]["layer"] == "conv1, relu2"


def test_call_chooses_a_run_of_a_layer():
    images, shared = keras.Input((9, 9, 3)), keras.layers.Conv2D(3, 3, padding="same", name="shared")
    pooled = keras.layers.GlobalAveragePooling2D()(shared(shared(images)))
    options = save(keras.Model(images, keras.layers.Dense(3)(pooled)))
    photo = write_photo("a.png")
    first, second = (overlay_of(photo, *options, "--layer", "shared", "--call", run) for run in (0, 1))
    assert first != second
    assert overlay_of(photo, *options) == second  # the default: the last run of the chain


def test_output_chooses_by_name_or_position():
    images = keras.Input((9, 9, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(images))
    animal = keras.layers.Dense(5, activation="softmax", name="animal")(pooled)
    size = keras.layers.Dense(1, name="size")(pooled)
    options = [write_photo("a.png"), *save(keras.Model(images, [animal, size])), "--preprocess", "unit"]
    pathlib.Path("labels.txt").write_text("\n".join(LABELS))
    assert explain(*options, "--output", "animal", "--target", "bee", "--labels", "labels.txt") == 0
    (row,) = read_rows()
    assert (row["class"], row["label"]) == (1, "bee")
    assert explain(*options, "--output", "1", "--restart") == 0
    assert read_rows()[0]["class"] is None
    assert explain(*options, "--restart") == 2


def test_a_preprocessing_function_comes_from_the_current_folder(tiny, functional):
    pathlib.Path("my_pixels.py").write_text("def scale(images):\n    return images[..., ::-1] / 127.5 - 1\n")
    photo = write_photo("a.png")
    assert explain(photo, *tiny[:4], "--preprocess", "my_pixels:scale") == 0
    image = tf_gradcam.load_image(photo, size=(17, 17))[None].astype("float32")
    expected = tf_gradcam.GradCAM(functional)(image[..., ::-1] / 127.5 - 1)
    assert read_rows()[0]["score"] == pytest.approx(float(expected.score[0]), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "ResNet5"], "ResNet50"),
        (["--model", "no.keras"], "no.keras, which doesn't exist"),
        (["--layer", "relu3"], "`--layer` must be a layer of the model. Received: layer='relu3'"),
        (["--layer", "relu3"], "'relu2'"),
        (["--layer", "scores"], "layer='scores'"),
        (["--fuse", "max"], "fuse='max'"),
        (["--layer", "conv1", "--layer", "conv2", "--fuse", "sum"], "fuse='sum'"),
        (["--call", "1"], "call=1"),
        (["--call", "first"], "invalid int value"),
        (["--output", "scores2"], "Output('scores2')"),
        (["--output", "1"], "from 0 to 0"),
        (["--target", "catt"], "Did you mean 'cat'"),
        (["--target", "5"], "target=5"),
        (["--target", "-1"], "Received: -1"),
        (["--top", "6"], "`--top` must be at most 5"),
        (["--top", "0"], "Received: 0"),
        (["--top", "2", "--target", "1"], "not allowed with"),
        (["--method", "camgrad"], "method='camgrad'"),
        (["--method", "gradcam,camgrad"], "'xgradcam']. Received: method='camgrad'"),
        (["--method", "gradcam,"], "method=''"),
        (["--method", "gradcam,layercam", "--top", "2"], "`--top` must be 1 with several methods"),
        (["--method", "eigencam", "--target", "1"], "eigencam, with the same map for every class"),
        (["--method", "eigencam", "--top", "2"], "eigencam, with the same map for every class"),
        (["--method", "gradient", "--layer", "conv1"], "layer='conv1'"),
        (["--method", "scorecam", "--labels", "short.txt"], "name 5 classes"),
        (["--method", "scorecam", "--top", "6"], "at most 5"),
        (["--method", "rise", "--colormap", "jett"], "colormap='jett'"),
        (["--channels", "3"], "ablationcam, scorecam, sscam, iscam. Received: gradcam"),
        (["--channels", "0", "--method", "scorecam"], "Received: 0"),
        (["--colormap", "jett"], "colormap='jett'"),
        (["--alpha", "1.5"], "alpha=1.5"),
        (["--labels", "missing.txt"], "`--labels` must be a text file"),
        (["--labels", "missing.txt"], "Received: missing.txt, which doesn't exist"),
        (["--labels", "empty.txt"], "`--labels` must be a text file with a class per line"),
        (["--labels", "empty.txt"], "Received: empty.txt, which is empty"),
        (["--labels", "latin1.txt"], "Received: latin1.txt, which is not UTF-8 at byte 6"),
        (["--labels", "short.txt"], "`--labels` must name 5 classes, one per line. Received: 2 lines"),
        (["--labels", "twice.txt", "--target", "ant"], "any of the classes [0, 1]"),
        (["--preprocess", "resnet51"], "resnet50"),
        (["--preprocess", "no_such_module:scale"], "no_such_module:scale"),
        (["--preprocess", "os:sep"], "os:sep"),
        (["--out", "short.txt"], "short.txt"),
        (["--boxes", "1"], "--boxes: must be otsu, or a number from 0 and below 1. Received: 1"),
        (["--boxes", "Otsu"], "--boxes: must be otsu, or a number from 0 and below 1. Received: Otsu"),
    ],
    ids=" ".join,
)
def test_wrong_usage_gets_one_line_and_exit_code_2(options, said, tiny, capsys):
    pathlib.Path("short.txt").write_text("ant\nbee\n")
    pathlib.Path("empty.txt").write_text("\n \n")
    pathlib.Path("latin1.txt").write_bytes(b"ant\nb\xe9e\n"[:5] + b"e\xe9\n")
    pathlib.Path("twice.txt").write_text("ant\nAnt\ncat\ndog\neel\n")
    assert explain(write_photo("a.png"), *tiny, *options) == 2
    err = capsys.readouterr().err
    *_, last = err.splitlines()
    assert last.startswith("tf-gradcam")
    assert "error: " in last
    assert said in last
    assert "Traceback" not in err
    assert not pathlib.Path("gradcam").exists()


def test_a_label_needs_labels(tiny, capsys):
    assert explain(write_photo("a.png"), *tiny[:2], "--target", "cat") == 2
    assert "Give the names of its classes: `--labels`" in capsys.readouterr().err


def test_a_model_that_takes_no_photograph_is_an_error_of_its_option(capsys):
    layers = [keras.layers.Conv1D(4, 3), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(3)]
    assert explain(write_photo("a.png"), *save(keras.Sequential([keras.Input((8, 3)), *layers]))) == 2
    assert "`--model` must take one photograph" in capsys.readouterr().err


def test_an_h5_file_explains_like_the_keras_file(plainly_explained, tiny, functional):
    functional.save("tiny.h5")
    explained = explain_photo(write_photo("photo.png"), *tiny, "--model", "tiny.h5")
    assert explained.rows[0]["score"] == pytest.approx(plainly_explained.rows[0]["score"], rel=1e-5)


# The demo


def test_the_demo_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["demo"]) == 2
    assert 'pip install "tf_gradcam[demo]"' in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_explains_real_photographs(capsys):
    assert main(["demo"]) == 0
    rows = {row["file"]: row for row in read_rows("tf_gradcam_demo")}
    labels = {file: rows[file]["label"] for file in ("chelsea.png", "coffee.png", "camera.png", "rocket.jpg")}
    assert list(labels.values()) == ["Egyptian cat", "espresso", "tripod", "missile"]
    assert len(rows) == 6
    pictures = {row[kind] for row in rows.values() for kind in ("overlay", "heatmap")}
    assert files("tf_gradcam_demo") == pictures | {"explanations.json", "contact-sheet.png"}
    assert min(tf_gradcam.load_image("tf_gradcam_demo/contact-sheet.png").shape[:2]) > 500
    out = capsys.readouterr().out
    assert all(file in out and row["label"] in out for file, row in rows.items())


def test_the_demo_replaces_no_contact_sheet_but_its_own(tiny, monkeypatch, capsys):
    photographs = [Photograph(photo, photo) for photo in (write_photo("a.png"), write_photo("b.png"))]
    monkeypatch.setattr("tf_gradcam._run.demo_photographs", lambda: photographs)
    mine = write_photo("out/contact-sheet.png")
    before = pathlib.Path(mine).read_bytes()
    for _ in range(2):
        assert main(["demo", *tiny, "--out", "out"]) == 0
        assert pathlib.Path(mine).read_bytes() == before
        assert {name for name in files("out") if "sheet" in name} == {
            "contact-sheet.png",
            "contact-sheet_2.png",
        }
    replace = os.replace

    def full_for_sheet(source, target):
        if "sheet" in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full_for_sheet)
    capsys.readouterr()
    assert main(["demo", *tiny, "--out", "other"]) == 3
    out, err = capsys.readouterr()
    assert "b.png" in out
    assert f"No space left on device: '{os.path.join('other', 'contact-sheet.png')}'" in err
    assert {row["file"] for row in read_rows("other")} == {"a.png", "b.png"}


@pytest.mark.slow
def test_the_demo_compares_methods_on_its_contact_sheet():
    assert main(["demo", "--method", "gradcam,eigencam"]) == 0
    rows = read_rows("tf_gradcam_demo")
    assert [row["method"] for row in rows] == ["gradcam", "eigencam"] * 6
    one, sheet = (
        tf_gradcam.load_image(f"tf_gradcam_demo/{name}.png").shape
        for name in ("chelsea-methods", "contact-sheet")
    )
    assert sheet[1] == one[1]
    assert sheet[0] > 6 * one[0]  # Chelsea is the widest.


def test_the_parser_and_the_library_draw_alike_by_default():
    from tf_gradcam._cli.arguments import make_parser

    arguments = make_parser().parse_args(["explain", "cat.jpg"])
    request = Request(out=pathlib.Path(arguments.out))
    asked = (arguments.alpha, arguments.colormap, arguments.fade, arguments.vmax, arguments.contour)
    assert asked == (request.alpha, request.colormap, request.fade, request.vmax, request.contour)
    for wrong in (["--vmax", "0"], ["--vmax", "inf"], ["--contour", "0.5,1"], ["--contour", "half"]):
        with pytest.raises(SystemExit):
            make_parser().parse_args(["explain", "cat.jpg", *wrong])

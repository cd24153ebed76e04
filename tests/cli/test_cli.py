"""The command line: every photograph counts, nothing is written elsewhere, and mistakes get one line."""

import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import cv2
import keras
import numpy as np
import pytest

import tf_gradcam
from tf_gradcam import methods
from tf_gradcam._cli import classifier
from tf_gradcam._cli import command_line as cli
from tf_gradcam._cli.command_line import _batches, _demo_photo, _load, _Photo, _timed, main

LABELS = ["ant", "bee", "cat", "dog", "eel"]


@pytest.fixture(autouse=True)
def plain(monkeypatch, tmp_path):
    """A terminal-free run in an empty folder, in which our own model files may be loaded by any Keras."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(classifier, "_SAFE_KERAS", (3, 0))


@pytest.fixture
def tiny(functional):
    """Arguments for the small network of conftest.py, in a file, with the names of its five classes."""
    functional.save("tiny.keras")
    pathlib.Path("labels.txt").write_text("\n".join(LABELS) + "\n")
    return ["--model", "tiny.keras", "--labels", "labels.txt", "--preprocess", "unit"]


def write_photo(path, size=(20, 30), seed=0):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    path.write_bytes(cv2.imencode(".png", pixels)[1])
    return str(path)


def save(model, path="model.keras"):
    model.save(path)
    return ["--model", path]


def explained(out="gradcam"):
    return json.loads(pathlib.Path(out, "explanations.json").read_text())


def files(folder):
    return {str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob("*") if path.is_file()}


def explain(*arguments):
    """Explain, and return the exit code: argparse raises it where `main` returns it."""
    try:
        return main(["explain", *map(str, arguments)])
    except SystemExit as error:
        return error.code


# The door


@pytest.mark.parametrize("arguments", [["--help"], ["explain", "--help"], ["--version"], ["explain"]])
def test_what_needs_no_model_does_not_wait_for_tensorflow(arguments):
    heavy = ["tensorflow", "keras", "cv2", "matplotlib", "numpy", "rich"]
    script = (
        "import sys; from tf_gradcam.cli import main\n"
        f"try: main({arguments!r})\n"
        f"finally: print('loaded:', [name for name in {heavy!r} if name in sys.modules])"
    )
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=environment()
        )
        seconds.append(time.perf_counter() - start)
    print(f"{arguments}: {min(seconds):.2f} s")
    assert done.stdout.endswith("loaded: []\n")


def environment():
    """This process's, from which an uninstalled package is found in any folder."""
    root = str(pathlib.Path(tf_gradcam.__file__).parents[1])
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "tf_gradcam", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stdout) == (0, f"tf-gradcam {tf_gradcam.__version__}\n")


# What explain writes and says


def test_the_embedded_model_finds_the_cat_and_its_second_guess(capsys):
    photo = pathlib.Path(_demo_photo("skimage", "data/chelsea.png").source)
    assert explain(photo, "--top", "2", "--out", "a") == 0
    first, second = explained("a")
    assert (first["label"], first["class"], first["layer"]) == ("Egyptian cat", 285, "top_activation")
    assert (second["label"], second["class"]) == ("tiger cat", 282)
    assert 0.75 < first["probability"] < 0.82
    assert first["probability"] > second["probability"]
    assert first["overlay"] == "chelsea-1-overlay.png"
    assert second["heatmap"] == "chelsea-2-heatmap.png"
    assert "Egyptian cat" in capsys.readouterr().out


def test_a_row_tells_all_there_is_to_know(tiny, functional):
    photo = write_photo("photo.png")
    assert explain(photo, *tiny) == 0
    (row,) = explained()
    image = tf_gradcam.load_image(photo, size=(17, 17))[None] / np.float32(255)
    explanation = tf_gradcam.GradCAM(functional)(image)
    index = int(explanation.target[0])
    assert row.pop("seconds") > 0
    assert row.pop("probability") == pytest.approx(float(explanation.outputs[0, index]), abs=1e-5)
    assert row.pop("score") == pytest.approx(float(explanation.score[0]), abs=1e-4)
    assert row == {
        "file": photo,
        "label": LABELS[index],
        "class": index,
        "layer": "relu2",
        "method": "gradcam",
        "overlay": "photo-overlay.png",
        "heatmap": "photo-heatmap.png",
    }


def test_the_pictures_are_those_of_the_library_at_the_size_of_the_photograph(tiny, functional):
    photo = write_photo("photo.png", size=(40, 23))
    explain(photo, *tiny, "--alpha", "0.7", "--colormap", "turbo", "--fade")
    image = tf_gradcam.load_image(photo, size=(17, 17)) / np.float32(255)
    heatmap = tf_gradcam.make_gradcam_heatmap(functional, image, size=(40, 23))
    overlay = tf_gradcam.overlay(photo, heatmap, alpha=0.7, colormap="turbo", fade=True)
    written = [tf_gradcam.load_image(f"gradcam/photo-{kind}.png") for kind in ("heatmap", "overlay")]
    for picture, expected in zip(written, [tf_gradcam.colorize(heatmap, "turbo"), overlay], strict=True):
        assert picture.shape == (40, 23, 3)
        # A heatmap of another batch may differ in its last bit, and the colour by one step.
        assert np.abs(picture.astype(int) - expected).max() <= 4


def test_the_pictures_can_be_jpeg_files(tiny):
    options = [write_photo("photo.png", size=(40, 23)), *tiny]
    explain(*options)
    explain(*options, "--format", "jpg", "--out", "small")
    (row,) = json.loads(pathlib.Path("small/explanations.json").read_text())
    assert [row["overlay"], row["heatmap"]] == ["photo-overlay.jpg", "photo-heatmap.jpg"]
    for kind in ("overlay", "heatmap"):
        written = pathlib.Path(f"small/photo-{kind}.jpg")
        assert written.read_bytes().startswith(b"\xff\xd8\xff")
        exact = tf_gradcam.load_image(f"gradcam/photo-{kind}.png")
        lossy = tf_gradcam.load_image(written)
        assert (lossy != exact).any()
        # The photograph is noise, of which only the mean colour outlives the compression.
        np.testing.assert_allclose(lossy.mean((0, 1)), exact.mean((0, 1)), atol=4)


def test_a_broken_photograph_is_a_row_and_the_others_are_written(tiny, capsys):
    pathlib.Path("broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    pathlib.Path("notes.txt").write_text("no photograph")
    photos = [write_photo("a.png"), "broken.jpg", "notes.txt", "missing.png", write_photo("z.png")]
    assert explain(*photos, *tiny) == 1
    rows = explained()
    assert [row["file"] for row in rows] == photos
    assert ["error" in row for row in rows] == [False, True, True, True, False]
    pictures = {f"{name}-{kind}.png" for name in "az" for kind in ("overlay", "heatmap")}
    assert files("gradcam") == pictures | {"explanations.json"}
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
    assert [row["file"] for row in explained()] == [
        "e/1.png",
        "e/2.png",
        "d/a.PNG",
        "d/b.png",
        "d/deep/c.png",
    ]


def test_an_empty_folder_is_an_error_row(tiny):
    pathlib.Path("empty").mkdir()
    assert explain("empty", *tiny) == 1
    assert [row["file"] for row in explained() if "error" in row] == ["empty"]


def test_photographs_of_one_name_do_not_overwrite_each_other(tiny):
    photos = [write_photo(path) for path in ("c/CAT.png", "a/cat.png", "b/cat.png", "cat_2.png")]
    assert explain(*photos, *tiny) == 0
    overlays = [row["overlay"] for row in explained()]
    assert overlays == [f"{name}-overlay.png" for name in ("CAT", "cat_2", "cat_3", "cat_2_2")]
    assert set(overlays) < files("gradcam")
    assert explain(*photos, *tiny, "--out", "again") == 0
    assert [row["overlay"] for row in explained("again")] == overlays


HOSTILE = [
    "[red]evil.png",
    ":cat: [/].png",
    "new\nline\x1b[31m.png",
    "..png",
    "-rf.png",
    "é ☕.png",
    "é" * 125 + ".png",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_printed_as_it_is_and_writes_nowhere_else(name, tiny, capsys):
    write_photo(pathlib.Path("photos", name.replace("/", "_")))
    before = files(".")
    assert explain("photos", *tiny, "--out", "photos/../out") == 0
    new = files(".") - before
    assert len(new) == 3
    assert {os.path.dirname(path) for path in new} == {"out"}
    pictures = files("out") - {"explanations.json"}
    assert all(re.fullmatch(r"\w[\w.-]*-(overlay|heatmap)\.png", name) for name in pictures)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    printed = name.replace("/", "_").replace("\n", "\\n").replace("\x1b", "\\x1b")
    assert printed in out or len(printed) > 80
    assert explained("out")[0]["file"] == os.path.join("photos", name.replace("/", "_"))


def test_a_label_is_no_markup(tiny, capsys):
    pathlib.Path("labels.txt").write_text("\n".join(f"[bold]{label}[/bold]" for label in LABELS))
    assert explain(write_photo("a.png"), *tiny) == 0
    assert "[bold]" in capsys.readouterr().out


def test_the_bar_shows_on_a_terminal_only_and_never_on_stdout(tiny, capsys, monkeypatch):
    photo = write_photo("a.png")
    explain(photo, *tiny)
    quiet = capsys.readouterr()
    monkeypatch.setenv("FORCE_COLOR", "1")
    explain(photo, *tiny)
    terminal = capsys.readouterr()
    assert quiet.err == ""
    assert "Explaining" in terminal.err
    assert "100%" in terminal.err
    assert "Explaining" not in quiet.out + terminal.out


def test_an_interrupted_run_leaves_no_json_not_even_an_old_one(tiny, monkeypatch, capsys):
    photos = [write_photo("a.png"), write_photo("b.png")]
    assert explain(*photos, *tiny) == 0
    load = _load

    def interrupted(photo):
        if photo.file == "b.png":
            raise KeyboardInterrupt
        return load(photo)

    monkeypatch.setattr(cli, "_load", interrupted)
    assert explain(*photos, *tiny) == 130
    assert not any("json" in name for name in files("gradcam"))
    assert "a-overlay.png" in files("gradcam")
    assert capsys.readouterr().err == "tf-gradcam: error: interrupted\n"


def test_a_blank_heatmap_is_said(functional, capsys):
    functional.set_weights([0 * weight for weight in functional.get_weights()])
    assert explain(write_photo("a.png"), *save(functional)) == 0
    (row,) = explained()
    assert row["warning"] == "blank heatmap: nothing at layer relu2 speaks for class 0"
    assert f"tf-gradcam: warning: a.png: {row['warning']}" in capsys.readouterr().err


# Several methods


def test_several_methods_are_a_row_each_and_one_picture(tiny, capsys):
    photos = [write_photo("a.png"), "missing.png"]
    assert explain(*photos, *tiny, "--method", "gradcam, eigencam,gradient,gradcam", "--target", "dog") == 1
    *rows, missing = explained()
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
    assert files("gradcam") == {*pictures, "a-methods.png", "explanations.json"}
    out, err = capsys.readouterr()
    assert out.split()[:3] == ["photo", "method", "label"]
    assert err == "tf-gradcam: error: missing.png: no photograph is there, and none matches\n"


def test_a_method_among_several_draws_what_it_draws_alone(tiny, capsys):
    options = [write_photo("a.png"), *tiny, "--layer", "conv1"]
    assert explain(*options, "--method", "layercam,gradient_x_input", "--out", "both") == 0
    capsys.readouterr()
    assert explain(*options, "--method", "layercam", "--out", "alone") == 0
    assert "method" not in capsys.readouterr().out
    for kind in ("overlay", "heatmap"):
        alone = pathlib.Path(f"alone/a-{kind}.png").read_bytes()
        assert pathlib.Path(f"both/a-layercam-{kind}.png").read_bytes() == alone
        assert pathlib.Path(f"both/a-gradient_x_input-{kind}.png").read_bytes() != alone


@pytest.mark.slow
def test_a_comparison_wraps_into_rows_and_cuts_no_title(tiny):
    labels = [f"${label}$ whose name is so long that it stands in two lines or more" for label in LABELS]
    pathlib.Path("labels.txt").write_text("\n".join(labels))
    shapes = []
    for names in ("gradcam,layercam", "gradcam,layercam,eigencam,hirescam,gradient"):
        assert explain(write_photo("a.png", size=(30, 30)), *tiny, "--method", names) == 0
        picture = tf_gradcam.load_image("gradcam/a-methods.png")
        edges = [picture[0], picture[-1], picture[:, 0], picture[:, -1]]
        assert all((edge == 255).all() for edge in edges)
        shapes.append(picture.shape)
    one_row, two_rows = shapes  # of 3 panels each
    assert two_rows[1] == one_row[1]
    assert 1.8 * one_row[0] < two_rows[0] < 2 * one_row[0]


@pytest.mark.slow
def test_a_budget_of_channels_changes_the_map_of_the_methods_that_have_one(tiny):
    photo, several = write_photo("a.png"), ["--method", "gradcam,scorecam"]

    def overlays(*options):
        assert explain(photo, *tiny, *several, *options) == 0
        return [pathlib.Path("gradcam", row["overlay"]).read_bytes() for row in explained()]

    all_channels, one_channel = overlays(), overlays("--channels", "1")
    assert all_channels[0] == one_channel[0]
    assert all_channels[1] != one_channel[1]


@pytest.mark.parametrize(("method", "expected"), [("gradcam", [1, 0, 0]), ("scorecam", [0, 0])])
def test_what_takes_seconds_is_compiled_but_not_run_before_the_first_photograph(
    method, expected, tiny, monkeypatch
):
    compiled, timed = [], _timed

    def spy(cam, *args, **kwargs):
        before = len(cam._explainer._traces)
        answer = timed(cam, *args, **kwargs)
        compiled.append(len(cam._explainer._traces) - before)
        return answer

    monkeypatch.setattr(cli, "_timed", spy)
    photos = [write_photo("a.png"), write_photo("b.png", size=(21, 30))]  # of two sizes: two passes
    assert explain(*photos, *tiny, "--method", method) == 0
    assert compiled == expected


@pytest.mark.slow
def test_photographs_of_one_size_are_explained_together_with_the_answers_of_each_alone(tiny, monkeypatch):
    batches, timed = [], _timed

    def spy(cam, images, *args, **kwargs):
        batches.append(len(images))
        return timed(cam, images, *args, **kwargs)

    photos = [write_photo(f"{i}.png", (20, 30 + (i % 3 == 0)), seed=i) for i in range(20)]
    assert explain(*photos, *tiny, "--top", "2", "--out", "together") == 0
    monkeypatch.setattr(cli, "_timed", spy)
    assert explain(*photos, *tiny, "--top", "2", "--out", "again") == 0
    # The rehearsal, 16 of two sizes, and the last 4; both classes of each.
    assert batches == [1, 1, 6, 6, 10, 10, 3, 3, 1, 1]
    monkeypatch.setattr(cli, "_BATCH", 1)
    assert explain(*photos, *tiny, "--top", "2", "--out", "alone") == 0
    assert [row["file"] for row in explained("together")] == [photo for photo in photos for _ in range(2)]
    for one, other in zip(explained("together"), explained("alone"), strict=True):
        assert one.pop("seconds") >= 0
        assert other.pop("seconds") >= 0
        assert one.pop("score") == pytest.approx(other.pop("score"), abs=1e-5)
        assert one.pop("probability") == pytest.approx(other.pop("probability"), abs=1e-6)
        assert one == other
        for kind in ("overlay", "heatmap"):
            one_picture, other_picture = (
                cv2.imread(str(pathlib.Path(out, one[kind]))).astype(int) for out in ("together", "alone")
            )
            # A rounded value may fall into the next of 256 colours.
            assert np.abs(one_picture - other_picture).max() <= 6


def test_a_photograph_that_can_not_be_explained_spoils_no_other_of_its_batch(tiny):
    pathlib.Path("moody.py").write_text(
        "def see(images):\n    assert images.min() < 255, 'all white'\n    return images / 255\n"
    )
    photos = [write_photo(f"{i}.png", seed=i) for i in range(6)]
    cv2.imwrite(photos[2], np.full((20, 30, 3), 255, np.uint8))
    assert explain(*photos, *tiny[:-1], "moody:see") == 1
    assert [row.get("error") for row in explained()] == [None, None, "all white", None, None, None]
    assert len(files("gradcam")) == 5 * 2 + 1


def test_large_photographs_are_read_and_explained_a_few_at_a_time():
    sizes = [(20, 30)] * 7 + [(40, 60), (20, 30), (20, 30)]
    paths = [write_photo(f"{i}.png", size, seed=i) for i, size in enumerate(sizes)]
    pathlib.Path("no.png").write_bytes(b"no photograph")
    photos = [(_Photo(path, path), path) for path in [*paths, "no.png"]]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        batches = list(_batches(photos, pool, most=4, pixels=3 * 20 * 30))
    assert [len(batch) for batch in batches] == [3, 3, 1, 1, 3]
    assert [each.name for batch in batches for each in batch] == [*paths, "no.png"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--top", "2"], [4, 4, 2, 2]),  # two heatmaps of each photograph
        (["--method", "gradcam,hirescam"], [4, 4, 2, 2]),
        (["--method", "rise"], [1] * 6),  # takes seconds: they come one by one
    ],
    ids=str,
)
def test_batches_are_smaller_where_a_photograph_takes_more(tiny, monkeypatch, options, expected):
    batches, timed = [], _timed

    def spy(cam, images, *args, **kwargs):
        batches.append(len(images))
        return timed(cam, images, *args, **kwargs)

    monkeypatch.setattr(cli, "_PIXELS", 8 * 20 * 30)
    monkeypatch.setattr(cli, "_timed", spy)
    photos = [write_photo(f"{i}.png", seed=i) for i in range(6)]
    assert explain(*photos, *tiny, *options) == 0
    assert batches[-len(expected) :] == expected


def test_a_blank_heatmap_is_said_of_its_method(functional, capsys):
    functional.set_weights([0 * weight for weight in functional.get_weights()])
    options = [*save(functional), "--method", "eigencam,gradient"]
    assert explain(write_photo("a.png"), *options) == 0
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "tf-gradcam: warning: a.png eigencam: blank heatmap: nothing at layer relu2 stands out",
        "tf-gradcam: warning: a.png gradient: blank heatmap: nothing in the image speaks for class 0",
    ]


# Options


@pytest.mark.parametrize(
    "option",
    [
        ["--layer", "conv1"],
        ["--layer", "conv1", "--layer", "conv2"],
        ["--target", "4"],
        ["--top", "2"],
        ["--method", "hirescam"],
        ["--alpha", "0.9"],
        ["--fade"],
        ["--colormap", "viridis"],
        ["--labels", "other.txt"],
        ["--preprocess", "mobilenet_v2"],
        ["--model", "other.keras"],
        ["--out", "elsewhere"],
    ],
    ids=" ".join,
)
def test_every_option_changes_something(option, tiny, functional):
    def result(*options):
        assert explain(photo, *tiny, *options) == 0
        out = "elsewhere" if "--out" in options else "gradcam"
        rows = [{**row, "seconds": 0} for row in explained(out)]
        return (
            out,
            rows,
            [pathlib.Path(out, name).read_bytes() for name in sorted(files(out)) if "png" in name],
        )

    photo = write_photo("photo.png")
    pathlib.Path("other.txt").write_text("\n".join(reversed(LABELS)))
    functional.set_weights([weight / 2 for weight in functional.get_weights()])
    functional.save("other.keras")
    assert result() == result()
    assert result() != result(*option)


def overlay_of(photo, *options):
    assert explain(photo, *options) == 0
    return pathlib.Path("gradcam", explained()[0]["overlay"]).read_bytes()


def test_several_layers_are_named_in_the_row_and_fused_as_asked(tiny):
    photo, layers = write_photo("a.png"), ["--layer", "conv1", "--layer", "relu2"]
    overlays = {overlay_of(photo, *tiny, *layers, "--fuse", fusion) for fusion in ("mean", "max")}
    assert len(overlays) == 2
    assert explained()[0]["layer"] == "conv1, relu2"


def test_call_chooses_a_run_of_a_layer(capsys):
    images, shared = keras.Input((9, 9, 3)), keras.layers.Conv2D(3, 3, padding="same", name="shared")
    pooled = keras.layers.GlobalAveragePooling2D()(shared(shared(images)))
    options = save(keras.Model(images, keras.layers.Dense(3)(pooled)))
    photo = write_photo("a.png")
    first, second = (overlay_of(photo, *options, "--layer", "shared", "--call", run) for run in (0, 1))
    assert first != second
    assert overlay_of(photo, *options) == second  # the default: the last run of the chain
    assert main(["layers", *options]) == 0
    assert "shared Conv2D 9 x 9 x 3 runs 2 times, default" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("outputs", [list, dict])
def test_output_chooses_among_several_outputs(outputs):
    images = keras.Input((9, 9, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(images))
    heads = {
        "animal": keras.layers.Dense(5, activation="softmax", name="animal")(pooled),
        "size": keras.layers.Dense(1, name="size")(pooled),
    }
    options = save(keras.Model(images, heads if outputs is dict else list(heads.values())))
    options += ["--preprocess", "unit"]
    photo = write_photo("a.png")
    pathlib.Path("labels.txt").write_text("\n".join(LABELS))
    assert explain(photo, *options, "--output", "animal", "--target", "bee", "--labels", "labels.txt") == 0
    (row,) = explained()
    assert (row["class"], row["label"]) == (1, "bee")
    assert 0 < row["probability"] < 1
    assert explain(photo, *options, "--output", "1") == 0
    assert explained()[0]["class"] is None
    assert explain(photo, *options) == 2


def test_a_segmentation_is_explained_by_class():
    images = keras.Input((8, 8, 3))
    features = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="features")(images)
    model = keras.Model(images, keras.layers.Conv2D(3, 1, activation="softmax")(features))
    assert explain(write_photo("a.png"), *save(model), "--target", "1") == 0
    (row,) = explained()
    assert (row["class"], row["layer"]) == (1, "features")


@pytest.mark.parametrize("target", ["3", "dog", "DoG"])
def test_a_target_is_an_index_or_a_label_in_any_case(target, tiny):
    assert explain(write_photo("a.png"), *tiny, "--target", target) == 0
    assert [(row["class"], row["label"]) for row in explained()] == [(3, "dog")]


def test_top_explains_the_best_classes_from_the_best_down(tiny):
    assert explain(write_photo("a.png"), *tiny, "--top", "5") == 0
    rows = explained()
    assert sorted(row["class"] for row in rows) == [0, 1, 2, 3, 4]
    probabilities = [row["probability"] for row in rows]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert [row["overlay"] for row in rows] == [f"a-{rank}-overlay.png" for rank in range(1, 6)]


def test_a_preprocessing_function_comes_from_the_current_folder(tiny):
    pathlib.Path("my_pixels.py").write_text("def scale(images):\n    return images[..., ::-1] / 127.5 - 1\n")
    photo = write_photo("a.png")
    assert explain(photo, *tiny[:4], "--preprocess", "my_pixels:scale") == 0
    image = tf_gradcam.load_image(photo, size=(17, 17))[None].astype("float32")
    model = keras.models.load_model("tiny.keras")
    expected = tf_gradcam.GradCAM(model)(image[..., ::-1] / 127.5 - 1)
    assert explained()[0]["score"] == pytest.approx(float(expected.score[0]), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "ResNet5"], "ResNet50"),
        (["--model", "no.keras"], "no.keras, which doesn't exist"),
        (["--layer", "relu3"], "'relu2'"),
        (["--layer", "scores"], "layer='scores'"),
        (["--fuse", "max"], "fuse='max'"),
        (["--layer", "conv1", "--layer", "conv2", "--fuse", "sum"], "fuse='sum'"),
        (["--call", "1"], "call=1"),
        (["--call", "first"], "invalid int value"),
        (["--output", "scores2"], "Output('scores2')"),
        (["--output", "1"], "from 0 to 0"),
        (["--target", "catt"], "Did you mean cat"),
        (["--target", "5"], "target=5"),
        (["--target", "-1"], "Received: -1"),
        (["--top", "6"], "at most 5"),
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
        (["--labels", "missing.txt"], "missing.txt"),
        (["--labels", "short.txt"], "name 5 classes, one per line. Received: 2 lines"),
        (["--labels", "twice.txt", "--target", "ant"], "any of the classes [0, 1]"),
        (["--preprocess", "resnet51"], "resnet50"),
        (["--preprocess", "no_such_module:scale"], "no_such_module:scale"),
        (["--preprocess", "os:sep"], "os:sep"),
        (["--out", "short.txt"], "short.txt"),
    ],
    ids=" ".join,
)
def test_wrong_usage_gets_one_line_and_exit_code_2(options, said, tiny, capsys):
    pathlib.Path("short.txt").write_text("ant\nbee\n")
    pathlib.Path("twice.txt").write_text("ant\nAnt\ncat\ndog\neel\n")
    assert explain(write_photo("a.png"), *tiny, *options) == 2
    err = capsys.readouterr().err
    *_, last = err.splitlines()
    assert last.startswith("tf-gradcam")
    assert "error: " in last
    assert said in last
    assert "Traceback" not in err
    assert not pathlib.Path("gradcam").exists()


def test_a_label_needs_labels(functional, capsys):
    assert explain(write_photo("a.png"), *save(functional), "--target", "cat") == 2
    assert "--labels FILE" in capsys.readouterr().err


# Models


def head(units, activation, side=8, channels=3):
    """Return a small network that ends in `units`."""
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Conv2D(4, 3, name="conv"), keras.layers.GlobalAveragePooling2D()]
    return keras.Sequential(
        [keras.Input((side, side, channels)), *layers, keras.layers.Dense(units, activation=activation)]
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_one_sigmoid_unit_has_two_labels_whose_probabilities_sum_to_one(sign):
    model = head(1, "sigmoid")
    model.layers[-1].set_weights([0 * model.layers[-1].kernel, sign * np.ones(1)])
    pathlib.Path("labels.txt").write_text("no\nyes\n")
    options = [*save(model), "--labels", "labels.txt", "--preprocess", "unit"]
    assert explain(write_photo("a.png"), *options, "--top", "2") == 0
    first, second = explained()
    assert (first["label"], second["label"]) == (("yes", "no") if sign > 0 else ("no", "yes"))
    assert first["probability"] == pytest.approx(1 / (1 + np.exp(-1)))
    assert first["probability"] + second["probability"] == pytest.approx(1)


@pytest.mark.parametrize(("units", "label"), [(3, "class "), (1, "output")])
def test_a_model_without_softmax_has_no_probabilities(units, label):
    assert explain(write_photo("a.png"), *save(head(units, None)), "--preprocess", "unit") == 0
    (row,) = explained()
    assert row["probability"] is None
    assert row["label"].startswith(label)


def test_a_grey_model_sees_grey():
    assert explain(write_photo("a.png"), *save(head(3, "softmax", channels=1))) == 0


def test_a_model_with_channels_first_sees_the_same():
    def model(data_format, shape):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Conv2D(4, 3, data_format=data_format)]
        layers += [keras.layers.GlobalAveragePooling2D(data_format=data_format), keras.layers.Dense(3)]
        return keras.Sequential([keras.Input(shape), *layers])

    photo = write_photo("a.png")
    last = overlay_of(photo, *save(model("channels_last", (9, 12, 3))), "--preprocess", "unit")
    assert overlay_of(photo, *save(model("channels_first", (3, 9, 12))), "--preprocess", "unit") == last


def test_a_model_that_takes_no_photograph_is_left_to_python(capsys):
    assert explain(write_photo("a.png"), *save(head(3, "softmax", channels=13))) == 2
    assert "`--model` must take one photograph" in capsys.readouterr().err


def test_a_model_of_no_fixed_size_sees_the_photograph_in_its_proportions():
    pathlib.Path("spy.py").write_text(
        "SEEN = []\ndef see(images):\n    SEEN.append(images.shape)\n    return images\n"
    )
    photos = [write_photo("long.png", size=(40, 2048)), write_photo("small.png", size=(9, 11))]
    assert explain(*photos, *save(head(3, "softmax", side=None)), "--preprocess", "spy:see") == 0
    assert sys.modules.pop("spy").SEEN[-2:] == [(1, 10, 512, 3), (1, 9, 11, 3)]


def test_an_h5_file_explains_like_the_keras_file(tiny, functional):
    functional.save("tiny.h5")
    photo = write_photo("a.png")
    scores = []
    for path in ("tiny.keras", "tiny.h5"):
        assert explain(photo, *tiny, "--model", path) == 0
        scores.append(explained()[0]["score"])
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


# Exports


@pytest.mark.slow
def test_an_exported_model_is_checked_with_a_photograph(tiny, capsys):
    options = ["--layer", "conv2", "--method", "hirescam", "--top-k", "2", "--frozen"]
    assert main(["export", *tiny, *options, "--out", "served"]) == 0
    assert "is written" in capsys.readouterr().out
    manifest = json.loads(pathlib.Path("served/1/assets.extra/gradcam.json").read_text("utf-8"))
    assert (manifest["layer"], manifest["method"]) == (["conv2"], "tf_gradcam.methods.hirescam")
    assert (manifest["labels"], manifest["top_k"], manifest["frozen"]) == (LABELS, 2, True)
    photo = write_photo("photo.png")
    for folder in ("served", "served/1"):
        assert main(["serve-check", folder, photo, "--out", "looked"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        for name in (
            "serve",
            "serving_default",
            "gradcam",
            "gradcam_class",
            "gradcam_top_k",
            "gradcam_bytes",
        ):
            assert re.search(rf"^ *{name} .*\d\.\d{{3}} *$", out, re.MULTILINE)
    assert files("looked") == {"photo-served.png"}
    # Five heatmaps, that of the best class twice: a row of the picture each.
    height, width, _ = tf_gradcam.load_image("looked/photo-served.png").shape
    assert height > width


def test_the_newest_version_is_checked(tiny, capsys, monkeypatch):
    monkeypatch.setattr("tensorflow.saved_model.load", lambda path: pytest.fail(f"loaded {path}"))
    for number in ("9", "10", "notes"):
        pathlib.Path("served", number).mkdir(parents=True)
    with pytest.raises(pytest.fail.Exception, match="loaded served.10"):
        main(["serve-check", "served", write_photo("photo.png")])


@pytest.mark.slow
def test_a_signature_that_fails_leaves_the_others(tiny, capsys, monkeypatch):
    main(["export", *tiny, "--out", "served"])
    monkeypatch.setattr(cli, "_fitted", lambda image, spec: 1 / 0)  # What takes pixels, fails.
    assert main(["serve-check", "served", write_photo("photo.png")]) == 1
    out, err = capsys.readouterr()
    assert "gradcam_bytes" in out
    assert "error: gradcam_class: division by zero\n" in err


def test_a_folder_with_no_version_is_refused(capsys):
    assert main(["serve-check", ".", write_photo("photo.png")]) == 2
    assert "`DIR` must be a model's folder of versions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--out", "cat.onnx"], "`path` must be a folder of the model's versions for format='tensorflow'"),
        (["--out", "cat.onnx", "--format", "onnx", "--top-k", "2"], "`--top-k` is for --format tensorflow"),
        (["--out", "cat.onnx", "--format", "onnx", "--frozen"], "`--frozen` is for --format tensorflow"),
        (["--out", "cat", "--format", "onnx"], "`path` must end in '.onnx'"),
        (["--out", "served", "--layer", "conv9"], "`layer` must"),
        (
            ["--out", "served", "--preprocess", "rooted:root"],
            "`preprocess`, `target` and `method` must be TensorFlow's operations",
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


def test_a_file_with_no_preprocessing_takes_what_its_model_takes(tiny):
    assert main(["export", *tiny[:2], "--out", "served"]) == 0
    import tensorflow as tf

    signature = tf.saved_model.load("served/1").signatures["gradcam"]
    (spec,) = signature.structured_input_signature[1].values()
    assert (spec.dtype, spec.shape.as_list()) == (tf.float32, [None, 17, 17, 3])


# The other commands


def test_layers_lists_them_in_order_and_marks_the_default(tiny, capsys):
    assert main(["layers", *tiny[:2]]) == 0
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert rows[-4:-1] == ["conv1 Conv2D 8 x 8 x 8", "conv2 Conv2D 8 x 8 x 6", "relu2 ReLU 8 x 8 x 6 default"]


def test_methods_lists_each_in_one_line_with_cost_and_paper(capsys):
    assert main(["methods"]) == 0
    out, err = capsys.readouterr()
    lines = [" ".join(line.split()) for line in out.splitlines()]
    for name, about in methods.METHODS.items():
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert line.startswith(f"{name} {about.cost} {'yes' if about.signed else 'no'} ")
        assert line.endswith(f" {about.paper}")
    assert {"gradcam 1 yes layer Selvaraju 2017", "gradient 2.5 no image Simonyan 2014"} <= set(lines)
    assert "eigencam 1 no layer, every class Muhammad & Yeasin 2020" in lines
    assert err == ""


def test_the_demo_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    assert main(["demo"]) == 2
    assert 'pip install "tf_gradcam[demo]"' in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_explains_real_photographs(capsys):
    assert main(["demo"]) == 0
    rows = {row["file"]: row for row in explained("tf_gradcam_demo")}
    labels = {file: rows[file]["label"] for file in ("chelsea.png", "coffee.png", "camera.png", "rocket.jpg")}
    assert list(labels.values()) == ["Egyptian cat", "espresso", "tripod", "missile"]
    assert len(rows) == 6
    pictures = {row[kind] for row in rows.values() for kind in ("overlay", "heatmap")}
    assert files("tf_gradcam_demo") == pictures | {"explanations.json", "contact-sheet.png"}
    assert min(tf_gradcam.load_image("tf_gradcam_demo/contact-sheet.png").shape[:2]) > 500
    out = capsys.readouterr().out
    assert all(file in out and row["label"] in out for file, row in rows.items())


@pytest.mark.slow
def test_the_demo_compares_methods_on_its_contact_sheet():
    assert main(["demo", "--method", "gradcam,eigencam"]) == 0
    rows = explained("tf_gradcam_demo")
    assert [row["method"] for row in rows] == ["gradcam", "eigencam"] * 6
    one, sheet = (
        tf_gradcam.load_image(f"tf_gradcam_demo/{name}.png").shape
        for name in ("chelsea-methods", "contact-sheet")
    )
    assert sheet[1] == one[1]
    assert sheet[0] > 6 * one[0]  # Chelsea is the widest.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("photo", "box"),
    [
        ("data/chelsea.png", (0.1, 0.9, 0.1, 0.85)),
        ("data/coffee.png", (0, 0.8, 0.2, 0.8)),
        ("data/camera.png", (0.3, 1, 0.3, 1)),
        ("data/rocket.jpg", (0.2, 0.9, 0.2, 0.8)),
    ],
)
def test_the_heatmap_sits_on_the_thing(photo, box, lite0):
    image = _load(_demo_photo("skimage", photo))
    pixels = tf_gradcam.pretrained.preprocess(tf_gradcam.load_image(image, size=(224, 224)))
    heatmap = tf_gradcam.make_gradcam_heatmap(lite0, pixels, size=(100, 100))
    top, bottom, left, right = (round(100 * edge) for edge in box)
    hot = heatmap > 0.5
    assert hot[top:bottom, left:right].sum() > 0.9 * hot.sum()

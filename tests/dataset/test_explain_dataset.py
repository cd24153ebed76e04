"""`explain_dataset`: each image once, the same maps as the explainer's, whatever ends the run."""

import csv
import os
import pathlib
import subprocess
import sys
import time

import cv2
import keras
import numpy as np
import pyarrow.dataset as pds
import pytest
import tensorflow as tf
from photo_files import head, write_photo

import tf_gradcam
from tf_gradcam import targets
from tf_gradcam._dataset import DatasetOptions
from tf_gradcam._dataset.manifest import make_manifest
from tf_gradcam._dataset.parts import read_manifest
from tf_gradcam._dataset.rows import RowsAbout

LABELS = ["ant", "bee", "cat"]


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def cam():
    return tf_gradcam.GradCAM(head(3, "softmax"), preprocess=lambda images: images / 255)


def read_rows(out="rows"):
    return pds.dataset(out, format="parquet").to_table().to_pylist()


def by_id(out="rows"):
    rows = read_rows(out)
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows), "an image has two rows"
    return found


def test_each_row_holds_what_the_explainer_answers(cam):
    for number in range(5):
        write_photo(f"photos/{number}.png", (16, 24), seed=number)
    pathlib.Path("photos/broken.png").write_bytes(b"no photograph")
    run = tf_gradcam.explain_dataset(cam, "photos", "rows", labels=LABELS, dtype="float32", batch_size=2)
    assert run[1:] == (5, 1, 0)
    rows = by_id()
    assert "must be an image" in rows["photos/broken.png"]["error"]
    for number in range(5):
        row = rows[f"photos/{number}.png"]
        image = tf_gradcam.load_image(row["path"], size=(8, 8))
        expected = cam(image, size=None)
        signed = np.array(row["map"]).reshape(6, 6) * row["map_scale"]
        np.testing.assert_allclose(signed, expected.map[0], atol=1e-6)
        assert row["target"] == int(expected.target[0])
        assert row["label"] == LABELS[row["target"]]
        assert row["score"] == pytest.approx(float(expected.score[0]), abs=1e-5)
        assert row["probability"] == pytest.approx(float(expected.outputs[0].numpy().max()), abs=1e-6)
        assert [each["class"] for each in row["top"]] == list(np.argsort(expected.outputs[0])[::-1])
        assert (row["height"], row["width"], row["error"]) == (16, 24, None)
        assert 0 <= row["peak"][0] <= 24
        assert 0 <= row["peak"][1] <= 16


def test_maps_in_float16_are_on_one_scale(cam):
    paths = [write_photo(f"{number}.png", (16, 24), seed=number) for number in range(3)]
    tf_gradcam.explain_dataset(cam, paths, "wide", dtype="float32")
    tf_gradcam.explain_dataset(cam, paths, "narrow")
    for name, wide in by_id("wide").items():
        narrow = by_id("narrow")[name]
        maps = [np.array(row["map"], np.float32) * row["map_scale"] for row in (wide, narrow)]
        np.testing.assert_allclose(maps[1], maps[0], atol=6e-4 * np.abs(maps[0]).max())


def test_a_run_goes_on_where_it_ended(cam):
    for number in range(3):
        write_photo(f"photos/{number}.png", seed=number)
    tf_gradcam.explain_dataset(cam, "photos", "rows")
    write_photo("photos/sub/3.png", seed=3)
    assert tf_gradcam.explain_dataset(cam, "photos", "rows")[1:] == (1, 0, 3)
    assert set(by_id()) == {*(f"photos/{number}.png" for number in range(3)), "photos/sub/3.png"}
    with pytest.raises(ValueError, match=r"where target was None, and is '1'"):
        tf_gradcam.explain_dataset(cam, "photos", "rows", target=1)
    assert tf_gradcam.explain_dataset(cam, "photos", "rows", target=1, restart=True).explained == 4


@pytest.mark.parametrize("method", ["gradcam", tf_gradcam.methods.smooth("layercam"), lambda a, g: a[..., 0]])
def test_a_manifest_is_the_same_in_another_process(method):
    cam = tf_gradcam.GradCAM(head(3, "softmax"), method=method)
    tf_gradcam.explain_dataset(cam, [write_photo("0.png")], "rows")
    (part,) = pathlib.Path("rows").glob("*.parquet")
    assert " at 0x" not in str(read_manifest(part)), "an address"


def test_a_table_names_paths_targets_and_ids(cam):
    for number in range(3):
        write_photo(f"data/{number}.png", seed=number)
    with open("data/table.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [("path", "target", "id"), ("0.png", 2, "x"), ("1.png", "", "y"), ("2.png", 0, "z")]
        )
    tf_gradcam.explain_dataset(cam, "data/table.csv", "rows")
    rows = by_id()
    assert [rows[name]["target"] for name in "xz"] == [2, 0]
    assert rows["y"]["target"] in range(3)
    pathlib.Path("list.txt").write_text("data/0.png\n\ndata/1.png\n")
    assert tf_gradcam.explain_dataset(cam, "list.txt", "listed").explained == 2
    pathlib.Path("table.csv").write_text("file\n0.png\n")
    with pytest.raises(ValueError, match=r"table.csv must have a column `path`. Received: file"):
        tf_gradcam.explain_dataset(cam, "table.csv", "none")
    with pytest.raises(ValueError, match="Each image must be named once"):
        tf_gradcam.explain_dataset(cam, ["list.txt", "list.txt"], "none")


def test_data_sets_of_keras_and_tensorflow_are_explained(cam):
    for number in range(4):
        write_photo(f"classes/{'ab'[number % 2]}/{number}.png", seed=number)
    data = keras.utils.image_dataset_from_directory("classes", image_size=(8, 8), batch_size=3, verbose=0)
    tf_gradcam.explain_dataset(cam, data, "rows")
    assert len(by_id()) == 4
    assert tf_gradcam.explain_dataset(cam, data, "rows").skipped == 4  # although it is shuffled

    class Images(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return np.full((2, 8, 8, 3), index, np.float32), np.zeros(2)

    tf_gradcam.explain_dataset(cam, Images(), "others")
    assert len(by_id("others")) == 4


def test_a_large_photograph_is_decoded_smaller_with_nearly_the_same_values():
    from tf_gradcam._images import read_values

    pixels = cv2.resize(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8), (1600, 1200))
    cv2.imwrite("large.jpg", pixels)
    small = read_values("large.jpg", (100, 100))
    assert small.shape == (150, 200, 3)
    whole = cv2.resize(read_values("large.jpg"), (200, 150), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - whole).mean() < 1


def test_a_draft_decodes_to_the_size_of_the_input_and_nothing_else_does(cam):
    pixels = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), (32, 24))
    cv2.imwrite("photo.jpg", pixels)
    cv2.imwrite("photo.png", pixels)
    tf_gradcam.explain_dataset(cam, ["photo.jpg", "photo.png"], "rows", dtype="float32")
    tf_gradcam.explain_dataset(cam, ["photo.jpg", "photo.png"], "draft", dtype="float32", draft=True)
    rows, drafts = by_id(), by_id("draft")
    half = cv2.imread("photo.jpg", cv2.IMREAD_REDUCED_COLOR_2)[..., ::-1]
    for row, image in [
        (rows["photo.jpg"], tf_gradcam.load_image("photo.jpg", size=(8, 8))),
        (drafts["photo.jpg"], tf_gradcam.load_image(half, size=(8, 8))),
        (drafts["photo.png"], tf_gradcam.load_image("photo.png", size=(8, 8))),
    ]:
        expected = cam(image, size=None)
        signed = np.array(row["map"]).reshape(6, 6) * row["map_scale"]
        np.testing.assert_allclose(signed, expected.map[0], atol=1e-6)
        assert (row["height"], row["width"]) == (24, 32)
    assert drafts["photo.jpg"]["map"] != rows["photo.jpg"]["map"]
    with pytest.raises(ValueError, match="where draft was False, and is True"):
        tf_gradcam.explain_dataset(cam, "photo.jpg", "rows", dtype="float32", draft=True)
    with pytest.raises(TypeError, match="`draft` must be True or False. Received: 'yes'"):
        tf_gradcam.explain_dataset(cam, "photo.jpg", "none", draft="yes")
    with pytest.raises(ValueError, match="`draft` is for files. Received: draft=True with arrays"):
        tf_gradcam.explain_dataset(cam, iter([np.zeros((1, 8, 8, 3))]), "none", draft=True)


def test_a_model_of_no_fixed_size_is_refused():
    with pytest.raises(ValueError, match="`cam` must be of a model with a fixed input size"):
        tf_gradcam.explain_dataset(
            tf_gradcam.GradCAM(head(3, "softmax", side=None)), write_photo("a.png"), "rows"
        )


def test_a_wrong_request_is_refused_before_any_row(cam):
    photo = write_photo("a.png")
    pathlib.Path("table.csv").write_text("path,target\na.png,bee\n")
    pathlib.Path("high.csv").write_text("path,target\na.png,3\n")
    for error, message, data, options in [
        (ValueError, "`target` must be a class from 0 to 2. Received: target=3", photo, {"target": 3}),
        (ValueError, "from 0 to 2. Received: .*3.* \\(of 'a.png'\\)", "high.csv", {}),
        (ValueError, "as the model's labels are unknown. Received: bee", "table.csv", {}),
        (
            ValueError,
            "Did you mean|must be a class index or a label",
            "table.csv",
            {"labels": ["be", "b", "c"]},
        ),
        (
            ValueError,
            "`target` must be None where the table has",
            "table.csv",
            {"labels": LABELS, "target": 1},
        ),
        (ValueError, '`dtype` must be "float16" or "float32"', photo, {"dtype": "float64"}),
        (ValueError, "`batch_size` must be a positive integer", photo, {"batch_size": 0}),
        (TypeError, "`labels` must be a sequence of names", photo, {"labels": "ant"}),
        (TypeError, "`labels` must be a sequence of names", photo, {"labels": set(LABELS)}),
        (TypeError, "`labels` must be strings. Received: 0", photo, {"labels": range(3)}),
        (ValueError, "`labels` must name 3 classes.* Received: 0 names", photo, {"labels": []}),
    ]:
        with pytest.raises(error, match=message):
            tf_gradcam.explain_dataset(cam, data, "rows", **options)
        assert not pathlib.Path("rows").exists()
    tf_gradcam.explain_dataset(cam, "table.csv", "rows", labels=LABELS)
    assert by_id()["a.png"]["label"] == "bee"


@pytest.mark.parametrize(
    ("units", "activation", "classes"),
    [(3, "softmax", 3), (3, None, 3), (1, "sigmoid", 2), (1, None, None)],
)
def test_labels_name_every_class_of_the_model(units, activation, classes):
    write_photo("a.png")
    cam = tf_gradcam.GradCAM(head(units, activation))
    tf_gradcam.explain_dataset(cam, "a.png", "rows")
    before = read_rows()
    names = np.array([f"name {number}" for number in range(6)])
    for count in range(1, 6):
        if count == classes or classes is None:  # A unit that is no class has no name.
            tf_gradcam.explain_dataset(cam, "a.png", f"rows{count}", labels=names[:count])
            row = read_rows(f"rows{count}")[0]
            assert row["label"] == (None if classes is None else f"name {row['target']}")
            continue
        message = f"`labels` must name {classes} classes, .* Received: {count} names"
        with pytest.raises(ValueError, match=message):
            tf_gradcam.explain_dataset(cam, "a.png", "rows", labels=names[:count], restart=True)
    assert read_rows() == before


def test_labels_are_those_of_the_output_that_is_explained():
    write_photo("a.png")
    image = keras.Input((8, 8, 3))
    features = keras.layers.Conv2D(4, 3, padding="same")(image)
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    heads = [keras.layers.Dense(units, "softmax", name=f"of{units}")(pooled) for units in (3, 4)]
    pixels = keras.layers.Conv2D(5, 1, activation="softmax", name="pixels")(features)
    boxes = keras.layers.Reshape((64, 7))(keras.layers.Conv2D(7, 1)(features))  # 4 numbers and 3 classes
    questions = [
        (keras.Model(image, heads), targets.Output(1), 4),
        (keras.Model(image, heads), targets.Output("of4"), 4),
        (keras.Model(image, dict(zip("ab", heads, strict=True))), targets.Output("a", 1), 3),
        (keras.Model(image, pixels), 2, 5),
        (keras.Model(image, boxes), targets.Detection(5, 2), 3),
    ]
    for number, (model, target, count) in enumerate(questions):
        cam = tf_gradcam.GradCAM(model, "conv2d" if "conv2d" in model.output_names else None)
        labels = [f"name {index}" for index in range(count)]
        tf_gradcam.explain_dataset(cam, "a.png", f"rows{number}", target=target, labels=labels)
        row = read_rows(f"rows{number}")[0]
        assert row["label"] == f"name {row['target']}"
        if number < 4:
            with pytest.raises(ValueError, match=f"`labels` must name {count} classes"):
                tf_gradcam.explain_dataset(cam, "a.png", "none", target=target, labels=labels[:-1])


def test_a_file_that_is_none_makes_a_row_with_an_error(cam):
    write_photo("photos/good.png")
    os.mkdir("photos/folder.png.d")
    os.mkfifo("photos/pipe.png")  # reading it would wait for ever
    pathlib.Path("photos/empty.jpg").touch()
    os.symlink("nowhere", "photos/broken.png")
    assert tf_gradcam.explain_dataset(cam, "photos", "rows", batch_size=1)[1:3] == (1, 3)
    errors = {name: row["error"] for name, row in by_id().items()}
    assert errors.pop("photos/good.png") is None
    assert "which is not a file" in errors["photos/pipe.png"]
    assert all(errors.values())


def test_another_folder_with_the_same_names_is_not_taken_for_explained(cam):
    write_photo("one/photos/a.png", seed=1)
    write_photo("two/photos/a.png", seed=2)
    tf_gradcam.explain_dataset(cam, "one/photos", "rows")
    with pytest.raises(ValueError, match=r"Received: 'photos/a.png', which is one/photos/a.png there"):
        tf_gradcam.explain_dataset(cam, "two/photos", "rows")
    os.rename("one", "moved")
    assert tf_gradcam.explain_dataset(cam, "moved/photos", "rows").skipped == 1


def test_the_data_set_may_have_classes_for_one_of_several_outputs():
    write_photo("a.png")
    pathlib.Path("table.csv").write_text("path,target,id\na.png,1,x\na.png,,y\na.png,0,z\n")
    image = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    heads = {name: keras.layers.Dense(units, "softmax")(pooled) for name, units in (("a", 3), ("b", 2))}
    cam = tf_gradcam.GradCAM(keras.Model(image, heads))
    tf_gradcam.explain_dataset(cam, "table.csv", "rows", target=tf_gradcam.targets.Output("b"))
    rows = by_id()
    assert (rows["x"]["target"], rows["z"]["target"]) == (1, 0)
    assert len(rows["y"]["top"]) == 2
    assert rows["x"]["probability"] == pytest.approx(1 - rows["z"]["probability"], abs=1e-6)
    two = keras.Model([image, other := keras.Input((8, 8, 3))], keras.layers.Add(name="sum")([image, other]))
    with pytest.raises(ValueError, match="`cam` must|takes one image|one image"):
        tf_gradcam.explain_dataset(tf_gradcam.GradCAM(two, "sum"), "a.png", "none")


def top_of(row):
    return [(each["class"], each["label"], each["score"]) for each in row["top"]]


def test_a_single_sigmoid_unit_has_rows_of_two_classes():
    photos = [write_photo(f"photos/{number}.png", (8, 8), seed=number) for number in range(4)]
    model = head(1, "sigmoid")
    images = np.stack([tf_gradcam.load_image(photo) for photo in photos]) / np.float32(255)
    kernel, _ = model.layers[-1].get_weights()
    pooled = keras.Model(model.inputs, model.layers[-2].output).predict(images, verbose=0)
    model.layers[-1].set_weights([kernel, -np.median(pooled @ kernel, axis=0)])  # Two images of each class.
    expected = dict(zip(photos, model.predict(images, verbose=0)[:, 0].tolist(), strict=True))
    assert sum(share > 0.5 for share in expected.values()) == 2

    cam = tf_gradcam.GradCAM(model, preprocess=lambda images: images / 255)
    labels = ["good", "scratch"]
    tf_gradcam.explain_dataset(cam, "photos", "rows", labels=labels)
    pathlib.Path("table.csv").write_text("path,target\n" + "".join(f"{photo},0\n" for photo in photos))
    tf_gradcam.explain_dataset(cam, "table.csv", "table", labels=labels)
    onnx = tf_gradcam.export_gradcam(cam, "one.onnx", format="onnx", labels=labels)
    tf_gradcam.explain_dataset(onnx, "photos", "onnx")
    in_a_list = tf_gradcam.GradCAM(keras.Model(model.inputs[0], model.outputs[:1]), preprocess=cam.preprocess)
    tf_gradcam.explain_dataset(in_a_list, "photos", "list", labels=labels)
    name = targets.Output(in_a_list.model.output_names[0])
    tf_gradcam.explain_dataset(in_a_list, "photos", "named", labels=labels, target=name)
    arrays = tf.data.Dataset.from_tensor_slices(255 * images).batch(3)
    tf_gradcam.explain_dataset(cam, arrays, "arrays", labels=labels)
    rows = read_rows("arrays")
    assert sorted(row["target"] for row in rows) == [0, 0, 1, 1]
    assert all(top_of(row)[0][:2] == (row["target"], row["label"]) for row in rows)
    for out in ("rows", "table", "onnx", "list", "named"):
        rows = by_id(out)
        for photo, share in expected.items():
            first = int(share > 0.5)
            sides = [(0, "good", 1 - share), (1, "scratch", share)]
            row, target = rows[photo], 0 if out == "table" else first
            assert (row["target"], row["label"]) == (target, labels[target])
            assert row["probability"] == pytest.approx(sides[target][2], abs=1e-5)
            for found, side in zip(top_of(row), (sides[first], sides[1 - first]), strict=True):
                assert found == (*side[:2], pytest.approx(side[2], abs=1e-5))
    page = pathlib.Path(tf_gradcam.write_report("rows")).read_text(encoding="utf-8")
    assert "The model's first class is" not in page
    page = pathlib.Path(tf_gradcam.write_report("table")).read_text(encoding="utf-8")
    assert page.count("The model's first class is scratch.") == 2
    assert "The model's first class is good" not in page


def test_a_single_logit_has_two_classes_and_no_probability():
    write_photo("a.png", (8, 8))
    model = head(1, None)
    model.layers[-1].set_weights([0 * model.layers[-1].kernel, np.array([0.3])])
    tf_gradcam.explain_dataset(tf_gradcam.GradCAM(model), "a.png", "rows", target=targets.Binary())
    (row,) = read_rows()
    assert (row["target"], row["probability"]) == (1, None)
    assert [(number, score) for number, _, score in top_of(row)] == [
        (1, pytest.approx(0.3)),
        (0, pytest.approx(-0.3)),
    ]


def test_of_classes_with_one_score_the_explained_one_is_first():
    write_photo("a.png", (8, 8))
    model = head(3, "sigmoid")
    model.layers[-1].set_weights([0 * model.layers[-1].kernel, np.array([300.0, 200, -1])])  # Two are 1.
    tf_gradcam.explain_dataset(tf_gradcam.GradCAM(model), "a.png", "rows")
    (row,) = read_rows()
    assert row["target"] == 0
    assert [number for number, _, _ in top_of(row)] == [0, 1, 2]


@pytest.mark.parametrize("channels", [1, 3])
def test_models_without_classes_and_of_one_channel_have_rows(channels):
    for number in range(3):
        write_photo(f"photos/{number}.png", seed=number)
    cam = tf_gradcam.GradCAM(head(1, None, channels=channels), method="layercam")
    tf_gradcam.explain_dataset(cam, "photos", "rows", batch_size=1)
    assert all(row["target"] is None and np.isfinite(row["score"]) for row in read_rows())
    assert all(row["top"] is None and row["probability"] is None for row in read_rows())


def test_several_layers_give_their_fused_heatmap():
    write_photo("a.png")
    image = keras.Input((16, 16, 3))
    first = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="first")(image)
    second = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="second")(first)
    scores = keras.layers.Dense(3, "softmax")(keras.layers.GlobalAveragePooling2D()(second))
    cam = tf_gradcam.GradCAM(keras.Model(image, scores), ["first", "second"], fuse="max")
    tf_gradcam.explain_dataset(cam, "a.png", "rows", dtype="float32")
    (row,) = read_rows()
    expected = cam(tf_gradcam.load_image("a.png", size=(16, 16)), size=None).heatmap[0]
    signed = np.array(row["map"]).reshape(expected.shape) * row["map_scale"]
    np.testing.assert_allclose(signed, expected, atol=1e-6)
    assert row["layer"] == "first, second"


def test_maps_that_are_no_numbers_are_errors(cam):
    write_photo("a.png")
    model = head(3, "softmax")
    model.layers[0].set_weights([np.full_like(each, np.nan) for each in model.layers[0].get_weights()])
    run = tf_gradcam.explain_dataset(tf_gradcam.GradCAM(model), "a.png", "rows")
    assert run[1:] == (0, 1, 0)
    assert "must be finite" in read_rows()[0]["error"]


def test_a_later_process_has_the_same_manifest(cam):
    method = tf_gradcam.methods.smooth("gradcam", samples=2)
    for each in (cam, tf_gradcam.GradCAM(cam.model, method=method)):
        about = RowsAbout("conv", "m", None)
        manifest = make_manifest(each, about, DatasetOptions(target=targets.Class(1)))
        assert "0x" not in str(manifest)
        assert "gradcam" in manifest["parameters"]


_KILLED_RUN = """
import keras, tf_gradcam
model = keras.models.load_model("model.keras")
tf_gradcam.explain_dataset(tf_gradcam.GradCAM(model), "table.csv", "rows", batch_size=4)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_explains_each_image_once():
    head(3, "softmax").save("model.keras")
    for number in range(3):
        write_photo(f"{number}.png", seed=number)
    lines = [f"{number % 3}.png,{number}" for number in range(2500)]
    pathlib.Path("table.csv").write_text("\n".join(["path,id", *lines]))
    rng, kills = np.random.default_rng(0), 0
    while kills < 2:
        process = subprocess.Popen([sys.executable, "-c", _KILLED_RUN], stderr=subprocess.DEVNULL)
        while not list(pathlib.Path("rows").glob(".tf_gradcam-journal*")):
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        time.sleep(rng.uniform(0.02, 0.4))
        process.kill()
        process.wait()
        kills += 1
    done = subprocess.run([sys.executable, "-c", _KILLED_RUN], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(by_id()) == 2500
    assert {path.suffix for path in pathlib.Path("rows").iterdir()} == {".parquet"}

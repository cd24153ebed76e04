"""`explain_dataset`: each image once, the same maps as the explainer's, whatever ends the run."""

import csv
import pathlib
import subprocess
import sys
import time

import cv2
import keras
import numpy as np
import pyarrow.dataset as pds
import pytest
from photo_files import head, write_photo

import tf_gradcam
from tf_gradcam._dataset import dataset

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
    assert run[1:] == (6, 1, 0)
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


def test_a_model_of_no_fixed_size_is_refused():
    with pytest.raises(ValueError, match="`cam` must be of a model with a fixed input size"):
        tf_gradcam.explain_dataset(tf_gradcam.GradCAM(head(3, "softmax", side=None)), ".", "rows")


_KILLED_RUN = """
import keras, tf_gradcam
model = keras.models.load_model("model.keras")
tf_gradcam.explain_dataset(tf_gradcam.GradCAM(model), "table.csv", "rows", batch_size=4)
"""


def test_what_a_run_is_known_by_is_the_same_in_the_next_process(cam):
    smooth = tf_gradcam.GradCAM(cam.model, method=tf_gradcam.methods.smooth("gradcam"))
    for each in (cam, smooth):
        assert " at 0x" not in str(dataset._manifest(each, dataset.DatasetOptions()))


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_explains_each_image_once():
    head(3, "softmax").save("model.keras")
    for number in range(3):
        write_photo(f"{number}.png", seed=number)
    lines = [f"{number % 3}.png,{number}" for number in range(4000)]
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
    assert len(by_id()) == 4000
    assert {path.suffix for path in pathlib.Path("rows").iterdir()} == {".parquet"}

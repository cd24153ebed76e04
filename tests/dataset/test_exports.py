"""The rows of a run in other forms hold the same numbers, and are written whole or not at all."""

import base64
import csv
import io
import json
import os
import pathlib
import zlib

import cv2
import numpy as np
import pyarrow.dataset as pds
import pytest
import zarr
from photo_files import files, head, write_photo

import tf_gradcam
from tf_gradcam._files import lock_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run over three photographs, one of which can't be read."""
    folder = tmp_path_factory.mktemp("run")
    for name, seed in (("a", 0), ("sub/a", 1)):
        write_photo(folder / f"photos/{name}.png", (24, 36), seed=seed)
    (folder / "photos/broken.png").write_bytes(b"no")
    cam = tf_gradcam.GradCAM(head(3, "softmax"), preprocess=lambda images: images / 255)
    tf_gradcam.explain_dataset(cam, folder / "photos", folder / "rows", labels=["<b>", "é,\n", "=1"])
    return folder


@pytest.fixture(scope="module")
def rows(folder):
    found = pds.dataset(folder / "rows", format="parquet").to_table().to_pylist()
    for row in found:
        if row["map"] is not None:
            row["signed"] = np.array(row["map"], np.float32).reshape(6, 6) * np.float32(row["map_scale"])
    return found


def test_csv_has_all_but_the_maps(folder, rows):
    path = tf_gradcam.export_rows(folder / "rows", "csv")
    assert path == folder / "rows.csv"
    with open(path, encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [line["id"] for line in table] == [row["id"] for row in rows]
    for line, row in zip(table, rows, strict=True):
        if row["error"]:
            assert (line["error"], line["score"], line["peak_x"]) == (row["error"], "", "")
        else:
            assert float(line["score"]) == row["score"]
            assert line["label"] == row["label"]
            assert [float(line["peak_x"]), float(line["peak_y"])] == row["peak"]
            assert json.loads(line["top"]) == row["top"]


def test_zarr_has_the_maps_with_their_own_values(folder, rows):
    group = zarr.open_group(tf_gradcam.export_rows(folder / "rows", "zarr"), mode="r")
    assert list(group["id"][:]) == [row["id"] for row in rows]
    for values, row in zip(group["map"][:], rows, strict=True):
        if row["error"]:
            assert np.isnan(values).all()
        else:
            np.testing.assert_array_equal(values, row["signed"])
    assert group["map"].attrs["_ARRAY_DIMENSIONS"] == ["row", "y", "x"]


def test_fiftyone_has_a_heatmap_of_float32_in_c_order_for_each_image(folder, rows):
    path = tf_gradcam.export_rows(folder / "rows", "fiftyone")
    samples = json.loads((path / "samples.json").read_text())["samples"]
    explained = [row for row in rows if not row["error"]]
    assert [sample["tf_gradcam_id"] for sample in samples] == [row["id"] for row in explained]
    highest = max(row["signed"].max() for row in explained)
    for sample, row in zip(samples, explained, strict=True):
        stored = np.load(io.BytesIO(zlib.decompress(base64.b64decode(sample["gradcam"]["map"]))))
        assert stored.dtype == np.float32
        assert stored.flags.c_contiguous
        np.testing.assert_array_equal(stored, np.maximum(row["signed"], 0))
        assert sample["gradcam"]["range"] == [0.0, pytest.approx(highest)]
        assert os.path.isfile(sample["filepath"])
        assert sample["explained"]["label"] == row["label"]


def test_pictures_keep_the_folders_and_share_one_scale(folder, rows):
    path = tf_gradcam.export_rows(folder / "rows", "pictures")
    assert files(path) == {
        ".tf_gradcam-export",
        "photos/a.png-overlay.jpg",
        "photos/sub/a.png-overlay.jpg",
    }
    explained = [row for row in rows if not row["error"]]
    highest = max(row["signed"].max() for row in explained)
    for row in explained:
        picture = cv2.cvtColor(cv2.imread(str(path / f"{row['id']}-overlay.jpg")), cv2.COLOR_BGR2RGB)
        expected = tf_gradcam.overlay(row["path"], np.clip(row["signed"] / highest, 0, 1))
        # JPEG stores little of noise's colours, but their means.
        means = [cv2.resize(each, (6, 4), interpolation=cv2.INTER_AREA) for each in (picture, expected)]
        np.testing.assert_allclose(means[0].astype(int), means[1].astype(int), atol=25)
    with pytest.raises(ValueError, match="only pictures that tf_gradcam wrote|where there is none"):
        tf_gradcam.explain_dataset(tf_gradcam.GradCAM(head(3, "softmax")), path, folder / "others")


def test_photographs_that_are_gone_or_have_changed_have_no_picture(folder, rows):
    sources = [pathlib.Path(row["path"]) for row in rows if not row["error"]]
    contents = [source.read_bytes() for source in sources]
    try:
        sources[0].unlink()
        with pytest.warns(UserWarning, match=r"skipped 1: .*a\.png: there is no such file any more$"):
            path = tf_gradcam.export_rows(folder / "rows", "pictures")
        assert files(path) == {".tf_gradcam-export", "photos/sub/a.png-overlay.jpg"}
        sources[0].write_bytes(contents[1])  # a photograph, but not the one that was explained
        sources[1].write_bytes(b"no")
        with pytest.warns(UserWarning, match="skipped 2: .*has changed since it was explained; .*changed"):
            assert files(tf_gradcam.export_rows(folder / "rows", "pictures")) == {".tf_gradcam-export"}
    finally:
        for source, content in zip(sources, contents, strict=True):
            source.write_bytes(content)


def test_an_export_replaces_only_an_earlier_one(folder, monkeypatch):
    path = tf_gradcam.export_rows(folder / "rows", "zarr")
    before = files(path)
    assert files(tf_gradcam.export_rows(folder / "rows", "zarr")) == before
    with monkeypatch.context() as broken:
        broken.setattr("tf_gradcam._dataset.exports._maps", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tf_gradcam.export_rows(folder / "rows", "zarr")
    assert files(path) == before
    (path / ".tf_gradcam-export").unlink()
    with pytest.raises(ValueError, match="where something else lies"):
        tf_gradcam.export_rows(folder / "rows", "zarr")
    assert not list(folder.glob(".tf_gradcam*"))
    with pytest.raises(
        ValueError, match="`to` must be one of csv, zarr, pictures, fiftyone. Received: 'cvs'"
    ):
        tf_gradcam.export_rows(folder / "rows", "cvs")
    with pytest.raises(ValueError, match="which has none"):
        tf_gradcam.export_rows(folder / "photos", "csv")


def test_what_a_killed_export_left_is_removed_or_put_back(folder, monkeypatch):
    path = tf_gradcam.export_rows(folder / "rows", "pictures")
    whole = files(path)
    workplace = folder / ".tf_gradcam-rows-pictures.unfinished"
    (workplace / "new").mkdir(parents=True)
    (workplace / "new" / "half.jpg").touch()
    (workplace / ".tf_gradcam-lock").touch()  # A killed process leaves the file, but no lock on it.
    path.rename(workplace / "earlier")  # It was killed before the new folder took this one's place.
    with monkeypatch.context() as broken:
        broken.setattr("tf_gradcam._dataset.exports._write_overlay", lambda *arguments, vmax: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tf_gradcam.export_rows(folder / "rows", "pictures")
    assert files(path) == whole
    tf_gradcam.export_rows(folder / "rows", "pictures")
    assert files(path) == whole
    assert not workplace.exists()


def test_two_processes_do_not_write_one_export(folder):
    path = tf_gradcam.export_rows(folder / "rows", "pictures")
    whole = files(path)
    with (
        lock_folder(folder / ".tf_gradcam-rows-pictures.unfinished"),
        pytest.raises(ValueError, match="no other run writes to"),
    ):
        tf_gradcam.export_rows(folder / "rows", "pictures")
    assert files(path) == whole
    tf_gradcam.export_rows(folder / "rows", "pictures")
    assert not (folder / ".tf_gradcam-rows-pictures.unfinished").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/a", "etc/a-overlay.jpg"),
        ("/abs/a", "abs/a-overlay.jpg"),
        ("c:\\x\\..\\a\n", "c/x/a-overlay.jpg"),
        ("..", "image-overlay.jpg"),
    ],
)
def test_no_id_leads_out_of_the_folder_of_pictures(name, expected):
    from tf_gradcam._dataset.exports import _free_name

    taken = set()
    assert pathlib.PurePath(_free_name(name, taken)) == pathlib.PurePath(expected)
    assert _free_name(name, taken) != expected

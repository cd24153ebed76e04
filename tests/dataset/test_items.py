"""The images of a data set are found, named and counted; what can't be one is refused at once."""

import os
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from photo_files import write_photo

from tf_gradcam._dataset.items import array_items, find_items


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def ids(*sources):
    return [item.id for item in find_items(sources).items]


def write_table(text, name="table.csv"):
    pathlib.Path(name).write_text(text, encoding="utf-8")
    return name


def test_ids_keep_the_folders_wherever_the_data_set_lies(monkeypatch):
    write_photo("here/photos/a.png")
    write_photo("here/photos/sub/é\n.png")
    expected = ["photos/a.png", "photos/sub/é\n.png"]
    for source in ("here/photos", "here/photos/", os.path.abspath("here/photos"), "here/photos/**/*.png"):
        assert ids(source) == expected
    monkeypatch.chdir("here/photos")
    assert ids(".") == expected
    assert ids("./a.png", "a.png") == ["a.png"]  # a file is as it is given, and taken once


def test_what_is_skipped_is_counted():
    write_photo("photos/deep/er/a.png")
    write_photo("photos/.hidden.png")
    pathlib.Path("photos/notes.md").write_text("x")
    counts = "3 files found, 1 image taken, 1 that are no photographs, 1 hidden skipped"
    assert str(find_items(["photos"])) == counts
    assert str(find_items(["photos", "photos/deep"])).startswith("3 files found, 1 image ")


@pytest.mark.skipif(os.name == "nt", reason="there, file names are text")
def test_a_file_name_that_is_no_text_has_an_id():
    write_photo("photos/a.png")
    os.rename(b"photos/a.png", b"photos/\xff.png")
    (item,) = find_items(["photos"]).items
    assert item.id == "photos/\\udcff.png"
    assert os.path.exists(item.source)


def test_nothing_to_explain_is_refused():
    os.mkdir("empty")
    with pytest.raises(ValueError, match="`data` must name images. Received: empty"):
        find_items(["empty"])
    with pytest.raises(ValueError, match="`data` must name images"):
        find_items([write_table("path\n")])
    with pytest.raises(FileNotFoundError, match="typo/\\*.png', and no file matches"):
        find_items(["typo/*.png"])
    with pytest.raises(FileNotFoundError):
        find_items(["typo.csv"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have a column `path`"),
        ("path,target\n,1\n", "must name a file in each row's `path`. Received: path=''"),
        ("path,target\na.png,1\nb.png\n,\n", "each row's `path`"),
        ("path\na.png\na.png\n", "named once. Received: 'a.png' twice"),
        ("path\n" + "x" * 200_000, "with a damaged row: field larger than field limit"),
    ],
)
def test_a_wrong_table_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        find_items([write_table(text)])


def test_a_list_or_table_in_another_encoding_is_refused():
    for name in ("list.txt", "table.csv"):
        pathlib.Path(name).write_bytes(b"path\n\xe9.png\n")
        with pytest.raises(ValueError, match=f"{name} must be a text file in UTF-8"):
            find_items([name])


def test_only_line_ends_part_the_lines_of_a_list():
    assert ids(write_table("a\x0b b.png\r\n\n c\u2028.png \n", "list.txt")) == [
        "a\x0b b.png",
        " c\u2028.png ",
    ]


def test_targets_are_numbers_or_labels():
    table = write_table("path,target,id\na.png,2,\nb.png,2.0,0\nc.png, bee ,x\nd.png,,y\ne.png,-1,z\n")
    items = find_items([table]).items
    assert [item.target for item in items] == [2, 2, "bee", None, -1]
    assert [item.id for item in items] == ["a.png", "0", "x", "y", "z"]


def test_a_parquet_table_may_hold_numbers_as_ids_and_missing_targets():
    table = {"path": ["a.png", "b.png"], "target": [1.0, float("nan")], "id": [0, 7], "more": [[1], [2]]}
    pq.write_table(pa.table(table), "table.parquet")
    assert [(item.id, item.target) for item in find_items(["table.parquet"]).items] == [("0", 1), ("7", None)]
    for wrong in (2.5, True):
        pq.write_table(pa.table({"path": ["a.png"], "target": [wrong]}), "wrong.parquet")
        with pytest.raises(ValueError, match="`target` in wrong.parquet must be the number or label"):
            find_items(["wrong.parquet"])
    pathlib.Path("no.parquet").write_text("no")
    with pytest.raises(ValueError, match="no.parquet must be a Parquet file"):
        find_items(["no.parquet"])


def test_a_folder_with_the_ending_of_a_table_is_a_folder():
    write_photo("folder.csv/a.png")
    assert ids("folder.csv") == ["folder.csv/a.png"]


def test_arrays_are_named_by_what_they_hold():
    images = np.arange(3 * 4 * 4 * 3).reshape(3, 4, 4, 3)
    names = [item.id for item in array_items([images, (images[:1], [0])])]
    assert len(set(names)) == 4
    assert names[3] == f"{names[0]}-2"
    assert [item.id for item in array_items(images)] == names[:3]
    for wrong in (images[0, 0], {"image": images}, np.array(["a"])):
        with pytest.raises(ValueError, match="`data` must give batches of images"):
            list(array_items([wrong]))
    with pytest.raises(TypeError, match="`data` must be paths, a tf.data.Dataset"):
        list(array_items(3))

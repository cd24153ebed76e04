"""Batches: by size and pixels, read ahead, with the findings of each photograph alone."""

import concurrent.futures
import pathlib

import cv2
import numpy as np
import pytest
from conftest import build
from photo_files import LABELS, classify, files, run, write_photo

from tf_gradcam._run import findings
from tf_gradcam._run import run as run_module
from tf_gradcam._run.batches import read_batches
from tf_gradcam._run.photographs import Photograph


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def classifier():
    return classify(build("functional"), labels=LABELS)


@pytest.fixture
def batches(monkeypatch):
    """The number of images of each call of a method, as they come."""
    lengths, explain_and_time = [], findings.explain_and_time

    def spy(cam, images, *args, **kwargs):
        lengths.append(len(images))
        return explain_and_time(cam, images, *args, **kwargs)

    monkeypatch.setattr(findings, "explain_and_time", spy)
    return lengths


@pytest.mark.slow
def test_photographs_of_one_size_are_explained_together_with_the_answers_of_each_alone(
    classifier, batches, monkeypatch
):
    photos = [write_photo(f"{i}.png", (20, 30 + (i % 3 == 0)), seed=i) for i in range(20)]
    together = run(classifier, *photos, top=2, out="together")
    # The rehearsal, 16 of two sizes, and the last 4; both classes of each.
    assert batches == [1, 1, 6, 6, 10, 10, 3, 3, 1, 1]
    monkeypatch.setattr(run_module, "MAX_PHOTOGRAPHS", 1)
    alone = run(classifier, *photos, top=2, out="alone")
    assert [row["file"] for row in together] == [photo for photo in photos for _ in range(2)]
    for one, other in zip(together, alone, strict=True):
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


def test_a_photograph_that_can_not_be_explained_spoils_no_other_of_its_batch(classifier):
    def moody(images):
        if images.min() == 255:
            raise ValueError("all white")
        return images / 255

    photos = [write_photo(f"{i}.png", seed=i) for i in range(6)]
    cv2.imwrite(photos[2], np.full((20, 30, 3), 255, np.uint8))
    rows = run(classifier._replace(preprocess=moody), *photos)
    assert [row.get("error") for row in rows] == [None, None, "all white", None, None, None]
    assert len(files("gradcam")) == 5 * 2


def test_a_photograph_whose_pictures_can_not_be_written_spoils_no_other(classifier, monkeypatch):
    write = run_module.write_pictures

    def full(found, name, request):
        if name == "b":
            raise OSError("no space left")
        return write(found, name, request)

    monkeypatch.setattr(run_module, "write_pictures", full)
    rows = run(classifier, *(write_photo(f"{name}.png") for name in "abc"))
    assert [row.get("error") for row in rows] == [None, "no space left", None]
    assert rows[1]["file"] == "b.png"
    assert rows[1]["label"] in LABELS  # What was found is not lost with the pictures.
    assert not {"overlay", "heatmap"} & set(rows[1])


def test_large_photographs_are_read_and_explained_a_few_at_a_time():
    sizes = [(20, 30)] * 7 + [(40, 60), (20, 30), (20, 30)]
    paths = [write_photo(f"{i}.png", size, seed=i) for i, size in enumerate(sizes)]
    pathlib.Path("no.png").write_bytes(b"no photograph")
    photos = [(Photograph(path, path), path) for path in [*paths, "no.png"]]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        batches = list(read_batches(photos, pool, max_photographs=4, max_pixels=3 * 20 * 30))
    assert [len(batch) for batch in batches] == [3, 3, 1, 1, 3]
    assert [each.name for batch in batches for each in batch] == [*paths, "no.png"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"top": 2}, [4, 4, 2, 2]),  # two heatmaps of each photograph
        ({"methods": ("gradcam", "hirescam")}, [4, 4, 2, 2]),
        ({"methods": ("rise",)}, [1] * 6),  # takes seconds: they come one by one
    ],
    ids=str,
)
def test_batches_are_smaller_where_a_photograph_takes_more(classifier, batches, monkeypatch, asked, expected):
    monkeypatch.setattr(run_module, "MAX_PIXELS", 8 * 20 * 30)
    photos = [write_photo(f"{i}.png", seed=i) for i in range(6)]
    rows = run(classifier, *photos, **asked)
    assert all("error" not in row for row in rows)
    assert batches[-len(expected) :] == expected

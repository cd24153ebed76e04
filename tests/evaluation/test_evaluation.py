"""An evaluation: its numbers are those of `metrics`, its page holds no code of others."""

import html.parser
import json
import pathlib

import cv2
import keras
import numpy as np
import pytest
from conftest import build
from photo_files import LABELS, classify, files, head, write_photo

import tf_gradcam
from tf_gradcam import metrics
from tf_gradcam._evaluation import Measures, choose_metrics, evaluate_photographs, write_evaluation
from tf_gradcam._evaluation import evaluation as evaluation_module
from tf_gradcam._evaluation.evaluation import AGAINST_MASKS, SANITY_STAGES, WITH_BASELINES, WITH_PROBABILITY
from tf_gradcam._evaluation.page import MEANINGS, make_page, to_record
from tf_gradcam._run import Photograph, Request
from tf_gradcam.metrics._catalogue import METRICS

SIZES = {"a.png": (20, 30), "b.png": (40, 24), "<b>&.png": (20, 30)}


def evaluate(measures, classifier, names=tuple(SIZES), **asked):
    request = Request(pathlib.Path("out"), **asked)
    return evaluate_photographs([Photograph(name, name) for name in names], request, measures, classifier)


@pytest.fixture(scope="module")
def classifier():
    return classify(build("functional"), labels=LABELS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three photographs with masks of two, a broken one, and one with a broken mask."""
    folder = tmp_path_factory.mktemp("evaluated")
    for seed, (name, size) in enumerate(SIZES.items()):
        write_photo(folder / name, size, seed)
    write_photo(folder / "d.png")
    (folder / "broken.jpg").write_bytes(b"<script>")
    (folder / "masks").mkdir()
    mask = np.zeros((20, 30), np.uint8)
    mask[:, :10] = 1
    cv2.imwrite(str(folder / "masks/a.png"), mask)
    cv2.imwrite(str(folder / "masks/b.png"), np.ones((40, 24), np.uint8))
    (folder / "masks/d.png").write_bytes(b"no")
    return folder


@pytest.fixture(autouse=True)
def inside(monkeypatch, folder):
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def evaluated(classifier, folder):
    """The evaluation with everything, once for all tests."""
    measures = Measures(("deletion", "adcc"), ("zero", "mean"), sanity=True, masks="masks")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return evaluate(measures, classifier, (*SIZES, "broken.jpg", "d.png"))


def inputs():
    return np.stack([tf_gradcam.load_image(name, size=(17, 17)) for name in SIZES]).astype("float32") / 255


# Numbers


def test_the_numbers_are_those_of_the_library(evaluated, functional):
    cam = tf_gradcam.GradCAM(functional)
    masks = np.zeros((3, 17, 17), bool)
    masks[0, :, :6] = True  # Of pixel 5, two thirds are of the object.
    masks[1] = True
    names = ["deletion", "adcc", "energy", "pointing_game"]
    table = metrics.evaluate(cam, inputs(), metrics=names, baselines=["zero", "mean"], masks=masks)
    found = evaluated.tables["metrics"]
    assert [(row.metric, row.baseline) for row in found] == [(row.metric, row.baseline) for row in table]
    for ours, theirs in zip(found, table, strict=True):
        np.testing.assert_allclose(ours.values, theirs.values, atol=1e-5)
        assert ours.mean == pytest.approx(theirs.mean, abs=1e-5)
    shown = metrics.sanity(cam, inputs(), stages=SANITY_STAGES)
    np.testing.assert_allclose(evaluated.tables["sanity"].values, shown.values, atol=1e-4)


def test_every_photograph_has_a_row_with_its_own_values(evaluated):
    rows = [each.row for each in evaluated.photographs]
    assert [row["file"] for row in rows] == [*SIZES, "broken.jpg", "d.png"]
    assert [row.get("mask") for row in rows] == ["masks/a.png", "masks/b.png", None, None, None]
    assert set(rows[3]) == set(rows[4]) == {"file", "error"}
    assert "masks/d.png, which can't be read" in rows[4]["error"]
    table = evaluated.tables["metrics"]
    for place, row in enumerate(rows[:3]):
        assert row["values"]["deletion, mean"] == pytest.approx(
            table["deletion", "mean"].values[place], abs=1e-6
        )
        assert row["label"] in LABELS
    assert rows[1]["values"]["energy"] == 1  # The mask is everything.
    assert rows[2]["values"]["energy"] is None
    assert table["energy"].missing == 1
    assert evaluated.notes == [
        "Photographs without a mask: 2 of 5. The metrics against masks leave them out, as missing.",
        "Photographs with an error, which are in no number: 2 of 5.",
    ]


def test_without_metrics_it_is_the_trust_table(classifier, monkeypatch):
    asked = []
    check = metrics.Check("some", None, 0.5, 0.4, 0.6, 3, 0, "little.", np.array([0.25, np.nan, 0.75]))

    def trust(cam, images, target):
        asked.append((images, target))
        return metrics.Trust([check])

    monkeypatch.setattr(tf_gradcam.GradCAM, "trust", trust)
    found = evaluate(Measures(), classifier, target="dog")
    ((images, target),) = asked
    np.testing.assert_allclose(images, inputs(), atol=1e-6)
    assert target == 3
    assert list(found.tables) == ["trust"]
    assert [each.row["values"] for each in found.photographs] == [
        {"some": 0.25},
        {"some": None},
        {"some": 0.75},
    ]
    assert "some: little." in make_page(found)


def test_a_model_of_any_size_gets_photographs_of_one_size(monkeypatch):
    monkeypatch.setattr(evaluation_module, "OPEN_SIDE", 12)
    images = keras.Input((None, None, 3))
    features = keras.layers.Conv2D(4, 3, activation="relu")(images)
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    model = keras.Model(images, keras.layers.Dense(3, activation="softmax")(pooled))
    write_photo("large.jpg", (400, 700))
    found = evaluate(Measures(("sparseness",)), classify(model), (*SIZES, "large.jpg"))
    assert [each.row.get("error") for each in found.photographs] == [None] * 4
    assert len(found.tables["metrics"]["sparseness"].values) == 4
    for encoded in found.photographs[3][1:]:  # small pictures
        assert cv2.imdecode(np.frombuffer(encoded, np.uint8), 1).shape == (137, 240, 3)


def test_nothing_but_errors_is_no_table(classifier):
    found = evaluate(Measures(), classifier, ("broken.jpg",))
    assert found.tables == {}
    assert "broken.jpg" in make_page(found)


# Requests


def test_masks_add_the_metrics_that_need_them():
    assert choose_metrics(Measures(masks="m")) == ["energy", "pointing_game"]
    assert choose_metrics(Measures(("road",), masks="m")) == ["road", "energy", "pointing_game"]
    assert choose_metrics(Measures(("road", "iou", "road"), masks="m")) == ["road", "iou"]
    assert choose_metrics(Measures()) == []


def test_what_can_not_be_measured_is_said_before_photographs_are_read(classifier, monkeypatch):
    monkeypatch.setattr(evaluation_module, "read_batches", None)
    for measures, said in {
        Measures(("iou", "road")): "`masks` must be given for iou",
        Measures(("road",), ("zero",)): "`baselines` are for the metrics deletion.*Received: metrics road",
        Measures((), ("zero",)): "Received: metrics none",
        Measures(("rode",)): "Did you mean 'road'",
        Measures(("deletion",), ("blurr",)): "Did you mean 'blur'",
    }.items():
        with pytest.raises(ValueError, match=said):
            evaluate(measures, classifier)
    with pytest.raises(ValueError, match="where there is no probability"):
        evaluate(Measures(("adcc",)), classify(head(3, None)))
    images = keras.Input((8, 8, 3))
    features = keras.layers.Conv2D(4, 3, activation="relu")(images)
    segmenter = keras.Model(images, keras.layers.Conv2D(2, 1, activation="softmax")(features))
    with pytest.raises(ValueError, match="must leave nothing to the model.*In Python, metrics.evaluate"):
        evaluate(Measures(), classify(segmenter), target=1)


def test_a_model_with_channels_first_is_refused():
    images = keras.Input((3, 17, 17))
    features = keras.layers.Permute((2, 3, 1))(images)
    features = keras.layers.Conv2D(4, 3, activation="relu")(features)
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    model = keras.Model(images, keras.layers.Dense(3, activation="softmax")(pooled))
    with pytest.raises(ValueError, match="`model` must take images with channels last"):
        evaluate(Measures(), classify(model))


def test_what_each_metric_needs_and_means_is_known():
    assert {*METRICS, "adcc_of_means"} == set(MEANINGS)
    assert {name for name, metric in METRICS.items() if "masks" in metric.needs} == set(AGAINST_MASKS)
    assert {name for name, metric in METRICS.items() if "baseline" in metric.needs} == set(WITH_BASELINES)
    assert {name for name, metric in METRICS.items() if "probability" in metric.needs} == set(
        WITH_PROBABILITY
    )


# Files


class Page(html.parser.HTMLParser):
    """The tags of a page, the addresses in it, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_the_page_is_one_file_that_runs_nothing(evaluated):
    page = Page(make_page(evaluated))
    assert not {"script", "b>", "link", "iframe"} & set(page.tags)
    assert page.tags.count("img") == 6
    assert page.tags.count("figure") == 5
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert "<b>&.png" in page.text  # as text, not as a tag
    assert "<script>" in page.text  # the first bytes of the broken file, in its error
    assert MEANINGS["deletion"] in page.text
    assert "Sanity check" in page.text
    assert "Photographs without a mask: 2 of 5." in page.text
    assert "no mask" in page.text


def test_a_mask_is_outlined():
    mask = np.zeros((200, 100), bool)
    mask[50:150, 20:80] = True
    image = np.zeros((200, 100, 3), np.uint8)
    plain, outlined = (
        cv2.imdecode(np.frombuffer(evaluation_module._draw(image, np.zeros((4, 2)), each)[1], np.uint8), 1)
        for each in (None, mask)
    )
    assert plain.max() < 150
    assert outlined[100, 20].min() > 150
    np.testing.assert_allclose(outlined[100, 50], plain[100, 50], atol=3)


def test_the_gallery_is_bounded(evaluated):
    many = evaluated._replace(photographs=[evaluated.photographs[0]] * 201)
    page = Page(make_page(many))
    assert page.tags.count("figure") == 200
    assert "The first 200 of 201; all are in evaluation.json." in page.text


def test_files_are_whole_and_the_json_holds_no_nan(evaluated, monkeypatch, tmp_path):
    assert write_evaluation(evaluated, tmp_path) == ("evaluation.json", "evaluation.html")
    assert files(tmp_path) == {"evaluation.json", "evaluation.html"}
    record = json.loads((tmp_path / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert record == json.loads(json.dumps(to_record(evaluated)))
    assert set(record) == {"method", "layer", "notes", "metrics", "sanity", "photographs"}
    assert (record["method"], record["layer"]) == ("gradcam", "relu2")
    assert all("values" not in row for row in record["metrics"]["rows"])
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="No space left on device.*evaluation"):
        write_evaluation(evaluated._replace(notes=["other"]), tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before

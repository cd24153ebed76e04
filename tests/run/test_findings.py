"""Findings: the class, probability and score of each photograph, for every kind of output."""

import keras
import numpy as np
import pytest
from conftest import build
from photo_files import LABELS, classify, head, run, unchanged, write_photo

import tf_gradcam
from tf_gradcam._run import findings


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def classifier():
    return classify(build("functional"), labels=LABELS)


@pytest.mark.parametrize(("method", "expected"), [("gradcam", [1, 0, 0]), ("scorecam", [0, 0])])
def test_what_takes_seconds_is_compiled_but_not_run_before_the_first_photograph(
    method, expected, classifier, monkeypatch
):
    compiled, explain_and_time = [], findings.explain_and_time

    def spy(cam, *args, **kwargs):
        before = len(cam._explainer._traces)
        found = explain_and_time(cam, *args, **kwargs)
        compiled.append(len(cam._explainer._traces) - before)
        return found

    monkeypatch.setattr(findings, "explain_and_time", spy)
    photos = [write_photo("a.png"), write_photo("b.png", size=(21, 30))]  # of two sizes: two passes
    rows = run(classifier, *photos, methods=(method,))
    assert all("error" not in row for row in rows)
    assert compiled == expected


def test_a_blank_heatmap_is_said():
    model = build("functional")
    model.set_weights([0 * weight for weight in model.get_weights()])
    (row,) = run(classify(model, unchanged), write_photo("a.png"))
    assert row["warning"] == "blank heatmap: nothing at layer relu2 speaks for class 0"


# Classes


@pytest.mark.parametrize("target", ["3", 3, "dog", "DoG"])
def test_a_target_is_an_index_or_a_label_in_any_case(target, classifier):
    rows = run(classifier, write_photo("a.png"), target=target)
    assert [(row["class"], row["label"]) for row in rows] == [(3, "dog")]


def test_top_explains_the_best_classes_from_the_best_down(classifier):
    rows = run(classifier, write_photo("a.png"), top=5)
    assert sorted(row["class"] for row in rows) == [0, 1, 2, 3, 4]
    probabilities = [row["probability"] for row in rows]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert [row["overlay"] for row in rows] == [f"a-{rank}-overlay.png" for rank in range(1, 6)]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"top": 6}, "`top` must be at most 5, the number of classes. Received: 6"),
        ({"top": 2, "methods": ("gradcam", "layercam")}, "`top` must be 1 with several methods"),
        ({"target": 1, "methods": ("eigencam",)}, "`target` and `top` need a method that explains a class"),
        ({"channels": 3}, "`channels` needs one of the methods .*Received: gradcam"),
        ({"layer": "relu3"}, "`layer` must .*'relu2'"),
        ({"target": "catt"}, "`target` must be a class index or a label. Received: catt. Did you mean 'cat'"),
        ({"colormap": "jett"}, "`colormap` must .*Received: colormap='jett'"),
    ],
    ids=str,
)
def test_an_error_names_the_field_of_the_request_and_nothing_is_written(asked, message, classifier, tmp_path):
    photo = write_photo("a.png")
    with pytest.raises(ValueError, match=message):
        run(classifier, photo, **asked)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_labels_must_be_as_many_as_the_classes(classifier):
    with pytest.raises(ValueError, match="`labels` must name 5 classes, one per line. Received: 2 lines"):
        run(classifier._replace(labels=("ant", "bee")), write_photo("a.png"))


# Outputs


@pytest.mark.parametrize("outputs", [list, dict])
def test_output_chooses_among_several_outputs(outputs):
    images = keras.Input((9, 9, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(images))
    heads = {
        "animal": keras.layers.Dense(5, activation="softmax", name="animal")(pooled),
        "size": keras.layers.Dense(1, name="size")(pooled),
    }
    classifier = classify(keras.Model(images, heads if outputs is dict else list(heads.values())))
    photo = write_photo("a.png")
    (row,) = run(classifier._replace(labels=tuple(LABELS)), photo, output="animal", target="bee")
    assert (row["class"], row["label"]) == (1, "bee")
    assert 0 < row["probability"] < 1
    (row,) = run(classifier, photo, output=1)
    assert row["class"] is None
    with pytest.raises(ValueError, match="output"):
        run(classifier, photo)


def test_a_segmentation_is_explained_by_class():
    images = keras.Input((8, 8, 3))
    features = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="features")(images)
    model = keras.Model(images, keras.layers.Conv2D(3, 1, activation="softmax")(features))
    (row,) = run(classify(model, unchanged), write_photo("a.png"), target=1)
    assert (row["class"], row["layer"]) == (1, "features")


@pytest.mark.parametrize("sign", [1, -1])
def test_one_sigmoid_unit_has_two_labels_whose_probabilities_sum_to_one(sign):
    model = head(1, "sigmoid")
    model.layers[-1].set_weights([0 * model.layers[-1].kernel, sign * np.ones(1)])
    first, second = run(classify(model, labels=["no", "yes"]), write_photo("a.png"), top=2)
    assert (first["label"], second["label"]) == (("yes", "no") if sign > 0 else ("no", "yes"))
    assert first["probability"] == pytest.approx(1 / (1 + np.exp(-1)))
    assert first["probability"] + second["probability"] == pytest.approx(1)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_row_has_the_probability_that_the_model_returns(activation):
    model, photo = head(3, activation), write_photo("a.png", size=(8, 8))
    outputs = model.predict(tf_gradcam.load_image(photo)[None] / np.float32(255), verbose=0)[0]
    for index in range(3):
        (row,) = run(classify(model), photo, target=index)
        assert row["probability"] == pytest.approx(outputs[index], abs=1e-5)


@pytest.mark.parametrize(
    ("activation", "units", "has_probability"),
    [("softmax", 3, True), ("sigmoid", 3, True), ("sigmoid", 1, True), (None, 3, False)],
)
def test_a_segmentation_has_probabilities_if_each_pixel_has(activation, units, has_probability):
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3))
    features = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="features")(images)
    model = keras.Model(images, keras.layers.Conv2D(units, 1, activation=activation)(features))
    photo = write_photo("a.png", size=(8, 8))
    (row,) = run(classify(model), photo, target=0)
    outputs = model.predict(tf_gradcam.load_image(photo)[None] / np.float32(255), verbose=0)
    mean = outputs[..., 0].mean()
    expected = pytest.approx(1 - mean if units == 1 else mean, abs=1e-5) if has_probability else None
    assert row["probability"] == expected


@pytest.mark.parametrize(("units", "label"), [(3, "class "), (1, "output")])
def test_a_model_without_softmax_has_no_probabilities(units, label):
    (row,) = run(classify(head(units, None)), write_photo("a.png"))
    assert row["probability"] is None
    assert row["label"].startswith(label)

"""An explanation and an explainer as they look: printed, laid over a photograph, drawn."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import CLASSES, SIDE, build
from matplotlib import pyplot

from tf_gradcam import GradCAM, methods, overlay, show, targets


@pytest.fixture(scope="module")
def model():
    return build("functional")


@pytest.fixture(scope="module")
def cam(model):
    return GradCAM(model, "conv2")


@pytest.fixture(scope="module")
def explanation(cam, images):
    return cam(images, [1, 2, 3])


def test_it_prints_shapes_ranges_target_and_score_in_six_lines(explanation):
    lines = repr(explanation).splitlines()
    assert len(lines) <= 6
    assert lines[1].startswith(f"  heatmap: (3, {SIDE}, {SIDE}) from 0 to 1")
    low, high = explanation.map.numpy().min(), explanation.map.numpy().max()
    assert lines[2] == f"  map: (3, 8, 8) from {low:.4g} to {high:.4g}"
    scores = ", ".join(f"{each:.4g}" for each in explanation.score.numpy())
    assert lines[3] == f"  score: [{scores}], target: [1, 2, 3]"
    assert lines[4].startswith(f"  outputs: (3, {CLASSES}) from ")


def test_what_is_long_or_missing_is_printed_short(model, images):
    several = GradCAM(model, ["conv1", "relu2"])(images, targets.Value())
    assert len(repr(several).splitlines()) <= 6
    assert "map: (3, 8, 8) from" in repr(several)
    assert "target: None" in repr(several)
    many = GradCAM(model)(images, targets.TopClasses(CLASSES))
    assert ", ...]" in repr(many)
    assert len(max(repr(many).splitlines(), key=len)) < 120


def test_it_prints_while_it_is_symbolic(cam, images):
    printed = []

    @tf.function(autograph=False)
    def explain(images):
        found = cam(images)
        printed.append(repr(found))
        return found.heatmap

    explain(images)
    assert [len(text.splitlines()) for text in printed] == [6]
    assert "heatmap: (" in printed[0]
    assert "score: (" in printed[0]  # its shape, as it has no numbers yet


def test_it_draws_itself_over_a_photograph(cam, images, photographs):
    one = cam(images[:1])
    look = {"alpha": 0.7, "colormap": "viridis", "fade": True}
    np.testing.assert_array_equal(one.overlay(photographs[0], **look), overlay(photographs[0], one, **look))


def test_it_shows_itself_with_the_names_of_the_classes(explanation, photographs):
    labels = [f"kind {index}" for index in range(CLASSES)]
    figure = explanation.show(list(photographs), labels=labels)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert [title.partition(" (")[0] for title in titles] == ["kind 1", "kind 2", "kind 3"]
    beside = show(list(photographs), explanation, labels=labels)
    assert titles == [axis.get_title() for axis in beside.axes if axis.get_title()]
    pyplot.close(figure)
    pyplot.close(beside)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"layer": "conv2"}, "layer='conv2', method='gradcam'"),
        ({"layer": ["conv1", "relu2"]}, "layer=['conv1', 'relu2'], method='gradcam'"),
        ({"layer": ["conv1"], "fuse": "max"}, "layer=['conv1'], method='gradcam', fuse='max'"),
        ({"layer": "conv2", "call": 0}, "layer='conv2', method='gradcam', call=0"),
        ({"method": "gradient"}, "layer=None, method='gradient'"),
        ({"method": methods.hirescam}, "layer='relu2', method='hirescam'"),
        ({"method": methods.scorecam()}, "layer='relu2', method='scorecam'"),
        ({"method": methods.scorecam(channels=4)}, "layer='relu2', method='scorecam(channels=4, batch=32"),
    ],
)
def test_an_explainer_says_in_one_line_what_it_explains(model, asked, expected):
    line = repr(GradCAM(model, **asked))
    assert line.startswith(f"GradCAM(model={model.name!r}, {expected}")
    assert "\n" not in line
    assert "frozen" not in line


def test_an_explainer_says_that_it_is_frozen(cam):
    assert repr(cam.freeze()).endswith("method='gradcam', frozen)")

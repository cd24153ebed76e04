"""Recipro-CAM: each place scored by itself, against networks run on by hand, and without any gradient."""

import functools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from conftest import build, chain, count_runs

from tf_gradcam import GradCAM, methods, targets

FULL = pytest.mark.full
# Of each sort of layer one: a map, a signal, a volume, tokens with a class token, half precision.
FEW = ["subclassed", "signal", "volume", "ViT", "mixed_float16"]
KINDS = [pytest.param(name, marks=[] if name in FEW else FULL) for name in zoo.KINDS]


def masks_of(grid, gaussian):
    """Yield the mask of each place, row by row."""
    for place in np.ndindex(*grid):
        along = []
        for index, length in zip(place, grid, strict=True):
            padded = np.zeros(length + 2)
            padded[index : index + 3] = [0.25, 0.5, 0.25] if gaussian else [0, 1, 0]
            along.append(padded[1:-1])
        yield functools.reduce(np.multiply.outer, along)


def by_hand(kind, classes, gaussian):
    """The score of each place's activations, minus that of zeros, and how large these scores are."""
    is_tokens = kind.activations.ndim != len(kind.grid) + 2

    def score(mask):
        mask = (mask.ravel() if is_tokens else mask)[..., None]
        logits = zoo.logits(zoo.with_other_places(kind, lambda values: values * mask))
        return logits[np.arange(len(logits)), classes]

    nothing = score(np.zeros(kind.grid))
    alone = np.stack([score(mask) for mask in masks_of(kind.grid, gaussian)], axis=1)
    return (alone - nothing[:, None]).reshape(-1, *kind.grid), np.abs(alone).max()


@pytest.mark.parametrize("name", KINDS)
def test_a_place_has_what_it_adds_to_the_score_by_itself(name):
    kind = zoo.make(name)
    classes = zoo.logits(kind).argmax(-1)
    target = classes if kind.output is None else targets.Output(kind.output, classes)
    cam = GradCAM(kind.model, kind.layer, call=kind.call, method="reciprocam")
    found = cam(kind.inputs, target).map
    expected, largest = by_hand(kind, classes, gaussian=kind.activations.ndim != len(kind.grid) + 2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=kind.tolerance * largest)


@pytest.mark.parametrize(
    ("name", "gaussian"), [("subclassed", True), pytest.param("ViT", False, marks=pytest.mark.slow)]
)
def test_a_mask_may_keep_the_places_around_or_not(name, gaussian):
    kind = zoo.make(name)
    cam = GradCAM(kind.model, kind.layer, method=methods.reciprocam(gaussian=gaussian))
    expected, largest = by_hand(kind, [1, 2], gaussian)
    np.testing.assert_allclose(cam(kind.inputs, [1, 2]).map, expected, rtol=0, atol=kind.tolerance * largest)


def test_it_is_what_was_worked_out_by_hand():
    # S = ReLU(2 mean(a) - 3 mean(b) + 2) of three places (a, b). Of nothing S = 2.
    image = keras.Input((3, 2))
    same, dense = keras.layers.Activation("linear", name="same"), keras.layers.Dense(2)
    pool = keras.layers.GlobalAveragePooling1D()
    model = keras.Model(image, chain(image, [same, pool, dense, keras.layers.ReLU()]))
    dense.set_weights([np.array([[2, 0], [-3, 0]]), np.array([2, 0])])
    signal = np.array([[[3, 0], [0, 1], [3, 12]]], "float32")
    # Alone: ReLU(2 + 2) = 4, ReLU(-1 + 2) = 1, ReLU(2 - 12 + 2) = 0.
    found = GradCAM(model, "same", method="reciprocam")(signal, 0)
    np.testing.assert_allclose(found.map, [[2, -1, -2]], rtol=1e-6)
    # With half of the place and a quarter of its neighbors: 1 - 1/4, 1/2 - 1/2 + 1/2 - 3, -1/4 + 1 - 6.
    found = GradCAM(model, "same", method=methods.reciprocam(gaussian=True))(signal, 0)
    np.testing.assert_allclose(found.map, [[0.75, -2, -2]], rtol=1e-6)


def test_before_pooling_and_a_dense_layer_it_is_hirescam():
    kind = zoo.make("float64")
    found = GradCAM(kind.model, kind.layer, method="reciprocam")(kind.inputs, targets.Classes([0, 1, 2])).map
    assert found.dtype == tf.float64
    for index in range(zoo.CLASSES):
        expected = zoo.expected_maps(kind, [index, index])["hirescam"]
        np.testing.assert_allclose(found[:, index], expected, rtol=0, atol=2e-15)


def test_several_classes_are_what_each_is_alone_and_cost_no_further_pass(images):
    model = build("functional")
    runs = count_runs(model)
    cam = GradCAM(model, "conv1", method="reciprocam")
    together = cam(images, targets.Classes([[4, 1], [0, 3], [2, 2]])).map.numpy()
    assert len(runs) == 2  # the network, and all that follows the layer
    for place, classes in enumerate([[4, 0, 2], [1, 3, 2]]):
        alone = cam(images, classes).map.numpy()
        np.testing.assert_allclose(together[:, place], alone, rtol=0, atol=1e-6 * np.abs(alone).max())


@pytest.mark.parametrize("places", [1, 5, 63, 64, 1000])
@pytest.mark.product(kept=lambda places: places == 5)
def test_how_many_places_run_at_once_changes_nothing(unchanged, images, places):
    expected = GradCAM(unchanged, method=methods.reciprocam(places=1000))(images).map.numpy()
    found = GradCAM(unchanged, method=methods.reciprocam(places=places))(images).map
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_an_image_of_any_size_is_explained():
    kind = zoo.make("any size")
    found = GradCAM(kind.model, kind.layer, method=methods.reciprocam(places=4))(kind.inputs).map
    expected = GradCAM(kind.model, kind.layer, method="hirescam")(kind.inputs).map.numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def operations(model, method):
    """Return types and names of all operations that an explainer runs."""
    cam = GradCAM(model, "conv1", method=method)
    spec = tf.TensorSpec(model.input_shape, "float32")
    graph = tf.function(lambda images: cam(images, 1).map).get_concrete_function(spec).graph.as_graph_def()
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    return {node.op for node in nodes}, " ".join(node.name for node in nodes)


def test_there_is_no_gradient_and_no_loop_where_the_places_run_at_once(unchanged):
    types, names = operations(unchanged, "reciprocam")
    assert not types & {"While", "StatelessWhile"}
    assert not re.search("grad", names)
    assert re.search("grad", operations(unchanged, "gradcam")[1])
    assert operations(unchanged, methods.reciprocam(places=63))[0] & {"While", "StatelessWhile"}


def test_xla_compiles_it_with_the_network(unchanged, images):
    cam = GradCAM(unchanged, "conv1", method="reciprocam")
    compiled = tf.function(lambda images: cam(images, 1).map, jit_compile=True, autograph=False)
    expected = cam(images, 1).map.numpy()
    np.testing.assert_allclose(compiled(images), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_smoothed_it_is_a_mean_of_maps_also_of_several_classes(unchanged, images):
    still = GradCAM(unchanged, "conv1", method=methods.smooth("reciprocam", samples=2, noise=0.0))
    found = still(images, targets.Classes([1, 2])).map
    expected = GradCAM(unchanged, "conv1", method="reciprocam")(images, targets.Classes([1, 2])).map.numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("error", "parameters", "message"),
    [
        (ValueError, {"places": 0}, "`places` must be a whole number from 1. Received: places=0"),
        (TypeError, {"gaussian": 1}, "`gaussian` must be True, False or None. Received: gaussian=1"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(error, parameters, message):
    with pytest.raises(error, match=message):
        methods.reciprocam(**parameters)

"""A method for each layer, and the preset `"locate"`: by hand, and what it refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_gradcam import GradCAM, make_gradcam_heatmap, methods, targets

SIDE = 16
IMAGES = np.random.default_rng(3).normal(size=(2, SIDE, SIDE, 3)).astype("float32")


def network(activation="softmax", units=4, width=6):
    """Two grids, 8 x 8 and 4 x 4, and a head."""
    keras.utils.set_random_seed(5)
    start = keras.Input((SIDE, SIDE, 3))
    fine = keras.layers.Conv2D(width, 3, 2, "same", activation="relu", name="fine")(start)
    coarse = keras.layers.Conv2D(width, 3, 2, "same", activation="relu", name="coarse")(fine)
    pooled = keras.layers.GlobalAveragePooling2D()(coarse)
    return keras.Model(start, keras.layers.Dense(units, activation, name="head")(pooled))


def maps_by_hand(model, score):
    """Element-wise Grad-CAM at `fine` and Grad-CAM at `coarse`, by TensorFlow alone, in float64."""
    fine_kernel, fine_bias, kernel, bias, dense, constant = (
        weight.numpy().astype("float64") for weight in model.weights
    )
    fine = tf.nn.relu(tf.nn.conv2d(IMAGES.astype("float64"), fine_kernel, 2, "SAME") + fine_bias)
    with tf.GradientTape() as tape:
        tape.watch(fine)
        coarse = tf.nn.relu(tf.nn.conv2d(fine, kernel, 2, "SAME") + bias)
        tape.watch(coarse)
        value = score(tf.reduce_mean(coarse, (1, 2)) @ dense + constant)
    of_fine, of_coarse = tape.gradient(value, [fine, coarse])
    alpha = tf.reduce_mean(of_coarse, (1, 2), keepdims=True)
    elementwise = tf.reduce_sum(tf.nn.relu(of_fine * fine), -1).numpy()
    return value.numpy(), elementwise, tf.reduce_sum(alpha * coarse, -1).numpy()


def log_odds(logits):
    others = tf.reduce_logsumexp(tf.gather(logits, [0, 1, 3], axis=1), 1)
    return logits[:, 2] - others


@pytest.mark.parametrize(
    ("activation", "score"),
    [("softmax", log_odds), (None, log_odds), ("sigmoid", lambda logits: logits[:, 2])],
)
def test_locate_multiplies_two_maps_of_the_evidence_against_all_other_classes(activation, score):
    model = network(activation)
    explanation = GradCAM(model, method="locate")(IMAGES, 2, size=None)
    expected, *maps = maps_by_hand(model, score)
    np.testing.assert_allclose(explanation.score, expected, rtol=1e-5)
    for found, by_hand in zip(explanation.map, maps, strict=True):
        np.testing.assert_allclose(found, by_hand, atol=1e-5 * np.abs(by_hand).max())
    fine, coarse = explanation.heatmaps  # Both on the finer grid.
    product = fine.numpy() * coarse.numpy()
    largest = product.max((1, 2), keepdims=True)
    np.testing.assert_allclose(explanation.heatmap, product / largest, atol=1e-6)


def test_the_log_odds_have_the_gradient_of_the_probability_and_do_not_saturate():
    model = network()
    cam = GradCAM(model, ["fine", "coarse"], method="locate")
    by_probability = GradCAM(
        model, ["fine", "coarse"], method=["gradcam_elementwise", "gradcam"], fuse="refinecam"
    )
    explained = by_probability(IMAGES, targets.Probability(2), interpolation=("gaussian", 0.8))
    np.testing.assert_allclose(cam(IMAGES, 2).heatmap, explained.heatmap, atol=2e-4)
    head = model.get_layer("head")
    head.bias.assign([0, 0, 40, 0])  # The probability is 1.
    assert np.ptp(cam(IMAGES, 2).map[1]) > 0.01 * np.ptp(explained.map[1])
    assert np.ptp(by_probability(IMAGES, targets.Probability(2)).map[1]) < 1e-12 * np.ptp(explained.map[1])


@pytest.mark.parametrize("target", [None, 2, targets.Classes([2, 0]), targets.TopClasses(2)])
def test_every_kind_of_class_is_explained_against_the_others(target):
    model = network()
    explanation = GradCAM(model, method="locate")(IMAGES, target, size=None)
    probabilities = model.predict(IMAGES, verbose=0)
    classes = np.reshape(explanation.target, (2, -1))
    chosen = np.take_along_axis(probabilities, classes, axis=1).reshape(explanation.score.shape)
    np.testing.assert_allclose(explanation.score, np.log(chosen / (1 - chosen)), atol=1e-5)


def test_the_preset_is_one_line_compiled_once_frozen_or_not():
    model = network()
    heatmap = make_gradcam_heatmap(model, IMAGES, method="locate")
    cam = GradCAM(model, method="locate")
    np.testing.assert_allclose(cam(IMAGES).heatmap, heatmap, atol=1e-6)
    np.testing.assert_allclose(cam.freeze()(IMAGES).heatmap, heatmap, atol=1e-5)
    assert repr(cam) == (
        f"GradCAM(model={model.name!r}, layer=['fine', 'coarse'], method='locate', fuse='refinecam')"
    )
    assert cam.method is methods.locate
    assert cam.interpolation == ("gaussian", 0.8)


def test_a_model_with_one_grid_uses_its_last_layer_twice():
    start = keras.Input((SIDE, SIDE, 3))
    conv = keras.layers.Conv2D(4, 3, activation="relu", name="only")(start)
    head = keras.layers.Dense(3, "softmax")(keras.layers.GlobalAveragePooling2D()(conv))
    cam = GradCAM(keras.Model(start, head), method="locate")
    assert [layer.name for layer in cam.layer] == ["only", "only"]
    assert np.isfinite(cam(IMAGES, 1).heatmap).all()


def test_a_list_has_a_method_for_each_layer():
    model = network()
    together = GradCAM(model, ["fine", "coarse"], method=["eigencam", methods.scorecam(channels=2)])
    alone = [
        GradCAM(model, "fine", method="eigencam"),
        GradCAM(model, "coarse", method=methods.scorecam(channels=2)),
    ]
    explanation = together(IMAGES, 1)
    for found, cam, target in zip(explanation.map, alone, [None, 1], strict=True):
        expected = cam(IMAGES, target).map
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert together.method == (methods.get("eigencam"), methods.scorecam(channels=2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer": "fine", "method": ["gradcam"]}, "`method` must be one method, or a list"),
        ({"layer": ["fine", "coarse"], "method": ["gradcam"]}, "`method` must be one method, or a list"),
        ({"layer": ["fine"], "method": ["gradient"]}, "`method` must be a list of methods that each explain"),
        ({"layer": ["fine"], "method": ["locate"]}, "`method` must be a list of methods that each explain"),
        ({"layer": ["fine"], "method": []}, "`method` must be a list of methods that each explain"),
        ({"layer": "fine", "method": "locate"}, "`layer` must be None for this method"),
        ({"layer": ["fine"], "method": "locate"}, "`layer` must be None for this method"),
        ({"call": 0, "method": "locate"}, "`layer` must be None for this method"),
        ({"method": methods.smooth("locate")}, "`method` must wrap a method of one layer"),
        ({"method": "locat"}, "Did you mean 'locate'"),
    ],
)
def test_what_does_not_fit_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        GradCAM(network(), **options)

"""Explain a model as if it had other weights, and score images without a heatmap."""

import keras
import numpy as np
import pytest
from conftest import CLASSES, SIDE, build

from tf_gradcam import GradCAM, targets

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(3, SIDE, SIDE, 3)).astype("float32")


def other_weights(model):
    return [RANDOM.uniform(0.5, 1.5, weight.shape).astype("float32") for weight in model.weights]


@pytest.mark.parametrize("kind", ["functional", "nested", "sequential", "subclassed"])
@pytest.mark.parametrize("method", ["gradcam", "ablationcam"])
@pytest.mark.product(kept=lambda kind, method: method == "gradcam" or kind == "functional")
def test_weights_are_replaced_in_the_graph_alone(kind, method):
    model = build(kind)
    model(IMAGES)
    cam, own = GradCAM(model, method=method), model.get_weights()
    before = cam(IMAGES, 1)
    first, second = other_weights(model), other_weights(model)
    changed = cam.with_weights(first)
    explained = changed(IMAGES, 1)
    again = cam.with_weights(second)(IMAGES, 1)
    for weight, value in zip(model.get_weights(), own, strict=True):
        np.testing.assert_array_equal(weight, value)
    np.testing.assert_array_equal(cam(IMAGES, 1).map, before.map)
    for weights, found in ((first, explained), (second, again)):
        model.set_weights(weights)
        expected = cam(IMAGES, 1)
        np.testing.assert_allclose(found.map, expected.map, rtol=1e-5, atol=1e-5 * np.abs(expected.map).max())
        np.testing.assert_allclose(found.outputs, expected.outputs, rtol=1e-5)
    model.set_weights(own)
    assert len(changed._explainer._traces) == 1  # Both copies share it.
    np.testing.assert_allclose(cam.with_weights(own)(IMAGES, 1).map, before.map, rtol=1e-6)


def test_scores_are_those_of_the_explanation():
    model = build("functional")
    cam = GradCAM(model)
    for target in (None, 2, targets.Probability(1), targets.Classes([0, 3]), lambda outputs: outputs[:, 1]):
        np.testing.assert_allclose(cam.scores(IMAGES, target), cam(IMAGES, target).score, rtol=1e-6)
    np.testing.assert_allclose(
        cam.scores(IMAGES, targets.Probability(1)), model.predict(IMAGES, verbose=0)[:, 1], rtol=1e-5
    )
    weights = other_weights(model)
    changed = cam.with_weights(weights).scores(IMAGES, 1)
    model.set_weights(weights)
    np.testing.assert_allclose(changed, cam.scores(IMAGES, 1), rtol=1e-6)
    with pytest.raises(ValueError, match=f"`target` must be a class from 0 to {CLASSES - 1}"):
        cam.scores(IMAGES, CLASSES)
    poisoned = IMAGES.copy()
    poisoned[1, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="`images` must"):
        cam.scores(poisoned)


def test_weights_of_another_model_are_refused():
    model = build("functional")
    cam = GradCAM(model)
    weights = model.get_weights()
    with pytest.raises(ValueError, match=r"`weights` must hold the \d+ arrays"):
        cam.with_weights(weights[:-1])
    with pytest.raises(ValueError, match="number 0 has the shape"):
        cam.with_weights([weights[0][..., :1], *weights[1:]])
    with pytest.raises(ValueError, match="not frozen"):
        cam.freeze().with_weights(weights)
    with pytest.raises(ValueError, match="`freeze` needs an explainer of the model's own weights"):
        cam.with_weights(weights).freeze()
    unbuilt = keras.Sequential([keras.layers.Conv2D(2, 3), keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(ValueError, match="built"):
        GradCAM(unbuilt).with_weights(weights)

"""Opti-CAM, against Adam by hand on finite differences of a network in float64 NumPy."""

import dataclasses
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from conftest import SIDE, build, chain, count_runs, parts
from oracle import Oracle

from tf_gradcam import GradCAM, methods, targets
from tf_gradcam._methods.perturbation import channel_masks, masked_images

# Of each sort one: a signal, a volume, several inputs, half precision.
FEW = ["signal", "volume", "image and table in a dict", "mixed_float16"]
KINDS = [pytest.param(name, marks=[] if name in FEW else pytest.mark.full) for name in zoo.KINDS]


def combined(activations, u):
    """The maps `(N, h, w)` of activations `(N, h, w, K)` whose channels weigh softmax(u)."""
    powers = np.exp(u - u.max(-1, keepdims=True))
    shares = powers / powers.sum(-1, keepdims=True)
    return np.einsum("nijk,nk->nij", np.maximum(activations, 0), shares)


def masks_of(maps):
    """Maps, enlarged to the image and scaled from their minima and maxima to [0, 1]."""
    for axis in (1, 2):
        count = maps.shape[axis]
        centres = (np.arange(SIDE) + 0.5) * count / SIDE - 0.5
        maps = np.apply_along_axis(
            lambda line, at, n: np.interp(at, np.arange(n), line), axis, maps, centres, count
        )
    return scaled(maps)


def scaled(maps):
    """Maps, scaled from their minima and maxima to [0, 1]."""
    least = maps.min((1, 2), keepdims=True)
    return (maps - least) / (maps.max((1, 2), keepdims=True) - least)


def by_adam(objective, u, steps, rate):
    """Where Adam (Kingma & Ba 2015, algorithm 1) gets from `u` `(N, K)` along central differences."""
    mean, square = np.zeros_like(u), np.zeros_like(u)
    for number in range(1, steps + 1):
        gradient = np.zeros_like(u)
        for channel, step in enumerate(1e-5 * np.eye(u.shape[1])):
            gradient[:, channel] = (objective(u + step) - objective(u - step)) / 2e-5
        mean += 0.1 * (gradient - mean)
        square += 0.001 * (gradient**2 - square)
        u = u + rate * (mean / (1 - 0.9**number)) / (np.sqrt(square / (1 - 0.999**number)) + 1e-8)
    return u


@pytest.mark.parametrize("layer", ["conv1", pytest.param("conv2", marks=pytest.mark.slow)])
def test_it_is_what_adam_finds_by_hand(unchanged, images, layer):
    weights, classes = unchanged.get_weights(), [4, 0, 2]
    activations = Oracle(weights, images).activations[layer]

    def objective(u):
        masks = masks_of(combined(activations, u))
        return Oracle(weights, masks[..., None] * images, classes).scores

    equal = np.zeros((3, activations.shape[-1]))
    found = by_adam(objective, equal, steps=12, rate=0.1)
    assert (objective(found) > objective(equal)).all()
    expected = combined(activations, found)
    expected = scaled(expected)
    cam = GradCAM(unchanged, layer, method=methods.opticam(steps=12))
    explanation = cam(images, classes)
    np.testing.assert_allclose(explanation.map, expected, rtol=0, atol=1.5e-6)  # Rounding is 5e-7.
    # The heatmap is the mask, but for the border of the least place.
    np.testing.assert_allclose(explanation.heatmap, masks_of(combined(activations, found)), atol=0.02)
    for image, index, together in zip(images, classes, explanation.map, strict=True):
        np.testing.assert_allclose(cam(image[None], index).map[0], together, rtol=0, atol=1e-5)
    assert np.array_equal(cam(images, classes).map, explanation.map)


def test_the_first_step_is_what_was_worked_out_by_hand():
    # S = 3 x_1 - x_2 of both channels added up, the third unseen: channel a is at place 1, b at place 2.
    image = keras.Input((3, 2))
    same = keras.layers.Activation("linear", name="same")
    dense = keras.layers.Dense(2, use_bias=False)
    model = keras.Model(image, chain(image, [same, keras.layers.Flatten(), dense]))
    dense.set_weights([np.array([[3, 0], [3, 0], [-1, 0], [-1, 0], [0, 0], [0, 0]])])
    signal = np.array([[[2, 0], [0, 1], [-4, -8]]], "float32")
    # L = (2 a, b, 0) is positive where the signal is. The mask (1, b / 2 a, 0) has more of S as b gets less.
    # Adam's first step is the learning rate, in the direction of the gradient's sign: u = (0.5, -0.5).
    a = 1 / (1 + np.exp(-1))
    for target, expected in ((0, [2 * a, 1 - a, 0]), (targets.Against(0), [2 - 2 * a, a, 0])):
        cam = GradCAM(model, "same", method=methods.opticam(steps=1, learning_rate=0.5))
        explanation = cam(signal, target)
        np.testing.assert_allclose(explanation.map, [np.divide(expected, max(expected))], rtol=1e-5)
        np.testing.assert_allclose(explanation.heatmap, explanation.map, rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class ScoresOfMasks:
    """The score under the mask of equal weights at the first place, under that of a method elsewhere."""

    method: methods.opticam

    def explain(self, scene):
        found = self.method.explain(scene)
        lengths = tf.shape(scene.image)[-found.shape.rank : -1]
        scores = []
        for each in (tf.reduce_mean(tf.nn.relu(scene.activations), -1), found):
            mask = channel_masks(each[None], lengths, scene.layer_placement())
            scores.append(scene.at(masked_images(scene.image, mask)).score[:, None])
        places = tf.shape(tf.reshape(found, [tf.shape(found)[0], -1]))
        return tf.reshape(tf.where(tf.range(places[1]) == 0, *scores), tf.shape(found))


@pytest.mark.parametrize("name", KINDS)
def test_the_score_of_the_masked_image_rises(name):
    kind = zoo.make(name)
    target = None if kind.output is None else targets.Output(kind.output, None)
    cam = GradCAM(kind.model, kind.layer, call=kind.call, method=ScoresOfMasks(methods.opticam(steps=10)))
    if name == "text":
        with pytest.raises(ValueError, match="`method` must not change an input of indices"):
            cam(kind.inputs)
        return
    scores = np.reshape(cam(kind.inputs, target).map, (2, -1))
    assert (scores[:, 1] > scores[:, 0]).all()


@pytest.mark.slow
def test_whole_numbers_are_masked_to_whole_numbers_and_differentiated_as_their_casts():
    whole, real = keras.Input((SIDE, SIDE, 3), dtype="uint8"), keras.Input((SIDE, SIDE, 3))
    rounded = keras.layers.Lambda(lambda image: image + tf.stop_gradient(tf.round(image) - image))
    layers = [keras.layers.Rescaling(1 / 255), *parts()]
    models = keras.Model(whole, chain(whole, layers)), keras.Model(real, chain(rounded(real), layers))
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), "uint8")
    found, expected = (
        GradCAM(each, "conv1", method=methods.opticam(steps=5))(pixels, 1).map for each in models
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_the_model_is_traced_twice_for_any_number_of_steps_and_of_classes_each_is_what_it_is_alone(images):
    model = build("functional")
    runs = count_runs(model)
    cam = GradCAM(model, "conv1", method=methods.opticam(steps=50))
    alone = [cam(images, index).map for index in (3, 1)]
    assert len(runs) == 2
    together = cam(images, targets.Classes([3, 1])).map
    for place, expected in enumerate(alone):
        np.testing.assert_allclose(together[:, place], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"steps": 0}, "`steps` must be a whole number from 1. Received: steps=0"),
        ({"learning_rate": 0}, "`learning_rate` must be a number above 0. Received: learning_rate=0"),
        (
            {"learning_rate": float("nan")},
            "`learning_rate` must be a number above 0. Received: learning_rate=nan",
        ),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        methods.opticam(**parameters)

"""What is taken away and scored again, against the network in float64 NumPy and numbers by hand."""

import functools
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import CLASSES, KINDS, SIDE, build, chain, count_runs
from oracle import Oracle

from tf_gradcam import GradCAM, methods, targets

# A few samples of each, and cells that fit the little images.
FEW = {
    "ablationcam": {},
    "scorecam": {},
    "sscam": {"samples": 3, "noise": 0.5},
    "iscam": {"samples": 3},
    "rise": {"masks": 20, "cells": 3},
}
KINDS_AND_LAYERS = [("functional", "conv1"), ("functional", "relu2"), *((kind, "conv2") for kind in KINDS)]

# SS-CAM and IS-CAM are Score-CAM with other masks.
one_of_each_family = pytest.mark.product(kept=lambda name: name in ("ablationcam", "scorecam", "rise"))


def few(name, **parameters):
    return getattr(methods, name)(**{**FEW[name], **parameters})


@functools.lru_cache(maxsize=64)
def explainer(model, name, layer="conv2", **parameters):
    """One `GradCAM` for all the tests that ask the same model in the same way, as a trace takes a second."""
    return GradCAM(model, None if name == "rise" else layer, method=few(name, **parameters))


def explained(model, images, layer="conv2", target=None, **parameters):
    return explainer(model, parameters.pop("method"), layer, **parameters)(images, target)


def assert_maps_equal(maps, expected, rtol=1e-5):
    """Equal, but for so much of the largest value."""
    np.testing.assert_allclose(maps, expected, rtol=0, atol=rtol * np.abs(expected).max())


def weighted(activations, weights):
    return np.einsum("nijk,nk->nij", activations, weights)


def strongest(activations, channels):
    """Whether each channel of each image is among those that vary most, `(N, K)`."""
    variance = activations.var(axis=(1, 2))
    return variance >= np.sort(variance)[:, -channels, None]


def softmax(values):
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


# Ablation-CAM


def ablation_weights(weights, images, layer, classes=None):
    """`(S - S_k) / S`: a channel is gone where its kernel and its bias are 0."""
    oracle = Oracle(weights, images, classes)
    kernel, lost = 0 if layer == "conv1" else 2, []
    for channel in range(weights[kernel].shape[-1]):
        without = [np.array(each) for each in weights]
        without[kernel][..., channel] = without[kernel + 1][channel] = 0
        lost.append(oracle.scores - Oracle(without, images, oracle.classes).scores)
    return (np.array(lost) / oracle.scores).T


@pytest.mark.parametrize(("kind", "layer"), KINDS_AND_LAYERS)
@pytest.mark.product(kept=lambda kind: kind == "functional")  # test_registry.py has the kinds
def test_ablationcam_weighs_a_channel_by_the_share_of_the_score_lost_without_it(images, kind, layer):
    model = build(kind)
    oracle = Oracle(model.get_weights(), images)
    expected = weighted(oracle.activations[layer], ablation_weights(model.get_weights(), images, layer))
    assert_maps_equal(GradCAM(model, layer, method="ablationcam")(images).map, expected)


def test_before_pooling_and_a_dense_layer_the_weight_is_what_the_channel_adds(unchanged, images):
    oracle = Oracle(unchanged.get_weights(), images, 1)
    activations, kernel = oracle.activations["relu2"], unchanged.get_weights()[4].astype("float64")
    weights = kernel[:, 1] * activations.mean(axis=(1, 2)) / oracle.scores[:, None]
    assert_maps_equal(
        explained(unchanged, images, "relu2", 1, method="ablationcam").map, weighted(activations, weights)
    )


def hand_made(*after, kernel, bias=0.0):
    """An image of 1x2 pixels and 2 channels, pooled, and a dense layer with one class that counts."""
    image = keras.Input((1, 2, 2))
    same = keras.layers.Activation("linear", name="same")
    dense = keras.layers.Dense(2)
    model = keras.Model(image, chain(image, [same, keras.layers.GlobalAveragePooling2D(), dense, *after]))
    dense.set_weights([np.stack([kernel, [0, 0]], axis=1), np.array([bias, 0])])
    return model


PIXELS = np.array([[[[1.0, 2.0], [3.0, 4.0]]]], "float32")  # pooled: (2, 3)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        # S = 2 + 2*3 = 8. Without the first channel 6, weight 2/8; without the second 2, weight 6/8.
        # 0.25*1 + 0.75*2 = 1.75; 0.25*3 + 0.75*4 = 3.75
        (lambda: hand_made(kernel=[1, 2]), [[1.75, 3.75]]),
        # S = -8: the same weights, as they are relative.
        (lambda: hand_made(kernel=[-1, -2]), [[1.75, 3.75]]),
        # S = ReLU(2 - 3 + 2) = 1. Without the first ReLU(-1) = 0, weight 1; without the second 4, weight -3.
        # 1*1 - 3*2 = -5; 1*3 - 3*4 = -9
        (lambda: hand_made(keras.layers.ReLU(), kernel=[1, -1], bias=2), [[-5, -9]]),
        # S = 2*3 - 3*2 = 0: nothing to be a share of.
        (lambda: hand_made(kernel=[3, -2]), [[0, 0]]),
    ],
)
def test_ablationcam_is_what_was_worked_out_by_hand(model, expected):
    np.testing.assert_allclose(
        GradCAM(model(), "same", method="ablationcam")(PIXELS, 0).map[0], expected, rtol=1e-6
    )


def test_channels_of_ablationcam_are_those_of_each_image_that_vary_most(unchanged, images):
    activations = Oracle(unchanged.get_weights(), images).activations["conv1"]
    taken = strongest(activations, 3)
    assert (taken[0] != taken[1]).any()  # so that one choice for all images would be noticed
    weights = ablation_weights(unchanged.get_weights(), images, "conv1") * taken
    cam = explained(unchanged, images, "conv1", method="ablationcam", channels=3)
    assert_maps_equal(cam.map, weighted(activations, weights))


def test_what_goes_around_a_layer_goes_around_its_ablation():
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).normal(size=(2, SIDE, SIDE, 3)).astype("float32")
    first, second, third = (keras.layers.Conv2D(4, 3, padding="same", activation="relu") for _ in range(3))
    pool, dense = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)

    def ending(x, y):
        return chain(keras.layers.Add()([x, keras.layers.Multiply()([x, third(y)])]), [pool, dense])

    x = keras.Input((SIDE, SIDE, 3))
    before = first(x)
    model = keras.Model(x, ending(before, second(before)))
    before, activations = first(images), second(first(images)).numpy()
    score = ending(before, activations).numpy()[:, 2]
    lost = [score - ending(before, activations * (np.arange(4) != k)).numpy()[:, 2] for k in range(4)]
    cam = GradCAM(model, second, method="ablationcam")(images, 2)
    assert_maps_equal(cam.map, weighted(activations, (np.array(lost) / score).T))


# Score-CAM and its kin


def interpolation(length, size):
    """The matrix `(size, length)` of linear interpolation between the middles of pixels."""
    places = (np.arange(size) + 0.5) * length / size - 0.5
    return np.stack([np.interp(places, np.arange(length), unit) for unit in np.eye(length)], axis=1)


def masks_of(activations):
    """Each channel resized to the image and scaled to [0, 1], `(K, N, H, W)`; 0 where it is constant."""
    rows, columns = (interpolation(length, SIDE) for length in activations.shape[1:3])
    masks = np.einsum("hi,wj,nijk->knhw", rows, columns, activations)
    low, high = (each(masks, axis=(2, 3), keepdims=True) for each in (np.min, np.max))
    return np.where(high - low > 1e-9, masks - low, 0) / np.where(high - low > 1e-9, high - low, 1)


def scores_of(weights, images, masks, classes, probability=False):
    """The scores of the images times each mask, `(N, K)`."""
    found = []
    for mask in masks:
        masked = Oracle(weights, images.astype("float64") * mask[..., None], classes)
        values = softmax(masked.logits) if probability else masked.logits
        found.append(values[np.arange(len(images)), masked.classes])
    return np.array(found).T


@pytest.mark.parametrize(("kind", "layer"), KINDS_AND_LAYERS)
@pytest.mark.product(kept=lambda kind: kind == "functional")  # test_registry.py has the kinds
def test_scorecam_weighs_a_channel_by_the_score_of_what_it_shows(images, kind, layer):
    model = build(kind)
    weights = model.get_weights()
    oracle = Oracle(weights, images)
    activations = oracle.activations[layer]
    masks = masks_of(activations)
    # Some masked image looks like another class, and is scored for the one that was predicted.
    others = [Oracle(weights, images * mask[..., None]).classes for mask in masks]
    assert (np.array(others) != oracle.classes).any()
    scores = scores_of(weights, images, masks, oracle.classes)
    expected = weighted(activations, softmax(scores))
    assert_maps_equal(GradCAM(model, layer, method="scorecam")(images).map, expected, rtol=1e-4)


def with_a_constant_channel():
    model = build("functional")
    weights = model.get_weights()
    weights[2][..., 0], weights[3][0] = 0, 2
    model.set_weights(weights)
    return model, weights


def test_the_authors_weigh_by_probabilities_and_skip_constant_channels(images):
    model, weights = with_a_constant_channel()
    oracle = Oracle(weights, images)
    activations = oracle.activations["conv2"]
    scores = scores_of(weights, images, masks_of(activations), oracle.classes, probability=True)
    scores[:, 0] = 0
    cam = explained(model, images, target=targets.Probability(), method="scorecam", authors=True)
    assert_maps_equal(cam.map, weighted(activations, scores))


def test_the_mask_of_a_constant_channel_hides_all(images):
    model, weights = with_a_constant_channel()
    oracle = Oracle(weights, images)
    activations = oracle.activations["conv2"]
    masks = masks_of(activations)
    np.testing.assert_array_equal(masks[0], 0)
    expected = weighted(activations, softmax(scores_of(weights, images, masks, oracle.classes)))
    assert_maps_equal(explained(model, images, method="scorecam").map, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("authors", "expected"),
    [
        # w = (e^2, e^1) / (e^2 + e^1) = (0.731059, 0.268941)
        # 0.731059*2 - 0.268941*2 = 0.924234; twice that
        (False, [[0.924234, 1.848469]]),
        # 2*2 - 1*2 = 2; 2*4 - 1*4 = 4
        (True, [[2, 4]]),
    ],
)
def test_scorecam_is_what_was_worked_out_by_hand(authors, expected):
    # One channel X = (2, 4); A_1 = X with the mask (0, 1), A_2 = -X with the mask (1, 0).
    # The score is the mean of A_1: of X o M_1 = (0, 4) it is 2, of X o M_2 = (2, 0) it is 1.
    image = keras.Input((1, 2, 1))
    both, dense = keras.layers.Conv2D(2, 1, use_bias=False, name="both"), keras.layers.Dense(2)
    model = keras.Model(image, chain(image, [both, keras.layers.GlobalAveragePooling2D(), dense]))
    both.set_weights([np.array([1, -1]).reshape(1, 1, 1, 2)])
    dense.set_weights([np.array([[1, 0], [0, 0]]), np.zeros(2)])
    pixels = np.array([[[[2], [4]]]], "float32")
    cam = GradCAM(model, "both", method=methods.scorecam(authors=authors))(pixels, 0)
    np.testing.assert_allclose(cam.map[0], expected, rtol=1e-5)


def test_channels_of_scorecam_are_those_that_vary_most_and_share_the_softmax(unchanged, images):
    weights = unchanged.get_weights()
    oracle = Oracle(weights, images)
    activations = oracle.activations["conv1"]
    scores = scores_of(weights, images, masks_of(activations), oracle.classes)
    left = np.where(strongest(activations, 3), scores, -np.inf)
    cam = explained(unchanged, images, "conv1", method="scorecam", channels=3)
    assert_maps_equal(cam.map, weighted(activations, softmax(left)), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scorecam", "sscam", "iscam"])
def test_a_constant_in_the_score_as_of_a_baseline_changes_nothing(reweighted, images, name):
    before = explained(reweighted, images, target=1, method=name)
    weights = reweighted.get_weights()
    weights[5][1] += 3
    reweighted.set_weights(weights)
    after = explained(reweighted, images, target=1, method=name)
    np.testing.assert_allclose(after.score - before.score, 3, rtol=1e-5)
    assert_maps_equal(after.map, before.map.numpy(), rtol=1e-4)


def test_sscam_is_scorecam_with_noise_in_the_masks(unchanged, images):
    weights = unchanged.get_weights()
    oracle = Oracle(weights, images)
    activations = oracle.activations["conv2"]
    noise = [tf.random.stateless_normal((SIDE, SIDE), (5, i), 0, 0.3).numpy() for i in range(4)]
    scores = [scores_of(weights, images, masks_of(activations) + each, oracle.classes) for each in noise]
    expected = weighted(activations, softmax(np.mean(scores, axis=0)))
    cam = explained(unchanged, images, method="sscam", samples=4, noise=0.3, seed=5)
    assert_maps_equal(cam.map, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("accumulate", "steps"), [(False, [0.25, 0.5, 0.75, 1]), (True, [0.25, 0.75, 1.5, 2.5])]
)
def test_iscam_is_scorecam_on_the_way_from_nothing_to_the_masked_image(unchanged, images, accumulate, steps):
    weights = unchanged.get_weights()
    oracle = Oracle(weights, images)
    activations = oracle.activations["conv2"]
    scores = [scores_of(weights, images, step * masks_of(activations), oracle.classes) for step in steps]
    expected = weighted(activations, softmax(np.mean(scores, axis=0)))
    cam = explained(unchanged, images, method="iscam", samples=4, accumulate=accumulate)
    assert_maps_equal(cam.map, expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters"), [("sscam", {"samples": 2, "noise": 0}), ("iscam", {"samples": 1})]
)
def test_without_noise_or_steps_they_are_scorecam(unchanged, images, name, parameters):
    expected = explained(unchanged, images, method="scorecam").map.numpy()
    cam = explained(unchanged, images, method=name, **parameters)
    assert_maps_equal(cam.map, expected, rtol=1e-5)


def signal():
    x = keras.Input((20, 2))
    layers = [keras.layers.Conv1D(4, 3, strides=2, activation="relu", name="conv")]
    return x, [*layers, keras.layers.GlobalAveragePooling1D()]


def volume():
    x = keras.Input((8, 9, 10, 1))
    layers = [keras.layers.Conv3D(4, 3, strides=2, activation="relu", name="conv")]
    return x, [*layers, keras.layers.GlobalAveragePooling3D()]


def video():
    """Its map is one for all frames."""
    x = keras.Input((3, 8, 10, 2))
    layers = [keras.layers.Reshape((8, 10, 6)), keras.layers.Conv2D(4, 3, strides=2, name="conv")]
    return x, [*layers, keras.layers.GlobalAveragePooling2D()]


@pytest.mark.parametrize("kind", [signal, volume, video])
def test_masks_have_the_axes_of_the_map(kind):
    keras.utils.set_random_seed(0)
    x, layers = kind()
    model = keras.Model(x, chain(x, [*layers, keras.layers.Dense(3)]))
    inputs = np.random.default_rng(0).normal(size=(2, *x.shape[1:])).astype("float32")
    activations = keras.Model(x, model.get_layer("conv").output)(inputs).numpy()
    masks, rank = activations, activations.ndim - 2
    for axis, size in enumerate(inputs.shape[-rank - 1 : -1], start=1):
        masks = np.moveaxis(np.tensordot(interpolation(masks.shape[axis], size), masks, (1, axis)), 0, axis)
    places = tuple(range(1, rank + 1))
    low, high = (each(masks, axis=places, keepdims=True) for each in (np.min, np.max))
    masks = np.moveaxis((masks - low) / (high - low), -1, 0)[..., None]
    if kind is video:
        masks = masks[:, :, None]
    scores = np.array([model(inputs * mask).numpy()[:, 1] for mask in masks.astype("float32")]).T
    expected = np.einsum("n...k,nk->n...", activations, softmax(scores))
    assert_maps_equal(GradCAM(model, "conv", method="scorecam")(inputs, 1).map, expected, rtol=1e-4)


# RISE


def fake_scene(image, score):
    """A scene that notes every image that it is asked to look at."""
    seen = []

    def at(images):
        seen.append(images.numpy())
        return types.SimpleNamespace(score=score(images))

    return types.SimpleNamespace(image=image, score=score(image), at=at), seen


@pytest.mark.parametrize("centred", [True, False])
def test_rise_is_the_mean_of_the_masks_weighed_by_the_scores_of_what_they_show(centred):
    image = tf.ones((1, 12, 15, 1), tf.float64)
    scene, seen = fake_scene(image, lambda images: tf.exp(images[:, 3, 4, 0]) + images[:, 9, 9, 0])
    found = few("rise", masks=50, batch=8, probability=0.3, centred=centred).explain(scene)
    assert [len(each) for each in seen] == [8, 8, 8, 8, 8, 8, 8]
    masks = np.concatenate(seen)[:50, ..., 0]  # as the image is all ones; the last 6 only fill up
    scores = np.exp(masks[:, 3, 4]) + masks[:, 9, 9]
    scores -= scores.mean() * centred
    expected = sum(score * mask for score, mask in zip(scores, masks, strict=True)) / (50 * 0.3)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_masks_of_rise_are_smooth_keep_their_share_and_lie_anywhere():
    scene, seen = fake_scene(tf.ones((1, 32, 40, 1)), lambda images: images[:, 0, 0, 0])
    methods.rise(masks=2000, cells=4, probability=0.3, batch=2000).explain(scene)
    masks = seen[0][..., 0]
    assert masks.shape == (2000, 32, 40)
    assert (masks.min(), masks.max()) == (0, 1)
    # Each pixel is kept as often; 0.3 with a standard deviation of at most sqrt(0.3 * 0.7 / 2000) = 0.01.
    np.testing.assert_allclose(masks.mean(axis=0), 0.3, atol=0.05)
    # From pixel to pixel they change by no more than the way from one cell's middle to the next takes.
    assert np.abs(np.diff(masks, axis=1)).max() <= 4 / 40 + 1e-6  # 5 cells of 8 pixels drawn from 4
    assert np.abs(np.diff(masks, axis=2)).max() <= 4 / 50 + 1e-6  # 5 cells of 10 pixels
    # Where a kept cell beside one that isn't begins differs by the shift: all 8 of them.
    row = masks[:, 0]
    corners = [place for each in row for place in np.flatnonzero((each[1:] > 0) & (each[:-1] == 0))]
    assert len(set(corners)) > 10


def linear_model(weights):
    """The score is the sum of the image's pixels times `weights` `(H, W)`."""
    image = keras.Input((*weights.shape, 1))
    same, dense = keras.layers.Activation("linear"), keras.layers.Dense(2)
    model = keras.Model(image, chain(image, [same, keras.layers.Flatten(), dense]))
    dense.set_weights([np.stack([weights.ravel(), 0 * weights.ravel()], axis=1), np.zeros(2)])
    return model


def test_rise_peaks_where_the_score_looks():
    weights = np.zeros((24, 24))
    weights[4:9, 15:20] = 1
    image = np.ones((1, 24, 24, 1), "float32")
    for sign in (1, -1):
        cam = GradCAM(linear_model(sign * weights), method=methods.rise(masks=400, cells=6))(image, 0)
        row, column = np.unravel_index(np.argmax(sign * cam.map[0]), (24, 24))
        assert max(abs(row - 6), abs(column - 17)) <= 2
        assert sign * cam.map[0, 6, 17] > 0


@pytest.mark.slow
def test_rise_is_of_what_keeping_a_pixel_adds(reweighted, images):
    before = explained(reweighted, images, target=1, method="rise")
    paper = explained(reweighted, images, target=1, method="rise", centred=False)
    weights = reweighted.get_weights()
    weights[5][1] += 3
    reweighted.set_weights(weights)
    assert_maps_equal(
        explained(reweighted, images, target=1, method="rise").map, before.map.numpy(), rtol=1e-4
    )
    shifted = explained(reweighted, images, target=1, method="rise", centred=False)
    assert (shifted.map - paper.map).numpy().min() > 0


def test_rise_is_one_map_for_each_image_on_the_image_itself(unchanged, images):
    explanation = explained(unchanged, images, method="rise")
    assert explanation.map.shape == explanation.heatmap.shape == (3, SIDE, SIDE)


@pytest.mark.parametrize("shape", [(12, 1), (2, 3, 4, 1)])
def test_rise_explains_signals_and_volumes(shape):
    """Of the score `x[place]` the map is the covariance of the masks at `place` and elsewhere, over p."""
    x = keras.Input(shape)
    places = int(np.prod(shape))
    model = keras.Model(x, keras.layers.Flatten()(x))
    cam = GradCAM(model, method=methods.rise(masks=200, cells=2))
    images = np.random.default_rng(0).uniform(1, 2, (2, *shape)).astype("float32")
    maps = cam(images, targets.Classes(range(places))).map.numpy()
    assert maps.shape == (2, places, *shape[:-1])
    covariance = maps.reshape(2, places, places) / images.reshape(2, places, 1)
    np.testing.assert_allclose(covariance[0], covariance[1], atol=1e-5)
    np.testing.assert_allclose(covariance[0], covariance[0].T, atol=1e-5)
    assert np.linalg.eigvalsh(covariance[0].astype("float64")).min() > -1e-5
    assert np.diag(covariance[0]).min() > 0


def test_the_masks_of_rise_come_from_the_seed_alone(unchanged, images):
    first, again, other = (
        GradCAM(unchanged, method=few("rise", seed=seed))(images).map for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01 * np.abs(first).max()


# All of them


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("batch", [1, 5, 7, 64])
@pytest.mark.product(kept=lambda name, batch: name == "scorecam" or batch == 5)
def test_the_size_of_a_batch_changes_nothing(unchanged, images, name, batch):
    expected = explained(unchanged, images, method=name).map.numpy()
    assert_maps_equal(explained(unchanged, images, method=name, batch=batch).map, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_every_image_has_the_map_it_has_alone_each_with_its_class(unchanged, images, name):
    cam = explainer(unchanged, name)
    together = cam(images, [4, 0, 2])
    for i, index in enumerate([4, 0, 2]):
        assert_maps_equal(together.map[i], cam(images[i], index).map[0].numpy(), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
@one_of_each_family
def test_several_classes_at_once_are_what_each_is_alone(unchanged, images, name):
    cam = explainer(unchanged, name)
    together = cam(images, targets.Classes([[4, 1], [0, 3], [2, 2]]))
    for place, classes in enumerate([[4, 0, 2], [1, 3, 2]]):
        assert_maps_equal(together.map[:, place], cam(images, classes).map.numpy(), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_the_predicted_class_is_chosen_on_the_image_itself(unchanged, images, name):
    predicted = Oracle(unchanged.get_weights(), images).classes
    cam = explainer(unchanged, name)
    np.testing.assert_array_equal(cam(images).map, cam(images, predicted).map)


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_the_order_of_the_channels_does_not_matter(reweighted, images, name):
    before = explained(reweighted, images, method=name).map.numpy()
    order = [3, 1, 0, 5, 2, 4]
    kernel1, bias1, kernel2, bias2, kernel, bias = reweighted.get_weights()
    reweighted.set_weights([kernel1, bias1, kernel2[..., order], bias2[order], kernel[order], bias])
    assert_maps_equal(explained(reweighted, images, method=name).map, before, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ablationcam", {"channels": 2}),
        ("scorecam", {"channels": 2}),
        ("scorecam", {"authors": True}),
        ("sscam", {"samples": 2}),
        ("sscam", {"noise": 1.0}),
        ("sscam", {"seed": 1}),
        ("sscam", {"channels": 2}),
        ("iscam", {"samples": 2}),
        ("iscam", {"accumulate": True}),
        ("iscam", {"channels": 2}),
        ("rise", {"masks": 10}),
        ("rise", {"cells": 2}),
        ("rise", {"probability": 0.3}),
        ("rise", {"centred": False}),
        ("rise", {"seed": 1}),
    ],
)
def test_every_parameter_counts(unchanged, images, name, parameters):
    before = explained(unchanged, images, method=name).map.numpy()
    after = explained(unchanged, images, method=name, **parameters).map.numpy()
    assert np.abs(after - before).max() > 1e-3 * np.abs(before).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ablationcam", "scorecam", "sscam", "iscam"])
@one_of_each_family
def test_more_channels_than_there_are_are_all_of_them(unchanged, images, name):
    every = explained(unchanged, images, method=name).map.numpy()
    assert_maps_equal(explained(unchanged, images, method=name, channels=100).map, every)


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
@one_of_each_family
def test_the_order_of_the_axes_does_not_matter(name):
    images = np.random.default_rng(0).normal(size=(2, 3, 12, 10)).astype("float32")
    found = []
    for order in ("channels_first", "channels_last"):
        x = keras.Input((3, 12, 10) if order == "channels_first" else (12, 10, 3))
        conv = keras.layers.Conv2D(4, 3, activation="relu", data_format=order, name="conv2")
        pool = keras.layers.GlobalAveragePooling2D(data_format=order)
        model = keras.Model(x, chain(x, [conv, pool, keras.layers.Dense(CLASSES)]))
        random = np.random.default_rng(3)
        model.set_weights([random.normal(size=each.shape) for each in model.get_weights()])
        batch = images if order == "channels_first" else np.moveaxis(images, 1, -1)
        found.append(explained(model, batch, target=1, method=name).map.numpy())
    assert_maps_equal(found[0], found[1], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
@one_of_each_family
def test_a_float64_model_has_float64_maps(name):
    x = keras.Input((12, 10, 3), dtype="float64")
    conv = keras.layers.Conv2D(4, 3, activation="relu", name="conv2", dtype="float64")
    ends = [keras.layers.GlobalAveragePooling2D(dtype="float64"), keras.layers.Dense(3, dtype="float64")]
    cam = explained(keras.Model(x, chain(x, [conv, *ends])), np.ones((1, 12, 10, 3)), method=name)
    assert cam.map.dtype == tf.float64
    assert np.isfinite(cam.map).all()


@pytest.mark.parametrize(
    ("name", "parameters", "total"),
    [
        ("scorecam", {}, 6),
        ("scorecam", {"channels": 5}, 5),
        pytest.param("sscam", {}, 18, marks=pytest.mark.slow),
        pytest.param("iscam", {}, 18, marks=pytest.mark.slow),
        ("rise", {}, 20),
    ],
)
@one_of_each_family
def test_progress_is_told_after_each_batch(unchanged, images, name, parameters, total):
    told = []
    explained(unchanged, images, method=name, batch=6, progress=lambda *each: told.append(each), **parameters)
    # Three images: two masks at a time.
    expected = [(min(done, total), total) for done in range(2, total + 2, 2)]
    assert told == expected
    assert all(type(number) is int for each in told for number in each)


def counted():
    """A model that notes each time its Python is run."""
    model = build("functional")
    return model, count_runs(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
@one_of_each_family
def test_other_classes_and_other_batches_are_no_new_trace(images, name):
    model, runs = counted()
    cam = GradCAM(model, None if name == "rise" else "conv2", method=few(name))
    cam(images, 0)
    first = len(runs)
    for batch, target in [(images, 3), (images[:1], 2), (images[:2], [1, 4])]:
        cam(batch, target)
    assert 0 < len(runs) == first


@pytest.mark.parametrize(("layer", "runs_expected"), [("relu2", 1), ("conv2", 2)])
def test_a_head_without_curves_needs_no_run_without_each_channel(images, layer, runs_expected):
    model, runs = counted()
    GradCAM(model, layer, method="ablationcam")(images)
    assert len(runs) == runs_expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ablationcam", "scorecam"])
def test_several_layers_have_a_map_each(unchanged, images, name):
    cam = GradCAM(unchanged, ["conv1", "conv2"], method=few(name))(images)
    for layer, found in zip(["conv1", "conv2"], cam.map, strict=True):
        assert_maps_equal(found, explained(unchanged, images, layer, method=name).map.numpy(), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        (
            "ablationcam",
            {"channels": 0},
            "`channels` must be a whole number from 1 or None. Received: channels=0",
        ),
        ("ablationcam", {"batch": 0}, "`batch` must be a whole number from 1. Received: batch=0"),
        ("ablationcam", {"batch": None}, "`batch` must be a whole number from 1. Received: batch=None"),
        ("scorecam", {"channels": 1.5}, "`channels` must be a whole number .*channels=1.5"),
        ("scorecam", {"channels": True}, "`channels` must be a whole number .*channels=True"),
        ("scorecam", {"batch": -1}, "`batch` must be a whole number .*batch=-1"),
        ("sscam", {"samples": 0}, "`samples` must be a whole number .*samples=0"),
        ("sscam", {"noise": -1}, "`noise` must be a number of 0 or more. Received: noise=-1"),
        ("sscam", {"noise": float("nan")}, "`noise` must be a number of 0 or more. Received: noise=nan"),
        ("sscam", {"seed": 2**31}, "`seed` must be a whole number of 32 bits. Received: seed=2147483648"),
        ("iscam", {"samples": "many"}, "`samples` must be a whole number .*samples='many'"),
        ("rise", {"masks": 0}, "`masks` must be a whole number .*masks=0"),
        ("rise", {"cells": 0}, "`cells` must be a whole number .*cells=0"),
        (
            "rise",
            {"probability": 1},
            "`probability` must be a number above 0 and below 1. Received: probability=1",
        ),
        ("rise", {"seed": 0.5}, "`seed` must be a whole number of 32 bits. Received: seed=0.5"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        getattr(methods, name)(**parameters)


@pytest.mark.parametrize("name", ["scorecam", "sscam", "iscam", "rise"])
def test_progress_must_be_callable(name):
    with pytest.raises(
        TypeError, match=r"`progress` must be a callable \(done, total\). Received: progress=3"
    ):
        getattr(methods, name)(progress=3)

"""CAM, ShapleyCAM and Finer-CAM: against what they are by definition, and where they must refuse."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIDE, build, chain, head, parts
from oracle import Oracle

from tf_gradcam import GradCAM, methods, targets

Z = 64  # places of relu2


def close(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


# CAM


def test_cam_weighs_channels_as_the_dense_layer_does(model, images):
    kernel, bias = (each.astype("float64") for each in model.get_weights()[-2:])
    explanation = GradCAM(model, method="cam")(images, [4, 0, 2])
    activations = Oracle(model.get_weights(), images).activations["relu2"]
    expected = np.einsum("nijk,nk->nij", activations, kernel[:, [4, 0, 2]].T)
    close(explanation.map, expected)
    # Its mean is the logit without its bias.
    np.testing.assert_allclose(
        np.mean(explanation.map, axis=(1, 2)) + bias[[4, 0, 2]], explanation.score, rtol=1e-5
    )


def test_cam_is_z_times_gradcam_and_gradcam_is_hirescam_and_xgradcam(functional, images):
    gradcam = GradCAM(functional)(images).map
    close(GradCAM(functional, method="cam")(images).map, Z * gradcam)
    close(GradCAM(functional, method="hirescam")(images).map, gradcam)
    close(GradCAM(functional, method="xgradcam")(images).map, gradcam)


@pytest.mark.parametrize(("layer", "reason"), [("conv2", "Relu"), ("conv1", "Conv2D', 'Relu")])
def test_cam_refuses_a_head_of_more_than_pooling_and_a_dense_layer(model, images, layer, reason):
    with pytest.raises(ValueError, match=f"`method` 'cam' needs average pooling.*{reason}"):
        GradCAM(model, layer, method="cam")(images)


def test_cam_refuses_a_head_without_pooling(images):
    inputs = keras.Input((SIDE, SIDE, 3))
    flattened = keras.layers.Flatten()(parts()[0](inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(flattened))
    with pytest.raises(ValueError, match="a head with no pooling"):
        GradCAM(model, "conv1", method="cam")(images)


@pytest.mark.parametrize("before", [keras.layers.Rescaling(2.0), keras.layers.Dense(4)])
def test_cam_refuses_a_head_that_pools_something_else_or_only_one_axis(images, before):
    inputs = keras.Input((SIDE, SIDE, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(before(parts()[0](inputs)))
    model = keras.Model(inputs, keras.layers.Dense(3)(pooled))
    with pytest.raises(ValueError, match="`method` 'cam' needs"):
        GradCAM(model, "conv1", method="cam")(images)
    rows = keras.ops.mean(parts()[0](inputs), axis=1)
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(rows)))
    with pytest.raises(ValueError, match="`method` 'cam' needs"):
        GradCAM(model, "conv1", method="cam")(images)


def test_cam_takes_a_head_with_batch_normalization_and_dropout(images):
    inputs = keras.Input((SIDE, SIDE, 3))
    after = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.5), keras.layers.Dense(3)]
    model = keras.Model(inputs, chain(inputs, [*parts()[:4], *after]))
    close(GradCAM(model, method="cam")(images).map, Z * GradCAM(model)(images).map.numpy())


@pytest.mark.parametrize("method", ["cam", "finercam"])
@pytest.mark.parametrize("target", [lambda outputs: outputs[:, 0], targets.Probability(1), targets.Against()])
def test_what_needs_a_class_refuses_anything_else(functional, images, method, target):
    with pytest.raises(ValueError, match=f"`method` '{method}' needs a class as its target"):
        GradCAM(functional, method=method)(images, target)


@pytest.mark.parametrize("method", ["cam", "finercam"])
def test_a_single_unit_has_no_other_classes(images, method):
    inputs = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(inputs, chain(inputs, [*parts()[:4], keras.layers.Dense(1, activation="sigmoid")]))
    with pytest.raises(ValueError, match=f"`method` '{method}' needs a class"):
        GradCAM(model, method=method)(images)


@pytest.mark.parametrize("method", ["cam", "finercam"])
def test_the_class_may_be_of_one_of_several_outputs(functional, images, method):
    pooled = functional.get_layer("pool").output
    model = keras.Model(functional.inputs, {"a": functional.outputs[0], "b": keras.layers.Dense(2)(pooled)})
    of_output = GradCAM(model, "relu2", method=method)(images, targets.Output("a", 3))
    close(of_output.map, GradCAM(functional, "relu2", method=method)(images, 3).map.numpy())


# ShapleyCAM


class Quadratic(keras.layers.Layer):
    """`sum_k (sum_ij A_ijk)^2`, whose Hessian is 2 between any two places of a channel."""

    def call(self, activations):
        return tf.reduce_sum(tf.reduce_sum(activations, axis=(1, 2)) ** 2, axis=1, keepdims=True)


def test_shapleycam_by_hand():
    """One image of 1 x 2 places with a channel, and the score (a + b)^2.

    g = 2 (a + b) at both places; H A = 2 (a + b), too; so alpha = (a + b), and L = (a + b) (a, b).
    """
    images = keras.Input((1, 2, 1))
    conv = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name="conv")
    model = keras.Model(images, Quadratic()(conv(images)))
    explanation = GradCAM(model, "conv", method="shapleycam")(np.array([[[[3.0], [2.0]]]]), targets.Value())
    np.testing.assert_allclose(explanation.map, [[[15.0, 10.0]]], rtol=1e-6)
    plain = GradCAM(model, "conv")(np.array([[[[3.0], [2.0]]]]), targets.Value())
    np.testing.assert_allclose(plain.map, [[[30.0, 20.0]]], rtol=1e-6)


def test_shapleycam_of_a_probability_has_the_hessian_of_the_softmax(functional, images):
    """In float64 NumPy: `p_c` of `softmax(W mean(A) + b)`, with its gradient and Hessian written out."""
    kernel = functional.get_weights()[-2].astype("float64")
    oracle = Oracle(functional.get_weights(), images, 1)
    activations = oracle.activations["relu2"]
    expected = []
    for a, logits in zip(activations, oracle.logits, strict=True):
        p = np.exp(logits - logits.max())
        p /= p.sum()
        one = np.eye(len(p))[1]
        by_logits = p[1] * (one - p)
        # d2 p_c / dz_i dz_j = p_c ((1_ci - p_i) (1_cj - p_j) - p_i (1_ij - p_j))
        second = p[1] * (np.outer(one - p, one - p) - (np.diag(p) - np.outer(p, p)))
        gradient = kernel @ by_logits / Z
        along = kernel @ second @ (kernel.T @ a.mean(axis=(0, 1))) / Z
        expected.append(a @ (gradient - along / 2))
    found = GradCAM(functional, method="shapleycam")(images, targets.Probability(1)).map
    close(found, np.array(expected), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["conv1", "conv2", "relu2"])
@pytest.mark.product(kept=lambda model, layer: model == "functional" or layer == "conv2")
def test_shapleycam_is_gradcam_for_a_logit_after_relus(model, images, layer):
    found, expected = (GradCAM(model, layer, method=name)(images).map for name in ("shapleycam", "gradcam"))
    close(found, expected.numpy(), 1e-6)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_the_hessian_reaches_through_a_segmentations_last_resize(images, interpolation):
    """The score is a square, `|R A|^2` of a resize R: `g = 2 R^T R A = H A`, and half of Grad-CAM is left."""
    inputs = keras.Input((SIDE, SIDE, 3))
    resize = keras.layers.Resizing(20, 31, interpolation)
    model = keras.Model(inputs, resize(parts()[0](inputs)))

    def square(outputs):
        return tf.reduce_sum(outputs**2, axis=(1, 2, 3))

    found, gradcam = (
        GradCAM(model, "conv1", method=name)(images, square).map for name in ("shapleycam", "gradcam")
    )
    close(found, gradcam.numpy() / 2)


def test_shapleycam_is_not_gradcam_for_a_head_that_curves(images):
    model = head(keras.layers.Dense(3), activation="tanh")
    curved, plain = (GradCAM(model, method=name)(images, 1).map for name in ("shapleycam", "gradcam"))
    assert np.abs(curved - plain).max() > 1e-3 * np.abs(plain).max()


# Finer-CAM


def finer(model, images, classes, gamma, count):
    """By linearity: the class's own map less gamma times the mean map of the nearest classes."""
    own = Oracle(model.get_weights(), images, classes)
    maps = own.map("conv2")
    for row, index in enumerate(own.classes):
        distances = np.abs(own.logits[row] - own.logits[row, index])
        distances[index] = np.inf
        nearest = np.argsort(distances)[: min(count, len(distances) - 1)]
        others = [Oracle(model.get_weights(), images, other).map("conv2")[row] for other in nearest]
        maps[row] -= gamma * np.mean(others, axis=0)
    return maps


@pytest.mark.parametrize(("gamma", "count"), [(1.0, 3), (0.5, 1), (2.0, 4), (1.0, 99), (0.0, 2)])
@pytest.mark.parametrize("classes", [None, [4, 0, 2]])
@pytest.mark.product(kept=lambda gamma, count, classes: classes is None or gamma == 0.5)
def test_finercam_takes_the_nearest_classes_off(functional, images, gamma, count, classes):
    method = methods.finercam(gamma=gamma, classes=count)
    found = GradCAM(functional, "conv2", method=method)(images, classes).map
    close(found, finer(functional, images, classes, gamma, count))


def test_finercam_without_the_others_is_gradcam(model, images):
    found = GradCAM(model, method=methods.finercam(gamma=0))(images).map
    close(found, GradCAM(model)(images).map.numpy())


@pytest.mark.parametrize("classes", [0, -1, 1.5])
def test_finercam_needs_a_class_to_compare_with(classes):
    with pytest.raises(ValueError, match="`classes` must be a whole number from 1"):
        methods.finercam(classes=classes)


@pytest.mark.parametrize("gamma", [float("nan"), float("inf"), "much", True])
def test_gamma_must_be_a_number(gamma):
    with pytest.raises(ValueError, match="`gamma` must be a number"):
        methods.finercam(gamma=gamma)


def test_finercam_must_look_at_a_layer_on_the_way_to_the_score(images):
    inputs = keras.Input((SIDE, SIDE, 3))
    aside = keras.layers.Conv2D(4, 3, name="aside")(inputs)
    scores = chain(inputs, [*parts()[:4], keras.layers.Dense(5)])
    model = keras.Model(inputs, {"scores": scores, "aside": aside})
    with pytest.raises(ValueError, match="`layer` must be on the path to the score"):
        GradCAM(model, "aside", method="finercam")(images, targets.Output("scores", 1))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cam", "shapleycam", "finercam"])
def test_several_classes_at_once_are_what_each_is_alone(method, images):
    cam = GradCAM(build("functional"), method=method)
    together = cam(images, targets.Classes([4, 0]))
    for place, index in enumerate([4, 0]):
        close(together.map[:, place], cam(images, index).map.numpy(), 1e-6)

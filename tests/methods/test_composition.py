"""Smoothing and augmentation around any method: what is averaged, over what, and for which class."""

import functools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import CLASSES, SIDE, build
from oracle import Oracle, formula

from tf_gradcam import GradCAM, methods, targets


def close(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def noisy(images, index, noise, seed=0):
    """The noise that the docstring promises: of one seed, as a share of each image's own range."""
    values = tf.random.stateless_normal(images.shape[1:], [seed, index]).numpy()
    spread = images.max(axis=(1, 2, 3), keepdims=True) - images.min(axis=(1, 2, 3), keepdims=True)
    return images + noise * spread * values


# smooth


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradcam", "eigencam", "gradient", "ablationcam", "finercam"])
@pytest.mark.product(kept=lambda method: method in ["gradient", "ablationcam"])
def test_without_noise_a_smooth_method_is_the_method(functional, images, method):
    smooth = methods.smooth(method, samples=3, noise=0.0)
    found, expected = (GradCAM(functional, method=each)(images).map.numpy() for each in (smooth, method))
    close(found, expected)


@pytest.mark.parametrize("layer", ["conv1", "relu2"])
@pytest.mark.product(kept=lambda model, layer: model == "functional" or layer == "conv1")
def test_smooth_gradcam_plus_plus_averages_every_term(model, images, layer):
    classes, samples = [4, 0, 2], 5
    copies = [noisy(images, index, 0.3) for index in range(samples)]
    oracles = [Oracle(model.get_weights(), each, classes) for each in copies]
    gradients = np.array([each.gradients[layer] for each in oracles])
    g, squares, cubes = (np.mean(gradients**power, axis=0) for power in (1, 2, 3))
    clean = Oracle(model.get_weights(), images, classes).activations[layer]
    expected = [
        formula("gradcam_plus_plus", clean[i : i + 1], g[i : i + 1], **_flat(squares, cubes, i))[0]
        for i in range(3)
    ]
    method = methods.smooth("gradcam_plus_plus", samples=samples, noise=0.3)
    close(GradCAM(model, layer, method=method)(images, classes).map, np.array(expected), 1e-4)


def _flat(squares, cubes, image):
    channels = squares.shape[-1]
    return {"squares": squares[image].reshape(-1, channels), "cubes": cubes[image].reshape(-1, channels)}


def test_smoothgrad_is_the_strength_of_the_mean_gradient(functional, images):
    method = methods.smooth("gradient", samples=4, noise=0.2)
    found = GradCAM(functional, method=method)(images, [4, 0, 2]).map
    gradients = []
    for index in range(4):
        copy = tf.constant(noisy(images, index, 0.2))
        with tf.GradientTape() as tape:
            tape.watch(copy)
            features = keras.Model(functional.inputs, functional.get_layer("pool").output)(copy)
            kernel, bias = functional.get_layer("scores").weights
            score = tf.gather(features @ kernel + bias, [4, 0, 2], batch_dims=1)
        gradients.append(tape.gradient(score, copy).numpy())
    close(found, np.abs(np.mean(gradients, axis=0)).max(axis=-1))


def test_of_a_method_without_gradients_the_map_is_averaged(functional, images):
    method = methods.smooth("eigencam", samples=3, noise=0.2)
    maps = [GradCAM(functional, method="eigencam")(noisy(images, i, 0.2)).map.numpy() for i in range(3)]
    close(GradCAM(functional, method=method)(images).map, np.mean(maps, axis=0))


@pytest.mark.slow
def test_the_class_is_that_of_the_image_without_noise(functional, images):
    """So much noise that copies are taken for other classes."""
    clean = functional.predict(images, verbose=0).argmax(-1)
    copies = [functional.predict(noisy(images, i, 2.0), verbose=0).argmax(-1) for i in range(4)]
    assert any((each != clean).any() for each in copies)
    for method in ("gradcam", "scorecam", "gradient"):
        smooth = methods.smooth(method, samples=4, noise=2.0)
        cam = GradCAM(functional, "conv2" if method != "gradient" else None, method=smooth)
        close(cam(images).map, cam(images, clean).map.numpy(), 1e-6)


@pytest.mark.slow
def test_it_warns_where_smoothing_gradients_changes_nothing(unchanged, images):
    def explained(layer, method, target=None):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            signed_map = GradCAM(unchanged, layer, method=method)(images, target).map.numpy()
        return signed_map, [str(each.message) for each in caught]

    noisy = methods.smooth("gradcam", samples=2)
    smooth, (said,) = explained("relu2", noisy)
    assert said.startswith("`smooth` changes nothing here: from the layer to the logits the model is affine")
    np.testing.assert_allclose(smooth, explained("relu2", "gradcam")[0], rtol=1e-5, atol=1e-6)
    for layer, method, target in [
        ("conv2", noisy, None),
        ("relu2", noisy, targets.Probability()),
        ("relu2", methods.smooth("eigencam", samples=2), None),
    ]:
        assert explained(layer, method, target)[1] == []


def test_every_parameter_of_smooth_but_batch_changes_the_map(functional, images):
    def signed_map(**parameters):
        method = methods.smooth("gradcam", **{"samples": 4, "noise": 0.3, **parameters})
        return GradCAM(functional, "conv1", method=method)(images).map.numpy()

    plain = signed_map()
    close(signed_map(batch=1), plain)
    close(signed_map(batch=100), plain)
    for parameters in ({"samples": 5}, {"noise": 0.4}, {"seed": 1}):
        assert np.abs(signed_map(**parameters) - plain).max() > 1e-3 * np.abs(plain).max()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradcam_plus_plus", "gradient", "scorecam"])
@pytest.mark.product(kept=lambda method: method == "scorecam")
def test_all_images_together_are_smoothed_as_each_alone(functional, images, method):
    cam = GradCAM(functional, method=methods.smooth(method, samples=3))
    close(np.concatenate([cam(images[i : i + 1]).map for i in range(3)]), cam(images).map.numpy())


@pytest.mark.slow
def test_a_smooth_smooth_method_averages_maps(functional, images):
    inner = methods.smooth("gradcam", samples=2, noise=0.1)
    cam = GradCAM(functional, "conv1", method=inner)
    maps = [cam(noisy(images, i, 0.2), 1).map.numpy() for i in range(2)]
    twice = methods.smooth(inner, samples=2, noise=0.2)
    close(GradCAM(functional, "conv1", method=twice)(images, 1).map, np.mean(maps, axis=0))


@pytest.mark.slow
def test_parameters_of_the_inner_formula_are_heeded(functional, images):
    inner = functools.partial(methods.gradcam_plus_plus, normalize_alpha=True)
    maps = [
        GradCAM(functional, "conv1", method=methods.smooth(each, samples=2))(images).map.numpy()
        for each in (inner, "gradcam_plus_plus")
    ]
    assert np.abs(maps[0] - maps[1]).max() > 1e-2 * np.abs(maps[1]).max()


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"samples": 0}, "`samples` must be a whole number from 1"),
        ({"batch": 0}, "`batch` must be a whole number from 1"),
        ({"samples": True}, "`samples` must be a whole number from 1"),
        ({"noise": float("inf")}, "`noise` must be a number of 0 or more"),
        ({"noise": "much"}, "`noise` must be a number of 0 or more"),
        ({"seed": 1.5}, "`seed` must be a whole number of 32 bits"),
        ({"samples": 2.5}, "`samples` must be a whole number from 1"),
        ({"noise": -0.1}, "`noise` must be a number of 0 or more"),
        ({"noise": float("nan")}, "`noise` must be a number of 0 or more"),
    ],
)
def test_wrong_parameters_of_smooth_are_refused(parameters, complaint):
    with pytest.raises(ValueError, match=complaint):
        methods.smooth("gradcam", **parameters)


# augment


def symmetric():
    """The network with kernels that are the same from left to right, with 'same' padding throughout."""
    images = keras.Input((16, 16, 3))
    conv1 = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="conv1")
    conv2 = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="conv2")
    pooled = keras.layers.GlobalAveragePooling2D()(conv2(conv1(images)))
    model = keras.Model(images, keras.layers.Dense(CLASSES)(pooled))
    random = np.random.default_rng(3)
    weights = [random.normal(scale=0.5, size=each.shape).astype("float32") for each in model.get_weights()]
    for place in (0, 2):
        weights[place] += weights[place][:, ::-1]
    model.set_weights(weights)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradcam", "layercam", "eigencam", "ablationcam", "finercam", "gradient"])
@pytest.mark.product(kept=lambda method: method in ["gradient", "ablationcam"])
def test_a_network_that_knows_no_left_needs_no_flip(method):
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    plain = GradCAM(symmetric(), method=method)(images).map.numpy()
    close(GradCAM(symmetric(), method=methods.augment(method))(images).map, plain, 1e-4)


@pytest.mark.parametrize(
    ("flips", "axes"),
    [((), []), (("horizontal",), [2]), (("vertical",), [1]), (("horizontal", "vertical"), [1, 2])],
)
def test_the_mean_is_over_every_flip_and_its_map_turned_back(functional, images, flips, axes):
    copies = [()]
    for axis in axes:
        copies += [(*copy, axis) for copy in copies]
    cam = GradCAM(functional, "conv2")
    maps = [np.flip(cam(np.flip(images, each), [4, 0, 2]).map.numpy(), each) for each in copies]
    augmented = GradCAM(functional, "conv2", method=methods.augment("gradcam", flips=flips))
    close(augmented(images, [4, 0, 2]).map, np.mean(maps, axis=0))


def spots(scales, method="hirescam"):
    """A layer that shows the image as it is, and an image of a bright square off the middle."""
    images = keras.Input((32, 32, 1))
    conv = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name="conv")
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(conv(images)))
    picture = np.zeros((1, 32, 32, 1), "float32")
    picture[0, 10:14, 18:22] = 1.0
    cam = GradCAM(model, "conv", method=methods.augment(method, flips=(), scales=scales))
    return picture[0, ..., 0], cam(picture, targets.Value()).map[0].numpy() * 32 * 32


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.5, 0.8, 1.25, 2.0])
def test_a_zoomed_map_turned_back_lies_where_the_object_is(scale):
    picture, found = spots((scale,))
    rows, columns = np.mgrid[:32, :32]
    for places in (rows, columns):
        middle = np.sum(places * picture) / picture.sum()
        np.testing.assert_allclose(np.sum(places * found) / found.sum(), middle, atol=0.1)
    np.testing.assert_allclose(found[11:13, 19:21], 1, atol=0.3)  # blurred by being resized twice
    assert found[:8].max() == found[:, :15].max() == 0


def test_what_a_copy_does_not_show_is_left_to_the_others():
    """Zoomed in twice, the outer half of the image is out of sight."""
    images = keras.Input((32, 32, 1))
    conv = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name="conv")
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(conv(images)))
    method = methods.augment("hirescam", flips=(), scales=(1.0, 2.0))
    found = GradCAM(model, "conv", method=method)(np.ones((1, 32, 32, 1)), targets.Value()).map[0]
    np.testing.assert_allclose(found * 32 * 32, np.ones((32, 32)), rtol=1e-5)


@pytest.mark.slow
def test_the_class_of_an_augmented_image_is_chosen_once(functional, images):
    clean = functional.predict(images, verbose=0).argmax(-1)
    method = methods.augment("gradcam", flips=("horizontal", "vertical"), scales=(0.4, 1.0, 3.0))
    cam = GradCAM(functional, "conv2", method=method)
    close(cam(images).map, cam(images, clean).map.numpy(), 1e-6)


def test_a_signal_can_be_reversed_but_not_zoomed():
    inputs = keras.Input((20, 2))
    conv = keras.layers.Conv1D(4, 3, activation="relu", name="conv")
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(conv(inputs))))
    signals = np.random.default_rng(0).normal(size=(2, 20, 2)).astype("float32")
    cam = GradCAM(model, "conv")
    expected = (cam(signals, 1).map + cam(signals[:, ::-1], 1).map.numpy()[:, ::-1]) / 2
    close(GradCAM(model, "conv", method=methods.augment("gradcam"))(signals, 1).map, expected.numpy())
    with pytest.raises(ValueError, match="`scales` must be [(]1.0,[)] unless the input is an image"):
        GradCAM(model, "conv", method=methods.augment("gradcam", scales=(1.0, 2.0)))(signals, 1)
    with pytest.raises(ValueError, match="`flips` must not be vertical"):
        GradCAM(model, "conv", method=methods.augment("gradcam", flips=("vertical",)))(signals, 1)


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"flips": "horizontal"}, "`flips` must be a tuple of"),
        ({"flips": None}, "`flips` must be a tuple of"),
        ({"flips": ("horizontal", "horizontal")}, "`flips` must be a tuple of"),
        ({"scales": (float("inf"),)}, "`scales` must be a tuple of factors from 0.1 to 10"),
        ({"scales": ("a",)}, "`scales` must be a tuple of factors from 0.1 to 10"),
        ({"flips": ("sideways",)}, "`flips` must be a tuple of"),
        ({"scales": ()}, "`scales` must be a tuple of factors from 0.1 to 10"),
        ({"scales": (0.0,)}, "`scales` must be a tuple of factors from 0.1 to 10"),
        ({"scales": 1.0}, "`scales` must be a tuple of factors from 0.1 to 10"),
    ],
)
def test_wrong_parameters_of_augment_are_refused(parameters, complaint):
    with pytest.raises(ValueError, match=complaint):
        methods.augment("gradcam", **parameters)


# Both


@pytest.mark.slow
@pytest.mark.parametrize("around", [methods.smooth, pytest.param(methods.augment, marks=pytest.mark.full)])
def test_the_inner_method_may_be_a_name_a_formula_or_a_method(images, around):
    model = build("functional")
    maps = [
        GradCAM(model, method=around(each))(images).map.numpy()
        for each in ("finercam", methods.finercam, methods.finercam())
    ]
    close(maps[1], maps[0], 1e-6)
    close(maps[2], maps[0], 1e-6)
    assert maps[0].shape == (3, 8, 8)
    at_image = GradCAM(model, method=around("gradient"))
    assert at_image(images).map.shape == (3, SIDE, SIDE)
    assert at_image.layer is None


@pytest.mark.parametrize("around", [methods.smooth, methods.augment])
def test_an_unknown_inner_method_is_refused_like_any_other(functional, around):
    with pytest.raises(ValueError, match="`method` must be one of"):
        GradCAM(functional, method=around("grad-cam"))

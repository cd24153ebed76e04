"""The explainer: right, compiled once, harmless to the model, and clear about what it can't do."""

import concurrent.futures
import dataclasses
import functools
import gc
import operator
import os
import warnings
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import CLASSES, SIDE, Subclassed, build, chain, head, parts
from oracle import Oracle

from tf_gradcam import GradCAM, build_submodel, make_gradcam_heatmap, methods, pretrained, targets
from tf_gradcam._explain import shared
from tf_gradcam._explain.shared import _EXPLAINERS
from tf_gradcam._model.forward import LayerCall, forward
from tf_gradcam._model.layers import find_layer, walk_layers


def small(*end, images=(SIDE, SIDE, 3), first=()):
    """The small network with another end, and perhaps another beginning."""
    keras.utils.set_random_seed(3)
    x = keras.Input(images)
    return keras.Model(x, chain(x, [*first, *parts()[:-1], *end]))


# Right


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "layercam", "gradcam_plus_plus"])
@pytest.mark.parametrize("layer", ["conv1", "conv2", "relu2"])
@pytest.mark.parametrize("target", [None, [4, 0, 2]])
@pytest.mark.product(  # each method at one layer, each layer by one method, each model for both targets
    kept=lambda model, layer, method, target: (
        (model == "functional" and target is None and (layer == "conv2" or method == "gradcam"))
        or (layer, method) == ("conv2", "gradcam")
    )
)
def test_maps_equal_the_oracle(model, images, layer, method, target):
    oracle = Oracle(model.get_weights(), images, target)
    explanation = GradCAM(model, layer, method=method)(images, target)
    expected = oracle.map(layer, method)
    np.testing.assert_allclose(explanation.map, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(explanation.score, oracle.scores, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(explanation.target, oracle.classes)
    np.testing.assert_allclose(explanation.outputs, model(images), atol=1e-6)


def by_forward_mode(model, layer, images, index):
    """Grad-CAM without backpropagation: `L_ij` is the derivative of the logit along `A_ij / Z` everywhere.

    `sum_k alpha_k A_ijk = sum_pqk g_pqk A_ijk / Z`, a directional derivative that forward-mode
    differentiation gives for each place (i, j) by itself.
    """
    inputs = model.inputs[0]
    head = keras.Model(inputs, layer.output)
    tail = keras.Model(layer.output, model.get_layer("avg_pool").output)
    kernel, bias = model.get_layer("predictions").weights
    activations = head(images)[0]
    height, width, channels = activations.shape
    places = tf.reshape(activations, [-1, 1, 1, channels]) / (height * width)
    primal = tf.broadcast_to(activations, [height * width, *activations.shape])
    with tf.autodiff.ForwardAccumulator(primal, tf.broadcast_to(places, primal.shape)) as accumulator:
        logit = (tail(primal) @ kernel + bias)[:, index]
    return tf.reshape(accumulator.jvp(logit), [height, width]).numpy()


@pytest.fixture(scope="module")
def cat():
    import cv2
    import skimage.data

    photograph = cv2.resize(skimage.data.chelsea(), (224, 224), interpolation=cv2.INTER_AREA)
    return pretrained.preprocess(photograph[None]).numpy()


@pytest.mark.parametrize("layer", ["top_activation", "block7a_project_bn", "block6d_add"])
def test_maps_of_the_real_model_equal_forward_mode_differentiation(lite0, cat, layer):
    explanation = GradCAM(lite0, layer)(cat, 285)
    expected = by_forward_mode(lite0, lite0.get_layer(layer), cat, 285)
    np.testing.assert_allclose(explanation.map[0], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_at_the_end_of_the_real_model_gradcam_is_cam(lite0, cat):
    """Global average pooling and one dense layer: alpha is W[:, c] / 49 (Zhou 2016)."""
    kernel, bias = lite0.get_layer("predictions").get_weights()
    layer = lite0.get_layer("top_activation")
    (activations,), _ = forward(lite0, tf.constant(cat), [LayerCall(layer)])
    activations = activations[0].numpy().astype("float64")
    maps = {name: GradCAM(lite0, method=name)(cat, 285) for name in ("gradcam", "hirescam", "layercam")}
    expected = activations @ kernel[:, 285].astype("float64") / 49
    scale = np.abs(expected).max()
    np.testing.assert_allclose(maps["gradcam"].map[0], expected, rtol=0, atol=1e-5 * scale)
    np.testing.assert_allclose(maps["hirescam"].map[0], expected, rtol=0, atol=1e-5 * scale)
    positive = activations @ np.maximum(kernel[:, 285].astype("float64"), 0) / 49
    np.testing.assert_allclose(maps["layercam"].map[0], positive, rtol=0, atol=1e-5 * positive.max())
    total = tf.reduce_sum(maps["hirescam"].map[0]) + bias[285]
    np.testing.assert_allclose(total, maps["hirescam"].score[0], rtol=1e-5)


def test_the_heatmap_of_the_cat_lies_on_the_cat(lite0, cat):
    heatmap = make_gradcam_heatmap(lite0, cat)
    row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
    assert heatmap.shape == (224, 224)
    assert 20 < row < 200  # the face fills the middle of the picture
    assert 40 < column < 180


def test_a_batch_gives_what_each_image_gives_alone(model, images):
    cam = GradCAM(model)
    together = cam(images, [0, 1, 2])
    for i in range(3):
        alone = cam(images[i], [i])
        np.testing.assert_allclose(together.map[i], alone.map[0], atol=1e-6)
        np.testing.assert_allclose(together.heatmap[i], alone.heatmap[0], atol=1e-5)


def test_heatmaps_are_relu_then_resized_then_divided_by_their_maximum(model, images):
    explanation = GradCAM(model)(images, size=(40, 30))
    expected = tf.image.resize(tf.nn.relu(explanation.map)[..., None], (40, 30))[..., 0].numpy()
    expected /= expected.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(explanation.heatmap, expected, atol=1e-6)
    assert explanation.heatmap.dtype == tf.float32


def test_a_saturated_softmax_is_explained_all_the_same(functional, images):
    kernel, bias = functional.get_layer("scores").get_weights()
    oracle = Oracle(functional.get_weights(), images)
    functional.get_layer("scores").set_weights([kernel * 1e4, bias * 1e4])
    assert np.max(functional(images)) == 1.0
    explanation = GradCAM(functional, "conv2")(images)
    np.testing.assert_allclose(explanation.map, 1e4 * oracle.map("conv2"), rtol=1e-3, atol=1e-1)


@pytest.mark.parametrize("side", [0, 1])
def test_a_sigmoid_unit_is_explained_for_either_side(images, side):
    model = small(keras.layers.Dense(1, activation="sigmoid"))
    logit = small(keras.layers.Dense(1))
    logit.set_weights(model.get_weights())
    predicted = GradCAM(model)(images)
    np.testing.assert_array_equal(predicted.target, (model(images)[:, 0] > 0.5).numpy().astype(int))
    expected = GradCAM(logit)(images, targets.Value()).map * (1 if side else -1)
    np.testing.assert_allclose(GradCAM(model)(images, side).map, expected, atol=1e-7)


def test_the_sigmoids_probability_and_logit_give_one_heatmap(images):
    model = small(keras.layers.Dense(1, activation="sigmoid"))
    cam = GradCAM(model)
    np.testing.assert_allclose(cam(images, 1).heatmap, cam(images, targets.Value()).heatmap, atol=1e-5)


def test_the_softmaxs_probability_and_logit_give_different_heatmaps(functional, images):
    cam = GradCAM(functional, "conv2")
    assert not np.allclose(cam(images, 1).heatmap, cam(images, targets.Value(1)).heatmap, atol=1e-2)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "relu2"])
def test_hirescam_sums_to_the_logit_of_a_head_of_relus_without_biases(functional, images, layer):
    weights = functional.get_weights()
    functional.set_weights([w * 0 if i in (3, 5) else w for i, w in enumerate(weights)])
    explanation = GradCAM(functional, layer, method="hirescam")(images)
    np.testing.assert_allclose(tf.reduce_sum(explanation.map, axis=(1, 2)), explanation.score, rtol=1e-5)


def test_a_callable_target_explains_what_it_returns(functional, images):
    def margin(outputs):
        return outputs[:, 1] - outputs[:, 3]

    cam = GradCAM(functional)
    difference = cam(images, targets.Value(1)).map - cam(images, targets.Value(3)).map
    explanation = cam(images, margin)
    np.testing.assert_allclose(explanation.map, difference, atol=1e-7)
    np.testing.assert_allclose(explanation.score, margin(functional(images)), atol=1e-6)
    assert explanation.target is None


def test_dropout_batch_norm_and_noise_are_in_inference_mode(images):
    extra = [keras.layers.GaussianNoise(1.0), keras.layers.BatchNormalization()]
    model = small(keras.layers.Dropout(0.9), keras.layers.Dense(3), first=extra)
    cam = GradCAM(model)
    np.testing.assert_array_equal(cam(images).map, cam(images).map)
    np.testing.assert_allclose(cam(images).outputs, model(images, training=False), atol=1e-6)


def test_a_branch_that_goes_round_the_layer_is_not_explained(images):
    """Dropout returns its input unchanged: what bypasses it must not count as going through it."""
    x = keras.Input((SIDE, SIDE, 3))
    conv = keras.layers.Conv2D(4, 3)(x)
    dropped = keras.layers.Dropout(0.5, name="dropped")(conv)
    scores = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([dropped, 10 * conv]))
    model = keras.Model(x, scores)
    explanation = GradCAM(model, "dropped")(images, 2)
    activations = keras.Model(x, conv)(images)
    np.testing.assert_allclose(explanation.map, activations[..., 2] / 15**2, atol=1e-7)


# In and out


def test_one_image_gives_one_heatmap_and_a_batch_gives_a_batch(model, images):
    assert make_gradcam_heatmap(model, images[0]).shape == (SIDE, SIDE)
    assert make_gradcam_heatmap(model, images[:1]).shape == (SIDE, SIDE)
    assert make_gradcam_heatmap(model, images).shape == (3, SIDE, SIDE)
    assert make_gradcam_heatmap(model, images).dtype == np.float32


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "float16", "float32", "float64", "bfloat16"])
@pytest.mark.parametrize("kind", [np.asarray, tf.constant, list])
def test_any_real_array_or_tensor_is_an_image(unchanged, images, dtype, kind):
    numbers = np.abs(images * 40).astype(tf.as_dtype(dtype).as_numpy_dtype)
    expected = make_gradcam_heatmap(unchanged, numbers.astype("float32"))
    # The first call is not compiled, and a GPU then computes by other kernels.
    np.testing.assert_allclose(make_gradcam_heatmap(unchanged, kind(numbers)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "shape"),
    [("input", (3, SIDE, SIDE)), (None, (3, 8, 8)), ((5, 9), (3, 5, 9)), ([30, 4], (3, 30, 4))],
)
@pytest.mark.product(kept=lambda model, size: model == "functional" or size == "input")
def test_heatmaps_have_the_size_asked_for(model, images, size, shape):
    assert make_gradcam_heatmap(model, images, size=size).shape == shape


@pytest.mark.parametrize(
    "interpolation",
    ["area", "bicubic", "bilinear", "gaussian", "lanczos3", "lanczos5", "mitchellcubic", "nearest"],
)
def test_heatmaps_stay_between_0_and_1_by_every_kernel(unchanged, images, interpolation):
    heatmap = make_gradcam_heatmap(unchanged, images, size=(50, 50), interpolation=interpolation)
    assert heatmap.min() >= 0
    np.testing.assert_allclose(heatmap.max(axis=(1, 2)), 1, atol=1e-6)


def test_every_argument_changes_the_heatmap(functional, images):
    def negative_gradcam(activations, gradients):
        return -methods.gradcam(activations, gradients)

    plain = make_gradcam_heatmap(functional, images, "conv2", 1)
    others = [
        make_gradcam_heatmap(build("functional"), images + 1, "conv2", 1),
        make_gradcam_heatmap(functional, images, "conv1", 1),
        make_gradcam_heatmap(functional, images, "conv2", 2),
        make_gradcam_heatmap(functional, images, "conv2", 1, method="hirescam"),
        make_gradcam_heatmap(functional, images, "conv2", 1, method=negative_gradcam),
        make_gradcam_heatmap(functional, images, "conv2", 1, interpolation="bicubic"),
    ]
    assert all(not np.allclose(plain, other, atol=1e-3) for other in others)
    assert make_gradcam_heatmap(functional, images, "conv2", 1, size=(9, 9)).shape == (3, 9, 9)


def test_preprocess_is_traced_into_the_function(functional, images):
    photographs = (images * 30 + 128).clip(0, 255).astype("uint8")
    cam = GradCAM(functional, preprocess=lambda raw: (tf.cast(raw, tf.float32) - 127) / 64)
    expected = GradCAM(functional)((photographs.astype("float32") - 127) / 64)
    np.testing.assert_allclose(cam(photographs).map, expected.map, atol=1e-6)


def test_preprocess_may_resize_and_the_heatmap_is_the_photographs_size(functional):
    photographs = np.random.default_rng(0).integers(0, 255, (2, 40, 60, 3), dtype="uint8")
    cam = GradCAM(functional, preprocess=lambda raw: tf.image.resize(raw, (SIDE, SIDE)))
    assert cam(photographs).heatmap.shape == (2, 40, 60)
    assert cam(photographs[:, :30]).heatmap.shape == (2, 30, 60)


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "densenet"])
def test_preprocess_of_keras_applications_is_right_on_raw_photographs(functional, name):
    """On an integer tensor Keras's function fails, or silently wraps round."""
    preprocess = getattr(keras.applications, name).preprocess_input
    photographs = np.random.default_rng(0).integers(0, 255, (2, SIDE, SIDE, 3), dtype="uint8")
    expected = GradCAM(functional)(preprocess(photographs.astype("float32")))
    explanation = GradCAM(functional, preprocess=preprocess)(photographs)
    np.testing.assert_allclose(explanation.score, expected.score, rtol=1e-4)
    np.testing.assert_allclose(explanation.map, expected.map, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("wrong", [lambda raw: raw, lambda raw: tf.image.resize(raw, (9, 9))])
def test_a_preprocess_that_returns_the_wrong_size_is_refused(functional, wrong):
    with pytest.raises(ValueError, match=r"\D17\D"):
        GradCAM(functional, preprocess=wrong)(np.zeros((1, 30, 30, 3), "uint8"))


def test_an_explainer_works_inside_a_tf_function(functional, images):
    cam = GradCAM(functional)
    traced = tf.function(lambda x, c: cam(x, c).heatmap)
    np.testing.assert_allclose(
        traced(tf.constant(images), tf.constant([1, 2, 3])), cam(images, [1, 2, 3]).heatmap, atol=1e-6
    )


def test_a_scalar_tensor_is_a_target_inside_a_tf_function(functional, images):
    cam = GradCAM(functional)
    traced = tf.function(lambda x, c: cam(x, c).map)
    np.testing.assert_allclose(traced(tf.constant(images), tf.constant(1)), cam(images, 1).map, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*'starred'.* looks like it has unbuilt state")  # Keras, of *args
def test_a_subclassed_model_may_take_its_image_as_it_likes(images):
    class Starred(Subclassed):
        def call(self, *args):
            return super().call(args[0])

    class Explicit(Subclassed):
        def call(self, images, training):
            return super().call(images)

    for kind in (Starred, Explicit):
        model = kind()
        model(images, training=False) if kind is Explicit else model(images)
        oracle = Oracle(model.get_weights(), images)
        np.testing.assert_allclose(GradCAM(model)(images).map, oracle.map("relu2"), atol=1e-6)


def test_an_error_of_the_models_own_is_not_blamed_on_preprocess(functional, images):
    cam = GradCAM(functional, preprocess=lambda x: x)
    with pytest.raises(tf.errors.InvalidArgumentError):
        cam(images, lambda outputs: tf.debugging.check_numerics(outputs[:, 0] / 0, "no number"))
    with pytest.raises(ValueError, match="`preprocess` must return what the model takes, .*Received: .*6"):
        GradCAM(functional, preprocess=lambda x: tf.concat([x, x], -1))(images)
    with pytest.raises(TypeError, match="`preprocess` must return the images .* Received: None"):
        GradCAM(functional, preprocess=lambda x: None)(images)


def test_a_model_of_any_input_size_is_explained_at_every_size():
    model = small(keras.layers.Dense(3), images=(None, None, 3))
    for side in (17, 33):
        image = np.random.default_rng(0).normal(size=(side, side + 4, 3))
        assert make_gradcam_heatmap(model, image).shape == (side, side + 4)


def test_outputs_in_a_dict_are_explained_by_a_callable(images):
    x = keras.Input((SIDE, SIDE, 3))
    features = chain(x, parts()[:-1])
    model = keras.Model(x, {"a": keras.layers.Dense(2)(features), "b": keras.layers.Dense(3)(features)})
    explanation = GradCAM(model)(images, lambda outputs: outputs["b"][:, 1])
    np.testing.assert_allclose(explanation.score, model(images)["b"][:, 1], atol=1e-6)
    with pytest.raises(ValueError, match="which of the model's 2 outputs to explain"):
        GradCAM(model)(images)


def test_a_model_with_its_input_and_output_in_lists_is_explained_without_a_warning(images):
    """Old files load as such, and Keras warns when such a model gets a bare tensor."""
    x = keras.Input((SIDE, SIDE, 3))
    model = keras.Model([x], [chain(x, parts())])
    with pytest.warns(UserWarning, match="structure of `inputs`"):
        model(images)
    oracle = Oracle(model.get_weights(), images, [1, 2, 3])
    np.testing.assert_allclose(GradCAM(model)(images, [1, 2, 3]).map, oracle.map("relu2"), atol=1e-6)
    with pytest.raises(ValueError, match="from 0 to 4"):
        GradCAM(model)(images, 5)


@pytest.mark.parametrize(
    ("policy", "dtype"), [("mixed_float16", "float32"), ("mixed_bfloat16", "float32"), ("float64", "float64")]
)
def test_other_precisions_are_explained(images, policy, dtype):
    keras.config.set_dtype_policy(policy)
    try:
        model = build("functional")
    finally:
        keras.config.set_dtype_policy("float32")
    oracle = Oracle(model.get_weights(), images, 2)
    explanation = GradCAM(model, "conv2")(images, 2)
    expected = oracle.map("conv2")
    precision = {"mixed_float16": 1e-2, "mixed_bfloat16": 5e-2, "float64": 1e-12}[policy]
    np.testing.assert_allclose(explanation.map, expected, rtol=0, atol=precision * np.abs(expected).max())
    assert (explanation.map.dtype, explanation.heatmap.dtype) == (dtype, "float32")


def test_small_gradients_do_not_vanish_in_float16():
    def network():
        keras.utils.set_random_seed(1)
        x = keras.Input((128, 128, 3))
        return keras.Model(x, chain(x, [*parts()[:-1], keras.layers.Dense(3, activation="softmax")]))

    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = network()
    finally:
        keras.config.set_dtype_policy("float32")
    full = network()
    full.set_weights([*full.get_weights()[:-2], full.get_weights()[-2] * 0.01, full.get_weights()[-1]])
    half.set_weights(full.get_weights())
    image = np.random.default_rng(0).normal(size=(1, 128, 128, 3))
    expected = GradCAM(full)(image, 1).map
    largest = np.abs(expected).max()
    np.testing.assert_allclose(GradCAM(half)(image, 1).map, expected, rtol=0, atol=1e-2 * largest)


def test_large_gradients_do_not_overflow_in_float16(images):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = build("functional")
    finally:
        keras.config.set_dtype_policy("float32")
    cam = GradCAM(model, "conv2")
    small, large = cam(images, targets.Value(1)), cam(images, lambda outputs: 4096.0 * outputs[:, 1])
    largest = np.abs(small.map).max()
    np.testing.assert_allclose(large.map / 4096, small.map, rtol=0, atol=0.05 * largest)


def test_explanations_name_the_layer(model):
    assert GradCAM(model).layer is find_layer(model, "relu2")
    assert GradCAM(model, "conv1").layer is find_layer(model, "conv1")


# Never called before


@pytest.mark.parametrize("layer", [None, "conv2"])
@pytest.mark.parametrize("own", [False, True])
def test_the_first_image_builds_a_model_that_was_never_called(images, layer, own):
    class Unbuilt(keras.Model):
        def __init__(self):
            super().__init__()
            self.all = parts()

        def call(self, x):
            return chain(x, self.all)

    model = Unbuilt() if own else keras.Sequential(parts())
    cam = GradCAM(model, layer)
    assert cam.layer is None
    explanation = cam(images)
    oracle = Oracle(model.get_weights(), images)
    assert cam.layer.name == (layer or "relu2")
    np.testing.assert_allclose(explanation.map, oracle.map(layer or "relu2"), atol=1e-6)
    np.testing.assert_allclose(make_gradcam_heatmap(model, images, layer), explanation.heatmap, atol=1e-5)


# Several layers, several runs


@pytest.mark.product(kept=lambda model: model in ["functional", "subclassed"])
def test_several_layers_give_a_map_each_and_a_heatmap_of_all(model, images):
    cam = GradCAM(model, ["conv1", "relu2"])
    explanation = cam(images, 1)
    assert [layer.name for layer in cam.layer] == ["conv1", "relu2"]
    for name, signed_map, heatmap in zip(
        ["conv1", "relu2"], explanation.map, explanation.heatmaps, strict=True
    ):
        alone = GradCAM(model, name)(images, 1)
        np.testing.assert_allclose(signed_map, alone.map, atol=1e-6)
        np.testing.assert_allclose(heatmap, alone.heatmap, atol=1e-5)
    mean = np.mean(explanation.heatmaps, axis=0)
    np.testing.assert_allclose(explanation.heatmap, mean / mean.max(axis=(1, 2), keepdims=True), atol=1e-5)
    np.testing.assert_allclose(
        make_gradcam_heatmap(model, images, ["conv1", "relu2"], 1), explanation.heatmap, atol=1e-5
    )


def test_fuse_says_how_several_layers_become_one(images):
    model = small(
        keras.layers.Dense(CLASSES), first=[keras.layers.Conv2D(3, 3, padding="same", name="conv0")]
    )
    heatmaps = {
        fusion: GradCAM(model, ["conv0", "conv2"], fuse=fusion)(images, 1).heatmap.numpy()
        for fusion in (None, "mean", "max", "layercam", "refinecam")
    }
    np.testing.assert_array_equal(heatmaps[None], heatmaps["mean"])
    assert len({heatmap.tobytes() for heatmap in heatmaps.values()}) == 4
    each = GradCAM(model, ["conv0", "conv2"])(images, 1).heatmaps
    product = each[0] * each[1]
    product /= tf.reduce_max(product, axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(heatmaps["refinecam"], product, atol=1e-6)
    np.testing.assert_allclose(heatmaps["max"], np.maximum(*each), atol=1e-6)
    layercam = np.maximum(np.tanh(2 * each[0]), each[1])
    np.testing.assert_allclose(
        heatmaps["layercam"], layercam / layercam.max(axis=(1, 2), keepdims=True), atol=1e-6
    )


def test_several_layers_without_a_size_meet_on_the_finest_grid(images):
    model = small(
        keras.layers.Dense(CLASSES), first=[keras.layers.Conv2D(3, 3, padding="same", name="conv0")]
    )
    explanation = GradCAM(model, ["conv2", "conv0"])(images, size=None)
    assert explanation.heatmap.shape == (3, SIDE, SIDE)
    assert [each.shape for each in explanation.map] == [(3, 8, 8), (3, SIDE, SIDE)]


def test_several_layers_and_classes_go_together(functional, images):
    explanation = GradCAM(functional, ["conv1", "conv2"])(images, targets.Classes([0, 3]))
    assert explanation.heatmap.shape == (3, 2, SIDE, SIDE)
    alone = GradCAM(functional, ["conv1", "conv2"])(images, 3)
    np.testing.assert_allclose(explanation.heatmap[:, 1], alone.heatmap, atol=1e-5)


def test_call_says_which_run_of_a_layer_is_meant(images):
    x = keras.Input((SIDE, SIDE, 3))
    first, shared = (
        keras.layers.Conv2D(3, 3, padding="same"),
        keras.layers.Conv2D(3, 3, padding="same", name="shared"),
    )
    after = keras.layers.Conv2D(3, 3, name="after")
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    model = keras.Model(x, chain(x, [first, shared, shared, after, *head]))
    once = shared(first(x))
    by_hand = keras.Model(x, [once, shared(once), model.output])
    for run in (0, 1):
        with tf.GradientTape() as tape:
            features = by_hand(images)[run]
            tape.watch(features)
            score = chain(shared(features) if run == 0 else features, [after, *head])[:, 1]
        expected = methods.gradcam(features, tape.gradient(score, features))
        np.testing.assert_allclose(GradCAM(model, "shared", call=run)(images, 1).map, expected, atol=1e-6)
    assert not np.allclose(
        make_gradcam_heatmap(model, images, "shared", 1, call=0),
        make_gradcam_heatmap(model, images, "shared", 1, call=1),
        atol=1e-3,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"call": 1}, "`call` must be a run of the layer, from 0 to 0. Received: call=1.*ran once"),
        ({"call": -1}, "`call` must be None or a whole number of 0 or more"),
        ({"call": True}, "`call` must be None or a whole number of 0 or more"),
        ({"fuse": "max"}, "`fuse` must be left out if one layer is explained.*Give a list of layers"),
        ({"layer": ["conv1", "conv2"], "fuse": "sum"}, "`fuse` must be one of"),
        ({"layer": []}, "`layer` must name a layer. Received: an empty list"),
        ({"layer": ["conv1", "pool"]}, "`layer` must return a map.*'pool'"),
    ],
)
def test_calls_and_fusions_that_make_no_sense_are_refused(unchanged, images, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_gradcam_heatmap(**{"model": unchanged, "img": images, "layer": "conv2", **arguments})


def test_preprocess_gets_every_input():
    image, table = keras.Input((SIDE, SIDE, 3), name="image"), keras.Input((2,), name="table")
    pooled = chain(image, parts()[:4])
    model = keras.Model([image, table], keras.layers.Dense(3)(keras.layers.Concatenate()([pooled, table])))
    random = np.random.default_rng(0)
    raw = [random.integers(0, 256, (2, SIDE, SIDE, 3), dtype="uint8"), random.normal(size=(2, 2))]
    cam = GradCAM(model, preprocess=lambda inputs: [inputs[0] / 255, inputs[1] - 1])
    expected = GradCAM(model)([raw[0] / 255, raw[1] - 1])
    np.testing.assert_allclose(cam(raw).map, expected.map, atol=1e-6)
    np.testing.assert_allclose(cam({"image": raw[0], "table": raw[1]}).map, expected.map, atol=1e-6)


# Compiled once


def counted(kind):
    """A model that notes each time its Python is run."""
    model, runs = build(kind), []
    layer = find_layer(model, "pool")
    call = layer.call
    object.__setattr__(layer, "call", lambda *args, **kwargs: (runs.append(1), call(*args, **kwargs))[1])
    return model, runs


@pytest.mark.parametrize("kind", ["functional", "nested", "sequential"])
def test_20_calls_of_every_kind_are_one_trace(kind):
    model, runs = counted(kind)
    random = np.random.default_rng(0)
    conv2 = find_layer(model, "conv2")
    for i in range(20):
        batch = random.normal(size=(1 + i % 4, SIDE, SIDE, 3)).astype(["float32", "float64", "uint8"][i % 3])
        target = [None, i % CLASSES, [i % CLASSES] * len(batch), np.int64(2)][i % 4]
        layer = ["conv2", conv2, conv2.name][i % 3]
        size = ["input", None, (9, 9 + i)][i % 3]
        kernel = ["bilinear", "bicubic"][i % 2]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a blank map among 20 is no matter here
            make_gradcam_heatmap(model, batch, layer, target, size=size, interpolation=kernel)
    assert len(runs) == 2  # the first call as it is, the second to compile it


def test_the_default_layer_shares_its_trace_with_its_name():
    model, runs = counted("functional")
    image = np.random.default_rng(0).normal(size=(SIDE, SIDE, 3))
    for layer in [None, "relu2", model.get_layer("relu2")]:
        make_gradcam_heatmap(model, image, layer)
    make_gradcam_heatmap(model, image, method=methods.gradcam)
    assert len(runs) == 2


def test_a_callable_is_traced_once(images):
    model, runs = counted("functional")
    cam = GradCAM(model)

    def first(outputs):
        return outputs[:, 0]

    for _ in range(3):
        cam(images, first)
    assert len(runs) == 1


class Scores:
    def first(self, outputs):
        return outputs[:, 0]

    def __call__(self, outputs):
        return outputs[:, 0]


@pytest.mark.parametrize("target", [Scores().first, Scores(), operator.itemgetter((..., 0))])
def test_any_callable_is_a_target_and_is_traced_once(images, target):
    model, runs = counted("functional")
    cam = GradCAM(model)
    for _ in range(3):
        explanation = cam(images, target.__self__.first if hasattr(target, "__self__") else target)
    np.testing.assert_allclose(explanation.map, cam(images, targets.Value(0)).map, atol=1e-7)
    assert len(runs) == 2


@pytest.mark.slow
def test_callables_and_methods_made_on_the_spot_do_not_pile_up(functional, images, monkeypatch):
    assert shared._MAX_EXPLAINERS == 64
    monkeypatch.setattr(shared, "_MAX_EXPLAINERS", 4)
    cam = GradCAM(functional)
    for _ in range(5):
        cam(images, lambda outputs: outputs[:, 0])
    assert len(cam._explainer._traces) <= 2
    small = functools.partial(make_gradcam_heatmap, functional, images, "conv2")
    for _ in range(6):
        with pytest.raises(ValueError, match="`method` must return a map"):
            small(method=lambda activations, gradients: activations)
    assert len(_EXPLAINERS[functional]) == 4


def test_photographs_of_many_sizes_are_one_trace(functional):
    cam = GradCAM(functional, preprocess=lambda raw: tf.image.resize(raw, (SIDE, SIDE)))
    for side in range(20, 26):
        assert cam(np.ones((1, side, 30, 3), "uint8")).heatmap.shape == (1, side, 30)
    assert len(cam._explainer._traces) == 1


def test_new_weights_give_a_new_map_without_a_new_trace(images):
    model, runs = counted("functional")
    before = make_gradcam_heatmap(model, images, "conv2")
    random = np.random.default_rng(5)
    model.set_weights([random.normal(size=w.shape) for w in model.get_weights()])
    after = make_gradcam_heatmap(model, images, "conv2", size=None)
    expected = np.maximum(Oracle(model.get_weights(), images).map("conv2"), 0)
    assert not np.allclose(before, make_gradcam_heatmap(model, images, "conv2"))
    np.testing.assert_allclose(after, expected / expected.max(axis=(1, 2), keepdims=True), atol=1e-5)
    assert len(runs) == 2


def test_a_sequential_model_that_changed_is_explained_as_it_is_now(images):
    model = build("sequential")
    make_gradcam_heatmap(model, images, target=4)
    model.pop()
    model.add(keras.layers.Dense(2))
    assert make_gradcam_heatmap(model, images, target=1).shape == (3, SIDE, SIDE)
    with pytest.raises(ValueError, match="from 0 to 1"):
        make_gradcam_heatmap(model, images, target=4)


def test_a_gradcam_notices_that_its_model_changed(images):
    model = build("sequential")
    cam = GradCAM(model)
    cam(images)
    model.pop()
    model.add(keras.layers.Dense(2))
    np.testing.assert_allclose(cam(images).outputs, model(images), atol=1e-6)


# The first heatmap, before anything is compiled


def is_compiled(model):
    """Whether what `make_gradcam_heatmap` keeps for a model has a trace."""
    return any(any(each._traces.values()) for each in _EXPLAINERS[model].values())


@pytest.mark.parametrize("target", [None, 3, [4, 0, 2], targets.Classes([1, 3]), targets.Contrast()], ids=str)
@pytest.mark.parametrize("kind", ["functional", "nested", "sequential"])
@pytest.mark.product(kept=lambda kind, target: kind == "functional" or target is None)
def test_the_first_heatmap_waits_for_no_trace_and_the_next_is_the_same_compiled(images, kind, target):
    model = build(kind)
    first = make_gradcam_heatmap(model, images, target=target)
    assert not is_compiled(model)
    second = make_gradcam_heatmap(model, images, target=target)
    assert is_compiled(model)
    np.testing.assert_allclose(first, second, atol=1e-5)
    np.testing.assert_allclose(first, GradCAM(model)(images, target).heatmap, atol=1e-5)


@pytest.mark.parametrize("kind", ["functional", "nested", "sequential"])
@pytest.mark.parametrize("layer", ["conv1", "conv2", "relu2"])
def test_where_a_convolution_follows_the_first_heatmap_is_compiled(images, kind, layer):
    """Eagerly TensorFlow also computes its filter gradient, in which its CPU build can end the process."""
    model = build(kind)
    make_gradcam_heatmap(model, images, f"inner/{layer}" if kind == "nested" else layer)
    assert is_compiled(model) == (layer == "conv1")


@pytest.mark.parametrize(
    "end",
    [
        keras.layers.Softmax(),
        keras.layers.Activation("log_softmax"),
        keras.layers.Activation(lambda x: tf.nn.softmax(x)),
        keras.layers.Lambda(lambda x: tf.nn.softmax(x)),
        keras.layers.Reshape((3,)),
    ],
    ids=lambda end: end.name,
)
def test_a_model_that_shows_its_logits_in_its_graph_alone_is_compiled_at_once(images, end):
    model = head(end, activation="softmax" if isinstance(end, keras.layers.Reshape) else None)
    heatmap = make_gradcam_heatmap(model, images, target=1)
    assert is_compiled(model)
    np.testing.assert_allclose(heatmap, GradCAM(model)(images, 1).heatmap, atol=1e-6)


class Squashed(keras.Model):
    """A functional model with something after its graph."""

    def __call__(self, *args, **kwargs):
        return tf.nn.softmax(super().__call__(*args, **kwargs))


def test_what_a_functional_model_does_beyond_its_graph_is_seen_the_first_time(images):
    x = keras.Input((SIDE, SIDE, 3))
    model = Squashed(x, chain(x, [*parts()[:-1], keras.layers.Dense(3)]))
    first = make_gradcam_heatmap(model, images, "relu2", target=1)
    np.testing.assert_allclose(first, GradCAM(model, "relu2")(images, 1).heatmap, atol=1e-6)


def test_a_layer_that_makes_the_probabilities_is_refused_the_first_time_and_the_next(images):
    x = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(x, keras.layers.Conv2D(3, 3, activation="softmax", name="pixels")(x))
    for _ in range(2):
        with pytest.raises(ValueError, match="`layer` must be on the path to the score"):
            make_gradcam_heatmap(model, images, "pixels", target=1)


@pytest.mark.parametrize("method", ["eigencam", "ablationcam", "gradient"])
def test_every_method_answers_the_same_the_first_time(functional, images, method):
    first = make_gradcam_heatmap(functional, images, method=method)
    np.testing.assert_allclose(first, make_gradcam_heatmap(functional, images, method=method), atol=1e-6)


def test_a_class_out_of_range_is_refused_the_first_time_and_the_next(functional, images):
    for _ in range(3):
        with pytest.raises(ValueError, match="`target` must be a class from 0 to 4. Received: target=5"):
            make_gradcam_heatmap(functional, images, target=[1, 5, 0])


# Harmless


@pytest.mark.slow
@pytest.mark.parametrize("keep", [pytest.param("nothing", marks=pytest.mark.full), "a GradCAM"])
def test_models_of_every_kind_are_collected(images, keep):
    alive = []
    for i in range(6):  # two that show their layers at the top, by a layer and by default
        model = build(["functional", "nested", "sequential", "subclassed"][i % 4])
        make_gradcam_heatmap(model, images, "conv2" if i in (0, 2) else None, target=1)
        if keep == "a GradCAM":
            GradCAM(model, preprocess=lambda x: x)(images)
        make_gradcam_heatmap(model, images, target=lambda outputs, model=model: outputs[:, 0])
        alive.append(weakref.ref(model))
        del model
    gc.collect()
    gc.collect()
    assert [ref for ref in alive if ref() is not None] == []


def test_a_gradcam_keeps_its_model(images):
    cam = GradCAM(build("functional"))
    gc.collect()
    assert cam(images).map.shape == (3, 8, 8)


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads memory from /proc")
def test_500_calls_leave_memory_flat(functional, images):
    def explain(times):
        for i in range(times):
            make_gradcam_heatmap(functional, images, "conv2", target=[i % 5] * 3)
        gc.collect()

    explain(200)
    before = resident()
    explain(500)
    assert resident() - before < 4 * 2**20


def snapshot(model):
    every = [layer for _, layer in walk_layers(model)]
    return (
        [w.tobytes() for w in model.get_weights()],
        [getattr(layer, "activation", None) for layer in every],
        [
            {k: id(v) for k, v in vars(layer).items() if k in ("call", "_layers", "_inbound_nodes")}
            for layer in every
        ],
        [len(layer._inbound_nodes) + len(layer._outbound_nodes) for layer in every],
        [layer.trainable for layer in every],
        [len(layer._losses) for layer in every],
        None if type(model).__name__ == "Subclassed" else model.to_json(),
    )


def test_the_model_is_untouched(model, images):
    before, predicted = snapshot(model), model.predict(images, verbose=0)
    make_gradcam_heatmap(model, images)
    GradCAM(model, "conv2", method="layercam")(images, targets.Value(2))
    build_submodel(model, "conv1")
    assert snapshot(model) == before
    np.testing.assert_array_equal(model.predict(images, verbose=0), predicted)


def test_the_model_is_untouched_when_explaining_fails(model, images):
    before, predicted = snapshot(model), model.predict(images, verbose=0)

    def broken(outputs):
        raise RuntimeError("broken")

    for layer, target in [("conv2", broken), ("scores", None), ("pool", None), ("conv2", 99)]:
        with pytest.raises((RuntimeError, ValueError)):
            make_gradcam_heatmap(model, images, layer, target)
    assert snapshot(model) == before
    np.testing.assert_array_equal(model.predict(images, verbose=0), predicted)


class Counting(keras.Model):
    """A model that counts its calls, takes two arguments, and has a layer that never runs."""

    def __init__(self):
        super().__init__()
        self.conv, self.scores = keras.layers.Conv2D(4, 3, name="conv"), keras.layers.Dense(3)
        self.idle = keras.layers.Dense(2)
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, image, table):
        self.calls.assign(self.calls + 1)
        return self.scores(tf.concat([tf.reduce_mean(self.conv(image), (1, 2)), table], -1))


@pytest.mark.filterwarnings("ignore:`build..` was called on layer")  # Keras minds the idle layer.
def test_the_state_of_a_model_that_is_not_all_built_is_untouched(images):
    model, table = Counting(), np.zeros((3, 2), "float32")
    model(images, table)
    GradCAM(model)((images, table))
    make_gradcam_heatmap(model, (images, table))
    assert float(model.calls) == 1


def test_state_and_losses_of_the_layers_are_untouched(images):
    class Counter(keras.layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.count.assign(self.count + 1)
            return x

    model = small(keras.layers.Dense(3, activity_regularizer="l2"), first=[Counter(name="counter")])
    model(images)
    before = model.get_layer("counter").count.numpy()
    make_gradcam_heatmap(model, images)
    assert model.get_layer("counter").count.numpy() == before
    assert model.losses == []  # Keras forgets the last call's; none of the trace's may take their place


def test_8_threads_on_two_models_give_the_answers_of_one(images):
    models = [build("nested"), build("subclassed")]
    models[1].set_weights([w[::-1].copy() for w in models[1].get_weights()])
    jobs = [(models[i % 2], ["conv1", "conv2"][i // 2 % 2], i % CLASSES) for i in range(32)]

    def explain(job):
        model, layer, target = job
        return make_gradcam_heatmap(model, images, layer, target)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            threaded = list(pool.map(explain, jobs))
        fresh = {id(model): build("functional") for model in models}
        for model in models:
            fresh[id(model)].set_weights(model.get_weights())
        for (model, layer, target), heatmap in zip(jobs, threaded, strict=True):
            alone = make_gradcam_heatmap(fresh[id(model)], images, layer, target)
            np.testing.assert_allclose(heatmap, alone, atol=1e-5)


# Bad input


@dataclasses.dataclass
class Unhashable:
    """A dataclass that isn't frozen has no hash."""

    def __call__(self, *arguments):
        return arguments[0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layer": "conv_2"}, ValueError, "`layer` must be a layer.*Did you mean 'conv2'"),
        ({"layer": "scores"}, ValueError, r"`layer` must return a map.*returns \(None, 5\)"),
        ({"layer": "pool"}, ValueError, "`layer` must return a map"),
        ({"layer": 7}, TypeError, "`layer` must be a name.*For a class, give target=7"),
        ({"target": 5}, ValueError, "`target` must be a class from 0 to 4. Received: target=5"),
        ({"target": [0, 1, 99]}, ValueError, "from 0 to 4. Received: target=99"),
        ({"target": -1}, ValueError, "`target` must not be negative"),
        ({"target": [1, 2]}, ValueError, "one class for each of the 3 images. Received: 2"),
        ({"target": "cat"}, TypeError, "`target` must be None, a class.*its class: labels.index"),
        ({"target": np.eye(5)[[1, 2, 3]]}, TypeError, "For a one-hot target, give the class: np.argmax"),
        ({"target": np.eye(5, dtype=int)[[1, 2, 3]]}, ValueError, "For a one-hot target, give the class"),
        ({"target": np.eye(5)[3]}, TypeError, "For a one-hot target, give the class"),
        ({"target": [0, 0, 0, 1, 0]}, ValueError, "each of the 3 images. Received: 5.*For a one-hot target"),
        ({"target": targets.Class(np.eye(5)[1])}, TypeError, "For a one-hot target, give the class"),
        ({"img": np.zeros((SIDE, 3))}, ValueError, r"`img` must be an image \(H, W, C\)"),
        ({"img": np.zeros((1, 1, SIDE, SIDE, 3))}, ValueError, r"`img` must be an image \(H, W, C\)"),
        (
            {"img": np.zeros((20, 20, 3))},
            ValueError,
            r"shape that the model takes.*Received: \(20, 20, 3\)",
        ),
        ({"img": np.zeros((SIDE, SIDE, 1))}, ValueError, "`img` must have the shape"),
        ({"img": np.zeros((0, SIDE, SIDE, 3))}, ValueError, "`img` must not be empty"),
        ({"img": []}, ValueError, "`img` must not be empty"),
        ({"img": np.full((SIDE, SIDE, 3), np.nan)}, ValueError, "`img` must be finite"),
        ({"img": tf.fill((SIDE, SIDE, 3), np.inf)}, ValueError, "`img` must be finite"),
        ({"img": "cat.png"}, TypeError, "`img` must be an array or tensor.*load_image\\('cat.png'"),
        ({"img": ["a.png", "b.png"]}, TypeError, "`img` must be an array or tensor.*load_image"),
        ({"img": None}, TypeError, "`img` must be an array or tensor of real numbers"),
        ({"img": np.zeros((SIDE, SIDE, 3), complex)}, TypeError, "`img` must be an array .* complex128"),
        (
            {"img": [np.zeros((2, 2, 3)), np.zeros((3, 3, 3))]},
            TypeError,
            "`img` must .* parts differ in shape",
        ),
        ({"method": "grad"}, ValueError, "`method` must be one of"),
        ({"method": "gradcam++"}, ValueError, "Did you mean 'gradcam_plus_plus'"),
        ({"interpolation": "biliner"}, ValueError, "Did you mean 'bilinear'"),
        ({"method": Unhashable()}, TypeError, "`method` must be hashable"),
        ({"target": Unhashable()}, TypeError, "`target` must be hashable"),
        ({"target": Unhashable().__call__}, TypeError, "`target` must be hashable"),
        ({"method": 3}, TypeError, "`method` must be a name, a callable"),
        ({"method": lambda a, g: a}, ValueError, r"`method` must return a map"),
        ({"size": "same"}, ValueError, "`size` must be"),
        ({"size": (3,)}, ValueError, "`size` must hold one length for each of the 2 axes"),
        ({"size": (0, 3)}, ValueError, "`size` must be"),
        ({"size": (3, 2**14 + 1)}, ValueError, "`size` must be.*up to 16384"),
        ({"size": (2**33, 3)}, ValueError, "`size` must be.*up to 16384"),
        ({"size": (2.5, 3)}, ValueError, "`size` must be"),
        ({"interpolation": "cubic"}, ValueError, "`interpolation` must be one of"),
        ({"interpolation": ["bicubic"]}, ValueError, "`interpolation` must be one of"),
        ({"model": "resnet"}, TypeError, "`model` must be a keras.Model. Received: an object of type str"),
        ({"model": keras.layers.Conv2D(3, 3)}, TypeError, "`model` must be a keras.Model"),
    ],
)
def test_bad_arguments_are_refused_by_name(unchanged, images, arguments, error, message):
    with pytest.raises(error, match=message):
        make_gradcam_heatmap(**{"model": unchanged, "img": images, **arguments})


def test_swapped_arguments_are_recognized(functional, images):
    with pytest.raises(TypeError, match="Received: an image first, then a model. Swap them"):
        make_gradcam_heatmap(images, functional)
    with pytest.raises(TypeError, match="`img` must be an image. Received: a model"):
        make_gradcam_heatmap(functional, functional)


def test_a_head_inside_a_tf_function_of_the_models_own_is_refused_only_if_it_cannot_be_read(
    images, functional, monkeypatch
):
    class Decorated(keras.Model):
        def __init__(self):
            super().__init__()
            *self.features, self.scores = parts()

        @tf.function
        def head(self, x):
            return self.scores(x)

        def call(self, x):
            return self.head(chain(x, self.features))

    model = Decorated()
    model(images)
    model.set_weights(functional.get_weights())
    expected, found = GradCAM(functional)(images), GradCAM(model)(images)
    np.testing.assert_allclose(found.map, expected.map, atol=1e-6)
    np.testing.assert_allclose(found.score, expected.score, atol=1e-5)
    monkeypatch.setattr("tf_gradcam._model.logits.function_graph", lambda call, graph: None)
    with pytest.raises(ValueError, match="`model` must show its logits"):
        GradCAM(model)(images)
    for target in (targets.Value(1), lambda outputs: outputs[:, 1]):
        assert GradCAM(model)(images, target).map.shape == (3, 8, 8)


def test_fractions_are_refused_where_the_model_takes_whole_numbers():
    x = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    model = keras.Model(x, chain(keras.layers.Rescaling(1 / 255)(x), parts()))
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype="uint8")
    expected = make_gradcam_heatmap(model, pixels)
    found = make_gradcam_heatmap(model, pixels.astype("float32"))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    for wrong, told in [
        (pixels / 255, "fractions"),
        (pixels + 1.0, "values from 1 to 256"),
        (pixels.astype("int64") - 1, "values from -1 to 254"),
        (tf.fill(pixels.shape, np.nan), "NaN or infinity"),
    ]:
        with pytest.raises(ValueError, match=f"as the model takes uint8: from 0 to 255. Received: {told}"):
            GradCAM(model)(wrong)
    cam = GradCAM(model, preprocess=lambda images: 2 * images)
    np.testing.assert_allclose(cam(pixels // 2).heatmap[0], GradCAM(model)(pixels // 2 * 2).heatmap[0])
    with pytest.raises(ValueError, match="`preprocess` must return numbers from 0 to 255, as .*uint8. Rec"):
        cam(pixels)


def test_an_image_with_the_wrong_channels_is_told_so(functional):
    for shape, advice in (
        ((3, SIDE, SIDE), r"np.moveaxis\(img, 0, -1\)"),
        ((SIDE, SIDE, 5), "It must have 3 channels, and they come last"),
        ((SIDE, SIDE, 4), r"Received: \(17, 17, 4\).*alpha channel: img\[..., :3\]"),
    ):
        with pytest.raises(ValueError, match=advice):
            make_gradcam_heatmap(functional, np.zeros(shape))


def test_make_gradcam_heatmap_says_what_to_use_in_a_tf_function(functional, images):
    with pytest.raises(ValueError, match="a symbolic tensor. In a tf.function, use GradCAM"):
        tf.function(lambda x: make_gradcam_heatmap(functional, x))(tf.constant(images))


def test_a_preprocess_that_can_not_be_called_is_refused(functional):
    with pytest.raises(TypeError, match="`preprocess` must be a callable"):
        GradCAM(functional, preprocess="resnet")


def test_a_score_that_does_not_depend_on_the_layer_is_refused(functional, images):
    with pytest.raises(ValueError, match="`layer` must be on the path to the score"):
        make_gradcam_heatmap(functional, images, target=lambda outputs: tf.zeros(tf.shape(outputs)[0]))


def test_a_layer_that_runs_twice_is_refused(images):
    x = keras.Input((SIDE, SIDE, 3))
    shared = keras.layers.Conv2D(3, 3, padding="same", name="shared")
    model = keras.Model(x, keras.layers.GlobalAveragePooling2D()(shared(shared(x))))
    with pytest.raises(ValueError, match="`layer` must run once.*ran 2 times. Give call=0 for the first"):
        make_gradcam_heatmap(model, images, "shared")


def test_a_layer_inside_a_tf_function_of_the_models_own_is_refused(images):
    class Decorated(type(build("subclassed"))):
        @tf.function
        def call(self, images):
            return super().call(images)

    model = Decorated()
    model(images)
    with pytest.raises(ValueError, match="`layer` must not run inside the model's own tf.function or loop"):
        make_gradcam_heatmap(model, images, "conv2")


def test_weights_of_nan_are_said(functional, images):
    functional.set_weights([np.full_like(w, np.nan) for w in functional.get_weights()])
    with pytest.raises(ValueError, match="`model` must return finite scores and gradients"):
        make_gradcam_heatmap(functional, images)


def test_another_backend_is_refused(functional, images, monkeypatch):
    # No other backend is installed with this library; Keras is made to say that it runs on one.
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="needs Keras's TensorFlow backend.*'jax'.*KERAS_BACKEND=tensorflow"):
        make_gradcam_heatmap(functional, images)


def test_a_map_that_overflows_is_said(functional, images):
    with pytest.raises(
        ValueError, match="must return finite scores and gradients. Received: NaN or infinity"
    ):
        make_gradcam_heatmap(functional, images, "conv2", lambda outputs: outputs[:, 1] * 1e38 * 1e5)


def test_only_a_preprocess_is_blamed_for_a_wrong_shape(images):
    model = small(keras.layers.Dense(3), keras.layers.Lambda(lambda x: tf.ensure_shape(x, (4, 3))))
    with pytest.raises(tf.errors.InvalidArgumentError):
        GradCAM(model)(images)


# Blank maps


def test_a_blank_map_is_zeros_and_says_why_once(functional, images):
    kernel, bias = functional.get_layer("scores").get_weights()
    kernel[:, 3] = -1
    functional.get_layer("scores").set_weights([kernel, bias])
    message = "3 of 3 images.*at layer 'relu2' is evidence for class 3: all evidence is against it"
    with pytest.warns(UserWarning, match=message) as said:
        heatmap = make_gradcam_heatmap(functional, images, target=3)
    assert len(said) == 1
    assert said[0].filename == __file__
    np.testing.assert_array_equal(heatmap, np.zeros((3, SIDE, SIDE)))


def test_a_map_without_gradients_says_so(functional, images):
    kernel, bias = functional.get_layer("scores").get_weights()
    functional.get_layer("scores").set_weights([kernel * 0, bias])
    with pytest.warns(UserWarning, match="the gradients or activations are 0"):
        heatmap = make_gradcam_heatmap(functional, images[0], target=targets.Value(1), size=None)
    np.testing.assert_array_equal(heatmap, np.zeros((8, 8)))


def test_a_signed_heatmap_is_the_map_resized_with_its_sign(unchanged, images):
    cam = GradCAM(unchanged, "conv2")
    explanation = cam(images, 1, signed=True)
    signed_map = explanation.map.numpy()
    assert (signed_map < 0).any(axis=(1, 2)).all()
    resized = tf.image.resize(signed_map[..., None], (SIDE, SIDE))[..., 0].numpy()
    largest = np.abs(resized).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(explanation.heatmap, resized / largest, atol=1e-5)
    plain = cam(images, 1).heatmap.numpy()
    assert plain.min() == 0
    np.testing.assert_array_equal(cam(images, 1, signed=False).heatmap, plain)
    with pytest.raises(ValueError, match="`signed` must be False for several layers"):
        GradCAM(unchanged, ["conv1", "conv2"])(images, signed=True)


def test_a_signed_heatmap_lies_where_the_pixels_came_from(unchanged, images):
    wide = np.pad(images, [(0, 0), (3, 0), (0, 5), (0, 0)])
    cropped = GradCAM(unchanged, "conv2", preprocess=lambda batch: batch[:, 3:, :-5])
    heatmap = cropped(wide, 1, signed=True).heatmap.numpy()
    expected = GradCAM(unchanged, "conv2")(images, 1, signed=True).heatmap.numpy()
    np.testing.assert_allclose(heatmap[:, 3:, :-5], expected, atol=1e-5)
    assert not heatmap[:, :3].any()
    assert not heatmap[:, :, -5:].any()

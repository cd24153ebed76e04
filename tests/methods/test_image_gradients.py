"""Maps on the image itself: against numbers worked out by hand, the oracle, and what adds up to the score."""

import importlib.util
import sys
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from conftest import SIDE, build, chain, parts
from keras import layers, ops
from oracle import Oracle, _pad

from tf_gradcam import GradCAM, methods, pretrained, targets
from tf_gradcam._images.read import resize_pixels
from tf_gradcam._methods.full_gradient import full_gradients

AT_IMAGE = ["gradient", "gradient_x_input", "integrated_gradients", "guided_backprop", "fullgrad"]
ALL = [*AT_IMAGE, "guided_gradcam"]
RESIZED = ["fullgrad", "guided_gradcam"]  # which TensorFlow does in float32
SLOW = pytest.mark.slow
# By the gradient alone, by gradients of what the model computes inside, and by such on a layer's grid.
one_of_each_sort = pytest.mark.product(
    kept=lambda method: method in ("integrated_gradients", "fullgrad", "guided_gradcam")
)


def explain(model, images, method, target=None, **how):
    return GradCAM(model, method=method, **how)(images, target).map.numpy()


def assert_near(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


# By hand: four pixels of two channels, two units at each of them, and what the one is more than the other.

PIXELS = np.array([[[[3.0, 1.0], [1.0, 2.0]], [[-1.0, -2.0], [2.0, 1.0]]]], "float32")
KERNEL, BIAS = [[1.0, -1.0], [-2.0, 1.0]], [1.0, 0.0]


def two_units(activation="relu"):
    image = keras.Input((2, 2, 2))
    units = layers.Conv2D(2, 1, activation=activation, name="units")
    model = keras.Model(image, units(image))
    units.set_weights([np.reshape(KERNEL, (1, 1, 2, 2)), np.array(BIAS)])
    return model


def difference(outputs):
    return tf.reduce_sum(outputs[..., 0] - outputs[..., 1], axis=(1, 2))


# The units are x - 2y + 1 and y - x: (2, -2) and (-2, 1) above, (4, -1) and (1, -1) below. So the score is
# 2 - 1 + 4 + 1 = 6, and its gradient (1, -2), -(-1, 1), (1, -2), (1, -2).
BY_HAND = {
    "gradient": ("gradient", [2, 1, 2, 2]),
    "gradient times input": ("gradient_x_input", [3 - 2, 1 - 2, -1 + 4, 2 - 2]),
    # On the way from 0 the units are on where they are at its end; at the second pixel the first unit,
    # 1 - 3t, is on too, for a third of the way: (1 - 4) / 3.
    "integrated": (methods.integrated_gradients(steps=3), [1, -1 - 1, 3, 0]),
    "integrated in two steps": (methods.integrated_gradients(steps=2), [1, -3 / 2 - 1, 3, 0]),
    # From (1, 1), where both units are 0.
    "integrated from ones": (methods.integrated_gradients(baseline=1), [2, -1, -2 + 6, -1 + 2]),
    # From (1, 0), where they are 2 and -1; on the way to the second pixel they are 2 - 4t and 2t - 1.
    "integrated from a colour": (methods.integrated_gradients(baseline=(1, 0)), [0, -4 / 2 - 2 / 2, 2, -1]),
    # The second unit gets a gradient of -1, which is held back.
    "guided": ("guided_backprop", [2, 0, 2, 2]),
    # Grad-CAM is the one unit minus the other: 2, -1, 4, 1.
    "guided Grad-CAM": ("guided_gradcam", [2 * 2, 0, 2 * 4, 2 * 1]),
    # The input's terms are (3, -2), (1, -2), (-1, 4), (2, -2), from 1 to 4; those of the bias 1, 0, 1, 1.
    "FullGrad": ("fullgrad", [(2 + 1) / 3 + 1, (0 + 1) / 3, (0 + 3) / 3 + 1, (1 + 1) / 3 + 1]),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_maps_are_those_worked_out_by_hand(case):
    method, expected = BY_HAND[case]
    np.testing.assert_allclose(explain(two_units(), PIXELS, method, difference).ravel(), expected, atol=1e-6)


def test_a_relu6_is_off_where_it_is_full():
    pixels = PIXELS.copy()
    pixels[0, 0, 1] = [8, 1]  # The units are 7 and -7.
    guided = explain(two_units("relu6"), pixels, "guided_backprop", difference)
    np.testing.assert_array_equal(guided.ravel(), [2, 0, 2, 2])
    # The input's terms are (3, -2), (0, 0), (-1, 4), (2, -2). Where the bias has no say the ReLU6 has, 6.
    fullgrad = explain(two_units("relu6"), pixels, "fullgrad", difference)
    np.testing.assert_allclose(fullgrad.ravel(), [5 / 4 + 1, 1, 5 / 4 + 1, 4 / 4 + 1], atol=1e-6)


# The network of conftest.py, in float64 NumPy.


def image_gradients(model, images, classes=None, guided=False):
    """The gradients at the image and before each of the two ReLUs, conv1's first."""
    oracle = Oracle(model.get_weights(), images, classes)
    kernel1, _, kernel2, *_ = (w.astype("float64") for w in model.get_weights())
    through = (lambda x: np.maximum(x, 0)) if guided else (lambda x: x)
    at_conv2 = through(oracle.gradients["relu2"]) * (oracle.activations["relu2"] > 0)
    padded = np.zeros_like(_pad(oracle.activations["conv1"]))
    _spread(padded, at_conv2, kernel2, 1)
    at_conv1 = through(padded[:, 1:-1, 1:-1]) * (oracle.activations["conv1"] > 0)
    at_image = np.zeros(images.shape)
    _spread(at_image, at_conv1, kernel1, 2)
    return at_image, at_conv1, at_conv2


def _spread(into, values, kernel, stride):
    """Add to `into` what comes back through a convolution, one place of its kernel after another."""
    height, width = values.shape[1:3]
    for row, column in np.ndindex(3, 3):
        rows = slice(row, row + stride * height, stride)
        columns = slice(column, column + stride * width, stride)
        into[:, rows, columns] += values @ kernel[row, column].T


def enlarged(coarse):
    """Linear interpolation between the middles of the places, `(N, h, w)` to `(N, SIDE, SIDE)`."""
    for axis in (1, 2):
        places = coarse.shape[axis]
        middles = (np.arange(SIDE) + 0.5) * places / SIDE - 0.5
        coarse = np.apply_along_axis(partial(np.interp, middles, range(places)), axis, coarse)
    return coarse


def psi(term):
    strength = np.abs(term)
    strength -= strength.min(axis=(1, 2, 3), keepdims=True)
    return (strength / strength.max(axis=(1, 2, 3), keepdims=True)).sum(-1)


def expected_map(method, model, images, classes=None):
    if classes is None:
        classes = Oracle(model.get_weights(), images).classes
    if method == "integrated_gradients":
        ways = (np.arange(32) + 0.5) / 32
        mean = np.mean([image_gradients(model, way * images, classes)[0] for way in ways], axis=0)
        return (images * mean).sum(-1)
    slopes, at_conv1, at_conv2 = image_gradients(model, images, classes, guided=method.startswith("guided"))
    if method == "gradient_x_input":
        return (images * slopes).sum(-1)
    if method == "fullgrad":
        _, bias1, _, bias2, *_ = model.get_weights()
        return psi(images * slopes) + enlarged(psi(bias1 * at_conv1)) + enlarged(psi(bias2 * at_conv2))
    strongest = np.abs(slopes).max(-1)
    if method != "guided_gradcam":
        return strongest
    gradcam = Oracle(model.get_weights(), images, classes).map("relu2")
    return strongest * enlarged(np.maximum(gradcam, 0))


def test_the_oracle_has_the_slopes_of_its_own_score(functional, images):
    slopes, *_ = image_gradients(functional, images, 2)
    step = 1e-6 * np.random.default_rng(0).normal(size=images.shape)
    ends = [Oracle(functional.get_weights(), images + each, 2).scores for each in (step, -step)]
    np.testing.assert_allclose((slopes * step).sum((1, 2, 3)), (ends[0] - ends[1]) / 2, rtol=1e-5)


@pytest.mark.parametrize("method", ALL)
def test_the_map_is_the_oracles_in_a_batch_and_alone_and_is_traced_once(functional, images, method):
    runs, pool = [], functional.get_layer("pool")
    call = pool.call
    object.__setattr__(pool, "call", lambda *args, **kwargs: (runs.append(1), call(*args, **kwargs))[1])
    cam = GradCAM(functional, method=method)
    assert_near(cam(images, [1, 0, 4]).map, expected_map(method, functional, images, [1, 0, 4]))
    traced = len(runs)
    for alone, index in zip(images[:, None], [1, 0, 4], strict=True):
        assert_near(cam(alone, index).map, expected_map(method, functional, alone, index))
    assert len(runs) == traced


@SLOW
@pytest.mark.parametrize("method", ALL)
@pytest.mark.product(kept=lambda model, method: (ALL.index(method) % 2 == 0) == (model == "functional"))
def test_every_kind_of_model_has_the_map_of_its_predicted_class(model, images, method):
    assert_near(explain(model, images, method), expected_map(method, model, images))


@SLOW
@pytest.mark.parametrize("method", ALL)
@one_of_each_sort
def test_several_classes_at_once_are_what_each_is_alone(functional, images, method):
    together = explain(functional, images, method, targets.Classes([4, 0]))
    for place, index in enumerate([4, 0]):
        assert_near(together[:, place], expected_map(method, functional, images, index))


@SLOW
@pytest.mark.parametrize("method", ALL)
@one_of_each_sort
def test_the_map_is_as_exact_as_the_model(method, images):
    model = of_dtype("float64", parts)
    model.set_weights(build("functional").get_weights())
    found = explain(model, images.astype("float64"), method)
    assert found.dtype == np.float64
    assert_near(
        found, expected_map(method, model, images.astype("float64")), 1e-6 if method in RESIZED else 1e-12
    )


@SLOW
@pytest.mark.parametrize("method", ALL)
@one_of_each_sort
def test_channels_may_come_first(images, method):
    last, first = (
        keras.Sequential(
            [
                keras.Input((SIDE, SIDE, 3) if order == "channels_last" else (3, SIDE, SIDE)),
                layers.Conv2D(4, 3, activation="relu", data_format=order),
                layers.MaxPooling2D(data_format=order),
                layers.Conv2D(4, 3, activation="relu6", data_format=order),
                layers.GlobalAveragePooling2D(data_format=order),
                layers.Dense(2),
            ]
        )
        for order in ("channels_last", "channels_first")
    )
    seasoned(last)
    first.set_weights(last.get_weights())
    assert_near(explain(first, images.transpose(0, 3, 1, 2), method, 0), explain(last, images, method, 0))


@SLOW
@pytest.mark.parametrize("method", ALL)
@one_of_each_sort
def test_the_map_has_the_dtype_of_the_image(method, images):
    model = of_dtype("float64", parts, input_dtype="float32")
    model.set_weights(build("functional").get_weights())
    found = explain(model, images, method)
    assert found.dtype == np.float32
    assert_near(found, expected_map(method, model, images))


def of_dtype(dtype, make_steps, input_dtype=None):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        image = keras.Input((SIDE, SIDE, 3), dtype=input_dtype or dtype)
        return keras.Model(image, chain(image, make_steps()))
    finally:
        keras.config.set_dtype_policy(policy)


def seasoned(model):
    """Give `model` weights that depend on nothing; scales and variances are positive, as trained ones are."""
    random = np.random.default_rng(3)
    for weight in model.weights:
        value = random.normal(scale=0.4, size=weight.shape)
        weight.assign(0.5 + np.abs(value) if weight.path.endswith(("gamma", "variance")) else value)
    return model


# Formulas, of which smoothed gradients take advantage.


@pytest.mark.parametrize("method", ["gradient", "gradient_x_input"])
def test_a_formula_makes_the_map_of_an_image_and_its_gradient(functional, images, method):
    slopes, *_ = image_gradients(functional, images)
    formula = methods.get(method).formula
    found = formula(tf.constant(images, tf.float64), tf.constant(slopes))
    np.testing.assert_allclose(found, expected_map(method, functional, images), rtol=1e-12)


# Integrated gradients.


def scores(model, images, index):
    return Oracle(model.get_weights(), np.broadcast_to(images, (3, SIDE, SIDE, 3)), index).scores


@pytest.mark.parametrize("baseline", [0.0, pytest.param((0.25, -0.5, 1.0), marks=SLOW)])
def test_integrated_gradients_sum_to_what_the_image_adds_to_the_baseline(functional, images, baseline):
    expected = scores(functional, images, 1) - scores(functional, np.array(baseline), 1)
    errors = []
    for steps in (4, 256):
        method = methods.integrated_gradients(steps, baseline)
        errors.append(np.abs(explain(functional, images, method, 1).sum((1, 2)) - expected).max())
    assert errors[1] < 2e-3 * np.abs(expected).max()
    assert errors[1] < errors[0]


@SLOW
def test_a_batch_bounds_the_images_on_the_way_and_changes_nothing_else(images):
    rows = []

    class Counts(layers.Layer):
        def call(self, x):
            note = tf.py_function(lambda count: rows.append(int(count)), [tf.shape(x)[0]], [])
            with tf.control_dependencies([note]):
                return tf.identity(x)

    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), Counts(), *parts()])
    seasoned(model)
    found = []
    for batch, passes in [(1, [2] * 9), (9, [6, 6, 6]), (64, [18])]:
        rows.clear()
        found.append(explain(model, images[:2], methods.integrated_gradients(9, batch=batch), 0))
        assert sorted(rows) == sorted([2, *passes])  # One more is that of the images as they are.
        assert_near(found[-1], found[0])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"steps": 0}, "`steps` must be a whole number from 1. Received: steps=0"),
        ({"steps": 2.5}, "`steps` must be a whole number from 1. Received: steps=2.5"),
        ({"batch": True}, "`batch` must be a whole number from 1. Received: batch=True"),
        ({"baseline": "black"}, "`baseline` must be one number.*Received: baseline='black'"),
        ({"baseline": ()}, "`baseline` must be one number.*Received: baseline=()"),
        ({"baseline": float("nan")}, "`baseline` must be one number.*Received: baseline=nan"),
        ({"baseline": [[0.0]]}, "`baseline` must be one number.*Received: baseline="),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        methods.integrated_gradients(**parameters)


def test_a_baseline_has_a_number_for_each_channel(functional, images):
    with pytest.raises(
        ValueError, match=r"`baseline` must be .* image's 3 channels. Received: .*\(0.0, 1.0\)"
    ):
        explain(functional, images, methods.integrated_gradients(baseline=(0, 1)))


def test_a_baseline_may_be_an_array_and_equal_ones_are_the_same_method():
    of_an_array = methods.integrated_gradients(baseline=np.array([0.5, 1.0], "float32"))
    assert of_an_array == methods.integrated_gradients(baseline=[0.5, 1])
    assert hash(of_an_array) == hash(methods.integrated_gradients(baseline=(0.5, 1.0)))


# Guided backpropagation.


class Functions(layers.Layer):
    """A ReLU in somebody else's layer, two times out of three inside a function."""

    def __init__(self, way):
        super().__init__()
        self.way = way

    def call(self, x):
        if self.way == "open":
            return ops.relu(x)
        if self.way == "in a function":
            return tf.function(lambda y: tf.function(tf.nn.relu)(y))(x)
        return tf.while_loop(lambda turn, y: turn < 1, lambda turn, y: (turn + 1, tf.nn.relu(y)), (0, x))[1]


def with_relus(make):
    """The network of conftest.py with ReLUs of another kind."""
    conv1, conv2, _, pool, scores = parts()
    conv1.activation = keras.activations.linear
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), conv1, make(), conv2, make(), pool, scores])
    model.set_weights(build("functional").get_weights())
    return model


RELUS = {
    "layer": layers.ReLU,
    "layer of a name": lambda: layers.Activation("relu"),
    "layer of a function": lambda: layers.Activation(keras.activations.relu),
    "operation": lambda: Functions("open"),
    "lambda": lambda: layers.Lambda(tf.nn.relu),
}


@SLOW
@pytest.mark.parametrize("kind", RELUS)
def test_relus_guide_however_they_are_written(images, kind):
    model = with_relus(RELUS[kind])
    expected = expected_map("guided_backprop", build("functional"), images)
    assert_near(explain(model, images, "guided_backprop"), expected)


@pytest.mark.parametrize("method", ["guided_backprop", pytest.param("guided_gradcam", marks=SLOW)])
def test_the_model_is_not_changed(functional, images, method):
    def state():
        with tf.GradientTape() as tape:
            tape.watch(inputs := tf.constant(images))
            score = functional(inputs)[:, 1]
        activations = [getattr(layer, "activation", None) for layer in functional.layers]
        return (
            score.numpy(),
            tape.gradient(score, inputs).numpy(),
            functional.get_weights(),
            activations,
        )

    before, gradient = state(), explain(functional, images, "gradient")
    explain(functional, images, method)
    after = state()
    for old, new in zip(keras.tree.flatten(before[:3]), keras.tree.flatten(after[:3]), strict=True):
        np.testing.assert_array_equal(old, new)
    assert before[3] == after[3]
    np.testing.assert_array_equal(explain(functional, images, "gradient"), gradient)


@SLOW
def test_the_map_of_one_frame_is_for_all_frames_of_its_own_video():
    kind = zoo.network_for_each_frame(2)
    cam = GradCAM(kind.model, kind.layer, call=kind.call, method="guided_gradcam")
    videos = np.concatenate([kind.inputs, 2 * kind.inputs])
    assert len(videos) == videos.shape[1]  # As many videos as frames, which are easily taken for each other.
    alone = [cam(video, 0, size=None).map[0] for video in videos]
    assert np.any(alone)
    assert_near(cam(videos, 0, size=None).map, np.array(alone))


@pytest.mark.parametrize("method", ["guided_backprop", "guided_gradcam"])
def test_a_model_without_relus_is_refused(images, method):
    model = with_relus(lambda: layers.Activation("tanh"))
    with pytest.raises(ValueError, match='`method` must not be guided.*no ReLU.*Use method="gradient"'):
        explain(model, images, method)


@pytest.mark.parametrize("way", ["in a function", pytest.param("in a loop", marks=SLOW)])
def test_relus_that_are_hidden_are_refused(images, way):
    model = with_relus(lambda: Functions(way))
    with pytest.raises(ValueError, match="`method` must not be guided.*hidden.*Remove the decorator"):
        explain(model, images, "guided_backprop")


@SLOW
def test_functions_without_relus_are_no_obstacle(images):
    # Keras puts convolutions in groups into a function.
    body = [layers.Conv2D(4, 3, activation="relu"), layers.Conv2D(4, 3, groups=2), layers.ReLU()]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(2)]
    model = seasoned(keras.Sequential([keras.Input((SIDE, SIDE, 3)), *body, *head]))
    assert explain(model, images, "guided_backprop").any()


def test_the_module_may_be_loaded_once_more(functional, images):
    source = sys.modules[methods.gradient.__module__].__file__
    spec = importlib.util.spec_from_file_location("once_more", source)
    once_more = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(once_more)
    expected = expected_map("guided_backprop", functional, images)
    assert_near(explain(functional, images, once_more.guided_backprop()), expected)


# FullGrad.


class Attention(layers.Layer):
    """A class token, self-attention, and what the token has become."""

    def __init__(self):
        super().__init__()
        self.attention, self.norm = layers.MultiHeadAttention(2, 4), layers.LayerNormalization()

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")
        self.norm.build(shape)
        self.attention.build(shape, shape)

    def call(self, x):
        token = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, x.shape[-1]))
        x = self.norm(ops.concatenate([token, x], axis=1))
        return (x + self.attention(x, x))[:, 0]


def squeeze_and_excite(x):
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return x * layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(
        layers.Conv2D(2, 1, activation="silu")(gate)
    )


POOL = layers.GlobalAveragePooling2D
NETWORKS = {
    "ReLUs": lambda: [*parts()[:-1]],
    "ReLU6, batch norm": lambda: [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(6), POOL()],
    "swish, squeeze and excite": lambda: [layers.Conv2D(4, 3, activation="silu"), squeeze_and_excite, POOL()],
    "other activations": lambda: [
        layers.Conv2D(4, 3, activation="gelu"),
        layers.PReLU(),
        layers.Conv2D(4, 3, activation="hard_swish"),
        layers.LeakyReLU(),
        layers.Conv2D(4, 3, activation="elu"),
        layers.ReLU(negative_slope=0.1, threshold=0.2),
        layers.Conv2D(4, 3, activation="softplus"),
        POOL(),
    ],
    "other norms": lambda: [
        layers.Rescaling(0.5, 0.1),
        layers.Conv2D(4, 3),
        layers.GroupNormalization(2),
        layers.LayerNormalization(),
        layers.UnitNormalization(),
        POOL(),
    ],
    "other convolutions": lambda: [
        layers.ZeroPadding2D(),
        layers.Conv2D(4, 3, dilation_rate=2),
        layers.SeparableConv2D(4, 3, activation="relu"),
        layers.Conv2D(4, 3, groups=2),
        layers.Conv2DTranspose(4, 3, strides=2),
        layers.AveragePooling2D(2),
        layers.UpSampling2D(),
        layers.Cropping2D(),
        layers.MaxPooling2D(),
        POOL(),
    ],
    "a head with activations": lambda: [
        layers.Conv2D(4, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(8, activation="relu"),
        layers.Dense(8, activation="tanh"),
        layers.Dense(8, activation="softmax"),
    ],
    "a transformer": lambda: [layers.Conv2D(8, 4, strides=4), layers.Reshape((16, 8)), Attention()],
    "an input used twice": lambda: [
        layers.Conv2D(4, 3),
        lambda x: 0.5 - x * x - 0.2,
        lambda x: ops.maximum(x, -0.3),
        POOL(),
    ],
    "what has no gradient": lambda: [
        layers.Conv2D(4, 3, activation="relu"),
        lambda x: x * ops.stop_gradient(x) + ops.round(x),
        POOL(),
    ],
    "a function": lambda: [layers.Conv2D(4, 3), Functions("in a function"), layers.Conv2D(4, 3), POOL()],
    "a loop": lambda: [layers.Conv2D(4, 3), Functions("in a loop"), layers.Conv2D(4, 3), POOL()],
}


def taken_apart(score_of, *inputs):
    """The score `(N,)`, and the sums of what the first of `inputs` and what the biases have in it."""

    @tf.function(autograph=False)
    def run(*inputs):
        score = score_of(*inputs)
        of_image, of_biases = full_gradients(inputs[0], score)
        return score, tf.reduce_sum(of_image), [tf.reduce_sum(each) for each in of_biases]

    score, of_image, of_biases = run(*map(tf.constant, inputs))
    return float(tf.reduce_sum(score)), float(of_image), [float(each) for each in of_biases]


FAST = ["ReLU6, batch norm", "swish, squeeze and excite", "a head with activations"]


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=SLOW) for name in NETWORKS if name not in FAST)]
)
def test_input_and_biases_make_the_score(name, images):
    model = seasoned(of_dtype("float64", lambda: [*NETWORKS[name](), layers.Dense(3)]))
    score, of_image, of_biases = taken_apart(
        lambda image: model(image, training=False)[:, 1], images.astype("float64")
    )
    np.testing.assert_allclose(of_image + sum(of_biases), score, rtol=1e-11)


def test_each_bias_has_its_own_term_also_among_activations_a_million_times_larger(functional, images):
    images = 1e6 * images
    _, at_conv1, at_conv2 = image_gradients(functional, images, 2)
    _, bias1, _, bias2, _, bias = functional.get_weights()
    logits = keras.Model(functional.inputs, functional.layers[-2].output)
    dense = functional.get_layer("scores")
    *_, of_biases = taken_apart(
        lambda image: tf.linalg.matmul(logits(image), dense.kernel)[:, 2] + dense.bias[2], images
    )
    expected = [(bias1 * at_conv1).sum(), (bias2 * at_conv2).sum(), 3 * bias[2]]
    np.testing.assert_allclose(of_biases, expected, rtol=1e-4)


def test_other_inputs_count_as_constants(images):
    image, table = keras.Input((SIDE, SIDE, 3)), keras.Input((4,))
    pooled = POOL()(layers.Conv2D(4, 3, activation="relu")(image))
    model = seasoned(keras.Model([image, table], layers.Dense(1)(layers.Concatenate()([pooled, table]))))
    table = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    score, of_image, of_biases = taken_apart(lambda *inputs: model(list(inputs))[:, 0], images, table)
    np.testing.assert_allclose(of_image + sum(of_biases), score, rtol=1e-5)


def test_rounding_errors_of_a_normalization_are_no_term_of_fullgrad():
    """Keras stops the gradient of a mean, where it is 0."""

    def network(dtype):
        with_dtype = {"dtype": dtype}
        inputs = keras.Input((SIDE, SIDE, 3), **with_dtype)
        x = layers.LayerNormalization(**with_dtype)(layers.Conv2D(8, 3, **with_dtype)(inputs))
        x = layers.GlobalAveragePooling2D(**with_dtype)(layers.Activation("relu", **with_dtype)(x))
        return keras.Model(inputs, layers.Dense(3, **with_dtype)(x))

    keras.utils.set_random_seed(0)
    model, exact = network("float32"), network("float64")
    exact.set_weights(model.get_weights())
    images = np.random.default_rng(0).normal(size=(2, SIDE, SIDE, 3))
    found = explain(model, images.astype("float32"), "fullgrad", 1)
    expected = explain(exact, images, "fullgrad", 1)
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.max())


def fullgrad_of(*steps, weights=None, shape=(SIDE, SIDE, 3)):
    model = keras.Sequential([keras.Input(shape), *steps, POOL(), layers.Dense(2)])
    seasoned(model)
    if weights is not None:
        model.set_weights(weights)
    images = np.random.default_rng(1).normal(size=(3, *shape)).astype("float32")
    return model, explain(model, images, "fullgrad", 0)


class Pixelwise(layers.Layer):
    """A dense layer at each place of a map, which is flattened for it and restored."""

    def __init__(self, dense):
        super().__init__()
        self.dense = dense

    def call(self, x):
        flat = ops.reshape(x, (-1, x.shape[-1]))
        return ops.reshape(self.dense(flat), (-1, *x.shape[1:-1], 5))


@SLOW
def test_a_grid_that_was_flattened_and_restored_is_found_again():
    convolution = [layers.Conv2D(4, 3), layers.Conv2D(5, 1), layers.Activation("tanh")]
    model, expected = fullgrad_of(*convolution)
    conv, one, dense = [layer.get_weights() for layer in model.layers if layer.get_weights()]
    weights = [*conv, one[0][0, 0], one[1], *dense]
    _, found = fullgrad_of(layers.Conv2D(4, 3), layers.Dense(5), layers.Activation("tanh"), weights=weights)
    assert_near(found, expected)
    # Here the bias is added to what is flat, and has no place; all the rest is the same.
    with_bias = Pixelwise(layers.Dense(5))
    _, without = fullgrad_of(layers.Conv2D(4, 3), with_bias, layers.Activation("tanh"), weights=weights)
    slopes = expected - without
    assert slopes.max() > 0.1
    assert slopes.min() > -1e-5


@SLOW
def test_biases_of_the_head_and_of_single_places_have_no_place():
    body = [layers.Conv2D(4, 3, activation="relu"), layers.AveragePooling2D(SIDE - 2)]
    one = layers.Conv2D(4, 1, name="one")
    model, expected = fullgrad_of(*body, one)
    weights = model.get_weights()
    weights[3], weights[5] = weights[3] + 7, weights[5] - 9
    _, found = fullgrad_of(
        *[layer.__class__.from_config(layer.get_config()) for layer in (*body, one)], weights=weights
    )
    assert_near(found, expected)
    assert_near(found, map_of_two_terms(model))


def map_of_two_terms(model):
    """The map of a network whose first layer is its only one with a bias on a grid."""
    images = np.random.default_rng(1).normal(size=(3, SIDE, SIDE, 3)).astype("float32")
    conv = model.layers[0]
    linear = tf.nn.conv2d(images, conv.kernel, 1, "VALID") + conv.bias
    with tf.GradientTape() as tape:
        tape.watch(linear)
        x = tf.nn.relu(linear)
        for layer in model.layers[1:]:
            x = layer(x)
        score = x[:, 0]
    slopes = tape.gradient(score, linear)
    by_image = tf.nn.conv2d_transpose(slopes, conv.kernel, images.shape, 1, "VALID")
    return psi(images * by_image.numpy()) + enlarged(psi((conv.bias * slopes).numpy()))


def test_a_convolution_in_groups_has_no_bias(images):
    # Keras puts it into a function of XLA's, where z - J u may be an error of rounding.
    body = [layers.Conv2D(6, 3, groups=3, use_bias=False), layers.ReLU(), POOL(), layers.Dense(2)]
    model = seasoned(keras.Sequential([keras.Input((SIDE, SIDE, 3)), *body]))
    *_, of_biases = taken_apart(lambda image: model(image)[:, 1], images)
    np.testing.assert_allclose(of_biases, [3 * model.layers[-1].bias[1]], rtol=1e-6)


def test_a_recurrent_network_is_refused():
    model = keras.Sequential([keras.Input((16, 2)), layers.Conv1D(4, 3), layers.GRU(4), layers.Dense(2)])
    signals = np.random.default_rng(0).normal(size=(2, 16, 2))
    with pytest.raises(ValueError, match="`method` must not be fullgrad for a model with recurrent layers"):
        explain(model, signals, "fullgrad")


@SLOW
@pytest.mark.parametrize("method", ALL)
@pytest.mark.product(kept=lambda method: method in ["integrated_gradients", "guided_gradcam"])
def test_signals_and_volumes_have_the_map_of_a_picture_of_one_row(method):
    signals, found = np.random.default_rng(0).normal(size=(2, 24, 3)).astype("float32"), []
    for conv, pool, axes in [
        (layers.Conv2D, layers.GlobalAveragePooling2D, 2),
        (layers.Conv1D, layers.GlobalAveragePooling1D, 1),
        (layers.Conv3D, layers.GlobalAveragePooling3D, 3),
    ]:
        row = (1,) * (axes - 1)
        steps = [conv(4, (*row, 3), activation="relu"), conv(4, (*row, 5), strides=2, activation="relu")]
        model = keras.Sequential([keras.Input((*row, 24, 3)), *steps, pool(), layers.Dense(2)])
        seasoned(model)  # The same numbers, whatever their shape.
        found.append(explain(model, signals.reshape(2, *row, 24, 3), method, targets.Classes([0, 1])))
        assert found[-1].shape == (2, 2, *row, 24)
        assert_near(found[-1].ravel(), found[0].ravel())
    assert found[0].any()


# EfficientNet-Lite0, with ReLU6s and batch norms, sees a cat in a corner of grey.


@pytest.fixture(scope="module")
def cat_in_a_corner():
    """The photograph in the upper left quarter of a grey that the network doesn't take as 0."""
    from skimage import data

    canvas = np.full((224, 224, 3), 100, "uint8")
    canvas[:112, :112] = resize_pixels(data.chelsea()[:, 75:375], (112, 112))
    return canvas


EGYPTIAN_CAT = 285


@SLOW
@pytest.mark.parametrize("method", [*ALL, "smoothgrad"])
@pytest.mark.product(kept=lambda method: method == "guided_gradcam")
def test_the_heat_is_on_the_cat(lite0, cat_in_a_corner, method):
    cam = GradCAM(lite0, method=method, preprocess=pretrained.preprocess)
    heatmap = cam(cat_in_a_corner, EGYPTIAN_CAT).heatmap[0].numpy()
    share = heatmap[:112, :112].sum() / heatmap.sum()
    assert share > 0.4  # of the picture the cat has a quarter


@SLOW
def test_input_and_biases_make_the_score_of_a_real_network(lite0, cat_in_a_corner):
    logits = keras.Model(lite0.inputs, lite0.get_layer("predictions").input)
    dense = lite0.get_layer("predictions")
    score, of_image, of_biases = taken_apart(
        lambda images: (logits(images, training=False) @ dense.kernel + dense.bias)[:, EGYPTIAN_CAT],
        pretrained.preprocess(cat_in_a_corner[None]),
    )
    np.testing.assert_allclose(of_image + sum(of_biases), score, rtol=1e-4)

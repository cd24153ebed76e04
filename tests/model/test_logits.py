"""The logits behind the end of a model, by its maps: each against the logit's map in closed form, in float64.

Every model here ends in an average over the places of its last map, a dense layer `z` and an `End`. The map
of a sum of `z` is then the same sum of the maps of `z`: activations times the kernel, divided by the places.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import chain
from keras import layers, ops

from tf_gradcam import GradCAM, targets
from tf_gradcam._graph.probabilities import is_probability
from tf_gradcam._model.forward import LayerCall, forward
from tf_gradcam._model.logits import find_logits

SIDE, UNITS, PLACES = 9, 4, 16


class End(layers.Layer):
    """What a model does with its dense layer's units."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, z):
        return self.function(z)


class Chain(keras.Model):
    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def call(self, images):
        return chain(images, self.steps)


def network(function, kind="functional", units=UNITS, bias=None, **options):
    """A tiny network that ends in `function` of the units of its dense layer."""
    keras.utils.set_random_seed(4)
    steps = [
        layers.Conv2D(6, 3, strides=2, activation="relu", name="conv"),
        layers.GlobalAveragePooling2D(name="pool"),
        layers.Dense(units, name="z"),
        End(function, name="end", **options),
    ]
    images = keras.Input((SIDE, SIDE, 3))
    if kind == "functional":
        model = keras.Model(images, chain(images, steps))
    elif kind == "sequential":
        model = keras.Sequential([images, *steps])
    elif kind == "nested":
        outer = keras.Input((SIDE, SIDE, 3))
        ends = keras.Input((units,))
        parts = [steps[0], steps[1], steps[2], keras.Model(ends, steps[3](ends), name="ends")]
        model = keras.Model(outer, chain(outer, parts))
    else:
        model = Chain(steps)
        model(np.zeros((1, SIDE, SIDE, 3), "float32"))
    random = np.random.default_rng(5)
    for weight in model.weights:
        weight.assign(random.normal(size=weight.shape))
    if bias is not None:
        steps[2].bias.assign(bias)
    return model


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).normal(size=(2, SIDE, SIDE, 3)).astype("float32")


def layer_of(model, name):
    return next(layer for layer in model._flatten_layers() if layer.name == name)


def unit_maps(model, pictures):
    """The map of each unit of the dense layer, `(N, 4, 4, units)`, and the units, in float64."""
    kernel, bias = (np.asarray(one, "float64") for one in layer_of(model, "conv").get_weights())
    windows = np.lib.stride_tricks.sliding_window_view(pictures.astype("float64"), (3, 3), axis=(1, 2))
    windows = windows[:, ::2, ::2].transpose(0, 1, 2, 4, 5, 3)
    activations = np.maximum(np.tensordot(windows, kernel, 3) + bias, 0)
    kernel, bias = (np.asarray(one, "float64") for one in layer_of(model, "z").get_weights())
    return activations @ kernel / PLACES, activations.mean((1, 2)) @ kernel + bias


def assert_maps(model, pictures, given, coefficients, target=None):
    """Assert that the map of class `given[n]` of image n is that of the sum of units `coefficients[n]`."""
    explanation = GradCAM(model, layer_of(model, "conv"))(pictures, given if target is None else target)
    maps, units = unit_maps(model, pictures)
    wanted = np.einsum("nhwu,nu->nhw", maps, np.asarray(coefficients, "float64"))
    np.testing.assert_allclose(explanation.map, wanted, atol=1e-5 * np.abs(wanted).max())
    np.testing.assert_allclose(explanation.score, (units * coefficients).sum(1), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(explanation.target, given)


def in_groups(z):
    """Two softmaxes of two classes each, joined."""
    return ops.concatenate([ops.softmax(z[:, :2]), ops.softmax(z[:, 2:])], axis=-1)


def labels_apart(z):
    return ops.concatenate([ops.sigmoid(one) for one in ops.split(z, UNITS, axis=1)], axis=1)


def in_steps(z):
    shifted = tf.exp(z - tf.reduce_max(z, axis=-1, keepdims=True))
    return shifted / tf.reduce_sum(shifted, axis=-1, keepdims=True)


@tf.function
def in_a_function(z):
    return tf.nn.softmax(z)


@tf.function
def in_two_functions(z):
    return tf.reshape(in_a_function(2 * z / 2), [-1, UNITS])


SAME = {
    "identity": lambda z: tf.identity(ops.softmax(z)),
    "bfloat16": lambda z: ops.cast(ops.softmax(ops.cast(z, "bfloat16")), "float32"),
    "cast": lambda z: ops.cast(ops.softmax(z), "float64"),
    "identities": lambda z: tf.identity_n([z, ops.softmax(z)])[1],
    "identities of a part": lambda z: tf.identity_n([ops.softmax((half := z / 2) + z / 2), half])[0],
    "ensured shape": lambda z: tf.ensure_shape(ops.softmax(z), [None, UNITS]),
    "checked for NaN": lambda z: tf.debugging.check_numerics(ops.softmax(z), "NaN"),
    "expanded and squeezed": lambda z: ops.squeeze(ops.expand_dims(ops.softmax(z), 1), 1),
    "reshaped twice": lambda z: ops.reshape(ops.reshape(ops.softmax(z), (-1, 2, 2)), (-1, UNITS)),
    "transposed twice": lambda z: ops.transpose(ops.transpose(ops.softmax(z))),
    "softmax over another axis": lambda z: ops.softmax(z[:, :, None], axis=1)[:, :, 0],
    "softmax over two axes": lambda z: ops.reshape(
        layers.Softmax(axis=(1, 2))(ops.reshape(z, (-1, 2, 2))), (-1, UNITS)
    ),
    "one time step": lambda z: ops.softmax(ops.stack([z * 0, z], axis=1))[:, -1],
    "unstacked and stacked": lambda z: ops.stack(ops.unstack(ops.softmax(z), UNITS, axis=1), axis=1),
    "split and joined": lambda z: ops.concatenate(ops.split(ops.softmax(z), 2, axis=1), axis=1),
    "sigmoids apart": labels_apart,
    "sigmoids stacked": lambda z: ops.stack([ops.sigmoid(one) for one in ops.unstack(z, UNITS, 1)], axis=1),
    "softmaxes joined": in_groups,
    "clipped": lambda z: ops.clip(ops.softmax(z), 1e-7, 1 - 1e-7),
    "logarithm": lambda z: ops.log(ops.softmax(z)),
    "logarithm of a little more": lambda z: ops.log(ops.softmax(z) + 1e-7),
    "log-sigmoid": ops.log_sigmoid,
    "exponential of a log-softmax": lambda z: ops.exp(ops.log_softmax(z)),
    "recomputed": lambda z: tf.recompute_grad(ops.softmax)(z),
    "recomputed with more": lambda z: tf.recompute_grad(lambda x: ops.softmax(x * 2 + 1))(z / 2 - 0.5),
    "in a function": in_a_function,
    "in two functions": in_two_functions,
    "softmax in steps": in_steps,
    "softmax by logsumexp": lambda z: tf.exp(z - tf.reduce_logsumexp(z, axis=-1, keepdims=True)),
    "exponentials by their sum": lambda z: ops.exp(z) / ops.sum(ops.exp(z), axis=-1, keepdims=True),
}


def logits_and_maps(model, pictures, unit):
    """For each output of `model` the logits, and Grad-CAM of its logit `unit` by a tape, from one trace."""

    @tf.function(autograph=False)
    def read(images):
        with tf.GradientTape(persistent=True) as tape:
            (activations,), outputs = forward(model, images, [LayerCall(layer_of(model, "conv"))], tape.watch)
            logits = find_logits(outputs)
            scores = {name: one[:, unit] for name, one in logits.items()}
        gradients = {name: tape.gradient(score, activations) for name, score in scores.items()}
        return activations, logits, gradients

    activations, logits, gradients = read(pictures)
    means = {name: np.mean(gradient, (1, 2), keepdims=True) for name, gradient in gradients.items()}
    return logits, {name: (mean * activations.numpy()).sum(-1) for name, mean in means.items()}


@pytest.fixture(scope="module")
def behind(pictures):
    """The logits and maps of unit 2 for every end, and what they must be."""
    model = network(lambda z: {name: end(z) for name, end in SAME.items()})
    maps, units = unit_maps(model, pictures)
    return *logits_and_maps(model, pictures, 2), units, maps[..., 2]


@pytest.mark.parametrize("end", SAME)
def test_the_logit_and_its_map_are_those_behind_the_end(end, behind):
    logits, maps, units, wanted = behind
    tolerance = 1e-2 if end == "bfloat16" else 1e-5
    np.testing.assert_allclose(tf.cast(logits[end], tf.float64), units, atol=tolerance * np.abs(units).max())
    np.testing.assert_allclose(maps[end], wanted, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("kind", ["nested", "sequential", "subclassed"])
def test_the_logits_are_found_in_every_kind_of_model(kind, pictures):
    names = ["split and joined", "recomputed with more", "in a function", "clipped"]
    model = network(lambda z: {name: SAME[name](z) for name in names}, kind)
    maps, units = unit_maps(model, pictures)
    logits, found = logits_and_maps(model, pictures, 2)
    for name in names:
        np.testing.assert_allclose(logits[name], units, atol=1e-5 * np.abs(units).max())
        np.testing.assert_allclose(found[name], maps[..., 2], atol=1e-5 * np.abs(maps).max())


SCOPES = {
    "full": {},
    "activations": {},
    "larger_than": {"output_size_threshold": 1},
    "list_of_layers": {"layer_names": ["conv", "z", "end"]},
}


@pytest.mark.skipif(not hasattr(keras, "RematScope"), reason="Keras has RematScope from 3.9 on.")
@pytest.mark.parametrize(
    ("mode", "kind"), [*((mode, "functional") for mode in SCOPES), ("full", "subclassed")]
)
def test_rematerialization_changes_nothing(mode, kind, pictures):
    with keras.RematScope(mode=mode, **SCOPES[mode]):
        keras.utils.set_random_seed(4)
        steps = [
            layers.Conv2D(6, 3, strides=2, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(UNITS, activation="softmax", name="z"),
        ]
        images = keras.Input((SIDE, SIDE, 3))
        model = keras.Model(images, chain(images, steps)) if kind == "functional" else Chain(steps)
        if kind == "subclassed":
            model(np.zeros((1, SIDE, SIDE, 3), "float32"))
    scopes = [layer._remat_mode for layer in steps]
    assert_maps(model, pictures, [1, 3], np.eye(UNITS)[[1, 3]])
    assert [layer._remat_mode for layer in steps] == scopes
    assert None not in scopes


# Units for yes or no


def one_of_two(z):
    return ops.softmax(z)[:, 1:]


def no_and_yes(z):
    yes = ops.sigmoid(z)
    return ops.concatenate([1 - yes, yes], axis=-1)


@pytest.mark.parametrize(
    ("end", "units", "of_side_1"),
    [
        (lambda z: ops.squeeze(ops.expand_dims(ops.sigmoid(z), 1), 1), 1, [1]),
        (lambda z: tf.recompute_grad(ops.sigmoid)(z), 1, [1]),
        (lambda z: ops.sigmoid(z)[:, 1:2], 3, [0, 1, 0]),
        (lambda z: ops.expand_dims(ops.sigmoid(z)[:, 2], -1), 3, [0, 0, 1]),
        (one_of_two, 2, [-1, 1]),
        (lambda z: ops.expand_dims(ops.unstack(ops.softmax(z), axis=1)[0], 1), 2, [1, -1]),
        (no_and_yes, 1, [1]),
    ],
    ids=["moved", "recomputed", "sliced", "expanded", "softmax sliced", "softmax unstacked", "no and yes"],
)
def test_a_unit_for_yes_or_no_keeps_its_sides(end, units, of_side_1, pictures):
    model = network(end, units=units)
    outputs = np.asarray(model(pictures))
    sides = (outputs[:, 0] > 0.5).astype(int) if outputs.shape[1] == 1 else outputs.argmax(1)
    signs = 2 * sides[:, None] - 1
    assert_maps(model, pictures, sides, signs * of_side_1, target=targets.Class())
    assert_maps(model, pictures, 1 - sides, -signs * of_side_1, target=1 - sides)


def test_tasks_of_two_classes_each_of_which_one_is_joined_are_units_each(pictures):
    def tasks(z):
        return ops.concatenate([ops.softmax(z[:, :2])[:, 1:], ops.softmax(z[:, 2:])[:, :1]], axis=1)

    assert_maps(network(tasks), pictures, [0, 1], [[-1, 1, 0, 0], [0, 0, 1, -1]])


def test_tasks_in_functions_of_their_own_are_told_apart(pictures):
    def tasks(z):
        first, second = in_a_function(z[:, :2])[:, 1:], in_a_function(z[:, 2:])
        return ops.concatenate([first, second], axis=1)

    model = network(tasks, bias=[-5, 5, 90, 80])
    layer_of(model, "z").kernel.assign(layer_of(model, "z").kernel * 0.01)
    assert_maps(model, pictures, [0, 2], [[-1, 1, 0, 0], [0, 0, 0, 1]])
    np.testing.assert_array_equal(GradCAM(model, "conv")(pictures).target, np.argmax(model(pictures), 1))


# Parts that are joined


def test_of_joined_softmaxes_the_default_is_what_the_model_is_surest_of(pictures):
    model = network(in_groups, bias=[9, 8.5, -5, -9])  # The first has the larger logits, the second is surer.
    layer_of(model, "z").kernel.assign(layer_of(model, "z").kernel * 0.01)
    predicted = np.asarray(model(pictures)).argmax(1)
    assert (predicted >= 2).all()
    cam = GradCAM(model, "conv")
    np.testing.assert_array_equal(cam(pictures).target, predicted)
    np.testing.assert_array_equal(cam(pictures, targets.TopClasses(2)).target[:, 0], predicted)
    np.testing.assert_array_equal(cam(pictures, targets.Contrast()).target, predicted)
    np.testing.assert_array_equal(cam(pictures, targets.Probability()).target, predicted)


def test_a_part_without_activation_is_explained_as_it_is(pictures):
    def classes_and_box(z):
        return ops.concatenate([ops.softmax(z[:, :2]), z[:, 2:]], axis=-1)

    model = network(classes_and_box, bias=[0, 0, 50, 90])
    assert_maps(model, pictures, [1, 3], np.eye(UNITS)[[1, 3]])
    predicted = np.asarray(model(pictures))[:, :2].argmax(1)  # Numbers of the box are no classes.
    assert_maps(model, pictures, predicted, np.eye(UNITS)[predicted], target=targets.Class())


def test_a_detectors_boxes_are_no_classes(pictures):
    def rows(z):  # (N, 2, 2 + 1), as a detector joins boxes and scores
        z = ops.concatenate([z, z], axis=1)
        return ops.concatenate(
            [ops.reshape(z[:, :4], (-1, 2, 2)), ops.sigmoid(ops.reshape(z[:, 4:6], (-1, 2, 1)))], -1
        )

    model = network(rows, bias=[40, 30, 50, 90])
    assert (np.asarray(model(pictures)).argmax(2) < 2).all()  # The offsets are larger than any probability.
    assert_maps(model, pictures, [2, 2], [[1, 1, 0, 0]] * 2, target=targets.Class())


def test_each_of_several_outputs_has_its_logits(pictures):
    model = network(lambda z: {"animal": in_groups(z), "age": tf.recompute_grad(ops.sigmoid)(z[:, :1])})
    assert_maps(model, pictures, [3, 0], np.eye(UNITS)[[3, 0]], targets.Output("animal", [3, 0]))
    assert_maps(model, pictures, [1, 1], np.eye(UNITS)[[0, 0]], targets.Output("age", 1))


# Where no logit is found


def activations(*names):
    """The activations of these names that this version of Keras has."""
    return {name: getattr(keras.activations, name) for name in names if hasattr(keras.activations, name)}


PROBABILITIES = {
    "mean of two": lambda z: (ops.softmax(z) + ops.softmax(2 * z)) / 2,
    "keras average": lambda z: layers.Average()([ops.sigmoid(z), ops.softmax(z), ops.sigmoid(-z)]),
    "weighted": lambda z: 0.25 * ops.softmax(z) + 0.75 * ops.softmax(2 * z),
    "mean over steps": lambda z: ops.mean(ops.softmax(ops.stack([z, 2 * z], axis=1)), axis=1),
    "best": lambda z: ops.max(ops.softmax(ops.stack([z, 2 * z], axis=1)), axis=1),
    "resized": lambda z: tf.image.resize(ops.softmax(z)[:, None, None], (2, 2))[:, 0, 0],
    "one of two in steps": lambda z: in_steps(z[:, :2])[:, 1:],
    "one of four": lambda z: ops.softmax(z)[:, 1:2],
    "product": lambda z: ops.sigmoid(z) * ops.softmax(z),
    "1 - softmax": lambda z: 1 - ops.softmax(z),
    "hard sigmoid": keras.activations.hard_sigmoid,
    **activations("sparse_sigmoid", "sparsemax"),
    "normalized": lambda z: ops.softplus(z) / ops.sum(ops.softplus(z), axis=-1, keepdims=True),
    "in a branch": lambda z: tf.cond(tf.reduce_sum(z) > 0, lambda: tf.nn.softmax(z), lambda: tf.sigmoid(z)),
}
NUMBERS = {
    "linear": lambda z: z,
    "relu": ops.relu,
    "relu6": ops.relu6,
    "softplus": ops.softplus,
    "tanh": ops.tanh,
    "clip of a regression": lambda z: ops.clip(z, 0, 1),
    "sigmoid to a range": lambda z: 100 * ops.sigmoid(z),
    "gated": lambda z: z * ops.sigmoid(z),
    "normalized": lambda z: z / ops.sum(z, axis=-1, keepdims=True),
    "unit length": lambda z: ops.normalize(z, axis=-1),
    **activations("sparse_plus"),
    "sum of probabilities": lambda z: ops.softmax(z) + ops.sigmoid(z),
    "difference": lambda z: ops.softmax(z) - ops.softmax(2 * z),
    "percent": lambda z: 100 * ops.softmax(z),
}


@pytest.fixture(scope="module")
def traced():
    """Whether each end is its own logits, and whether it is known for a probability, from one trace."""
    found = {}

    @tf.function(autograph=False)
    def trace(z):
        for name, end in [
            *PROBABILITIES.items(),
            *((f"number {name}", end) for name, end in NUMBERS.items()),
        ]:
            output = end(z)
            found[name] = find_logits(output) is output, is_probability(output)
        return z

    trace.get_concrete_function(tf.TensorSpec([None, UNITS]))
    return found


@pytest.mark.parametrize("end", PROBABILITIES)
def test_a_probability_without_one_logit_is_known_for_what_it_is(end, traced):
    assert traced[end] == (True, True)


@pytest.mark.parametrize("end", NUMBERS)
def test_other_numbers_are_not_taken_for_probabilities(end, traced):
    assert traced[f"number {end}"] == (True, False)


def test_it_is_said_once_when_a_probability_is_explained(pictures):
    model = network(PROBABILITIES["mean of two"])
    cam = GradCAM(model, "conv")
    with pytest.warns(UserWarning, match="A probability is explained, not a logit: the output of model"):
        first = cam(pictures, 1)
    second = cam(pictures, 1)  # Warnings are errors here.
    np.testing.assert_array_equal(first.map, second.map)
    meant = cam(pictures, targets.Value(1))  # Here it is asked for.
    np.testing.assert_allclose(meant.map, first.map, atol=1e-7)
    cam(pictures, lambda outputs: outputs[:, 1])
    with pytest.warns(UserWarning, match="A probability is explained"):
        cam(pictures, targets.Against(1))


# Defaults that mislead, as `docs/targets.md` says


def test_the_default_of_ctc_is_the_blank_and_of_an_ordinal_head_its_first_threshold(pictures):
    def ends(z):
        blank = z + tf.constant([0, 0, 0, 50.0])
        steps = ops.stack([z, blank, blank], axis=1)
        return {"letters": ops.softmax(steps), "grade": ops.sigmoid(z[:, :1] + tf.constant([2.0, 0, -2]))}

    cam = GradCAM(network(ends), "conv")
    np.testing.assert_array_equal(cam(pictures, targets.Output("letters")).target, [3, 3])
    np.testing.assert_array_equal(cam(pictures, targets.Output("grade")).target, [0, 0])

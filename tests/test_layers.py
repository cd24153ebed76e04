"""Reaching a layer: the tap, the forward pass, the sub-model, the look-up."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import CLASSES, SIDE, Subclassed, build, chain, parts
from oracle import Oracle

from tf_gradcam import build_submodel, layers, list_layers


def conv2(model):
    return layers.find_layer(model, "conv2")


# The tap


def test_a_tap_sees_and_replaces_what_a_layer_returns(model, images):
    plain = model(images)
    with layers.tap([conv2(model)], lambda layer, output: tf.zeros_like(output)):
        tapped = model(images)
    bias = layers.find_layer(model, "scores").bias
    np.testing.assert_allclose(tapped, tf.nn.softmax(tf.zeros_like(tapped) + bias), atol=1e-6)
    np.testing.assert_array_equal(model(images), plain)


def test_a_tap_leaves_the_layer_as_it_was_also_after_an_error(model):
    before = dict(vars(conv2(model)))
    with layers.tap([conv2(model)], lambda layer, output: output):
        assert "call" in vars(conv2(model))
    assert vars(conv2(model)) == before
    with pytest.raises(ZeroDivisionError), layers.tap([conv2(model)], lambda layer, output: output):
        1 / 0  # noqa: B018
    assert vars(conv2(model)) == before


def test_a_tap_keeps_a_call_that_was_there_before(functional):
    layer = conv2(functional)
    object.__setattr__(layer, "call", own := layer.call)
    with layers.tap([layer], lambda layer, output: output):
        pass
    assert vars(layer)["call"] is own


def test_other_threads_do_not_see_the_tap(functional, images):
    plain, answers = functional(images), []
    with layers.tap([conv2(functional)], lambda layer, output: output * 0):
        thread = threading.Thread(target=lambda: answers.append(functional(images)))
        thread.start()
        thread.join()
    np.testing.assert_array_equal(answers[0], plain)


# The forward pass


@pytest.mark.parametrize("layer", ["conv1", "conv2", "relu2"])
def test_forward_reads_activations_and_logits(model, images, layer):
    oracle = Oracle(model.get_weights(), images)

    @tf.function
    def read(x):
        activations, outputs = layers.forward(model, layers.find_layer(model, layer), x)
        return activations, outputs, layers.find_logits(outputs)

    activations, outputs, logits = read(images)
    np.testing.assert_allclose(activations, oracle.activations[layer], atol=1e-5)
    np.testing.assert_allclose(logits, oracle.logits, atol=1e-5)
    np.testing.assert_allclose(outputs, model(images), atol=1e-6)


def head(*after, activation=None):
    """A model that ends in 3 units and then `after`, and the sub-model that gives its logits."""
    keras.utils.set_random_seed(0)
    images = keras.Input((SIDE, SIDE, 3))
    x = chain(images, [*parts()[:-1], keras.layers.Dense(3, activation=activation, name="units"), *after])
    return keras.Model(images, x)


@pytest.mark.parametrize(
    "end",
    [
        [keras.layers.Softmax()],
        [keras.layers.Activation("softmax", dtype="float32")],
        [keras.layers.Activation("sigmoid")],
        [keras.layers.Activation("log_softmax")],
        [keras.layers.Softmax(), keras.layers.Identity()],
        [keras.layers.Softmax(), keras.layers.Reshape((3, 1)), keras.layers.Reshape((3,))],
        [keras.layers.Reshape((3, 1)), keras.layers.Softmax(axis=1), keras.layers.Reshape((3,))],
        [keras.layers.Reshape((1, 3)), keras.layers.Softmax(), keras.layers.Flatten()],
        [keras.layers.Softmax(), keras.layers.Activation("linear", dtype="float64")],
        [keras.layers.Lambda(lambda x: tf.nn.softmax(x))],
    ],
    ids=str,
)
def test_logits_are_found_behind_softmax_and_sigmoid(end, images):
    model = head(*end)
    units = keras.Model(model.inputs[0], model.get_layer("units").output)(images)
    _, logits = build_submodel(model, "conv2").predict(images, verbose=0)
    np.testing.assert_allclose(logits, units, atol=1e-6)


@pytest.mark.parametrize("activation", [None, "relu", "tanh"])
def test_other_outputs_are_their_own_logits(activation, images):
    model = head(activation=activation)
    _, logits = build_submodel(model, "conv2")(images)
    np.testing.assert_allclose(logits, model(images), atol=1e-6)


# The sub-model


def test_the_textbook_recipe_works_on_the_submodel(model, images):
    submodel = build_submodel(model, "conv2")
    with tf.GradientTape() as tape:
        activations, logits = submodel(images)
        score = tf.reduce_max(logits, axis=-1)
    gradients = tape.gradient(score, activations)
    oracle = Oracle(model.get_weights(), images)
    np.testing.assert_allclose(activations, oracle.activations["conv2"], atol=1e-5)
    np.testing.assert_allclose(gradients, oracle.gradients["conv2"], atol=1e-6)


def test_the_submodel_is_functional_and_shares_its_weights(model, images):
    submodel = build_submodel(model, "conv2")
    assert isinstance(submodel, keras.src.models.Functional)
    assert [output.shape for output in submodel.outputs] == [(None, 8, 8, 6), (None, CLASSES)]
    model.set_weights([2 * weight for weight in model.get_weights()])
    oracle = Oracle(model.get_weights(), images)
    np.testing.assert_allclose(submodel(images)[1], oracle.logits, rtol=1e-4, atol=1e-4)


def test_layers_of_one_name_side_by_side_are_told_apart(images):
    model = Subclassed()
    model(images)
    model.conv1.name = model.conv2.name = "conv"
    for layer, channels in [(model.conv1, 8), (model.conv2, 6)]:
        assert build_submodel(model, layer)(images)[0].shape == (3, 8, 8, channels)


def test_the_submodel_can_be_saved_and_loaded(functional, images, tmp_path):
    submodel = build_submodel(functional, "conv2")
    submodel.save(tmp_path / "submodel.keras")
    loaded = keras.models.load_model(tmp_path / "submodel.keras")
    for answer, expected in zip(loaded(images), submodel(images), strict=True):
        np.testing.assert_allclose(answer, expected, atol=1e-6)


def test_logits_that_only_a_graph_shows_are_refused_outside_of_one(images):
    submodel = build_submodel(head(keras.layers.Lambda(lambda x: tf.nn.softmax(x))), "conv2")
    with pytest.raises(ValueError, match="Call the sub-model inside a tf.function"):
        submodel(images)


def test_a_submodel_needs_a_built_model():
    model = keras.Sequential(parts())
    with pytest.raises(ValueError, match="`model` must be built.*Call it once on an image"):
        build_submodel(model, "conv2")


# The look-up


def test_layers_with_a_map_are_listed_in_order_of_execution(model):
    assert [info.path.split("/")[-1] for info in list_layers(model)] == ["conv1", "conv2", "relu2"]
    assert [info.shape for info in list_layers(model)] == [(8, 8, 8), (8, 8, 6), (8, 8, 6)]
    assert all(info.layer is layers.find_layer(model, info.path) for info in list_layers(model))


def test_nested_layers_are_listed_with_their_path():
    assert [info.path for info in list_layers(build("nested"))] == [
        "inner/conv1",
        "inner/conv2",
        "inner/relu2",
    ]


def test_a_model_in_a_subclassed_model_is_listed_in_order_of_execution(images):
    class Backwards(keras.Model):
        """Made last to first, so that neither its attributes nor its weights are in order of execution."""

        def __init__(self):
            super().__init__()
            self.scores = keras.layers.Dense(3)
            self.last = keras.layers.Conv2D(4, 3, name="last")
            self.base = keras.Sequential(
                [keras.Input((SIDE, SIDE, 3)), keras.layers.Conv2D(4, 3, name="first")]
            )

        def call(self, images):
            return self.scores(tf.reduce_mean(self.last(self.base(images)), axis=(1, 2)))

    model = Backwards()
    model(images)
    assert [info.layer.name for info in list_layers(model)] == ["first", "last"]
    assert layers.default_layer(model) is model.last


def test_a_layer_that_refers_to_what_holds_it_is_walked_once():
    model = Subclassed()
    model.conv2.holder = model
    assert [path for path, _ in layers.walk(model)] == ["conv1", "conv2", "relu2", "pool", "scores"]


class Reused(keras.Model):
    """The usual style: one ReLU for all."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.relu, self.pool, self.scores = parts()

    def call(self, images):
        return self.scores(self.pool(self.relu(self.conv2(self.relu(self.conv1(images))))))


@pytest.mark.parametrize("kind", ["functional", "subclassed"])
def test_a_layer_that_runs_twice_is_neither_listed_nor_the_default(images, kind):
    model = Reused()
    model(images)
    if kind == "functional":
        inputs = keras.Input((SIDE, SIDE, 3))
        model = keras.Model(inputs, model.call(inputs))
    assert [info.layer.name for info in list_layers(model)] == ["conv1", "conv2"]
    assert layers.default_layer(model).name == "conv2"


def test_an_inner_model_on_another_size_is_listed_with_the_maps_it_has_there(images):
    inputs = keras.Input((None, None, 3))
    inner = keras.Model(inputs, chain(inputs, [*parts()[:3], keras.layers.Conv2D(4, 8, name="one_place")]))
    outer = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(outer, chain(inner(outer), parts()[3:]))
    assert [info.shape for info in list_layers(model)] == [(8, 8, 8), (8, 8, 6), (8, 8, 6)]
    assert layers.default_layer(model).name == "relu2"


def test_layers_of_another_model_are_listed_with_the_maps_they_have_here():
    build("functional")
    old = [layer for layer in build("functional").layers if not isinstance(layer, keras.layers.InputLayer)]
    inputs = keras.Input((33, 33, 3))
    model = keras.Model(inputs, chain(inputs, old))
    assert [info.shape for info in list_layers(model)] == [(16, 16, 8), (16, 16, 6), (16, 16, 6)]


def test_only_models_have_layers_to_list():
    with pytest.raises(TypeError, match="`model` must be a keras.Model"):
        list_layers("model")


def test_the_default_layer_is_the_last_with_a_map(model):
    assert layers.default_layer(model).name == "relu2"


@pytest.mark.parametrize(
    "after",
    [
        [keras.layers.GlobalAveragePooling2D(keepdims=True), keras.layers.Flatten()],
        [keras.layers.AveragePooling2D(8), keras.layers.Conv2D(4, 1), keras.layers.Flatten()],
        [keras.layers.MaxPooling2D(), keras.layers.Flatten()],
        [keras.layers.MaxPooling2D(), keras.layers.Dropout(0.1), keras.layers.Flatten()],
        [keras.layers.SpatialDropout2D(0.1), keras.layers.Flatten()],
        [keras.layers.AveragePooling2D(2), keras.layers.Flatten()],
    ],
)
def test_the_default_layer_is_never_a_pooling_nor_a_dropout_nor_a_single_place(after):
    images = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(images, chain(images, [*parts()[:3], *after, keras.layers.Dense(2)]))
    assert layers.default_layer(model).name == "relu2"


def test_a_model_without_a_map_has_no_default_layer():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="`model` must have a layer with a map"):
        layers.default_layer(model)


def twins():
    """Two nested models whose convolutions have one name."""
    images = keras.Input((SIDE, SIDE, 3))
    sides = [keras.Sequential([keras.Input((SIDE, SIDE, 3)), *parts()[:3]], name=name) for name in ("a", "b")]
    x = keras.layers.Add()([side(images) for side in sides])
    return keras.Model(images, chain(x, parts()[3:]))


def test_a_path_tells_two_layers_of_one_name_apart():
    model = twins()
    assert layers.find_layer(model, "a/conv2") is model.get_layer("a").get_layer("conv2")
    assert layers.find_layer(model, "b/conv2") is model.get_layer("b").get_layer("conv2")
    with pytest.raises(ValueError, match=r"must name one layer.*\['a/conv2', 'b/conv2'\]"):
        layers.find_layer(model, "conv2")


def test_the_end_of_a_path_is_enough_deep_down():
    images = keras.Input((SIDE, SIDE, 3))
    inner = keras.Model(images, chain(images, parts()[:3]), name="inner")
    middle_in = keras.Input((SIDE, SIDE, 3))
    middle = keras.Model(middle_in, inner(middle_in), name="middle")
    outer_in = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(outer_in, chain(middle(outer_in), parts()[3:]))
    for name in ["conv2", "inner/conv2", "middle/inner/conv2"]:
        assert layers.find_layer(model, name) is inner.get_layer("conv2")


@pytest.mark.parametrize("name", ["conv_2", "CONV2", "con2"])
def test_a_wrong_name_is_answered_with_the_nearest(model, name):
    with pytest.raises(ValueError, match=rf"Received: layer='{name}'. Did you mean '(inner/)?conv2'"):
        layers.find_layer(model, name)


def test_a_layer_of_another_model_is_refused(model):
    with pytest.raises(ValueError, match="not part of model"):
        layers.find_layer(model, keras.layers.Conv2D(3, 3, name="conv2"))


@pytest.mark.parametrize("layer", [3, b"conv2", ["conv2"]])
def test_what_names_no_layer_is_refused(model, layer):
    with pytest.raises(TypeError, match="`layer` must be a name, a keras.Layer or None"):
        layers.resolve_layer(model, layer)

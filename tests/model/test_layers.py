"""Which layers can be explained: the list, and the look-up."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIDE, Reused, Subclassed, build, chain, parts, reused

from tf_gradcam import list_layers
from tf_gradcam._model.layers import are_channels_first, find_layer, walk_layers

# The look-up


def test_layers_with_a_map_are_listed_in_order_of_execution(model):
    assert [info.path.split("/")[-1] for info in list_layers(model)] == ["conv1", "conv2", "relu2"]
    assert [info.shape for info in list_layers(model)] == [(8, 8, 8), (8, 8, 6), (8, 8, 6)]
    assert all(info.layer is find_layer(model, info.path) for info in list_layers(model))


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


def test_a_layer_that_refers_to_what_holds_it_is_walked_once():
    model = Subclassed()
    model.conv2.holder = model
    assert [path for path, _ in walk_layers(model)] == ["conv1", "conv2", "relu2", "pool", "scores"]


@pytest.mark.parametrize("kind", ["functional", "subclassed"])
def test_a_layer_that_runs_twice_is_listed_once_with_its_runs(images, kind):
    listed = list_layers(reused(kind, images))
    assert [(info.layer.name, info.calls) for info in listed] == [("conv1", 1), ("conv2", 1), ("relu2", 2)]


def test_an_inner_model_on_another_size_is_listed_with_the_maps_it_has_there(images):
    inputs = keras.Input((None, None, 3))
    inner = keras.Model(inputs, chain(inputs, [*parts()[:3], keras.layers.Conv2D(4, 8, name="one_place")]))
    outer = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(outer, chain(inner(outer), parts()[3:]))
    assert [info.shape for info in list_layers(model)] == [(8, 8, 8), (8, 8, 6), (8, 8, 6)]


def test_layers_of_another_model_are_listed_with_the_maps_they_have_here():
    build("functional")
    old = [layer for layer in build("functional").layers if not isinstance(layer, keras.layers.InputLayer)]
    inputs = keras.Input((33, 33, 3))
    model = keras.Model(inputs, chain(inputs, old))
    assert [info.shape for info in list_layers(model)] == [(16, 16, 8), (16, 16, 6), (16, 16, 6)]


def test_only_models_have_layers_to_list():
    with pytest.raises(TypeError, match="`model` must be a keras.Model"):
        list_layers("model")


def twins():
    """Two nested models whose convolutions have one name."""
    images = keras.Input((SIDE, SIDE, 3))
    sides = [keras.Sequential([keras.Input((SIDE, SIDE, 3)), *parts()[:3]], name=name) for name in ("a", "b")]
    x = keras.layers.Add()([side(images) for side in sides])
    return keras.Model(images, chain(x, parts()[3:]))


def test_a_path_tells_two_layers_of_one_name_apart():
    model = twins()
    assert find_layer(model, "a/conv2") is model.get_layer("a").get_layer("conv2")
    assert find_layer(model, "b/conv2") is model.get_layer("b").get_layer("conv2")
    with pytest.raises(ValueError, match=r"must name one layer.*\['a/conv2', 'b/conv2'\]"):
        find_layer(model, "conv2")


def test_the_end_of_a_path_is_enough_deep_down():
    images = keras.Input((SIDE, SIDE, 3))
    inner = keras.Model(images, chain(images, parts()[:3]), name="inner")
    middle_in = keras.Input((SIDE, SIDE, 3))
    middle = keras.Model(middle_in, inner(middle_in), name="middle")
    outer_in = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(outer_in, chain(middle(outer_in), parts()[3:]))
    for name in ["conv2", "inner/conv2", "middle/inner/conv2"]:
        assert find_layer(model, name) is inner.get_layer("conv2")


@pytest.mark.parametrize("name", ["conv_2", "CONV2", "con2"])
def test_a_wrong_name_is_answered_with_the_nearest(model, name):
    with pytest.raises(ValueError, match=rf"Received: layer='{name}'. Did you mean '(inner/)?conv2'"):
        find_layer(model, name)


def test_a_layer_of_another_model_is_refused(model):
    with pytest.raises(ValueError, match="not part of model"):
        find_layer(model, keras.layers.Conv2D(3, 3, name="conv2"))


def test_steps_of_a_graph_that_are_no_layers_are_listed_and_found(images):
    x = keras.Input((SIDE, SIDE, 3))
    features = keras.layers.Conv2D(3, 3, padding="same", name="conv")(x)
    pooled = keras.layers.GlobalAveragePooling2D()(keras.ops.relu(features + x))
    model = keras.Model(x, keras.layers.Dense(2)(pooled))
    listed = list_layers(model)
    assert [type(info.layer).__name__ for info in listed] == ["Conv2D", "Add", "Relu"]
    assert all(find_layer(model, info.path) is info.layer for info in listed)


def test_a_model_with_a_fixed_batch_is_listed():
    x = keras.Input((SIDE, SIDE, 3), batch_size=2)
    assert [info.path for info in list_layers(keras.Model(x, chain(x, parts())))] == [
        "conv1",
        "conv2",
        "relu2",
    ]


class TwoArguments(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv = keras.layers.Conv2D(4, 3, name="conv")

    def call(self, image, table):
        return tf.reduce_mean(self.conv(image), (1, 2)) + table


def test_a_model_of_several_arguments_is_listed_by_what_it_takes(images):
    model, table = TwoArguments(), np.zeros((3, 4), "float32")
    model(images, table)
    with pytest.raises(
        ValueError, match="`model` must have known input shapes.*Give list_layers its `images`"
    ):
        list_layers(model)
    for given in ((images, table), [images, table], {"image": images, "table": table}):
        assert [info.shape for info in list_layers(model, given)] == [(15, 15, 4)]


def test_the_layers_of_a_tf_keras_model_are_refused_with_what_to_do():
    theirs = type("Model", (), {"__module__": "tf_keras.src.engine.training"})
    old = type("MyModel", (theirs,), {})()
    with pytest.raises(TypeError, match="Rebuild this Keras 2 model in Keras 3 and transfer its weights"):
        list_layers(old)


def test_channels_are_first_where_a_layer_says_so_or_its_neighbour_does():
    x = keras.Input((3, 8, 8))
    steps = [
        keras.layers.Rescaling(2.0),
        keras.layers.Conv2D(4, 3, data_format="channels_first"),
        keras.layers.ReLU(),
        keras.layers.Permute((2, 3, 1)),
        keras.layers.Conv2D(4, 3, data_format="channels_last"),
        keras.layers.ReLU(),
    ]
    model = keras.Model(x, chain(x, steps))
    assert are_channels_first(model, steps) == [True, True, True, False, False, False]


def test_a_sum_among_channels_first_layers_has_channels_first_too():
    x = keras.Input((4, 12, 10))
    conv = keras.layers.Conv2D(4, 3, padding="same", data_format="channels_first")
    back = [keras.layers.Permute((2, 3, 1)), keras.layers.Conv2D(2, 3, data_format="channels_last")]
    pooled = keras.layers.GlobalAveragePooling2D(data_format="channels_last")(chain(x + conv(x), back))
    shapes = {type(info.layer).__name__: info.shape for info in list_layers(keras.Model(x, pooled))}
    assert shapes["Add"] == shapes["Permute"] == (12, 10, 4)


def test_an_output_of_an_inner_model_that_is_not_used_is_not_listed():
    x = keras.Input((SIDE, SIDE, 3))
    features = chain(x, parts()[:3])
    inner = keras.Model(x, [features, keras.layers.Conv2D(4, 3, name="aside")(features)])
    outer = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(outer, chain(inner(outer)[0], parts()[3:]))
    assert [info.layer.name for info in list_layers(model)] == ["conv1", "conv2", "relu2"]


def test_listing_builds_nothing(images):
    for model in (Subclassed(), keras.Sequential(parts())):
        with pytest.raises(ValueError, match="`model` must be built.*Call it once"):
            list_layers(model, images)
        assert not model.built


def test_a_layer_that_gives_a_map_and_later_a_vector_is_listed_with_its_map(images):
    class Shared(Reused):
        def call(self, images):
            return self.relu(self.scores(self.pool(self.relu(self.conv2(self.conv1(images))))))

    model = Shared()
    model(images)
    assert [(info.layer.name, info.shape, info.calls) for info in list_layers(model)][-1] == (
        "relu2",
        (8, 8, 6),
        2,
    )

"""Models from files of other people and other times: they load, they predict, and they are explained."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from old_files import FILES
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tf_gradcam import GradCAM, list_layers, make_gradcam_heatmap


@pytest.fixture(scope="module", params=FILES)
def kind(request, tmp_path_factory):
    """The model from its file, with what is known of the original."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras's own, about arguments that were right in their time
        return FILES[request.param](tmp_path_factory.mktemp("files"))


def test_the_model_from_the_file_predicts_what_the_original_did(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Old models expect [images], and Keras warns at images.
        zoo.assert_near(zoo.answer(kind), tf.nn.softmax(zoo.logits(kind)), 1e-5)


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
@pytest.mark.product(kept=lambda kind, method: method == "gradcam" or kind in list(FILES)[:2])
def test_the_model_from_the_file_is_explained(kind, method):
    expected = zoo.expected_maps(kind, zoo.logits(kind).argmax(-1))[method]
    explanation = GradCAM(kind.model, kind.layer, method=method)(kind.inputs)
    zoo.assert_near(explanation.map, expected, 1e-5)
    zoo.assert_near(explanation.score, zoo.logits(kind).max(-1), 1e-5)


def test_the_layer_is_found_by_default(kind):
    listed = {info.path: info.layer for info in list_layers(kind.model)}
    assert GradCAM(kind.model).layer is listed[kind.default]
    expected = zoo.expected_maps(kind, zoo.logits(kind).argmax(-1))["gradcam"]
    zoo.assert_near(
        make_gradcam_heatmap(kind.model, kind.inputs), zoo.expected_heatmap(expected, kind.size), 2e-5
    )


def test_layers_that_older_files_connect_several_times_are_explained(tmp_path):
    """The textbook's recipe reads such a layer where it was connected first, which is not in the model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind = FILES["Sequential, .h5 of Keras 2.8"](tmp_path)
    layer = kind.model.get_layer("conv1")
    assert len(layer._inbound_nodes) > 1
    textbook = keras.Model(kind.model.inputs, [layer.output, kind.model.outputs[0]])
    with tf.GradientTape() as tape:
        activations, outputs = textbook([kind.inputs])
    assert tape.gradient(outputs[:, 0], activations) is None
    assert np.any(GradCAM(kind.model, "conv1")(kind.inputs).map)


# A filter gradient, in which the CPU build of TensorFlow 2.21 can end the process, is computed for nobody


def residual():
    """A convolution, then a block as in a ResNet, with a convolution on either path."""
    start = keras.Input((16, 16, 3))
    early = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="early")(start)
    shortcut = keras.layers.Conv2D(8, 3, padding="same", name="shortcut")(early)
    main = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="main")(early)
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Add(name="sum")([main, shortcut]))
    return zoo.season(keras.Model(start, zoo.scores()(pooled)))


def operations_that_run(function):
    """The types of the operations that are left when TensorFlow has pruned the graph of `function`."""
    images = tf.TensorSpec((1, 16, 16, 3))
    pruned = convert_variables_to_constants_v2(tf.function(function).get_concrete_function(images))
    return {node.op for node in pruned.graph.as_graph_def().node}


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "guided_gradcam", "gradient"])
def test_no_filter_gradient_is_ever_run(method):
    cam = GradCAM(residual(), None if method == "gradient" else "early", method=method)
    run = operations_that_run(lambda images: cam(images)[:2])
    assert "Conv2DBackpropInput" in run
    assert "Conv2DBackpropFilter" not in run


def test_a_filter_gradient_that_is_run_would_be_seen():
    model = residual()

    def train(images):
        with tf.GradientTape() as tape:
            score = model(images)[:, 0]
        return tape.gradient(score, model.get_layer("shortcut").kernel.value)

    assert "Conv2DBackpropFilter" in operations_that_run(train)

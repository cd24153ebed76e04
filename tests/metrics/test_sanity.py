"""Sanity checks: controls that must pass and fail, new weights by initializers, refusals."""

import json

import keras
import numpy as np
import pytest
import shapes
import tensorflow as tf
from conftest import count_runs

from tf_gradcam import GradCAM, methods, metrics, targets
from tf_gradcam.metrics._randomized import random_weights


@pytest.fixture(scope="module")
def images():
    return shapes.draw(16, 5)[0]


@pytest.fixture(scope="module")
def model():
    return shapes.trained()


@pytest.fixture(scope="module")
def cam(model):
    return GradCAM(model)


@pytest.fixture(scope="module")
def cascade(cam, images):
    return metrics.sanity(cam, images)


class EdgeDetector:
    """The control of Adebayo et al.: it draws the image, whatever the model."""

    at_image = True

    def explain(self, scene):
        gray = tf.reduce_mean(scene.image, axis=-1, keepdims=True)
        return tf.reduce_sum(tf.abs(tf.image.sobel_edges(gray)), axis=[-2, -1])


def test_gradcam_passes(cascade, images):
    assert cascade.passed
    assert "passed" in repr(cascade)
    assert [stage.randomized for stage in cascade.stages] == [
        *("nothing", "scores", "conv3", "conv2", "everything")
    ]
    assert cascade.similarity.shape == (5,)
    assert cascade.similarity[0] == 1
    assert np.abs(cascade.similarity[1:]).max() < 0.5
    assert cascade.values.shape == (len(images), 5)
    np.testing.assert_allclose(cascade.similarity, np.nanmean(cascade.values, axis=0))


def test_guided_backpropagation_fails_because_it_outlives_the_head(model, images, cascade):
    result = metrics.sanity(GradCAM(model, method="guided_backprop"), images)
    assert not result.passed
    assert result.similarity[1] > max(0.65, cascade.similarity[1] + 0.4)  # The head is random.
    assert "failed" in repr(result)


def test_an_edge_detector_stays_at_1_and_fails(model, images):
    result = metrics.sanity(GradCAM(model, method=EdgeDetector()), images, stages=3)
    np.testing.assert_allclose(result.similarity, 1, atol=1e-6)
    assert [len(result.stages), result.passed] == [4, False]
    rises = metrics.complexity_rise(GradCAM(model, method=EdgeDetector()), images)
    np.testing.assert_allclose(rises, 0, atol=1e-9)


def test_a_map_without_class_does_not_notice_a_random_head(model, images):
    result = metrics.sanity(GradCAM(model, method="eigencam"), images, 2, stages=2)
    np.testing.assert_allclose(result.similarity[:2], 1, atol=1e-6)
    assert not result.passed


def test_the_head_alone_and_each_layer_alone(cam, images, cascade):
    alone = metrics.sanity(cam, images, order="independent")
    names = ["nothing", "scores", "conv3", "conv2", "conv1"]
    assert [stage.randomized for stage in alone.stages] == names
    np.testing.assert_allclose(alone.values[:, 1], cascade.values[:, 1])  # The same first stage.
    assert np.abs(alone.values[:, 3] - cascade.values[:, 3]).max() > 0.01


def test_the_model_is_not_touched_and_all_stages_share_a_trace(model, images):
    before = model.get_weights()
    cam = GradCAM(model)
    runs = count_runs(model, "conv3")
    metrics.sanity(cam, images, stages=2, batch_size=5)
    traced = len(runs)
    metrics.sanity(cam, images, seed=4, batch_size=5)
    assert len(runs) == traced  # Other weights, and more stages, need no trace.
    object.__delattr__(model.get_layer("conv3"), "call")
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_a_batch_and_a_seed_repeat_themselves(cam, images, cascade):
    np.testing.assert_allclose(metrics.sanity(cam, images, batch_size=3).values, cascade.values, atol=1e-5)
    assert np.abs(metrics.sanity(cam, images, seed=1).values - cascade.values)[:, 1:].max() > 0.01


def test_smooth_maps_are_means_over_noise(cam, images):
    smooth = metrics.sanity(cam, images, stages=1, samples=3, noise=0.2)
    assert smooth.similarity[0] == 1
    assert [stage.randomized for stage in smooth.stages] == ["nothing", "everything"]
    without = metrics.sanity(cam, images, stages=1, samples=3, noise=0)
    plain = metrics.sanity(cam, images, stages=1)
    np.testing.assert_allclose(without.values, plain.values, atol=1e-5)
    assert np.abs(smooth.values - plain.values)[:, 1].max() > 0.01


def test_the_complexity_rise_is_that_of_histograms(cam, images):
    def entropy(maps):
        counts = [np.histogram(one, 20)[0] / one.size for one in np.asarray(maps, float)]
        return np.array([-(p[p > 0] * np.log(p[p > 0])).sum() for p in counts])

    weights, _ = random_weights(cam.model, images, 3)
    first = cam(images)
    trained = entropy(first.map)
    random = entropy(cam.with_weights(weights.random)(images, first.target.numpy()).map)
    rises = metrics.complexity_rise(cam, images, bins=20, seed=3)
    np.testing.assert_allclose(rises, (random - trained) / trained)


def test_new_weights_come_from_the_initializers_of_the_layers(model, images):
    weights, groups = random_weights(model, images, 0)
    assert [group.name for group in groups] == ["scores", "conv3", "conv2", "conv1"]
    assert sorted(each for group in groups for each in group.positions) == list(range(len(model.weights)))
    assert weights.without_initializer == ()
    for variable, drawn in zip(model.weights, weights.random, strict=True):
        path, value = variable.path, drawn.numpy()
        if path.endswith("kernel"):
            fans = np.prod(value.shape[:-1]) + np.prod((*value.shape[:-2], value.shape[-1]))
            limit = np.sqrt(6 / fans)  # Glorot and Bengio: uniform
            assert np.abs(value).max() <= limit
            assert value.std() == pytest.approx(limit / np.sqrt(3), rel=0.2)
        else:
            assert (value == ("gamma" in path or "variance" in path)).all(), path
    untrained = keras.models.clone_model(model)  # Its initializers hold the seeds that it was drawn with.
    redrawn, _ = random_weights(untrained, images, 0)
    assert np.abs(redrawn.random[0].numpy() - untrained.get_weights()[0]).max() > 0.01


class Scaled(keras.layers.Layer):
    """A layer that makes its weights without an initializer of that name."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1], 3), name="factor", initializer="ones")

    def call(self, inputs):
        return tf.matmul(inputs, self.factor)


def test_a_weight_without_an_initializer_keeps_its_mean_and_deviation(images):
    inputs = keras.Input((32, 32, 1))
    x = keras.layers.Normalization(axis=None, mean=0.1, variance=4.0)(inputs)
    x = keras.layers.Conv2D(40, 3, activation="relu", kernel_initializer="ones")(x)
    model = keras.Model(inputs, Scaled()(keras.layers.GlobalAveragePooling2D()(x)))
    values = np.random.default_rng(0).normal(3, 2, (40, 3)).astype("float32")
    model.layers[-1].factor.assign(values)
    weights, _ = random_weights(model, images, 0)
    factor = weights.random[-1].numpy()
    assert factor.mean() == pytest.approx(3, abs=0.6)
    assert factor.std() == pytest.approx(2, abs=0.4)
    assert np.abs(factor - values).max() > 1
    assert len(weights.without_initializer) == 2  # A constant kernel is none to draw from.
    assert "2 of 3 weights have no initializer" in repr(metrics.sanity(GradCAM(model), images, stages=1))


class Hidden(keras.layers.Layer):
    """A layer with a plain variable, which Keras does not list."""

    def __init__(self):
        super().__init__()
        random = np.random.default_rng(0).normal(size=(3, 3, 1, 3)).astype("float32")
        kernel = tf.Variable(random)
        self.held = lambda: kernel  # Keras would list what is an attribute itself.

    def call(self, inputs):
        return tf.nn.relu(tf.nn.conv2d(inputs, self.held(), 1, "SAME"))


def test_weights_that_cannot_be_replaced_are_noticed(images):
    inputs = keras.Input((32, 32, 1))
    pooled = keras.layers.GlobalAveragePooling2D()(Hidden()(inputs))
    without = keras.Model(inputs, pooled)
    with pytest.raises(ValueError, match="a model without any"):
        metrics.sanity(GradCAM(without), images)
    x = keras.layers.BatchNormalization()(Hidden()(inputs))  # New weights are what it has.
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    with pytest.raises(ValueError, match=r"the same scores with all of them random. Weights that are plain"):
        metrics.sanity(GradCAM(model), images)


def test_tables_can_be_written_as_json_and_html(cascade):
    written = json.loads(json.dumps(cascade.to_dict(), allow_nan=False))
    assert written["passed"] is True
    assert [stage["spearman"] for stage in written["stages"]] == list(cascade.similarity)
    assert cascade._repr_html_().count("<tr>") == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": "random"}, '`order` must be one of "cascade", "independent"'),
        ({"measure": "hog"}, '`measure` must be one of "spearman", "pearson", "ssim"'),
        ({"stages": 0}, "`stages` must be"),
        ({"samples": 0}, "`samples` must be"),
        ({"target": targets.TopClasses(2)}, "`target` must leave nothing to the model"),
    ],
)
def test_wrong_arguments_are_refused(cam, images, arguments, message):
    with pytest.raises(ValueError, match=message):
        metrics.sanity(cam, images, **arguments)


def test_a_frozen_explainer_is_refused(cam, images):
    with pytest.raises(ValueError, match="an explainer that is not frozen"):
        metrics.sanity(cam.freeze(), images)


def test_other_classes_have_other_maps_except_for_a_method_without_class(cam, model, images):
    given = metrics.other_class_similarity(cam, images, 0, other=1)
    maps = [cam(images, index).map.numpy() for index in (0, 1)]
    np.testing.assert_allclose(given, metrics.spearman(*maps), atol=1e-9)
    np.testing.assert_allclose(metrics.other_class_similarity(cam, images, 0, other=0), 1)
    drawn = metrics.other_class_similarity(cam, images)
    np.testing.assert_allclose(drawn, metrics.other_class_similarity(cam, images, batch_size=3), atol=1e-5)
    assert (drawn < 0.9).all()
    np.testing.assert_allclose(metrics.other_class_similarity(GradCAM(model, method="eigencam"), images), 1)
    with pytest.raises(ValueError, match="`target` must be None or a class"):
        metrics.other_class_similarity(cam, images, targets.Contrast(0, 1))


def test_the_same_weights_repeat_their_maps_and_others_less(cam, images):
    same = metrics.repeatability([cam, cam.with_weights(cam.model.get_weights())], images)
    np.testing.assert_allclose(same, 1, atol=1e-5)
    weights, _ = random_weights(cam.model, images, 0)
    random = cam.with_weights(weights.random)
    assert metrics.repeatability([cam, random], images).mean() < 0.5
    three = metrics.repeatability([cam, cam, random], images)
    pair = metrics.repeatability([cam, random], images)
    np.testing.assert_allclose(three, (1 + 2 * pair) / 3, atol=1e-9)
    assert (metrics.repeatability([cam, random], images, measure="ssim") < 1).all()
    finer = GradCAM(cam.model, "relu2", method=methods.layercam)  # on another grid
    assert np.isfinite(metrics.repeatability([cam, finer], images)).all()
    with pytest.raises(ValueError, match="two explainers or more"):
        metrics.repeatability([cam], images)

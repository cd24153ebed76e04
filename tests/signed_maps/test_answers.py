"""A model with one answer for all images of a batch, as for a bag of patches; and one with another number."""

import keras
import matplotlib.pyplot
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from tf_gradcam import GradCAM, make_gradcam_heatmap, methods, show, targets

SHAPE, CLASSES = (11, 9, 3), 3
PATCHES = np.random.default_rng(0).normal(size=(5, *SHAPE)).astype("float32")


class AttentionPooling(layers.Layer):
    """One vector for all rows of a batch: their mean, weighted by attention (Ilse 2018)."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 1), initializer="normal", name="w")

    def call(self, x):
        weights = ops.softmax(ops.matmul(x, self.w), axis=0)
        return ops.sum(weights * x, axis=0, keepdims=True)

    def compute_output_shape(self, shape):
        return (1, shape[-1])


class Bag(keras.Model):
    def __init__(self, units, activation):
        super().__init__()
        self.conv = layers.Conv2D(6, 3, strides=2, activation="relu", name="conv")
        self.pool, self.attention = layers.GlobalAveragePooling2D(), AttentionPooling()
        self.scores = layers.Dense(units, activation=activation)

    def call(self, x):
        return self.scores(self.attention(self.pool(self.conv(x))))


def bag(units=CLASSES, activation="softmax", functional=True):
    keras.utils.set_random_seed(3)
    model = Bag(units, activation)
    model(PATCHES)
    model.attention.w.assign(4 * model.attention.w)
    if not functional:
        return model
    start = keras.Input(SHAPE)
    return keras.Model(start, model.call(start))


def by_hand(model, column):
    """The logit, and Grad-CAM of it for every patch, in float64 and without Keras."""
    kernel, bias, w, dense, constant = (weight.numpy().astype("float64") for weight in model.weights)
    a = tf.nn.relu(tf.nn.conv2d(PATCHES.astype("float64"), kernel, 2, "VALID") + bias)
    with tf.GradientTape() as tape:
        tape.watch(a)
        pooled = tf.reduce_mean(a, (1, 2))
        vector = tf.reduce_sum(tf.nn.softmax(pooled @ w, axis=0) * pooled, axis=0, keepdims=True)
        logit = (vector @ dense + constant)[0, column]
    alpha = tf.reduce_mean(tape.gradient(logit, a), (1, 2), keepdims=True)
    return logit.numpy(), tf.reduce_sum(alpha * a, -1).numpy()


@pytest.mark.parametrize("functional", [True, False])
def test_every_patch_of_a_bag_has_a_map_of_the_one_score(functional):
    model = bag(functional=functional)
    cam = GradCAM(model)
    for explainer in (cam, cam.freeze()):
        explanation = explainer(PATCHES, 2)
        logit, maps = by_hand(model, 2)
        np.testing.assert_allclose(explanation.map, maps, atol=1e-6 * np.abs(maps).max())
        np.testing.assert_allclose(explanation.score, [logit], rtol=1e-5)
        assert explanation.target.numpy().tolist() == [2]
    # The heatmaps have one scale: they tell the patches apart.
    on_grid = cam(PATCHES, 2, size=None).heatmap
    np.testing.assert_allclose(on_grid, np.maximum(maps, 0) / maps.max(), atol=1e-5)
    assert cam(PATCHES[:2], 2).map.shape == (2, *maps.shape[1:])  # a bag of another size


def test_the_predicted_class_is_that_of_the_bag():
    model = bag()
    best = int(model(PATCHES).numpy().argmax())
    heatmaps = make_gradcam_heatmap(model, PATCHES)
    _, maps = by_hand(model, best)
    assert heatmaps.shape == (5, *SHAPE[:2])
    assert np.argmax(heatmaps.max((1, 2))) == np.argmax(maps.max((1, 2)))
    unit = bag(1, "sigmoid")
    explanation = GradCAM(unit)(PATCHES)
    logit, maps = by_hand(unit, 0)
    side = 1 if logit > 0 else -1
    np.testing.assert_allclose(explanation.map, side * maps, atol=1e-6 * np.abs(maps).max())


def test_several_classes_of_a_bag_are_explained_at_once():
    model = bag()
    explanation = GradCAM(model)(PATCHES, targets.Classes([2, 0]), size=None)
    for place, column in enumerate((2, 0)):
        logit, maps = by_hand(model, column)
        np.testing.assert_allclose(explanation.map[:, place], maps, atol=1e-6 * np.abs(maps).max())
        np.testing.assert_allclose(explanation.score[:, place], [logit], rtol=1e-5)
        expected = np.maximum(maps, 0) / maps.max()
        np.testing.assert_allclose(explanation.heatmap[:, place], expected, atol=1e-5)


def test_the_gradient_of_a_bag_is_that_at_every_patch():
    model = bag()
    with tf.GradientTape() as tape:
        images = tf.constant(PATCHES)
        tape.watch(images)
        logit = tf.math.log(model(images)[0, 1]) - tf.math.log(model(images)[0, 0])
    expected = np.abs(tape.gradient(logit, images)).max(-1)
    explanation = GradCAM(model, method="gradient")(PATCHES, targets.Contrast(1, 0))
    np.testing.assert_allclose(explanation.map, expected, atol=1e-5 * expected.max())


ON_THE_IMAGES_AS_THEY_ARE = {
    *("gradcam", "hirescam", "gradcam_elementwise", "layercam", "xgradcam", "gradcam_plus_plus", "finercam"),
    *("shapleycam", "eigencam", "eigengradcam", "fem", "kpca_cam", "gradient", "gradient_x_input"),
    *("guided_backprop", "guided_gradcam", "fullgrad"),
}


def check_method_on_bag(name):
    cam = GradCAM(bag(), method=name)
    if name in ON_THE_IMAGES_AS_THEY_ARE:
        explanation = cam(PATCHES)
        assert len(explanation.map) == 5
        assert np.isfinite(explanation.map).all()
        assert np.ptp(explanation.map) > 0
        return
    with pytest.raises(
        ValueError, match=r"`method` (must not run the model on altered|'cam' needs)"
    ) as error:
        cam(PATCHES)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["guided_gradcam", "finercam", "scorecam", "ablationcam"])
def test_a_method_explains_a_bag_or_says_why_not(name):
    check_method_on_bag(name)


@pytest.mark.full  # The four above are one of each sort.
@pytest.mark.parametrize("name", [name for name in methods.METHODS if name != "legrad"])
def test_every_method_explains_a_bag_or_says_why_not(name):
    check_method_on_bag(name)


def test_a_bag_takes_one_target():
    cam = GradCAM(bag())
    assert np.array_equal(cam(PATCHES, [1] * 5).map, cam(PATCHES, 1).map)
    with pytest.raises(ValueError, match="`target` must be one for all images if the model gives one answer"):
        cam(PATCHES, [1, 0, 1, 1, 1])
    np.testing.assert_allclose(
        cam(PATCHES, lambda outputs: tf.math.log(outputs[:, 1]) - tf.math.log(outputs[:, 2])).map,
        by_hand(cam.model, 1)[1] - by_hand(cam.model, 2)[1],
        atol=1e-6,
    )


def test_the_heatmaps_of_a_bag_are_drawn():
    explanation = GradCAM(bag())(PATCHES, 1)
    photographs = [np.zeros((*SHAPE[:2], 3), "uint8")] * 5
    figure = show(photographs, explanation)
    titles = [axes.get_title() for axes in figure.axes if "class 1" in axes.get_title()]
    matplotlib.pyplot.close(figure)
    assert len(titles) == 5
    assert len(set(titles)) == 1


def folded(factor):
    """A model whose answers have `factor` times as many rows as there are images."""
    start = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(start)

    class Fold(layers.Layer):
        def call(self, x):
            if factor > 1:  # a row for each half of an image
                halves = tf.reshape(x, [-1, 9 * 7 * 4 // factor])
                return tf.ensure_shape(halves[:, :4], [None, 4])
            pooled = tf.reduce_mean(x, (1, 2))  # a row for each pair of images
            return tf.reduce_mean(tf.reshape(pooled, [-1, round(1 / factor), 4]), 1)

        def compute_output_shape(self, shape):
            return (None, 4)

    return keras.Model(start, layers.Dense(3, activation="softmax")(Fold()(x)))


@pytest.mark.parametrize(("factor", "count"), [(3, 1), (3, 2), (0.5, 4)])
@pytest.mark.parametrize(
    "target",
    [None, 1, lambda outputs: outputs[:, 1], targets.TopClasses(2)],
    ids=["None", "1", "call", "top"],
)
@pytest.mark.product(kept=lambda factor, count, target: target is None or (factor, count) == (3, 2))
def test_another_number_of_answers_than_images_is_refused(factor, count, target):
    cam = GradCAM(folded(factor), "conv")
    with pytest.raises(
        ValueError, match="`target` must have a score with one answer for each image"
    ) as error:
        cam(PATCHES[:count], target)
    assert "\n" not in str(error.value)


def test_an_answer_without_a_batch_axis_is_refused_and_a_callable_explains_it():
    start = keras.Input(SHAPE)

    class Mean(layers.Layer):
        def call(self, x):
            return ops.mean(x, axis=(0, 1, 2))

        def compute_output_shape(self, shape):
            return shape[-1:]

    conv = layers.Conv2D(4, 3, name="conv")
    model = keras.Model(start, Mean()(conv(start)))
    cam = GradCAM(model, "conv")
    with pytest.raises(ValueError, match="needs a model that returns"):
        cam(PATCHES)
    expected = conv(PATCHES).numpy()[..., 2] / (5 * 9 * 7)
    explanation = cam(PATCHES, lambda outputs: outputs[None, 2])
    np.testing.assert_allclose(explanation.map, expected, atol=1e-6)

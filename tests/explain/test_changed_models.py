"""After a model has changed, explainers explain what it computes now; frozen ones refuse."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import chain

from tf_gradcam import GradCAM, make_gradcam_heatmap


def build():
    """A network whose map is worked out below: a convolution, its mean, and two dense layers."""
    keras.utils.set_random_seed(1)
    images = keras.Input((12, 12, 3))
    conv = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="conv")
    pool = keras.layers.GlobalAveragePooling2D(name="pool")
    dense = [keras.layers.Dense(16, activation="relu", name="hidden")]
    dense += [keras.layers.Dense(5, activation="softmax", name="scores")]
    return keras.Model(images, chain(images, [conv, pool, *dense]))


IMAGE = np.random.default_rng(0).normal(size=(1, 12, 12, 3)).astype("float32")
CLASS = 1


def by_hand(model, activation=lambda x: (np.maximum(x, 0), x > 0)):
    """Return the heatmap on the layer's grid in float64, from the kernels as they are applied now."""
    activations = keras.Model(model.input, model.get_layer("conv").output)(IMAGE).numpy()[0].astype("float64")
    hidden, scores = model.get_layer("hidden"), model.get_layer("scores")
    kernels = [np.asarray(tf.convert_to_tensor(each.kernel), "float64") for each in (hidden, scores)]
    _, slope = activation(activations.mean((0, 1)) @ kernels[0] + hidden.bias.numpy())
    alpha = kernels[0] @ (slope * kernels[1][:, CLASS])  # of the mean; a constant factor is divided out
    positive = np.maximum(activations @ alpha, 0)
    return positive / positive.max()


def add_lora(model):
    hidden = model.get_layer("hidden")
    hidden.enable_lora(4)
    random = np.random.default_rng(1)
    for variable in (hidden.lora_kernel_a, hidden.lora_kernel_b):  # as training the adapter alone leaves them
        variable.assign(random.normal(size=variable.shape))


def replace_activation(model):
    model.get_layer("hidden").activation = keras.activations.tanh


def tanh(x):
    return np.tanh(x), 1 - np.tanh(x) ** 2


@pytest.mark.parametrize(
    ("change", "activation"), [(add_lora, None), (replace_activation, tanh)], ids=["LoRA", "activation"]
)
def test_a_changed_model_is_explained_as_it_is_now(change, activation):
    model = build()
    cam, frozen = GradCAM(model), GradCAM(model).freeze()
    for _ in range(2):  # The second call compiles.
        before = make_gradcam_heatmap(model, IMAGE, target=CLASS, size=None)
    np.testing.assert_allclose(before, by_hand(model), atol=1e-5)
    cam(IMAGE, CLASS)
    frozen(IMAGE, CLASS)
    change(model)
    frozen_anew = cam.freeze()
    expected = by_hand(model) if activation is None else by_hand(model, activation)
    assert np.abs(expected - before).max() > 0.05
    after = make_gradcam_heatmap(model, IMAGE, target=CLASS, size=None)
    np.testing.assert_allclose(after, expected, atol=1e-5)
    kept = cam(IMAGE, CLASS, size=None)
    np.testing.assert_allclose(kept.heatmap[0], expected, atol=1e-5)
    np.testing.assert_allclose(kept.outputs, model(IMAGE), atol=1e-6)
    for _ in range(3):
        with pytest.raises(ValueError, match="model has changed since"):
            frozen(IMAGE, CLASS)
    for anew in (frozen_anew, GradCAM(model).freeze()):
        np.testing.assert_allclose(anew(IMAGE, CLASS, size=None).heatmap[0], expected, atol=1e-5)


def test_a_frozen_explainer_answers_after_a_mere_prediction():
    model = build()
    frozen = GradCAM(model).freeze()
    before = frozen(IMAGE, CLASS).heatmap.numpy()
    model.predict(IMAGE, verbose=0)
    np.testing.assert_array_equal(frozen(IMAGE, CLASS).heatmap, before)


def test_removed_filters_are_seen_within_as_many_calls_as_half_the_weights():
    keras.utils.set_random_seed(0)
    images = keras.Input((12, 12, 3))
    steps = [keras.layers.Conv2D(64, 3, activation="relu", name=f"conv{index}") for index in range(3)]
    steps += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)]
    model = keras.Model(images, chain(images, steps))
    frozen = GradCAM(model).freeze()
    frozen(IMAGE, CLASS)
    kernel = model.get_layer("conv1").kernel
    kept = np.arange(64) % 4 == 0  # Equal steps of 36 through this kernel would meet no other filters.
    kernel.assign(kernel.numpy() * kept)

    def ask():
        for _ in range(len(model.weights) // 2):
            frozen(IMAGE, CLASS)

    with pytest.raises(ValueError, match="model has changed since"):
        ask()

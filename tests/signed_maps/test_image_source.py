"""Methods at the image need no layer: they explain any input of any model, and search for no layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from tf_gradcam import GradCAM, export_gradcam, make_gradcam_heatmap, methods, targets
from tf_gradcam._explain import explainer as explainer_module

RANDOM = np.random.default_rng(0)


def samples(*shape):
    return RANDOM.normal(size=(2, *shape)).astype("float32")


def gradient_by_hand(model, images, position=None):
    """The gradient of unit 1 by one of the inputs."""
    images = tf.nest.map_structure(tf.constant, images)
    source = images if position is None else images[position]
    with tf.GradientTape() as tape:
        tape.watch(source)
        score = model(images)[:, 1]
    return tape.gradient(score, source).numpy()


def mlp(*shape):
    steps = [layers.Dense(8, activation="relu"), layers.Dense(3, activation="softmax")]
    before = [layers.Flatten()] if len(shape) > 1 else []
    return keras.Sequential([keras.Input(shape), *before, *steps])


def recurrent():
    return keras.Sequential([keras.Input((12, 3)), layers.LSTM(4), layers.Dense(3)])


def rows_of_an_image():
    """A recurrent network over the rows of an image, whose columns are its features."""
    return keras.Sequential([keras.Input((6, 5)), layers.GRU(4), layers.Dense(3)])


def spectrogram():
    if not hasattr(layers, "STFTSpectrogram"):
        pytest.skip("Keras has STFTSpectrogram from 3.8 on.")
    start = keras.Input((400, 1))
    options = {"mode": "log", "frame_length": 64, "frame_step": 32, "fft_length": 64, "expand_dims": True}
    x = layers.STFTSpectrogram(**options)(start)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(x))
    return keras.Model(start, layers.Dense(3, activation="softmax")(x))


def saved_model(folder):
    start = keras.Input((8, 7, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(start))
    keras.Model(start, layers.Dense(3)(x)).export(folder, verbose=False)
    return keras.Sequential([keras.Input((8, 7, 3)), layers.TFSMLayer(folder, call_endpoint="serve")])


@pytest.mark.parametrize(
    ("make", "axes"),
    [
        (lambda _: mlp(8, 7, 1), 2),
        (lambda _: mlp(8, 7, 3), 2),
        (lambda _: mlp(8, 7), 2),  # an image without a channel axis
        (lambda _: mlp(20), 1),  # a map of features
        (lambda _: recurrent(), 1),
        (lambda _: rows_of_an_image(), 1),
        (lambda _: spectrogram(), 1),
        (saved_model, 2),
    ],
    ids=[
        "MLP",
        "MLP of colours",
        "MLP without channels",
        "vector",
        "LSTM",
        "GRU",
        "spectrogram",
        "TFSMLayer",
    ],
)
def test_a_model_without_a_map_is_explained_at_its_image(make, axes, tmp_path):
    model = make(tmp_path / "saved")
    images = samples(*model.input_shape[1:])
    gradient = gradient_by_hand(model, images)
    if gradient.ndim == axes + 1:
        gradient = gradient[..., None]
    cam = GradCAM(model, method="gradient")
    explanation = cam(images, targets.Value(1))
    expected = np.abs(gradient).max(-1)
    np.testing.assert_allclose(explanation.map, expected, atol=1e-5 * expected.max())
    assert explanation.heatmap.shape == images.shape[: axes + 1]
    assert cam.layer is None
    heatmap = make_gradcam_heatmap(model, images, target=targets.Value(1), method="gradient_x_input")
    product = (gradient * images.reshape(gradient.shape)).sum(-1)
    scale = product.max(axis=tuple(range(1, axes + 1)), keepdims=True)
    np.testing.assert_allclose(heatmap, np.maximum(product, 0) / scale, atol=1e-4)


def test_an_explanation_of_an_mlp_can_be_frozen_smoothed_and_exported(tmp_path):
    model = mlp(8, 7, 1)
    images = samples(8, 7, 1)
    with tf.GradientTape() as tape:
        points = tf.constant((np.arange(4)[:, None, None, None, None] + 0.5) / 4 * images, tf.float32)
        tape.watch(points)
        score = model(tf.reshape(points, (-1, 8, 7, 1)))[:, 1]
    expected = (images * tape.gradient(score, points).numpy().mean(0)).sum(-1)
    cam = GradCAM(model, method=methods.integrated_gradients(steps=4))
    for each in (cam, cam.freeze()):
        np.testing.assert_allclose(each(images, targets.Value(1)).map, expected, atol=1e-6)
    several = cam(images, targets.Classes([1, 2]))
    np.testing.assert_allclose(several.map[:, 1], cam(images, 2).map, atol=1e-6)
    plain = GradCAM(model, method="gradient")(images, 1).map
    noiseless = methods.smooth("gradient", samples=2, noise=1e-9)
    np.testing.assert_allclose(GradCAM(model, method=noiseless)(images, 1).map, plain, atol=1e-5)
    assert GradCAM(model, method=methods.rise(masks=8))(images, 1).map.shape == (2, 8, 7)
    path = export_gradcam(GradCAM(model, method="gradient"), tmp_path / "served", target=1)
    signature = tf.saved_model.load(path).signatures["gradcam"]
    answer = signature(**{name: tf.constant(images) for name in signature.structured_input_signature[1]})
    assert answer["heatmap"].shape == (2, 8, 7)


def test_no_layer_is_searched_for_a_method_at_the_image(functional, images, monkeypatch):
    def search(*_):
        raise AssertionError("a search for a layer")

    monkeypatch.setattr(explainer_module, "resolve_layers", search)
    assert GradCAM(functional, method="gradient")(images).map.shape == images.shape[:3]


def two_images(structure=list):
    left, right = keras.Input((8, 7, 3), name="left"), keras.Input((6, 5, 2), name="right")
    pooled = [
        layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(x)) for x in (left, right)
    ]
    inputs = [left, right] if structure is list else {"left": left, "right": right}
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()(pooled)))


@pytest.mark.parametrize("structure", [list, dict])
def test_any_image_of_several_is_explained_by_its_name(structure):
    model = two_images(structure)
    arrays = [samples(8, 7, 3), samples(6, 5, 2)]
    images = arrays if structure is list else dict(zip(("left", "right"), arrays, strict=True))
    for position, name in enumerate(("left", "right")):
        key = position if structure is list else name
        expected = np.abs(gradient_by_hand(model, images, key)).max(-1)
        layer = model.get_layer(name) if structure is list else name
        cam = GradCAM(model, layer, method="gradient")
        assert name in repr(cam)
        np.testing.assert_allclose(cam(images, 1).map, expected, atol=1e-6)
        heatmap = make_gradcam_heatmap(model, images, layer, 1, method="gradient")
        assert heatmap.shape == expected.shape
    first = GradCAM(model, method="gradient")(images, 1)
    assert first.map.shape == (2, 8, 7)


class TwoArguments(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, before, after):
        return self.dense(ops.concatenate([ops.mean(before, (1, 2)), ops.max(after, (1, 2))], axis=-1))


class OneList(TwoArguments):
    def call(self, images):
        return super().call(*images)


@pytest.mark.parametrize(
    ("model", "names"), [(TwoArguments(), ("before", "after")), (OneList(), ("0", "1"))], ids=["args", "list"]
)
def test_an_argument_or_a_place_names_an_image_of_a_subclassed_model(model, names):
    images = (samples(4, 5, 3), samples(6, 5, 2))
    outputs = model(*images) if len(names[0]) > 1 else model(list(images))
    kernel = model.dense.kernel.numpy()[:, 1]
    assert outputs.shape == (2, 3)
    given = images if len(names[0]) > 1 else list(images)
    found = GradCAM(model, names[0], method="gradient")(given, 1).map
    np.testing.assert_allclose(found, np.full((2, 4, 5), np.abs(kernel[:3]).max() / 20), rtol=1e-5)
    is_largest = images[1] == images[1].max((1, 2), keepdims=True)
    found = GradCAM(model, names[1], method="gradient")(given, 1).map
    np.testing.assert_allclose(found, np.max(is_largest * np.abs(kernel[3:]), axis=-1), atol=1e-6)
    with pytest.raises(ValueError, match=f"name an input of the model: '{names[0]}', '{names[1]}'"):
        GradCAM(model, "third", method="gradient")(given, 1)


def test_a_table_beside_an_image_can_be_explained():
    table, image = keras.Input((4,), name="table"), keras.Input((8, 7, 3), name="image")
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(image))
    model = keras.Model([table, image], layers.Dense(3)(layers.Concatenate()([pooled, table])))
    images = [samples(4), samples(8, 7, 3)]
    assert GradCAM(model, method="gradient")(images, 1).map.shape == (2, 8, 7)  # the image by default
    kernel = model.layers[-1].kernel.numpy()[4:, 1]
    found = GradCAM(model, "table", method="gradient_x_input")(images, 1).map
    np.testing.assert_allclose(found, images[0] * kernel, atol=1e-6)


def test_what_names_no_input_is_refused(functional):
    for layer in ("conv1", functional.get_layer("conv1"), ["conv1"]):
        with pytest.raises(ValueError, match="or name an input of the model: "):
            GradCAM(functional, layer, method="gradient")
    with pytest.raises(ValueError, match="`call` must be None for a method whose map lies on the image"):
        GradCAM(functional, method="gradient", call=0)


def test_an_input_that_the_score_does_not_depend_on_is_refused():
    left, right = keras.Input((8, 7, 3), name="left"), keras.Input((8, 7, 3), name="right")
    outputs = [layers.Dense(3)(layers.GlobalAveragePooling2D()(x)) for x in (left, right)]
    model = keras.Model([left, right], outputs)
    images = [samples(8, 7, 3), samples(8, 7, 3)]
    kernel = model.layers[-1].kernel.numpy()[:, 2]
    found = GradCAM(model, method="gradient")(images, targets.Output(1, 2)).map
    np.testing.assert_allclose(found, np.full((2, 8, 7), np.abs(kernel).max() / 56), rtol=1e-5)
    with pytest.raises(ValueError, match="`target` must have a score that depends on the image"):
        GradCAM(model, "left", method="gradient")(images, targets.Output(1, 2))

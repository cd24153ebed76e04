"""keras.applications: the default layer is the end of the convolutions, and its map is right."""

import inspect
import pathlib
import re

import keras
import numpy as np
import pytest

from tf_gradcam import GradCAM, list_layers

TABLE = pathlib.Path(__file__).parent.parent / "docs" / "applications.md"


def build(name, side):
    keras.utils.set_random_seed(0)
    builder = getattr(keras.applications, name)
    return builder(weights=None, input_shape=(side, side, 3), classes=10)


def feeds_the_head(model):
    """What goes into the last global pooling, as Keras's graph tells it."""
    pool = [each for each in model.layers if isinstance(each, keras.layers.GlobalAveragePooling2D)][-1]
    return pool.input._keras_history.operation


def explain(model):
    """Explain one image of noise, and check what holds for any."""
    cam = GradCAM(model)
    image = np.random.default_rng(0).uniform(size=model.input_shape[1:]).astype("float32")
    explanation = cam(image)
    heatmap = explanation.heatmap.numpy()
    assert heatmap.shape == (1, *image.shape[:2])
    assert np.isfinite(explanation.map).all()
    assert heatmap.min() >= 0
    assert heatmap.max() == 1  # Not blank, as it is the predicted class.
    (info,) = (each for each in list_layers(model) if each.layer is cam.layer)
    assert explanation.map.shape == (1, *info.shape[:-1])
    return info, explanation


def assert_all_of_the_score_is_shared_out(explanation):
    """Pooling and one Dense layer without a bias: the places of the map add up to the logit."""
    total = np.sum(explanation.map, axis=(1, 2), dtype="float64")
    np.testing.assert_allclose(total, explanation.score, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "kind", "shape"),
    [
        ("MobileNetV3Small", "Activation", (2, 2, 576)),  # Pooled places go through more convolutions.
        ("ConvNeXtTiny", "Add", (2, 2, 768)),  # A sum `x + y`, which is no layer.
        pytest.param("DenseNet121", "Activation", (2, 2, 1024), marks=pytest.mark.slow),
    ],
)
def test_the_default_layer_feeds_the_head(name, kind, shape):
    model = build(name, 64)
    info, _ = explain(model)
    assert info.layer is feeds_the_head(model)
    assert (type(info.layer).__name__, info.shape) == (kind, shape)


def test_the_default_layer_of_vgg_is_the_last_convolution_and_not_the_pooling_after_it():
    info, _ = explain(build("VGG16", 64))
    assert (info.path, info.shape) == ("block5_conv3", (4, 4, 512))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("DenseNet169", 64),
        ("EfficientNetB0", 64),
        ("EfficientNetV2B0", 64),
        ("InceptionResNetV2", 128),
        ("InceptionV3", 128),
        ("MobileNet", 64),
        ("MobileNetV2", 64),
        ("NASNetMobile", 64),
        ("ResNet50", 64),
        ("ResNet50V2", 64),
        ("Xception", 71),
    ],
)
@pytest.mark.product(kept=lambda name: name in ["MobileNetV2", "ResNet50"])
def test_the_default_map_of_a_family_adds_up_to_the_logit(name, side):
    model = build(name, side)
    info, explanation = explain(model)
    assert info.layer is feeds_the_head(model)
    assert_all_of_the_score_is_shared_out(explanation)


def test_the_table_has_a_row_for_every_builder():
    rows = re.findall(r"^\| (\w+) \|.* ok \|$", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    builders = dict(inspect.getmembers(keras.applications, inspect.isfunction))
    assert len(builders) > 30
    assert sorted(builders.keys() - set(rows)) == []

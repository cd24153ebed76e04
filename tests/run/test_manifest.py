"""What tells models apart: weights, layers and their settings, but no name that Keras makes up."""

import keras
import pytest

from tf_gradcam._run import model_manifest


def build(activation="relu", factor=1 / 255, dtype="float32", pooling=keras.layers.GlobalAveragePooling2D):
    """Return a model of the same weights whatever is asked for; its names are others each time."""
    inner = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.RandomFlip(),  # It makes a seed up.
            keras.layers.Conv2D(2, 3, activation=activation, dtype=dtype, kernel_initializer="ones"),
        ]
    )
    inputs = keras.Input((8, 8, 3))
    maps = inner(keras.layers.Rescaling(factor)(inputs))
    return keras.Model(inputs, keras.layers.Dense(2, kernel_initializer="ones")(pooling()(maps)))


def told(model):
    manifest = model_manifest(model, None)
    del manifest["model"]  # is only noted
    return manifest


def test_the_same_model_built_or_loaded_again_is_the_same(tmp_path):
    model = build()
    model.save(tmp_path / "model.keras")
    assert told(model) == told(build()) == told(keras.models.load_model(tmp_path / "model.keras"))


@pytest.mark.parametrize(
    "other",
    [
        {"activation": "gelu"},
        {"factor": 1 / 127.5},
        {"dtype": "mixed_float16"},
        {"pooling": keras.layers.GlobalMaxPooling2D},
    ],
    ids=lambda other: next(iter(other)),
)
def test_models_of_the_same_weights_with_other_layers_differ(other):
    first, second = told(build()), told(build(**other))
    assert first["model_sha256"] == second["model_sha256"]
    assert [key for key in first if first[key] != second[key]] == ["layers_sha256"]


def test_a_layer_without_settings_is_told_by_its_class():
    class Odd(keras.layers.Layer):
        def get_config(self):
            raise NotImplementedError

    assert told(keras.Sequential([Odd()])) != told(keras.Sequential([keras.layers.Identity()]))

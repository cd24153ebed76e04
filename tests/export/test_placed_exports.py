"""Exported heatmaps lie where the pixels came from, as those of `GradCAM` do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_gradcam import GradCAM, export_gradcam
from tf_gradcam._export import SUFFIXES, runner

layers = keras.layers


def photographs(height, width):
    return np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype="uint8")


@pytest.fixture(scope="module")
def cropping():
    image = keras.Input((24, 32, 3))
    x = layers.Resizing(12, 12, crop_to_aspect_ratio=True)(layers.Cropping2D(((4, 0), (0, 0)))(image))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(x))
    return keras.Model(image, layers.Dense(3)(x))


@pytest.mark.parametrize("format", SUFFIXES)
@pytest.mark.product(kept=lambda format: format == "litert")
def test_one_file_places_its_heatmap(format, cropping, tmp_path):
    images = photographs(24, 32).astype("float32")
    path = export_gradcam(cropping, tmp_path / f"cat{SUFFIXES[format]}", format=format)
    expected = GradCAM(cropping)(images).heatmap
    assert not expected[:, :4].numpy().any()  # cropped away
    np.testing.assert_allclose(runner(path)({"images": images})["heatmap"], expected, atol=1e-4)


def test_a_server_places_its_heatmap_for_photographs_of_any_size(cropping, tmp_path):
    def preprocess(images):
        return tf.image.resize_with_pad(images, 24, 32) / 255

    path = export_gradcam(cropping, tmp_path / "cat", preprocess=preprocess)
    signatures = tf.saved_model.load(str(path)).signatures
    cam = GradCAM(cropping, preprocess=preprocess)
    for shape in ((60, 50), (30, 90)):
        images = photographs(*shape)
        found = signatures["gradcam"](images=tf.constant(images))["heatmap"]
        np.testing.assert_allclose(found, cam(images).heatmap, atol=1e-5)
    files = tf.stack([tf.io.encode_png(image) for image in photographs(24, 32)])
    heatmap = tf.io.decode_png(signatures["gradcam_bytes"](image_bytes=files)["heatmap_png_bytes"][0])[..., 0]
    np.testing.assert_allclose(heatmap, 255 * cam(photographs(24, 32)).heatmap[0], atol=1)

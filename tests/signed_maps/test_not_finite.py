"""Images with NaN or infinity: NaN for them, and for the images beside them what they get alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIDE, build

from tf_gradcam import GradCAM, targets
from tf_gradcam._signed_maps.not_finite import not_finite, with_nan


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_an_image_is_marked_where_any_number_of_it_is_not_finite(dtype):
    values = np.full((4, 3, 2, 1), 60000.0)  # Their sum overflows in float16.
    values[1, 2, 0, 0], values[2, 0, 1, 0], values[3, :2, 0, 0] = np.nan, -np.inf, (np.inf, -np.inf)
    marks = not_finite([tf.ones([4, 2]), tf.cast(tf.constant(values), dtype)])
    np.testing.assert_array_equal(marks, [0, np.nan, np.nan, np.nan])


def test_whole_numbers_have_no_nan():
    assert not_finite(tf.zeros([2, 3], tf.uint8)) is None
    index = tf.constant([1, 2])
    assert with_nan(index, tf.constant([np.nan, 0.0])) is index


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_a_model_may_return_another_number_of_rows(rows):
    found = with_nan(tf.ones([rows, 2]), tf.constant([0.0, np.nan]))
    np.testing.assert_array_equal(found, [[1, 1], [np.nan, np.nan], [1, 1], [1, 1]][:rows])


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_nan_is_answered_by_nan_and_touches_no_other_image(unchanged, images, freeze, wrong):
    cam = GradCAM(unchanged)
    cam = cam.freeze() if freeze else cam
    bad = images.copy()
    bad[1, 4, 5, 2] = wrong
    found, expected = cam(tf.constant(bad)), cam(images)
    for name in ("heatmap", "map", "score", "outputs"):
        one, other = getattr(found, name), getattr(expected, name)
        assert np.isnan(one[1]).all()
        np.testing.assert_allclose(one[::2], other[::2], atol=1e-6)


def test_nan_of_several_inputs_and_scores_is_of_its_image(images):
    keras.utils.set_random_seed(0)
    image, table = keras.Input((SIDE, SIDE, 3)), keras.Input((4,))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    model = keras.Model([image, table], keras.layers.Dense(3)(keras.layers.Concatenate()([x, table])))
    numbers = np.ones((3, 4), "float32")
    numbers[2, 1] = np.nan
    found = GradCAM(model)([tf.constant(images), tf.constant(numbers)], targets.Classes([0, 1]))
    assert np.isnan(found.heatmap).all(axis=(1, 2, 3)).tolist() == [False, False, True]
    assert np.isnan(found.heatmap).any(axis=(1, 2, 3)).tolist() == [False, False, True]


def test_preprocess_may_fill_what_is_missing(images):
    cam = GradCAM(build("functional"), preprocess=lambda x: tf.where(tf.math.is_nan(x), 0.0, x))
    missing, filled = images.copy(), images.copy()
    missing[0, 3, 3], filled[0, 3, 3] = np.nan, 0
    np.testing.assert_array_equal(cam(tf.constant(missing)).heatmap, cam(filled).heatmap)

"""Arguments of `GradCAM` that are unusual: in a graph, out of range, masked, without values, in any dtype."""

import copy
import pickle
import time

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIDE, Subclassed

from tf_gradcam import GradCAM, list_layers, make_gradcam_heatmap, targets

GOOD, BAD = [1, 3, 0], [1, 5, 0]


@pytest.fixture(scope="module")
def cam(unchanged):
    return GradCAM(unchanged)


def in_graph(cam, make, **options):
    """Return the function from images and classes to heatmaps alone."""
    return tf.function(lambda x, t: cam(x, make(t)).heatmap, autograph=False, **options)


# What is out of range


@pytest.mark.parametrize("make", [targets.Class, lambda t: targets.Classes(tf.stack([t, t * 0], axis=1))])
def test_a_class_out_of_range_is_an_error_also_where_only_the_heatmap_is_needed(cam, images, make):
    explain = in_graph(cam, make)
    expected = cam(images, make(np.array(GOOD))).heatmap
    np.testing.assert_allclose(explain(images, tf.constant(GOOD)), expected, atol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="`target` must be a class that the model has"):
        explain(images, tf.constant(BAD))


def test_the_check_is_in_a_frozen_graph_and_in_its_savedmodel(cam, images, tmp_path):
    module = tf.Module()
    module.explain = in_graph(cam.freeze(), targets.Class)
    for explain in (module.explain, None):
        if explain is None:
            tf.saved_model.save(module, tmp_path)
            explain = tf.saved_model.load(tmp_path).explain
        assert explain(images, tf.constant(GOOD)).numpy().max() == 1
        with pytest.raises(
            tf.errors.InvalidArgumentError, match="`target` must be a class that the model has"
        ):
            explain(images, tf.constant(BAD))


def test_xla_gives_nan_to_that_image_alone(cam, images):
    explain = in_graph(cam, targets.Class, jit_compile=True)
    right, wrong = explain(images, tf.constant(GOOD)).numpy(), explain(images, tf.constant(BAD)).numpy()
    np.testing.assert_array_equal(wrong[[0, 2]], right[[0, 2]])
    assert np.isnan(wrong[1]).all()


# What has no values


def test_a_tensor_without_values_is_refused_before_tensorflow_gets_it(cam, unchanged, images):
    with tf.Graph().as_default():
        images_of_another_graph = tf.compat.v1.placeholder(tf.float32, images.shape)
        classes_of_another_graph = tf.compat.v1.placeholder(tf.int32, len(images))
        reference_of_another_graph = tf.compat.v1.placeholder(tf.float32, 5)
    with pytest.raises(ValueError, match="`images` must hold numbers. Received: a symbolic tensor"):
        cam(images_of_another_graph)
    for target in (
        classes_of_another_graph,
        targets.Similarity(reference_of_another_graph),
    ):
        with pytest.raises(ValueError, match="`target` must hold numbers. Received: a symbolic tensor"):
            cam(images, target)
    with pytest.raises(TypeError, match="`images` must be an array or tensor of real numbers.*symbolic"):
        cam(keras.Input((SIDE, SIDE, 3)))
    with pytest.raises(ValueError, match="`model` must be built"):
        list_layers(Subclassed())
    # In a tf.function, the tensors of the graphs around it have values.
    inner = tf.function(lambda x: tf.function(lambda: cam(x, 1).score, autograph=False)(), autograph=False)
    np.testing.assert_allclose(inner(images), cam(images, 1).score, rtol=1e-6)


# What an array may be


@pytest.mark.parametrize(
    "dtype", ["float16", "float64", ">f4", np.longdouble, ml_dtypes.bfloat16, "int8", "int64"]
)
def test_images_of_every_real_dtype_are_taken(cam, dtype):
    images = np.random.default_rng(0).integers(-4, 5, (2, SIDE, SIDE, 3)).astype("float32")
    np.testing.assert_allclose(cam(images.astype(dtype)).map, cam(images).map, rtol=1e-6, atol=1e-6)


def test_variables_and_tensors_of_bfloat16_are_taken(cam):
    images = np.random.default_rng(0).integers(-4, 5, (2, SIDE, SIDE, 3)).astype("float32")
    expected = cam(images).map
    for each in (tf.Variable(images), keras.Variable(images), tf.constant(images, tf.bfloat16)):
        np.testing.assert_allclose(cam(each).map, expected, rtol=1e-6, atol=1e-6)
    reference = np.array([1, 0, 0.5, 0, 0])
    expected = cam(images, targets.Similarity(reference)).map
    for each in (
        reference.astype(ml_dtypes.bfloat16),
        tf.constant(reference, tf.bfloat16),
        keras.Variable(reference),
    ):
        np.testing.assert_allclose(cam(images, targets.Similarity(each)).map, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(cam(images, targets.Output(np.int64(0), 1)).score, cam(images, 1).score)


def test_masked_values_are_refused(cam, unchanged, images):
    masked = np.ma.masked_greater(images, 1)
    for given in (masked, masked[0], list(masked)):
        with pytest.raises(
            ValueError, match=r"`images` must have a number everywhere.*array.filled\(value\)"
        ):
            cam(given)
    with pytest.raises(ValueError, match="`img` must have a number everywhere"):
        make_gradcam_heatmap(unchanged, masked)
    with pytest.raises(ValueError, match="`target` must have a number everywhere"):
        cam(images, targets.Similarity(np.ma.masked_equal([1, 0, 1, 1, 1], 0)))
    np.testing.assert_array_equal(cam(np.ma.masked_array(images)).map, cam(images).map)


def test_images_of_the_wrong_shape_are_refused_before_they_are_copied(cam, unchanged):
    huge = np.broadcast_to(np.float32(0), (10, 40000, 40000, 3))  # 192 GB, in 4 bytes
    begin = time.process_time()
    for ask in (cam, lambda given: list_layers(unchanged, given)):
        with pytest.raises(ValueError, match="`images` must have the shape that the model takes"):
            ask(huge)
    assert time.process_time() - begin < 1


def test_the_size_of_a_volume_is_bounded_by_its_product(cam, images):
    with pytest.raises(ValueError, match="`size` must be .* of product up to 268435456"):
        cam(images, size=(2000, 2000, 2000))


# Copies


def test_an_explainer_is_copied_but_not_pickled(cam, images):
    np.testing.assert_array_equal(copy.copy(cam)(images).map, cam(images).map)
    for refused in (pickle.dumps, copy.deepcopy):
        with pytest.raises(
            TypeError, match=r"can't be pickled .*GradCAM\(keras.models.load_model\(path\), layer"
        ):
            refused(cam)

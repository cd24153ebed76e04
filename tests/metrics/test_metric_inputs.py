"""Arguments that metrics share: images, maps, boxes, and what a score returns."""

import numpy as np
import pytest
import tensorflow as tf

from tf_gradcam import metrics

IMAGES, MAPS = np.ones((2, 4, 5, 3)), np.ones((2, 4, 5))


def deletion(score=lambda images: images.mean(axis=(1, 2, 3)), images=IMAGES, maps=MAPS):
    return metrics.deletion(score, images, maps, baseline="zero", steps=2)


def test_images_and_maps_are_batches():
    with pytest.raises(ValueError, match=r"`images` must be a batch .*Received: shape \(5, 3\).*image.None"):
        deletion(images=IMAGES[0, 0], maps=MAPS[0])
    with pytest.raises(ValueError, match=r"`images` must be a batch .* at least one image"):
        deletion(images=IMAGES[:0], maps=MAPS[:0])
    with pytest.raises(ValueError, match=r"`maps` must be a batch .*Received: shape \(5,\)"):
        metrics.entropy(MAPS[0, 0])
    with pytest.raises(ValueError, match="one value for each pixel of `images`, here .2, 4, 5.*GradCAM"):
        deletion(maps=MAPS[:, :2])
    for values in ("photo.jpg", None, MAPS.astype(complex), {"a": 1}):
        with pytest.raises(TypeError, match="`maps` must be an array of real numbers"):
            deletion(maps=values)
    with pytest.raises(ValueError, match="`maps` must be one array"):
        deletion(maps=[[1.0, 2], [1.0]])


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "bool"])
def test_other_dtypes_become_float32(dtype):
    seen = []
    deletion(lambda images: seen.append(images.dtype) or images.mean(axis=(1, 2, 3)), IMAGES.astype(dtype))
    assert set(seen) == {np.dtype("float32")}


def test_bfloat16_is_taken():
    images, maps = tf.cast(IMAGES, tf.bfloat16), tf.cast(MAPS, tf.bfloat16)
    np.testing.assert_allclose(deletion(images=images, maps=maps), deletion())


@pytest.mark.parametrize(
    "answer", [lambda n: np.ones((n, 1)), lambda n: 1.0, lambda n: np.ones(n + 1), lambda n: ["a"] * n]
)
def test_a_score_returns_one_number_for_each_image(answer):
    with pytest.raises(ValueError, match="`score` must return one number for each image, here .6,."):
        deletion(lambda images: answer(len(images)))


def test_a_score_is_a_callable_and_may_return_tensors():
    with pytest.raises(TypeError, match="`score` must be a callable images -> .N,."):
        deletion(score="logits")
    np.testing.assert_allclose(deletion(lambda images: tf.reduce_mean(images, [1, 2, 3])), deletion())


def test_an_infinite_score_is_nan():
    assert np.isnan(deletion(lambda images: np.full(len(images), np.inf))).all()


def test_boxes_by_hand():
    masks = metrics.box_masks([[1, 0, 3, 2], [0, 0, 5, 4]], (4, 5))
    expected = np.zeros((4, 5), bool)
    expected[0:2, 1:3] = True
    np.testing.assert_array_equal(masks[0], expected)
    assert masks[1].all()
    np.testing.assert_array_equal(metrics.box_masks([[1.5, 3.2]], 5), [[False, True, True, False, False]])
    assert not metrics.box_masks([[2, 2, 2, 4]], (4, 5)).any()
    volume = metrics.box_masks([[0, 1, 2, 1, 2, 4]], (4, 3, 2))
    np.testing.assert_array_equal(np.argwhere(volume[0]), [[2, 1, 0], [3, 1, 0]])


def test_several_boxes_are_united_and_a_row_of_nan_is_none():
    boxes = np.full((2, 3, 4), np.nan)
    boxes[0, :2] = [0, 0, 1, 1], [4, 3, 9, 9]
    masks = metrics.box_masks(boxes, (4, 5))
    np.testing.assert_array_equal(np.argwhere(masks[0]), [[0, 0], [3, 4]])
    assert not masks[1].any()
    np.testing.assert_array_equal(metrics.energy(MAPS, boxes), [0.1, np.nan])


def test_boxes_are_two_corners():
    with pytest.raises(ValueError, match=r"`boxes` must be .N, 4. or .N, K, 4."):
        metrics.box_masks([[1, 2]], (4, 5))
    with pytest.raises(ValueError, match="x1 <= x2 and y1 <= y2, not a corner and a size"):
        metrics.box_masks([[3, 3, 2, 2]], (4, 5))

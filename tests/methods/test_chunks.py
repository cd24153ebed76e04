"""Loops in the graph: every index once, a few at a time, and traced once; also where XLA compiles them."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tf_gradcam._methods.chunks import copies_per_pass, gather_chunks, sum_chunks, sum_of_copies

IMAGES = tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])


@pytest.mark.parametrize(
    ("batch", "images", "expected"),
    [(8, 3, 2), (9, 3, 3), (8, 8, 1), (2, 3, 1), (1, 3, 1), (5, 1, 5), (5, 0, 5)],
)
def test_as_many_copies_go_into_a_pass_as_fit_and_at_least_one(batch, images, expected):
    assert copies_per_pass(batch, tf.zeros((images, 2))).numpy() == expected


class Steps:
    """A step of a loop that notes how often it is traced and on which indices it runs."""

    def __init__(self, step):
        self.step, self.traced, self.ran = step, 0, []

    def __call__(self, indices, *weights):
        self.traced += 1
        tf.py_function(lambda each: self.ran.append(each.numpy().tolist()), [indices], [])
        return self.step(indices, *weights)


def in_the_graph(compute):
    return tf.function(compute, autograph=False)()


def passes(count, batch):
    """The indices of each step: steps of one size, the smallest that does it; the last index fills up."""
    steps = math.ceil(count / batch)
    size = math.ceil(count / steps)
    return [[min(step * size + i, count - 1) for i in range(size)] for step in range(steps)]


@pytest.mark.parametrize("batch", [1, 3, 7, 8, 100])
def test_rows_are_gathered_in_order_a_batch_at_a_time(batch):
    # What index i gives for the three images: i, i + 10, i + 20.
    step = Steps(lambda indices: tf.cast(indices[:, None] + tf.constant([0, 10, 20]), tf.float64))
    found = in_the_graph(lambda: gather_chunks(7, batch, step, tf.float64))
    np.testing.assert_array_equal(found, np.arange(7)[:, None] + [0.0, 10, 20])
    assert found.dtype == tf.float64
    assert (step.traced, step.ran) == (1, passes(7, batch))


@pytest.mark.parametrize("batch", [1, 3, 7, 8, 100])
def test_sums_are_over_every_index_once_a_batch_at_a_time(batch):
    def weighed(indices, weights):
        values = tf.cast(indices, tf.float32)
        return [tf.reduce_sum(weights * values) * IMAGES, tf.reduce_sum(weights * values**2)]

    step = Steps(weighed)
    zeros = [tf.zeros_like(IMAGES), tf.constant(0.0)]
    first, second = in_the_graph(lambda: sum_chunks(7, batch, step, zeros))
    np.testing.assert_array_equal(first, 21 * IMAGES)  # 0 + 1 + ... + 6
    assert second.numpy() == 91  # 0 + 1 + 4 + 9 + 16 + 25 + 36
    assert (step.traced, step.ran) == (1, passes(7, batch))


def test_sums_start_from_what_is_there_and_stay_there_without_an_index():
    step = Steps(lambda i, weights: [tf.reduce_sum(weights * tf.cast(i, tf.float32)) * IMAGES])
    for count, expected in [(0, IMAGES), (3, 4 * IMAGES)]:  # 1 + 0 + 1 + 2
        (found,) = in_the_graph(lambda count=count: sum_chunks(count, 2, step, [IMAGES]))
        np.testing.assert_array_equal(found, expected)
    assert step.ran == [[0, 1], [2, 2]]


def test_how_many_there_are_may_be_known_only_in_the_graph():
    @tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.int32), tf.TensorSpec([None, 2])])
    def compute(count, images):
        batch = copies_per_pass(4, images)
        rows = gather_chunks(
            count, batch, lambda i: tf.cast(i[:, None], tf.float32) * images[None, :, 0], tf.float32
        )
        sums = sum_chunks(count, batch, lambda _, weights: [tf.reduce_sum(weights) * images], [0 * images])
        return rows, *sums

    for count, images in [(5, IMAGES), (1, IMAGES[:1]), (9, IMAGES[:2])]:
        rows, total = compute(count, images)
        np.testing.assert_array_equal(rows, np.arange(count)[:, None] * images.numpy()[:, 0])
        np.testing.assert_array_equal(total, count * images)


def test_a_sum_keeps_the_shape_that_it_starts_with():
    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, 2])])
    def compute(images):
        (found,) = sum_chunks(3, 2, lambda _, weights: [tf.reduce_sum(weights) * images], [0 * images])
        assert found.shape.as_list() == [None, 2]
        return found

    np.testing.assert_array_equal(compute(IMAGES), 3 * IMAGES)


def test_a_step_that_gives_another_shape_than_the_sum_is_an_error():
    with pytest.raises(ValueError, match="shape"):
        in_the_graph(lambda: sum_chunks(3, 2, lambda *_: [tf.ones((3, 2, 2))], [IMAGES]))


def test_what_is_made_in_a_step_can_be_differentiated_in_it():
    def step(indices, weights):
        points = tf.cast(indices, tf.float32) + 1
        (slopes,) = tf.gradients(points**3, [points])
        return [tf.reduce_sum(weights * slopes)]

    (found,) = in_the_graph(lambda: sum_chunks(4, 3, step, [tf.constant(0.0)]))
    assert found.numpy() == 3 * (1 + 4 + 9 + 16)


@pytest.mark.parametrize("batch", [3, 4, 100])
def test_xla_compiles_both_loops(batch):
    def compute():
        rows = gather_chunks(7, batch, lambda i: tf.cast(i[:, None], tf.float32) * [[1.0, 2.0]], tf.float32)
        sums = sum_chunks(7, batch, lambda i, w: [sum_of_copies(_copies(i), IMAGES, w)], [0 * IMAGES])
        return rows, *sums

    rows, total = tf.function(compute, autograph=False, jit_compile=True)()
    np.testing.assert_array_equal(rows, np.arange(7)[:, None] * [1.0, 2.0])
    np.testing.assert_array_equal(total, 21 * IMAGES)


def _copies(indices):
    """Return the images times each index, one copy after another."""
    return tf.reshape(tf.cast(indices, tf.float32)[:, None, None] * IMAGES, [-1, 2])

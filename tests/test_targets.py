"""What is explained: the score and class index of every target, by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tf_gradcam import targets

LOGITS = tf.constant([[1.0, 5.0, 2.0], [4.0, -3.0, 0.0]])
OUTPUTS = tf.nn.softmax(LOGITS)


def score(target, outputs=OUTPUTS, logits=LOGITS):
    return targets.score(targets.per_image(target, 2), outputs, logits)


def test_no_target_is_each_images_own_predicted_class():
    value, index = score(None)
    assert (value.numpy().tolist(), index.numpy().tolist()) == ([5.0, 4.0], [1, 0])


@pytest.mark.parametrize("one", [2, np.int64(2), np.uint8(2), tf.constant(2)])
def test_one_class_is_explained_in_every_image(one):
    value, index = score(one)
    assert (value.numpy().tolist(), index.numpy().tolist()) == ([2.0, 0.0], [2, 2])


@pytest.mark.parametrize("each", [[0, 1], (0, 1), np.array([0, 1], np.int64), tf.constant([0, 1])])
def test_each_image_has_its_own_class(each):
    value, index = score(each)
    assert (value.numpy().tolist(), index.numpy().tolist()) == ([1.0, -3.0], [0, 1])


UNIT = tf.constant([[2.0], [-3.0]])


def test_a_sigmoid_unit_is_explained_for_the_side_it_falls_on():
    value, index = score(None, tf.sigmoid(UNIT), UNIT)
    assert (value.numpy().tolist(), index.numpy().tolist()) == ([2.0, 3.0], [1, 0])


@pytest.mark.parametrize(("side", "expected"), [(1, [2.0, -3.0]), (0, [-2.0, 3.0])])
@pytest.mark.parametrize("kind", [targets.Class, targets.Binary])
def test_either_side_of_a_sigmoid_unit_can_be_asked_for(kind, side, expected):
    value, index = score(kind(side), tf.sigmoid(UNIT), UNIT)
    assert (value.numpy().tolist(), index.numpy().tolist()) == (expected, [side, side])


def test_binary_explains_a_unit_without_sigmoid():
    value, index = score(targets.Binary(0), UNIT, UNIT)
    assert (value.numpy().tolist(), index.numpy().tolist()) == ([-2.0, 3.0], [0, 0])


def test_a_unit_without_sigmoid_is_explained_as_it_is():
    value, index = score(None, UNIT, UNIT)
    assert value.numpy().tolist() == [2.0, -3.0]
    assert index is None


def test_value_is_the_raw_output():
    value, index = score(targets.Value(1))
    np.testing.assert_array_equal(value, OUTPUTS[:, 1])
    assert index is None
    np.testing.assert_array_equal(score(targets.Value())[0], OUTPUTS[:, 0])


def test_a_callable_gets_what_the_model_returns():
    value, index = score(lambda outputs: outputs[:, 0] - outputs[:, 1])
    np.testing.assert_array_equal(value, OUTPUTS[:, 0] - OUTPUTS[:, 1])
    assert index is None


class Scorer:
    def score(self, outputs, logits):
        return outputs[:, 0], None


@pytest.mark.parametrize(
    "target",
    [
        *("cat", 1.5, True, [True, False], [1, None], [[1], [2, 3]], object(), Scorer(), targets.Value),
        *(targets.Class("cat"), targets.Class(1.5), targets.Class([None, 1]), targets.Value(0.5)),
        targets.Value(None),
    ],
)
def test_what_is_no_target_is_refused(target):
    with pytest.raises(TypeError, match="`target` must be None, a class"):
        targets.per_image(target, 2)


@pytest.mark.parametrize("target", [-1, [0, -2], np.array([-1, 0]), targets.Value(-1), tf.constant(-1)])
def test_a_negative_class_is_refused(target):
    with pytest.raises(ValueError, match="`target` must not be negative"):
        targets.per_image(target, 2)


@pytest.mark.parametrize(
    "target",
    [
        [1, 2, 3],
        [0],
        np.array([[0, 1]]),
        np.array([[0], [1]]),
        tf.ones((2, 1), tf.int32),
        targets.Value([1, 2, 0]),
    ],
)
def test_classes_that_are_not_one_for_each_image_are_refused(target):
    with pytest.raises(ValueError, match="`target` must (hold|be) one class"):
        targets.per_image(target, 2)


@pytest.mark.parametrize(
    ("target", "outputs", "limit"),
    [
        (3, OUTPUTS, 2),
        ([0, 10**12], OUTPUTS, 2),
        (targets.Value(3), OUTPUTS, 2),
        (2, tf.sigmoid(UNIT), 1),
        (targets.Binary(2), UNIT, 1),
        (targets.Value(1), UNIT, 0),
    ],
)
def test_a_class_that_the_model_does_not_have_is_refused(target, outputs, limit):
    target = targets.per_image(target, 2)
    with pytest.raises(ValueError, match=f"`target` must be a class from 0 to {limit}"):
        targets.check_range(target, tf.constant([0, 0]), outputs)


def test_a_class_of_a_unit_without_sigmoid_is_refused_with_what_to_say_instead():
    with pytest.raises(ValueError, match=r"single unit and no sigmoid.*targets.Value\(\)"):
        targets.check_range(targets.per_image(1, 2), None, UNIT)


@pytest.mark.parametrize("target", [None, 3, targets.Value()])
def test_a_map_of_classes_needs_a_callable(target):
    maps = tf.zeros((2, 8, 8, 3))
    with pytest.raises(ValueError, match="Give a callable"):
        score(target, maps, maps)


def test_several_units_are_not_binary():
    with pytest.raises(ValueError, match=r"returns \(N, 1\)"):
        score(targets.Binary(1))


@pytest.mark.parametrize("target", [None, 1])
def test_several_outputs_need_a_callable(target):
    with pytest.raises(ValueError, match="callable.*for a model with 2 outputs"):
        score(target, (OUTPUTS, OUTPUTS), (LOGITS, LOGITS))


def test_an_output_alone_in_a_list_is_no_matter():
    value, index = score(targets.Class(2), {"only": OUTPUTS, "not": []}, [LOGITS])
    assert (value.numpy().tolist(), index.numpy().tolist()) == ([2.0, 0.0], [2, 2])


@pytest.mark.parametrize("result", [OUTPUTS, tf.reduce_sum(OUTPUTS), 3.0])
def test_a_callable_must_return_one_number_per_image(result):
    with pytest.raises(ValueError, match=r"`target` must return one number per image"):
        score(lambda outputs: result)

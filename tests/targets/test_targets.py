"""What is explained: the score and class index of every target, by hand."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from tf_gradcam import targets
from tf_gradcam._targets import class_logits, pin_choices, score_target
from tf_gradcam._targets.rows import TARGETS, check_range, target_arrays, to_rows, with_arrays

LOGITS = tf.constant([[1.0, 5.0, 2.0], [4.0, -3.0, 0.0]])
OUTPUTS = tf.nn.softmax(LOGITS)


def score(target, outputs=OUTPUTS, logits=LOGITS, names=None):
    return score_target(to_rows(target, 2, names), outputs, logits)


def check(target, index, outputs):
    check_range(to_rows(target, 2), index, outputs)


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
        to_rows(target, 2)


@pytest.mark.parametrize("target", [-1, [0, -2], np.array([-1, 0]), targets.Value(-1), tf.constant(-1)])
def test_a_negative_class_is_refused(target):
    with pytest.raises(ValueError, match="`target` must not be negative"):
        to_rows(target, 2)


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
        to_rows(target, 2)


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
    target = to_rows(target, 2)
    with pytest.raises(ValueError, match=f"`target` must be a class from 0 to {limit}"):
        check_range(target, tf.constant([0, 0]), outputs)


def test_a_class_of_a_unit_without_sigmoid_is_refused_with_what_to_say_instead():
    with pytest.raises(ValueError, match=r"single unit and no sigmoid.*targets.Value\(\)"):
        check_range(to_rows(1, 2), None, UNIT)


@pytest.mark.parametrize("target", [targets.Value(), targets.Probability(), targets.Similarity([1.0])])
def test_a_map_of_classes_needs_a_callable(target):
    maps = tf.zeros((2, 8, 8, 3))
    with pytest.raises(ValueError, match="Give .*a callable"):
        score(target, maps, maps)


@pytest.mark.parametrize("target", [None, 3])
def test_one_number_per_image_has_no_classes(target):
    with pytest.raises(ValueError, match=r"needs a model that returns \(N, classes\).*Give a callable"):
        score(target, LOGITS[:, 0], LOGITS[:, 0])


def test_several_units_are_not_binary():
    with pytest.raises(ValueError, match=r"returns \(N, 1\)"):
        score(targets.Binary(1))


def test_an_output_alone_in_a_list_is_no_matter():
    value, index = score(targets.Class(2), {"only": OUTPUTS, "not": []}, [LOGITS])
    assert (value.numpy().tolist(), index.numpy().tolist()) == ([2.0, 0.0], [2, 2])


@pytest.mark.parametrize("result", [OUTPUTS[None], tf.reduce_sum(OUTPUTS), 3.0])
def test_a_callable_must_return_one_number_per_image(result):
    with pytest.raises(ValueError, match=r"`target` must return one number per image.* or several"):
        score(lambda outputs: result)


def test_a_callable_may_return_several_numbers_per_image():
    value, index = score(lambda outputs: outputs[:, :2])
    np.testing.assert_array_equal(value, OUTPUTS[:, :2])
    assert index is None


# Several classes at once.


@pytest.mark.parametrize(
    ("indices", "expected"),
    [([2, 0], [[2.0, 1.0], [0.0, 4.0]]), ([[2, 0], [1, 2]], [[2.0, 1.0], [-3.0, 0.0]])],
)
def test_several_classes_are_explained_at_once(indices, expected):
    value, index = score(targets.Classes(indices))
    assert value.numpy().tolist() == expected
    assert index.dtype == tf.int32
    assert index.numpy().tolist() == np.broadcast_to(indices, (2, 2)).tolist()


def test_both_sides_of_a_sigmoid_unit_are_explained_at_once():
    value, index = score(targets.Classes([0, 1]), tf.sigmoid(UNIT), UNIT)
    assert value.numpy().tolist() == [[-2.0, 2.0], [3.0, -3.0]]
    assert index.numpy().tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("indices", [3, [[[1]]], [[1, 2]] * 3, np.zeros((2, 0), int)])
def test_classes_that_are_not_a_row_for_each_image_are_refused(indices):
    with pytest.raises(ValueError, match="`target` must (hold|be) one row of classes"):
        to_rows(targets.Classes(indices), 2)


@pytest.mark.parametrize("indices", [None, "cat", [[1], [1, 2]], [0.5]])
def test_classes_that_are_no_whole_numbers_are_refused(indices):
    with pytest.raises(TypeError, match="`target` must have whole numbers as its indices"):
        to_rows(targets.Classes(indices), 2)


def test_the_best_classes_of_each_image_are_explained_best_first():
    value, index = score(targets.TopClasses(2))
    assert value.numpy().tolist() == [[5.0, 2.0], [4.0, 0.0]]
    assert index.dtype == tf.int32
    assert index.numpy().tolist() == [[1, 2], [0, 2]]


@pytest.mark.parametrize("count", [0, -1, 1.5, None, "2", True])
def test_a_number_of_best_classes_is_one_or_more(count):
    with pytest.raises(ValueError, match="`target` must ask for 1 class or more. Received: count="):
        to_rows(targets.TopClasses(count), 2)


def test_there_are_no_more_best_classes_than_classes():
    with pytest.raises(ValueError, match="at most the model's number of classes, 3. Received: TopClasses.4."):
        score(targets.TopClasses(4))


def test_a_unit_has_no_best_classes():
    with pytest.raises(ValueError, match="TopClasses as `target` needs"):
        score(targets.TopClasses(1), tf.sigmoid(UNIT), UNIT)


# Probabilities.


def test_a_probability_is_what_the_softmax_says():
    value, index = score(targets.Probability())
    np.testing.assert_allclose(value, [OUTPUTS[0, 1], OUTPUTS[1, 0]])
    assert index.numpy().tolist() == [1, 0]
    np.testing.assert_allclose(score(targets.Probability(2))[0], OUTPUTS[:, 2])


def test_a_probability_of_side_0_is_what_the_sigmoid_leaves():
    p = tf.sigmoid(UNIT).numpy()[:, 0]
    np.testing.assert_allclose(score(targets.Probability(0), tf.sigmoid(UNIT), UNIT)[0], 1 - p)
    value, index = score(targets.Probability(), tf.sigmoid(UNIT), UNIT)
    np.testing.assert_allclose(value, [p[0], 1 - p[1]])
    assert index.numpy().tolist() == [1, 0]


def test_a_model_without_softmax_or_sigmoid_has_no_probability():
    with pytest.raises(ValueError, match="Probability as `target`.*softmax or sigmoid.*Give a class, Value"):
        score(targets.Probability(), LOGITS, LOGITS)


# One of several outputs.

SEVERAL = {"animal": OUTPUTS, "size": UNIT}
SEVERAL_LOGITS = {"animal": LOGITS, "size": UNIT}


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (targets.Output("animal"), [5.0, 4.0]),
        (targets.Output("animal", 2), [2.0, 0.0]),
        (targets.Output("animal", [0, 1]), [1.0, -3.0]),
        (targets.Output("size", targets.Value()), [2.0, -3.0]),
        (targets.Output("size", targets.Against(targets.Value())), [-2.0, 3.0]),
        (targets.Output(0, targets.Classes([0, 1])), [[1.0, 5.0], [4.0, -3.0]]),
        (targets.Output(1), [2.0, -3.0]),
        (targets.Output("size", lambda outputs: 2 * outputs[:, 0]), [4.0, -6.0]),
    ],
)
def test_one_output_of_several_is_explained(output, expected):
    assert score(output, SEVERAL, SEVERAL_LOGITS)[0].numpy().tolist() == expected
    if not isinstance(output.name, str):
        outputs, logits = list(SEVERAL.values()), list(SEVERAL_LOGITS.values())
        assert score(output, outputs, logits)[0].numpy().tolist() == expected


def test_an_output_in_a_list_goes_by_the_models_name_for_it():
    value, _ = score(targets.Output("b"), [OUTPUTS, UNIT], [LOGITS, UNIT], names=["a", "b"])
    assert value.numpy().tolist() == [2.0, -3.0]


def test_a_key_goes_before_the_models_name():
    outputs = {"a": UNIT, "b": OUTPUTS}
    value, _ = score(targets.Output("a"), outputs, {"a": UNIT, "b": LOGITS}, names=["b", "a"])
    assert value.numpy().tolist() == [2.0, -3.0]


def test_an_output_may_hold_outputs():
    nested = targets.Output("heads", targets.Output("size"))
    outputs, logits = {"heads": SEVERAL, "mask": UNIT}, {"heads": SEVERAL_LOGITS, "mask": UNIT}
    assert score(nested, outputs, logits)[0].numpy().tolist() == [2.0, -3.0]
    nested = targets.Output("heads", lambda outputs: outputs["animal"][:, 0] + outputs["size"][:, 0])
    np.testing.assert_allclose(score(nested, outputs, None)[0], OUTPUTS[:, 0] + UNIT[:, 0])


@pytest.mark.parametrize(
    ("name", "outputs", "said"),
    [
        ("fur", SEVERAL, r"\['animal', 'size'\] or by a position from 0 to 1"),
        (2, SEVERAL, r"\['animal', 'size'\]"),
        (-1, SEVERAL, r"Received: Output\(-1\)"),
        ("fur", [OUTPUTS, UNIT], r"\['a', 'b'\]"),
    ],
)
def test_an_output_that_the_model_does_not_have_is_refused_with_those_it_has(name, outputs, said):
    with pytest.raises(ValueError, match=f"`target` must name one of the model's 2 outputs.*{said}"):
        score(targets.Output(name), outputs, outputs, names=["a", "b"])


@pytest.mark.parametrize("name", [None, 1.5, True, ["animal"]])
def test_an_output_goes_by_a_string_or_a_position(name):
    with pytest.raises(TypeError, match="`target` must name an output by a str or a position"):
        to_rows(targets.Output(name), 2)


@pytest.mark.parametrize("target", [None, 1, targets.Value(), targets.Region(), targets.Against()])
def test_several_outputs_are_refused_with_what_to_say(target):
    with pytest.raises(ValueError, match=r"which of the model's 2 outputs.*Output\(0, target\).*callable"):
        score(target, (OUTPUTS, OUTPUTS), (LOGITS, LOGITS))
    with pytest.raises(ValueError, match=r"\['animal', 'size'\]: targets.Output\('animal', target\)"):
        score(target, SEVERAL, SEVERAL_LOGITS)


# Embeddings.

EMBEDDINGS = tf.constant([[3.0, 4.0], [0.0, -2.0]])


@pytest.mark.parametrize(
    ("reference", "expected"),
    [([10.0, 0.0], [0.6, 0.0]), ([0, 1], [0.8, -1.0]), ([[3, 4], [1, -1]], [1.0, 0.5**0.5])],
)
@pytest.mark.parametrize("made", [np.array, tf.constant])
def test_similarity_is_the_cosine_of_the_angle_to_the_reference(reference, expected, made):
    value, index = score(targets.Similarity(made(reference)), EMBEDDINGS, EMBEDDINGS)
    np.testing.assert_allclose(value, expected, atol=1e-7)
    assert index is None


def test_an_embedding_of_zeros_has_no_direction_and_no_gradient():
    embeddings = tf.constant([[0.0, 0.0], [300.0, 400.0]], tf.float16)  # whose square float16 can't hold
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        value, _ = score(targets.Similarity([1.0, 0.0]), embeddings, embeddings)
    np.testing.assert_allclose(value, [0.0, 0.6], rtol=1e-6)
    gradients = tape.gradient(value, embeddings).numpy()
    assert gradients[0].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(gradients[1], [0.64 / 500, -0.48 / 500], rtol=1e-2)


def test_a_reference_of_another_length_is_refused():
    with pytest.raises(ValueError, match="`target` must have a reference as long .* 2. Received: 3 numbers"):
        score(targets.Similarity([1.0, 2.0, 3.0]), EMBEDDINGS, EMBEDDINGS)


@pytest.mark.parametrize("reference", [[0.0, 0.0], [np.nan, 1.0], [1e300, 0.0], []])
def test_a_reference_without_a_direction_is_refused(reference):
    with pytest.raises(ValueError, match="The reference of `target` must be finite and not all 0"):
        to_rows(targets.Similarity(reference), 2)


@pytest.mark.parametrize("reference", [None, "cat", [[1.0], [1.0, 2.0]], tf.constant(1j)])
def test_a_reference_that_is_no_vector_of_numbers_is_refused(reference):
    with pytest.raises(TypeError, match="`target` must have real numbers as its reference"):
        to_rows(targets.Similarity(reference), 2)


@pytest.mark.parametrize("reference", [np.ones((3, 4)), np.ones((1, 2, 4)), tf.ones((3, 4))])
def test_references_that_are_not_one_for_each_image_are_refused(reference):
    with pytest.raises(ValueError, match="`target` must (hold|be) one reference"):
        to_rows(targets.Similarity(reference), 2)


# Why this and not that.


@pytest.mark.parametrize(
    ("target", "expected", "of"),
    [
        (targets.Contrast(), [3.0, 4.0], [1, 0]),  # 5 - 2, 4 - 0
        (targets.Contrast(0), [-4.0, 4.0], [0, 0]),  # 1 - 5, 4 - 0
        (targets.Contrast(0, 2), [-1.0, 4.0], [0, 0]),
        (targets.Contrast(other=[0, 1]), [4.0, 7.0], [1, 0]),
        (targets.Contrast([2, 1], [0, 2]), [1.0, -3.0], [2, 1]),
    ],
)
def test_a_contrast_is_the_difference_of_two_logits(target, expected, of):
    value, index = score(target)
    assert (value.numpy().tolist(), index.numpy().tolist()) == (expected, of)


def test_a_contrast_of_a_class_with_itself_is_refused():
    with pytest.raises(ValueError, match="`target` must be two different classes"):
        check(targets.Contrast([0, 1], 1), tf.constant([0, 1]), OUTPUTS)
    check(targets.Contrast(), tf.constant([0, 1]), OUTPUTS)


def test_a_single_unit_has_no_contrast():
    with pytest.raises(ValueError, match="Contrast as `target`.*Give Binary"):
        score(targets.Contrast(), tf.sigmoid(UNIT), UNIT)


@pytest.mark.parametrize("target", [None, 2, targets.Classes([0, 2]), targets.Value(1), targets.Contrast()])
def test_against_a_target_is_minus_its_score(target):
    value, index = score(target)
    minus, of = score(targets.Against(target))
    np.testing.assert_array_equal(minus, -value)
    assert (of is None) if index is None else np.array_equal(of, index)


def test_against_a_callable_is_minus_what_it_returns():
    value, index = score_target(targets.Against(lambda outputs: outputs[:, 0]), OUTPUTS, None)
    np.testing.assert_array_equal(value, -OUTPUTS[:, 0])
    assert index is None


# Segmentation: two images of 2 x 3 pixels, three classes. The classes that are predicted:
# 0 0 1 and 2 2 2
# 2 0 1     1 2 2

PREDICTED = np.array([[[0, 0, 1], [2, 0, 1]], [[2, 2, 2], [1, 2, 2]]])
MAPS = tf.constant(np.eye(3)[PREDICTED] * 4 + np.arange(36).reshape(2, 2, 3, 3) / 16, tf.float32)
MASK = np.array([[True, False, False], [True, False, True]])


def summed(region, classes):
    """The sums of one class each over a region of each image, one pixel at a time."""
    region = np.broadcast_to(region, (2, 2, 3))
    pixels = [[(i, *where) for where in np.argwhere(region[i])] for i in range(2)]
    return [sum(float(MAPS[(*pixel, k)]) for pixel in each) for each, k in zip(pixels, classes, strict=True)]


@pytest.mark.parametrize("target", [None, targets.Region()])
def test_a_segmentation_is_explained_for_the_class_it_predicts_most(target):
    value, index = score(target, tf.nn.softmax(MAPS), MAPS)
    assert index.numpy().tolist() == [0, 2]
    assert index.dtype == tf.int32
    assert value.numpy().tolist() == summed(PREDICTED == [[[0]], [[2]]], [0, 2])


@pytest.mark.parametrize("target", [1, targets.Class(1), targets.Region(1), targets.Region([1, 1])])
def test_a_class_of_a_segmentation_is_summed_over_where_it_is_predicted(target):
    value, index = score(target, MAPS, MAPS)
    assert index.numpy().tolist() == [1, 1]
    assert value.numpy().tolist() == summed(PREDICTED == 1, [1, 1])


def test_a_class_that_is_predicted_nowhere_scores_nothing():
    value, index = score([0, 0], MAPS, MAPS)
    assert value.numpy().tolist() == [summed(PREDICTED == 0, [0, 0])[0], 0.0]
    assert index.numpy().tolist() == [0, 0]


def test_several_classes_of_a_segmentation_are_explained_at_once():
    value, index = score(targets.Classes([1, 2]), MAPS, MAPS)
    expected = [summed(k == PREDICTED, [k, k]) for k in (1, 2)]
    np.testing.assert_array_equal(value, np.transpose(expected))
    assert index.numpy().tolist() == [[1, 2], [1, 2]]


@pytest.mark.parametrize("mask", [MASK, MASK.astype(int), tf.constant(MASK), MASK[None].repeat(2, 0)])
def test_a_mask_limits_the_score_to_its_pixels(mask):
    value, index = score(targets.Region(1, mask), MAPS, MAPS)
    assert value.numpy().tolist() == summed(MASK, [1, 1])
    assert index.numpy().tolist() == [1, 1]


def test_each_image_has_its_own_mask():
    mask = np.stack([MASK, ~MASK])
    value, _ = score(targets.Region([0, 2], mask), MAPS, MAPS)
    assert value.numpy().tolist() == summed(mask, [0, 2])


def test_a_mask_weighs_its_pixels():
    value, _ = score(targets.Region(0, 0.5 * MASK), MAPS, MAPS)
    np.testing.assert_array_equal(value, np.divide(summed(MASK, [0, 0]), 2))


def test_a_mask_is_explained_for_the_class_that_is_predicted_most_inside_it():
    mask = np.zeros((2, 3))
    mask[1, 0] = 1  # where the images show 2 and 1
    assert score(targets.Region(mask=mask), MAPS, MAPS)[1].numpy().tolist() == [2, 1]
    mask[0, 0] = 3  # and 0 and 2
    assert score(targets.Region(mask=mask), MAPS, MAPS)[1].numpy().tolist() == [0, 2]


def test_what_is_outside_the_mask_may_be_infinite():
    maps = tf.tensor_scatter_nd_update(MAPS, [[0, 0, 1, 1]], [-np.inf])
    value, _ = score(targets.Region(1, MASK), maps, maps)
    assert value.numpy().tolist() == summed(MASK, [1, 1])


def test_a_sum_over_many_pixels_does_not_overflow_in_float16():
    maps = tf.fill((2, 32, 32, 2), tf.constant(100.0, tf.float16))
    assert score(0, maps, maps)[0].numpy().tolist() == [102400.0, 102400.0]


@pytest.mark.parametrize("axes", [1, 3])
def test_signals_and_volumes_are_segmented_too(axes):
    shape = [2, *{1: [6], 3: [2, 1, 3]}[axes]]
    maps, mask = tf.reshape(MAPS, [*shape, 3]), MASK.reshape(shape[1:])
    np.testing.assert_array_equal(score(None, maps, maps)[0], score(None, MAPS, MAPS)[0])
    masked = score(targets.Region(1, mask), maps, maps)[0]
    np.testing.assert_array_equal(masked, score(targets.Region(1, MASK), MAPS, MAPS)[0])


YES_OR_NO = tf.constant([[[1.0, -2.0], [-4.0, -8.0]], [[-1.0, -1.0], [-2.0, -4.0]]])[..., None]


@pytest.mark.parametrize(
    ("index", "expected", "of"),
    [(None, [1.0, 8.0], [1, 0]), (1, [1.0, 0.0], [1, 1]), (0, [14.0, 8.0], [0, 0])],
)
@pytest.mark.parametrize("kind", [targets.Class, targets.Region, targets.Binary])
def test_a_map_of_a_sigmoid_is_explained_for_either_side(kind, index, expected, of):
    value, best = score(kind(index), tf.sigmoid(YES_OR_NO), YES_OR_NO)
    assert (value.numpy().tolist(), best.numpy().tolist()) == (expected, of)


def test_binary_explains_a_map_without_sigmoid():
    assert score(targets.Binary(0), YES_OR_NO, YES_OR_NO)[0].numpy().tolist() == [14.0, 8.0]


def test_a_sigmoids_side_is_summed_over_a_mask():
    mask = np.array([[1, 1], [0, 0]])
    value, index = score(targets.Region(None, mask), tf.sigmoid(YES_OR_NO), YES_OR_NO)
    assert (value.numpy().tolist(), index.numpy().tolist()) == ([-1.0, 2.0], [1, 0])


@pytest.mark.parametrize("target", [None, 1, targets.Region()])
def test_a_channel_without_sigmoid_has_no_predicted_region(target):
    with pytest.raises(ValueError, match=r"Give Binary for yes or no, Region\(mask=mask\), or a callable"):
        score(target, YES_OR_NO, YES_OR_NO)


def test_a_channel_without_sigmoid_is_summed_over_a_mask_as_it_is():
    target = targets.Region(mask=np.array([[1, 0], [1, 0]]))
    value, index = score(target, YES_OR_NO, YES_OR_NO)
    assert value.numpy().tolist() == [-3.0, -3.0]
    assert index is None
    check(target, None, YES_OR_NO)
    with pytest.raises(ValueError, match="no sigmoid"):
        check(target._replace(index=1), None, YES_OR_NO)


@pytest.mark.parametrize("shape", [(3, 2), (2, 1), (1, 2, 3), (3, 2, 3), (2, 2, 3, 1), (6,), ()])
def test_a_mask_of_another_grid_is_refused(shape):
    target = targets.Region(1, np.ones(shape))
    with pytest.raises(ValueError, match=r"a mask on the grid of the model's outputs, \(2, 3\).*Resize it"):
        check(target, tf.constant([1, 1]), MAPS)


@pytest.mark.parametrize(
    "mask", [np.zeros((2, 3)), np.full((2, 3), -1), np.full((2, 3), np.nan), np.ones((2, 0))]
)
def test_a_mask_that_weighs_nothing_is_refused(mask):
    with pytest.raises(ValueError, match="The mask of `target` must hold weights of 0 or more, not all 0"):
        to_rows(targets.Region(1, mask), 2)


def test_a_mask_for_all_images_stays_one_while_it_is_traced():
    target = to_rows(targets.Region(1, MASK), 2)

    @tf.function(autograph=False)
    def explain(maps, index, mask):
        goal = to_rows(with_arrays(target, [index, mask]), tf.shape(maps)[0])
        return score_target(goal, maps, maps)[0]

    specs = [tf.TensorSpec([None, 2, 3, 3]), tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, 3])]
    compiled = explain.get_concrete_function(*specs)
    for mask in (MASK, ~MASK):
        value = compiled(MAPS, tf.constant([1, 0]), tf.cast(mask, tf.float32))
        assert value.numpy().tolist() == summed(mask, [1, 0])


def test_a_mask_is_checked_at_run_time_where_the_grid_is_open():
    target = to_rows(targets.Region(1, np.ones((1, 1))), 2)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])], autograph=False)
    def explain(maps):
        return score_target(target, maps, maps)[0]

    with pytest.raises(tf.errors.InvalidArgumentError, match="`target` must have a mask on the grid"):
        explain(MAPS)
    np.testing.assert_array_equal(explain(MAPS[:, 1:, 2:]), MAPS[:, 1, 2, 1])


def test_a_classifier_has_no_regions():
    with pytest.raises(ValueError, match="Region as `target`.*Give a class instead"):
        score(targets.Region())


@pytest.mark.parametrize(
    ("target", "expected", "of"),
    [
        (targets.Pixel((0, 2)), [MAPS[0, 0, 2, 1], MAPS[1, 0, 2, 2]], [1, 2]),
        (targets.Pixel((1, 0), 1), [MAPS[0, 1, 0, 1], MAPS[1, 1, 0, 1]], [1, 1]),
        (targets.Pixel([(0, 0), (1, 1)], [2, 0]), [MAPS[0, 0, 0, 2], MAPS[1, 1, 1, 0]], [2, 0]),
    ],
)
def test_one_pixel_is_explained(target, expected, of):
    value, index = score(target, tf.nn.softmax(MAPS), MAPS)
    np.testing.assert_array_equal(value, expected)
    assert index.numpy().tolist() == of


def test_a_pixel_of_a_single_channel_is_as_a_single_unit():
    value, index = score(targets.Pixel((0, 0)), tf.sigmoid(YES_OR_NO), YES_OR_NO)
    assert (value.numpy().tolist(), index.numpy().tolist()) == ([1.0, 1.0], [1, 0])
    value, index = score(targets.Pixel((0, 0)), YES_OR_NO, YES_OR_NO)
    assert (value.numpy().tolist(), index) == ([1.0, -1.0], None)


@pytest.mark.parametrize("position", [(0,), (0, 0, 0)])
def test_a_pixel_has_a_number_for_each_axis(position):
    with pytest.raises(ValueError, match="a grid of . axes.*one number for each axis"):
        score(targets.Pixel(position), MAPS, MAPS)


@pytest.mark.parametrize("position", [(2, 0), (0, 3), [(0, 0), (1, 7)], (10**12, 0)])
def test_a_pixel_that_is_not_on_the_grid_is_refused(position):
    with pytest.raises(
        ValueError, match=r"must be a position from \[0, 0\] to \[1, 2\]. Received: position="
    ):
        check(targets.Pixel(position), tf.constant([0, 0]), MAPS)


# Detection: three boxes, two classes.

BOXES = tf.constant(
    [[[0, 0, 4, 4], [2, 0, 6, 4], [8, 8, 9, 9.0]], [[1, 1, 2, 2], [3, 3, 3, 3], [0, 0, 8, 8.0]]]
)
SCORES = tf.constant([[[1.0, 2.0], [4.0, 3.0], [5.0, 6.0]], [[-1.0, -2.0], [-3.0, -4.0], [-6.0, -5.0]]])
HEADS = {
    "one tensor": tf.concat([BOXES, SCORES], axis=-1),
    "a pair": (BOXES, SCORES),
    "a pair, scores first": [SCORES, BOXES],
    "a dict": {"boxes": BOXES, "scores": SCORES},
    "a dict, boxes last": {"boxes": BOXES, "a": SCORES},
    "a dict by other names": {"where": BOXES, "what": SCORES},
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize(
    ("target", "expected", "of"),
    [
        (targets.Detection(1), [4.0, -3.0], [0, 0]),
        (targets.Detection([2, 0], [0, 1]), [5.0, -2.0], [0, 1]),
        (targets.Box((3, 0, 6, 4)), [4.0, -5.0], [0, 1]),  # overlaps 1/7, 3/4, 0; and 0, 0, 12/64
        (targets.Box([(0, 0, 3, 4), (1, 1, 2, 2)], 1), [2.0, -2.0], [1, 1]),
        (targets.Box((8, 8, 10, 10)), [6.0, 0.0], [1, 0]),  # which touches no box of the second image
    ],
)
def test_a_box_is_explained_in_every_usual_head(head, target, expected, of):
    value, index = score(target, head, head)
    assert (value.numpy().tolist(), index.numpy().tolist()) == (expected, of)
    check(target, index, head)


def test_the_class_of_a_box_is_its_logit():
    outputs, logits = {"boxes": BOXES, "scores": tf.nn.softmax(SCORES)}, {"boxes": BOXES, "scores": SCORES}
    assert score(targets.Box((0, 0, 3, 4)), outputs, logits)[0].numpy().tolist() == [2.0, -5.0]
    # Boxes that come out of a sigmoid are still boxes.
    logits["boxes"] = tf.zeros_like(BOXES)
    assert score(targets.Box((0, 0, 3, 4)), outputs, logits)[0].numpy().tolist() == [2.0, -5.0]


@pytest.mark.parametrize("kind", [targets.Detection, targets.Box])
def test_other_heads_are_split_by_a_callable(kind):
    head = {"yx": tf.gather(BOXES, [1, 0, 3, 2], axis=-1), "p": SCORES, "more": UNIT}

    def split(outputs):
        return tf.gather(outputs["yx"], [1, 0, 3, 2], axis=-1), outputs["p"]

    target = kind(1, split=split) if kind is targets.Detection else kind((3, 0, 6, 4), split=split)
    value, _ = score(target, head, head)
    assert value.numpy().tolist() == ([4.0, -3.0] if kind is targets.Detection else [4.0, -5.0])
    with pytest.raises(
        ValueError, match=r"Detection or Box as `target`.*Give split, a callable outputs -> \(boxes, scores\)"
    ):
        score(target._replace(split=None), head, head)


def test_a_detector_of_one_class_has_no_sides():
    head = BOXES, SCORES[..., :1]
    outputs = BOXES, tf.sigmoid(SCORES[..., :1])
    value, index = score(targets.Detection(0), outputs, head)
    assert (value.numpy().tolist(), index.numpy().tolist()) == ([1.0, -1.0], [0, 0])


@pytest.mark.parametrize(
    "head",
    [BOXES, OUTPUTS, (BOXES, SCORES[..., 0]), (SCORES, SCORES), {"boxes": BOXES, "a": SCORES, "b": SCORES}],
)
def test_what_is_no_detector_is_refused(head):
    with pytest.raises(ValueError, match="Detection or Box as `target` needs a model that returns boxes"):
        score(targets.Detection(0), head, head)


@pytest.mark.parametrize(
    "box",
    [(4, 0, 4, 4), (0, 4, 4, 0), (0, 0, 1), (0, 0, np.inf, 1), [(0, 0, 1, 1), (1, 1, 0, 0)], 3, tf.ones(6)],
)
def test_a_box_without_an_area_is_refused(box):
    with pytest.raises(ValueError, match=r"The box of `target` must be corners \(x1, y1, x2, y2\)"):
        to_rows(targets.Box(box), 2)


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_box_or_class_that_the_detector_does_not_have_is_refused(head):
    with pytest.raises(ValueError, match="`target` must be a box from 0 to 2. Received: anchor=3"):
        check(targets.Detection(3), tf.constant([0, 0]), head)
    for target in (targets.Detection(0, 2), targets.Box((0, 0, 1, 1), 2)):
        with pytest.raises(ValueError, match="`target` must be a class from 0 to 1. Received: target=2"):
            check(target, tf.constant([0, 0]), head)


def test_a_split_must_be_callable():
    with pytest.raises(TypeError, match="`target` must have a callable as split. Received: split='yx'"):
        to_rows(targets.Box((0, 0, 1, 1), split="yx"), 2)


def test_boxes_are_told_by_their_name_where_both_parts_have_four_columns():
    boxes, scores = tf.zeros((2, 3, 4)), tf.reshape(tf.range(24.0), (2, 3, 4))
    for outputs in (
        {"classification": scores, "regression": boxes},
        {"bbox": boxes, "cls": scores},
        {"zlabels": scores, "boxes": boxes},
    ):
        value, index = score(targets.Detection(1), outputs, outputs)
        assert (value.numpy().tolist(), index.numpy().tolist()) == ([7.0, 19.0], [3, 3])
    for outputs in ([boxes, scores], {"a": boxes, "b": scores}):
        with pytest.raises(ValueError, match="both have four columns. Give split"):
            score(targets.Detection(1), outputs, outputs)


def test_names_of_the_model_are_not_looked_up_inside_one_of_its_outputs():
    outputs = {"a": LOGITS, "b": [LOGITS + 1, LOGITS + 2]}
    inner = targets.Output("b", targets.Output(1, 2))
    value, _ = score(inner, outputs, outputs, ["a", "s", "t"])
    assert value.numpy().tolist() == [4.0, 2.0]
    with pytest.raises(ValueError, match="`target` must name one of the model's 2 outputs"):
        score(targets.Output("b", targets.Output("s", 2)), outputs, outputs, ["a", "s", "t"])


# Choices that are left to the model, made once: for other outputs they stay as they are.


class Seen(NamedTuple):
    """What a model returned for two images, and its logits."""

    outputs: Any
    logits: Any


def classified(logits, squash=tf.nn.softmax):
    logits = tf.constant(logits)
    return Seen(squash(logits), logits)


# First and then: classes 1 and 0 are predicted, and then 2 and 1.
CLASSES = classified(LOGITS), classified([[7.0, 1.0, 9.0], [0.0, 6.0, 2.0]])
NAMED = [Seen({"a": each.outputs, "b": UNIT}, {"a": each.logits, "b": UNIT}) for each in CLASSES]
# Sides 1 and 0, and then the others.
SIDES = classified(UNIT, tf.sigmoid), classified([[-1.0], [4.0]], tf.sigmoid)
SEGMENTS = classified(MAPS), classified(tf.reverse(MAPS, [0, 1, 3]) - 1)
MASKS = classified(YES_OR_NO, tf.sigmoid), classified(tf.reverse(-YES_OR_NO, [2]) + 0.5, tf.sigmoid)
DETECTED = [
    Seen((boxes, scores), (boxes, scores))
    for boxes, scores in [(BOXES, SCORES), (tf.reverse(BOXES, [1]), 10 - 2 * SCORES)]
]


def over(region, classes, maps):
    """The sums of one class each, over the region of each image."""
    maps = maps[1].logits.numpy()
    region = np.broadcast_to(region, maps.shape[:-1])
    return [float(np.sum(maps[i][region[i]][:, classes[i]])) for i in range(2)]


FIXED = [
    (None, CLASSES, [1, 0]),
    (targets.Class([2, 1]), CLASSES, [9, 6]),
    (targets.Classes([[0, 1], [2, 1]]), CLASSES, [[7, 1], [2, 6]]),
    (targets.TopClasses(2), CLASSES, [[1, 9], [0, 2]]),
    (targets.Probability(), CLASSES, [CLASSES[1].outputs[0, 1], CLASSES[1].outputs[1, 0]]),
    (targets.Value(2), CLASSES, CLASSES[1].outputs[:, 2]),
    # Against the runner-up, which is 2 in both.
    (targets.Contrast(), CLASSES, [1 - 9, 0 - 2]),
    (targets.Contrast(0), CLASSES, [7 - 1, 0 - 2]),
    (targets.Contrast(other=[0, 1]), CLASSES, [1 - 7, 0 - 6]),
    (targets.Against(), CLASSES, [-1, 0]),
    (targets.Against(targets.Contrast()), CLASSES, [8, 2]),
    (targets.Similarity([0.0, 0.0, 2.0]), (CLASSES[0], Seen(CLASSES[1].logits, None)), None),
    (lambda outputs: 2 * outputs[:, 0], CLASSES, 2 * CLASSES[1].outputs[:, 0]),
    (targets.Output("a"), NAMED, [1, 0]),
    (targets.Output("a", targets.Against(targets.Contrast())), NAMED, [8, 2]),
    (targets.Against(targets.Output("a")), NAMED, [-1, 0]),
    (targets.Output("a", lambda outputs: outputs[:, 0]), NAMED, CLASSES[1].outputs[:, 0]),
    (None, SIDES, [-1, -4]),
    (targets.Binary(), SIDES, [-1, -4]),
    (targets.Binary(1), SIDES, [-1, 4]),
    (targets.Against(targets.Binary()), SIDES, [1, 4]),
    (targets.Probability(), SIDES, tf.sigmoid([-1.0, -4.0])),
    # Where class 0 was predicted in the first image, and 2 in the second.
    (None, SEGMENTS, over(PREDICTED == [[[0]], [[2]]], [0, 2], SEGMENTS)),
    (targets.Region(), SEGMENTS, over(PREDICTED == [[[0]], [[2]]], [0, 2], SEGMENTS)),
    (targets.Class(1), SEGMENTS, over(PREDICTED == 1, [1, 1], SEGMENTS)),
    (targets.Region(mask=MASK), SEGMENTS, over(MASK, [0, 2], SEGMENTS)),
    (targets.Region(1, np.stack([MASK, ~MASK])), SEGMENTS, over(np.stack([MASK, ~MASK]), [1, 1], SEGMENTS)),
    (
        targets.Against(targets.Region()),
        SEGMENTS,
        -np.array(over(PREDICTED == [[[0]], [[2]]], [0, 2], SEGMENTS)),
    ),
    (
        targets.Classes([1, 2]),
        SEGMENTS,
        np.transpose([over(index == PREDICTED, [index, index], SEGMENTS) for index in (1, 2)]),
    ),
    # Side 1 of one pixel of the first image, and side 0 of all four of the second.
    (targets.Binary(), MASKS, [MASKS[1].logits[0, 0, 0, 0], -tf.reduce_sum(MASKS[1].logits[1])]),
    (targets.Region(), MASKS, [MASKS[1].logits[0, 0, 0, 0], -tf.reduce_sum(MASKS[1].logits[1])]),
    (
        targets.Pixel((0, 2)),
        SEGMENTS,
        [SEGMENTS[1].logits[0, 0, 2, 1], SEGMENTS[1].logits[1, 0, 2, 2]],
    ),
    (targets.Detection(1), DETECTED, [10 - 2 * 4, 10 + 2 * 3]),
    # The second box of the first image and the third of the second, of classes 0 and 1.
    (targets.Box((3, 0, 6, 4)), DETECTED, [10 - 2 * 4, 10 + 2 * 5]),
    # The third box and none, of which nothing counts.
    (targets.Box((8, 8, 10, 10)), DETECTED, [10 - 2 * 6, 0]),
]


def fixed_on(target, first):
    return pin_choices(to_rows(target, 2, ["a", "b"]), first.outputs, first.logits)


@pytest.mark.parametrize(("target", "seen", "expected"), FIXED)
def test_a_choice_once_made_holds_for_other_outputs(target, seen, expected):
    first, then = seen
    fixed = fixed_on(target, first)
    value, _ = score_target(fixed, then.outputs, then.logits)
    if isinstance(target, targets.Similarity):
        expected = score(target, then.outputs, then.logits)[0]
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize(("target", "seen", "expected"), FIXED)
def test_a_choice_once_made_is_the_one_that_was_made(target, seen, expected):
    first, _ = seen
    found, wanted = (
        score_target(each, first.outputs, first.logits)
        for each in (fixed_on(target, first), to_rows(target, 2, ["a", "b"]))
    )
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("target", "seen", "expected"), FIXED)
def test_what_is_fixed_has_a_row_for_each_image(target, seen, expected):
    """So that copies of the batch get copies of it."""
    numbers = target_arrays(fixed_on(target, seen[0]))
    assert all(each.shape[0] == 2 for each in numbers)


def test_every_target_can_be_fixed():
    kinds = {type(target) for target, _, _ in FIXED}
    assert kinds >= set(TARGETS)


# The logits that a class is one of


@pytest.mark.parametrize(
    ("target", "seen", "expected"),
    [
        (None, CLASSES[0], LOGITS),
        (2, CLASSES[0], LOGITS),
        (targets.Classes([0, 1]), CLASSES[0], LOGITS),
        (targets.Output("a"), NAMED[0], LOGITS),
        (targets.Output("a", targets.Output(0, 1)), NAMED[0], LOGITS),
        (targets.Output("b"), NAMED[0], None),  # a single unit
        (targets.Class(1), SIDES[0], None),
        (targets.Against(), CLASSES[0], None),
        (targets.Contrast(), CLASSES[0], None),
        (targets.Probability(), CLASSES[0], None),
        (targets.Value(), CLASSES[0], None),
        (lambda outputs: outputs[:, 0], CLASSES[0], None),
        (targets.Output("a", lambda outputs: outputs[:, 0]), NAMED[0], None),
        (None, SEGMENTS[0], None),
        (targets.Classes([0, 1]), SEGMENTS[0], None),
        (targets.Detection(0), DETECTED[0], None),
    ],
)
def test_only_a_class_is_one_of_several_logits(target, seen, expected):
    for fix in (False, True):
        goal = fixed_on(target, seen) if fix else to_rows(target, 2, ["a", "b"])
        found = class_logits(goal, seen.outputs, seen.logits)
        assert (found is None) == (expected is None)
        if expected is not None:
            np.testing.assert_array_equal(found, expected)


def test_logits_of_a_class_are_wide():
    half = tf.cast(LOGITS, tf.float16)
    target = to_rows(0, 2)
    assert class_logits(target, half, half).dtype == tf.float32
    assert class_logits(target, LOGITS, tf.cast(LOGITS, tf.float64)).dtype == tf.float64

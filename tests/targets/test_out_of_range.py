"""A class, unit, box or pixel that the model doesn't have: an error in a graph, never another's answer."""

import numpy as np
import pytest
import tensorflow as tf
from test_targets import HEADS, LOGITS, MAPS, MASK, OUTPUTS, SEVERAL, SEVERAL_LOGITS, UNIT

from tf_gradcam import targets
from tf_gradcam._targets import score_target, to_rows

# Function from the numbers of two images to a target; numbers that are in range, and some of which the second
# image's are not; outputs and logits.
CASES = {
    "Class": (targets.Class, [2, 0], [2, 3], OUTPUTS, LOGITS),
    "Class, negative": (targets.Class, [2, 0], [2, -1], OUTPUTS, LOGITS),
    "Class of 64 bits": (targets.Class, np.array([2, 0]), np.array([2, 2**32]), OUTPUTS, LOGITS),
    "Class of a segmentation": (targets.Class, [2, 0], [2, 7], MAPS, MAPS),
    "Classes": (targets.Classes, [[0, 1], [2, 1]], [[0, 1], [2, 3]], OUTPUTS, LOGITS),
    "Classes of a sigmoid unit": (
        targets.Classes,
        [[0, 1], [1, 1]],
        [[0, 1], [1, 2]],
        tf.sigmoid(UNIT),
        UNIT,
    ),
    "Binary": (targets.Binary, [1, 0], [1, 2], UNIT, UNIT),
    "Probability": (targets.Probability, [1, 2], [1, 3], OUTPUTS, LOGITS),
    "Value": (targets.Value, [2, 0], [2, 3], OUTPUTS, LOGITS),
    "Output": (lambda index: targets.Output("animal", index), [1, 2], [1, 9], SEVERAL, SEVERAL_LOGITS),
    "Contrast": (targets.Contrast, [0, 1], [0, 3], OUTPUTS, LOGITS),
    "other of a Contrast": (lambda other: targets.Contrast(0, other), [2, 1], [2, 3], OUTPUTS, LOGITS),
    "Against": (lambda index: targets.Against(targets.Class(index)), [0, 1], [0, 3], OUTPUTS, LOGITS),
    "Region": (targets.Region, [1, 2], [1, 3], MAPS, MAPS),
    "Region in a mask": (lambda index: targets.Region(index, MASK), [1, 2], [1, 3], MAPS, MAPS),
    "Pixel": (targets.Pixel, [(0, 0), (1, 1)], [(0, 0), (1, 5)], MAPS, MAPS),
    "class at a Pixel": (lambda index: targets.Pixel((0, 1), index), [1, 2], [1, 3], MAPS, MAPS),
    "Detection": (targets.Detection, [2, 0], [2, 3], *[HEADS["a pair"]] * 2),
    "class of a Detection": (
        lambda index: targets.Detection(0, index),
        [1, 0],
        [1, 2],
        *[HEADS["a pair"]] * 2,
    ),
    "class of a Box": (
        lambda index: targets.Box((0, 0, 3, 4), index),
        [1, 0],
        [1, 2],
        *[HEADS["a pair"]] * 2,
    ),
}
BY_XLA = ["Class", "Classes", "Contrast", "Region", "Detection"]


def gradient_function(make, outputs, logits, **options):
    """Return the function from numbers to the gradients of the score, in which nothing needs the score."""

    def gradient(numbers):
        with tf.GradientTape() as tape:
            watched = tf.nest.map_structure(tf.identity, [outputs, logits])
            tape.watch(tf.nest.flatten(watched))
            # `logits is outputs` says that there is no sigmoid.
            given = [watched[1], watched[1]] if logits is outputs else watched
            value, _ = score_target(to_rows(make(numbers), 2), *given)
        found = tape.gradient(value, tf.nest.flatten(watched))
        return [tf.convert_to_tensor(each) for each in found if each is not None]

    return tf.function(gradient, autograph=False, **options)


@pytest.mark.parametrize("case", CASES)
def test_a_graph_says_what_the_model_does_not_have(case):
    make, good, bad, outputs, logits = CASES[case]
    gradient = gradient_function(make, outputs, logits)
    assert any(np.any(each) for each in gradient(tf.constant(good)))
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="`target` must be a (class|unit|pixel|box) that"
    ):
        gradient(tf.constant(bad))


@pytest.mark.parametrize("case", BY_XLA)
def test_xla_which_has_no_checks_gives_that_image_nan_and_the_others_theirs(case):
    make, good, bad, outputs, logits = CASES[case]
    gradient = gradient_function(make, outputs, logits, jit_compile=True)
    for right, wrong in zip(gradient(tf.constant(good)), gradient(tf.constant(bad)), strict=True):
        np.testing.assert_array_equal(wrong[0], right[0])
        assert np.isnan(wrong[1]).any()


@pytest.mark.parametrize(
    ("make", "outputs"), [(targets.Class, UNIT), (lambda index: targets.Region(index, MASK), MAPS[..., :1])]
)
def test_a_graph_says_that_a_unit_without_sigmoid_has_no_classes(make, outputs):
    function = tf.function(
        lambda index: score_target(to_rows(make(index), 2), outputs, outputs), autograph=False
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="`target` must be None: the model has a single"):
        function(tf.constant([0, 0]))


def test_one_class_in_a_graph_is_not_taken_for_all_images():
    spec = tf.TensorSpec([None], tf.int32)

    @tf.function(autograph=False, input_signature=[spec])
    def score(index):
        return score_target(to_rows(index, tf.shape(LOGITS)[0]), OUTPUTS, LOGITS)[0]

    assert score(tf.constant([2, 1])).shape == 2
    with pytest.raises(tf.errors.InvalidArgumentError, match="`target` must hold one class for each image"):
        score(tf.constant([1]))


def test_eagerly_a_class_is_picked_with_the_gradient_that_a_graph_gives_it():
    def explain(logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            score, index = score_target(to_rows([2, 0], 2), tf.nn.softmax(logits), logits)
        return score, index, tape.gradient(score, logits)

    for eagerly, in_graph in zip(explain(LOGITS), tf.function(explain)(LOGITS), strict=True):
        np.testing.assert_array_equal(eagerly, in_graph)
    with pytest.raises(tf.errors.InvalidArgumentError, match="`target` must be a class"):
        score_target(to_rows([2, 3], 2), OUTPUTS, LOGITS)

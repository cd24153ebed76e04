"""A target on its way into the compiled function: checked, a row for each image, its numbers apart."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_targets import (
    EMBEDDINGS,
    HEADS,
    LOGITS,
    MAPS,
    MASK,
    OUTPUTS,
    SEVERAL,
    SEVERAL_LOGITS,
    UNIT,
    YES_OR_NO,
    check,
    score,
)

from tf_gradcam import targets
from tf_gradcam._targets import score_target
from tf_gradcam._targets.rows import (
    check_range,
    holds_callable,
    refers_to_dead_callable,
    target_arrays,
    to_rows,
    trace_key,
    with_arrays,
)

EVERY = [
    (None, OUTPUTS, LOGITS),
    (targets.Class([2, 0]), OUTPUTS, LOGITS),
    (targets.Classes([[0, 1], [2, 1]]), OUTPUTS, LOGITS),
    (targets.TopClasses(2), OUTPUTS, LOGITS),
    (targets.Binary([1, 0]), UNIT, UNIT),
    (targets.Probability([1, 2]), OUTPUTS, LOGITS),
    (targets.Value([2, 0]), OUTPUTS, LOGITS),
    (targets.Output("animal", [1, 2]), SEVERAL, SEVERAL_LOGITS),
    (targets.Similarity([[1.0, 1.0], [2.0, -1.0]]), EMBEDDINGS, EMBEDDINGS),
    (targets.Contrast([0, 1], [2, 0]), OUTPUTS, LOGITS),
    (targets.Against(targets.Contrast([0, 1])), OUTPUTS, LOGITS),
    (targets.Region([1, 2]), MAPS, MAPS),
    (targets.Region([1, 2], np.stack([MASK, ~MASK])), MAPS, MAPS),
    (targets.Pixel([(0, 0), (1, 1)], [2, 0]), MAPS, MAPS),
    (targets.Detection([2, 0], [0, 1]), HEADS["a pair"], HEADS["a pair"]),
    (targets.Box([(0, 0, 3, 4), (1, 1, 2, 2)], [1, 0]), HEADS["a dict"], HEADS["a dict"]),
]
every_target = pytest.mark.parametrize(
    ("target", "outputs", "logits"), EVERY, ids=lambda each: type(each).__name__
)


def image(structure, i):
    return keras.tree.map_structure(lambda each: each[i : i + 1], structure)


@every_target
def test_every_target_of_a_batch_is_that_of_each_image_alone(target, outputs, logits):
    target = to_rows(target, 2)
    value, index = score_target(target, outputs, logits)
    for i in range(2):
        one = with_arrays(target, [each[i : i + 1] for each in target_arrays(target)])
        # `logits is outputs` says that there is no sigmoid.
        outputs_i = logits_i = image(outputs, i)
        if logits is not outputs:
            logits_i = image(logits, i)
        value_i, index_i = score_target(one, outputs_i, logits_i)
        np.testing.assert_array_equal(value_i, value[i : i + 1])
        assert (index_i is None) if index is None else np.array_equal(index_i, index[i : i + 1])


@every_target
def test_every_target_is_traced_once_for_all_its_numbers(target, outputs, logits):
    target = to_rows(target, 2)
    given = target_arrays(target)
    signature = [tf.TensorSpec([None, *each.shape[1:]], each.dtype) for each in given]
    no_sigmoid = logits is outputs
    traces = []

    @tf.function(autograph=False)
    def explain(outputs, logits, numbers):
        traces.append(numbers)
        goal = with_arrays(target, numbers)
        assert trace_key(goal) == trace_key(target)
        return score_target(goal, outputs, outputs if no_sigmoid else logits)

    open_batch = [
        keras.tree.map_structure(lambda each: tf.TensorSpec([None, *each.shape[1:]], each.dtype), each)
        for each in (outputs, logits)
    ]
    explain.get_concrete_function(*open_batch, signature)
    value, index = explain(outputs, logits, list(map(tf.convert_to_tensor, given)))
    expected, of = score_target(target, outputs, logits)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert (of is None) if index is None else np.array_equal(index, of)
    assert index is None or (index.dtype == tf.int32 and index.shape == value.shape)
    # The other way round, the numbers of the images say something else: each of them counts.
    for i, each in enumerate(given):
        other = [*given[:i], each[::-1], *given[i + 1 :]]
        same = np.array_equal(each, each[::-1])
        value = explain(outputs, logits, list(map(tf.convert_to_tensor, other)))[0]
        assert same or not np.array_equal(value, expected)
    assert len(traces) == 1


@every_target
def test_every_target_has_a_gradient_without_nan(target, outputs, logits):
    target = to_rows(target, 2)
    with tf.GradientTape() as tape:
        tape.watch(keras.tree.flatten([outputs, logits]))
        value, _ = score_target(target, outputs, logits)
    gradients = tape.gradient(value, keras.tree.flatten([outputs, logits]))
    gradients = [tf.convert_to_tensor(each).numpy() for each in gradients if each is not None]
    assert any(each.any() for each in gradients)
    assert all(np.isfinite(each).all() for each in gradients)


@every_target
def test_every_target_is_in_range_by_specs_with_an_open_batch(target, outputs, logits):
    index = score(target, outputs, logits)[1]
    specs = keras.tree.map_structure(lambda each: tf.TensorSpec([None, *each.shape[1:]]), outputs)
    check(target, index, specs)


@pytest.mark.parametrize(
    ("target", "outputs", "last"),
    [
        (targets.Classes([0, 3]), OUTPUTS, 2),
        (targets.Classes([[0, 1], [2, 9]]), UNIT, 1),
        (targets.Probability(3), OUTPUTS, 2),
        (targets.Contrast(3), OUTPUTS, 2),
        (targets.Contrast(0, 3), OUTPUTS, 2),
        (targets.Against(3), OUTPUTS, 2),
        (targets.Output("size", targets.Value(1)), SEVERAL, 0),
        (targets.Region(3), MAPS, 2),
        (targets.Region(2), YES_OR_NO, 1),
        (targets.Pixel((0, 0), 3), MAPS, 2),
    ],
)
def test_every_class_that_the_model_does_not_have_is_refused(target, outputs, last):
    with pytest.raises(ValueError, match=f"`target` must be a class from 0 to {last}. Received"):
        check(target, tf.constant([0, 0]), outputs)


@pytest.mark.parametrize(
    "target",
    [
        targets.Classes([0, -1]),
        targets.Contrast(0, -1),
        targets.Region(-1),
        targets.Pixel((0, -1)),
        targets.Detection(-1),
        targets.Against(-1),
        targets.Output("a", -1),
    ],
)
def test_every_negative_number_is_refused(target):
    with pytest.raises(ValueError, match="`target` must not be negative. Received: .*=-1"):
        to_rows(target, 2)


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (targets.Contrast(0, 0.5), "other"),
        (targets.Pixel(None), "position"),
        (targets.Pixel((0.5, 1)), "position"),
        (targets.Detection(None), "anchor"),
        (targets.Region(0, "cat"), "mask"),
        (targets.Box(None), "box"),
    ],
)
def test_every_field_of_the_wrong_type_is_refused_by_name(target, name):
    with pytest.raises(
        TypeError, match=f"`target` must have (whole|real) numbers as its {name}. Received: {name}="
    ):
        to_rows(target, 2)


@pytest.mark.parametrize("dtype", [tf.float32, tf.int64])
def test_symbolic_numbers_are_taken_as_they_come(dtype):
    @tf.function(autograph=False)
    def explain(index):
        target = to_rows(targets.Contrast(index), 2)
        value, best = score_target(target, OUTPUTS, LOGITS)
        check_range(target, best, OUTPUTS)  # can't know
        return value

    if dtype == tf.int64:
        assert explain(tf.constant(0, dtype)).numpy().tolist() == [-4.0, 4.0]
        assert explain(tf.constant([0, 1], dtype)).numpy().tolist() == [-4.0, -7.0]
    else:
        with pytest.raises(TypeError, match="`target` must be None, a class"):
            explain(tf.constant(0, dtype))


def test_no_target_and_a_class_share_a_kind():
    kinds = {trace_key(to_rows(each, 2)) for each in (None, 5, [0, 1], targets.Class(np.int8(3)))}
    assert len(kinds) == 1


def test_the_kind_is_all_but_the_numbers():
    def kind(target):
        return trace_key(to_rows(target, 2))

    assert kind(targets.Similarity([1.0, 2.0])) == kind(targets.Similarity(tf.constant([[3, 4], [5, 6]])))
    different = [
        *(0, targets.Value(), targets.Against(0), targets.Against(targets.Value()), targets.Classes([0])),
        *(targets.Classes([0, 1]), targets.Output("a"), targets.Output("b"), targets.Output(0)),
        *(targets.Region(), targets.Region(mask=MASK), targets.Region(mask=np.stack([MASK, MASK]))),
        *(targets.Box((0, 0, 1, 1)), targets.Box((0, 0, 1, 1), split=len)),
    ]
    assert len(set(map(kind, different))) == len(different)


class Goal:
    def column(self, outputs):
        return outputs[:, 0]

    __call__ = column


@pytest.mark.parametrize(
    "wrap",
    [
        lambda goal: goal,
        targets.Against,
        lambda goal: targets.Output("a", targets.Against(goal)),
        lambda goal: targets.Box((0, 0, 1, 1), split=goal),
    ],
)
@pytest.mark.parametrize("method", [True, False])
def test_a_callable_is_part_of_the_kind_and_not_kept_alive(wrap, method):
    goal = Goal()
    target = to_rows(wrap(goal.column if method else goal), 2)
    kind = trace_key(target)
    assert holds_callable(target)
    assert kind == trace_key(to_rows(wrap(goal.column if method else goal), 2))
    assert kind != trace_key(to_rows(wrap(Goal()), 2))
    assert not refers_to_dead_callable(kind)
    del goal, target
    gc.collect()
    assert refers_to_dead_callable(kind)


def test_a_target_of_numbers_holds_no_callable():
    target = to_rows(targets.Output("a", targets.Against(targets.Box((0, 0, 1, 1)))), 2)
    assert not holds_callable(target)
    assert not refers_to_dead_callable(trace_key(target))


@pytest.mark.parametrize("wrap", [lambda goal: goal, targets.Against])
def test_a_callable_must_be_hashable(wrap):
    class Unhashable(Goal):
        __hash__ = None

    for goal in (Unhashable(), Unhashable().column):
        with pytest.raises(TypeError, match="`target` must be hashable if it is a callable.*frozen"):
            trace_key(wrap(goal))


@pytest.mark.parametrize("target", [None, 5, targets.Similarity([1.0, 2.0]), targets.Pixel((0, 0))])
def test_numbers_on_the_host_stay_there_with_a_row_for_each_image(target):
    for each in target_arrays(to_rows(target, 3)):
        assert isinstance(each, np.ndarray)
        assert len(each) == 3


def test_a_callable_has_no_numbers():
    assert target_arrays(len) == []
    assert with_arrays(len, []) is len
    assert to_rows(len, 2) is len

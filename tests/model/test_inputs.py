"""What a model takes: its specs, and what is handed to it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIDE, Subclassed, build, parts

from tf_gradcam._model.inputs import as_batch, check_images
from tf_gradcam._model.specs import (
    count_call_arguments,
    declared_specs,
    is_channels_first,
    raw_image_specs,
    specs_to_trace,
)

IMAGE = tf.TensorSpec((None, 8, 8, 3), tf.float32, "image")
TABLE = tf.TensorSpec((None, 4), tf.float32, "table")
ONE, SOME = np.ones((8, 8, 3), "float32"), np.ones((2, 8, 8, 3), "float32")
ROW, ROWS = np.ones(4, "float32"), np.ones((2, 4), "float32")


def shapes(images):
    return keras.tree.map_structure(lambda each: tuple(each.shape), images)


# Specs


def test_every_kind_of_model_tells_what_it_takes(model):
    spec = declared_specs(model)
    assert (spec.shape, spec.dtype) == ((None, SIDE, SIDE, 3), tf.float32)


def test_a_model_that_was_never_called_takes_what_it_is_given():
    assert declared_specs(Subclassed()) is None
    spec = specs_to_trace(Subclassed(), tf.zeros((2, 5, 6, 3), tf.uint8))
    assert (spec.shape, spec.dtype) == ((None, 5, 6, 3), tf.float32)


def test_specs_have_the_structure_of_the_models_inputs():
    image, table = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="table", dtype="int32")
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    for structure in ([image, table], {"image": image, "table": table}, {"all": [image, (table,)]}):
        specs = declared_specs(keras.Model(structure, pooled))
        assert shapes(specs) == keras.tree.map_structure(lambda each: tuple(each.shape), structure)
        assert {spec.dtype for spec in keras.tree.flatten(specs)} == {tf.float32, tf.int32}


def test_numbers_beside_an_image_may_be_indices():
    specs = specs_to_trace(Subclassed(), (tf.zeros((2, 8, 8, 3), tf.uint8), tf.zeros((2, 4), tf.int64)))
    assert [spec.dtype for spec in specs] == [tf.float32, tf.int64]


class TwoArguments(keras.Model):
    def call(self, image, table, training=False):
        return tf.reduce_mean(image, (1, 2)) + table


def test_several_arguments_are_counted_and_not_guessed_from_the_first():
    model = TwoArguments()
    model(tf.zeros((2, 8, 8, 3)), tf.zeros((2, 3)))
    assert count_call_arguments(model) == 2
    assert declared_specs(model) is None
    assert count_call_arguments(build("functional")) == count_call_arguments(keras.Sequential(parts())) == 1


def test_raw_images_are_open_but_for_their_channels():
    specs = raw_image_specs([tf.zeros((2, 8, 9, 3), tf.uint8), tf.zeros((2, 3, 8, 9)), tf.zeros((2, 4))])
    assert shapes(specs) == [(None, None, None, 3), (None, 3, None, None), (None, 4)]
    assert {spec.dtype for spec in specs} == {tf.float32}


@pytest.mark.parametrize(
    ("shape", "unknown", "expected"),
    [
        ((None, 3, 224, 224), False, True),
        ((None, 224, 224, 3), True, False),
        ((None, 1, 28, 28), False, True),
        ((None, 13, 64, 64), True, True),
        ((None, 13, 64, 64), False, False),
        ((None, 3, 8, 3), False, False),
        ((None, None, None, 3), False, False),
        ((None, 9, 64, 64, 1), True, True),
    ],
)
def test_shapes_tell_where_the_channels_are(shape, unknown, expected):
    assert is_channels_first(shape, unknown) is expected


# What is handed over


def test_a_list_of_alike_images_is_a_batch_unless_the_model_takes_several():
    assert as_batch("images", [ONE, ONE], None).shape == (2, 8, 8, 3)
    assert [each.shape[0] for each in as_batch("images", [SOME, SOME], None, several=True)] == [2, 2]
    assert [each.shape[0] for each in as_batch("images", (SOME, SOME), None)] == [2, 2]


def test_one_array_is_not_several_arguments():
    with pytest.raises(
        ValueError, match="must hold every argument that the model takes. Received: a ndarray"
    ):
        as_batch("images", SOME, None, several=True)


def test_a_dict_stays_a_dict_and_its_order_is_the_models():
    assert as_batch("images", {"image": SOME}, None)["image"].shape == (2, 8, 8, 3)
    specs = {"z": IMAGE, "a": TABLE}
    batch = as_batch("images", {"a": ROWS, "z": SOME}, specs)
    assert {name: tuple(each.shape) for name, each in batch.items()} == {"z": (2, 8, 8, 3), "a": (2, 4)}


@pytest.mark.parametrize("specs", [IMAGE, [IMAGE], {"image": IMAGE}])
def test_a_dict_with_another_key_is_refused(specs):
    with pytest.raises(ValueError, match="must hold what the model takes, 1 inputs.*Received: a dict of 1"):
        as_batch("images", {"imgae": SOME}, specs)


@pytest.mark.parametrize(
    "given", [ONE, SOME[:1], [SOME[:1]], [ONE], {"image": ONE}, ONE.tolist(), tf.constant(ONE)]
)
def test_one_image_is_a_batch_of_one(given):
    assert as_batch("images", given, IMAGE).shape == (1, 8, 8, 3)
    assert as_batch("images", given, [IMAGE])[0].shape == (1, 8, 8, 3)


@pytest.mark.parametrize(
    ("given", "specs"),
    [
        ([SOME, ROWS], [IMAGE, TABLE]),
        ((SOME, ROWS), [IMAGE, TABLE]),
        ({"image": SOME, "table": ROWS}, [IMAGE, TABLE]),
        ({"table": ROWS, "image": SOME}, {"image": IMAGE, "table": TABLE}),
        ([SOME, [ROWS]], [IMAGE, [TABLE]]),
        ({"all": (SOME, ROWS)}, {"all": [IMAGE, TABLE]}),
        ((SOME, ROWS), None),
        ([SOME, ROWS], None),
        ({"a": SOME, "b": ROWS}, None),
    ],
)
def test_several_inputs_are_taken_in_any_structure_that_is_plain(given, specs):
    batch = as_batch("images", given, specs)
    assert [tuple(each.shape) for each in keras.tree.flatten(batch)] == [(2, 8, 8, 3), (2, 4)]
    if specs is not None:
        keras.tree.map_structure(lambda *_: None, batch, specs)  # fails where they differ


def test_one_of_each_input_is_a_batch_of_one():
    batch = as_batch("images", [ONE, ROW], [IMAGE, TABLE])
    assert shapes(batch) == [(1, 8, 8, 3), (1, 4)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (SOME, r"`images` must hold what the model takes, 2 inputs: \['image \(None, 8, 8, 3\)', 'table"),
        ([SOME], "2 inputs.*Received: a list of 1"),
        ([SOME, ROWS, ROWS], "2 inputs.*Received: a list of 3"),
        ({"image": SOME, "tables": ROWS}, "2 inputs.*Received: a dict of 2"),
        (3, "2 inputs.*Received: a int"),
        ([ONE, ROWS], r"`images` must be \(N, A, B, C\) and \(N, A\), or without the batch axis N. Received"),
        ([SOME, ROWS[:1]], r"the same batch size for each input. Received: batch sizes \[2, 1\]"),
        ([SOME, ROWS * np.nan], "`images` must be finite"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        as_batch("images", given, [IMAGE, TABLE])


def test_a_dict_takes_no_list_as_nothing_tells_its_order():
    with pytest.raises(ValueError, match="2 inputs: {'image': .*Received: a list of 2"):
        as_batch("images", [SOME, ROWS], {"image": IMAGE, "table": TABLE})


def test_every_input_is_checked_against_its_spec():
    check_images("images", [tf.constant(SOME), tf.constant(ROWS)], [IMAGE, TABLE])
    with pytest.raises(ValueError, match=r"the model takes, \(None, 4\). Received: \(2, 5\)"):
        check_images("images", [tf.constant(SOME), tf.zeros((2, 5))], [IMAGE, TABLE])

"""Images are taken from arrays and data sets, without any effect on what training reads."""

import random
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_gradcam.callbacks._samples import classes_of, rows_taken, take_samples, true_classes

Dataset = tf.data.Dataset
ROWS = np.arange(20.0).reshape(20, 1)
STATEFUL = {
    "shuffle": lambda: Dataset.from_tensor_slices(ROWS).shuffle(20, seed=3),
    "cache in memory": lambda: Dataset.from_tensor_slices(ROWS).shuffle(20, seed=3).cache(),
    "cache in a file": lambda: (
        Dataset.from_tensor_slices(ROWS).shuffle(20, seed=3).cache(tempfile.mkdtemp() + "/file")
    ),
    "snapshot": lambda: Dataset.from_tensor_slices(ROWS).shuffle(20, seed=3).snapshot(tempfile.mkdtemp()),
    "repeat": lambda: Dataset.from_tensor_slices(ROWS[:10]).shuffle(10, seed=3).repeat(2),
    "sample": lambda: Dataset.sample_from_datasets(
        [Dataset.from_tensor_slices(ROWS).shuffle(20, seed=1), Dataset.from_tensor_slices(-ROWS)],
        seed=4,
        rerandomize_each_iteration=True,
    ),
    "random": lambda: (
        Dataset.random(seed=3, rerandomize_each_iteration=True)
        .take(20)
        .map(lambda number: tf.cast(number, tf.float64)[None])
    ),
    "two": lambda: Dataset.zip(
        (Dataset.from_tensor_slices(ROWS).shuffle(9, seed=3), Dataset.from_tensor_slices(ROWS))
    ),
    "random map": lambda: (
        Dataset.from_tensor_slices(ROWS)
        .shuffle(9, seed=3)
        .map(lambda row: row + tf.random.uniform([1], dtype=tf.float64))
    ),
}


def read(dataset):
    """Return what two epochs read."""
    return [keras.tree.map_structure(np.asarray, batch) for _ in range(2) for batch in dataset]


@pytest.mark.parametrize("count", [5, 20], ids=["some", "all"])
@pytest.mark.parametrize("kind", STATEFUL)
def test_the_order_of_training_stays_the_same(kind, count):
    tf.random.set_seed(5)
    untouched = read(STATEFUL[kind]().batch(4).prefetch(1))
    tf.random.set_seed(5)
    dataset = STATEFUL[kind]().batch(4).prefetch(1)
    samples = take_samples(dataset, count)
    np.testing.assert_equal(read(dataset), untouched)
    if kind != "random map":
        first = np.concatenate([keras.tree.flatten(batch)[0] for batch in untouched])
        np.testing.assert_array_equal(keras.tree.flatten(samples.images)[0], first[:count])


@pytest.mark.parametrize("kind", ["cache", "snapshot"])
def test_no_file_of_a_data_set_is_written(kind, tmp_path):
    dataset = Dataset.from_tensor_slices(ROWS)
    dataset = dataset.cache(str(tmp_path / "file")) if kind == "cache" else dataset.snapshot(str(tmp_path))
    take_samples(dataset.batch(4), 20)
    assert list(tmp_path.iterdir()) == []


def test_reading_the_data_set_itself_would_change_the_order():
    """So that the test above can fail."""
    dataset = STATEFUL["shuffle"]().batch(4)
    next(iter(dataset))
    assert str(read(dataset)) != str(read(STATEFUL["shuffle"]().batch(4)))


class Drawing(keras.utils.PyDataset):
    """Two batches of three, for which the global random state is drawn from."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        random.random()
        images = {"a": np.full((3, 4), index) + np.random.random(), "b": np.full((3, 2, 2), index)}  # noqa: NPY002
        return images, np.eye(3)[[2, 0, 1]], np.ones(3)


def test_a_py_dataset_gives_its_first_batches_and_the_random_state_stays():
    before = random.getstate(), np.random.get_state()[1]  # noqa: NPY002
    samples = take_samples(Drawing(workers=1), 5)
    assert before[0] == random.getstate()
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert samples.number == 5
    assert {name: array.shape for name, array in samples.images.items()} == {"a": (5, 4), "b": (5, 2, 2)}
    np.testing.assert_array_equal(samples.images["b"][:, 0, 0], [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(true_classes(samples.labels), [2, 0, 1, 2, 0])


@pytest.mark.parametrize(
    ("labels", "classes"), [([[2], [0]], [2, 0]), ([1.0, 0.0], [1, 0]), ([True, False], [1, 0])]
)
def test_labels_are_classes(labels, classes):
    np.testing.assert_array_equal(true_classes(np.array(labels)), classes)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "no labels"),
        ({"a": np.ones(2)}, "a dict of labels"),
        (np.ones((2, 4, 4)), r"float64, shape \(2, 4, 4\)"),
        (np.array([0.5, 1]), r"float64, shape \(2,\)"),
    ],
)
def test_other_labels_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        true_classes(labels)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (np.array([[2], [0]], np.uint8), [2, 0]),  # as CIFAR-10 has them
        (np.eye(3, dtype="float32")[[2, 0]], [2, 0]),
        (np.array([2.0, 0.0], np.float32), [2, 0]),
        (tf.constant([[2], [0]]), [2, 0]),
        (np.array([2.5, 0.0]), [2.5, 0]),  # `GradCAM` refuses it.
        ([2, 0], [2, 0]),
        (2, 2),
        (np.int64(2), 2),
        (None, None),
    ],
)
def test_a_target_may_be_labels_as_fit_takes_them(target, expected):
    np.testing.assert_equal(np.asarray(classes_of(target, None)), np.asarray(expected))


def test_of_what_is_given_for_each_image_the_first_are_taken():
    samples = take_samples(np.ones((5, 4, 4, 3)), 2)
    assert rows_taken("abcde", samples) == "abcde"
    assert rows_taken(list("abcde"), samples) == ["a", "b"]
    assert rows_taken(["a", "b"], samples) == ["a", "b"]
    assert rows_taken(["a"], samples) == ["a"]
    assert rows_taken(7, samples) == 7
    for array in (np.arange(5), tf.range(5)):
        np.testing.assert_array_equal(rows_taken(array, samples), [0, 1])
    assert rows_taken(np.array(7), samples) == 7


def test_arrays_are_copied():
    images = np.ones((9, 4, 4, 3))
    samples = take_samples([images, (images,)], 4)
    images[:] = 0
    assert samples.number == 4
    assert samples.images[0].shape == (4, 4, 4, 3)
    assert samples.images[1][0].all()


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (iter([np.ones((2, 4, 4, 3))]), TypeError, "Take the images yourself"),
        ("photos", TypeError, "`images` must be an array"),
        (np.ones(3), ValueError, "must be a batch"),
        (np.ones((0, 4, 4, 3)), ValueError, "must be a batch"),
        ([np.ones((2, 4)), np.ones((3, 4))], ValueError, "the same N"),
        (tf.data.Dataset.from_tensor_slices(ROWS[:0]).batch(2), ValueError, "an empty data set"),
        (tf.data.Dataset.from_tensor_slices(["a"]).batch(1), TypeError, "a batch of numbers"),
        (Dataset.from_tensor_slices((ROWS, ROWS[:, 0])), ValueError, r"Of single .* dataset.batch\(32\)"),
    ],
)
def test_other_data_are_refused(data, error, message):
    with pytest.raises(error, match=message):
        take_samples(data, 4)

"""The images that a callback explains, taken once from arrays or a data set: `take_samples`.

The callback calls it. A data set gives its images without any effect on what training will read from it.
"""

import contextlib
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._arrays import real_array

_KINDS = "an array, a list or dict of arrays, a tf.data.Dataset or a keras.utils.PyDataset"
_WITH_SEEDS = ("RandomDataset", "ShuffleAndRepeatDataset", "ShuffleDataset")
_WITH_STORE = ("CacheDataset", "SnapshotDataset")
_FRESH_SEEDS = "fresh_seeds"  # name of the node


class Samples(NamedTuple):
    """The images to explain.

    Attributes:
        images: NumPy arrays `(N, ...)` in the structure that the model takes.
        labels: what the data set yields beside them, or `None`.
        number: N.
        given: the number of images in the arrays that they were taken from; N of a data set.
    """

    images: Any
    labels: Any
    number: int
    given: int


def take_samples(data: Any, count: int) -> Samples:
    """Return the first images of arrays or of a data set, as copies.

    Args:
        data: a batch of images; for several inputs a list, tuple or dict of them; or a `tf.data.Dataset` or
            `keras.utils.PyDataset` of batches, or of tuples of a batch, labels and sample weights.
        count: how many to take at most.

    Raises:
        TypeError: if `data` is anything else.
        ValueError: if it holds no images, or its arrays differ in their number of rows; if a data set can't
            be copied.
    """
    if isinstance(data, tf.data.Dataset | keras.utils.PyDataset):
        samples = _first_of_batches(data, count)
    else:
        samples = _first(_as_arrays(data), None, count)
    return samples


def rows_taken(values: Any, samples: Samples) -> Any:
    """Return what was given for each image, such as its class or its name, for those that were taken.

    Anything else than a list, tuple or array with a row for each image that was given is returned as it is.
    """
    is_rows = isinstance(values, list | tuple | np.ndarray | tf.Tensor) and not hasattr(values, "_fields")
    is_rows = is_rows and len(getattr(values, "shape", (0,))) > 0
    return values[: samples.number] if is_rows and len(values) == samples.given else values


def classes_of(target: Any, labels: Any) -> Any:
    """Return the target as `GradCAM` takes it: of labels, as `fit` takes them, the classes.

    Raises:
        ValueError: if it is `"labels"`, and they are no classes.
    """
    if isinstance(target, str):
        return true_classes(labels)
    is_array = isinstance(target, np.ndarray | tf.Tensor) and len(target.shape) in (1, 2)
    array = np.asarray(target) if is_array else None
    if array is None or array.dtype.kind not in "biuf" or (array.ndim == 1 and (array % 1 != 0).any()):
        return target
    return true_classes(array)


def true_classes(labels: Any) -> np.ndarray:
    """Return the classes `(N,)` int32 that the labels of a data set mean: numbers, or one-hot rows.

    Raises:
        ValueError: if the labels are anything else.
    """
    expected = (
        "`target` may be 'labels' for a data set that yields (images, labels), classes or one-hot rows."
    )
    if labels is None or isinstance(labels, dict | list | tuple):
        kind = "no labels" if labels is None else f"a {type(labels).__name__} of labels"
        raise ValueError(f"{expected} Received: {kind}. Give the classes: target=[3, 7, ...].")
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] > 1:
        return array.argmax(axis=1).astype(np.int32)
    classes = array.reshape(len(array), -1)
    if classes.shape[1] != 1 or array.dtype.kind not in "biuf" or (classes % 1 != 0).any():
        raise ValueError(
            f"{expected} Received: {array.dtype}, shape {array.shape}. Give the classes: target=[3, 7, ...]."
        )
    return classes[:, 0].astype(np.int32)


def _as_arrays(data) -> Any:
    if hasattr(data, "__next__") or (hasattr(data, "__iter__") and not hasattr(data, "__len__")):
        raise TypeError(
            f"`images` must be {_KINDS}. Received: {type(data).__name__}, which training would miss what is "
            "taken of. Take the images yourself: images=next(batches)[0]."
        )
    if isinstance(data, dict):
        return {name: _as_arrays(array) for name, array in data.items()}
    if isinstance(data, list | tuple) and any(hasattr(each, "shape") for each in data):
        return type(data)(map(_as_arrays, data))
    return np.array(real_array("images", data, _KINDS))


def _first(images, labels, count) -> Samples:
    leaves = keras.tree.flatten(images)
    lengths = {len(leaf) if leaf.ndim > 1 else 0 for leaf in leaves} or {0}
    if len(lengths) > 1 or 0 in lengths:
        shapes = ", ".join(str(leaf.shape) for leaf in leaves)
        raise ValueError(
            "`images` must be a batch (N, H, W, C), or for several inputs arrays with the same N. "
            f"Received: {shapes or 'none'}"
        )
    images = keras.tree.map_structure(lambda array: array[:count], images)
    return Samples(images, labels, min(count, *lengths), max(lengths))


# Data sets


def _first_of_batches(data, count) -> Samples:
    batches, taken = [], 0
    with _same_global_random_state():
        for batch in _batches(data):
            images, labels, _ = keras.utils.unpack_x_y_sample_weight(batch)
            has_labels = labels is not None
            batches.append(_arrays([images, labels] if has_labels else [images]))
            _check_batch(batches[-1])
            taken += len(keras.tree.flatten(batches[-1])[0])
            if taken >= count:
                break
    if not batches:
        raise ValueError("`images` must hold images. Received: an empty data set.")
    first = keras.tree.map_structure(lambda *parts: np.concatenate(parts)[:count], *batches)
    return _first(first[0], first[1] if has_labels else None, count)


def _check_batch(batch) -> None:
    shapes = [leaf.shape for leaf in keras.tree.flatten(batch)]
    if () in shapes:
        raise ValueError(
            "`images` must be a data set of batches, as `fit` takes it. "
            f"Received: arrays of the shapes {shapes}. Of single images give dataset.batch(32)."
        )


def _arrays(structure) -> Any:
    return keras.tree.map_structure(lambda leaf: real_array("images", leaf, "a batch of numbers"), structure)


@contextlib.contextmanager
def _same_global_random_state() -> Iterator[None]:
    """Leave the global random state of Python and NumPy as it is: the code of a data set may draw from it."""
    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)  # noqa: NPY002


def _batches(data) -> Iterator[Any]:
    if isinstance(data, tf.data.Dataset):
        yield from _independent_copy(data)
    else:
        for index in range(len(data)):
            yield data[index]


def _independent_copy(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Return a copy that shares no state with a data set.

    All iterators of a data set share the seeds of its `shuffle`, which are others at each iteration, and its
    `cache`, which is filled by the first that ends: whoever reads a batch changes the order of training. So
    the copy has seeds of its own, from the start, and no cache.
    """
    try:
        graph = tf.compat.v1.GraphDef.FromString(
            tf.raw_ops.DatasetToGraphV2(
                input_dataset=tf.data.experimental.to_variant(dataset),
                external_state_policy=1,  # Other state, such as of a tf.random.Generator, is shared.
            ).numpy()
        )
        _give_own_state(graph)
        variant = tf.raw_ops.DatasetFromGraph(graph_def=graph.SerializeToString())
        return tf.data.experimental.from_variant(variant, dataset.element_spec)
    except (tf.errors.OpError, ValueError, TypeError) as error:
        raise ValueError(
            "`images` must be a tf.data.Dataset that can be copied, so that the order of training stays the "
            f"same; one over more than 2 GB in memory can't. Received: {dataset!r:.80}. {error!s:.200}. Give "
            "arrays: images=x[:8]."
        ) from error


def _give_own_state(graph) -> None:
    """Replace in a data set's graph the seeds that iterators share, and pass by what stores elements."""
    nodes = {node.name: node for node in graph.node}
    source = {node.name: node.input[0] for node in graph.node if node.op.startswith(_WITH_STORE)}
    resource = tf.resource.as_datatype_enum
    for node in graph.node:
        for number, name in enumerate(node.input):
            if (
                node.op.startswith(_WITH_SEEDS)
                and nodes[name.partition(":")[0]].attr["dtype"].type == resource
            ):
                node.input[number] = _FRESH_SEEDS
            while node.input[number] in source:
                node.input[number] = source[node.input[number]]
    seeds = graph.node.add()
    seeds.name, seeds.op = _FRESH_SEEDS, "DummySeedGenerator"

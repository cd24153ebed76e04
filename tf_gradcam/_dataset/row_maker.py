"""Make the rows of images, in whichever process they are explained: `RowMaker`. `dataset` calls it."""

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tf_gradcam._arrays import is_channels_first
from tf_gradcam._checks import is_whole, one_line
from tf_gradcam._dataset.manifest import make_manifest
from tf_gradcam._dataset.reading import Fit, read_ahead
from tf_gradcam._dataset.rows import ExplainedBatch, Item, ReadItem, RowsAbout, make_rows, make_schema
from tf_gradcam._optional import require
from tf_gradcam._run import (
    FileCam,
    class_index,
    explained_output,
    file_labels,
    freeze_if_possible,
    input_spec,
    layer_name,
    name_of_method,
    target_text,
    without_addresses,
)

if TYPE_CHECKING:
    from tf_gradcam._explain import GradCAM


class DatasetOptions(NamedTuple):
    """What `explain_dataset` takes besides the images; see there."""

    target: Any = None
    labels: Sequence[str] | None = None
    dtype: str = "float16"
    batch_size: int = 32
    restart: bool = False
    preprocess: str | None = None  # what the rows' manifest calls it
    draft: bool = False


class RowMaker:
    """Makes the rows of images with one explainer.

    Args:
        cam: the explainer.
        options: what else is asked for.
        fit: makes the explainer's input of what a file holds.

    Attributes:
        schema: the `pyarrow.Schema` of the rows.
        manifest: what decides the rows.

    Raises:
        TypeError, ValueError: if the explainer can't explain as the options say.
    """

    def __init__(self, cam: "GradCAM | FileCam", options: DatasetOptions, fit: Fit) -> None:
        _check_options(options)
        if options.labels is None and isinstance(cam, FileCam):
            options = options._replace(labels=file_labels(cam.model))
        options = options._replace(labels=_plain_labels(options.labels))
        self._cam, self._options, self._fit = cam, options, fit
        self._about = _about(cam, options)
        self.schema = make_schema(_grid(cam, options), options.dtype)
        self._at_least = _at_least(cam, options.draft)
        self.manifest = make_manifest(cam, self._about, options)

    def freeze(self) -> None:
        """Freeze the explainer if it can be frozen: it pays for a thousand images."""
        self._cam = freeze_if_possible(self._cam)

    def with_classes(self, items: list[Item]) -> list[Item]:
        """Return items with class numbers for the labels of a table; a class that isn't there is refused.

        So are files for a model that takes no photographs.
        """
        if any(item.path for item in items):
            _check_takes_photographs(self._cam)
        examples = {item.target: item for item in items if item.target is not None}
        target, labels = self._options.target, self._options.labels
        if examples and not _takes_classes(target):
            raise ValueError(
                "`target` must be None where the table has a column `target`. Received: "
                f"target={target!r:.80}. Remove one of the two."
            )
        numbers: dict[Any, int] = {}
        for name, item in examples.items():
            with _named(item):
                numbers[name] = class_index(name, labels)
        # The model has the classes in between, too.
        by_number = sorted(numbers, key=numbers.__getitem__)
        for name in {*by_number[:1], *by_number[-1:]}:
            image = ReadItem(examples[name]._replace(target=numbers[name]))
            with _named(image.item):
                _explain_made_up(self._cam, _target_of_images([image], target))
        if not numbers:
            return items
        return [item if item.target is None else item._replace(target=numbers[item.target]) for item in items]

    def rows(self, items: Iterable[Item]) -> Iterator[Any]:
        """Read and explain images; yield a `pyarrow.RecordBatch` of rows for each batch of them."""
        for batch in read_ahead(items, self._fit, self._options.batch_size, self._at_least):
            yield _explain(self._cam, batch, self._options, self.schema, self._about)


@contextlib.contextmanager
def _named(item: Item) -> Iterator[None]:
    """Say in an error which image it is of."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{one_line(error)} (of {item.id!r:.200})") from error


def count_errors(rows: Any) -> int:
    """Return how many rows have an error."""
    return len(rows) - rows.column("error").null_count


def _explain(cam, batch: list[ReadItem], options, schema, about) -> Any:
    """Return the rows of a batch; images that spoil it are explained alone."""
    has_class = [each.image is not None and each.item.target is not None for each in batch]
    if len(set(has_class)) > 1:
        groups = [
            [each for each, has in zip(batch, has_class, strict=True) if has == kind]
            for kind in (True, False)
        ]
        return _explain_groups(cam, groups, options, schema, about)
    try:
        return make_rows(batch, _explain_images(cam, batch, options), schema, about)
    except _errors_of_images(cam) as error:
        if len(batch) > 1:
            return _explain_groups(cam, [[each] for each in batch], options, schema, about)
        return make_rows([batch[0]._replace(image=None, error=one_line(error))], None, schema, about)


def _errors_of_images(cam) -> tuple[type[Exception], ...]:
    """Return the errors that an explainer raises about images; with a Keras model also one of TensorFlow."""
    if isinstance(cam, FileCam):
        return ValueError, TypeError
    import tensorflow as tf

    return ValueError, TypeError, tf.errors.InvalidArgumentError


def _explain_groups(cam, groups, options, schema, about) -> Any:
    return _joined([_explain(cam, group, options, schema, about) for group in groups], schema)


def _joined(batches, schema) -> Any:
    arrow = require("pyarrow", "pyarrow", extra="scale")
    return arrow.Table.from_batches(batches, schema).combine_chunks().to_batches()[0]


def _explain_images(cam, batch, options) -> ExplainedBatch | None:
    """Explain the images of a batch that could be read, each for its own class if the data set has one."""
    readable = [each for each in batch if each.image is not None]
    if not readable:
        return None
    images = np.stack([each.image for each in readable])
    explanation = cam(images, _target_of_images(readable, options.target), size=None)
    outputs = _chosen_output(cam, explanation.outputs, options.target)
    has_classes = explanation.target is not None and getattr(outputs, "shape", None) is not None
    is_flat = has_classes and len(outputs.shape) == 2
    return ExplainedBatch(
        np.asarray(_only_map(explanation)),
        np.asarray(explanation.score),
        None if explanation.target is None else np.asarray(explanation.target),
        np.asarray(outputs, np.float64) if is_flat else None,
        target_text(cam.model, options.target),
    )


def _target_of_images(images, target) -> Any:
    """Return the target for images: that of the run, or the classes of the data set."""
    classes = [each.item.target for each in images]
    if not _takes_classes(target) or None in classes:
        return target
    return classes if target is None else target._replace(target=classes)


def _takes_classes(target) -> bool:
    """Return whether a run leaves the class to the data set."""
    return target is None or (_is_output(target) and target.target is None)


def _is_output(target) -> bool:
    """Return whether a target names one output of a model with several."""
    if target is None or is_whole(target):
        return False
    from tf_gradcam import targets

    return isinstance(target, targets.Output)


def _chosen_output(cam, outputs, target) -> Any:
    """Return the output that a target names, of a model with several, or the only one.

    A file has the explained one alone.
    """
    if hasattr(outputs, "shape"):
        return outputs
    if _is_output(target):
        return explained_output(cam.model, outputs, target.name)
    is_only = isinstance(outputs, dict | list | tuple) and len(outputs) == 1
    return explained_output(cam.model, outputs, None) if is_only else outputs


def _only_map(explanation) -> Any:
    """Return the signed map; of several layers it is their fused heatmap."""
    several = explanation.map is None or isinstance(explanation.map, tuple)
    return explanation.heatmap if several else explanation.map


def _explain_made_up(cam, target) -> Any:
    """Explain an image of noise, so that a wrong request is refused before any file is read."""
    shape = input_spec(cam.model).shape
    image = np.random.default_rng(0).integers(0, 256, (1, *shape[1:])).astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Its map may well be blank.
        return cam(image, target, size=None)


def _grid(cam, options) -> tuple[int, ...]:
    """Return the lengths of the map, from a made-up image; a wrong request is refused here."""
    spec = input_spec(cam.model)
    shape = getattr(spec, "shape", None)
    if shape is None:
        raise ValueError(
            "`cam` must be of a model that takes one image. Received: one of several inputs. Explain its "
            "images in Python."
        )
    if None in shape[1:]:
        raise ValueError(
            f"`cam` must be of a model with a fixed input size, so that all maps have one grid. Received: "
            f"{tuple(shape)}. Build the model with an input size: keras.Input((224, 224, 3))."
        )
    explanation = _explain_made_up(cam, options.target)
    _check_label_count(cam, options, explanation)
    maps = _only_map(explanation)
    if len(maps) != 1 or len(explanation.score.shape) != 1:
        raise ValueError("`cam` must give one map for each image. Received: several, or one for a batch.")
    return tuple(maps.shape[1:])


def _check_takes_photographs(cam) -> None:
    shape = tuple(input_spec(cam.model).shape)
    if len(shape) != 4:
        raise ValueError(
            "`cam` must be of a model that takes photographs, (N, H, W, C), where the data set is of files. "
            f"Received: one that takes {shape}. Give a tf.data.Dataset of arrays; files of volumes are for "
            "`tf-gradcam explain`."
        )


def _at_least(cam, draft) -> tuple[int, int]:
    """Return the height and width that a file may be decoded to, at least.

    They are twice those of the input: it is then averaged over areas of at least 2 x 2 pixels, as a file of
    full size is. For a draft they are those of the input.
    """
    shape = input_spec(cam.model).shape
    height, width = shape[2:4] if is_channels_first(shape) else shape[1:3]
    return (height, width) if draft else (2 * height, 2 * width)


def _about(cam, options) -> RowsAbout:
    return RowsAbout(layer_name(cam), without_addresses(name_of_method(cam)), options.labels)


def _check_options(options) -> None:
    if options.dtype not in ("float16", "float32"):
        raise ValueError(f'`dtype` must be "float16" or "float32". Received: {options.dtype!r:.80}')
    if not is_whole(options.batch_size) or options.batch_size < 1:
        raise ValueError(f"`batch_size` must be a positive integer. Received: {options.batch_size!r:.80}")
    if not isinstance(options.draft, bool):
        raise TypeError(f"`draft` must be True or False. Received: {options.draft!r:.80}")


def _plain_labels(labels) -> tuple[str, ...] | None:
    """Return names of classes, of any sequence, as a tuple."""
    if labels is None:
        return None
    is_ordered = hasattr(labels, "__getitem__") and hasattr(labels, "__len__")
    if isinstance(labels, str | bytes | dict) or not is_ordered:
        raise TypeError(f"`labels` must be a sequence of names. Received: {labels!r:.80}")
    names = tuple(labels)
    for name in names:
        if not isinstance(name, str):
            kind = type(name).__name__
            raise TypeError(f"`labels` must be strings. Received: {name!r:.80} (of type {kind})")
    return tuple(map(str, names))


def _check_label_count(cam, options, explanation) -> None:
    """Raise a `ValueError` unless there is a name for each class of what is explained."""
    count = _class_count(cam, options.target, explanation)
    if options.labels is not None and count is not None and len(options.labels) != count:
        raise ValueError(
            f"`labels` must name {count} classes, in the order of the model's outputs. Received: "
            f"{len(options.labels)} names"
        )


def _class_count(cam, target, explanation) -> int | None:
    """Return how many classes the explained output has; `None` where it has none, or nothing tells."""
    shape = tuple(getattr(_chosen_output(cam, explanation.outputs, target), "shape", ()))
    if explanation.target is None or len(shape) < 2:
        return None
    if len(shape) > 2:  # Of a detector some columns are those of boxes.
        asked = cam.model.notes.get("target") if isinstance(cam, FileCam) else repr(target)
        if any(name in str(asked) for name in ("Detection(", "Box(")):
            return None
    return max(2, shape[-1])  # A sigmoid unit has two.

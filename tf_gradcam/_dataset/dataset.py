"""Explain a data set into Parquet files, and go on where an earlier run ended: `explain_dataset`.

Users call it, and the command `run` does.
"""

import os
import pathlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam import targets
from tf_gradcam._checks import is_whole, one_line
from tf_gradcam._dataset.items import array_items, find_items
from tf_gradcam._dataset.manifest import make_manifest
from tf_gradcam._dataset.parts import Parts
from tf_gradcam._dataset.reading import Fit, read_ahead
from tf_gradcam._dataset.rows import ExplainedBatch, Item, ReadItem, RowsAbout, make_rows, make_schema
from tf_gradcam._explain import GradCAM
from tf_gradcam._methods import method_name
from tf_gradcam._model import is_channels_first, layer_path, require_specs
from tf_gradcam._optional import require
from tf_gradcam._run import Classifier, class_index, fit_to_spec

_PAYS_TO_FREEZE = 300  # images: what freezing takes in seconds, it saves by then


class DatasetRun(NamedTuple):
    """What a run did.

    Attributes:
        out: the folder of the parts.
        explained: how many images were explained now.
        failed: how many of them have an error.
        skipped: how many were explained before.
    """

    out: pathlib.Path
    explained: int
    failed: int
    skipped: int


def explain_dataset(
    cam: GradCAM,
    data: Any,
    out: str | pathlib.Path,
    *,
    target: int | None = None,
    labels: Sequence[str] | None = None,
    dtype: str = "float16",
    batch_size: int = 32,
    restart: bool = False,
) -> DatasetRun:
    """Explain a data set of any size, and write a row for each image to Parquet files.

    A row has the image's id, path and SHA-256, the explained class with score and probability, the five best
    classes, the signed map on the layer's own grid, the peak and the box of the evidence, and an error if the
    image couldn't be read or explained. The maps are scaled to `[-1, 1]`; times `map_scale` they are on one
    scale over all images.

    The run may be ended at any time, by Ctrl-C or a signal, and no row is lost; a power cut takes those since
    the last part at most. The same call goes on where it ended, row by row; no image is explained twice, and
    an image with an error isn't read again. Three hundred images or more are explained by a frozen
    copy of the explainer. Memory stays the same however many images there are.

    Args:
        cam: the explainer, for a model of one image input. Its `preprocess` gets the pixels of a file, 0 to
            255, resized to the model's input.
        data: paths: a file, a folder (searched with its subfolders), a glob, a text file of paths, or a CSV
            or Parquet table with a column `path`, and `target` and `id` if they are known; or a list of
            these. Or a `tf.data.Dataset`, as `keras.utils.image_dataset_from_directory` makes it, or a
            `keras.utils.PyDataset`, of batches of images as the explainer takes them; labels are not used.
        out: the folder to write to.
        target: the class to explain in all images; `None` for the class in the table, or each image's own
            predicted one.
        labels: names of the classes.
        dtype: of the maps, `"float16"` or `"float32"`.
        batch_size: images that are explained together.
        restart: whether to remove what an earlier run wrote to `out`, and begin anew.

    Returns:
        A `DatasetRun`. Read the rows with `pyarrow.dataset.dataset(out, format="parquet")`, pandas or polars.

    Raises:
        ImportError: if pyarrow is not installed: `pip install "tf_gradcam[scale]"`.
        ValueError: if `out` holds a run of another model or other options, and what differs; if another run
            writes to it; if the model takes no single image; if a table has no column `path`.

    Example:

    ```python
    cam = tf_gradcam.GradCAM(model, preprocess=keras.applications.resnet.preprocess_input)
    run = tf_gradcam.explain_dataset(cam, "photographs/", "maps/")
    ```
    """
    is_files = isinstance(data, str | pathlib.Path | list | tuple)
    sources = [data] if isinstance(data, str | pathlib.Path) else data
    items = find_items(sources).items if is_files else array_items(data)
    options = DatasetOptions(target, labels, dtype, batch_size, restart)
    return run_dataset(cam, items, pathlib.Path(out), options, fit_pixels(cam.model))


class DatasetOptions(NamedTuple):
    """What `explain_dataset` takes besides the images; see there."""

    target: Any = None
    labels: Sequence[str] | None = None
    dtype: str = "float16"
    batch_size: int = 32
    restart: bool = False
    preprocess: str | None = None  # what the rows' manifest calls it


def target_of(target: str | None, output: str | int | None, labels: Sequence[str] | None) -> Any:
    """Return the target for a class by number or label, of one output of a model with several."""
    index = None if target is None else class_index(target, labels)
    return index if output is None else targets.Output(output, index)


def fit_and_preprocess(classifier: Classifier) -> Fit:
    """Return the function from the values of a file to a classifier's input, preprocessed, `(h, w, C)`."""
    spec = require_specs(classifier.model)
    return lambda values: np.asarray(classifier.preprocess(fit_to_spec(values, spec)))[0]


def fit_pixels(model: keras.Model) -> Fit:
    """Return the function that fits the values of a file to a model's input, `(h, w, C)`."""
    spec = require_specs(model)
    return lambda values: fit_to_spec(values, spec)[0]


def run_dataset(
    cam: GradCAM,
    items: Iterable[Item],
    out: pathlib.Path,
    options: DatasetOptions,
    fit: Fit,
    advance: Callable[[int, int, int], None] = lambda count, failed, before: None,
) -> DatasetRun:
    """Explain items into the parts of a folder; see `explain_dataset`.

    Args:
        cam: the explainer.
        items: the images.
        out: the folder.
        options: the rest.
        fit: makes the explainer's input of what a file holds.
        advance: called after each batch with the number of images that were explained, of errors among
            them, and 0; and first with 0, 0 and the number of images that were explained before.
    """
    _check_options(options)
    about = _about(cam, options)
    grid = _grid(cam, options)
    schema = make_schema(grid, options.dtype)
    known = _with_classes(cam, items, options) if isinstance(items, list) else None
    explained = failed = 0
    manifest = make_manifest(cam, about, options)
    with Parts(out, schema, manifest, restart=options.restart) as parts:
        done = parts.done()
        skipped = len(done)
        if known is not None:
            _check_moved(parts, known)
            skipped = sum(item.id in done for item in known)
            if len(known) - skipped >= _PAYS_TO_FREEZE:
                cam = _frozen_if_possible(cam)
        advance(0, 0, skipped)
        remaining = (item for item in known or items if item.id not in done)
        for batch in read_ahead(remaining, fit, options.batch_size, _at_least(cam)):
            rows, errors = _explain(cam, batch, options, schema, about)
            parts.add(rows)
            explained, failed = explained + len(batch), failed + errors
            advance(len(batch), errors, 0)
    return DatasetRun(out, explained, failed, skipped)


def _explain(cam, batch: list[ReadItem], options, schema, about) -> tuple[Any, int]:
    """Return the rows of a batch, and how many have an error; images that spoil it are explained alone."""
    has_class = [each.image is not None and each.item.target is not None for each in batch]
    if len(set(has_class)) > 1:
        groups = [
            [each for each, has in zip(batch, has_class, strict=True) if has == kind]
            for kind in (True, False)
        ]
        return _explain_groups(cam, groups, options, schema, about)
    try:
        rows = make_rows(batch, _explain_images(cam, batch, options), schema, about)
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        if len(batch) > 1:
            return _explain_groups(cam, [[each] for each in batch], options, schema, about)
        rows = make_rows([batch[0]._replace(image=None, error=one_line(error))], None, schema, about)
    return rows, len(rows) - rows.column("error").null_count


def _explain_groups(cam, groups, options, schema, about) -> tuple[Any, int]:
    explained = [_explain(cam, group, options, schema, about) for group in groups]
    return _joined([rows for rows, _ in explained], schema), sum(count for _, count in explained)


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
    outputs = _chosen_output(explanation.outputs, options.target)
    has_classes = explanation.target is not None and getattr(outputs, "shape", None) is not None
    is_flat = has_classes and len(outputs.shape) == 2
    return ExplainedBatch(
        _only_map(explanation).numpy(),
        explanation.score.numpy(),
        None if explanation.target is None else explanation.target.numpy(),
        outputs.numpy().astype(np.float64) if is_flat else None,
    )


def _target_of_images(images, target) -> Any:
    """Return the target for images: that of the run, or the classes of the data set."""
    classes = [each.item.target for each in images]
    if not _takes_classes(target) or None in classes:
        return target
    return classes if target is None else target._replace(target=classes)


def _takes_classes(target) -> bool:
    """Return whether a run leaves the class to the data set."""
    return target is None or (isinstance(target, targets.Output) and target.target is None)


def _chosen_output(outputs, target) -> Any:
    """Return the output that a target names, of a model with several."""
    if not isinstance(target, targets.Output):
        return outputs
    if isinstance(outputs, dict):
        return outputs.get(target.name)
    is_position = isinstance(outputs, list | tuple) and isinstance(target.name, int)
    return outputs[target.name] if is_position else None


def _only_map(explanation) -> Any:
    """Return the signed map; of several layers it is their fused heatmap."""
    return explanation.heatmap if isinstance(explanation.map, tuple) else explanation.map


def _explain_made_up(cam, target) -> Any:
    """Explain an image of noise, so that a wrong request is refused before any file is read."""
    shape = require_specs(cam.model).shape
    image = np.random.default_rng(0).integers(0, 256, (1, *shape[1:])).astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Its map may well be blank.
        return cam(image, target, size=None)


def _grid(cam, options) -> tuple[int, ...]:
    """Return the lengths of the map, from a made-up image; a wrong request is refused here."""
    spec = require_specs(cam.model)
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
    maps = _only_map(explanation)
    if len(maps) != 1 or len(explanation.score.shape) != 1:
        raise ValueError("`cam` must give one map for each image. Received: several, or one for a batch.")
    return tuple(maps.shape[1:])


def _with_classes(cam, items, options) -> list[Item]:
    """Return items with class numbers for the labels of a table; a class that isn't there is refused."""
    examples = {item.target: item for item in items if item.target is not None}
    if examples and not _takes_classes(options.target):
        raise ValueError(
            "`target` must be None where the table has a column `target`. Received: "
            f"target={options.target!r:.80}. Remove one of the two."
        )
    numbers: dict[Any, int] = {}
    for target, item in examples.items():
        try:
            numbers[target] = class_index(target, options.labels)
        except ValueError as error:
            raise ValueError(f"{one_line(error)} (of {item.id!r:.200})") from error
    # The model has the classes in between, too.
    by_number = sorted(numbers, key=numbers.__getitem__)
    for extreme in {*by_number[:1], *by_number[-1:]}:
        item = examples[extreme]
        image = ReadItem(item._replace(target=numbers[extreme]))
        try:
            _explain_made_up(cam, _target_of_images([image], options.target))
        except ValueError as error:
            raise ValueError(f"{one_line(error)} (of {item.id!r:.200})") from error
    if not numbers:
        return items
    return [item if item.target is None else item._replace(target=numbers[item.target]) for item in items]


def _check_moved(parts, items) -> None:
    """Refuse images of another folder with the ids of earlier ones, which would be skipped in silence.

    The paths of a data set that was moved are others, too, but there are no files at the earlier ones.
    """
    paths = {item.id: item.path for item in items}
    for columns in parts.columns(["id", "path"]):
        for name, earlier in zip(columns["id"].to_pylist(), columns["path"].to_pylist(), strict=True):
            path = paths.get(name, earlier)
            if path != earlier:
                if os.path.exists(earlier) and os.path.exists(path) and not os.path.samefile(earlier, path):
                    raise ValueError(
                        f"`data` must have other ids than the images in `out`. Received: {name!r:.200}, "
                        f"which is {earlier} there, and {path} now. Choose another folder, or name the "
                        "images by a table with a column `id`."
                    )
                return  # One file is enough to tell.


def _at_least(cam) -> tuple[int, int]:
    """Return the height and width that a file may be decoded to, at least: twice those of the input.

    It is then averaged over areas of at least 2 x 2 pixels, as a file of full size is.
    """
    shape = require_specs(cam.model).shape
    height, width = shape[2:4] if is_channels_first(shape) else shape[1:3]
    return 2 * height, 2 * width


def _about(cam, options) -> RowsAbout:
    layers = cam.layer if isinstance(cam.layer, tuple) else (cam.layer,)
    layer = "image" if cam.layer is None else ", ".join(layer_path(cam.model, each) for each in layers)
    return RowsAbout(layer, method_name(cam.method), options.labels)


def _frozen_if_possible(cam) -> GradCAM:
    try:
        return cam if cam.is_frozen else cam.freeze()
    except ValueError:  # It has 2 GiB of weights, or was never called.
        return cam


def _check_options(options) -> None:
    if options.dtype not in ("float16", "float32"):
        raise ValueError(f'`dtype` must be "float16" or "float32". Received: {options.dtype!r:.80}')
    if not is_whole(options.batch_size) or options.batch_size < 1:
        raise ValueError(f"`batch_size` must be a positive integer. Received: {options.batch_size!r:.80}")
    if isinstance(options.labels, str):
        raise TypeError(f"`labels` must be a sequence of names. Received: {options.labels!r:.80}")

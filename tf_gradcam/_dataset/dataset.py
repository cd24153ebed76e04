"""Explain a data set into Parquet files, and go on where an earlier run ended: `explain_dataset`.

Users call it, and the command `run` does.
"""

import hashlib
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam import __version__, targets
from tf_gradcam._checks import one_line
from tf_gradcam._dataset.items import array_items, find_items
from tf_gradcam._dataset.parts import Parts, remove_parts
from tf_gradcam._dataset.reading import Fit, read_ahead
from tf_gradcam._dataset.rows import ExplainedBatch, Item, ReadItem, RowsAbout, make_rows, make_schema
from tf_gradcam._explain import GradCAM
from tf_gradcam._methods import method_name
from tf_gradcam._model import layer_path, require_specs
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

    The run may be ended at any time: by Ctrl-C, by a signal, or by a power cut. The same call goes on where
    it ended, row by row; no image is explained twice. Three hundred images or more are explained by a frozen
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
    advance: Callable[[int, int], None] = lambda count, failed: None,
) -> DatasetRun:
    """Explain items into the parts of a folder; see `explain_dataset`.

    Args:
        cam: the explainer.
        items: the images.
        out: the folder.
        options: the rest.
        fit: makes the explainer's input of what a file holds.
        advance: called with the number of images explained, and of errors among them, after each batch.
    """
    if options.restart:
        remove_parts(out)
    about = _about(cam, options)
    grid = _grid(cam, options)
    schema = make_schema(grid, options.dtype)
    explained = failed = 0
    with Parts(out, schema, _manifest(cam, options)) as parts:
        done = parts.done()
        skipped = len(done)
        remaining = (item for item in items if item.id not in done)
        if isinstance(items, list) and len(items) - skipped >= _PAYS_TO_FREEZE:
            cam = _frozen_if_possible(cam)
        for batch in read_ahead(remaining, fit, options.batch_size, _at_least(cam)):
            rows, errors = _explain(cam, batch, options, schema, about)
            parts.add(rows)
            explained, failed = explained + len(batch), failed + errors
            advance(len(batch), errors)
    return DatasetRun(out, explained, failed, skipped)


def _explain(cam, batch: list[ReadItem], options, schema, about) -> tuple[Any, int]:
    """Return the rows of a batch, and how many have an error; images that spoil it are explained alone."""
    try:
        rows = make_rows(batch, _explain_images(cam, batch, options), schema, about)
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        if len(batch) > 1:
            halves = [_explain(cam, [each], options, schema, about) for each in batch]
            arrow_rows = [rows for rows, _ in halves]
            return _joined(arrow_rows, schema), sum(count for _, count in halves)
        rows = make_rows([batch[0]._replace(image=None, error=one_line(error))], None, schema, about)
    return rows, len(rows) - rows.column("error").null_count


def _joined(batches, schema) -> Any:
    arrow = require("pyarrow", "pyarrow", extra="scale")
    return arrow.Table.from_batches(batches, schema).combine_chunks().to_batches()[0]


def _explain_images(cam, batch, options) -> ExplainedBatch | None:
    """Explain the images of a batch that could be read, each for its own class if the data set has one."""
    readable = [each for each in batch if each.image is not None]
    if not readable:
        return None
    images = np.stack([each.image for each in readable])
    targets = [each.item.target for each in readable]
    target: Any = options.target
    if target is None and None not in targets:
        target = targets
    elif target is None and any(each is not None for each in targets):
        raise ValueError("some images of the batch have a target, and others have none")  # one by one, then
    explanation = cam(images, target, size=None)
    # Of several layers it is their fused heatmap.
    is_tuple = isinstance(explanation.map, tuple)
    maps = explanation.heatmap if is_tuple else explanation.map
    outputs = explanation.outputs
    has_classes = explanation.target is not None and getattr(outputs, "shape", None) is not None
    is_flat = has_classes and len(outputs.shape) == 2
    return ExplainedBatch(
        maps.numpy(),
        explanation.score.numpy(),
        None if explanation.target is None else explanation.target.numpy(),
        outputs.numpy().astype(np.float64) if is_flat else None,
    )


def _grid(cam, options) -> tuple[int, ...]:
    """Return the lengths of the map, from a made-up image; a wrong request is refused here."""
    shape = require_specs(cam.model).shape
    if None in shape[1:]:
        raise ValueError(
            f"`cam` must be of a model with a fixed input size, so that all maps have one grid. Received: "
            f"{tuple(shape)}. Build the model with an input size: keras.Input((224, 224, 3))."
        )
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, *shape[1:])).astype("float32")
    target = options.target
    explanation = cam(image, target, size=None)
    maps = explanation.heatmap if isinstance(explanation.map, tuple) else explanation.map
    if len(maps) != 1 or len(explanation.score.shape) != 1:
        raise ValueError("`cam` must give one map for each image. Received: several, or one for a batch.")
    return tuple(maps.shape[1:])


def _at_least(cam) -> tuple[int, int]:
    """Return the height and width that a file may be decoded to, at least: twice those of the input.

    It is then averaged over areas of at least 2 x 2 pixels, as a file of full size is.
    """
    height, width = require_specs(cam.model).shape[1:3]
    return 2 * height, 2 * width


def _about(cam, options) -> RowsAbout:
    layers = cam.layer if isinstance(cam.layer, tuple) else (cam.layer,)
    layer = "image" if cam.layer is None else ", ".join(layer_path(cam.model, each) for each in layers)
    return RowsAbout(layer, _without_addresses(method_name(cam.method)), options.labels)


def _frozen_if_possible(cam) -> GradCAM:
    try:
        return cam if cam.is_frozen else cam.freeze()
    except ValueError:  # It has 2 GiB of weights, or was never called.
        return cam


def _manifest(cam, options) -> dict[str, Any]:
    """Return what decides the rows of a run; a run with another one is not taken up."""
    about = _about(cam, options)
    preprocess = cam.preprocess
    return {
        "tf_gradcam": __version__,
        "model": cam.model.name,
        "model_sha256": model_hash(cam.model),
        "layer": about.layer,
        "method": about.method,
        "parameters": _without_addresses(repr(cam.method)),
        "fuse": cam.fuse,
        "target": None if options.target is None else _without_addresses(repr(options.target)),
        "labels_sha256": hashlib.sha256("\n".join(options.labels or ()).encode()).hexdigest(),
        "dtype": options.dtype,
        "preprocess": options.preprocess if preprocess is None else getattr(preprocess, "__qualname__", ""),
    }


def _without_addresses(text) -> str:
    """Return the `repr` of an object as it is in every process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def model_hash(model: keras.Model) -> str:
    """Return a SHA-256 of a model's weights and their shapes."""
    digest = hashlib.sha256()
    for weight in model.weights:
        values = np.ascontiguousarray(weight)
        digest.update(f"{values.dtype}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()

"""Explain a data set into Parquet files, and go on where an earlier run ended: `explain_dataset`.

Users call it, and the command `run` does.
"""

import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tf_gradcam._checks import one_line
from tf_gradcam._dataset.items import array_items, find_items
from tf_gradcam._dataset.parts import Parts
from tf_gradcam._dataset.reading import Fit
from tf_gradcam._dataset.row_maker import DatasetOptions, RowMaker, count_errors
from tf_gradcam._dataset.rows import Item
from tf_gradcam._run import (
    PAYS_TO_FREEZE,
    Classifier,
    FileCam,
    check_fits_dtype,
    check_preprocess,
    class_index,
    fit_to_spec,
    input_spec,
)
from tf_gradcam._runtimes import LoadedExplainer, load

if TYPE_CHECKING:
    import keras

    from tf_gradcam._explain import GradCAM


class DatasetRun(NamedTuple):
    """What a run did.

    Attributes:
        out: the folder of the parts.
        explained: how many images were explained now; those with an error don't count.
        failed: how many images of the data set have an error, from now or before.
        skipped: how many have a row from before, with an error or without, and were not read again.
    """

    out: pathlib.Path
    explained: int
    failed: int
    skipped: int


def explain_dataset(
    cam: "GradCAM | LoadedExplainer | str | os.PathLike",
    data: Any,
    out: str | pathlib.Path,
    *,
    target: int | None = None,
    labels: Sequence[str] | None = None,
    dtype: str = "float16",
    batch_size: int = 32,
    draft: bool = False,
    restart: bool = False,
) -> DatasetRun:
    """Explain a data set of any size, and write a row for each image to Parquet files.

    A row has the image's id, path and SHA-256, the explained class with score and probability, the five best
    classes, the signed map on the layer's own grid, the peak and the box of the evidence, and an error if the
    image couldn't be read or explained. The maps are scaled to `[-1, 1]`; times `map_scale` they are on one
    scale over all images.

    The run may be ended at any time, by Ctrl-C or a signal, and no row is lost; a power cut takes those since
    the last part at most. The same call goes on where it ended, row by row; no image is explained twice, and
    an image with an error isn't read again. A thousand images or more are explained by a frozen
    copy of the explainer. Memory stays the same however many images there are.

    Args:
        cam: the explainer, for a model of one image input. Its `preprocess` gets the pixels of a file, 0 to
            255, resized to the model's input. Or a file that `export_gradcam` wrote, loaded by `load` or
            its path: what it explains is fixed, as are layer and method.
        data: paths: a file, a folder (searched with its subfolders), a glob, a text file of paths, or a CSV
            or Parquet table with a column `path`, and `target` and `id` if they are known; or a list of
            these. Or a `tf.data.Dataset`, as `keras.utils.image_dataset_from_directory` makes it, or a
            `keras.utils.PyDataset`, of batches of images as the explainer takes them; labels are not used.
        out: the folder to write to.
        target: the class to explain in all images; `None` for the class in the table, or each image's own
            predicted one.
        labels: names of all classes, in the order of the model's outputs, two for a sigmoid unit; `None` for
            those that an exported file notes, if it does.
        dtype: of the maps, `"float16"` or `"float32"`.
        batch_size: images that are explained together.
        draft: whether large JPEG files are decoded at the smallest size that fills the model's input. It is
            faster, but the pixels that the model sees are others than those of `load_image`, and the maps
            change: docs/datasets.md says how much. The manifest notes it.
        restart: whether to remove what an earlier run wrote to `out`, and begin anew.

    Returns:
        A `DatasetRun`. Read the rows with `pyarrow.dataset.dataset(out, format="parquet")`, pandas or polars.

    Raises:
        ImportError: if pyarrow is not installed: `pip install "tf_gradcam[scale]"`.
        TypeError: if `cam` is no explainer.
        ValueError: if `out` holds a run of another model or other options, and what differs; if another run
            writes to it; if the model takes no single image; if `labels` names more or fewer classes than
            the model has; if a table has no column `path`.

    Example:

    ```python
    cam = tf_gradcam.GradCAM(model, preprocess=keras.applications.resnet.preprocess_input)
    run = tf_gradcam.explain_dataset(cam, "photographs/", "maps/")
    ```
    """
    is_files = isinstance(data, str | pathlib.Path | list | tuple)
    sources = [data] if isinstance(data, str | pathlib.Path) else data
    items = find_items(sources).items if is_files else array_items(data)
    if draft and not is_files:
        raise ValueError("`draft` is for files. Received: draft=True with arrays, which nothing decodes.")
    options = DatasetOptions(target, labels, dtype, batch_size, restart, draft=draft)
    if isinstance(cam, str | os.PathLike):
        cam = load(cam)
    if not isinstance(cam, LoadedExplainer) and not hasattr(cam, "method"):
        raise TypeError(
            "`cam` must be a GradCAM, or an exported file, by its path or loaded. Received: "
            f"{one_line(repr(cam)):.80} (of type {type(cam).__name__}). Make one: tf_gradcam.GradCAM(model)."
        )
    explainer = FileCam(cam) if isinstance(cam, LoadedExplainer) else cam
    fit = fit_pixels(explainer.model, getattr(explainer, "preprocess", None))
    return run_dataset(explainer, items, pathlib.Path(out), options, fit)


def target_of(target: str | None, output: str | int | None, labels: Sequence[str] | None) -> Any:
    """Return the target for a class by number or label, of one output of a model with several."""
    index = None if target is None else class_index(target, labels)
    if output is None:
        return index
    from tf_gradcam import targets

    return targets.Output(output, index)


def fit_and_preprocess(classifier: Classifier) -> Fit:
    """Return the function from the values of a file to a classifier's input, preprocessed, `(h, w, C)`."""
    spec = input_spec(classifier.model)

    def fit(values: np.ndarray) -> np.ndarray:
        fitted = np.asarray(classifier.preprocess(fit_to_spec(values, spec)))
        check_fits_dtype(fitted, values, spec)
        return fitted[0]

    return fit


def fit_pixels(model: "keras.Model | LoadedExplainer", preprocess: Callable | None = None) -> Fit:
    """Return the function that fits the values of a file to a model's input, `(h, w, C)`.

    Args:
        model: the model or loaded file.
        preprocess: what the explainer does before the model gets them.
    """
    spec = input_spec(model)

    def fit(values: np.ndarray) -> np.ndarray:
        fitted = fit_to_spec(values, spec)
        if preprocess is None:
            check_fits_dtype(fitted, values, spec)
        return fitted[0]

    return fit


def fit_file(model: LoadedExplainer, preprocess: Callable | None) -> Fit:
    """Return the function from the values of a file to an exported file's input, `(h, w, C)`.

    Args:
        model: the exported file.
        preprocess: what it needs before; `None` where it has its own, or needs none.

    Raises:
        ValueError: if it has its own, and another is given.
    """
    if preprocess is None:
        return fit_pixels(model)
    check_preprocess(model, getattr(preprocess, "__name__", repr(preprocess)))
    return fit_and_preprocess(Classifier(model, preprocess, None))


def run_dataset(
    cam: "GradCAM | FileCam",
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
        advance: called after each batch with the number of its images, of errors among them, and 0; and
            first with 0, 0 and the number of images that have rows from before.
    """
    maker = RowMaker(cam, options, fit)
    known = maker.with_classes(items) if isinstance(items, list) else None
    explained = 0
    with Parts(out, maker.schema, maker.manifest, restart=options.restart) as parts:
        done, failed_before = parts.done_and_failed()
        skipped, failed = len(done), len(failed_before)
        if known is not None:
            check_moved(parts, known)
            skipped = sum(item.id in done for item in known)
            failed = sum(item.id in failed_before for item in known)
            if len(known) - skipped >= PAYS_TO_FREEZE:
                maker.freeze()
        advance(0, 0, skipped)
        for rows in maker.rows(item for item in known or items if item.id not in done):
            errors = count_errors(rows)
            parts.add(rows)
            explained, failed = explained + len(rows) - errors, failed + errors
            advance(len(rows), errors, 0)
    return DatasetRun(out, explained, failed, skipped)


def check_moved(parts: Parts, items: list[Item]) -> None:
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

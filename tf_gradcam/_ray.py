"""Explain a data set on the workers of a Ray cluster: `explainer`, `run_on_ray`. Users and `run` call them.

Ray hands out paths, and brings the rows back. A worker reads, explains and makes rows as one machine does;
the process that began the run writes them as one machine does.
"""

import contextlib
import functools
import logging
import os
import pathlib
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tf_gradcam._checks import one_line
from tf_gradcam._dataset import (
    DatasetOptions,
    DatasetRun,
    Item,
    Parts,
    RowMaker,
    check_moved,
    count_errors,
    fit_file,
    fit_pixels,
)
from tf_gradcam._optional import require
from tf_gradcam._run import PAYS_TO_FREEZE, FileCam, load_model_file, refusal
from tf_gradcam._runtimes import LoadedExplainer, is_exported, load

if TYPE_CHECKING:
    import keras

Build = Callable[[], tuple[Any, Callable]]  # the explainer, and what fits a file to its input

_FAILURE = "failure"  # the column of a worker that can't explain
_BATCHES_IN_TASK = 8  # at most: the next batches are read while one is explained


def explainer(
    model: "str | os.PathLike | LoadedExplainer | Callable[[], keras.Model | LoadedExplainer]",
    layer: Any = None,
    *,
    method: Any = None,
    preprocess: Callable | None = None,
    call: int | None = None,
    fuse: str | None = None,
    target: Any = None,
    labels: Sequence[str] | None = None,
    dtype: str = "float16",
    batch_size: int = 32,
    draft: bool = False,
    threads: int | None = None,
) -> type:
    """Return a class for `ray.data.Dataset.map_batches` that explains the images of a batch of paths.

    Each worker builds or loads the model once. The batches need a column `path`, and may have `id` and
    `target`; the rows that come back are those of `tf_gradcam.explain_dataset`. An image that can't be read
    or explained is a row with an error. A model that can't be built ends the run.

    Args:
        model: path of a `.keras` or `.h5` file that each worker can read, which is loaded in Keras's safe
            mode; or a function without arguments that returns a model, for all other models. Or path of what
            `export_gradcam` wrote, or what `tf_gradcam.load` loaded: a worker then needs no TensorFlow,
            except for a SavedModel; `layer`, `method`, `call` and `fuse` must be `None`, as the file has its
            own.
        layer: as `tf_gradcam.GradCAM` takes it, and so are `preprocess`, `call` and `fuse`. Functions are
            sent to the workers.
        method: see there; `None` for Grad-CAM.
        preprocess: gets the pixels of a file, 0 to 255, resized to the model's input. It must be `None` for
            an exported file that has its own.
        call: see there.
        fuse: see there.
        target: the class to explain in all images; `None` for the column `target`, or each image's own
            predicted class.
        labels: names of all classes, in the order of the model's outputs, two for a sigmoid unit; `None` for
            those that an exported file notes, if it does.
        dtype: of the maps, `"float16"` or `"float32"`.
        batch_size: images that are explained together. A batch of Ray's may be larger: a worker reads the
            next images while it explains.
        draft: as `tf_gradcam.explain_dataset` takes it.
        threads: how many threads a `.tflite`, `.onnx` or `.xml` file computes with in each worker; `None`
            for one, or for those of what `tf_gradcam.load` loaded. Reserve as many CPUs for a worker:
            `map_batches(..., num_cpus=threads)`. For other models it must be `None`.

    Example:

    ```python
    paths = ray.data.read_csv("photographs.csv")
    workers = ray.data.ActorPoolStrategy(size=4)
    rows = paths.map_batches(
        tf_gradcam.ray.explainer("model.keras"), batch_size=256, compute=workers, num_gpus=1
    )
    rows.write_parquet("maps")
    ```
    """
    given = {"layer": layer, "method": method, "call": call, "fuse": fuse}
    build = functools.partial(_build, model, given, preprocess, threads)
    return _explainer_class(build, DatasetOptions(target, labels, dtype, batch_size, draft=draft))


def _build(model, given: dict[str, Any], preprocess, threads) -> tuple[Any, Callable]:
    built = _built(model, threads)
    if isinstance(built, LoadedExplainer):
        for name, value in given.items():
            if value is not None:
                raise refusal(name, value)
        return FileCam(built), fit_file(built, preprocess)
    from tf_gradcam._explain import GradCAM

    arguments = {name: value for name, value in given.items() if value is not None}
    cam = GradCAM(built, preprocess=preprocess, **arguments)
    return cam, fit_pixels(cam.model, preprocess)


def _built(model, threads) -> Any:
    """Return the Keras model or the loaded file of a worker."""
    is_path = isinstance(model, str | os.PathLike)
    if is_path and is_exported(model):
        return load(model, threads if threads is not None or os.path.isdir(model) else 1)
    if threads is not None:
        raise ValueError(
            f"`threads` must be None unless `model` is the path of an exported file. Received: "
            f"threads={threads!r:.80}. Give the path, or say it where it is loaded: "
            "tf_gradcam.load(path, threads)."
        )
    if isinstance(model, LoadedExplainer):
        return model
    return load_model_file(os.fspath(model)) if is_path else model()


def _explainer_class(build: Build, options: DatasetOptions, prepare: Callable = RowMaker.freeze) -> type:
    """Return the class of which each worker makes one.

    Args:
        build: called in the worker.
        options: of the rows.
        prepare: called with the worker's `RowMaker`.
    """

    class Explainer:
        """Explains the images of a batch of paths; it holds the model of a worker."""

        def __init__(self) -> None:
            cam, fit = build()
            self._maker = RowMaker(cam, options, fit)
            prepare(self._maker)

        def __call__(self, batch: Any) -> Iterator[Any]:
            """Yield a `pyarrow.Table` of rows for the paths in a batch."""
            arrow = require("pyarrow", "pyarrow", extra="scale")
            for rows in self._maker.rows(_items(batch)):
                yield arrow.Table.from_batches([rows])

    return Explainer


def _telling_class(explainer_class: type) -> type:
    """Return a class that answers with the reason where another raises: Ray would log pages, and retry."""

    class Explainer:
        """Explains the images of a batch of paths, or says why it can't."""

        def __init__(self) -> None:
            self._explainer, self._failure = None, ""
            try:
                self._explainer = explainer_class()
            except Exception as error:  # Whatever it is, the run ends with it.
                self._failure = one_line(error) or type(error).__name__

        def __call__(self, batch: Any) -> Iterator[Any]:
            arrow = require("pyarrow", "pyarrow", extra="scale")
            if self._explainer is None:
                yield arrow.table({_FAILURE: [self._failure]})
                return
            try:
                yield from self._explainer(batch)
            except Exception as error:
                yield arrow.table({_FAILURE: [one_line(error) or type(error).__name__]})

    return Explainer


def _prepare(wanted: dict[str, Any], freezes: bool, maker: RowMaker) -> None:
    """Raise a `ValueError` if a worker would make other rows than the process that began the run."""
    found = maker.manifest
    differing = [key for key in wanted if found.get(key) != wanted[key]]
    if differing:
        parts = [f"{key} is {found.get(key)!r:.80}, not {wanted[key]!r:.80}" for key in differing]
        raise ValueError(
            "`model` must be the same on each worker as where the run began. Received: a worker where "
            f"{'; '.join(parts)}. Give all machines the same files and packages."
        )
    if freezes:
        maker.freeze()


def _items(batch) -> list[Item]:
    """Return the images that a batch of paths names, in Arrow or as a dictionary of arrays."""
    table = batch if isinstance(batch, Mapping) else batch.to_pydict()
    if "path" not in table:
        raise ValueError(f"The data set must have a column `path`. Received: {', '.join(table)}")
    paths = [str(path) for path in table["path"]]
    ids = table.get("id", paths)
    files = table.get("file", paths)
    targets = table.get("target", [None] * len(paths))
    return [
        # NumPy has NaN where there is no number.
        Item(str(name), path, None if target is None or target != target else int(target), str(file))
        for name, path, target, file in zip(ids, paths, targets, files, strict=True)
    ]


class RayCluster(NamedTuple):
    """Where to run.

    Attributes:
        address: of the cluster, as `ray.init` takes it; `"local"` for a cluster of this machine alone that
            ends with the run.
        workers: how many processes explain.
        gpus: of each worker; a fraction shares one.
        cpus: of each worker; `None` for one, or none beside a GPU.
    """

    address: str = "local"
    workers: int = 1
    gpus: float = 0
    cpus: int | None = None


def require_ray() -> Any:
    """Return the module `ray`.

    Raises:
        ImportError: if it or what Ray Data needs is not installed; the message names the extra.
    """
    require("ray.data", "ray[data]", extra="ray")
    return require("ray", "ray[data]", extra="ray")


def run_on_ray(
    build: Build,
    maker: RowMaker,
    items: list[Item],
    out: pathlib.Path,
    options: DatasetOptions,
    cluster: RayCluster,
    advance: Callable[[int, int, int], None] = lambda count, failed, before: None,
) -> DatasetRun:
    """Explain items on the workers of a cluster into the parts of a folder, as `run_dataset` does.

    This process writes the rows as they come, so that a part is whole or not there, and a row counts once
    whatever Ray computes twice after a machine is lost.

    Args:
        build: returns the explainer, and what fits a file to its input; each worker calls it.
        maker: of the same rows, here: its manifest tells what they are of.
        items: images in files that each worker can read.
        out: the folder.
        options: the rest.
        cluster: the workers.
        advance: as `run_dataset` takes it.

    Raises:
        ImportError: if Ray is not installed: `pip install "tf_gradcam[ray]"`.
        ValueError: if a worker can't build the explainer, or it is another one.
    """
    ray = require_ray()
    items = maker.with_classes(items)
    explained = 0
    with Parts(out, maker.schema, maker.manifest, restart=options.restart) as parts:
        done, failed_before = parts.done_and_failed()
        failed = sum(item.id in failed_before for item in items)
        check_moved(parts, items)
        remaining = [item for item in items if item.id not in done]
        skipped = len(items) - len(remaining)
        advance(0, 0, skipped)
        freezes = len(remaining) >= PAYS_TO_FREEZE * cluster.workers
        prepare = functools.partial(_prepare, maker.manifest, freezes)
        workers = _telling_class(_explainer_class(build, options._replace(restart=False), prepare))
        for received in _explained(ray, remaining, workers, options.batch_size, cluster):
            rows = _new_rows(received, done, maker.schema)
            if rows is not None:
                errors = count_errors(rows)
                parts.add(rows)
                explained, failed = explained + len(rows) - errors, failed + errors
                advance(len(rows), errors, 0)
    return DatasetRun(out, explained, failed, skipped)


def _explained(ray, items, workers, batch_size, cluster) -> Iterator[Any]:
    """Yield tables of rows in the order in which workers have them."""
    if not items:
        return
    count = min(_BATCHES_IN_TASK * batch_size, max(batch_size, len(items) // (4 * cluster.workers)))
    tables = [_paths(items[start : start + count]) for start in range(0, len(items), count)]
    with _connected(ray, cluster):
        rows = ray.data.from_arrow(tables).map_batches(
            workers,
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=cluster.workers),
            num_gpus=cluster.gpus or None,
            num_cpus=cluster.cpus,
        )
        try:
            for received in rows.iter_batches(batch_size=None, batch_format="pyarrow"):
                if _FAILURE in received.column_names:
                    raise ValueError(f"a worker can't explain: {received.column(_FAILURE)[0].as_py()}")
                yield received
        except ray.exceptions.RayError as error:
            raise ValueError(f"Ray ended the run: {_reason(error)}") from error


def _reason(error) -> str:
    """Return what a worker raised, which Ray shows at the end of its traceback."""
    *_, last = str(error).strip().splitlines()
    raised = re.fullmatch(r"(?:[\w.]+(?:Error|Exception)): (.+)", last)
    return one_line(raised[1] if raised else str(error))


def _paths(items) -> Any:
    """Return a table of paths; absolute ones, too, as workers are in other folders."""
    arrow = require("pyarrow", "pyarrow", extra="scale")
    return arrow.table(
        {
            "id": arrow.array([item.id for item in items], arrow.string()),
            "path": arrow.array([item.path for item in items], arrow.string()),
            "file": arrow.array([os.path.abspath(item.path) for item in items], arrow.string()),
            "target": arrow.array([item.target for item in items], arrow.int32()),
        }
    )


def _new_rows(received, done: set[str], schema) -> Any:
    """Return the rows of images that are not done as a record batch or `None`, and note that they are."""
    arrow = require("pyarrow", "pyarrow", extra="scale")
    is_new = [name not in done for name in received.column("id").to_pylist()]
    done.update(received.column("id").to_pylist())
    batches = received.filter(arrow.array(is_new)).cast(schema).combine_chunks().to_batches()
    return batches[0] if batches else None


@contextlib.contextmanager
def _connected(ray, cluster) -> Iterator[None]:
    """Connect to a cluster, quietly, unless this process is connected already."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield
        return
    own: dict[str, Any] = {}
    if cluster.address == "local":
        own = {"num_cpus": cluster.workers * (cluster.cpus or 1), "include_dashboard": False}
    with _kept_sigterm():
        ray.init(cluster.address, log_to_driver=False, logging_level="warning", **own)
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _kept_sigterm() -> Iterator[None]:
    """Restore this process's own handler of SIGTERM, which Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread() and before is not None:
        signal.signal(signal.SIGTERM, before)

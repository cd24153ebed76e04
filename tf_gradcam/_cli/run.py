"""The command `run`: a data set into Parquet files, from where an earlier run ended."""

import argparse
import contextlib
import functools
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from tf_gradcam._checks import printable
from tf_gradcam._cli.explain import begin, requested_layer, requested_output
from tf_gradcam._cli.terminal import print_problem, say_now_and_then

SECONDS_BETWEEN_LINES = 30.0  # of progress, where there is no terminal


def run_dataset_command(arguments: argparse.Namespace) -> int:
    _check_engine(arguments)
    begin(arguments)
    from tf_gradcam._dataset import RowMaker, check_forms, export_with_problem, find_items, run_dataset

    if arguments.engine == "ray":
        from tf_gradcam._ray import RayCluster, require_ray, run_on_ray

        require_ray()  # A missing package is reported before a model is loaded.
    check_forms(arguments.to, arguments.out)  # before hours of work, not after them
    found = find_items(arguments.sources)
    print(f"tf-gradcam: {found}", file=sys.stderr)
    classifier = _load(arguments, arguments.labels)
    cam, fit = _cam_and_fit(classifier, arguments)
    options = _options(arguments, classifier.labels)
    out = pathlib.Path(arguments.out)
    with _progress(len(found.items), arguments.quiet) as advance:
        if arguments.engine == "ray":
            build = functools.partial(build_in_worker, _for_workers(arguments))
            asked = arguments.workers or 1, arguments.gpus or 0, arguments.threads
            cluster = RayCluster(arguments.address or "local", *asked)
            run = run_on_ray(build, RowMaker(cam, options, fit), found.items, out, options, cluster, advance)
        else:
            run = run_dataset(cam, found.items, out, options, fit, advance)
    print(
        f"{_images(run.explained)} explained, {run.skipped} skipped that had a row before; the rows are in "
        f"{printable(str(run.out))}"
    )
    for form in arguments.to:
        path, problem = export_with_problem(run.out, form)
        print(f"{form}: {printable(str(path))}")
        if problem:
            print_problem(problem, arguments, "warning")
    if run.failed:
        whose = "has an error; its row says" if run.failed == 1 else "have an error; their rows say"
        print_problem(f"{_images(run.failed)} {whose} which", arguments)
    return 1 if run.failed else 0


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"


def _options(arguments, labels) -> Any:
    """Return the `DatasetOptions` that the command's options ask for."""
    from tf_gradcam._dataset import DatasetOptions, target_of

    return DatasetOptions(
        target=target_of(arguments.target, requested_output(arguments), labels),
        labels=labels,
        dtype=arguments.dtype,
        batch_size=arguments.batch_size,
        restart=arguments.restart,
        preprocess=arguments.preprocess,
        draft=arguments.draft,
    )


def _check_engine(arguments) -> None:
    given = [name for name in ("address", "workers", "gpus") if getattr(arguments, name) is not None]
    if given and arguments.engine != "ray":
        raise ValueError(
            f"`{given[0]}` is for a run on Ray. Received: `engine` {arguments.engine}. Add --engine ray."
        )


def _cam_and_fit(classifier, arguments) -> tuple:
    """Return the explainer, and what fits a file to its input."""
    from tf_gradcam._dataset import fit_and_preprocess
    from tf_gradcam._run import FileCam, name_of_method, refusal
    from tf_gradcam._runtimes import LoadedExplainer

    if isinstance(classifier.model, LoadedExplainer):
        file = FileCam(classifier.model)
        for name in ("layer", "call", "fuse", "output", "method"):
            value = getattr(arguments, name, None)
            if value is not None and (name, value) != ("method", name_of_method(file)):
                raise refusal(name, value)
        return file, fit_and_preprocess(classifier)
    from tf_gradcam import GradCAM

    cam = GradCAM(
        classifier.model,
        requested_layer(arguments),
        call=arguments.call,
        method=arguments.method or "gradcam",
        fuse=arguments.fuse,
    )
    return cam, fit_and_preprocess(classifier)


def _for_workers(arguments) -> argparse.Namespace:
    """Return the options that a worker needs, with the whole path of a model's file."""
    from tf_gradcam._cli.classifier import is_exported

    wanted = ("model", "preprocess", "layer", "call", "method", "fuse", "threads", "engine")
    options = {name: getattr(arguments, name) for name in wanted}
    if os.path.isfile(arguments.model) or is_exported(arguments.model):
        options["model"] = os.path.abspath(arguments.model)
    return argparse.Namespace(**options)


def build_in_worker(arguments: argparse.Namespace) -> tuple:
    """Return the explainer that the options ask for, and what fits a file to its input."""
    return _cam_and_fit(_load(arguments, None), arguments)


def _load(arguments: argparse.Namespace, labels: str | None) -> Any:
    """Return the classifier that the options ask for."""
    from tf_gradcam._cli.classifier import load_classifier
    from tf_gradcam._runtimes import needs_no_tensorflow

    threads = arguments.threads
    if threads is None and arguments.engine == "ray" and needs_no_tensorflow(arguments.model):
        threads = 1  # A worker has one CPU of the cluster.
    return load_classifier(arguments.model, arguments.preprocess, labels, exported=True, threads=threads)


@contextlib.contextmanager
def _progress(total: int, quiet: bool) -> Iterator:
    """Show how many images are done: a bar with rate and time left, or a line every 30 seconds.

    Yields:
        The function `advance` of `run_dataset`.
    """
    from rich import console, progress

    terminal = console.Console(stderr=True)
    columns = (
        *progress.Progress.get_default_columns()[:3],
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(),
    )
    counted = _Counted(total)
    with progress.Progress(*columns, console=terminal, disable=quiet or not terminal.is_terminal) as bar:
        task = bar.add_task("Explaining", total=total, rate="")

        def advance(count: int, failed: int, before: int) -> None:
            if before:
                bar.console.print(f"tf-gradcam: {before} of them had a row before", highlight=False)
            counted.add(count, failed, before)
            bar.update(task, advance=count + before, rate=counted.rate())

        with contextlib.nullcontext() if quiet else say_now_and_then(counted.words, SECONDS_BETWEEN_LINES):
            yield advance


class _Counted:
    """Counts images, and says how fast they come."""

    def __init__(self, total: int) -> None:
        self._total, self._count, self._failed, self._before = total, 0, 0, 0
        self._start = time.monotonic()

    def add(self, count: int, failed: int, before: int) -> None:
        if before:
            self._before, self._start = before, time.monotonic()
        self._count, self._failed = self._count + count, self._failed + failed

    def rate(self) -> str:
        return f"{self._count / max(time.monotonic() - self._start, 1e-9):.1f} images/s"

    def words(self) -> str:
        errors = "1 error" if self._failed == 1 else f"{self._failed} errors"
        return f"{self._before + self._count} of {self._total} images done, {errors}, {self.rate()}"

"""The command `run`: a data set into Parquet files, from where an earlier run ended."""

import argparse
import contextlib
import pathlib
import sys
import threading
import time
from collections.abc import Iterator

from tf_gradcam._checks import printable
from tf_gradcam._cli.explain import begin, requested_layer, requested_output
from tf_gradcam._cli.terminal import print_problem

SECONDS_BETWEEN_LINES = 30.0  # of progress, where there is no terminal


def run_dataset_command(arguments: argparse.Namespace) -> int:
    begin(arguments)
    from tf_gradcam._cli.classifier import load_classifier
    from tf_gradcam._dataset import DatasetOptions, class_of, find_items, fit_and_preprocess, run_dataset
    from tf_gradcam._explain import GradCAM

    found = find_items(arguments.sources)
    print(f"tf-gradcam: {found}", file=sys.stderr)
    classifier = load_classifier(arguments.model, arguments.preprocess, arguments.labels)
    cam = GradCAM(
        classifier.model,
        requested_layer(arguments),
        call=arguments.call,
        method=arguments.method,
        fuse=arguments.fuse,
    )
    options = DatasetOptions(
        target=class_of(arguments.target, requested_output(arguments), classifier.labels),
        labels=classifier.labels,
        dtype=arguments.dtype,
        batch_size=arguments.batch_size,
        restart=arguments.restart,
        preprocess=arguments.preprocess,
    )
    with _progress(len(found.items), arguments.quiet) as advance:
        run = run_dataset(
            cam, found.items, pathlib.Path(arguments.out), options, fit_and_preprocess(classifier), advance
        )
    print(
        f"{run.explained} images explained, {run.skipped} before; the rows are in {printable(str(run.out))}"
    )
    if run.failed:
        print_problem(f"{run.failed} images have an error; their rows say which", arguments)
    return 1 if run.failed else 0

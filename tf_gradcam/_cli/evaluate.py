"""The command `evaluate`: how far the heatmaps of photographs can be trusted, as a table, JSON and a page."""

import argparse
import contextlib
import pathlib
import sys

from tf_gradcam._checks import printable
from tf_gradcam._cli.explain import begin, print_skipped, requested_layer, requested_output
from tf_gradcam._cli.signals import must_complete
from tf_gradcam._cli.terminal import print_problem, report_progress, show_bar


def run_evaluate(arguments: argparse.Namespace) -> int:
    begin(arguments, exported=False)
    from tf_gradcam._evaluation import write_evaluation
    from tf_gradcam._run import find_photographs

    found = find_photographs(arguments.photos)
    evaluation = _evaluate(found.photographs, arguments)
    out = pathlib.Path(arguments.out)
    with must_complete():
        names = write_evaluation(evaluation, out)
    if not evaluation.tables:
        print("No photograph could be measured.")
    for table in evaluation.tables.values():
        print(f"{table}\n")
    for note in evaluation.notes:
        print(note)
    print(f"{' and '.join(names)} are in {printable(out)}")
    failed = False
    for row in (photograph.row for photograph in evaluation.photographs):
        failed |= "error" in row
        for kind in ("warning", "error"):
            if kind in row:
                print_problem(row[kind], arguments, kind, row["file"])
    print_skipped(found)
    return 1 if failed else 0


def _evaluate(photographs, arguments):
    """Return the evaluation that the options ask for, and show the progress."""
    from tf_gradcam._cli.classifier import load_classifier
    from tf_gradcam._evaluation import Measures, choose_metrics, evaluate_photographs
    from tf_gradcam._run import Request, choose_methods

    measures = Measures(
        tuple(arguments.metrics or ()),
        None if arguments.baselines is None else tuple(arguments.baselines),
        arguments.sanity,
        arguments.masks,
    )
    request = Request(
        out=pathlib.Path(arguments.out),
        methods=(arguments.method,),
        layer=requested_layer(arguments),
        call=arguments.call,
        fuse=arguments.fuse,
        output=requested_output(arguments),
        target=arguments.target,
        channels=arguments.channels,
    )
    choose_methods(request)  # What is wrong without a model is reported before one is loaded.
    choose_metrics(measures)
    with contextlib.ExitStack() as progress:
        advance = progress.enter_context(report_progress(len(photographs))).advance
        classifier = load_classifier(arguments.model, arguments.preprocess, arguments.labels)
        advance_bar = progress.enter_context(show_bar(len(photographs)))

        def advance_both() -> None:
            advance()
            advance_bar()

        def report(step: str) -> None:
            progress.close()  # All photographs are explained.
            print(f"tf-gradcam: measuring {step}", file=sys.stderr, flush=True)

        return evaluate_photographs(photographs, request, measures, classifier, advance_both, report)

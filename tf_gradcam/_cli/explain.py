"""The commands `explain` and `demo`: make a request from the options, run it, and print its results."""

import argparse
import contextlib
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Generator, Iterable
from typing import Any, NamedTuple

from tf_gradcam._checks import one_line, printable
from tf_gradcam._cli.signals import describe_interrupt, interrupt_code, must_complete
from tf_gradcam._cli.terminal import (
    NOT_WRITTEN,
    import_tensorflow,
    print_problem,
    print_table,
    report_progress,
    show_bar,
)

MOST_ROWS_AT_AN_END = 500  # in the table of a run that ends early: a thousand take half a second
RunEnd = KeyboardInterrupt | OSError  # an exception that ends a run before it is finished


def run_explain(arguments: argparse.Namespace) -> int:
    begin(arguments)
    from tf_gradcam._run import find_photographs

    found = find_photographs(arguments.photos, arguments.series)
    with contextlib.ExitStack() as ending:
        journal, run_end = _explain_missing(found.photographs, arguments, ending)
        results = _Results(
            journal.rows(found.photographs), journal.all_rows(found.photographs), len(found.photographs)
        )
        code = _finish(results, run_end, arguments)
    print_skipped(found)
    return code


def _explain_missing(photographs: list, arguments: argparse.Namespace, ending: contextlib.ExitStack) -> tuple:
    """Explain the photographs that the folder holds no pictures of.

    Returns:
        The journal of the folder, which `ending` closes, and the exception that ended the run before it was
        finished, if any.
    """
    from tf_gradcam._run import Journal, request_manifest, write_results

    request = _make_request(arguments)
    _check_methods(request, arguments)
    with report_progress(len(photographs)) as progress:
        classifier = _load(arguments)
        request = requested_of_file(request, classifier, arguments.method)
        manifest = request_manifest(request, classifier, arguments.preprocess)
        journal = ending.enter_context(Journal(request.out, manifest, arguments.restart))
        missing = journal.missing(photographs)
        for _ in range(len(photographs) - len(missing)):
            progress.advance()
        if len(missing) < len(photographs):
            before = f"{len(photographs) - len(missing)} of {len(photographs)} photographs"
            print(f"tf-gradcam: {before} were explained before", file=sys.stderr)

        def write_unfinished() -> None:
            write_results(journal.all_rows(photographs), request.out, finished=False)

        ending.enter_context(journal.at_sudden_end(write_unfinished))
        take = functools.partial(_explain_with, request, classifier, progress, journal)
        return journal, take(photographs, len(missing), lambda findings: None)


def run_demo(arguments: argparse.Namespace) -> int:
    begin(arguments)
    from tf_gradcam._run import demo_photographs

    photographs = demo_photographs()
    findings: list[list] = []
    request = _make_request(arguments)
    _check_methods(request, arguments)
    count = len(photographs)
    with report_progress(count) as progress:
        classifier = _load(arguments)
        request = requested_of_file(request, classifier, arguments.method)
        run_end = _explain_with(request, classifier, progress, None, photographs, count, findings.append)
    rows = [finding.row for of_photograph in findings for finding in of_photograph]
    code = _finish(_Results(rows, rows, count), run_end, arguments)
    explained = [of_photograph for of_photograph in findings if "error" not in of_photograph[0].row]
    if explained and run_end is None:
        _draw_contact_sheet(explained, arguments)
    return code


def _draw_contact_sheet(findings, arguments) -> None:
    from tf_gradcam._run import Photograph, draw_contact_sheet, may_write, picture_names

    request = _make_request(arguments)
    sheet = Photograph("contact-sheet.png", None)
    (name,) = picture_names([sheet], lambda name: may_write(request.out / f"{name}.png"))
    draw_contact_sheet(findings, request.out / f"{name}.png", request)


def begin(arguments: argparse.Namespace, *, exported: bool = True) -> None:
    """Say on a terminal that the model takes a while, and import TensorFlow if it needs it.

    Args:
        arguments: the command's.
        exported: whether the command takes an exported file, which needs none.

    Raises:
        ValueError: at once, if it takes none and gets one.
    """
    from rich import console

    from tf_gradcam._cli.classifier import check_needs_keras
    from tf_gradcam._runtimes import needs_no_tensorflow

    if not exported:
        check_needs_keras(arguments.model)
    terminal = console.Console(stderr=True)
    if terminal.is_terminal:
        terminal.print(f"Loading {printable(arguments.model)} ...", markup=False, highlight=False)
    if not (exported and needs_no_tensorflow(arguments.model)):
        import_tensorflow()


def _check_methods(request, arguments: argparse.Namespace) -> None:
    """Raise a `ValueError` for a wrong method before a model is loaded. An exported file has its own."""
    from tf_gradcam._run import choose_methods
    from tf_gradcam._runtimes import is_exported

    if not is_exported(arguments.model):
        choose_methods(request)


def _explain_with(
    request, classifier, progress, journal, photographs: list, count: int, take: Callable[[list], None]
) -> RunEnd | None:
    """Explain photographs, hand the findings in each to `take`, and show the progress of that many.

    Returns:
        The exception that ended the run before it was finished, if any. The findings until then are taken.
    """
    from tf_gradcam._run import explain_photographs

    found = explain_photographs(photographs, request, classifier, progress.report, journal)
    with show_bar(count) as advance_bar:

        def take_and_advance(findings: list) -> None:
            take(findings)
            progress.advance()
            advance_bar()

        return _take_findings(found, take_and_advance)


def _load(arguments: argparse.Namespace):
    from tf_gradcam._cli.classifier import load_classifier

    given = arguments.model, arguments.preprocess, arguments.labels
    return load_classifier(*given, exported=True, threads=arguments.threads)


def _take_findings(found: Generator, take: Callable[[list], None]) -> RunEnd | None:
    """Take the findings in each photograph; return the exception that ended the run early, if any."""
    try:
        for findings in found:
            take(findings)
    except (KeyboardInterrupt, OSError) as run_end:
        # An interrupt between two photographs was not raised in the generator, which still has findings.
        with contextlib.suppress(KeyboardInterrupt, OSError):
            take(found.throw(run_end))
            for findings in found:
                take(findings)
        return run_end
    return None


def _make_request(arguments: argparse.Namespace):
    """Return the request that the options of `explain` or `demo` make."""
    from tf_gradcam._run import Request

    return Request(
        out=pathlib.Path(arguments.out),
        methods=tuple(arguments.method or ["gradcam"]),
        layer=requested_layer(arguments),
        call=arguments.call,
        fuse=arguments.fuse,
        output=requested_output(arguments),
        target=arguments.target,
        top=arguments.top,
        channels=arguments.channels,
        format=arguments.format,
        alpha=arguments.alpha,
        colormap=arguments.colormap,
        fade=arguments.fade,
        vmax=getattr(arguments, "vmax", None),  # `demo` has none of these
        signed=getattr(arguments, "signed", False),
        contour=getattr(arguments, "contour", None),
        boxes=arguments.boxes,
        picture=_picture_options(arguments),
        sliding=getattr(arguments, "sliding", None),
    )


def requested_of_file(request, classifier, method: list[str] | None):
    """Return the request; of an exported file with its own method, beside which none may be asked for.

    Args:
        request: a `Request`.
        classifier: the model or file with its preprocessing.
        method: what `--method` asks for, if it was given.
    """
    from tf_gradcam._run import FileCam, name_of_method, refusal
    from tf_gradcam._runtimes import LoadedExplainer

    if not isinstance(classifier.model, LoadedExplainer):
        return request
    own = name_of_method(FileCam(classifier.model))
    if method and method != [own]:
        raise refusal("method", ", ".join(method))
    return dataclasses.replace(request, methods=(own,))


def _picture_options(arguments: argparse.Namespace):
    """Return the options of scans in pictures; `demo` has none of them."""
    from tf_gradcam._files import PictureOptions

    names = PictureOptions._fields
    return PictureOptions(*(getattr(arguments, name, None) for name in names))


def requested_layer(arguments: argparse.Namespace) -> str | list[str] | None:
    """Return the layer that `--layer` asks for, a list of several, or `None`."""
    requested = arguments.layer
    return requested[0] if requested and len(requested) == 1 else requested


def requested_output(arguments: argparse.Namespace) -> str | int | None:
    """Return the name or position of the output that `--output` asks for, or `None`."""
    output = arguments.output
    return int(output) if output is not None and output.isdecimal() else output


class _Results(NamedTuple):
    """What a run found.

    Attributes:
        rows: of every photograph that was explained, now or before, or couldn't be.
        written: these and the rows of photographs that other commands explained, for the JSON file.
        total: how many photographs there are.
    """

    rows: list[dict[str, Any]]
    written: list[dict[str, Any]]
    total: int


def _finish(results: _Results, run_end: RunEnd | None, arguments: argparse.Namespace) -> int:
    """Write the JSON, print table and problems, and return the exit code.

    Args:
        results: what was found.
        run_end: the exception that ended the run before it was finished.
        arguments: the command's.
    """
    from tf_gradcam._run import write_results

    rows, name = results.rows, ""
    if rows or run_end is None:
        try:
            with must_complete():
                name = write_results(results.written, pathlib.Path(arguments.out), finished=run_end is None)
        except OSError as error:
            run_end = run_end or error
    several_methods = len({row["method"] for row in rows if "method" in row}) > 1
    if run_end is None or len(rows) <= MOST_ROWS_AT_AN_END:
        _print_rows(rows, several_methods)
    print(_location_line(rows, name, arguments))
    _print_problems(rows, several_methods, run_end, arguments)
    if run_end is None:
        return 1 if any("error" in row for row in rows) else 0
    done = len({row["file"] for row in rows if "error" not in row})
    reason = describe_interrupt(run_end) if isinstance(run_end, KeyboardInterrupt) else run_end
    print_problem(f"{one_line(reason)}, after {done} of {results.total} photographs", arguments)
    return interrupt_code(run_end) if isinstance(run_end, KeyboardInterrupt) else NOT_WRITTEN


def _location_line(rows, name, arguments) -> str:
    """Return a line that says where the results are; `name` is that of the JSON file, if there is one."""
    from tf_gradcam._run import RESULTS_FILE

    folder = printable(arguments.out)
    if any("label" in row for row in rows):  # of a photograph that was explained
        line = f"The pictures and {name} are in {folder}" if name else f"The pictures are in {folder}"
    else:
        line = (
            f"No picture was written; {name} is in {folder}"
            if name
            else f"No picture was written to {folder}"
        )
    if name != RESULTS_FILE and pathlib.Path(arguments.out, RESULTS_FILE).exists():
        line += f"; {RESULTS_FILE} there is an earlier run's"
    return line


def _print_problems(rows, several_methods, run_end, arguments) -> None:
    """Print each warning and error of the rows, except the one that ended the run, which is printed once."""
    problems: dict[tuple, None] = {}
    for row in rows:
        about = f"{row['file']} {row.get('method', '')}" if several_methods else row["file"]
        for kind in ("warning", "error"):
            if kind in row and row[kind] != one_line(run_end):
                problems[kind, row[kind], about] = None
    for kind, problem, about in problems:
        print_problem(problem, arguments, kind, about)


def print_skipped(found) -> None:
    """Say how many files were skipped, if any."""
    counts = {
        "that are no photographs": len(found.no_photographs),
        "hidden": len(found.hidden),
        "that tf-gradcam wrote": len(found.own_pictures),
    }
    skipped = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    if skipped:
        print(f"tf-gradcam: skipped files: {skipped}", file=sys.stderr)


def _print_rows(rows: Iterable[dict[str, Any]], several_methods: bool) -> None:
    columns = ["photo", "method", "label", "probability", "layer", "seconds"]
    if not several_methods:
        columns.remove("method")
    print_table(columns, [[_cells(row).get(name, "") for name in columns] for row in rows])


def _cells(row: dict[str, Any]) -> dict[str, str]:
    """Return the cells of a row in the table, by column."""
    from tf_gradcam._run import format_probability

    if "label" not in row:
        return {"photo": row["file"], "label": "error"}
    seconds = f"{row['seconds']:.2f}"
    return {**row, "photo": row["file"], "probability": format_probability(row), "seconds": seconds}

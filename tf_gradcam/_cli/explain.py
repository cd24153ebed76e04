"""The commands `explain` and `demo`: their options as a request, the run, and the table of its results."""

import argparse
import contextlib
import pathlib
import sys
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any

from tf_gradcam._checks import one_line, printable
from tf_gradcam._cli.signals import describe_interrupt, ignore_signals, interrupt_code
from tf_gradcam._cli.terminal import (
    NOT_WRITTEN,
    import_tensorflow,
    print_problem,
    print_table,
    report_progress,
    show_bar,
)

SECONDS_BETWEEN_SAVES = 30.0  # of the rows of a run that isn't finished
Stop = KeyboardInterrupt | OSError  # what ends a run before it is through


def run_explain(arguments: argparse.Namespace) -> int:
    _begin(arguments)
    from tf_gradcam._run import find_photographs

    found = find_photographs(arguments.photos)
    rows: list[dict[str, Any]] = []
    stop = _explain(found.photographs, arguments, _keep_rows(rows, pathlib.Path(arguments.out)))
    code = _finish(rows, len(found.photographs), stop, arguments)
    _print_skipped(found)
    return code


def _keep_rows(rows: list[dict[str, Any]], out: pathlib.Path) -> Callable[[list], None]:
    """Return a function that adds the rows of findings to `rows`, and now and then writes those until then.

    A process that is killed, or runs out of memory, so loses those of the last seconds only.
    """
    from tf_gradcam._run import write_results

    next_save = time.monotonic() + SECONDS_BETWEEN_SAVES

    def keep(findings: list) -> None:
        nonlocal next_save
        # Rows alone, as images and heatmaps would fill the memory.
        rows.extend([finding.row for finding in findings])
        start = time.monotonic()
        if start >= next_save:
            write_results(rows, out, finished=False)
            now = time.monotonic()
            next_save = now + max(SECONDS_BETWEEN_SAVES, 50 * (now - start))  # at most 2 % of the time

    return keep


def run_demo(arguments: argparse.Namespace) -> int:
    _begin(arguments)
    from tf_gradcam._run import demo_photographs

    photographs = demo_photographs()
    findings: list[list] = []
    stop = _explain(photographs, arguments, findings.append)
    rows = [finding.row for of_photograph in findings for finding in of_photograph]
    code = _finish(rows, len(photographs), stop, arguments)
    explained = [of_photograph for of_photograph in findings if "error" not in of_photograph[0].row]
    if explained and stop is None:
        _draw_contact_sheet(explained, arguments)
    return code


def _draw_contact_sheet(findings, arguments) -> None:
    from tf_gradcam._run import Photograph, draw_contact_sheet, may_write, picture_names

    request = _make_request(arguments)
    sheet = Photograph("contact-sheet.png", None)
    (name,) = picture_names([sheet], lambda name: may_write(request.out / f"{name}.png"))
    draw_contact_sheet(findings, request.out / f"{name}.png", request)


def _begin(arguments: argparse.Namespace) -> None:
    """Import TensorFlow; on a terminal, say that this and the model take a while."""
    from rich import console

    terminal = console.Console(stderr=True)
    if terminal.is_terminal:
        terminal.print(f"Loading {printable(arguments.model)} ...", markup=False, highlight=False)
    import_tensorflow()


def _explain(photographs: list, arguments: argparse.Namespace, take: Callable[[list], None]) -> Stop | None:
    """Explain photographs, hand the findings in each to `take`, and show the progress.

    Returns:
        What ended the run before it was through; the findings until then are taken.
    """
    from tf_gradcam._cli.classifier import load_classifier
    from tf_gradcam._run import choose_methods, explain_photographs

    request = _make_request(arguments)
    choose_methods(request)  # What is wrong with them is told before a model is loaded.
    with report_progress(len(photographs)) as advance:
        classifier = load_classifier(arguments.model, arguments.preprocess, arguments.labels)
        found = explain_photographs(photographs, request, classifier)
        with show_bar(len(photographs)) as advance_bar:

            def take_and_advance(findings: list) -> None:
                take(findings)
                advance()
                advance_bar()

            return _take_findings(found, take_and_advance)


def _take_findings(found: Generator, take: Callable[[list], None]) -> Stop | None:
    """Take the findings in each photograph; return what ended the run before it was through."""
    try:
        for findings in found:
            take(findings)
    except (KeyboardInterrupt, OSError) as stop:
        # Where the interrupt came between two photographs, the run hasn't heard of it, and holds findings.
        with contextlib.suppress(KeyboardInterrupt, OSError):
            take(found.throw(stop))
            for findings in found:
                take(findings)
        return stop
    return None


def _make_request(arguments: argparse.Namespace):
    """Return what the options of `explain` or `demo` ask for."""
    from tf_gradcam._run import Request

    output = arguments.output
    return Request(
        out=pathlib.Path(arguments.out),
        methods=tuple(arguments.method),
        layer=asked_layer(arguments),
        call=arguments.call,
        fuse=arguments.fuse,
        output=int(output) if output is not None and output.isdecimal() else output,
        target=arguments.target,
        top=arguments.top,
        channels=arguments.channels,
        format=arguments.format,
        alpha=arguments.alpha,
        colormap=arguments.colormap,
        fade=arguments.fade,
    )


def asked_layer(arguments: argparse.Namespace) -> str | list[str] | None:
    """Return the layer that `--layer` asks for, a list of several, or `None`."""
    asked = arguments.layer
    return asked[0] if asked and len(asked) == 1 else asked


def _finish(rows: list[dict[str, Any]], total: int, stop: Stop | None, arguments: argparse.Namespace) -> int:
    """Write the JSON, print table and problems, and return the exit code.

    Args:
        rows: of every photograph that was explained, or couldn't be.
        total: how many photographs there are.
        stop: what ended the run before it was through.
        arguments: the command's.
    """
    from tf_gradcam._run import write_results

    name = ""
    if rows or stop is None:
        try:
            with ignore_signals():
                name = write_results(rows, pathlib.Path(arguments.out), finished=stop is None)
        except OSError as error:
            stop = stop or error
    several_methods = len({row["method"] for row in rows if "method" in row}) > 1
    _print_rows(rows, several_methods)
    print(_where(name, arguments))
    _print_problems(rows, several_methods, stop, arguments)
    if stop is None:
        return 1 if any("error" in row for row in rows) else 0
    done = len({row["file"] for row in rows if "error" not in row})
    reason = describe_interrupt(stop) if isinstance(stop, KeyboardInterrupt) else stop
    print_problem(f"{one_line(reason)}, after {done} of {total} photographs", arguments)
    return interrupt_code(stop) if isinstance(stop, KeyboardInterrupt) else NOT_WRITTEN


def _where(name, arguments) -> str:
    """Return a line that says where the results are; `name` is that of the JSON file, if there is one."""
    from tf_gradcam._run import RESULTS_FILE

    where = printable(arguments.out)
    line = f"The pictures and {name} are in {where}" if name else f"The pictures are in {where}"
    if name != RESULTS_FILE and pathlib.Path(arguments.out, RESULTS_FILE).exists():
        line += f"; {RESULTS_FILE} there is an earlier run's"
    return line


def _print_problems(rows, several_methods, stop, arguments) -> None:
    """Print each warning and error of the rows, but not what ended the whole run, which is said once."""
    problems: dict[tuple, None] = {}
    for row in rows:
        about = f"{row['file']} {row.get('method', '')}" if several_methods else row["file"]
        for kind in ("warning", "error"):
            if kind in row and row[kind] != one_line(stop):
                problems[kind, row[kind], about] = None
    for kind, problem, about in problems:
        print_problem(problem, arguments, kind, about)


def _print_skipped(found) -> None:
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
    """Return what the table says of a row, by column."""
    from tf_gradcam._run import format_probability

    if "label" not in row:
        return {"photo": row["file"], "label": "error"}
    seconds = f"{row['seconds']:.2f}"
    return {**row, "photo": row["file"], "probability": format_probability(row), "seconds": seconds}

"""The commands `explain` and `demo`: their options as a request, the run, and the table of its results."""

import argparse
import pathlib
from collections.abc import Iterable
from typing import Any

from tf_gradcam._checks import printable
from tf_gradcam._cli.terminal import import_tensorflow, print_problem, print_table


def run_explain(arguments: argparse.Namespace) -> int:
    _begin(arguments)
    from tf_gradcam._run import find_photographs

    found = [photograph for pattern in arguments.photos for photograph in find_photographs(pattern)]
    photographs = list(dict.fromkeys(found))  # Twice the same photograph is once.
    # Rows alone, as images and heatmaps would fill the memory.
    rows = [finding.row for findings in _explain(photographs, arguments) for finding in findings]
    return _finish(rows, arguments)


def run_demo(arguments: argparse.Namespace) -> int:
    _begin(arguments)
    from tf_gradcam._run import demo_photographs, draw_contact_sheet

    findings = list(_explain(demo_photographs(), arguments))
    request = _make_request(arguments)
    explained = [of_photograph for of_photograph in findings if "error" not in of_photograph[0].row]
    draw_contact_sheet(explained, request.out / "contact-sheet.png", request)
    return _finish([finding.row for of_photograph in findings for finding in of_photograph], arguments)


def _begin(arguments: argparse.Namespace) -> None:
    """Import TensorFlow; on a terminal, say that this and the model take a while."""
    from rich import console

    terminal = console.Console(stderr=True)
    if terminal.is_terminal:
        terminal.print(f"Loading {printable(arguments.model)} ...", markup=False, highlight=False)
    import_tensorflow()


def _explain(photographs: list, arguments: argparse.Namespace) -> Iterable[list]:
    """Return the findings in each photograph as they come; on a terminal, show the progress."""
    from rich import console, progress

    from tf_gradcam._cli.classifier import load_classifier
    from tf_gradcam._run import choose_methods, explain_photographs

    request = _make_request(arguments)
    choose_methods(request)  # What is wrong with them is told before a model is loaded.
    classifier = load_classifier(arguments.model, arguments.preprocess, arguments.labels)
    findings = explain_photographs(photographs, request, classifier)
    terminal = console.Console(stderr=True)
    return progress.track(
        findings,
        "Explaining",
        len(photographs),
        console=terminal,
        disable=not terminal.is_terminal,
    )


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


def _finish(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> int:
    """Write the JSON, print table and problems, and return the exit code."""
    from tf_gradcam._run import RESULTS_FILE, write_results

    write_results(rows, pathlib.Path(arguments.out))
    several_methods = len({row["method"] for row in rows if "method" in row}) > 1
    _print_rows(rows, several_methods)
    print(f"The pictures and {RESULTS_FILE} are in {printable(arguments.out)}")
    for row in rows:
        about = f"{row['file']} {row.get('method', '')}" if several_methods else row["file"]
        for kind in {"warning", "error"} & set(row):
            print_problem(row[kind], arguments, kind, about)
    return 1 if any("error" in row for row in rows) else 0


def _print_rows(rows: Iterable[dict[str, Any]], several_methods: bool) -> None:
    columns = ["photo", "method", "label", "probability", "layer", "seconds"]
    if not several_methods:
        columns.remove("method")
    print_table(columns, [[_cells(row).get(name, "") for name in columns] for row in rows])


def _cells(row: dict[str, Any]) -> dict[str, str]:
    """Return what the table says of a row, by column."""
    from tf_gradcam._run import format_probability

    if "error" in row:
        return {"photo": row["file"], "label": "error"}
    seconds = f"{row['seconds']:.2f}"
    return {**row, "photo": row["file"], "probability": format_probability(row), "seconds": seconds}

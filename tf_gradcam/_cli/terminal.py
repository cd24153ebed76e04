"""Print tables, problems and progress, and import TensorFlow without its log. Every command calls it."""

import argparse
import contextlib
import importlib.util
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from tf_gradcam._checks import one_line, printable

SECONDS_BETWEEN_LINES = 10.0  # of progress, where there is no terminal
NOT_WRITTEN = 3  # the exit code where a result couldn't be written, as on a full disk
_IS_LOG_WANTED = "TF_CPP_MIN_LOG_LEVEL" in os.environ


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich import box, console, table, text

    grid = table.Table(box=box.SIMPLE_HEAD)
    for name in columns:
        is_number = name in ("probability", "seconds")
        is_copied = name == "method"  # Users copy it to `--method`, so it is not broken into lines.
        grid.add_column(name, justify="right" if is_number else "left", overflow="fold", no_wrap=is_copied)
    for row in rows:
        # Text, as a plain string would be read as markup: a file may be called "[red]cat.png".
        grid.add_row(*(text.Text(printable(cell)) for cell in row))
    # Piped output is wide, so that each row is one line.
    console.Console(width=None if sys.stdout.isatty() else 240).print(grid)


def print_problem(problem: Any, arguments: argparse.Namespace, kind: str = "error", about: str = "") -> None:
    """Print a problem on one line of stderr, in terms of the command's options."""
    text = with_option_names(one_line(problem), arguments)
    print(f"tf-gradcam: {kind}: {f'{one_line(about)}: ' if about else ''}{text}", file=sys.stderr)


def with_option_names(text: str, arguments: argparse.Namespace) -> str:
    """Return text with the option's name for each argument in backticks that is an option of the command.

    The library says `` `top_k` `` where the command line says `` `--top-k` ``, and `` `cam` `` for what
    explains `` `--model` ``.
    """
    options = set(re.findall(r"--[\w-]+", arguments.command.format_usage()))

    def rename(match: re.Match) -> str:
        name = "model" if match[1] == "cam" else match[1]
        option = f"--{name.replace('_', '-')}"
        return f"`{option}`" if option in options else match[0]

    return re.sub(r"`(\w+)`", rename, text)


class Progress(NamedTuple):
    """What to call after each photograph, and with a few words on how far a volume or video is."""

    advance: Callable[[], None]
    report: Callable[[str], None]


@contextlib.contextmanager
def report_progress(total: int) -> Iterator[Progress]:
    """Print every few seconds how many photographs are explained, on stderr if that is not a terminal.

    It also prints while the model is loading, and while one photograph takes long.

    Yields:
        The functions to call.
    """
    count, step = 0, ""

    def advance() -> None:
        nonlocal count, step
        count, step = count + 1, ""

    def report(words: str) -> None:
        nonlocal step
        step = words

    with say_now_and_then(lambda: f"explained {count} of {total}{f', {step}' if step else ''}"):
        yield Progress(advance, report)


@contextlib.contextmanager
def say_now_and_then(words: Callable[[], str], seconds: float | None = None) -> Iterator[None]:
    """Print what `words` returns on stderr every few seconds, if that is not a terminal.

    Args:
        words: called in another thread.
        seconds: between two lines; `None` for `SECONDS_BETWEEN_LINES`.
    """
    from rich import console

    done = threading.Event()

    def print_lines() -> None:
        while not done.wait(SECONDS_BETWEEN_LINES if seconds is None else seconds):
            print(f"tf-gradcam: {words()}", file=sys.stderr, flush=True)

    reporter = threading.Thread(target=print_lines, daemon=True, name="reporter")
    if not console.Console(stderr=True).is_terminal:
        reporter.start()
    try:
        yield
    finally:
        done.set()
        if reporter.ident is not None:
            reporter.join()


@contextlib.contextmanager
def show_bar(total: int) -> Iterator[Callable[[], None]]:
    """Show a bar of progress on stderr, if that is a terminal.

    Yields:
        A function to call after each photograph.
    """
    from rich import console, progress

    terminal = console.Console(stderr=True)
    with progress.Progress(console=terminal, disable=not terminal.is_terminal) as bar:
        task = bar.add_task("Explaining", total=total)
        yield lambda: bar.advance(task)


def format_shape(shape: Iterable[int | None]) -> str:
    return " x ".join("?" if length is None else str(length) for length in shape)


def import_tensorflow() -> None:
    """Import TensorFlow without its log, unless the user asked for one.

    Raises:
        ImportError: if it is not installed; it says what works without it.
    """
    if sys.modules.get("tensorflow") is not None:
        return
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError(
            "this needs TensorFlow, which isn't installed: pip install tensorflow. Without it, `explain` and "
            "`run` take what `tf-gradcam export` wrote: --model FILE.onnx, .tflite or .xml."
        )
    with without_log():
        importlib.import_module("tensorflow")


@contextlib.contextmanager
def without_log() -> Iterator[None]:
    """Hide what TensorFlow or LiteRT log while they load, unless the user asked for their log."""
    if _IS_LOG_WANTED:
        yield
        return
    # While they load, they ignore that setting and write to the file descriptor, not to sys.stderr.
    with open(os.devnull, "w") as devnull, contextlib.ExitStack() as restore:
        stderr = os.dup(2)
        restore.callback(os.close, stderr)
        restore.callback(os.dup2, stderr, 2)
        os.dup2(devnull.fileno(), 2)
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        yield

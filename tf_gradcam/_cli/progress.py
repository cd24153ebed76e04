"""How far a run is: a bar on a terminal, elsewhere a plain line now and then. `explain` calls it."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

SECONDS = 10.0  # between two lines


@contextlib.contextmanager
def report_progress(total: int) -> Iterator[Callable[[], None]]:
    """Print how many photographs are explained, every few seconds, on stderr if that is no terminal.

    It counts from the start, when the model is still loading, and whatever takes long.

    Yields:
        A function to call after each photograph.
    """
    from rich import console

    count = 0
    done = threading.Event()

    def advance() -> None:
        nonlocal count
        count += 1

    def report() -> None:
        while not done.wait(SECONDS):
            print(f"tf-gradcam: explained {count} of {total}", file=sys.stderr, flush=True)

    reporter = threading.Thread(target=report, daemon=True)
    if not console.Console(stderr=True).is_terminal:
        reporter.start()
    try:
        yield advance
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

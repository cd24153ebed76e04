"""Signals that ask the command to end, as exceptions. `main`, `process` and the commands call it."""

import contextlib
import signal
import threading
from collections.abc import Iterator

_completing = threading.Lock()  # held during what must be completed


class Terminated(KeyboardInterrupt):
    """A signal other than Ctrl-C asked the process to end."""

    number = int(signal.SIGTERM)


class HungUp(Terminated):
    """The terminal was closed."""

    number = int(getattr(signal, "SIGHUP", 1))  # Windows has none.


_EXCEPTIONS = {int(signal.SIGINT): KeyboardInterrupt, **{each.number: each for each in (Terminated, HungUp)}}


def describe_interrupt(interrupt: KeyboardInterrupt) -> str:
    return "terminated" if isinstance(interrupt, Terminated) else "interrupted"


def interrupt_code(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code of a process that a signal ended: 128 and the signal's number."""
    return 128 + (interrupt.number if isinstance(interrupt, Terminated) else signal.SIGINT)


@contextlib.contextmanager
def raise_on_signals() -> Iterator[None]:
    """Raise `KeyboardInterrupt` on Ctrl-C, and `Terminated` where another signal would end the process.

    Each signal does so once, so that a second Ctrl-C doesn't interrupt the saving of the results. A signal
    that already has a handler, or is ignored, as under `nohup`, is not changed.
    """

    def raise_once(number, frame):
        signal.signal(number, signal.SIG_IGN)
        raise _EXCEPTIONS[number]

    defaults = (signal.SIG_DFL, signal.default_int_handler)
    numbers = [signal.SIGINT, *_terminating()]
    with _handle([number for number in numbers if signal.getsignal(number) in defaults], raise_once):
        yield


@contextlib.contextmanager
def ignore_signals() -> Iterator[None]:
    """Ignore signals."""
    with _handle([signal.SIGINT, *_terminating()], signal.SIG_IGN):
        yield


@contextlib.contextmanager
def must_complete() -> Iterator[None]:
    """Let no signal interrupt a short operation, in whichever thread."""
    with _completing, ignore_signals():
        yield


@contextlib.contextmanager
def after_completion(seconds: float) -> Iterator[None]:
    """Wait for what must be completed, for some seconds at most."""
    is_complete = _completing.acquire(timeout=seconds)
    try:
        yield
    finally:
        if is_complete:
            _completing.release()


def _terminating() -> list[int]:
    # Windows has no SIGHUP.
    return [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextlib.contextmanager
def _handle(numbers, handler) -> Iterator[None]:
    """Set the handler of some signals, and restore the earlier ones; only the main thread may do so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    # A handler that was not set by Python is None, and could not be restored.
    before = {number: handler for number, handler in before.items() if handler is not None}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)

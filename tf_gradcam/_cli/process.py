"""The command line as a process that ends soon after a signal: `tf-gradcam` and `python -m tf_gradcam`.

Python runs its handler of a signal in the main thread, between two of its instructions. TensorFlow compiles a
model, or explains a batch, in one instruction that takes seconds. So the command runs in another thread, and
the main thread waits for signals. The command has 0.8 s to end by an exception, which keeps whatever is
ready. Then the process ends, whatever the command is doing.
"""

import argparse
import contextlib
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from tf_gradcam._cli.arguments import make_parser
from tf_gradcam._cli.main import run_command
from tf_gradcam._cli.signals import (
    after_completion,
    describe_interrupt,
    ignore_signals,
    interrupt_code,
    raise_on_signals,
)
from tf_gradcam._ending import clean_up

SECONDS_TO_END = 0.8  # for the command, after a signal
_SHOW_CURSOR = "\n\x1b[?25h"
_STACK_BYTES = 2**26  # The main thread's may grow; TensorFlow calls deeply while it traces.


def run_process() -> int:
    """Run the command line of this process, and return its exit code; a signal ends the process."""
    arguments = make_parser().parse_args()
    if getattr(arguments, "engine", "local") == "ray":
        return run_command(arguments)  # Ray has processes of its own, which it must have the time to end.
    os.environ.setdefault("MPLBACKEND", "Agg")  # Windows on a screen belong to the main thread.
    command = _Command(arguments)
    with raise_on_signals():
        try:
            command.start()
            command.wait()
        except KeyboardInterrupt as interrupt:
            with ignore_signals():
                _end(command, interrupt)
    if command.error is not None:
        raise command.error
    return command.code


class _Command(threading.Thread):
    """A command in a thread.

    Attributes:
        ended: is set when it has ended.
        code: its exit code, then.
        error: what it raised, if anything.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(name="tf-gradcam", daemon=True)
        self.code, self._arguments = 0, arguments
        self.ended = threading.Event()  # A signal during `join` makes `is_alive` wrong.
        self.error: BaseException | None = None

    def start(self) -> None:
        before = threading.stack_size(_STACK_BYTES)
        try:
            super().start()
        finally:
            threading.stack_size(before)

    def run(self) -> None:
        try:
            self.code = run_command(self._arguments)
        except BaseException as error:  # SystemExit, too
            self.error = error
        finally:
            self.ended.set()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until it has ended, or for some seconds."""
        while seconds is None and not self.ended.is_set():
            self.ended.wait(0.2)  # On Windows, a signal doesn't end the wait.
        self.ended.wait(seconds)

    def interrupt(self, error: type[KeyboardInterrupt]) -> None:
        """Raise an exception in the thread, as soon as it runs an instruction of Python."""
        if self.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(error))


def _end(command: _Command, interrupt: KeyboardInterrupt) -> NoReturn:
    """End the process, after the command had the time to keep what is ready."""
    with _noticing_lost() as lost:
        with after_completion(SECONDS_TO_END):
            command.interrupt(type(interrupt))
        end = time.monotonic() + SECONDS_TO_END
        while not command.ended.is_set() and time.monotonic() < end:
            command.wait(0.05)
            if lost.is_set():
                lost.clear()
                command.interrupt(type(interrupt))
    has_ended = command.ended.is_set() and command.error is None
    if not has_ended:
        clean_up()
        # The bar of progress may have hidden the cursor of a terminal.
        before = _SHOW_CURSOR if sys.stderr.isatty() else ""
        said = f"{before}tf-gradcam: error: {describe_interrupt(interrupt)}"
        _within(0.3, lambda: print(said, file=sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        _within(0.3, stream.flush)
    # The interpreter would wait for threads that are in TensorFlow.
    os._exit(command.code if has_ended else interrupt_code(interrupt))


@contextlib.contextmanager
def _noticing_lost() -> Iterator[threading.Event]:
    """Yield an event that is set when an interrupt is lost, as Python drops one within a `__del__`."""
    before, lost = sys.unraisablehook, threading.Event()

    def notice(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            lost.set()
        else:
            before(unraisable)

    sys.unraisablehook = notice
    try:
        yield lost
    finally:
        sys.unraisablehook = before


def _within(seconds: float, write: Callable[[], object]) -> None:
    """Write to a stream, which another thread may hold, or whose reader may not read."""

    def try_to_write() -> None:
        with contextlib.suppress(OSError, ValueError):
            write()

    writer = threading.Thread(target=try_to_write, daemon=True)
    writer.start()
    writer.join(seconds)

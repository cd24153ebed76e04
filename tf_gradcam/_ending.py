"""What must be done when the process ends at once, without its `finally` clauses: `at_sudden_end`.

Whatever leaves something on disk that must not stay calls it; the command line calls `clean_up`. It imports
nothing but the standard library.
"""

import contextlib
from collections.abc import Callable, Iterator

_clean_ups: dict[object, Callable[[], object]] = {}


@contextlib.contextmanager
def at_sudden_end(clean_up: Callable[[], object]) -> Iterator[None]:
    """Have `clean_up` called if the process ends at once within the body.

    It is called in another thread than the body, which is still running. An exception that it raises is
    dropped.
    """
    key = object()
    _clean_ups[key] = clean_up
    try:
        yield
    finally:
        del _clean_ups[key]


def clean_up() -> None:
    """Do what must be done before the process ends: the newest first."""
    for each in reversed(list(_clean_ups.values())):
        with contextlib.suppress(Exception):
            each()

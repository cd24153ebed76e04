"""A folder that one process at a time writes to: `lock_folder`. The runs of `_run` and `_dataset` call it."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator
from typing import TextIO

from tf_gradcam._checks import is_disk_full
from tf_gradcam._ending import at_sudden_end

_LOCK = ".tf_gradcam-lock"


@contextlib.contextmanager
def lock_folder(folder: pathlib.Path) -> Iterator[None]:
    """Let only one process at a time write to a folder; the system unlocks it when the process ends.

    The folder is made. What a killed process left in it under temporary names is removed.

    Raises:
        ValueError: if another process writes to it, or it is no folder that can be written to.
    """
    path = folder / _LOCK
    with _open_lock(folder, path) as file:
        try:
            _lock_file(file)
            # Another run may have removed the file after it was opened here.
            is_held = path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise OSError(error.errno, f"can't lock it: {error.strerror}", str(path)) from error
            is_held = False
        if not is_held:
            raise ValueError(
                f"`out` must be a folder that no other run writes to. Received: {folder}, where one does. "
                "Wait for it, or choose another folder."
            )
        try:
            for left in folder.glob(".tf_gradcam-*.unfinished*"):
                if left.is_file():
                    left.unlink()
            with at_sudden_end(lambda: os.unlink(path)):
                yield
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)


def _open_lock(folder: pathlib.Path, path: pathlib.Path) -> TextIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open(path, "a")
    except OSError as error:
        if is_disk_full(error):
            raise
        raise ValueError(
            f"`out` must be a folder that can be written to. Received: {folder}: {error.strerror or error}. "
            "Choose another folder."
        ) from error


def _lock_file(file) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

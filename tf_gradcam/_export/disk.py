"""A disk that is full, or can't be written, named with the path. `savedmodel` and `single_file` call it."""

import errno
import os

import tensorflow as tf

_NO_SPACE = os.strerror(errno.ENOSPC)  # "No space left on device", which every library passes on


def disk_error(error: Exception, path: str | os.PathLike) -> OSError | None:
    """Return the `OSError` for what a library raised because `path` can't be written; `None` for the rest.

    TensorFlow, and the converters in C++, have exceptions of their own for the errors of a disk.
    """
    number, text = getattr(error, "errno", None), str(error)
    if _NO_SPACE.lower() in text.lower():
        number, text = errno.ENOSPC, _NO_SPACE
    elif isinstance(error, tf.errors.PermissionDeniedError):
        number, text = errno.EACCES, os.strerror(errno.EACCES)
    elif isinstance(error, OSError):
        text = error.strerror or text
    else:
        return None
    return OSError(number, f"`path` must be on a disk that can be written. Received: {text}", os.fspath(path))

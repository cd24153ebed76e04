"""Write files completely or not at all: `write_file`, `unfinished`. Every writer of files calls it."""

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator

from tf_gradcam._ending import at_sudden_end


@contextlib.contextmanager
def unfinished(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yield a temporary path, in the folder and with the ending of `path`, that becomes `path` at the end.

    If the body raises, an earlier file at `path` is unchanged, and the temporary file is removed.

    Raises:
        OSError: if it can't be written; it names `path`.
    """
    path = pathlib.Path(path)
    # The writers of some formats look at the ending, of which `.nii.gz` has two parts.
    endings = "".join(path.suffixes[-2:])
    temporary = path.with_name(f".tf_gradcam-{uuid.uuid4().hex}.unfinished{endings}")
    try:
        with at_sudden_end(lambda: temporary.unlink(missing_ok=True)):
            yield temporary
            os.replace(temporary, path)
    except BaseException as error:  # an interrupt, too
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def write_file(path: str | os.PathLike, data: bytes) -> None:
    """Write a file completely, or not at all; see `unfinished`."""
    with unfinished(path) as temporary, open(temporary, "xb") as file:
        file.write(data)

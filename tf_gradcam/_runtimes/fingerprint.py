"""What tells a loaded file from another at the same path: `Fingerprint`, which `loaded` makes."""

import hashlib
import pathlib
from typing import Any

_CHUNK = 2**20


class Fingerprint:
    """A SHA-256 of the files that a model is loaded from, made when it is asked for.

    Make it before the files are read. Until it is asked for, the files must stay as they were.

    Args:
        path: the whole path of the file, or of the folder of a SavedModel's version.
        format: `"tensorflow"`, `"litert"`, `"onnx"` or `"openvino"`.
    """

    def __init__(self, path: str, format: str) -> None:
        self.path, self._format = path, format
        self._state, self._sha256 = self._state_now(), ""

    def sha256(self) -> str:
        """Return the SHA-256 of what was loaded.

        Raises:
            ValueError: if files were changed or replaced since then, before it was asked for.
        """
        if not self._sha256:
            found = hash_files(self._files()) if self._is_unchanged() else ""
            if not self._is_unchanged():
                raise ValueError(
                    f"`path` must lead to the file that was loaded. Received: path={self.path!r}, which "
                    "was changed or moved since. Load it again: tf_gradcam.load(path)."
                )
            self._sha256 = found
        return self._sha256

    def _is_unchanged(self) -> bool:
        return bool(self._state) and self._state_now() == self._state

    def _files(self) -> list[pathlib.Path]:
        path = pathlib.Path(self.path)
        files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        return [*files, path.with_suffix(".bin")] if self._format == "openvino" else files

    def _state_now(self) -> list[Any]:
        """Return size, time and inode of each file; an empty list if one is gone."""
        try:
            stats = [(str(file), file.stat()) for file in self._files()]
        except OSError:
            return []
        return [(name, each.st_size, each.st_mtime_ns, each.st_ino) for name, each in stats]


def hash_files(files: list[pathlib.Path]) -> str:
    """Return a SHA-256 of what files hold, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while chunk := opened.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()

"""The photographs that a folder holds the pictures of, so that only others are explained: `Journal`.

`run` adds to it, and the command line takes the rows from it.
"""

import hashlib
import json
import os
import pathlib
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from tf_gradcam._ending import at_sudden_end
from tf_gradcam._files import lock_folder, unfinished
from tf_gradcam._run.files import JOURNAL, RESULT_KEYS, keep_earlier_names
from tf_gradcam._run.manifest import check_manifest
from tf_gradcam._run.photographs import Photograph

Rows = list[dict[str, Any]]


class _Entry(NamedTuple):
    """A photograph in the journal.

    `state` tells whether its file has changed since. `name` is that of its pictures.
    """

    file: str
    state: Any
    name: str
    rows: Rows

    def is_explained(self) -> bool:
        return not any("error" in row for row in self.rows)


class Journal:
    """What was explained in a folder, by one manifest; a context manager, as one run at a time may write.

    It is a file of JSON lines: the manifest, then a line for each photograph, which is written when its
    pictures are whole. A process that is killed leaves at most a part of the last line, which doesn't count.

    Args:
        folder: the folder; it is made.
        manifest: what decides the rows and pictures, as JSON can hold it.
        restart: whether to forget what was explained before.

    Raises:
        ValueError: if another run writes to the folder, or if it holds a run of another manifest; it names
            what differs.
    """

    def __init__(self, folder: pathlib.Path, manifest: dict[str, Any], restart: bool = False) -> None:
        self._folder, self._path = folder, folder / JOURNAL
        self._manifest, self._restart = manifest, restart
        self._entries: dict[str, _Entry] = {}  # by file
        self._states: dict[str, Any] = {}  # of the photographs that are to be explained
        self._writing = threading.Lock()
        self._file: Any = None

    def __enter__(self) -> "Journal":
        made = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
        self._lock = lock_folder(self._folder)
        self._lock.__enter__()
        self._made = made
        try:
            if not self._restart:
                self._entries = {entry.file: entry for entry in _read(self._path, self._manifest)}
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        if self._file is not None:
            self._file.close()
        self._lock.__exit__(None, None, None)
        for folder in self._made:  # A run that was refused leaves no empty folder.
            try:
                folder.rmdir()
            except OSError:
                break

    def missing(self, photographs: Sequence[Photograph]) -> list[Photograph]:
        """Return the photographs that are to be explained.

        These are not in the journal, have an error there, or lack a picture; or their file has another size
        or time of change than it had. Its content is not read, as that takes minutes for many files.
        """
        there = {entry.name for entry in os.scandir(self._folder)}
        missing = []
        for photograph in photographs:
            entry, state = self._entries.get(photograph.file), _state_of(photograph.source)
            is_there = (
                entry is not None
                and entry.is_explained()
                and state is not None
                and entry.state == state
                and _files_of(entry.rows) <= there
            )
            if not is_there:
                missing.append(photograph)
                self._states[photograph.file] = state
        return missing

    def name_of(self, photograph: Photograph) -> str | None:
        """Return the name that the pictures of a photograph had, if they had one."""
        entry = self._entries.get(photograph.file)
        return None if entry is None else entry.name

    def names(self) -> set[str]:
        """Return the names of all pictures, in lower case."""
        return {entry.name.casefold() for entry in self._entries.values()}

    def begin(self) -> None:
        """Begin to write. Until then, the folder is unchanged."""
        if self._restart:
            keep_earlier_names(self._folder, [])
        with unfinished(self._path) as temporary, open(temporary, "xb") as file:
            file.write(_line({"manifest": self._manifest}))
            for entry in self._entries.values():
                file.write(_line(entry._asdict()))
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 `__exit__` closes it.

    def add(self, photograph: Photograph, name: str, rows: Rows) -> None:
        """Add a photograph whose pictures are written; no end of the process loses it when this returns."""
        entry = _Entry(photograph.file, self._states.get(photograph.file), name, rows)
        line = _line(entry._asdict())
        with self._writing:
            self._entries.pop(entry.file, None)
            self._entries[entry.file] = entry
            end = self._file.seek(0, os.SEEK_END)
            try:
                written = self._file.write(line)
                if written < len(line):  # The disk is full, which the next call would say.
                    self._file.write(line[written:])
            except OSError:
                self._file.truncate(end)
                raise

    def rows(self, photographs: Iterable[Photograph]) -> Rows:
        """Return the rows of photographs, in order."""
        entries = [self._entries.get(photograph.file) for photograph in photographs]
        return [row for entry in entries if entry is not None for row in entry.rows]

    def all_rows(self, photographs: Sequence[Photograph]) -> Rows:
        """Return the rows of all photographs: first those that other commands explained, without errors."""
        files = {photograph.file for photograph in photographs}
        others = [entry for entry in self._entries.values() if entry.file not in files]
        rows = [row for entry in others if entry.is_explained() for row in entry.rows]
        return rows + self.rows(photographs)

    def at_sudden_end(self, write: Callable[[], object]) -> Any:
        """Return a context manager that calls `write` if the process ends at once and has begun to write.

        Nothing is added then any more.
        """
        return at_sudden_end(
            lambda: self._file is not None and self._writing.acquire(timeout=0.5) and write()
        )


def forget_journal(folder: pathlib.Path) -> None:
    """Remove the journal of a folder whose pictures are about to be replaced by others."""
    if (folder / JOURNAL).exists():
        keep_earlier_names(folder, [])
        (folder / JOURNAL).unlink()


def _line(value) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def _read(path, manifest) -> Iterable[_Entry]:
    """Yield the entries of a journal, and check its manifest; a line that was cut off doesn't count.

    Without the manifest nothing counts: the entries may be those of another model.
    """
    if not path.exists():
        return
    with open(path, "rb") as file:
        found = _object(file.readline()).get("manifest")
        if not isinstance(found, dict):
            return
        check_manifest(path.parent, found, manifest)
        for line in file:
            entry = _entry(_object(line))
            if entry is not None:
                yield entry


def _object(line: bytes) -> dict[str, Any]:
    """Return the object in a line of JSON, or an empty one for a damaged line."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _entry(found: dict[str, Any]) -> _Entry | None:
    """Return the entry of a line, or `None` for a damaged one."""
    if set(found) != set(_Entry._fields):
        return None
    entry = _Entry(**found)
    are_names = isinstance(entry.file, str) and isinstance(entry.name, str)
    are_rows = isinstance(entry.rows, list) and all(
        isinstance(row, dict) and "file" in row for row in entry.rows
    )
    return entry if are_names and are_rows and entry.rows else None


def _files_of(rows) -> set[str]:
    return {row[key] for row in rows for key in (*RESULT_KEYS, "comparison") if key in row}


def _state_of(source: Any) -> Any:
    """Return what changes with the content of a file, or of the files in a folder; `None` for no file."""
    if not isinstance(source, str | os.PathLike):
        return None
    try:
        if not os.path.isdir(source):
            return _size_and_time(os.stat(source))
        entries = list(os.scandir(str(source)))
        files = sorted((entry.name, *_size_and_time(entry.stat())) for entry in entries)
        return hashlib.sha256(json.dumps(files).encode()).hexdigest()
    except OSError:
        return None


def _size_and_time(status) -> list[int]:
    return [status.st_size, status.st_mtime_ns]

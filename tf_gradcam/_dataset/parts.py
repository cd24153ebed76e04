"""The rows of a run in Parquet files, whole at every moment: `Parts`. `dataset` writes with it.

A run may be killed at any time. Rows go to a journal as they come, an Arrow stream whose readable beginning
counts; a full journal becomes a part, a Parquet file that is renamed when it is whole. A later run reads both
and goes on.
"""

import contextlib
import itertools
import json
import os
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

from tf_gradcam._ending import at_sudden_end
from tf_gradcam._files import JOURNAL, MANIFEST_KEY, find_parts, lock_folder, unfinished
from tf_gradcam._optional import require
from tf_gradcam._run import check_manifest

ROWS_IN_PART = 10_000
_BYTES_IN_PART = 2**26  # of rows in memory: a map may have as many values as the image


class Parts:
    """The parts of one run in a folder; a context manager, as only one run at a time may write.

    Args:
        folder: the folder; it is made.
        schema: the `pyarrow.Schema` of the rows, whose first column is the string `"id"`.
        manifest: what was asked for, as JSON can hold it; every part carries it.
        rows_in_part: rows in a Parquet file, at most.
        restart: whether to remove the parts of an earlier run.

    Raises:
        ValueError: if another run writes to the folder, or if an earlier run in it had another manifest or
            schema; it names what differs.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        schema: Any,
        manifest: dict[str, Any],
        rows_in_part: int = ROWS_IN_PART,
        restart: bool = False,
    ) -> None:
        self._arrow = require("pyarrow", "pyarrow", extra="scale")
        self.folder, self._rows_in_part = pathlib.Path(folder), rows_in_part
        self._schema = schema.with_metadata({MANIFEST_KEY: json.dumps(manifest).encode()})
        self._manifest, self._restart = manifest, restart
        self._pending: list[Any] = []  # record batches in the journal
        self._bytes = 0
        self._journal: Any = None
        self._writing = threading.Lock()

    def __enter__(self) -> "Parts":
        """Lock the folder, and take up what an earlier run left in it."""
        with contextlib.ExitStack() as undo:
            undo.enter_context(lock_folder(self.folder))
            if self._restart:
                _remove_parts(self.folder, find_parts(self.folder))
            for path in find_parts(self.folder):
                check_manifest(self.folder, read_manifest(path), self._manifest)
            self._take_up_journal()
            undo.callback(self._close_journal)
            undo.enter_context(at_sudden_end(self._finish_suddenly))
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        """Write what is in the journal as a part, also after an error, and unlock the folder."""
        with self._undo, self._writing:
            self._finish_part()

    def _finish_suddenly(self) -> None:
        """Write what is in the journal as a part, in another thread than the run's."""
        if self._writing.acquire(timeout=1):  # For good: no row is added any more.
            self._finish_part()

    def done(self) -> set[str]:
        """Return the ids of all rows that are written."""
        return {name for columns in self.columns(["id"]) for name in columns["id"].to_pylist()}

    def done_and_failed(self) -> tuple[set[str], set[str]]:
        """Return the ids of all rows that are written, and of those that have an error."""
        done: set[str] = set()
        failed: set[str] = set()
        for columns in self.columns(["id", "error"]):
            names = columns["id"].to_pylist()
            done.update(names)
            failed.update(itertools.compress(names, columns["error"].is_valid().to_pylist()))
        return done, failed

    def columns(self, names: list[str]) -> Iterator[Any]:
        """Yield some columns of all rows that are written, a `pyarrow.Table` for each part."""
        parquet = require("pyarrow.parquet", "pyarrow", extra="scale")
        for path in find_parts(self.folder):
            yield parquet.read_table(path, columns=names)
        if self._pending:
            yield self._arrow.Table.from_batches(self._pending).select(names)

    def add(self, rows: Any) -> None:
        """Add a `pyarrow.RecordBatch` of rows; no end of the process loses them when this returns."""
        with self._writing:
            self._journal.write_batch(rows)
            self._file.flush()
            self._pending.append(rows)
            self._bytes += rows.nbytes
            if sum(map(len, self._pending)) >= self._rows_in_part or self._bytes >= _BYTES_IN_PART:
                self._finish_part()
                self._open_journal([])

    def _take_up_journal(self) -> None:
        """Read the rows that a killed run left in its journal, and go on in a new one."""
        rows = list(_readable_batches(self._arrow, self.folder / JOURNAL, self._schema, self._manifest))
        known = self.done()  # The run may have been killed between a part and its journal's end.
        self._open_journal(
            [batch for batch in rows if not known.intersection(batch.column("id").to_pylist())]
        )

    def _open_journal(self, rows: list[Any]) -> None:
        self._close_journal()
        with unfinished(self.folder / JOURNAL) as temporary:
            self._file = open(temporary, "xb")  # noqa: SIM115 It stays open under its new name.
            self._journal = self._arrow.ipc.new_stream(self._file, self._schema)
            for batch in rows:
                self._journal.write_batch(batch)
            self._file.flush()
        self._pending, self._bytes = rows, sum(batch.nbytes for batch in rows)

    def _close_journal(self) -> None:
        if self._journal is not None:
            journal, self._journal = self._journal, None
            with contextlib.closing(self._file):
                journal.close()

    def _finish_part(self) -> None:
        """Make the rows of the journal a part, and remove the journal."""
        with contextlib.suppress(OSError):  # on a full disk; the rows are in memory, too
            self._close_journal()
        if self._pending:
            parquet = require("pyarrow.parquet", "pyarrow", extra="scale")
            numbers = [int(path.stem.removeprefix("part-")) for path in find_parts(self.folder)]
            path = self.folder / f"part-{max(numbers, default=-1) + 1:05}.parquet"
            table = self._arrow.Table.from_batches(self._pending, self._schema)
            with unfinished(path) as temporary, open(temporary, "xb") as file:
                parquet.write_table(table, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())  # before it gets its name, for a power cut
            self._pending = []
        (self.folder / JOURNAL).unlink(missing_ok=True)


def _remove_parts(folder, parts) -> None:
    """Remove the parts and the journal of an earlier run; other files in the folder stay."""
    for path in parts:
        read_manifest(path)  # Another program's file is not removed.
    for path in [*parts, folder / JOURNAL]:
        path.unlink(missing_ok=True)


def read_manifest(path: pathlib.Path) -> dict[str, Any]:
    """Return the manifest in a part."""
    parquet = require("pyarrow.parquet", "pyarrow", extra="scale")
    arrow = require("pyarrow", "pyarrow", extra="scale")
    try:
        metadata = parquet.read_schema(path).metadata or {}
    except arrow.ArrowException:  # damaged, or not Parquet
        metadata = {}
    if MANIFEST_KEY not in metadata:
        raise ValueError(
            f"`out` must be a folder of a run's parts, or a new one. Received: {path}, which is none. Choose "
            "another folder, or remove the file."
        )
    return json.loads(metadata[MANIFEST_KEY])


def _readable_batches(arrow, path, schema, manifest) -> Iterator[Any]:
    """Yield the record batches of a journal up to where it was cut off or damaged."""
    if not path.exists():
        return
    with contextlib.suppress(arrow.ArrowException, OSError, EOFError), arrow.OSFile(str(path)) as file:
        stream = arrow.ipc.open_stream(file)
        try:
            found = json.loads((stream.schema.metadata or {}).get(MANIFEST_KEY, b""))
        except ValueError:
            return
        check_manifest(path.parent, found, manifest)
        if not stream.schema.equals(schema):
            return
        for batch in stream:
            batch.validate(full=True)  # A power cut may leave anything.
            yield batch

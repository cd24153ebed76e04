"""Mark pictures as written by tf_gradcam, and replace no others: `pictures` writes every picture with it."""

import contextlib
import json
import os
import pathlib
import struct
import zlib
from typing import Any

from tf_gradcam._files import write_file

RESULTS_FILE = "explanations.json"
UNFINISHED_RESULTS_FILE = "explanations-unfinished.json"
JOURNAL = ".explanations.jsonl"  # what `journal` writes
EARLIER_FILES = ".explanations-earlier.json"  # names of files that only replaced results named
RESULT_KEYS = ("overlay", "heatmap", "map", "capture")  # the files in a row of the results
_WRITTEN_BY = b"tf_gradcam"
_PNG_HEADER = 33  # bytes: the signature and the first chunk
_PNG_TEXT = b"tEXtSoftware\x00" + _WRITTEN_BY


def write_picture(path: str | os.PathLike, encoded: bytes) -> None:
    """Write a PNG or JPEG file, as `write_file` does, with a comment that tf_gradcam wrote it."""
    write_file(path, _sign(encoded))


def _sign(encoded: bytes) -> bytes:
    """Return a PNG or JPEG file with a comment that names tf_gradcam."""
    if encoded.startswith(b"\x89PNG"):
        checksum = struct.pack(">I", zlib.crc32(_PNG_TEXT))
        chunk = struct.pack(">I", len(_PNG_TEXT) - 4) + _PNG_TEXT + checksum
        return encoded[:_PNG_HEADER] + chunk + encoded[_PNG_HEADER:]
    start = 2  # The comment comes after the JFIF segment, which must be the first.
    if encoded[2:4] == b"\xff\xe0":
        start += 2 + int.from_bytes(encoded[4:6], "big")
    comment = b"\xff\xfe" + struct.pack(">H", len(_WRITTEN_BY) + 2) + _WRITTEN_BY
    return encoded[:start] + comment + encoded[start:]


def is_own_picture(path: str | os.PathLike) -> bool:
    """Return whether a file is a picture that `write_picture` wrote."""
    if not os.path.isfile(path):  # Reading a pipe would wait for its writer.
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(128)
    except OSError:
        return False
    if head.startswith(b"\x89PNG"):
        return head[_PNG_HEADER + 4 :].startswith(_PNG_TEXT)
    return head.startswith(b"\xff\xd8") and b"\xff\xfe\x00\x0c" + _WRITTEN_BY in head


def is_own_result(path: str | os.PathLike) -> bool:
    """Return whether a file was written by tf_gradcam: a picture, or what the results beside it name."""
    path = pathlib.Path(path)
    return is_own_picture(path) or (path.is_file() and path.name in _named_results(path.parent))


def may_write(path: str | os.PathLike) -> bool:
    """Return whether a file may be written: there is none, or one that tf_gradcam wrote."""
    return not os.path.lexists(path) or is_own_result(path)


def keep_earlier_names(folder: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Remember the files that earlier results name, and rows that replace them don't.

    Pictures say themselves who wrote them. Without this, a heatmap in DICOM of the run before the last one
    would be explained as a scan.
    """
    names = {
        name
        for name in _named_results(folder) - _names_in(rows)
        if (folder / name).is_file() and not is_own_picture(folder / name)
    }
    if names:
        write_file(folder / EARLIER_FILES, json.dumps(sorted(names)).encode())
    else:
        (folder / EARLIER_FILES).unlink(missing_ok=True)


def _named_results(folder) -> set[str]:
    """Return the files that the results of earlier runs in a folder name."""
    names: set[str] = set()
    for file in (RESULTS_FILE, UNFINISHED_RESULTS_FILE, EARLIER_FILES):
        try:
            found = json.loads((folder / file).read_text(encoding="utf-8"))
            names |= {str(name) for name in found} if file == EARLIER_FILES else _names_in(found)
        except (OSError, ValueError, AttributeError, TypeError):  # none, or not ours
            continue
    with contextlib.suppress(OSError), open(folder / JOURNAL, "rb") as journal:
        for line in journal:
            with contextlib.suppress(ValueError, AttributeError, TypeError):
                names |= _names_in(json.loads(line).get("rows", ()))
    return names


def _names_in(rows) -> set[str]:
    return {row[key] for row in rows for key in RESULT_KEYS if isinstance(row.get(key), str)}

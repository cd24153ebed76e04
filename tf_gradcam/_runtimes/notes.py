"""What `export_gradcam` notes in a file: layer, method, target. `single_files` reads it, `_export` writes it.

ONNX keeps it in its metadata, OpenVINO in the file's `rt_info`. LiteRT has no place for text: as TensorFlow
Lite's own metadata does it, a ZIP archive is appended to the file.
"""

import json
import os
import pathlib
import zipfile
from typing import Any
from xml.etree import ElementTree

from tf_gradcam._runtimes.fingerprint import hash_files

NOTES_NAME = "gradcam"
_LITERT_NAME = f"{NOTES_NAME}.json"
_MOST_BYTES = 2**20  # of notes: a file may say anything
_SPARE_BYTES = 1000  # for what `write_notes` adds


def write_notes(path: pathlib.Path, format: str, notes: dict[str, Any]) -> None:
    """Note something in a file that was just written.

    Args:
        path: the file.
        format: `"litert"`, `"onnx"` or `"openvino"`.
        notes: what JSON can hold.
    """
    if format == "openvino":  # It has its numbers in another file.
        notes = {**notes, "bin_sha256": hash_files([path.with_suffix(".bin")])}
    text = json.dumps(notes)
    if format == "litert":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(_LITERT_NAME, text)
    elif format == "onnx":
        import onnx

        # A repeated field may come in parts, so nothing is read and the weights are not copied.
        about = onnx.ModelProto()
        about.metadata_props.add(key=NOTES_NAME, value=text)
        with path.open("ab") as file:
            file.write(about.SerializeToString())
    else:
        tree = ElementTree.parse(path)
        root = tree.getroot()
        info = root.find("rt_info")
        info = ElementTree.SubElement(root, "rt_info") if info is None else info
        ElementTree.SubElement(info, NOTES_NAME, value=text)
        tree.write(path, encoding="utf-8", xml_declaration=True)


def check_notes(notes: dict[str, Any]) -> None:
    """Raise a `ValueError` if notes are too long for a file."""
    size = len(json.dumps(notes))
    if size > _MOST_BYTES - _SPARE_BYTES:
        name = "labels" if notes.get("labels") else "target"
        raise ValueError(
            f"`{name}` must leave a file's notes below {_MOST_BYTES} bytes. Received: notes of {size} bytes. "
            "Shorten them, or leave them out; labels may also be given where the file is used."
        )


def notes_of_litert(path: pathlib.Path) -> dict[str, Any]:
    """Return the notes in a `.tflite` file; an empty dict if there are none.

    Raises:
        ValueError: if the file is cut short within them.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(_LITERT_NAME) as file:
            return parse_notes(file.read(_MOST_BYTES))
    except (zipfile.BadZipFile, KeyError, OSError, RuntimeError, NotImplementedError, ValueError, EOFError):
        with path.open("rb") as file:
            file.seek(-min(_MOST_BYTES, path.stat().st_size), os.SEEK_END)
            if _LITERT_NAME.encode() in file.read():
                raise ValueError("it is cut short, or damaged at its end") from None
        return {}


def parse_notes(text: Any) -> dict[str, Any]:
    """Return notes as they were written; an empty dict if there are none, or a file of others says them."""
    if not isinstance(text, str | bytes) or len(text) > _MOST_BYTES:
        return {}
    try:
        notes = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return notes if isinstance(notes, dict) else {}

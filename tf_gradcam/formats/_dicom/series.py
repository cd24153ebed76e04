"""The DICOM files of a folder, sorted into series, of which one is chosen. `reading` calls it."""

import os
import pathlib
from typing import Any

from tf_gradcam.formats._dicom.datasets import (
    MAX_VALUES,
    Plane,
    UnreadableError,
    has_mark,
    is_dicom,
    planes_of,
    read_header,
    unreadable,
)

_LISTED = 8
_ALIKE = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Modality",
    "FrameOfReferenceUID",
    "PatientID",
)


def planes_of_folder(folder: pathlib.Path, series: int | str | None) -> list[Plane]:
    """Return the images of one series of a folder and the folders in it.

    Args:
        folder: the folder. What is no DICOM image in it is passed over.
        series: the SeriesNumber or SeriesInstanceUID of the series; `None` where there is only one.

    Raises:
        ValueError: if there is no image, no such series or more than one, or if a series is no volume.
    """
    files = [(path, header) for path in _files(folder) if (header := _image_header(path)) is not None]
    if not files:
        raise unreadable(folder, "a folder with a series of DICOM images", "which has none.")
    by_uid: dict[str, list[Any]] = {}
    for path, header in files:
        by_uid.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((path, header))
    chosen = _choose(folder, by_uid, series)
    planes = [planes_of(path, header) for path, header in chosen]
    if len(planes) > 1 and any(len(frames) > 1 for frames in planes):
        raise unreadable(
            folder, "one volume", f"whose series has {len(planes)} files of several frames. Give one of them."
        )
    _check_alike(folder, [header for _, header in chosen])
    count = sum(len(frames) for frames in planes) * chosen[0][1].Rows * chosen[0][1].Columns
    if count > MAX_VALUES:
        raise unreadable(folder, f"a series of at most {MAX_VALUES:,} values", f"which announces {count:,}.")
    return [plane for frames in planes for plane in frames]


def _files(folder) -> list[pathlib.Path]:
    """Return all files below a folder but hidden ones, in order of their names."""
    found = []
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [pathlib.Path(here, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def _image_header(path) -> Any:
    """Return the attributes of a file that is a DICOM image, or `None`."""
    if not is_dicom(path):
        return None
    try:
        header = read_header(path)
    except UnreadableError:
        if has_mark(path):
            raise
        return None
    return header if "Rows" in header and "Columns" in header else None


def _choose(folder, by_uid, series) -> list[Any]:
    if series is None and len(by_uid) == 1:
        (files,) = by_uid.values()
        return files
    fitting = [
        files
        for uid, files in by_uid.items()
        if series is not None and str(series) in (uid, str(files[0][1].get("SeriesNumber", "")))
    ]
    if len(fitting) == 1:
        return fitting[0]
    listed = "; ".join(_described(uid, files) for uid, files in sorted(by_uid.items())[:_LISTED])
    more = f"; and {len(by_uid) - _LISTED} more" if len(by_uid) > _LISTED else ""
    if series is None:
        raise unreadable(
            folder, "a folder with one series", f"with {len(by_uid)}. Choose one by series=: {listed}{more}."
        )
    raise UnreadableError(
        "`series` must be the SeriesNumber or SeriesInstanceUID of one series. "
        f"Received: series={series!r:.80}, which fits {len(fitting)} of: {listed}{more}."
    )


def _described(uid, files) -> str:
    header = files[0][1]
    images = "1 image" if len(files) == 1 else f"{len(files)} images"
    number = header.get("SeriesNumber")
    name = f"{number} (UID {uid})" if number is not None else f"UID {uid}"
    return f"{name}: {header.get('Modality', '')} {images} of {header.Rows} x {header.Columns}"


def _check_alike(folder, headers) -> None:
    """Raise a `ValueError` that names what differs between the files of a series."""
    for name in _ALIKE:
        kinds = {str(header.get(name, "")) for header in headers}
        if len(kinds) > 1:
            # A patient's ID is nobody's business.
            shown = "" if name == "PatientID" else f": {', '.join(sorted(kinds)[:_LISTED])}"
            raise unreadable(
                folder,
                "one volume",
                f"whose {len(headers)} images differ in {name}{shown}. "
                "Put the files of one volume in a folder of their own.",
            )

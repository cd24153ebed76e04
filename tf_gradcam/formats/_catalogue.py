"""Which module reads and writes which file: by the ending of its name, or by how it starts.

`_reading` and `_writing` call it. A module is imported when its format is first needed.
"""

import importlib
import os
import pathlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from tf_gradcam._optional import require

_HERE = "tf_gradcam.formats"


class Format(NamedTuple):
    """The functions of one format, by name; `""` where it has none.

    Attributes:
        name: what `Scan.format` says.
        read: `package.module.function`, from a path and options to a `Scan`.
        write: from a path, a scan, a heatmap and an `About` to a file.
        write_pictures: from a path, a scan and RGB pictures to a file.
    """

    name: str
    read: str = ""
    write: str = ""
    write_pictures: str = ""

    def function(self, task: str) -> Callable[..., Any]:
        """Return the function that `read`, `write` or `write_pictures` names."""
        module, _, function = getattr(self, task).rpartition(".")
        return getattr(importlib.import_module(f"{_HERE}.{module}"), function)


DICOM = Format(
    "DICOM",
    "_dicom.reading.read_dicom",
    "_dicom.writing.write_parametric_map",
    "_dicom.capture.write_capture",
)
NIFTI = Format("NIfTI", "_nifti.reading.read_nifti", "_nifti.reading.write_nifti")
ANALYZE = Format("NIfTI", "_nifti.reading.read_nifti")
GEOTIFF = Format("GeoTIFF", "_geotiff.reading.read_geotiff", "_geotiff.writing.write_geotiff")
VIRTUAL = Format("GeoTIFF", "_geotiff.reading.read_geotiff")  # refused there, with what to do
VIDEO = Format("video", "_video.reading.read_video", write_pictures="_video.writing.write_video")
SLIDE = Format("slide", "_slide.read_slide")
NUMPY = Format("NumPy", "_arrays.numpy_files.read_numpy", "_arrays.numpy_files.write_numpy")
MATLAB = Format("MATLAB", "_arrays.numpy_files.read_matlab")
HDF5 = Format("HDF5", "_arrays.chunked.read_hdf5")
ZARR = Format("Zarr", "_arrays.chunked.read_zarr")
PARQUET = Format("Parquet", write="_arrays.parquet.write_parquet")

# Longer endings first: the first that fits is taken.
_ENDINGS = {
    ".nii.gz": NIFTI,
    ".nii": NIFTI,
    ".hdr": ANALYZE,
    ".mgh": NIFTI,
    ".mgz": NIFTI,
    ".dcm": DICOM,
    ".dicom": DICOM,
    ".ima": DICOM,
    ".tif": GEOTIFF,
    ".tiff": GEOTIFF,
    ".vrt": VIRTUAL,
    ".mp4": VIDEO,
    ".m4v": VIDEO,
    ".mov": VIDEO,
    ".mkv": VIDEO,
    ".webm": VIDEO,
    ".avi": VIDEO,
    ".mpg": VIDEO,
    ".mpeg": VIDEO,
    ".svs": SLIDE,
    ".ndpi": SLIDE,
    ".scn": SLIDE,
    ".mrxs": SLIDE,
    ".vms": SLIDE,
    ".bif": SLIDE,
    ".npy": NUMPY,
    ".npz": NUMPY,
    ".mat": MATLAB,
    ".h5": HDF5,
    ".hdf5": HDF5,
    ".zarr": ZARR,
    ".parquet": PARQUET,
}
_GEO_KEYS = 34735  # GeoTIFF 1.1, section 7.1.2
_SAMPLES = 277  # TIFF 6.0, SamplesPerPixel
_MOST_SAMPLES = 4  # of a photograph: RGB and alpha
_DICOM_MARK_AT = 128  # bytes of preamble, PS3.10 section 7.1


def format_of(path: str | os.PathLike) -> Format | None:
    """Return the format of a file or folder, by the ending of its name; `None` if it is none of these.

    A file without a known ending is a DICOM file if it starts as one, and a folder without is a series of
    DICOM files.
    """
    path = pathlib.Path(path)
    for ending, found in _ENDINGS.items():
        if path.name.lower().endswith(ending):
            return found
    if path.is_dir() or _starts_as_dicom(path):
        return DICOM
    return None


def name_of_format(path: str | os.PathLike) -> str:
    """Return what `Scan.format` says of a file, `"DICOM"` and so on; `""` if `read` doesn't read it."""
    found = format_of(path)
    return found.name if found is not None and found.read else ""


def is_scan(path: str | os.PathLike) -> bool:
    """Return whether `read` is what reads a file, and not a decoder of photographs.

    Of a TIFF it is, unless it is a photograph: grey or RGB, without a place on the earth.
    """
    found = format_of(path)
    if found is GEOTIFF:
        return not _is_photograph(path)
    is_series = found is DICOM and os.path.isdir(path)  # which is no picture
    return found is not None and found.read != "" and not is_series


def _is_photograph(path) -> bool:
    """Return whether Pillow reads a TIFF as grey or RGB, and it lies nowhere on the earth."""
    image = require("PIL.Image", "pillow")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if _samples(path) > _MOST_SAMPLES:  # Pillow would log an error.
                return False
            with image.open(path, formats=["TIFF"]) as header:
                is_placed = _GEO_KEYS in header.tag_v2
                return not is_placed and header.tag_v2.get(_SAMPLES, 1) in (1, 3, 4)
    except Exception:  # Pillow has no mode for it, or it is damaged: the reader says what is wrong.
        return False


def _samples(path) -> int:
    """Return how many samples a pixel of a TIFF has, by its first directory."""
    tags = require("PIL.TiffImagePlugin", "pillow")
    with open(path, "rb") as file:
        start = file.read(8)
        if start[2:4] in (b"\x2b\0", b"\0\x2b"):  # BigTIFF
            start += file.read(8)
        directory = tags.ImageFileDirectory_v2(start)
        file.seek(directory.next)
        directory.load(file)
    return int(directory.get(_SAMPLES, 1))


def endings(task: str) -> list[str]:
    """Return the endings for which there is a function for a task, such as `"read"`."""
    return sorted(ending for ending, each in _ENDINGS.items() if getattr(each, task))


def _starts_as_dicom(path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(_DICOM_MARK_AT + 4)[_DICOM_MARK_AT:] == b"DICM"

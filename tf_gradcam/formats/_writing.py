"""Write a heatmap, or pictures, in the format of a field: `write`, `write_pictures`.

Users and the command line call it.
"""

import os
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam._arrays import real_array
from tf_gradcam._checks import check_path, did_you_mean
from tf_gradcam.formats._catalogue import endings, format_of
from tf_gradcam.formats._scan import Scan


class About(NamedTuple):
    """What a file says of its heatmap.

    Attributes:
        method: name of the method, such as `"gradcam"`.
        label: name of the class that is explained, or `""`.
        model: name of the model, or `""`.
    """

    method: str
    label: str
    model: str


def write(
    path: str | os.PathLike,
    scan: Scan,
    heatmap: Any,
    *,
    method: str = "gradcam",
    label: str = "",
    model: str = "",
) -> None:
    """Write a heatmap as exact numbers, in the place of its scan, in the format that the ending says.

    The heatmap keeps its own grid, and covers the scan: a 7 x 7 heatmap of a scene of 700 m has cells of
    100 m. It is written completely or not at all.

    Args:
        path: where to; `.dcm` for a DICOM Parametric Map, `.nii` or `.nii.gz` for NIfTI, `.tif` for a
            GeoTIFF, `.npy` or `.parquet` for any scan.
        scan: what `read` returned.
        heatmap: `(*axes)` on any grid, floating, finite: a heatmap in `[0, 1]` or a signed map.
        method: the method that made it.
        label: the class that it explains.
        model: the name of the model.

    Raises:
        ImportError: if the format's library is not installed; it names the extra to install.
        OSError: if it can't be written.
        TypeError: if `scan` is no `Scan`, if `heatmap` holds no real numbers, or if `method`, `label` or
            `model` is no `str`.
        ValueError: if the ending is unknown, if the heatmap has other axes than the scan or values that are
            not finite, or if the scan lacks what the format needs, such as the patient of a DICOM file.
    """
    check_path("path", path)
    path = pathlib.Path(path)
    function = _function(path, "write")
    _check_scan(scan)
    about = About(method, label, model)
    for name, text in about._asdict().items():
        if not isinstance(text, str):
            raise TypeError(f"`{name}` must be a str. Received: {name}={text!r:.80}")
    if hasattr(heatmap, "heatmap"):
        raise TypeError(
            f"`heatmap` must be an array. Received: an object of type {type(heatmap).__name__}. Give its "
            "heatmap: explanation.heatmap"
        )
    values = real_array("heatmap", heatmap)
    if values.ndim == len(scan.axes) + 1 and len(values) == 1:
        values = values[0]  # of a batch of one
    if values.ndim != len(scan.axes) or 0 in values.shape:
        raise ValueError(
            f"`heatmap` must have an axis for each of {scan.axes!r}, those of the scan. "
            f"Received: shape {values.shape}"
        )
    with np.errstate(over="ignore"):  # It is refused below.
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(
            "`heatmap` must hold finite values that fit float32. Received: values that are NaN or infinite "
            "there."
        )
    function(path, scan, values, about)


def write_pictures(path: str | os.PathLike, scan: Scan, pictures: Iterable[np.ndarray]) -> None:
    """Write RGB pictures, such as overlays, in the format that the ending says.

    Args:
        path: where to; `.dcm` for a DICOM Secondary Capture, `.mp4` for a video with the clip's own clock.
        scan: what `read` returned.
        pictures: uint8 `(H, W, 3)`, one for each slice or frame; they are taken one by one.

    Raises:
        ImportError, OSError, TypeError, ValueError: as `write` does.
    """
    check_path("path", path)
    path = pathlib.Path(path)
    function = _function(path, "write_pictures")
    _check_scan(scan)
    function(path, scan, pictures)


def _check_scan(scan) -> None:
    if not isinstance(scan, Scan):
        raise TypeError(
            f"`scan` must be what tf_gradcam.formats.read returns. Received: {scan!r:.80} "
            f"(of type {type(scan).__name__})"
        )


def _function(path, task):
    """Return the function that writes a file of this ending."""
    found = format_of(path) if path.suffix else None
    if found is None or not getattr(found, task):
        known = endings(task)
        raise ValueError(
            f"`path` must end in one of {', '.join(known)}. Received: {path.name!r}. "
            f"{did_you_mean(path.suffix, known)}".rstrip()
        )
    return found.function(task)

"""Read the pages of a TIFF as slices, frames or bands: `read_stack`. `reading` calls it.

tifffile knows what microscopes (OME, ImageJ) and its own writer say of the pages.
"""

import pathlib
from typing import Any

import numpy as np

from tf_gradcam._optional import require
from tf_gradcam.formats._scan import Scan
from tf_gradcam.formats._windows import MAX_BYTES, reason

_UNKNOWN = "IQ"  # tifffile's letters for pages whose meaning nothing tells
_MEANINGS = {"bands": "C", "slices": "Z", "frames": "T"}


def read_stack(path: pathlib.Path, count: int, pages: int | str | None) -> Scan:
    """Read a TIFF whose pages are slices, frames or channels by what it says of them.

    Args:
        path: the file.
        count: how many pages it has, for the messages.
        pages: what they are, where the file doesn't say it: `"bands"`, `"slices"`, `"frames"`, or `None`.

    Returns:
        A `Scan` with the axes `"yx"`, `"zyx"`, `"tyx"` or `"tzyx"`, in memory; channels last, whether they
        are pages or samples.

    Raises:
        ValueError: if it doesn't say what its pages are, or if it is damaged or too large.
    """
    if pages is not None and pages not in _MEANINGS:
        raise ValueError(
            f"`pages` must be the number of a page, or one of {', '.join(_MEANINGS)}. Received: "
            f"pages={pages!r:.80}"
        )
    tifffile = require("tifffile", "tifffile", "geo")
    try:
        # Of an OME file in several parts, the others are not opened.
        with tifffile.TiffFile(path, _multifile=False) as file:
            axes = _axes(path, count, pages, file.series)
            _check_size(path, axes, file.series[0])
            values = file.series[0].asarray(maxworkers=1)
    except _Refused as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # Damaged files raise errors of many types.
        raise ValueError(
            f"`path` must be a complete TIFF. Received: {path.name!r}, whose pages can't be decoded: "
            f"{reason(error)}. Read one page with pages=0, or check whether the file is complete."
        ) from error
    names = "".join(axis for axis in "TZYX" if axis in axes)
    channels = [axis for axis in "CS" if axis in axes]
    order = [axes.index(axis) for axis in (*names, *channels)]
    rest = [position for position in range(len(axes)) if position not in order]  # of length 1
    values = np.transpose(values, [*order, *rest])
    values = values.reshape(*values.shape[: len(names)], -1)
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return Scan(
        values=np.ascontiguousarray(native),
        axes=names.lower(),
        format="GeoTIFF",
        path=path,
        times=None,
        bands=tuple(str(number) for number in range(1, values.shape[-1] + 1)),
    )


class _Refused(Exception):
    """What is said to the user, and no fault of the file's."""


def _axes(path, count, pages, series) -> str:
    """Return a letter of T, Z, C, Y, X and S for each axis of the only series, and others for length 1."""
    if len(series) != 1:
        raise _Refused(
            f"`pages` must say which page to read. Received: pages={pages!r} for {path.name!r}, whose "
            f"{count} pages differ in size or type. Read one with pages=0."
        )
    axes = "".join(
        axis if length > 1 or axis in "YXS" else "."
        for axis, length in zip(series[0].axes.upper(), series[0].shape, strict=True)
    )
    unknown = [axis for axis in axes if axis in _UNKNOWN]
    if len(unknown) == 1 and pages is not None and _MEANINGS[pages] not in axes:
        return axes.replace(unknown[0], _MEANINGS[pages])
    if pages is not None:
        raise _Refused(
            f"`pages` must be None or a number for {path.name!r}, which says what its pages are: axes "
            f"{series[0].axes}. Received: pages={pages!r}"
        )
    if unknown:
        raise _Refused(
            f"`pages` must say what the {count} pages of {path.name!r} are, for the file doesn't. Received: "
            "pages=None. Give pages='bands', 'slices' or 'frames', or read one page with pages=0."
        )
    return axes


def _check_size(path, axes, series: Any) -> None:
    size = int(np.prod(series.shape, dtype=np.float64)) * series.dtype.itemsize
    if series.dtype.kind not in "buif":
        raise _Refused(f"`path` must hold real values. Received: {path.name!r} with {series.dtype}.")
    if not {"Y", "X"} <= set(axes) or set(axes) - set("TZCYXS."):
        raise _Refused(
            f"`path` must have the axes of time, depth, rows, columns and channels at most. Received: "
            f"{path.name!r} with {series.axes}. Read one page with pages=0."
        )
    if size > MAX_BYTES:
        raise _Refused(
            f"`path` must be a stack of at most {MAX_BYTES:,} bytes. Received: {path.name!r} of {size:,} "
            "bytes. Read its pages one by one with pages=0."
        )

"""Write a heatmap as a cloud optimized GeoTIFF: `write_geotiff`. `_catalogue` names it."""

import pathlib
import warnings
from typing import Any

import numpy as np

from tf_gradcam._checks import one_line
from tf_gradcam._files import unfinished
from tf_gradcam._optional import require
from tf_gradcam.formats._geotiff.reading import Place
from tf_gradcam.formats._scan import Scan
from tf_gradcam.formats._windows import reason

_ROWS = 512  # of a scene, whose mask is read at once
_CM = 10  # millimetres


def write_geotiff(path: pathlib.Path, scan: Scan, heatmap: np.ndarray, about: Any) -> None:
    """Write a heatmap on its own grid, with the outer corners of its scene, float32.

    A cell without a valid pixel of the scene is NaN, which is the nodata value. Class and method are the
    description of the band; `method`, `label` and `model` are tags. A heatmap of a scan in millimetres, such
    as a slide, has the size of its cells as the TIFF's resolution; no TIFF tag holds where a region begins.

    Args:
        path: where to.
        scan: with the axes `"yx"`.
        heatmap: float32 `(h, w)`.
        about: method, label and model.

    Raises:
        OSError: if it can't be written.
        ValueError: if the scan has more axes.
    """
    if scan.axes != "yx":
        raise ValueError(
            f"`scan` must have rows and columns only for a TIFF. Received: axes {scan.axes!r}. Write .nii.gz "
            "or .npy, or the heatmap of one slice or frame."
        )
    values = heatmap
    if scan.valid is not None:
        values = np.where(_covered(scan, heatmap.shape), heatmap, np.float32(np.nan))
    with unfinished(path) as temporary:
        _write(
            temporary, values, _georeference(scan, heatmap.shape), _tags(scan, heatmap.shape, about), about
        )


def _write(path, values, georeference, tags, about) -> None:
    rasterio = require("rasterio", "rasterio", "geo")
    rpcs = georeference.pop("rpcs", None)
    try:
        with warnings.catch_warnings(), rasterio.Env(GDAL_PAM_ENABLED="NO"):
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(
                path,
                "w",
                driver="COG",
                height=values.shape[0],
                width=values.shape[1],
                count=1,
                dtype="float32",
                nodata=np.nan,
                compress="deflate",
                predictor=3,
                overview_resampling="average",  # the default, cubic, leaves [0, 1]
                **georeference,
            ) as file:
                if rpcs is not None:
                    file.rpcs = rpcs
                file.write(values, 1)
                label = one_line(about.label)
                file.set_band_description(1, f"{about.method}: {label}" if label else about.method)
                file.update_tags(**tags)
            with rasterio.open(path, driver="GTiff") as written:  # Errors while it is closed are not raised.
                complete = np.array_equal(written.read(1), values, equal_nan=True)
    except Exception as error:  # A full disk raises errors of many types.
        raise OSError(f"{path.parent} can't be written to: {reason(error)}") from error
    if not complete:
        raise OSError(f"{path.parent} can't be written to: the file is not complete")


def _tags(scan, grid, about) -> dict[str, str]:
    tags = {name: one_line(text) for name, text in about._asdict().items() if text}
    spacing = scan.spacing
    if spacing is not None and scan.space.endswith("mm"):
        down, right = (
            each * length / cells for each, length, cells in zip(spacing, scan.shape, grid, strict=False)
        )
        tags |= {
            "TIFFTAG_XRESOLUTION": repr(_CM / right),
            "TIFFTAG_YRESOLUTION": repr(_CM / down),
            "TIFFTAG_RESOLUTIONUNIT": "3",  # pixels in each centimetre
        }
    return tags


def _georeference(scan, grid) -> dict[str, Any]:
    """Return where a heatmap is, as rasterio takes it: the scene's own corners, points and polynomials."""
    place = scan.header
    if not isinstance(place, Place):
        return {}
    down, right = (length / cells for length, cells in zip(scan.shape, grid, strict=False))
    found: dict[str, Any] = {"crs": place.crs} if place.crs else {}
    if place.transform is not None:
        found["transform"] = place.transform @ place.transform.scale(right, down)
    elif place.gcps:
        found["gcps"] = [_scaled_point(point, down, right) for point in place.gcps]
    if place.rpcs is not None:
        found["rpcs"] = _scaled_polynomials(place.rpcs, down, right)
    return found


def _scaled_point(point, down, right) -> Any:
    control = require("rasterio.control", "rasterio", "geo")
    return control.GroundControlPoint(
        row=point.row / down, col=point.col / right, x=point.x, y=point.y, z=point.z, id=point.id
    )


def _scaled_polynomials(rpcs, down, right) -> Any:
    """Return coefficients for larger cells: their lines and samples count from the centre of the first."""
    scaled = rpcs.to_dict() | {
        "line_off": (rpcs.line_off + 0.5) / down - 0.5,
        "line_scale": rpcs.line_scale / down,
        "samp_off": (rpcs.samp_off + 0.5) / right - 0.5,
        "samp_scale": rpcs.samp_scale / right,
    }
    return type(rpcs)(**scaled)


def _covered(scan, grid) -> np.ndarray:
    """Return which cells of a grid hold a valid pixel of the scan, or a part of one, `(h, w)` bool."""
    (rows, columns), height = grid, scan.shape[0]
    tops, bottoms = _edges(rows, height)
    lefts, rights = _edges(columns, scan.shape[1])
    covered = np.zeros(grid, bool)
    for first in range(0, height, _ROWS):
        valid = np.asarray(scan.valid[first : first + _ROWS])
        by_column = _any_between(valid, lefts, rights)
        inside = np.flatnonzero((tops < first + len(valid)) & (bottoms > first))
        low = np.maximum(tops[inside] - first, 0)
        high = np.minimum(bottoms[inside] - first, len(valid))
        covered[inside] |= _any_between(by_column.T, low, high).T
    return covered


def _edges(cells, length) -> tuple[np.ndarray, np.ndarray]:
    """Return the first pixel of each cell, and the one behind its last."""
    number = np.arange(cells, dtype=np.int64)
    return number * length // cells, -(-(number + 1) * length // cells)


def _any_between(flags, starts, stops) -> np.ndarray:
    """Return whether any of the flags in each range along the last axis is True."""
    counts = np.zeros((len(flags), flags.shape[1] + 1), np.int32)
    np.cumsum(flags, axis=1, out=counts[:, 1:])
    return counts[:, stops] > counts[:, starts]

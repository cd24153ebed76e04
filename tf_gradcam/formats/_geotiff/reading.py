"""Read GeoTIFF scenes and other TIFF files by windows: `read_geotiff`. `_catalogue` names it.

GDAL, by rasterio, decodes them. A file of several pages goes to `stack`.
"""

import contextlib
import pathlib
import re
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam._arrays import array_or_empty
from tf_gradcam._checks import one_line
from tf_gradcam._optional import require
from tf_gradcam.formats._geotiff.stack import read_stack
from tf_gradcam.formats._scan import Scan
from tf_gradcam.formats._windows import PerThread, Windows, gather, reason

_MAX_BLOCK = 2**30  # bytes of a tile or strip; GDAL decodes no less than one
_FAR = 1e100  # in any units
_MAX_BANDS = 10_000  # rasterio's time for one read grows with their square: 4 s
_KEPT = 2**28  # bytes of decoded tiles that GDAL keeps, for each thread
_TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class Place(NamedTuple):
    """Where a scene is, as rasterio has it: what a heatmap of it is written with.

    Attributes:
        crs: the coordinate reference system of `transform` or of `gcps`, or `None`.
        transform: from `(column, row)` of corners to map coordinates, or `None`.
        gcps: ground control points.
        rpcs: rational polynomial coefficients, or `None`.
    """

    crs: Any
    transform: Any
    gcps: tuple[Any, ...]
    rpcs: Any


def read_geotiff(
    path: pathlib.Path, bands: tuple[int, ...] | None = None, pages: int | str | None = None
) -> Scan:
    """Read a GeoTIFF or TIFF: a lazy scene, or a stack of pages.

    Values are those of the file, at its full resolution; overviews are not used. With scale or offset tags
    they are `stored * scale + offset`, as float32 where the file has 16 bits or float32, and else float64.
    What is sliced is read then. Valid is where all bands that are read are: not nodata, not masked, an alpha
    above 0, and finite.

    Args:
        path: the file.
        bands: the numbers of the bands to read, from 1, in the order of the channels. With `None` all, but
            for an alpha band, which says what is valid; if its number is given, it is a band like another.
        pages: for a file of several pages, the number of the one to read, from 0; or what all of them are,
            where the file doesn't say it: `"bands"`, `"slices"` or `"frames"`.

    Returns:
        A `Scan` with the axes `"yx"`; a stack of slices or frames has `"zyx"`, `"tyx"` or `"tzyx"`.

    Raises:
        ValueError: if it is no complete TIFF, if its values are complex, if there is no such band or page, or
            if it has several pages and nothing says what they are.
    """
    if path.suffix.lower() == ".vrt":
        raise ValueError(
            f"`path` must be a GeoTIFF. Received: {path.name!r}. A .vrt names other files and addresses, "
            "which would be opened, too. Make one file of it: gdal_translate scene.vrt scene.tif"
        )
    _check_mask_file(path)
    with _opened(path, None) as first:
        # GTIFF_DIR:number:path, in the order of text: 10 comes before 2.
        names = sorted(first.subdatasets, key=lambda name: int(name.split(":")[1]))
    if isinstance(pages, int | np.integer) and not isinstance(pages, bool):
        if not 0 <= pages < max(1, len(names)):
            raise ValueError(f"`pages` must be from 0 to {max(1, len(names)) - 1}. Received: pages={pages}")
        return _scan(path, names[pages] if names else None, bands)
    if pages is None and len(names) < 2:
        return _scan(path, None, bands)
    if bands is not None:
        raise ValueError(
            f"`bands` must be None for a stack of {len(names)} pages. Received: bands={bands!r:.80}. "
            "Say which page with pages=0."
        )
    return read_stack(path, max(1, len(names)), pages)


def _scan(path, name, bands) -> Scan:
    with _opened(path, name) as dataset:
        _check_dataset(path, dataset)
        scene = _Scene(path, name, dataset, bands)
        place = _place(dataset)
        affine, space = _geometry(place)
        names = _band_names(dataset)
        limits = _limits(dataset)
        size = dataset.shape
        may_lack = scene.masked or scene.is_floating
    return Scan(
        values=Windows((*size, len(scene.bands)), scene.dtype, scene.read_values),
        axes="yx",
        format="GeoTIFF",
        path=path,
        affine=affine,
        space=space,
        valid=Windows(size, bool, scene.read_valid) if may_lack else None,
        bands=tuple(names[band - 1] for band in scene.bands),
        limits=limits if scene.scale is None else None,
        header=place,
    )


class _Dataset(NamedTuple):
    """An open file, and the tiles of it that were decoded."""

    file: Any
    decoded: set[tuple[int, int]]

    def close(self) -> None:
        self.file.close()


class _Scene:
    """Reads windows of some bands of a file, with a dataset for each thread."""

    def __init__(self, path, name, dataset, bands) -> None:
        self.path = path
        self._datasets = PerThread(lambda: _Dataset(_open(path, name), set()))
        self._block = dataset.block_shapes[0]
        self._block_bytes = _block_bytes(dataset)
        self.bands = _chosen_bands(dataset, bands)
        stored = np.dtype(dataset.dtypes[0])
        self.is_floating = stored.kind == "f"
        chosen = np.array(self.bands) - 1
        scale, offset = np.array(dataset.scales)[chosen], np.array(dataset.offsets)[chosen]
        self.scale = None if (scale == 1).all() and (offset == 0).all() else (scale, offset)
        is_narrow = stored.itemsize <= 2 or stored == np.float32
        self.dtype = stored if self.scale is None else np.dtype(np.float32 if is_narrow else np.float64)
        self.masked = _masked_bands(dataset, self.bands)

    def read_values(self, rows, columns) -> np.ndarray:
        return gather(self._window, rows, columns, len(self.bands) * self.dtype.itemsize)

    def read_valid(self, rows, columns) -> np.ndarray:
        return gather(self._valid_window, rows, columns, len(self.bands) * self.dtype.itemsize)

    def _window(self, rows, columns) -> np.ndarray:
        values = np.moveaxis(self._ask("read", self.bands, rows, columns), 0, -1)
        if self.scale is None:
            return np.ascontiguousarray(values)
        scale, offset = self.scale
        with np.errstate(over="ignore", invalid="ignore"):  # of nodata, such as -3.4e38
            return (values * scale + offset).astype(self.dtype)

    def _valid_window(self, rows, columns) -> np.ndarray:
        valid = np.ones((rows.stop - rows.start, columns.stop - columns.start), bool)
        if self.masked:
            valid &= (self._ask("read_masks", self.masked, rows, columns) > 0).all(axis=0)
        if self.is_floating:
            valid &= np.isfinite(self._ask("read", self.bands, rows, columns)).all(axis=0)
        return valid

    def _ask(self, method, bands, rows, columns) -> np.ndarray:
        window = ((rows.start, rows.stop), (columns.start, columns.stop))
        try:
            with _environment():
                self._bound_cache(rows, columns)
                return getattr(self._datasets.get().file, method)(indexes=bands, window=window)
        except require("rasterio.errors", "rasterio", "geo").RasterioError as error:
            self._datasets.close()
            raise ValueError(
                f"`path` must be a complete GeoTIFF. Received: {self.path.name!r}, which can't be decoded in "
                f"rows {rows.start} to {rows.stop}, columns {columns.start} to {columns.stop}: "
                f"{reason(error)}. Download it again."
            ) from error

    def _bound_cache(self, rows, columns) -> None:
        """Close the dataset once GDAL keeps too much: by itself it keeps 5 % of the machine's memory."""
        height, width = self._block
        blocks = {
            (row, column)
            for row in range(rows.start // height, (rows.stop - 1) // height + 1)
            for column in range(columns.start // width, (columns.stop - 1) // width + 1)
        }
        decoded = self._datasets.get().decoded
        if len(decoded | blocks) * self._block_bytes > _KEPT:
            self._datasets.close()
        self._datasets.get().decoded.update(blocks)


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Hold GDAL to this file and those that are named as it is, without a search of its folder."""
    rasterio = require("rasterio", "rasterio", "geo")
    with warnings.catch_warnings(), rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


def _open(path, name) -> Any:
    """Open a file, or the page of it that GDAL calls `name`, as a TIFF and nothing else."""
    rasterio = require("rasterio", "rasterio", "geo")
    try:
        with _environment():
            return rasterio.open(name or str(path.absolute()), driver="GTiff")
    except (rasterio.errors.RasterioError, UnicodeDecodeError) as error:
        raise ValueError(
            f"`path` must be a complete GeoTIFF or TIFF. Received: {path.name!r}, which can't be opened: "
            f"{reason(error)}. Check whether the file is complete."
        ) from error


@contextlib.contextmanager
def _opened(path, name) -> Iterator[Any]:
    dataset = _open(path, name)
    try:
        with _environment():
            yield dataset
    except (require("rasterio.errors", "rasterio", "geo").RasterioError, UnicodeDecodeError) as error:
        raise ValueError(
            f"`path` must be a complete GeoTIFF. Received: {path.name!r}, whose tags can't be read: "
            f"{reason(error)}. Download it again."
        ) from error
    finally:
        dataset.close()


def _check_mask_file(path) -> None:
    """Raise a `ValueError` if the mask beside a file is no TIFF: GDAL would follow what it names."""
    for ending in (".msk", ".MSK"):
        mask = path.with_name(path.name + ending)
        if mask.is_file():
            with open(mask, "rb") as file:
                if file.read(4) not in _TIFF_MARKS:
                    raise ValueError(
                        f"The mask beside `path` must be a TIFF. Received: {mask.name!r}. Remove it."
                    )


def _check_dataset(path, dataset) -> None:
    if not np.abs(dataset.transform).max() < _FAR:  # NaN, too
        raise ValueError(
            f"`path` must have a transform of finite numbers. Received: {path.name!r} with "
            f"{tuple(dataset.transform)[:6]}. Download it again."
        )
    kinds = {np.dtype(each).kind if not each.startswith("complex") else "c" for each in dataset.dtypes}
    if kinds == {"c"}:
        raise ValueError(
            f"`path` must hold real values. Received: {path.name!r} with {dataset.dtypes[0]}. "
            "Write its amplitude or intensity to a file first."
        )
    if _block_bytes(dataset) > _MAX_BLOCK:
        height, width = dataset.block_shapes[0]
        raise ValueError(
            f"`path` must have tiles or strips of at most {_MAX_BLOCK:,} bytes. Received: {path.name!r} with "
            f"{height} x {width} pixels in each. Tile it: gdal_translate -co TILED=YES old.tif new.tif"
        )


def _block_bytes(dataset) -> int:
    height, width = dataset.block_shapes[0]
    return height * width * dataset.count * np.dtype(dataset.dtypes[0]).itemsize


def _alpha_bands(dataset) -> list[int]:
    return [band for band, each in enumerate(dataset.colorinterp, start=1) if each.name == "alpha"]


def _chosen_bands(dataset, bands) -> list[int]:
    if bands is None:
        alpha = set(_alpha_bands(dataset))
        bands = [band for band in dataset.indexes if band not in alpha] or list(dataset.indexes)
    numbers = array_or_empty(bands)
    is_list = numbers.ndim == 1 and 0 < len(numbers) <= _MAX_BANDS and numbers.dtype.kind in "iu"
    if not is_list or not (numbers.min() >= 1 and numbers.max() <= dataset.count):
        raise ValueError(
            f"`bands` must be numbers of bands from 1 to {dataset.count}, {_MAX_BANDS:,} at most. "
            f"Received: bands={bands!r:.80}"
        )
    return [int(number) for number in numbers]


def _masked_bands(dataset, bands) -> list[int]:
    """Return the bands whose masks, together, say what is valid."""
    alpha_is_data = not set(bands).isdisjoint(_alpha_bands(dataset))
    found, shared = [], False
    all_flags = dataset.mask_flag_enums  # asks for each band each time
    for band in dict.fromkeys(bands):
        flags = {flag.name for flag in all_flags[band - 1]}
        if "all_valid" in flags or ("alpha" in flags and alpha_is_data):
            continue
        is_shared = "per_dataset" in flags
        if not (is_shared and shared):
            found.append(band)
        shared = shared or is_shared
    return found


def _band_names(dataset) -> list[str]:
    """Return the description of each band, or its number where it has none, or none in UTF-8."""
    try:
        descriptions = dataset.descriptions
    except UnicodeDecodeError:
        descriptions = [None] * dataset.count
    return [one_line(each) if each else str(band) for band, each in enumerate(descriptions, start=1)]


def _limits(dataset) -> tuple[float, float] | None:
    """Return the range of the bits that a file declares, such as 12, if they are fewer than its dtype's."""
    bits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "")
    if not bits.isdecimal() or np.dtype(dataset.dtypes[0]).kind != "u":
        return None
    return 0.0, float(2 ** int(bits) - 1)


def _place(dataset) -> Place:
    gcps, gcps_crs = dataset.gcps
    transform = None if dataset.transform.is_identity else dataset.transform
    crs = dataset.crs if transform is not None or not gcps else gcps_crs
    return Place(crs, transform, tuple(gcps) if transform is None else (), dataset.rpcs)


def _geometry(place) -> tuple[np.ndarray | None, str]:
    """Return affine and space; the transform is of corners, the affine of centres, rows first."""
    if place.transform is None:
        if place.gcps:
            return None, f"{_crs_name(place.crs)} by ground control points"
        return None, "rational polynomial coefficients" if place.rpcs else ""
    a, b, c, d, e, f, *_ = place.transform
    affine = np.array([[b, a, c + (a + b) / 2], [e, d, f + (d + e) / 2]], np.float64)
    return affine, _crs_name(place.crs)


def _crs_name(crs) -> str:
    """Return `"EPSG:..."`, or the name that the file gives its coordinate reference system."""
    if not crs:
        return ""
    code = crs.to_epsg()
    if code is not None:
        return f"EPSG:{code}"
    name = re.match(r'\w+\["([^"]*)"', crs.to_wkt())
    return one_line(name.group(1)) if name else one_line(crs.to_string())[:80]

"""`Scan`: what a file of a field holds. The readers of the formats make it, users and writers read it."""

import dataclasses
import math
import numbers
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tf_gradcam._files import OwnRange, PictureOptions, make_pixels

Window = tuple[float, float]
PICTURE_SIDE = 4096  # pixels along a side of a picture, at most


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Scan:
    """The values of a file as they are stored, with where, when and in which bands they were measured.

    It counts as the array `filled()` where an array is asked for: `cam(scan)` explains it as one image.

    Attributes:
        values: `(*axes, C)`, channels last, as the file means them: rescaled by the file's own slope and
            intercept, never cut to 8 bits. A NumPy array; of a format that may be larger than memory
            (GeoTIFF, slide, video, HDF5, Zarr) an array-like with `shape`, `dtype` and slicing, which reads
            what is sliced.
        axes: a letter for each axis before the channels: `"yx"` (rows, columns), `"zyx"` (slices first) or
            `"tyx"` (frames first), `"tzyx"`.
        format: `"DICOM"`, `"NIfTI"`, `"GeoTIFF"`, `"video"`, `"slide"`, `"NumPy"`, ...
        path: the file or folder.
        affine: `(n, m + 1)` float64, from the place in the array to the place in the world: `n` coordinates
            in `space` of `m` indices, the spatial axes in the order of `axes`; whole numbers are the centres
            of cells. `None` where the file says nothing.
        space: what the coordinates are: `"LPS mm"` (DICOM), `"RAS mm"` (NIfTI), `"EPSG:32632"`, `"mm"`, ...
        times: `(T,)` float64, when each frame is shown, in seconds; `None` without an axis `"t"`.
        valid: `(*axes)` bool, False where nothing was measured (nodata, masks); an array or array-like as
            `values`; `None` where everything was.
        bands: a name for each channel, or `()`.
        limits: the values that the file itself shows as black and white, or `None`.
        windows: for DICOM, the `(center, width)` of each window that the file names.
        tones: for each of `windows`, the file's own function from values to brightness in `[0, 1]`; or `()`
            where a window is a straight line.
        negative: whether low values are bright, so that pictures are the negative of the values.
        fill: what `filled` puts where nothing was measured; `None` leaves what the file has there.
        header: what the format's writer needs to write a heatmap back; of the format's own library.
    """

    values: Any
    axes: str
    format: str
    path: pathlib.Path
    affine: np.ndarray | None = None
    space: str = ""
    times: np.ndarray | None = None
    valid: Any = None
    bands: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None
    windows: tuple[Window, ...] = ()
    tones: tuple[Callable[[np.ndarray], np.ndarray], ...] = ()
    negative: bool = False
    fill: float | None = 0
    header: Any = None

    def __repr__(self) -> str:
        """Return format, shape, axes, dtype and spacing in one line; never what the header says."""
        shape = " x ".join(map(str, self.values.shape))
        parts = [f"{self.format}, {shape} ({self.axes}c), {self.values.dtype}"]
        if self.spacing is not None:
            parts.append(f"spacing {' x '.join(f'{each:.4g}' for each in self.spacing)} in {self.space}")
        if self.bands:
            parts.append(f"bands {', '.join(self.bands)}")
        return f"Scan({', '.join(parts)})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return `filled()`; of `np.array(scan)` a copy."""
        return np.array(self.filled(), dtype, copy=copy)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `values`: `(*axes, C)`."""
        return tuple(self.values.shape)

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """The distance between neighbours along each spatial axis, in the units of `space`."""
        if self.affine is None:
            return None
        return tuple(float(length) for length in np.linalg.norm(self.affine[:, :-1], axis=0))

    def filled(self, value: float | None = None, *, place: Any = ...) -> np.ndarray:
        """Return the values, with `value` where nothing was measured.

        Args:
            value: what nodata becomes; with `None` it is `fill`: 0, which most models of satellite images
                have seen there, or of DICOM what the file itself has there.
            place: an index or slices of the axes, for a part: only this part is read.

        Returns:
            Array `(*axes, C)` of the dtype of `values`. It may be `values` itself.

        Raises:
            TypeError: if `value` is no number.
            ValueError: if the dtype of `values` can't hold `value`, or if a file is too large to be read as a
                whole.
        """
        value = self.fill if value is None else _checked_fill(value, np.dtype(self.values.dtype))
        values = np.asarray(self.values[place])
        if self.valid is None or value is None:
            return values
        return np.where(np.asarray(self.valid[place])[..., None], values, np.asarray(value, values.dtype))

    def position(self, index: Any) -> np.ndarray:
        """Return where in the world a place in the array is.

        Args:
            index: a number for each of `axes`, the time axis too; fractions are between cells.

        Returns:
            The coordinates in `space`, float64.

        Raises:
            ValueError: if the file doesn't say where it was taken, or if `index` has other axes.
        """
        if self.affine is None:
            raise ValueError(
                f"`scan` must have a geometry for a position. Received: {self.path.name}, whose file says "
                "nothing of it."
            )
        if len(index) != len(self.axes):
            raise ValueError(
                f"`index` must have a number for each of {self.axes!r}. Received: index={index!r:.80}"
            )
        numbers = [each for each, axis in zip(index, self.axes, strict=True) if axis != "t"]
        return self.affine @ np.array([*numbers, 1.0])

    def picture(
        self,
        *,
        window: int | Window | None = None,
        limits: tuple[float, float] | None = None,
        percentiles: tuple[float, float] | None = None,
        bands: tuple[int, ...] | None = None,
        index: int | None = None,
    ) -> np.ndarray:
        """Return the scan as RGB pixels of 8 bits, for people to look at.

        Without `window`, `limits` and `percentiles`, a file's own window is taken. Where it has none, uint8
        is shown as it is, floating values in `[0, 1]` from 0 to 1, and others from the 1st percentile of the
        valid values to the 99th. Nodata is black. What is wider or higher than 4096 pixels is thinned out.

        Args:
            window: `(center, width)` in the units of the values, as radiologists give it; for a DICOM file
                with several windows also the number of one, from 0.
            limits: `(low, high)`: `low` and what is below becomes black, `high` and what is above white.
            percentiles: `(low, high)` in `[0, 100]`, of the valid values that are shown, all bands together.
            bands: the numbers of three bands for red, green and blue, or of one for grey, from 1 as the
                format counts them. With `None`: bands 1, 2 and 3 where there are three, else band 1.
            index: which slice or frame, for a volume or video; with `None` all of them.

        Returns:
            uint8 `(H, W, 3)`, or `(D, H, W, 3)` for a volume or video without an `index`.

        Raises:
            IndexError: if there is no such slice or frame.
            ValueError: if more than one of `window`, `limits` and `percentiles` is given, if they are no two
                numbers in order, or if there is no such band or window.
        """
        options = PictureOptions(window, limits, percentiles, bands)
        values, valid = self._shown(index)
        own = OwnRange(self.limits, self.windows, self.tones, self.negative)
        return make_pixels(values, valid, options, own)

    def _shown(self, index) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the values that a picture shows, and where they are valid, thinned out to its size."""
        leading = len(self.axes) - 2
        if index is not None and not leading:
            raise IndexError(f"`index` must be None for one image. Received: index={index!r:.80}")
        if index is not None and not -self.shape[0] <= index < self.shape[0]:
            raise IndexError(f"`index` must be below {self.shape[0]}. Received: index={index!r:.80}")
        steps = (
            slice(None, None, math.ceil(length / PICTURE_SIDE))
            for length in self.shape[leading : leading + 2]
        )
        place: tuple[Any, ...] = (*[slice(None)] * leading, *steps)
        if index is not None:
            place = (index % self.shape[0], *place[1:])
        valid = None if self.valid is None else np.asarray(self.valid[place])
        return np.asarray(self.values[place]), valid


def _checked_fill(value, dtype):
    """Return what `filled` puts where nothing was measured, or raise an error unless the dtype holds it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"`value` must be a number. Received: value={value!r:.80}")
    if dtype.kind == "f":
        return value
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if not (low <= value <= high and float(value).is_integer()):
        raise ValueError(
            f"`value` must be a whole number from {low} to {high}, as the scan holds {dtype}. "
            f"Received: value={value!r:.80}"
        )
    return value


def scaled_affine(scan: Scan, grid: tuple[int, ...]) -> np.ndarray | None:
    """Return the affine of a heatmap that covers a scan, on a grid of its own.

    A cell of the grid covers as much of the scan along each axis as any other: the outer edges are the same.

    Args:
        scan: the scan.
        grid: how many cells there are along each spatial axis.

    Returns:
        `(n, m + 1)` float64 as `scan.affine`, or `None` if it has none.
    """
    if scan.affine is None:
        return None
    lengths = [length for length, axis in zip(scan.shape, scan.axes, strict=False) if axis != "t"]
    affine = scan.affine.copy()
    for axis, (length, cells) in enumerate(zip(lengths, grid, strict=True)):
        ratio = length / cells
        # Cell 0 has its centre at (ratio - 1) / 2 of the scan's own cells.
        affine[:, -1] += affine[:, axis] * (ratio - 1) / 2
        affine[:, axis] *= ratio
    return affine

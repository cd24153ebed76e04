"""Read whole-slide images by windows: `read_slide`. `_catalogue` names it.

OpenSlide decodes them, and tiffslide the TIFF files that OpenSlide refuses.
"""

import io
import math
import pathlib
from typing import Any

import numpy as np

from tf_gradcam._arrays import array_or_empty
from tf_gradcam._checks import is_whole
from tf_gradcam._optional import require
from tf_gradcam.formats._scan import Scan
from tf_gradcam.formats._windows import PerThread, Windows, gather, reason

_STRIP = 2**24  # pixels that are decoded at once
# A level of 2.0018 is one of 2 to whoever asks: levels are rounded to whole pixels.
_TOLERANCE = 1.05
_WHITE = (255, 255, 255)


def read_slide(
    path: pathlib.Path,
    level: int | None = None,
    mpp: float | None = None,
    region: tuple[int, int, int, int] | None = None,
) -> Scan:
    """Read a whole-slide image: one of its levels, or a region of it; pixels are read as they are sliced.

    Values are RGB, uint8; where the scanner took no picture they have the background that the file names, or
    white. Slices with steps, `values[::16, ::16]`, are read from the smaller levels. Positions are in
    millimetres from the upper left corner of the slide, by the level's true downsample, such as 2.0018; or
    in pixels of level 0 where the file doesn't say how large these are.

    Args:
        path: the file.
        level: which level, from 0, the finest. With `None` 0, or what `mpp` says.
        mpp: micrometres for each pixel; the coarsest level that is as fine is read, with 5 % of tolerance.
            It is not resized: `Scan.spacing` says what was found.
        region: `(left, top, width, height)` in pixels of level 0, whatever the level, as QuPath counts; with
            `None` the whole slide.

    Returns:
        A `Scan` with the axes `"yx"`.

    Raises:
        ValueError: if it is no slide, or damaged, or has no such level or region.
    """
    if not path.is_file():
        raise ValueError(f"`path` must be the file of a slide. Received: {path.name!r}, which is a folder.")
    slide = _open(path)
    try:
        downsamples = tuple(float(each) for each in slide.level_downsamples)
        sizes = tuple((int(height), int(width)) for width, height in slide.level_dimensions)
        pixel_size = _pixel_size(slide.properties)
        background = _background(slide.properties)
    finally:
        slide.close()
    level = _chosen_level(path, level, mpp, downsamples, pixel_size)
    rows, columns = _in_level(region, sizes[0], sizes[level], downsamples[level])
    source = _Slide(path, level, (rows.start, columns.start), downsamples, sizes, background)
    unit = np.array([1.0, 1.0]) if pixel_size is None else np.array(pixel_size) / 1000
    along_x, along_y = downsamples[level] * unit
    affine = np.array(
        [
            [0, along_x, (columns.start + 0.5) * along_x],
            [along_y, 0, (rows.start + 0.5) * along_y],
        ]
    )
    return Scan(
        values=Windows((len(rows), len(columns), 3), np.uint8, source.read),
        axes="yx",
        format="slide",
        path=path,
        affine=affine,
        space="pixels of level 0" if pixel_size is None else "mm",
        bands=("red", "green", "blue"),
    )


class _Slide:
    """Reads windows of a level, from a first row and column on, with a handle for each thread."""

    def __init__(self, path, level, first, downsamples, sizes, background) -> None:
        self.path, self.level, self.first = path, level, first
        self.downsamples, self.sizes, self.background = downsamples, sizes, background
        self._slides = PerThread(lambda: _open(path))

    def read(self, rows, columns) -> np.ndarray:
        """Return the pixels at crossings of rows and columns, `(h, w, 3)`, from the level that suffices."""
        level = self._coarsest(min(_step(rows), _step(columns)))
        rows, columns = (self._at(level, indices, axis) for axis, indices in enumerate((rows, columns)))
        return gather(lambda *window: self._window(level, *window), rows, columns, 4)

    def _coarsest(self, step) -> int:
        """Return the coarsest level whose pixels are no larger than the steps."""
        wanted = self.downsamples[self.level] * (step * _TOLERANCE if step > 1 else 1)
        fitting = [level for level, each in enumerate(self.downsamples) if each <= wanted]
        return max(fitting) if step > 1 else self.level

    def _at(self, level, indices, axis) -> np.ndarray:
        """Return where in a level the centres of pixels of the own level are."""
        indices = indices + self.first[axis]
        if level == self.level:
            return indices
        ratio = self.downsamples[self.level] / self.downsamples[level]
        return np.clip(np.floor((indices + 0.5) * ratio).astype(np.int64), 0, self.sizes[level][axis] - 1)

    def _window(self, level, rows, columns) -> np.ndarray:
        width = columns.stop - columns.start
        height = max(1, _STRIP // width)
        found = np.empty((rows.stop - rows.start, width, 3), np.uint8)
        for top in range(rows.start, rows.stop, height):
            bottom = min(top + height, rows.stop)
            found[top - rows.start : bottom - rows.start] = self._strip(level, top, bottom, columns)
        return found

    def _strip(self, level, top, bottom, columns) -> np.ndarray:
        try:
            slide = self._slides.get()
            height, width = self.sizes[level]
            left = _place(slide, columns.start, self.downsamples[level], columns.stop == width)
            upper = _place(slide, top, self.downsamples[level], bottom == height)
            size = (columns.stop - columns.start, bottom - top)
            picture = slide.read_region((left, upper), level, size)
            picture = picture if picture.mode == "RGBA" else picture.convert("RGB")
            return _on_background(np.asarray(picture), self.background)
        except Exception as error:  # Damaged files raise errors of many types, of two libraries.
            self._slides.close()
            raise ValueError(
                f"`path` must be a complete slide. Received: {self.path.name!r}, which can't be decoded in "
                f"rows {top} to {bottom}, columns {columns.start} to {columns.stop} of level {level}: "
                f"{reason(error)}. Copy it again."
            ) from error


def _open(path) -> Any:
    """Open a file with OpenSlide, or else with tiffslide, whose handles have the same methods."""
    openslide = require("openslide", "openslide-python", "slide")
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        said = reason(error)
    tiffslide = require("tiffslide", "tiffslide", "slide")
    file = _OwnFile(path)  # It would take a path for an address, too.
    try:
        slide = tiffslide.TiffSlide(file, tifffile_options={"_multifile": False})
        _ = slide.level_downsamples  # The header is read only now.
        return slide
    except Exception as error:  # It raises errors of many types.
        file.close()
        raise ValueError(
            f"`path` must be a complete slide. Received: {path.name!r}, which can't be opened: {said}. "
            "Check whether the file, and the folder beside it of formats that have one, are complete."
        ) from error


class _OwnFile(io.FileIO):
    """A file that is closed when nothing refers to it, without a warning."""

    def __del__(self) -> None:
        self.close()


def _place(slide, first, downsample, is_last) -> int:
    """Return the pixel of level 0 by which the libraries are asked for a row or column of a level.

    OpenSlide interpolates where it lies between two pixels of the level, and beyond the last one with
    nothing; tiffslide rounds down.
    """
    openslide = require("openslide", "openslide-python", "slide")
    if isinstance(slide, openslide.OpenSlide):
        return math.floor(first * downsample) if is_last else round(first * downsample)
    place = math.ceil(first * downsample)
    return place if int(place / downsample) == first else place + 1


def _on_background(picture, background) -> np.ndarray:
    """Return RGB of RGBA, not multiplied by alpha, laid over a colour."""
    if picture.shape[-1] == 3:
        return picture
    colours, alpha = picture[..., :3], picture[..., 3:]
    if alpha.min() == 255:
        return colours
    share = alpha.astype(np.float32) / 255
    return np.rint(colours * share + np.float32(background) * (1 - share)).astype(np.uint8)


def _background(properties) -> tuple[int, int, int]:
    """Return the colour of what was not scanned, which the file names in six hexadecimal digits."""
    try:
        red, green, blue = bytes.fromhex(properties.get("openslide.background-color") or "FFFFFF")
    except ValueError:
        return _WHITE
    return red, green, blue


def _pixel_size(properties) -> tuple[float, float] | None:
    """Return width and height of a pixel of level 0, in micrometres, if the file tells both."""
    sizes = []
    for axis in "xy":
        told = properties.get(f"openslide.mpp-{axis}") or properties.get(f"tiffslide.mpp-{axis}")
        try:
            size = float(told)
        except (TypeError, ValueError):
            return None
        if not (size > 0 and math.isfinite(size)):
            return None
        sizes.append(size)
    return sizes[0], sizes[1]


def _chosen_level(path, level, mpp, downsamples, pixel_size) -> int:
    if level is not None and mpp is not None:
        raise ValueError(f"Give `level` or `mpp`, not both. Received: level={level!r}, mpp={mpp!r}")
    if mpp is not None:
        if pixel_size is None:
            raise ValueError(
                f"`mpp` must be None for {path.name!r}, which doesn't say how large its pixels are. "
                f"Received: mpp={mpp!r}. Give `level`, from 0 to {len(downsamples) - 1}."
            )
        numbers = array_or_empty(mpp)
        if numbers.ndim or numbers.dtype.kind not in "iuf" or not (numbers > 0 and np.isfinite(numbers)):
            raise ValueError(f"`mpp` must be a number above 0. Received: mpp={mpp!r:.80}")
        finest = math.sqrt(pixel_size[0] * pixel_size[1])
        fitting = [at for at, each in enumerate(downsamples) if each * finest <= float(mpp) * _TOLERANCE]
        if not fitting:
            raise ValueError(
                f"`mpp` must be at least {finest:.4g}, that of the finest level. Received: mpp={mpp!r}"
            )
        return max(fitting)
    if level is None:
        return 0
    if not is_whole(level) or not 0 <= level < len(downsamples):
        raise ValueError(f"`level` must be from 0 to {len(downsamples) - 1}. Received: level={level!r:.80}")
    return int(level)


def _in_level(region, whole, size, downsample) -> tuple[range, range]:
    """Return the rows and columns of a level that cover a region."""
    height, width = whole
    if region is None:
        return range(size[0]), range(size[1])
    numbers = array_or_empty(region)
    is_place = numbers.shape == (4,) and numbers.dtype.kind in "iu"
    left, top, wide, high = (int(each) for each in numbers) if is_place else (0, 0, 0, 0)
    if not (wide > 0 and high > 0 and 0 <= left <= width - wide and 0 <= top <= height - high):
        raise ValueError(
            "`region` must be (left, top, width, height), whole pixels of level 0 inside the slide of "
            f"{width} x {height}. Received: region={region!r:.80}"
        )
    ranges = [
        range(
            min(math.floor(start / downsample), limit - 1),
            min(math.ceil((start + length) / downsample), limit),
        )
        for start, length, limit in ((top, high, size[0]), (left, wide, size[1]))
    ]
    return ranges[0], ranges[1]


def _step(indices) -> float:
    return (indices[-1] - indices[0]) / (len(indices) - 1) if len(indices) > 1 else 1

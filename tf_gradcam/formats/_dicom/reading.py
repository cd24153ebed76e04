"""Read DICOM: a file, or the folder of a series, to a `Scan`. `formats.read` calls it."""

import pathlib
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam._checks import is_whole
from tf_gradcam.formats._dicom.datasets import (
    Plane,
    UnreadableError,
    decode,
    planes_of,
    quiet,
    read_header,
    unreadable,
)
from tf_gradcam.formats._dicom.geometry import Geometry, geometry_of
from tf_gradcam.formats._dicom.series import planes_of_folder
from tf_gradcam.formats._dicom.tones import Tones, tones_of
from tf_gradcam.formats._dicom.values import (
    Modality,
    has_inverse_shape,
    is_padding,
    kind_of,
    modality_of,
    palette_colours,
)
from tf_gradcam.formats._scan import Scan


class Source(NamedTuple):
    """What a DICOM `Scan.header` is: the images, in the order of the first axis of the scan.

    Attributes:
        planes: each image, with the attributes of its file and the number of its frame.
    """

    planes: tuple[Plane, ...]


class _Pixels(NamedTuple):
    values: np.ndarray
    valid: np.ndarray | None
    tones: Tones


def read_dicom(
    path: pathlib.Path,
    *,
    series: int | str | None = None,
    frame: int | None = None,
    invert_monochrome1: bool = True,
) -> Scan:
    """Read a DICOM file, or the series in a folder.

    Grey values are those of the modality, such as Hounsfield units: rescaled by the file's slope and
    intercept or lookup table, whole numbers as whole numbers wide enough, others as float64. Colours are
    RGB, whatever the file stores. A series, and frames with a place in the patient, form a volume that is
    sorted by position along the normal of its images.

    Args:
        path: the file or folder.
        series: of a folder with several series, the SeriesNumber or SeriesInstanceUID of one.
        frame: of a file with several frames, the number of one, from 0 in the order of the file; it is read
            alone. With `None` all.
        invert_monochrome1: what becomes of MONOCHROME1, where a low stored value is bright, as in many
            radiographs. True mirrors the values within the range of their stored bits, so that high is
            bright, as SimpleITK does; False leaves them, for models that were trained on the negative.
            Pictures are the same.

    Returns:
        A `Scan`: `"yx"` of one image, `"zyx"` of a volume, `"tyx"` of a video, with an affine in LPS
        millimetres where the file says where it was taken.

    Raises:
        ImportError: if pydicom or the decoder of a compressed file is not installed.
        TypeError: if an option is not of its type.
        ValueError: if it is no DICOM image, truncated, damaged or encrypted; if a folder has no series or
            several; if images form no volume; if there is no such frame.
    """
    _check_options(path, series, frame, invert_monochrome1)
    try:
        with quiet():
            return _read(path, series, frame, invert_monochrome1)
    except (UnreadableError, ImportError, OSError, MemoryError):
        raise
    except Exception:  # Damaged attributes raise errors of many types, which may cite values.
        raise unreadable(path, "a DICOM file in order", "whose attributes are damaged.") from None


def _read(path, series, frame, invert_monochrome1) -> Scan:
    """Return what `read_dicom` does; its errors may be of any type."""
    planes = planes_of_folder(path, series) if path.is_dir() else planes_of(path, read_header(path))
    planes = _chosen_frame(path, planes, frame)
    geometry = geometry_of(path, planes)
    _check_has_geometry(path, planes, geometry)
    planes = [planes[number] for number in geometry.order]
    kind = kind_of(planes[0])
    is_inverted = planes[0].dataset.PhotometricInterpretation == "MONOCHROME1"
    pixels = _read_pixels(planes, kind, is_inverted and invert_monochrome1)
    single = geometry.axes == "yx"
    return Scan(
        values=pixels.values[0] if single else pixels.values,
        axes=geometry.axes,
        format="DICOM",
        path=path,
        affine=geometry.affine,
        space=geometry.space,
        times=geometry.times,
        valid=pixels.valid[0] if single and pixels.valid is not None else pixels.valid,
        bands=("red", "green", "blue") if pixels.values.shape[-1] == 3 else (),
        limits=pixels.tones.limits,
        windows=pixels.tones.windows,
        tones=pixels.tones.tones,
        negative=_is_negative(planes[0], is_inverted, invert_monochrome1),
        fill=None,
        header=Source(tuple(planes)),
    )


def _check_options(path, series, frame, invert_monochrome1) -> None:
    if series is not None and not (is_whole(series) or isinstance(series, str)):
        raise TypeError(
            f"`series` must be a SeriesNumber, a SeriesInstanceUID or None. Received: series={series!r:.80}"
        )
    if series is not None and not path.is_dir():
        raise ValueError(
            f"`series` must be None for a file. Received: series={series!r:.80} for {path.name!r}"
        )
    if frame is not None and not is_whole(frame):
        raise TypeError(f"`frame` must be a whole number or None. Received: frame={frame!r:.80}")
    if not isinstance(invert_monochrome1, bool):
        raise TypeError(f"`invert_monochrome1` must be True or False. Received: {invert_monochrome1!r:.80}")


def _chosen_frame(path, planes, frame) -> list[Plane]:
    """Return the one frame that is asked for, or all."""
    if frame is None:
        return planes
    if len({plane.path for plane in planes}) > 1:
        raise UnreadableError(
            f"`frame` must be None for a series of {len(planes)} files. Received: frame={frame}. "
            "Give one of the files."
        )
    if not 0 <= frame < len(planes):
        raise UnreadableError(
            f"`frame` must be a number from 0 to {len(planes) - 1}. Received: frame={frame} for {path.name!r}"
        )
    return [planes[frame]]


def _check_has_geometry(path, planes, geometry: Geometry) -> None:
    if len(planes) == 1 or geometry.affine is not None:
        return
    if len({plane.path for plane in planes}) > 1:
        raise unreadable(
            path,
            "one volume",
            f"{len(planes)} images without ImagePositionPatient, ImageOrientationPatient and PixelSpacing in "
            "each of them. Read them one by one.",
        )
    if "TotalPixelMatrixColumns" in planes[0].dataset:
        raise unreadable(
            path, "an image", f"a slide in {len(planes)} tiles. Read one of them: frame=0, or use OpenSlide."
        )


def _is_negative(plane, is_inverted, invert_monochrome1) -> bool:
    """Return whether pictures are the negative of the values."""
    if is_inverted:  # MONOCHROME1 and the shape INVERSE say the same.
        return not invert_monochrome1
    return has_inverse_shape(plane)


def _read_pixels(planes, kind, mirrored) -> _Pixels:
    """Return the values of all planes `(n, rows, columns, C)`."""
    if kind in ("colour", "palette"):
        return _read_colours(planes, kind)
    modalities = [modality_of(plane, kind_of(plane)) for plane in planes]
    dtype = np.result_type(*{each.dtype for each in modalities})
    rows, columns = planes[0].dataset.Rows, planes[0].dataset.Columns
    values = np.empty((len(planes), rows, columns, 1), dtype)
    valid = None
    for number, (plane, stored) in enumerate(_stored(planes)):
        modality = modalities[number]
        _check_stored(plane, stored, modality)
        values[number] = modality.values(stored, mirrored)
        padding = is_padding(plane, stored)
        if padding is not None:
            valid = np.ones(values.shape[:-1], bool) if valid is None else valid
            valid[number] = ~padding[..., 0]
    # Windows often differ from slice to slice; those of the middle one are least often of air.
    middle = len(planes) // 2
    tones = tones_of(planes[middle], dtype, modalities[middle].ends if mirrored else None)
    if tones.limits is None and dtype == np.uint8 and kind == "grey":
        tones = tones._replace(limits=(0.0, float(modalities[middle].ends or 255)))
    return _Pixels(values, valid, tones)


def _read_colours(planes, kind) -> _Pixels:
    found = []
    for plane, stored in _stored(planes):
        if kind == "palette":
            found.append(palette_colours(plane, stored))
        elif stored.shape[-1] == 3:
            found.append(stored)
        else:
            raise unreadable(plane.path, "an image of three colours", f"with {stored.shape[-1]}.")
    values = np.stack(found)
    # 8 bits have their own limits, of all others white is what the bits can hold.
    bits = 16 if kind == "palette" else planes[0].dataset.BitsStored
    limits = None if values.dtype == np.uint8 and bits in (8, 16) else (0.0, 2.0**bits - 1)
    return _Pixels(values, None, Tones(limits, (), ()))


def _stored(planes) -> Any:
    """Yield each plane with its stored pixels `(rows, columns, samples)`; a file is decoded once."""
    decoded: tuple[Any, np.ndarray] | None = None
    frames = {plane.frame for plane in planes}
    single = planes[0].frame if len(planes) == 1 and len(frames) == 1 else None
    for plane in planes:
        if decoded is None or decoded[0] != plane.path:
            is_alone = single is not None and int(plane.dataset.get("NumberOfFrames") or 1) > 1
            decoded = plane.path, decode(plane.path, single if is_alone else None)
            offset = plane.frame if is_alone else 0
        yield plane, decoded[1][plane.frame - offset]


def _check_stored(plane, stored, modality: Modality) -> None:
    """Raise a `ValueError` if a decoder answers numbers that the stored bits can't hold."""
    if modality.stored is None:
        return
    low, high = modality.stored
    limits = np.iinfo(stored.dtype) if stored.dtype.kind in "iu" else None
    if limits is not None and low <= limits.min and limits.max <= high:
        return
    if stored.dtype.kind not in "iu" or stored.min() < low or stored.max() > high:
        raise unreadable(
            plane.path,
            f"an image of {plane.dataset.BitsStored} bits",
            f"with stored values from {stored.min()} to {stored.max()}: damaged.",
        )

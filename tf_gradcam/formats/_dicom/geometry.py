"""Where and when the planes of a DICOM image are: their order, affine and times. `reading` calls it."""

import pathlib
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam.formats._dicom.datasets import Plane, find, numbers, sequence, unreadable

_FRAME_TIME_VECTOR = 0x00181065
_SAME = 0.1  # of the usual distance: nearer planes are at the same place
_MISSING = 1.5  # of it: between planes that are farther apart one is missing


class Geometry(NamedTuple):
    """How planes form an array.

    Attributes:
        order: for each place along the first axis the number of its plane.
        axes: `"yx"`, `"zyx"` or `"tyx"`.
        affine: as `Scan.affine`, or `None`.
        space: as `Scan.space`.
        times: as `Scan.times`, or `None`.
    """

    order: list[int]
    axes: str
    affine: np.ndarray | None = None
    space: str = ""
    times: np.ndarray | None = None


class _Place(NamedTuple):
    """Where a plane is: in LPS mm its first pixel, and the steps to the next row and to the next column."""

    first: np.ndarray
    down: np.ndarray
    right: np.ndarray

    @property
    def normal(self) -> np.ndarray:
        normal = np.cross(self.right, self.down)
        return normal / np.linalg.norm(normal)


def geometry_of(path: pathlib.Path, planes: list[Plane]) -> Geometry:
    """Return how planes form an image, a volume or a video.

    A volume is sorted by the position along the normal of its planes.

    Args:
        path: the file or folder that they are of, for errors.
        planes: the planes.

    Raises:
        ValueError: if they form none: if planes differ in their direction, are missing, at the same place or
            unevenly spaced.
    """
    if len(planes) == 1:
        return Geometry([0], "yx", *_affine_of_one(planes[0]))
    found = _dose_places(planes) or [_place(plane) for plane in planes]
    places = [place for place in found if place is not None]
    if len(places) < len(planes):
        return _without_places(planes)
    _check_directions(planes, places)
    first = np.array([place.first for place in places])
    along = first @ places[0].normal
    if np.ptp(along) < 1e-3 and (_times(planes) is not None or _shares_one_place(planes)):
        return _without_places(planes)
    order = np.argsort(along, kind="stable")
    _check_distances(path, along[order])
    step = (first[order[-1]] - first[order[0]]) / (len(order) - 1)
    _check_line(path, first[order], step)
    start = places[order[0]]
    affine = np.stack([step, start.down, start.right, start.first], axis=1)
    return Geometry(order.tolist(), "zyx", affine, "LPS mm")


def _without_places(planes) -> Geometry:
    """Return the geometry of frames of one file that have no places of their own."""
    order = list(range(len(planes)))
    times = _times(planes)
    if times is None:
        return Geometry(order, "zyx")
    return Geometry(order, "tyx", *_affine_of_one(planes[0]), times)


def _shares_one_place(planes) -> bool:
    """Return whether the frames of one file have no places of their own, but only that of the file."""
    is_one_file = len({plane.path for plane in planes}) == 1
    return is_one_file and sequence(planes[0], "PlanePositionSequence") is None


def _place(plane) -> _Place | None:
    """Return where a plane is, or `None` where the file doesn't say it or says nonsense."""
    first = numbers(plane, "PlanePositionSequence", "ImagePositionPatient", 3)
    directions = numbers(plane, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    spacing = numbers(plane, "PixelMeasuresSequence", "PixelSpacing", 2)
    if first is None or directions is None or spacing is None or min(spacing) <= 0:
        return None
    right, down = np.array(directions[:3]), np.array(directions[3:])
    if not np.allclose([right @ right, down @ down, right @ down], [1, 1, 0], atol=0.01):
        return None
    # Pixel Spacing is the distance of rows, then of columns: PS3.3, section 10.7.1.3.
    return _Place(np.array(first), down * spacing[0], right * spacing[1])


def _affine_of_one(plane) -> tuple[np.ndarray | None, str]:
    place = _place(plane)
    if place is not None:
        return np.stack([place.down, place.right, place.first], axis=1), "LPS mm"
    for name, space in (
        ("PixelSpacing", "mm"),
        ("ImagerPixelSpacing", "mm at the detector"),
        ("NominalScannedPixelSpacing", "mm of the scanned film"),
    ):
        spacing = numbers(plane, "PixelMeasuresSequence", name, 2)
        if spacing is not None and min(spacing) > 0:
            return np.array([[0.0, spacing[1], 0.0], [spacing[0], 0.0, 0.0]]), space
    return None, ""


def _dose_places(planes) -> list[_Place | None] | None:
    """Return the places of the planes of an RT Dose: PS3.3, section C.8.8.3.2; `None` of other files."""
    offsets = numbers(planes[0], "", "GridFrameOffsetVector")
    start = _place(planes[0]) if offsets is not None else None
    if offsets is None or start is None or len({id(plane.dataset) for plane in planes}) > 1:
        return None
    if len(offsets) <= max(plane.frame for plane in planes):
        raise unreadable(planes[0].path, "a dose in order", "whose GridFrameOffsetVector is too short.")
    places: list[_Place | None] = []
    for plane in planes:
        offset = offsets[plane.frame]
        # Offsets that don't start from 0 are the z of the planes themselves.
        shift = offset - (0.0 if offsets[0] == 0 else start.first[2])
        places.append(start._replace(first=start.first + shift * start.normal))
    return places


def _check_directions(planes, places) -> None:
    for plane, place in zip(planes, places, strict=True):
        if not np.allclose(place[1:], places[0][1:], rtol=0, atol=0.01 * np.abs(places[0][1:]).max()):
            raise unreadable(
                plane.path,
                "one volume",
                "whose images differ in ImageOrientationPatient or PixelSpacing. "
                "Read one of them: give its file, or frame=0 of a file with several.",
            )


def _check_distances(path, along) -> None:
    distances = np.diff(along)
    usual = float(np.median(distances))
    same = int((distances <= _SAME * usual).sum()) if usual > 1e-3 else int((distances <= 1e-3).sum())
    if same:
        raise unreadable(
            path,
            "one volume",
            f"with {len(along)} images, {same} of which are at the place of another: several times, echoes "
            "or copies. Put the files of one volume in a folder of their own, or read one frame: frame=0.",
        )
    wide = np.flatnonzero(distances > _MISSING * usual)
    if len(wide):
        at = wide[0]
        raise unreadable(
            path,
            "a volume without gaps",
            f"whose images are {usual:.4g} mm apart, but {len(wide)} of them {distances[at]:.4g} mm, "
            f"from {along[at]:.6g} to {along[at + 1]:.6g} mm along its normal: images are missing.",
        )


def _check_line(path, first, step) -> None:
    """Raise a `ValueError` unless the planes lie on a line, at equal distances."""
    length = float(np.linalg.norm(step))
    # Positions are often rounded to 0.1 mm.
    tolerance = min(max(0.03 * length, 0.06), 0.2 * length)
    away = np.linalg.norm(first - (first[0] + np.arange(len(first))[:, None] * step), axis=1)
    if away.max() > tolerance:
        raise unreadable(
            path,
            "a volume of evenly spaced images",
            f"whose images are up to {away.max():.3g} mm away from even places, {length:.4g} mm apart.",
        )


def _times(planes) -> np.ndarray | None:
    """Return when each frame is shown, in seconds from the file's first; `None` if it is not said."""
    plane = planes[0]
    frames = np.array([each.frame for each in planes])
    vector = numbers(plane, "", "FrameTimeVector")
    interval = numbers(plane, "", "FrameTime", 1)
    if vector is not None and (interval is None or _points_to_vector(plane)):
        if len(vector) <= frames.max():
            raise unreadable(plane.path, "a video in order", "whose FrameTimeVector is too short.")
        total = np.cumsum(vector)  # The first frame is shown at once, whatever its increment says.
        return (total[frames] - total[0]) / 1000
    if interval is not None and interval[0] > 0:
        return frames * interval[0] / 1000
    for name in ("RecommendedDisplayFrameRate", "CineRate"):
        rate = numbers(plane, "", name, 1)
        if rate is not None and rate[0] > 0:
            return frames / rate[0]
    return None


def _points_to_vector(plane) -> bool:
    pointer: Any = find(plane, "", "FrameIncrementPointer")
    pointers = pointer if isinstance(pointer, list | tuple) or hasattr(pointer, "append") else [pointer]
    return _FRAME_TIME_VECTOR in pointers

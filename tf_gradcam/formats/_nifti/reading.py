"""Read and write NIfTI and MGH volumes: `read_nifti`, `write_nifti`. `_catalogue` names them."""

import math
import pathlib
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam._files import unfinished
from tf_gradcam.formats._nifti.files import Stored, check_memory, nibabel, read_numbers, read_stored, refused
from tf_gradcam.formats._scan import Scan
from tf_gradcam.formats._writing import About

_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}
_COLOURS = ("red", "green", "blue", "alpha")
_CHUNK = 2**22  # values that are scaled at once
_TO_RAS = {"RAS mm": (1.0, 1.0, 1.0), "LPS mm": (-1.0, -1.0, 1.0), "mm": (1.0, 1.0, 1.0)}
_FLAT = 1e-6  # the volume that three directions of length 1 span, if they are in one plane
_LARGEST = 32767  # cells along an axis of NIfTI-1


class NiftiHeader(NamedTuple):
    """What `write_nifti` needs of the file that was read.

    Attributes:
        header: nibabel's header.
        shape: the lengths of its three axes.
        turn: nibabel's orientation array `(3, 2)`, from its axes to those of the scan, `x`, `y`, `z`.
        dropped: which axis of the scan, `z`, `y` or `x`, was dropped because its length is 1; or `""`.
    """

    header: Any
    shape: tuple[int, ...]
    turn: np.ndarray
    dropped: str


class _Place(NamedTuple):
    """Where the voxels of a file are: `matrix` leads from its indices to `space`."""

    matrix: np.ndarray | None
    space: str


def read_nifti(path: pathlib.Path, orientation: str = "stored", channels: bool = False) -> Scan:
    """Read a NIfTI-1 or NIfTI-2 file, a pair of `.hdr` and `.img`, or an MGH file.

    Args:
        path: `.nii`, `.nii.gz`, `.hdr`, `.mgh` or `.mgz`.
        orientation: `"stored"` for the file's own order of voxels, or three letters of `"RL"`, `"AP"` and
            `"SI"`, such as `"RAS"`: where x, y and z of the scan lead to. The volume is turned by quarter
            turns and mirrored, never resampled.
        channels: whether the fourth axis holds channels, such as the sequences of an MRI, and not time.

    Returns:
        A `Scan` of axes `"zyx"`, or `"tzyx"` with time; `z`, `y` and `x` are the third, second and first
        axis of the file. An axis of one voxel is dropped: a single slice is `"yx"`.

    Raises:
        ValueError: if the file is damaged, too large or no image, or if it can't be turned.
    """
    stored = read_stored(path)
    lengths = _five(path, stored)
    place = _place(path, stored)
    turn = _turn(path, place, orientation)
    numbers, after = read_numbers(path, stored, _stored_shape(stored, lengths))
    numbers = _scaled(path, numbers, stored)
    if stored.dtype.names:
        numbers = np.moveaxis(numbers, 0, -1)
    volume = nibabel().orientations.apply_orientation(numbers, turn).transpose(3, 2, 1, 0, 4)
    single = [axis for axis, length in zip("zyx", volume.shape[1:4], strict=True) if length == 1]
    if len(single) > 1:
        raise refused(path, f"it is no image: its axes have the lengths {stored.shape}.")
    times = _times(stored, lengths[3], after)
    if channels:
        volume, times = _time_as_channels(path, volume), None
    for axis in single:
        volume = volume.squeeze("tzyx".index(axis))
    spatial = "zyx" if not single else "yx"
    axes = spatial if channels or lengths[3] == 1 else "t" + spatial
    values = volume if "t" in axes else volume[0]
    dropped = "".join(single)
    return Scan(
        values=values,
        axes=axes,
        format="NIfTI",
        path=path,
        affine=_affine(place, turn, lengths[:3], dropped),
        space=place.space,
        times=times if "t" in axes else None,
        valid=_measured(values),
        bands=_COLOURS[: values.shape[-1]] if stored.dtype.names else (),
        limits=_limits(stored.header),
        header=NiftiHeader(stored.header, lengths[:3], turn, dropped),
    )


def _five(path, stored) -> tuple[int, ...]:
    """Return the lengths of x, y, z, time and channels."""
    lengths = (*stored.shape, 1, 1, 1, 1)[: max(5, len(stored.shape))]
    is_coloured = stored.dtype.names is not None
    if math.prod(lengths[5:]) > 1 or (is_coloured and lengths[4] > 1):
        raise refused(path, f"it must have up to five axes: x, y, z, time, channels; it has {stored.shape}.")
    return (*lengths[:4], len(stored.dtype.names or ()) or lengths[4])


def _stored_shape(stored, lengths) -> tuple[int, ...]:
    """Return the order in which the numbers lie: the colours of a voxel come first, other channels last."""
    return (lengths[4], *lengths[:4]) if stored.dtype.names else lengths


def _place(path, stored: Stored) -> _Place:
    """Return where the voxels are, by sform, else by qform; only how far apart, if the file has neither."""
    header = stored.header
    try:
        has_place = stored.is_mgh or (
            stored.has_forms and (header["sform_code"] > 0 or header["qform_code"] > 0)
        )
        zooms = np.ones(3)
        given = header.get_zooms()[:3]
        zooms[: len(given)] = given
        matrix = np.float64(header.get_best_affine()) if has_place else np.diag([*np.abs(zooms), 1.0])
        if stored.has_forms:
            matrix[:3] *= _MILLIMETRES[header.get_xyzt_units()[0]]
    except Exception as error:  # such as a unit or a quaternion that doesn't exist
        raise refused(path, f"its geometry is damaged: {error}.") from error
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if not np.isfinite(matrix).all() or lengths.min() == 0:
        return _Place(None, "")
    if abs(np.linalg.det(matrix[:3, :3] / lengths)) < _FLAT:
        return _Place(None, "")
    return _Place(matrix, "RAS mm" if has_place else "mm")


def _turn(path, place, orientation) -> np.ndarray:
    """Return nibabel's orientation array, from the axes of the file to those that are asked for."""
    stored = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    if orientation == "stored":
        return stored
    letters = set(orientation) if isinstance(orientation, str) and len(orientation) == 3 else set()
    if [len(letters & set(pair)) for pair in ("RL", "AP", "SI")] != [1, 1, 1]:
        raise ValueError(
            '`orientation` must be "stored" or three letters, one each of "RL", "AP" and "SI", such as '
            f'"RAS". Received: orientation={orientation!r:.80}'
        )
    if place.space != "RAS mm":
        raise ValueError(
            '`orientation` must be "stored" for a file that doesn\'t say how it lies in the patient. '
            f"Received: orientation={orientation!r}, and {path.name!r} without a valid sform or qform."
        )
    tools = nibabel().orientations
    return tools.ornt_transform(tools.io_orientation(place.matrix), tools.axcodes2ornt(orientation))


def _scaled(path, numbers, stored: Stored) -> np.ndarray:
    """Return `slope * number + inter`, in float32 where all levels stay apart, else in float64."""
    slope = 1.0 if stored.slope is None else float(stored.slope)
    inter = 0.0 if stored.inter is None else float(stored.inter)
    is_scaled = not stored.dtype.names and (slope, inter) != (1.0, 0.0)
    if not is_scaled and numbers.dtype.itemsize <= 8:
        return numbers
    dtype = np.dtype(np.float32 if _stay_apart(numbers.dtype, slope, inter) else np.float64)
    check_memory(path, numbers.size * dtype.itemsize)
    scaled = np.empty(numbers.size, dtype)
    flat = numbers.reshape(-1, order="F")
    for first in range(0, len(flat), _CHUNK):
        part = slice(first, first + _CHUNK)
        scaled[part] = flat[part].astype(np.float64) * slope + inter
    return scaled.reshape(numbers.shape, order="F")


def _stay_apart(dtype, slope, inter) -> bool:
    """Return whether float32 keeps every two levels of integers apart: of 8 or 16 bits all are tried."""
    if dtype.kind not in "iu" or dtype.itemsize > 2:
        return False
    limits = np.iinfo(dtype)
    levels = np.arange(limits.min, limits.max + 1) * slope + inter
    with np.errstate(over="ignore"):
        levels = levels.astype(np.float32)
    return bool(np.isfinite(levels).all() and np.diff(levels).all())


def _time_as_channels(path, volume) -> np.ndarray:
    if volume.shape[-1] > 1:
        raise ValueError(
            f"`channels` must be False for a file with channels of its own. Received: channels=True, and "
            f"{path.name!r} with {volume.shape[-1]} channels."
        )
    return np.moveaxis(volume, 0, -1)[..., 0, :][None]


def _times(stored, count, after) -> np.ndarray | None:
    """Return when each frame was taken, in seconds; `None` if the header gives no interval of time."""
    if stored.is_mgh:  # The repetition time is behind the values, in milliseconds.
        first, step = 0.0, float(np.frombuffer(after[:4].ljust(4, b"\0"), ">f4")[0])
        second = 1e-3
    elif stored.has_forms and len(stored.shape) > 3:
        second = _SECONDS.get(stored.header.get_xyzt_units()[1], math.nan)
        first, step = float(stored.header["toffset"]), float(stored.header.get_zooms()[3])
    else:
        return None
    times = (first + step * np.arange(count)) * second
    return times if step > 0 and np.isfinite(times).all() else None


def _affine(place, turn, shape, dropped) -> np.ndarray | None:
    """Return the affine of a scan: its columns in the order of its axes, without the dropped one."""
    if place.matrix is None:
        return None
    matrix = place.matrix @ nibabel().orientations.inv_ornt_aff(turn, shape)
    columns = [column for column in (2, 1, 0, 3) if "xyz1"[column] != dropped]
    return matrix[:3, columns]


def _measured(values) -> np.ndarray | None:
    """Return where no channel is NaN, which marks what lies outside a mask; `None` if it is everywhere."""
    if values.dtype.kind != "f":
        return None
    missing = np.isnan(values).any(axis=-1)
    return ~missing if missing.any() else None


def _limits(header) -> tuple[float, float] | None:
    if "cal_max" not in header:
        return None
    low, high = float(header["cal_min"]), float(header["cal_max"])
    return (low, high) if math.isfinite(low) and math.isfinite(high) and low < high else None


def write_nifti(path: pathlib.Path, scan: Scan, heatmap: np.ndarray, about: About) -> None:
    """Write a heatmap as float32 where its scan lies, on the heatmap's own grid.

    The file has the order of axes, the unit, and the codes of sform and qform of the scan's own file; of a
    DICOM scan it has scanner coordinates. Nothing else of the scan's header is in it, so no name either.

    Args:
        path: `.nii`, `.nii.gz`, `.mgh` or `.mgz`.
        scan: a scan with a place in space, of any format.
        heatmap: float32 `(*grid)`, one axis for each of the scan's.
        about: what the file says of it.

    Raises:
        ValueError: if the scan has no place in millimetres, or if the ending is that of a pair.
    """
    if path.suffix.lower() == ".hdr":
        raise ValueError(f"`path` must end in .nii, .nii.gz, .mgh or .mgz. Received: {path.name!r}")
    source = scan.header if isinstance(scan.header, NiftiHeader) else _foreign(scan)
    volume = _stored_order(heatmap, scan, source)
    cells = _cells(source.shape, volume.shape[:3])
    is_mgh = path.suffix.lower() in (".mgh", ".mgz")
    image = _mgh(scan, volume, source, cells) if is_mgh else _nifti(scan, volume, source, cells, about)
    with unfinished(path) as temporary:
        image.to_filename(temporary)


def _foreign(scan) -> NiftiHeader:
    """Return a header for a scan of another format, in RAS and millimetres."""
    if scan.affine is None or scan.space not in _TO_RAS or len(scan.affine) != 3:
        where = f"in {scan.space!r}" if scan.affine is not None else "without a geometry"
        raise ValueError(
            f"`scan` must have a place in millimetres for NIfTI, as DICOM and NIfTI files give it. "
            f"Received: {scan.path.name!r}, {where}. Write a .npy file, or the scan's own format."
        )
    columns = np.array(_TO_RAS[scan.space])[:, None] * scan.affine
    is_flat = columns.shape[1] == 3
    if is_flat:  # One slice: its neighbour would be 1 mm away, as its thickness isn't known here.
        normal = np.cross(columns[:, 1], columns[:, 0])
        columns = np.column_stack([normal / np.linalg.norm(normal), columns])
    header = nibabel().Nifti1Header()
    matrix = np.eye(4)
    matrix[:3] = columns[:, [2, 1, 0, 3]]
    code = 0 if scan.space == "mm" else 1
    lengths = [length for length, axis in zip(scan.shape, scan.axes, strict=False) if axis != "t"]
    shape = (*lengths[::-1], 1) if is_flat else tuple(lengths[::-1])
    header.set_data_shape(shape)
    directions = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    is_sheared = not np.allclose(directions.T @ directions, np.eye(3), atol=1e-4)
    header.set_qform(matrix, 0 if is_sheared else code)  # which can't hold a tilted gantry
    header.set_sform(matrix, code)
    header.set_xyzt_units("mm", "sec")
    return NiftiHeader(header, shape, np.array([[0.0, 1], [1, 1], [2, 1]]), "z" if is_flat else "")


def _stored_order(heatmap, scan, source) -> np.ndarray:
    """Return a heatmap in the order of the file's own axes: x, y, z, and time if it has it."""
    volume = heatmap if "t" in scan.axes else heatmap[None]
    if source.dropped:
        volume = np.expand_dims(volume, "tzyx".index(source.dropped))
    back = np.empty((3, 2))
    for axis, (turned, flip) in enumerate(source.turn):
        back[int(turned)] = axis, flip
    volume = nibabel().orientations.apply_orientation(volume.transpose(3, 2, 1, 0), back)
    return volume if "t" in scan.axes else volume[..., 0]


def _cells(shape, grid) -> np.ndarray:
    """Return the matrix from indices of a grid to those of the volume that it covers, edge to edge."""
    ratios = np.array(shape, np.float64) / grid
    matrix = np.diag([*ratios, 1.0])
    matrix[:3, 3] = (ratios - 1) / 2  # Cell 0 has its centre there.
    return matrix


def _nifti(scan, volume, source, cells, about) -> Any:
    """Return nibabel's image of a heatmap, with a header of its own."""
    library, old = nibabel(), source.header
    has_forms = "sform_code" in old
    is_large = max(volume.shape) > _LARGEST or isinstance(old, library.Nifti2Header)
    kind = library.Nifti2Image if is_large else library.Nifti1Image
    header = kind.header_class()
    header.set_data_dtype(np.float32)
    header.set_data_shape(volume.shape)
    unit, clock = old.get_xyzt_units() if has_forms else ("mm", "sec")
    header.set_xyzt_units(unit, clock if "t" in scan.axes else "unknown")
    zooms = np.abs(old.get_zooms()[:3]).tolist()
    zooms = np.array(zooms + [1.0] * (3 - len(zooms))) * np.diag(cells)[:3]
    header.set_zooms(zooms if volume.ndim == 3 else (*zooms, 1.0))
    if scan.times is not None and volume.ndim == 4:
        step, header["toffset"] = _clock(scan, volume, _SECONDS[clock])
        header.set_zooms((*zooms, step))
    if has_forms:
        if old["qform_code"] > 0:
            header.set_qform(old.get_qform() @ cells, int(old["qform_code"]))
        header.set_sform(old.get_sform() @ cells, int(old["sform_code"]))
    elif scan.space == "RAS mm":  # MGH, in the coordinates of the scanner
        header.set_qform(old.get_best_affine() @ cells, 1)
        header.set_sform(old.get_best_affine() @ cells, 1)
    header["cal_min"], header["cal_max"] = _shown(volume)
    header["descrip"] = _cut(_description(about), 79)
    header["intent_name"] = _cut(about.method, 15)
    return kind(volume, None, header)


def _mgh(scan, volume, source, cells) -> Any:
    """Return nibabel's MGH image of a heatmap."""
    if scan.space == "mm" or scan.affine is None:
        raise ValueError(
            "`path` must end in .nii or .nii.gz for a scan that doesn't say how it lies in the patient. "
            f"Received: {scan.path.name!r}, whose heatmap has no place in an MGH file."
        )
    old = source.header
    scale = _MILLIMETRES[old.get_xyzt_units()[0]] if "xyzt_units" in old else 1.0
    matrix = old.get_best_affine() @ cells
    matrix[:3] *= scale
    image = nibabel().MGHImage(volume, matrix)
    if volume.ndim == 4 and scan.times is not None:
        image.header["tr"] = _clock(scan, volume, 1e-3)[0]
    return image


def _clock(scan, volume, second) -> tuple[float, float]:
    """Return the interval of a heatmap's frames and the time of the first, in units of `second`."""
    step = float(scan.times[-1] - scan.times[0]) / max(len(scan.times) - 1, 1)
    ratio = len(scan.times) / volume.shape[3]
    return step * ratio / second, (float(scan.times[0]) + step * (ratio - 1) / 2) / second


def _shown(volume) -> tuple[float, float]:
    """Return what viewers show as black and white: `[0, 1]`, or a range around 0 for a signed map."""
    low, high = float(volume.min()), float(volume.max())
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    most = max(abs(low), abs(high))
    return (0.0 if low >= 0 else -most), most


def _description(about) -> str:
    what = f"{about.method} heatmap"
    return f"{what} of {about.label}" if about.label else what


def _cut(text, length) -> bytes:
    """Return text as at most so many bytes of UTF-8, cut between characters."""
    return text.encode()[:length].decode(errors="ignore").encode()

"""Read and write arrays of NumPy and MATLAB: `read_numpy`, `write_numpy`, `read_matlab`.

`_catalogue` names them.
"""

import math
import pathlib
import zipfile
import zlib
from typing import Any

import numpy as np

from tf_gradcam._files import unfinished
from tf_gradcam.formats._arrays.axes import check_bytes, chosen_name, make_scan, not_an_image
from tf_gradcam.formats._arrays.chunked import read_matlab_hdf5
from tf_gradcam.formats._arrays.matlab import matlab_variables, read_variable
from tf_gradcam.formats._scan import Scan, scaled_affine
from tf_gradcam.formats._writing import About

_SPLIT = "Save it as a .npy file, which is not read into memory."
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MATLAB_BLOCK = 512  # bytes before the HDF5 file in a .mat file of version 7.3


def read_numpy(path: pathlib.Path, name: str | None = None, axes: str | None = None) -> Scan:
    """Read an array of a `.npy` or `.npz` file; that of a `.npy` file is memory-mapped.

    Args:
        path: the file.
        name: of a `.npz` file the name of the array; with `None` the first that may be an image.
        axes: a letter for each axis of the array, such as `"cyx"` or `"tyxc"`: `"t"`, `"z"`, `"y"`, `"x"`,
            and `"c"` for channels. With `None`, two axes are rows and columns; of more the last one is
            channels if it has at most 32 indices, and what is before are `"yx"`, `"zyx"` or `"tzyx"`.

    Returns:
        A `Scan` without a place.

    Raises:
        ValueError: if the file is damaged, if it holds Python objects or what is no image, or if `axes`
            doesn't fit.
    """
    if path.suffix.lower() == ".npz":
        return make_scan(path, "NumPy", _from_npz(path, name), axes)
    if name is not None:
        raise ValueError(f"`name` must be None for a .npy file, which has one array. Received: {name=!r:.80}")
    try:
        values = np.lib.format.open_memmap(path, mode="r")
    except PermissionError:
        raise
    except Exception as error:  # A damaged header raises errors of many types.
        raise _refused(path, error) from error
    return make_scan(path, "NumPy", values, axes)


def _from_npz(path, name) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive:
            headers = {
                member.removesuffix(".npy"): _member_header(archive, member)
                for member in archive.namelist()
                if member.endswith(".npy")
            }
    except PermissionError:
        raise
    except Exception as error:  # A damaged archive raises errors of many types.
        raise _refused(path, error) from error
    chosen = chosen_name({each: not_an_image(*header) for each, header in headers.items()}, name, path)
    shape, dtype = headers[chosen]
    check_bytes(path.name, math.prod(shape) * dtype.itemsize, _SPLIT)
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{chosen}.npy") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:
        raise _refused(path, error) from error


def _member_header(archive, member) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and dtype of an array in an archive, which must be as long as both say."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
        size, announced = math.prod(shape) * dtype.itemsize, archive.getinfo(member).file_size
        if not dtype.hasobject and size + file.tell() > announced:
            raise ValueError(f"{member!r} announces {size:,} bytes of values and has {announced:,}")
    return shape, dtype


def write_numpy(path: pathlib.Path, scan: Scan, heatmap: np.ndarray, about: About) -> None:
    """Write a heatmap as a float32 array.

    A `.npy` file holds nothing else. A `.npz` file holds `heatmap`, `axes`, `method`, `label` and `model`,
    and, of a scan with a place, `affine` of the heatmap's own grid and `space`.

    Args:
        path: `.npy` or `.npz`.
        scan: any scan.
        heatmap: float32 `(*grid)`.
        about: what a `.npz` file says of it.
    """
    arrays: dict[str, Any] = {"heatmap": heatmap, "axes": scan.axes, **about._asdict()}
    if scan.affine is not None:
        spatial = [cells for cells, axis in zip(heatmap.shape, scan.axes, strict=True) if axis != "t"]
        arrays |= {"affine": scaled_affine(scan, tuple(spatial)), "space": scan.space}
    with unfinished(path) as temporary, open(temporary, "xb") as file:
        if path.suffix.lower() == ".npz":
            np.savez_compressed(file, **arrays)
        else:
            np.save(file, heatmap, allow_pickle=False)


def read_matlab(path: pathlib.Path, name: str | None = None, axes: str | None = None) -> Scan:
    """Read an array of a MATLAB file, of version 5 to 7.3; of version 7.3 what is sliced is read.

    Args:
        path: the file.
        name: the name of the array; with `None` the first that may be an image.
        axes: a letter for each axis of the array, in MATLAB's order, such as `"yxz"` or `"yxct"`. With
            `None` as for a `.npy` file, but volumes are `"yxz"` and `"yxzt"`, as MATLAB has slices last.

    Returns:
        A `Scan` without a place.

    Raises:
        ValueError: if the file is damaged or holds no such array, or if `axes` doesn't fit.
    """
    if not path.is_file():
        raise _refused(path, "it is not a file")
    with open(path, "rb") as file:
        start = file.read(_MATLAB_BLOCK + len(_HDF5))
    if _HDF5 in (start[: len(_HDF5)], start[_MATLAB_BLOCK:]):
        return make_scan(path, "MATLAB", read_matlab_hdf5(path, name), axes, "yxz")
    try:
        variables = matlab_variables(path)
    except (ValueError, zlib.error) as error:
        raise _refused(path, error) from error
    chosen = chosen_name({each: _matlab_reason(found) for each, found in variables.items()}, name, path)
    found = variables[chosen]
    check_bytes(path.name, math.prod(found.shape) * found.dtype.itemsize, _SPLIT)
    try:
        values = read_variable(path, found)
    except (ValueError, zlib.error) as error:
        raise _refused(path, error) from error
    return make_scan(path, "MATLAB", values, axes, "yxz")


def _matlab_reason(variable) -> str:
    """Return why a variable of MATLAB is no image, or `""`."""
    if variable.dtype == object:
        return f"with values of MATLAB's class {variable.kind}"
    if 1 in variable.shape and len(variable.shape) == 2:
        return f"with an array of shape {variable.shape}"  # MATLAB's scalars and vectors have two axes
    return not_an_image(variable.shape, variable.dtype)


def _refused(path, why) -> ValueError:
    kind = "MATLAB" if path.suffix.lower() == ".mat" else "NumPy"
    return ValueError(
        f"`path` must be a complete {kind} file of arrays, without Python objects. Received: {path.name!r}: "
        f"{' '.join(str(why).split()):.300}"
    )

"""Read arrays of HDF5 and Zarr, lazily: `read_hdf5`, `read_zarr`, `read_matlab_hdf5`.

`_catalogue` names the first two, `numpy_files` calls the last.
"""

import math
import pathlib
import warnings
from typing import Any

import numpy as np

from tf_gradcam._optional import require
from tf_gradcam.formats._arrays.axes import check_bytes, chosen_name, make_scan, not_an_image
from tf_gradcam.formats._scan import Scan

_MATLAB_NUMBERS = {"single", "double", "logical"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}


def read_hdf5(path: pathlib.Path, name: str | None = None, axes: str | None = None) -> Scan:
    """Read a dataset of an HDF5 file; what is sliced is read.

    Args:
        path: `.h5` or `.hdf5`.
        name: the dataset's path in the file, such as `"entry/data"`; with `None` the first, by name, that may
            be an image.
        axes: a letter for each axis of the array, such as `"cyx"`; with `None` as for a `.npy` file.

    Returns:
        A `Scan` without a place.

    Raises:
        ValueError: if the file is damaged or has no such dataset, if its values lie in other files that are
            not there, or if `axes` doesn't fit.
    """
    return make_scan(path, "HDF5", _dataset(path, name, _hdf5_reason), axes)


def read_matlab_hdf5(path: pathlib.Path, name: str | None) -> Any:
    """Return an array of a MATLAB file of version 7.3, with its axes in MATLAB's order."""
    return _Reversed(_dataset(path, name, _matlab_reason))


class _Reversed:
    """An array-like with its axes in the opposite order."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.shape, self.dtype = source.shape[::-1], source.dtype

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        return self._source[key[::-1]].T


def _dataset(path, name, reason) -> Any:
    library = require("h5py", "h5py", extra="arrays")
    try:
        file = library.File(path, "r")
        reasons: dict[str, str] = {}

        def visit(found, item):
            if isinstance(item, library.Dataset):
                reasons[found] = reason(item)

        file.visititems(visit)
    except PermissionError:
        raise
    except Exception as error:  # A damaged file raises errors of many types.
        raise _refused(path, error) from error
    wanted = name.strip("/") if isinstance(name, str) else name
    chosen = chosen_name(reasons, wanted, path)
    dataset = file[chosen]
    check_bytes(
        path.name, math.prod(dataset.chunks or ()) * dataset.dtype.itemsize, "Its chunks are too large."
    )
    _check_elsewhere(path, dataset)
    try:  # A filter that is missing is found now, not in the middle of a run.
        dataset[(slice(0, 1),) * dataset.ndim]
    except Exception as error:
        raise _refused(path, f"{error} For filters that h5py lacks: pip install hdf5plugin") from error
    return dataset


def _hdf5_reason(dataset) -> str:
    if dataset.shape is None:
        return "with an empty dataset"
    return not_an_image(dataset.shape, dataset.dtype)


def _matlab_reason(dataset) -> str:
    """Return why a variable of MATLAB is no image; its class and whether it is empty are attributes."""
    kind = dataset.attrs.get("MATLAB_class", b"double")
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if dataset.attrs.get("MATLAB_empty", 0):
        return "with an empty array"
    if kind not in _MATLAB_NUMBERS:
        return f"with values of MATLAB's class {kind}"
    if dataset.shape is not None and len(dataset.shape) == 2 and 1 in dataset.shape:
        return f"with an array of shape {dataset.shape}"  # MATLAB's scalars and vectors have two axes
    return _hdf5_reason(dataset)


def _check_elsewhere(path, dataset) -> None:
    """Refuse values in other files: raw ones always, datasets if they are missing: they would count as 0."""
    if dataset.external:
        raise _refused(path, "its values lie in raw files outside of it. Copy them into it: h5repack")
    for source in dataset.virtual_sources() if dataset.is_virtual else ():
        other = pathlib.Path(path.parent, source.file_name)
        if source.file_name != "." and "%" not in source.file_name and not other.is_file():
            raise _refused(path, f"its values lie in {source.file_name!r}, which isn't there.")


def read_zarr(path: pathlib.Path, name: str | None = None, axes: str | None = None) -> Scan:
    """Read an array of a Zarr folder, of version 2 or 3; what is sliced is read.

    Args:
        path: the folder of an array or of a group.
        name: of a group the array's path in it, such as `"labels/0"`; with `None` the first, by name, that
            may be an image.
        axes: a letter for each axis of the array, such as `"tczyx"`; with `None` as for a `.npy` file.

    Returns:
        A `Scan` without a place.

    Raises:
        ValueError: if the folder is no Zarr array or group, or has no such array, or if `axes` doesn't fit.
    """
    library = require("zarr", "zarr", extra="arrays")
    try:
        with warnings.catch_warnings():  # of files that are no part of it
            warnings.simplefilter("ignore")
            opened = library.open(str(path), mode="r")
            is_group = isinstance(opened, library.Group)
            members = sorted(opened.members(max_depth=None)) if is_group else []
            arrays = {each: item for each, item in members if isinstance(item, library.Array)}
    except PermissionError:
        raise
    except Exception as error:  # Damaged metadata raises errors of many types.
        raise _refused(path, error) from error
    if not is_group and name is not None:
        raise ValueError(f"`name` must be None: the folder is one array. Received: name={name!r:.80}")
    if is_group:
        reasons = {each: not_an_image(item.shape, item.dtype) for each, item in arrays.items()}
        wanted = name.strip("/") if isinstance(name, str) else name
        opened = arrays[chosen_name(reasons, wanted, path)]
    _check_codecs(path, opened)
    chunk = math.prod(opened.shards or opened.chunks) * opened.dtype.itemsize
    check_bytes(path.name, chunk, "Its chunks are too large.")
    return make_scan(path, "Zarr", opened, axes)


def _check_codecs(path, array) -> None:
    """Refuse a codec that would run code of the file."""
    metadata = array.metadata.to_dict()
    if any("pickle" in str(metadata.get(key, "")).lower() for key in ("filters", "compressor", "codecs")):
        raise _refused(path, "its values are pickled Python objects, which may run any code.")


def _refused(path, why) -> ValueError:
    return ValueError(
        f"`path` must be a complete file of arrays. Received: {path.name!r}: "
        f"{' '.join(str(why).split()):.300}"
    )

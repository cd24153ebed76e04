"""Read a file of any field: `read`. Users, `tf_gradcam.load_image` and the command line call it."""

import inspect
import os
import pathlib
from typing import Any

from tf_gradcam._checks import check_no_address, check_path, did_you_mean
from tf_gradcam.formats._catalogue import endings, format_of
from tf_gradcam.formats._scan import Scan


def read(path: str | os.PathLike, **options: Any) -> Scan:
    """Read a file, or the folder of a series, to its true values and all that it takes to write back.

    The format is told by the ending of the name; DICOM files also by how they start.

    Args:
        path: a file of DICOM, NIfTI, GeoTIFF or TIFF, video, slide, NumPy, MATLAB, HDF5 or Zarr; or a folder
            with one series of DICOM files.
        options: what the format takes; docs/fields.md lists them.

    Returns:
        A `Scan`.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if the format's library is not installed; it names the extra to install.
        TypeError: if the format takes no such option.
        ValueError: if the file is not what its ending says, damaged, or holds what is no image.

    Example:

    ```python
    scan = tf_gradcam.formats.read("ct.dcm")
    heatmap = tf_gradcam.make_gradcam_heatmap(model, scan, "conv5")
    tf_gradcam.formats.write("ct-heatmap.dcm", scan, heatmap, label="pneumonia")
    ```
    """
    check_path("path", path)
    check_no_address("path", path)
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"`path` must be a file or folder. Received: {str(path)!r}, which doesn't exist."
        )
    found = format_of(path)
    if found is None or not found.read:
        raise ValueError(
            f"`path` must end in one of {', '.join(endings('read'))}. Received: {path.name!r}. "
            "Photographs are read by tf_gradcam.load_image."
        )
    function = found.function("read")
    known = [name for name in inspect.signature(function).parameters if name != "path"]
    for name in options:
        if name not in known:
            takes = f"takes {', '.join(known)}" if known else "takes no options"
            raise TypeError(
                f"`{name}` must be an option of the format: {found.name} {takes}. Received: {name}. "
                f"{did_you_mean(name, known)}".rstrip()
            )
    return function(path, **options)

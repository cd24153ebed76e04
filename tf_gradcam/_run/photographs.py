"""Find and read photographs and scans, and name their pictures.

The command line finds photographs with it, and `batches` reads them.
"""

import collections
import contextlib
import glob
import hashlib
import os
import pathlib
import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from tf_gradcam import formats
from tf_gradcam._files import PictureOptions, header_size, read_file
from tf_gradcam._images import load_image, read_values
from tf_gradcam._optional import packaged_file
from tf_gradcam._run.files import is_own_result
from tf_gradcam._run.request import shown_as

_ENDINGS = {
    ".avif",
    ".bmp",
    ".gif",
    ".j2k",
    ".jp2",
    ".jpeg",
    ".jpg",
    ".pbm",
    ".pfm",
    ".pgm",
    ".png",
    ".pnm",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
}
# Only files with such a name are opened to see whether tf_gradcam wrote them.
# Their files are found in folders, but those of arrays are not: they may hold anything, such as a model.
_SCAN_FORMATS = ("DICOM", "NIfTI", "GeoTIFF", "video", "slide")
_OWN_NAME = re.compile(
    r"(-overlay|-heatmap|-methods|-served|contact-sheet(_\d+)?)\.(png|jpg|dcm|mp4|npy|tif|nii\.gz)$"
)
_DISC_INDEX = "DICOMDIR"  # the table of contents of a patient's disc, PS3.10 section 8.6
_FOLDER_PIXELS = 1_000_000_000  # what a series of unknown size counts for
_DEMO_FILES = (
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/camera.png"),
    ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
)


_AS_IT_IS = PictureOptions()


class Photograph(NamedTuple):
    """A photograph to explain.

    `file` is its name in the results. `source` is what `load_image` takes, `None` if there is no such file,
    or the exception that says why the photograph can't be read.
    """

    file: str
    source: Any


class FoundPhotographs(NamedTuple):
    """The photographs that were found, and the paths that were skipped.

    `no_photographs` have another ending than photographs, `hidden` a name with a leading dot. `own_pictures`
    were written by tf_gradcam.
    """

    photographs: list[Photograph]
    no_photographs: set[str]
    hidden: set[str]
    own_pictures: set[str]


def find_photographs(patterns: Iterable[str], series: bool = False) -> FoundPhotographs:
    """Find the photographs that match paths of files, folders, and globs: in order, each once.

    A folder is searched with its subfolders. Symbolic links are followed, and each folder is searched once.
    Skipped are hidden files and folders, files whose ending is not that of a photograph, and pictures that
    tf_gradcam wrote.

    A pattern without a match becomes a photograph without a source, which is reported as an error.

    Args:
        patterns: paths and globs.
        series: whether a folder is one series of DICOM files, and not searched.
    """
    patterns = list(patterns)
    found = FoundPhotographs([], set(), set(), set())
    photographs: dict[Photograph, None] = {}  # in order, and each once
    for pattern in patterns:
        matches = _match(pattern, found, series) or [Photograph(pattern, None)]
        own_pictures = {photograph.file for photograph in matches if _is_own(photograph)}
        found.own_pictures.update(own_pictures)
        photographs |= dict.fromkeys(match for match in matches if match.file not in own_pictures)
    if not photographs:
        error = ValueError("contains only pictures that tf_gradcam wrote")
        photographs = dict.fromkeys(Photograph(pattern, error) for pattern in patterns)
    found.photographs.extend(photographs)
    for skipped in (found.no_photographs, found.hidden):  # unless another pattern names the file
        skipped.difference_update(photograph.file for photograph in photographs)
    return found


def _match(pattern: str, found: FoundPhotographs, series: bool) -> list[Photograph]:
    """Return the photographs that match a pattern, and add the skipped files to `found`."""
    # A file may well be called "cat[1].jpg".
    paths = [pattern] if os.path.lexists(pattern) else sorted(glob.glob(pattern, recursive=True))
    photographs = []
    for path in paths:
        if os.path.isdir(path) and not (series or formats.is_scan(path)):
            photographs += _search_folder(path, found)
        else:
            photographs.append(Photograph(path, path))
    return photographs


def _search_folder(folder: str, found: FoundPhotographs) -> list[Photograph]:
    """Return the photographs in a folder and its subfolders, sorted by their paths."""
    photographs = []
    folders, visited = collections.deque([pathlib.Path(folder)]), set()
    while folders:
        current = folders.popleft()
        real = os.path.realpath(current)
        if real in visited:  # A symbolic link may lead back.
            continue
        visited.add(real)
        try:
            names = sorted(os.listdir(current))
        except OSError as error:
            photographs.append(Photograph(str(current), error))
            continue
        for path in (current / name for name in names):
            if path.name.startswith("."):
                found.hidden.add(str(path))
            elif os.path.isdir(path):
                folders.append(path)
            elif path.name.upper() == _DISC_INDEX:
                found.no_photographs.add(str(path))
            elif path.suffix.lower() in _ENDINGS or formats.name_of_format(path) in _SCAN_FORMATS:
                photographs.append(Photograph(str(path), str(path)))
            else:
                found.no_photographs.add(str(path))
    return sorted(photographs, key=lambda photograph: pathlib.Path(photograph.file).parts)


def _is_own(photograph: Photograph) -> bool:
    return _OWN_NAME.search(photograph.file) is not None and is_own_result(photograph.file)


def demo_photographs() -> list[Photograph]:
    """Return the photographs that scikit-image and scikit-learn install.

    Raises:
        ImportError: if one of these packages is missing; it says how to install it.
    """
    return [_demo_photograph(package, file) for package, file in _DEMO_FILES]


def _demo_photograph(package, file) -> Photograph:
    path = packaged_file(package, file, "The demo")
    if path.stem != "rocket":
        return Photograph(path.name, str(path))
    # Squashed to a square, the rocket is short and wide: the model takes its tower for an oil rig.
    return Photograph(path.name, load_image(path)[:, 100:527])


def is_scan(photograph: Photograph) -> bool:
    """Return whether a photograph is a scan's file or series, which `formats.read` reads."""
    source = photograph.source
    return isinstance(source, str | os.PathLike) and (formats.is_scan(source) or os.path.isdir(source))


def read_photograph(photograph: Photograph) -> np.ndarray:
    """Return the values of a photograph as its file holds them: RGB, `(H, W, 3)`, uint8 for most files.

    Of a scan of one image, they are `(H, W, C)`, with 0 where nothing was measured.
    """
    if photograph.source is None:
        raise FileNotFoundError("no such file, and no file matches this pattern")
    if isinstance(photograph.source, Exception):
        raise photograph.source
    if is_scan(photograph):
        return scan_values(formats.read(photograph.source))
    return _finite(read_values(photograph.source))


def read_photograph_within(
    path: str, at_least: tuple[int, int] | None
) -> tuple[np.ndarray, tuple[int, int], str]:
    """Return the values of a file, `(H, W, C)`, its own height and width, and its SHA-256.

    Args:
        path: the file.
        at_least: height and width that a JPEG file may be decoded to, at least; see `read_values`.
    """
    if is_scan(Photograph(path, path)):
        values = read_photograph(Photograph(path, path))
        return values, (values.shape[0], values.shape[1]), _hash_of_file(path)
    data = read_file(pathlib.Path(path), "path")
    values = _finite(read_values(data, at_least))
    width, height = header_size(data)
    is_on_its_side = (width > height) != (values.shape[1] > values.shape[0]) and width != height
    size = (width, height) if is_on_its_side else (height, width)
    return values, size, hashlib.sha256(data).hexdigest()


def _hash_of_file(path) -> str:
    """Return the SHA-256 of a file of any size; `""` for a folder."""
    if os.path.isdir(path):
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def scan_options(scan: formats.Scan, options: PictureOptions) -> PictureOptions:
    """Return those of the options of pictures that are meant for a scan."""
    return shown_as(options, scan.values, is_of_patient=scan.space in ("LPS mm", "RAS mm"))


def scan_values(scan: formats.Scan) -> np.ndarray:
    """Return the values of a scan of one image, `(H, W, C)`, with 0 where nothing was measured."""
    if len(scan.axes) != 2:
        raise ValueError(f"the file must hold one image. Received: {scan!r}")
    return _finite(scan.filled())


def _finite(values) -> np.ndarray:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("the photograph must hold finite values. Received: values that are NaN or infinite")
    return values


def make_viewable(values: np.ndarray, options: PictureOptions = _AS_IT_IS) -> np.ndarray:
    """Convert what `read_photograph` returns to pixels for people to look at: uint8 `(H, W, 3)`.

    Unlike `load_image`, it chooses the limits by the picture's own values, since no user can give one.
    Unsigned integers: from 0 to the highest value of as many bits as they take (4095 for data of 12 bits).
    Signed integers, and floating values beyond `[0, 1]`: from the lowest value to the highest.

    Args:
        values: `(H, W, C)`; of more than three channels, the first three are shown.
        options: what the user asks for instead.
    """
    if any(option is not None for option in options):
        return load_image(values, **options._asdict())
    values = values[..., : 3 if values.shape[-1] >= 3 else 1]
    low, high = values.min(), values.max()
    if values.dtype == np.uint8 or (values.dtype.kind == "f" and low >= 0 and high <= 1):
        return load_image(values)
    if values.dtype.kind == "u":
        return load_image(values, limits=(0, 2 ** max(8, int(high).bit_length()) - 1))
    return load_image(values, limits=(low, high if high > low else low + 1))


def count_pixels(photograph: Photograph) -> int:
    """Return how many pixels a photograph has by its file's header; 0 if that can't be read.

    A scan counts for as many as its file has bytes.
    """
    if hasattr(photograph.source, "shape"):
        return photograph.source.shape[0] * photograph.source.shape[1]
    if isinstance(photograph.source, str | os.PathLike) and not os.path.isfile(photograph.source):
        return 0  # To open a pipe or a device may take forever.
    if is_scan(photograph):
        is_folder = os.path.isdir(photograph.source)
        return _FOLDER_PIXELS if is_folder else os.path.getsize(photograph.source)
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        with PIL.Image.open(photograph.source) as header:
            return header.width * header.height
    return 0


def picture_names(
    photographs: Iterable[Photograph], is_free: Callable[[str], bool] = lambda name: True
) -> list[str]:
    """Return a name for the pictures of each photograph: its file's safe name, with a number if it is taken.

    Args:
        photographs: the photographs.
        is_free: returns whether pictures of a name may be written.
    """
    names: list[str] = []
    taken: set[str] = set()
    numbers: collections.Counter[str] = collections.Counter()
    for photograph in photographs:
        stem = name = safe_name(photograph.file)
        # Some file systems do not distinguish Cat from cat.
        while name.casefold() in taken or not is_free(name):
            numbers[stem.casefold()] += 1
            name = f"{stem}_{numbers[stem.casefold()] + 1}"
        taken.add(name.casefold())
        names.append(name)
    return names


def safe_name(file: str) -> str:
    """Return a file's name without its ending: at most 50 letters, digits, underscores, dots and dashes."""
    stem = re.sub(r"\.nii$", "", pathlib.Path(file).stem, flags=re.IGNORECASE)  # of .nii.gz
    return re.sub(r"[^\w.-]+", "_", stem)[:50].strip("._-") or "photo"

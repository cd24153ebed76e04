"""Find and read photographs, fit them to a model's input, and name their pictures.

The command line finds photographs with it, `batches` reads them, and `findings` fits them.
"""

import collections
import contextlib
import glob
import os
import pathlib
import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import cv2
import numpy as np
import PIL.Image

from tf_gradcam._images import load_image, read_values, resize_pixels, size_within
from tf_gradcam._model import is_channels_first
from tf_gradcam._optional import packaged_file
from tf_gradcam._run.files import is_own_picture

MODEL_INPUT_SIDE = 512  # longest side of a photograph, in pixels, for a model that has no fixed size
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
_OWN_NAME = re.compile(r"(-overlay|-heatmap|-methods|-served|contact-sheet(_\d+)?)\.(png|jpg)$")
_DEMO_FILES = (
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/camera.png"),
    ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
)


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


def find_photographs(patterns: Iterable[str]) -> FoundPhotographs:
    """Find the photographs that match paths of files, folders, and globs: in order, each once.

    A folder is searched with its subfolders. Symbolic links are followed, and each folder is searched once.
    Skipped are hidden files and folders, files whose ending is not that of a photograph, and pictures that
    tf_gradcam wrote.

    A pattern without a match becomes a photograph without a source, which is reported as an error.
    """
    patterns = list(patterns)
    found = FoundPhotographs([], set(), set(), set())
    photographs: dict[Photograph, None] = {}  # in order, and each once
    for pattern in patterns:
        matches = _match(pattern, found) or [Photograph(pattern, None)]
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


def _match(pattern: str, found: FoundPhotographs) -> list[Photograph]:
    """Return the photographs that match a pattern, and add the skipped files to `found`."""
    # A file may well be called "cat[1].jpg".
    paths = [pattern] if os.path.lexists(pattern) else sorted(glob.glob(pattern, recursive=True))
    photographs = []
    for path in paths:
        if os.path.isdir(path):
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
            elif path.suffix.lower() in _ENDINGS:
                photographs.append(Photograph(str(path), str(path)))
            else:
                found.no_photographs.add(str(path))
    return sorted(photographs, key=lambda photograph: pathlib.Path(photograph.file).parts)


def _is_own(photograph: Photograph) -> bool:
    return _OWN_NAME.search(photograph.file) is not None and is_own_picture(photograph.file)


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


def read_photograph(photograph: Photograph) -> np.ndarray:
    """Return the values of a photograph as its file holds them: RGB, `(H, W, 3)`, uint8 for most files."""
    if photograph.source is None:
        raise FileNotFoundError("no such file, and no file matches this pattern")
    if isinstance(photograph.source, Exception):
        raise photograph.source
    values = read_values(photograph.source)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("the photograph must hold finite values. Received: values that are NaN or infinite")
    return values


def make_viewable(values: np.ndarray) -> np.ndarray:
    """Convert what `read_photograph` returns to pixels for people to look at: uint8 `(H, W, 3)`.

    Unlike `load_image`, it chooses the limits by the picture's own values, since no user can give one.
    Unsigned integers: from 0 to the highest value of as many bits as they take (4095 for data of 12 bits).
    Signed integers, and floating values beyond `[0, 1]`: from the lowest value to the highest.
    """
    low, high = values.min(), values.max()
    if values.dtype == np.uint8 or (values.dtype.kind == "f" and low >= 0 and high <= 1):
        return load_image(values)
    if values.dtype.kind == "u":
        return load_image(values, limits=(0, 2 ** max(8, int(high).bit_length()) - 1))
    return load_image(values, limits=(low, high if high > low else low + 1))


def count_pixels(photograph: Photograph) -> int:
    """Return how many pixels a photograph has by its file's header; 0 if that can't be read."""
    if hasattr(photograph.source, "shape"):
        return photograph.source.shape[0] * photograph.source.shape[1]
    if isinstance(photograph.source, str | os.PathLike) and not os.path.isfile(photograph.source):
        return 0  # To open a pipe or a device may take forever.
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        with PIL.Image.open(photograph.source) as header:
            return header.width * header.height
    return 0


def fit_to_spec(image: np.ndarray, spec: Any) -> np.ndarray:
    """Fit a photograph to a model's input spec: float32 `(1, h, w, C)`, or `(1, C, h, w)` if the spec is so.

    The values are the photograph's own: in [0, 255] if it is uint8, in [0, 4095] if it holds 12 bits. Where
    the spec leaves the size open, the photograph keeps its proportions, with at most
    `MODEL_INPUT_SIDE` pixels a side.
    """
    shape = tuple(getattr(spec, "shape", ()))
    channels_first = is_channels_first(shape)
    if channels_first:
        shape = (shape[0], *shape[2:], shape[1])
    if len(shape) != 4 or shape[-1] not in (None, 1, 3):
        raise ValueError(
            "`model` must take one photograph (N, H, W, 3) or (N, H, W, 1). Received: a model that takes "
            f"{spec}. Explain it in Python, with tf_gradcam.GradCAM."
        )
    _, *size, channels = shape
    own_size = size_within(image.shape[:2], MODEL_INPUT_SIDE)
    height, width = (fixed or own for fixed, own in zip(size, own_size, strict=True))
    # Pixels of 8 bits are rounded when they are resized, as `load_image` does it; other values are not.
    values = resize_pixels(image if image.dtype == np.uint8 else image.astype(np.float32), (height, width))
    if channels == 1:
        is_grey = (image == image[..., :1]).all()  # Then the values are not changed by the conversion.
        grey = values[..., 0] if is_grey else cv2.cvtColor(values, cv2.COLOR_RGB2GRAY)
        values = grey[..., None]
    if channels_first:
        values = values.transpose(2, 0, 1)
    return values[None].astype("float32")


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
    return re.sub(r"[^\w.-]+", "_", pathlib.Path(file).stem)[:50].strip("._-") or "photo"

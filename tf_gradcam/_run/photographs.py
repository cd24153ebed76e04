"""Photographs: where they are, their pixels, the shape a model takes, and the names of their pictures.

`batches` reads them with this, the command line finds them with it.
"""

import collections
import contextlib
import glob
import importlib.util
import os
import pathlib
import re
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import cv2
import numpy as np
import PIL.Image

from tf_gradcam._images import load_image, size_within
from tf_gradcam._model import is_channels_first

LONGEST_SIDE = 512  # in pixels, of a photograph for a model that has no fixed size
_ENDINGS = {".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_DEMO_FILES = (
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/camera.png"),
    ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
)


class Photograph(NamedTuple):
    """A photograph: the name to report it by, and what `load_image` takes, or `None` if there is no file."""

    file: str
    source: Any


def find_photographs(pattern: str) -> list[Photograph]:
    """Return the photographs that a file, folder or glob stands for.

    Where there is none, return one photograph without a source, so that it is reported.
    """
    if os.path.isdir(pattern):
        paths = sorted(
            str(path) for path in pathlib.Path(pattern).iterdir() if path.suffix.lower() in _ENDINGS
        )
    elif os.path.exists(pattern):  # A file may well be called "cat[1].jpg".
        paths = [pattern]
    else:
        paths = sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
    return [Photograph(path, path) for path in paths] or [Photograph(pattern, None)]


def demo_photographs() -> list[Photograph]:
    """Return the photographs that scikit-image and scikit-learn install.

    Raises:
        ImportError: if one of these packages is missing; it says how to install it.
    """
    return [_demo_photograph(package, file) for package, file in _DEMO_FILES]


def _demo_photograph(package, file) -> Photograph:
    # find_spec finds the package without running any of its code.
    spec = importlib.util.find_spec(package)
    folders = (spec and spec.submodule_search_locations) or ()
    path = next((path for path in (pathlib.Path(each, file) for each in folders) if path.is_file()), None)
    if path is None:
        raise ImportError(f'The demo needs {package}\'s {file}. Install it: pip install "tf_gradcam[demo]"')
    if path.stem != "rocket":
        return Photograph(path.name, str(path))
    # Squashed to a square, the rocket is short and wide: the model takes its tower for an oil rig.
    return Photograph(path.name, load_image(path)[:, 100:527])


def read_photograph(photograph: Photograph) -> np.ndarray:
    """Return the pixels of a photograph: RGB, uint8 `(H, W, 3)`."""
    if photograph.source is None:
        raise FileNotFoundError("no photograph is there, and none matches")
    return load_image(photograph.source)


def count_pixels(photograph: Photograph) -> int:
    """Return how many pixels a photograph has by its file's header; 0 if that can't be read."""
    if hasattr(photograph.source, "shape"):
        return photograph.source.shape[0] * photograph.source.shape[1]
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        with PIL.Image.open(photograph.source) as header:
            return header.width * header.height
    return 0


def fit_to_spec(image: np.ndarray, spec: Any) -> np.ndarray:
    """Return a photograph in the shape that a model's input spec tells: float32 `(1, h, w, C)` in [0, 255].

    Where the spec leaves the size open, the photograph keeps its proportions, with at most `LONGEST_SIDE`
    pixels a side.
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
    own_size = size_within(image.shape[:2], LONGEST_SIDE)
    height, width = (fixed or own for fixed, own in zip(size, own_size, strict=True))
    pixels = load_image(image, size=(height, width))
    if channels == 1:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
    if channels_first:
        pixels = pixels.transpose(2, 0, 1)
    return pixels[None].astype("float32")


def picture_names(photographs: Iterable[Photograph]) -> list[str]:
    """Return a name for the pictures of each photograph: its file's, made safe, and numbered where taken."""
    names: list[str] = []
    taken: set[str] = set()
    numbers: collections.Counter[str] = collections.Counter()
    for photograph in photographs:
        stem = name = safe_name(photograph.file)
        while name.casefold() in taken:  # There are file systems that can't tell Cat from cat.
            numbers[stem.casefold()] += 1
            name = f"{stem}_{numbers[stem.casefold()] + 1}"
        taken.add(name.casefold())
        names.append(name)
    return names


def safe_name(file: str) -> str:
    """Return a file's name without its ending, short, of letters, digits, dots and dashes only."""
    return re.sub(r"[^\w.-]+", "_", pathlib.Path(file).stem)[:50].strip("._-") or "photo"

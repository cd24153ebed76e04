"""Find and read the mask of each photograph: which of its pixels are the object. `evaluation` calls it."""

import collections
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import PIL.Image

from tf_gradcam._files import MAX_PIXELS
from tf_gradcam._run import Photograph

_MODES = ("1", "L", "P", "RGB")  # of Pillow, of 8 bits or fewer and without an alpha channel
_MUST = "the mask must be a PNG of 8 bits in which every pixel of the object is above 0"


def split_masks(
    photographs: Sequence[Photograph], folder: str | os.PathLike
) -> tuple[list[Photograph], dict[str, pathlib.Path]]:
    """Return the photographs that are no masks themselves, and the mask of each by its `file`.

    The mask of `holiday/cat.jpg` is `FOLDER/cat.png`. A photograph without one is not in the dict.

    Raises:
        NotADirectoryError: if there is no such folder.
        ValueError: if no photograph has a mask, or if two photographs would have the same.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(
            f"`masks` must be a folder of PNG files. Received: {folder}, which is no folder."
        )
    # By their stems. The ending may be written in any case.
    known = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".png"}
    inside = {os.path.realpath(path) for path in known.values()}
    others = [each for each in photographs if os.path.realpath(each.file) not in inside]
    stems = {each.file: pathlib.Path(each.file).stem for each in others}
    masks = {file: known[stem] for file, stem in stems.items() if stem in known}
    if not masks:
        raise ValueError(
            "`masks` must be a folder with a mask for each photograph, named like it: cat.png for cat.jpg. "
            f"Received: {folder}, which has none for any of {len(others)} photographs."
        )
    for path, count in collections.Counter(masks.values()).items():
        if count > 1:
            same = [file for file, mask in masks.items() if mask == path][:2]
            raise ValueError(
                "`masks` are found by the names of the photographs, which must differ. "
                f"Received: {' and '.join(same)}. Rename one of them."
            )
    return others, masks


def read_mask(path: str | os.PathLike, size: Sequence[int]) -> np.ndarray:
    """Return the mask of a photograph of `size` `(H, W)`: bool, as large as its file.

    A pixel is of the object if its value is not 0: of a palette its index, of colours any channel.

    Raises:
        ValueError: if it is damaged, has other proportions than the photograph, or can't be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PIL.Image.open(path, formats=("PNG",)) as file:
                _check_header(file, path, size)
                values = np.asarray(file)
    except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise ValueError(f"{_MUST}. Received: {path}, which can't be read: {error}") from error
    return values.any(axis=-1) if values.ndim == 3 else values != 0


def _check_header(file: Any, path, size) -> None:
    if file.mode not in _MODES:
        raise ValueError(f"{_MUST}, without an alpha channel. Received: {path}, of the kind {file.mode}.")
    if file.width * file.height > MAX_PIXELS:
        raise ValueError(f"the mask must have at most {MAX_PIXELS:,} pixels. Received: {path}")
    height, width = size
    # The same proportions to within a pixel: masks are often made on a smaller copy.
    if abs(file.height * width - file.width * height) > max(height, width):
        raise ValueError(
            f"the mask must have the proportions of its photograph, {height} x {width}. "
            f"Received: {path}, {file.height} x {file.width}"
        )


def resize_mask(mask: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return a mask of another `(height, width)`: pixels that the object covers at least by half.

    An object that is too small for that keeps every pixel that it touches.
    """
    height, width = size
    shares = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    halves = shares >= 0.5
    return halves if halves.any() else shares > 0

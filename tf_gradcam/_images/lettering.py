"""Text on pictures, in a font that matplotlib or Pillow brings along.

`outlines`, `sheets` and the callback call it.
"""

import functools
import importlib.util
import pathlib
from typing import Any

import numpy as np

from tf_gradcam._optional import require

_MARGIN = 0.2  # around the text, as a share of its size


def text_size(text: str, size: int) -> tuple[int, int]:
    """Return the width and height in pixels of a line of text on its ground."""
    margin = 2 * round(_MARGIN * size)
    return round(font(size).getlength(_one_line(text))) + margin, round(1.25 * size) + margin


def put_text(
    picture: np.ndarray,
    text: str,
    corner: tuple[int, int],
    size: int,
    color: Any = (255, 255, 255),
    ground: Any = (0, 0, 0),
) -> None:
    """Write a line of text into a picture, uint8 RGB, on a ground of its own; what is beyond is cut off.

    Args:
        picture: it is changed.
        text: a line; control characters become spaces.
        corner: x and y of the upper left corner.
        size: of the letters, in pixels.
        color: of the letters.
        ground: the colour behind them.
    """
    image, draw = (require(f"PIL.{name}", "pillow") for name in ("Image", "ImageDraw"))
    label = image.new("RGB", text_size(text, size), tuple(map(int, ground)))
    margin = round(_MARGIN * size)
    draw.Draw(label).text((margin, margin), _one_line(text), tuple(map(int, color)), font(size))
    x, y = corner
    part = picture[y : y + label.height, x : x + label.width]
    part[:] = np.asarray(label)[: part.shape[0], : part.shape[1]]


def _one_line(text) -> str:
    return "".join(each if each.isprintable() else " " for each in text)


@functools.lru_cache(8)
def font(size: int) -> Any:
    """Return a font of Pillow, with letters of that size in pixels.

    It is matplotlib's, where that is installed: Pillow's own has no letters beyond ASCII.
    """
    fonts, found = require("PIL.ImageFont", "pillow"), importlib.util.find_spec("matplotlib")
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = pathlib.Path(folder, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
        if path.exists():
            return fonts.truetype(str(path), size)
    return fonts.load_default(size)

"""Draw an object: a shape of one colour, or a texture of two on a patch of any outline. `truth` calls it.

Coordinates x and y are those of the pixels' centres, `(side, side)` each, in [-1, 1].
"""

import colorsys

import numpy as np

_SHAPES = ("disc", "ring", "square", "triangle", "cross")
_TEXTURES = ("stripes", "checker", "dots")
DRAWN = (*_SHAPES, *_TEXTURES)
_CONTRAST = 40.0  # least difference in brightness, of 255, between an object's colours and the ground's mean
_NOISE = 5.0  # standard deviation of an object's pixels about its colours
_PERIODS = (5.0, 8.0)  # of a texture, in pixels


def draw_object(
    name: str, side: int, ground: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw an object, turned at random and in random colours.

    Args:
        name: the class, one of `DRAWN`.
        side: about the object's length in pixels.
        ground: the mean brightness of what it will lie on, in [0, 255].
        random: the source of all that is random.

    Returns:
        Its pixels, uint8 `(h, w, 3)`, and its mask, bool `(h, w)`, cut to the mask's rows and columns.
    """
    centres = (np.arange(side) + 0.5) * 2 / side - 1
    x, y = np.meshgrid(centres, centres)
    angle = random.uniform(-np.pi, np.pi)
    turned = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    first = _colour(random, [ground])
    if name in _SHAPES:
        mask, colours = _shape(name, *turned), first
    else:
        second = _colour(random, [ground, first.mean()])
        period = random.uniform(*_PERIODS) * 2 / side
        mask = _blob(x, y, random)
        colours = np.where(_texture(name, *turned, period)[..., None], first, second)
    pixels = colours + random.normal(0, _NOISE, (side, side, 3))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    cut = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)[cut], mask[cut]


def _colour(random, apart_from):
    """Return a random colour `(3,)` whose brightness differs from each of these."""
    while True:
        colour = 255 * np.array(colorsys.hsv_to_rgb(*random.random(3)))
        if all(abs(colour.mean() - brightness) >= _CONTRAST for brightness in apart_from):
            return colour


def _shape(name, x, y):
    """Return the mask of a shape, whose corners reach a radius of about 0.95."""
    radius = np.hypot(x, y)
    if name == "disc":
        return radius <= 0.85
    if name == "ring":
        return (radius >= 0.5) & (radius <= 0.95)
    if name == "square":
        return np.maximum(abs(x), abs(y)) <= 0.68
    if name == "triangle":
        normals = 2 * np.pi / 3 * np.arange(3)
        return np.max([np.cos(angle) * x + np.sin(angle) * y for angle in normals], axis=0) <= 0.48
    arms = np.minimum(abs(x), abs(y)), np.maximum(abs(x), abs(y))
    return (arms[0] <= 0.27) & (arms[1] <= 0.9)


def _blob(x, y, random):
    """Return the mask of a patch that has no shape in common with others."""
    angle, (two, three) = np.arctan2(y, x), random.uniform(0, 2 * np.pi, 2)
    return np.hypot(x, y) <= 0.74 + 0.13 * np.cos(2 * angle + two) + 0.08 * np.cos(3 * angle + three)


def _texture(name, x, y, period):
    """Return where a texture has its first colour."""
    waves = np.sin(2 * np.pi * x / period), np.sin(2 * np.pi * y / period)
    if name == "stripes":
        return waves[0] > 0
    if name == "checker":
        return waves[0] * waves[1] > 0
    return (waves[0] + waves[1]) > 0.9

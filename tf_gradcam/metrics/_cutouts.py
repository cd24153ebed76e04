"""Photographed objects, cut out along outlines drawn by hand, and grounds to lie them on. `truth` calls it.

The photographs are those that scikit-image, scikit-learn and matplotlib install.
"""

import functools
from typing import NamedTuple

import cv2
import numpy as np

from tf_gradcam._images import load_image
from tf_gradcam._optional import packaged_file


class _Source(NamedTuple):
    """A photographed object: its file, ImageNet's classes for it, its corners (x, y) in the file's pixels."""

    package: str
    file: str
    outputs: tuple[int, ...]
    corners: str


_SOURCES = {
    "cat": _Source(  # tabby, tiger cat, Egyptian cat
        "skimage",
        "data/chelsea.png",
        (281, 282, 285),
        "38,20 50,0 330,0 395,2 375,45 358,70 352,80 362,125 358,155 330,190 318,215 310,240 290,262 "
        "255,278 215,278 150,270 60,250 35,215 20,190 40,150 30,110 35,60",
    ),
    "coffee": _Source(  # coffee mug, espresso, cup
        "skimage",
        "data/coffee.png",
        (504, 967, 968),
        "180,70 140,95 105,130 85,170 77,215 82,255 100,295 130,330 170,360 220,380 280,388 340,383 "
        "395,365 440,335 470,290 480,235 470,185 448,140 420,108 425,75 412,66 400,70 395,72 370,40 "
        "335,22 285,17 240,23 205,40 183,65",
    ),
    "motorcycle": _Source(  # moped, motor scooter, tricycle
        "skimage",
        "data/motorcycle_left.png",
        (665, 670, 870),
        "92,205 110,195 142,195 135,165 145,147 165,148 168,160 215,165 240,172 275,192 300,195 "
        "350,187 390,170 355,172 375,145 408,122 440,125 463,145 465,130 485,115 500,95 492,80 500,75 "
        "520,90 545,100 520,108 540,120 560,130 565,117 580,118 582,138 562,145 563,165 545,188 "
        "550,200 560,220 578,262 600,265 640,300 655,320 675,360 684,400 672,440 640,450 610,445 "
        "570,420 535,380 515,340 505,320 508,290 525,275 500,230 492,215 480,230 478,255 475,275 "
        "478,310 450,350 420,375 400,380 345,375 345,435 325,435 328,385 315,365 280,358 270,370 "
        "240,395 210,402 170,390 140,365 122,320 123,280 140,252 150,245 135,240 110,247 100,240 "
        "110,225 92,215",
    ),
    "pagoda": _Source(  # bell cote, birdhouse, dome, monastery, palace, stupa
        "sklearn",
        "datasets/images/china.jpg",
        (442, 448, 538, 663, 698, 832),
        "197,30 215,30 216,62 235,80 262,95 285,103 318,118 320,125 300,135 294,160 328,172 328,180 "
        "320,185 320,230 328,232 330,240 350,250 350,258 340,268 342,302 349,308 349,325 370,335 "
        "330,372 300,385 240,390 210,370 175,355 160,345 75,335 74,320 82,310 80,280 62,272 70,250 "
        "93,245 93,235 98,230 98,188 85,180 85,170 118,160 118,142 97,130 97,107 120,103 165,85 "
        "193,65",
    ),
    "officer": _Source(  # bow tie, military uniform, suit
        "matplotlib",
        "mpl-data/sample_data/grace_hopper.jpg",
        (457, 652, 834),
        "175,80 200,45 230,25 300,25 335,50 355,85 370,100 372,140 375,185 365,240 350,300 340,308 "
        "380,340 490,390 510,450 511,599 12,599 28,430 55,378 150,345 190,325 200,300 165,275 155,220 "
        "153,150 155,115",
    ),
    "flower": _Source(  # daisy
        "sklearn",
        "datasets/images/flower.jpg",
        (985,),
        "315,85 350,92 385,105 410,125 427,150 435,180 445,215 440,250 425,285 410,315 385,340 "
        "350,355 300,360 250,350 215,325 195,300 178,270 170,235 170,200 180,170 190,140 215,118 "
        "250,98 285,92",
    ),
    "helmet": _Source(  # crash helmet, football helmet
        "skimage",
        "data/astronaut.png",
        (518, 560),
        "277,511 280,450 300,400 340,355 400,343 440,355 475,385 495,440 500,460 505,490 500,511",
    ),
}
PHOTOGRAPHED = tuple(_SOURCES)
IMAGENET_OUTPUTS = tuple(source.outputs for source in _SOURCES.values())
_TEXTURES = 3  # the first grounds
_GROUNDS = (  # package, file, and the columns that show no object
    ("skimage", "data/brick.png", slice(None)),
    ("skimage", "data/grass.png", slice(None)),
    ("skimage", "data/gravel.png", slice(None)),
    ("sklearn", "datasets/images/china.jpg", slice(380, 540)),  # a lake
    ("skimage", "data/coffee.png", slice(480, 600)),  # a table
)


def paste_object(name: str, side: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a cut-out, resized, and mirrored, tilted and brightened at random.

    Args:
        name: the class, one of `PHOTOGRAPHED`.
        side: the length of its longer side in pixels.
        random: the source of all that is random.

    Returns:
        Its pixels, uint8 `(h, w, 3)`, and how much of each pixel it covers, float32 `(h, w)` in [0, 1].
    """
    pixels, cover = _cut_out(name)
    angle = np.deg2rad(random.uniform(-12, 12))
    cosine, sine = np.cos(angle), abs(np.sin(angle))
    around = np.array([[cosine, sine], [sine, cosine]])  # by it: the turned rectangle's width and height
    scale = side / (around @ cover.shape[::-1]).max()
    width, height = (max(1, int(length * scale)) for length in cover.shape[::-1])
    pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    cover = cv2.resize(cover, (width, height), interpolation=cv2.INTER_AREA)
    room = np.minimum(np.ceil(around @ (width, height)).astype(int), side)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), np.rad2deg(angle), 1.0)
    turn[:, 2] += (room - (width, height)) / 2
    pixels = cv2.warpAffine(pixels, turn, room.tolist(), borderMode=cv2.BORDER_REPLICATE)
    cover = cv2.warpAffine(cover, turn, room.tolist())
    if random.random() < 0.5:
        pixels, cover = pixels[:, ::-1], cover[:, ::-1]
    bright = np.rint(pixels * random.uniform(0.8, 1.15))
    rows, columns = np.flatnonzero(cover.any(axis=1)), np.flatnonzero(cover.any(axis=0))
    cut = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return np.clip(bright, 0, 255).astype(np.uint8)[cut], cover[cut]


@functools.cache
def _cut_out(name):
    """Return the pixels and cover of the rectangle around an object."""
    source = _SOURCES[name]
    corners = np.array([corner.split(",") for corner in source.corners.split()], int)
    photograph = _photograph(source.package, source.file)
    cover = np.zeros(photograph.shape[:2], np.float32)
    cv2.fillPoly(cover, [corners], 1.0)
    x, y, width, height = cv2.boundingRect(corners)
    rectangle = slice(y, y + height), slice(x, x + width)
    return photograph[rectangle], cover[rectangle]


def draw_ground(size: int, photographed: bool, random: np.random.Generator) -> np.ndarray:
    """Return a square of ground, uint8 `(size, size, 3)`: a random part of a texture, in a random tint.

    Args:
        size: its side in pixels.
        photographed: whether it may also be part of a photograph.
        random: the source of all that is random.
    """
    ground = _ground(random.integers(len(_GROUNDS) if photographed else _TEXTURES))
    shortest = min(ground.shape[:2])
    side = int(shortest * random.uniform(0.4, 1.0))
    row, column = (random.integers(length - side + 1) for length in ground.shape[:2])
    part = ground[row : row + side, column : column + side]
    shrinks = side > size
    part = cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    tint = random.uniform(0.6, 1.1, 3) if random.random() < 0.7 else 1.0
    return np.clip(np.rint(part[:, :: random.choice([1, -1])] * tint), 0, 255).astype(np.uint8)


@functools.cache
def _ground(number):
    package, file, columns = _GROUNDS[number]
    return _photograph(package, file)[:, columns]


def _photograph(package, file):
    return load_image(packaged_file(package, file, "tf_gradcam.metrics.truth"))

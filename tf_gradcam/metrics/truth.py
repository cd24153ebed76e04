"""Scenes with exact masks of their objects: `shapes` and `photographs`. Users and `make truth` call them.

Nothing is downloaded, and a scene takes milliseconds. A scene depends on `seed` and its own number
alone, so the first of many are those of few. Choose methods on some seeds, and judge them on others.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam._checks import is_whole
from tf_gradcam.metrics import _cutouts, _drawn

__all__ = ["Scenes", "photographs", "shapes"]

_ATTEMPTS = 200  # to find a place that is free; then the scene is drawn anew


class Scenes(NamedTuple):
    """Images of objects, with exact masks.

    Attributes:
        images: uint8 `(N, H, W, 3)`.
        labels: int64 `(N, M)`, for each of M objects the index of its class in `names`. The objects of a
            scene are of different classes.
        masks: bool `(N, M, H, W)`, true at each pixel that an object changes. No two masks overlap.
        names: the classes' names.
        outputs: for each class, the indices of the network's outputs that stand for it: the class's own
            index for `shapes`, ImageNet's classes for `photographs`.
    """

    images: np.ndarray
    labels: np.ndarray
    masks: np.ndarray
    names: tuple[str, ...]
    outputs: tuple[tuple[int, ...], ...]

    def targets(self, scores: Any) -> np.ndarray:
        """Return what to explain for each object: of the outputs that stand for it, that of highest score.

        Args:
            scores: the network's outputs for the images, `(N, outputs)`.

        Returns:
            Indices of outputs, int64 `(N, M)`.
        """
        scores = np.asarray(scores)
        found = np.zeros_like(self.labels)
        for place, label in np.ndenumerate(self.labels):
            outputs = np.array(self.outputs[label])
            found[place] = outputs[scores[place[0], outputs].argmax()]
        return found

    def recognized(self, scores: Any, rank: int) -> np.ndarray:
        """Return which objects the network sees: those with a score among the `rank` highest of the image.

        A heatmap for a class that the network does not see says nothing about a method.

        Args:
            scores: the network's outputs for the images, `(N, outputs)`.
            rank: how many of an image's highest scores count, from 1.

        Returns:
            bool `(N, M)`.
        """
        scores = np.asarray(scores)
        own = np.take_along_axis(scores, self.targets(scores), axis=1)
        return (scores[:, None] > own[..., None]).sum(axis=-1) < rank


def shapes(count: int, seed: int = 0, *, objects: int = 2, size: int = 96) -> Scenes:
    """Draw scenes of shapes and textures, to train a small network on and to explain it.

    The classes are five shapes of one colour (disc, ring, square, triangle, cross) and three textures of two
    (stripes, checker, dots) on patches of any outline, turned at random, on parts of scikit-image's brick,
    grass and gravel. Colours are random, so they say nothing of the class. An object is a sixth to two fifths
    of the image long.

    Args:
        count: how many scenes, N.
        seed: a whole number from 0; each gives other scenes.
        objects: how many objects in each scene, from 0 to 3.
        size: the images' height and width in pixels, from 48.

    Returns:
        The `Scenes`.

    Raises:
        ValueError: if an argument is out of range.
        ImportError: if scikit-image is not installed; it says how to install it.

    Example:

    ```python
    scenes = tf_gradcam.metrics.truth.shapes(6000)
    model.fit(scenes.images, scenes.labels[:, 0])
    ```
    """
    _check(count, seed, objects, size, 48)

    def draw(name, ground, random):
        side = int(random.uniform(size / 6, size / 2.5))
        pixels, mask = _drawn.draw_object(name, side, ground.mean(), random)
        return pixels, mask.astype(np.float32)

    def ground(random):
        return _cutouts.draw_ground(size, False, random)

    outputs = tuple((number,) for number in range(len(_drawn.OBJECTS)))
    scenes = [_scene(seed, number, objects, _drawn.OBJECTS, ground, draw) for number in range(count)]
    return _together(scenes, size, objects, _drawn.OBJECTS, outputs)


def photographs(count: int, seed: int = 0, *, objects: int = 2, size: int = 224) -> Scenes:
    """Paste photographed objects into scenes for networks that know ImageNet's classes.

    The objects are a cat, a coffee, a motorcycle, a pagoda, an officer, a flower and a helmet, cut out of the
    photographs that scikit-image, scikit-learn and matplotlib install. They are resized to 0.3 to 0.55 of the
    image, mirrored, tilted and brightened at random, and lie on parts of scikit-image's textures, a lake or
    a table. `Scenes.outputs` names several of ImageNet's classes for most objects: also those that a
    network takes a small cut-out for, such as a birdhouse for the pagoda, as nothing else in the scene
    is one.

    Args:
        count: how many scenes, N.
        seed: a whole number from 0; each gives other scenes.
        objects: how many objects in each scene, from 0 to 3.
        size: the images' height and width in pixels, from 96.

    Returns:
        The `Scenes`.

    Raises:
        ValueError: if an argument is out of range.
        ImportError: if scikit-image or scikit-learn is not installed; it says how to install it.

    Example:

    ```python
    scenes = tf_gradcam.metrics.truth.photographs(100)
    scores = model.predict(pretrained.preprocess(scenes.images))
    targets = scenes.targets(scores)[:, 0]  # of the first object of each scene
    ```
    """
    _check(count, seed, objects, size, 96)

    def draw(name, ground, random):
        return _cutouts.paste_object(name, int(random.uniform(0.3, 0.55) * size), random)

    def ground(random):
        return _cutouts.draw_ground(size, True, random)

    scenes = [_scene(seed, number, objects, _cutouts.OBJECTS, ground, draw) for number in range(count)]
    return _together(scenes, size, objects, _cutouts.OBJECTS, _cutouts.OUTPUTS)


def _check(count, seed, objects, size, least_size) -> None:
    limits = {"count": (count, 1, None), "seed": (seed, 0, None), "objects": (objects, 0, 3)}
    limits["size"] = (size, least_size, None)
    for name, (value, low, high) in limits.items():
        if not is_whole(value) or value < low or (high is not None and value > high):
            most = "" if high is None else f" to {high}"
            raise ValueError(f"`{name}` must be a whole number from {low}{most}. Received: {name}={value!r}")


def _scene(
    seed: int, number: int, objects: int, names: tuple[str, ...], draw_ground: Callable, draw: Callable
):
    """Return the image, labels and masks of one scene.

    Args:
        seed: the user's.
        number: the scene's.
        objects: how many.
        names: the classes.
        draw_ground: returns the ground, given the source of randomness.
        draw: returns an object's pixels and cover, given its name, the ground and the source of randomness.
    """
    random = np.random.default_rng([seed, number])
    ground = draw_ground(random)
    labels = random.choice(len(names), objects, replace=False)
    while True:
        image = ground.copy()
        masks: list[np.ndarray] = []
        for label in labels:
            pixels, cover = draw(names[label], ground, random)
            corner = _free_place(np.any(masks, axis=0) if masks else None, cover > 0, image.shape, random)
            if corner is None:
                break
            masks.append(_lay(image, pixels, cover, corner))
        if len(masks) == objects:
            return image, labels, masks


def _free_place(taken, mask, shape, random):
    """Return a corner (row, column) where a mask overlaps nothing that is taken; `None` if none is found."""
    height, width = mask.shape
    if height > shape[0] or width > shape[1]:
        return None
    for _ in range(_ATTEMPTS):
        row, column = random.integers(shape[0] - height + 1), random.integers(shape[1] - width + 1)
        if taken is None or not (taken[row : row + height, column : column + width] & mask).any():
            return row, column
    return None


def _lay(image, pixels, cover, corner):
    """Lay an object on an image, in place, and return the mask `(H, W)` of the pixels that it changes."""
    (row, column), (height, width) = corner, cover.shape
    place = slice(row, row + height), slice(column, column + width)
    ground = image[place].copy()
    blend = np.rint(ground + cover[..., None] * (pixels.astype(np.float32) - ground)).astype(np.uint8)
    # An object may have the colour of the ground: what is covered whole is made to differ.
    same = (cover == 1) & (blend == ground).all(axis=-1)
    blend[same, 0] ^= 1
    image[place] = blend
    mask = np.zeros(image.shape[:2], bool)
    mask[place] = (blend != ground).any(axis=-1)
    return mask


def _together(scenes, size, objects, names, outputs) -> Scenes:
    images, labels, masks = zip(*scenes, strict=True)
    shape = (len(scenes), objects, size, size)
    return Scenes(
        np.stack(images),
        np.array(labels, np.int64).reshape(shape[:2]),
        np.array(masks, bool).reshape(shape),
        tuple(names),
        outputs,
    )

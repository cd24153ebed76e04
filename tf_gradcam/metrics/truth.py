"""Scenes with exact masks of their objects: `shapes` and `photographs`. Users and `make truth` call them.

Nothing is downloaded, and a scene takes milliseconds. A scene depends on `seed` and its own number
alone, so the first of many are those of few. Choose methods on some seeds, and judge them on others.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam._checks import is_whole
from tf_gradcam.metrics._cutouts import IMAGENET_OUTPUTS, PHOTOGRAPHED, draw_ground, paste_object
from tf_gradcam.metrics._drawn import DRAWN, draw_object

__all__ = ["Scenes", "photographs", "shapes"]

_ATTEMPTS = 100  # to find a place that is free; then the scene is drawn anew, with smaller objects
_SHORTEST = (1.0, 1.0, 0.45, 0.3)  # objects that always fit, as a share of the image, by their number


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

        Raises:
            ValueError: if there is not one row of scores for each image, or an output is missing.
        """
        scores = _checked_scores(scores, self)
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

        Raises:
            ValueError: as `targets` does, or if `rank` is not a whole number from 1.
        """
        if not is_whole(rank) or rank < 1:
            raise ValueError(f"`rank` must be a whole number from 1. Received: rank={rank!r}")
        scores = _checked_scores(scores, self)
        own = np.take_along_axis(scores, self.targets(scores), axis=1)
        return (scores[:, None] > own[..., None]).sum(axis=-1) < rank


def _checked_scores(scores, scenes):
    scores = np.asarray(scores)
    least = 1 + max(max(outputs) for outputs in scenes.outputs)
    if scores.ndim != 2 or len(scores) != len(scenes.labels) or scores.shape[1] < least:
        raise ValueError(
            f"`scores` must be the network's outputs ({len(scenes.labels)}, at least {least}), one row for "
            f"each image. Received: shape {scores.shape}"
        )
    return scores


def shapes(
    count: int,
    seed: int = 0,
    *,
    objects: int = 2,
    size: int = 96,
    lengths: tuple[float, float] = (0.2, 0.42),
) -> Scenes:
    """Draw scenes of shapes and textures, to train a small network on and to explain it.

    The classes are five shapes of one colour (disc, ring, square, triangle, cross) and three textures of two
    (stripes, checker, dots) on patches of any outline, turned at random, on parts of scikit-image's brick,
    grass and gravel. Colours are random, so they say nothing of the class.

    Args:
        count: how many scenes, N.
        seed: a whole number from 0; each gives other scenes.
        objects: how many objects in each scene, from 0 to 3.
        size: the images' height and width in pixels, from 32.
        lengths: the shortest and the longest object, as shares of `size`.

    Returns:
        The `Scenes`.

    Raises:
        ValueError: if an argument is out of range.
        ImportError: if scikit-image is not installed; it says how to install it.

    Example:

    ```python
    scenes = tf_gradcam.metrics.truth.shapes(6000, objects=1)
    model.fit(scenes.images, scenes.labels[:, 0])
    ```
    """
    _check(count, seed, objects, size, lengths)

    def draw(name, side, ground, random):
        pixels, mask = draw_object(name, side, ground.mean(), random)
        return pixels, mask.astype(np.float32)

    def ground(random):
        return draw_ground(size, False, random)

    scenes = [_scene([seed, number], objects, DRAWN, lengths, ground, draw) for number in range(count)]
    return _together(scenes, size, objects, DRAWN, tuple((number,) for number in range(len(DRAWN))))


def photographs(
    count: int,
    seed: int = 0,
    *,
    objects: int = 2,
    size: int = 224,
    lengths: tuple[float, float] = (0.38, 0.6),
) -> Scenes:
    """Paste photographed objects into scenes for networks that know ImageNet's classes.

    The objects are a cat, a coffee, a motorcycle, a pagoda, an officer, a flower and a helmet, cut out of the
    photographs that scikit-image, scikit-learn and matplotlib install. They are resized, mirrored, tilted and
    brightened at random, and lie on parts of scikit-image's textures, a lake or a table. `Scenes.outputs`
    names several of ImageNet's classes for most objects: also those that a network takes a small cut-out for,
    such as a birdhouse for the pagoda, as nothing else in the scene is one.

    Args:
        count: how many scenes, N.
        seed: a whole number from 0; each gives other scenes.
        objects: how many objects in each scene, from 0 to 3.
        size: the images' height and width in pixels, from 32.
        lengths: the shortest and the longest object, as shares of `size`.

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
    _check(count, seed, objects, size, lengths)

    def draw(name, side, _, random):
        return paste_object(name, side, random)

    def ground(random):
        return draw_ground(size, True, random)

    scenes = [_scene([seed, number], objects, PHOTOGRAPHED, lengths, ground, draw) for number in range(count)]
    return _together(scenes, size, objects, PHOTOGRAPHED, IMAGENET_OUTPUTS)


def _check(count, seed, objects, size, lengths) -> None:
    for name, value, low in (("count", count, 1), ("seed", seed, 0), ("size", size, 32)):
        if not is_whole(value) or value < low:
            raise ValueError(f"`{name}` must be a whole number from {low}. Received: {name}={value!r}")
    if not is_whole(objects) or not 0 <= objects <= 3:
        raise ValueError(f"`objects` must be a whole number from 0 to 3. Received: objects={objects!r}")
    shares = np.asarray(lengths, float)
    if shares.shape != (2,) or not 0.1 <= shares[0] <= shares[1] <= 1 or shares[0] > _SHORTEST[objects]:
        raise ValueError(
            f"`lengths` must be two shares of the image, the first from 0.1 to {_SHORTEST[objects]} for "
            f"{objects} objects, the second from the first to 1. Received: lengths={lengths!r}"
        )


def _scene(
    seed: list[int],
    objects: int,
    names: tuple[str, ...],
    lengths: tuple[float, float],
    draw_ground: Callable,
    draw: Callable,
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return the image, labels and masks of one scene.

    Args:
        seed: the user's, and the scene's number.
        objects: how many.
        names: the classes.
        lengths: of the objects.
        draw_ground: returns the ground, given the source of randomness.
        draw: returns an object's pixels and cover, given its name, its side in pixels, the ground and the
            source of randomness.
    """
    random = np.random.default_rng(seed)
    ground = draw_ground(random)
    labels = random.choice(len(names), objects, replace=False)
    low, high = lengths
    while True:
        image = ground.copy()
        masks: list[np.ndarray] = []
        for label in labels:
            side = int(len(ground) * random.uniform(low, high))
            pixels, cover = draw(names[label], side, ground, random)
            corner = _free_place(np.any(masks, axis=0) if masks else None, cover > 0, len(ground), random)
            if corner is None:
                break
            masks.append(_lay(image, pixels, cover, corner))
        if len(masks) == objects:
            return image, labels, masks
        high = 0.9 * high + 0.1 * low


def _free_place(taken, mask, size, random):
    """Return a corner (row, column) where a mask overlaps nothing that is taken; `None` if none is found."""
    height, width = mask.shape
    for _ in range(_ATTEMPTS):
        row, column = random.integers(size - height + 1), random.integers(size - width + 1)
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

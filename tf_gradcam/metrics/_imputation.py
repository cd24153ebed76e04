"""What stands in for removed pixels: baselines, and noisy linear imputation. Called by the other metrics."""

from typing import Any

import numpy as np

from tf_gradcam.metrics._inputs import (
    as_images,
    check_choice,
    check_masks,
    check_nonnegative,
    generator,
    spread,
)
from tf_gradcam.metrics._smooth_fill import solve

BASELINES = ("zero", "mean", "blur", "noise", "road")
_RISE_SIDE, _RISE_RADIUS = 224, 5  # RISE blurs images of 224 x 224 with 11 taps and a sigma of 5.


class Fill:
    """A baseline for the pixels of a batch of images, ready to replace any of them.

    Args:
        images: `(N, *axes, C)`.
        baseline: a name in `BASELINES`.
        seed: seed of the noise of `"noise"` and `"road"`, which is the same for every image.
        road_noise: standard deviation of the noise of `"road"`, as in `noisy_linear_imputation`.

    Attributes:
        fixed: what `images` become when every pixel is replaced, `(N, *axes, C)`; `None` for `"road"`, whose
            values depend on the pixels that are left.
    """

    def __init__(self, images: np.ndarray, baseline: Any, seed: int, road_noise: float = 0.01) -> None:
        check_choice("baseline", baseline, BASELINES)
        check_nonnegative(noise=road_noise)
        generator(seed)
        self._images, self._seed, self._noise = images, seed, road_noise
        self.fixed = None if baseline == "road" else _baseline_images(images, baseline, seed)

    def without(self, removed: np.ndarray) -> np.ndarray:
        """Return the images without the pixels `removed`, bool `(N or 1, *axes)`."""
        if self.fixed is None:
            removed = np.broadcast_to(removed, self._images.shape[:-1])
            return _impute(self._images, removed, self._noise, self._seed)
        return np.where(removed[..., None], self.fixed, self._images)


def _baseline_images(images, baseline, seed):
    axes = tuple(range(1, images.ndim - 1))
    if baseline == "zero":
        return np.zeros_like(images)
    if baseline == "blur":
        return blur(images)
    with np.errstate(invalid="ignore"):  # The result of an image with an infinite value is NaN in any case.
        if baseline == "mean":
            means = images.mean(axes, keepdims=True, dtype=np.float64).astype(images.dtype)
            return np.broadcast_to(means, images.shape)
        low, high = images.min(axes, keepdims=True), images.max(axes, keepdims=True)
        return (low + (high - low) * generator(seed).random(images.shape[1:])).astype(images.dtype)


def blur(images: np.ndarray) -> np.ndarray:
    """Return images `(N, *axes, C)` blurred as for RISE's insertion; beyond its edge an image goes on.

    At 224 pixels along the shorter side these are RISE's 11 taps of a Gaussian with a sigma of 5. Both scale
    with that side, down to 3 taps. The taps of RISE's code are flatter, as it folds what lies outside back
    in: 0.088 to 0.094, where these are 0.066 to 0.109.
    """
    radius = max(1, round(_RISE_RADIUS * min(images.shape[1:-1]) / _RISE_SIDE))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / radius) ** 2)
    taps = (taps / taps.sum()).astype(images.dtype)
    for axis in range(1, images.ndim - 1):
        length = images.shape[axis]
        padding = [(radius, radius) if each == axis else (0, 0) for each in range(images.ndim)]
        lines = np.moveaxis(np.pad(images, padding, mode="edge"), axis, 0)
        blurred = np.zeros_like(lines[:length])
        for start, tap in enumerate(taps):
            blurred += tap * lines[start : start + length]
        images = np.moveaxis(blurred, 0, axis)
    return np.ascontiguousarray(images)


def noisy_linear_imputation(images: Any, removed: Any, *, noise: float = 0.01, seed: int = 0) -> np.ndarray:
    """Fill removed pixels smoothly from the pixels around them, and add noise: the imputation of ROAD.

    Each removed pixel becomes the weighted mean of its neighbours, removed ones too, so that all are found
    together by one linear system: `x_i = sum_n w_n x_n / sum_n w_n`, with 1/6 for the neighbours along an
    axis and 1/12 for diagonal ones. Neighbours outside the image don't count. In a volume, the weight halves
    again at the corners. If no pixel of an image is left, all become its mean.

    Source: Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022,
    and the authors' code. Their noise is absolute, for images in [0, 1].

    Args:
        images: `(N, *axes, C)` with 1 to 3 axes.
        removed: the pixels to fill, bool `(N, *axes)`.
        noise: standard deviation of the Gaussian noise on filled pixels, as a share of the range (maximum
            minus minimum) of each image.
        seed: seed of the noise, which is the same for every image.

    Returns:
        The images with these pixels filled, `(N, *axes, C)`, float32 or float64 as `images`. An image with a
        value that is not finite is NaN throughout.

    Raises:
        ValueError: if the shapes differ, or `noise` is negative.
        TypeError: if `removed` is not bool.
    """
    images = as_images(images)
    removed = check_masks(removed, images.shape[:-1], "removed", "images")
    check_nonnegative(noise=noise)
    generator(seed)
    return _impute(images, removed, noise, seed)


def _impute(images, removed, noise, seed):
    axes = tuple(range(2, images.ndim))
    values = np.moveaxis(images, -1, 1).astype(np.float64)  # The solver takes channels first.
    bad = ~np.isfinite(values).all(axis=(1, *axes), keepdims=True)
    values = np.where(bad, 0, values)
    kept = ~removed[:, None]
    count = kept.sum(axis=axes, keepdims=True)
    means = np.where(
        count > 0,
        (values * kept).sum(axes, keepdims=True) / np.maximum(count, 1),
        values.mean(axes, keepdims=True),
    )
    solved = means + solve((values - means) * kept, ~kept & (count > 0))
    if noise:
        field = generator(seed).normal(size=images.shape[1:])
        solved = solved + noise * spread(np.moveaxis(values, 1, -1)).reshape(bad.shape) * np.moveaxis(
            field, -1, 0
        )
    filled = np.where(bad, np.nan, np.where(kept, values, solved))
    return np.ascontiguousarray(np.moveaxis(filled, 1, -1), dtype=images.dtype)

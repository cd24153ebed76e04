"""Arguments that the metrics share: images, maps, masks, boxes, numbers. Called by all of `metrics`."""

import types
from collections.abc import Iterable
from typing import Any

import numpy as np

from tf_gradcam._arrays import check_no_data_set, check_no_paths
from tf_gradcam._checks import check_counts, check_number, did_you_mean
from tf_gradcam._checks import check_seed as check_field_seed


def as_images(images: Any) -> np.ndarray:
    """Return images `(N, *axes, C)` as an array of float32 or float64."""
    check_no_data_set("images", images)
    check_no_paths("images", images)
    array = _numbers("images", images)
    if not 3 <= array.ndim <= 5 or 0 in array.shape:
        raise ValueError(
            "`images` must be a batch (N, *axes, C) of at least one image with 1 to 3 axes, channels last. "
            f"Received: shape {array.shape}. Add a batch axis to one image: image[None]"
        )
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def as_maps(maps: Any, name: str = "maps") -> np.ndarray:
    """Return maps `(N, *axes)` as an array of float64."""
    array = _numbers(name, maps)
    if not 2 <= array.ndim <= 4 or 0 in array.shape:
        raise ValueError(
            f"`{name}` must be a batch (N, *axes) of at least one map with 1 to 3 axes. "
            f"Received: shape {array.shape}. Add a batch axis to one map: map[None]"
        )
    return array.astype(np.float64)


def images_and_maps(images: Any, maps: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return images `(N, *axes, C)` and their maps `(N, *axes)`, float64."""
    images, maps = as_images(images), as_maps(maps)
    check_same_shape(maps.shape, images.shape)
    return images, maps


def check_same_shape(maps: tuple[int, ...], images: tuple[int, ...], name: str = "`maps`") -> None:
    """Raise a `ValueError` unless maps of one shape belong to images of the other."""
    if maps != images[:-1]:
        raise ValueError(
            f"{name} must have one value for each pixel of `images`, here {images[:-1]}. "
            f"Received: shape {maps}. Resize maps to the size of the images first: a heatmap of "
            "GradCAM has it, unless `size` was given."
        )


def two_batches(first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return two batches of maps of one shape, float64."""
    arrays = as_maps(first, "first"), as_maps(second, "second")
    if arrays[0].shape != arrays[1].shape:
        raise ValueError(
            "`first` and `second` must have one shape (N, *axes). "
            f"Received: shapes {arrays[0].shape} and {arrays[1].shape}"
        )
    return arrays


def values_of_images(**arguments: Any) -> list[np.ndarray]:
    """Return these arguments, each one number for each image `(N,)`, as arrays of float64."""
    arrays = [_numbers(name, values).astype(np.float64) for name, values in arguments.items()]
    for name, array in zip(arguments, arrays, strict=True):
        if array.ndim != 1 or array.shape != arrays[0].shape or not array.size:
            others = "" if len(arrays) == 1 else f", as many as `{next(iter(arguments))}`"
            raise ValueError(
                f"`{name}` must be one number for each image (N,){others}. Received: shape {array.shape}"
            )
    return arrays


def _numbers(name, values):
    try:
        array = np.asarray(values)
    except ValueError as error:  # lists of different lengths
        raise ValueError(f"`{name}` must be one array. Received: {type(values).__name__}; {error}") from None
    if array.dtype.kind not in "fiub":
        array = _widened(array)
    if array is None:
        raise TypeError(f"`{name}` must be an array of real numbers. Received: {type(values).__name__}")
    return array


def _widened(array):
    """Return an array of a dtype that NumPy does not know, such as bfloat16, as float32; else `None`."""
    if array.dtype.kind != "V" or array.dtype.names is not None:
        return None
    try:
        return array.astype(np.float32)
    except (TypeError, ValueError):
        return None


def finite_rows(*batches: np.ndarray) -> np.ndarray:
    """Return for which images all values in every batch `(N, ...)` are finite, bool `(N,)`."""
    rows = [np.isfinite(batch).reshape(len(batch), -1).all(axis=1) for batch in batches]
    return np.logical_and.reduce(rows)


def check_masks(masks: Any, shape: tuple[int, ...], name: str, of: str) -> np.ndarray:
    """Return masks as a bool array, or raise an error unless they have this shape."""
    array = _numbers(name, masks)
    if array.dtype != np.bool_:
        raise TypeError(
            f"`{name}` must be bool, True at each pixel that counts. Received: dtype {array.dtype}. "
            "Compare first: masks > 0, or labels == index"
        )
    if array.shape != shape:
        raise ValueError(
            f"`{name}` must have one value for each pixel of `{of}`, here {shape}. "
            f"Received: shape {array.shape}"
        )
    return array


def maps_and_masks(maps: Any, masks: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return maps, float64, and masks, bool, both `(N, *axes)`; `masks` may be boxes."""
    maps = as_maps(maps)
    array = _numbers("masks", masks)
    corners = 2 * (maps.ndim - 1)
    are_boxes = array.dtype.kind in "iuf" and array.shape != maps.shape
    if are_boxes and array.ndim in (2, 3) and array.shape[-1] == corners and len(array) == len(maps):
        return maps, box_masks(array, maps.shape[1:])
    return maps, check_masks(array, maps.shape, "masks", "maps")


def box_masks(boxes: Any, size: Any) -> np.ndarray:
    """Make masks from boxes: a pixel is inside where its centre is.

    Args:
        boxes: one box for each image `(N, 4)`, or several `(N, K, 4)`, whose union is the mask: corners
            `(x1, y1, x2, y2)` in pixels, the second outside, so that `(0, 0, width, height)` is everything.
            A signal has `(x1, x2)`, a volume `(x1, y1, z1, x2, y2, z2)`, x along the last axis. A box with
            a NaN is no box: it pads images with fewer objects.
        size: lengths of the axes, such as `(height, width)`.

    Returns:
        Masks, bool `(N, *size)`.

    Raises:
        ValueError: if there are not two corners for each axis of `size`, or a corner is right of or below
            the one that must come after it.
    """
    array = _numbers("boxes", boxes).astype(np.float64)
    size = tuple(int(length) for length in np.atleast_1d(size))
    axes = len(size)
    if array.ndim == 2:
        array = array[:, None]
    if array.ndim != 3 or array.shape[-1] != 2 * axes:
        raise ValueError(
            f"`boxes` must be (N, {2 * axes}) or (N, K, {2 * axes}) for a size of {axes} axes: "
            f"two corners. Received: shape {np.shape(boxes)}, size={size}"
        )
    low, high = array[..., :axes], array[..., axes:]
    if (low > high).any():
        raise ValueError(
            "`boxes` must be corners (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2, not a corner and a size. "
            f"Received: {array[(low > high).any(axis=-1)][0].tolist()}"
        )
    inside = np.ones((*array.shape[:2], *size), dtype=bool)
    for axis, length in enumerate(size):
        centres = np.arange(length) + 0.5
        column = axes - 1 - axis  # x is the last axis.
        along = (centres >= low[..., column, None]) & (centres < high[..., column, None])
        inside &= along.reshape(*array.shape[:2], *(length if each == axis else 1 for each in range(axes)))
    inside &= np.isfinite(array).all(axis=-1).reshape(*array.shape[:2], *[1] * axes)
    return inside.any(axis=1)


def check_choice(name: str, value: Any, known: Iterable[str]) -> None:
    """Raise a `ValueError` unless an argument is one of the names that are known."""
    known = list(known)
    if not isinstance(value, str) or value not in known:
        choices = ", ".join(f'"{each}"' for each in known)
        hint = did_you_mean(value, known) if isinstance(value, str) else ""
        raise ValueError(f"`{name}` must be one of {choices}. Received: {name}={value!r}. {hint}".rstrip(" "))


def check_count(**arguments: Any) -> None:
    """Raise a `ValueError` unless these arguments are whole numbers from 1."""
    check_counts(types.SimpleNamespace(**arguments), *arguments)


def check_positive(below: float = np.inf, **arguments: Any) -> None:
    """Raise a `ValueError` unless these arguments are numbers above 0 and below a limit."""
    for name in arguments:
        check_number(types.SimpleNamespace(**arguments), name, below=below)


def check_nonnegative(**arguments: Any) -> None:
    """Raise a `ValueError` unless these arguments are numbers of 0 or more."""
    for name in arguments:
        check_number(types.SimpleNamespace(**arguments), name, above=None)


def generator(seed: Any) -> np.random.Generator:
    """Return a random generator, or raise a `ValueError` unless `seed` is a whole number of 32 bits."""
    check_field_seed(types.SimpleNamespace(seed=seed))
    return np.random.default_rng(seed % 2**32)


def spread(images: np.ndarray) -> np.ndarray:
    """Return maximum minus minimum of each image, as `(N, 1, ..., 1)`; NaN if a value is NaN."""
    axes = tuple(range(1, images.ndim))
    with np.errstate(invalid="ignore"):
        return images.max(axes, keepdims=True) - images.min(axes, keepdims=True)

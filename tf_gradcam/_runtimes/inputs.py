"""Images as a file takes them, checked as `GradCAM` checks them, in its words. `loaded` calls it.

`_model.inputs` does the same for tensors; `tests/runtimes/test_load.py` compares what both say.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_gradcam import formats
from tf_gradcam._arrays import (
    READ_ALL,
    check_no_data_set,
    check_whole_numbers,
    rank_error,
    real_array,
    shape_error,
)
from tf_gradcam._runtimes.single_files import InputSpec


def as_arrays(images: Any, specs: Sequence[InputSpec]) -> dict[str, np.ndarray]:
    """Return one array with a batch axis for each input, by its name and in its dtype.

    Args:
        images: an array, one image or a batch; or for several inputs a list, tuple or dict of them.
        specs: what the file takes.

    Raises:
        TypeError: if `images` does not hold real numbers.
        ValueError: if there is not one array for each input, or one has the wrong shape, is empty or has NaN;
            or if an input takes whole numbers and other ones are given.
    """
    arrays = [_checked_array(image) for image in _one_per_input(images, specs)]
    shapes = [array.shape for array in arrays]
    arrays = _add_batch_axis(arrays, specs)
    for array, spec, shape in zip(arrays, specs, shapes, strict=True):
        _check_shape(array, spec, shape, len(shapes) > 1)
        if np.dtype(spec.dtype).kind in "iu" and array.dtype != spec.dtype:
            check_whole_numbers("images", array, np.iinfo(spec.dtype))
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError("`images` must be finite. Received: NaN or infinity in it.")
    with np.errstate(over="ignore"):
        return {
            spec.name: np.ascontiguousarray(array, dtype=spec.dtype)
            for spec, array in zip(specs, arrays, strict=True)
        }


def _one_per_input(images, specs) -> list:
    """Return what is given for each input, in their order."""
    if isinstance(images, dict) and set(images) == {spec.name for spec in specs}:
        return [images[spec.name] for spec in specs]
    is_list = isinstance(images, list | tuple)
    if len(specs) == 1 and not isinstance(images, dict):
        # A list may hold one array, or the numbers of an array.
        holds_array = is_list and len(images) == 1 and hasattr(images[0], "shape")
        return [images[0] if holds_array and len(images[0].shape) == len(specs[0].shape) else images]
    if is_list and len(images) == len(specs):
        return list(images)
    expected = [f"{spec.name} {spec.shape}" for spec in specs]
    length = f" of {len(images)}" if isinstance(images, dict | list | tuple) else ""
    raise ValueError(
        f"`images` must hold what the model takes, {len(specs)} inputs: "
        f"{expected if len(specs) > 1 else expected[0]}. "
        f"Received: a {type(images).__name__}{length}. Give them in that structure."
    )


def _checked_array(image) -> np.ndarray:
    """Return `image` as an array of real numbers with at least one element; nothing is copied."""
    check_no_data_set("images", image)
    first = image[0] if isinstance(image, list | tuple) and len(image) > 0 else image
    if isinstance(first, str | bytes | os.PathLike) or hasattr(first, "getexif"):
        raise _not_an_array_error(image)
    array = real_array("images", image)
    if 0 in array.shape:
        raise ValueError(f"`images` must not be empty. Received: shape {array.shape}")
    return array


def _not_an_array_error(image) -> TypeError:
    """Return the error for a path, bytes or a PIL image instead of an array."""
    is_path = isinstance(image, str | os.PathLike)
    source = repr(image) if is_path else "photograph"
    read = f"tf_gradcam.load_image({source}, size=(height, width))"
    if isinstance(image, list | tuple) and len(image) > 1:
        read = READ_ALL
    if is_path and formats.name_of_format(image):
        read = f"tf_gradcam.formats.read({source})"
    return TypeError(
        f"`images` must be an array or tensor, as the model takes it. Received: {image!r:.80} (of type "
        f"{type(image).__name__}). Read it first: {read}, and preprocess it as the model needs."
    )


def _add_batch_axis(arrays, specs) -> list[np.ndarray]:
    """Return arrays with a batch axis, which all of them have or all of them lack."""
    given, ranks = [array.ndim for array in arrays], [len(spec.shape) for spec in specs]
    if given == [rank - 1 for rank in ranks]:
        arrays = [array[None] for array in arrays]
    elif given != ranks:
        raise rank_error("images", [array.shape for array in arrays], [spec.shape for spec in specs])
    if len({len(array) for array in arrays}) > 1:
        raise ValueError(
            "`images` must have the same batch size for each input. Received: batch sizes "
            f"{[len(array) for array in arrays]}"
        )
    return arrays


def _check_shape(array, spec, given, several) -> None:
    fits = zip(array.shape, spec.shape, strict=True)
    if not all(length is None or length == size for size, length in fits):
        resize = "Resize it first: tf_gradcam.load_image(photograph, size=(height, width))."
        raise shape_error("images", given, spec.shape, resize, several)

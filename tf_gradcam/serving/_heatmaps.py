"""The heatmap in a response, its picture and its boxes: `heatmap`, `overlay`, `boxes`. Users call them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_gradcam._checks import is_whole
from tf_gradcam._files import header_size
from tf_gradcam._images import ALPHA, Look, check_size, load_image, overlay_named
from tf_gradcam._images import boxes as heatmap_boxes
from tf_gradcam._optional import require
from tf_gradcam.serving._arrays import MOST_VALUES
from tf_gradcam.serving._responses import answers
from tf_gradcam.serving._rest import ONLY_OUTPUT

_HEATMAP_OUTPUTS = ("heatmap", "heatmap_png_bytes")  # in [0, 1] already, not signed maps


def heatmap(
    response: Any, size: tuple[int, int] | None = None, *, index: int = 0, rank: int = 0
) -> np.ndarray:
    """Return the heatmap of one image, computed here from what the server gave.

    The first of these outputs is used: `heatmap` or `heatmap_png_bytes`; a signed `map`, or an only output
    without a name, `(N, h, w)`; `activations` and `gradients`, `(N, h, w, K)`, channels last, whose map is
    Grad-CAM's, `sum_k mean(gradients_k) activations_k` (Selvaraju et al., "Grad-CAM", 2017, equations 1 and
    2). A map becomes a heatmap as in `GradCAM`: ReLU, resize, divide by the maximum; it is 0 where nothing is
    positive.

    Args:
        response: a response, or its outputs; see `answers`.
        size: `(height, width)` in pixels, or `None` to keep the server's. Bilinear, as `tf.image.resize`.
        index: position of the image in the batch, from 0.
        rank: position among the heatmaps of this image, from 0, where it has several, `(N, K, h, w)`: of
            `gradcam_top_k`, 0 is the class with the highest score.

    Returns:
        `(h, w)` float32 in `[0, 1]`.

    Raises:
        ImportError: if OpenCV, which resizes, or Pillow, which reads the header of a PNG file, is not
            installed.
        TypeError: as `answers` does.
        ValueError: as `answers` does; if the response has no output from which a heatmap can be computed; if
            that has the wrong shape, NaN, or more than `MOST_VALUES` values; if there is no image `index` or
            heatmap `rank`.

    Example:

    ```python
    serving.heatmap({"activations": activations, "gradients": gradients}, (224, 224))
    ```
    """
    check_size(size)
    name, values = _read_values(response, index, rank, (*_HEATMAP_OUTPUTS, "map"))
    is_signed_map = name not in _HEATMAP_OUTPUTS
    if is_signed_map:
        values = np.maximum(values, 0)
    elif values.min() < -1e-6 or values.max() > 1 + 1e-6:
        raise ValueError(
            f"`{name}` must be in [0, 1]. Received: values from {values.min():.4g} to {values.max():.4g}. "
            "If it is a signed map, give it as `map`."
        )
    if size is not None:
        cv2 = require("cv2", "opencv-python")
        values = cv2.resize(values, (int(size[1]), int(size[0])), interpolation=cv2.INTER_LINEAR)
    if is_signed_map and values.max() > 0:
        values = values / values.max()
    return np.clip(values, 0, 1).astype(np.float32)


def overlay(
    response: Any,
    photograph: Any,
    *,
    index: int = 0,
    rank: int = 0,
    vmax: float | None = None,
    signed: bool = False,
    alpha: float = ALPHA,
    colormap: str | None = None,
    fade: bool = True,
) -> np.ndarray:
    """Blend the heatmap of a response over its photograph, as `tf_gradcam.overlay` does.

    Args:
        response: a response, or its outputs; see `answers`.
        photograph: the photograph that was sent, in its full size: path, bytes, PIL image or array, as
            `tf_gradcam.load_image` takes it. A path or bytes need Pillow, which reads the file's header.
        index: position of the photograph in the batch; see `heatmap`.
        rank: position among its heatmaps, where it has several; see `heatmap`.
        vmax: the value that gets the full colour, in the units of the signed map; see `tf_gradcam.overlay`.
            The response must hold a `map`, or `activations` and `gradients`.
        signed: whether what speaks against is drawn as well; see `tf_gradcam.overlay`. As for `vmax`.
        alpha: weight of the colours in `[0, 1]`; see `tf_gradcam.overlay`.
        colormap: name of a colour map; see `tf_gradcam.overlay`.
        fade: whether the colours fade with the heatmap; see `tf_gradcam.overlay`.

    Returns:
        uint8 array `(H, W, 3)`, RGB, of the photograph's height and width.

    Raises:
        ImportError, FileNotFoundError, TypeError, ValueError: as `heatmap` and `tf_gradcam.overlay` do.

    Example:

    ```python
    picture = serving.overlay(stub.Predict(request), "cat.jpg")
    ```
    """
    look = Look(vmax, signed, alpha, colormap, fade)
    if vmax is None and not signed:
        values = heatmap(response, index=index, rank=rank)
    else:
        _, values = _read_values(response, index, rank, ("map",))
    return overlay_named("photograph", photograph, values, look)


def boxes(
    response: Any,
    threshold: float | str = 0.15,
    *,
    index: int = 0,
    rank: int = 0,
    scale: float | None = None,
    size: Sequence[int] | None = None,
    sort: str = "share",
    most: int | None = None,
) -> list[Any]:
    """Return the boxes of the heatmap of a response, as `tf_gradcam.boxes` does.

    Those of `heatmap_png_bytes` are made from its 256 grey levels.

    Args:
        response: a response, or its outputs; see `answers`.
        threshold: what counts, as a fraction of the maximum, or `"otsu"`; see `tf_gradcam.boxes`.
        index: position of the image in the batch; see `heatmap`.
        rank: position among its heatmaps, where it has several; see `heatmap`.
        scale: what `threshold` is a fraction of; see `tf_gradcam.boxes`.
        size: `(height, width)` of the photograph in whose pixels the boxes are; `None` for the heatmap's own.
        sort: which boxes come first; see `tf_gradcam.boxes`.
        most: how many boxes at most; see `tf_gradcam.boxes`.

    Returns:
        A list of `tf_gradcam.HeatmapBox`.

    Raises:
        ImportError, TypeError, ValueError: as `heatmap` and `tf_gradcam.boxes` do.

    Example:

    ```python
    found = serving.boxes(response, 0.2, size=(300, 451), most=1)
    ```
    """
    values = heatmap(response, index=index, rank=rank)
    return heatmap_boxes(values, threshold, scale=scale, size=size, sort=sort, most=most)


def _read_values(response, index, rank, wanted) -> tuple[str, np.ndarray]:
    """Return the name and the values `(h, w)`, float64, of the first of the wanted outputs."""
    name, maps = _heatmap_or_map(answers(response), index, wanted)
    maps = maps if maps.ndim == 3 else maps[None]
    _check_position("rank", rank, len(maps), "heatmaps for each image")
    return name, np.ascontiguousarray(_checked_numbers(name, maps[rank, ...], "(h, w)"), np.float64)


def _heatmap_or_map(outputs, index, wanted) -> tuple[str, np.ndarray]:
    """Return the name of what explains an image, and its values, `(h, w)` or `(K, h, w)`."""
    for name in wanted:
        if name in outputs:
            values = _values_of_image(outputs, name, index)
            return name, _decode_png(name, values) if name.endswith("_bytes") else values
    if {"activations", "gradients"} <= outputs.keys():
        activations = _values_of_image(outputs, "activations", index)
        return "map", _gradcam_map(activations, _values_of_image(outputs, "gradients", index))
    if list(outputs) == [ONLY_OUTPUT]:
        return ONLY_OUTPUT, _values_of_image(outputs, ONLY_OUTPUT, index)
    names = ", ".join(f"`{name}`" for name in wanted)
    raise ValueError(
        f"`response` must have {names}, or `activations` and `gradients`. "
        f"Received: {', '.join(map(repr, outputs)) or 'no output':.200}. Ask the server for the signature "
        '`gradcam`; or say which output is the map: {"map": serving.answers(response)[...]}'
    )


def _values_of_image(outputs, name, index) -> np.ndarray:
    values = outputs[name]
    if values.ndim < 1:
        raise ValueError(f"`{name}` must have an axis for the batch. Received: {values!r:.80}")
    _check_position("index", index, len(values), "images")
    return values[index, ...]


def _check_position(argument, value, count, noun) -> None:
    if not is_whole(value) or not 0 <= value < count:
        raise ValueError(
            f"`{argument}` must be a whole number from 0 and below {count}: the response has {count} {noun}. "
            f"Received: {argument}={value!r}"
        )


def _checked_numbers(name, values, axes) -> np.ndarray:
    """Return `values` if they are finite numbers on these axes, and at most `MOST_VALUES`."""
    if values.dtype.kind not in "biuf" or values.ndim != axes.count(",") + 1 or values.size == 0:
        raise ValueError(
            f"`{name}` must be real numbers, {axes} for each image. Received: dtype {values.dtype} and shape "
            f"{values.shape}"
        )
    if values.size > MOST_VALUES:
        raise ValueError(
            f"`{name}` must have at most {MOST_VALUES:,} values for each image. "
            f"Received: shape {values.shape}. Export a smaller one."
        )
    if not np.isfinite(values).all():
        raise ValueError(f"`{name}` must be finite. Received: NaN or infinity from the server.")
    return values


def _gradcam_map(activations, gradients) -> np.ndarray:
    activations = _checked_numbers("activations", activations, "(h, w, K)")
    gradients = _checked_numbers("gradients", gradients, "(h, w, K)")
    if activations.shape != gradients.shape:
        raise ValueError(
            "`activations` and `gradients` must have the same shape. "
            f"Received: {activations.shape} and {gradients.shape} for an image."
        )
    with np.errstate(over="ignore", invalid="ignore"):  # A map that is not finite is refused later.
        return np.einsum("ijk,k->ij", activations, gradients.mean(axis=(0, 1), dtype=np.float64))


def _decode_png(name, values) -> np.ndarray:
    data = values[()]
    if not isinstance(data, bytes):
        raise ValueError(f"`{name}` must be bytes, one PNG file for each image. Received: {data!r:.80}")
    try:
        width, height = header_size(data)
        if width * height > MOST_VALUES:  # a lower limit than a photograph's, before anything is decoded
            raise ValueError(f"{width} x {height} pixels, more than {MOST_VALUES:,}")
        pixels = load_image(data)
    except ValueError as error:
        raise ValueError(f"`{name}` must hold the PNG file of a heatmap: {error}") from error
    if np.ptp(pixels, axis=-1).any():
        raise ValueError(
            f"`{name}` must be grey. Received: a coloured picture. Ask for the heatmap's values."
        )
    return pixels[..., 0] / 255

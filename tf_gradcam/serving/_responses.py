"""In the client of a model server: its response to arrays, a heatmap, a picture. TensorFlow is not needed.

Responses are those of TensorFlow Serving: REST's JSON, or gRPC's `PredictResponse`.
"""

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_gradcam._checks import is_whole
from tf_gradcam._images import check_size, header_size, load_image, require
from tf_gradcam._images import overlay as overlay_photograph

MOST_VALUES = 2**24  # of one image's heatmap or activations: 4096 x 4096, or 512 x 512 x 64
_FINISHED = ("heatmap", "heatmap_png_bytes")
_ALONE = "output"  # REST leaves out the name of an output that is alone


# By the number in `TensorProto.dtype`: the dtype, the field of its values, and what that keeps their bits in.
_STRING, _BFLOAT16 = 7, 14
_DTYPES = {
    1: ("float32", "float_val", "float32"),
    2: ("float64", "double_val", "float64"),
    3: ("int32", "int_val", "int32"),
    4: ("uint8", "int_val", "uint8"),
    5: ("int16", "int_val", "int16"),
    6: ("int8", "int_val", "int8"),
    8: ("complex64", "scomplex_val", "float32"),
    9: ("int64", "int64_val", "int64"),
    10: ("bool", "bool_val", "bool"),
    _BFLOAT16: ("uint16", "half_val", "uint16"),  # NumPy has no bfloat16
    17: ("uint16", "int_val", "uint16"),
    18: ("complex128", "dcomplex_val", "float64"),
    19: ("float16", "half_val", "uint16"),
    22: ("uint32", "uint32_val", "uint32"),
    23: ("uint64", "uint64_val", "uint64"),
}


def answers(response: Any) -> dict[str, np.ndarray]:
    """Return every output of a response by its name.

    REST and gRPC give the same, but that JSON knows no dtypes.

    Args:
        response: what TensorFlow Serving answered. From REST the text, as `str` or bytes, or what it parses
            to: `{"predictions": [...]}` or `{"outputs": ...}`. From gRPC the `PredictResponse`: of whichever
            compiled stubs, its fields alone are read. Or a dict of arrays or tensors, as this function
            returns it, or a signature that was loaded in Python.

    Returns:
        A dict of arrays, the batch first: of numbers; of `bytes` in outputs whose name ends in `_bytes`, and
        else of `str`, both with the dtype object. An output that REST gives no name, because it is alone, is
        called `"output"`.

    Raises:
        TypeError: if `response` is nothing of the kind.
        ValueError: if it reports an error, which is quoted, or is malformed.

    Example:

    ```python
    reply = requests.post("http://localhost:8501/v1/models/cat:predict", json=request)
    serving.answers(reply.content)["class"]  # (N,)
    ```
    """
    if isinstance(response, str | bytes | bytearray):
        response = _parsed(response)
    if isinstance(response, Mapping):
        named = {name: _from_json(name, value) for name, value in _columns(response).items()}
    elif isinstance(getattr(response, "outputs", None), Mapping):
        named = {name: _from_proto(name, tensor) for name, tensor in response.outputs.items()}
    else:
        raise TypeError(
            "`response` must be REST's JSON (str, bytes, dict), gRPC's PredictResponse, or a dict of arrays. "
            f"Received: {response!r:.80} (of type {type(response).__name__})"
        )
    return {name: _text(values) if _is_text(name, values) else values for name, values in named.items()}


def heatmap(
    response: Any, size: tuple[int, int] | None = None, *, index: int = 0, rank: int = 0
) -> np.ndarray:
    """Return the heatmap of one image, made here of whatever the server gave.

    The first of these is taken: `heatmap` or `heatmap_png_bytes`, which are finished; a signed `map`, or an
    output that is alone, `(N, h, w)`; `activations` and `gradients`, `(N, h, w, K)`, channels last, whose map
    is Grad-CAM's, `sum_k mean(gradients_k) activations_k` (Selvaraju et al., "Grad-CAM", 2017, equations 1
    and 2). A map becomes a heatmap as `GradCAM` does it: ReLU, resize, divide by its maximum, and where
    nothing is positive it is 0.

    Args:
        response: what `answers` takes.
        size: `(height, width)` in pixels, or `None` to keep the server's. Bilinear, as in
            `tf.image.resize`.
        index: which image of the batch.
        rank: which of the heatmaps of this image, where it has several, `(N, K, h, w)`: of `gradcam_top_k`
            0 is the class with the highest score.

    Returns:
        `(h, w)` float32 in `[0, 1]`.

    Raises:
        ImportError: if OpenCV is missing, which resizes, or Pillow, which reads the header of a PNG file.
        TypeError: as `answers` does.
        ValueError: as `answers` does; if the response has nothing that makes a heatmap, or it is no heatmap,
            has NaN, or more than `MOST_VALUES` values; if it has no image `index` or no class `rank`.

    Example:

    ```python
    serving.heatmap({"activations": activations, "gradients": gradients}, (224, 224))
    ```
    """
    check_size(size)
    name, maps = _explanation(answers(response), index)
    maps = maps if maps.ndim == 3 else maps[None]
    _check_position("rank", rank, len(maps), "heatmaps for an image")
    values = np.ascontiguousarray(_checked(name, maps[rank, ...], "(h, w)"), np.float64)
    finished = name in _FINISHED
    if not finished:
        values = np.maximum(values, 0)
    elif values.min() < -1e-6 or values.max() > 1 + 1e-6:
        raise ValueError(
            f"`{name}` must be in [0, 1]. Received: values from {values.min():.4g} to {values.max():.4g}. "
            "Give it as `map`, if it is one."
        )
    if size is not None:
        cv2 = require("cv2", "opencv-python")
        values = cv2.resize(values, (int(size[1]), int(size[0])), interpolation=cv2.INTER_LINEAR)
    if not finished and values.max() > 0:
        values = values / values.max()
    return np.clip(values, 0, 1).astype(np.float32)


def overlay(
    response: Any,
    photograph: Any,
    *,
    index: int = 0,
    rank: int = 0,
    alpha: float = 0.4,
    colormap: str = "jet",
    fade: bool = False,
) -> np.ndarray:
    """Lay the heatmap of a response over its photograph, as `tf_gradcam.overlay` does.

    Args:
        response: what `answers` takes.
        photograph: the one that was sent, in its full size: path, bytes, PIL image or array, as
            `tf_gradcam.load_image` takes it. Path and bytes need Pillow, which reads their header.
        index: which image of the batch the photograph is; see `heatmap`.
        rank: which of its heatmaps, where it has several; see `heatmap`.
        alpha: weight of the colours in `[0, 1]`; see `tf_gradcam.overlay`.
        colormap: name of an OpenCV colour map; see `tf_gradcam.overlay`.
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
    named = answers(response)
    values = heatmap(named, index=index, rank=rank)
    return overlay_photograph(photograph, values, alpha=alpha, colormap=colormap, fade=fade)


# REST


def _parsed(text):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # A deep nest of brackets is a RecursionError.
        raise ValueError(
            f"`response` must be JSON: {error}. Received: {len(text)} characters, {text[:60]!r} and so on."
        ) from error


def _columns(response) -> Mapping:
    """Return the value of each output, the batch first, whichever way REST wrote them."""
    reply = {name: value for name, value in response.items() if not hasattr(value, "shape")}
    if reply.get("error"):
        raise ValueError(f"The server answered with an error: {reply['error']!s:.1000}")
    if "predictions" in reply:
        return _transposed(reply["predictions"])
    if "outputs" in reply:
        columns = reply["outputs"]
        return columns if _is_named(columns) else {_ALONE: columns}
    if not response:
        raise ValueError("`response` must have outputs. Received: an empty dict.")
    return response


def _transposed(rows) -> Mapping:
    if not isinstance(rows, list):
        raise ValueError(f"`predictions` must be a list of one row for each image. Received: {rows!r:.80}")
    if not any(map(_is_named, rows)):
        return {_ALONE: rows}
    names = set(rows[0]) if _is_named(rows[0]) else set()
    if not all(_is_named(row) and set(row) == names for row in rows):
        raise ValueError("`predictions` must have the same outputs in every row. Received: rows that differ.")
    return {name: [row[name] for row in rows] for name in rows[0]}


def _is_named(value) -> bool:
    """Tell a dict of outputs from bytes, which are a dict in JSON, too."""
    return isinstance(value, Mapping) and set(value) != {"b64"}


def _from_json(name, value) -> np.ndarray:
    if hasattr(value, "shape"):  # an array or tensor already
        return np.asarray(value)
    try:
        # Of objects first: of strings NumPy would make an array in which each is as long as the longest.
        cells = np.asarray(value, dtype=object)
        types = set(map(type, cells.ravel()))
        if types <= {bool, int, float}:
            return cells.astype(types.pop() if len(types) == 1 else float)
        if types == {dict}:
            return _objects([_unpacked(cell) for cell in cells.ravel()], cells.shape)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"Output {name!r} of `response` can't be read: {error}") from error
    if types == {str}:
        return cells
    raise ValueError(
        f"Output {name!r} of `response` must be an array of numbers, strings or bytes, all of one kind. "
        f"Received: {', '.join(sorted(each.__name__ for each in types))} in the shape {cells.shape}; a list "
        "among them is one of another length."
    )


def _unpacked(cell) -> bytes:
    if set(cell) != {"b64"} or not isinstance(cell["b64"], str):
        raise ValueError(f'bytes must be {{"b64": "..."}}. Received: {cell!r:.80}')
    return base64.b64decode(cell["b64"], validate=True)


# gRPC


def _from_proto(name, tensor) -> np.ndarray:
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    try:
        if tensor.tensor_shape.unknown_rank:
            raise ValueError("its shape is not known")
        if tensor.dtype == _STRING:
            values = _strings(tensor, math.prod(shape))
        else:
            values = _numbers(tensor)
            if len(values) == 1 < math.prod(shape) <= MOST_VALUES:  # one stands for all, and takes no room
                return np.broadcast_to(values, shape)
        if len(values) != math.prod(shape):
            raise ValueError(f"its values, {len(values)} of them, don't fill the shape {shape}")
        return values.reshape(shape)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"Output {name!r} of `response` can't be read: {error}") from error


def _numbers(tensor) -> np.ndarray:
    if tensor.dtype not in _DTYPES:
        raise ValueError(f"it has the dtype number {tensor.dtype}, none of {sorted([_STRING, *_DTYPES])}")
    dtype, field, stored = _DTYPES[tensor.dtype]
    # As a list, because NumPy lets what is too large for its dtype overflow when it comes from a proto.
    content = tensor.tensor_content or np.array(list(getattr(tensor, field)), dtype=stored).tobytes()
    values = np.frombuffer(content, dtype)
    if tensor.dtype == _BFLOAT16:  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def _strings(tensor, count) -> np.ndarray:
    if not tensor.tensor_content:
        return _objects(tensor.string_val, (len(tensor.string_val),))
    # With --enable_serialization_as_tensor_content: the lengths of all, then all.
    content, start, lengths = tensor.tensor_content, 0, []
    for _ in range(count):
        length, start = _varint(content, start)
        lengths.append(length)
    strings = []
    for length in lengths:
        strings.append(content[start : start + length])
        start += length
    if start != len(content):
        raise ValueError(f"its strings are {start} bytes long, and it has {len(content)}")
    return _objects(strings, (len(strings),))


def _varint(content, start) -> tuple[int, int]:
    """Return the number that is written in groups of seven bits, the lowest first, and where it ends."""
    number = 0
    for place, byte in enumerate(content[start : start + 5]):
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number, start + place + 1
    raise ValueError("it has no lengths of its strings")


# Strings


def _objects(values, shape) -> np.ndarray:
    cells = np.empty(len(values), dtype=object)
    cells[:] = values
    return cells.reshape(shape)


def _is_text(name, values) -> bool:
    return values.dtype == object and not name.endswith("_bytes")


def _text(values) -> np.ndarray:
    decoded = [cell.decode(errors="replace") if isinstance(cell, bytes) else cell for cell in values.ravel()]
    return _objects(decoded, values.shape)


# Heatmaps


def _explanation(named, index) -> tuple[str, np.ndarray]:
    """Return what explains an image, `(h, w)` or `(K, h, w)`, and the name of what it is."""
    for name in ("heatmap", "heatmap_png_bytes", "map"):
        if name in named:
            values = _of_image(named, name, index)
            return name, _decoded(name, values) if name.endswith("_bytes") else values
    if {"activations", "gradients"} <= named.keys():
        return "map", _gradcam(*(_of_image(named, name, index) for name in ("activations", "gradients")))
    if list(named) == [_ALONE]:
        return _ALONE, _of_image(named, _ALONE, index)
    raise ValueError(
        "`response` must have `heatmap`, `heatmap_png_bytes`, `map`, or `activations` and `gradients`. "
        f"Received: {', '.join(map(repr, named)) or 'no output':.200}. Ask the server for the signature "
        '`gradcam`; or say which it is: {"map": serving.answers(response)[...]}'
    )


def _of_image(named, name, index) -> np.ndarray:
    values = named[name]
    if values.ndim < 1:
        raise ValueError(f"`{name}` must have an axis for the batch. Received: {values!r:.80}")
    _check_position("index", index, len(values), "images")
    return values[index, ...]


def _check_position(argument, value, count, noun) -> None:
    if not is_whole(value) or not 0 <= value < count:
        raise ValueError(
            f"`{argument}` must be a whole number from 0 and below {count}: so many {noun} has the response. "
            f"Received: {argument}={value!r}"
        )


def _checked(name, values, axes) -> np.ndarray:
    """Return `values`, if they are numbers on these axes, finite, and not too many."""
    if values.dtype.kind not in "biuf" or values.ndim != axes.count(",") + 1 or values.size == 0:
        raise ValueError(
            f"`{name}` must be real numbers, {axes} for each image. Received: {values.dtype} of the shape "
            f"{values.shape}"
        )
    if values.size > MOST_VALUES:
        raise ValueError(
            f"`{name}` must have at most {MOST_VALUES:,} values for each image. "
            f"Received: the shape {values.shape}. Export a smaller one."
        )
    if not np.isfinite(values).all():
        raise ValueError(f"`{name}` must be finite. Received: NaN or infinity from the server.")
    return values


def _gradcam(activations, gradients) -> np.ndarray:
    activations = _checked("activations", activations, "(h, w, K)")
    gradients = _checked("gradients", gradients, "(h, w, K)")
    if activations.shape != gradients.shape:
        raise ValueError(
            "`activations` and `gradients` must have one shape. "
            f"Received: {activations.shape} and {gradients.shape} for an image."
        )
    with np.errstate(over="ignore", invalid="ignore"):  # What isn't finite is refused afterwards.
        return np.einsum("ijk,k->ij", activations, gradients.mean(axis=(0, 1), dtype=np.float64))


def _decoded(name, values) -> np.ndarray:
    data = values[()]
    if not isinstance(data, bytes):
        raise ValueError(f"`{name}` must be bytes, one PNG file for each image. Received: {data!r:.80}")
    try:
        width, height = header_size(data)
        if width * height > MOST_VALUES:  # fewer than of a photograph, and before anything is decoded
            raise ValueError(f"{width} x {height} pixels, more than {MOST_VALUES:,}")
        pixels = load_image(data)
    except ValueError as error:
        raise ValueError(f"`{name}` must hold the PNG file of a heatmap: {error}") from error
    if np.ptp(pixels, axis=-1).any():
        raise ValueError(f"`{name}` must be grey. Received: colours, from which no heatmap can be read.")
    return pixels[..., 0] / 255

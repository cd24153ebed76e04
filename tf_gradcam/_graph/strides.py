"""How many pixels of the image lie between two neighbours of a layer's grid. `_signed_maps` calls it."""

from collections.abc import Sequence

import tensorflow as tf

from tf_gradcam._graph.graph import operations_between
from tf_gradcam._graph.graph_steps import HIDING, WINDOWED

_RESIZING = ("BackpropInput", "CropAndResize", "DepthToSpace", "Resize", "ScaleAndTranslate", "SpaceToDepth")


def strides_between(image: tf.Tensor, axes: int, end: tf.Tensor) -> list[int] | None:
    """Return the product of the strides of the convolutions and poolings from `image` to `end`.

    A step that is taken by slicing or reshaping is not seen: compare with the lengths.

    Args:
        image: the image, in a graph.
        axes: its number of axes without batch and channels.
        end: activations that depend on it.

    Returns:
        One number for each axis, or `None` if something resizes on the way, or can't be looked into.
    """
    steps = {image.ref(): [1] * axes}
    for operation in operations_between(image, end):
        given = [steps[tensor.ref()] for tensor in operation.inputs if tensor.ref() in steps]
        if not given:
            continue
        if operation.type in HIDING or any(part in operation.type for part in _RESIZING):
            return None
        found = [max(along) for along in zip(*given, strict=True)]
        if operation.type in WINDOWED:
            found = [a * b for a, b in zip(found, _strides(operation, axes), strict=True)]
        steps |= {output.ref(): found for output in operation.outputs}
    return steps.get(end.ref())


def _strides(operation: tf.Operation, axes: int) -> Sequence[int]:
    """Return the strides of a convolution or pooling along the last `axes`; 1 along those that it lacks."""
    strides = list(operation.get_attr("strides"))
    channels_first = operation.get_attr("data_format").startswith(b"NC")
    strides = strides[2:] if channels_first else strides[1:-1]
    return ([1] * axes + strides)[-axes:]

"""Where the map of each layer lies on the user's image, before `preprocess`. Called by explainers."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_gradcam._graph import Placement, Places, strides_between
from tf_gradcam._methods import Method, SourceImage, is_formula
from tf_gradcam._model import spatial_axes
from tf_gradcam._signed_maps.tapped import TappedLayer


def find_placements(
    images: Any,
    source: SourceImage | None,
    tapped: Sequence[TappedLayer],
    methods: Sequence[Method],
    maps: Sequence[tf.Tensor],
) -> list[Placement | None]:
    """Return where each map lies on the image that it depends on, or `None` if on all of it.

    Warn of operations on the way whose effect on positions is not known.

    Args:
        images: images before `preprocess`.
        source: the model's input on which the layers depend.
        tapped: the layers; none for a method at the image.
        methods: the method that computed each map.
        maps: signed maps of one image and score, each `(N, ...)`.
    """
    if source is None or tf.executing_eagerly():
        return [None] * len(maps)
    image = keras.tree.flatten(images)[source.position]
    if not tapped:
        return [_place_on_image(image, source, one) for one in maps]
    triples = zip(tapped, maps, methods, strict=True)
    return [_find_placement(image, source, *triple) for triple in triples]


def _find_placement(image, source, tapped, signed_map, method) -> Placement | None:
    grid = tapped.grid
    axes = signed_map.shape.rank - 1
    first = tapped.layer_call.channels_first
    image_axes = spatial_axes(image, axes, first)
    source_axes = spatial_axes(source.image, axes, source.channels_first)
    if image_axes is None or source_axes is None:
        return None
    # A method such as Guided Grad-CAM reads a layer, and its map lies on the image.
    lengths = [source.image.shape[axis] for axis in source_axes]
    is_as_large = list(signed_map.shape[1:]) == lengths != list(grid.shape)
    if axes > len(grid.shape) or (is_as_large and not is_formula(method)):
        return _place_on_image(image, source, signed_map, first)
    return _place(image, image_axes, tapped.activations, grid.axes())


def find_strides(
    images: Any, source: SourceImage | None, tapped: Sequence[TappedLayer]
) -> list[tf.Tensor | None]:
    """Return for each layer how many pixels lie between two cells of its grid, or `None` where not known.

    Args:
        images: images before `preprocess`.
        source: the model's input on which the layers depend.
        tapped: the layers.
    """
    if source is None or tf.executing_eagerly():
        return [None] * len(tapped)
    image = keras.tree.flatten(images)[source.position]
    found = [
        strides_between(image, len(each.grid.shape), each.activations) if each.grid.axes() else None
        for each in tapped
    ]
    return [None if each is None else tf.constant(each, tf.int32) for each in found]


def _place_on_image(image, source, signed_map, channels_first=None) -> Placement | None:
    """Return where a map on the model's input lies on the image before `preprocess`."""
    axes = signed_map.shape.rank - 1
    first = source.channels_first if channels_first is None else channels_first
    image_axes = spatial_axes(image, axes, first)
    source_axes = spatial_axes(source.image, axes, source.channels_first)
    if image_axes is None or source_axes is None:
        return None
    return _place(image, image_axes, source.image, source_axes)


def _place(image, image_axes, end, end_axes) -> Placement | None:
    places = Places(image, image_axes, end)
    if places.unknown:
        _warn_of(places.unknown)
    return places.of(end, end_axes)


def _warn_of(unknown: Sequence[str]) -> None:
    names = ", ".join(repr(name) for name in sorted(set(unknown)))
    warnings.warn(
        f"The heatmap may be misplaced: before they reach the layer, images pass through {names}, and it is "
        "not known whether this crops, pads or turns them. The heatmap is drawn as if it did not. Crop, "
        "pad and resize batches with TensorFlow or Keras, outside of loops and of Python functions.",
        stacklevel=2,
    )


def relative_placements(placements: Sequence[Placement | None], index: tf.Tensor) -> list[Placement | None]:
    """Return where maps lie on the map number `index`, given where they lie on the image."""
    known = [each for each in placements if each is not None]
    if not known or any(each.order is not None for each in known):
        return [None] * len(placements)
    whole = tf.tile([[0.0, 1.0]], [known[0].frame.shape[0], 1])
    frames = tf.stack([whole if each is None else each.frame for each in placements])
    start, end = tf.unstack(tf.gather(frames, index)[..., None], axis=1)
    relative = tf.math.divide_no_nan(frames - start, end - start)
    return [Placement(frame, frame[:, 0] > frame[:, 1], None) for frame in tf.unstack(relative)]

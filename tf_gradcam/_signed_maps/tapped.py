"""A layer in one forward pass: its activations, their grid, and its source image. Called by `signed_maps`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_gradcam._graph import ancestors
from tf_gradcam._layers import activation_grid, maps_from_trial, trace_trial
from tf_gradcam._methods import SourceImage
from tf_gradcam._model import Grid, LayerCall, is_channels_first, spatial_axes, specs_to_trace, to_grid
from tf_gradcam._tensors import at_least_float32


class TappedLayer(NamedTuple):
    """A layer in one forward pass.

    Attributes:
        layer_call: the layer, which of its runs, and the position of its channel axis.
        activations: its output, in the graph.
        grid: the grid of the activations.
    """

    layer_call: LayerCall
    activations: tf.Tensor
    grid: Grid

    @property
    def name(self) -> str:
        """The name of the layer."""
        return self.layer_call.layer.name

    def on_grid(self) -> tf.Tensor:
        """Return the activations as `(N, *grid, K)` in float32, or in float64 if they are float64."""
        return to_grid(at_least_float32(self.activations), self.grid)


def tapped_layer(
    model: keras.Model, images: Any, layer_call: LayerCall, activations: tf.Tensor
) -> TappedLayer:
    """Return the `TappedLayer` of a layer that returned `activations` when `model` was called on `images`.

    Raises:
        ValueError: if the activations have no grid with more than one position.
    """
    layer = layer_call.layer
    grid = activation_grid(activations, keras.tree.flatten(images), layer_call.channels_first)
    if grid is None and activations.shape.rank == 3:
        # With an open batch axis the number of tokens may be unknown. A trial run has a known batch size.
        trial = trace_trial(model, specs_to_trace(model, images))
        grids = {id(one.info.layer): one.grid for one in maps_from_trial(model, trial)}
        grid = grids.get(id(layer))
    if grid is None:
        raise ValueError(
            "`layer` must return a map (N, h, w, K) with more than one position, or the tokens of an image's "
            f"patches. Received: layer={layer.name!r}, which returns {activations.shape}. Choose a layer "
            "before it, or layer=None for the last layer with a map."
        )
    return TappedLayer(layer_call, activations, grid)


def find_source(images: Any, tapped: Sequence[TappedLayer]) -> SourceImage | None:
    """Return the input image on which the layers depend, or `None` if there is none.

    Of several inputs it is the first on the path to a layer that has as many axes as the layer's grid.

    Raises:
        ValueError: if the layers depend on different images, or their grids have different numbers of axes.
    """
    flat = keras.tree.flatten(images)
    positions = [_source_position(flat, layer) for layer in tapped]
    axes = len(tapped[0].grid.shape)
    if any(len(layer.grid.shape) != axes for layer in tapped) or len(set(positions)) > 1:
        raise ValueError(
            "`layer` must name layers that depend on one image, with grids of the same number of axes. "
            f"Received: {[layer.name for layer in tapped]} with grids "
            f"{[layer.grid.shape for layer in tapped]}. Explain them one by one."
        )
    if positions[0] is None:
        return None
    image = flat[positions[0]]
    first = is_channels_first(image.shape, unknown=tapped[0].layer_call.channels_first)
    return SourceImage(positions[0], image, first, image.shape.rank > axes + 1)


def _source_position(images, tapped) -> int | None:
    """Return the position of the first image on the path to a layer that has the axes of its grid."""
    axes, first = len(tapped.grid.shape), tapped.layer_call.channels_first
    # In eager mode there is no graph to follow, and one image.
    path = None if tf.executing_eagerly() else ancestors([tapped.activations])
    for position, image in enumerate(images):
        is_on_path = path is None or image.op in path
        if is_on_path and spatial_axes(image, axes, first) is not None:
            return position
    return None


class ImageAxes(tf.experimental.ExtensionType):
    """The axes of an input image on which a map lies.

    They are numbers, not tensors, and stay so when a nested function returns them. XLA needs the lengths of
    these axes when it compiles; if they came out of that function, it would compile anew for every image.

    Attributes:
        position: position of the image among the flattened inputs.
        start: first of the axes.
        stop: the axis after the last one.
    """

    position: int
    start: int
    stop: int

    def lengths(self, images: Any) -> tf.Tensor:
        """Return the lengths of the axes, int32, given the inputs of the model before `preprocess`."""
        image = keras.tree.flatten(images)[self.position]
        known = image.shape[self.start : self.stop]
        if known.is_fully_defined():
            return tf.constant(known.as_list(), tf.int32)
        return tf.shape(image)[self.start : self.stop]


def image_axes(images: Any, source: SourceImage | None, rank: int, channels_first: bool) -> ImageAxes | None:
    """Return the last `rank` axes of the image on which a layer depends, before `preprocess`."""
    if source is None:
        return None
    axes = spatial_axes(keras.tree.flatten(images)[source.position], rank, channels_first)
    return None if axes is None else ImageAxes(source.position, axes.start, axes.stop)

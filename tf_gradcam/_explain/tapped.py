"""A layer as one forward pass shows it: its activations, their grid, and the image that it looks at."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_gradcam._methods import SourceImage
from tf_gradcam._model import (
    Grid,
    LayerCall,
    activation_grid,
    ancestors,
    is_channels_first,
    maps_from_trial,
    spatial_lengths,
    specs_to_trace,
    to_grid,
    trace_trial,
)
from tf_gradcam._tensors import at_least_float32


class TappedLayer(NamedTuple):
    """What one forward pass shows of a layer.

    Attributes:
        layer_call: the layer, which of its runs, and where its channels are.
        activations: what it returned, in the graph.
        grid: of the activations.
    """

    layer_call: LayerCall
    activations: tf.Tensor
    grid: Grid

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.layer_call.layer.name

    def on_grid(self) -> tf.Tensor:
        """Return the activations as `(N, *grid, K)`, float32, or float64 where they are."""
        return to_grid(at_least_float32(self.activations), self.grid)


def tapped_layer(
    model: keras.Model, images: Any, layer_call: LayerCall, activations: tf.Tensor
) -> TappedLayer:
    """Return the record of a layer that returned `activations` when `model` was called on `images`.

    Raises:
        ValueError: if the activations have no grid with more than one place.
    """
    layer = layer_call.layer
    grid = activation_grid(activations, keras.tree.flatten(images), layer_call.channels_first)
    if grid is None and activations.shape.rank == 3:
        # With an open batch the number of tokens may be unknown; a trial run, whose batch is known, tells it.
        trial = trace_trial(model, specs_to_trace(model, images))
        grids = {id(each.info.layer): each.grid for each in maps_from_trial(model, trial)}
        grid = grids.get(id(layer))
    if grid is None:
        raise ValueError(
            "`layer` must return a map (N, h, w, K) with more than one position, or the tokens of an image's "
            f"patches. Received: layer={layer.name!r}, which returns {activations.shape}. Choose a layer "
            "before it, or layer=None for the last that has a map."
        )
    return TappedLayer(layer_call, activations, grid)


def find_source(images: Any, tapped: Sequence[TappedLayer]) -> SourceImage | None:
    """Return the image that the layers look at, or `None` where there is none.

    Of several inputs it is the first on the path to a layer that has as many axes as the layer's grid.

    Raises:
        ValueError: if the layers look at different images, or their grids have different numbers of axes.
    """
    flat = keras.tree.flatten(images)
    positions = [_source_position(flat, each) for each in tapped]
    axes = len(tapped[0].grid.shape)
    if any(len(each.grid.shape) != axes for each in tapped) or len(set(positions)) > 1:
        raise ValueError(
            "`layer` must name layers that look at one image, on grids with as many axes. Received: "
            f"{[each.name for each in tapped]} with grids {[each.grid.shape for each in tapped]}. Explain "
            "them one by one."
        )
    if positions[0] is None:
        return None
    image = flat[positions[0]]
    first = is_channels_first(image.shape, unknown=tapped[0].layer_call.channels_first)
    return SourceImage(positions[0], image, first, image.shape.rank > axes + 1)


def _source_position(images, tapped) -> int | None:
    """Return the position of the first image on the path to a layer that has the axes of its grid."""
    axes, first = len(tapped.grid.shape), tapped.layer_call.channels_first
    # Eagerly there is no graph to follow, and one image.
    path = None if tf.executing_eagerly() else ancestors([tapped.activations])
    for position, image in enumerate(images):
        is_on_path = path is None or image.op in path
        if is_on_path and spatial_lengths(image, axes, first) is not None:
            return position
    return None


def source_lengths(
    images: Any, source: SourceImage | None, axes: int, channels_first: bool
) -> tf.Tensor | None:
    """Return the last `axes` lengths of the image that a layer looks at, as it was before `preprocess`."""
    if source is None:
        return None
    return spatial_lengths(keras.tree.flatten(images)[source.position], axes, channels_first)

"""Find the layers with a map, and the default one. Used by explainers, exports and the command line."""

from tf_gradcam._layers.default_layer import default_layer, resolve_layers
from tf_gradcam._layers.discovery import (
    LayerInfo,
    activation_grid,
    draws_whole_image,
    ends_without_convolution,
    final_activation,
    list_layers,
    maps_from_trial,
    trace_trial,
)
from tf_gradcam._layers.finer_layer import locating_layers
from tf_gradcam._layers.last_block import last_block
from tf_gradcam._layers.weights import LayerWeights, weights_by_layer

__all__ = [
    "LayerInfo",
    "LayerWeights",
    "activation_grid",
    "default_layer",
    "draws_whole_image",
    "ends_without_convolution",
    "final_activation",
    "last_block",
    "list_layers",
    "locating_layers",
    "maps_from_trial",
    "resolve_layers",
    "trace_trial",
    "weights_by_layer",
]

"""Read a Keras model: its inputs, layers, graph, maps, logits and gradients. Used by all packages above."""

from tf_gradcam._model.default_layer import default_layer, resolve_layers
from tf_gradcam._model.differentiate import (
    ONE_MAP_PER_IMAGE,
    PATCHES_COUNT,
    check_gradient,
    graph_gradient,
    not_on_path_error,
    tape_gradients,
)
from tf_gradcam._model.discovery import (
    LayerInfo,
    activation_grid,
    draws_whole_image,
    ends_without_convolution,
    final_activation,
    list_layers,
    maps_from_trial,
    trace_trial,
)
from tf_gradcam._model.finer_layer import locating_layers
from tf_gradcam._model.fingerprint import structure_version
from tf_gradcam._model.forward import (
    ForwardPass,
    LayerCall,
    WeakLayerCall,
    as_weights,
    build_model,
    forward,
    replaced_weights,
    variables_read_first,
)
from tf_gradcam._model.graph import (
    ancestors,
    has_channel_axis,
    is_dense_head,
    mean_poolings,
    non_affine_operations,
    operations_between,
)
from tf_gradcam._model.grid import Grid, from_grid, spatial_axes, spatial_lengths, to_grid
from tf_gradcam._model.inputs import as_batch, check_images, require_specs
from tf_gradcam._model.keras_internals import functional_graph, has_noted_logits
from tf_gradcam._model.layers import (
    are_channels_first,
    check_layer,
    check_model,
    is_built,
    layer_path,
    walk_layers,
)
from tf_gradcam._model.logits import find_logits, logits_need_graph
from tf_gradcam._model.placement import Placement, Places
from tf_gradcam._model.probabilities import is_probability
from tf_gradcam._model.specs import (
    count_call_arguments,
    declared_specs,
    is_channels_first,
    raw_image_specs,
    specs_to_trace,
    with_open_sides,
)
from tf_gradcam._model.weights import LayerWeights, weights_by_layer

__all__ = [
    "ONE_MAP_PER_IMAGE",
    "PATCHES_COUNT",
    "ForwardPass",
    "Grid",
    "LayerCall",
    "LayerInfo",
    "LayerWeights",
    "Placement",
    "Places",
    "WeakLayerCall",
    "activation_grid",
    "ancestors",
    "are_channels_first",
    "as_batch",
    "as_weights",
    "build_model",
    "check_gradient",
    "check_images",
    "check_layer",
    "check_model",
    "count_call_arguments",
    "declared_specs",
    "default_layer",
    "draws_whole_image",
    "ends_without_convolution",
    "final_activation",
    "find_logits",
    "forward",
    "from_grid",
    "functional_graph",
    "graph_gradient",
    "has_channel_axis",
    "has_noted_logits",
    "is_built",
    "is_channels_first",
    "is_dense_head",
    "is_probability",
    "layer_path",
    "list_layers",
    "locating_layers",
    "logits_need_graph",
    "maps_from_trial",
    "mean_poolings",
    "non_affine_operations",
    "not_on_path_error",
    "operations_between",
    "raw_image_specs",
    "replaced_weights",
    "require_specs",
    "resolve_layers",
    "spatial_axes",
    "spatial_lengths",
    "specs_to_trace",
    "structure_version",
    "tape_gradients",
    "to_grid",
    "trace_trial",
    "variables_read_first",
    "walk_layers",
    "weights_by_layer",
    "with_open_sides",
]

"""Read a TensorFlow graph: paths, places on the image, probabilities. Used by `_model` and all above."""

from tf_gradcam._graph.graph import (
    ancestors,
    concatenated_parts,
    find_token_start,
    flattened_grids,
    function_graph,
    has_channel_axis,
    is_dense_head,
    mean_poolings,
    non_affine_operations,
    operations_after,
    operations_between,
)
from tf_gradcam._graph.placement import Placement, Places
from tf_gradcam._graph.probabilities import is_probability
from tf_gradcam._graph.strides import strides_between
from tf_gradcam._graph.token_blocks import TokenBlock, token_blocks, without_copies

__all__ = [
    "Placement",
    "Places",
    "TokenBlock",
    "ancestors",
    "concatenated_parts",
    "find_token_start",
    "flattened_grids",
    "function_graph",
    "has_channel_axis",
    "is_dense_head",
    "is_probability",
    "mean_poolings",
    "non_affine_operations",
    "operations_after",
    "operations_between",
    "strides_between",
    "token_blocks",
    "without_copies",
]

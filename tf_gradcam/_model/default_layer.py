"""Find the layer to explain: the requested one, or the last layer with a map by default.

Called by explainers, `build_submodel` and errors that suggest a layer.
"""

import contextlib
import re
from typing import Any

import keras

from tf_gradcam._model.discovery import (
    LayerMap,
    maps_from_keras_graph,
    maps_from_trial,
    only_depended_on,
    trace_trial,
)
from tf_gradcam._model.forward import LayerCall
from tf_gradcam._model.graph import ancestors, concatenated_parts
from tf_gradcam._model.grid import position_count
from tf_gradcam._model.inputs import require_specs
from tf_gradcam._model.keras_internals import functional_graph
from tf_gradcam._model.layers import are_channels_first, check_layer, find_layer
from tf_gradcam._model.specs import is_channels_first, with_trial_sides

# Layers between the last convolution and the head, which are never the default: a pooled map is coarser than
# necessary, and a permuted, reshaped or cropped map does not lie on the image.
_AFTER_CONVOLUTIONS = tuple(
    kind
    for name, kind in vars(keras.layers).items()
    if re.search(
        "Pool|Dropout|GaussianNoise|ActivityReg|Cropping|Flatten|Permute|Repeat|Reshape|UpSampling|ZeroPad",
        name,
    )
)
_REARRANGING_OPERATIONS = ("Cast", "Moveaxis", "Reshape", "Swapaxes", "Transpose")
_WEIGHTED_OPERATIONS = (  # Operations with weights, or calls of functions that may contain one.
    "BatchMatMulV2",
    "Conv2D",
    "Conv2DBackpropInput",
    "Conv3D",
    "Conv3DBackpropInputV2",
    "DepthwiseConv2dNative",
    "Einsum",
    "MatMul",
    "PartitionedCall",
    "StatefulPartitionedCall",
)
_MAX_GRADIENTS = 32  # Number of layers, from the last, whose gradients are computed.


def resolve_layers(
    model: keras.Model, layer: Any, call: int | None = None, images: Any = None
) -> list[LayerCall]:
    """Return a `LayerCall` for each layer that `layer` and `call` mean; for `None`, the default layer.

    Raises:
        TypeError: if `layer` is not a string, a layer, a list of them or `None`.
        ValueError: if `model` has no such layer, or more than one.
    """
    check_layer(layer, call)
    if layer is None:
        found = [default_layer(model, images)]
        found = found if call is None else [found[0]._replace(call=call)]
    else:
        requested = layer if isinstance(layer, list | tuple) else [layer]
        found = [LayerCall(find_layer(model, one), call) for one in requested]
    if call is not None:
        found = _in_execution_order(model, images, found)
    channels_first = are_channels_first(model, [layer_call.layer for layer_call in found])
    pairs = zip(found, channels_first, strict=True)
    return [layer_call._replace(channels_first=first) for layer_call, first in pairs]


def _in_execution_order(model, images, layer_calls) -> list[LayerCall]:
    """Return calls counted in order of execution, given calls counted in the order of the model's inputs.

    The two orders differ if Keras runs the layer on the second input first.
    """
    specs = require_specs(model, images)
    if len(keras.tree.flatten(specs)) == 1:
        return layer_calls
    trial = trace_trial(model, specs)
    found = []
    for layer_call in layer_calls:
        paths = [ancestors([run.output]) for run in trial.runs if run.layer is layer_call.layer]
        first_input = [
            [position for position, image in enumerate(trial.images) if image.op in path][:1]
            for path in paths
        ]
        order = sorted(range(len(paths)), key=first_input.__getitem__)
        exists = layer_call.call < len(order)
        found.append(layer_call._replace(call=order[layer_call.call]) if exists else layer_call)
    return found


def default_layer(model: keras.Model, images: Any = None) -> LayerCall:
    """Return the last layer with a map: the end of the convolutions, before pooling and dropout.

    For a model with several outputs, or one output concatenated from several levels, it is the last layer
    that all of them depend on. If an output is itself a map, as in segmentation and detection, it is the last
    layer on the coarsest grid, before the layers that compute the output: after it, the evidence for a pixel
    is mostly that pixel (Vinogradova et al., "Towards Interpretable Semantic Segmentation via
    Gradient-weighted Class Activation Mapping", 2020, explain the bottleneck). In a vision transformer it is
    the last layer on whose patch tokens the outputs depend.

    Args:
        model: a `keras.Model`, built.
        images: example inputs, needed if the model's input shapes are not known.

    Raises:
        ValueError: if no layer of `model` has a map.
    """
    specs = require_specs(model, images)
    candidates = _plausible_maps(maps_from_keras_graph(model) or [], specs) if _has_one_vector(model) else []
    if not candidates or candidates[-1].info.calls > 1:
        candidates = _maps_on_path(model, specs)
    if not candidates:
        raise ValueError(
            f"`model` must have a layer with a map (N, h, w, K). Received: model={model.name!r}, "
            "which has no such layer."
        )
    if candidates[-1].grid.extra:
        candidates = only_depended_on(model, specs, candidates[-_MAX_GRADIENTS:]) or candidates
    last = candidates[-1]
    return LayerCall(last.info.layer, last.run if last.info.calls > 1 else None)


def _has_one_vector(model) -> bool:
    """Return whether the model has a Keras graph, and one output `(N, classes)`."""
    return functional_graph(model) is not None and [len(output.shape) for output in model.outputs] == [2]


def _plausible_maps(maps, specs) -> list[LayerMap]:
    """Return the maps that can be the end of the convolutions; all of `maps` if there are none.

    A grid of image positions has about the aspect ratio of the image. Tensors in a transformer that look like
    a map do not, such as its queries with the axes (tokens, heads).
    """
    maps = [one for one in maps if not is_after_convolutions(one.info.layer)] or maps
    if not any(one.grid.extra is not None for one in maps):
        return maps
    images = [spec.shape for spec in keras.tree.flatten(specs) if len(spec.shape) == 4]
    if not images or None in images[0][1:]:
        return maps
    height, width = images[0][2:] if is_channels_first(images[0]) else images[0][1:3]
    return [one for one in maps if _has_aspect_ratio(one.grid.shape, height / width)] or maps


def is_after_convolutions(layer) -> bool:
    return type(layer).__name__ in _REARRANGING_OPERATIONS or isinstance(layer, _AFTER_CONVOLUTIONS)


def _has_aspect_ratio(grid, ratio) -> bool:
    """Return whether height / width of `grid` is `ratio`, within a factor of 1.5 and one position."""
    if len(grid) != 2 or None in grid:
        return True
    height, width = grid
    return (height - 1) / (width + 1) / 1.5 <= ratio <= 1.5 * (height + 1) / max(width - 1, 0.5)


def _maps_on_path(model, specs) -> list[LayerMap]:
    """Return the maps on the path to every output, in order of execution, the default one last."""
    trial = trace_trial(model, specs)
    is_dense = any(len(output.shape) > 2 for output in trial.outputs)
    if is_dense and any(None in spec.shape[1:] for spec in keras.tree.flatten(specs)):
        # The model may not accept the trial size; then no grid is known.
        with contextlib.suppress(Exception):
            specs = keras.tree.map_structure(with_trial_sides, specs)
            trial = trace_trial(model, specs)
    maps = _plausible_maps(maps_from_trial(model, trial), specs)
    parts = [part for output in trial.outputs for part in concatenated_parts(output)]
    paths = [ancestors([part]) for part in parts]
    maps = [one for one in maps if all(one.output.op in path for path in paths)] or maps
    maps = [one if _depends_on_earlier_runs(one, trial.runs) else one._replace(run=None) for one in maps]
    if not is_dense:
        return maps
    after_weights = ancestors(parts, lambda operation: operation.type in _WEIGHTED_OPERATIONS)
    maps = [one for one in maps if one.output.op not in after_weights] or maps
    most_axes = max((len(one.grid.shape) for one in maps), default=0)  # Maps of the image, not of a text.
    maps = [one for one in maps if len(one.grid.shape) == most_axes]
    known = [one for one in maps if None not in one.grid.shape]
    coarsest = min((position_count(one.grid.shape) for one in known), default=0)
    return [one for one in maps if one not in known or position_count(one.grid.shape) == coarsest]


def _depends_on_earlier_runs(layer_map, runs) -> bool:
    """Return whether the run with a map depends on all earlier runs of its layer, as in a shared ReLU."""
    if layer_map.info.calls == 1:
        return True
    path = ancestors([layer_map.output])
    earlier = [run for run in runs if run.layer is layer_map.info.layer][: layer_map.run]
    return all(run.output.op in path for run in earlier)

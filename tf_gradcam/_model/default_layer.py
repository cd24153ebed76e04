"""Which layer is explained: the one that is asked for, or the last that still has a map.

Called with a user's `layer` and `call`, and by whoever suggests a layer.
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
from tf_gradcam._model.grid import place_count
from tf_gradcam._model.inputs import require_specs
from tf_gradcam._model.keras_internals import functional_graph
from tf_gradcam._model.layers import are_channels_first, check_layer, find_layer
from tf_gradcam._model.specs import is_channels_first, with_trial_sides

# What may stand between the last convolutions and the head. A pooled map is coarser than it need be, and one
# that was permuted, reshaped or cropped doesn't lie on the image any more.
_AFTER_THE_END = tuple(
    kind
    for name, kind in vars(keras.layers).items()
    if re.search(
        "Pool|Dropout|GaussianNoise|ActivityReg|Cropping|Flatten|Permute|Repeat|Reshape|UpSampling|ZeroPad",
        name,
    )
)
_MOVING_OPERATIONS = ("Cast", "Moveaxis", "Reshape", "Swapaxes", "Transpose")
_PRODUCTS = (  # operations with weights in them; a call may hide one
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
_MOST_TRIED = 32  # layers whose gradients are looked at, from the last


def resolve_layers(
    model: keras.Model, layer: Any, call: int | None = None, images: Any = None
) -> list[LayerCall]:
    """Return what `layer` and `call` mean: a `LayerCall` for each layer, or for `None` the default one's.

    Raises:
        TypeError: if `layer` is neither a string nor a layer nor a list of them nor `None`.
        ValueError: if `model` has no such layer, or several.
    """
    check_layer(layer, call)
    if layer is None:
        found = [default_layer(model, images)]
        found = found if call is None else [found[0]._replace(call=call)]
    else:
        several = layer if isinstance(layer, list | tuple) else [layer]
        found = [LayerCall(find_layer(model, each), call) for each in several]
    if call is not None:
        found = _by_order_of_inputs(model, images, found)
    channels_first = are_channels_first(model, [each.layer for each in found])
    return [each._replace(channels_first=first) for each, first in zip(found, channels_first, strict=True)]


def _by_order_of_inputs(model, images, layer_calls) -> list[LayerCall]:
    """Return calls counted in order of execution, given calls counted in the order of the model's inputs.

    Keras may run what looks at the second image first.
    """
    specs = require_specs(model, images)
    if len(keras.tree.flatten(specs)) == 1:
        return layer_calls
    trial = trace_trial(model, specs)
    found = []
    for asked in layer_calls:
        paths = [ancestors([run.output]) for run in trial.runs if run.layer is asked.layer]
        first_input = [
            [position for position, image in enumerate(trial.images) if image.op in path][:1]
            for path in paths
        ]
        order = sorted(range(len(paths)), key=first_input.__getitem__)
        found.append(asked._replace(call=order[asked.call]) if asked.call < len(order) else asked)
    return found


def default_layer(model: keras.Model, images: Any = None) -> LayerCall:
    """Return the last layer that still has a map: the end of the convolutions, before pooling and dropout.

    Where a model has several outputs, or one joined from several levels, it is the last that all of them
    depend on. Where an output is itself a map, as in segmentation and detection, it is the last on the
    coarsest grid, before the layers that make the output: further on, a place's evidence is the place itself
    (Vinogradova et al., "Towards Interpretable Semantic Segmentation via Gradient-weighted Class Activation
    Mapping", 2020, explain the bottleneck). In a vision transformer it is the last whose patch tokens the
    outputs depend on.

    Args:
        model: a `keras.Model`, built.
        images: what it is called on, where its first call doesn't tell.

    Raises:
        ValueError: if no layer of `model` has one.
    """
    specs = require_specs(model, images)
    candidates = _upright(maps_from_keras_graph(model) or [], specs) if _has_one_vector(model) else []
    if not candidates or candidates[-1].info.calls > 1:
        candidates = _candidates(model, specs)
    if not candidates:
        raise ValueError(
            f"`model` must have a layer with a map (N, h, w, K). Received: model={model.name!r}, "
            "where no layer has one."
        )
    if candidates[-1].grid.extra:
        candidates = only_depended_on(model, specs, candidates[-_MOST_TRIED:]) or candidates
    last = candidates[-1]
    return LayerCall(last.info.layer, last.run if last.info.calls > 1 else None)


def _has_one_vector(model) -> bool:
    """Whether the model's graph tells that it returns (N, classes), and nothing else."""
    return functional_graph(model) is not None and [len(each.shape) for each in model.outputs] == [2]


def _upright(found, specs) -> list[LayerMap]:
    """Return the maps that can be the end of the convolutions, leaving out those that only look like one.

    What has an image's axes has about its proportions: the queries of a transformer, (tokens, heads), do not.
    """
    found = [each for each in found if not _is_after_the_end(each.info.layer)] or found
    if not any(each.grid.extra is not None for each in found):
        return found
    images = [spec.shape for spec in keras.tree.flatten(specs) if len(spec.shape) == 4]
    if not images or None in images[0][1:]:
        return found
    height, width = images[0][2:] if is_channels_first(images[0]) else images[0][1:3]
    return [each for each in found if _fits(each.grid.shape, height / width)] or found


def _is_after_the_end(layer) -> bool:
    return type(layer).__name__ in _MOVING_OPERATIONS or isinstance(layer, _AFTER_THE_END)


def _fits(grid, proportion) -> bool:
    """Whether a grid has about the image's proportions, give or take a place or a half."""
    if len(grid) != 2 or None in grid:
        return True
    height, width = grid
    return (height - 1) / (width + 1) / 1.5 <= proportion <= 1.5 * (height + 1) / max(width - 1, 0.5)


def _candidates(model, specs) -> list[LayerMap]:
    """Return the maps on the way to every output, in order of execution, the best one last."""
    trial = trace_trial(model, specs)
    is_dense = any(len(output.shape) > 2 for output in trial.outputs)
    if is_dense and any(None in spec.shape[1:] for spec in keras.tree.flatten(specs)):
        with contextlib.suppress(Exception):  # It may not take the size of the trial; then no grid is known.
            specs = keras.tree.map_structure(with_trial_sides, specs)
            trial = trace_trial(model, specs)
    found = _upright(maps_from_trial(model, trial), specs)
    pieces = [piece for output in trial.outputs for piece in concatenated_parts(output)]
    ways = [ancestors([piece]) for piece in pieces]
    found = [each for each in found if all(each.output.op in way for way in ways)] or found
    found = [each if _ends_a_chain(each, trial.runs) else each._replace(run=None) for each in found]
    if not is_dense:
        return found
    makes_output = ancestors(pieces, lambda operation: operation.type in _PRODUCTS)
    found = [each for each in found if each.output.op not in makes_output] or found
    most_axes = max((len(each.grid.shape) for each in found), default=0)  # An image's, not a text's.
    found = [each for each in found if len(each.grid.shape) == most_axes]
    known = [each for each in found if None not in each.grid.shape]
    coarsest = min((place_count(each.grid.shape) for each in known), default=0)
    return [each for each in found if each not in known or place_count(each.grid.shape) == coarsest]


def _ends_a_chain(found, runs) -> bool:
    """Whether the run that gave a map depends on all runs of its layer before it, as with a shared ReLU."""
    if found.info.calls == 1:
        return True
    way = ancestors([found.output])
    earlier = [run for run in runs if run.layer is found.info.layer][: found.run]
    return all(run.output.op in way for run in earlier)

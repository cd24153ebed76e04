"""Find the layer to explain: the requested one, or the last layer with a map by default.

Called by explainers, `build_submodel` and errors that suggest a layer.
"""

import contextlib
import re
import warnings
from typing import Any, NamedTuple

import keras

from tf_gradcam._graph import ancestors, concatenated_parts
from tf_gradcam._layers.branches import (
    are_joint,
    around,
    depended_on_by_all,
    is_on_every_path,
    parallel_layers,
)
from tf_gradcam._layers.discovery import (
    LayerMap,
    Trial,
    maps_from_keras_graph,
    maps_from_trial,
    only_depended_on,
    trace_trial,
)
from tf_gradcam._model import (
    LayerCall,
    are_channels_first,
    check_layer,
    find_layer,
    functional_graph,
    is_channels_first,
    position_count,
    require_specs,
    with_trial_sides,
)

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
_MAX_NAMES = 5  # Number of layers that a warning names.


class _Default(NamedTuple):
    """The default layer, and the last layers of the branches beside it."""

    chosen: LayerMap
    beside: list[LayerMap]
    images: int = 1  # number of images on which all of these layers depend
    is_common: bool = True  # whether all outputs depend on it

    def layer_call(self) -> LayerCall:
        return LayerCall(self.chosen.info.layer, self.chosen.run if self.chosen.info.calls > 1 else None)


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
        default = _find_default(model, images)
        if default.beside and call is None:
            _warn_of_branches(default)
        found = [default.layer_call()]
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


def _warn_of_branches(default) -> None:
    chosen = default.chosen.info.path
    beside = [one.info.path for one in default.beside]
    names = ", ".join([*map(repr, beside[:_MAX_NAMES]), *(["..."] if len(beside) > _MAX_NAMES else [])])
    advice = f"for the mean of their heatmaps, layer={[*beside[:_MAX_NAMES], chosen]!r}"
    if default.images > 1:
        advice = "one after the other, because they depend on different images"
    text = (
        f"The default layer {chosen!r} is in one of several parallel branches. The score also depends on the "
        f"images through {names}, which its heatmap does not show. Give `layer`: {chosen!r}, or another of "
        f"these, or {advice}."
    )
    if not default.is_common:
        text = (
            f"There is no layer that all outputs of the model depend on. The default layer {chosen!r} is on "
            f"the path to some of them. Give `layer`: {chosen!r}, or for another output {names}."
        )
    warnings.warn(text, stacklevel=6)  # at the caller of GradCAM


def default_layer(model: keras.Model, images: Any = None) -> LayerCall:
    """Return the last layer with a map: the end of the convolutions, before pooling and dropout.

    It is the last layer that every score depends on: all outputs, all units of an output, as of a model with
    a branch for each label, and all levels that an output is concatenated from. If an output is itself a map,
    as in segmentation and detection, it is the last layer on the coarsest grid, before the layers that
    compute the output: after it, the evidence for a pixel is mostly that pixel (Vinogradova et al., "Towards
    Interpretable Semantic Segmentation via Gradient-weighted Class Activation Mapping", 2020, explain the
    bottleneck). In a vision transformer it is the last layer on whose patch tokens the outputs depend.

    Args:
        model: a `keras.Model`, built.
        images: example inputs, needed if the model's input shapes are not known.

    Raises:
        ValueError: if no layer of `model` has a map, or there is none that all scores depend on.
    """
    return _find_default(model, images).layer_call()


def _find_default(model, images) -> _Default:
    specs = require_specs(model, images)
    candidates = _plausible_maps(maps_from_keras_graph(model) or [], specs) if _has_one_vector(model) else []
    if candidates and candidates[-1].info.calls == 1:
        last = candidates[-1]
        if is_on_every_path(model, last.info.layer):
            return _Default(last, [])
    trial, candidates, is_dense = _maps_on_path(model, specs)
    if not candidates:
        raise ValueError(
            f"`model` must have a layer with a map (N, h, w, K). Received: model={model.name!r}, "
            'which has no such layer. Explain the image itself, as by method="integrated_gradients".'
        )
    used = candidates
    if candidates[-1].grid.extra:
        used = only_depended_on(model, specs, candidates[-_MAX_GRADIENTS:]) or candidates
    is_common = all(used[-1].output.op in path for path in _paths(trial, candidates))
    if not is_dense and is_common and _may_differ(trial, used[-1]):
        common = depended_on_by_all(model, specs, used)
        used, is_common = common or used, bool(common)
    if not is_dense and not is_common and len(trial.outputs) == 1:
        raise _no_common_layer_error(trial, candidates)
    return _with_branches(model, specs, trial, candidates, used[-1])._replace(is_common=is_common)


def _paths(trial, maps) -> list[dict]:
    """Return the ancestors of each output or part of one that depends on one of `maps`."""
    parts = [part for output in trial.outputs for part in concatenated_parts(output)]
    paths = [ancestors([part]) for part in parts]
    return [path for path in paths if any(one.output.op in path for one in maps)]


def _may_differ(trial, layer_map) -> bool:
    """Return whether some score may not depend on a layer: the outputs depend on an image around it."""
    outside = around(trial, layer_map)
    parts = [part for output in trial.outputs for part in concatenated_parts(output)]
    return any(output.op in outside for output in trial.outputs) and not are_joint(trial, parts)


def _no_common_layer_error(trial, maps) -> ValueError:
    names = [one.info.path for one in [*parallel_layers(trial, maps, maps[-1]), maps[-1]]]
    return ValueError(
        "`layer` must be given for a model with no layer that all scores depend on. Received: layer=None, "
        f"and a model with branches that end in {', '.join(map(repr, names))}. Give the one of the score "
        "that you explain."
    )


def _with_branches(model, specs, trial, candidates, chosen) -> _Default:
    """Return the default layer with the last layers of the branches beside it."""
    beside = parallel_layers(trial, candidates, chosen)
    if beside and chosen.grid.extra:
        beside = only_depended_on(model, specs, beside[-_MAX_GRADIENTS:])
    paths = [ancestors([one.output]) for one in [*beside, chosen]]
    images = {image.ref() for image in trial.images if any(image.op in path for path in paths)}
    return _Default(chosen, beside, len(images))


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


def _maps_on_path(model, specs) -> tuple[Trial, list[LayerMap], bool]:
    """Return a trial run, the maps on the path to every output, and whether an output is a map.

    The maps are in order of execution, the default one last.
    """
    trial = trace_trial(model, specs)
    is_dense = any(len(output.shape) > 2 for output in trial.outputs)
    if is_dense and any(None in spec.shape[1:] for spec in keras.tree.flatten(specs)):
        # The model may not accept the trial size; then no grid is known.
        with contextlib.suppress(Exception):
            specs = keras.tree.map_structure(with_trial_sides, specs)
            trial = trace_trial(model, specs)
    maps = _plausible_maps(maps_from_trial(model, trial), specs)
    paths = _paths(trial, maps)
    maps = [one for one in maps if all(one.output.op in path for path in paths)] or maps
    maps = [one if _depends_on_earlier_runs(one, trial.runs) else one._replace(run=None) for one in maps]
    if not is_dense:
        return trial, maps, False
    parts = [part for output in trial.outputs for part in concatenated_parts(output)]
    after_weights = ancestors(parts, lambda operation: operation.type in _WEIGHTED_OPERATIONS)
    maps = [one for one in maps if one.output.op not in after_weights] or maps
    most_axes = max((len(one.grid.shape) for one in maps), default=0)  # Maps of the image, not of a text.
    maps = [one for one in maps if len(one.grid.shape) == most_axes]
    known = [one for one in maps if None not in one.grid.shape]
    coarsest = min((position_count(one.grid.shape) for one in known), default=0)
    maps = [one for one in maps if one not in known or position_count(one.grid.shape) == coarsest]
    return trial, maps, True


def _depends_on_earlier_runs(layer_map, runs) -> bool:
    """Return whether the run with a map depends on all earlier runs of its layer, as in a shared ReLU."""
    if layer_map.info.calls == 1:
        return True
    path = ancestors([layer_map.output])
    earlier = [run for run in runs if run.layer is layer_map.info.layer][: layer_map.run]
    return all(run.output.op in path for run in earlier)

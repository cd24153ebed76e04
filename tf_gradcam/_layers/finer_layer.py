"""Find the last layer on a finer grid than the default layer's, for methods that use both.

Called by explainers of a preset.
"""

import operator
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_gradcam._graph import ancestors
from tf_gradcam._layers.default_layer import is_after_convolutions, resolve_layers
from tf_gradcam._layers.discovery import LayerMap, maps_from_trial, trace_trial
from tf_gradcam._model import LayerCall, are_channels_first, position_count, require_specs, with_trial_sides


def locating_layers(model: keras.Model, images: Any = None) -> list[LayerCall]:
    """Return the last layer on the next finer grid through which all evidence goes, and the default layer.

    In a ResNet50 these are the output of the fourth stage, 14 x 14, and of the fifth, 7 x 7. If no layer on
    that grid is on every path, as in a NASNet, it is the last one. If no layer has at least twice as many
    positions as the default layer, as in a vision transformer, both are the default layer.

    Args:
        model: a `keras.Model`, built.
        images: example inputs, needed if the model's input shapes are not known.

    Raises:
        ValueError: if no layer of `model` has a map.
    """
    (default,) = resolve_layers(model, None, None, images)
    trial = trace_trial(model, keras.tree.map_structure(with_trial_sides, require_specs(model, images)))
    maps = [one for one in maps_from_trial(model, trial) if None not in one.grid.shape]
    coarse = next((one for one in maps if one.info.layer is default.layer), None)
    finer = [] if coarse is None else _on_next_grid(maps, coarse)
    if coarse is None or not finer:
        return [default, default]
    path = _on_every_path(coarse.output, trial.images)
    chosen = [one for one in finer if one.output.op in path] or finer
    (channels_first,) = are_channels_first(model, [chosen[-1].info.layer])
    return [LayerCall(chosen[-1].info.layer, None, channels_first), default]


def _on_next_grid(maps: Sequence[LayerMap], coarse: LayerMap) -> list[LayerMap]:
    """Return the maps before `coarse` on the coarsest grid with twice its positions and no shorter axis."""
    before = ancestors([coarse.output])
    finer = [
        one
        for one in maps
        if one.output.op in before
        and one.info.calls == 1
        and not is_after_convolutions(one.info.layer)
        and len(one.grid.shape) == len(coarse.grid.shape)
        and all(map(operator.ge, one.grid.shape, coarse.grid.shape))  # type: ignore[arg-type]
        and position_count(one.grid.shape) >= 2 * position_count(coarse.grid.shape)
    ]
    fewest = min((position_count(one.grid.shape) for one in finer), default=0)
    return [one for one in finer if position_count(one.grid.shape) == fewest]


def _on_every_path(end: tf.Tensor, images: Sequence[tf.Tensor]) -> set[tf.Operation]:
    """Return the operations that are on every path from the images to `end`: its dominators.

    Source: Cooper, Harvey and Kennedy, "A Simple, Fast Dominance Algorithm", 2001; a graph without loops
    needs one pass.
    """
    path = ancestors([end])
    # The last operation that is on every path to the key, and how many there are; `None` is the start.
    last: dict[tf.Operation | None, tuple[tf.Operation | None, int]] = {None: (None, 0)}
    sources = {image.op for image in images}
    for operation in end.graph.get_operations():
        if operation in sources:
            last[operation] = (None, 1)
        read = [tensor.op for tensor in operation.inputs if tensor.op in last]
        if operation not in path or not read:
            continue
        common = read[0]
        for other in read[1:]:
            while common is not other:
                if last[common][1] >= last[other][1]:
                    common = last[common][0]
                else:
                    other = last[other][0]
        last[operation] = (common, last[common][1] + 1)
    found, operation = set(), end.op
    while operation is not None:
        found.add(operation)
        operation = last[operation][0]
    return found

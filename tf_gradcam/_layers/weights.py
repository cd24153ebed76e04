"""Which weights of a model belong to which layer, in order of execution. Called by sanity checks."""

from typing import Any, NamedTuple

import keras

from tf_gradcam._layers.discovery import trace_trial
from tf_gradcam._model import functional_graph, require_specs, walk_layers


class LayerWeights(NamedTuple):
    """The weights of one layer.

    Attributes:
        path: path of the layer, such as `"inner/conv"`; for weights of the model itself, its name.
        layer: the layer.
        positions: the positions of its weights in `model.weights`, without those of layers inside it.
    """

    path: str
    layer: keras.Operation
    positions: tuple[int, ...]


def weights_by_layer(model: keras.Model, images: Any = None) -> list[LayerWeights]:
    """Return every layer that has weights of its own, in order of execution.

    The order of a model that is not functional is found by a trial run; layers that do not run in it, or run
    inside another layer's own loop, stay where the model lists them.

    Args:
        model: a `keras.Model`, built.
        images: example inputs, for a model whose specs are not known.
    """
    position_of = {id(variable): position for position, variable in enumerate(model.weights)}
    left, found = set(position_of.values()), []
    for path, layer in [*walk_layers(model), (model.name, model)]:  # Inner layers come before outer ones.
        own = [position_of.get(id(variable)) for variable in getattr(layer, "weights", [])]
        positions = tuple(position for position in own if position in left)
        left.difference_update(positions)
        if positions:
            found.append(LayerWeights(path, layer, positions))
    if functional_graph(model) is None:
        trial = trace_trial(model, require_specs(model, images))
        runs = {id(run.layer): number for number, run in enumerate(trial.runs)}
        runs[id(model)] = len(runs)
        order, latest = {}, -1
        for one in found:
            latest = order[id(one.layer)] = runs.get(id(one.layer), latest)
        found.sort(key=lambda one: order[id(one.layer)])
    return found

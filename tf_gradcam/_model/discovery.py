"""Which layers have a map: read off Keras's graph, or off a trial run."""

import collections
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_gradcam._model.forward import LayerCall, call_model, forward, tap
from tf_gradcam._model.graph import ancestors, find_token_start, flattened_grids
from tf_gradcam._model.grid import Grid, find_grid, place_count, to_grid
from tf_gradcam._model.inputs import require_specs
from tf_gradcam._model.keras_internals import (
    child_layers,
    functional_graph,
    is_functional,
    is_keras_own,
    nodes_in_order,
)
from tf_gradcam._model.layers import are_channels_first, check_model, walk_layers
from tf_gradcam._model.logits import find_logits
from tf_gradcam._model.specs import with_trial_sides

_BATCH = 3  # of a trial run, to see which outputs have one row for each image


class LayerInfo(NamedTuple):
    """A layer that can be explained.

    Attributes:
        path: what to name it by.
        layer: the layer itself; its class is `type(layer).__name__`.
        shape: of its map, `(h, w, K)`: channels last, and the tokens of a transformer on their grid.
        calls: how often it runs; where more than once, `call=` says which run is meant.
    """

    path: str
    layer: keras.Operation
    shape: tuple[int | None, ...]
    calls: int = 1


def list_layers(model: keras.Model, images: Any = None) -> list[LayerInfo]:
    """List every layer that can be explained, in order of execution.

    A layer can be explained when it returns one tensor that has a grid with more than one place:
    `(N, h, w, K)`, signals `(N, t, K)`, volumes `(N, d, h, w, K)`, the same with channels first, and tokens
    `(N, T, K)` that are the flattened grid of an image and perhaps a class token, as long as the outputs
    depend on more than that. Functional and Sequential models are read from their graph; those with tokens or
    several inputs, and anything else, are traced once.

    Args:
        model: a `keras.Model`, built.
        images: arrays or tensors that it takes, with their batch axis, where its first call doesn't tell: a
            subclassed model notes the first of several arguments only.

    Returns:
        A list of `LayerInfo(path, layer, shape, calls)`.

    Raises:
        TypeError: if `model` is not a `keras.Model`.
        ValueError: if `model` was never built, or `images` must be given or aren't what it takes.
    """
    check_model(model)
    specs = require_specs(model, images)
    found = maps_from_keras_graph(model)
    if found is None:
        found = maps_from_trial(model, trace_trial(model, specs))
    tokens = [each for each in found if each.grid.extra]
    counting = only_depended_on(model, specs, tokens) if tokens else []
    return [each.info for each in found if each not in tokens or each in counting]


class LayerRun(NamedTuple):
    layer: keras.Operation
    output: Any  # symbolic: of Keras's graph, or of TensorFlow's


class LayerMap(NamedTuple):
    info: LayerInfo
    grid: Grid
    output: Any  # of the last run that gave a map
    run: int | None  # the number of that run


def _with_map(model, runs, find_grid) -> list[LayerMap]:
    """Return those layers that gave a map, with the last run that did, in the order of these runs."""
    paths = {id(layer): path for path, layer in walk_layers(model)}
    counts: collections.Counter = collections.Counter()
    found: dict[int, LayerMap] = {}
    for run, first in zip(runs, are_channels_first(model, [run.layer for run in runs]), strict=True):
        number = counts[id(run.layer)]
        counts[id(run.layer)] += 1
        grid = find_grid(run.output, first) if hasattr(run.output, "shape") else None
        if grid is not None and not isinstance(run.layer, keras.layers.InputLayer):
            found.pop(id(run.layer), None)
            info = LayerInfo(paths[id(run.layer)], run.layer, (*grid.shape, grid.channels))
            found[id(run.layer)] = LayerMap(info, grid, run.output, number)
    return [each._replace(info=each.info._replace(calls=counts[key])) for key, each in found.items()]


def activation_grid(
    activations: tf.Tensor, images: Sequence[tf.Tensor], channels_first: bool = False
) -> Grid | None:
    """Return the grid of `activations`, symbolic ones, or `None` where they have none.

    Args:
        activations: what a layer returned.
        images: what the model took, in the same graph.
        channels_first: whether the layer has its channels right after the batch.
    """
    if activations.shape.rank is None:
        return None
    shape = tuple(activations.shape)
    if len(shape) != 3:
        return find_grid(shape, [image.shape for image in images], channels_first)
    way = ancestors([activations])
    shapes = [image.shape for image in images if image.op in way]
    grid = find_grid(shape, shapes, channels_first, flattened_grids(way))
    if grid is None or not grid.extra:
        return grid
    start = find_token_start(way, shape[1], place_count(grid.shape))
    return None if start is None else grid._replace(start=start)


def _is_graph(layer: keras.Operation) -> bool:
    """Whether `layer` is a Functional or Sequential model, whose graph tells what it does."""
    if not (is_functional(layer) or isinstance(layer, keras.Sequential)):
        return False
    overrides = [vars(kind) for kind in type(layer).__mro__ if not kind.__module__.startswith("keras.")]
    is_changed = any("call" in each or "__call__" in each for each in overrides)
    return not is_changed and bool(getattr(layer, "inputs", None))


def _is_leaf(layer: keras.Operation) -> bool:
    """Whether `layer` has no layers inside that matter: those of Keras's own layers are their own affair."""
    if not isinstance(layer, keras.Layer):
        return True
    if isinstance(layer, keras.Model | keras.layers.Wrapper):
        return False
    return is_keras_own(layer) or not child_layers(layer)


def maps_from_keras_graph(model) -> list[LayerMap] | None:
    """Return the layers with a map if Keras's graphs tell it all; else `None`."""
    runs = _runs_of_graph(model)
    if runs is None or len(model.inputs) > 1:
        return None
    image = model.inputs[0].shape
    if len(image) > 3 and any(len(getattr(run.output, "shape", ())) == 3 for run in runs):
        return None  # Where tokens come from, only TensorFlow's graph tells.
    return _with_map(model, runs, lambda output, first: find_grid(output.shape, [image], first))


def final_activation(model: keras.Model) -> Callable | None:
    """Return the activation that a model of one image ends in, if Keras's graph tells all of it; else `None`.

    Run eagerly, such a model shows its logits: what a softmax or sigmoid of Keras returns has them noted.
    """
    if maps_from_keras_graph(model) is None or len(model.outputs) > 1 or len(model.inputs[0].shape) < 4:
        return None
    last = (_runs_of_graph(model) or [])[-1].layer
    known = [keras.activations.softmax, keras.activations.sigmoid]
    if type(last) in (keras.layers.Dense, keras.layers.Conv2D, keras.layers.Conv3D):
        known.append(keras.activations.linear)
    elif type(last) is not keras.layers.Activation:
        return None
    return last.activation if last.activation in known else None


def ends_without_convolution(model: keras.Model, layer: keras.Operation) -> bool:
    """Whether Keras's own layers follow on `layer`, and no convolution, where Keras's graph tells all."""
    runs = [run.layer for run in (_runs_of_graph(model) or [])]
    after = runs[len(runs) - runs[::-1].index(layer) :] if layer in runs else runs
    return all(is_keras_own(each) and "Conv" not in type(each).__name__ for each in after)


def _runs_of_graph(model) -> list[LayerRun] | None:
    """Return what runs, in order of execution, or `None` if Keras's graphs don't tell all of it."""
    functional = functional_graph(model)
    if not _is_graph(model) or functional is None:
        return None
    runs = []
    for node in nodes_in_order(functional):
        layer = node.operation
        if _is_leaf(layer):
            runs.append(LayerRun(layer, node.outputs[0] if len(node.outputs) == 1 else None))
            continue
        inner = _runs_of_graph(layer)
        # An inner model may be called on another size than it was built for.
        if inner is None or [x.shape for x in node.input_tensors] != [x.shape for x in layer.inputs]:
            return None
        if len(layer.outputs) > 1:  # of which not all need be used
            return None
        runs += inner
    return runs


class Trial(NamedTuple):
    runs: list[LayerRun]
    images: list[tf.Tensor]
    outputs: list[tf.Tensor]
    graph: tf.Graph  # keeps the tensors alive


def trace_trial(model, specs) -> Trial:
    """Run the model in a graph of its own, and note what each layer returns."""
    runs, taken, outputs = [], [], []

    def note(layer, output):
        runs.append(LayerRun(layer, output))
        return output

    below = [layer for _, layer in walk_layers(model)]
    leaves = [layer for layer in below if isinstance(layer, keras.Layer) and _is_leaf(layer)]
    hidden = {id(each) for leaf in leaves for _, each in walk_layers(leaf)}
    layers = {id(layer): layer for layer in below if not _is_graph(layer) and id(layer) not in hidden}

    def run(images):
        taken.extend(keras.tree.flatten(images))
        with tap(list(layers.values()), note):
            outputs.extend(keras.tree.flatten(call_model(model, images)))

    batch = keras.tree.map_structure(lambda each: tf.TensorSpec([_BATCH, *each.shape[1:]], each.dtype), specs)
    graph = tf.function(run, autograph=False).get_concrete_function(batch).graph
    # What runs in a loop of the model's own is in another graph.
    runs = [run for run in runs if getattr(run.output, "graph", None) is graph]
    return Trial(runs, taken, outputs, graph)


def maps_from_trial(model, trial) -> list[LayerMap]:
    """Return the layers with a map that an output depends on."""
    way = ancestors(trial.outputs)

    def find_grid(output, channels_first):
        shape = output.shape
        counts = output.dtype.is_floating and output.op in way and shape.rank and shape[0] in (None, _BATCH)
        return activation_grid(output, trial.images, channels_first) if counts else None

    return _with_map(model, trial.runs, find_grid)


def only_depended_on(model, specs, found) -> list[LayerMap]:
    """Return those maps whose places, and not only a class token beside them, the outputs depend on."""
    reads = [LayerCall(each.info.layer, each.run) for each in found]

    def depends(images):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            read = forward(model, images, reads, tape.watch)
            logits = [each for each in keras.tree.flatten(find_logits(read.outputs)) if each is not None]
            # Weighed by chance, as the plain sum of what a normalization returns is constant.
            weights = [tf.random.stateless_normal(tf.shape(each), [0, 1]) for each in logits]
            scores = [tf.reduce_sum(tf.cast(x, tf.float32) * w) for x, w in zip(logits, weights, strict=True)]
        gradients = tape.gradient(scores, read.activations, unconnected_gradients="zero")
        return [
            tf.reduce_any(to_grid(gradient, each.grid) != 0)
            for gradient, each in zip(gradients, found, strict=True)
        ]

    noise = keras.tree.map_structure(_noise, specs)
    try:
        answers = tf.function(depends, autograph=False).get_concrete_function(noise)(noise)
    except Exception:  # It may not take the size that noise has where the model leaves it open.
        return found
    return [each for each, answer in zip(found, answers, strict=True) if answer]


def _noise(spec) -> tf.Tensor:
    shape = [1, *with_trial_sides(spec).shape[1:]]
    return tf.cast(tf.random.stateless_uniform(shape, [0, 1]), spec.dtype)

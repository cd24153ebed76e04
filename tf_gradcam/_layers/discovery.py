"""Find the layers with a map, in Keras's graph or by a trial run. Called by explainers and `list_layers`."""

import collections
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._graph import ancestors, find_token_start, flattened_grids, has_channel_axis
from tf_gradcam._model import (
    Grid,
    LayerCall,
    are_channels_first,
    call_model,
    check_model,
    child_layers,
    find_grid,
    find_logits,
    forward,
    functional_graph,
    is_functional,
    is_keras_own,
    nodes_in_order,
    position_count,
    require_specs,
    tap,
    to_grid,
    walk_layers,
    with_trial_sides,
)

_TRIAL_BATCH = 3  # Images in a trial run, to recognize outputs with one row for each image.


class LayerInfo(NamedTuple):
    """A layer that can be explained.

    Attributes:
        path: path to name it by, such as `"inner/conv"`.
        layer: the layer itself; its class is `type(layer).__name__`.
        shape: shape of its map, `(h, w, K)`: channels last, and the tokens of a transformer on their grid.
        calls: number of its runs; if there are several, `call=` chooses one.
    """

    path: str
    layer: keras.Operation
    shape: tuple[int | None, ...]
    calls: int = 1


def list_layers(model: keras.Model, images: Any = None) -> list[LayerInfo]:
    """List every layer that can be explained, in order of execution.

    A layer can be explained if it returns one tensor that has a grid with more than one position:
    `(N, h, w, K)`, signals `(N, t, K)`, volumes `(N, d, h, w, K)`, the same with channels first, and tokens
    `(N, T, K)` that are the flattened grid of an image, with or without a class token, if the outputs depend
    on more than the class token. Functional and Sequential models are read from their graph; models with
    tokens or several inputs, and all other models, are traced once.

    Args:
        model: a `keras.Model`, built.
        images: example inputs, arrays or tensors with a batch axis. They are needed for a subclassed model
            with several arguments, of which Keras records only the first.

    Returns:
        A list of `LayerInfo(path, layer, shape, calls)`.

    Raises:
        TypeError: if `model` is not a `keras.Model`.
        ValueError: if `model` was never built, or if `images` are needed or do not fit the model.
    """
    check_model(model)
    specs = require_specs(model, images)
    found = maps_from_keras_graph(model)
    if found is None:
        found = maps_from_trial(model, trace_trial(model, specs))
    tokens = [one for one in found if one.grid.extra]
    used_tokens = only_depended_on(model, specs, tokens) if tokens else []
    return [one.info for one in found if one not in tokens or one in used_tokens]


class LayerRun(NamedTuple):
    """One run of a layer.

    Attributes:
        layer: the layer.
        output: what it returned, symbolic, in Keras's graph or TensorFlow's.
    """

    layer: keras.Operation
    output: Any


class LayerMap(NamedTuple):
    """A layer with a map.

    Attributes:
        info: path, layer, shape of the map and number of runs.
        grid: grid of the map.
        output: output of the last run that returned a map.
        run: number of that run; `None` if the number cannot say which run is meant.
    """

    info: LayerInfo
    grid: Grid
    output: Any
    run: int | None


def _layers_with_map(model, runs, find_grid) -> list[LayerMap]:
    """Return the layers of `runs` that returned a map, in the order of the last run of each that did."""
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
    return [one._replace(info=one.info._replace(calls=counts[key])) for key, one in found.items()]


def activation_grid(
    activations: tf.Tensor, images: Sequence[tf.Tensor], channels_first: bool = False
) -> Grid | None:
    """Return the grid of symbolic `activations`, or `None` if they have none.

    Args:
        activations: output of a layer.
        images: inputs of the model, in the same graph.
        channels_first: whether the channel axis of the layer comes right after the batch axis.
    """
    if activations.shape.rank is None:
        return None
    shape = tuple(activations.shape)
    if len(shape) != 3:
        return find_grid(shape, [image.shape for image in images], channels_first)
    path = ancestors([activations])
    on_path = [image for image in images if image.op in path]
    grid = _grid_of_grey_image(activations, on_path, path)
    if grid is None:
        shapes = [image.shape for image in on_path]
        grid = find_grid(shape, shapes, channels_first, flattened_grids(path))
    if grid is None or not grid.extra:
        return grid
    start = find_token_start(path, shape[1], position_count(grid.shape))
    return None if start is None else grid._replace(start=start)


def _grid_of_grey_image(tokens, images, path) -> Grid | None:
    """Return the grid of `tokens` of an image `(N, h, w)` to which the model appends a channel axis.

    An axis of length 1 shows a signal, whose electrodes or frequencies were convolved to one.
    """
    if max((image.shape.rank for image in images), default=0) != 3:
        return None
    grey = [(*image.shape, 1) for image in images if not has_channel_axis(image, tokens)]
    flattened = [grid for grid in flattened_grids(path) if 1 not in grid]
    return find_grid(tuple(tokens.shape), grey, False, flattened) if grey and flattened else None


def _has_keras_graph(layer: keras.Operation) -> bool:
    """Return whether `layer` is a Functional or Sequential model whose call is not overridden."""
    if not (is_functional(layer) or isinstance(layer, keras.Sequential)):
        return False
    overrides = [vars(kind) for kind in type(layer).__mro__ if not kind.__module__.startswith("keras.")]
    is_changed = any("call" in names or "__call__" in names for names in overrides)
    return not is_changed and bool(getattr(layer, "inputs", None))


def _has_no_inner_layers(layer: keras.Operation) -> bool:
    """Return whether `layer` has no layers inside that can be explained; those inside Keras's own cannot."""
    if not isinstance(layer, keras.Layer):
        return True
    if isinstance(layer, keras.Model | keras.layers.Wrapper):
        return False
    return is_keras_own(layer) or not child_layers(layer)


def maps_from_keras_graph(model: keras.Model) -> list[LayerMap] | None:
    """Return the layers with a map, or `None` if Keras's graphs are not enough to find them."""
    runs = _runs_of_graph(model)
    if runs is None or len(model.inputs) > 1:
        return None
    image = model.inputs[0].shape
    inner = [run for run in runs if not isinstance(run.layer, keras.layers.InputLayer)]
    ranks = {len(getattr(run.output, "shape", ())) for run in inner}
    if 3 in ranks and max(len(image), *ranks) > 3:
        return None  # The origin of tokens is only in TensorFlow's graph.
    return _layers_with_map(model, runs, lambda output, first: find_grid(output.shape, [image], first))


def final_activation(model: keras.Model) -> Callable | None:
    """Return the final activation of a model of one image with a full Keras graph; `None` for other models.

    The logits of such a model are known in eager mode too: Keras attaches them to the output of its softmax
    and sigmoid.
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
    """Return whether only Keras's own layers, and no convolution, run after `layer` in Keras's graph."""
    runs = [run.layer for run in (_runs_of_graph(model) or [])]
    after = runs[len(runs) - runs[::-1].index(layer) :] if layer in runs else runs
    return all(is_keras_own(one) and "Conv" not in type(one).__name__ for one in after)


# Keras's own layers and operations that may crop, pad, turn or transpose what they get.
_MAY_MOVE = re.compile(
    "Affine|Crop|Extract|Flip|GetItem|Lambda|Map|Module|Move|Pad|Permute|Pipeline|Roll|Rot|Slice|Split|Swap|Take"
    "|TFSM|TimeDistributed|Transpose$|Unstack"
)


def draws_whole_image(model: keras.Model) -> bool:
    """Return whether Keras's graph shows that no layer crops, pads or turns the image.

    A padding before a convolution or pooling, as in a ResNet, may be there. `Places` reads all other models.
    """
    runs = _runs_of_graph(model)
    return runs is not None and all(_keeps_frame(run, runs) for run in runs)


def _keeps_frame(run, runs) -> bool:
    layer = run.layer
    if not is_keras_own(layer):
        return False
    if isinstance(layer, keras.layers.Resizing):
        return not (layer.crop_to_aspect_ratio or layer.pad_to_aspect_ratio)
    name = type(layer).__name__
    is_identity = name.startswith("Random") and name != "RandomCrop"  # When the model is not trained.
    if is_identity or not _MAY_MOVE.search(name):
        return True
    if "ZeroPadding" not in name:
        return False
    readers = [one.layer for one in runs if one.layer.input is run.output]
    return bool(readers) and all(_absorbs(reader, layer.padding) for reader in readers)


def _absorbs(layer, padding) -> bool:
    """Return whether `padding` only supplies the overlapping windows of `layer` with neighbours."""
    window = getattr(layer, "kernel_size", getattr(layer, "pool_size", None))
    if window is None or layer.padding != "valid":
        return False
    dilation = getattr(layer, "dilation_rate", (1,) * len(window))
    sides = zip(np.reshape(padding, (-1, 2)), window, layer.strides, dilation, strict=True)
    return all(
        sum(added) == 0 or (sum(added) <= (w - 1) * d and (w - 1) * d + 1 > s) for added, w, s, d in sides
    )


def _runs_of_graph(model) -> list[LayerRun] | None:
    """Return all runs of layers, in order of execution, or `None` if Keras's graphs do not show all."""
    functional = functional_graph(model)
    if not _has_keras_graph(model) or functional is None:
        return None
    runs = []
    for node in nodes_in_order(functional):
        layer = node.operation
        if _has_no_inner_layers(layer):
            runs.append(LayerRun(layer, node.outputs[0] if len(node.outputs) == 1 else None))
            continue
        inner = _runs_of_graph(layer)
        # An inner model may be called on another size than the one that it was built for.
        if inner is None or [x.shape for x in node.input_tensors] != [x.shape for x in layer.inputs]:
            return None
        if len(layer.outputs) > 1:  # Not all of them may be used.
            return None
        runs += inner
    return runs


class Trial(NamedTuple):
    """A trial run of a model in a graph.

    Attributes:
        runs: the runs of its layers, in order of execution.
        images: its inputs, flat.
        outputs: its outputs, flat.
        graph: the graph. It is stored because the tensors hold no reference to it.
    """

    runs: list[LayerRun]
    images: list[tf.Tensor]
    outputs: list[tf.Tensor]
    graph: tf.Graph


def trace_trial(model: keras.Model, specs: Any) -> Trial:
    """Run the model once in a separate graph, and record what each layer returns."""
    runs, inputs, outputs = [], [], []

    def record(layer, output):
        runs.append(LayerRun(layer, output))
        return output

    all_layers = [layer for _, layer in walk_layers(model)]
    leaves = [layer for layer in all_layers if isinstance(layer, keras.Layer) and _has_no_inner_layers(layer)]
    hidden = {id(inner) for leaf in leaves for _, inner in walk_layers(leaf)}
    layers = {
        id(layer): layer for layer in all_layers if not _has_keras_graph(layer) and id(layer) not in hidden
    }

    def run(images):
        inputs.extend(keras.tree.flatten(images))
        with tap(list(layers.values()), record):
            outputs.extend(keras.tree.flatten(call_model(model, images)))

    batch = keras.tree.map_structure(
        lambda spec: tf.TensorSpec([_TRIAL_BATCH, *spec.shape[1:]], spec.dtype), specs
    )
    graph = tf.function(run, autograph=False).get_concrete_function(batch).graph
    # Layers inside the model's own loops are in another graph.
    runs = [run for run in runs if getattr(run.output, "graph", None) is graph]
    return Trial(runs, inputs, outputs, graph)


def maps_from_trial(model: keras.Model, trial: Trial) -> list[LayerMap]:
    """Return the layers with a map on which an output depends."""
    path = ancestors(trial.outputs)

    def find_grid(output, channels_first):
        shape = output.shape
        is_used = output.dtype.is_floating and output.op in path
        is_batch = is_used and shape.rank and shape[0] in (None, _TRIAL_BATCH)
        return activation_grid(output, trial.images, channels_first) if is_batch else None

    return _layers_with_map(model, trial.runs, find_grid)


def only_depended_on(model: keras.Model, specs: Any, maps: list[LayerMap]) -> list[LayerMap]:
    """Return those of `maps` on whose positions, and not only on a class token, the outputs depend."""
    layer_calls = [LayerCall(one.info.layer, one.run) for one in maps]

    def depends(images):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            passed = forward(model, images, layer_calls, tape.watch)
            logits = [one for one in keras.tree.flatten(find_logits(passed.outputs)) if one is not None]
            # Random weights, because the plain sum of the outputs of a normalization is constant.
            weights = [tf.random.stateless_normal(tf.shape(one), [0, 1]) for one in logits]
            scores = [tf.reduce_sum(tf.cast(x, tf.float32) * w) for x, w in zip(logits, weights, strict=True)]
        gradients = tape.gradient(scores, passed.activations, unconnected_gradients="zero")
        return [
            tf.reduce_any(to_grid(gradient, one.grid) != 0)
            for gradient, one in zip(gradients, maps, strict=True)
        ]

    images = keras.tree.map_structure(_random_image, specs)
    try:
        results = tf.function(depends, autograph=False).get_concrete_function(images)(images)
    except Exception:  # The model may not accept the trial size, where it leaves its size open.
        return maps
    return [one for one, is_used in zip(maps, results, strict=True) if is_used]


def _random_image(spec) -> tf.Tensor:
    shape = [1, *with_trial_sides(spec).shape[1:]]
    return tf.cast(tf.random.stateless_uniform(shape, [0, 1]), spec.dtype)

"""Which layers a model has, and which of them have a map: the look-up, the list."""

import collections
import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_gradcam._model import inputs, maps
from tf_gradcam._model.forward import (
    LayerCall,
    ancestors,
    call_model,
    find_logits,
    flattened_grids,
    forward,
    tap,
    find_token_start,
)

_BATCH = 3  # of a trial run, to see which outputs have one row for each image
_SIDE = 128  # of a trial image, where the model leaves it open


def check_model(model: Any) -> None:
    """Raise a `TypeError` or `ValueError` that helps unless `model` is a TensorFlow `keras.Model`."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "tf_gradcam needs Keras's TensorFlow backend. Received: "
            f"backend={keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow before importing keras."
        )
    if not isinstance(model, keras.Model):
        hint = ""
        if any(kind.__module__.startswith("tf_keras") for kind in type(model).__mro__):
            hint = (
                " Rebuild this Keras 2 model in Keras 3 and hand its weights over: "
                "save_weights('m.weights.h5') there, load_weights('m.weights.h5') here."
            )
        elif hasattr(model, "shape"):
            hint = " The model comes first, then the image."
        raise TypeError(
            f"`model` must be a keras.Model. Received an object of type {type(model).__name__}.{hint}"
        )


def check_layer(layer: Any, call: Any = None) -> None:
    """Raise a `TypeError` or `ValueError` unless `layer` and `call` may name one layer or several."""
    for each in layer if isinstance(layer, list | tuple) else [layer]:
        if not isinstance(each, str | keras.Operation) and (each is not None or layer is not None):
            raise TypeError(
                "`layer` must be a name, a keras.Layer, a list of them, or None. "
                f"Received: an object of type {type(each).__name__}"
            )
    if isinstance(layer, list | tuple) and not layer:
        raise ValueError("`layer` must name a layer. Received: an empty list. Give None for the default one.")
    if call is not None and (isinstance(call, bool) or not isinstance(call, int) or call < 0):
        raise ValueError(f"`call` must be None or a number from 0 on. Received: call={call!r}")


def structure_key(model: keras.Model) -> tuple[int, ...]:
    """Return what tells that `model` gained or lost a layer at the top; a functional model never does."""
    return () if isinstance(model, keras.src.models.Functional) else tuple(map(id, model.layers))


def is_built(model: keras.Model) -> bool:
    """Whether every layer has its weights, so that tracing creates none."""
    if inputs.functional_graph(model) is not None:
        return True
    return model.built and all(layer.built for _, layer in walk_layers(model) if isinstance(layer, keras.Layer))


# Every layer, and the one that is meant


def walk_layers(model: keras.Layer, above: tuple[keras.Layer, ...] = ()) -> Iterator[tuple[str, keras.Operation]]:
    """Yield every layer below `model` with its path, inner layers before the one that holds them.

    Also what is a step of a functional model's graph without being a `keras.Layer`, as `x + y` is.
    """
    above = (*above, model)
    for layer in _children(model):
        if any(layer is each for each in above):
            continue  # A layer that refers to what holds it has that among its own layers.
        path = "/".join(each.name for each in (*above[1:], layer))
        if isinstance(layer, keras.Layer):
            yield from walk_layers(layer, above)
        yield path, layer


def layer_path(model: keras.Model, layer: keras.Operation) -> str:
    """Return the path of a layer of `model`."""
    return next(path for path, each in walk_layers(model) if each is layer)


def _children(layer: keras.Layer) -> list[keras.Operation]:
    if not isinstance(layer, keras.Model):
        return layer._flatten_layers(include_self=False, recursive=False)
    # In order of execution, and with the steps that are no layers.
    return layer.operations if isinstance(layer, keras.src.models.Functional) else layer.layers


def find_layer(model: keras.Model, layer: str | keras.Operation) -> keras.Operation:
    """Return the layer of `model` that `layer` means.

    Args:
        model: a `keras.Model`.
        layer: a layer of `model`, its name, or the end of its path (`"inner/conv"`).

    Raises:
        ValueError: if `model` has no such layer, or several.
    """
    layers = list(walk_layers(model))
    if isinstance(layer, keras.Operation):
        if not any(each is layer for _, each in layers):
            raise ValueError(
                f"`layer` must be a layer of the model. Received: layer={layer.name!r}, which is not "
                f"part of model {model.name!r}."
            )
        return layer
    exact = [(path, each) for path, each in layers if path == layer]
    matches = exact or [(path, each) for path, each in layers if f"/{path}".endswith(f"/{layer}")]
    if len({id(each) for _, each in matches}) == 1:
        return matches[0][1]
    if matches:
        raise ValueError(
            f"`layer` must name one layer. Received: layer={layer!r}, which may be any of "
            f"{[path for path, _ in matches]}. Give a path or the layer itself."
        )
    paths = [path for path, _ in layers]
    names = {name.lower(): name for path, each in layers for name in (path, each.name)}
    near = [names[name] for name in difflib.get_close_matches(layer.lower(), names)]
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise ValueError(
        f"`layer` must be a layer of the model. Received: layer={layer!r}. {hint}"
        f"Its layers: {_shortened(paths)}"
    )


def _shortened(names: list[str], most: int = 12) -> str:
    names = [repr(name) for name in names]
    return ", ".join(names if len(names) <= most else ["...", *names[-most:]])


def are_channels_first(model: keras.Model, layers: Sequence[keras.Operation]) -> list[bool]:
    """Return for each layer whether its channels come right after the batch: its own word, or a neighbour's.

    A layer that has no `data_format`, as an activation has none, does as the one before it; a permutation
    may turn it round.
    """
    known, first = {}, None
    for _, each in walk_layers(model):
        data_format = _turned(each) or getattr(each, "data_format", None)
        known[id(each)] = first = first if data_format is None else data_format == "channels_first"
    begin = next((each for each in known.values() if each is not None), False)
    return [begin if known.get(id(layer)) is None else known[id(layer)] for layer in layers]


def _turned(layer) -> str | None:
    """Return where a permutation puts the channels, if it moves them from one end to the other."""
    axes = (0, *layer.dims) if isinstance(layer, keras.layers.Permute) else getattr(layer, "axes", None)
    if not isinstance(axes, list | tuple) or len(axes) < 4:
        return None
    ends = {axes[-1]: "channels_last", len(axes) - axes[1]: "channels_first"}
    return ends.get(1)


# The layers that have a map


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


def require_specs(model: keras.Model, images: Any = None) -> Any:
    """Return the specs that `model` takes; of a model with no graph, those of `images` or its first call.

    Raises:
        ValueError: if nothing tells the shape.
    """
    if not model.built:
        raise ValueError(
            f"`model` must be built. Received: model={model.name!r}, which was never called. "
            "Call it once on an image first: model(images)"
        )
    if images is not None:
        several = inputs.count_call_arguments(model) > 1
        images = inputs.as_batch("images", images, inputs.declared_specs(model), several)
        return inputs.specs_to_trace(model, images)
    specs = inputs.declared_specs(model)
    if specs is None:
        raise ValueError(
            f"`model` must tell what it takes. Received: model={model.name!r}, of which Keras knows the "
            "first of several arguments only. Give list_layers its `images`; GradCAM takes them as they come."
        )
    return specs


class LayerRun(NamedTuple):
    layer: keras.Operation
    output: Any  # symbolic: of Keras's graph, or of TensorFlow's


class LayerMap(NamedTuple):
    info: LayerInfo
    grid: maps.Grid
    output: Any  # of the last run that gave a map
    run: int | None  # the number of that run


def _with_map(model, runs, find_grid) -> list[LayerMap]:
    """Return those layers that gave a map, with the last run that did, in the order of these runs."""
    paths = {id(layer): path for path, layer in walk_layers(model)}
    counts, found = collections.Counter(), {}
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
) -> maps.Grid | None:
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
        return maps.find_grid(shape, [image.shape for image in images], channels_first)
    way = ancestors([activations])
    shapes = [image.shape for image in images if image.op in way]
    grid = maps.find_grid(shape, shapes, channels_first, flattened_grids(way))
    if grid is None or not grid.extra:
        return grid
    start = find_token_start(way, shape[1], math.prod(grid.shape))
    return None if start is None else grid._replace(start=start)


def _is_graph(layer: keras.Operation) -> bool:
    """Whether `layer` is a Functional or Sequential model, whose graph tells what it does."""
    kinds = (keras.Sequential, keras.src.models.Functional)
    own = type(layer).call in [kind.call for kind in kinds]
    own = own and type(layer).__call__ in [kind.__call__ for kind in kinds]
    return own and bool(getattr(layer, "inputs", None))


def _is_leaf(layer: keras.Operation) -> bool:
    """Whether `layer` has no layers inside that matter: those of Keras's own layers are their own affair."""
    if not isinstance(layer, keras.Layer):
        return True
    if isinstance(layer, keras.Model | keras.layers.Wrapper):
        return False
    return type(layer).__module__.startswith("keras.src.layers.") or not _children(layer)


def maps_from_keras_graph(model) -> list[LayerMap] | None:
    """Return the layers with a map if Keras's graphs tell it all; else `None`."""
    runs = _runs_of_graph(model)
    if runs is None or len(model.inputs) > 1:
        return None
    image = model.inputs[0].shape
    if len(image) > 3 and any(len(getattr(run.output, "shape", ())) == 3 for run in runs):
        return None  # Where tokens come from, only TensorFlow's graph tells.
    return _with_map(model, runs, lambda output, first: maps.find_grid(output.shape, [image], first))


def final_activation(model: keras.Model) -> Callable | None:
    """Return the activation that a model of one image ends in, if Keras's graph tells all of it; else `None`.

    Run eagerly, such a model shows its logits: what a softmax or sigmoid of Keras returns has them noted.
    """
    if maps_from_keras_graph(model) is None or len(model.outputs) > 1 or len(model.inputs[0].shape) < 4:
        return None
    last = _runs_of_graph(model)[-1].layer
    known = [keras.activations.softmax, keras.activations.sigmoid]
    if type(last) in (keras.layers.Dense, keras.layers.Conv2D, keras.layers.Conv3D):
        known.append(keras.activations.linear)
    elif type(last) is not keras.layers.Activation:
        return None
    return last.activation if last.activation in known else None


def ends_without_convolution(model: keras.Model, layer: keras.Operation) -> bool:
    """Whether Keras's own layers follow on `layer`, and no convolution, where Keras's graph tells all."""
    runs = [run.layer for run in _runs_of_graph(model)]
    after = runs[len(runs) - runs[::-1].index(layer) :] if layer in runs else runs
    return all(
        type(each).__module__.startswith("keras.") and "Conv" not in type(each).__name__ for each in after
    )


def _runs_of_graph(model) -> list[LayerRun] | None:
    """Return what runs, in order of execution, or `None` if Keras's graphs don't tell all of it."""
    functional = inputs.functional_graph(model)
    if not _is_graph(model) or functional is None:
        return None
    nodes = [node for _, depth in sorted(functional._nodes_by_depth.items(), reverse=True) for node in depth]
    runs = []
    for node in nodes:
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
            tf.reduce_any(maps.to_grid(gradient, each.grid) != 0)
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


def with_trial_sides(spec) -> tf.TensorSpec:
    shape = [_SIDE if length is None else length for length in spec.shape[1:]]
    return tf.TensorSpec([None, *shape], spec.dtype)

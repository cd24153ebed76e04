"""Layers in parallel branches: on which of them every score depends, and which lie beside one another.

Called by `default_layer`. A branch for each label must not be explained in place of what all labels share,
and one member of an ensemble not without a word.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_gradcam._graph import ancestors
from tf_gradcam._layers.discovery import LayerMap, Trial
from tf_gradcam._model import (
    LayerCall,
    find_logits,
    forward,
    functional_graph,
    nodes_in_order,
    walk_layers,
    with_trial_sides,
)

_MAX_LAYERS = 32  # Number of layers whose gradients are computed at once.
_MAX_SCORES = 16  # Number of scores whose gradients are computed, at equal steps.


def is_on_every_path(model: keras.Model, layer: keras.Operation) -> bool:
    """Return whether every path through the Keras graph of `model` leads through `layer`."""
    functional = functional_graph(model)
    if functional is None:
        return False
    reached: set[int] = set()  # The tensors on paths around `layer`.
    for node in nodes_in_order(functional):
        operation = node.operation
        is_start = not node.input_tensors
        if operation is layer or not (is_start or any(id(x) in reached for x in node.input_tensors)):
            continue
        holds_layer = isinstance(operation, keras.Model) and any(
            x is layer for _, x in walk_layers(operation)
        )
        if not (holds_layer and is_on_every_path(operation, layer)):
            reached.update(map(id, node.outputs))
    return not any(id(output) in reached for output in functional.outputs)


def around(trial: Trial, layer_map: LayerMap) -> set[tf.Operation]:
    """Return the operations that depend on an image by a path around a layer.

    Of inputs of several ranks those with the most axes count: a table beside an image is no image.
    """
    most = max(image.shape.rank for image in trial.images)
    reached = {image.op for image in trial.images if image.shape.rank == most}
    for operation in trial.graph.get_operations():
        if operation is layer_map.output.op:
            continue
        if any(tensor.op in reached for tensor in operation.inputs):
            reached.add(operation)
    return reached - {layer_map.output.op}


def parallel_layers(trial: Trial, maps: Sequence[LayerMap], chosen: LayerMap) -> list[LayerMap]:
    """Return the last of `maps` on each path from an image to the outputs beside `chosen`."""
    outside = around(trial, chosen)
    if not any(output.op in outside for output in trial.outputs):
        return []
    before = ancestors([chosen.output])
    beside = [
        one
        for one in maps
        if one.output.op in outside
        and one.output.op not in before
        and chosen.output.op not in ancestors([one.output])
        and len(one.grid.shape) == len(chosen.grid.shape)
    ]
    # Queries, keys and values of one attention are no branches.
    is_token = chosen.grid.extra is not None
    if beside and is_token and any(_is_on_every_path(trial, one) for one in maps if one.output.op in before):
        return []
    inner = [ancestors(one.output.op.inputs) for one in beside]
    return [one for one in beside if not any(one.output.op in path for path in inner)]


def _is_on_every_path(trial, layer_map) -> bool:
    outside = around(trial, layer_map)
    return not any(output.op in outside for output in trial.outputs)


# Operations that change the units of an output one by one, or only their order.
_UNIT_BY_UNIT = (
    *("Cast", "Elu", "EnsureShape", "Exp", "Identity", "LeakyRelu", "LogSoftmax", "Neg", "Relu", "Relu6"),
    *("Reshape", "Selu", "Sigmoid", "Softmax", "Softplus", "Squeeze", "Tanh", "Transpose"),
)
_COMBINING = ("Add", "AddN", "AddV2", "BiasAdd", "Maximum", "Minimum", "Mul", "RealDiv", "Sub")
_REDUCING = ("Max", "Mean", "Min", "Sum")
_DENSE = ("BatchMatMulV2", "Conv2D", "Conv3D", "Einsum", "MatMul")


_SLICING = ("GatherV2", "Slice", "Split", "SplitV", "StridedSlice", "Unpack")


def are_joint(trial: Trial, parts: Sequence[tf.Tensor]) -> bool:
    """Return whether the graph shows that all units of each part of an output depend on the same layers.

    As the units of a dense layer do, and of a sum of several.
    """
    varying = {image.op for image in trial.images}
    for operation in trial.graph.get_operations():
        if any(tensor.op in varying for tensor in operation.inputs):
            varying.add(operation)
    if len(parts) > 1:  # Each may read a slice of one tensor that holds all branches.
        read = ancestors(parts, lambda operation: operation not in varying)
        slices = [operation for operation in read if operation.type in _SLICING]
        if any(operation.outputs[0].dtype.is_floating for operation in slices):
            return False
    return all(_is_joint(part, part.shape[-1], varying) for part in parts)


def _is_joint(output, units, varying) -> bool:
    operation = output.op
    inputs = [tensor for tensor in operation.inputs if tensor.op in varying]
    if operation.type in _DENSE:  # Its other axes may be labels that share one dense layer.
        return units in (output.shape[-1], output.shape[1] if "Conv" in operation.type else None)
    if operation.type in _REDUCING and inputs and inputs[0].op.type == "Pack":
        axes = tf.get_static_value(operation.inputs[1])
        is_over_members = axes is not None and axes == inputs[0].op.get_attr("axis")
        return bool(is_over_members) and all(_is_joint(one, units, varying) for one in inputs[0].op.inputs)
    if operation.type in (*_UNIT_BY_UNIT, *_COMBINING, *_REDUCING):
        return all(_is_joint(tensor, units, varying) for tensor in inputs)
    return False


def depended_on_by_all(model: keras.Model, specs: Any, maps: Sequence[LayerMap]) -> list[LayerMap]:
    """Return those of `maps` on which every score depends; `[]` if there are none.

    Random images decide, by the gradients of at most 16 scores. A score that depends on no layer is left out.
    """
    layers: list[LayerMap] = []
    rows: list[tf.Tensor] = []  # For each layer, which of the scores depend on it.
    for end in range(len(maps), 0, -_MAX_LAYERS):
        window = list(maps[max(0, end - _MAX_LAYERS) : end])
        try:
            found = _dependence(model, specs, window)
        except Exception:  # The model may not accept the trial size, where it leaves its size open.
            return list(maps)
        layers, rows = [*window, *layers], [*tf.unstack(found, axis=1), *rows]
        if any(bool(tf.reduce_all(row)) for row in rows):
            break
    is_used = tf.reduce_any(tf.stack(rows), axis=0)
    return [one for one, row in zip(layers, rows, strict=True) if bool(tf.reduce_all(row | ~is_used))]


def _dependence(model, specs, maps) -> tf.Tensor:
    """Return which scores depend on which layers, `(scores, layers)`."""
    layer_calls = [LayerCall(one.info.layer, one.run) for one in maps]

    def depends(images):
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            passed = forward(model, images, layer_calls, tape.watch)
            logits = [one for one in keras.tree.flatten(find_logits(passed.outputs)) if one is not None]
            vectors = [tf.cast(one, tf.float32) for one in logits if one.shape.rank == 2]
            scores = tf.concat(vectors, axis=1)
        columns = tf.range(0, tf.shape(scores)[1], max(1, math.ceil(scores.shape[1] / _MAX_SCORES)))

        def row(column):
            seed = tf.broadcast_to(tf.one_hot(column, tf.shape(scores)[1]), tf.shape(scores))
            gradients = tape.gradient(scores, passed.activations, seed, unconnected_gradients="zero")
            return tf.stack([tf.reduce_any(gradient != 0) for gradient in gradients])

        return tf.map_fn(row, columns, fn_output_signature=tf.bool)

    images = keras.tree.map_structure(_random_images, specs)
    return tf.function(depends, autograph=False).get_concrete_function(images)(images)


def _random_images(spec) -> tf.Tensor:
    """Return two images, one in [0, 1] and one in [0, 255]."""
    shape = [2, *with_trial_sides(spec).shape[1:]]
    scales = tf.reshape([1.0, 255.0], [2] + [1] * (len(shape) - 1))
    images = scales * tf.random.stateless_uniform(shape, [0, 1])
    is_index = spec.dtype.is_integer and len(shape) < 4  # as the tokens of a text
    return tf.cast(tf.minimum(images, 1.0) if is_index else images, spec.dtype)

"""One forward pass of any Keras model: tap layers while it runs, and find its logits."""

import collections
import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._model import inputs

_TAP_LOCK = threading.RLock()


@contextlib.contextmanager
def tap(layers: Sequence[keras.Operation], through: Callable[[keras.Operation, Any], Any]):
    """Pass what each of `layers` returns through `through(layer, output)` while the context is open.

    Only calls made by this thread are tapped. The layers are exactly what they were when it closes, also
    after an error. Open it while a model is being traced: the compiled graph then holds nothing of it.
    """
    owner = threading.get_ident()

    def tapped(layer, call):
        @functools.wraps(call)
        def call_through(*args, **kwargs):
            output = call(*args, **kwargs)
            return through(layer, output) if threading.get_ident() == owner else output

        return call_through

    with _TAP_LOCK, contextlib.ExitStack() as restore:
        for layer in layers:
            if "call" in vars(layer):
                restore.callback(object.__setattr__, layer, "call", vars(layer)["call"])
            else:
                restore.callback(object.__delattr__, layer, "call")
            # object's own setter: Keras's would track the function as part of the layer.
            object.__setattr__(layer, "call", tapped(layer, layer.call))
        yield


def call_model(model: keras.Model, images: Any) -> Any:
    """Return what `model` answers to `images` in inference mode, changing none of its state."""
    with keras.StatelessScope():
        return _call(model, images)


def build_model(model: keras.Model, images: Any) -> None:
    """Give `model` its weights, as its first call would, and leave the state of those that it has."""
    state = [(variable, variable.numpy()) for variable in model.non_trainable_variables]
    _call(model, keras.tree.map_structure(lambda image: image[:1], images))
    for variable, value in state:
        variable.assign(value)


def _call(model, images):
    if inputs.count_call_arguments(model) < 2:
        return model(images, training=False)
    if isinstance(images, dict):
        return model(**images, training=False)
    return model(*images, training=False)


class LayerCall(NamedTuple):
    """Which layer to read, and which of its runs: `None` where it must run once."""

    layer: keras.Operation
    call: int | None = None


class ForwardPass(NamedTuple):
    """What one forward pass shows: the activations of each layer read, and what the model returned."""

    activations: list[tf.Tensor]
    outputs: Any


def forward(
    model: keras.Model,
    images: Any,
    reads: Sequence[LayerCall],
    watch: Callable[[tf.Tensor], None] | None = None,
    replace: Sequence[tf.Tensor] | None = None,
) -> ForwardPass:
    """Call `model` once and read layers on the way. Whatever needs values goes through here.

    Args:
        model: any built Keras model.
        images: tensors, in the structure that `model` takes.
        reads: the layers to read, each returning one tensor.
        watch: called with the activations at the moment they appear, before anything uses them:
            `tape.watch` puts them, and nothing below them, on a tape.
        replace: activations for each read, to go on with instead. In a graph, what only the layer itself
            needed is then never computed.

    Raises:
        ValueError: if a layer doesn't run as often as its read says, or returns something other than one
            tensor.
    """
    runs = {id(read.layer): 0 for read in reads}
    seen = [None] * len(reads)

    def note(layer, output):
        run = runs[id(layer)]
        runs[id(layer)] += 1
        for index, read in enumerate(reads):
            if read.layer is layer and run == (read.call or 0):
                # A tensor of its own: a layer that returns its input unchanged (dropout, say) would else
                # put the input on the tape, and with it every branch that goes round the layer.
                output = seen[index] = tf.identity(_one_tensor(layer, output))
                if watch is not None:
                    watch(output)
                if replace is not None:
                    output = replace[index]
        return output

    with tap(list({id(read.layer): read.layer for read in reads}.values()), note):
        outputs = call_model(model, images)
    for read, activations in zip(reads, seen, strict=True):
        _check_run(read, runs[id(read.layer)], activations)
    return ForwardPass(seen, outputs)


def _one_tensor(layer, output):
    if tf.is_tensor(output):
        return output
    raise ValueError(
        f"`layer` must return one tensor. Received: layer={layer.name!r}, which returns "
        f"{type(output).__name__}. Name a layer inside it, or the one after it."
    )


def _check_run(read, runs, activations) -> None:
    name = read.layer.name
    if runs == 0:
        raise ValueError(
            f"`layer` must run when the model is called. Received: layer={name!r}, which ran 0 times. "
            "Choose a layer that runs on the way to the output."
        )
    if activations is not None and not _is_open(activations):
        raise ValueError(
            f"`layer` must run in the open. Received: layer={name!r}, which runs inside a tf.function or a "
            "loop of the model's own. Take the decorator off, or choose a layer outside."
        )
    if read.call is None and runs > 1:
        raise ValueError(
            f"`layer` must run once, or `call` must say which run is meant. Received: layer={name!r}, which "
            f"ran {runs} times. Give call=0 for the first, up to call={runs - 1} for the last."
        )
    if activations is None:
        raise ValueError(
            f"`call` must be a run of the layer, from 0 to {runs - 1}. Received: call={read.call}, and layer "
            f"{name!r} ran {'once' if runs == 1 else f'{runs} times'}."
        )


def _is_open(activations) -> bool:
    return tf.executing_eagerly() or activations.graph is tf.compat.v1.get_default_graph()


def find_logits(outputs: Any) -> Any:
    """Return for each output what its final softmax or sigmoid was given, or the output where there is none.

    `None` stands for an output that comes out of a `tf.function` of the model's own, which can't be looked
    into.
    """
    return keras.tree.map_structure(_logits, outputs)


class _Hidden(Exception):
    """The way to the logits leads into a function."""


def _logits(output: Any) -> Any:
    if tf.executing_eagerly():  # There is no graph to read; Keras leaves a note on its own activations.
        return getattr(output, "_keras_logits", output)
    if not tf.is_tensor(output):
        return output
    try:
        logits = _behind_squashing(output)
    except _Hidden:
        return None
    return output if logits is None else logits


def _behind_squashing(output: tf.Tensor) -> tf.Tensor | None:
    operation = output.op
    if operation.type in ("PartitionedCall", "StatefulPartitionedCall"):
        raise _Hidden
    if operation.type in ("Softmax", "LogSoftmax", "Sigmoid"):
        return operation.inputs[0]
    # A detector joins its boxes and class scores; joined as they are, probabilities are one vector.
    if operation.type == "ConcatV2" and output.shape.rank != 2:
        *pieces, axis = operation.inputs
        logits = [_behind_squashing(piece) for piece in pieces]
        if all(each is None for each in logits):
            return None
        return tf.concat([p if x is None else x for p, x in zip(pieces, logits, strict=True)], axis)
    if operation.type not in ("Identity", "Cast", "Reshape", "Transpose"):
        return None
    logits = _behind_squashing(operation.inputs[0])
    if logits is None or operation.type in ("Identity", "Cast"):
        return logits
    rearrange = {"Reshape": tf.reshape, "Transpose": tf.transpose}[operation.type]
    return rearrange(logits, operation.inputs[1])


def logits_need_graph(outputs: Any) -> bool:
    """Whether the logits of `outputs`, symbolic ones, can be found in their graph only."""
    flat = keras.tree.flatten(outputs)
    return any(_logits(output) is not output and not hasattr(output, "_keras_logits") for output in flat)


def ancestors(
    tensors: Iterable[tf.Tensor], stop: Callable[[tf.Operation], bool] | None = None
) -> dict[tf.Operation, None]:
    """Return the operations of a graph that `tensors` come out of, the nearest first, but not past `stop`."""
    found, waiting = {}, collections.deque(tensor.op for tensor in tensors)
    while waiting:
        operation = waiting.popleft()
        if operation in found or (stop is not None and stop(operation)):
            continue
        found[operation] = None
        waiting += [each.op for each in operation.inputs]
    return found


_OF_SHAPES = ("Rank", "Shape", "ShapeN", "Size")  # operations that look at no value


def operations_between(start: tf.Tensor, end: tf.Tensor) -> list[tf.Operation]:
    """Return the operations through which the values of `end` depend on those of `start`, in their order."""
    way = ancestors([end], lambda operation: operation is start.op)
    reached, found = {start.ref()}, []
    for operation in end.graph.get_operations():
        of_values = operation in way and operation.type not in _OF_SHAPES
        if of_values and any(each.ref() in reached for each in operation.inputs):
            reached.update(each.ref() for each in operation.outputs)
            found.append(operation)
    return found


# Steps that keep an affine function affine; of two factors only one may depend on what it is a function of.
_AFFINE = {"AddV2", "BiasAdd", "Cast", "Identity", "MatMul", "Mean", "Mul", "Reshape", "Squeeze", "Sub"}


def non_affine_operations(start: tf.Tensor, end: tf.Tensor) -> list[tf.Operation]:
    """Return the operations for which `end` is no affine function of `start`, as a pooled dense head is."""
    steps = operations_between(start, end)
    depends = {start.ref(), *(each.ref() for step in steps for each in step.outputs)}

    def is_affine(step):
        factors = sum(each.ref() in depends for each in step.inputs) if step.type in ("MatMul", "Mul") else 1
        return step.type in _AFFINE and factors == 1

    return [step for step in steps if not is_affine(step)]


def mean_poolings(start: tf.Tensor, end: tf.Tensor, axes: Sequence[int]) -> list[tf.Tensor]:
    """Return the means over `axes` of `start` if they are all that `end` gets of it; else nothing."""
    same, found = {start.ref()}, []
    for step in operations_between(start, end):
        if not any(each.ref() in same for each in step.inputs):
            continue
        if step.type in ("Cast", "Identity"):
            same.add(step.outputs[0].ref())
        elif step.type == "Mean" and _reduced(step) == set(axes):
            found.append(step.outputs[0])
        else:
            return []
    return found


def _reduced(mean) -> set[int] | None:
    axes = tf.get_static_value(mean.inputs[1])
    return None if axes is None else {int(axis) % mean.inputs[0].shape.rank for axis in np.ravel(axes)}


def is_dense_head(start: tf.Tensor, end: tf.Tensor) -> bool:
    """Whether `end` is an affine function of `start`, in full precision and row by row."""
    steps = operations_between(start, end)
    outputs = [each for step in steps for each in step.outputs]
    depends = {start.ref(), *(each.ref() for each in outputs)}
    by_row = all(
        step.type not in ("Mean", "Reshape")
        and (step.type != "MatMul" or (step.inputs[0].ref() in depends and not step.get_attr("transpose_a")))
        for step in steps
    )
    in_full = all(each.dtype in (tf.float32, tf.float64) for each in [start, *outputs])
    return bool(steps) and by_row and in_full and not non_affine_operations(start, end)


def find_token_start(operations: Iterable[tf.Operation], tokens: int, places: int) -> int | None:
    """Return where among `tokens` those `places` begin that were joined with others; `None` if nowhere."""
    for operation in operations:
        if operation.type != "ConcatV2" or operation.outputs[0].shape[1:2] != [tokens]:
            continue
        lengths = [piece.shape[1] if piece.shape.rank == 3 else None for piece in operation.inputs[:-1]]
        for index, length in enumerate(lengths):
            before = lengths[:index]
            if None in before or length is None or not places <= length < tokens:
                continue
            inner = 0
            if length > places:
                inner = find_token_start(ancestors([operation.inputs[index]]), length, places)
            if inner is not None:
                return sum(before) + inner
    return None


def flattened_grids(operations: Iterable[tf.Operation]) -> list[tuple[int, int]]:
    """Return each `(h, w)` that one of `operations` reshapes to `h * w` tokens, the likelier first.

    `(N, h, w, ...)` becomes `(N, h * w, ...)`. With channels first `(N, C, h, w)` becomes `(N, C, h * w)`,
    but so does attention join its heads.
    """
    shapes = [(each.inputs[0].shape, each.outputs[0].shape) for each in operations if each.type == "Reshape"]
    shapes = [(tuple(before), tuple(after)) for before, after in shapes if before.rank and after.rank]
    found, channels_first = [], []
    for before, after in shapes:
        places = before[1:3]
        if len(before) > 3 and None not in places and after[1:2] in [(None,), (places[0] * places[1],)]:
            found.append(places)
        elif len(before) == 4 and len(after) == 3 and None not in before[2:] and before[1] == after[1]:
            channels_first.append(before[2:])
    return found + channels_first


def concatenated_parts(output: tf.Tensor) -> list[tf.Tensor]:
    """Return what `output` was put together from, as a detector's is from its levels; or else itself."""
    operation = output.op
    while operation.type in ("Cast", "Identity", "Reshape", "Sigmoid", "Softmax", "Transpose"):
        operation = operation.inputs[0].op
    if operation.type != "ConcatV2":
        return [output]
    return [piece for each in operation.inputs[:-1] for piece in concatenated_parts(each)]

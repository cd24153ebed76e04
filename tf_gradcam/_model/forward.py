"""One forward pass of any Keras model that also returns activations: `forward`.

Called by everything that needs activations or logits.
"""

import contextlib
import functools
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._model.keras_internals import without_rematerialization
from tf_gradcam._model.layers import walk_layers
from tf_gradcam._model.specs import count_call_arguments

_TAP_LOCK = threading.RLock()
_READ = threading.local()  # Its `values` are pairs of a variable and a tensor.


@contextlib.contextmanager
def tap(layers: Sequence[keras.Operation], through: Callable[[keras.Operation, Any], Any]) -> Iterator[None]:
    """Replace the output of each of `layers` by `through(layer, output)` while the context is open.

    Only calls by this thread are affected. The layers are restored exactly when the context closes, also
    after an error. Open it while a model is being traced: the compiled graph does not contain it.
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
            # Not `setattr`: Keras would track the function as part of the layer.
            object.__setattr__(layer, "call", tapped(layer, layer.call))
        yield


@contextlib.contextmanager
def variables_read_first(model: keras.Model) -> Iterator[None]:
    """Read the variables of `model` now, for the calls of it by this thread while the context is open.

    Loops, as in an LSTM, then take tensors from outside: a variable that is read in a loop can't be folded.
    """
    with _read_values([(variable, tf.convert_to_tensor(variable.value)) for variable in model.variables]):
        yield


@contextlib.contextmanager
def replaced_weights(model: keras.Model, weights: Sequence[tf.Tensor]) -> Iterator[None]:
    """Give `model` other `weights`, in the order of `model.weights`, for the calls of it by this thread."""
    with _read_values(list(zip(model.weights, weights, strict=True))):
        yield


@contextlib.contextmanager
def _read_values(values):
    """Let the calls of a model by this thread read `values`, pairs of a variable and a tensor."""
    outer = getattr(_READ, "values", None)
    _READ.values = values
    try:
        yield
    finally:
        _READ.values = outer


def as_weights(model: keras.Model, weights: Sequence[Any]) -> list[tf.Tensor]:
    """Return `weights` as tensors of the dtypes of `model.weights`.

    Raises:
        ValueError: if they do not have the shapes of `model.weights`.
    """
    expected = [tuple(variable.shape) for variable in model.weights]
    received = [np.shape(value) for value in weights]
    if received != expected:
        pairs = list(itertools.zip_longest(expected, received))
        number = next(number for number, (one, other) in enumerate(pairs) if one != other)
        raise ValueError(
            f"`weights` must hold the {len(expected)} arrays of `model.get_weights()`, of these shapes. "
            f"Received: {len(received)} arrays; number {number} has the shape {pairs[number][1]}, "
            f"not {pairs[number][0]}"
        )
    return [tf.cast(value, variable.dtype) for value, variable in zip(weights, model.weights, strict=True)]


def call_model(model: keras.Model, images: Any) -> Any:
    """Call `model` on `images` in inference mode, without changing its state."""
    layers = [layer for _, layer in walk_layers(model)]
    values = getattr(_READ, "values", None)
    with keras.StatelessScope(values), _TAP_LOCK, without_rematerialization([model, *layers]):
        return _call(model, images)


def build_model(model: keras.Model, images: Any) -> None:
    """Build the weights of `model` by a first call, and restore the state of those built before."""
    state = [(variable, variable.numpy()) for variable in model.non_trainable_variables]
    _call(model, keras.tree.map_structure(lambda image: image[:1], images))
    for variable, value in state:
        variable.assign(value)


def _call(model, images):
    if count_call_arguments(model) < 2:
        return model(images, training=False)
    if isinstance(images, dict):
        return model(**images, training=False)
    return model(*images, training=False)


class LayerCall(NamedTuple):
    """One run of a layer, whose activations are read.

    Attributes:
        layer: the layer.
        call: number of the run, from 0 in order of execution; `None` for a layer that must run once.
        channels_first: whether the channel axis comes right after the batch axis.
    """

    layer: keras.Operation
    call: int | None = None
    channels_first: bool = False

    def weak(self) -> "WeakLayerCall":
        """Return the same with a weak reference to the layer."""
        return WeakLayerCall(weakref.ref(self.layer), self.call, self.channels_first)


class WeakLayerCall(NamedTuple):
    """A `LayerCall` with a weak reference to its layer."""

    layer_reference: weakref.ref
    call: int | None
    channels_first: bool

    def strong(self) -> LayerCall:
        """Return the `LayerCall`; the layer must still exist."""
        return LayerCall(self.layer_reference(), self.call, self.channels_first)


class ForwardPass(NamedTuple):
    """The result of one forward pass: the activations of each requested layer, and the model's outputs."""

    activations: list[tf.Tensor]
    outputs: Any


def forward(
    model: keras.Model,
    images: Any,
    layer_calls: Sequence[LayerCall],
    watch: Callable[[tf.Tensor], None] | None = None,
    replace: Sequence[tf.Tensor] | None = None,
) -> ForwardPass:
    """Call `model` once, and return its outputs and the activations of layers.

    Args:
        model: any built Keras model.
        images: tensors, in the structure that `model` takes.
        layer_calls: the runs to read; each of these layers must return one tensor.
        watch: function that is called with the activations before any other operation uses them. With
            `tape.watch`, a tape records them and what follows, and nothing before them.
        replace: activations for each of `layer_calls`, with which the rest of the model runs instead. In a
            graph, operations that only the layer itself needs are not computed.

    Raises:
        ValueError: if a layer has no such run, or does not return one tensor.
    """
    runs = {id(requested.layer): 0 for requested in layer_calls}
    found: list[Any] = [None] * len(layer_calls)

    def record(layer, output):
        run = runs[id(layer)]
        runs[id(layer)] += 1
        for index, requested in enumerate(layer_calls):
            if requested.layer is layer and run == (requested.call or 0):
                # A new tensor. A layer that returns its input unchanged, such as dropout, would otherwise
                # put its input on the tape, and with it every branch around the layer.
                output = found[index] = tf.identity(_one_tensor(layer, output))
                if watch is not None:
                    watch(output)
                if replace is not None:
                    output = replace[index]
        return output

    with tap(list({id(requested.layer): requested.layer for requested in layer_calls}.values()), record):
        outputs = call_model(model, images)
    for requested, activations in zip(layer_calls, found, strict=True):
        _check_run(requested, runs[id(requested.layer)], activations)
    return ForwardPass(found, outputs)


def _one_tensor(layer, output):
    if tf.is_tensor(output):
        return output
    raise ValueError(
        f"`layer` must return one tensor. Received: layer={layer.name!r}, which returns "
        f"{type(output).__name__}. Choose a layer inside it, or the one after it."
    )


def _check_run(requested, runs, activations) -> None:
    name = requested.layer.name
    if runs == 0:
        raise ValueError(
            f"`layer` must run when the model is called. Received: layer={name!r}, which did not run. "
            "Choose a layer on the path to the output."
        )
    if activations is not None and not _is_in_current_graph(activations):
        raise ValueError(
            f"`layer` must not run inside the model's own tf.function or loop. Received: layer={name!r}, "
            "which does. Remove the decorator, or choose a layer outside."
        )
    if requested.call is None and runs > 1:
        raise ValueError(
            f"`layer` must run once, or `call` must say which run is meant. Received: layer={name!r}, which "
            f"ran {runs} times. Give call=0 for the first, up to call={runs - 1} for the last."
        )
    if activations is None:
        raise ValueError(
            f"`call` must be a run of the layer, from 0 to {runs - 1}. Received: call={requested.call}, and "
            f"layer {name!r} ran {'once' if runs == 1 else f'{runs} times'}."
        )


def _is_in_current_graph(activations) -> bool:
    return tf.executing_eagerly() or activations.graph is tf.compat.v1.get_default_graph()

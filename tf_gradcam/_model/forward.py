"""One forward pass of any Keras model, with layers tapped while it runs.

Whatever needs activations or logits calls `forward`.
"""

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_gradcam._model.specs import count_call_arguments

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
    """Call `model` on `images` in inference mode, and change none of its state."""
    with keras.StatelessScope():
        return _call(model, images)


def build_model(model: keras.Model, images: Any) -> None:
    """Build the weights of `model` by a first call, and leave the state of layers that are built already."""
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
    """One run of a layer, to read its activations.

    Attributes:
        layer: the layer.
        call: which of its runs, from 0 in order of execution; `None` where it must run once.
        channels_first: whether the channels come right after the batch.
    """

    layer: keras.Operation
    call: int | None = None
    channels_first: bool = False

    def weak(self) -> "WeakLayerCall":
        """Return the same without keeping the layer alive."""
        return WeakLayerCall(weakref.ref(self.layer), self.call, self.channels_first)


class WeakLayerCall(NamedTuple):
    """A `LayerCall` that does not keep its layer alive."""

    layer_reference: weakref.ref
    call: int | None
    channels_first: bool

    def strong(self) -> LayerCall:
        """Return the `LayerCall`; the layer must be alive."""
        return LayerCall(self.layer_reference(), self.call, self.channels_first)


class ForwardPass(NamedTuple):
    """What one forward pass shows: the activations of each layer asked for, and what the model returned."""

    activations: list[tf.Tensor]
    outputs: Any


def forward(
    model: keras.Model,
    images: Any,
    layer_calls: Sequence[LayerCall],
    watch: Callable[[tf.Tensor], None] | None = None,
    replace: Sequence[tf.Tensor] | None = None,
) -> ForwardPass:
    """Call `model` once, and read the activations of layers on the way.

    Args:
        model: any built Keras model.
        images: tensors, in the structure that `model` takes.
        layer_calls: the runs to read; each of these layers returns one tensor.
        watch: called with the activations at the moment they appear, before anything uses them:
            `tape.watch` puts them, and nothing before them, on a tape.
        replace: activations for each of `layer_calls`, with which the model goes on instead. In a graph,
            what only the layer itself needed is then never computed.

    Raises:
        ValueError: if a layer has no such run, or returns something other than one tensor.
    """
    runs = {id(each.layer): 0 for each in layer_calls}
    seen: list[Any] = [None] * len(layer_calls)

    def note(layer, output):
        run = runs[id(layer)]
        runs[id(layer)] += 1
        for index, asked in enumerate(layer_calls):
            if asked.layer is layer and run == (asked.call or 0):
                # A tensor of its own: a layer that returns its input unchanged, as dropout does, would
                # otherwise put the input on the tape, and with it every branch around the layer.
                output = seen[index] = tf.identity(_one_tensor(layer, output))
                if watch is not None:
                    watch(output)
                if replace is not None:
                    output = replace[index]
        return output

    with tap(list({id(each.layer): each.layer for each in layer_calls}.values()), note):
        outputs = call_model(model, images)
    for asked, activations in zip(layer_calls, seen, strict=True):
        _check_run(asked, runs[id(asked.layer)], activations)
    return ForwardPass(seen, outputs)


def _one_tensor(layer, output):
    if tf.is_tensor(output):
        return output
    raise ValueError(
        f"`layer` must return one tensor. Received: layer={layer.name!r}, which returns "
        f"{type(output).__name__}. Name a layer inside it, or the one after it."
    )


def _check_run(asked, runs, activations) -> None:
    name = asked.layer.name
    if runs == 0:
        raise ValueError(
            f"`layer` must run when the model is called. Received: layer={name!r}, which ran 0 times. "
            "Choose a layer on the path to the output."
        )
    if activations is not None and not _is_open(activations):
        raise ValueError(
            f"`layer` must run in the open. Received: layer={name!r}, which runs inside a tf.function or a "
            "loop of the model's own. Take the decorator off, or choose a layer outside."
        )
    if asked.call is None and runs > 1:
        raise ValueError(
            f"`layer` must run once, or `call` must say which run is meant. Received: layer={name!r}, which "
            f"ran {runs} times. Give call=0 for the first, up to call={runs - 1} for the last."
        )
    if activations is None:
        raise ValueError(
            f"`call` must be a run of the layer, from 0 to {runs - 1}. Received: call={asked.call}, and "
            f"layer {name!r} ran {'once' if runs == 1 else f'{runs} times'}."
        )


def _is_open(activations) -> bool:
    return tf.executing_eagerly() or activations.graph is tf.compat.v1.get_default_graph()

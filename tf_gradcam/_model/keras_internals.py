"""Every private name of Keras that this library reads, each behind a function. Used by `_model` alone.

`tests/model/test_keras_internals.py` has a test for each, which fails if a new version of Keras changes it.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import keras

_KERAS_PACKAGE = "keras"  # The package of Keras's own layers and operations.


def is_functional(model: Any) -> bool:
    """Return whether `model` is a functional model: the class that is both a `Function` and a `Model`."""
    return isinstance(model, keras.Function) and isinstance(model, keras.Model)


def functional_graph(model: keras.Model) -> Any | None:
    """Return the functional model with the graph of `model`, or `None` if there is none.

    For a functional model it is the model itself. A Sequential model creates one when it is built, and stores
    it in `_functional`; its `inputs` and `outputs` are public, but its nodes are only there.
    """
    functional = getattr(model, "_functional", None) or model
    return functional if is_functional(functional) else None


def nodes_in_order(functional: Any) -> Iterator[Any]:
    """Yield each call of a layer or operation in a functional model, in order of execution.

    `operations` is public, but lists an operation once, even if it runs several times. `_nodes_by_depth` has
    every run: `{depth: [node]}`, with the outputs at depth 0.
    """
    for _, nodes in sorted(functional._nodes_by_depth.items(), reverse=True):
        yield from nodes


def child_layers(layer: keras.Layer) -> list[Any]:
    """Return the layers directly inside `layer`, and the operations of a functional model, in order.

    The layers of a model are public. Those inside any other layer are only in `_flatten_layers`.
    """
    if is_functional(layer):
        return layer.operations  # in order of execution, with operations that are not layers
    return layer.layers if isinstance(layer, keras.Model) else layer._flatten_layers(False, False)


def noted_logits(output: Any) -> Any | None:
    """Return the logits that Keras's softmax and sigmoid attach to their output, or `None`.

    Keras attaches them as `_keras_logits`, for its losses. In eager mode there is no graph to find them in.
    """
    return getattr(output, "_keras_logits", None)


def has_noted_logits(output: Any) -> bool:
    """Return whether Keras attached logits to `output`; see `noted_logits`."""
    return noted_logits(output) is not None


def is_keras_own(layer: Any) -> bool:
    """Return whether the class of `layer` is Keras's own, and not a subclass of a user or another package."""
    return type(layer).__module__.partition(".")[0] == _KERAS_PACKAGE


def variable_lists(layer: Any) -> tuple[list[Any], list[Any]]:
    """Return the two lists that `layer` keeps of its own variables, not of those of layers inside it.

    `layer.variables` is public, but collects them from all layers inside, which takes milliseconds.
    """
    return layer._trainable_variables, layer._non_trainable_variables


def is_rematerialized(layer: Any) -> bool:
    """Return whether `layer` was made in a `keras.RematScope`, which it stores in `_remat_mode`."""
    return getattr(layer, "_remat_mode", None) is not None


@contextlib.contextmanager
def without_rematerialization(layers: Iterable[Any]) -> Iterator[None]:
    """Run `layers` without `keras.RematScope` while the context is open.

    Inside a scope a layer runs as one step that a tape cannot look into, so that neither its activations nor
    its logits could be explained. Its results are the same without.
    """
    with contextlib.ExitStack() as restore:
        for layer in filter(is_rematerialized, layers):
            restore.callback(object.__setattr__, layer, "_remat_mode", layer._remat_mode)
            object.__setattr__(layer, "_remat_mode", None)
        yield


INNER_LAYERS = "_layers"  # the attribute in which a layer lists the layers directly inside it


def inner_layers(layer: Any) -> list[Any]:
    """Return that list, which `layer` changes when a layer is added or removed; see `child_layers`."""
    return getattr(layer, INNER_LAYERS)

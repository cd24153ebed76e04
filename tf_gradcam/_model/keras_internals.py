"""Every private name of Keras that this library reads, each behind a function; the rest of `_model` calls it.

`tests/model/test_keras_internals.py` holds a test for each, which fails when a new Keras changes it.
"""

from collections.abc import Iterator
from typing import Any

import keras

_OWN = "keras"  # the package that Keras's layers and operations come from


def is_functional(model: Any) -> bool:
    """Return whether `model` is a functional model: Keras's one class that is a function and a model."""
    return isinstance(model, keras.Function) and isinstance(model, keras.Model)


def functional_graph(model: keras.Model) -> Any | None:
    """Return the functional model that tells what `model` does, or `None` where there is none.

    A functional model is its own. A Sequential model makes one when it is built, and keeps it in
    `_functional`; its public `inputs` and `outputs` come from there, but its nodes are nowhere else.
    """
    functional = getattr(model, "_functional", None) or model
    return functional if is_functional(functional) else None


def nodes_in_order(functional: Any) -> Iterator[Any]:
    """Yield each call of a layer or operation in a functional model, in order of execution.

    `operations` is public, but lists an operation once, however often it runs. `_nodes_by_depth` has every
    run: `{depth: [node]}`, the outputs at depth 0.
    """
    for _, nodes in sorted(functional._nodes_by_depth.items(), reverse=True):
        yield from nodes


def child_layers(layer: keras.Layer) -> list[Any]:
    """Return the layers right below `layer`, and the operations of a functional model, in order.

    A model lists its layers in public. Of any other layer only `_flatten_layers` knows those inside.
    """
    if is_functional(layer):
        return layer.operations  # in order of execution, and with the steps that are no layers
    return layer.layers if isinstance(layer, keras.Model) else layer._flatten_layers(False, False)


def noted_logits(output: Any) -> Any | None:
    """Return the logits that Keras's own softmax and sigmoid note on what they return, or `None`.

    Keras notes them as `_keras_logits`, for its losses. Eagerly there is no graph to find them in.
    """
    return getattr(output, "_keras_logits", None)


def has_noted_logits(output: Any) -> bool:
    """Return whether Keras noted logits on `output`; see `noted_logits`."""
    return noted_logits(output) is not None


def is_keras_own(layer: Any) -> bool:
    """Return whether the class of `layer` is Keras's own, and not a subclass of a user or another package."""
    return type(layer).__module__.partition(".")[0] == _OWN

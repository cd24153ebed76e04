"""Detect that a model computes something else than before; explainers ask in every call.

A trace reads the values of the model's variables in every call. Everything else is as it was when it was
traced. This module detects when that changes: new variables (`enable_lora`, `quantize`), new layers, another
activation or dtype policy, and arrays that a layer holds as constants (`Normalization.adapt`).
"""

import operator
import re
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._model.keras_internals import (
    INNER_LAYERS,
    child_layers,
    inner_layers,
    is_keras_own,
    variable_lists,
)

# Functions that every layer has, and those that matter only before and during training, or in `predict`.
_NOT_PART = re.compile(
    "build|quantize|.*_(initializer|regularizer|constraint)|(train|test|predict)_function|loss|optimizer"
)

# `compile` sets the last three.
_PLAIN = (
    *(bool, int, float, str, list, dict, tuple, type, keras.Variable, keras.Layer),
    *(keras.Loss, keras.Metric, keras.Optimizer),
)
_COMPARED = (keras.DTypePolicy, np.ndarray, tf.Tensor)

_FINGERPRINTS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def structure_version(model: keras.Model) -> int:
    """Return a number that increases when `model` computes something else than at the last call.

    New values of its variables do not count.
    """
    fingerprint = _FINGERPRINTS.get(model)
    if fingerprint is None or not fingerprint.is_current():
        version = 0 if fingerprint is None else fingerprint.version + 1
        fingerprint = _FINGERPRINTS[model] = _Fingerprint(model, version)
    return fingerprint.version


class _Fingerprint:
    """What is compared of one model. It keeps neither the model nor its layers alive."""

    def __init__(self, model: keras.Model, version: int):
        self.version = version
        layers = list(_all_layers(model))
        self._layers = [weakref.ref(layer) for layer in layers]
        # The lists themselves, which know nothing of their layers: a new variable is seen in its list.
        self._variable_lists = [
            each for layer in layers if _may_change(layer) for each in variable_lists(layer)
        ]
        self._readers = list(_readers(layers))
        self._values = self._read()

    def is_current(self) -> bool:
        """Return whether the model still is what it was."""
        try:
            return self._read() == self._values
        except (AttributeError, KeyError, TypeError):  # A layer, or an attribute of one, was deleted.
            return False

    def _read(self) -> list:
        # By functions written in C: it runs in every call.
        attributes = list(map(vars, map(operator.call, self._layers)))
        variable_counts = list(map(len, self._variable_lists))  # Keras adds variables, and replaces none.
        return [variable_counts, *(read(attributes) for read in self._readers)]


def _all_layers(model: keras.Model) -> Iterator[keras.Layer]:
    """Yield `model` and every layer in it once, also those inside Keras's own layers."""
    seen, waiting = set(), [model]
    while waiting:
        layer = waiting.pop()
        if id(layer) not in seen and isinstance(layer, keras.Layer):
            seen.add(id(layer))
            yield layer
            waiting += child_layers(layer)


def _may_change(layer: keras.Layer) -> bool:
    """Return whether variables or layers may be added: Keras's own layers that have none get none."""
    return any(variable_lists(layer)) or bool(inner_layers(layer)) or not is_keras_own(layer)


def _readers(layers: list[keras.Layer]) -> Iterator[Callable[[list[dict]], Any]]:
    """Yield functions from the attributes of all layers to what is compared of them."""
    with_layers = [
        place for place, layer in enumerate(layers) if inner_layers(layer) or not is_keras_own(layer)
    ]
    yield lambda attributes: [[id(each) for each in attributes[place][INNER_LAYERS]] for place in with_layers]
    names: dict[str, list[int]] = {}
    for position, layer in enumerate(layers):
        for name, value in vars(layer).items():
            if _is_part(value) and not _NOT_PART.fullmatch(name):
                names.setdefault(name, []).append(position)
    for name, positions in names.items():
        yield _identities(name, positions)


def _is_part(value) -> bool:
    """Return whether the identity of an attribute matters: a function, a dtype policy or an array."""
    return not isinstance(value, _PLAIN) and (callable(value) or isinstance(value, _COMPARED))


def _identities(name, positions):
    get = operator.itemgetter(name)
    if len(positions) == 1:
        return lambda attributes: id(attributes[positions[0]][name])
    select = operator.itemgetter(*positions)
    return lambda attributes: list(map(id, map(get, select(attributes))))

"""Weights as before training, layer by layer, for a model that is not touched. Called by `_sanity`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._layers import LayerWeights, weights_by_layer


class Group(NamedTuple):
    """Layers that are randomized together: one with a kernel, and those after it that only scale or shift.

    Attributes:
        name: path of the layer with the kernel, or of the first layer.
        positions: positions of the weights in `model.weights`.
    """

    name: str
    positions: tuple[int, ...]


class RandomWeights(NamedTuple):
    """The weights of a model, and random ones in their places.

    Attributes:
        trained: a tensor for each of `model.weights`.
        random: the same, as before training.
        without_initializer: names of those whose layer has no initializer for them.
    """

    trained: list[tf.Tensor]
    random: list[tf.Tensor]
    without_initializer: tuple[str, ...]

    def with_random(self, positions: Sequence[int]) -> list[tf.Tensor]:
        """Return the weights, random at these positions and trained at the others."""
        chosen = set(positions)
        return [
            self.random[place] if place in chosen else weight for place, weight in enumerate(self.trained)
        ]


def random_weights(model: keras.Model, images: Any, seed: int) -> tuple[RandomWeights, list[Group]]:
    """Draw new weights by the initializer of each layer; batch normalization gets its first statistics.

    A weight without an initializer is drawn from a normal distribution of its own mean and deviation.
    Integers, such as counters and states of random generators, stay; so do the statistics of a
    `keras.layers.Normalization`, which are of the data and not learned.

    Returns:
        The weights, and their groups from the output to the input.
    """
    layers, variables = weights_by_layer(model, images), model.weights
    trained = [tf.convert_to_tensor(variable) for variable in variables]
    drawn, without = list(trained), []
    for layer in layers:
        is_of_data = isinstance(layer.layer, keras.layers.Normalization)
        for position in () if is_of_data else layer.positions:
            variable = variables[position]
            if not trained[position].dtype.is_floating:
                continue
            random = np.random.default_rng([seed % 2**32, position])
            value = _initialized(layer.layer, variable, int(random.integers(2**31)))
            if value is None:
                value = _normal_like(np.asarray(trained[position], np.float64), random)
                without.append(variable.path)
            drawn[position] = tf.cast(value, trained[position].dtype)
    return RandomWeights(trained, drawn, tuple(without)), _groups_from_the_top(layers, trained)


def _groups_from_the_top(layers: Sequence[LayerWeights], weights) -> list[Group]:
    """Return all weights by layers, from the output to the input.

    A batch normalization belongs to the layer before it; what comes before the first kernel belongs to that.
    """

    def has_kernel(layer):
        return any(weights[position].shape.rank > 1 for position in layer.positions)

    joined: list[list[LayerWeights]] = []
    for layer in layers:
        if joined and not (has_kernel(layer) and any(map(has_kernel, joined[-1]))):
            joined[-1].append(layer)
        else:
            joined.append([layer])
    groups = []
    for together in reversed(joined):
        named = next(filter(has_kernel, together), together[0])
        groups.append(Group(named.path, tuple(each for one in together for each in one.positions)))
    return groups


def _initialized(layer, variable, seed):
    """Return a new value by the initializer of a variable, or `None` without one that draws for a kernel."""
    name = variable.name
    # `depthwise_kernel` is drawn by `depthwise_initializer`.
    found = (getattr(layer, f"{one}_initializer", None) for one in (name, name.removesuffix("_kernel")))
    initializer = next((one for one in found if isinstance(one, keras.Initializer)), None)
    if initializer is None:
        return None
    settings = initializer.get_config()
    if "seed" in settings:  # The seed it has would draw the weights again that the model began with.
        initializer = type(initializer).from_config({**settings, "seed": seed})
    elif len(variable.shape) > 1:
        return None  # A constant kernel would not let anything pass.
    return initializer(variable.shape, dtype=variable.dtype)


def _normal_like(values, random):
    drawn = random.normal(values.mean(), values.std(), values.shape)
    return np.abs(drawn) if (values >= 0).all() else drawn  # Variances stay positive.

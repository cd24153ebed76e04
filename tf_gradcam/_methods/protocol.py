"""What a method is: the scene that it may look at, and how it is applied."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf


class Scene(NamedTuple):
    """A batch of images as a method sees it: one layer's activations, one score, and how they change.

    It belongs to the graph that it was made in, and so do its functions: in the body of a loop, look at the
    scenes that `at` returns there.

    Attributes:
        image: `(N, *axes, C)` float: the input that the layer looks at, as the model takes it, but with its
            channels last, and with one channel where it has none.
        activations: `(N, *grid, K)` float: what the layer returns, on its grid.
        score: `(N,)` float: the target's score.
        index: `(N,)` int32, the class that is explained, or `None` where the target is no class.
        logits: `(N, classes)` where the score is one of several logits; else `None`.
        gradients: a tensor of this scene to its gradient by `activations`, `(N, *grid, K)`.
        image_gradients: a tensor of this scene to its gradient by `image`, `(N, *axes, C)`.
        at: other images `(R * N, *axes, C)`, R copies of the batch one after another, to their scene: with
            the same target, and whatever this left to the model as it was chosen at first.
        tail: other activations `(R * N, *grid, K)` to their score `(R * N,)`: the network run on from the
            layer, with nothing computed that only the layer needed.
        layer_output: the tensor that the layer returned, in the graph.
        model_input: the tensor that the model was given, in the graph.
    """

    image: tf.Tensor
    activations: tf.Tensor
    score: tf.Tensor
    index: tf.Tensor | None
    logits: tf.Tensor | None
    gradients: Callable[[tf.Tensor], tf.Tensor]
    image_gradients: Callable[[tf.Tensor], tf.Tensor]
    at: Callable[[tf.Tensor], "Scene"]
    tail: Callable[[tf.Tensor], tf.Tensor]
    layer_output: tf.Tensor
    model_input: tf.Tensor


def is_formula(method: Any) -> bool:
    """Whether `method` needs nothing but activations, or activations and gradients."""
    return not hasattr(method, "explain")


def takes_gradients(formula: Callable) -> bool:
    """Whether `formula` takes gradients, and not activations alone."""
    try:
        parameters = inspect.signature(formula).parameters.values()
    except ValueError:  # Some callables don't tell.
        return True
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [each for each in parameters if each.kind in kinds and each.default is inspect.Parameter.empty]
    return len(needed) != 1 or any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in parameters)


def is_classless(method: Any) -> bool:
    """Whether the map of `method` is the same for every target."""
    while callable(getattr(method, "method", None)) or hasattr(getattr(method, "method", None), "explain"):
        method = method.method  # one made of another
    return is_formula(method) and not takes_gradients(method)


def apply_method(method: Any, scene: Scene) -> tf.Tensor:
    """Return the map of `scene` by `method`, a formula or more."""
    if not is_formula(method):
        return method.explain(scene)
    if not takes_gradients(method):
        return method(scene.activations)
    return method(scene.activations, scene.gradients(scene.score))

"""What a method is, and what may be asked of one before it runs; called by whoever is given a method.

A method is a formula, `(activations, gradients) -> map` or `(activations) -> map`, or an object with
`explain(scene) -> map`. Such an object may have the attributes that the functions below look at.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import tensorflow as tf

from tf_gradcam._methods.scene import Scene

Method: TypeAlias = Any  # a formula, or an object with `explain(scene)`


def apply_method(method: Method, scene: Scene) -> tf.Tensor:
    """Return the map of `scene` by `method`, a formula or an object with `explain`."""
    if not is_formula(method):
        return method.explain(scene)
    if not takes_gradients(method):
        return method(scene.activations)
    return method(scene.activations, scene.gradients(scene.score))


def is_formula(method: Method) -> bool:
    """Return whether `method` needs nothing but activations, or activations and gradients."""
    return not hasattr(method, "explain")


def takes_gradients(formula: Callable) -> bool:
    """Return whether `formula` takes gradients, and not activations alone."""
    try:
        parameters = inspect.signature(formula).parameters.values()
    except ValueError:  # Some callables have no signature.
        return True
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [each for each in parameters if each.kind in kinds and each.default is inspect.Parameter.empty]
    return len(needed) != 1 or any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in parameters)


def is_classless(method: Method) -> bool:
    """Return whether the map of `method` is the same for every target."""
    *_, innermost = _with_inner_methods(method)
    return is_formula(innermost) and not takes_gradients(innermost)


def is_at_image(method: Method) -> bool:
    """Return whether `method` explains at the image itself, and reads no layer: its `at_image`."""
    return getattr(method, "at_image", False)


def image_formula(method: Method) -> Callable | None:
    """Return the `formula` of a method that makes its map of an image and a gradient, or `None`."""
    return getattr(method, "formula", None)


def reports_progress(method: Method) -> bool:
    """Return whether `method`, or one inside it, calls Python as it goes: its `progress`."""
    return any(getattr(each, "progress", None) is not None for each in _with_inner_methods(method))


def takes_channels(method: Method) -> bool:
    """Return whether `method` can be told to try few of a layer's channels: its `channels`."""
    return hasattr(method, "channels")


def is_slow(method: Method) -> bool:
    """Return whether `method` tries so many masks or channels that it can report its progress.

    One that was told to try few channels is not slow.
    """
    return hasattr(method, "progress") and getattr(method, "channels", None) is None


def _with_inner_methods(method) -> Iterator[Method]:
    """Yield `method`, and the one that it is made around, as `smooth` is, and so on."""
    while callable(method) or hasattr(method, "explain"):
        yield method
        method = getattr(method, "method", None)

"""What a method is, and its properties. Called by explainers, exports and methods that wrap a method.

A method is a formula, `(activations, gradients) -> map` or `(activations) -> map`, or an object with
`explain(scene) -> map`. Such an object may have the attributes that the functions below read.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import tensorflow as tf

from tf_gradcam._methods.scene import Scene

Method: TypeAlias = Any  # a formula, or an object with `explain(scene)`


@dataclasses.dataclass(frozen=True)
class Preset:
    """Two methods for two layers that explainers find, and how their heatmaps are fused.

    Attributes:
        methods: of the last layer on a grid at least twice as fine as the default layer's, and of the
            default layer.
        fuse: how their heatmaps are fused; see `GradCAM`.
        interpolation: how they are resized, unless the call says it; see `GradCAM`.
    """

    methods: tuple[Method, Method]
    fuse: str
    interpolation: Any


def methods_of_layers(method: Method) -> tuple[Method, ...]:
    """Return the methods of the layers in turn: one, unless `method` is a tuple of several or a preset."""
    if isinstance(method, Preset):
        return method.methods
    return method if isinstance(method, tuple) else (method,)


def apply_method(method: Method, scene: Scene) -> tf.Tensor:
    """Return the map that `method`, a formula or an object with `explain`, computes for `scene`."""
    if not is_formula(method):
        return method.explain(scene)
    if not takes_gradients(method):
        return method(scene.activations)
    return method(scene.activations, scene.gradients(scene.score))


def is_formula(method: Method) -> bool:
    """Return whether `method` is a function of the activations, or of the activations and gradients."""
    return not hasattr(method, "explain")


def takes_gradients(formula: Callable) -> bool:
    """Return whether `formula` takes gradients besides activations."""
    try:
        parameters = inspect.signature(formula).parameters.values()
    except ValueError:  # Some callables have no signature.
        return True
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [one for one in parameters if one.kind in kinds and one.default is inspect.Parameter.empty]
    return len(required) != 1 or any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters)


def is_classless(method: Method) -> bool:
    """Return whether the map of `method` is the same for every target."""
    innermost = [[*_with_inner_methods(one)][-1] for one in methods_of_layers(method)]
    return all(is_formula(one) and not takes_gradients(one) for one in innermost)


def is_at_image(method: Method) -> bool:
    """Return whether the map of `method` lies on the image and needs no layer: its attribute `at_image`."""
    return getattr(method, "at_image", False)


def reads_blocks(method: Method) -> bool:
    """Return whether `method`, or one inside it, reads every block of a transformer: its `reads_blocks`.

    Its layer is the last block.
    """
    return any(getattr(each, "reads_blocks", False) for each in _with_inner_methods(method))


def image_formula(method: Method) -> Callable | None:
    """Return the attribute `formula` of a method, from an image and a gradient to a map, or `None`."""
    return getattr(method, "formula", None)


def reports_progress(method: Method) -> bool:
    """Return whether `method`, or one inside it, calls a Python function while it runs: its `progress`."""
    return any(
        getattr(each, "progress", None) is not None
        for one in methods_of_layers(method)
        for each in _with_inner_methods(one)
    )


def takes_all_scores(method: Method) -> bool:
    """Return whether `method` explains several scores of an image at once: its attribute `takes_all_scores`.

    Its scene then has a score `(N, M)`, and it returns maps `(N, M, *grid)`. For any other method there is a
    scene for each score.
    """
    return getattr(method, "takes_all_scores", False)


def takes_channels(method: Method) -> bool:
    """Return whether `method` can be limited to some of a layer's channels: its attribute `channels`."""
    return hasattr(method, "channels")


def is_slow(method: Method) -> bool:
    """Return whether `method` runs so many masks or channels that it has an attribute `progress`.

    A method that is limited to some channels is not slow.
    """
    return any(
        hasattr(one, "progress") and getattr(one, "channels", None) is None
        for one in methods_of_layers(method)
    )


def _with_inner_methods(method) -> Iterator[Method]:
    """Yield `method`, then the method that it wraps, as `smooth` does, and so on."""
    while callable(method) or hasattr(method, "explain"):
        yield method
        method = getattr(method, "method", None)

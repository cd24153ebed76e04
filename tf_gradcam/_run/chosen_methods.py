"""The methods that a run is asked for, each with its explainer. `findings` and the command line call it."""

import dataclasses
from typing import Any, NamedTuple

from tf_gradcam._run.file_models import (
    FileCam,
    check_file_request,
    is_file_classless,
    layer_name,
    name_of_method,
)
from tf_gradcam._run.request import Request
from tf_gradcam._runtimes import LoadedExplainer


class MethodExplainer(NamedTuple):
    """One of the requested methods, and the explainer that runs it.

    `layer` is what the results call the layer: its path, several paths, or `"image"`. A `classless` method
    makes the same map for every class. A `slow` one runs the model so often that it reports progress.
    """

    name: str
    cam: Any  # a `GradCAM` or a `FileCam`
    layer: str
    classless: bool
    slow: bool


def choose_methods(request: Request) -> dict[str, Any]:
    """Return the requested methods by name, limited to the requested number of channels.

    Raises:
        ValueError: if there is no such method, or if a method can't fulfil the request.
    """
    from tf_gradcam import methods
    from tf_gradcam._methods import is_classless, takes_channels

    chosen: dict[str, Any] = {name: methods.get(name) for name in request.methods}
    names = ", ".join(chosen)
    if request.top > 1 and len(chosen) > 1:
        raise ValueError(
            f"`top` must be 1 with several methods. Received: {request.top} and {names}. Compare the "
            "methods class by class: give a `target`"
        )
    if (request.top > 1 or request.target is not None) and all(map(is_classless, chosen.values())):
        raise ValueError(
            "`target` and `top` need a method that explains a class. "
            f"Received: {names}, with the same map for every class. Leave them out."
        )
    if request.sliding is not None and request.target is None and not all(map(is_classless, chosen.values())):
        raise ValueError(
            "`target` must name a class for windows, as each would explain its own. Received: sliding="
            f"{request.sliding} without a target. Give a class: `target`"
        )
    if request.channels is None:
        return chosen
    with_channels = [name for name, about in methods.METHODS.items() if takes_channels(about.method)]
    if not chosen.keys() & with_channels:
        raise ValueError(f"`channels` needs one of the methods {', '.join(with_channels)}. Received: {names}")
    for name in chosen.keys() & with_channels:
        chosen[name] = dataclasses.replace(chosen[name], channels=request.channels)
    return chosen


def make_explainers(model: Any, request: Request) -> list[MethodExplainer]:
    """Return an explainer for each method. Methods at the image get no layer if others get one.

    Args:
        model: the Keras model, or a loaded file, which has one method.
        request: the methods, layer, and what else is asked for.

    Raises:
        ValueError: as `choose_methods` does; or if the model or file can't fulfil the request.
    """
    if isinstance(model, LoadedExplainer):
        check_file_request(model, request)
        file = FileCam(model)
        return [
            MethodExplainer(name_of_method(file), file, layer_name(file), is_file_classless(model), False)
        ]
    from tf_gradcam._explain import GradCAM
    from tf_gradcam._methods import is_at_image, is_classless, is_slow

    chosen = choose_methods(request)
    at_layer: dict[str, Any] = {"layer": request.layer, "call": request.call, "fuse": request.fuse}
    only_at_image = all(map(is_at_image, chosen.values()))
    explainers = []
    for name, method in chosen.items():
        requested = {} if is_at_image(method) and not only_at_image else at_layer
        cam = GradCAM(model, method=method, **requested)
        explainers.append(MethodExplainer(name, cam, layer_name(cam), is_classless(method), is_slow(method)))
    return explainers

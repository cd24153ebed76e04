"""The input that a method at the image explains: the requested one, or the first picture that the score
depends on. Called by the explainer and `signed_maps`.
"""

import inspect
from typing import Any

import keras
import tensorflow as tf

from tf_gradcam._graph import ancestors, has_channel_axis
from tf_gradcam._methods import Method, SourceImage, method_name
from tf_gradcam._model import are_channels_first, declared_specs, is_channels_first


def find_input(model: keras.Model, images: Any, requested: Any, method: Method) -> int | None:
    """Return the position of an input among the flattened ones, or `None` if none is requested.

    Args:
        model: the model.
        images: its inputs, or their specs, in the structure that it takes.
        requested: name of an input, an `InputLayer`, or `None`.
        method: the method, for the error.

    Raises:
        ValueError: if the model has no input of this name.
    """
    if requested is None:
        return None
    names = _input_names(model, images)
    name = requested.name if isinstance(requested, keras.layers.InputLayer) else requested
    for position, known in enumerate(names):
        if isinstance(name, str) and name in known:
            return position
    known_names = ", ".join(repr(known[0]) for known in names)
    raise ValueError(
        "`layer` must be None for a method whose map lies on the image, or name an input of the model: "
        f"{known_names}. Received: layer={getattr(name, 'name', name)!r} and method={method_name(method)}"
    )


def _input_names(model, images) -> list[list[str]]:
    """Return the names of each of the flattened inputs.

    A functional model has names for its inputs. Of other models it is the key in a dict, the argument of
    `call`, or the position in a list.
    """
    declared = declared_specs(model)
    specs = [None] if declared is None else keras.tree.flatten(declared)
    paths = _paths(images)
    if len(specs) != len(paths):
        specs = [None] * len(paths)
    arguments = [one for one in inspect.signature(model.call).parameters if one not in ("training", "mask")]
    names = []
    for path, spec in zip(paths, specs, strict=True):
        name = getattr(spec, "name", None)
        own = "/".join(map(str, path))
        if not path:
            own = arguments[0] if arguments else "0"
        elif declared is None and isinstance(path[0], int) and path[0] < len(arguments) > 1:
            own = "/".join([arguments[path[0]], *map(str, path[1:])])
        names.append([own] if name is None else [name, own])
    return names


def _paths(images) -> list[tuple]:
    """Return keys and positions that lead to each of the flattened inputs."""
    paths: list[tuple] = []

    def number(structure, path):
        if isinstance(structure, dict):
            return {key: number(value, (*path, key)) for key, value in structure.items()}
        if isinstance(structure, list | tuple):
            return [number(value, (*path, place)) for place, value in enumerate(structure)]
        paths.append(path)
        return len(paths) - 1

    # Keras sorts the keys of a dict; its function with paths is younger than the oldest Keras here.
    return [paths[place] for place in keras.tree.flatten(number(images, ()))]


def image_source(model: keras.Model, images: Any, score: tf.Tensor, position: int | None) -> SourceImage:
    """Return the image that a method at the image explains.

    By default it is the one with the most axes among the inputs that the score depends on, of several the
    first: a picture rather than a table.

    Args:
        model: the model.
        images: its inputs, in the graph.
        score: the score, in the graph.
        position: position of the requested input, or `None`.

    Raises:
        ValueError: if the score does not depend on the input.
    """
    flat = keras.tree.flatten(images)
    path = ancestors([score])
    used = [index for index, image in enumerate(flat) if image.op in path]
    if not used or (position is not None and position not in used):
        raise ValueError(
            "`target` must have a score that depends on the image. Received: a score that does not depend on "
            f"input {position or 0} of the model. Choose another target, or another input as `layer`."
        )
    if position is None:
        position = max(used, key=lambda index: (flat[index].shape.rank, -index))
    image = flat[position]
    (first,) = are_channels_first(model, [None])
    first = is_channels_first(image.shape, unknown=first)
    return SourceImage(position, image, first, has_channel_axis(image, score))

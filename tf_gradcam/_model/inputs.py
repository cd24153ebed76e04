"""What a model takes: the shapes and dtypes of its inputs, and arrays checked against them."""

import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._model.specs import count_call_arguments, declared_specs, is_channels_first, specs_to_trace


def as_batch(name: str, images: Any, specs: Any, several: bool = False) -> Any:
    """Return `images` as tensors with a batch axis, in the structure of `specs`.

    Args:
        name: what the argument is called.
        images: an array or tensor, one image or a batch; or for several inputs a list, tuple or dict of them.
        specs: as `known_specs` returns them. Without them, an array of rank 3 is one image, and a list holds
            several inputs if its arrays are of different shapes.
        several: whether a list holds several inputs whatever their shapes, where there are no specs.

    Raises:
        TypeError: if `images` holds no real numbers.
        ValueError: if there isn't one for each input, or they are empty, or, while still on the host,
            NaN or infinite.
    """
    if isinstance(images, keras.Layer):
        raise TypeError(f"`{name}` must be an image. Received a model: `model` and `{name}` are swapped.")
    if specs is None and isinstance(images, list):
        shapes = {tuple(getattr(image, "shape", ())) for image in images}
        images = tuple(images) if several or len(shapes) > 1 else images
    if specs is None and several and not isinstance(images, dict | tuple):
        raise ValueError(
            f"`{name}` must hold every argument that the model takes. Received: a {type(images).__name__}. "
            "Give a tuple or a dict of them."
        )
    structure = specs
    if specs is None:
        structure = (
            keras.tree.map_structure(lambda _: None, images) if isinstance(images, dict | tuple) else 0
        )
    tensors = [_tensor(name, image) for image in _images(name, images, specs)]
    return keras.tree.pack_sequence_as(structure, _with_batch(name, tensors, specs))


def _with_batch(name, tensors, specs) -> list[tf.Tensor]:
    """Return `tensors` with a batch axis, all of them or none having come without."""
    given = [tensor.shape.rank for tensor in tensors]
    if specs is not None:
        ranks = [spec.shape.rank for spec in keras.tree.flatten(specs)]
    else:
        ranks = [4] if len(given) == 1 and given[0] <= 4 else given
    if given == [rank - 1 for rank in ranks]:
        tensors = [tensor[None] for tensor in tensors]
    elif given != ranks:
        shapes = " and ".join(f"shape {tensor.shape}" for tensor in tensors)
        raise ValueError(f"`{name}` must be {_expected(ranks)}. Received: {shapes}")
    if len({tensor.shape[0] for tensor in tensors} - {None}) > 1:
        raise ValueError(
            f"`{name}` must hold as many of each input. Received: {[each.shape[0] for each in tensors]}"
        )
    return tensors


def _expected(ranks) -> str:
    if ranks == [4]:
        return "an image (H, W, C) or a batch (N, H, W, C)"
    shapes = [f"({', '.join(['N', *'ABCDEFG'[: rank - 1]])})" for rank in ranks]
    return f"{' and '.join(shapes)}, or without the batch axis N"


def _images(name, images, specs) -> list:
    """Return one array or tensor for each input, in the order of the flattened `specs`."""
    if specs is None:
        return keras.tree.flatten(images) if isinstance(images, dict | tuple) else [images]
    inputs = keras.tree.flatten(specs)
    by_name = isinstance(images, dict) and not isinstance(specs, dict)
    if by_name and set(images) == {spec.name for spec in inputs}:
        return [images[spec.name] for spec in inputs]
    if len(inputs) == 1 and not isinstance(images, dict):
        # A list of one image, as the model may take it, or a list of numbers.
        alone = isinstance(images, list | tuple) and len(images) == 1 and hasattr(images[0], "shape")
        return [images[0] if alone and len(images[0].shape) == inputs[0].shape.rank else images]
    try:
        return list(_aligned(images, specs))
    except ValueError as error:
        takes = keras.tree.map_structure(lambda spec: f"{spec.name or 'input'} {spec.shape}", specs)
        sized = f" of {len(images)}" if isinstance(images, dict | list | tuple) else ""
        raise ValueError(
            f"`{name}` must hold what the model takes, {len(inputs)} inputs: {takes}. "
            f"Received: a {type(images).__name__}{sized}. Give them in that structure."
        ) from error


def _aligned(images, specs) -> Iterator[Any]:
    """Yield what in `images` stands where `specs` has its leaves, in the order of `keras.tree.flatten`."""
    if isinstance(specs, tf.TensorSpec) and not isinstance(images, dict):
        yield images
        return
    kind = dict if isinstance(specs, dict) else list | tuple
    if isinstance(specs, tf.TensorSpec) or not isinstance(images, kind) or len(images) != len(specs):
        raise ValueError("another structure")
    keys = range(len(specs))
    if isinstance(specs, dict):  # Keras has an order of its own.
        keys = keras.tree.flatten(type(specs)((key, key) for key in specs))
    for key in keys:
        if isinstance(images, dict) and key not in images:
            raise ValueError("another key")
        yield from _aligned(images[key], specs[key])


def _tensor(name, image) -> tf.Tensor:
    """Return a tensor of real numbers; what is still on the host is checked for NaN."""
    if not tf.is_tensor(image):
        if isinstance(image, str | bytes | os.PathLike) or hasattr(image, "getexif"):
            raise _not_read_yet(name, image)
        try:
            image = np.asarray(image)
        except ValueError as error:
            raise ValueError(f"`{name}` must be one array: images of one shape. Received: {error}") from error
        if image.dtype.name == "bfloat16":  # NumPy takes it for raw bytes
            image = image.astype(np.float32)
        if image.dtype.kind not in "fiub":
            raise TypeError(f"`{name}` must hold real numbers. Received: dtype {image.dtype}")
        if not np.isfinite(image).all():
            raise ValueError(f"`{name}` must be finite. Received NaN or infinity in it.")
        image = tf.convert_to_tensor(image)
    if isinstance(image, tf.RaggedTensor | tf.SparseTensor):
        raise TypeError(f"`{name}` must be a dense tensor. Received: a {type(image).__name__}")
    if not (image.dtype.is_floating or image.dtype.is_integer or image.dtype.is_bool):
        raise TypeError(f"`{name}` must hold real numbers. Received: dtype {image.dtype.name}")
    if image.shape.rank is None:
        raise ValueError(f"`{name}` must have a known number of axes. Received: shape {image.shape}")
    if 0 in image.shape.as_list():
        raise ValueError(f"`{name}` must not be empty. Received: shape {image.shape}")
    return image


def _not_read_yet(name, image) -> TypeError:
    """Return the error for a path, bytes or a PIL image in place of an array."""
    source = repr(image) if isinstance(image, str | os.PathLike) else "photograph"
    return TypeError(
        f"`{name}` must be an array or tensor, as the model takes it. Received: {image!r:.80} (of type "
        f"{type(image).__name__}). Read it first: tf_gradcam.load_image({source}, size=(height, width)), and "
        "preprocess it as the model needs."
    )


def check_images(name: str, images: Any, specs: Any) -> None:
    """Raise a `ValueError` unless a model, traced for `specs`, takes `images`."""
    for image, spec in zip(keras.tree.flatten(images), keras.tree.flatten(specs), strict=True):
        _check(name, image, spec)


def _check(name, image, spec) -> None:
    if not spec.shape.is_compatible_with(image.shape):
        first = is_channels_first(spec.shape)
        channels = 1 if first else -1
        hint = "Cut or resample it first."
        if spec.shape[channels] not in (None, image.shape[channels]):
            place = "first" if first else "last"
            hint = f"It must have {spec.shape[channels]} channels, and they come {place}."
        elif spec.shape.rank == 4:
            hint = "Resize it first: tf_gradcam.load_image(photograph, size=(height, width))."
        raise ValueError(
            f"`{name}` must have the shape that the model takes, {spec.shape}. Received: {image.shape}. "
            f"{hint}"
        )
    fractions = spec.dtype.is_integer and image.dtype.is_floating and hasattr(image, "numpy")
    if fractions and np.any(image.numpy() % 1):
        raise ValueError(
            f"`{name}` must hold whole numbers, as the model takes {spec.dtype.name}. Received: fractions. "
            "Give the pixels as they are, 0 to 255."
        )


def require_specs(model: keras.Model, images: Any = None) -> Any:
    """Return the specs that `model` takes; of a model with no graph, those of `images` or its first call.

    Raises:
        ValueError: if nothing tells the shape.
    """
    if not model.built:
        raise ValueError(
            f"`model` must be built. Received: model={model.name!r}, which was never called. "
            "Call it once on an image first: model(images)"
        )
    if images is not None:
        several = count_call_arguments(model) > 1
        images = as_batch("images", images, declared_specs(model), several)
        return specs_to_trace(model, images)
    specs = declared_specs(model)
    if specs is None:
        raise ValueError(
            f"`model` must tell what it takes. Received: model={model.name!r}, of which Keras knows the "
            "first of several arguments only. Give list_layers its `images`; GradCAM takes them as they come."
        )
    return specs

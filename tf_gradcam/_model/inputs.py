"""Convert images to tensors in the structure of a model's inputs, and check them. Called by explainers."""

import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam import formats
from tf_gradcam._arrays import (
    READ_ALL,
    check_no_data_set,
    check_whole_numbers,
    rank_error,
    real_array,
    shape_error,
)
from tf_gradcam._model.keras_internals import functional_graph
from tf_gradcam._model.specs import count_call_arguments, declared_specs, specs_to_trace
from tf_gradcam._tensors import check_has_values, tensor_of_variable


def as_batch(name: str, images: Any, specs: Any, several: bool = False, exact: bool = False) -> Any:
    """Return `images` as tensors with a batch axis, in the structure of `specs`.

    Args:
        name: name of the argument, for errors.
        images: an array or tensor, one image or a batch; or for several inputs a list, tuple or dict of them.
        specs: specs of the model's inputs, or `None`. Without them, an array of rank 3 is one image, and a
            list holds several inputs if its arrays have different shapes.
        several: whether a list without specs always holds several inputs.
        exact: whether the images must have the shapes of `specs`. An array is checked before it is copied.

    Raises:
        TypeError: if `images` does not hold real numbers.
        ValueError: if there is not one array for each input, or if an array is empty. An array that is not a
            tensor is also checked for NaN and infinity.
    """
    if isinstance(images, keras.Layer):
        raise TypeError(f"`{name}` must be an image. Received: a model. Swap `model` and `{name}`.")
    if specs is None and isinstance(images, list):
        shapes = {tuple(getattr(image, "shape", ())) for image in images}
        images = tuple(images) if several or len(shapes) > 1 else images
    if specs is None and several and not isinstance(images, dict | tuple):
        raise ValueError(
            f"`{name}` must hold every argument that the model takes. Received: a {type(images).__name__}. "
            "Give a tuple or a dict of arrays."
        )
    structure = specs
    if specs is None:
        structure = (
            keras.tree.map_structure(lambda _: None, images) if isinstance(images, dict | tuple) else 0
        )
    arrays = [_checked_array(name, image) for image in _one_per_input(name, images, specs)]
    given = [tuple(array.shape) for array in arrays]
    arrays = _add_batch_axis(name, arrays, specs)
    if exact:
        for array, spec, shape in zip(arrays, keras.tree.flatten(specs), given, strict=True):
            _check_shape(name, array, spec, shape, len(given) > 1)
    return keras.tree.pack_sequence_as(structure, [_finite_tensor(name, array) for array in arrays])


def _add_batch_axis(name, tensors, specs) -> list:
    """Return tensors or arrays with a batch axis, which all of them have or all of them lack."""
    given = [len(tensor.shape) for tensor in tensors]
    if specs is not None:
        expected = [tuple(spec.shape) for spec in keras.tree.flatten(specs)]
    else:
        ranks = [4] if len(given) == 1 and given[0] <= 4 else given
        expected = [(None,) * rank for rank in ranks]
    ranks = [len(shape) for shape in expected]
    if given == [rank - 1 for rank in ranks]:
        tensors = [tensor[None] for tensor in tensors]  # a view of an array
    elif given != ranks:
        raise rank_error(name, [tuple(tensor.shape) for tensor in tensors], expected)
    if len({tensor.shape[0] for tensor in tensors} - {None}) > 1:
        raise ValueError(
            f"`{name}` must have the same batch size for each input. Received: batch sizes "
            f"{[tensor.shape[0] for tensor in tensors]}"
        )
    return tensors


def _one_per_input(name, images, specs) -> list:
    """Return one array or tensor for each input, in the order of the flattened `specs`."""
    if specs is None:
        return keras.tree.flatten(images) if isinstance(images, dict | tuple) else [images]
    inputs = keras.tree.flatten(specs)
    by_name = isinstance(images, dict) and not isinstance(specs, dict)
    if by_name and set(images) == {spec.name for spec in inputs}:
        return [images[spec.name] for spec in inputs]
    if len(inputs) == 1 and not isinstance(images, dict):
        # A list may hold one array, or the numbers of an array.
        holds_array = isinstance(images, list | tuple) and len(images) == 1 and hasattr(images[0], "shape")
        return [images[0] if holds_array and len(images[0].shape) == inputs[0].shape.rank else images]
    try:
        return list(_in_order_of_specs(images, specs))
    except ValueError as error:
        expected = keras.tree.map_structure(lambda spec: f"{spec.name or 'input'} {spec.shape}", specs)
        length = f" of {len(images)}" if isinstance(images, dict | list | tuple) else ""
        raise ValueError(
            f"`{name}` must hold what the model takes, {len(inputs)} inputs: {expected}. "
            f"Received: a {type(images).__name__}{length}. Give them in that structure."
        ) from error


def _in_order_of_specs(images, specs) -> Iterator[Any]:
    """Yield the item of `images` for each leaf of `specs`, in the order of `keras.tree.flatten`."""
    if isinstance(specs, tf.TensorSpec) and not isinstance(images, dict):
        yield images
        return
    kind = dict if isinstance(specs, dict) else list | tuple
    if isinstance(specs, tf.TensorSpec) or not isinstance(images, kind) or len(images) != len(specs):
        raise ValueError("another structure")
    keys = range(len(specs))
    if isinstance(specs, dict):  # Keras flattens a dict in its own order.
        keys = keras.tree.flatten(type(specs)((key, key) for key in specs))
    for key in keys:
        if isinstance(images, dict) and key not in images:
            raise ValueError("another key")
        yield from _in_order_of_specs(images[key], specs[key])


def _checked_array(name, image) -> Any:
    """Return `image` as an array or tensor of real numbers with at least one element; nothing is copied."""
    image = tensor_of_variable(image)
    if not tf.is_tensor(image):
        check_no_data_set(name, image)
        first = image[0] if isinstance(image, list | tuple) and len(image) > 0 else image
        if isinstance(first, str | bytes | os.PathLike) or hasattr(first, "getexif"):
            raise _not_an_array_error(name, image)
        image = real_array(name, image)
    elif isinstance(image, tf.RaggedTensor | tf.SparseTensor):
        raise TypeError(f"`{name}` must be a dense tensor. Received: a {type(image).__name__}")
    elif not (image.dtype.is_floating or image.dtype.is_integer or image.dtype.is_bool):
        raise TypeError(f"`{name}` must hold real numbers. Received: dtype {image.dtype.name}")
    elif image.shape.rank is None:
        raise ValueError(f"`{name}` must have a known number of axes. Received: shape {image.shape}")
    check_has_values(name, image)
    if 0 in tuple(image.shape):
        raise ValueError(f"`{name}` must not be empty. Received: shape {tuple(image.shape)}")
    return image


def _finite_tensor(name, array) -> tf.Tensor:
    """Return an array as a tensor, if it is finite. The values of a tensor are not checked."""
    if tf.is_tensor(array):
        return array
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"`{name}` must be finite. Received: NaN or infinity in it.")
    return tf.convert_to_tensor(array)


def _not_an_array_error(name, image) -> TypeError:
    """Return the error for a path, bytes or a PIL image instead of an array."""
    is_path = isinstance(image, str | os.PathLike)
    source = repr(image) if is_path else "photograph"
    read = f"tf_gradcam.load_image({source}, size=(height, width))"
    if isinstance(image, list | tuple) and len(image) > 1:
        read = READ_ALL
    if is_path and formats.name_of_format(image):
        read = f"tf_gradcam.formats.read({source})"
    return TypeError(
        f"`{name}` must be an array or tensor, as the model takes it. Received: {image!r:.80} (of type "
        f"{type(image).__name__}). Read it first: {read}, and preprocess it as the model needs."
    )


def check_images(name: str, images: Any, specs: Any, given: Any = None) -> None:
    """Raise a `ValueError` unless a model that is traced for `specs` accepts `images`.

    Args:
        name: the caller's argument, for errors.
        images: what `as_batch` returned.
        specs: what the model is traced for.
        given: what the caller gave, whose shape errors show where it has one.
    """
    flat = keras.tree.flatten(images)
    shape = getattr(given, "shape", None) if len(flat) == 1 else None
    for image, spec in zip(flat, keras.tree.flatten(specs), strict=True):
        _check_image(name, image, spec, image.shape if shape is None else shape, len(flat) > 1)


def _check_image(name, image, spec, given, several) -> None:
    _check_shape(name, image, spec, given, several)
    may_have_fractions = spec.dtype.is_integer and image.dtype.is_floating and hasattr(image, "numpy")
    if may_have_fractions and np.any(image.numpy() % 1):
        raise ValueError(
            f"`{name}` must hold whole numbers, as the model takes {spec.dtype.name}. Received: fractions. "
            "Give pixels from 0 to 255."
        )


def _check_shape(name, image, spec, given, several) -> None:
    if not spec.shape.is_compatible_with(image.shape):
        resize = (
            "Resize it first: tf_gradcam.load_image(photograph, size=(height, width)); or in "
            "`preprocess`. What is too large for that is explained by windows: GradCAM.sliding."
        )
        raise shape_error(name, tuple(given), tuple(spec.shape), resize, several)
    if spec.dtype.is_integer and image.dtype != spec.dtype and hasattr(image, "numpy"):
        check_whole_numbers(name, image.numpy(), np.iinfo(spec.dtype.as_numpy_dtype))


def require_specs(model: keras.Model, images: Any = None) -> Any:
    """Return the specs of the inputs of `model`; without a graph, those of `images` or of its first call.

    Raises:
        ValueError: if the input shapes are not known.
    """
    if not model.built:
        raise ValueError(
            f"`model` must be built. Received: model={model.name!r}, which was never called. "
            "Call it once on an image first: model(images)"
        )
    if images is not None:
        several = count_call_arguments(model) > 1
        is_exact = functional_graph(model) is not None
        images = as_batch("images", images, declared_specs(model), several, is_exact)
        return specs_to_trace(model, images)
    specs = declared_specs(model)
    if specs is None:
        raise ValueError(
            f"`model` must have known input shapes. Received: model={model.name!r}, of which Keras knows "
            "only the first of several arguments. Give list_layers its `images`; GradCAM takes them from "
            "its first images."
        )
    return specs

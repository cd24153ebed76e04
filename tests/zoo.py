"""Every kind of model in docs/models.md, with what tells the right map without the library.

Each is tiny and ends in an average over the places of its last map and one dense layer, so that at that map
Grad-CAM and HiResCAM are exactly `A @ kernel[:, c] / Z` (Zhou 2016). A is worked out by hand: by calling the
layers before it one by one. Where the layer comes earlier, `tail` is what follows it, again by hand.
Augmentation is left out by hand, as the model has to leave it out.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import chain
from keras import layers, ops

HEIGHT, WIDTH, CLASSES = 12, 10, 3


class Kind(NamedTuple):
    """A model with what to expect of it.

    Attributes:
        model: it ends in a dense layer, most with a softmax.
        inputs: two samples, as the model takes them.
        layer: path of the layer to explain.
        activations: what that layer returns for `inputs`, `(N, *grid, K)`, or `(N, tokens, K)`.
        kernel: `(K, classes)`. The logits are the activations' mean over their places @ `kernel` + `bias`.
        bias: `(classes,)`, or `(N, classes)` where other inputs have their share in it.
        size: the shape of one heatmap.
        grid: the shape of one map; patches come last among the tokens.
        default: path of the layer that the default must find, or `None`: `layer`, or what ends in it.
        call: which run of the layer is meant, if there are several.
        output: the name of the output that is explained, if there are several.
        tail: `activations -> what the dense layer takes`, where that isn't their mean over their places.
        tolerance: how far a map may be from what is expected, as a part of its maximum.
    """

    model: keras.Model
    inputs: Any
    layer: str
    activations: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    size: tuple[int, ...]
    grid: tuple[int, ...]
    default: str | None
    call: int | None = None
    output: str | int | None = None
    tail: Callable | None = None
    tolerance: float = 1e-5


# What tells the right map


def pooled(kind):
    """What the dense layer takes, in float64."""
    if kind.tail is not None:
        return np.asarray(kind.tail(kind.activations), "float64")
    return kind.activations.astype("float64").mean(axis=tuple(range(1, kind.activations.ndim - 1)))


def logits(kind):
    return pooled(kind) @ kind.kernel.astype("float64") + kind.bias


def gradients(kind, classes):
    """The derivatives of one logit of each sample by all its activations."""
    kernel = kind.kernel.astype("float64")[:, classes].T
    activations = kind.activations.astype("float64")
    if kind.tail is None:
        axes = tuple(range(1, activations.ndim - 1))
        places = math.prod(activations.shape[1:-1])
        return np.broadcast_to(np.expand_dims(kernel, axes) / places, activations.shape)
    tail, slopes, step = tf.function(kind.tail), np.zeros_like(activations), np.zeros_like(activations)
    for index in np.ndindex(activations.shape[1:]):  # central differences
        step[:, *index] = 1e-5
        rise = tail(tf.constant(activations + step)) - tail(tf.constant(activations - step))
        slopes[:, *index] = np.sum(rise * kernel, axis=-1) / 2e-5
        step[:, *index] = 0
    return slopes


def on_grid(kind, values):
    """Lay tokens out on their grid, without the class token and the registers before them."""
    if values.ndim == len(kind.grid) + 2:
        return values
    return values[:, -math.prod(kind.grid) :].reshape(len(values), *kind.grid, -1)


def with_other_places(kind, change):
    """Return the kind with other values at the places of its activations, and the same extra tokens."""
    if kind.activations.ndim == len(kind.grid) + 2:
        return kind._replace(activations=change(kind.activations))
    count = math.prod(kind.grid)
    extra, patches = kind.activations[:, :-count], kind.activations[:, -count:]
    return kind._replace(activations=np.concatenate([extra, change(patches)], axis=1))


def expected_maps(kind, classes):
    """Grad-CAM and HiResCAM of one class for each sample."""
    activations, slopes = on_grid(kind, kind.activations), on_grid(kind, gradients(kind, classes))
    places = tuple(range(1, slopes.ndim - 1))
    gradcam = (slopes.mean(axis=places, keepdims=True) * activations).sum(-1)
    return {"gradcam": gradcam, "hirescam": (slopes * activations).sum(-1)}


def expected_heatmap(signed_map, size):
    """ReLU, linear interpolation between the middles of the places, division by the maximum."""
    heatmap = np.maximum(signed_map, 0)
    for axis, length in enumerate(size, start=1):
        places = heatmap.shape[axis]
        middles = (np.arange(length) + 0.5) * places / length - 0.5

        def stretched(line, x=middles, places=places):
            return np.interp(x, range(places), line)

        heatmap = np.apply_along_axis(stretched, axis, heatmap)
    return heatmap / heatmap.max(axis=tuple(range(1, heatmap.ndim)), keepdims=True)


def assert_near(found, expected, tolerance):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def answer(kind):
    """What the model says of each class."""
    outputs = kind.model(kind.inputs, training=False)
    return np.asarray(outputs if kind.output is None else outputs[kind.output])


# How a kind is made


def samples(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=(2, *shape)).astype("float32")


def season(model):
    """Give `model` weights that depend on nothing; scales and variances are positive, as trained ones are."""
    random = np.random.default_rng(7)
    for weight in model.weights:
        value = random.normal(scale=0.4, size=weight.shape)
        positive = weight.path.endswith(("gamma", "variance"))
        weight.assign(0.5 + abs(value) if positive else value)
    return model


def body(dtype=None, **options):
    """From an image to its last map: `(N, 12, 10, C)` to `(N, 6, 5, 6)`."""
    options["dtype"] = dtype
    return [
        layers.Conv2D(4, 3, padding="same", activation="relu", name="conv1", **options),
        layers.Conv2D(6, 3, strides=2, padding="same", name="conv2", **options),
        layers.ReLU(name="relu2", dtype=dtype),
    ]


def scores(dtype=None, name="scores"):
    return layers.Dense(CLASSES, activation="softmax", name=name, dtype=dtype)


def head(dtype=None):
    return [layers.GlobalAveragePooling2D(name="pool", dtype=dtype), scores(dtype)]


def expect(model, inputs, steps, dense, layer=None, image=None, **known):
    """Return the kind whose `layer` returns what `steps` make of `image`, by default all of `inputs`."""
    image = inputs if image is None else image
    activations = ops.convert_to_numpy(chain(image, steps))
    kernel, bias = dense.get_weights()
    grid = known.get("grid", activations.shape[1:-1])
    layer = layer or steps[-1].name
    size = image.shape[1 : 1 + len(grid)]
    found = {"kernel": kernel, "bias": bias, "grid": grid, "size": size, "default": layer}
    return Kind(model, inputs, layer, activations, **{**found, **known})


def chained(steps):
    return lambda x: chain(x, steps)


def exactly(make):
    """Build the model in float32, and work out what to expect of it with a twin in float64."""
    exact = make("float64")
    return make("float32")._replace(activations=exact.activations, tail=exact.tail)


def straight(inputs, steps, ends, *, shape=None, **known):
    """Return the kind of a functional model that is one chain."""
    start = keras.Input(shape or inputs.shape[1:])
    model = season(keras.Model(start, chain(start, [*steps, *ends])))
    return expect(model, inputs, steps, ends[-1], **known)


# One image, one vector of scores: how models are put together


def functional(channels=3, dtype=None, shape=None, **known):
    return straight(samples(HEIGHT, WIDTH, channels), body(dtype), head(dtype), shape=shape, **known)


def sequential():
    inputs, steps, ends = samples(HEIGHT, WIDTH, 3), body(), head()
    model = season(keras.Sequential([keras.Input(inputs.shape[1:]), *steps, *ends]))
    return expect(model, inputs, steps, ends[-1])


def sequential_around_functional():
    inputs, steps, ends = samples(HEIGHT, WIDTH, 3), body(), head()
    start = keras.Input(inputs.shape[1:])
    base = keras.Model(start, chain(start, steps), name="base")
    model = season(keras.Sequential([keras.Input(inputs.shape[1:]), base, *ends]))
    return expect(model, inputs, steps, ends[-1], "base/relu2")


def nested(depth):
    inputs, steps, ends = samples(HEIGHT, WIDTH, 3), body(), head()
    inner, path = steps, "relu2"
    for level in range(depth):
        start = keras.Input(inputs.shape[1:])
        inner = [keras.Model(start, chain(start, inner), name=f"level{level}")]
        path = f"level{level}/{path}"
    start = keras.Input(inputs.shape[1:])
    model = season(keras.Model(start, chain(start, [*inner, *ends])))
    return expect(model, inputs, steps, ends[-1], path)


def nested_with_its_pooling():
    inputs, steps, (pool, dense) = samples(HEIGHT, WIDTH, 3), body(), head()
    start = keras.Input(inputs.shape[1:])
    inner = keras.Model(start, chain(start, [*steps, pool]), name="inner")
    start = keras.Input(inputs.shape[1:])
    model = season(keras.Model(start, chain(start, [inner, dense])))
    return expect(model, inputs, steps, dense, "inner/relu2")


class Chain(keras.Model):
    """A model of whose insides Keras knows nothing until it runs."""

    def __init__(self, steps):
        super().__init__(name="chain")
        self.steps = steps

    def call(self, images):
        return chain(images, self.steps)


def subclassed():
    inputs, steps, ends = samples(HEIGHT, WIDTH, 3), body(), head()
    model = Chain([*steps, *ends])
    model(inputs)
    return expect(season(model), inputs, steps, ends[-1])


class Block(layers.Layer):
    """A convolution and its activation in a layer of one's own."""

    def __init__(self, filters, **options):
        super().__init__(**options)
        self.conv = layers.Conv2D(filters, 3, padding="same", name="conv", dtype=self.dtype_policy)

    def call(self, images):
        return ops.relu(self.conv(images))


def _custom_layer(layer, dtype=None):
    inputs, ends = samples(HEIGHT, WIDTH, 3), head(dtype)
    blocks = [Block(4, name="block1", dtype=dtype), Block(6, name="block2", dtype=dtype)]
    model = Chain([*blocks, *ends])
    model(inputs)
    if layer == "block2":
        return expect(season(model), inputs, blocks, ends[-1], layer)
    steps = [blocks[0], blocks[1].conv]
    tail = chained([ops.relu, ends[0]])
    return expect(season(model), inputs, steps, ends[-1], layer, default=None, tail=tail)


def custom_layer():
    return _custom_layer("block2")


def convolution_in_a_custom_layer():
    return exactly(lambda dtype: _custom_layer("block2/conv", dtype))


def never_built(make):
    """A model without weights, whose initializers make the same ones as its twin's, which is built."""

    def parts():
        numbers = iter(range(100))

        def seeded():
            return keras.initializers.RandomNormal(stddev=0.4, seed=next(numbers))

        return [
            layers.Conv2D(4, 3, activation="relu", kernel_initializer=seeded(), name="conv1"),
            layers.Conv2D(6, 3, kernel_initializer=seeded(), name="conv2"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(CLASSES, activation="softmax", kernel_initializer=seeded(), name="scores"),
        ]

    inputs, steps = samples(HEIGHT, WIDTH, 3), parts()
    chain(inputs, steps)
    return expect(make(parts()), inputs, steps[:2], steps[-1])


def functional_around_subclassed():
    steps = body()
    inputs, ends = samples(HEIGHT, WIDTH, 3), head()
    start = keras.Input(inputs.shape[1:])
    model = season(keras.Model(start, chain(start, [Chain(steps), *ends])))
    return expect(model, inputs, steps, ends[-1], "chain/relu2", default="chain")


def functional_around_custom_layer():
    return straight(samples(HEIGHT, WIDTH, 3), [Block(4, name="block1"), Block(6, name="block2")], head())


def subclassed_around_functional():
    inputs, steps, ends = samples(HEIGHT, WIDTH, 3), body(), head()
    start = keras.Input(inputs.shape[1:])
    model = Chain([keras.Model(start, chain(start, steps), name="inner"), *ends])
    model(inputs)
    return expect(season(model), inputs, steps, ends[-1], "inner/relu2")


# Several inputs, several outputs, a layer that runs several times


def image_and_table(arrange):
    """An image and four numbers about it, in the structure that `arrange` makes of the two."""
    image, table = samples(HEIGHT, WIDTH, 3), samples(4, seed=1)
    starts = keras.Input(image.shape[1:], name="image"), keras.Input((4,), name="table")
    steps, (pool, dense) = body(), head()
    joined = layers.Concatenate()([chain(starts[0], [*steps, pool]), starts[1]])
    model = season(keras.Model(arrange(*starts), dense(joined)))
    return beside(model, arrange(image, table), steps, dense, image, table)


def beside(model, inputs, steps, dense, image, vector, **known):
    """Return the kind whose dense layer takes the pooled map of `image` and then `vector`."""
    kernel, bias = dense.get_weights()
    own = len(kernel) - vector.shape[-1]
    kernel, bias = kernel[:own], bias + vector @ kernel[own:]
    return expect(model, inputs, steps, dense, image=image, kernel=kernel, bias=bias, **known)


class OfDict(keras.Model):
    """A subclassed model that takes its image and its table in a dict."""

    def __init__(self, steps, pool, dense):
        super().__init__()
        self.steps, self.pool, self.dense = steps, pool, dense

    def call(self, inputs):
        pooled = chain(inputs["image"], [*self.steps, self.pool])
        return self.dense(ops.concatenate([pooled, inputs["table"]], axis=-1))


def subclassed_of_a_dict():
    inputs = {"image": samples(HEIGHT, WIDTH, 3), "table": samples(4, seed=1)}
    steps, (pool, dense) = body(), head()
    model = OfDict(steps, pool, dense)
    model(inputs)
    return beside(season(model), inputs, steps, dense, inputs["image"], inputs["table"])


def two_images(explained):
    """Two images of different sizes, each with a branch of its own."""
    names = ["left", "right"]
    convs = [layers.Conv2D(4, 3, strides=2, activation="relu", name=f"conv_{name}") for name in names]
    pools = [layers.GlobalAveragePooling2D(name=f"pool_{name}") for name in names]
    images = [samples(HEIGHT, WIDTH, 3), samples(8, 14, 1, seed=1)]
    return two_branches(images, convs, pools, explained)


def image_and_signal(explained):
    images = [samples(HEIGHT, WIDTH, 3), samples(40, 2, seed=1)]
    convs = [layers.Conv2D(4, 3, name="conv_image"), layers.Conv1D(4, 3, name="conv_signal")]
    pools = [layers.GlobalAveragePooling2D(), layers.GlobalAveragePooling1D()]
    return two_branches(images, convs, pools, explained)


def two_branches(images, convs, pools, explained):
    starts, dense, other = [keras.Input(image.shape[1:]) for image in images], scores(), 1 - explained
    order = [explained, other]  # `beside` wants the explained branch first.
    pooled = [pools[i](convs[i](starts[i])) for i in order]
    model = season(keras.Model(starts, dense(layers.Concatenate()(pooled))))
    vector = ops.convert_to_numpy(pools[other](convs[other](images[other])))
    return beside(model, images, [convs[explained]], dense, images[explained], vector, default=None)


def siamese(call):
    """One inner model that looks at two images."""
    images = [samples(HEIGHT, WIDTH, 3), samples(HEIGHT, WIDTH, 3, seed=1)]
    starts = [keras.Input((HEIGHT, WIDTH, 3)) for _ in images]
    start = keras.Input((HEIGHT, WIDTH, 3))
    steps, (pool, dense) = body(), head()
    inner = keras.Model(start, chain(start, [*steps, pool]), name="inner")
    model = season(keras.Model(starts, dense(layers.Concatenate()([inner(each) for each in starts]))))
    kernel, bias = dense.get_weights()
    own, other = np.split(kernel, 2)[:: 1 if call == 0 else -1]
    bias = bias + ops.convert_to_numpy(inner(images[1 - call])) @ other
    known = {"image": images[call], "kernel": own, "bias": bias, "call": call, "default": None}
    return expect(model, images, steps, dense, "inner/relu2", **known)


def twice_in_a_chain(call):
    def make(dtype):
        inputs, ends = samples(HEIGHT, WIDTH, 3), head(dtype)
        first = layers.Conv2D(4, 3, strides=2, activation="relu", name="first", dtype=dtype)
        again = layers.Conv2D(4, 3, padding="same", activation="relu", name="again", dtype=dtype)
        start = keras.Input(inputs.shape[1:])
        model = season(keras.Model(start, chain(start, [first, again, again, *ends])))
        steps = [first, again] if call == 0 else [first, again, again]
        tail = chained([again, ends[0]]) if call == 0 else None
        return expect(model, inputs, steps, ends[-1], call=call, default=None, tail=tail)

    return exactly(make)


def several_outputs(arrange, output):
    """Scores and two measures, in the structure that `arrange` makes of the three."""
    inputs, steps, (pool, dense) = samples(HEIGHT, WIDTH, 3), body(), head()
    start = keras.Input(inputs.shape[1:])
    pooled = chain(start, [*steps, pool])
    measures = [layers.Dense(2, name="width")(pooled), layers.Dense(1, name="height")(pooled)]
    model = season(keras.Model(start, arrange(dense(pooled), *measures)))
    return expect(model, inputs, steps, dense, output=output)


# Precision, and the order of the axes


def mixed_dtypes():
    """Some layers compute in float64, some in half precision."""
    dtypes = ["float64", "mixed_float16", "mixed_bfloat16"]
    steps = [body(dtype)[i] for i, dtype in enumerate(dtypes)]
    return straight(samples(HEIGHT, WIDTH, 3), steps, head("float32"), tolerance=2e-2)


def channels_first(permuted=False):
    """The order that GPUs like, in the images too or, behind a `Permute`, only inside."""
    first = {"data_format": "channels_first"}
    inputs = samples(HEIGHT, WIDTH, 3) if permuted else samples(3, HEIGHT, WIDTH)
    steps = [
        *([layers.Permute((3, 1, 2))] if permuted else []),
        layers.Conv2D(4, 3, activation="relu", name="conv1", **first),
        layers.Conv2D(6, 3, strides=2, name="conv2", **first),
        layers.BatchNormalization(axis=1, name="bn2"),
        layers.ReLU(name="relu2"),
    ]
    ends = [layers.GlobalAveragePooling2D(name="pool", **first), scores()]
    kind = straight(inputs, steps, ends, grid=(4, 3), size=(HEIGHT, WIDTH))
    return kind._replace(activations=np.moveaxis(kind.activations, 1, -1))


# What stands in front of the convolutions and between them


def augments_in_inference():
    """Whether this Keras does, in subclassed models: 3.6 overlooks `training=False` there."""
    flip, ramp = layers.RandomFlip("horizontal", seed=0), np.arange(12, dtype="float32").reshape(1, 2, 2, 3)
    model = Chain([flip])
    return any(np.any(model(ramp, training=False) != ramp) for _ in range(20))


def preprocessing_inside(subclass=False):
    """Augmentation does nothing in inference; rescaling and normalization do."""
    inputs = np.random.default_rng(0).uniform(0, 255, (2, HEIGHT, WIDTH, 3)).astype("float32")
    augment = [
        layers.RandomFlip(),
        layers.RandomRotation(0.2),
        layers.RandomZoom(0.2),
        layers.RandomTranslation(0.2, 0.2),
        layers.RandomContrast(0.3),
        layers.GaussianNoise(1.0),
    ]
    scale = [
        layers.Rescaling(1 / 127.5, offset=-1),
        layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0]),
    ]
    steps, ends = body(), head()
    chain(inputs, scale)  # Keras can't build a Normalization while it builds a model around it.
    if subclass:
        model = Chain([*augment, *scale, *steps, *ends])
        model(inputs)
    else:
        start = keras.Input(inputs.shape[1:])
        model = keras.Model(start, chain(start, [*augment, *scale, *steps, *ends]))
    return expect(season(model), inputs, [*scale, *steps], ends[-1])


def dropout_and_batch_norm():
    steps = [
        layers.Conv2D(4, 3, use_bias=False, name="conv1"),
        layers.BatchNormalization(name="bn1"),
        layers.ReLU(name="relu1"),
        layers.SpatialDropout2D(0.4),
        layers.Conv2D(6, 3, use_bias=False, name="conv2"),
        layers.BatchNormalization(name="bn2"),
        layers.ReLU(name="relu2"),
    ]
    pool, dense = head()
    return straight(samples(HEIGHT, WIDTH, 3), steps, [layers.Dropout(0.5), pool, layers.Dropout(0.5), dense])


def frozen_base():
    inputs, ends = samples(HEIGHT, WIDTH, 3), head()
    steps = [layers.Conv2D(6, 3, name="conv"), layers.BatchNormalization(name="bn"), layers.ReLU(name="relu")]
    start = keras.Input(inputs.shape[1:])
    base = keras.Model(start, chain(start, steps), name="base")
    base.trainable = False
    start = keras.Input(inputs.shape[1:])
    model = season(keras.Model(start, chain(base(start, training=False), ends)))
    return expect(model, inputs, steps, ends[-1], "base/relu")


# Signals, text, volumes, video; images with no size, one channel, no channel axis


def signal():
    steps = [
        layers.Conv1D(4, 5, strides=2, activation="relu", name="conv1"),
        layers.Conv1D(6, 3, padding="same", activation="relu", name="conv2"),
    ]
    return straight(samples(40, 2), steps, [layers.GlobalAveragePooling1D(), scores()])


def text():
    """Words by their numbers: the heatmap says which of them counted."""
    steps = [layers.Embedding(50, 4, name="words"), layers.Conv1D(6, 3, activation="relu", name="conv")]
    inputs = np.random.default_rng(0).integers(0, 50, (2, 20))
    ends = [layers.GlobalAveragePooling1D(), scores()]
    start = keras.Input((20,), dtype="int32")
    model = season(keras.Model(start, chain(start, [*steps, *ends])))
    return expect(model, inputs, steps, ends[-1])


def volume():
    steps = [
        layers.Conv3D(4, 3, strides=2, activation="relu", name="conv1"),
        layers.Conv3D(6, 2, activation="relu", name="conv2"),
    ]
    return straight(samples(8, 10, 12, 1), steps, [layers.GlobalAveragePooling3D(), scores()])


def video():
    frame = layers.Conv2D(4, 3, strides=2, activation="relu")
    steps = [layers.TimeDistributed(frame, name="frames")]
    return straight(samples(4, 10, 8, 3), steps, [layers.GlobalAveragePooling3D(), scores()])


def columns():
    """An image as a sequence of columns, as text is read from it: they are no patches."""

    def make(dtype):
        inputs, dense = samples(HEIGHT, 20, 1), scores(dtype)
        conv = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv", dtype=dtype)
        sequence = [layers.Permute((2, 1, 3), dtype=dtype), layers.Reshape((20, HEIGHT * 4), dtype=dtype)]
        tail = [*sequence, layers.GlobalAveragePooling1D(dtype=dtype)]
        start = keras.Input(inputs.shape[1:])
        model = season(keras.Model(start, chain(start, [conv, *tail, dense])))
        return expect(model, inputs, [conv], dense, tail=chained(tail))

    return exactly(make)


def network_for_each_frame(frame):
    """A network of images, with its pooling, that runs once for each frame of a video."""
    inputs, steps, (pool, dense) = samples(4, HEIGHT, WIDTH, 3), body(), head()
    start = keras.Input(inputs.shape[2:])
    inner = keras.Model(start, chain(start, [*steps, pool]), name="inner")
    ends = [layers.TimeDistributed(inner, name="frames"), layers.GlobalAveragePooling1D(), dense]
    start = keras.Input(inputs.shape[1:])
    model = season(keras.Model(start, chain(start, ends)))
    kernel, bias = dense.get_weights()
    others = [ops.convert_to_numpy(inner(inputs[:, i])) for i in range(4) if i != frame]
    known = {"kernel": kernel / 4, "bias": bias + sum(others) @ kernel / 4, "call": frame, "default": None}
    return expect(model, inputs, steps, dense, "frames/inner/relu2", image=inputs[:, frame], **known)


def conv_lstm(return_sequences):
    steps = [layers.ConvLSTM2D(4, 3, strides=2, return_sequences=return_sequences, name="lstm")]
    pool = layers.GlobalAveragePooling3D() if return_sequences else layers.GlobalAveragePooling2D()
    inputs = samples(3, 10, 8, 2)
    return straight(inputs, steps, [pool, scores()], size=inputs.shape[1:4] if return_sequences else (10, 8))


def one_channel():
    return straight(samples(28, 28, 1), body(), head())


def no_channel_axis():
    return straight(samples(28, 28), [layers.Reshape((28, 28, 1)), *body()], head())


# Newer architectures


def convnext():
    """Liu 2022. The last map is a sum made by an operator: an operation of the graph, and no layer."""
    inputs, ends = samples(HEIGHT, WIDTH, 3), head()
    stem = [layers.Conv2D(6, 2, strides=2, name="stem"), layers.LayerNormalization(epsilon=1e-6)]
    blocks = [
        [
            layers.DepthwiseConv2D(7, padding="same"),
            layers.LayerNormalization(epsilon=1e-6),
            layers.Dense(12, activation="gelu"),
            layers.Dense(6),
        ]
        for _ in range(2)
    ]

    def features(x):
        x = chain(x, stem)
        for block in blocks:
            x = x + chain(x, block)
        return x

    start = keras.Input(inputs.shape[1:])
    last = features(start)
    model = season(keras.Model(start, chain(last, ends)))
    return expect(model, inputs, [features], ends[-1], last._keras_history.operation.name)


class Tokens(layers.Layer):
    """Put `extra` learned tokens (class token, registers) before the patches, and add learned positions."""

    def __init__(self, extra, **options):
        super().__init__(**options)
        self.extra = extra

    def build(self, shape):
        _, patches, width = shape
        self.learned = self.add_weight(shape=(1, self.extra, width), name="learned")
        self.positions = self.add_weight(shape=(1, self.extra + patches, width), name="positions")

    def call(self, patches):
        learned = ops.repeat(self.learned, ops.shape(patches)[0], axis=0)
        return ops.concatenate([learned, patches], axis=1) + self.positions


class Transformer(layers.Layer):
    """A block of a vision transformer: attention and a perceptron, after a norm each (Dosovitskiy 2021)."""

    def __init__(self, width, **options):
        super().__init__(**options)
        dtype = self.dtype_policy
        self.norm1 = layers.LayerNormalization(name="norm1", dtype=dtype)
        self.attention = layers.MultiHeadAttention(2, width // 2, name="attention", dtype=dtype)
        self.norm2 = layers.LayerNormalization(name="norm2", dtype=dtype)
        self.expand = layers.Dense(2 * width, activation="gelu", name="expand", dtype=dtype)
        self.project = layers.Dense(width, name="project", dtype=dtype)

    def build(self, shape):
        self.norm1.build(shape)
        self.attention.build(shape, shape)
        self.norm2.build(shape)
        self.expand.build(shape)
        self.project.build((*shape[:-1], self.expand.units))

    def call(self, tokens):
        return self.after_norm1(tokens, self.norm1(tokens))

    def after_norm1(self, tokens, normed):
        tokens = tokens + self.attention(normed, normed)
        return tokens + self.project(self.expand(self.norm2(tokens)))


def patches(dtype=None, width=8):
    """From images `(N, 12, 20, 3)` to `(N, 15, width)`: patches of 4x4 pixels, in a grid of 3x5."""
    embed = layers.Conv2D(width, 4, strides=4, name="patches", dtype=dtype)
    return [embed, layers.Reshape((-1, width), dtype=dtype)]


def vit():
    """A class token, which alone is read at the end, and two registers: 18 tokens. `layer` is the last norm
    that the patches have a way from to the scores."""

    def make(dtype):
        inputs = samples(12, 20, 3)
        tokens = Tokens(3, name="tokens", dtype=dtype)
        steps = [*patches(dtype), tokens, Transformer(8, name="block1", dtype=dtype)]
        block = Transformer(8, name="block2", dtype=dtype)
        norm, dense = layers.LayerNormalization(name="norm", dtype=dtype), scores(dtype)
        start = keras.Input(inputs.shape[1:])
        model = season(keras.Model(start, dense(chain(start, [*steps, block, norm])[:, 0])))
        into = chain(inputs, steps)

        def class_token(normed):
            return norm(block.after_norm1(into, normed))[:, 0]

        known = {"size": (12, 20), "grid": (3, 5), "tail": class_token, "default": None}
        return expect(model, inputs, [*steps, block.norm1], dense, "block2/norm1", **known)

    return exactly(make)


def vit_without_class_token(pool, tail=None):
    """The patches' average, or all of them side by side as in the example that Keras shows."""
    inputs, ends = samples(12, 20, 3), [pool, scores()]
    blocks = [Transformer(8, name="block1"), Transformer(8, name="block2")]
    steps = [*patches(), Tokens(0, name="tokens"), *blocks, layers.LayerNormalization(name="norm")]
    return straight(inputs, steps, ends, size=(12, 20), grid=(3, 5), tail=tail)


def vit_with_flattened_patches():
    return vit_without_class_token(layers.Flatten(), tail=layers.Flatten(dtype="float64"))


class Windows(layers.Layer):
    """A block of a Swin transformer: attention inside windows of 4x4 tokens, perhaps shifted (Liu 2021)."""

    def __init__(self, grid, width, shift, **options):
        super().__init__(**options)
        self.grid, self.width, self.shift = grid, width, shift
        self.block = Transformer(width, name="inside")

    def build(self, shape):
        self.block.build((None, 16, self.width))

    def call(self, tokens):
        (height, width), channels = self.grid, self.width
        x = ops.reshape(tokens, (-1, height, width, channels))
        x = ops.roll(x, (-self.shift, -self.shift), axis=(1, 2))
        x = ops.reshape(x, (-1, height // 4, 4, width // 4, 4, channels))
        x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 16, channels))
        x = ops.reshape(self.block(x), (-1, height // 4, width // 4, 4, 4, channels))
        x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height, width, channels))
        x = ops.roll(x, (self.shift, self.shift), axis=(1, 2))
        return ops.reshape(x, (-1, height * width, channels))


class Merge(layers.Layer):
    """Four tokens to one of twice the width."""

    def __init__(self, grid, width, **options):
        super().__init__(**options)
        self.grid, self.width = grid, width
        self.norm = layers.LayerNormalization(name="norm")
        self.reduce = layers.Dense(2 * width, use_bias=False, name="reduce")

    def build(self, shape):
        self.norm.build((None, None, 4 * self.width))
        self.reduce.build((None, None, 4 * self.width))

    def call(self, tokens):
        height, width = self.grid
        x = ops.reshape(tokens, (-1, height // 2, 2, width // 2, 2, self.width))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        x = ops.reshape(x, (-1, height * width // 4, 4 * self.width))
        return self.reduce(self.norm(x))


def swin():
    """Tokens in two stages, on grids of 8x16 and 4x8."""
    inputs, ends = samples(16, 32, 3), [layers.GlobalAveragePooling1D(), scores()]
    steps = [
        layers.Conv2D(4, 2, strides=2, name="patches"),
        layers.Reshape((-1, 4)),
        Windows((8, 16), 4, shift=0, name="stage1_block1"),
        Windows((8, 16), 4, shift=2, name="stage1_block2"),
        Merge((8, 16), 4, name="merge"),
        Windows((4, 8), 8, shift=0, name="stage2_block1"),
        Windows((4, 8), 8, shift=2, name="stage2_block2"),
        layers.LayerNormalization(name="norm"),
    ]
    return straight(inputs, steps, ends, size=(16, 32), grid=(4, 8))


KINDS: dict[str, Callable[[], Kind]] = {
    "functional": functional,
    "Sequential": sequential,
    "Sequential around functional": sequential_around_functional,
    "nested, 1 deep": lambda: nested(1),
    "nested, 2 deep": lambda: nested(2),
    "nested, 3 deep": lambda: nested(3),
    "nested with its pooling": nested_with_its_pooling,
    "subclassed": subclassed,
    "custom layer": custom_layer,
    "convolution in a custom layer": convolution_in_a_custom_layer,
    "subclassed, never built": lambda: never_built(Chain),
    "Sequential, never built": lambda: never_built(keras.Sequential),
    "functional around subclassed": functional_around_subclassed,
    "functional around custom layer": functional_around_custom_layer,
    "subclassed around functional": subclassed_around_functional,
    "image and table in a list": lambda: image_and_table(lambda a, b: [a, b]),
    "table and image in a list": lambda: image_and_table(lambda a, b: [b, a]),
    "image and table in a dict": lambda: image_and_table(lambda a, b: {"image": a, "table": b}),
    "subclassed, of a dict": subclassed_of_a_dict,
    "two images, the first": lambda: two_images(0),
    "two images, the second": lambda: two_images(1),
    "image and signal, the image": lambda: image_and_signal(0),
    "image and signal, the signal": lambda: image_and_signal(1),
    "outputs in a list": lambda: several_outputs(lambda a, b, c: [b, a, c], 1),
    "outputs in a tuple": lambda: several_outputs(lambda a, b, c: (a, b, c), 0),
    "outputs in a dict": lambda: several_outputs(lambda a, b, c: {"a": a, "b": b, "c": c}, "a"),
    "outputs, nested": lambda: several_outputs(lambda a, b, c: {"kind": a, "box": [b, c]}, "kind"),
    "siamese, first run": lambda: siamese(0),
    "siamese, second run": lambda: siamese(1),
    "twice in a chain, first run": lambda: twice_in_a_chain(0),
    "twice in a chain, second run": lambda: twice_in_a_chain(1),
    "float64": lambda: functional(dtype="float64"),
    "mixed_float16": lambda: functional(dtype="mixed_float16", tolerance=2e-2),
    "mixed_bfloat16": lambda: functional(dtype="mixed_bfloat16", tolerance=2e-2),
    "several dtypes": mixed_dtypes,
    "channels_first": channels_first,
    "channels_first inside": lambda: channels_first(permuted=True),
    "preprocessing inside": preprocessing_inside,
    "preprocessing inside, subclassed": lambda: preprocessing_inside(subclass=True),
    "dropout and batch norm": dropout_and_batch_norm,
    "frozen base": frozen_base,
    "signal": signal,
    "text": text,
    "volume": volume,
    "video": video,
    "columns of an image": columns,
    "network for each frame": lambda: network_for_each_frame(2),
    "ConvLSTM, every frame": lambda: conv_lstm(True),
    "ConvLSTM, last frame": lambda: conv_lstm(False),
    "any size": lambda: functional(shape=(None, None, 3)),
    "one channel": one_channel,
    "no channel axis": no_channel_axis,
    "13 bands": lambda: functional(channels=13),
    "ConvNeXt": convnext,
    "ViT": vit,
    "ViT with average pooling": lambda: vit_without_class_token(layers.GlobalAveragePooling1D()),
    "ViT with flattened patches": vit_with_flattened_patches,
    "Swin": swin,
}
# Kinds that differ only inside the forward pass, beside the kind that stands for them: tests of what comes
# after it leave them to `make test-all`. test_zoo.py tests the map of every kind.
ALIKE = {
    "Sequential around functional": "nested, 3 deep",
    "nested, 1 deep": "nested, 3 deep",
    "nested, 2 deep": "nested, 3 deep",
    "nested with its pooling": "nested, 3 deep",
    "custom layer": "convolution in a custom layer",
    "subclassed, never built": "subclassed",
    "Sequential, never built": "Sequential",
    "functional around custom layer": "functional around subclassed",
    "image and table in a list": "image and table in a dict",
    "table and image in a list": "image and table in a dict",
    "subclassed, of a dict": "image and table in a dict",
    "two images, the first": "two images, the second",
    "image and signal, the image": "image and signal, the signal",
    "outputs in a list": "outputs, nested",
    "outputs in a tuple": "outputs, nested",
    "outputs in a dict": "outputs, nested",
    "siamese, first run": "siamese, second run",
    "twice in a chain, first run": "twice in a chain, second run",
    "mixed_bfloat16": "mixed_float16",
    "channels_first inside": "channels_first",
    "preprocessing inside, subclassed": "preprocessing inside",
    "video": "volume",
    "ConvLSTM, every frame": "ConvLSTM, last frame",
    "one channel": "functional",
    "13 bands": "functional",
    "ViT with flattened patches": "ViT with average pooling",
    "Swin": "ViT with average pooling",
}
# Of each sort one, where another test has them all.
FEW = ["channels_first", "no channel axis", "image and table in a dict", "mixed_float16"]
FEW += ["outputs, nested", "siamese, second run", "subclassed", "volume"]


def make(name):
    """Make the kind of this name, or skip the test where this Keras answers differently each time."""
    if name == "preprocessing inside, subclassed" and augments_in_inference():
        pytest.skip("this version of Keras augments in inference, so that no two answers are alike")
    return KINDS[name]()

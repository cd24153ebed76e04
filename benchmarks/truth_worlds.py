"""The networks and scenes of truth.py: a small ResNet and MobileNet, trained here, and EfficientNet-Lite0."""

import time
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from tf_gradcam import pretrained
from tf_gradcam.metrics import truth

TRAIN, JUDGE = (
    1,
    1000,
)  # seeds from here on: what is measured was not trained on, and nothing was chosen by it
CLOSE = {
    "objects": 1,
    "size": 48,
    "lengths": (0.4, 0.84),
}  # scenes of 48 pixels with objects as large as in 96


class Cases(NamedTuple):
    """Objects to explain, one in each image, as the network takes it.

    Attributes:
        images: float32 `(N, H, W, 3)`.
        targets: the output that stands for the object, `(N,)`.
        absent: an output that stands for nothing in the scene, `(N,)`.
        masks: the object, bool `(N, H, W)`.
        other_masks: the other object of the scene.
    """

    images: np.ndarray
    targets: np.ndarray
    absent: np.ndarray
    masks: np.ndarray
    other_masks: np.ndarray


class Mosaics(NamedTuple):
    """Mosaics of 2 x 2 scenes, the output that stands for the object in one of them, and that one's cell."""

    images: np.ndarray
    targets: np.ndarray
    cells: np.ndarray


class World(NamedTuple):
    """A network, the names of its layers, the last one and those on finer grids, and what it explains."""

    model: keras.Model
    layers: list[str]
    cases: Cases
    mosaics: Mosaics
    about: str


def shapes(count) -> World:
    """Train the small ResNet, and draw scenes of shapes."""
    return _shapes(count, "ResNet", small_resnet)


def mobilenet(count) -> World:
    """Train a small MobileNet, and draw the same scenes."""
    return _shapes(count, "MobileNet", small_mobilenet)


def _shapes(count, name, build):
    start, cpu = time.perf_counter(), time.process_time()
    model = train(build)
    took = f"{time.perf_counter() - start:.0f} s, {time.process_time() - cpu:.0f} s of a core"
    right = []
    for objects in (1, 2):
        scenes = truth.shapes(500, JUDGE + objects, objects=objects)
        scores = model.predict(scaled(scenes.images), verbose=0)
        right.append(scenes.recognized(scores, objects).mean())
    cases, seen = find_cases(model, scaled, truth.shapes(count, JUDGE), 2)
    mosaics = find_mosaics(model, scaled, truth.shapes(200, JUDGE + 3, **CLOSE), 4)
    about = (
        f"A {name} of {model.count_params() / 1e6:.1g} million parameters, drawn for and trained in {took}. "
        f"It names {right[0]:.1%} of single objects in held back scenes, {right[1]:.1%} of those in pairs. "
        f"Of {2 * count} objects in {count} scenes, those {seen:.1%} are explained whose score is one of the "
        "two highest."
    )
    return World(model, ["stage3", "stage2", "stage1"], cases, mosaics, about)


def photographs(count) -> World:
    """Load EfficientNet-Lite0, and draw scenes of photographs."""
    model = pretrained.efficientnet_lite0()

    def prepare(images):
        return pretrained.preprocess(images).numpy()

    cases, seen = find_cases(model, prepare, truth.photographs(count, JUDGE), 10)
    single = truth.photographs(200, JUDGE + 3, objects=1, size=112, lengths=(0.6, 0.9))
    about = (
        f"EfficientNet-Lite0. Of {2 * count} objects in {count} scenes, those {seen:.1%} are explained whose "
        "score is one of the ten highest of 1000."
    )
    names = ["top_activation", "block6a_expand_activation", "block4a_expand_activation"]
    return World(model, names, cases, find_mosaics(model, prepare, single, 10), about)


def find_cases(model, prepare, scenes, rank) -> tuple[Cases, float]:
    """Return the objects that the network recognizes, and which share of all objects they are."""
    images = prepare(scenes.images)
    scores = model.predict(images, verbose=0)
    targets, seen = scenes.targets(scores), scenes.recognized(scores, rank)
    random = np.random.default_rng(0)
    found = []
    for scene, place in np.argwhere(seen):
        present = [output for label in scenes.labels[scene] for output in scenes.outputs[label]]
        absent = random.choice(np.setdiff1d(np.arange(scores.shape[1]), present))
        masks = scenes.masks[scene]
        found.append((images[scene], targets[scene, place], absent, masks[place], masks[1 - place]))
    return Cases(*(np.array(column) for column in zip(*found, strict=True))), seen.mean()


def find_mosaics(model, prepare, scenes, rank) -> Mosaics:
    """Lay scenes of one object each side by side, and return those objects that the network recognizes."""
    labels = scenes.labels[:, 0]
    fours = [four for four in np.arange(len(labels)).reshape(-1, 4) if len(set(labels[four])) == 4]
    tiles = scenes.images[np.array(fours)]
    rows = [np.concatenate([tiles[:, place], tiles[:, place + 1]], axis=2) for place in (0, 2)]
    images = prepare(np.concatenate(rows, axis=1))
    mosaics = scenes._replace(labels=labels[np.array(fours)])
    scores = model.predict(images, verbose=0)
    targets = mosaics.targets(scores)
    chosen = np.argwhere(mosaics.recognized(scores, rank))
    return Mosaics(images[chosen[:, 0]], targets[chosen[:, 0], chosen[:, 1]], chosen[:, 1])


# The small networks


def train(build) -> keras.Model:
    """Train on small images that an object fills, which takes a quarter of the time, then on whole scenes."""
    keras.utils.set_random_seed(0)
    close = truth.shapes(6000, TRAIN, **CLOSE)
    first = build(48, len(close.names))
    fit(first, [close], epochs=9, batch=64)
    model = build(96, len(close.names))
    model.set_weights(first.get_weights())
    whole = [truth.shapes(1500, TRAIN + 1, objects=1), truth.shapes(2500, TRAIN + 2)]
    fit(model, whole, epochs=4, batch=32)
    return model


def small_resnet(size, classes) -> keras.Model:
    """Build a ResNet with three stages, on grids of size / 4, / 8 and / 16."""
    images = keras.Input((size, size, 3))
    x = _convolution(images, 16, 3, 2)
    x = layers.ReLU()(x)
    for number, filters in enumerate((24, 48, 96), start=1):
        y = layers.ReLU()(_convolution(x, filters, 3, 2))
        y = _convolution(y, filters, 3, 1)
        x = layers.Add()([_convolution(x, filters, 1, 2), y])
        x = layers.ReLU(name=f"stage{number}")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(classes, activation="sigmoid")(x))


def small_mobilenet(size, classes) -> keras.Model:
    """Build a MobileNet of depthwise separable convolutions, with as many stages on the same grids."""
    images = keras.Input((size, size, 3))
    x = layers.ReLU()(_convolution(images, 16, 3, 2))
    for number, filters in enumerate((32, 64, 128), start=1):
        x = _separable(x, filters, 2)
        x = _separable(x, filters, 1, name=f"stage{number}")
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(classes, activation="sigmoid")(x))


def _separable(x, filters, strides, name=None):
    x = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return layers.ReLU(name=name)(_convolution(x, filters, 1, 1))


def _convolution(x, filters, size, strides):
    x = layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False)(x)
    return layers.BatchNormalization()(x)


def scaled(images):
    return (images / 127.5 - 1).astype(np.float32)


def fit(model, scenes, epochs, batch):
    """Train a model to say which classes are in a scene, with a learning rate that falls to 0."""
    images = np.concatenate([scaled(each.images) for each in scenes])
    present = np.concatenate([np.eye(len(each.names))[each.labels].sum(axis=1) for each in scenes])
    rate = keras.optimizers.schedules.CosineDecay(4e-3, epochs * len(images) // batch)
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy")
    random = np.random.default_rng(0)
    for _ in range(epochs):
        model.fit(varied(images, random), present, batch_size=batch, verbose=0)


def varied(images, random):
    """Turn, mirror and recolour images: no class depends on it."""
    images = images.copy()
    for number, part in enumerate(np.array_split(random.permutation(len(images)), 16)):
        turned = np.rot90(images[part], number, (1, 2))
        turned = turned[:, ::-1] if number % 8 >= 4 else turned
        images[part] = turned[..., random.permutation(3)] * random.choice([-1, 1])
    return images

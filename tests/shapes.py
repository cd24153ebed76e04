"""Drawn shapes with their masks, and a small network that is trained on them in seconds, once a process."""

import functools

import keras
import numpy as np

SIDE = 32


def draw(count, seed):
    """Return images `(N, 32, 32, 1)` of a ring, square or cross, their classes, and their boxes as masks."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    images = random.normal(0, 0.15, (count, SIDE, SIDE, 1))
    classes = random.integers(0, 3, count)
    masks = np.zeros((count, SIDE, SIDE), bool)
    for image, mask, index in zip(images, masks, classes, strict=True):
        size = random.integers(4, 7)
        row, column = random.integers(size, SIDE - size, 2)
        down, right = abs(rows - row), abs(columns - column)
        distance, far = np.hypot(down, right), np.maximum(down, right)
        shape = [
            (distance <= size) & (distance >= size - 2),
            (far <= size) & (far >= size - 1),
            (np.minimum(down, right) <= 1) & (far <= size),
        ][index]
        image[..., 0] += shape * random.uniform(0.8, 1.2)
        mask[:] = far <= size
    return images.astype("float32"), classes, masks


@functools.cache
def trained():
    """Return a network that knows nine in ten shapes: convolutions, batch normalization, pooling, softmax."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1)),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="conv1"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, padding="same", use_bias=False, name="conv2"),
            layers.BatchNormalization(name="norm2"),
            layers.ReLU(name="relu2"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv3"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax", name="scores"),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    images, classes, _ = draw(1500, 1)
    model.fit(images, classes, epochs=8, batch_size=50, verbose=0)
    return model

"""What `GradCAMCallback` costs for each epoch, for `docs/training.md`: `python benchmarks/training.py`.

Eight photographs and TensorBoard's file, for EfficientNet-Lite0 at 224 x 224 pixels and a small network at
32 x 32. Medians of explanations and training steps in turn, in seconds of the clock and of the processor.
"""

import os
import tempfile
import time

import keras
import numpy as np
import skimage.data

import tf_gradcam
from tf_gradcam import pretrained
from tf_gradcam.callbacks import GradCAMCallback

ROUNDS = 9
BATCH = 32


def small_network() -> keras.Model:
    """Return three convolutions and a classifier, as for CIFAR-10."""
    steps = [keras.layers.Conv2D(32, 3, activation="relu", padding="same", strides=n) for n in (1, 2, 2)]
    steps += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10, activation="softmax")]
    return keras.Sequential([keras.Input((32, 32, 3)), *steps])


def measure(function, *arguments) -> tuple[float, float]:
    """Return the seconds of the clock and of the processor that a call takes."""
    clock, processor = time.perf_counter(), time.process_time()
    function(*arguments)
    return time.perf_counter() - clock, time.process_time() - processor


def main() -> None:
    """Print a row of the table for each model."""
    photograph = skimage.data.coffee()
    for name, model, side in (
        ("EfficientNet-Lite0", pretrained.efficientnet_lite0(), 224),
        ("three convolutions", small_network(), 32),
    ):
        pixels = tf_gradcam.load_image(photograph, size=(side, side)).astype(np.float32)
        images = np.stack([np.roll(pixels, number, axis=1) for number in range(BATCH)]) / 128 - 1
        classes = np.zeros(BATCH, int)
        model.compile("sgd", "sparse_categorical_crossentropy")
        with tempfile.TemporaryDirectory() as folder:
            callback = GradCAMCallback(images, folder, target=classes[:8], max_share=None)
            callback.set_model(model)
            first = measure(callback.on_train_begin)
            model.train_on_batch(images, classes)
            explained, trained = [], []
            for epoch in range(ROUNDS):
                trained.append(measure(model.train_on_batch, images, classes))
                explained.append(measure(callback.on_epoch_end, epoch))
            callback.on_train_end()
            size = sum(os.path.getsize(os.path.join(folder, each)) for each in os.listdir(folder))
        values = [first, np.median(explained, axis=0), np.median(trained, axis=0)]
        cells = [f"{clock:.3g} s ({processor:.3g} s)" for clock, processor in values]
        print(f"| {name} | {' | '.join(cells)} | {size / ROUNDS / 1e6:.1f} MB |", flush=True)
    print("load", os.getloadavg())


if __name__ == "__main__":
    main()

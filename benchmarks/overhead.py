"""What a heatmap costs once all is compiled, in forward passes.

Every row is measured in one process, in interleaved runs: forward pass, heatmap, forward pass, heatmap...
so that whatever else the machine does falls on both alike. A ratio is the median over its pairs.

    python benchmarks/overhead.py [--runs 40] [--model ResNet50]
"""

import argparse
import os
import statistics
import time
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import tf_gradcam
from tf_gradcam import pretrained

MODELS = ["EfficientNet-Lite0", "MobileNetV2", "EfficientNetB0", "ResNet50"]
BATCHES = [1, 8]
HEADER = "| model | batch | forward pass | what | ratio, median | quartiles |"


class Row(NamedTuple):
    """A ratio's quartiles, and the seconds of the forward pass that it is of."""

    model: str
    batch: int
    what: str
    forward: float
    low: float
    median: float
    high: float


def build(name):
    """Return the real EfficientNet-Lite0, or a model of keras.applications with random weights."""
    if name == "EfficientNet-Lite0":
        return pretrained.efficientnet_lite0()
    model = getattr(keras.applications, name)(weights=None)
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # As new it adds 0 and divides by 1, which a frozen graph would leave out.
            layer.set_weights([w + random.uniform(-0.1, 0.1, w.shape) for w in layer.get_weights()])
    return model


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(pairs, runs):
    """Return for each pair (baseline, candidate) the baseline's median seconds and the ratio's quartiles."""
    functions = [function for pair in pairs for function in pair]
    for function in functions * 3:
        function()
    rounds = [[seconds(function) for function in functions] for _ in range(runs)]
    for i in range(0, len(functions), 2):
        ratios = [each[i + 1] / each[i] for each in rounds]
        yield statistics.median(each[i] for each in rounds), statistics.quantiles(ratios, n=4)


def pairs(model, cam, frozen, batch) -> dict:
    """Return for each way to a heatmap the forward pass on the same, and the heatmap."""
    images = np.random.default_rng(0).normal(size=(batch, 224, 224, 3)).astype("float32")
    tensors = tf.constant(images)
    forward = tf.function(lambda x: model(x, training=False)).get_concrete_function(tensors)
    return {
        "GradCAM, tensors": (lambda: forward(tensors).numpy(), lambda: cam(tensors).heatmap.numpy()),
        "GradCAM.freeze(), tensors": (
            lambda: forward(tensors).numpy(),
            lambda: frozen(tensors).heatmap.numpy(),
        ),
        "make_gradcam_heatmap, NumPy": (
            lambda: forward(tf.convert_to_tensor(images)).numpy(),
            lambda: tf_gradcam.make_gradcam_heatmap(model, images),
        ),
    }


def measure(name, runs):
    """Yield a row for each batch and way to a heatmap."""
    model = build(name)
    cam = tf_gradcam.GradCAM(model)
    frozen = cam.freeze()
    for batch in BATCHES:
        ways = pairs(model, cam, frozen, batch)
        for what, (forward, quartiles) in zip(ways, compare(ways.values(), runs), strict=True):
            yield Row(name, batch, what, forward, *quartiles)


def table(rows) -> str:
    lines = [
        f"| {row.model} | {row.batch} | {1e3 * row.forward:.1f} ms | {row.what} | {row.median:.2f} | "
        f"{row.low:.2f} to {row.high:.2f} |"
        for row in rows
    ]
    return "\n".join([HEADER, "|---|---|---|---|---|---|", *lines])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=40, help="interleaved runs of each row (default 40)")
    parser.add_argument("--model", choices=MODELS, action="append", help="which models (default all)")
    arguments = parser.parse_args()
    for name in arguments.model or MODELS:
        print(table(measure(name, arguments.runs)), flush=True)


if __name__ == "__main__":
    main()

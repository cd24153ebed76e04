"""What a heatmap costs on a GPU, for docs/gpu.md: with and without XLA, heatmaps left on the device.

For each model and batch: the forward pass, compiled by TensorFlow and by XLA, and a GradCAM, plain, frozen,
and with jit_compile. Images are on the device, and of each answer one number is read back to stop the clock.
Each is the median of interleaved runs, beside TensorFlow's compiled forward pass. A model that is not reached
in the time given is left out, so that the script ends in time on a machine that is lent for minutes.

    python benchmarks/gpu.py [--runs 40] [--batch 1 --batch 64] [--model MobileNetV2] [--seconds 230]
"""

import argparse
import itertools
import os
import statistics
import time

import numpy as np
import tensorflow as tf
from overhead import build, seconds

import tf_gradcam

MODELS = ("EfficientNet-Lite0", "ResNet50", "MobileNetV2", "EfficientNetB0")
BATCHES = (1, 64)
HEADER = "| model | batch | what | first call | median | beside the forward pass |\n|---|---|---|---|---|---|"


def ways(model, images) -> dict:
    """Return for each way a function that computes and reads back one number."""

    def forward(jit_compile):
        function = tf.function(lambda x: model(x, training=False), autograph=False, jit_compile=jit_compile)
        return lambda: function(images)[0, 0].numpy()

    def heatmap(cam):
        return lambda: cam(images).heatmap[0, 0, 0].numpy()

    cam, compiled = (tf_gradcam.GradCAM(model, jit_compile=jit_compile) for jit_compile in (False, True))
    return {
        "forward pass": forward(False),
        "forward pass, XLA": forward(True),
        "GradCAM": heatmap(cam),
        "GradCAM.freeze()": heatmap(cam.freeze()),
        "GradCAM(jit_compile=True)": heatmap(compiled),
        "GradCAM(jit_compile=True).freeze()": heatmap(compiled.freeze()),
    }


def measure(model, batch, runs, side):
    """Yield (what, seconds of the first call, median seconds, quartiles of the ratio)."""
    images = tf.constant(np.random.default_rng(0).normal(size=(batch, side, side, 3)).astype("float32"))
    functions = ways(model, images)
    first = [seconds(function) for function in functions.values()]
    for function in list(functions.values()) * 3:
        function()
    rounds = [[seconds(function) for function in functions.values()] for _ in range(runs)]
    for i, what in enumerate(functions):
        quartiles = statistics.quantiles([each[i] / each[0] for each in rounds], n=4)
        yield what, first[i], statistics.median(each[i] for each in rounds), quartiles


def check(model, side) -> str:
    """Return how far the heatmaps with and without XLA are from each other."""
    images = np.random.default_rng(1).normal(size=(2, side, side, 3)).astype("float32")
    plain, compiled = (tf_gradcam.GradCAM(model, jit_compile=each)(images) for each in (False, True))
    return f"{np.abs(plain.heatmap - compiled.heatmap).max():.1e}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=40, help="interleaved runs of each row (default 40)")
    parser.add_argument("--model", choices=MODELS, action="append", help="which models (default all)")
    parser.add_argument("--batch", type=int, action="append", help=f"batch sizes (default {BATCHES})")
    parser.add_argument("--side", type=int, default=224, help="height and width of the images (default 224)")
    parser.add_argument("--seconds", type=float, default=230, help="begin nothing after these (default 230)")
    arguments = parser.parse_args()
    start, longest = time.perf_counter(), 0.0
    devices = [device.name for device in tf.config.list_logical_devices()]
    print(f"TensorFlow {tf.__version__}, {devices}, {os.cpu_count()} cores\n\n{HEADER}", flush=True)
    differences = {}
    for name, batch in itertools.product(arguments.model or MODELS, arguments.batch or BATCHES):
        begin = time.perf_counter()
        if begin + longest - start > arguments.seconds:
            print(f"\nNo time left for {name} at batch {batch}.")
            continue
        model = build(name)
        for what, first, median, (low, middle, high) in measure(model, batch, arguments.runs, arguments.side):
            ratio = f"{middle:.2f} ({low:.2f} to {high:.2f})"
            print(
                f"| {name} | {batch} | {what} | {first:.1f} s | {1e3 * median:.2f} ms | {ratio} |", flush=True
            )
        longest = max(longest, time.perf_counter() - begin)
        if name not in differences and time.perf_counter() + longest / 4 - start < arguments.seconds:
            differences[name] = check(model, arguments.side)
    print(f"\nThe largest difference of heatmaps with XLA: {differences}")


if __name__ == "__main__":
    main()

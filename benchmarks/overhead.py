"""What a heatmap costs, in forward passes.

Every row is measured in one process, in interleaved runs: forward pass, heatmap, forward pass, heatmap...
so that whatever else the machine does falls on both alike. A ratio is the median over its pairs.

    python benchmarks/overhead.py [--runs 40]
"""

import argparse
import os
import platform
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import tf_gradcam
from tf_gradcam import pretrained


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


def measure(model, batch, runs):
    """Yield rows for tensors in and for NumPy arrays in, each against the forward pass on the same."""
    images = np.random.default_rng(0).normal(size=(batch, 224, 224, 3)).astype("float32")
    tensors = tf.constant(images)
    forward = tf.function(lambda x: model(x, training=False)).get_concrete_function(tensors)
    cam = tf_gradcam.GradCAM(model)
    pairs = {
        "GradCAM, tensors": (lambda: forward(tensors).numpy(), lambda: cam(tensors).heatmap.numpy()),
        "make_gradcam_heatmap, NumPy": (
            lambda: forward(tf.convert_to_tensor(images)).numpy(),
            lambda: tf_gradcam.make_gradcam_heatmap(model, images),
        ),
    }
    yield from zip(pairs, compare(pairs.values(), runs), strict=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=40, help="interleaved runs of each row (default 40)")
    runs = parser.parse_args().runs
    models = {
        "EfficientNet-Lite0": pretrained.efficientnet_lite0(),
        "ResNet50": keras.applications.ResNet50(weights=None),
    }
    device = "GPU" if tf.config.list_physical_devices("GPU") else f"{os.cpu_count()} CPU cores"
    print(
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}, Python {platform.python_version()}; ",
        end="",
    )
    print(f"{device}, {platform.machine()}, load {os.getloadavg()[0]:.1f}; {runs} interleaved runs\n")
    print("| model | batch | forward pass | what | ratio, median | quartiles |\n|---|---|---|---|---|---|")
    for name, model in models.items():
        for batch in (1, 8):
            for what, (forward, (low, median, high)) in measure(model, batch, runs):
                row = [
                    name,
                    batch,
                    f"{1e3 * forward:.1f} ms",
                    what,
                    f"{median:.2f}",
                    f"{low:.2f} to {high:.2f}",
                ]
                print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()

"""What every method costs, in forward passes of its network: one photograph, 224 x 224.

Measured as in overhead.py, in interleaved runs of one process, against the compiled forward pass. What runs
the network once for each of K channels is measured against K compiled forward passes, in batches of 32.

    python benchmarks/methods.py [--runs 20]
"""

import argparse
import os

import keras
import numpy as np
import tensorflow as tf
from overhead import compare, seconds

import tf_gradcam
from tf_gradcam import methods, pretrained

OTHER_MODELS = ["legrad"]  # It needs a vision transformer.
BY_CHANNEL = ["scorecam", "sscam", "iscam", "rise"]  # the network once for each channel or mask, or more
BATCH = 32


def photographs(count):
    random = np.random.default_rng(0)
    return tf.constant(random.normal(size=(count, 224, 224, 3)).astype("float32"))


def compiled(model, images):
    forward = tf.function(lambda x: model(x, training=False)).get_concrete_function(images)
    return lambda: forward(images).numpy()


def heatmap(model, method):
    cam, image = tf_gradcam.GradCAM(model, method=method), photographs(1)
    return lambda: cam(image).heatmap.numpy()


def report(what, pair, runs):
    ((base, (low, median, high)),) = compare([pair], runs)
    print(f"| {what} | {1e3 * base:.1f} ms | {median:.2f} | {low:.2f} to {high:.2f} |", flush=True)


def header(text, base):
    print(f"\n{text}, load {os.getloadavg()[0]:.1f}\n")
    print(f"| method | {base} | ratio, median | quartiles |\n|---|---|---|---|")


def in_forward_passes(name, model, runs):
    header(f"{name}, batch 1, {runs} interleaved runs", "forward pass")
    left_out = BY_CHANNEL + OTHER_MODELS
    named = {name: about.method for name, about in methods.METHODS.items() if name not in left_out}
    named["smooth('gradcam', samples=8)"] = methods.smooth("gradcam", samples=8)
    named["augment('gradcam')"] = methods.augment("gradcam")
    forward = compiled(model, photographs(1))
    for what, method in named.items():
        explain = heatmap(model, method)
        explain()
        report(what, (forward, explain), runs if seconds(explain) < 1 else max(3, runs // 5))


def in_passes_by_channel(name, model, channels, runs):
    header(f"{name}, {channels} channels, {runs} interleaved runs", f"{channels} forward passes")
    batch = compiled(model, photographs(BATCH))

    def passes():
        for _ in range(channels // BATCH):
            batch()

    report("scorecam", (passes, heatmap(model, "scorecam")), runs)
    report("scorecam(channels=64)", (passes, heatmap(model, methods.scorecam(channels=64))), runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="interleaved runs of each row (default 20)")
    runs = parser.parse_args().runs
    lite0 = pretrained.efficientnet_lite0()
    in_forward_passes("EfficientNet-Lite0", lite0, runs)
    in_forward_passes("ResNet50", keras.applications.ResNet50(weights=None), runs)
    in_passes_by_channel("EfficientNet-Lite0", lite0, 1280, max(3, runs // 5))


if __name__ == "__main__":
    main()

"""What several classes cost: the heatmaps of 1, 10, 100 and all 1000 classes from one forward pass each.

Measured as in overhead.py, in interleaved runs of one process, against the forward pass. Heatmaps are on the
layer's own grid, and of up to 10 classes as large as the image, too: those of all 1000 are 200 MB.

    python benchmarks/classes.py [--runs 40]
"""

import argparse

import numpy as np
import tensorflow as tf
from overhead import build, compare

import tf_gradcam
from tf_gradcam import targets

LAYERS = {"top_activation": "7 x 7 x 1280, the last", "block5c_add": "14 x 14 x 112, in the middle"}
CASES = {  # classes -> the heatmaps' sizes, by layer
    "top_activation": {1: ["input", None], 10: ["input", None], 100: [None], 1000: [None]},
    "block5c_add": {1: ["input", None], 10: ["input", None], 100: [None]},
}


def measure(model, layer, runs):
    """Yield (classes, size, the ratio's quartiles)."""
    images = tf.constant(np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype("float32"))
    forward = tf.function(lambda x: model(x, training=False)).get_concrete_function(images)
    cam = tf_gradcam.GradCAM(model, layer)

    def pair(count, size):
        target = targets.Classes(range(count)) if count > 1 else 0
        return lambda: forward(images).numpy(), lambda: cam(images, target, size=size).heatmap.numpy()

    cases = [(count, size) for count, sizes in CASES[layer].items() for size in sizes]
    found = compare([pair(*case) for case in cases], runs)
    for (count, size), (_, quartiles) in zip(cases, found, strict=True):
        yield count, "224 x 224" if size else "the layer's", quartiles


def table(runs) -> str:
    model = build("EfficientNet-Lite0")
    lines = ["| layer | classes | heatmaps | ratio, median | quartiles |", "|---|---|---|---|---|"]
    for layer, about in LAYERS.items():
        for count, size, (low, median, high) in measure(model, layer, runs):
            lines.append(f"| {about} | {count} | {size} | {median:.2f} | {low:.2f} to {high:.2f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=40, help="interleaved runs of each row (default 40)")
    print(table(parser.parse_args().runs))


if __name__ == "__main__":
    main()

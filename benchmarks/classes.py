"""What more classes cost: the heatmaps of 1, 2, 5, 10 and 100 classes from one forward pass each.

Measured as in overhead.py, in interleaved runs of one process, against the heatmap of a single class.

    python benchmarks/classes.py [--runs 40]
"""

import argparse
import functools
import os

import numpy as np
import tensorflow as tf
from overhead import compare

import tf_gradcam
from tf_gradcam import pretrained, targets


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=40, help="interleaved runs of each row (default 40)")
    runs = parser.parse_args().runs
    model = pretrained.efficientnet_lite0()
    layers = {"top_activation": "7 x 7 x 1280, the last", "block5c_add": "14 x 14 x 112, in the middle"}
    print(f"EfficientNet-Lite0, batch 1, load {os.getloadavg()[0]:.1f}, {runs} interleaved runs\n")
    print("| layer | one class | classes | ratio, median | quartiles |\n|---|---|---|---|---|")
    images = tf.constant(np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype("float32"))
    for layer, about in layers.items():
        cam = tf_gradcam.GradCAM(model, layer)
        counts = [2, 5, 10, 100]

        def heatmaps(target, cam=cam):
            return cam(images, target).heatmap.numpy()

        one = functools.partial(heatmaps, 0)
        pairs = [(one, functools.partial(heatmaps, targets.Classes(range(count)))) for count in counts]
        for count, (base, (low, median, high)) in zip(counts, compare(pairs, runs), strict=True):
            print(
                f"| {about} | {1e3 * base:.1f} ms | {count} | {median:.2f} | {low:.2f} to {high:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""What `cam.trust` costs, in the time of the masked forward passes that it needs, run bare.

Measured as in overhead.py, in interleaved runs of one process: the passes of as many images of the same size
and batches, then the whole of `trust`. The first call of each, which compiles, is left out.

    python benchmarks/trust.py [--images 64] [--runs 5]
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

import tf_gradcam
from tf_gradcam import pretrained

BATCH = 32


def photographs(count):
    random = np.random.default_rng(0)
    return random.normal(size=(count, 224, 224, 3)).astype("float32")


class Counted:
    """An explainer that counts the images that it scores."""

    def __init__(self, cam):
        self._cam, self.scored = cam, 0

    def __getattr__(self, name):
        return getattr(self._cam, name)

    def __call__(self, *arguments, **named):
        return self._cam(*arguments, **named)

    def scores(self, images, target=None):
        self.scored += len(images)
        return self._cam.scores(images, target)


def times(function):
    start = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="number of images (default 64)")
    parser.add_argument("--runs", type=int, default=5, help="interleaved runs (default 5)")
    arguments = parser.parse_args()
    images = photographs(arguments.images)
    model = pretrained.efficientnet_lite0()
    cam = tf_gradcam.GradCAM(model)
    counted = Counted(cam)
    tf_gradcam.metrics.trust(counted, images[:2])
    passes = counted.scored // 2
    batches = [tf.constant(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    forward = tf.function(lambda x: model(x, training=False)).get_concrete_function(
        tf.TensorSpec([None, 224, 224, 3])
    )

    def bare():
        for _ in range(passes):
            for batch in batches:
                forward(batch).numpy()

    def trust():
        cam.trust(images, batch_size=BATCH)

    forward(batches[0]), cam.trust(images[:BATCH], batch_size=BATCH)
    rounds = [(times(bare), times(trust)) for _ in range(arguments.runs)]
    print(f"EfficientNet-Lite0, {len(images)} images, {passes} passes each, load {os.getloadavg()[0]:.1f}")
    for place, clock in enumerate(["wall clock", "processor time"]):
        base = statistics.median(one[0][place] for one in rounds)
        ratios = [other[place] / one[place] for one, other in rounds]
        print(
            f"{clock}: the passes alone {base:.1f} s; trust {statistics.median(ratios):.2f} times that "
            f"({min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} runs)"
        )


if __name__ == "__main__":
    main()

"""How much of a map is left when weights are randomized, for every method: the table in docs/trust.md.

EfficientNet-Lite0 on photographs, at each method's default layer: the rank correlation of a map with itself
after the dense layer alone was randomized, and after everything was.

    python benchmarks/sanity.py [--method gradcam]
"""

import argparse
import os
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import numpy as np
import skimage.data
import sklearn.datasets

import tf_gradcam
from tf_gradcam import methods, metrics, pretrained

SIDE = 224
PHOTOGRAPHS = [
    skimage.data.chelsea,
    lambda: skimage.data.coffee()[:, 100:500],
    lambda: cv2.cvtColor(skimage.data.camera(), cv2.COLOR_GRAY2RGB),
    lambda: sklearn.datasets.load_sample_image("flower.jpg")[:, 106:533],
    lambda: sklearn.datasets.load_sample_image("china.jpg")[:, 106:533],
    skimage.data.astronaut,
    lambda: skimage.data.rocket()[:, 106:533],
    lambda: skimage.data.chelsea()[::-1],
]
BUDGETS = {  # what would take minutes
    "ablationcam": methods.ablationcam(channels=256),
    "opticam": methods.opticam(steps=10),
    "scorecam": methods.scorecam(channels=32),
    "smoothgrad": methods.smooth("gradient", samples=8),
    "integrated_gradients": methods.integrated_gradients(steps=16),
}
TOO_SLOW = ["sscam", "iscam", "rise"]
NOT_ON_THIS_LAYER = ["smooth_gradcam_plus_plus"]  # There it is Grad-CAM++.
NOT_ON_THIS_MODEL = ["legrad"]  # It needs a vision transformer.


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--method", action="append", help="which methods (default nearly all)")
    left_out = {*TOO_SLOW, *NOT_ON_THIS_LAYER, *NOT_ON_THIS_MODEL}
    names = parser.parse_args().method or [name for name in methods.METHODS if name not in left_out]
    photographs = np.stack([cv2.resize(make(), (SIDE, SIDE)) for make in PHOTOGRAPHS])
    images = np.asarray(pretrained.preprocess(photographs.astype("float32")))
    model = pretrained.efficientnet_lite0()
    print("| method | dense layer random | everything random | passes |\n|---|---|---|---|", flush=True)
    for name in names:
        cam = tf_gradcam.GradCAM(model, method=BUDGETS.get(name, name))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            shown = metrics.sanity(cam, images, stages=4, batch_size=len(images))
        dense, everything = shown.similarity[[1, -1]]
        verdict = "yes" if shown.passed else "no"
        print(f"| `{name}` | {dense:.2f} | {everything:.2f} | {verdict} |", flush=True)


if __name__ == "__main__":
    main()

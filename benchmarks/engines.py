"""What a heatmap from a file costs by the clock, in compiled forward passes, for docs/formats.md.

    python benchmarks/engines.py [--runs 24]

Each runtime has two threads. A run is a forward pass of TensorFlow, then a heatmap; the runtimes take turns.
Run it on a quiet machine: waiting threads of one runtime slow down the next one.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from overhead import MODELS, build, seconds

import tf_gradcam

FORMATS = {"onnx": ".onnx", "litert": ".tflite", "openvino": ".xml"}
WARM_UPS = 4
PAUSE = 0.02  # seconds, in which threads that wait for more work give up


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=24, help="interleaved runs (default 24)")
    runs = parser.parse_args().runs
    print("| model | TensorFlow, frozen | ONNX Runtime | LiteRT | OpenVINO |\n|---|---|---|---|---|")
    for name in MODELS:
        keras.utils.set_random_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            ratios = measure(build(name), pathlib.Path(folder), runs)
        cells = [
            "{1:.2f} ({0:.2f} to {2:.2f})".format(*statistics.quantiles(each, n=4))
            for each in ratios.values()
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def measure(model, folder, runs):
    """Return the ratios of each run, by what explains."""
    images = np.random.default_rng(0).uniform(size=(1, 224, 224, 3)).astype("float32")
    tensor = tf.constant(images)
    forward = tf.function(lambda x: model(x, training=False)).get_concrete_function(tensor)
    explainers = {"frozen": tf_gradcam.GradCAM(model).freeze()}
    for name, suffix in FORMATS.items():
        path = tf_gradcam.export_gradcam(model, folder / f"model{suffix}", format=name)
        explainers[name] = tf_gradcam.load(path, threads=2)
    for explain in explainers.values():
        for _ in range(WARM_UPS):
            explain(images)
    found = {name: [] for name in explainers}
    for _ in range(runs):
        for name, explain in explainers.items():
            base = seconds(lambda: forward(tensor).numpy())
            found[name].append(seconds(lambda explain=explain: np.asarray(explain(images).heatmap)) / base)
            time.sleep(PAUSE)
    return found


if __name__ == "__main__":
    main()

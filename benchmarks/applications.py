"""Explain every model of `keras.applications` with no layer named, and write down what came of it.

Each is built with random weights in a process of its own, whose memory goes with it.

    python benchmarks/applications.py [--out docs/applications.md] [MODEL ...]
"""

import argparse
import concurrent.futures
import inspect
import multiprocessing
import os
import pathlib
import platform
import sys
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import tf_gradcam

SIDES = 64, 96, 128, 160
POOLINGS = keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D
BETWEEN = keras.layers.MaxPooling2D, keras.layers.AveragePooling2D, keras.layers.Dropout
DATE = "22 November 2026"
TEXT = """\
# Every model of keras.applications

See that the model of Keras that you use is explained, and at which layer.

Made on {date} by [`benchmarks/applications.py`](../benchmarks/applications.py): each model with random
weights and 10 classes, on an image of noise, without `layer`; {versions}.

* *Input*: the smallest side of {sides} that the model takes and with which its last map has more than
  one position.
* *Default layer*: the layer that was explained. It is compared with the input of the last global pooling or,
  without one, of the flattening; pooling and dropout in between are skipped. Keras numbers names such as
  `add_17` within a session, so the number may differ in yours.
* *Seconds*: for `make_gradcam_heatmap` on one image; the first call compiles. {machine}
* *Heatmap*: ok if both calls gave the same heatmap, which is as large as the image, finite, in [0, 1] and not
  blank, and there was no warning.

"""
HEADER = """\
| model | input | default layer | its class | its map | first call, s | second call, s | heatmap |
|---|---|---|---|---|---|---|---|
"""


def find_builders():
    """Return the functions of `keras.applications` that build a model, by name."""
    functions = inspect.getmembers(keras.applications, inspect.isfunction)
    return {name: each for name, each in functions if "include_top" in inspect.signature(each).parameters}


def find_end(model):
    """Return what feeds the head, read from Keras's graph alone: no part of tf_gradcam is asked."""
    heads = [each for each in model.layers if isinstance(each, POOLINGS)]
    heads = heads or [each for each in model.layers if isinstance(each, keras.layers.Flatten)]
    tensor = heads[-1].input
    while isinstance(tensor._keras_history.operation, BETWEEN):
        tensor = tensor._keras_history.operation.input
    return tensor._keras_history.operation, tuple(tensor.shape[1:])


def build(builder):
    """Return the model on the smallest side that it takes and that leaves its end more than one place."""
    for side in SIDES:
        keras.utils.set_random_seed(0)
        try:
            model = builder(weights=None, input_shape=(side, side, 3), classes=10)
        except ValueError as error:  # There is a smallest side.
            refusal = error
            continue
        if find_end(model)[1][:2] > (1, 1):
            return model
        keras.utils.clear_session()
    raise refusal


def explain(model, image):
    """Return the heatmap, what warned, and the seconds that it took."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = time.perf_counter()
        heatmap = tf_gradcam.make_gradcam_heatmap(model, image)
        seconds = time.perf_counter() - start
    return heatmap, [str(each.message).partition(":")[0] for each in caught], seconds


def find_faults(model, image, layer, heatmaps, warned):
    """Yield what is wrong."""
    end, _ = find_end(model)
    if layer is not end:
        yield f"layer is not {end.name}"
    if any(heatmap.shape != image.shape[:2] for heatmap in heatmaps):
        yield f"shape {heatmaps[0].shape}"
    if not np.isfinite(heatmaps).all():
        yield "not finite"
    if np.min(heatmaps) < 0 or np.max(heatmaps) > 1:
        yield "outside [0, 1]"
    if not np.allclose(*heatmaps, atol=1e-5):
        yield "two calls differ"
    if not np.any(heatmaps):
        signed_map = tf_gradcam.GradCAM(model)(image).map
        yield f"blank; map from {np.min(signed_map):.2g} to {np.max(signed_map):.2g}"
    yield from dict.fromkeys(warned)


def measure(name):
    """Return a row of the table."""
    model = build(find_builders()[name])
    image = np.random.default_rng(0).uniform(size=model.input_shape[1:]).astype("float32")
    (first, warned, compiling), (second, warned_again, seconds) = explain(model, image), explain(model, image)
    layer = tf_gradcam.GradCAM(model).layer
    info = next(each for each in tf_gradcam.list_layers(model) if each.layer is layer)
    faults = list(find_faults(model, image, layer, [first, second], warned + warned_again))
    return [
        name,
        by(image.shape),
        f"`{info.path}`",
        type(layer).__name__,
        by(info.shape),
        f"{compiling:.1f}",
        f"{seconds:.3f}",
        "; ".join(faults) or "ok",
    ]


def by(shape):
    return " x ".join(map(str, shape))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="only these, and write nothing")
    parser.add_argument("--out", type=pathlib.Path, default="docs/applications.md", help="the file to write")
    args = parser.parse_args()
    names = args.models or sorted(find_builders())
    print(HEADER, end="", flush=True)
    rows, load = [], os.getloadavg()[0]
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for row in pool.map(measure, names):
            rows.append("| " + " | ".join(row) + " |\n")
            print(rows[-1], end="", flush=True)
    if not args.models:
        versions = (
            f"TensorFlow {tf.__version__}, Keras {keras.__version__}, Python {platform.python_version()}"
        )
        load = (load + os.getloadavg()[0]) / 2
        machine = f"{os.cpu_count()} CPU cores, {platform.machine()}, at a load of {load:.1f}."
        text = TEXT.format(date=DATE, versions=versions, machine=machine, sides=", ".join(map(str, SIDES)))
        args.out.write_text(text + HEADER + "".join(rows), encoding="utf-8")
    return any(not row.endswith(" ok |\n") for row in rows)


if __name__ == "__main__":
    sys.exit(main())

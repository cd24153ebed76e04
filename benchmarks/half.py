"""What half precision costs and changes: `freeze(precision=)` beside the forward pass and beside `freeze()`.

Each row is measured in one process in interleaved runs, in time of the processor, which hardly depends on
what else the machine does. The differences are on 32 crops of photographs.

    python benchmarks/half.py [--runs 20] [--model ResNet50] [--precision bfloat16]
"""

import argparse
import os
import statistics
import time

import cv2
import numpy as np
import overhead
import tensorflow as tf

import tf_gradcam
from tf_gradcam._run import demo_photographs, read_photograph

COUNT = 32
HEADER = (
    "| model | batch | forward pass | freeze() | half | half beside freeze() |\n|---|---|---|---|---|---|"
)
CHECKED = "| model | heatmap | score | class changed | peak moved |\n|---|---|---|---|---|"


def photographs():
    """Return the demo's photographs in `[0, 255]`, their quarters, and some of both mirrored."""
    crops = []
    for each in demo_photographs():
        pixels = read_photograph(each)
        height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
        crops += [pixels, *(pixels[y : y + height, x : x + width] for y in (0, height) for x in (0, width))]
    chosen = [*crops, *(each[:, ::-1] for each in crops)][:COUNT]
    return np.stack([cv2.resize(each, (224, 224)) for each in chosen]).astype("float32")


def seconds(function) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def compare(functions, runs):
    """Return the median seconds of the processor that each function takes."""
    for function in functions * 3:
        function()
    rounds = [[seconds(function) for function in functions] for _ in range(runs)]
    return [statistics.median(each[i] for each in rounds) for i in range(len(functions))]


def row(name, model, frozen, half, batch, runs):
    tensors = tf.constant(photographs()[:batch] / 127.5 - 1)
    forward = tf.function(lambda x: model(x, training=False)).get_concrete_function(tensors)
    functions = [
        lambda: forward(tensors).numpy(),
        lambda: frozen(tensors).heatmap.numpy(),
        lambda: half(tensors).heatmap.numpy(),
    ]
    forward_time, frozen_time, half_time = compare(functions, runs)
    ratios = [frozen_time / forward_time, half_time / forward_time, half_time / frozen_time]
    shown = " | ".join(f"{each:.2f}" for each in ratios)
    return f"| {name} | {batch} | {1e3 * forward_time:.1f} ms | {shown} |"


def tables(names, runs, precision="bfloat16"):
    """Return the table of ratios, and that of differences from float32."""
    rows, checked = [], []
    for name in names:
        model = overhead.build(name)
        cam = tf_gradcam.GradCAM(model)
        frozen, half = cam.freeze(), cam.freeze(precision=precision)
        rows += [row(name, model, frozen, half, batch, runs) for batch in overhead.BATCHES]
        found = half.check(photographs() / 127.5 - 1)
        checked.append(
            f"| {name} | {found.heatmap:.4f} | {found.relative_score:.2%} | {found.changed_classes} of "
            f"{found.images} | {found.moved_peaks} of {found.images} |"
        )
    return "\n".join([HEADER, *rows]), "\n".join([CHECKED, *checked])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="interleaved runs of each row (default 20)")
    parser.add_argument(
        "--model", choices=overhead.MODELS, action="append", help="which models (default all)"
    )
    parser.add_argument("--precision", default="bfloat16", help="bfloat16 (the default) or float16")
    arguments = parser.parse_args()
    for name in arguments.model or overhead.MODELS:
        print("", *tables([name], arguments.runs, arguments.precision), sep="\n\n", flush=True)
    print(f"load: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

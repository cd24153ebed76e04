"""Whether memory stays flat over 10,000 images, and what the peak is beside the forward pass's own.

Forward passes and heatmaps are each streamed through a process of their own, in batches of 16 new images of
224 x 224. Memory is what the process has in RAM: after the first 1,000 images, after all, and at its highest.

    python benchmarks/memory.py [--images 10000]
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys

BATCH = 16
WHAT = ("forward pass", "GradCAM", "GradCAM.freeze()")


def memory() -> dict:
    """Return what the process has in RAM, and what it had at its highest, in MiB."""
    status = pathlib.Path("/proc/self/status").read_text()
    return {name: int(re.search(rf"{name}:\s*(\d+) kB", status)[1]) / 1024 for name in ("VmRSS", "VmHWM")}


def measure(what, count) -> dict:
    """Measure in this process, which must be a fresh one."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import numpy as np
    import tensorflow as tf

    import tf_gradcam
    from tf_gradcam import pretrained

    model = pretrained.efficientnet_lite0()
    forward = tf.function(lambda x: model(x, training=False))
    cam = tf_gradcam.GradCAM(model)
    if what == "GradCAM.freeze()":
        cam = cam.freeze()
    run = forward if what == "forward pass" else lambda x: cam(x).heatmap
    random, found = np.random.default_rng(0), {}
    for done in range(0, count, BATCH):
        run(tf.constant(random.normal(size=(BATCH, 224, 224, 3)).astype("float32"))).numpy()
        if done <= 1000:
            found["start"] = memory()["VmRSS"]
    return {**found, "end": memory()["VmRSS"], "peak": memory()["VmHWM"]}


def table(count) -> str:
    lines = [
        f"| {count} images | after 1,000 | after all | grown | peak | beside the forward pass's |",
        "|---|---|---|---|---|---|",
    ]
    peak = None
    for what in WHAT:
        command = [sys.executable, __file__, "--inside", what, "--images", str(count)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        peak = peak or found["peak"]
        lines.append(
            f"| {what} | {found['start']:.0f} MiB | {found['end']:.0f} MiB | "
            f"{found['end'] / found['start'] - 1:+.1%} | {found['peak']:.0f} MiB | "
            f"{found['peak'] / peak:.2f} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="how many (default 10000)")
    parser.add_argument("--inside", choices=WHAT, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(measure(arguments.inside, arguments.images)))
    else:
        print(table(arguments.images))


if __name__ == "__main__":
    main()

"""What files cost: `tf-gradcam explain` on 500 photographs beside the frozen heatmap alone, in batches of 16.

Photographs per second of the command line are those beyond the first 20, so that loading and compiling don't
count. Reading, overlaying and writing take cores from the model: what they take is measured by themselves.

    python benchmarks/files.py [--photos 500]
"""

import argparse
import contextlib
import io
import os
import pathlib
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
from overhead import build

import tf_gradcam
from tf_gradcam import _cli
from tf_gradcam._run import Finding, Request, demo_photographs, read_photograph, write_pictures

BATCH, SIZE, FEW = 16, (640, 480), 20
MODELS = ["EfficientNet-Lite0", "ResNet50"]


def write_photographs(folder, count):
    """Write JPEG files of the demo's photographs, each brightened a little otherwise."""
    sources = [cv2.resize(read_photograph(each), SIZE) for each in demo_photographs()]
    paths = [str(pathlib.Path(folder, f"{number:04}.jpg")) for number in range(count)]
    for number, path in enumerate(paths):
        pixels = cv2.convertScaleAbs(sources[number % len(sources)], beta=number % 30)
        cv2.imwrite(path, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return paths


def from_files(photos, options) -> float:
    """Return how many photographs the command line explains in a second."""

    def seconds(some):
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            _cli.main(["explain", *some, *options, "--restart"])
        return time.perf_counter() - start

    seconds(photos[:FEW])  # What is loaded once, is loaded.
    few = seconds(photos[:FEW])
    return (len(photos) - FEW) / (seconds(photos) - few)


def alone(model) -> float:
    """Return how many heatmaps a frozen explainer makes in a second."""
    images = np.random.default_rng(0).normal(size=(BATCH, 224, 224, 3)).astype("float32")
    frozen, seconds = tf_gradcam.GradCAM(model).freeze(), []
    for _ in range(23):
        start = time.perf_counter()
        frozen(images).heatmap.numpy()
        seconds.append(time.perf_counter() - start)
    return BATCH / np.median(seconds[3:])


def of_a_core(photos, out) -> dict:
    """Return the milliseconds of a core that a photograph takes to read, its pictures to write."""
    image = tf_gradcam.load_image(photos[0])
    heatmap = cv2.resize(np.random.default_rng(0).random((7, 7), "float32"), SIZE)

    def write(kind):
        write_pictures([Finding({}, image, heatmap)], "a", Request(pathlib.Path(out), format=kind))

    found = {}
    for what, function in {
        "read": lambda: tf_gradcam.load_image(tf_gradcam.load_image(photos[0]), size=(224, 224)),
        "png": lambda: write("png"),
        "jpg": lambda: write("jpg"),
    }.items():
        start = time.process_time()
        for _ in range(20):
            function()
        found[what] = (time.process_time() - start) / 20 * 1e3
    return found


def table(count) -> str:
    lines = [
        "| model | pictures | from files, 1/s | frozen alone | ratio | to read, ms of a core | to write |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        photos = write_photographs(folder, count)
        out = str(pathlib.Path(folder, "out"))
        os.mkdir(out)
        for name in MODELS:
            model, options = build(name), ["--out", out]
            if name == "ResNet50":
                path = str(pathlib.Path(folder, "resnet50.keras"))
                model.save(path)
                options += ["--model", path, "--preprocess", "resnet50"]
            cores = of_a_core(photos, out)
            for kind in ("png", "jpg"):
                files, frozen = from_files(photos, [*options, "--format", kind]), alone(model)
                lines.append(
                    f"| {name} | {kind} | {files:.0f} | {frozen:.0f} | {files / frozen:.2f} | "
                    f"{cores['read']:.1f} | {cores[kind]:.1f} |"
                )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photos", type=int, default=500, help="how many (default 500)")
    print(table(parser.parse_args().photos))


if __name__ == "__main__":
    main()

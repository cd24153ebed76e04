"""What a run over a data set costs: throughput, memory, and what kills leave.

    python benchmarks/dataset.py throughput [--photos N] [--rounds N] [--model ResNet50] [--side N] [--draft]
    python benchmarks/dataset.py draft [--side N]
    python benchmarks/dataset.py memory [--images 100000]
    python benchmarks/dataset.py kills [--images 5000] [--kills 20]

Throughput is that from JPEG files to Parquet, beside the explainer alone on batches that are decoded already,
in the same process. Both take turns, so that whatever else the machine does falls on both alike. `draft` says
how far the maps move where photographs are decoded at the smallest size that fills the model's input.
"""

import argparse
import os
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import keras
import numpy as np
import pyarrow.dataset as pds
from overhead import build

import tf_gradcam
from tf_gradcam import pretrained
from tf_gradcam._dataset import DatasetOptions, find_items, fit_and_preprocess, run_dataset
from tf_gradcam._dataset.reading import read_ahead
from tf_gradcam._run import Classifier, demo_photographs, read_photograph, read_photograph_within

BATCH = 32
MODELS = ["EfficientNet-Lite0", "ResNet50"]


# Throughput


def write_photographs(folder, count, side):
    """Write JPEG files of the demo's photographs, 4:3, each brightened a little otherwise."""
    size = (side, side * 3 // 4)
    sources = [cv2.resize(read_photograph(each), size) for each in demo_photographs()]
    os.makedirs(folder)
    for number in range(count):
        pixels = cv2.convertScaleAbs(sources[number % len(sources)], beta=number % 30)
        cv2.imwrite(f"{folder}/{number:05}.jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))


def classifier_of(name):
    model = build(name)
    if name == "EfficientNet-Lite0":
        return Classifier(model, pretrained.preprocess, pretrained.labels())
    return Classifier(model, keras.applications.resnet.preprocess_input, pretrained.labels())


def clocks():
    """Return wall-clock and CPU seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def run_once(cam, items, out, fit, draft):
    """Return the seconds of a batch in a run, wall and CPU, without those of its beginning and end."""
    times, options = [], DatasetOptions(batch_size=BATCH, draft=draft)
    run_dataset(cam, items, out, options, fit, lambda *counts: times.append(clocks()))
    times = times[-(len(items) // BATCH) :]
    return (times[-1] - times[0]) / (len(times) - 1)


def explain_alone(cam, batches):
    start = clocks()
    for images in batches:
        explanation = cam(images, size=None)
        for tensor in (explanation.map, explanation.score, explanation.target, explanation.outputs):
            tensor.numpy()
    return (clocks() - start) / len(batches)


def throughput(arguments) -> None:
    classifier = classifier_of(arguments.model)
    cam = tf_gradcam.GradCAM(classifier.model).freeze()
    fit = fit_and_preprocess(classifier)
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(f"{folder}/photos", arguments.photos, arguments.side)
        items = find_items([f"{folder}/photos"]).items
        some = list(read_ahead(items[: 5 * BATCH], fit, BATCH, None))
        batches = [np.stack([each.image for each in batch]) for batch in some]
        explain_alone(cam, batches)
        pairs = []
        for number in range(arguments.rounds):
            run = run_once(cam, items, pathlib.Path(folder, f"rows-{number}"), fit, arguments.draft)
            pairs.append((run, explain_alone(cam, batches)))
    runs, alone = np.array(pairs).swapaxes(0, 1)
    share = statistics.median(alone[:, 0] / runs[:, 0])
    cpu_share = statistics.median(alone[:, 1] / runs[:, 1])
    run, own = BATCH / np.median(runs[:, 0]), BATCH / np.median(alone[:, 0])
    print(
        f"{arguments.model}, JPEG of {arguments.side} x {arguments.side * 3 // 4}"
        f"{', draft' if arguments.draft else ''}: run {run:.1f} images/s, "
        f"explainer alone {own:.1f}; share {share:.0%} (of CPU time {cpu_share:.0%}); "
        f"load {os.getloadavg()[0]:.1f}"
    )


# Draft


def draft(arguments) -> None:
    classifier = classifier_of(arguments.model)
    cam, fit = tf_gradcam.GradCAM(classifier.model), fit_and_preprocess(classifier)
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(f"{folder}/photos", len(demo_photographs()), arguments.side)
        for photograph, item in zip(demo_photographs(), find_items([f"{folder}/photos"]).items, strict=True):
            sides = (448, 224)
            images = [fit(read_photograph_within(item.path, (side, side))[0]) for side in sides]
            whole, small = (cam(image, size=None) for image in images)
            maps = [each.map[0].numpy() for each in (whole, small)]
            moved = np.abs(maps[1] - maps[0]).max() / np.abs(maps[0]).max()
            classes = [pretrained.labels()[int(each.target[0])] for each in (whole, small)]
            scores = [float(each.score[0]) for each in (whole, small)]
            print(
                f"{photograph.file}: the map moves by {moved:.1%} of its maximum at most, correlation "
                f"{np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1]:.4f}; "
                f"{' -> '.join(dict.fromkeys(classes))}, score {scores[0]:.2f} -> {scores[1]:.2f}"
            )


# Memory


_RUN = """
import resource, sys
import keras, tf_gradcam
if len(sys.argv) > 3:
    from tf_gradcam._dataset.parts import Parts
    Parts.__init__.__defaults__ = (int(sys.argv[3]), False)
cam = tf_gradcam.GradCAM(keras.models.load_model("model.keras"))
print(tf_gradcam.explain_dataset(cam, sys.argv[1], sys.argv[2], batch_size=32))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def write_inputs(folder, count):
    """Write a small network, a few files, and a table that names them under many ids."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(8, 3), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5)]
    keras.Sequential([keras.Input((16, 16, 3)), *layers]).save(f"{folder}/model.keras")
    rng = np.random.default_rng(0)
    for number in range(10):
        cv2.imwrite(f"{folder}/{number}.png", rng.integers(0, 256, (24, 24, 3), np.uint8))
    lines = [f"{number % 10}.png,{number}" for number in range(count)]
    pathlib.Path(folder, f"{count}.csv").write_text("\n".join(["path,id", *lines]))


def start(folder, *arguments, **options):
    return subprocess.Popen([sys.executable, "-c", _RUN, *map(str, arguments)], cwd=folder, **options)


def memory(arguments) -> None:
    with tempfile.TemporaryDirectory() as folder:
        peaks = []
        for count in (1000, arguments.images):
            write_inputs(folder, count)
            begin = time.monotonic()
            answer = start(folder, f"{count}.csv", f"rows-{count}", stdout=subprocess.PIPE, text=True)
            peaks.append(int(answer.communicate()[0].split()[-1]))
            print(f"{count} images: peak {peaks[-1]} MiB, {time.monotonic() - begin:.0f} s", flush=True)
        print(f"ratio {peaks[1] / peaks[0]:.2f}")


# Kills


def state(rows) -> set:
    """Return what a run changes in its folder once it writes rows."""
    try:
        journal = (rows / ".tf_gradcam-journal.arrows").stat()
    except FileNotFoundError:
        return set()
    return {(journal.st_ino, journal.st_size)}


def kills(arguments) -> None:
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(folder, arguments.images)
        rows, done = pathlib.Path(folder, "rows"), 0
        command = (folder, f"{arguments.images}.csv", "rows", 700)
        while done < arguments.kills:
            process = start(*command, stdout=subprocess.DEVNULL)
            states = set()
            while process.poll() is None and len(states) < 5:  # until it has written rows of its own
                states |= state(rows)
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.15))
            if process.poll() is not None:
                break
            process.send_signal(signal.SIGKILL)
            process.wait()
            done += 1
            whole = sum(pds.dataset(path).count_rows() for path in rows.glob("part-*"))
            print(f"kill {done}: {whole} rows in whole parts", flush=True)
        start(*command).wait()
        ids = pds.dataset(rows, format="parquet").to_table(columns=["id"])["id"].to_pylist()
        left = sorted(path.name for path in rows.iterdir() if not path.name.startswith("part-"))
        print(f"{done} kills: {len(ids)} rows, {len(set(ids))} ids, left over: {left or 'nothing'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("throughput", "draft", "memory", "kills"))
    parser.add_argument("--photos", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--side", type=int, default=800, help="longer side of the photographs")
    parser.add_argument("--draft", action="store_true", help="run as `tf-gradcam run --draft` does")
    parser.add_argument("--images", type=int, default=None)
    parser.add_argument("--kills", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.images is None:
        arguments.images = 5000 if arguments.what == "kills" else 100_000
    measure = {"throughput": throughput, "draft": draft, "memory": memory, "kills": kills}
    measure[arguments.what](arguments)


if __name__ == "__main__":
    main()

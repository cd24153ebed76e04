"""What windows cost beside their forward passes, and in memory: the numbers of docs/sliding.md.

The ratio is that of `GradCAM.sliding` to a compiled forward pass, `tf.function(model)`, on batches of the
same windows that are in memory already: the median of interleaved runs of one process, in time and in time of
all cores. Memory is measured in a process for each file: the most that it has in RAM, over what it has after
one window.

    python benchmarks/sliding.py [--runs 7] [--only ratio|volume|scene]
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

BATCH = 8
WHAT = ("ratio", "volume", "scene")


def small_network(axes, channels):
    """Return a network of four convolutions, of 16 to 64 channels and a stride of 8."""
    import keras

    keras.utils.set_random_seed(0)
    convolution = [None, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D][axes]
    pooling = [None, None, keras.layers.GlobalAveragePooling2D, keras.layers.GlobalAveragePooling3D][axes]
    options = {"padding": "same", "activation": "relu"}
    return keras.Sequential(
        [
            keras.Input([None] * axes + [channels]),
            keras.layers.Rescaling(1 / 1000),
            convolution(16, 3, strides=2, **options),
            convolution(32, 3, strides=2, **options),
            convolution(64, 3, strides=2, **options),
            convolution(64, 3, name="last", **options),
            pooling(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )


# Time


def cases():
    """Yield a name, a model, an image, the windows' lengths, and options of `sliding`."""
    import keras

    random = np.random.default_rng(0)
    scene = random.integers(0, 3000, (1600, 1600, 4), "uint16")
    yield "scene 1600 x 1600 x 4, windows of 512, small network", small_network(2, 4), scene, (512, 512)
    volume = random.integers(-1000, 1000, (192, 192, 192, 1), "int16")
    yield "volume 192 x 192 x 192, windows of 96, small network", small_network(3, 1), volume, (96,) * 3
    model = keras.applications.MobileNetV2(weights=None)
    photograph = random.normal(size=(1120, 1120, 3)).astype("float32")
    yield "photograph 1120 x 1120, windows of 224, MobileNetV2", model, photograph, (224, 224)


def timed(function):
    wall, cores = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cores


def measure_ratio(runs) -> str:
    import tensorflow as tf

    import tf_gradcam

    lines = [
        "| | windows | forward passes | `sliding` | ratio | ratio, time of all cores |",
        "|---|---|---|---|---|---|",
    ]
    for name, model, image, window in cases():
        cam = tf_gradcam.GradCAM(model)
        starts = cam.sliding(image, 1, window=window).starts
        edges = [zip(start, window, strict=True) for start in starts.tolist()]
        windows = [image[tuple(slice(first, first + length) for first, length in each)] for each in edges]
        batches = [np.stack(windows[i : i + BATCH]) for i in range(0, len(windows), BATCH)]
        forward = tf.function(lambda x, model=model: model(tf.cast(x, tf.float32), training=False))

        def pass_forward(batches=batches, forward=forward):
            for batch in batches:
                forward(tf.constant(batch)).numpy()

        def explain(cam=cam, image=image, window=window):
            cam.sliding(image, 1, window=window, batch_size=BATCH)

        pass_forward()
        pairs = np.array([(timed(pass_forward), timed(explain)) for _ in range(runs)])
        ratios = np.median(pairs[:, 1] / pairs[:, 0], axis=0)
        seconds = np.median(pairs[..., 0], axis=0)
        lines.append(
            f"| {name} | {len(windows)} | {seconds[0]:.2f} s | {seconds[1]:.2f} s | {ratios[0]:.2f} | "
            f"{ratios[1]:.2f} |"
        )
    return "\n".join(lines)


# Memory


def write_volume(path):
    """Write 512 x 512 x 300 int16, as a CT has them, and return it as a `numpy.memmap`."""
    shape = (300, 512, 512, 1)
    values = np.memmap(path, "int16", "w+", shape=shape)
    random = np.random.default_rng(0)
    for index in range(shape[0]):
        values[index] = random.integers(-1000, 1000, shape[1:], "int16")
    values.flush()
    return np.memmap(path, "int16", "r", shape=shape), 96


def write_scene(path):
    """Write 10,980 x 10,980 x 4 uint16, as a tile of Sentinel-2 has them, and return it as an HDF5 array."""
    import h5py

    side, step = 10_980, 1024
    noise = np.random.default_rng(0).integers(0, 3000, (step, side, 4), "uint16")
    with h5py.File(path, "w") as file:
        values = file.create_dataset("scene", (side, side, 4), "uint16", chunks=(256, 256, 4))
        for first in range(0, side, step):
            values[first : first + step] = noise[: side - first]
    return h5py.File(path, "r")["scene"], 512


class Peak(threading.Thread):
    """A thread that notes the most memory that this process has in RAM, in MiB."""

    def __init__(self):
        super().__init__(daemon=True)
        self.most, self.ended = self.now(), threading.Event()

    @staticmethod
    def now() -> float:
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def run(self):
        while not self.ended.wait(0.01):
            self.most = max(self.most, self.now())


def measure_memory(what) -> dict:
    """Measure in this process, which must be a fresh one."""
    import tf_gradcam

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "values")
        image, window = {"volume": write_volume, "scene": write_scene}[what](path)
        axes = len(image.shape) - 1
        cam = tf_gradcam.GradCAM(small_network(axes, image.shape[-1]))
        cam.sliding(np.zeros([*[window] * axes, image.shape[-1]], image.dtype), 1, window=window)
        before = Peak.now()
        watch = Peak()
        watch.start()
        wall, cores = time.perf_counter(), time.process_time()
        found = cam.sliding(image, 1, window=window, batch_size=BATCH)
        wall, cores = time.perf_counter() - wall, time.process_time() - cores
        watch.ended.set()
        watch.join()
    name = " x ".join(map(str, image.shape))
    return {
        "name": f"{what} {name} {image.dtype}, windows of {window}",
        "windows": len(found.starts),
        "heatmap": found.heatmap.nbytes / 2**20,
        "before": before,
        "peak": watch.most,
        "wall": wall,
        "cores": cores,
    }


def memory_table(kinds) -> str:
    lines = [
        "| | windows | heatmap | after one window | peak over it | time | time of all cores |",
        "|---|---|---|---|---|---|---|",
    ]
    for what in kinds:
        command = [sys.executable, __file__, "--inside", what]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        sizes = found["heatmap"], found["before"], found["peak"] - found["before"]
        cells = [found["name"], found["windows"], *(f"{each:.0f} MiB" for each in sizes)]
        cells += [f"{found[name]:.0f} s" for name in ("wall", "cores")]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="interleaved runs (default 7)")
    parser.add_argument("--only", choices=WHAT, help="only one of the tables' parts")
    parser.add_argument("--inside", choices=WHAT[1:], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(measure_memory(arguments.inside)))
        return
    kinds = [arguments.only] if arguments.only else WHAT
    if "ratio" in kinds:
        print(measure_ratio(arguments.runs), "\n")
    if len(kinds) > 1 or kinds[0] != "ratio":
        print(memory_table([kind for kind in kinds if kind != "ratio"]))


if __name__ == "__main__":
    main()

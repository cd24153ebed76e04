"""What a heatmap video costs: read, explained in batches and written, beside a loop of one call a frame.

The clip is a photograph that the camera moves over, 854 x 480, H.264. `textbook` is what people write today:
OpenCV reads, the recipe of the Keras examples explains (it builds a model with two outputs and runs a tape
eagerly), OpenCV writes, frame by frame; it is run on some frames only. `loop` is the same with
`make_gradcam_heatmap`. `ours` reads ahead in a thread, explains batches with a frozen explainer and calls
`overlay_video`. All share the process and the network, EfficientNet-Lite0, and each was run once before.

    python benchmarks/video.py [--frames 300] [--runs 3]
"""

import argparse
import concurrent.futures
import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import keras
import numpy as np
import tensorflow as tf

import tf_gradcam
from tf_gradcam import formats, pretrained
from tf_gradcam._run import demo_photographs, read_photograph

SIZE, SIDE, RATE, BATCH, CLASS = (854, 480), 224, 30, 16, 281
TEXTBOOK = 30  # frames of the textbook's loop, which is slow


def make_clip(path, count) -> None:
    """Write a clip of a photograph, seen through a window that moves around in it."""
    photograph = cv2.resize(read_photograph(demo_photographs()[0]), None, fx=2.2, fy=2.2)
    photograph = cv2.resize(photograph, (max(photograph.shape[1], 1100), max(photograph.shape[0], 700)))
    height, width = photograph.shape[:2]
    pictures = []
    for number in range(count):
        angle = 2 * np.pi * number / 150
        x = int((width - SIZE[0]) * (0.5 + 0.45 * np.cos(angle)))
        y = int((height - SIZE[1]) * (0.5 + 0.45 * np.sin(angle)))
        pictures.append(photograph[y : y + SIZE[1], x : x + SIZE[0]])
    writer = cv2.VideoWriter(str(path.with_suffix(".avi")), cv2.VideoWriter_fourcc(*"MJPG"), RATE, SIZE)
    for picture in pictures:
        writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    writer.release()
    formats.write_pictures(path, formats.read(path.with_suffix(".avi")), pictures)


def ready(frames) -> np.ndarray:
    """Return frames as the network takes them."""
    small = np.stack([cv2.resize(each, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for each in frames])
    return (small.astype("float32") - 127) / 128


def loop(model, source, to, heatmap_of) -> None:
    """Explain frame by frame, as in a notebook."""
    capture = cv2.VideoCapture(str(source))
    rate = capture.get(cv2.CAP_PROP_FPS)
    writer = cv2.VideoWriter(str(to), cv2.VideoWriter_fourcc(*"mp4v"), rate, SIZE)
    while True:
        is_read, frame = capture.read()
        if not is_read:
            break
        heatmap = heatmap_of(model, ready([cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)]))
        heatmap = cv2.resize(np.uint8(255 * heatmap), SIZE)
        colors = cv2.applyColorMap(heatmap, cv2.COLORMAP_JET)
        writer.write(cv2.addWeighted(colors, 0.4, frame, 0.6, 0))
    writer.release()


def one_call(model, images) -> np.ndarray:
    return tf_gradcam.make_gradcam_heatmap(model, images, target=CLASS)[0]


def textbook(model, images) -> np.ndarray:
    """The recipe of the Keras examples."""
    layer = model.get_layer(tf_gradcam.GradCAM(model).layer.name)
    grad_model = keras.Model(model.inputs, [layer.output, model.output])
    with tf.GradientTape() as tape:
        activations, outputs = grad_model([images])
        score = outputs[:, CLASS]
    weights = tf.reduce_mean(tape.gradient(score, activations), axis=(0, 1, 2))
    heatmap = tf.maximum(tf.squeeze(activations[0] @ weights[..., tf.newaxis]), 0)
    return (heatmap / tf.reduce_max(heatmap)).numpy()


def batched(cam, source, to) -> dict[str, float]:
    """Explain batches while the next is read, and write; return the seconds of each part."""
    start = time.perf_counter()
    scan = formats.read(source)
    starts = range(0, len(scan.times), BATCH)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        batches = pool.map(lambda first: ready(scan.values[first : first + BATCH]), starts)
        maps = [cam(images, CLASS, size=None).map.numpy() for images in batches]
    middle = time.perf_counter()
    tf_gradcam.overlay_video(to, scan, np.concatenate(maps))
    return {"explain": middle - start, "draw and write": time.perf_counter() - middle}


def timed(function, *arguments):
    """Return seconds on the clock, seconds of CPU, and what the function returned."""
    start, cpu = time.perf_counter(), time.process_time()
    result = function(*arguments)
    return time.perf_counter() - start, time.process_time() - cpu, result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    model = pretrained.efficientnet_lite0()
    cam = tf_gradcam.GradCAM(model).freeze()
    with tempfile.TemporaryDirectory() as folder:
        few, clip = pathlib.Path(folder, "few.mp4"), pathlib.Path(folder, "clip.mp4")
        make_clip(few, TEXTBOOK), make_clip(clip, options.frames)
        to = pathlib.Path(folder, "out.mp4")
        loop(model, few, to, one_call), loop(model, few, to, textbook), batched(cam, few, to)
        rows: dict[str, list] = {"textbook": [], "loop": [], "ours": []}
        print(f"load {os.getloadavg()[0]:.1f}")
        for _ in range(options.runs):  # in turn, so that the load is the same
            rows["textbook"].append(timed(loop, model, few, to, textbook)[:2])
            rows["loop"].append(timed(loop, model, clip, to, one_call)[:2])
            *times, parts = timed(batched, cam, clip, to)
            rows["ours"].append(times)
            print(
                {part: f"{seconds:.2f} s" for part, seconds in parts.items()},
                f"load {os.getloadavg()[0]:.1f}",
            )
    per_frame = {}
    for name, runs in rows.items():
        count = TEXTBOOK if name == "textbook" else options.frames
        wall, cpu = (1000 * statistics.median(each) / count for each in zip(*runs, strict=True))
        per_frame[name] = wall, cpu
        print(f"{name:9} {wall:6.1f} ms a frame on the clock, {cpu:6.1f} ms of CPU")
    for name in ("textbook", "loop"):
        wall, cpu = (other / own for other, own in zip(per_frame[name], per_frame["ours"], strict=True))
        print(f"{name} / ours: {wall:.1f} on the clock, {cpu:.1f} by CPU")


if __name__ == "__main__":
    main()

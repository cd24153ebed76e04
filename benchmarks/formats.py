"""Write files for LiteRT, ONNX Runtime and OpenVINO, and compare their answers with TensorFlow's.

Each model is explained in a process of its own, whose memory goes with it.

    python benchmarks/formats.py [--out docs/formats.md] [CASE ...]
"""

import argparse
import concurrent.futures
import functools
import importlib.metadata
import multiprocessing
import os
import pathlib
import platform
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import skimage.data
import tensorflow as tf

import tf_gradcam
from tf_gradcam import pretrained
from tf_gradcam._export import SUFFIXES, convert, runner

RUNS = 15
PACKAGES = "tensorflow", "ai-edge-litert", "tf2onnx", "onnxruntime", "openvino"
CASES = {
    "EfficientNet-Lite0": (None, None),
    "ResNet50": ("resnet", None),
    "MobileNetV2": ("mobilenet_v2", None),
    "EfficientNetB0": ("efficientnet", None),
    "VGG16": ("vgg16", None),
    "ResNet50, middle": ("resnet", "conv3_block4_out"),
    "VGG16, early": ("vgg16", "block2_conv2"),
    "VGG16, Score-CAM": ("vgg16", None),
}
TEXT = """\
# Files without TensorFlow

See which models go into a file for LiteRT, ONNX Runtime or OpenVINO, and how well it agrees.

Made on {date} by `make formats`: `export_gradcam(..., format=...)` of each model. The answer of the
file to a photograph (the cat of scikit-image) is compared with that of `GradCAM`.
{versions}.

EfficientNet-Lite0 has its ImageNet weights. The others have random weights, because no files of theirs were
available: their numbers are valid, but their heatmaps mean nothing.

* Take the outputs by name, `scores`, `heatmap`, `score`, `map` and `class`: ONNX Runtime and OpenVINO list
  them by the alphabet, LiteRT's `get_output_details` in another order. LiteRT's `get_signature_runner`
  answers by name, and so does [`tf_gradcam.load`](load.md).
* An image with NaN or infinity gets `scores` and a `heatmap` of NaN, in every format; the others of its
  batch are as without it.
* Layers over time, such as an LSTM, go into a file if they are built with `unroll=True`. Layers that Keras
  quantized to int8 go in. A model that computes in float16 is refused where a file's results are others, as
  with the policy `mixed_float16`: build it in float32, and write it with `precision="float16"`.

* OpenVINO computes in bfloat16 by itself on a processor with AVX512_BF16 or AMX; that moved heatmaps by up
  to .058. For float32, compile with
  `core.compile_model(path, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})`, or for any device with
  `"EXECUTION_MODE_HINT": "ACCURACY"`.

* *Heatmap*, *scores*: the largest difference from `GradCAM`, in batches of 1 and of 3; every file takes
  one image or more. The class was always the same. At an early layer, rounding may decide which of two
  positions a pooling layer took: at VGG16's, `GradCAM` differs from itself by 1e-03 when pixels of 255
  change by 1e-05.
* *MB*: the size of the file; for OpenVINO of both files. Convolutions between the layer and the output have
  their filters in it twice: as they are, and transposed for the backward pass. LiteRT and OpenVINO hold the
  weights of dense layers twice, too. ONNX holds every weight as its operation takes it, without transposes.
* *Writing*: seconds for the file, including the one run in which it is compared before it is saved.
* *Heatmap, ms*: for one image, the shortest of {runs} runs, beside TensorFlow's compiled forward pass
  alone, in the same process, each with its default number of threads: LiteRT uses one. {machine}
  Beside other work these times say little: threads that wait for each other wait for the processor, too.
  [Speed](#speed) has what they cost on a quiet machine.

"""
WRITTEN_BY_HAND = "\n## Speed\n"  # From here on the page is kept as it is.
HEADER = """\
| model | layer | format | heatmap | scores | MB | writing, s | heatmap, ms | forward pass, ms |
|---|---|---|---|---|---|---|---|---|
"""


def build(name):
    """Return an explainer and its images: the photograph, upside down, and in a mirror."""
    home, layer = CASES[name]
    photograph = tf.image.resize(skimage.data.chelsea(), (224, 224)).numpy()
    if home is None:
        model, preprocess = pretrained.efficientnet_lite0(), pretrained.preprocess
    else:
        keras.utils.set_random_seed(0)
        module = getattr(keras.applications, home)
        model = getattr(module, name.partition(",")[0])(weights=None)
        preprocess = module.preprocess_input
    images = np.stack([photograph, photograph[::-1], photograph[:, ::-1]]).astype("uint8")
    method = "scorecam" if name.endswith("Score-CAM") else "gradcam"
    return tf_gradcam.GradCAM(model, layer, method=method, preprocess=preprocess), images


def shortest(function):
    function()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def compare(cam, path, images):
    """Return the largest differences of heatmaps and scores."""
    run, apart = runner(path), {"heatmap": 0.0, "scores": 0.0}
    for count in (1, 3):
        answer, expected = run({"images": images[:count]}), cam(images[:count])
        assert np.array_equal(answer["class"], expected.target)
        for key, values in {"heatmap": expected.heatmap, "scores": expected.outputs}.items():
            apart[key] = max(apart[key], float(np.abs(answer[key] - values).max()))
    return apart


def measure(name):
    """Return the rows of one model."""
    cam, images = build(name)
    path_of_layer = next(each.path for each in tf_gradcam.list_layers(cam.model) if each.layer is cam.layer)
    prepared = tf.constant(cam.preprocess(tf.cast(images[:1], tf.float32)))
    compiled = tf.function(functools.partial(cam.model, training=False), autograph=False)
    forward = shortest(lambda: compiled(prepared).numpy())
    rows = []
    for format, suffix in SUFFIXES.items():
        with tempfile.TemporaryDirectory() as folder:
            path, start = pathlib.Path(folder) / f"model{suffix}", time.perf_counter()
            try:
                convert(cam, path, format)
            except ValueError as error:
                rows.append([name, f"`{path_of_layer}`", format, f"refused: {error}", *[""] * 5])
                continue
            seconds = time.perf_counter() - start
            apart = compare(cam, path, images)
            run = runner(path)
            milliseconds = shortest(lambda run=run: run({"images": images[:1]}))
            size = sum(each.stat().st_size for each in pathlib.Path(folder).iterdir()) / 1e6
            numbers = [f"{apart['heatmap']:.0e}", f"{apart['scores']:.0e}", f"{size:.0f}", f"{seconds:.0f}"]
            numbers += [f"{milliseconds:.1f}", f"{forward:.1f}"]
            rows.append([name, f"`{path_of_layer}`", format, *numbers])
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="only these, and write nothing")
    parser.add_argument("--out", type=pathlib.Path, default="docs/formats.md", help="the file to write")
    args = parser.parse_args()
    print(HEADER, end="", flush=True)
    lines, load = [], os.getloadavg()[0]
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for rows in pool.map(measure, args.cases or CASES):
            for row in rows:
                lines.append("| " + " | ".join(row) + " |\n")
                print(lines[-1], end="", flush=True)
    if args.cases:
        return
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    versions += [f"Python {platform.python_version()}"]
    load = (load + os.getloadavg()[0]) / 2
    machine = f"{os.cpu_count()} CPU cores, {platform.machine()}, at a load of {load:.1f}."
    date = time.strftime("%-d %B %Y")
    text = TEXT.format(date=date, versions=", ".join(versions), machine=machine, runs=RUNS)
    _, heading, kept = args.out.read_text(encoding="utf-8").partition(WRITTEN_BY_HAND)
    args.out.write_text(text + HEADER + "".join(lines) + heading + kept, encoding="utf-8")


if __name__ == "__main__":
    main()

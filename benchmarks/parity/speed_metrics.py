"""What deletion and insertion in 50 steps cost beside torch-cam's: no other of the libraries has them.

Each library runs in a process of its own, one after the other: the bare forward pass of each, then the
Grad-CAM heatmap with both curves of each, and again. Each gets the batch size that is fastest for it, and
PyTorch the fastest order of axes. A ratio is the median over the rounds.
On one core none waits for its other threads, which PyTorch's do in a loop: measure so where others use the
machine, too.

    python benchmarks/parity/speed_metrics.py [--runs 7] [--cores 1] [--model EfficientNet-Lite0]
"""

import argparse
import functools
import itertools
import multiprocessing
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import networks
import numpy as np

STEPS = 50
PASSES = 2 * (STEPS + 1)  # of one image
BATCHES = 8, 32
MODELS = {"EfficientNet-Lite0": ("top_activation", "top"), "ResNet50": ("conv5_block3_out", "layer4")}
HEADER = (
    "| model | clock | forward pass: tf_gradcam | torch-cam | both curves | torch-cam | ratio | quartiles |"
)


def image():
    return np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype("float32")


def ours(name, layer):
    """Return functions of a batch size: the forward pass of as many images, and both curves of one image."""
    import keras
    import tensorflow as tf

    import tf_gradcam
    from tf_gradcam import metrics, pretrained

    is_lite = name == "EfficientNet-Lite0"
    model = pretrained.efficientnet_lite0() if is_lite else keras.applications.ResNet50(weights=None)
    forward = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
    cam = tf_gradcam.GradCAM(model, layer)

    def score(images):
        return forward(tf.constant(images)).numpy()[:, 0]

    def bare(size):
        score(np.repeat(image(), size, axis=0))

    def curves(size):
        maps = cam(image(), 0).heatmap
        for function in (metrics.deletion, metrics.insertion):
            function(score, image(), maps, baseline="zero", steps=STEPS, batch_size=size)

    return bare, curves, [(size,) for size in BATCHES]


def theirs(name, layer):
    import torch
    import torchcam.methods
    import torchcam.metrics
    import torchvision

    is_lite = name == "EfficientNet-Lite0"
    net = (networks.lite0_net() if is_lite else torchvision.models.resnet50(weights=None)).eval()
    hooked = (networks.lite0_net() if is_lite else torchvision.models.resnet50(weights=None)).eval()
    softmax = functools.partial(torch.softmax, dim=-1)
    cam = torchcam.methods.GradCAM(hooked, layer)
    images = networks.channels_first(image()).float()

    def bare(size, order):
        net.to(memory_format=order)
        with torch.inference_mode():
            softmax(net(images.repeat(size, 1, 1, 1)))

    def curves(size, order):
        hooked.to(memory_format=order)
        metric = torchcam.metrics.DeletionInsertionMetric(cam, softmax, steps=STEPS, batch_size=size)
        metric.update(images, 0)

    orders = torch.contiguous_format, torch.channels_last
    return bare, curves, list(itertools.product(BATCHES, orders))


def times(function, *arguments):
    start = time.perf_counter(), time.process_time()
    function(*arguments)
    return np.array([time.perf_counter() - start[0], time.process_time() - start[1]])


def serve(make, name, layer, pipe):
    """Find what is fastest, then answer the seconds of a forward pass of one image, or of both curves."""
    bare, curves, choices = make(name, layer)
    fastest = {}
    curves(*choices[0])
    for choice in choices:
        fastest[choice] = times(curves, *choice)[0]
    best = min(fastest, key=fastest.get)
    bare(*best)
    pipe.send(f"{make.__name__}: {best}, of " + ", ".join(f"{c} {s:.2f} s" for c, s in fastest.items()))
    while (what := pipe.recv()) is not None:
        if what == "bare":
            repeats = -(-PASSES // (2 * best[0]))  # half as many images as the curves have
            pipe.send(sum(times(bare, *best) for _ in range(repeats)) / (repeats * best[0]))
        else:
            pipe.send(times(curves, *best))


def measure(name, runs):
    """Return the seconds of each run: `(runs, ours or theirs, bare or curves, wall or processor)`."""
    context, workers = multiprocessing.get_context("spawn"), []
    for make, layer in zip((ours, theirs), MODELS[name], strict=True):
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(make, name, layer, there))
        process.start()
        print(here.recv(), flush=True)
        workers.append((here, process))
    found = np.empty((runs, 2, 2, 2))
    for run in range(runs):
        for what, (number, (pipe, _)) in itertools.product((0, 1), enumerate(workers)):
            pipe.send(("bare", "curves")[what])
            found[run, number, what] = pipe.recv()
    for pipe, process in workers:
        pipe.send(None)
        process.join()
    return found


def rows(name, found):
    for place, clock in enumerate(("wall clock", "processor time")):
        seconds = found[..., place]
        bare = 1e3 * np.median(seconds[:, :, 0], axis=0)
        in_passes = np.median(seconds[:, :, 1] / seconds[:, :, 0], axis=0)
        curves = np.median(seconds[:, :, 1], axis=0)
        low, middle, high = statistics.quantiles(seconds[:, 1, 1] / seconds[:, 0, 1])
        cells = [f"{each:.1f} ms" for each in bare]
        cells += [f"{s:.2f} s ({p:.0f} passes)" for s, p in zip(curves, in_passes, strict=True)]
        yield [name, clock, *cells, f"{middle:.2f}", f"{low:.2f} to {high:.2f}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="interleaved runs (default 7)")
    parser.add_argument("--model", choices=list(MODELS), action="append", help="only this one")
    parser.add_argument("--cores", type=int, default=1, help="how many each process may use (default 1)")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])  # Its processes inherit it.
    print(HEADER, "|---" * 8 + "|", sep="\n")
    for name in arguments.model or MODELS:
        loads = [os.getloadavg()[0]]
        found = measure(name, arguments.runs)
        loads.append(os.getloadavg()[0])
        print(*(f"| {' | '.join(line)} |" for line in rows(name, found)), sep="\n")
        runs = f"{arguments.runs} runs on {arguments.cores} of {os.cpu_count()} cores"
        print(f"{name}: {runs}; load {loads[0]:.1f} before, {loads[1]:.1f} after", flush=True)


if __name__ == "__main__":
    main()

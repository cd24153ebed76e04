"""Write docs/speed.md and its plot: what a heatmap costs, the first, the next, of many classes, over hours.

Every ratio is the median over interleaved runs of one process; see the scripts that measure.

    python benchmarks/speed.py                 # measure all and write, in about a quarter of an hour
    python benchmarks/speed.py --check         # compare with what is written: fails where 25 % slower
"""

import argparse
import datetime
import os
import pathlib
import platform
import sys

import classes
import files
import first
import half
import keras
import memory
import overhead
import tensorflow as tf

DOCS = pathlib.Path(__file__).parent.parent / "docs"
SLOWER = 1.25  # times the ratio that is written, and the check fails
PAGE = """\
# Speed

See what a heatmap costs beside a forward pass of the same network.

Made on {date} by `make bench`, on {machine}; the load was {load:.1f} when it began. A *ratio* is the time
of a heatmap divided by that of a compiled forward pass, `tf.function(model)`, on a fixed batch of the
same images of 224 x 224: the median of {runs} interleaved runs of one process, with the quartiles.
Weights are random, except those of EfficientNet-Lite0.

## Once compiled

![A heatmap in forward passes](speed.png)

{overhead}

In addition to the forward pass, a heatmap costs about 0.2 ms in the graph, for the backward pass and the
resize, and 0.2 ms in Python: 2 % of 20 ms. Frozen graphs spend their time in convolutions. `freeze` folds
the scales and shifts of batch normalization into every filter, of depthwise convolutions too, and oneDNN
computes zeros around a map, the convolution and ReLU or swish after it together. To start an operation
takes oneDNN about 50 microseconds, so the two convolutions of each squeeze-and-excite, on maps of one
place, are matrix products. That is why EfficientNetB0 gains most. To tell whether weights have changed
takes 0.06 ms in each call. [On a GPU](gpu.md).

On two cores of an Intel Xeon, on 1 December 2026 at a load of 1.8, freezing gained more: batch 1 and 8 took
0.67 and 0.78 for ResNet50, 0.68 and 0.57 for EfficientNet-Lite0; the others, 1.01 to 1.10, were alike.

## In half precision

`GradCAM.freeze(precision="bfloat16")` runs convolutions and matrix products in half precision where that
takes less time. The last product before the scores, softmax, maps and heatmaps stay in float32, and
results are float32. It needs a processor with AVX512_BF16 or AMX, or a GPU, and is refused where a
convolution is not faster: an Intel Xeon with AVX512_BF16 and without AMX took as long as in float32, or up to
twice that. These are ratios on an AMD EPYC, of time of the processor, which hardly depends on what else the
machine does.

{half}

With AVX512_BF16 a product takes half the time there. ResNet50 then spends 96 % of its time in convolutions,
which TensorFlow runs as one with bias, sum and ReLU, without a cast between them: a processor without AMX
gives no more. TensorFlow's sigmoid takes three times as long in bfloat16 as in float32, so swish, gates
and the depthwise convolutions between them stay in float32, and EfficientNetB0 gains least. Networks too
small to gain are refused.

How far 32 crops of photographs are from float32, in parts of a heatmap's maximum and of the largest
score. Only EfficientNet-Lite0 has real weights; with random ones two places may be nearly alike, between
which the peak moves for any rounding. A peak also counts as moved to the pixel beside it:

{checked}

In EfficientNet-Lite0 all layers contribute. On 24 of the crops, one by one: the last
layers in float32 change nothing (0.041), the first seven give 0.027 in 10 % more time, all but twenty in
the middle 0.023 in 18 % more, more than half of what half precision saves there.

A map on the image itself, as of `"gradient"`, moves by far more in single pixels. Before you use half
precision, run `print(cam.freeze(precision="bfloat16").check(photographs))` on a few dozen of your own
images: it says how much heatmaps and scores differ, and on how many images the class or the peak is
another one. It has not been measured on a GPU.

## The first heatmap

In a new process, after the model is built: *textbook* is the recipe with one model of two outputs and a
default gradient tape, run eagerly. *First heatmap* is `make_gradcam_heatmap(model, image)`, which finds
the layer by itself. Medians of {first_runs} processes each, run alternately. The second call compiles.
*Default layer* is the time to find that layer, *import* the time that importing tf_gradcam adds to
TensorFlow and Keras.

{first}

On two quiet cores of an Intel Xeon, 1 December 2026, medians of 3 processes, they were 0.57, 0.62 and 0.55.
In processor time, the model itself, called eagerly, takes 0.24 of the 0.33 s in MobileNetV2, or 0.53 of the
textbook's time. Drawing the heatmap takes a tenth: it uses 33 operations for the first time, at about a
millisecond each.

## Several classes at once

EfficientNet-Lite0, batch 1, `targets.Classes`, in forward passes. If only pooling and a dense layer
follow the layer, one pass of the head is enough for all classes. At other layers up to 32 classes go back
together, as a batch, and Grad-CAM averages their gradients before a 1 x 1 convolution instead of after
it. What is left is the arithmetic of these convolutions: 10 classes at the layer in the middle multiply
1.2 billion times, in 1.3 forward passes at the 45 billion a second that a core reaches here, whether as a
transposed convolution, a convolution or a product of matrices. To enlarge 10 heatmaps takes half a
millisecond, so both sizes cost the same. Loops, half precision and operations that have not been tested
so take one backward pass for each class.

{classes}

## Memory

EfficientNet-Lite0, batches of 16, each row in its own process.

{memory}

## From files

`tf-gradcam explain` on 500 JPEG photographs of 640 x 480, compared with the frozen heatmap alone, in
batches of 16. The last two columns are the time of one core for reading a photograph and for writing its
two pictures. The network uses all cores, so they share them. Compressing a photograph as PNG takes 13 ms,
as long as a small network; as JPEG, with `--format jpg`, it takes 1 ms. Freezing takes a second or two at
the start, more than it saves on 500 photographs, so the command line uses the plain graph.

{files}
"""


def machine() -> str:
    gpus = tf.config.list_physical_devices("GPU")
    device = f"{len(gpus)} GPU" if gpus else f"{os.cpu_count()} CPU cores"
    return (
        f"{device}, {platform.machine()}, TensorFlow {tf.__version__}, Keras {keras.__version__}, "
        f"Python {platform.python_version()}"
    )


def draw(rows, path) -> None:
    """Draw each ratio with its quartiles, and the forward pass as a line."""
    from matplotlib.figure import Figure

    models = list(dict.fromkeys((row.model, row.batch) for row in rows))
    whats = list(dict.fromkeys(row.what for row in rows))
    figure = Figure(figsize=(8, 0.55 * len(models) + 1.4), dpi=150, layout="constrained")
    axis = figure.add_subplot()
    for place, what in enumerate(whats):
        own = [row for row in rows if row.what == what]
        heights = [models.index((row.model, row.batch)) + 0.22 * (place - 1) for row in own]
        spread = [[row.median - row.low for row in own], [row.high - row.median for row in own]]
        axis.errorbar([row.median for row in own], heights, xerr=spread, fmt="o", capsize=2, label=what)
    axis.axvline(1, color="black", linewidth=1)
    axis.annotate("forward pass", (1, -0.65), ha="center", va="bottom", annotation_clip=False)
    axis.set_yticks(range(len(models)), [f"{name}, batch {batch}" for name, batch in models])
    axis.set_ylim(len(models) - 0.4, -0.6)
    axis.set_xlim(left=0)
    axis.set_xlabel("a heatmap, in forward passes: median and quartiles")
    axis.legend(loc="lower left")
    figure.savefig(path)


def written() -> dict:
    """Return the ratios that docs/speed.md has, by model, batch and what."""
    lines = (DOCS / "speed.md").read_text(encoding="utf-8").split(overhead.HEADER)[1].split("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines.splitlines()[2:]]
    return {(model, int(batch), what): float(ratio) for model, batch, _, what, ratio, _ in cells}


def check(rows) -> int:
    """Print what is slower than it was, and return the exit code."""
    before = written()
    slower = [row for row in rows if row.median > SLOWER * before[row.model, row.batch, row.what]]
    for row in slower:
        was = before[row.model, row.batch, row.what]
        print(f"slower: {row.model}, batch {row.batch}, {row.what}: {row.median:.2f}, was {was:.2f}")
    print(f"{len(rows) - len(slower)} of {len(rows)} ratios are within {SLOWER - 1:.0%} of docs/speed.md.")
    return 1 if slower else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=40, help="interleaved runs of each row (default 40)")
    parser.add_argument("--check", action="store_true", help="measure the first table and compare")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    rows = [row for name in overhead.MODELS for row in overhead.measure(name, arguments.runs)]
    print(overhead.table(rows), flush=True)
    if arguments.check:
        return check(rows)
    ratios, checked = half.tables(overhead.MODELS, arguments.runs)
    page = PAGE.format(
        date=datetime.date.today().strftime("%-d %B %Y"),
        machine=machine(),
        load=load,
        runs=arguments.runs,
        overhead=overhead.table(rows),
        half=ratios,
        checked=checked,
        first_runs=5,
        first=first.table(5),
        classes=classes.table(arguments.runs),
        memory=memory.table(10_000),
        files=files.table(500),
    )
    (DOCS / "speed.md").write_text(page, encoding="utf-8")
    draw(rows, DOCS / "speed.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a heatmap costs in the other Keras libraries, in forward passes: a loop over images, one by one.

Each library runs where it can: the first run makes .venv-peers/NAME from peers/requirements-NAME.txt, five
environments of 2 to 3 GB. They take the Python that runs this: 3.11, for TensorFlow 2.15. In each,
peers/measure.py measures as overhead.py does, in interleaved runs of one process: forward pass, the peer's
heatmap, forward pass, tf_gradcam's heatmap, then the next image. A ratio is the median over its pairs. A GPU
is not used.

    python benchmarks/peers.py [--runs 50] [--write docs/peers.md]
"""

import argparse
import datetime
import itertools
import json
import os
import pathlib
import platform
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
HERE = ROOT / "benchmarks" / "peers"
ENVIRONMENTS = {  # name -> what is installed without what it asks for
    "keras3": [],
    "xplique": ["xplique==2.0.2"],
    "keras2": [],
    "signal": [],
    "openvino": ["openvino-xai==1.1.0"],
}
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONWARNINGS": "ignore"}
HEADER = [
    "peer and version",
    "TensorFlow, Keras",
    "forward pass",
    "heatmap",
    "ratio, median",
    "quartiles",
    "tf_gradcam beside it",
]
TEXT = """\
# Speed beside other Keras libraries

Compare what a heatmap costs with other Keras libraries.

Made by [`benchmarks/peers.py`](../benchmarks/peers.py): {runs} images of 224 x 224, one by one, through a
ResNet50 with random weights; the layer `conv5_block3_out` is explained. A ratio is the time of a heatmap
divided by that of a forward pass, `tf.function(model)` on a batch of one, in interleaved runs of one
process. The last column is the ratio of `tf_gradcam.make_gradcam_heatmap(model, image, layer)`, on the
same images, in the same runs.

{table}
{notes}"""
NOTES = """\
* Every heatmap explains the predicted class. If a library needs to be given the class, it is computed
  before the clock starts. Images and heatmaps are NumPy arrays, one at a time, through the library's main
  function. What users do only once is done before, followed by three heatmaps to warm up. Each row has a
  new network.
* *keras.io's recipe* is a model of two outputs and an eager `GradientTape`. The function there makes that
  model in every call.
* *tf-keras-vis* explains logits (`ReplaceToLinear`), as in its documentation; the other libraries explain
  probabilities. With `seek_penultimate_conv_layer=False` it explains the named layer, not the last
  convolution before it.
* *tf-explain* returns a picture in colours, of guided gradients. In Keras 3 the layer must be given;
  without it, the error is `AttributeError: 'Dense' object has no attribute 'output_shape'`.
* *eli5* and *keras.io's recipe* return the layer's own grid, 7 x 7; the others resize to the size of the
  image.
* *xplique* also compiles, once for each explainer. It supports TensorFlow up to 2.20.
* *signal-grad-cam* draws a figure of each heatmap into a file: it has no other function for it. It explains
  convolutions only, here `conv5_block3_3_conv`, and needs NumPy below 2.4 and PyTorch.
* *openvino-xai* inserts ReciproCAM into a model of OpenVINO, which answers scores and maps on two threads:
  another engine, and a method without gradients. On a processor with AVX512_BF16 or AMX OpenVINO computes in
  bfloat16 unless it is told otherwise, which users of openvino-xai do not see: on an AMD EPYC it took 0.41.
  It returns the grid, 7 x 7, of a layer that it chooses. The forward pass is TensorFlow's in float32, as in
  each row. The NumPy that it needs is too old for tf_gradcam.
* tf-explain and tf-keras-vis were written for Keras 2.15. tf_gradcam needs Keras 3.
"""


def environment(name):
    """Return the Python of an environment, made anew if its requirements changed."""
    folder, file = ROOT / ".venv-peers" / name, HERE / f"requirements-{name}.txt"
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    wanted = "\n".join([file.read_text(encoding="utf-8"), *ENVIRONMENTS[name]])
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install(python, "--requirement", file)
        for package in ENVIRONMENTS[name]:
            install(python, "--no-deps", package)
        stamp.write_text(wanted, encoding="utf-8")
    return python


def install(python, *args):
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *args], check=True, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def prepared(name):
    """Return the Python of an environment, or what there is to say where it cannot be made."""
    try:
        return environment(name), None
    except subprocess.CalledProcessError as error:
        *_, why = (error.stderr or str(error)).strip().splitlines()
        return None, f"cannot be installed here: {why}"


def rows(name, python, failure, runs):
    """Yield what peers/measure.py finds in an environment, and a row for the environment if it fails."""
    if python:
        command = [python, HERE / "measure.py", name, "--runs", str(runs)]
        environ = {**os.environ, **QUIET}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
            yield from map(json.loads, process.stdout)
        if process.returncode:
            failure = f"ended with exit status {process.returncode}"
    if failure:
        yield {"peer": f"all of {name}", "version": None, "tensorflow": "", "keras": "", "failure": failure}


def cells(row):
    name = " ".join(filter(None, [row["peer"], row["version"] and f"({row['version']})"]))
    where = ", ".join(filter(None, [row["tensorflow"], row["keras"]]))
    if "failure" in row:
        return [name, where, " ".join(row["failure"].replace("|", "/").split())[:200], "", "", "", ""]
    low, median, high = row["ratio"]
    return [
        name,
        where,
        f"{1e3 * row['forward']:.1f} ms",
        f"{1e3 * row['heatmap']:.1f} ms",
        f"{median:.2f}",
        f"{low:.2f} to {high:.2f}",
        f"{row['ours'][1]:.2f}" if row["ours"] else "",
    ]


def line(row):
    return "| " + " | ".join(row) + " |"


def machine(runs):
    return (
        f"Python {platform.python_version()}; {os.cpu_count()} CPU cores, {platform.machine()}, "
        f"load {os.getloadavg()[0]:.1f}; {datetime.date.today():%-d %B %Y}; {runs} interleaved runs"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=50, help="images, one by one (default 50)")
    parser.add_argument("--only", choices=ENVIRONMENTS, help="one environment alone")
    parser.add_argument("--write", type=pathlib.Path, help="the file to write")
    args = parser.parse_args()
    names = [args.only] if args.only else list(ENVIRONMENTS)
    environments = [(name, *prepared(name)) for name in names]
    lines, complaints = [machine(args.runs), "", line(HEADER), line(["---"] * len(HEADER))], []
    print(*lines, sep="\n", flush=True)
    for row in itertools.chain.from_iterable(rows(*each, args.runs) for each in environments):
        lines.append(line(cells(row)))
        print(lines[-1], flush=True)
        if row.get("complaint"):
            complaints.append(f"{row['peer']}: its heatmap {row['complaint']}")
    print(f"\n{NOTES}")
    if args.write:
        text = TEXT.format(runs=args.runs, table="\n".join(lines) + "\n", notes=NOTES)
        args.write.write_text(text, encoding="utf-8")
    return "\n".join(complaints) or None


if __name__ == "__main__":
    sys.exit(main())

"""Compare tf_gradcam with pytorch-grad-cam, torch-cam and captum, and write down what came of it.

Every map is also computed by the paper's formula in float64 (reference.py). Where a library differs from it,
what the library computes instead (instead.py) must give the library's map. Ends with an error where
tf_gradcam is not the formula, or a difference is not explained. Metrics are compared by measures.py.

    python benchmarks/parity/compare.py [--out docs/parity.md] [METHOD ...]
    python benchmarks/parity/compare.py --metrics    # only these, in a minute; the rest of the page stays
"""

import argparse
import collections
import copy
import importlib.metadata
import os
import pathlib
import sys
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import beyond
import measures
import networks
import numpy as np
from catalogue import METHODS
from reference import View

import tf_gradcam
from tf_gradcam import targets

AGREES = 1e-4  # of the largest value of the map
OURS = "tf_gradcam"
DATE = "22 November 2026, with ReciproCAM, Opti-CAM and LeGrad added on 30 November"
PACKAGES = "grad-cam", "torchcam", "captum", "legrad-torch", "torch", "tensorflow", "keras", "numpy"
OUR_HEADER = ["method", "formula of", "float64: small", "Lite0", "float32: small", "Lite0"]
THEIR_HEADER = ["method", "library", "from the formula: small", "Lite0", "from tf_gradcam", "verdict"]
TEXT = """\
# Parity with other libraries

See whether a map is the same in tf_gradcam, pytorch-grad-cam, torch-cam and captum, and where not, why.

Made on {date} by [`benchmarks/parity/compare.py`](../benchmarks/parity): the same weights in Keras and in
PyTorch and the same photograph. Each map of a library is compared with that of tf_gradcam and with the
paper's formula, which is implemented a second time in float64 with PyTorch's gradients and NumPy.
{versions}.

* *Networks*: *small* stands for two networks of two convolutions with random weights, one with a linear
  head and one with a hidden layer, explained at layers after and before a ReLU. *Lite0* is
  EfficientNet-Lite0 with its ImageNet weights, explained at its last map and at `block5c_add`, in the
  middle, whose activations have both signs. Methods that run the whole network for each channel or
  step are compared only at `block5c_add`, one that runs the rest of it for each place only at the last map.
* *Maps* are signed, on the layer's own grid: before any ReLU, resizing and scaling. The score is the
  logit of the predicted class, for ShapleyCAM and ReciproCAM its probability. All libraries get the same
  parameters, even where their defaults differ (in Finer-CAM, torch-cam subtracts 0.6 times the other
  classes; tf_gradcam and pytorch-grad-cam subtract them in full).
* *Numbers* are the largest difference at any position of any map, as a share of the map's largest value.
  Two maps *agree* up to 1e-4.
* Everything is computed in float64, so that only formulas can differ. The error of tf_gradcam in float32
  has its own columns.
* If a library *differs*, the verdict says what it computes instead, and how well that reproduces its map.

## tf_gradcam and the formulas

{ours}
Differences above 1e-4 in float32 come from rounding. The gradient at the image jumps where a ReLU6 of
EfficientNet-Lite0 is about to close or to saturate, in PyTorch too (see below). XGrad-CAM divides by sums of
activations, which are close to 0 if the activations have both signs (choose a layer after a ReLU).

## The libraries

{theirs}
## Beyond the maps

{beyond}
"""


class Case(NamedTuple):
    """A network and one of its layers, with a float64 view of what is explained there."""

    pair: networks.Pair
    layer: str
    view: View

    def theirs(self, peer):
        net = copy.deepcopy(self.pair.net)  # Some leave other modules in it.
        images = networks.channels_first(self.pair.image)
        return peer.explain(net, self.pair.layers[self.layer], images, self.view.index)

    def ours(self, method, dtype):
        layer = None if method.layers == "image" else self.layer
        cam = tf_gradcam.GradCAM(self.pair.models[dtype], layer, method=method.ours)
        # Without a class of its own, that of the image: it is the view's.
        target = targets.Probability() if method.probability else None
        return cam(self.pair.image.astype(dtype), target).map[0].numpy()


def find_cases(pairs, method):
    """Yield the cases that a method is compared on."""
    for pair in pairs:
        index = int(pair.net(networks.channels_first(pair.image)).argmax())
        last = next(iter(pair.layers))
        for layer, path in pair.layers.items():
            if {
                "all": True,
                "pooled": layer == last and not hasattr(pair.net, "hidden"),
                "few": layer != "top_activation",
                "late": layer != "block5c_add",
                "image": layer == last,
            }[method.layers]:
                yield Case(pair, layer, View(pair.net, path, pair.image[0], index, method.probability))


def measure(method, case):
    """Yield whose map of a case is how far from what: `(who, what, distance)`."""
    view, ours = case.view, case.ours(method, "float64")
    formula = _applied(method.formula, method.noise, view, "float64")
    yield OURS, "formula", distance(ours, formula)
    float32 = formula if method.noise is None else _applied(method.formula, method.noise, view, "float32")
    yield OURS, "float32", distance(case.ours(method, "float32"), float32)
    for peer in method.peers:
        theirs = case.theirs(peer)
        if peer.noise is None:
            yield peer.library, "ours", distance(theirs, ours)
        expected = formula if peer.noise is None else _applied(method.formula, peer.noise, view)
        yield peer.library, "formula", distance(theirs, expected)
        if peer.instead is not None:
            yield peer.library, "instead", distance(theirs, _applied(peer.instead, peer.noise, view))


def _applied(formula, noise, view, *dtype):
    return formula(view) if noise is None else formula(view, noise(view, *dtype))


def distance(found, expected):
    """Return the largest difference, as a share of the largest value expected."""
    return np.abs(found - expected).max() / np.abs(expected).max()


def collect(pairs, chosen):
    """Return the largest distances by method, whose map, from what, and whether on EfficientNet-Lite0."""
    found = collections.defaultdict(float)
    for method in chosen:
        for case in find_cases(pairs, method):
            print(method.name, case.pair.name, case.layer, sep=", ", end=": ", flush=True)
            for who, what, far in measure(method, case):
                key = method.name, who, what, case.pair.name == "EfficientNet-Lite0"
                found[key] = max(found[key], far)
                print(f"{who} {what} {far:.0e}", end="; ", flush=True)
            print()
    return found


def our_rows(found, chosen):
    for method in chosen:
        paper = _function(method.formula).__doc__
        cells = [
            _cell(found, method, OURS, what, lite0) for what in ("formula", "float32") for lite0 in (0, 1)
        ]
        yield [f"`{method.name}`", paper, *cells]


def their_rows(found, chosen):
    for method in chosen:
        for peer in method.peers:
            cells = [_cell(found, method, peer.library, "formula", lite0) for lite0 in (0, 1)]
            ours = [found.get((method.name, peer.library, "ours", lite0)) for lite0 in (False, True)]
            ours = "other noise" if None in ours else f"{max(ours):.0e}"
            yield [f"`{method.name}`", peer.library, *cells, ours, verdict(found, method, peer)]


def verdict(found, method, peer):
    if _most(found, method, peer.library, "formula") <= AGREES:
        return "agrees"
    if peer.instead is None:
        return "**differs**, and it is not known why"
    why = " ".join(_function(peer.instead).__doc__.split())
    return f"**differs.** {why} This gives its map to {_most(found, method, peer.library, 'instead'):.0e}."


def faults(found, chosen):
    """Yield what is neither agreement nor explained."""
    for method in chosen:
        if _most(found, method, OURS, "formula") > AGREES:
            yield f"{method.name}: tf_gradcam is not the formula"
        for peer in method.peers:
            what = ["formula"] if peer.instead is None else ["formula", "instead"]
            if min(_most(found, method, peer.library, each) for each in what) > AGREES:
                yield f"{method.name}: {peer.library} differs, and it is not known why"


def _most(found, *key):
    method, *rest = key
    return max(found[method.name, *rest, lite0] for lite0 in (False, True))


def _cell(found, method, who, what, lite0):
    far = found[method.name, who, what, bool(lite0)]
    return f"{far:.0e}" if far <= AGREES else f"**{far:.0e}**"


def _function(formula):
    return getattr(formula, "func", formula)


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def small_pairs():
    return [networks.small(hidden=False), networks.small(hidden=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="only these, and write nothing")
    parser.add_argument("--out", type=pathlib.Path, default="docs/parity.md", help="the file to write")
    parser.add_argument("--metrics", action="store_true", help="only the metrics")
    args = parser.parse_args()
    if args.metrics:
        section, unexplained = measures.section(small_pairs())
        page = args.out.read_text(encoding="utf-8").partition(measures.TITLE)[0]
        args.out.write_text(page + section, encoding="utf-8")
        return "\n".join(unexplained) or None
    chosen = [
        method for method in METHODS if method.name in (args.methods or [each.name for each in METHODS])
    ]
    pairs = [*small_pairs(), networks.lite0()]
    found = collect(pairs, chosen)
    print(
        table(OUR_HEADER, our_rows(found, chosen)), table(THEIR_HEADER, their_rows(found, chosen)), sep="\n"
    )
    unexplained = []
    if not args.methods:
        section, unexplained = measures.section(pairs[:2])
        text = TEXT.format(
            date=DATE,
            versions=", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES),
            ours=table(OUR_HEADER, our_rows(found, chosen)),
            theirs=table(THEIR_HEADER, their_rows(found, chosen)),
            beyond="\n".join(f"* {note}" for note in beyond.notes(pairs)),
        )
        args.out.write_text(f"{text}\n{section}", encoding="utf-8")
    return "\n".join([*faults(found, chosen), *unexplained]) or None


if __name__ == "__main__":
    sys.exit(main())

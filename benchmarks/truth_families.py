"""Does `locate` find objects in another family of networks, too? Writes a table of docs/truth.md.

A small ResNet and a small MobileNet are trained alike on `metrics.truth.shapes`, and explain the same scenes.

    python benchmarks/truth_families.py [--write docs/truth.md] [--scenes 100]
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import truth_maps
import truth_worlds
from truth import SHARES, peaks, replace, table

from tf_gradcam.metrics import truth

MAPS = "gradcam (the default: bilinear)", "gradcam, gaussian of 0.8 cells", "locate"
HOLLOW = "ring"  # Its hole, where a map may well be highest, is not the object.


def rows(name, world):
    hollow = truth.shapes(1).names.index(HOLLOW)
    solid = world.cases.targets != hollow
    cases = type(world.cases)(*(column[solid] for column in world.cases))
    for label in MAPS:
        heatmaps = truth_maps.explainer(world.model, world.layers, truth_maps.MAPS[label])
        shares = [*peaks(heatmaps, world.cases), peaks(heatmaps, cases)[0]]
        yield [name, label, *(f"{share:.3f}" for share in shares)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", type=pathlib.Path, help="the page whose table is replaced")
    parser.add_argument("--scenes", type=int, default=100, help="how many are drawn (default 100)")
    options = parser.parse_args()
    found, about = [], []
    for name, build in (("ResNet", truth_worlds.shapes), ("MobileNet", truth_worlds.mobilenet)):
        world = build(options.scenes)
        about.append(world.about)
        found += rows(name, world)
        print(world.about, *found[-len(MAPS) :], sep="\n", flush=True)
    header = ["network", "map", *SHARES, f"object, without {HOLLOW}s"]
    text = "\n\n".join([*about, table(header, found)])
    if options.write:
        replace(options.write, "families", text)


if __name__ == "__main__":
    main()

"""Which method finds the object, and which metric would have chosen it? Writes the tables of docs/truth.md.

Two networks explain scenes in which it is known where each object is: a small ResNet that is trained here on
`metrics.truth.shapes`, and EfficientNet-Lite0 on `metrics.truth.photographs`.

    python benchmarks/truth.py [--write docs/truth.md] [--network shapes] [--scenes 100] [--few 8]
"""

import argparse
import functools
import os
import pathlib
import re
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import truth_maps
import truth_worlds

from tf_gradcam import metrics

WORLDS = {"shapes": truth_worlds.shapes, "photographs": truth_worlds.photographs}
FEW = {"shapes": 24, "photographs": 8}  # cases for metrics and slow methods, by the cost of a forward pass
SHARES = ("object", "other", "random")
TRUTHS = {
    "object": lambda row: row["object"],
    "object - random": lambda row: row["object"] - row["random"],
}
LOWER_IS_BETTER = {"deletion, zero", "deletion, blur", "average drop", "entropy", "mean of the heatmap"}


def peaks(heatmaps, cases) -> list[float]:
    """Return how many maps peak on their object, on the other one, and on the object for an absent class."""
    maps = heatmaps(cases.images, cases.targets)
    absent = heatmaps(cases.images, cases.absent)
    pairs = (maps, cases.masks), (maps, cases.other_masks), (absent, cases.masks)
    return [float(metrics.pointing_game(each, masks, 0).mean()) for each, masks in pairs]


def measure(predict, heatmaps, cases, mosaics) -> dict[str, float]:
    """Return the mean of every metric for one kind of map."""
    images, targets, maps = cases.images, cases.targets, heatmaps(cases.images, cases.targets)

    def score(altered):
        return predict(altered)[np.arange(len(altered)), np.resize(targets, len(altered))]

    def curve(function, baseline):
        return function(score, images, maps, baseline=baseline, steps=14)

    deletion = {baseline: curve(metrics.deletion, baseline) for baseline in ("zero", "blur")}
    insertion = {baseline: curve(metrics.insertion, baseline) for baseline in ("zero", "blur")}
    drop = metrics.average_drop(score, images, maps)
    complexity = metrics.complexity(maps)
    coherency = metrics.coherency(lambda masked: heatmaps(masked, targets), images, maps)
    laid = heatmaps(mosaics.images, mosaics.targets)
    values = {
        "energy": metrics.energy(maps, cases.masks),
        "grid pointing": metrics.grid_pointing(laid, mosaics.cells),
        "mu-fidelity": metrics.mu_fidelity(score, images, maps, baseline="zero", samples=40),
        "insertion - deletion": insertion["blur"] - deletion["zero"],
        "insertion, blur": insertion["blur"],
        "insertion, zero": insertion["zero"],
        "deletion, zero": deletion["zero"],
        "deletion, blur": deletion["blur"],
        "ROAD": metrics.road(score, images, maps, percentages=(20, 40, 60, 80)),
        "average drop": drop,
        "increase": metrics.increase(score, images, maps),
        "average gain": metrics.average_gain(score, images, maps),
        "ADCC": metrics.adcc(coherency, complexity, drop),
        "sparseness": metrics.sparseness(maps),
        "entropy": metrics.entropy(maps),
        "mean of the heatmap": complexity,
    }
    return {name: float(np.nanmean(each)) for name, each in values.items()}


def first(cases, count):
    return type(cases)(*(column[:count] for column in cases))


def rank_correlations(found, truth_of) -> dict[str, float]:
    """Return Spearman's correlation of each metric with the truth, positive where the metric chooses well."""
    rows = list(found.values())
    truths = np.array([[truth_of(row) for row in rows]])
    correlations = {}
    for name in [name for name in rows[0] if name not in SHARES]:
        sign = -1 if name in LOWER_IS_BETTER else 1
        values = np.array([[row[name] for row in rows]])
        correlations[name] = sign * float(metrics.spearman(truths, values)[0])
    return correlations


def run(world, few) -> dict[str, dict[str, float]]:
    """Return the shares and metrics of every kind of map."""
    forward = tf.function(lambda images: world.model(images, training=False), reduce_retracing=True)
    predict = functools.partial(_predict, forward)
    found = {}
    for name, how in truth_maps.MAPS.items():
        start = time.perf_counter()
        heatmaps = truth_maps.explainer(world.model, world.layers, how)
        shares = peaks(heatmaps, first(world.cases, few) if how.few else world.cases)
        values = measure(predict, heatmaps, first(world.cases, few), first(world.mosaics, few))
        found[name] = dict(zip(SHARES, shares, strict=True)) | values
        print(f"{name}: {shares} in {time.perf_counter() - start:.0f} s", flush=True)
    return found


def _predict(forward, images):
    return forward(tf.constant(images, tf.float32)).numpy()


def tables(world, found, few) -> str:
    """Return the tables of one network."""
    slow = {name for name, how in truth_maps.MAPS.items() if how.few}
    names = [each for each in next(iter(found.values())) if each not in SHARES]
    rows = [[f"{name} ({few} cases)" if name in slow else name, row] for name, row in found.items()]
    peaks = [[name, *(f"{row[share]:.3f}" for share in SHARES)] for name, row in rows]
    means = [[name, *(f"{row[each]:.2f}" for each in ["object", *names])] for name, row in rows]
    return "\n\n".join(
        [
            world.about,
            table(["map", *SHARES], peaks),
            f"The means of every metric over {few} of these cases:",
            table(["map", "object", *names], means),
        ]
    )


def table(header, rows) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary(correlations) -> str:
    """Return the table of rank correlations, the best metric first."""
    columns = list(correlations.values())
    names = sorted(columns[0], key=lambda name: -np.mean([column[name] for column in columns]))
    rows = [[name, *(f"{column[name]:.2f}" for column in columns)] for name in names]
    return table(["metric", *correlations], rows)


def replace(page: pathlib.Path, mark: str, text: str) -> None:
    """Replace what is between `<!-- mark -->` and `<!-- end -->` in a page."""
    old = page.read_text(encoding="utf-8")
    pattern = rf"(<!-- {mark} -->\n).*?(<!-- end -->)"
    new, count = re.subn(pattern, lambda found: f"{found[1]}{text}\n{found[2]}", old, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{page} must have one place <!-- {mark} -->. Found: {count}")
    page.write_text(new, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", type=pathlib.Path, help="the page whose tables are replaced")
    parser.add_argument("--network", choices=list(WORLDS), action="append", help="only this one")
    parser.add_argument("--scenes", type=int, default=100, help="how many are drawn (default 100)")
    parser.add_argument("--few", type=int, help=f"cases for metrics and slow methods (default {FEW})")
    options = parser.parse_args()
    start, correlations = time.perf_counter(), {}
    for name in options.network or WORLDS:
        world = WORLDS[name](options.scenes)
        print(f"\n{world.about}\n", flush=True)
        few = options.few or FEW[name]
        found = run(world, few)
        correlations |= {
            f"{name}: {of}": rank_correlations(found, function) for of, function in TRUTHS.items()
        }
        text = tables(world, found, few)
        print(text, flush=True)
        if options.write:
            replace(options.write, name, text)
    text = f"{summary(correlations)}\n\nAll of it took {(time.perf_counter() - start) / 60:.0f} minutes."
    print(text)
    if options.write:
        replace(options.write, "metrics", text)


if __name__ == "__main__":
    main()

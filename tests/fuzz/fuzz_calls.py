"""Call every public function with good and odd arguments: is each answer right, and does each error say why?

    make fuzz

The calls run in processes of their own, a few hundred in each, so that one that ends its process is counted.
An answer is right if it has the documented shape and is finite, and if it equals that of the same call with
other forms of the same arguments, where no argument is odd.
"""

import argparse
import faulthandler
import json
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from conftest import build
from fuzz_tally import Tally
from fuzz_values import Good, Odd, heatmaps, images, odd_values, photographs, same
from matplotlib import pyplot

import tf_gradcam
from tf_gradcam import methods, targets

CALLS_OF_ONE_PROCESS, LONGEST = 400, 300  # calls; seconds of one call
METHODS = ["gradcam", "layercam", "hirescam", "eigencam", "gradient"]
OFTEN = {
    "make_gradcam_heatmap": 20,
    "GradCAM.__call__": 16,
    "load_image": 12,
    "overlay": 10,
    "export_gradcam": 2,
}
WITHOUT_TRACE = ["load_image", "colorize", "overlay", "overlay_concepts", "Explanation.overlay"]
WITHOUT_TRACE += ["boxes", "masks", "box_iou", "serving.boxes", "contour", "draw_boxes"]
WITHOUT_TRACE += ["serving.answers", "serving.heatmap", "serving.overlay", "methods.rise", "methods.smooth"]
PICTURES = ["load_image", "colorize", "overlay", "overlay_concepts", "Explanation.overlay", "serving.overlay"]
PICTURES += ["contour", "draw_boxes"]
# An odd value for a target may be the number of a target.
WRAPPED = [None, None, targets.Class, targets.Classes, targets.Value, targets.Similarity, targets.Contrast]
WRAPPED += [targets.Probability, targets.TopClasses, targets.Against, targets.Binary, targets.Region]
WRAPPED += [targets.Pixel, targets.Box, targets.Detection, lambda value: targets.Output(value, 1)]
WRAPPED += [lambda value: targets.Output(0, value), lambda value: targets.Region(1, value)]


class Entry(NamedTuple):
    """A function, and the good values of the arguments that it needs, and of those that it may get."""

    function: Any
    required: dict
    options: dict


class Calls:
    """Ask questions, each made from its number alone, and fill a tally; exports go into a folder."""

    def __init__(self, seed, tally, folder):
        self.seed, self.tally = seed, tally
        self.model = build("functional")
        self.cam = tf_gradcam.GradCAM(self.model)
        self.one = self.cam(images()[1][0].value, 2)
        self.folder = folder
        self.tables = {count: self._table(count) for count in images()}
        self.expected = {}

    def run(self, number, names=None):
        """Ask the question of this number; with `names`, about one of these functions."""
        random = np.random.default_rng([self.seed, number])
        table = self.tables[3 if random.random() < 0.5 else 1]
        names = [name for name in names or table for _ in range(OFTEN.get(name, 4))]
        name = names[random.integers(len(names))]
        entry, given = table[name], {}
        for argument, good in {**entry.required, **entry.options}.items():
            if good and (argument in entry.required or random.random() < 0.4):
                given[argument] = good[random.integers(len(good))]
        if random.random() < 0.75:
            every = [*entry.required, *entry.options]
            for argument in map(
                str, random.choice(every, min(len(every), random.integers(1, 3)), replace=False)
            ):
                given[argument] = _odd_value(random, argument)
        self._ask(name, entry, given)

    def _ask(self, name, entry, given):
        values = {argument: each.value for argument, each in given.items()}
        odd = {argument: each for argument, each in given.items() if isinstance(each, Odd)}
        shown = ", ".join(f"{argument}={each.value!r:.50}" for argument, each in odd.items())

        def check(result):
            never = [argument for argument, each in odd.items() if each.never]
            if never and not (
                never == ["labels"] and "titles" in values
            ):  # `labels` are documented as unused then
                return "was accepted"
            wrong = wrong_with(name, result, values)
            return wrong or (None if odd else self._difference(name, given, result))

        errors = (OSError, ZeroDivisionError)  # The second is raised by an odd callable itself.
        hang = 30 if name == "export_gradcam" else None
        names = {*entry.required, *entry.options}
        self.tally.call(f"{name}({shown})", names, lambda: entry.function(**values), check, errors, hang)
        pyplot.close("all")

    def _difference(self, name, given, result):
        """Return how a result differs from that of the first call that meant the same, or `None`."""
        numbers = numbers_of(result)
        key = name, tuple((argument, each.key) for argument, each in given.items())
        expected = self.expected.setdefault(key, numbers)
        if [one.shape for one in numbers] != [one.shape for one in expected]:
            return f"shapes differ from those of the same call, {given!r:.150}"
        # The first call of a question runs without compiling: the rest differs by rounding.
        gaps = [np.abs(one.astype(float) - other).max() for one, other in zip(numbers, expected, strict=True)]
        return (
            f"differs by {max(gaps)} from the same call, {given!r:.150}"
            if gaps and max(gaps) > 2e-3
            else None
        )

    def _table(self, count):
        """Return the entry of each function, for questions about so many images."""
        model = same("model", self.model)
        layers = (
            same("conv2", "conv2", self.model.get_layer("conv2")) + same(None, None) + same("conv1", "conv1")
        )
        few, half = same(2, 2, np.int64(2)), same(0.5, 0.5, np.float32(0.5), np.float64(0.5))
        calls = same(None, None) + same(0, 0, np.int64(0))
        sizes = same((5, 9), (5, 9), [5, 9], np.uint8([5, 9]), tf.constant([5, 9])) + same("input", "input")
        form = {"size": sizes, "interpolation": same("bilinear", "bilinear") + same("bicubic", "bicubic")}
        pixels = same((6, 7), (6, 7), [6, 7], np.int8([6, 7])) + same(None, None)
        drawn = {"alpha": half, "colormap": same("jet", "jet", "JET"), "fade": same(True, True, np.True_)}
        scaled = {
            **drawn,
            "vmax": same(2, 2, 2.0, np.float32(2)) + same(None, None),
            "signed": same(False, False, np.False_),
        }
        names = {
            "titles": same("titles", ["a"], ("a",), "a"),
            "labels": same("labels", list("abcde"), tuple("abcde")),
        }
        drawing = {"photograph": photographs()}
        how = {"layer": layers, "call": calls, "method": [Good(name, name) for name in METHODS]}
        goal = {"target": _good_targets(count)}
        reply = {"predictions": [{"heatmap": heatmaps()[0].value.tolist()}]}
        replies = [
            reply,
            json.dumps(reply),
            json.dumps(reply).encode(),
            {"heatmap": heatmaps()[0].value[None]},
        ]
        response = {"response": same("response", *replies)}
        places = {"index": same(0, 0, np.int64(0)), "rank": same(0, 0, np.int8(0))}
        explained = heatmaps() + same("explanation", self.one)
        flat = [each for each in heatmaps() if np.ndim(each.value) == 2]
        stacked = [each for each in heatmaps() if np.ndim(each.value) == 3]
        parts = {"threshold": half + same("otsu", "otsu"), "size": pixels, "most": few}
        parts |= {"sort": same("area", "area"), "scale": same(None, None)}
        numbers = np.array([[0, 0, 3, 2], [1, 1, 4, 4]])
        corners = same("corners", numbers, numbers.tolist(), numbers.astype("float32"), tf.constant(numbers))
        never_good = ["layer", "method", "target", "labels", "preprocess", "size", "top_k", "boxes"]
        never_good += ["format"]
        export: dict = {argument: [] for argument in never_good}
        window = same((0, 255), (0, 255), [0.0, 255.0], np.float16([0, 255]))
        no = same(None, None)
        return {
            "make_gradcam_heatmap": Entry(
                tf_gradcam.make_gradcam_heatmap,
                {"model": model, "img": images()[count]},
                {**how, **goal, **form},
            ),
            "GradCAM.__call__": Entry(self.cam, {"images": images()[count]}, {**goal, **form}),
            "GradCAM": Entry(tf_gradcam.GradCAM, {"model": model}, {**how, "fuse": no, "preprocess": no}),
            "list_layers": Entry(tf_gradcam.list_layers, {"model": model}, {"images": images()[count]}),
            "build_submodel": Entry(
                tf_gradcam.build_submodel, {"model": model}, {"layer": layers, "call": calls}
            ),
            "deep_feature_factorization": Entry(
                tf_gradcam.deep_feature_factorization,
                {"model": model, "images": images()[3], "layer": same("conv1", "conv1"), "concepts": few},
                {"size": sizes, "call": calls},
            ),
            "export_gradcam": Entry(
                tf_gradcam.export_gradcam,
                {"model": model, "path": same(0, f"{self.folder}/model")},
                export,
            ),
            "load_image": Entry(
                tf_gradcam.load_image, {"source": photographs()}, {"size": pixels, "window": window}
            ),
            "colorize": Entry(tf_gradcam.colorize, {"heatmap": flat}, {"colormap": drawn["colormap"]}),
            "overlay": Entry(tf_gradcam.overlay, {"image": photographs(), "heatmap": explained}, scaled),
            "contour": Entry(
                tf_gradcam.contour,
                {"image": photographs(), "heatmap": explained},
                {"levels": same(0.5, 0.5, [0.5], np.float32(0.5)), "width": few, "vmax": scaled["vmax"]},
            ),
            "draw_boxes": Entry(
                tf_gradcam.draw_boxes, {"image": photographs(), "boxes": corners}, {"width": few}
            ),
            "compare": Entry(
                tf_gradcam.compare,
                {
                    "image": [each for each in photographs() if not isinstance(each.value, list)],
                    "explanation": explained,
                },
                {**names, **scaled, "labels": []},
            ),
            "overlay_concepts": Entry(
                tf_gradcam.overlay_concepts, {"image": photographs(), "heatmaps": stacked}, {"alpha": half}
            ),
            "show": Entry(
                tf_gradcam.show,
                {
                    "image": [each for each in photographs() if not isinstance(each.value, list)],
                    "explanation": explained,
                },
                {**names, **scaled, "labels": []},
            ),
            "Explanation.overlay": Entry(self.one.overlay, drawing, scaled),
            "Explanation.show": Entry(self.one.show, {"photograph": photographs()[:3]}, {**names, **scaled}),
            "serving.answers": Entry(tf_gradcam.serving.answers, response, {}),
            "serving.heatmap": Entry(tf_gradcam.serving.heatmap, response, {"size": pixels, **places}),
            "serving.overlay": Entry(
                tf_gradcam.serving.overlay, {**response, **drawing}, {**places, **drawn}
            ),
            "boxes": Entry(tf_gradcam.boxes, {"heatmap": explained}, parts),
            "masks": Entry(tf_gradcam.masks, {"heatmap": flat}, parts),
            "box_iou": Entry(tf_gradcam.box_iou, {"boxes": corners, "others": corners}, {}),
            "serving.boxes": Entry(tf_gradcam.serving.boxes, response, {**places, **parts}),
            "methods.rise": Entry(
                methods.rise, {"masks": few}, {"cells": few, "batch": few, "seed": few, "probability": half}
            ),
            "methods.smooth": Entry(
                methods.smooth, {"method": how["method"][:3]}, {"samples": few, "noise": half, "seed": few}
            ),
            "methods.integrated_gradients": Entry(
                methods.integrated_gradients, {"steps": few}, {"baseline": few, "batch": few}
            ),
        }


def _odd_value(random, argument):
    odd = odd_values()[random.integers(len(odd_values()))]
    wrap = WRAPPED[random.integers(len(WRAPPED))] if argument == "target" else None
    return Odd(wrap(odd.value), odd.never) if wrap else odd


def _good_targets(count):
    found = same(None, None) + same(
        1, 1, np.int64(1), targets.Class(1), [1] * count, tf.constant([1] * count)
    )
    found += same("contrast", targets.Contrast(1, 2), targets.Contrast(np.uint8(1), [2] * count))
    found += same("classes", targets.Classes([0, 1]), targets.Classes(np.int8([0, 1])))
    value = targets.Value(3)
    found += same("value", value, targets.Value(np.uint8(3)), targets.Output(0, value))
    found += same("value", targets.Output(np.int64(0), value))
    near = [1, 0, 0, 0, 0.5]
    return found + same("near", targets.Similarity(near), targets.Similarity(np.float16(near)))


def numbers_of(result):
    """Return the arrays of numbers in a result."""
    if isinstance(result, tf_gradcam.Explanation):
        return [result.heatmap.numpy()]
    if isinstance(result, tf_gradcam.Factorization):
        return [result.heatmaps, result.concepts]
    if isinstance(result, tf_gradcam.HeatmapBox):
        return [np.array([*result.box, *result[1:]])]
    if isinstance(result, list):  # of boxes, or of such lists
        return [numbers for each in result for numbers in numbers_of(each)]
    if isinstance(result, dict):
        return [each for each in result.values() if each.dtype.kind in "biuf"]
    return [result] if isinstance(result, np.ndarray) else []


def wrong_with(name, result, values):
    """Return what is wrong with a result by itself, or `None`."""
    numbers = numbers_of(result)
    is_heatmap = name in ("make_gradcam_heatmap", "GradCAM.__call__", "serving.heatmap")
    if is_heatmap and not all(one.size and one.min() >= 0 and one.max() <= 1 for one in numbers):
        return "is not in [0, 1]"  # nor NaN
    if name in PICTURES and not all(one.dtype == np.uint8 and one.shape[2:] == (3,) for one in numbers):
        return f"is no RGB picture: {[one.shape for one in numbers]}"
    size = values.get("size")
    if name == "load_image" and isinstance(size, list | tuple) and numbers[0].shape[:2] != tuple(size):
        return f"has the shape {numbers[0].shape}"
    if name in ("make_gradcam_heatmap", "serving.heatmap") and isinstance(size, list | tuple):
        return None if numbers[0].shape[-2:] == tuple(size) else f"has the shape {numbers[0].shape}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first question")
    parser.add_argument(
        "--child", action="store_true", help="ask in this process, and print the tally as JSON"
    )
    options = parser.parse_args()
    if options.child:
        ask_here(options)
    else:
        ask_in_processes(options)


def ask_here(options):
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        calls = Calls(options.seed, tally, folder)
        for number in range(options.first, options.first + options.calls):
            print(number, file=sys.stderr, flush=True)
            faulthandler.dump_traceback_later(LONGEST, exit=True)
            calls.run(number)
    print(json.dumps(tally.as_json()))


def ask_in_processes(options):
    total, number, end = Tally(), options.first, options.first + options.calls
    while number < end:
        count = min(CALLS_OF_ONE_PROCESS, end - number)
        found, stopped = ask_in_process(options.seed, number, count)
        if stopped is not None:  # Ask those before it again.
            total.ended(f"question {stopped} ended its process, or took more than {LONGEST} s")
            count = stopped + 1 - number
            if count > 1:
                found, _ = ask_in_process(options.seed, number, count - 1)
        if found is not None:
            total.add(found)
        number += count
        print(f"after question {number - 1}: {total}", flush=True)
    sys.exit(total.fault_count > 0)


def ask_in_process(seed, first, count):
    """Return the tally of a process and `None`, or `None` and the number of the question that ended it."""
    numbers = ["--seed", str(seed), "--first", str(first), "--calls", str(count)]
    command = [sys.executable, __file__, "--child", *numbers]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1]), None
    started = [int(line) for line in done.stderr.splitlines() if line.isdecimal()]
    if not started:
        raise RuntimeError(done.stderr[-2000:])
    return None, started[-1]


if __name__ == "__main__":
    main()

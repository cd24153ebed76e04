"""Responses of a server, damaged, as text, JSON and protos: does `serving` give arrays, or an error?

make fuzz
"""

import argparse
import base64
import functools
import io
import json
import re
import sys

import numpy as np
import PIL.Image
import tensorflow as tf
from fuzz_tally import Tally

from tf_gradcam import serving


def png(pixels):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return {"b64": base64.b64encode(file.getvalue()).decode()}


HEATMAPS = np.linspace(0, 1, 24).reshape(2, 3, 4)
GREY = [png((heatmap * 255).astype(np.uint8)) for heatmap in HEATMAPS]
GOOD = [
    {"predictions": [{"heatmap": heatmap.tolist(), "class": 3, "label": "cat"} for heatmap in HEATMAPS]},
    {"predictions": HEATMAPS.tolist()},
    {"outputs": {"heatmap": HEATMAPS.tolist(), "class": [1, 2]}},
    {"outputs": HEATMAPS.tolist()},
    {"predictions": [{"heatmap_png_bytes": one} for one in GREY]},
    {"predictions": [{"activations": np.ones((2, 2, 3)).tolist(), "gradients": np.ones((2, 2, 3)).tolist()}]},
    {"predictions": [{"map": (heatmap - 0.5).tolist()} for heatmap in HEATMAPS]},
]
ARRAYS = {"heatmap": HEATMAPS.astype("float32"), "class": np.array([1, 2], np.int32), "map": HEATMAPS - 0.5}
ARRAYS |= {
    "scores": HEATMAPS.astype("float16"),
    "many": np.array([2**63], np.uint64),
    "flag": np.array([True]),
}
ARRAYS |= {
    "activations": np.ones((1, 2, 2, 3)),
    "gradients": np.ones((1, 2, 2, 3)),
    "label": np.array([b"a", b"\xff"]),
}
ODD_TEXT = [
    "null",
    "true",
    "1e400",
    "-1e400",
    "NaN",
    "Infinity",
    "1" * 400,
    '""',
    "[]",
    "{}",
    "[[]]",
    '{"b64": "x"}',
]
ODD_TEXT += [
    '{"b64": 5}',
    "[1, [2]]",
    "1e308",
    "[" * 200,
    "[" * 5000,
    '{"a":' * 300,
    "\ud800",
    "0x1",
    "\0",
    "[null]",
]
ODD = [
    None,
    True,
    0,
    -1,
    2**70,
    10**400,
    0.5,
    1.5,
    -0.5,
    float("nan"),
    float("inf"),
    "",
    "a",
    [],
    {},
    [[]],
    [None],
]
ODD += [
    {"b64": ""},
    {"b64": "AAAA"},
    {"b64": 5},
    png(np.zeros((3, 4, 3), np.uint8)),
    {"a": 1},
    [1, [2]],
    {"error": "x"},
]
ODD += [[0.1] * 5, [[0.1, 0.2]], "\ud800", "\xe9" * 10, GREY[0]]
SIZES = [-1, 0, 1, 2, 7, 2**31, 2**62, -(2**62)]
PHOTOGRAPH = np.zeros((5, 6, 3), np.uint8)


class Response:
    """What gRPC's `PredictResponse` has."""

    def __init__(self, outputs):
        self.outputs = outputs


def damaged_text(random, text):
    """Return JSON with other bytes, cut short, or with odd parts."""
    if random.random() < 0.3:
        data = bytearray(text.encode())
        for place in random.integers(0, len(data), random.integers(1, 6)):
            data[place] = random.integers(256)
        return bytes(data) if random.random() < 0.5 else data.decode("utf-8", "replace")
    if random.random() < 0.3:
        return text[: random.integers(len(text))]
    parts = list(re.finditer(r"-?\d+\.?\d*(e-?\d+)?|\"[a-z_0-9]+\"|[\[\]{}]", text))
    part = parts[random.integers(len(parts))]
    return text[: part.start()] + ODD_TEXT[random.integers(len(ODD_TEXT))] + text[part.end() :]


def damaged_value(random, value):
    """Return parsed JSON with one thing in it replaced, left out or repeated."""
    is_nested = isinstance(value, dict | list) and len(value) > 0
    if random.random() < (0.15 if is_nested else 0.25):
        return ODD[random.integers(len(ODD))]
    if isinstance(value, dict) and value:
        key, way = list(value)[random.integers(len(value))], random.random()
        if way < 0.1:
            return {other: each for other, each in value.items() if other != key}
        if way < 0.2:
            return {"map" if other == key else other: each for other, each in value.items()}
        return {**value, key: damaged_value(random, value[key])}
    if isinstance(value, list) and value:
        place, way = random.integers(len(value)), random.random()
        if way < 0.15:
            return value[:place] + value[place + 1 :] if way < 0.1 else value * 2
        return [damaged_value(random, each) if at == place else each for at, each in enumerate(value)]
    return value


def damaged_protos(random):
    """Return a response of protos, some of which do not hold what they say."""
    names = [str(name) for name in random.choice(list(ARRAYS), random.integers(1, 5), replace=False)]
    outputs = {name: tf.make_tensor_proto(ARRAYS[name]) for name in names}
    for _ in range(random.integers(1, 4)):
        proto, kind = outputs[names[random.integers(len(names))]], random.integers(7)
        if kind == 0:
            proto.dtype = int(random.integers(0, 30))
        elif kind == 1 and proto.tensor_shape.dim:
            axis = random.integers(len(proto.tensor_shape.dim))
            proto.tensor_shape.dim[axis].size = int(random.choice(SIZES))
        elif kind == 2:
            proto.tensor_shape.unknown_rank = True
        elif kind == 3:
            proto.tensor_content = proto.tensor_content[: random.integers(len(proto.tensor_content) + 1)]
        elif kind == 4:
            proto.tensor_content = random.bytes(random.integers(1, 100))
        elif kind == 5:
            proto.float_val.append(float("nan"))
        else:
            proto.tensor_shape.dim.add(size=int(random.choice(SIZES)))
    return Response(outputs)


def damaged_response(random):
    way, good = random.integers(4), GOOD[random.integers(len(GOOD))]
    if way == 0:
        return damaged_text(random, json.dumps(good))
    if way == 3:
        return damaged_protos(random)
    value = damaged_value(random, good)
    return json.dumps(value) if way == 1 else value


def ask(seed, count, tally):
    """Give damaged responses to every function of `serving`."""
    for number in range(count):
        random = np.random.default_rng([seed, number])
        response = damaged_response(random)
        size = (9, 9) if number % 2 else None
        names = {
            "response",
            "size",
            "index",
            "rank",
            "photograph",
            *ARRAYS,
            "heatmap_png_bytes",
            "output",
            "predictions",
        }
        calls = {
            "answers": functools.partial(serving.answers, response),
            "heatmap": functools.partial(serving.heatmap, response, size),
            "overlay": functools.partial(serving.overlay, response, PHOTOGRAPH),
        }
        for name, call in calls.items():
            tally.call(f"{name}, response {number}", names, call, None if name == "answers" else _wrong_with)


def _wrong_with(values):
    is_right = (
        np.isfinite(values).all() and values.min() >= 0 and values.max() <= (1 if values.ndim == 2 else 255)
    )
    return None if is_right else f"from {values.min()} to {values.max()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--responses", type=int, default=9000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tally = Tally()
    ask(options.seed, options.responses, tally)
    print(f"damaged responses, each given to three functions: {tally}")
    sys.exit(tally.fault_count > 0)


if __name__ == "__main__":
    main()

"""Write docs/serving-load.md: a served Grad-CAM under load, good requests and bad, and its latency in C++.

The load goes over both protocols to tests/server/server.py, which answers with the Python loader. Latency is
measured in tests/server/run_signatures.cc, which loads as TensorFlow Serving does: in interleaved runs, the
baseline and then each candidate, so that whatever else the machine does falls on all alike.

    python benchmarks/serving.py [--requests 2000] [--runs 60]
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import re
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
import types
from concurrent import futures
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
from speed import machine

import tf_gradcam
from tf_gradcam import pretrained
from tf_gradcam._run import demo_photographs, read_photograph

ROOT = pathlib.Path(__file__).parent.parent


def script(*path):
    """Return what a script of the repository defines."""
    return types.SimpleNamespace(**runpy.run_path(str(ROOT.joinpath(*path))))


client = script("docs", "serving_client.py")
loader = script("tests", "server", "loader.py")

NAME, SIDE, TOP, CLIENTS = "lite0", 224, 3, 8
PAGE = """\
# A served Grad-CAM under load

See what a served model with heatmaps answers under load, and how long it takes.

Made on {date} by `make bench-serving`, on {machine};
the load was {load:.1f} when it began. The model is EfficientNet-Lite0 with its ImageNet weights, exported
with `preprocess`, `labels` and `top_k={top}`.

## Good requests and bad

{clients} clients at once sent {requests} requests over REST and gRPC to the small server of the tests,
which runs the exported model: after every two good requests a bad one. A good request sends one of six
photographs. It is *right* if the answer agrees with `GradCAM` in Python: scores to 1e-5, heatmaps to 1e-4,
heatmaps of 8 bits to one level. A bad request must be *refused* with the error message that belongs to it.

{load_table}

It took {seconds:.0f} s. The server used {early:.0f} MiB of memory after {few} requests, and {late:.0f} MiB
after all of them: {grown:+.1%}.

## Latency in C++

Loaded by `tensorflow::LoadSavedModel`, one request at a time. A *ratio* is the time divided by that of
`serving_default` of the same export, which is only the forward pass: the median of {runs} interleaved
runs, with the quartiles.

{latency_table}
"""


class Kind(NamedTuple):
    """A request, and what becomes of it: outputs that agree with `expected`, or the sentence `told`."""

    name: str
    protocol: str
    signature: str
    inputs: dict
    expected: dict | None = None
    told: str | None = None


def photographs() -> list:
    """Return the demo's photographs in full, RGB."""
    return [read_photograph(photograph) for photograph in demo_photographs()]


def encode(ending, pixels) -> bytes:
    return cv2.imencode(ending, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()


def huge() -> bytes:
    """Return a tiny PNG file that claims 60,000 x 60,000 pixels."""
    data = bytearray(encode(".png", np.zeros((2, 2, 3), np.uint8)))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    return bytes(data)


# The load


def good_kinds(model) -> list:
    """Return requests for each photograph by each signature, and what GradCAM answers to them."""
    cam = tf_gradcam.GradCAM(model, preprocess=pretrained.preprocess)
    kinds = []
    for number, photograph in enumerate(photographs()):
        pixels = tf_gradcam.load_image(photograph, size=(SIDE, SIDE))[None]
        found = cam(pixels)
        expected = {"scores": found.outputs, "class": found.target, "heatmap": found.heatmap}
        asked = np.array([number * 150], np.int32)
        of_class = {**expected, "class": asked, "heatmap": cam(pixels, asked).heatmap}
        best = np.argsort(-found.outputs.numpy())[:, :TOP].astype(np.int32)
        maps = np.stack([cam(pixels, best[:, rank]).heatmap for rank in range(TOP)], axis=1)
        top_k = {**expected, "class": best, "heatmap": maps}
        ready = {"images": pixels}
        files = {"image_bytes": [encode(".png", pixels[0])]}
        kinds += [
            Kind("gradcam", "grpc", "gradcam", ready, expected),
            Kind("gradcam", "rest", "gradcam", ready, expected),
            Kind("gradcam_class", "grpc", "gradcam_class", {**ready, "class_index": asked}, of_class),
            Kind("gradcam_top_k", "grpc", "gradcam_top_k", ready, top_k),
            Kind("gradcam_bytes", "rest", "gradcam_bytes", files, expected),
            Kind("gradcam_bytes", "grpc", "gradcam_bytes", files, expected),
        ]
    return kinds


def bad_kinds() -> list:
    photograph = photographs()[0]
    pixels = tf_gradcam.load_image(photograph, size=(SIDE, SIDE))[None]
    jpeg = encode(".jpg", photograph)
    files = {
        "truncated JPEG": (jpeg[: len(jpeg) // 2], "Invalid JPEG data"),
        "PNG of 60,000 x 60,000": (huge(), "[60000] [60000]"),
        "no image at all": (b"no image at all", "`image_bytes` must be"),
    }
    kinds = [
        Kind(name, protocol, "gradcam_bytes", {"image_bytes": [data]}, told=told)
        for name, (data, told) in files.items()
        for protocol in ("rest", "grpc")
    ]
    beyond = {"images": pixels, "class_index": np.array([10**9], np.int32)}
    floats = {"images": pixels.astype(np.float64) + 0.5}
    for protocol in ("rest", "grpc"):
        kinds += [
            Kind("class 10^9", protocol, "gradcam_class", beyond, told="`class_index` must"),
            Kind("wrong dtype", protocol, "gradcam", floats, told="uint8"),
        ]
    return kinds


def outcome(kind, addresses) -> bool:
    """Ask, and return whether the answer is the right one."""
    try:
        answer = getattr(client, kind.protocol)(addresses[kind.protocol], NAME, kind.signature, kind.inputs)
    except ValueError as error:
        return kind.told is not None and kind.told in str(error)
    return kind.expected is not None and agrees(answer, kind.expected)


def agrees(answer, expected) -> bool:
    if "heatmap_png_bytes" in answer:
        level = cv2.imdecode(np.frombuffer(answer["heatmap_png_bytes"][0], np.uint8), cv2.IMREAD_UNCHANGED)
        heatmap, tolerance = level[None] / 255, 1 / 255
    else:
        heatmap, tolerance = answer["heatmap"], 1e-4
    return (
        np.array_equal(answer["class"], expected["class"])
        and np.allclose(answer["scores"], expected["scores"], rtol=0, atol=1e-5)
        and np.allclose(heatmap, expected["heatmap"], rtol=0, atol=tolerance)
    )


@contextlib.contextmanager
def serve(folder):
    """Serve `folder` in a process, and give it and its addresses by protocol."""
    command = [sys.executable, ROOT / "tests" / "server" / "server.py", folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        ports = json.loads(process.stdout.readline())
        yield process, {"grpc": f"localhost:{ports['port']}", "rest": f"localhost:{ports['rest_api_port']}"}
        process.terminate()


def resident(process) -> float:
    """Return what a process has in memory, in MiB."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s*(\d+) kB", status)[1]) / 1024


def put_under_load(folder, model, count) -> dict:
    good, bad = good_kinds(model), bad_kinds()
    # Two good ones and a bad one, each kind in its turn.
    kinds = [bad[i // 3 % len(bad)] if i % 3 == 2 else good[(i - i // 3) % len(good)] for i in range(count)]
    few = count // 4
    with serve(folder) as (process, addresses), futures.ThreadPoolExecutor(CLIENTS) as pool:
        start = time.perf_counter()
        outcomes = list(pool.map(lambda kind: outcome(kind, addresses), kinds[:few]))
        early = resident(process)
        outcomes += pool.map(lambda kind: outcome(kind, addresses), kinds[few:])
        seconds, late = time.perf_counter() - start, resident(process)
    return {
        "requests": count,
        "few": few,
        "seconds": seconds,
        "early": early,
        "late": late,
        "grown": late / early - 1,
        "load_table": load_table(kinds, outcomes),
    }


def load_table(kinds, outcomes) -> str:
    lines = ["| request | protocol | sent | must be | were |", "|---|---|---|---|---|"]
    for name, protocol, is_good in dict.fromkeys((k.name, k.protocol, k.told is None) for k in kinds):
        own = [o for k, o in zip(kinds, outcomes, strict=True) if (k.name, k.protocol) == (name, protocol)]
        told = f"`{name}`" if is_good else name
        must = "right" if is_good else "refused"
        protocol = {"rest": "REST", "grpc": "gRPC"}[protocol]
        lines.append(f"| {told} | {protocol} | {len(own)} | {must} | {sum(own)} |")
    return "\n".join(lines)


# The latency


def latency_table(plain, frozen, runs) -> str:
    lines = [
        "| export | signature | batch | `serving_default` | ratio, median | quartiles |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        program = loader.build(folder)
        for batch in (1, 8):
            for name, version in (("plain", plain), ("frozen", frozen)):
                with loader.load(program, version, folder) as run:
                    for signature, seconds, quartiles in ratios(run, batch, runs):
                        low, median, high = quartiles
                        lines.append(
                            f"| {name} | `{signature}` | {batch} | {1e3 * seconds:.1f} ms | {median:.2f} | "
                            f"{low:.2f} to {high:.2f} |"
                        )
    return "\n".join(lines)


def ratios(run, batch, runs):
    """Yield each signature, the median seconds of `serving_default`, and the ratio's quartiles."""
    pixels = np.stack(
        [tf_gradcam.load_image(each, size=(SIDE, SIDE)) for each in (photographs() * 2)[:batch]]
    )
    files = np.array([encode(".jpg", each) for each in pixels], object)
    calls = {
        "serving_default": {"images": pretrained.preprocess(pixels).numpy()},
        "gradcam": {"images": pixels},
        "gradcam_class": {"images": pixels, "class_index": np.full(batch, 281, np.int32)},
        "gradcam_top_k": {"images": pixels},
        "gradcam_bytes": {"image_bytes": files},
    }

    def seconds(signature):
        run(signature, **calls[signature])
        return run.seconds

    for signature in [*calls] * 3:
        seconds(signature)
    # The baseline before each candidate.
    for signature in list(calls)[1:]:
        pairs = [(seconds("serving_default"), seconds(signature)) for _ in range(runs)]
        yield (
            signature,
            statistics.median(baseline for baseline, _ in pairs),
            statistics.quantiles([candidate / baseline for baseline, candidate in pairs], n=4),
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000, help="in all (default 2000)")
    parser.add_argument("--runs", type=int, default=60, help="interleaved runs of each row (default 60)")
    arguments = parser.parse_args()
    load, model = os.getloadavg()[0], pretrained.efficientnet_lite0()
    options = {"preprocess": pretrained.preprocess, "labels": pretrained.labels(), "top_k": TOP}
    with tempfile.TemporaryDirectory() as folder:
        plain = tf_gradcam.export_gradcam(model, pathlib.Path(folder, NAME), **options)
        frozen = tf_gradcam.export_gradcam(model, pathlib.Path(folder, "frozen"), frozen=True, **options)
        page = PAGE.format(
            date=datetime.date.today().strftime("%-d %B %Y"),
            machine=machine(),
            load=load,
            top=TOP,
            clients=CLIENTS,
            runs=arguments.runs,
            latency_table=latency_table(plain, frozen, arguments.runs),
            **put_under_load(plain.parent, model, arguments.requests),
        )
    (ROOT / "docs" / "serving-load.md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()

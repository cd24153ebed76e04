"""Rates of 1 and 2 workers of Ray, and of this process alone, one core each: for docs/ray.md.

    python benchmarks/ray_rates.py [IMAGES]

Photographs of 640 x 480 pixels in JPEG files, EfficientNet-Lite0, Grad-CAM. A worker is a node of a cluster
on this machine, with one core and one thread. Printed are the time of the whole run with all its starts, and
the rate after the first rows.
"""

import argparse
import functools
import os
import pathlib
import sys
import tempfile
import time

os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
os.environ |= {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": os.pathsep.join(sys.path[1:])}

import cv2
import numpy as np

from tf_gradcam._cli.run import build_in_worker
from tf_gradcam._dataset import DatasetOptions, RowMaker, find_items, run_dataset
from tf_gradcam._ray import RayCluster, run_on_ray

_ASKED = argparse.Namespace(
    model="efficientnet_lite0", preprocess=None, layer=None, call=None, method="gradcam", fuse=None
)


def write_photographs(folder, count):
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = cv2.resize(rng.integers(0, 256, (15, 20, 3), np.uint8), (640, 480))
        cv2.imwrite(f"{folder}/{number:05}.jpg", pixels)


def print_rate(name, run):
    """Run, and print the rate of all rows but the first ones, which wait for the model and its trace."""
    start, arrivals = time.perf_counter(), []
    run(lambda count, failed, before: count and arrivals.append((time.perf_counter(), count)))
    whole, total = time.perf_counter() - start, sum(count for _, count in arrivals)
    (first, before), (last, _) = arrivals[0], arrivals[-1]
    rate = (total - before) / (last - first)
    print(f"{name:12} {total} images in {whole:.1f} s; {rate:.0f} images/s after the first rows", flush=True)


def on_cluster(nodes, items, out, options, advance):
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, **small)
        build = functools.partial(build_in_worker, _ASKED)
        cam, fit = build()
        where = RayCluster(cluster.address, nodes)
        run_on_ray(build, RowMaker(cam, options, fit), items, out, options, where, advance)
    finally:
        cluster.shutdown()


def main():
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        photographs, out = pathlib.Path(folder, "photographs"), pathlib.Path(folder, "rows")
        photographs.mkdir()
        write_photographs(photographs, int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
        items, options = find_items([photographs]).items, DatasetOptions(batch_size=16, restart=True)
        cam, fit = build_in_worker(_ASKED)
        print_rate("this process", lambda advance: run_dataset(cam, items, out, options, fit, advance))
        for nodes in (1, 2):
            print_rate(
                f"{nodes} worker{'s' * (nodes > 1)}",
                lambda advance, nodes=nodes: on_cluster(nodes, items, out, options, advance),
            )


if __name__ == "__main__":
    main()

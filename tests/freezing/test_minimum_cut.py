"""The cheapest cut of a graph, beside all cuts."""

import itertools
import math

import numpy as np
import pytest

from tf_gradcam._freezing.minimum_cut import CutGraph


def price(edges, side):
    return sum(cost for first, second, cost in edges if first in side and second not in side)


@pytest.mark.parametrize("seed", range(20))
def test_no_cut_is_cheaper(seed):
    random = np.random.default_rng(seed)
    places = ["source", *range(6), "sink"]
    edges = [
        (first, second, math.inf if random.random() < 0.1 and (first, second) != ("source", "sink") else cost)
        for first, second in itertools.permutations(places, 2)
        if second != "source" and first != "sink" and random.random() < 0.4
        for cost in [float(random.integers(1, 10))]
    ]
    edges = [(a, b, 3.0 if a == "source" and math.isinf(cost) else cost) for a, b, cost in edges]
    graph = CutGraph()
    for edge in edges:
        graph.add(*edge)
    graph.add("source", "sink", 0.0)
    found = graph.source_side("source", "sink")
    sides = [{"source", *chosen} for count in range(7) for chosen in itertools.combinations(range(6), count)]
    assert "sink" not in found
    assert price(edges, found) == min(price(edges, side) for side in sides)

"""The cheapest division of a graph in two. `half_precision` asks it what to run in half precision."""

import itertools
import math
from collections import deque
from collections.abc import Hashable

_ENOUGH = 1e-9  # Less is the rounding of the sums.


class CutGraph:
    """Places and what it costs to have the first of two on the source's side and the second on the sink's."""

    def __init__(self) -> None:
        self._room: dict[Hashable, dict[Hashable, float]] = {}

    def add(self, first: Hashable, second: Hashable, cost: float = math.inf) -> None:
        """Add to the cost of parting two places."""
        row = self._room.setdefault(first, {})
        row[second] = row.get(second, 0.0) + cost
        self._room.setdefault(second, {}).setdefault(first, 0.0)

    def source_side(self, source: Hashable, sink: Hashable) -> set:
        """Return the places on the source's side of the cheapest cut (Dinic, 1970); it uses the edges up."""
        self._room.setdefault(source, {})
        while sink in (levels := self._levels(source)):
            rows = {place: iter(row) for place, row in self._room.items()}
            while self._push(source, sink, levels, rows):
                pass
        return set(levels)

    def _levels(self, source) -> dict:
        """Return the distance of each place that flow from the source can reach."""
        levels, waiting = {source: 0}, deque([source])
        while waiting:
            place = waiting.popleft()
            for other, room in self._room[place].items():
                if room > _ENOUGH and other not in levels:
                    levels[other] = levels[place] + 1
                    waiting.append(other)
        return levels

    def _push(self, source, sink, levels, rows) -> bool:
        """Send flow along one path that leads away from the source; return whether there was one."""
        path = [source]
        while path[-1] != sink:
            place = path[-1]
            for other in rows[place]:
                if self._room[place][other] > _ENOUGH and levels.get(other) == levels[place] + 1:
                    path.append(other)
                    break
            else:
                if place == source:
                    return False
                path.pop()
                levels[place] = -1
        steps = list(itertools.pairwise(path))
        flow = min(self._room[first][second] for first, second in steps)
        for first, second in steps:
            self._room[first][second] -= flow
            self._room[second][first] += flow
        return True

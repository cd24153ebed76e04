"""What becomes of each call: right, a good error, or one of the faults that a fuzz driver looks for.

The drivers `fuzz_calls`, `fuzz_files` and `fuzz_responses` fill a `Tally`.
"""

import collections
import re
import time
import warnings

FAULTS = ("crashes of ours", "hangs", "silently wrong", "errors that name no argument")


class Tally:
    """Counts of calls, and the text of each fault.

    Args:
        hang: seconds of the processor after which a call counts as a hang. (On a machine with much else to
            do, a call of a second may take ten.)
    """

    def __init__(self, hang=5.0):
        self.hang, self.slowest = hang, 0.0
        self.counts = collections.Counter()
        self.faults = collections.Counter()

    def call(self, name, arguments, function, check=None, documented=(), hang=None):
        """Call a function once, and count what became of it.

        Args:
            name: of the function, for the faults.
            arguments: names of its arguments, one of which an error must name in backticks.
            function: to be called without arguments.
            check: function of the result, which returns what is wrong with it, or `None`.
            documented: further types of errors that the function documents.
            hang: as for all calls, for this call.
        """
        self.counts["calls"] += 1
        begin = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = function()
                wrong = None if check is None else check(result)
            if wrong is None:
                self.counts["right"] += 1
            else:
                self._fault("silently wrong", name, wrong)
        except (ValueError, TypeError) as error:
            named = set(re.findall(r"`(\w+)", str(error))) & set(arguments)
            if named:
                self.counts["errors that name their argument"] += 1
            else:
                self._fault("errors that name no argument", name, f"{type(error).__name__}: {error}")
        except documented:
            self.counts["documented errors of other types"] += 1
        except Exception as error:
            self._fault("crashes of ours", name, f"{type(error).__name__}: {error}")
        seconds = time.process_time() - begin
        self.slowest = max(self.slowest, seconds)
        if seconds > (hang or self.hang):
            self._fault("hangs", name, f"{seconds:.1f} s")

    def _fault(self, kind, name, text):
        self.counts[kind] += 1
        self.faults[f"{kind}: {name}: {' '.join(str(text).split()):.220}"] += 1

    def ended(self, text):
        """Count a call that ended its process."""
        self.counts["calls"] += 1
        self._fault("hangs", "process", text)

    def add(self, other):
        """Add the counts of another tally, as `as_json` returned it."""
        self.counts.update(other["counts"])
        self.faults.update(other["faults"])
        self.slowest = max(self.slowest, other["slowest"])

    def as_json(self):
        return {"counts": self.counts, "faults": self.faults, "slowest": self.slowest}

    def __str__(self):
        faults = {kind: self.counts[kind] for kind in FAULTS}
        counts = {kind: count for kind, count in self.counts.items() if kind not in FAULTS}
        lines = [str({**counts, **faults}), f"slowest call: {self.slowest:.1f} s"]
        return "\n".join([*lines, *(f"{count} x {text}" for text, count in self.faults.most_common(40))])

    @property
    def fault_count(self):
        return sum(self.counts[kind] for kind in FAULTS)

"""When a callback explains: every so many epochs or batches, and not for more than a share of the time.

The callback calls it.
"""

import re
import warnings
from time import perf_counter
from typing import Any

from tf_gradcam._checks import is_whole


def parse_every(every: Any) -> tuple[int, str]:
    """Return how often to explain, a count and its unit, `"epoch"` or `"batch"`.

    Raises:
        ValueError: if it is no such thing.
    """
    if is_whole(every) and every >= 1:
        return int(every), "batch"
    match = re.fullmatch(r"(?:([1-9]\d*) )?epochs?", every) if isinstance(every, str) else None
    if match is None:
        raise ValueError(
            "`every` must be 'epoch', '5 epochs' or a whole number of batches from 1. "
            f"Received: every={every!r:.80}"
        )
    return int(match[1] or 1), "epoch"


class TimeBudget:
    """Keeps the time of explanations below a share of that of training, and warns once if it is not.

    Args:
        share: most seconds of an explanation for each second of training, or `None` for no limit.
    """

    def __init__(self, share: float | None) -> None:
        self.share = share
        self._cost: float | None = None  # of the last explanation, in seconds
        self._warned = False
        self.restart()

    def restart(self) -> None:
        """Begin to count the seconds of training."""
        self._trained_since = perf_counter()

    def forget(self) -> None:
        """Forget what an explanation takes: that of another model takes another time."""
        self._cost = None

    def allows_another(self) -> bool:
        """Return whether an explanation would not exceed the share; warn at the first that would."""
        trained = perf_counter() - self._trained_since
        if self.share is None or self._cost is None or self._cost <= self.share * trained:
            return True
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"Explaining took {self._cost:.3g} s for {trained:.3g} s of training, "
                f"{self._cost / trained:.0%} of it, where `max_share` allows {self.share:.0%}. From now on "
                "as many times are left out as it takes to stay below that, but never the last epoch. "
                "Explain less often (every='5 epochs'), fewer images (count=4) or fewer `metrics`; or set "
                "max_share=None to explain every time.",
                stacklevel=3,
            )
        return False

    def spend(self, begun: float, counts: bool) -> None:
        """Note an explanation.

        Args:
            begun: when it began, by `perf_counter`.
            counts: whether its time says how long the next one will take; with a trace it does not.
        """
        if counts:
            self._cost = perf_counter() - begun
        self.restart()

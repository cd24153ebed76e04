"""How a DICOM file shows its values: its windows and VOI lookup tables, as functions. `reading` calls it."""

import dataclasses
from typing import NamedTuple

import numpy as np

from tf_gradcam.formats._dicom.datasets import Plane, find, numbers
from tf_gradcam.formats._dicom.values import Table, table_of

_VOI = "FrameVOILUTSequence"


@dataclasses.dataclass(frozen=True)
class WindowTone:
    """From values to brightness in `[0, 1]`, as a window and its function say: PS3.3, section C.11.2.1.2.

    Attributes:
        center: of the window.
        width: of the window, above 0.
        function: `"LINEAR"`, `"LINEAR_EXACT"` or `"SIGMOID"`.
        ends: of values that were mirrored, the sum of a value and its mirror image; else `None`.
    """

    center: float
    width: float
    function: str
    ends: float | None

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return the brightness of each value, floating."""
        own = _own(values, self.ends)
        if self.function == "SIGMOID":
            with np.errstate(over="ignore"):
                shown = 1 / (1 + np.exp(-4 * (own - self.center) / self.width))
        elif self.span[0] == self.span[1]:
            shown = (own > self.span[0]).astype(own.dtype)
        else:
            low, high = self.span
            shown = np.clip((own - low) / (high - low), 0, 1)
        return shown if self.ends is None else 1 - shown

    @property
    def span(self) -> tuple[float, float]:
        """The file's own values that become 0 and 1."""
        if self.function == "LINEAR":
            half = (self.width - 1) / 2
            return self.center - 0.5 - half, self.center - 0.5 + half
        return self.center - self.width / 2, self.center + self.width / 2


@dataclasses.dataclass(frozen=True, eq=False)
class TableTone:
    """From values to brightness in `[0, 1]`, as a VOI lookup table says.

    Attributes:
        table: the table.
        ends: as of `WindowTone`.
    """

    table: Table
    ends: float | None

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return the brightness of each value, floating."""
        own = np.clip(np.rint(_own(values, self.ends)), -(2.0**31), 2.0**31)
        shown = self.table.look_up(np.nan_to_num(own)) / (2**self.table.bits - 1)
        shown = np.clip(shown, 0, 1)
        return shown if self.ends is None else 1 - shown

    @property
    def span(self) -> tuple[float, float]:
        """The file's own values that the first and last entry are for."""
        return float(self.table.first), float(self.table.first + len(self.table.entries) - 1)


def _own(values: np.ndarray, ends: float | None) -> np.ndarray:
    """Return the file's own values of values that may be mirrored: float32 where that is exact."""
    own = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    return own if ends is None else ends - own


class Tones(NamedTuple):
    """How a file shows its values; see `Scan`."""

    limits: tuple[float, float] | None
    windows: tuple[tuple[float, float], ...]
    tones: tuple[WindowTone | TableTone, ...]


def tones_of(plane: Plane, dtype: np.dtype, ends: float | None) -> Tones:
    """Return the ways to show a grey plane that its file names, VOI lookup tables first.

    Args:
        plane: the plane.
        dtype: of the values.
        ends: the sum of a value and its mirror image, if values are mirrored; else `None`.

    Raises:
        ValueError: if windows or tables are damaged.
    """
    items = plane.dataset.get("VOILUTSequence") or ()
    tables = [table_of(plane, item, dtype.kind != "u") for item in items]
    tones: list[WindowTone | TableTone] = [TableTone(table, ends) for table in tables]
    windows = [_own_window(tone) for tone in tones]
    centers = numbers(plane, _VOI, "WindowCenter") or ()
    widths = numbers(plane, _VOI, "WindowWidth") or ()
    function = str(find(plane, _VOI, "VOILUTFunction") or "LINEAR")
    for center, width in zip(centers, widths, strict=False):
        if width > 0:  # Others show nothing.
            # LINEAR is for whole numbers: it has no meaning below a width of 1, and at 1 it shows no greys.
            is_narrow = width < 1 or (width == 1 and dtype.kind == "f")
            exact = "LINEAR_EXACT" if function == "LINEAR" and is_narrow else function
            tones.append(WindowTone(center, width, exact, ends))
            windows.append((center if ends is None else ends - center, width))
    limits = _limits(tones[0]) if tones else None
    return Tones(limits, tuple(windows), tuple(tones))


def _own_window(tone: WindowTone | TableTone) -> tuple[float, float]:
    low, high = _limits(tone)
    return (low + high) / 2, high - low


def _limits(tone) -> tuple[float, float]:
    """Return the values that become black and white."""
    low, high = tone.span
    if tone.ends is not None:
        low, high = tone.ends - high, tone.ends - low
    return (low, high) if high > low else (low - 0.5, low + 0.5)

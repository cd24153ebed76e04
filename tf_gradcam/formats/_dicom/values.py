"""Stored pixels of a DICOM image to the values that they mean: rescale, lookup tables, palettes, padding.

`reading` calls it.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam._optional import require
from tf_gradcam.formats._dicom.datasets import Plane, find, numbers, quiet, sequence, unreadable

_PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_WHOLE = [np.dtype(name) for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64")]
_EXACT = 2**62  # whole numbers below it can be computed in int64


class Table(NamedTuple):
    """A lookup table of a file: PS3.3, section C.11.1.1.1.

    Attributes:
        first: the value that the first entry is for; lower ones take it, too.
        entries: `(n,)`.
        bits: of an entry.
    """

    first: int
    entries: np.ndarray
    bits: int

    def look_up(self, values: np.ndarray) -> np.ndarray:
        """Return the entry for each value."""
        index = np.clip(values.astype(np.int64) - self.first, 0, len(self.entries) - 1)
        return self.entries[index]


class Modality(NamedTuple):
    """From stored pixels of a plane to the values that they mean.

    Attributes:
        dtype: of the values, wide enough for all that the stored bits can hold.
        stored: the lowest and highest number that the stored bits can hold; `None` of floating pixels.
        slope: what stored pixels are multiplied by.
        intercept: what is added.
        table: a table instead of slope and intercept.
    """

    dtype: np.dtype
    stored: tuple[int, int] | None
    slope: float
    intercept: float
    table: Table | None

    @property
    def ends(self) -> float | None:
        """The sum of the values at the two ends of the stored bits; `None` of floating pixels."""
        if self.stored is None:
            return None
        if self.table is not None:
            return float(2**self.table.bits - 1)
        return sum(self.stored) * self.slope + 2 * self.intercept

    def values(self, stored: np.ndarray, negative: bool) -> np.ndarray:
        """Return what stored pixels mean; with `negative` mirrored within the range of the stored bits."""
        if self.table is not None:
            found = self.table.look_up(stored)
            return (int(self.ends or 0) - found.astype(np.int64)).astype(self.dtype) if negative else found
        is_plain = self.slope == 1 and self.intercept == 0 and not negative
        if is_plain:
            return stored.astype(self.dtype, copy=False)
        if self.dtype.kind == "f":
            found = stored * np.float64(self.slope) + np.float64(self.intercept)
            return (self.ends or 0.0) - found if negative else found
        found = stored.astype(np.int64) * int(self.slope) + int(self.intercept)
        return (int(self.ends or 0) - found if negative else found).astype(self.dtype)


def table_of(plane: Plane, item: Any, is_signed: bool) -> Table:
    """Return the lookup table that an item of a sequence holds, for values with a sign or without."""
    return _make_table(plane, item.get("LUTDescriptor"), item.get("LUTData"), is_signed)


def _make_table(plane, descriptor, data, is_signed) -> Table:
    """Return a lookup table from its descriptor `(entries, first value, bits)` and its data.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        count, first, bits = (int(each) for each in descriptor)
        count = count % 2**16 or 2**16
        if isinstance(data, bytes):
            is_narrow = len(data) < 2 * count
            # Words are in the order of the file; 8-bit entries are two in a word of a little-endian file.
            order = ">" if _is_big_endian(plane) else "<"
            entries = np.frombuffer(data, np.uint8 if is_narrow else f"{order}u2")
        else:
            entries = np.atleast_1d(np.asarray(data, np.int64))
        if first >= 2**15 and is_signed:
            first -= 2**16
        entries = entries[:count].astype(np.uint16)
        is_right = len(entries) == count and 1 <= bits <= 16
    except (TypeError, ValueError, OverflowError):
        is_right = False
    if not is_right:
        raise unreadable(plane.path, "a DICOM file in order", "whose lookup table is damaged.")
    return Table(first, entries, bits)


def _is_big_endian(plane) -> bool:
    return plane.dataset.original_encoding[1] is False


def _is_signed(plane) -> bool:
    return plane.dataset.get("PixelRepresentation") == 1


def kind_of(plane: Plane) -> str:
    """Return `"grey"`, `"colour"`, `"palette"` or `"floating"`, or say that pixels are of no known kind."""
    dataset = plane.dataset
    photometric = str(dataset.get("PhotometricInterpretation") or "")
    (samples,) = numbers(plane, "", "SamplesPerPixel", 1) or (1,)
    (allocated,), (stored,), (high,) = (
        numbers(plane, "", name, 1) or (None,) for name in ("BitsAllocated", "BitsStored", "HighBit")
    )
    if stored is None and photometric in _GREY and allocated in (32, 64):
        return "floating"  # They have no Bits Stored: PS3.3, section C.7.6.24.
    if stored is None or allocated not in (1, 8, 16, 32) or stored not in range(1, int(allocated) + 1):
        raise unreadable(
            plane.path,
            "an image",
            f"with {stored or 0:g} bits stored in {allocated or 0:g}: unknown or damaged.",
        )
    if high is not None and high != stored - 1:
        raise unreadable(
            plane.path, f"an image with high bit {stored - 1:g}", f"with high bit {high:g}, which is retired."
        )
    if samples == 1 and photometric in _GREY:
        return "grey"
    if samples == 1 and photometric == "PALETTE COLOR":
        return "palette"
    if samples == 3 and photometric in _COLOURS:
        return "colour"
    raise unreadable(
        plane.path,
        f"an image of {', '.join((*_GREY, 'PALETTE COLOR', *_COLOURS))}",
        f"with {samples:g} samples of {photometric or 'no photometric interpretation'}.",
    )


def stored_range(plane: Plane) -> tuple[int, int]:
    """Return the lowest and highest number that the stored bits can hold."""
    bits = int(plane.dataset.BitsStored)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if _is_signed(plane) else (0, 2**bits - 1)


def modality_of(plane: Plane, kind: str) -> Modality:
    """Return the modality step of a grey or floating plane.

    Raises:
        ValueError: if its slope or table is damaged.
    """
    ends = stored_range(plane) if kind == "grey" else None
    table = _table(plane)
    if table is not None:
        return Modality(table.entries.dtype, ends, 1.0, 0.0, table)
    slope, intercept = _line(plane)
    if not slope:
        raise unreadable(plane.path, "an image", "whose rescale slope is 0.")
    if ends is None:
        name = "float32" if plane.dataset.BitsAllocated == 32 else "float64"
        is_same = slope == 1 and intercept == 0
        return Modality(np.dtype(name if is_same else "float64"), None, slope, intercept, None)
    return Modality(_dtype(ends, slope, intercept), ends, slope, intercept, None)


def _dtype(ends, slope, intercept) -> np.dtype:
    """Return the smallest dtype of whole numbers that holds all that can occur, else float64."""
    if not (slope.is_integer() and intercept.is_integer()):
        return np.dtype(np.float64)
    if abs(slope) * 2**33 + abs(intercept) > _EXACT:
        return np.dtype(np.float64)
    reached = [end * int(slope) + int(intercept) for end in ends]
    for dtype in _WHOLE:
        limits = np.iinfo(dtype)
        # A single byte with a sign is rare: no library of photographs or models expects it.
        if dtype != np.int8 and limits.min <= min(reached) and max(reached) <= limits.max:
            return dtype
    return np.dtype(np.float64)


def _table(plane) -> Table | None:
    item = plane.dataset.get("ModalityLUTSequence")
    return table_of(plane, item[0], _is_signed(plane)) if item else None


def _line(plane) -> tuple[float, float]:
    """Return slope and intercept: of a parametric map the real-world ones, else the rescale ones."""
    if plane.dataset.get("SOPClassUID") == _PARAMETRIC_MAP:
        item = sequence(plane, "RealWorldValueMappingSequence")
        if item is not None and item.get("RealWorldValueSlope") is not None:
            slope, intercept = (
                float(item.RealWorldValueSlope),
                float(item.get("RealWorldValueIntercept") or 0),
            )
            if math.isfinite(slope) and math.isfinite(intercept):
                return slope, intercept
    dose = numbers(plane, "", "DoseGridScaling", 1)
    if dose is not None:
        return dose[0], 0.0
    macro = "PixelValueTransformationSequence"
    (slope,) = numbers(plane, macro, "RescaleSlope", 1) or (1.0,)
    (intercept,) = numbers(plane, macro, "RescaleIntercept", 1) or (0.0,)
    return slope, intercept


def is_padding(plane: Plane, stored: np.ndarray) -> np.ndarray | None:
    """Return where stored pixels of one sample are padding, or NaN, as a mask; `None` if none is."""
    is_floating = stored.dtype.kind == "f"
    kind = "" if not is_floating else "Float" if stored.dtype == np.float32 else "DoubleFloat"
    mask = np.isnan(stored) if is_floating else np.zeros(stored.shape, bool)
    first = numbers(plane, "", f"{kind}PixelPaddingValue", 1)
    last = numbers(plane, "", f"{kind}PixelPaddingRangeLimit", 1) or first
    if first is not None and last is not None:
        ends = (first[0], last[0]) if is_floating else (_signed(plane, first[0]), _signed(plane, last[0]))
        mask |= (stored >= min(ends)) & (stored <= max(ends))
    return mask if mask.any() else None


def _signed(plane, value) -> int:
    """Return a whole number as pixels have it: padding is often written with the wrong sign."""
    bits = int(plane.dataset.BitsAllocated)
    number = int(value) % 2**bits
    return number - 2**bits if _is_signed(plane) and number >= 2 ** (bits - 1) else number


def palette_colours(plane: Plane, stored: np.ndarray) -> np.ndarray:
    """Return the RGB colours of stored pixels `(..., 1)` as the file's palette has them: uint8 or uint16.

    Raises:
        ValueError: if the palette is missing or damaged.
    """
    colours = []
    for colour in ("Red", "Green", "Blue"):
        descriptor = plane.dataset.get(f"{colour}PaletteColorLookupTableDescriptor")
        data = plane.dataset.get(f"{colour}PaletteColorLookupTableData")
        if data is None:
            return _segmented_colours(plane, stored)
        colours.append(_make_table(plane, descriptor, data, _is_signed(plane)))
    narrow = _as_bytes([table.entries for table in colours])
    if narrow is not None:
        colours = [table._replace(entries=entries) for table, entries in zip(colours, narrow, strict=True)]
    return np.stack([table.look_up(stored[..., 0]) for table in colours], axis=-1)


def _as_bytes(palettes: list[np.ndarray]) -> list[np.ndarray] | None:
    """Return the entries of palettes as uint8, if no more than 8 bits are in them; else `None`.

    Many palettes of 16 bits hold 8 bits, shifted or repeated.
    """
    if all(entries.max() < 256 for entries in palettes):
        return [entries.astype(np.uint8) for entries in palettes]
    shifted = all((entries & 255 == 0).all() for entries in palettes)
    repeated = all((entries % 257 == 0).all() for entries in palettes)
    return [(entries >> 8).astype(np.uint8) for entries in palettes] if shifted or repeated else None


def _segmented_colours(plane, stored) -> np.ndarray:
    """Return the colours of a palette in segments, which pydicom expands."""
    count, _, bits = plane.dataset.get("RedPaletteColorLookupTableDescriptor") or (0, 0, 0)
    if bits == 8 and not 0 < count <= 256:  # pydicom 3.0 finds only the first 256 of them.
        raise unreadable(plane.path, "an image in colours", f"whose palette has {count} entries of 8 bits.")
    pixels = require("pydicom.pixels", "pydicom", extra="dicom")
    try:
        with quiet():
            return np.asarray(pixels.apply_color_lut(stored[..., 0], plane.dataset))[..., :3]
    except Exception:
        raise unreadable(plane.path, "an image in colours", "whose palette is missing or damaged.") from None


def has_inverse_shape(plane: Plane) -> bool:
    """Return whether the file asks to show the negative of its values."""
    return find(plane, "", "PresentationLUTShape") == "INVERSE"

"""Make pixels for people to look at of values in any range: `make_pixels`, `to_pixels`.

`formats` calls it for what a scan holds, and `_images` for files and arrays of more than 8 bits.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam._arrays import array_or_empty

_PERCENTILES = (1.0, 99.0)  # of values that have no range of their own
_SAMPLED = 4_000_000  # values for percentiles, at most: more change nothing that can be seen


class PictureOptions(NamedTuple):
    """How values become pixels; see `tf_gradcam.formats.Scan.picture`."""

    window: Any = None
    limits: Any = None
    percentiles: Any = None
    bands: Any = None


class OwnRange(NamedTuple):
    """What a file says of its own display.

    Attributes:
        limits: black and white.
        windows: `(center, width)` of each of its windows.
        tones: for each window a function from values to brightness in `[0, 1]`, or `()` where all are linear.
        negative: whether low values are bright.
    """

    limits: tuple[float, float] | None = None
    windows: tuple[tuple[float, float], ...] = ()
    tones: tuple[Callable[[np.ndarray], np.ndarray], ...] = ()
    negative: bool = False


def make_pixels(
    values: np.ndarray, valid: np.ndarray | None, options: PictureOptions, own: OwnRange
) -> np.ndarray:
    """Return values `(..., C)` as uint8 `(..., 3)`; see `tf_gradcam.formats.Scan.picture`.

    Args:
        values: any real numbers.
        valid: `(...)` bool, where they were measured; or `None`.
        options: how.
        own: the file's own range, for the default.
    """
    shown = take_bands(values, options.bands)
    tone = _own_tone(options, own)
    if tone is not None:
        pixels = to_pixels(tone(shown), 0.0, 1.0)
    else:
        pixels = to_pixels(shown, *_limits(shown, valid, options, own))
    if own.negative:
        pixels = 255 - pixels
    if valid is not None:
        pixels[~valid] = 0
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def fix_limits(
    values: np.ndarray, valid: np.ndarray | None, options: PictureOptions, own: OwnRange
) -> PictureOptions:
    """Return options that show any values as `make_pixels` shows these, with the same black and white."""
    if options.window is not None or _own_tone(options, own) is not None:
        return options
    limits = _limits(take_bands(values, options.bands), valid, options, own)
    return options._replace(limits=limits, percentiles=None)


def to_pixels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map `low` to 0 and `high` to 255, evenly in between, clipped and rounded, to uint8; NaN becomes 0."""
    is_narrow = values.dtype.itemsize <= 2 or values.dtype == np.float32
    is_usual = 1e-30 < high - low < 1e30  # else float32 would make it 0 or infinite
    wide = values.astype(np.float32 if is_narrow and is_usual else np.float64)
    if values.dtype.kind == "f":
        wide = np.nan_to_num(wide, nan=low, posinf=high, neginf=low)
    with np.errstate(over="ignore"):  # far outside of narrow limits; it is clipped
        return np.rint(np.clip((wide - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _limits_of_window(window: Any) -> tuple[float, float]:
    """Return the lowest and highest value of a window `(center, width)`, or raise a `ValueError`."""
    center, width = _two_numbers("window", window, "(center, width), two finite numbers with width > 0")
    if not width > 0:
        raise ValueError(f"`window` must be (center, width), with width > 0. Received: window={window!r:.80}")
    return center - width / 2, center + width / 2


def _checked_limits(limits: Any) -> tuple[float, float]:
    """Return `limits` as two floats in order, or raise a `ValueError`."""
    rule = "(low, high), two finite numbers with low < high"
    low, high = _two_numbers("limits", limits, rule)
    if not (low < high and np.isfinite(high - low)):
        raise ValueError(f"`limits` must be {rule}. Received: limits={limits!r:.80}")
    return low, high


def _two_numbers(name: str, value: Any, rule: str) -> tuple[float, float]:
    """Return two finite floats, or raise a `ValueError` that names the argument and its rule."""
    numbers = array_or_empty(value)
    if numbers.shape != (2,) or numbers.dtype.kind == "b" or not np.isfinite(numbers).all():
        raise ValueError(f"`{name}` must be {rule}. Received: {name}={value!r:.80}")
    first, second = map(float, numbers)
    return first, second


def _only_one(options: PictureOptions) -> None:
    """Raise a `ValueError` if more than one way to choose black and white is given."""
    given = [name for name in ("window", "limits", "percentiles") if getattr(options, name) is not None]
    if len(given) > 1:
        raise ValueError(f"Give one of `window`, `limits` and `percentiles`. Received: {', '.join(given)}")


def _percentile_limits(values: np.ndarray, percentiles: Any) -> tuple[float, float]:
    """Return two percentiles of finite values, as limits that differ; `(0, 1)` where no value is finite."""
    rule = "(low, high), two numbers with 0 <= low < high <= 100"
    low, high = _two_numbers("percentiles", percentiles, rule)
    if not 0 <= low < high <= 100:
        raise ValueError(f"`percentiles` must be {rule}. Received: percentiles={percentiles!r:.80}")
    flat = values.ravel()
    flat = flat[:: max(1, len(flat) // _SAMPLED)].astype(np.float64)
    flat = flat[np.isfinite(flat)]
    if not len(flat):
        return 0.0, 1.0
    first, last = (float(limit) for limit in np.percentile(flat, (low, high)))
    return first, last if last > first else first + 1


def _own_tone(options, own) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return the function of the file's window that is meant, if it is the file's and has one."""
    is_own = isinstance(options.window, int | np.integer) and not isinstance(options.window, bool)
    _only_one(options)
    if not own.tones or (not is_own and any(each is not None for each in options[:3])):
        return None
    _window(options.window if is_own else 0, own.windows)
    return own.tones[options.window if is_own else 0]


def _limits(shown, valid, options, own) -> tuple[float, float]:
    """Return the values that become black and white."""
    _only_one(options)
    if options.window is not None:
        return _limits_of_window(_window(options.window, own.windows))
    if options.limits is not None:
        return _checked_limits(options.limits)
    measured = shown if valid is None else shown[valid]
    if options.percentiles is not None:
        return _percentile_limits(measured, options.percentiles)
    if own.limits is not None:
        return own.limits
    if shown.dtype == np.uint8:
        return 0.0, 255.0
    if shown.dtype.kind == "b":
        return 0.0, 1.0
    if shown.dtype.kind == "f" and measured.size and measured.min() >= 0 and measured.max() <= 1:
        return 0.0, 1.0
    return _percentile_limits(measured, _PERCENTILES)


def _window(window, windows) -> Any:
    """Return the window that is meant, one of the file's own where `window` is a number."""
    if not isinstance(window, int | np.integer) or isinstance(window, bool):
        return window
    if not 0 <= window < len(windows):
        raise ValueError(
            f"`window` must be (center, width), or the number of one of the file's {len(windows)} "
            f"windows, from 0. Received: window={window!r:.80}"
        )
    return windows[window]


def take_bands(values: np.ndarray, bands: Any) -> np.ndarray:
    """Return the channels of `(..., C)` that are red, green and blue, or the one that is grey.

    Args:
        values: `(..., C)`.
        bands: three numbers from 1, or one; `None` for the first three, or the first of fewer.
    """
    count = values.shape[-1]
    if bands is None:
        return values[..., : 3 if count >= 3 else 1]
    numbers = array_or_empty(bands)
    is_list = numbers.ndim == 1 and len(numbers) in (1, 3) and numbers.dtype.kind in "iu"
    if not is_list or not (numbers.min() >= 1 and numbers.max() <= count):
        raise ValueError(
            f"`bands` must be one or three numbers of bands from 1 to {count}. Received: bands={bands!r:.80}"
        )
    return values[..., numbers.astype(int) - 1]

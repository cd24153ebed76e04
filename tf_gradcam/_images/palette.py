"""Colour tables of 256 colours: OpenCV's by name, and a diverging one of our own for signed maps.

Whatever draws a heatmap calls it.
"""

import functools
from typing import Any

import numpy as np

from tf_gradcam._checks import did_you_mean
from tf_gradcam._optional import require

# Chosen by looking at jet, turbo, inferno, magma, plasma, viridis and cividis over a cat, a red cup, an
# orange flower, a grey scene, a page of text, a rocket at dusk and a CT. Its lightness grows evenly with the
# value, so that a step in the heatmap looks as large anywhere; that of jet and turbo falls again towards red.
# Inferno and magma end near white, lost on a bright photograph, and begin in black, which looks like shadow;
# cividis vanishes on grey. Viridis is as even, and the better one over red and orange.
HEAT_COLORS = "plasma"
SIGNED_COLORS = "blue_red"
_OWN = (SIGNED_COLORS,)
# In OKLab: lightness, green to red, blue to yellow. Both ends are as far from white, and as dark.
_BLUE, _WHITE, _RED = (0.50, -0.04, -0.21), (0.98, 0.0, 0.0), (0.50, 0.19, 0.09)


def colormap_colors(colormap: str) -> np.ndarray:
    """Return the 256 colours of a colour map, `(256, 3)` uint8 RGB.

    Args:
        colormap: OpenCV's name of it in any case, or `"blue_red"`.
    """
    cv2 = require("cv2", "opencv-python")
    if not isinstance(colormap, str):
        raise TypeError(f"`colormap` must be a name. Received: colormap={colormap!r:.80}")
    if colormap.lower() in _OWN:
        return _blue_red()
    code = getattr(cv2, f"COLORMAP_{colormap.upper()}", None)
    if code is None:
        known = [*(name[9:].lower() for name in dir(cv2) if name.startswith("COLORMAP_")), *_OWN]
        raise ValueError(
            f"`colormap` must be one of {', '.join(known)}. Received: colormap={colormap!r}. "
            f"{did_you_mean(colormap, known)}".rstrip()
        )
    levels = np.arange(256, dtype=np.uint8)[None]
    return cv2.cvtColor(cv2.applyColorMap(levels, code), cv2.COLOR_BGR2RGB)[0]


@functools.cache
def _blue_red() -> np.ndarray:
    """Blue through white to red, straight lines in OKLab: equal steps of the value are equal to the eye.

    Source: Ottosson, "A perceptual color space for image processing", 2020.
    """
    place = np.linspace(-1, 1, 256)[:, None]
    ends = np.where(place < 0, _BLUE, _RED)
    lab = _WHITE + np.abs(place) * (ends - np.array(_WHITE))
    to_cones = np.array([[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728]])
    to_cones = np.vstack([to_cones, [1, -0.0894841775, -1.2914855480]])
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip((lab @ to_cones.T) ** 3 @ to_rgb.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)  # sRGB
    colors = np.rint(255 * encoded).astype(np.uint8)
    colors.flags.writeable = False
    return colors


def signed_or_heat(colormap: Any, signed: bool) -> Any:
    """Return the colour map that `None` stands for, or the one that was given."""
    if colormap is not None:
        return colormap
    return SIGNED_COLORS if signed else HEAT_COLORS

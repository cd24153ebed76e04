"""`Explanation`, the result of an explainer, with its `repr`, `overlay` and `show`. Public at top level.

`_explain` fills it with tensors, `_runtimes` with arrays. It never imports TensorFlow.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tf_gradcam._images import ALPHA, Look, overlay_named, show_named

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_SHOWN = 6  # Numbers of a score or target in one line.


class Explanation(NamedTuple):
    """The result of a `GradCAM`: tensors on the model's device. Of a file that was loaded: NumPy arrays.

    `(h, w)` stands for the layer's grid, `(H, W)` for the heatmap's size: one length for a signal, three for
    a volume or video. If several scores are explained for each image, as with `targets.Classes`, the first
    four attributes have an axis for them after the batch axis. If the model gives one answer for all images
    of a batch, as for a bag of patches, score, target and outputs have one row, and the heatmaps one scale.

    Attributes:
        heatmap: `(N, H, W)` float32 in `[0, 1]`: ReLU of the map, resized, divided by its maximum; for
            several layers their fused heatmaps.
        map: `(N, h, w)` float32 (float64 for a float64 model), signed and unscaled, on the layer's grid, or
            on the image for a method without a layer; for several layers a tuple of maps.
        score: `(N,)`, the score that was explained; for a class, its logit.
        target: `(N,)` int32, the class that was explained, or `None` if the target is not a class.
        outputs: outputs of the model.
        heatmaps: a tuple with the heatmap of each layer.

    A file with several layers holds their fused heatmap alone: `map` is `None` and `heatmaps` is empty.
    """

    heatmap: Any  # A tensor or an array, as the others.
    map: Any  # Or a tuple of them.
    score: Any
    target: Any | None
    outputs: Any
    heatmaps: tuple[Any, ...]

    def __repr__(self) -> str:
        """Return shapes, ranges, target and score in at most six lines."""
        lines = [
            "Explanation(",
            f"  heatmap: {_summary(self.heatmap)}",
            f"  map: {_summary(self.map)}",
            f"  score: {_first_numbers(self.score)}, target: {_first_numbers(self.target)}",
            f"  outputs: {_summary(self.outputs)}",
            ")",
        ]
        return "\n".join(lines)

    def overlay(
        self,
        photograph: Any,
        *,
        vmax: float | str | None = None,
        signed: bool = False,
        alpha: float = ALPHA,
        colormap: str | None = None,
        fade: bool = True,
    ) -> np.ndarray:
        """Lay the heatmap of one image over its photograph.

        Args:
            photograph: a photograph in any form that `load_image` takes.
            vmax: the value of `map` that gets the full colour; see `tf_gradcam.overlay`.
            signed: whether what speaks against is drawn as well; see `tf_gradcam.overlay`.
            alpha: weight of the colours in `[0, 1]`; see `tf_gradcam.overlay`.
            colormap: name of a colour map; see `tf_gradcam.overlay`.
            fade: whether the colours fade with the heatmap; see `tf_gradcam.overlay`.

        Returns:
            uint8 array `(H, W, 3)`, RGB, of the photograph's height and width.

        Raises:
            ImportError, FileNotFoundError, TypeError, ValueError: as `tf_gradcam.overlay` does.
        """
        return overlay_named("photograph", photograph, self, Look(vmax, signed, alpha, colormap, fade))

    def show(
        self,
        photograph: Any,
        *,
        titles: str | Sequence[str] | None = None,
        labels: Sequence[str] | Mapping[int, str] | None = None,
        vmax: float | str | None = None,
        signed: bool = False,
        alpha: float = ALPHA,
        colormap: str | None = None,
        fade: bool = True,
    ) -> "Figure":
        """Draw photographs, heatmaps and overlays side by side.

        Args:
            photograph: one photograph, or a list of N, in any form that `load_image` takes.
            titles: one string for each row; see `tf_gradcam.show`.
            labels: the names of the classes; see `tf_gradcam.show`.
            vmax: the value of `map` that gets the full colour; see `tf_gradcam.show`.
            signed: whether what speaks against is drawn as well; see `tf_gradcam.overlay`.
            alpha: weight of the colours in `[0, 1]`; see `tf_gradcam.overlay`.
            colormap: name of a colour map; see `tf_gradcam.overlay`.
            fade: whether the colours fade with the heatmap; see `tf_gradcam.overlay`.

        Returns:
            A `matplotlib.figure.Figure`; see `tf_gradcam.show`.

        Raises:
            ImportError, FileNotFoundError, TypeError, ValueError: as `tf_gradcam.show` does.
        """
        look = Look(vmax, signed, alpha, colormap, fade)
        return show_named("photograph", photograph, self, titles, labels, look)


def _summary(values) -> str:
    """Return the shape of each tensor in `values`, and its range unless it is symbolic."""
    texts = []
    for tensor in _leaves(values):
        text = str(tuple(tensor.shape))
        array = _numbers(tensor)
        if array is not None and array.dtype.kind not in "biu" and array.size:
            text += f" from {array.min():.4g} to {array.max():.4g}"
        texts.append(text)
    return "; ".join(texts[:3] + ["..."] * (len(texts) > 3)) or "None"


def _first_numbers(values) -> str:
    """Return the first numbers of a tensor, or its shape if it is symbolic."""
    array = None if values is None else _numbers(values)
    if array is None:
        return "None" if values is None else str(tuple(values.shape))
    flat = array.ravel()
    shown = [f"{number:.4g}" if flat.dtype.kind == "f" else str(number) for number in flat[:_MAX_SHOWN]]
    return f"[{', '.join(shown)}{', ...' if len(flat) > _MAX_SHOWN else ''}]"


def _leaves(values) -> Iterator[Any]:
    """Yield the tensors or arrays in nested tuples, lists and dicts, those of a dict by its keys' order."""
    if isinstance(values, Mapping):
        for key in sorted(values):
            yield from _leaves(values[key])
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _leaves(value)
    elif values is not None:
        yield values


def _numbers(values) -> np.ndarray | None:
    """Return the numbers of a tensor or an array; `None` for a tensor that is symbolic."""
    if isinstance(values, np.ndarray | np.generic):
        return np.asarray(values)
    return values.numpy() if hasattr(values, "numpy") else None

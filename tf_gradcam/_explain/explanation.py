"""What an explainer answers, and how it looks: printed, laid over a photograph, drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._images import overlay as draw_overlay
from tf_gradcam._images import show as draw_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_SHOWN = 6  # numbers of a score or target in one line


class Explanation(NamedTuple):
    """The answer of a `GradCAM`: tensors, on the model's device.

    `(h, w)` stands for the layer's grid, `(H, W)` for the heatmap's size: one length for a signal, three for
    a volume or video. Where several scores are explained for each image, as `targets.Classes` asks for, each
    of the first four has an axis for them after the batch.

    Attributes:
        heatmap: `(N, H, W)` float32 in `[0, 1]`: ReLU of the map, resized, divided by its maximum; for
            several layers their heatmaps in one.
        map: `(N, h, w)` float32 (float64 where the model is), signed and unscaled, on the layer's own grid,
            or on the image where the method explains at the image; for several layers a tuple of them.
        score: `(N,)`, the score that was explained; for a class, its logit.
        target: `(N,)` int32, the class that was explained, or `None` where the target is no class.
        outputs: what the model returned.
        heatmaps: a tuple with the heatmap of each layer.
    """

    heatmap: tf.Tensor
    map: Any  # a tensor, or a tuple of them
    score: tf.Tensor
    target: tf.Tensor | None
    outputs: Any
    heatmaps: tuple[tf.Tensor, ...]

    def __repr__(self) -> str:
        """Return shapes, ranges, target and score in at most six lines."""
        lines = [
            "Explanation(",
            f"  heatmap: {_summary(self.heatmap)}",
            f"  map: {_summary(self.map)}",
            f"  score: {_numbers(self.score)}, target: {_numbers(self.target)}",
            f"  outputs: {_summary(self.outputs)}",
            ")",
        ]
        return "\n".join(lines)

    def overlay(
        self, photograph: Any, *, alpha: float = 0.4, colormap: str = "jet", fade: bool = False
    ) -> np.ndarray:
        """Lay the heatmap of one image over its photograph.

        Args:
            photograph: whatever `load_image` takes.
            alpha: weight of the colours in `[0, 1]`; see `tf_gradcam.overlay`.
            colormap: name of an OpenCV colour map; see `tf_gradcam.overlay`.
            fade: whether the colours fade with the heatmap; see `tf_gradcam.overlay`.

        Returns:
            uint8 array `(H, W, 3)`, RGB, of the photograph's height and width.

        Raises:
            ImportError, FileNotFoundError, TypeError, ValueError: as `tf_gradcam.overlay` does.
        """
        return draw_overlay(photograph, self, alpha=alpha, colormap=colormap, fade=fade)

    def show(
        self,
        photograph: Any,
        *,
        titles: str | list[str] | None = None,
        labels: Sequence[str] | None = None,
        alpha: float = 0.4,
        colormap: str = "jet",
        fade: bool = False,
    ) -> "Figure":
        """Draw photographs, heatmaps and overlays side by side.

        Args:
            photograph: one, or a list of N; whatever `load_image` takes.
            titles: one string for each row; see `tf_gradcam.show`.
            labels: the names of the classes; see `tf_gradcam.show`.
            alpha: weight of the colours in `[0, 1]`; see `tf_gradcam.overlay`.
            colormap: name of an OpenCV colour map; see `tf_gradcam.overlay`.
            fade: whether the colours fade with the heatmap; see `tf_gradcam.overlay`.

        Returns:
            A `matplotlib.figure.Figure`; see `tf_gradcam.show`.

        Raises:
            ImportError, FileNotFoundError, TypeError, ValueError: as `tf_gradcam.show` does.
        """
        return draw_figure(
            photograph, self, titles=titles, labels=labels, alpha=alpha, colormap=colormap, fade=fade
        )


def _summary(values) -> str:
    """Return the shape of each tensor in `values`, and the range of its numbers where they are known."""
    found = []
    for each in keras.tree.flatten(values):
        if each is None:
            continue
        text = str(tuple(each.shape))
        if hasattr(each, "numpy") and each.dtype.is_floating and 0 not in each.shape:
            text += f" from {tf.reduce_min(each).numpy():.4g} to {tf.reduce_max(each).numpy():.4g}"
        found.append(text)
    return "; ".join(found[:3] + ["..."] * (len(found) > 3)) or "None"


def _numbers(values) -> str:
    if values is None or not hasattr(values, "numpy"):
        return "None" if values is None else str(tuple(values.shape))
    flat = values.numpy().ravel()
    shown = [f"{each:.4g}" if flat.dtype.kind == "f" else str(each) for each in flat[:_MOST_SHOWN]]
    return f"[{', '.join(shown)}{', ...' if len(flat) > _MOST_SHOWN else ''}]"

"""How far an explainer in half precision is from float32 on given images. `GradCAM.check` returns it."""

from typing import NamedTuple

import numpy as np

from tf_gradcam._explanation import Explanation


class PrecisionCheck(NamedTuple):
    """How far explanations in half precision are from those in float32, on the images that were given.

    Attributes:
        images: number of images.
        heatmap: greatest difference of two heatmaps in one pixel, in `[0, 1]`, over the images whose class
            did not change.
        score: greatest difference of two scores of the same class, in the score's unit.
        relative_score: that difference in parts of the largest absolute score.
        changed_classes: number of images whose explained class is another one.
        moved_peaks: number of images of the same class on whose heatmap the maximum is in another pixel.
        peak_heat: smallest value of a float32 heatmap where the other has its maximum; 1 if none moved.
    """

    images: int
    heatmap: float
    score: float
    relative_score: float
    changed_classes: int
    moved_peaks: int
    peak_heat: float

    def __repr__(self) -> str:
        """Return the differences in sentences."""
        count = self.images
        peak = "" if self.moved_peaks == 0 else f", to where float32 has {self.peak_heat:.2f} of it or more"
        return (
            f"Half precision beside float32, on {count} image{'s' if count != 1 else ''}:\n"
            f"  The heatmaps differ by {self.heatmap:.4f} of their maximum at most.\n"
            f"  The scores differ by {self.score:.3g} at most, {self.relative_score:.2%} of the largest.\n"
            f"  The class is another one in {self.changed_classes} of {count}.\n"
            f"  The peak of the heatmap moved in {self.moved_peaks} of {count}{peak}."
        )


def compare_explanations(half: Explanation, full: Explanation) -> PrecisionCheck:
    """Return how far `half` is from `full`, explanations of the same images."""
    scores = [np.asarray(one.score, "float64") for one in (half, full)]
    axes = scores[1].ndim  # The batch axis, and the axis of several scores.
    heatmaps = [np.asarray(one.heatmap, "float64") for one in (half, full)]
    flat = [each.reshape(*each.shape[:axes], -1) for each in heatmaps]
    is_same = np.full(scores[1].shape, True)
    if full.target is not None:
        is_same &= np.asarray(half.target) == np.asarray(full.target)
    score = float(np.abs(scores[0] - scores[1])[is_same].max(initial=0.0))
    largest = float(np.abs(scores[1]).max(initial=0.0))
    is_same = np.broadcast_to(is_same, flat[0].shape[:-1])  # A score may be the answer for all images.
    peaks = [each.argmax(-1) for each in flat]
    is_moved = is_same & (peaks[0] != peaks[1])
    heat = np.take_along_axis(flat[1], peaks[0][..., None], -1)[..., 0]
    return PrecisionCheck(
        images=len(is_same),
        heatmap=float(np.abs(flat[0] - flat[1])[is_same].max(initial=0.0)),
        score=score,
        relative_score=score / largest if largest else 0.0,
        changed_classes=_count_images(~is_same),
        moved_peaks=_count_images(is_moved),
        peak_heat=float(heat[is_moved].min(initial=1.0)),
    )


def _count_images(found) -> int:
    """Return for how many images, the first axis, anything was found."""
    return int(found.reshape(len(found), -1).any(-1).sum())

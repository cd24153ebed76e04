"""Recipro-CAM, which scores each place of a layer by itself and needs no gradient. Listed in `registry`."""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from tf_gradcam._checks import check_counts
from tf_gradcam._methods.chunks import gather_chunks, merge_copies
from tf_gradcam._methods.scene import Scene


@dataclasses.dataclass(frozen=True)
class reciprocam:
    """Recipro-CAM: `L_p = S(A o M_p) - S(0)`, where the mask `M_p` keeps place p of the activations only.

    Only the network after the layer runs again: once for each place, and once on zeros. No gradient is
    computed, and several scores of an image, such as those of `targets.Classes`, cost no further pass. With
    average pooling and a dense layer after the layer this is the map of HiResCAM. In a transformer the
    tokens of the patches are masked; a class token and registers stay as they are, also in `S(0)`.

    Source: Byun & Lee, "ReciproCAM", CVPR Workshops 2024, and "ViT-ReciproCAM", 2023. Their map is the
    probability `S(A o M_p)`, scaled to [0, 1] by its minimum and maximum. Here `S(0)` is subtracted instead:
    the map is what a place adds to the score, and is signed.

    Attributes:
        gaussian: whether a mask keeps the places around p too: along each axis a quarter of both neighbors
            and half of p. By default only for the tokens of a transformer, as in the authors' code.
        places: number of places of every image that run at once. If the layer has no more, the graph has no
            loop, which XLA and the files of other runtimes need. Fewer take less memory.
    """

    gaussian: bool | None = None
    places: int = 64

    takes_all_scores: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_counts(self, "places")
        if not isinstance(self.gaussian, bool | None):
            raise TypeError(
                f"`gaussian` must be True, False or None. Received: gaussian={self.gaussian!r:.80}"
            )

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *grid)`, or `(N, M, *grid)` for M scores."""
        activations = scene.activations
        are_tokens = scene.layer_output.shape.rank < activations.shape.rank
        reach = 2 if (are_tokens if self.gaussian is None else self.gaussian) else 1
        shape = tf.shape(activations)
        lengths = [length or shape[axis] for axis, length in enumerate(activations.shape)][1:-1]
        count = math.prod(lengths)

        def step(indices):
            masks = _masks(indices, lengths, reach, activations.dtype)
            masks *= tf.reshape(tf.cast(indices < count, masks.dtype), [-1] + [1] * len(lengths))
            masked = merge_copies(masks[:, None, ..., None] * activations, activations)
            return tf.reshape(scene.tail(masked), [tf.shape(indices)[0], -1])

        # The last index is that of zeros.
        if isinstance(count, int) and count <= self.places:
            scores = step(tf.range(count + 1))
        else:
            scores = gather_chunks(count + 1, self.places, step, scene.score.dtype)
        added = tf.transpose(scores[:-1] - scores[-1:])
        return tf.reshape(added, [*tf.unstack(tf.shape(scene.score)), *lengths])


def _masks(indices: tf.Tensor, lengths: Sequence[int | tf.Tensor], reach: int, dtype: tf.DType) -> tf.Tensor:
    """Return the masks `(B, *lengths)` of places.

    Args:
        indices: numbers of the places, row by row, `(B,)` int32.
        lengths: lengths of the grid.
        reach: 1 for a mask of 1 at its place; 2 for 1/4, 1/2, 1/4 around it along each axis.
        dtype: dtype of the masks.
    """
    masks = tf.ones([1] * (len(lengths) + 1), dtype)
    for axis in reversed(range(len(lengths))):
        distances = tf.abs(tf.range(lengths[axis]) - (indices % lengths[axis])[:, None])
        weights = tf.cast(tf.maximum(0, reach - distances), dtype) / reach**2
        before, after = [1] * axis, [1] * (len(lengths) - axis - 1)
        masks *= tf.reshape(weights, [-1, *before, lengths[axis], *after])
        indices //= lengths[axis]
    return masks

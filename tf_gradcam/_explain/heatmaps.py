"""Signed maps to heatmaps in the graph: each is resized and placed, then fused. Called by the explainer."""

import numpy as np
import tensorflow as tf

from tf_gradcam._explain.question import Question
from tf_gradcam._heatmap import fuse_heatmaps, to_heatmap, to_signed_heatmap
from tf_gradcam._signed_maps import SignedMaps, is_one_answer, relative_placements, with_nan


def draw_heatmaps(
    signed: SignedMaps, question: Question, lengths: tf.Tensor | None, fuse: str | None
) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
    """Return the heatmap of all layers, and a tuple with the heatmap of each.

    Args:
        signed: the signed maps.
        question: what is asked for.
        lengths: the size of the heatmaps in pixels, or `None` for the layer's own grid.
        fuse: how the heatmaps of several layers are fused; `None` for one layer.

    Raises:
        ValueError: if the size does not give one length for each axis of the grid.
    """
    _check_lengths(lengths, signed, question.size)
    score, placements = signed.score, signed.placements
    batch_axes = score.shape.rank  # The batch axis, and the axis of several scores.
    grids = [tf.shape(signed_map)[batch_axes:] for signed_map in signed.maps]
    position_counts = [tf.reduce_prod(grid) for grid in grids]
    if lengths is None and fuse is not None:
        finest = tf.argmax(tf.stack(position_counts))
        lengths = tf.gather(tf.stack(grids), finest)
        placements = relative_placements(placements, finest)
    scores = tf.size(score) if is_one_answer(score, signed.maps[0]) else None
    draw = to_signed_heatmap if question.signed else to_heatmap
    interpolation = question.interpolation or "bilinear"
    heatmaps = []
    for signed_map, grid, placement in zip(signed.maps, grids, placements, strict=True):
        flat = tf.reshape(signed_map, tf.concat([[-1], grid], 0))
        heatmaps.append(draw(flat, lengths, interpolation, placement, scores))
    fused = heatmaps[0] if fuse is None else fuse_heatmaps(heatmaps, position_counts, fuse, scores)
    batch = tf.shape(signed.maps[0])[:batch_axes]

    def finish(heatmap):
        with_batch_axes = tf.reshape(heatmap, tf.concat([batch, tf.shape(heatmap)[1:]], 0))
        return with_nan(with_batch_axes, signed.nan)

    return finish(fused), tuple(map(finish, heatmaps))


def _check_lengths(lengths: tf.Tensor | None, signed: SignedMaps, size: str | np.ndarray | None) -> None:
    """Raise a `ValueError` unless `size` gives one length for each axis of the grid."""
    axes = signed.maps[0].shape.rank - signed.score.shape.rank
    if size is None:
        return
    if lengths is None:
        raise ValueError(
            f'`size` must be None or {axes} lengths. Received: size="input", but no input of the model has '
            f"the {axes} axes of the layer's grid."
        )
    if lengths.shape[0] not in (None, axes):
        raise ValueError(
            f"`size` must hold one length for each of the {axes} axes of the layer's grid. "
            f"Received: {lengths.shape[0]} lengths"
        )

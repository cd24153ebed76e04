"""The signed maps of a batch, with where they lie, before heatmaps are drawn. The explainer traces it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tf_gradcam._explain.question import Question
from tf_gradcam._graph import Placement
from tf_gradcam._signed_maps import SignedMaps


class PlacedMaps(NamedTuple):
    """The signed maps of a batch, and where on the images they lie.

    Attributes:
        maps: signed map of each layer, `(N, *grid)`, or `(N, M, *grid)` for M scores of each image.
        placements: where each map lies on its image, `None` for all of it.
        strides: for each layer the pixels between two cells, `(axes,)`, or `None` where not known.
        score: as of an `Explanation`, like `target` and `outputs`.
        target: class that the score belongs to, or `None`.
        outputs: outputs of the model.
    """

    maps: tuple[tf.Tensor, ...]
    placements: tuple[Placement | None, ...]
    strides: tuple[tf.Tensor | None, ...]
    score: tf.Tensor
    target: tf.Tensor | None
    outputs: Any


def placed_maps_function(
    maps_function: Callable[[Any, Any], SignedMaps], question: Question
) -> Callable[..., PlacedMaps]:
    """Return the function from the tensors of a question to the signed maps."""

    def explain(*tensors):
        signed: SignedMaps = maps_function(*question.unpack(tensors))
        places = tuple(signed.placements), tuple(signed.strides)
        return PlacedMaps(tuple(signed.maps), *places, signed.score, signed.class_index, signed.outputs)

    return explain

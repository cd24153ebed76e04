"""Find the layer that returns the tokens of a vision transformer's last block, for methods that need it.

Called by explainers. It is not the default layer, which is before the last attention if the head reads the
class token alone.
"""

from typing import Any

import keras

from tf_gradcam._graph import token_blocks, without_copies
from tf_gradcam._layers.discovery import trace_trial
from tf_gradcam._model import LayerCall, require_specs, with_trial_sides


def last_block(model: keras.Model, images: Any = None) -> LayerCall:
    """Return the layer that returns the tokens after the last block, before the final normalization.

    In a post-norm model it returns the normalized sum, as the blocks before do.

    Args:
        model: a `keras.Model`, built.
        images: example inputs, needed if the model's input shapes are not known.

    Raises:
        ValueError: if `model` has no such blocks, or no layer that returns the tokens after the last one.
    """
    trial = trace_trial(model, keras.tree.map_structure(with_trial_sides, require_specs(model, images)))
    most = max(image.shape.rank for image in trial.images)  # A table beside an image is no image.
    starts = [image for image in trial.images if image.shape.rank == most]
    tokens = token_blocks(starts, trial.outputs)[-1].tokens
    runs = [run for run in trial.runs if without_copies(run.output) is without_copies(tokens)]
    if not runs:
        raise ValueError(
            "`layer` must be given if no layer of the model returns the tokens after its last block. "
            f"Received: layer=None, and a model whose last block ends in {tokens.op.name!r}, inside a layer. "
            "Give `layer`, the last block or one before, or make a layer of the last block."
        )
    layer = runs[-1].layer
    of_layer = [run is runs[-1] for run in trial.runs if run.layer is layer]
    return LayerCall(layer, of_layer.index(True) if len(of_layer) > 1 else None)

"""Find the layer that returns the tokens of a vision transformer's last block, for methods that need it.

Called by explainers. It is not the default layer, which is before the last attention if the head reads the
class token alone.
"""

import contextlib
from typing import Any

import keras
import tensorflow as tf

from tf_gradcam._graph import token_blocks, without_copies
from tf_gradcam._layers.discovery import Trial, activation_grid, trace_trial
from tf_gradcam._model import LayerCall, require_specs, with_trial_sides


def last_block(model: keras.Model, images: Any = None) -> LayerCall:
    """Return the layer that returns the tokens after the last block, before the final normalization.

    In a post-norm model it returns the normalized sum, as the blocks before do.

    Args:
        model: a `keras.Model`, built.
        images: example inputs, needed if the model's input shapes are not known.

    Raises:
        ValueError: if `model` has no such blocks, no layer that returns the tokens after the last one, or
            tokens whose grid is not known.
    """
    specs = require_specs(model, images)
    trial = trace_trial(model, keras.tree.map_structure(with_trial_sides, specs))
    tokens = _tokens_of_last_block(trial)
    runs = [run for run in trial.runs if without_copies(run.output) is without_copies(tokens)]
    if not runs:
        raise ValueError(
            "`layer` must be given if no layer of the model returns the tokens after its last block. "
            f"Received: layer=None, and a model whose last block ends in {tokens.op.name!r}, inside a layer. "
            "Give `layer`, the last block or one before, or make a layer of the last block."
        )
    if any(None in spec.shape[1:] for spec in keras.tree.flatten(specs)):
        index = next(number for number, run in enumerate(trial.runs) if run is runs[-1])
        opened = trace_trial(model, specs)
        _check_grid(opened.runs[index].output, opened)
    else:
        _check_grid(tokens, trial)
    layer = runs[-1].layer
    of_layer = [run is runs[-1] for run in trial.runs if run.layer is layer]
    return LayerCall(layer, of_layer.index(True) if len(of_layer) > 1 else None)


def _tokens_of_last_block(trial: Trial) -> tf.Tensor:
    """Return the tokens after the last block that all outputs depend on, or else the output with most blocks.

    Another output may be an attention, or the score of a head at an earlier block.
    """
    most = max(image.shape.rank for image in trial.images)  # A table beside an image is no image.
    starts = [image for image in trial.images if image.shape.rank == most]
    try:
        return token_blocks(starts, trial.outputs)[-1].tokens
    except ValueError:
        found = []
        for output in trial.outputs if len(trial.outputs) > 1 else []:
            with contextlib.suppress(ValueError):
                found.append(token_blocks(starts, [output]))
        if not found:
            raise
    return max(found, key=len)[-1].tokens


def _check_grid(tokens: tf.Tensor, trial: Trial) -> None:
    if activation_grid(tokens, trial.images) is None:
        raise ValueError(
            "`method` 'legrad' needs to know the grid from which the tokens were flattened, (N, h, w, D) to "
            "(N, h * w, D), and at most 8 further tokens. Received: a model whose last block returns "
            f"{(None, *tokens.shape[1:])}, and no such grid before it. Choose another method, or, if the "
            "size of the input is open, build the model for one size."
        )

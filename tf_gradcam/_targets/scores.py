"""The score of a target for each image. Called by `_explain` and by scenes after every forward pass."""

from typing import Any

import tensorflow as tf


def score_target(target: Any, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Return the score of `target`, `(N,)` or `(N, M)`, and the class index that it belongs to, or `None`.

    Args:
        target: target as `to_rows` returns it.
        outputs: outputs of the model.
        logits: for each output the input of its final softmax or sigmoid, or the output itself if it has
            neither. They may be `None` for a callable, also for one in `Output` or `Against`.
    """
    if not callable(target):
        return target.score(outputs, logits)
    value = target(outputs)
    if not tf.is_tensor(value) or value.shape.rank not in (1, 2):
        raise ValueError(
            "`target` must return one number per image, a tensor (N,), or several, (N, M). "
            f"Received: {getattr(value, 'shape', type(value).__name__)}"
        )
    return value, None


def pin_choices(target: Any, outputs: Any, logits: Any) -> Any:
    """Return `target` with every class, pixel or box that it leaves to the model chosen by these outputs.

    Args:
        target: target as `to_rows` returns it.
        outputs: outputs of the model.
        logits: as for `score_target`.
    """
    return target.pinned(outputs, logits) if hasattr(target, "pinned") else target

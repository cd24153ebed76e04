"""From a target and what the model returned to one score for each image."""

from typing import Any

import tensorflow as tf


def score_target(target: Any, outputs: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Return the score of `target`, `(N,)` or `(N, M)`, and the class index it belongs to or `None`.

    Args:
        target: as `per_image` returns it.
        outputs: what the model returned.
        logits: for each output what its final softmax or sigmoid was given, or the very same output where
            there is neither. A callable, also one in `Output` or `Against`, does without: `None`.
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
    """Return `target` with every choice made that it leaves to the model, as these outputs make it.

    Args:
        target: as `per_image` returns it.
        outputs: what the model returned.
        logits: as `score` takes them.
    """
    return target.pinned(outputs, logits) if hasattr(target, "pinned") else target

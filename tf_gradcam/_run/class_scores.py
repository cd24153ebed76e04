"""What the model returned for each class of an image. `findings` and the rows of a data set call it.

A single unit for yes or no has two classes, and one output for both.
"""

from typing import Any

import numpy as np

from tf_gradcam._images import class_probabilities
from tf_gradcam._runtimes import LoadedExplainer

_TOLERANCE = 0.01  # of a probability, as float16 and bfloat16 round it


def target_text(model: Any, target: Any = None) -> str:
    """Return what is explained as text: `target`, or what a loaded file notes."""
    return str(model.notes.get("target")) if isinstance(model, LoadedExplainer) else repr(target)


def class_scores(output: np.ndarray, index: int | None, score: float, target: str) -> np.ndarray:
    """Return what the model returned for each class; a single unit stands for two.

    These are `[1 - p, p]` for the probability p of a sigmoid, `[log(1 - p), log(p)]` for its logarithm, and
    `[-z, z]` for a logit z that `targets.Binary` explains.

    Args:
        output: of an image, `(C,)`; of a segmentation `(*grid, C)`, of which the mean over the pixels counts.
        index: the explained class; `None` if the target is no class.
        score: the explained score.
        target: `target_text`.

    Returns:
        float64 array `(C,)`, or `(2,)` for a single unit that has classes.
    """
    scores = output.astype("float64")
    if scores.ndim > 1:
        scores = scores.reshape(-1, scores.shape[-1]).mean(axis=0)
    if index is None or scores.size != 1:
        return scores
    value = scores.item()
    if _is_logit(output, index, score, target):
        return np.array([-value, value])
    if value < 0:
        return np.array([np.log1p(-np.exp(value)), value])
    return np.array([1 - value, value])


def class_probability(output: np.ndarray, index: int | None, score: float, target: str) -> float | None:
    """Return the probability of the explained class, or `None` if the model returns no probabilities.

    Args:
        output: as in `class_scores`, as are the others.
        index: the explained class, or `None`.
        score: the explained score.
        target: `target_text`.
    """
    if index is None:
        return None
    if output.ndim > 1:
        # The score of a segmentation is a sum over pixels, so only the range of its outputs can be checked.
        in_range = output.min() >= 0 and output.max() <= 1
        return float(class_scores(output, index, score, target)[index]) if in_range else None
    if output.size == 1 and _is_logit(output, index, score, target):
        return None  # It may lie in [0, 1] by chance.
    probabilities = class_probabilities(output[None], np.array([index]), np.array([score]))
    return None if probabilities is None else float(probabilities[0])


def _is_logit(output, index, score, target) -> bool:
    """Return whether the output of a single unit that has classes is a logit."""
    if "Binary(" not in target:
        return False  # Without `Binary` only a unit with a sigmoid has classes.
    if output.min() < 0 or output.max() > 1:
        return True
    if output.ndim > 1:
        return False
    of_class_1 = (score if index == 1 else -score) * (-1 if "Against(" in target else 1)
    sigmoid = 1 / (1 + np.exp(-np.clip(of_class_1, -50, 50)))
    return bool(abs(output.item() - sigmoid) > _TOLERANCE)

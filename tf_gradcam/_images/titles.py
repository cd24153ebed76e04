"""The titles of an `Explanation`'s heatmaps, and the probabilities of its classes.

`show` calls `explanation_titles`; a run over photographs calls `class_probabilities`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_TOLERANCE = 0.01  # of a probability, as float16 and bfloat16 round it


def explanation_titles(
    explanation: Any, labels: Sequence[str] | Mapping[int, str] | None = None
) -> list[str] | None:
    """Describe each heatmap of an `Explanation`, image by image: class, its probability, explained score.

    The score is not always that of the class alone: `targets.Against` and `targets.Contrast` explain what
    speaks against it. So the title says the model's probability of the class, and the score beside it.

    Args:
        explanation: an `Explanation` with a `score` of the shape `(N,)` or `(N, M)`; or anything else.
        labels: names of the classes, or `None` for their numbers.

    Returns:
        N or N * M titles, or `None` if it is not an `Explanation`.

    Raises:
        TypeError: if `labels` is not a sequence of strings.
        ValueError: if `labels` are given without an `Explanation` of classes, or do not name one of them.
    """
    target = getattr(explanation, "target", None)
    if labels is not None and target is None:
        raise ValueError(
            "`labels` must go with an `Explanation` of classes. Received: "
            f"{type(explanation).__name__} without classes. Give `titles`, one for each heatmap."
        )
    if not hasattr(explanation, "score"):
        return None
    scores = np.asarray(explanation.score, dtype=float)
    # A model with one answer for all images has one score for all heatmaps.
    images = len(explanation.heatmap) if len(scores) == 1 and hasattr(explanation, "heatmap") else 1
    if target is None:
        return images * [f"score {score:.2f}" for score in scores.ravel()]
    classes = np.broadcast_to(np.asarray(target), scores.shape)
    names = [_class_name(int(index), labels) for index in classes.ravel()]
    probabilities = class_probabilities(getattr(explanation, "outputs", None), classes, scores)
    if probabilities is not None:
        names = [
            f"{name} ({_probability_text(probability)})"
            for name, probability in zip(names, probabilities.ravel(), strict=True)
        ]
    return images * [f"{name}, score {score:.2f}" for name, score in zip(names, scores.ravel(), strict=True)]


def _class_name(index, labels) -> str:
    if labels is None:
        return f"class {index}"
    is_ordered = hasattr(labels, "__getitem__") and len(getattr(labels, "shape", (0,))) == 1
    if isinstance(labels, str) or not is_ordered:
        raise TypeError(f"`labels` must be a sequence of names. Received: labels={labels!r:.80}")
    try:
        name = label_of(index, labels)
    except TypeError as error:  # of a tensor without values
        raise TypeError(f"`labels` must be a sequence of names. Received: labels={labels!r:.80}") from error
    if not isinstance(name, str):
        raise TypeError(
            f"`labels` must be strings. Received: {name!r:.80} (of type {type(name).__name__}) for class "
            f"{index}. Give str(...) of it."
        )
    return name


def label_of(index: int, labels: Any) -> Any:
    """Return what names a class among `labels`, a sequence or dict.

    Raises:
        ValueError: if nothing does.
    """
    try:
        return labels[index]
    except (IndexError, KeyError) as error:
        raise ValueError(
            f"`labels` must name every class that is explained. Received: {len(labels)} names, none for "
            f"class {index}. Give them in the order of the model's outputs."
        ) from error


def _probability_text(probability) -> str:
    return f"probability {probability:.2f}" if probability >= 0.005 else "probability < 0.01"


def class_probabilities(outputs: Any, classes: Any, scores: Any) -> np.ndarray | None:
    """Return the model's probability of each explained class, or `None` if its outputs are not probabilities.

    Nothing says whether the model ends in a softmax or sigmoid, so the values decide: they are in [0, 1], and
    an image's outputs add up to 1 (softmax), or the class's output equals the sigmoid of the score.

    Args:
        outputs: what the model returned, `(N, C)`; of a single unit, `(N, 1)`. `None` for anything else.
        classes: the explained classes, `(N,)` or `(N, M)`; of a single unit, its sides 0 and 1.
        scores: the explained scores, in the shape of `classes`.

    Returns:
        float64 array in the shape of `scores`, or `None`.
    """
    scores = np.asarray(scores, dtype=float)
    if getattr(outputs, "ndim", None) != 2 or len(outputs) != len(scores):
        return None
    outputs = np.asarray(outputs).astype(float)
    columns = np.reshape(classes, (len(scores), -1))
    is_single_unit = outputs.shape[1] == 1
    if is_single_unit:  # the probability of side 1
        outputs = np.concatenate([1 - outputs, outputs], axis=1)
    if not (outputs >= 0).all() or not (outputs <= 1).all() or columns.max() >= outputs.shape[1]:
        return None
    probabilities = np.take_along_axis(outputs, columns, axis=1).reshape(scores.shape)
    sigmoids = 1 / (1 + np.exp(-np.clip(scores, -50, 50)))
    if np.allclose(probabilities, sigmoids, rtol=0, atol=_TOLERANCE):
        return probabilities
    if is_single_unit:  # Its two sides add up to 1 in any case. `targets.Probability` scores the probability.
        is_probability = np.allclose(probabilities, scores, rtol=0, atol=_TOLERANCE)
    else:
        is_probability = np.allclose(outputs.sum(axis=1), 1, rtol=0, atol=_TOLERANCE)
    return probabilities if is_probability else None

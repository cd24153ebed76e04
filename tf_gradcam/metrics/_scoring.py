"""Calls of the functions that the user gives: `score` on many altered images, `explain` on one batch."""

import concurrent.futures
import contextvars
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tf_gradcam.metrics._inputs import as_maps, check_count, check_same_shape

Score = Callable[[np.ndarray], Any]
Explain = Callable[[np.ndarray], Any]


def score_all(
    score: Score, batches: Iterable[np.ndarray], steps: int, images: np.ndarray, batch_size: int
) -> np.ndarray:
    """Score altered copies of a batch of images, several at once.

    Each call of `score` gets whole copies of the batch, one after another: row `i` belongs to image `i % N`,
    so that a score with a class for each image knows which it is.

    Args:
        score: `images -> (M,)`.
        batches: altered copies of `images`, one for each step. They are copied at once, in a thread, while
            those before them are scored.
        steps: number of copies.
        images: the batch `(N, *axes, C)`.
        batch_size: number of images in one call; at least one copy of the batch is.

    Returns:
        Scores `(N, steps)`, float64.
    """
    check_count(batch_size=batch_size)
    count = len(images)
    calls = -(-steps // max(1, batch_size // count))
    iterator = iter(batches)
    scores = np.empty((steps, count))
    # Parts of nearly one length: a function that is compiled for each shape is compiled twice at most.
    parts = np.array_split(np.arange(steps), calls)

    def altered(part):
        copies = np.empty((len(part), *images.shape), images.dtype)
        for place in range(len(part)):
            copies[place] = next(iterator)
        return copies.reshape(-1, *images.shape[1:])

    context = contextvars.copy_context()  # What NumPy is to ignore.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        ready = thread.submit(context.run, altered, parts[0])
        for part, after in itertools.zip_longest(parts, parts[1:]):
            copies = ready.result()
            if after is not None:
                ready = thread.submit(context.run, altered, after)
            scores[part] = score_once(score, copies).reshape(len(part), count)
    return scores.T


def score_once(score: Score, images: np.ndarray) -> np.ndarray:
    """Return the scores `(M,)` of images, float64."""
    _check_callable("score", score, "images -> (N,)")
    scores = np.asarray(score(images))
    if scores.shape != (len(images),) or scores.dtype.kind in "OSUMm":
        raise ValueError(
            "`score` must return one number for each image, "
            f"here ({len(images)},). Received: shape {scores.shape}, dtype {scores.dtype}. "
            "Take one class: lambda images: model(images)[:, index]"
        )
    scores = scores.astype(np.float64)
    return np.where(np.isfinite(scores), scores, np.nan)


def explain_once(explain: Explain, images: np.ndarray) -> np.ndarray:
    """Return the maps `(N, *axes)` of images, float64."""
    _check_callable("explain", explain, "images -> (N, *axes)")
    maps = as_maps(explain(images), "explain")
    check_same_shape(maps.shape, images.shape, "What `explain` returns")
    return maps


def _check_callable(name, function, signature):
    if not callable(function):
        raise TypeError(f"`{name}` must be a callable {signature}. Received: {name}={function!r}")

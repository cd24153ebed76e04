"""Explain photographs in batches: `run` calls `explain_in_batches`.

While one batch is explained, the next one is read, and the last one written. A photograph that can't be read,
explained or written gives an error in its own findings only.
"""

import collections
import concurrent.futures
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tf_gradcam._run.findings import Finding, make_error
from tf_gradcam._run.photographs import Photograph, count_pixels, read_photograph

# From photographs of one size to the findings in each.
Explain = Callable[[Sequence[np.ndarray]], list[list[Finding]]]
NamedPhotograph = tuple[Photograph, str]  # a photograph and the name of its pictures


class ReadResult(NamedTuple):
    """A photograph and the name of its pictures, with its values or the error that reading it raised."""

    photograph: Photograph
    name: str
    image: np.ndarray | None = None
    error: Exception | None = None


def explain_in_batches(
    photographs: Iterable[NamedPhotograph],
    explain: Explain,
    write: Callable[[ReadResult, list[Finding]], list[Finding]],
    max_photographs: int,
    max_pixels: int,
    check: Callable[[], None] = lambda: None,
) -> Generator[list[Finding], None, None]:
    """Yield the findings in each photograph, in order, once its pictures are written.

    An exception that ends it early, such as an interrupt, is raised after the findings in all photographs
    that were explained until then.

    Args:
        photographs: each with the name of its pictures.
        explain: from photographs of one size to the findings in each.
        write: writes the pictures of a photograph, and returns its findings with their file names.
        max_photographs: how many photographs there are in a batch, at most.
        max_pixels: how many pixels the photographs of a batch have together, at most. A larger photograph is
            explained alone.
        check: called before each batch and at the end; an exception that it raises ends the run.
    """
    writing: collections.deque[concurrent.futures.Future] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        try:
            for batch in read_batches(photographs, pool, max_photographs, max_pixels):
                check()
                explained = list(zip(batch, explain_batch(batch, explain), strict=True))
                # Submitted at once, so that an interrupt loses none of them.
                newest = [pool.submit(write, photograph, findings) for photograph, findings in explained]
                yield from _take_results(writing, newest)
            yield from _take_results(writing)
            check()
        except GeneratorExit:  # The caller wants no more findings.
            raise
        except BaseException:
            yield from _take_results(writing)
            raise


def _take_results(
    writing: collections.deque[concurrent.futures.Future], newest: Sequence[concurrent.futures.Future] = ()
) -> Iterator[list[Finding]]:
    """Yield the results of `writing`, then add `newest` to it; the next call yields their results."""
    remaining = len(writing)
    writing.extend(newest)
    for _ in range(remaining):
        findings = writing[0].result()  # An interrupt during the wait leaves it in the queue.
        writing.popleft()
        yield findings


def read_batches(
    photographs: Iterable[NamedPhotograph],
    pool: concurrent.futures.Executor,
    max_photographs: int,
    max_pixels: int,
) -> Iterator[list[ReadResult]]:
    """Yield batches of photographs; the next one is read while the caller works on this one."""
    remaining = collections.deque(photographs)

    def start_reading():
        batch = _take_batch(remaining, max_photographs, max_pixels)
        return [pool.submit(read, photograph, name) for photograph, name in batch]

    reading = start_reading()
    while reading:
        batch = [future.result() for future in reading]
        reading = start_reading()
        yield batch


def _take_batch(remaining, max_photographs, max_pixels) -> list[NamedPhotograph]:
    """Take photographs from `remaining`: at least one, and more as long as they are within both limits."""
    batch: list[NamedPhotograph] = []
    total = 0
    while remaining and len(batch) < max_photographs:
        photograph, _ = remaining[0]
        total += count_pixels(photograph)
        if batch and total > max_pixels:
            break
        batch.append(remaining.popleft())
    return batch


def read(photograph: Photograph, name: str) -> ReadResult:
    """Return a photograph with its values, or with the error that reading it raised."""
    try:
        return ReadResult(photograph, name, read_photograph(photograph))
    except Exception as error:  # Whatever is wrong with one photograph, the others still count.
        return ReadResult(photograph, name, error=error)


def explain_batch(batch: Sequence[ReadResult], explain: Explain) -> list[list[Finding]]:
    """Return the findings in each photograph of a batch. Photographs of one size are explained together."""
    findings: list[list[Finding]] = [[] for _ in batch]
    images_by_shape: dict[tuple, dict[int, np.ndarray]] = {}  # each image by its position in the batch
    for position, photograph in enumerate(batch):
        if photograph.error is not None:
            findings[position] = [make_error(photograph.error)]
        elif photograph.image is not None:
            images_by_shape.setdefault(photograph.image.shape, {})[position] = photograph.image
    for images in images_by_shape.values():
        together = explain_or_fall_back(list(images.values()), explain)
        for position, found in zip(images, together, strict=True):
            findings[position] = found
    return findings


def explain_or_fall_back(images: Sequence[np.ndarray], explain: Explain) -> list[list[Finding]]:
    """Return the findings in each image. If they can't be explained together, explain them one by one."""
    try:
        return explain(images)
    except Exception as error:
        if len(images) == 1:
            return [[make_error(error)]]
        return [explain_or_fall_back([image], explain)[0] for image in images]

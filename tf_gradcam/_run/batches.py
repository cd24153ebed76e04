"""Batches of photographs: while one is explained, the next is read and the last one written; for `run`.

A photograph that can't be read, explained or written becomes an error, and spoils no other.
"""

import collections
import concurrent.futures
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tf_gradcam._run.findings import Finding, make_error
from tf_gradcam._run.photographs import Photograph, count_pixels, read_photograph

# Photographs of one size to the findings in each.
Explain = Callable[[Sequence[np.ndarray]], list[list[Finding]]]
NamedPhotograph = tuple[Photograph, str]  # and the name of its pictures


class ReadResult(NamedTuple):
    """A photograph that was read, and the name of its pictures; or why it couldn't be read."""

    photograph: Photograph
    name: str
    image: np.ndarray | None = None
    error: Exception | None = None


def explain_in_batches(
    photographs: Iterable[NamedPhotograph],
    explain: Explain,
    write: Callable[[ReadResult, list[Finding]], list[Finding]],
    most: int,
    pixels: int,
    check: Callable[[], None] = lambda: None,
) -> Generator[list[Finding], None, None]:
    """Yield the findings in each photograph, in order, once its pictures are written.

    Whatever ends it early, an interrupt for example, is raised only after the findings in all photographs
    that were explained until then.

    Args:
        photographs: each with the name of its pictures.
        explain: from photographs of one size to the findings in each.
        write: writes the pictures of a photograph, and returns its findings with their file names.
        most: how many photographs there are in a batch, at most.
        pixels: how many pixels the photographs of a batch have together, at most, unless it is but one.
        check: called before each batch and at the end; what it raises ends the run.
    """
    writing: collections.deque[concurrent.futures.Future] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        try:
            for batch in read_batches(photographs, pool, most, pixels):
                check()
                explained = list(zip(batch, explain_batch(batch, explain), strict=True))
                # Submitted at once, so that an interrupt loses none of them.
                newest = [pool.submit(write, photograph, findings) for photograph, findings in explained]
                yield from _take_results(writing, newest)
            yield from _take_results(writing)
            check()
        except GeneratorExit:  # Nobody wants the rest.
            raise
        except BaseException:
            yield from _take_results(writing)
            raise


def _take_results(
    writing: collections.deque[concurrent.futures.Future], newest: Sequence[concurrent.futures.Future] = ()
) -> Iterator[list[Finding]]:
    """Yield the results of all that is being written, and add the newest, whose results come next time."""
    remaining = len(writing)
    writing.extend(newest)
    for _ in range(remaining):
        findings = writing[0].result()  # An interrupt while it is waited for leaves it where it is.
        writing.popleft()
        yield findings


def read_batches(
    photographs: Iterable[NamedPhotograph],
    pool: concurrent.futures.Executor,
    most: int,
    pixels: int,
) -> Iterator[list[ReadResult]]:
    """Yield batches of photographs; the next one is read while the caller works on this one."""
    remaining = collections.deque(photographs)

    def start_reading():
        return [pool.submit(read, *named) for named in _take_batch(remaining, most, pixels)]

    reading = start_reading()
    while reading:
        batch = [future.result() for future in reading]
        reading = start_reading()
        yield batch


def _take_batch(remaining, most, pixels) -> list[NamedPhotograph]:
    """Take photographs from `remaining`: one at least, and more as long as they keep to both limits."""
    batch: list[NamedPhotograph] = []
    total = 0
    while remaining and len(batch) < most:
        photograph, _ = remaining[0]
        total += count_pixels(photograph)
        if batch and total > pixels:
            break
        batch.append(remaining.popleft())
    return batch


def read(photograph: Photograph, name: str) -> ReadResult:
    """Read a photograph, or tell why that is not possible."""
    try:
        return ReadResult(photograph, name, read_photograph(photograph))
    except Exception as error:  # Whatever is wrong with one photograph, the others still count.
        return ReadResult(photograph, name, error=error)


def explain_batch(batch: Sequence[ReadResult], explain: Explain) -> list[list[Finding]]:
    """Return the findings in each photograph of a batch: those of one size are explained together."""
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
    """Return the findings in each image; one by one where not all of them can be explained together."""
    try:
        return explain(images)
    except Exception as error:
        if len(images) == 1:
            return [[make_error(error)]]
        return [explain_or_fall_back([image], explain)[0] for image in images]

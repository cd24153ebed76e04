"""Explain photographs in batches: `run` calls `explain_in_batches`.

While one batch is explained, the next one is read, and the last one written. A photograph that can't be read,
explained or written gives an error in its own findings only.
"""

import collections
import concurrent.futures
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tf_gradcam import formats
from tf_gradcam._files import PictureOptions
from tf_gradcam._run.findings import Finding, make_error
from tf_gradcam._run.photographs import (
    Photograph,
    count_pixels,
    is_scan,
    make_viewable,
    read_photograph,
    scan_options,
    scan_values,
)
from tf_gradcam._run.request import shown_as

NamedPhotograph = tuple[Photograph, str]  # a photograph and the name of its pictures


class ReadResult(NamedTuple):
    """A photograph and the name of its pictures, with what was read.

    Attributes:
        photograph: the photograph.
        name: that of its pictures.
        image: its values `(H, W, C)`; `None` for a volume, a video, and what is explained by windows.
        error: the error that reading it raised.
        scan: the scan, if the file is one.
    """

    photograph: Photograph
    name: str
    image: np.ndarray | None = None
    error: Exception | None = None
    scan: formats.Scan | None = None

    def viewable(self, options: PictureOptions) -> np.ndarray:
        """Return the image as pixels for people to look at: uint8 `(H, W, 3)`."""
        if self.scan is not None:
            return self.scan.picture(**scan_options(self.scan, options)._asdict())
        assert self.image is not None
        return make_viewable(self.image, shown_as(options, self.image, is_of_patient=False))


# From photographs of one size, or one scan, to the findings in each.
Explain = Callable[[Sequence[ReadResult]], list[list[Finding]]]


def explain_in_batches(
    photographs: Iterable[NamedPhotograph],
    explain: Explain,
    write: Callable[[ReadResult, list[Finding]], list[Finding]],
    max_photographs: int,
    max_pixels: int,
    check: Callable[[], None] = lambda: None,
    by_windows: bool = False,
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
        by_windows: whether images are explained by windows, and not read as a whole.
    """
    writing: collections.deque[concurrent.futures.Future] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        try:
            for batch in read_batches(photographs, pool, max_photographs, max_pixels, by_windows):
                for part in _apart(batch):
                    check()
                    explained = list(zip(part, explain_batch(part, explain), strict=True))
                    # Submitted at once, so that an interrupt loses none of them.
                    newest = [pool.submit(write, photograph, findings) for photograph, findings in explained]
                    yield from _take_results(writing, newest)
            yield from _take_results(writing)
            check()
        except GeneratorExit:  # The caller wants no more findings.
            raise
        except BaseException:
            yield from _take_results(writing)
            pool.shutdown(wait=False, cancel_futures=True)  # of photographs that are read ahead
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
    by_windows: bool = False,
) -> Iterator[list[ReadResult]]:
    """Yield batches of photographs; the next one is read while the caller works on this one."""
    remaining = collections.deque(photographs)

    def start_reading():
        batch = _take_batch(remaining, max_photographs, max_pixels)
        return [pool.submit(read, photograph, name, by_windows) for photograph, name in batch]

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


def read(photograph: Photograph, name: str, by_windows: bool = False) -> ReadResult:
    """Return a photograph with its values, or with the error that reading it raised."""
    try:
        if not is_scan(photograph):
            return ReadResult(photograph, name, read_photograph(photograph))
        scan = formats.read(photograph.source)
        is_image = len(scan.axes) == 2 and not by_windows
        return ReadResult(photograph, name, scan_values(scan) if is_image else None, scan=scan)
    except Exception as error:  # Whatever is wrong with one photograph, the others still count.
        return ReadResult(photograph, name, error=error)


def _apart(batch: Sequence[ReadResult]) -> Iterator[list[ReadResult]]:
    """Yield a batch in parts, in order: each volume or video alone, as it may take minutes."""
    part: list[ReadResult] = []
    for photograph in batch:
        if photograph.image is None and photograph.error is None:
            if part:
                yield part
            yield [photograph]
            part = []
        else:
            part.append(photograph)
    if part:
        yield part


def explain_batch(batch: Sequence[ReadResult], explain: Explain) -> list[list[Finding]]:
    """Return the findings in each photograph of a batch. Photographs of one size are explained together."""
    findings: list[list[Finding]] = [[] for _ in batch]
    by_shape: dict[tuple, dict[int, ReadResult]] = {}  # each photograph by its position in the batch
    for position, photograph in enumerate(batch):
        if photograph.error is not None:
            findings[position] = [make_error(photograph.error)]
        else:
            # What is not read as a whole is explained alone.
            shape = (position,) if photograph.image is None else photograph.image.shape
            by_shape.setdefault(shape, {})[position] = photograph
    for photographs in by_shape.values():
        together = explain_or_fall_back(list(photographs.values()), explain)
        for position, found in zip(photographs, together, strict=True):
            findings[position] = found
    return findings


def explain_or_fall_back(photographs: Sequence[ReadResult], explain: Explain) -> list[list[Finding]]:
    """Return the findings in each photograph; those that can't be explained together, one by one."""
    try:
        return explain(photographs)
    except Exception as error:
        if len(photographs) == 1:
            return [[make_error(error)]]
        return [explain_or_fall_back([photograph], explain)[0] for photograph in photographs]

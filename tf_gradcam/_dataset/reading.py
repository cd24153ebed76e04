"""Read the images of a data set ahead of the explainer: `read_ahead`. `dataset` calls it.

Threads decode: OpenCV and Pillow let others work meanwhile. Only as many batches are read ahead as there are
readers to keep busy, so that memory stays the same however many images there are.
"""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from tf_gradcam._arrays import is_channels_first
from tf_gradcam._checks import one_line
from tf_gradcam._dataset.rows import Item, ReadItem
from tf_gradcam._run import read_photograph_within

_BATCHES_AHEAD = 2

Fit = Callable[[np.ndarray], np.ndarray]  # from the values of a file to the model's input, (h, w, C)


def read_ahead(
    items: Iterable[Item], fit: Fit, batch_size: int, at_least: tuple[int, int] | None
) -> Iterator[list[ReadItem]]:
    """Yield batches of images; the next ones are read while the caller works.

    Args:
        items: the images.
        fit: makes the model's input of what a file holds. An array of a data set is taken as it is.
        batch_size: images in a batch.
        at_least: height and width that a file may be decoded to, at least; `None` for its own size.
    """
    remaining = iter(items)
    ahead: collections.deque[list[concurrent.futures.Future]] = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(max(2, os.cpu_count() or 1))

    def start() -> None:
        batch = [pool.submit(_read, item, fit, at_least) for item in islice(remaining, batch_size)]
        if batch:
            ahead.append(batch)

    try:
        for _ in range(_BATCHES_AHEAD):
            start()
        while ahead:
            batch = [future.result() for future in ahead[0]]
            ahead.popleft()
            start()
            yield batch
    finally:  # At an interrupt, what is not begun is not read any more.
        pool.shutdown(wait=False, cancel_futures=True)


def _read(item: Item, fit: Fit, at_least: Any) -> ReadItem:
    """Return an image as the model takes it, or the error that reading it raised."""
    try:
        if isinstance(item.source, Exception):
            raise item.source
        if not item.path:
            return ReadItem(item, item.source, _size(item.source))
        values, size, sha256 = read_photograph_within(os.fspath(item.source), at_least)
        return ReadItem(item, fit(values), size, sha256)
    except Exception as error:  # Whatever is wrong with one image, the others still count.
        return ReadItem(item, error=one_line(error) or type(error).__name__)


def _size(image) -> tuple[int, int]:
    """Return the height and width of an array, whose channels may come first."""
    shape = image.shape[1:] if is_channels_first((None, *image.shape)) else image.shape
    return shape[0], shape[1]

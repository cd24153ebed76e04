"""What the other modules of `serving` share: the limit of an array's size, and arrays of Python objects."""

from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_VALUES: int = 2**24  # of one image's heatmap or activations: 4096 x 4096, or 512 x 512 x 64


def object_array(values: Sequence[Any], shape: Sequence[int]) -> np.ndarray:
    """Return an array of the dtype object that holds `values`, strings or bytes, in this shape."""
    # In an array of NumPy's own strings, each takes the memory of the longest.
    cells = np.empty(len(values), dtype=object)
    cells[:] = values
    return cells.reshape(shape)

"""The linear system of ROAD: conjugate gradients with one multigrid cycle a step. Called by `_imputation`.

The matrix is that of a diffusion on the removed pixels with fixed values around them. A direct solver takes
a second for a photograph; plain conjugate gradients need hundreds of steps, these about twenty. The grids are
`(N, C, *axes)`: with contiguous rows NumPy is three times as fast as with channels last.
"""

import numpy as np

_TOLERANCE = 1e-9  # of the residual, as a share of the first one
_MOST_STEPS = 300
_DAMPING = 0.8  # of the Jacobi smoother


def solve(known: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Return the values at the missing pixels, each the weighted mean of its neighbours, and 0 elsewhere.

    Each image and channel is a system of its own, whose result does not depend on the others.

    Args:
        known: the values of the other pixels, and 0 at missing ones, float64 `(N, C, *axes)`.
        missing: bool `(N, 1, *axes)`. Of each image at least one pixel must be known, or all are 0.
    """
    axes = known.ndim - 2
    levels = _levels(missing, axes)
    missing = missing.astype(np.float64)
    diagonal = _sum_neighbours(np.ones((1, 1, *known.shape[2:])), axes)
    residual = missing * _sum_neighbours(known, axes)
    enough = _TOLERANCE**2 * _dot(residual, residual)
    solution, direction, before = np.zeros_like(known), np.zeros_like(known), np.zeros_like(enough)
    for _ in range(_MOST_STEPS):
        active = _dot(residual, residual) > enough
        if not active.any():
            break
        step = _cycle(residual.astype(np.float32), levels, axes)
        now = _dot(residual, step)
        direction *= _ratio(now, before)
        direction += step
        image = diagonal * direction
        image -= _sum_neighbours(direction, axes)
        image *= missing
        length = active * _ratio(now, _dot(direction, image))
        solution += length * direction
        residual -= length * image
        before = now
    return solution


def _dot(first, second):
    rows = first.shape[:2]
    products = np.einsum("nci,nci->nc", first.reshape(*rows, -1), second.reshape(*rows, -1))
    return products.reshape(*rows, *[1] * (first.ndim - 2))


def _ratio(numerator, denominator):
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _sum_neighbours(values, axes):
    """Return the weighted sums of the neighbours of each pixel: twelve times the weights of ROAD.

    1 2 1 along each axis, one after another, is 4 in the centre of an image, 2 beside it and 1 diagonally.
    """
    total = values
    for axis in range(-axes, 0):
        lines = np.moveaxis(total, axis, 0)
        total = total + total
        sums = np.moveaxis(total, axis, 0)
        sums[1:] += lines[:-1]
        sums[:-1] += lines[1:]
    total -= 2**axes * values
    return total


def _levels(missing, axes):
    """Return, from fine to coarse, what is missing, the diagonal, and the smoother's factors."""
    levels = []
    missing = missing.astype(np.float32)
    while True:
        diagonal = _sum_neighbours(np.ones((1, 1, *missing.shape[2:]), np.float32), axes)
        levels.append((missing, diagonal, _DAMPING * missing / np.maximum(diagonal, 1)))
        if max(missing.shape[2:]) < 3 or not missing.any():
            return levels
        # Coarse pixels with any known pixel are known: there the error is 0.
        missing = (_halve(1 - missing, axes) == 0).astype(np.float32)


def _cycle(residual, levels, axes):
    """Return an approximate solution: smooth, correct on a grid half as fine, smooth."""
    (missing, diagonal, damped), *coarser = levels
    solution = damped * residual
    if coarser:
        left = missing * (residual - diagonal * solution + _sum_neighbours(solution, axes))
        # On a grid half as fine, a slope has twice the difference, for 2^axes times as many pixels.
        coarse = _cycle(2.0 ** (2 - axes) * _halve(left, axes), coarser, axes)
        solution += missing * _double(coarse, residual.shape[2:])
    left = _sum_neighbours(solution, axes)
    left -= diagonal * solution
    left += residual
    left *= damped
    solution += left
    return solution


def _halve(values, axes):
    """Return the sums over blocks of two pixels along each axis."""
    for axis in range(-axes, 0):
        lines = np.moveaxis(values, axis, 0)
        sums = lines[0::2].copy()
        sums[: len(lines) // 2] += lines[1::2]
        values = np.moveaxis(sums, 0, axis)
    return np.ascontiguousarray(values)


def _double(values, size):
    """Return each pixel twice along each axis, cut to `size`."""
    for axis in range(-len(size), 0):
        lines = np.moveaxis(values, axis, 0)
        doubled = np.empty((size[axis], *lines.shape[1:]), values.dtype)
        doubled[0::2] = lines
        doubled[1::2] = lines[: size[axis] // 2]
        values = np.moveaxis(doubled, 0, axis)
    return np.ascontiguousarray(values)

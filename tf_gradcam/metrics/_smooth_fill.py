"""The linear system of ROAD: conjugate gradients with one multigrid cycle a step. Called by `_imputation`.

The matrix is that of a diffusion on the removed pixels with fixed values around them. A direct solver takes
about a second for a photograph; plain conjugate gradients need hundreds of steps, these about twenty.
"""

import cv2
import numpy as np

_TOLERANCE = 1e-9  # of the residual, as a share of the first one
_MOST_STEPS = 300
_DAMPING = 0.8  # of the Jacobi smoother
_TAPS = np.array([1, 2, 1], np.float32)


def solve(known: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Return the values at the missing pixels, each the weighted mean of its neighbours, and 0 elsewhere.

    Each image and channel is a system of its own, whose result does not depend on the others.

    Args:
        known: the values of the other pixels, and 0 at missing ones, float64 `(N, C, *axes)`.
        missing: bool `(N, 1, *axes)`. Of each image at least one pixel must be known, or all are 0.
    """
    size = (*[1] * (5 - known.ndim), *known.shape[2:])  # Signals and images are flat volumes.
    # One image at a time stays in the processor's cache.
    solutions = [
        _solve_one(np.ascontiguousarray(values).reshape(-1, *size), holes.reshape(1, *size))
        for values, holes in zip(known, missing, strict=True)
    ]
    return np.stack(solutions).reshape(known.shape)


def _solve_one(known, missing):
    """Return the solution for one image, `(C, depth, height, width)`."""
    levels = _levels(missing)
    missing = missing.astype(np.float64)
    diagonal = _sum_neighbours(np.ones_like(missing))
    residual = missing * _sum_neighbours(known)
    enough = _TOLERANCE**2 * _dot(residual, residual)
    solution, direction, before = np.zeros_like(known), np.zeros_like(known), np.zeros_like(enough)
    for _ in range(_MOST_STEPS):
        active = _dot(residual, residual) > enough
        if not active.any():
            break
        step = _cycle(residual.astype(np.float32), levels).astype(np.float64)
        now = _dot(residual, step)
        direction *= _ratio(now, before)
        direction += step
        image = diagonal * direction
        image -= _sum_neighbours(direction)
        image *= missing
        length = active * _ratio(now, _dot(direction, image))
        solution += length * direction
        image *= length
        residual -= image
        before = now
    return solution


def _dot(first, second):
    rows = len(first), -1
    return np.einsum("ci,ci->c", first.reshape(rows), second.reshape(rows)).reshape(-1, 1, 1, 1)


def _ratio(numerator, denominator):
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _sum_neighbours(values):
    """Return the weighted sums of the neighbours of each pixel: twelve times the weights of ROAD.

    1 2 1 along each axis, one after another, is 4 in the centre of an image, 2 beside it and 1 diagonally.
    """
    total = np.empty_like(values)
    height, width = values.shape[2:]
    for plane, sums in zip(values.reshape(-1, height, width), total.reshape(-1, height, width), strict=True):
        cv2.sepFilter2D(plane, -1, _TAPS, _TAPS, dst=sums, borderType=cv2.BORDER_CONSTANT)
    depth = values.shape[1]
    if depth > 1:
        planes, total = total, 2 * total
        total[:, 1:] += planes[:, :-1]
        total[:, :-1] += planes[:, 1:]
    total -= (8 if depth > 1 else 4) * values
    return total


def _levels(missing):
    """Return, from fine to coarse, what is missing, the diagonal, and the smoother's factors."""
    levels = []
    missing = missing.astype(np.float32)
    while True:
        diagonal = _sum_neighbours(np.ones_like(missing))
        levels.append((missing, diagonal, _DAMPING * missing / np.maximum(diagonal, 1)))
        if max(missing.shape[1:]) < 3 or not missing.any():
            return levels
        # Coarse pixels with any known pixel are known: there the error is 0.
        missing = (_halve(1 - missing) == 0).astype(np.float32)


def _cycle(residual, levels):
    """Return an approximate solution: smooth, correct on a grid half as fine, smooth."""
    (missing, diagonal, damped), *coarser = levels
    solution = damped * residual
    if coarser:
        left = _sum_neighbours(solution)
        left -= diagonal * solution
        left += residual
        left *= missing
        left = _halve(left)
        # On a grid half as fine, a slope has twice the difference, for 2^axes times as many pixels.
        left *= 2.0 ** (2 - sum(length > 1 for length in residual.shape[1:]))
        correction = _double(_cycle(left, coarser), residual.shape)
        correction *= missing
        solution += correction
    left = _sum_neighbours(solution)
    left -= diagonal * solution
    left += residual
    left *= damped
    solution += left
    return solution


def _halve(values):
    """Return the sums over blocks of two pixels along each axis."""
    for axis, length in enumerate(values.shape[1:], 1):
        if length > 1:
            sums = values[_along(axis, slice(0, None, 2))].copy()
            sums[_along(axis, slice(length // 2))] += values[_along(axis, slice(1, None, 2))]
            values = sums
    return values


def _double(values, shape):
    """Return each pixel twice along each axis, cut to `shape`."""
    for axis in (3, 2, 1):
        length = shape[axis]
        if length > 1:
            doubled = np.empty((*values.shape[:axis], length, *values.shape[axis + 1 :]), values.dtype)
            doubled[_along(axis, slice(0, None, 2))] = values
            doubled[_along(axis, slice(1, None, 2))] = values[_along(axis, slice(length // 2))]
            values = doubled
    return values


def _along(axis, part):
    return (slice(None),) * axis + (part,)

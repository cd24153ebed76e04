"""Where a map lies on the image: crops, pads and flips on the way from the image to a layer: `Places`.

Explainers and scenes call it while a model is being traced. It reads the operations of the graph, and
computes with their own numbers: a crop that depends on the size of the image, or is random, is followed too.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tf_gradcam._graph.graph import operations_between
from tf_gradcam._graph.graph_steps import (
    HIDING,
    MOVING,
    WEIGHTED,
    WINDOWED,
    absorbs_padding,
    inlined,
    is_number,
    kept_axes,
    length,
    moving_operations_inside,
    paddings_of,
    reversed_axes,
    slices_of,
    spread_padding,
)

Number = Any  # A Python number, or a scalar tensor.


class Placement(NamedTuple):
    """Where a map lies on the image.

    Attributes:
        frame: `(axes, 2)` float32: for each axis of the image, where the map begins and ends, as a share of
            the length of the image. 0 and 1 for the whole image; the end comes before the start if the
            map is flipped.
        flipped: whether an axis may be flipped: a tensor, or `None` for no.
        order: int32 `(axes,)`, the axis of the map for each axis of the image; `None` if they are the same.
    """

    frame: tf.Tensor
    flipped: tf.Tensor | None
    order: tf.Tensor | None


class _Place(NamedTuple):
    """Where the positions of a tensor lie on the image.

    Attributes:
        axes: for each axis of the tensor the axis of the image, or `None`; `()` if they cannot be told apart.
        frame: (start, end) for each axis of the image.
        changes: number of crops, pads and flips so far.
        is_raw: whether no operation with weights came before.
        unpadded: the place before a padding that may belong to a convolution, or `None`.
        padding: number of positions that this padding adds to each axis of the image.
        lost: shape when the axes were lost, and the axes then.
    """

    axes: tuple[int | None, ...]
    frame: tuple[tuple[Number, Number], ...]
    changes: int = 0
    is_raw: bool = True
    unpadded: Any = None
    padding: tuple[Number, ...] = ()
    lost: Any = None


class Places:
    """Where each tensor between an image and `end` lies on the image.

    Convolutions, poolings and resizes keep the frame: their output is drawn over all of their input. Where
    branches meet, as in a residual network, the branch with the fewest crops and pads counts: those of the
    others align them with it. A padding that only supplies a convolution or pooling with neighbours for the
    positions at the border belongs to it.

    Attributes:
        unknown: types of the operations on the way whose effect on positions is not known.
    """

    def __init__(self, image: tf.Tensor, axes: Sequence[int], end: tf.Tensor):
        """Follow the spatial `axes` of `image` through the graph to `end`."""
        start: list[int | None] = [None] * image.shape.rank
        for number, axis in enumerate(axes):
            start[axis] = number
        self.unknown: list[str] = []
        self._places = {image.ref(): _Place(tuple(start), ((0.0, 1.0),) * len(axes))}
        _follow(operations_between(image, end), self._places, self.unknown)

    def of(self, tensor: tf.Tensor, grid_axes: Sequence[int] = ()) -> Placement | None:
        """Return where a tensor lies on the image, or `None` if on all of it.

        Args:
            tensor: a tensor between the image and `end`, such as activations.
            grid_axes: its axes that are a grid; `()` for tokens.
        """
        place = self._places.get(tensor.ref())
        if place is None:
            return None
        axes = list(range(len(place.frame)))
        found = [place.axes[axis] for axis in grid_axes] if place.axes else []
        order = [found.index(axis) for axis in axes] if sorted(found, key=str) == axes else axes
        if place.changes == 0 and order == axes:
            return None
        frame = tf.stack([tf.stack([_as_float(edge) for edge in edges]) for edges in place.frame])
        may_be_flipped = any(
            not (is_number(start) and is_number(end)) or start > end for start, end in place.frame
        )
        flipped = frame[:, 0] > frame[:, 1] if may_be_flipped else None
        return Placement(frame, flipped, None if order == axes else tf.constant(order))


def _follow(operations: Sequence[tf.Operation], places: dict, unknown: list[str]) -> None:
    """Add the place of each output of `operations`, which are in order of execution, to `places`."""
    for operation in operations:
        given = [places.get(tensor.ref()) for tensor in operation.inputs]
        if not any(given):
            continue
        kind = operation.type
        if kind in HIDING:
            found = _inside_functions(operation, places, unknown)
        elif kind == "ConcatV2":
            found = _concatenated(operation, given)
        else:
            found = _moved(operation, *_main_input(operation, given), unknown)
        for output in operation.outputs:
            places[output.ref()] = found(output) if callable(found) else found


def _main_input(operation, given) -> tuple[int, Any]:
    """Return the index and place of the input whose place the output has: the one with the fewest changes.

    The axes of a branch that were lost, as in an upsampling, are those of another branch.
    """
    inputs = operation.inputs
    rank = operation.outputs[0].shape.rank if operation.outputs else None
    known = [index for index, place in enumerate(given) if place is not None]
    fitting = [index for index in known if len(given[index].axes) == rank]
    complete = [given[index] for index in fitting if _is_complete(given[index])]
    axes = complete[0].axes if complete else ()
    if complete:
        same_rank = [index for index in known if inputs[index].shape.rank == rank]
        known = [index for index in same_rank if index in fitting or _covers(inputs[index], axes)]
    index = min(known, key=lambda one: (given[one].changes, one not in fitting))
    place = given[index]
    return index, place if place.axes else place._replace(axes=axes)


def _is_complete(place) -> bool:
    return len({*place.axes} - {None}) == len(place.frame)


def _covers(values, axes) -> bool:
    """Return whether a tensor has more than one position, unlike the factors of a squeeze-and-excitation."""
    return all(axis is None or values.shape[index] != 1 for index, axis in enumerate(axes))


def _moved(operation, index, place, unknown):
    """Return the place of the output of an operation, given that of its main input."""
    kind, values = operation.type, operation.inputs[index]
    if kind in WEIGHTED:
        place = place._replace(is_raw=False)
    if kind in WINDOWED:
        return _after_window(operation, place)
    if not place.axes:
        return _regained(operation, place)
    if kind in ("Pad", "PadV2", "MirrorPad"):
        return _padded(place, values, paddings_of(operation))
    if kind in ("Slice", "StridedSlice", "Split", "SplitV", "Unpack"):
        return _sliced(operation, place, unknown)
    if kind in ("Reverse", "ReverseV2"):
        reversed_ = reversed_axes(operation)
        if reversed_ is None:
            return _note(operation, place, unknown)
        return _with_frame(place, dict.fromkeys(reversed_, (1.0, 0.0)))
    if kind in MOVING and (kind not in ("Gather", "GatherV2") or _gathers_positions(operation, place)):
        _note(operation, place, unknown)
    axes = kept_axes(operation, index, place.axes)
    if axes is None:
        return place._replace(axes=(), lost=(tuple(values.shape), place.axes))
    if kind == "Pack" and len(set(axes) - {None}) == len(place.frame) - 1:
        # A video whose frames went through a layer one by one.
        (missing,) = set(range(len(place.frame))) - set(axes)
        new = operation.get_attr("axis") % len(axes)
        axes = (*axes[:new], missing, *axes[new + 1 :])
    if kind == "SpaceToBatchND" and place.unpadded is not None:  # Before a dilated convolution.
        return place._replace(axes=axes, padding=spread_padding(operation, axes, place.padding))
    return place._replace(axes=axes)


def _gathers_positions(operation, place) -> bool:
    axis = tf.get_static_value(operation.inputs[2]) if len(operation.inputs) > 2 else 0
    return axis is None or place.axes[int(axis)] is not None


def _note(operation, place, unknown):
    """Note an operation whose effect is not known, unless it works on features of the network."""
    if place.is_raw:
        unknown.append(operation.type)
    return place


def _with_frame(place: _Place, shares: dict) -> _Place:
    """Return `place` cut to `shares`: (start, end) of axes of its tensor, as shares of it."""
    frame, changes = list(place.frame), 0
    for axis, (first, last) in shares.items():
        image_axis = place.axes[axis]
        if image_axis is None or (is_number(first) and is_number(last) and (first, last) == (0, 1)):
            continue
        start, end = frame[image_axis]
        frame[image_axis] = (start + (end - start) * first, start + (end - start) * last)
        changes = 1
    if not changes:
        return place
    return place._replace(frame=tuple(frame), changes=place.changes + 1, unpadded=None)


def _padded(place, values, paddings) -> _Place:
    """Return the place of `values` after `paddings`, (before, after) for each axis."""
    shares, added = {}, [0] * len(place.frame)
    for axis, (before, after) in enumerate(paddings):
        if place.axes[axis] is not None and not (
            is_number(before) and is_number(after) and before == after == 0
        ):
            positions = length(values, axis)
            shares[axis] = (-before / positions, 1.0 + after / positions)
            added[place.axes[axis]] = before + after
    if not shares:
        return place
    return _with_frame(place, shares)._replace(unpadded=place, padding=tuple(added))


def _sliced(operation, place, unknown):
    found = slices_of(operation)
    if found is None:
        return _note(operation, place._replace(axes=(), lost=None), unknown)
    shares_of, kept = found

    def of(output):
        cut = _with_frame(place, shares_of(output))
        return cut._replace(axes=tuple(None if axis is None else place.axes[axis] for axis in kept))

    return of


def _after_window(operation, place) -> _Place:
    """Return the place after a convolution or pooling: that before a padding which belongs to it."""
    if place.unpadded is None:
        return place
    if place.axes and absorbs_padding(operation, place.axes, place.padding):
        return place.unpadded._replace(axes=place.axes, is_raw=place.is_raw)
    return place._replace(unpadded=None)


def _regained(operation, place) -> _Place:
    """Return `place` with its axes, if a reshape restores the shape that a tensor had when they were lost."""
    if operation.type != "Reshape" or place.lost is None:
        return place
    shape, axes = place.lost
    after = operation.outputs[0].shape
    if after.rank != len(shape):
        return place
    is_same = all(after[i] == shape[i] for i, axis in enumerate(axes) if axis is not None)
    return place._replace(axes=axes, lost=None) if is_same else place


def _concatenated(operation, given) -> _Place:
    """Return the place of a concatenation: that of its main part, padded by the others."""
    *parts, axis = operation.inputs
    index, place = _main_input(operation, given)
    axis = tf.get_static_value(axis)
    if not place.axes or axis is None or place.axes[int(axis)] is None:
        return place
    before = sum(length(part, int(axis)) for part in parts[:index])
    after = sum(length(part, int(axis)) for part in parts[index + 1 :])
    paddings = [(0, 0)] * len(place.axes)
    paddings[int(axis)] = (before, after)
    return _padded(place, parts[index], paddings)


def _inside_functions(operation, places, unknown):
    """Return the place after a call, a branch or a loop."""
    _, place = _main_input(operation, [places.get(tensor.ref()) for tensor in operation.inputs])
    moving = moving_operations_inside(operation) if place.is_raw else []
    if not moving:
        return lambda output: place if len(place.axes) == output.shape.rank else place._replace(axes=())
    bodies = inlined(operation)
    if bodies is None:
        unknown.append(" and ".join(moving))
        return place
    ends = []
    for operations, results in bodies:
        inner = dict(places)
        _follow(operations, inner, unknown)
        ends.append([inner.get(result.ref()) for result in results])
    outputs = list(operation.outputs)
    predicate = operation.inputs[0]

    def of(output):
        number = next(i for i, each in enumerate(outputs) if each is output)
        found = [end[number] for end in ends]
        if None in found:
            return next((one for one in found if one is not None), place)
        return found[0] if len(found) == 1 else _either(predicate, *found)

    return of


def _either(predicate, then: _Place, otherwise: _Place) -> _Place:
    """Return the place after a branch."""
    if then.changes == otherwise.changes:
        return then
    choose = tf.cast(predicate, tf.float32)
    frame = tuple(
        tuple(choose * _as_float(a) + (1 - choose) * _as_float(b) for a, b in zip(one, other, strict=True))
        for one, other in zip(then.frame, otherwise.frame, strict=True)
    )
    changes = max(then.changes, otherwise.changes)
    return then._replace(frame=frame, changes=changes, unpadded=None)


def _as_float(number: Number) -> tf.Tensor:
    return tf.cast(number, tf.float32)

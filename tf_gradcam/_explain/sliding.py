"""Explain an image larger than the model by windows: `slide`, behind `GradCAM.sliding`, and its result."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._explain.explainer import Explainer
from tf_gradcam._explain.joined_windows import Cells, JoinedMap, make_cells, window_starts
from tf_gradcam._explain.sliding_arguments import (
    check_numbers,
    check_one_target,
    checked_size,
    checked_source,
    checked_window,
)
from tf_gradcam._explain.windows import Start, ValidPlaces, native_batch, one_ahead, read_batches
from tf_gradcam._graph import Placement
from tf_gradcam._heatmap import (
    FUSIONS,
    LARGEST_SIDE,
    Interpolation,
    fuse_heatmaps,
    parse_interpolation,
    to_heatmap,
)
from tf_gradcam._images import ALPHA, Look, overlay_named, show_named
from tf_gradcam._methods import is_classless

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class SlidingExplanation(NamedTuple):
    """The result of `GradCAM.sliding`: one heatmap of a whole image, in NumPy arrays.

    `(H, W)` stands for the axes of the heatmap, `(h, w)` for those of the joined grid: one for a signal,
    three for a volume or video. If several scores are explained, as with `targets.Classes`, the heatmap, map,
    scores and target have an axis for them after the first one. `overlay` and `show` are those of an
    `Explanation`, and `formats.write` takes its heatmap.

    Attributes:
        heatmap: `(1, H, W)` float32 in `[0, 1]`; for several layers their fused heatmaps.
        map: `(1, h, w)`, signed and unscaled: the maps of the windows joined on one grid; for several layers
            a tuple of them. Where a cell of a window's map is a whole number of pixels, so is a cell of this
            grid, and a part of the last one along an axis may lie beyond the image.
        scores: `(W,)`, the score of each window that was explained.
        starts: `(W, axes)` int64, where each of these windows begins, in pixels.
        target: `(1,)` int32, the class that was explained, or `None` if the target is not a class.
        window: the lengths of a window, in pixels.
        map_ends: where the map ends along each axis, in shares of the image's lengths: 1, or more if a part
            of its last cell lies beyond the image; of several layers a tuple for each.
        valid: bool, in the shape `(H, W)` of one heatmap: `False` where the image has nodata. `None` if the
            image doesn't say what is valid.
    """

    heatmap: np.ndarray
    map: Any  # An array, or a tuple of arrays.
    scores: np.ndarray
    starts: np.ndarray
    target: np.ndarray | None
    window: tuple[int, ...]
    map_ends: tuple[Any, ...]
    valid: np.ndarray | None

    @property
    def score(self) -> np.ndarray:
        """The highest score of a window, `(1,)`."""
        return self.scores.max(axis=0, keepdims=True)

    def overlay(
        self,
        photograph: Any,
        *,
        vmax: float | str | None = None,
        signed: bool = False,
        alpha: float = ALPHA,
        colormap: str | None = None,
        fade: bool = True,
    ) -> np.ndarray:
        """Lay the heatmap over the image, as `Explanation.overlay` does.

        Args:
            photograph: the image, in any form that `tf_gradcam.overlay` takes, such as a `formats.Scan`.
            vmax: the value of `map` that gets the full colour; see `tf_gradcam.overlay`.
            signed: whether what speaks against is drawn as well; see `tf_gradcam.overlay`.
            alpha: weight of the colours in `[0, 1]`; see `tf_gradcam.overlay`.
            colormap: name of a colour map; see `tf_gradcam.overlay`.
            fade: whether the colours fade with the heatmap; see `tf_gradcam.overlay`.

        Returns:
            uint8 array `(H, W, 3)`, RGB, or `(D, H, W, 3)`; see `tf_gradcam.overlay`.

        Raises:
            ImportError, FileNotFoundError, TypeError, ValueError: as `tf_gradcam.overlay` does.
        """
        return overlay_named("photograph", photograph, self, Look(vmax, signed, alpha, colormap, fade))

    def show(
        self,
        photograph: Any,
        *,
        titles: str | Sequence[str] | None = None,
        labels: Sequence[str] | Mapping[int, str] | None = None,
        vmax: float | str | None = None,
        signed: bool = False,
        alpha: float = ALPHA,
        colormap: str | None = None,
        fade: bool = True,
    ) -> "Figure":
        """Draw image, heatmap and overlay side by side, as `Explanation.show` does.

        Args:
            photograph: the image, in any form that `tf_gradcam.show` takes, such as a `formats.Scan`.
            titles: one string for each row; see `tf_gradcam.show`.
            labels: the names of the classes; see `tf_gradcam.show`.
            vmax: the value of `map` that gets the full colour; see `tf_gradcam.show`.
            signed: whether what speaks against is drawn as well; see `tf_gradcam.overlay`.
            alpha: weight of the colours in `[0, 1]`; see `tf_gradcam.overlay`.
            colormap: name of a colour map; see `tf_gradcam.overlay`.
            fade: whether the colours fade with the heatmap; see `tf_gradcam.overlay`.

        Returns:
            A `matplotlib.figure.Figure`; see `tf_gradcam.show`.

        Raises:
            ImportError, FileNotFoundError, TypeError, ValueError: as `tf_gradcam.show` does.
        """
        look = Look(vmax, signed, alpha, colormap, fade)
        return show_named("photograph", photograph, self, titles, labels, look)

    def __repr__(self) -> str:
        """Return shapes, windows and target in one line."""
        maps = self.map if isinstance(self.map, tuple) else (self.map,)
        grids = ", ".join(str(each.shape) for each in maps)
        windows = f"{len(self.starts)} windows of {' x '.join(map(str, self.window))}"
        target = None if self.target is None else self.target.tolist()
        return f"SlidingExplanation(heatmap {self.heatmap.shape}, map {grids}, {windows}, target {target})"


class _Answer(NamedTuple):
    """What was found for a batch of windows, in NumPy arrays.

    Attributes:
        starts: where the windows begin.
        maps: the signed map of each layer, `(N, M, *grid)`.
        frames: where each of these maps lies in its window, `(axes, 2)` shares of its lengths.
        strides: for each map the pixels between two cells, `(axes,)`, or `None`.
        score: `(N,)` or `(N, M)`.
        target: the classes in the shape of `score`, or `None`.
    """

    starts: list[Start]
    maps: list[np.ndarray]
    frames: list[np.ndarray]
    strides: list[Sequence[int | None]]
    score: np.ndarray
    target: np.ndarray | None


def slide(
    explainer: Explainer,
    model: keras.Model,
    image: Any,
    target: Any,
    window: int | Sequence[int] | None,
    overlap: float,
    batch_size: int,
    size: Any,
    interpolation: Interpolation | None,
    is_raw: bool,
) -> SlidingExplanation:
    """Return what `GradCAM.sliding` returns; `is_raw` says whether a `preprocess` comes before the model."""
    check_numbers(overlap, batch_size)
    interpolation = explainer.interpolation if interpolation is None else parse_interpolation(interpolation)
    source = checked_source(explainer, model, image, is_raw)
    check_one_target(explainer, target, len(source.lengths))
    lengths = checked_window(model, window, source, is_raw)
    drawn = checked_size(size, source.lengths)

    # The first window says how large a cell is, and so where the others begin.
    origin = (0,) * len(lengths)
    values, valid = source.window(origin, lengths)
    first = _explain(explainer, target, [origin], native_batch([values]))
    of_layers = zip(first.maps, first.frames, first.strides, strict=True)
    cells = [_cells(source.lengths, lengths, *each) for each in of_layers]
    starts = [_starts(along, overlap) for along in zip(*cells, strict=True)]
    places = [] if valid is None else _valid_places(source.lengths, cells, drawn)
    for each in places:
        each.add(origin, valid)
    others = itertools.islice(itertools.product(*starts), 1, None)
    batches = one_ahead(read_batches(source, lengths, others, batch_size, places))
    answers: Iterable[_Answer] = (_explain(explainer, target, *batch) for batch in batches)
    if valid is None or valid.any():
        answers = itertools.chain([first], answers)
    joined = [
        JoinedMap(along, starts, one.shape[1], one.dtype, valid is None)
        for along, one in zip(cells, first.maps, strict=True)
    ]
    scores, begun, classes = _join(answers, joined)
    maps = [each.finish() for each in joined]
    heatmap = _draw(explainer, maps, cells, drawn, interpolation)
    seen = [each.finish() for each in places]
    if seen:
        _remove_invalid(heatmap, maps, seen)
    if scores.ndim == 2:  # (M, *grid): it is one image with M scores.
        heatmap, maps = heatmap[None], [each[None] for each in maps]
    ends = [_ends(along) for along in cells]
    has_several = isinstance(explainer.layer, tuple)
    placed = (tuple(maps), tuple(ends)) if has_several else (maps[0], ends[0])
    return SlidingExplanation(
        heatmap, placed[0], scores, begun, classes, lengths, placed[1], seen[0] if seen else None
    )


def _explain(explainer, target, starts, batch) -> _Answer:
    """Return what a batch of windows answers, or raise a `ValueError` if it can't be joined."""
    answer = explainer.signed_maps("image", batch, target)
    score = answer.score.numpy()
    if len(score) != len(batch):
        raise ValueError(
            "`sliding` needs a model with an answer for each window. Received: a model with "
            f"{len(score)} for a batch of {len(batch)}, as for a bag of patches. Give batch_size=1."
        )
    axes, maps, frames = len(starts[0]), [], []
    for tensor, placement in zip(answer.maps, answer.placements, strict=True):
        values = tensor.numpy()
        values = values if score.ndim == 2 else values[:, None]
        if values.ndim != axes + 2:
            raise ValueError(
                f"`layer` must have a grid with the {axes} axes of the image, not counting its channels. "
                f"Received: a grid of {values.ndim - 2}. Choose another layer."
            )
        finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        if not finite.all():
            raise ValueError(
                "`model` must return finite scores and gradients. Received: NaN or infinity in the map of "
                f"the window that begins at {starts[int(finite.argmin())]}."
            )
        frame = np.tile([0.0, 1.0], (axes, 1))
        if placement is not None:
            frame = placement.frame.numpy()
            if placement.order is not None:
                values = np.transpose(values, (0, 1, *(2 + placement.order.numpy())))
        maps.append(values)
        frames.append(frame)
    strides = [[None] * axes if each is None else each.numpy().tolist() for each in answer.strides]
    strides = strides or [[None] * axes]  # of a method that reads no layer
    no_class = answer.target is None or is_classless(explainer.method)
    classes = None if no_class else answer.target.numpy()
    return _Answer(starts, maps, frames, strides, score, classes)


def _cells(lengths, window, values, frame, strides) -> list[Cells]:
    """Return the cells of the joined map along each axis, for the maps `(N, M, *grid)` of a layer."""
    axes = zip(lengths, window, values.shape[2:], frame, strides, strict=True)
    cells = [make_cells(*each) for each in axes]
    count = math.prod(each.cell_count for each in cells)
    if count > LARGEST_SIDE**2:
        raise ValueError(
            f"`image` must have a joined map of at most {LARGEST_SIDE**2} cells. Received: {count}, for an "
            f"image of {tuple(lengths)}. Choose a layer on a coarser grid, or a method that has one."
        )
    return cells


def _ends(cells: Sequence[Cells]) -> tuple[float, ...]:
    """Return where a joined map ends along each axis, in shares of the image's lengths."""
    return tuple(each.extent / each.length for each in cells)


def _starts(cells: Sequence[Cells], overlap: float) -> list[int]:
    """Return where windows begin along an axis, given its cells in the grid of each layer."""
    length, window = cells[0].length, cells[0].window
    unit = math.lcm(*(int(each.step) for each in cells)) if all(each.is_whole for each in cells) else 1
    unit = unit if unit <= window else 1
    # Where the model crops a window, the next one begins before the map of this one ends.
    seen = min(abs(each.map_end - each.map_start) for each in cells)
    step = math.floor(min(window * (1 - overlap), seen) / unit + 1e-9) * unit
    return window_starts(length, window, max(step, unit))


def _valid_places(lengths, cells, drawn) -> list[ValidPlaces]:
    """Return grids on which to note what is valid: that of the heatmap, then that of each layer."""
    grids = []
    for of_layer in cells:
        extents = [max(each.length, math.ceil(each.extent)) for each in of_layer]
        grids.append((extents, [each.cell_count for each in of_layer]))
    heatmap = max(grids, key=lambda grid: math.prod(grid[1])) if drawn is None else (lengths, drawn)
    return [ValidPlaces(*each) for each in (heatmap, *grids)]


def _join(answers: Iterable[_Answer], joined) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Add all maps to the joined ones. Return the scores, the starts, and the classes of all windows."""
    scores: list[np.ndarray] = []
    starts: list[Start] = []
    classes = None
    for answer in answers:
        for whole, maps in zip(joined, answer.maps, strict=True):
            for start, signed_map in zip(answer.starts, maps, strict=True):
                whole.add(start, signed_map)
        scores.append(answer.score)
        starts += answer.starts
        if answer.target is not None:
            classes = answer.target[:1] if classes is None else classes
            if (answer.target != classes).any():
                several = f"{classes.ravel()[0]} and {answer.target.ravel()[-1]}"
                raise ValueError(
                    "`target` must be one class for all windows. Received: a target of which each window "
                    f"explains its own, such as {several}. Name it."
                )
    if not starts:
        raise ValueError("`image` must have a valid place. Received: nodata everywhere.")
    return np.concatenate(scores), np.array(starts, np.int64), classes


def _draw(explainer, maps, cells, drawn, interpolation) -> np.ndarray:
    """Return the heatmap `(M, *size)` of joined maps `(M, *grid)`: one scale, found at the end."""
    counts = [math.prod(one.shape[1:]) for one in maps]
    finest = int(np.argmax(counts))
    lengths = [each.length for each in cells[0]]
    size = drawn
    if drawn is None and len(maps) > 1:
        size, lengths = maps[finest].shape[1:], [each.extent for each in cells[finest]]
    heatmaps = []
    with tf.device("CPU:0"):  # The maps are there, and a whole image may be too large for a GPU.
        to = None if size is None else tf.constant(size, tf.int32)
        for signed_map, along in zip(maps, cells, strict=True):
            ends = [each.extent / length for each, length in zip(along, lengths, strict=True)]
            frame = tf.constant([[0.0, end] for end in ends], tf.float32)
            placement = None if np.allclose(ends, 1, atol=1e-9) else Placement(frame, None, None)
            heatmaps.append(to_heatmap(tf.convert_to_tensor(signed_map), to, interpolation, placement))
        heatmap = heatmaps[0]
        if isinstance(explainer.layer, tuple):
            heatmap = fuse_heatmaps(heatmaps, counts, explainer.fuse or FUSIONS[0])
        del heatmaps
        return heatmap.numpy()


def _remove_invalid(heatmap, maps, valid) -> None:
    """Set to 0, in place, what lies where nothing is valid, and scale the heatmap again."""
    for values, places in zip((heatmap, *maps), valid, strict=True):
        values *= places
    largest = heatmap.max(axis=tuple(range(1, heatmap.ndim)), keepdims=True)
    np.divide(heatmap, largest, out=heatmap, where=largest > 0)

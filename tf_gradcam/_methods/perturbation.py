"""Methods that take something away, of the layer or of the image, and score what is left.

Each is a frozen dataclass whose fields are its parameters, so that equal ones share what was compiled for
them. All random numbers come from `seed` alone: they are the same for every image, whatever is in the batch,
and for every channel, so that what differs between two channels is not their noise.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import tensorflow as tf

from tf_gradcam._checks import check_counts, check_number, check_seed
from tf_gradcam._heatmap import resize_map
from tf_gradcam._methods.chunks import copies_per_pass, gather_chunks, sum_chunks
from tf_gradcam._methods.scene import Scene
from tf_gradcam._model import non_affine_operations

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class ablationcam:
    """Ablation-CAM: `w_k = (S - S_k) / S`, `L = sum_k w_k A_k`; `S_k` is the score without channel k.

    Only the network after the layer runs again, once for each channel; where that is pooling and a dense
    layer, one backward pass tells the same. The weights are shares of the score: where that is negative the
    map changes its sign, and where it is 0 the map is 0. Explain a probability where logits are negative.

    Source: Desai & Ramaswamy, "Ablation-CAM", WACV 2020, section 3 (before the ReLU). A channel is taken away
    by setting it to 0, as there, also where activations are negative.

    Attributes:
        channels: how many channels are taken away: those of each image with the largest variance over places.
            The others weigh 0. By default all.
        batch: how many rows of altered activations run at once, at least one for each image.
    """

    channels: int | None = None
    batch: int = 32

    def __post_init__(self):
        check_counts(self, "batch", optional=("channels",))

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *grid)`."""
        chosen = _strongest(scene.activations, self.channels)
        affine = scene.logits is not None and not non_affine_operations(scene.layer_output, scene.logits)
        lost = _added(scene, chosen) if affine else self._lost(scene, chosen)
        weights = tf.math.divide_no_nan(lost, scene.score[:, None])
        return _weighted(_only(scene.activations, self.channels), weights)

    def _lost(self, scene, chosen):
        """Return by how much the score falls without each of the channels `chosen` `(N, k)`."""
        activations = scene.activations
        ones = [1] * (activations.shape.rank - 2)

        def step(indices):
            taken = tf.transpose(tf.gather(chosen, indices, axis=1))
            left = tf.one_hot(taken, activations.shape[-1], 0, 1, dtype=activations.dtype)
            left = tf.reshape(left, [-1, tf.shape(taken)[1], *ones, activations.shape[-1]])
            return _by_image(scene.tail(_rows(activations * left, activations)), scene)

        copies = copies_per_pass(self.batch, activations)
        scores = gather_chunks(tf.shape(chosen)[1], copies, step, scene.score.dtype)
        return tf.transpose(scene.score - scores)


def _added(scene, chosen):
    """Return what each of the channels `chosen` `(N, k)` adds to a score that is affine in them."""
    activations = scene.activations
    places = list(range(1, activations.shape.rank - 1))
    return tf.gather(tf.reduce_sum(scene.gradients(scene.score) * activations, places), chosen, batch_dims=1)


@dataclasses.dataclass(frozen=True)
class scorecam:
    """Score-CAM: `w_k = softmax_k(S(X o M_k) - S(X_b))`, `L = sum_k w_k A_k`.

    The mask `M_k` is channel k, resized to the image and scaled to [0, 1]; a constant channel's is 0. The
    network runs once for each channel, on the image times the mask, where 0 is what the model takes as 0. The
    score of the baseline `X_b` is the same for all channels, so that the softmax doesn't depend on it.

    Source: Wang et al., "Score-CAM", CVPR Workshops 2020, algorithm 1 (before the ReLU). The authors' code
    does otherwise, see `authors`. On logits the softmax is nearly a maximum; on probabilities all channels
    weigh nearly the same.

    Attributes:
        channels: how many channels count: those of each image with the largest variance over places. The
            others weigh 0, and the softmax leaves them out. By default all.
        batch: how many masked images run at once, at least one for each image.
        authors: whether to weigh as the authors' code does: `w_k = S(X o M_k)`, and 0 for a constant channel.
            There the score is a probability: take `targets.Probability` with it.
        progress: called after each batch with how many masks are done and how many there are.
    """

    channels: int | None = None
    batch: int = 32
    authors: bool = False
    progress: Progress | None = None

    def __post_init__(self):
        check_counts(self, "batch", optional=("channels",))
        _check_progress(self.progress)

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *grid)`."""
        activations = _only(scene.activations, self.channels)
        scores = _mask_scores(scene, activations, self)
        if not self.authors:
            return _weighted(activations, tf.nn.softmax(scores))
        # They weigh the resized channels: as resizing is linear, it is the resized sum of these.
        places = range(1, activations.shape.rank - 1)
        varies = tf.reduce_max(activations, places) > tf.reduce_min(activations, places)
        return _weighted(activations, tf.where(varies, scores, tf.zeros_like(scores)))


@dataclasses.dataclass(frozen=True)
class sscam:
    """SS-CAM: Score-CAM with noisy masks, `w_k = softmax_k(mean_i S(X o (M_k + e_i)))`.

    `e_i` is Gaussian, independent from pixel to pixel and the same for all channels.

    Source: Wang, Naidu et al., "SS-CAM", 2020, the first of its two variants (before the ReLU).

    Attributes:
        samples: noisy copies of each mask. The paper takes 35.
        noise: the standard deviation of the noise, where 1 is the range of a mask. The paper takes 2, at
            which so little is left of the masks that all channels weigh nearly the same.
        seed: of the noise.
        channels: as in `scorecam`.
        batch: as in `scorecam`.
        progress: as in `scorecam`, with `samples` masks for each channel.
    """

    samples: int = 35
    noise: float = 0.2
    seed: int = 0
    channels: int | None = None
    batch: int = 32
    progress: Progress | None = None

    def __post_init__(self):
        check_counts(self, "samples", "batch", optional=("channels",))
        check_number(self, "noise", above=None)
        check_seed(self)
        _check_progress(self.progress)

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *grid)`."""

        def noisy(masks, sample):
            size = tf.shape(masks)[2:]
            noise = tf.map_fn(
                lambda each: tf.random.stateless_normal(size, [self.seed, each], 0, self.noise, masks.dtype),
                sample,
                fn_output_signature=masks.dtype,
            )
            return masks + noise[:, None]

        activations = _only(scene.activations, self.channels)
        scores = _mask_scores(scene, activations, self, self.samples, noisy)
        return _weighted(activations, tf.nn.softmax(scores))


@dataclasses.dataclass(frozen=True)
class iscam:
    """IS-CAM: Score-CAM with integrated scores, `w_k = softmax_k(mean_i S((i / n) X o M_k))`, i from 1 to n.

    The masked image comes up from nothing in n even steps, as along the path of integrated gradients.

    Source: Naidu et al., "IS-CAM", 2020 (before the ReLU), as an integral over the strength of the mask. The
    paper was not at hand; implementations differ, see `accumulate`.

    Attributes:
        samples: the number of steps, n. The paper takes 10.
        accumulate: whether step i multiplies by `1 / n + ... + i / n` instead of `i / n`, as torch-cam does,
            whose authors say that it was validated. With n = 10 the image goes up to 5.5 times
            itself, far from what the network was trained on.
        channels: as in `scorecam`.
        batch: as in `scorecam`.
        progress: as in `scorecam`, with `samples` masks for each channel.
    """

    samples: int = 10
    accumulate: bool = False
    channels: int | None = None
    batch: int = 32
    progress: Progress | None = None

    def __post_init__(self):
        check_counts(self, "samples", "batch", optional=("channels",))
        _check_progress(self.progress)

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *grid)`."""

        def scaled(masks, sample):
            step = tf.cast(sample + 1, masks.dtype)
            scale = (step * (step + 1) / 2 if self.accumulate else step) / self.samples
            return tf.reshape(scale, [-1] + [1] * (masks.shape.rank - 1)) * masks

        activations = _only(scene.activations, self.channels)
        scores = _mask_scores(scene, activations, self, self.samples, scaled)
        return _weighted(activations, tf.nn.softmax(scores))


@dataclasses.dataclass(frozen=True)
class rise:
    """RISE: `L = sum_i (S(X o M_i) - mean_j S(X o M_j)) M_i / (n p)`, n random masks, on the image itself.

    A mask is a grid of cells, each kept with probability p, resized beyond the image and cut out at a random
    shift. The paper's map is `sum_i S(X o M_i) M_i / (n p)`, what the score is on average where a pixel is
    kept. Its floor is the mean score; without it the map is what keeping a pixel adds: signed, the same for
    a probability and for one plus a constant, and far less noisy.

    Source: Petsiuk et al., "RISE", BMVC 2018, equation 6 and section 3.2.

    Attributes:
        masks: how many. The paper takes 4000 for VGG16 and 8000 for ResNet50; with fewer, noise remains.
        cells: along each side of the image.
        probability: that a cell is kept, between 0 and 1.
        centred: `False` for the paper's own map. Then explain a probability, as there.
        batch: how many masked images run at once, at least one for each image.
        seed: of the masks, which are the same for all images.
        progress: called after each batch with how many masks are done and how many there are.
    """

    masks: int = 1000
    cells: int = 7
    probability: float = 0.5
    centred: bool = True
    batch: int = 32
    seed: int = 0
    progress: Progress | None = None

    at_image: ClassVar[bool] = True

    def __post_init__(self):
        check_counts(self, "masks", "cells", "batch")
        check_number(self, "probability", below=1)
        check_seed(self)
        _check_progress(self.progress)

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, H, W)`."""
        image = scene.image
        if image.shape.rank != 4:
            raise ValueError(
                "`method` rise needs a model of images (N, H, W, C). "
                f"Received: an input with {image.shape.rank - 2} axes beside batch and channels."
            )
        draw = self._masks(image)

        def step(indices):
            masks = draw(indices)
            scores = _by_image(scene.at(_masked(image, masks[:, None])).score, scene)
            _report(self.progress, indices, self.masks, scores)
            explained = tf.einsum("bn,bhw->nhw", scores, masks)
            return explained, tf.reduce_sum(scores, axis=0), tf.reduce_sum(masks, axis=0)

        zeros = [tf.zeros_like(each) for each in (image[..., 0], scene.score, image[0, ..., 0])]
        explained, score, kept = sum_chunks(self.masks, copies_per_pass(self.batch, image), step, zeros)
        if self.centred:
            explained -= score[:, None, None] / self.masks * kept
        return explained / (self.masks * self.probability)

    def _masks(self, image):
        """Return the function from indices `(B,)` to masks `(B, H, W)` in [0, 1]."""
        size = tf.shape(image)[1:3]
        cell = -(-size // self.cells)
        draws = tf.random.stateless_uniform([self.masks, self.cells, self.cells], [self.seed, 0])
        shifts = tf.random.stateless_uniform([self.masks, 2], [self.seed, 1]) * tf.cast(cell, tf.float32)
        shifts = tf.cast(shifts, tf.int32)

        def draw(indices):
            kept = tf.cast(tf.gather(draws, indices) < self.probability, image.dtype)
            masks = tf.cast(resize_map(kept, (self.cells + 1) * cell, "bilinear"), image.dtype)
            for axis in range(2):
                places = tf.gather(shifts[:, axis, None], indices) + tf.range(size[axis])
                masks = tf.gather(masks, places, axis=axis + 1, batch_dims=1)
            return masks

        return draw


def _mask_scores(scene, activations, method, samples=1, changed=None) -> tf.Tensor:
    """Return the mean score of `samples` images times a mask of each channel, `(N, k)`.

    Args:
        scene: of the images.
        activations: `(N, *grid, k)`, the channels.
        method: with `batch` and `progress`.
        samples: how many masks of each channel.
        changed: masks `(B, N, *lengths)` and which of the samples they are `(B,)` to the masks to take.
    """
    rank = activations.shape.rank
    channels = tf.transpose(activations, [rank - 1, *range(rank - 1)])
    count = samples * activations.shape[-1]
    lengths = tf.shape(scene.image)[-rank + 1 : -1]

    def step(indices):
        masks = _resized(tf.gather(channels, indices // samples), lengths)
        if changed is not None:
            masks = changed(masks, indices % samples)
        scores = _by_image(scene.at(_masked(scene.image, masks)).score, scene)
        _report(method.progress, indices, count, scores)
        return scores

    scores = gather_chunks(count, copies_per_pass(method.batch, activations), step, scene.score.dtype)
    scores = tf.reshape(scores, [activations.shape[-1], samples, -1])
    return tf.transpose(tf.reduce_mean(scores, axis=1))


def _resized(channels, lengths):
    """Return `(B, N, *grid)` resized to `lengths`, each scaled to [0, 1]: where one is constant, to 0."""
    values = _rows(channels, channels[0])
    places = list(range(1, values.shape.rank))
    values -= tf.reduce_min(values, places, keepdims=True)  # A constant channel is then 0 without rounding.
    values = tf.cast(resize_map(values, lengths, "bilinear"), values.dtype)
    values -= tf.reduce_min(values, places, keepdims=True)
    masks = tf.math.divide_no_nan(values, tf.reduce_max(values, places, keepdims=True))
    return tf.reshape(masks, tf.concat([tf.shape(channels)[:2], lengths], axis=0))


def _masked(image, masks):
    """Return `(B * N, *axes, C)`: `image` times masks `(B, N or 1, *lengths)` of its last axes."""
    shape = tf.shape(masks)
    further = [1] * (image.shape.rank - masks.shape.rank)  # the frames of a video whose map has none
    masks = tf.reshape(masks, tf.concat([shape[:2], further, shape[2:], [1]], axis=0))
    # A layer may compute in float64 on an image in float32.
    return _rows(tf.cast(masks, image.dtype) * image, image)


def _rows(copies, one):
    """Return copies `(B, N, ...)` of a batch `one` `(N, ...)` as `(B * N, ...)`."""
    rows = tf.reshape(copies, tf.concat([[-1], tf.shape(one)[1:]], axis=0))
    return tf.ensure_shape(rows, [None, *one.shape[1:]])


def _by_image(score, scene):
    """Return the score of B copies of a batch `(B * N,)` as `(B, N)`."""
    return tf.reshape(score, [-1, tf.shape(scene.score)[0]])


def _strongest(activations, channels):
    """Return which channels have the largest variance over places, `(N, channels)`; by default all."""
    count = activations.shape[-1]
    if channels is None or channels >= count:
        return tf.tile(tf.range(count)[None], [tf.shape(activations)[0], 1])
    variance = tf.math.reduce_variance(activations, axis=list(range(1, activations.shape.rank - 1)))
    return tf.math.top_k(variance, channels).indices


def _only(activations, channels):
    """Return the strongest channels of each image, `(N, *grid, channels)`; by default all."""
    if channels is None:
        return activations
    return tf.gather(activations, _strongest(activations, channels), axis=-1, batch_dims=1)


def _weighted(activations, weights):
    """Return the sum over channels of `(N, *grid, k)` times weights `(N, k)`."""
    return tf.einsum("n...k,nk->n...", activations, weights)


def _report(progress, indices, count, done):
    """Tell `progress` after `done` was computed that the last of `indices` is."""
    if progress is None:
        return
    with tf.control_dependencies([done]):
        tf.py_function(lambda last: progress(int(last) + 1, count), [indices[-1]], [])


def _check_progress(progress):
    if progress is not None and not callable(progress):
        raise TypeError(f"`progress` must be a callable (done, total). Received: progress={progress!r}")

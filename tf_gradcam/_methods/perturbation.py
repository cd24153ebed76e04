"""Methods that remove a channel or mask the image, and score the rest. Listed in `registry`.

Each is a frozen dataclass whose fields are its parameters, so that equal methods share one trace. Random
numbers depend on `seed` only: they are the same for every image, for any batch, and for every channel, so
that two channels do not differ by their noise.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import tensorflow as tf

from tf_gradcam._checks import check_counts, check_number, check_seed
from tf_gradcam._graph import Placement, non_affine_operations
from tf_gradcam._heatmap import place_map
from tf_gradcam._methods.chunks import ALGORITHM, copies_per_pass, gather_chunks, merge_copies, sum_chunks
from tf_gradcam._methods.scene import Scene

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class ablationcam:
    """Ablation-CAM: `w_k = (S - S_k) / S`, `L = sum_k w_k A_k`; `S_k` is the score without channel k.

    Only the network after the layer runs again, once for each channel; where that is pooling and a dense
    layer, one backward pass gives the same result. The weights are fractions of the score: if it is negative,
    the map changes its sign, and if it is 0, the map is 0. Explain a probability if logits are negative.

    Source: Desai & Ramaswamy, "Ablation-CAM", WACV 2020, section 3 (before the ReLU). As in the paper, a
    channel is removed by setting it to 0, even if activations are negative.

    Attributes:
        channels: number of channels to remove one by one: for each image those with the largest variance over
            the grid. The others have weight 0. By default all.
        batch: number of altered activations that run at once; at least one of every image runs.
    """

    channels: int | None = None
    batch: int = 32

    def __post_init__(self) -> None:
        check_counts(self, "batch", optional=("channels",))

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *grid)`."""
        chosen = _strongest_channels(scene.activations, self.channels)
        is_affine = scene.logits is not None and not non_affine_operations(scene.layer_output, scene.logits)
        drops = _affine_contributions(scene, chosen) if is_affine else self._score_drops(scene, chosen)
        weights = tf.math.divide_no_nan(drops, scene.score[:, None])
        return _weighted_sum(_keep_strongest(scene.activations, self.channels), weights)

    def _score_drops(self, scene, chosen):
        """Return by how much the score drops without each of the channels `chosen` `(N, k)`."""
        activations = scene.activations
        ones = [1] * (activations.shape.rank - 2)

        def step(indices):
            removed = tf.transpose(tf.gather(chosen, indices, axis=1))
            kept = tf.one_hot(removed, activations.shape[-1], 0, 1, dtype=activations.dtype)
            kept = tf.reshape(kept, [-1, tf.shape(removed)[1], *ones, activations.shape[-1]])
            return _split_copies(scene.tail(merge_copies(activations * kept, activations)), scene)

        copies = copies_per_pass(self.batch, activations)
        scores = gather_chunks(tf.shape(chosen)[1], copies, step, scene.score.dtype)
        return tf.transpose(scene.score - scores)


def _affine_contributions(scene, chosen):
    """Return what each of the channels `chosen` `(N, k)` adds to a score that is affine in them."""
    activations = scene.activations
    grid_axes = list(range(1, activations.shape.rank - 1))
    contributions = tf.reduce_sum(scene.gradients(scene.score) * activations, grid_axes)
    return tf.gather(contributions, chosen, batch_dims=1)


@dataclasses.dataclass(frozen=True)
class scorecam:
    """Score-CAM: `w_k = softmax_k(S(X o M_k) - S(X_b))`, `L = sum_k w_k A_k`.

    The mask `M_k` is channel k, resized to the image and scaled to [0, 1]; that of a constant channel is 0.
    The network runs once for each channel, on the image times the mask, in the value range of the model's
    input. The score of the baseline `X_b` is the same for all channels, so the softmax does not depend on it.

    Source: Wang et al., "Score-CAM", CVPR Workshops 2020, algorithm 1 (before the ReLU). The authors' code
    differs, see `authors`. With logits the softmax is nearly a maximum; with probabilities all channels have
    nearly the same weight.

    Attributes:
        channels: number of channels to use: for each image those with the largest variance over the grid. The
            others have weight 0, and are left out of the softmax. By default all.
        batch: number of masked images that run at once; at least one mask of every image runs.
        authors: whether to use the weights of the authors' code: `w_k = S(X o M_k)`, and 0 for a constant
            channel. Their score is a probability: use it with `targets.Probability`.
        progress: called after each batch with the number of masks done and the total number of masks.
    """

    channels: int | None = None
    batch: int = 32
    authors: bool = False
    progress: Progress | None = None

    def __post_init__(self) -> None:
        check_counts(self, "batch", optional=("channels",))
        _check_progress(self.progress)

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *grid)`."""
        activations = _keep_strongest(scene.activations, self.channels)
        scores = _mask_scores(scene, activations, self)
        if not self.authors:
            return _weighted_sum(activations, tf.nn.softmax(scores))
        # The authors sum resized channels. Resizing is linear, so the sum may be resized instead.
        grid_axes = range(1, activations.shape.rank - 1)
        varies = tf.reduce_max(activations, grid_axes) > tf.reduce_min(activations, grid_axes)
        return _weighted_sum(activations, tf.where(varies, scores, tf.zeros_like(scores)))


@dataclasses.dataclass(frozen=True)
class sscam:
    """SS-CAM: Score-CAM with noisy masks, `w_k = softmax_k(mean_i S(X o (M_k + e_i)))`.

    `e_i` is Gaussian, independent for each pixel and the same for all channels.

    Source: Wang, Naidu et al., "SS-CAM", 2020, the first of its two variants (before the ReLU).

    Attributes:
        samples: number of noisy copies of each mask. The paper takes 35.
        noise: standard deviation of the noise, where 1 is the range of a mask. The paper takes 2, at which
            the noise hides the masks and all channels have nearly the same weight.
        seed: seed of the noise.
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

    def __post_init__(self) -> None:
        check_counts(self, "samples", "batch", optional=("channels",))
        check_number(self, "noise", above=None)
        check_seed(self)
        _check_progress(self.progress)

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *grid)`."""

        def add_noise(masks, samples):
            size = tf.shape(masks)[2:]
            noise = tf.map_fn(
                lambda index: tf.random.stateless_normal(
                    size, [self.seed, index], 0, self.noise, masks.dtype, alg=ALGORITHM
                ),
                samples,
                fn_output_signature=masks.dtype,
            )
            return masks + noise[:, None]

        activations = _keep_strongest(scene.activations, self.channels)
        scores = _mask_scores(scene, activations, self, self.samples, add_noise)
        return _weighted_sum(activations, tf.nn.softmax(scores))


@dataclasses.dataclass(frozen=True)
class iscam:
    """IS-CAM: Score-CAM with integrated scores, `w_k = softmax_k(mean_i S((i / n) X o M_k))`, i from 1 to n.

    The masked image grows from 0 in n equal steps, as along the path of integrated gradients.

    Source: Naidu et al., "IS-CAM", 2020 (before the ReLU), as an integral over the strength of the mask. The
    text of the paper was not available; implementations differ, see `accumulate`.

    Attributes:
        samples: number of steps, n. The paper takes 10.
        accumulate: whether step i multiplies by `1 / n + ... + i / n` instead of `i / n`, as torch-cam does,
            whose authors say that it was validated. With n = 10 the image is multiplied by up to 5.5, far
            from the values that the network was trained on.
        channels: as in `scorecam`.
        batch: as in `scorecam`.
        progress: as in `scorecam`, with `samples` masks for each channel.
    """

    samples: int = 10
    accumulate: bool = False
    channels: int | None = None
    batch: int = 32
    progress: Progress | None = None

    def __post_init__(self) -> None:
        check_counts(self, "samples", "batch", optional=("channels",))
        _check_progress(self.progress)

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *grid)`."""

        def scale_masks(masks, samples):
            step = tf.cast(samples + 1, masks.dtype)
            scale = (step * (step + 1) / 2 if self.accumulate else step) / self.samples
            return tf.reshape(scale, [-1] + [1] * (masks.shape.rank - 1)) * masks

        activations = _keep_strongest(scene.activations, self.channels)
        scores = _mask_scores(scene, activations, self, self.samples, scale_masks)
        return _weighted_sum(activations, tf.nn.softmax(scores))


@dataclasses.dataclass(frozen=True)
class rise:
    """RISE: `L = sum_i (S(X o M_i) - mean_j S(X o M_j)) M_i / (n p)`, n random masks, on the image itself.

    A mask is a grid of cells, each kept with probability p, resized to more than the image and cropped at a
    random offset; for a signal or volume it has one or three axes. The paper's map is
    `sum_i S(X o M_i) M_i / (n p)`, the mean score of the masks that keep a pixel. Here the mean score of all
    masks is subtracted first, so that the map is what keeping a pixel adds: it is signed, does not depend on
    a constant that is added to the score, and is far less noisy.

    Source: Petsiuk et al., "RISE", BMVC 2018, equation 6 and section 3.2.

    Attributes:
        masks: number of masks. The paper takes 4000 for VGG16 and 8000 for ResNet50; with fewer, noise
            remains.
        cells: number of cells along each axis of the image.
        probability: probability that a cell is kept, between 0 and 1.
        centred: whether to subtract the mean score; `False` for the paper's map. Then explain a probability,
            as the paper does.
        batch: number of masked images that run at once; at least one mask of every image runs.
        seed: seed of the masks, which are the same for all images.
        progress: called after each batch with the number of masks done and the total number of masks.
    """

    masks: int = 1000
    cells: int = 7
    probability: float = 0.5
    centred: bool = True
    batch: int = 32
    seed: int = 0
    progress: Progress | None = None

    at_image: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_counts(self, "masks", "cells", "batch")
        check_number(self, "probability", below=1)
        check_seed(self)
        _check_progress(self.progress)

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *axes)`."""
        image = scene.image
        make_masks = self._mask_function(image)

        def step(indices, weights):
            masks = make_masks(indices)
            scores = _split_copies(scene.at(masked_images(image, masks[:, None])).score, scene)
            _report_progress(self.progress, indices, self.masks, scores)
            scores *= tf.cast(weights, scores.dtype)[:, None]
            kept = tf.tensordot(tf.cast(weights, masks.dtype), masks, 1)
            return tf.tensordot(scores, masks, [[0], [0]]), tf.reduce_sum(scores, axis=0), kept

        zeros = [tf.zeros_like(values) for values in (image[..., 0], scene.score, image[0, ..., 0])]
        explained, score, kept = sum_chunks(self.masks, copies_per_pass(self.batch, image), step, zeros)
        if self.centred:
            explained -= tf.tensordot(score / self.masks, kept, 0)
        return explained / (self.masks * self.probability)

    def _mask_function(self, image):
        """Return the function from indices `(B,)` to masks `(B, *axes)` in [0, 1]."""
        size, axes = tf.shape(image)[1:-1], image.shape.rank - 2
        cell = -(-size // self.cells)
        grid = [self.cells] * axes
        draws = tf.random.stateless_uniform([self.masks, *grid], [self.seed, 0], alg=ALGORITHM)
        shifts = tf.random.stateless_uniform([self.masks, axes], [self.seed, 1], alg=ALGORITHM)
        shifts = tf.cast(shifts * tf.cast(cell, tf.float32), tf.int32)

        def make_masks(indices):
            kept = tf.cast(tf.gather(draws, indices) < self.probability, image.dtype)
            masks = tf.cast(place_map(kept, (self.cells + 1) * cell, "bilinear"), image.dtype)
            for axis in range(axes):
                positions = tf.gather(shifts[:, axis, None], indices) + tf.range(size[axis])
                masks = tf.gather(masks, positions, axis=axis + 1, batch_dims=1)
            return masks

        return make_masks


def _mask_scores(scene, activations, method, samples=1, change_masks=None) -> tf.Tensor:
    """Return for each channel the mean score of the image under `samples` masks, `(N, k)`.

    Args:
        scene: the scene of the images.
        activations: the channels to make masks of, `(N, *grid, k)`.
        method: the method, for its `batch` and `progress`.
        samples: number of masks for each channel.
        change_masks: function from masks `(B, N, *lengths)` and their sample numbers `(B,)` to the masks to
            use instead.
    """
    rank = activations.shape.rank
    channels = tf.transpose(activations, [rank - 1, *range(rank - 1)])
    count = samples * activations.shape[-1]
    lengths = tf.shape(scene.image)[-rank + 1 : -1]
    placement = scene.layer_placement()

    def step(indices):
        masks = channel_masks(tf.gather(channels, indices // samples), lengths, placement)
        if change_masks is not None:
            masks = change_masks(masks, indices % samples)
        scores = _split_copies(scene.at(masked_images(scene.image, masks)).score, scene)
        _report_progress(method.progress, indices, count, scores)
        return scores

    scores = gather_chunks(count, copies_per_pass(method.batch, activations), step, scene.score.dtype)
    scores = tf.reshape(scores, [activations.shape[-1], samples, -1])
    return tf.transpose(tf.reduce_mean(scores, axis=1))


def channel_masks(channels: tf.Tensor, lengths: tf.Tensor, placement: Placement | None) -> tf.Tensor:
    """Return channels `(B, N, *grid)` placed on the image, scaled to [0, 1]; a constant channel is 0."""
    values = merge_copies(channels, channels[0])
    axes = list(range(1, values.shape.rank))
    values -= tf.reduce_min(values, axes, keepdims=True)  # A constant channel is then exactly 0.
    values = tf.cast(place_map(values, lengths, "bilinear", placement), values.dtype)
    values -= tf.reduce_min(values, axes, keepdims=True)
    masks = tf.math.divide_no_nan(values, tf.reduce_max(values, axes, keepdims=True))
    return tf.reshape(masks, tf.concat([tf.shape(channels)[:2], lengths], axis=0))


def masked_images(image: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
    """Return `image` times masks `(B, N or 1, *lengths)` of its last axes, `(B * N, *axes, C)`."""
    shape = tf.shape(masks)
    missing = [1] * (image.shape.rank - masks.shape.rank)  # such as the time axis of a video
    masks = tf.reshape(masks, tf.concat([shape[:2], missing, shape[2:], [1]], axis=0))
    # A layer may compute in float64 on an image in float32.
    return merge_copies(tf.cast(masks, image.dtype) * image, image)


def _split_copies(score, scene):
    """Return the score `(B * N,)` of B copies of the batch of `scene` as `(B, N)`."""
    return tf.reshape(score, [-1, tf.shape(scene.score)[0]])


def _strongest_channels(activations, channels):
    """Return the indices of the channels with the largest variance, `(N, channels)`; all if `None`."""
    count = activations.shape[-1]
    if channels is None or channels >= count:
        return tf.tile(tf.range(count)[None], [tf.shape(activations)[0], 1])
    variance = tf.math.reduce_variance(activations, axis=list(range(1, activations.shape.rank - 1)))
    return tf.math.top_k(variance, channels).indices


def _keep_strongest(activations, channels):
    """Return the activations of the strongest channels, `(N, *grid, channels)`; all if `None`."""
    if channels is None:
        return activations
    return tf.gather(activations, _strongest_channels(activations, channels), axis=-1, batch_dims=1)


def _weighted_sum(activations, weights):
    """Return the sum over channels of activations `(N, *grid, k)` times weights `(N, k)`."""
    return tf.einsum("n...k,nk->n...", activations, weights)


def _report_progress(progress, indices, count, scores):
    """Call `progress` once `scores` are computed, with the number of masks up to the last of `indices`."""
    if progress is None:
        return
    with tf.control_dependencies([scores]):
        tf.py_function(lambda last: progress(int(last) + 1, count), [indices[-1]], [])


def _check_progress(progress):
    if progress is not None and not callable(progress):
        raise TypeError(f"`progress` must be a callable (done, total). Received: progress={progress!r}")

"""Methods that average another one over noisy, flipped or zoomed images. Listed in `registry`."""

import dataclasses
import itertools
import numbers
import warnings

import tensorflow as tf

from tf_gradcam._checks import check_counts, check_number, check_seed
from tf_gradcam._graph import non_affine_operations
from tf_gradcam._methods.chunks import ALGORITHM, copies_per_pass, sum_chunks, sum_of_copies
from tf_gradcam._methods.formulas import gradcam_plus_plus
from tf_gradcam._methods.protocol import (
    Method,
    apply_method,
    image_formula,
    is_at_image,
    is_formula,
    takes_gradients,
)
from tf_gradcam._methods.scene import Scene

_FLIPS = {"horizontal": -1, "vertical": -2}  # axes of a map


@dataclasses.dataclass(frozen=True)
class smooth:
    """Average a method over noisy copies of the image, for the class of the image without noise.

    For a formula, each power of the gradients is averaged, and the activations are those of the image
    without noise: `smooth("gradcam_plus_plus")` is Smooth Grad-CAM++, with `g`, `g^2` and `g^3` averaged. For
    a method on the image's gradients, these are averaged: `smooth("gradient")` is SmoothGrad. For any other
    method, the map is averaged.

    Around a formula it changes nothing where the model is affine from the layer to the logit, as at the
    default layer of a classifier that ends in average pooling and a dense layer: there the gradients are the
    same for every image. It warns of that. Explain an earlier layer, or `targets.Probability`.

    Source: Omeiza et al., "Smooth Grad-CAM++", 2019, equations 9 and 10; Smilkov et al., "SmoothGrad", 2017.

    Attributes:
        method: name, formula or method.
        samples: number of copies.
        noise: standard deviation of the Gaussian noise, as a fraction of each image's range of values.
        seed: seed of the noise, which is the same for all images of a batch.
        batch: maximum number of images in one pass.
    """

    method: Method
    samples: int = 16
    noise: float = 0.15
    seed: int = 0
    batch: int = 8

    def __post_init__(self) -> None:
        _check_method(self.method)
        check_counts(self, "samples", "batch")
        check_number(self, "noise", above=None)
        check_seed(self)

    @property
    def at_image(self) -> bool:
        """True if the map of the inner method lies on the image."""
        return is_at_image(self.method)

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the averaged map, with the shape of the inner method's map."""
        method = self.method
        if is_formula(method) and takes_gradients(method):
            _warn_if_affine(scene, self.samples)
            terms = self._mean_gradient_powers(scene, scene.activations, _is_gradcam_plus_plus(method))
            return method(scene.activations, *terms)
        formula = image_formula(method)
        if formula is not None:
            return formula(scene.image, *self._mean_gradient_powers(scene, scene.image, False))
        # The first map gives the shape of the sum.
        first = apply_method(method, scene.at(self._noisy_copies(scene.image, tf.constant([0]))))

        def step(indices, weights):
            maps = apply_method(method, scene.at(self._noisy_copies(scene.image, indices + 1)))
            return [sum_of_copies(maps, first, weights)]

        (total,) = sum_chunks(self.samples - 1, copies_per_pass(self.batch, scene.image), step, [first])
        return total / self.samples

    def _mean_gradient_powers(self, scene, source, with_powers) -> list[tf.Tensor]:
        """Return the mean of the gradients by `source`; `with_powers`, also of their squares and cubes."""
        powers = (1, 2, 3) if with_powers else (1,)

        def step(indices, weights):
            noisy = scene.at(self._noisy_copies(scene.image, indices))
            differentiate = noisy.image_gradients if source is scene.image else noisy.gradients
            gradients = differentiate(noisy.score)
            return [sum_of_copies(gradients**power, source, weights) for power in powers]

        zeros = [tf.zeros_like(source) for _ in powers]
        sums = sum_chunks(self.samples, copies_per_pass(self.batch, scene.image), step, zeros)
        return [total / self.samples for total in sums]

    def _noisy_copies(self, image, indices):
        """Return a copy of `image` for each index, with the noise of that index."""
        axes = list(range(1, image.shape.rank))
        spread = tf.reduce_max(image, axes, keepdims=True) - tf.reduce_min(image, axes, keepdims=True)
        noise = tf.map_fn(
            lambda index: tf.random.stateless_normal(
                tf.shape(image)[1:], tf.stack([self.seed, index]), dtype=image.dtype, alg=ALGORITHM
            ),
            indices,
            fn_output_signature=tf.TensorSpec(image.shape[1:], image.dtype),
        )
        copies = image + self.noise * spread * noise[:, None]
        return tf.reshape(copies, tf.concat([[-1], tf.shape(image)[1:]], axis=0))


def _warn_if_affine(scene, samples) -> None:
    """Warn where the gradients don't depend on the image: their mean over noisy images is what they are."""
    if scene.logits is None or non_affine_operations(scene.layer_output, scene.logits):
        return
    warnings.warn(
        "`smooth` changes nothing here: from the layer to the logits the model is affine, so the gradients "
        f"are the same for every noisy image; {samples} samples only take time. Explain an earlier layer, "
        "or targets.Probability.",
        stacklevel=2,
    )


def _is_gradcam_plus_plus(formula) -> bool:
    return getattr(formula, "func", formula) is gradcam_plus_plus  # or a partial of it


@dataclasses.dataclass(frozen=True)
class augment:
    """Average a method's map over flipped and zoomed copies of the image, with each map transformed back.

    The class is that of the original image. All copies go through the network in one pass. A position that a
    copy does not show, because it was zoomed in, is averaged over the other copies.

    Attributes:
        method: name, formula or method.
        flips: `"horizontal"`, `"vertical"` or both; each flip doubles the number of copies.
        scales: factors to zoom by about the centre, from 0.1 to 10; pixels outside the image are 0.
    """

    method: Method
    flips: tuple[str, ...] = ("horizontal",)
    scales: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        _check_method(self.method)
        for name in ("flips", "scales"):
            if isinstance(getattr(self, name), list):  # A list is not hashable, so it cannot be a cache key.
                object.__setattr__(self, name, tuple(getattr(self, name)))
        is_valid = isinstance(self.flips, tuple) and len(set(map(str, self.flips))) == len(self.flips)
        if not is_valid or not all(flip in list(_FLIPS) for flip in self.flips):
            raise ValueError(f"`flips` must be a tuple of {list(_FLIPS)}. Received: flips={self.flips!r}")
        is_valid = isinstance(self.scales, tuple) and len(self.scales) > 0
        if not is_valid or not all(map(_is_scale, self.scales)):
            raise ValueError(
                f"`scales` must be a tuple of factors from 0.1 to 10. Received: scales={self.scales!r}"
            )

    @property
    def at_image(self) -> bool:
        """True if the map of the inner method lies on the image."""
        return is_at_image(self.method)

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the averaged map, with the shape of the inner method's map."""
        if self.scales != (1.0,) and scene.image.shape.rank != 4:
            raise ValueError(
                "`scales` must be (1.0,) unless the input is an image (N, H, W, C). "
                f"Received: scales={self.scales} and an input of shape {scene.image.shape}"
            )
        if "vertical" in self.flips and scene.image.shape.rank < 4:
            raise ValueError(
                f"`flips` must not be vertical for an input with one axis. Received: flips={self.flips} and "
                f"an input of shape {scene.image.shape}"
            )
        axes_choices = [[(), (_FLIPS[flip],)] for flip in self.flips]
        flips = [sum(axes, ()) for axes in itertools.product(*axes_choices)]
        copies = list(itertools.product(flips, self.scales))
        images = [_flip(_zoom(scene.image, scale), axes, 1) for axes, scale in copies]
        maps = apply_method(self.method, scene.at(tf.concat(images, axis=0)))
        maps = tf.split(maps, len(copies))
        unflipped = [
            _flip(one_map, axes, 0)[..., None] for one_map, (axes, _) in zip(maps, copies, strict=True)
        ]
        maps_and_scales = list(zip(unflipped, [1 / scale for _, scale in copies], strict=True))
        counts = [_zoom(tf.ones_like(one_map), scale) for one_map, scale in maps_and_scales]
        mean = tf.math.divide_no_nan(sum(_zoom(*pair) for pair in maps_and_scales), sum(counts))
        return mean[..., 0]


def _check_method(method) -> None:
    """Raise a `TypeError` for what can be no method; `get` looks up a name."""
    if not isinstance(method, str) and not callable(method) and is_formula(method):
        raise TypeError(
            "`method` must be a name, a callable (activations, gradients) -> map, or one of "
            f"tf_gradcam.methods. Received: method={method!r:.80} (of type {type(method).__name__})"
        )


def _is_scale(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and 0.1 <= float(value) <= 10


def _flip(values, axes, channel_axes):
    """Return `values` with axes of the map reversed; the last `channel_axes`, 0 or 1, are no axes of it."""
    return tf.reverse(values, [values.shape.rank - channel_axes + axis for axis in axes]) if axes else values


def _zoom(images, scale):
    """Return images `(N, H, W, C)` zoomed about their centre by `scale`, with 0 outside the image."""
    if scale == 1:
        return images
    size, count = tf.shape(images)[1:3], tf.shape(images)[0]
    low, high = 0.5 - 0.5 / scale, 0.5 + 0.5 / scale
    boxes = tf.tile([[low, low, high, high]], [count, 1])
    zoomed = tf.image.crop_and_resize(tf.cast(images, tf.float32), boxes, tf.range(count), size)
    return tf.cast(zoomed, images.dtype)

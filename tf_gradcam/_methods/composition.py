"""Methods made of methods: the same explanation over noisy, flipped or zoomed copies of the image."""

import dataclasses
import itertools
import numbers

import tensorflow as tf

from tf_gradcam._checks import check_counts, check_number, check_seed
from tf_gradcam._methods.chunks import copies_per_pass, sum_chunks
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

    Of a formula, the gradients are averaged in every term that they stand in, and the activations are those
    of the image itself: `smooth("gradcam_plus_plus")` is Smooth Grad-CAM++, with `g`, `g^2` and `g^3`
    averaged. So are the image's gradients: `smooth("gradient")` is SmoothGrad. Of any other method the map is
    averaged.

    Source: Omeiza et al., "Smooth Grad-CAM++", 2019, equations 9 and 10; Smilkov et al., "SmoothGrad", 2017.

    Attributes:
        method: name, formula or method.
        samples: how many copies.
        noise: standard deviation of the Gaussian noise, as a share of each image's range of values.
        seed: of the noise, which is the same for all images of a batch.
        batch: how many images at most are in one pass.
    """

    method: Method
    samples: int = 16
    noise: float = 0.15
    seed: int = 0
    batch: int = 8

    def __post_init__(self):
        check_counts(self, "samples", "batch")
        check_number(self, "noise", above=None)
        check_seed(self)

    @property
    def at_image(self) -> bool:
        """Whether the inner method explains at the image itself."""
        return is_at_image(self.method)

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map of the inner method, of its shape."""
        method = self.method
        if is_formula(method) and takes_gradients(method):
            terms = self._mean_powers(scene, scene.activations, _takes_powers(method))
            return method(scene.activations, *terms)
        formula = image_formula(method)
        if formula is not None:
            return formula(scene.image, *self._mean_powers(scene, scene.image, False))
        # The first map says what shape they have.
        first = apply_method(method, scene.at(self._noisy(scene.image, tf.constant([0]))))

        def more(indices):
            found = apply_method(method, scene.at(self._noisy(scene.image, indices + 1)))
            return [_sum_of_copies(found, first)]

        (added,) = sum_chunks(self.samples - 1, copies_per_pass(self.batch, scene.image), more, [first])
        return added / self.samples

    def _mean_powers(self, scene, by, several) -> list[tf.Tensor]:
        """Return the mean of the gradients by `by`, and if asked for those of their squares and cubes."""
        powers = (1, 2, 3) if several else (1,)

        def step(indices):
            noisy = scene.at(self._noisy(scene.image, indices))
            differentiate = noisy.image_gradients if by is scene.image else noisy.gradients
            gradients = differentiate(noisy.score)
            return [_sum_of_copies(gradients**power, by) for power in powers]

        zeros = [tf.zeros_like(by) for _ in powers]
        sums = sum_chunks(self.samples, copies_per_pass(self.batch, scene.image), step, zeros)
        return [each / self.samples for each in sums]

    def _noisy(self, image, indices):
        """Return a copy of `image` for each index, with the noise of that index."""
        axes = list(range(1, image.shape.rank))
        spread = tf.reduce_max(image, axes, keepdims=True) - tf.reduce_min(image, axes, keepdims=True)
        noise = tf.map_fn(
            lambda index: tf.random.stateless_normal(
                tf.shape(image)[1:], tf.stack([self.seed, index]), dtype=image.dtype
            ),
            indices,
            fn_output_signature=tf.TensorSpec(image.shape[1:], image.dtype),
        )
        copies = image + self.noise * spread * noise[:, None]
        return tf.reshape(copies, tf.concat([[-1], tf.shape(image)[1:]], axis=0))


def _takes_powers(formula) -> bool:
    return getattr(formula, "func", formula) is gradcam_plus_plus  # also with parameters, as a partial


def _sum_of_copies(values, like):
    """Return the sum over copies `(R * N, ...)` of `(N, ...)`."""
    return tf.reduce_sum(tf.reshape(values, tf.concat([[-1], tf.shape(like)], axis=0)), axis=0)


@dataclasses.dataclass(frozen=True)
class augment:
    """Average a method's map over flipped and zoomed copies of the image, each turned back before.

    The class is that of the image as it is. All copies go through the network in one pass. Of a place that a
    copy doesn't show, as it was zoomed in, the mean is over the other copies.

    Attributes:
        method: name, formula or method.
        flips: of `"horizontal"` and `"vertical"`; each is done and not done.
        scales: factors to zoom by, about the middle, from 0.1 to 10; beyond the edge of the image is 0.
    """

    method: Method
    flips: tuple[str, ...] = ("horizontal",)
    scales: tuple[float, ...] = (1.0,)

    def __post_init__(self):
        for name in ("flips", "scales"):
            if isinstance(getattr(self, name), list):  # It could be no key of a cache.
                object.__setattr__(self, name, tuple(getattr(self, name)))
        several = isinstance(self.flips, tuple) and len(set(map(str, self.flips))) == len(self.flips)
        if not several or not all(flip in list(_FLIPS) for flip in self.flips):
            raise ValueError(f"`flips` must be a tuple of {list(_FLIPS)}. Received: flips={self.flips!r}")
        several = isinstance(self.scales, tuple) and self.scales
        if not several or not all(map(_is_scale, self.scales)):
            raise ValueError(
                f"`scales` must be a tuple of factors from 0.1 to 10. Received: scales={self.scales!r}"
            )

    @property
    def at_image(self) -> bool:
        """Whether the inner method explains at the image itself."""
        return is_at_image(self.method)

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map of the inner method, of its shape."""
        if self.scales != (1.0,) and scene.image.shape.rank != 4:
            raise ValueError(
                "`scales` must be (1.0,) for what is no image (N, H, W, C). "
                f"Received: scales={self.scales} and {scene.image.shape}"
            )
        if "vertical" in self.flips and scene.image.shape.rank < 4:
            raise ValueError(
                f"`flips` must not be vertical for what has one axis. Received: flips={self.flips} and "
                f"{scene.image.shape}"
            )
        switches = [[(), (_FLIPS[flip],)] for flip in self.flips]
        flips = [sum(axes, ()) for axes in itertools.product(*switches)]
        copies = list(itertools.product(flips, self.scales))
        images = [_flipped(_zoomed(scene.image, scale), axes, 1) for axes, scale in copies]
        found = apply_method(self.method, scene.at(tf.concat(images, axis=0)))
        found = tf.split(found, len(copies))
        turned = [_flipped(each, axes, 0)[..., None] for each, (axes, _) in zip(found, copies, strict=True)]
        pairs = list(zip(turned, [1 / scale for _, scale in copies], strict=True))
        seen = [_zoomed(tf.ones_like(each), scale) for each, scale in pairs]
        mean = tf.math.divide_no_nan(sum(_zoomed(*pair) for pair in pairs), sum(seen))
        return mean[..., 0]


def _is_scale(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and 0.1 <= float(value) <= 10


def _flipped(values, axes, channels):
    """Return `values` with the axes of a map reversed, given how many axes of channels come after them."""
    return tf.reverse(values, [values.shape.rank - channels + axis for axis in axes]) if axes else values


def _zoomed(images, scale):
    """Return images `(N, H, W, C)` zoomed about their middle by `scale`, with 0 beyond the edge."""
    if scale == 1:
        return images
    size, count = tf.shape(images)[1:3], tf.shape(images)[0]
    low, high = 0.5 - 0.5 / scale, 0.5 + 0.5 / scale
    boxes = tf.tile([[low, low, high, high]], [count, 1])
    zoomed = tf.image.crop_and_resize(tf.cast(images, tf.float32), boxes, tf.range(count), size)
    return tf.cast(zoomed, images.dtype)

"""Opti-CAM, which searches the channel weights whose mask has the largest score. Listed in `registry`."""

import dataclasses

import tensorflow as tf

from tf_gradcam._checks import check_counts, check_number
from tf_gradcam._methods.perturbation import channel_masks, masked_images
from tf_gradcam._methods.scene import Scene

_DECAYS = (0.9, 0.999)  # Of Adam's means of the gradient and of its square.
_EPSILON = 1e-8


@dataclasses.dataclass(frozen=True)
class opticam:
    """Opti-CAM: `L = sum_k softmax(u)_k ReLU(A_k)`, with the `u` of each image that maximizes `S(X o M(L))`.

    The mask `M(L)` is L, resized to the image and scaled to [0, 1] by its minimum and maximum. Adam searches
    `u` from equal weights: each step is a forward pass on the image times the mask, in the value range of
    the model's input, and a backward pass to the image. As the mask depends neither on the minimum of L nor
    on its scale, the map is L scaled to [0, 1] too: the heatmap is the mask, but for rounding at its minimum.

    Source: Zhang et al., "Opti-CAM: Optimizing saliency maps for interpretability", CVIU 2024. ReLU, start
    and parameters are those of the authors' code with its "plain" loss. That also stops early, as soon as
    the loss of the whole batch has risen; here the number of steps is fixed, so that the map of an image does
    not depend on the others.

    Attributes:
        steps: number of steps, each of which costs a forward and a backward pass through all of the network.
        learning_rate: about how much a weight `u_k` changes in one step.
    """

    steps: int = 50
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        check_counts(self, "steps")
        check_number(self, "learning_rate")

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *grid)`."""
        activations = tf.nn.relu(scene.activations)
        lengths = tf.shape(scene.image)[1 - activations.shape.rank : -1]
        placement = scene.layer_placement()

        def gradient_at(u):
            masks = channel_masks(_combined(activations, u)[None], lengths, placement)
            masked = masked_images(scene.image, masks)
            there = scene.at(masked)
            upstream = tf.cast(there.image_gradients(there.score), masked.dtype)
            return tf.gradients(masked, [u], upstream)[0]

        grid_axes = list(range(1, activations.shape.rank - 1))
        equal = tf.zeros_like(tf.reduce_sum(activations, grid_axes))
        combined = _combined(activations, _ascend(equal, gradient_at, self.steps, self.learning_rate))
        above = combined - tf.reduce_min(combined, grid_axes, keepdims=True)
        return tf.math.divide_no_nan(above, tf.reduce_max(above, grid_axes, keepdims=True))


def _combined(activations, u):
    """Return the sum over channels of activations `(N, *grid, K)`, each times its share of `u` `(N, K)`."""
    return tf.einsum("n...k,nk->n...", activations, tf.nn.softmax(u))


def _ascend(start, gradient_at, steps, learning_rate):
    """Return where Adam gets from `start` `(N, K)` when it ascends along `gradient_at`, each row by itself.

    Adam's epsilon and decays are those of Kingma & Ba, ICLR 2015, algorithm 1.
    """

    def step(number, u, mean, square):
        gradient = gradient_at(u)
        mean, square = (
            decay * old + (1 - decay) * new
            for decay, old, new in zip(_DECAYS, (mean, square), (gradient, gradient**2), strict=True)
        )
        # They started at 0. In float32 the share of the first steps would be off by 1e-5.
        shares = tf.cast(1 - tf.constant(_DECAYS, tf.float64) ** tf.cast(number, tf.float64), u.dtype)
        first, second = mean / shares[0], square / shares[1]
        return number + 1, u + learning_rate * first / (tf.sqrt(second) + _EPSILON), mean, square

    _, found, _, _ = tf.while_loop(
        lambda number, *_: number <= steps,
        step,
        (tf.constant(1), start, tf.zeros_like(start), tf.zeros_like(start)),
        parallel_iterations=1,
    )
    return found

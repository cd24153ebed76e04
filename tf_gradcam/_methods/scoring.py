"""Methods that differentiate more than the score alone, on the original image only. Listed in `registry`."""

import contextlib
import dataclasses
import math

import tensorflow as tf

from tf_gradcam._checks import check_counts, check_number
from tf_gradcam._graph import mean_poolings, non_affine_operations
from tf_gradcam._methods.formulas import gradcam
from tf_gradcam._methods.scene import Scene


@dataclasses.dataclass(frozen=True)
class cam:
    """CAM: `L = sum_k w_k A_k`, `w_k` the weights of the class in a dense layer after average pooling.

    The map is Z times that of Grad-CAM; its mean is the logit without the bias.

    Source: Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, equation 2.

    Raises:
        ValueError: if there is anything but average pooling and linear operations between the layer and the
            logits, or the target is not a class.
    """

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *grid)`."""
        if scene.logits is None:
            raise _no_class_error("cam")
        other = sorted(
            {operation.type for operation in non_affine_operations(scene.layer_output, scene.logits)}
        )
        if other or not _is_pooled(scene):
            raise ValueError(
                "`method` 'cam' needs average pooling and one dense layer after the layer that is explained, "
                f"and nothing else. Received: a head with {other or 'no pooling'}. Choose the layer that is "
                "pooled, or method='gradcam', which needs neither."
            )
        gradients = scene.gradients(scene.score)
        weights = tf.reduce_sum(gradients, axis=tuple(range(1, gradients.shape.rank - 1)), keepdims=True)
        return tf.reduce_sum(weights * scene.activations, axis=-1)


def _is_pooled(scene) -> bool:
    """Return whether the logits depend on the layer only by its mean over the grid."""
    grid_rank = scene.activations.shape.rank - 2
    return any(
        mean_poolings(scene.layer_output, scene.logits, range(first, first + grid_rank))
        for first in (1, 2)
        if first + grid_rank <= scene.layer_output.shape.rank
    )


@dataclasses.dataclass(frozen=True)
class shapleycam:
    """ShapleyCAM: Grad-CAM with `alpha_k = mean_ij (g - H A / 2)_ijk`, H the Hessian of the score.

    The product with the Hessian takes one more backward pass. If the network is piecewise linear from the
    layer to the score, as with ReLUs and a logit, H is 0 and this is Grad-CAM: explain `targets.Probability`
    then.

    Source: Cai, "CAMs as Shapley Value-based Explainers", 2025, the map of its section on ShapleyCAM.
    """

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *grid)`."""
        with tf.compat.v1.get_default_graph().gradient_override_map(_RESIZES):
            gradients = scene.gradients(scene.score)
        # Its gradient is the product of the Hessian and the activations.
        product = tf.reduce_sum(gradients * tf.stop_gradient(scene.activations))
        return gradcam(scene.activations, gradients - scene.gradients(product) / 2)


def _resize_again(operation, gradient):
    """Return the gradient of the gradient of a resize, which is linear: the resize itself."""
    resize = getattr(tf.raw_ops, operation.type.removesuffix("Grad"))
    options = {name: operation.get_attr(name) for name in ("align_corners", "half_pixel_centers")}
    return resize(images=gradient, size=tf.shape(operation.inputs[0])[1:3], **options), None


# Gradient of a resize -> name of its own gradient, which TensorFlow does not have, or takes to be 0.
_RESIZES = {f"Resize{kind}Grad": f"TFGradCAM{kind}" for kind in ("Bicubic", "Bilinear", "NearestNeighbor")}


for _name in _RESIZES.values():
    with contextlib.suppress(KeyError):  # After a reload of this module the name is registered already.
        tf.RegisterGradient(_name)(_resize_again)


@dataclasses.dataclass(frozen=True)
class finercam:
    """Finer-CAM: Grad-CAM of `y_c - gamma * mean_d y_d`, d the classes whose logits are nearest to `y_c`.

    It shows what distinguishes a class from similar ones. The other classes have equal weights. They are
    chosen for each image, and for each copy that `smooth` and `augment` make.

    Source: Zhang et al., "Finer-CAM: Spotting the Difference Reveals Finer Details for Visual Explanation",
    CVPR 2025.

    Attributes:
        gamma: weight of the other classes' logits; 0 is Grad-CAM.
        classes: number of other classes; a larger number than there are takes all.
    """

    gamma: float = 1.0
    classes: int = 3

    def __post_init__(self) -> None:
        check_counts(self, "classes")
        check_number(self, "gamma", above=-math.inf)

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *grid)`."""
        if scene.logits is None:
            raise _no_class_error("finercam")
        distances = tf.abs(scene.logits - scene.score[:, None])
        own = tf.one_hot(scene.index, tf.shape(scene.logits)[1], True, False, dtype=tf.bool)
        distances = tf.where(own, tf.constant(float("inf"), distances.dtype), distances)
        _, nearest = tf.math.top_k(-distances, tf.minimum(self.classes, tf.shape(scene.logits)[1] - 1))
        others = tf.reduce_mean(tf.gather(scene.logits, nearest, batch_dims=1), axis=1)
        return gradcam(scene.activations, scene.gradients(scene.score - self.gamma * others))


def _no_class_error(method) -> ValueError:
    return ValueError(
        f"`method` {method!r} needs a class as its target, one of several logits (N, classes). "
        "Received: another target, or a model with a single unit. Choose method='gradcam'."
    )

"""Formulas: activations and gradients `(N, *grid, K)` in, signed map `(N, *grid)` out.

A map is positive where the image speaks for the target and negative where it speaks against it. ReLU,
resizing and scaling come later and are the same for every method. The grid is
`(h, w)` for an image, `(t,)` for a signal, `(d, h, w)` for a volume; `K` is the number of channels, `Z` the
number of places in the grid.
"""

from collections.abc import Callable

import tensorflow as tf

Method = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def gradcam(activations: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """Grad-CAM: `alpha_k = mean_ij g_ijk`, `L = sum_k alpha_k A_k`.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2 (before the ReLU).
    """
    alpha = tf.reduce_mean(gradients, axis=tuple(range(1, gradients.shape.rank - 1)), keepdims=True)
    return tf.reduce_sum(alpha * activations, axis=-1)


def hirescam(activations: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """HiResCAM: `L = sum_k g_k A_k`, place by place.

    Source: Draelos & Carin, "Use HiResCAM instead of Grad-CAM", 2020, equation 4.
    """
    return tf.reduce_sum(gradients * activations, axis=-1)


def layercam(activations: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """LayerCAM: `L = sum_k ReLU(g_k) A_k`; the gradient weighs each place, only where it is positive.

    Source: Jiang et al., "LayerCAM", IEEE TIP 2021, equations 5 and 6 (before the ReLU).
    """
    return tf.reduce_sum(tf.nn.relu(gradients) * activations, axis=-1)


METHODS: dict[str, Method] = {"gradcam": gradcam, "hirescam": hirescam, "layercam": layercam}


def get(method: str | Method) -> Method:
    """Return the formula called `method`, or `method` itself when it is a formula already.

    Raises:
        ValueError: if there is no formula of that name.
        TypeError: if `method` is neither a name nor a callable.
    """
    if callable(method):
        return method
    if not isinstance(method, str):
        raise TypeError(
            "`method` must be a name or a callable (activations, gradients) -> map. "
            f"Received: method={method!r} (of type {type(method).__name__})"
        )
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {sorted(METHODS)}. Received: method={method!r}")
    return METHODS[method]

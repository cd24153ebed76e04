"""Formulas: activations and gradients `(N, *grid, K)` in, signed map `(N, *grid)` out. Listed in `registry`.

Some formulas take activations and gradients. Others, with one required argument, take only the activations:
their map is the same for every class, and they need no backward pass. Set parameters with
`functools.partial(fem, k=1.0)`.

A map is positive at evidence for the target and negative at evidence against it. A map without a class is
positive where the strongest pattern in the activations is present and negative where it is absent. ReLU,
resizing and scaling come later and are the same for every method. The grid is `(h, w)` for an image, `(t,)`
for a signal, `(d, h, w)` for a volume; `K` is the number of channels, `Z` the number of grid positions.
"""

import math

import tensorflow as tf


def gradcam(activations: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """Grad-CAM: `alpha_k = mean_ij g_ijk`, `L = sum_k alpha_k A_k`.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2 (before the ReLU).
    """
    alpha = tf.reduce_mean(gradients, axis=_grid_axes(gradients), keepdims=True)
    return tf.reduce_sum(alpha * activations, axis=-1)


def hirescam(activations: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """HiResCAM: `L = sum_k g_k A_k` at each position.

    Source: Draelos & Carin, "Use HiResCAM instead of Grad-CAM", 2020, equation 4.
    """
    return tf.reduce_sum(gradients * activations, axis=-1)


def gradcam_elementwise(activations: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """Element-wise Grad-CAM: `L = sum_k ReLU(g_k A_k)`, never negative.

    Source: no paper; the GradCAMElementWise of pytorch-grad-cam.
    """
    return tf.reduce_sum(tf.nn.relu(gradients * activations), axis=-1)


def layercam(activations: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """LayerCAM: `L = sum_k ReLU(g_k) A_k`; each position is weighted by its positive gradients.

    Source: Jiang et al., "LayerCAM", IEEE TIP 2021, equations 5 and 6 (before the ReLU).
    """
    return tf.reduce_sum(tf.nn.relu(gradients) * activations, axis=-1)


def xgradcam(activations: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """XGrad-CAM: `w_k = sum_ij g_k A_k / sum_ij A_k`, `L = sum_k w_k A_k`; its sum is HiResCAM's.

    A channel whose activations sum to 0 has weight 0. With activations of both signs the sum can be close to
    0, and that channel then dominates the map: use a layer after a ReLU.

    Source: Fu et al., "Axiom-based Grad-CAM", BMVC 2020 (before the ReLU).
    """
    axes = _grid_axes(activations)
    total = tf.reduce_sum(activations, axis=axes, keepdims=True)
    weights = tf.math.divide_no_nan(tf.reduce_sum(gradients * activations, axis=axes, keepdims=True), total)
    return tf.reduce_sum(weights * activations, axis=-1)


def gradcam_plus_plus(
    activations: tf.Tensor,
    gradients: tf.Tensor,
    squares: tf.Tensor | None = None,
    cubes: tf.Tensor | None = None,
    *,
    normalize_alpha: bool = False,
) -> tf.Tensor:
    """Grad-CAM++: `w_k = sum_ij alpha_k ReLU(g_k)`, `L = sum_k w_k A_k`.

    `alpha_k = g_k^2 / (2 g_k^2 + g_k^3 sum_ab A_k)`, and 0 where the denominator is 0. It is meant for
    activations that are not negative, after a ReLU: in a channel with a negative sum, `alpha` and with it the
    evidence change sign. The map is not proportional to the score, and the heatmap depends on the scale of
    the score.

    Args:
        activations: `(N, *grid, K)`.
        gradients: of the shape of `activations`.
        squares: squares of the gradients, `gradients**2` by default. Smooth Grad-CAM++ passes the means of
            `g`, `g^2` and `g^3` over noisy copies of the image.
        cubes: cubes of the gradients, `gradients**3` by default.
        normalize_alpha: divide each channel's `alpha` by its sum over the positions where `ReLU(g_k) > 0`, as
            the authors' published code does and the paper does not. That code also multiplies `g`, `g^2`
            and `g^3` by `exp(score)`, which cancels in `alpha` and does not change the heatmap.

    Source: Chattopadhay et al., "Grad-CAM++", WACV 2018, arXiv:1710.11063, equations 5 and 19 (before the
    ReLU); Omeiza et al., "Smooth Grad-CAM++", 2019.
    """
    axes = _grid_axes(activations)
    squares = gradients**2 if squares is None else squares
    cubes = gradients**3 if cubes is None else cubes
    total = tf.reduce_sum(activations, axis=axes, keepdims=True)
    alpha = tf.math.divide_no_nan(squares, 2.0 * squares + cubes * total)
    if normalize_alpha:
        counted = tf.where(gradients > 0.0, alpha, 0.0)
        alpha = tf.math.divide_no_nan(alpha, tf.reduce_sum(counted, axis=axes, keepdims=True))
    weights = tf.reduce_sum(alpha * tf.nn.relu(gradients), axis=axes, keepdims=True)
    return tf.reduce_sum(weights * activations, axis=-1)


def eigencam(activations: tf.Tensor) -> tf.Tensor:
    """Eigen-CAM: the activations `(Z, K)`, centred per channel, projected on their first principal axis.

    The sign of a principal axis is arbitrary. Here it is chosen so that the map correlates positively with
    `sum_k A_k` over the grid; pytorch-grad-cam takes the sign that its SVD returns. It costs an
    eigendecomposition of the smaller of `(Z, Z)` and `(K, K)`: on a CPU less than 1 ms for 49, 30 ms for 512.

    Source: Muhammad & Yeasin, "Eigen-CAM", IJCNN 2020, which does not centre; centred as in pytorch-grad-cam.
    """
    matrix = _centred_matrix(activations)

    def from_places():
        return _first_component(tf.matmul(matrix, matrix, transpose_b=True))

    def from_channels():
        _, axes = tf.linalg.eigh(tf.matmul(matrix, matrix, transpose_a=True))
        return tf.linalg.matvec(matrix, axes[:, :, -1])

    component = tf.cond(tf.shape(matrix)[1] <= matrix.shape[2], from_places, from_channels)
    return _on_grid(component, matrix, activations)


def eigengradcam(activations: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """EigenGrad-CAM: Eigen-CAM of `g_k A_k`, so that it correlates positively with HiResCAM.

    Source: no paper; the EigenGradCAM of pytorch-grad-cam, which takes the sign that its SVD returns.
    """
    return eigencam(gradients * activations)


def fem(activations: tf.Tensor, *, k: float = 2.0) -> tf.Tensor:
    """FEM: `L = sum_k mean(A_k) [A_k > mean(A_k) + k std(A_k)]`, means and deviations over the grid.

    Each channel marks the positions where it is unusually strong, with its mean activation as weight. Never
    negative after a ReLU. Libraries differ: xplique uses `>=`, with which a constant channel marks every
    position; pytorch-grad-cam sums the activations, each channel weighted by the fraction of positions that
    it marks.

    Args:
        activations: `(N, *grid, K)`.
        k: number of standard deviations above its mean from which a channel counts as unusually strong. On a
            grid of Z positions the map is 0 for `k >= sqrt(Z - 1)`.

    Source: Fuad et al., "Features understanding in 3D CNNs for actions recognition in video", IPTA 2020,
    after the implementations that cite it: the text of the paper was not available.
    """
    axes = _grid_axes(activations)
    centred = _centred(activations)
    deviation = tf.sqrt(tf.reduce_mean(centred**2, axis=axes, keepdims=True))
    means = tf.reduce_mean(activations, axis=axes, keepdims=True)
    return tf.reduce_sum(tf.where(centred > k * deviation, means, 0.0), axis=-1)


def kpca_cam(activations: tf.Tensor, *, gamma: float | None = None) -> tf.Tensor:
    """KPCA-CAM: the first kernel principal component of the activations, with a sigmoid kernel.

    The kernel `(Z, Z)` is `tanh(gamma x_i x_j + 1)`, with `x_i` the activations at position i, centred per
    channel. It is centred, and the map is its first eigenvector times the root of the eigenvalue. The kernel
    is not positive definite: "first" is the largest eigenvalue, not the largest in magnitude. The sign is
    chosen as in `eigencam`. Memory grows with `Z^2` and time with `Z^3`: on a CPU 80 ms for a 28 x 28
    grid, seconds for a 56 x 56 grid.

    Args:
        activations: `(N, *grid, K)`.
        gamma: scale of the products, `1 / K` by default. For small values the map approaches a multiple of
            that of `eigencam`.

    Source: Karmani et al., "KPCA-CAM", 2024, arXiv:2410.00267; kernel and constants as in pytorch-grad-cam,
    whose sign is that of scikit-learn's KernelPCA: the entry of largest magnitude is positive.
    """
    matrix = _centred_matrix(activations)
    gamma = 1.0 / activations.shape[-1] if gamma is None else gamma
    products = tf.tanh(gamma * tf.matmul(matrix, matrix, transpose_b=True))
    # This is tanh(x + 1) - tanh(1) by the addition theorem. Centring removes the constant anyway; without
    # it, small products are not lost to rounding.
    one = math.tanh(1.0)
    kernel = (1.0 - one**2) * products / (1.0 + one * products)
    kernel -= tf.reduce_mean(kernel, axis=1, keepdims=True)
    kernel -= tf.reduce_mean(kernel, axis=2, keepdims=True)
    return _on_grid(_first_component(kernel), matrix, activations)


def _grid_axes(tensor) -> tuple[int, ...]:
    """Return the axes of the grid of `(N, *grid, K)`."""
    return tuple(range(1, tensor.shape.rank - 1))


def _centred(activations):
    # The mean of equal values may differ from them by rounding, which would become the whole map. With the
    # minimum subtracted first, a constant channel and its mean are exactly 0.
    above_minimum = activations - tf.reduce_min(activations, axis=_grid_axes(activations), keepdims=True)
    return above_minimum - tf.reduce_mean(above_minimum, axis=_grid_axes(activations), keepdims=True)


def _centred_matrix(activations):
    """Return the activations, centred per channel, as `(N, Z, K)`."""
    shape = tf.shape(activations)
    positions = tf.reduce_prod(shape[1:-1])
    return tf.reshape(_centred(activations), [shape[0], positions, activations.shape[-1]])


def _first_component(gram):
    """Return the first eigenvector of each matrix `(N, n, n)`, times the root of its eigenvalue: `(N, n)`."""
    values, vectors = tf.linalg.eigh(gram)
    return tf.sqrt(tf.nn.relu(values[:, -1:])) * vectors[:, :, -1]


def _on_grid(component, matrix, activations):
    """Return `component` `(N, Z)` on the grid, with the sign that correlates with the sum of the channels."""
    correlation = tf.reduce_sum(component * tf.reduce_sum(matrix, axis=-1), axis=-1, keepdims=True)
    return tf.reshape(tf.where(correlation < 0.0, -component, component), tf.shape(activations)[:-1])

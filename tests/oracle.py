"""The network of conftest.py and every formula once more, in float64 NumPy and nothing else."""

import numpy as np


def _windows(x, stride=1):
    """3x3 neighbourhoods `(N, h, w, 3, 3, C)` of `(N, H, W, C)`."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    return windows[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)


def _convolve(x, kernel, bias, stride=1):
    return np.einsum("nijabc,abck->nijk", _windows(x, stride), kernel) + bias


def _pad(x):
    return np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


class Oracle:
    """Every activation and every gradient of the network, for a batch and one class, or one for each."""

    def __init__(self, weights, images, classes=None):
        kernel1, bias1, kernel2, bias2, kernel, bias = (w.astype("float64") for w in weights)
        conv1 = np.maximum(_convolve(images.astype("float64"), kernel1, bias1, stride=2), 0)
        conv2 = _convolve(_pad(conv1), kernel2, bias2)
        relu2 = np.maximum(conv2, 0)
        self.logits = relu2.mean(axis=(1, 2)) @ kernel + bias
        self.classes = self.logits.argmax(-1) if classes is None else np.broadcast_to(classes, len(images))
        self.scores = self.logits[np.arange(len(images)), self.classes]
        self.activations = {"conv1": conv1, "conv2": conv2, "relu2": relu2}
        # Backwards: each place of relu2 has its share of the mean; a convolution's transpose is the
        # convolution with the kernel turned half round and its channels swapped.
        positions = relu2.shape[1] * relu2.shape[2]
        at_relu2 = np.ones_like(relu2) * kernel[:, self.classes].T[:, None, None] / positions
        at_conv2 = at_relu2 * (conv2 > 0)
        at_conv1 = _convolve(_pad(at_conv2), kernel2[::-1, ::-1].transpose(0, 1, 3, 2), 0)
        self.gradients = {"conv1": at_conv1, "conv2": at_conv2, "relu2": at_relu2}

    def map(self, layer, method="gradcam"):
        return formula(method, self.activations[layer], self.gradients[layer])


def formula(method, activations, gradients, **parameters):
    """Return the maps `(N, *grid)`, each from the matrices `(Z, K)` of one image."""
    grid = activations.shape[1:-1]
    matrices = [each.reshape(len(each), -1, each.shape[-1]) for each in (activations, gradients)]
    maps = [FORMULAS[method](a, g, **parameters) for a, g in zip(*matrices, strict=True)]
    return np.reshape(maps, (len(activations), *grid))


def _xgradcam(a, g):
    weights = [(g[:, k] @ a[:, k]) / a[:, k].sum() if a[:, k].sum() else 0.0 for k in range(a.shape[1])]
    return a @ np.array(weights)


def _gradcam_plus_plus(a, g, squares=None, cubes=None, normalize_alpha=False):
    squares, cubes = g * g if squares is None else squares, g * g * g if cubes is None else cubes
    weights = np.zeros(a.shape[1])
    for k in range(a.shape[1]):
        terms = []  # (alpha, ReLU(g)) of each place that counts
        for place in np.flatnonzero(g[:, k] > 0):
            denominator = 2 * squares[place, k] + cubes[place, k] * a[:, k].sum()
            terms.append((squares[place, k] / denominator if denominator else 0.0, g[place, k]))
        share = sum(alpha for alpha, _ in terms) if normalize_alpha else 1.0
        weights[k] = sum(alpha * slope for alpha, slope in terms) / share if share else 0.0
    return a @ weights


def _as_the_sum(component, a):
    """Return `component`, or its negative, to rise and fall with the sum of the channels."""
    return component * np.sign(np.cov(component, a.sum(-1))[0, 1])


def _eigencam(a, g=None):
    centred = a - a.mean(0)
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    return _as_the_sum(centred @ axis, a)


def _fem(a, g=None, k=2.0):
    return (a > a.mean(0) + k * a.std(0)) @ a.mean(0)


def _kpca_cam(a, g=None, gamma=None):
    centred = a - a.mean(0)
    kernel = np.tanh(centred @ centred.T * (1 / a.shape[1] if gamma is None else gamma) + 1)
    centring = np.eye(len(a)) - 1 / len(a)
    values, vectors = np.linalg.eigh(centring @ kernel @ centring)
    return _as_the_sum(vectors[:, -1] * np.sqrt(values[-1]), a)


# Of the matrices (Z, K) of one image.
FORMULAS = {
    "gradcam": lambda a, g: a @ g.mean(0),
    "hirescam": lambda a, g: (g * a).sum(-1),
    "gradcam_elementwise": lambda a, g: np.maximum(g * a, 0).sum(-1),
    "layercam": lambda a, g: (np.maximum(g, 0) * a).sum(-1),
    "xgradcam": _xgradcam,
    "gradcam_plus_plus": _gradcam_plus_plus,
    "eigencam": _eigencam,
    "eigengradcam": lambda a, g: _eigencam(g * a),
    "fem": _fem,
    "kpca_cam": _kpca_cam,
}

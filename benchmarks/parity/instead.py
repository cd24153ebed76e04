"""What the libraries compute where they differ from the papers, in float64.

That it gives their maps shows that the docstring, which goes into the table, says all of the difference.
"""

import numpy as np
import reference
import torch


def grad_cam_plus_plus(view):
    """It adds 1e-6 to a denominator that is of the size of g²: the map depends on the scale of the score."""
    return _plus_plus(view, view.activations.sum((0, 1)) * view.gradients**3, 1e-6)


def torch_cam_plus_plus(view):
    """It divides a copy (`alpha[idx][mask].div_`): alpha stays g², and the weights are sums of g² ReLU(g)."""
    return view.activations @ (view.gradients**2 * np.maximum(view.gradients, 0)).sum((0, 1))


def torch_cam_smooth(view, noise):
    """The ReLU is of the last noisy copy's gradient, not of the mean; the activations are that copy's, not
    the image's; and alpha has the sum of g³A where the paper has g³ times the sum of A."""
    copies = [view.image + each for each in noise]
    gradients = np.array([view.gradients_at(each) for each in copies])
    squares, cubes = (gradients**2).mean(0), (gradients**3).mean(0)
    alpha = squares / (2 * squares + (cubes * view.activations).sum((0, 1)) + 1e-8)
    return view.activations_at(copies[-1]) @ (alpha * np.maximum(gradients[-1], 0)).sum((0, 1))


def _plus_plus(view, product, eps):
    alpha = view.gradients**2 / (2 * view.gradients**2 + product + eps)
    return view.activations @ (alpha * np.maximum(view.gradients, 0)).sum((0, 1))


def grad_cam_eigen(view):
    """The sign is what the SVD happens to return; ours goes with the sum of the activations. With the other
    one the heatmap shows where the pattern is missing."""
    return reference.first_component(view.activations)


def grad_cam_eigen_grad(view):
    """The sign is what the SVD happens to return; ours goes with HiResCAM."""
    return reference.first_component(view.gradients * view.activations)


def grad_cam_kernel(view):
    """The sign is what scikit-learn happens to return; ours goes with the sum of the activations."""
    return reference.kernel_component(view.activations)


def grad_cam_fem(view):
    """It sums the activations, each channel weighed by the share of its places above the threshold; FEM sums
    these places, each channel weighed by its mean (so does xplique)."""
    deviations = view.activations.std((0, 1))
    share = (view.activations > view.activations.mean((0, 1)) + 2 * deviations).mean((0, 1))
    return view.activations @ share


def grad_cam_ablation(view):
    """Where the least activation is not 0 it sets a channel to the least minus 1e7, "deviating from the
    paper" as its comment says, and to 1e7 less for each further row of the batch; the paper sets it to 0."""
    least = view.activations.min()

    def value(channel):
        return 0.0 if least == 0 else least - 1e7 * (1 + channel % 32)

    return reference.ablationcam(view, value)


def authors_reciprocam(view):
    """It does not subtract the score of zeros: its map is higher by this one number. It is then scaled from
    its minimum to its maximum, so that no place is shown to speak against the class."""
    return reference.alone(view)


def authors_opticam(view, steps):
    """It keeps the weights in float32, also of a network in float64. Each step enlarges the rounding where a
    ReLU6 is about to close or to saturate, as in tf_gradcam in float32."""
    return reference.opticam(view, steps, start=0.5, dtype=torch.float32)


def grad_cam_score(view):
    """It resizes the masks with `align_corners=True`, which shifts them towards the border; the authors' code
    has `align_corners=False`."""
    return reference.scorecam(view, align_corners=True)


def torch_cam_score(view):
    """It scales the masks to [0, 1] before it resizes them, by which their maximum is less than 1; the paper
    and the authors' code resize first."""
    return reference.scorecam(view, scaled_first=True)


def torch_cam_sscam(view, noise):
    """As its Score-CAM."""
    return reference.sscam(view, noise, scaled_first=True)


def torch_cam_iscam(view, steps):
    """As its Score-CAM; and its steps add up, 1/n + 2/n + ..., so that the last is (n + 1) / 2 times the
    masked image. The printed formula adds up too; its text speaks of an integral from 0 to 1, as ours."""
    scales = np.cumsum(np.arange(1, steps + 1) / steps)
    return reference.weighed_by_scaled(view, scales, scaled_first=True)


def grad_cam_finer(view):
    """The other classes weigh as probable as they are, and these weights are differentiated too. That is the
    authors' code; their formula, ours and torch-cam's, is the plain mean."""
    others = reference.nearest(view, 3)

    def target(logits):
        weights = torch.softmax(logits, 1)[:, others]
        differences = logits[:, [view.index]] - logits[:, others]
        return (weights * differences).sum(1) / (weights.sum(1) + 1e-9)

    return view.activations @ view.gradients_at(view.image, target).mean((0, 1))


def only_relu(view):
    """It looks for `nn.ReLU`, and a ReLU6 is none: of EfficientNet-Lite0 it returns the plain gradient."""
    return reference.guided_backprop(view, (torch.nn.ReLU,))


def only_relu_gradcam(view):
    """As its guided backpropagation."""
    return reference.guided_gradcam(view, (torch.nn.ReLU,))


def grad_cam_full(view):
    """It scales each channel to [0, 1] by itself, so that the weakest counts as much as the strongest; the
    authors' code has one scale for a layer. It leaves out the implicit biases of ReLU6."""
    terms = [view.image * view.image_gradients(view.image), *reference.bias_terms(view, relus=False)]
    shown = []
    for term in map(np.abs, terms):
        above = term - term.min((0, 1))
        shown.append((above / (1e-7 + above.max((0, 1)))).sum(-1))
    return sum(reference.resized(each, view.image) for each in shown)

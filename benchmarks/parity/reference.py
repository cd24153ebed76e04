"""The formulas of the papers once more, in float64: PyTorch differentiates, NumPy does the rest.

Nothing here is shared with tf_gradcam or with the libraries: a third opinion where the two differ.
"""

import copy
import functools
import itertools

import numpy as np
import sklearn.decomposition
import torch


class View:
    """A network in float64 at one image, one class and one layer.

    Arrays have their channels last, as in Keras, and no batch: `(h, w, K)`, `(H, W, C)`.
    """

    def __init__(self, net, layer, image, index, probability=False):
        self.net = copy.deepcopy(net)
        self.layer = self.net.get_submodule(layer)
        self.image = image.astype("float64")
        self.index, self.probability = index, probability

    @functools.cached_property
    def activations(self):
        return self.activations_at(self.image)

    @functools.cached_property
    def gradients(self):
        return self.gradients_at(self.image)

    @functools.cached_property
    def score(self):
        return self.scores([self.image])[0]

    @functools.cached_property
    def logits(self):
        return self._look(self.image)[1][0].detach().numpy()

    def target(self, logits):
        """Return the scores `(N,)` of logits `(N, classes)`."""
        return (torch.softmax(logits, 1) if self.probability else logits)[:, self.index]

    def activations_at(self, image):
        return _array(self._look(image)[0])

    def gradients_at(self, image, target=None):
        """Return the gradients `(h, w, K)` of the score, or of another target, on another image."""
        activations, logits = self._look(image)
        return _gradient((target or self.target)(logits), activations)

    def image_gradients(self, image):
        """Return the gradients `(H, W, C)` of the score by the image."""
        images = _tensor([image]).requires_grad_()
        return _gradient(self.target(self.net(images)), images)

    def hessian_times_activations(self):
        activations, logits = self._look(self.image)
        (gradients,) = torch.autograd.grad(self.target(logits).sum(), activations, create_graph=True)
        along = (gradients * activations.detach()).sum()
        return _array(torch.autograd.grad(along, activations, materialize_grads=True)[0])

    def scores(self, images):
        """Return the scores `(N,)` of images `(H, W, C)`, which may come one by one."""
        return self._in_batches(images, self.net)

    def tail(self, activations):
        """Return the scores `(N,)` with other activations `(h, w, K)` in the place of the layer's."""

        def run(values):
            handle = self.layer.register_forward_hook(lambda *_: values)
            logits = self.net(_tensor([self.image]))  # One row as far as the layer, all from there.
            handle.remove()
            return logits

        return self._in_batches(activations, run)

    def _in_batches(self, rows, run, batch=32):
        rows, found = iter(rows), []
        with torch.no_grad():
            while some := list(itertools.islice(rows, batch)):
                found.append(self.target(run(_tensor(some))).numpy())
        return np.concatenate(found)

    def _look(self, image):
        seen = []
        handle = self.layer.register_forward_hook(lambda *args: seen.append(args[-1]))
        logits = self.net(_tensor([image]))
        handle.remove()
        return seen[0], logits


def _tensor(images):
    return torch.tensor(np.moveaxis(np.asarray(images), -1, 1))


def _array(tensor):
    return np.moveaxis(tensor.detach().numpy()[0], 0, -1)


def _gradient(scores, tensor):
    return _array(torch.autograd.grad(scores.sum(), tensor)[0])


# From activations and gradients: all before the ReLU


def gradcam(view):
    """Selvaraju 2017, equations 1 and 2"""
    return view.activations @ view.gradients.mean((0, 1))


def hirescam(view):
    """Draelos & Carin 2020, equation 4"""
    return (view.gradients * view.activations).sum(-1)


def gradcam_elementwise(view):
    """pytorch-grad-cam"""
    return np.maximum(view.gradients * view.activations, 0).sum(-1)


def layercam(view):
    """Jiang 2021, equations 5 and 6"""
    return (np.maximum(view.gradients, 0) * view.activations).sum(-1)


def xgradcam(view):
    """Fu 2020, equation 7"""
    sums = view.activations.sum((0, 1))
    return view.activations @ _divided((view.gradients * view.activations).sum((0, 1)), sums)


def gradcam_plus_plus(view):
    """Chattopadhay 2018, equations 5 and 19"""
    alpha = _plus_plus_alpha(view.activations, view.gradients**2, view.gradients**3)
    return view.activations @ (alpha * np.maximum(view.gradients, 0)).sum((0, 1))


def normalized_gradcam_plus_plus(view):
    """the authors' code"""
    alpha = _plus_plus_alpha(view.activations, view.gradients**2, view.gradients**3)
    positive = np.maximum(view.gradients, 0)
    sums = np.where(positive > 0, alpha, 0).sum((0, 1))
    return view.activations @ _divided((alpha * positive).sum((0, 1)), sums)


def smooth_gradcam_plus_plus(view, noise):
    """Omeiza 2019, equations 9 and 10"""
    gradients = np.array([view.gradients_at(view.image + each) for each in noise])
    alpha = _plus_plus_alpha(view.activations, (gradients**2).mean(0), (gradients**3).mean(0))
    return view.activations @ (alpha * np.maximum(gradients.mean(0), 0)).sum((0, 1))


def _plus_plus_alpha(activations, squares, cubes):
    return _divided(squares, 2 * squares + activations.sum((0, 1)) * cubes)


def _divided(above, below):
    return np.divide(above, below, out=np.zeros_like(above), where=below != 0)


# From activations alone


def eigencam(view):
    """Muhammad & Yeasin 2020, centred"""
    return turned(first_component(view.activations), view.activations)


def eigengradcam(view):
    """pytorch-grad-cam"""
    products = view.gradients * view.activations
    return turned(first_component(products), products)


def kpca_cam(view):
    """Karmani 2024"""
    return turned(kernel_component(view.activations), view.activations)


def fem(view, k=2.0):
    """Fuad 2020"""
    means, deviations = view.activations.mean((0, 1)), view.activations.std((0, 1))
    return (view.activations > means + k * deviations) @ means


def first_component(values):
    """Return the projection on the first right singular vector, with the sign that the SVD gives it."""
    places = _centred_places(values)
    return (places @ np.linalg.svd(places)[2][0]).reshape(values.shape[:2])


def kernel_component(values):
    """Return the first component of a sigmoid kernel, with the sign that scikit-learn gives it."""
    pca = sklearn.decomposition.KernelPCA(1, kernel="sigmoid")
    return pca.fit_transform(_centred_places(values)).reshape(values.shape[:2])


def turned(component, values):
    """Return `component` with the sign with which it correlates with the sum of the channels."""
    together = (component * _centred_places(values).sum(-1).reshape(component.shape)).sum()
    return component if together >= 0 else -component


def _centred_places(values):
    places = values.reshape(-1, values.shape[-1])
    return places - places.mean(0)


# From more than one look at the score


def cam(view):
    """Zhou 2016, equation 2"""
    return view.activations @ view.net.fc.weight[view.index].detach().numpy()


def shapleycam(view):
    """Cai 2025"""
    weights = view.gradients - view.hessian_times_activations() / 2
    return view.activations @ weights.mean((0, 1))


def finercam(view, gamma=1.0, classes=3):
    """Zhang 2025"""
    others = nearest(view, classes)
    gradients = view.gradients_at(
        view.image, lambda logits: logits[:, view.index] - gamma * logits[:, others].mean(1)
    )
    return view.activations @ gradients.mean((0, 1))


def nearest(view, classes):
    """Return the classes whose logits are nearest to that of the target."""
    return np.argsort(np.abs(view.logits - view.logits[view.index]))[1 : classes + 1]


# From scoring again


def ablationcam(view, value=lambda channel: 0.0):
    """Desai & Ramaswamy 2020, section 3"""

    def without(channel):
        activations = view.activations.copy()
        activations[..., channel] = value(channel)
        return activations

    scores = view.tail(map(without, range(view.activations.shape[-1])))
    return view.activations @ ((view.score - scores) / view.score)


def reciprocam(view, gaussian=False):
    """Byun & Lee 2024, minus the score of zeros"""
    return alone(view, gaussian) - view.tail([np.zeros_like(view.activations)]).item()


def alone(view, gaussian=False):
    """Return the score of each place's activations with 0 in all others."""
    height, width, _ = view.activations.shape

    def masked():
        for row, column in itertools.product(range(height), range(width)):
            mask = np.zeros((height + 2, width + 2, 1))
            around = np.outer([1, 2, 1], [1, 2, 1])[..., None] / 16
            around = around if gaussian else around == 1 / 4
            mask[row : row + 3, column : column + 3] = around
            yield mask[1:-1, 1:-1] * view.activations

    return view.tail(masked()).reshape(height, width)


def scorecam(view, **how):
    """Wang 2020, algorithm 1"""
    return view.activations @ _softmax(view.scores(mask * view.image for mask in _masks(view, **how)))


def authors_scorecam(view):
    """the authors' code"""
    scores = view.scores(mask * view.image for mask in _masks(view))
    return view.activations @ np.where(np.ptp(view.activations, (0, 1)) > 0, scores, 0)


def sscam(view, noise, **how):
    """Wang, Naidu 2020, its first variant"""
    masks = list(_masks(view, **how))
    scores = [
        view.scores((mask + more[..., None]) * view.image for mask, more in _each_channel(masks, each))
        for each in noise
    ]
    return view.activations @ _softmax(np.mean(scores, 0))


def iscam(view, steps):
    """Naidu 2020"""
    return weighed_by_scaled(view, np.arange(1, steps + 1) / steps)


def weighed_by_scaled(view, scales, **how):
    masks = list(_masks(view, **how))
    scores = [view.scores(scale * mask * view.image for mask in masks) for scale in scales]
    return view.activations @ _softmax(np.mean(scores, 0))


def _each_channel(masks, noise):
    return zip(masks, noise if len(noise) > 1 else itertools.repeat(noise[0]), strict=False)


def _masks(view, align_corners=False, scaled_first=False):
    """Yield each channel, upsampled and scaled to [0, 1], `(H, W, 1)`."""
    for channel in np.moveaxis(view.activations, -1, 0):
        if scaled_first:
            yield resized(min_max(channel), view.image, align_corners)[..., None]
        else:
            yield min_max(resized(channel, view.image, align_corners))[..., None]


def resized(grid, image, align_corners=False):
    """Return `(h, w)` resized to the image, bilinearly."""
    return torch.nn.functional.interpolate(
        torch.tensor(grid)[None, None], image.shape[:2], mode="bilinear", align_corners=align_corners
    )[0, 0].numpy()


def min_max(values):
    spread = np.ptp(values)
    return (values - values.min()) / spread if spread else np.zeros_like(values)


def _softmax(values):
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def opticam(view, steps, start=0.0, dtype=torch.float64):
    """Zhang 2024, by the Adam of PyTorch"""
    activations, image = (torch.tensor(each) for each in (np.maximum(view.activations, 0), view.image))
    u = torch.full(activations.shape[-1:], start, dtype=dtype, requires_grad=True)
    adam = torch.optim.Adam([u], 0.1, maximize=True)
    for _ in range(steps):
        combined = (activations * torch.softmax(u, 0)).sum(-1)
        mask = torch.nn.functional.interpolate(combined[None, None], image.shape[:2], mode="bilinear")[0, 0]
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        score = view.target(view.net((mask[..., None] * image).movedim(-1, 0)[None]))[0]
        adam.zero_grad()
        score.backward()
        adam.step()
    combined = (activations * torch.softmax(u, 0)).sum(-1)
    return min_max(combined.detach().numpy())


# At the image


def gradient(view):
    """Simonyan 2014, section 3.1"""
    return _strongest(view.image_gradients(view.image))


def gradient_x_input(view):
    """Shrikumar 2016"""
    return (view.image * view.image_gradients(view.image)).sum(-1)


def integrated_gradients(view, steps=32):
    """Sundararajan 2017, equation 1, at the middles of 32 steps"""
    way = (np.arange(steps) + 0.5) / steps
    return (view.image * np.mean([view.image_gradients(t * view.image) for t in way], 0)).sum(-1)


def smoothgrad(view, noise):
    """Smilkov 2017"""
    return _strongest(np.mean([view.image_gradients(view.image + each) for each in noise], 0))


def guided_backprop(view, relus=(torch.nn.ReLU, torch.nn.ReLU6)):
    """Springenberg 2015, section 3.4"""
    guided = copy.copy(view)
    guided.net = copy.deepcopy(view.net)
    for part in list(guided.net.modules()):
        for name, child in part.named_children():
            if isinstance(child, relus):
                setattr(part, name, _Guided(child))
    return _strongest(guided.image_gradients(view.image))


def guided_gradcam(view, relus=(torch.nn.ReLU, torch.nn.ReLU6)):
    """Selvaraju 2017, section 3.2"""
    return guided_backprop(view, relus) * resized(np.maximum(gradcam(view), 0), view.image)


def fullgrad(view):
    """Srinivas & Fleuret 2019, section 4"""
    terms = [view.image * view.image_gradients(view.image), *bias_terms(view)]
    return sum(resized(min_max(np.abs(term)).sum(-1), view.image) for term in terms)


def bias_terms(view, relus=True):
    """Return bias times gradient `(h, w, K)` of each convolution, normalization and ReLU6 of the network."""
    seen = []

    def look(part, inputs, output):
        seen.append((_bias(part, inputs[0].detach(), relus), output))

    kinds = torch.nn.Conv2d | torch.nn.BatchNorm2d | torch.nn.ReLU6
    handles = [each.register_forward_hook(look) for each in view.net.modules() if isinstance(each, kinds)]
    score = view.target(view.net(_tensor([view.image]))).sum()
    for handle in handles:
        handle.remove()
    seen = [(bias, output) for bias, output in seen if bias is not None]
    gradients = torch.autograd.grad(score, [output for _, output in seen])
    return [_array(bias * each) for (bias, _), each in zip(seen, gradients, strict=True)]


def _bias(part, values, relus):
    if isinstance(part, torch.nn.ReLU6):
        return 6.0 * (values >= 6) if relus else None
    bias = part.bias
    if isinstance(part, torch.nn.BatchNorm2d):
        bias = bias - part.running_mean * part.weight / torch.sqrt(part.running_var + part.eps)
    return None if bias is None else bias[:, None, None]


def _strongest(gradients):
    return np.abs(gradients).max(-1)


class _Guided(torch.nn.Module):
    """A ReLU whose gradient passes only where it is positive, besides where the ReLU lets it pass."""

    def __init__(self, relu):
        super().__init__()
        self.relu = relu

    def forward(self, values):
        answer = self.relu(values)
        answer.register_hook(lambda gradients: gradients.clamp(min=0))
        return answer

"""What tf_gradcam's metrics and those of the libraries answer for one scene. Called by measures.py.

Each library's own code gets the same image and maps, the network of PyTorch, and the noisy images that
tf_gradcam made where noise is drawn. The networks are small: to a metric they are scores.
"""

import contextlib
import functools
import unittest.mock
import warnings
from typing import NamedTuple

import networks
import numpy as np
import skimage
import tensorflow as tf
import torch
import torchcam.metrics
from captum.metrics import infidelity, sensitivity_max
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.metrics import arcc, cam_mult_image, road
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

import tf_gradcam
from tf_gradcam import metrics, pretrained

PHOTOGRAPHS = skimage.data.coffee, skimage.data.rocket
STEPS, SHARES = 32, (10, 30, 50, 70, 90)  # 32 divides the number of pixels.
NINE, FOUR = tuple(range(10, 100, 10)), (20, 40, 60, 80)
SAMPLES, RADIUS = 5, 0.02  # captum's default radius


class Scene(NamedTuple):
    """A photograph, the network that explains it twice, and maps of its predicted class.

    Attributes:
        pair: the network, with the photograph.
        index: the class.
        smooth: a map in [0, 1] without equal values, `(1, H, W)`.
        heatmap: the same, but 0 in half of its places, as heatmaps are.
    """

    pair: networks.Pair
    index: int
    smooth: np.ndarray
    heatmap: np.ndarray

    @property
    def images(self):
        return self.pair.image.astype("float64")

    @property
    def pixels(self):
        return self.smooth[0].size

    def score(self, images):
        """Return probabilities, by Keras in float64."""
        return self.pair.models["float64"](images, training=False).numpy()[:, self.index]

    def tensors(self):
        return networks.channels_first(self.images)

    def target(self):
        return [ClassifierOutputSoftmaxTarget(self.index)]

    def net_of_float32(self, tensors):
        """The network for ROAD of pytorch-grad-cam, which fills holes in float32 images only."""
        return self.pair.net(tensors.double())

    def probabilities(self, tensors):
        """Return the same of all classes, by PyTorch."""
        return torch.softmax(self.pair.net(tensors), -1)

    def grad_cam(self, tensors):
        """Return heatmaps of pytorch-grad-cam, as an explainer for both sides."""
        layer = self.pair.net.get_submodule(next(iter(self.pair.layers.values())))
        with GradCAM(self.pair.net, [layer]) as cam:
            return cam(tensors.double(), len(tensors) * [ClassifierOutputSoftmaxTarget(self.index)])

    def explain(self, images):
        return self.grad_cam(networks.channels_first(images))


def scenes(pair):
    """Yield the network with its own photograph, and with two others."""
    height, width = pair.image.shape[1:3]
    others = [tf.image.resize(each(), (height, width), antialias=True)[None] for each in PHOTOGRAPHS]
    cam = tf_gradcam.GradCAM(pair.models["float64"], next(iter(pair.layers)))
    for image in (pair.image, *(pretrained.preprocess(each).numpy() for each in others)):
        index = int(pair.net(networks.channels_first(image)).argmax())
        signed = cam(image.astype("float64"), index, signed=True, interpolation="gaussian").heatmap.numpy()
        smooth = (signed - signed.min()).astype("float64") / np.ptp(signed)
        half = np.maximum(smooth - np.median(smooth), 0)
        yield Scene(pair._replace(image=image), index, smooth, half / half.max())


# tf_gradcam


def our_curves(scene, steps=STEPS, name="smooth", baseline="zero"):
    """Return the areas of deletion and of insertion."""
    given = scene.score, scene.images, getattr(scene, name)
    functions = metrics.deletion, metrics.insertion
    return np.array([function(*given, baseline=baseline, steps=steps) for function in functions])


def our_road(scene, order="both", shares=SHARES, name="smooth", maps=None):
    maps = getattr(scene, name) if maps is None else maps
    options = {"percentages": shares, "noise": 0}
    if order == "both":
        return metrics.road(scene.score, scene.images, maps, **options)
    curve = metrics.road_curve(scene.score, scene.images, maps, order=order, **options)
    return curve.scores.mean(axis=1)


def our_imputation(scene):
    return metrics.noisy_linear_imputation(scene.images, removed(scene), noise=0)


def removed(scene):
    """Return which pixels to fill: the lower half of the map, in one piece nearly."""
    return scene.smooth < 0.5


def our_masked(function, scene):
    """Return a number for each class: that of the predicted one hardly ever grows."""
    classes = [scene._replace(index=index) for index in range(networks.CLASSES)]
    return np.array([function(each.score, each.images, each.heatmap)[0] for each in classes])


def our_complexity(scene):
    return metrics.complexity(scene.heatmap)


def our_coherency(scene):
    return metrics.coherency(scene.explain, scene.images, scene.explain(scene.images))


def our_arcc(scene):
    maps = scene.explain(scene.images)
    values = our_road(scene, shares=FOUR, maps=maps)
    return metrics.arcc(our_coherency(scene), metrics.complexity(maps), values)


def our_infidelity(scene):
    return metrics.infidelity(scene.score, scene.images, scene.smooth - 0.5, samples=SAMPLES)


def our_sensitivity(scene):
    return metrics.max_sensitivity(scene.explain, *for_sensitivity(scene)[0], **for_sensitivity(scene)[1])


def for_sensitivity(scene):
    """Return the arguments of max-sensitivity: its noise is a share of the range of the image."""
    options = {"radius": RADIUS / np.ptp(scene.images), "samples": SAMPLES}
    return (scene.images, scene.explain(scene.images)), options


def seen_by(answer, metric, *arguments, **options):
    """Return the images, in rows, that a metric of ours hands to the function that it calls."""
    seen = []

    def look(images):
        seen.append(images)
        return answer(images)

    metric(look, *arguments, **options)
    return np.concatenate(seen)


# The libraries


class Given:
    """An extractor for torch-cam's metrics that answers given maps."""

    def __init__(self, model, maps):
        self.model, self.maps = model, torch.tensor(maps)

    def __call__(self, class_idx=None, scores=None, normalized=True, *, targets=None):
        return [self.maps]

    def fuse_cams(self, cams):
        return cams[0]

    def _hooks_off(self):
        return contextlib.nullcontext()


def torch_cam_curves(scene, steps=STEPS, name="smooth", baseline="zero"):
    given, softmax = Given(scene.pair.net, getattr(scene, name)), functools.partial(torch.softmax, dim=-1)
    blurred = None
    if baseline == "blur":  # What insertion begins with.
        seen = seen_by(scene.score, metrics.insertion, scene.images, scene.smooth, baseline="blur")
        blurred = networks.channels_first(seen[:1])
    metric = torchcam.metrics.DeletionInsertionMetric(given, softmax, steps=steps, baseline=blurred)
    metric.update(scene.tensors(), scene.index)
    return np.array([[metric.summary()[name]] for name in ("deletion_auc", "insertion_auc")])


def torch_cam_masked(name, scene):
    given, softmax = Given(scene.pair.net, scene.heatmap), functools.partial(torch.softmax, dim=-1)
    found = []
    for index in range(networks.CLASSES):
        metric = torchcam.metrics.ClassificationMetric(given, softmax)
        metric.update(scene.tensors(), index)
        found.append(metric.summary()[name])
    return np.array(found)


def grad_cam_masked(name, scene):
    metric, found = getattr(cam_mult_image, name)(), []
    for index in range(networks.CLASSES):
        target = scene._replace(index=index).target()
        found += list(metric(scene.tensors(), scene.heatmap, target, scene.pair.net))
    return np.array(found)


def grad_cam_road(scene, order="both", shares=SHARES, name="smooth"):
    maps = getattr(scene, name)
    metric = {
        "both": road.ROADCombined,
        "morf": road.ROADMostRelevantFirstAverage,
        "lerf": road.ROADLeastRelevantFirstAverage,
    }[order](shares)
    with without_noise(), warnings.catch_warnings(action="ignore"):  # that the matrix may be singular
        change = metric(scene.tensors().float(), maps, scene.target(), scene.net_of_float32)
    return change if order == "both" else change + scene.score(scene.images)


def grad_cam_imputation(scene):
    kept = torch.tensor(~removed(scene)[0]).float()
    filled = road.NoisyLinearImputer(noise=0)(scene.tensors()[0].float(), kept)
    return np.moveaxis(filled.numpy(), 0, -1)[None]


def grad_cam_complexity(scene):
    return arcc.Complexity()(scene.heatmap)


def grad_cam_coherency(scene):
    maps, explain = scene.explain(scene.images), lambda input_tensor, targets: scene.grad_cam(input_tensor)
    return arcc.Coherency()(scene.tensors(), maps, scene.target(), scene.pair.net, explain)


def grad_cam_arcc(scene):
    maps, explain = scene.explain(scene.images), lambda input_tensor, targets: scene.grad_cam(input_tensor)
    with without_noise():
        return arcc.ARCC(explain)(scene.tensors().float(), maps, scene.target(), scene.net_of_float32)


def without_noise():
    """ROAD of pytorch-grad-cam draws its noise anew in each call: let it be 0."""
    return unittest.mock.patch.object(torch, "randn_like", torch.zeros_like)


def captum_infidelity(scene, normalize=True):
    noisy = networks.channels_first(noisy_images(scene))
    maps = torch.tensor(np.repeat(scene.smooth[:, None] - 0.5, 3, axis=1))
    options = {"target": scene.index, "n_perturb_samples": SAMPLES, "normalize": normalize}
    return infidelity(
        scene.probabilities, lambda images: (images - noisy, noisy), scene.tensors(), maps, **options
    ).numpy()


def noisy_images(scene):
    options = {"images": scene.images, "maps": scene.smooth, "samples": SAMPLES}
    return seen_by(scene.score, metrics.infidelity, **options)[1:]  # The first is the image itself.


def captum_sensitivity(scene):
    arguments, options = for_sensitivity(scene)
    seen = seen_by(scene.explain, metrics.max_sensitivity, *arguments, **options)
    if not 0.99 * RADIUS < np.abs(seen - scene.images).max() < 1.000001 * RADIUS:
        raise ValueError("the noise of max-sensitivity does not reach as far as captum's")
    noisy = networks.channels_first(seen)
    return sensitivity(scene, scene.grad_cam, noisy)


def sensitivity(scene, explain, noisy):
    def attribute(images):
        with torch.enable_grad():
            return (torch.tensor(explain(images[0] if isinstance(images, tuple) else images)),)

    return sensitivity_max(attribute, scene.tensors(), lambda _: noisy, n_perturb_samples=SAMPLES).numpy()

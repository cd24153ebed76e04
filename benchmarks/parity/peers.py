"""What the libraries answer: their signed maps, before any ReLU, resizing or scaling of theirs.

Each function here makes an explainer: a PyTorch network, the path of a layer, images `(1, C, H, W)` and a
class in, a map `(h, w)` out.
"""

import contextlib
import io
import pathlib
import sys
import warnings

import captum.attr
import numpy as np
import pytorch_grad_cam
import torch
import torchcam.methods
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget, ClassifierOutputTarget

SEED = 3
OPTICAM = pathlib.Path(sys.prefix) / "OptiCAM"  # a clone, as it is no package
RECIPROCAM = pathlib.Path(sys.prefix) / "ReciproCAM" / "src"  # a clone, as it is no package


def grad_cam(name, target=ClassifierOutputTarget):
    """A method of pytorch-grad-cam, as its `get_cam_image` returns it."""

    def explain(net, layer, images, index):
        cam = getattr(pytorch_grad_cam, name)(net, [net.get_submodule(layer)])
        inner, kept = getattr(cam, "base_cam", cam), []
        compute = inner.get_cam_image
        inner.get_cam_image = lambda *args: kept.append(compute(*args)) or kept[-1]
        with contextlib.redirect_stderr(io.StringIO()):  # tqdm's bars
            cam(images, target and [target(index)])
        return kept[0][0]

    return explain


def grad_cam_of_probability(name):
    return grad_cam(name, ClassifierOutputSoftmaxTarget)


def grad_cam_full(net, layer, images, index):
    """FullGrad of pytorch-grad-cam, summed over what it sums but not scaled."""
    with contextlib.redirect_stdout(io.StringIO()):
        cam = pytorch_grad_cam.FullGrad(net, [])
    cam.aggregate_multi_layers = lambda maps: maps.sum(1)
    return cam(images, [ClassifierOutputTarget(index)])[0]


def grad_cam_guided(net, layer, images, index):
    gradients = pytorch_grad_cam.GuidedBackpropReLUModel(net)(images.clone(), index)
    return np.abs(gradients).max(-1)


def torch_cam(name, **options):
    """A method of torch-cam."""

    def explain(net, layer, images, index):
        torch.manual_seed(SEED)
        with getattr(torchcam.methods, name)(net, layer, **options) as cam:
            getattr(cam, "base_cam", cam)._relu = False
            return cam(index, net(images), normalized=False)[0][0].detach().numpy()

    return explain


def authors_reciprocam(net, layer, images, index):
    """ReciproCAM of its authors: of a layer that is given, and not scaled."""
    sys.path.insert(0, str(RECIPROCAM))
    from recipro_cam import ReciproCam

    class OfLayer(ReciproCam):
        def _find_target_layer(self, *_):
            self.target_layers = [self.model.get_submodule(layer)]

        def _get_class_activaton_map(self, probabilities, index, *shape):
            return probabilities[:, index].reshape(shape)

    found, _ = OfLayer(net, "cpu")(images, index)
    return found.numpy()


def authors_opticam(steps):
    """Opti-CAM of its authors: the last mask, on the layer's grid."""

    def explain(net, layer, images, index):
        sys.path.insert(0, str(OPTICAM))
        sys.modules["activations_and_gradients"] = pytorch_grad_cam.activations_and_gradients
        from util import Basic_OptCAM

        kept = []

        class Kept(Basic_OptCAM):
            def combine_activations(self, feature, w, images):
                kept.append((torch.softmax(w, 1) * feature).sum(1)[0])
                return super().combine_activations(feature, w, images)

        search = Kept(net, "cpu", steps, 0.1, [net.get_submodule(layer)], name_loss="plain", name_mode="")
        with contextlib.redirect_stdout(io.StringIO()):
            search(images, torch.tensor([index]))
        last = kept[-1].detach().numpy()
        return (last - last.min()) / np.ptp(last)

    return explain


def captum_layer(name, **call):
    """An attribution of captum to a layer, summed over its channels."""

    def explain(net, layer, images, index):
        attribution = getattr(captum.attr, name)(net, net.get_submodule(layer))
        return attribution.attribute(images, index, **call)[0].sum(0).detach().numpy()

    return explain


def captum_image(name, combine, **call):
    """An attribution of captum to the image, its channels combined to one."""

    def explain(net, layer, images, index):
        kind = getattr(captum.attr, name)
        attribution = kind(net, net.get_submodule(layer)) if name == "GuidedGradCam" else kind(net)
        with warnings.catch_warnings(action="ignore"):  # that it sets hooks, and that images need a gradient
            values = attribution.attribute(images, target=index, **call)[0]
        return combine(values.detach().numpy())

    return explain


def captum_smooth(samples, deviation):
    """SmoothGrad of captum: the gradient itself is averaged, its strongest channel shown."""

    def explain(net, layer, images, index):
        torch.manual_seed(SEED)
        tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(net))
        values = tunnel.attribute(images, nt_samples=samples, stdevs=deviation, target=index, abs=False)[0]
        return strongest(values.detach().numpy())

    return explain


def strongest(values):
    return np.abs(values).max(0)


def summed(values):
    return values.sum(0)


# The noise that they draw after `torch.manual_seed(SEED)`


def torch_cam_noise(shape, samples, deviation):
    """Return `(samples, *shape)` as torch-cam draws them, one after another."""
    torch.manual_seed(SEED)
    normal = torch.distributions.Normal(0, deviation)
    return np.array([normal.sample(shape).double().numpy() for _ in range(samples)])


def captum_noise(shape, samples, deviation):
    """Return `(samples, *shape)` as captum draws them, all at once."""
    torch.manual_seed(SEED)
    return torch.normal(0, torch.full((samples, *shape), deviation)).double().numpy()

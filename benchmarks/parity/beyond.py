"""What the libraries do around their maps, measured: the notes below the table."""

import copy

import captum.attr
import networks
import numpy as np
import peers
import pytorch_grad_cam
import reference
import skimage
import torch
import torchcam.methods
import transformers
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from reference import View

import tf_gradcam
from tf_gradcam import pretrained


def notes(pairs):
    """Return a few sentences for each, given the pair with a linear head, with a hidden layer, and Lite0."""
    linear, hidden, lite0 = pairs
    return [
        rounding(lite0),
        evidence_from_nothing(linear),
        least_of_heatmap(lite0),
        refined(lite0),
        classes_of_augmented(lite0.net),
        modules_left(hidden),
        terms_of_full_gradient(lite0),
        transformers.note(),
    ]


def rounding(pair):
    view, images = _view(pair, "top"), networks.channels_first(pair.image)
    gradient = captum.attr.Saliency(copy.deepcopy(pair.net).float()).attribute(images.float(), view.index)
    expected = reference.gradient(view)
    far = np.abs(gradient[0].detach().numpy().max(0) - expected).max() / expected.max()
    return (
        "In float32 also captum's gradient by the image of EfficientNet-Lite0 is "
        f"{far:.0e} from the one in float64."
    )


def evidence_from_nothing(pair):
    index = int(pair.net(networks.channels_first(pair.image)).argmin())
    signed = reference.cam(View(pair.net, "relu2", pair.image[0], index))
    with torchcam.methods.CAM(copy.deepcopy(pair.net), "relu2", "fc") as cam:
        cam.model(networks.channels_first(pair.image))
        heatmap = cam(index)[0][0].numpy()
    where = signed <= 0
    return (
        "torch-cam scales `CAM` between its minimum and its maximum, without the ReLU that its documentation "
        "has. In the small network with a linear head, for the class with the lowest score, "
        f"{where.mean():.0%} of the places speak against it; there its heatmap is up to "
        f"{heatmap[where].max():.2f}, that of tf_gradcam 0."
    )


def least_of_heatmap(pair):
    signed = reference.layercam(_view(pair, "top"))
    return (
        "After the ReLU pytorch-grad-cam and torch-cam subtract the least value of a map. Where every place "
        "speaks for the class, the weakest is shown as nothing: that of LayerCAM on EfficientNet-Lite0 has "
        f"{signed.min() / signed.max():.1%} of the maximum. tf_gradcam divides by the maximum alone."
    )


def refined(pair):
    view = _view(pair, "top")
    maps = [np.maximum(reference.layercam(_view(pair, path)), 0) for path in pair.layers.values()]
    resized = [reference.resized(each, view.image) for each in maps]
    formula = np.prod([each / each.max() for each in resized], axis=0)
    cam = tf_gradcam.GradCAM(pair.models["float64"], list(pair.layers), method="layercam", fuse="refinecam")
    ours = cam(pair.image.astype("float64")).heatmap[0].numpy()
    images, paths = networks.channels_first(pair.image), list(pair.layers.values())
    net = copy.deepcopy(pair.net)
    layers = [net.get_submodule(path) for path in paths]
    of_class = [ClassifierOutputTarget(view.index)]
    grad_cam = pytorch_grad_cam.RefineCAM(net, layers, base_method=pytorch_grad_cam.LayerCAM)
    grad_cam = grad_cam(images, of_class)[0]
    net = copy.deepcopy(pair.net)
    with torchcam.methods.RefineCAM(net, paths, base_method=torchcam.methods.LayerCAM) as torch_cam:
        torch_cam = torch_cam(view.index, net(images), target_shape=view.image.shape[:2])[0][0].numpy()
    far = [np.abs(each - formula / formula.max()).max() for each in (ours, grad_cam, torch_cam)]
    scaled = reference.min_max(np.prod([reference.min_max(each) for each in resized], axis=0))
    return (
        "RefineCAM is the product of several layers' heatmaps, which pytorch-grad-cam and torch-cam scale as "
        f"above. Of LayerCAM at both layers of EfficientNet-Lite0, {far[1]:.0e} and {far[2]:.0e} from the "
        f'product of the maps divided by their maxima; `fuse="refinecam"` {far[0]:.0e}. With minima '
        f"subtracted that product is {np.abs(grad_cam - scaled).max():.0e} from pytorch-grad-cam's."
    )


def classes_of_augmented(net):
    images = networks.channels_first(networks.photograph(skimage.data.rocket()))
    copies = pytorch_grad_cam.GradCAM(net, [net.top]).tta_transforms
    with torch.no_grad():
        classes = [int(net(each.augment_image(images)).argmax()) for each in copies]
    names = [f"{pretrained.labels()[each]} ({classes.count(each)})" for each in dict.fromkeys(classes)]
    return (
        "pytorch-grad-cam's `aug_smooth=True` picks the class of each copy anew where no target is given: of "
        f"scikit-image's rocket it averages maps of {' and '.join(names)}. `augment` keeps the image's class."
    )


def modules_left(pair):
    net, images = copy.deepcopy(pair.net), networks.channels_first(pair.image)
    before = tuple(captum.attr.LayerGradCam(net, net.relu1).attribute(images, 0).shape)
    relus = _relus(net)
    peers.grad_cam_guided(net, "relu1", images, 0)
    after = tuple(captum.attr.LayerGradCam(net, net.relu1).attribute(images, 0).shape)
    return (
        f"pytorch-grad-cam's guided backpropagation puts {_relus(net)} shared ReLU in the place of the "
        f"model's {relus}, and leaves it there: captum's Grad-CAM of `relu1` has the shape {before} before "
        f"and {after} after it. tf_gradcam does not touch the model."
    )


def _relus(net):
    return len({each for each in net.modules() if isinstance(each, torch.nn.ReLU)})


def terms_of_full_gradient(pair):
    view = _view(pair, "top")
    known = (view.image * view.image_gradients(view.image)).sum() + pair.net.fc.bias[view.index].item()
    sums = [known + sum(each.sum() for each in reference.bias_terms(view, relus)) for relus in (False, True)]
    return (
        f"FullGrad takes a score apart. Of the {view.score:.3f} of EfficientNet-Lite0 the terms that "
        f"pytorch-grad-cam sees and the last bias make {sums[0]:.3f}; with the implicit biases of ReLU6, "
        f"which tf_gradcam has too, it is {sums[1]:.3f}."
    )


def _view(pair, path):
    index = int(pair.net(networks.channels_first(pair.image)).argmax())
    return View(pair.net, path, pair.image[0], index)

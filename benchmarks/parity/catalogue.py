"""The methods that are compared, and what each library calls them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import instead
import numpy as np
import peers
import reference
import tensorflow as tf

from tf_gradcam import methods

GRAD_CAM, TORCH_CAM, CAPTUM = "pytorch-grad-cam", "torch-cam", "captum"
AUTHORS = "its authors' code"
SAMPLES, NOISE = 2, 0.15
STEPS = 10


class Peer(NamedTuple):
    """A library's version of a method.

    Attributes:
        library: its name.
        explain: as in peers.py.
        instead: what it computes where that is not the formula, as in instead.py.
        noise: its random numbers, of a view, where it draws any.
    """

    library: str
    explain: Callable
    instead: Callable | None = None
    noise: Callable | None = None


class Method(NamedTuple):
    """A method, ours and theirs.

    Attributes:
        name: in the table.
        ours: what `GradCAM` takes as its `method`.
        formula: of a view and its random numbers, if any, as in reference.py.
        peers: the libraries that have it.
        layers: which are explained: "all", "pooled" by a linear head, of "few" channels, "late" ones with
            a short rest of the network, or the "image".
        probability: whether the score is the class's probability rather than its logit.
        noise: our random numbers, of a view and a dtype, where we draw any.
    """

    name: str
    ours: Any
    formula: Callable
    peers: tuple[Peer, ...] = ()
    layers: str = "all"
    probability: bool = False
    noise: Callable | None = None


def our_noise(view, dtype):
    """Return the noise that `smooth` adds to the image, `(SAMPLES, H, W, C)`."""
    draws = [tf.random.stateless_normal(view.image.shape, [0, i], dtype=dtype) for i in range(SAMPLES)]
    return NOISE * np.ptp(view.image) * np.array(draws)


def our_mask_noise(view, dtype):
    """Return the noise that `sscam` adds to the masks of all channels, `(SAMPLES, 1, H, W)`."""
    size = view.image.shape[:2]
    return np.array([tf.random.stateless_normal(size, [0, i], dtype=dtype) for i in range(SAMPLES)])[:, None]


def captum_noise(view):
    shape = (3, *view.image.shape[:2])
    return np.moveaxis(peers.captum_noise(shape, SAMPLES, NOISE), 1, -1)


def torch_cam_noise(view):
    shape = (1, 3, *view.image.shape[:2])
    return np.moveaxis(peers.torch_cam_noise(shape, SAMPLES, NOISE)[:, 0], 1, -1)


def torch_cam_mask_noise(view):
    shape = (1, view.activations.shape[-1], *view.image.shape[:2])
    return peers.torch_cam_noise(shape, SAMPLES, 1.0)[:, 0]


METHODS = (
    Method(
        "gradcam",
        "gradcam",
        reference.gradcam,
        (
            Peer(GRAD_CAM, peers.grad_cam("GradCAM")),
            Peer(TORCH_CAM, peers.torch_cam("GradCAM")),
            Peer(CAPTUM, peers.captum_layer("LayerGradCam")),
        ),
    ),
    Method(
        "hirescam",
        "hirescam",
        reference.hirescam,
        (
            Peer(GRAD_CAM, peers.grad_cam("HiResCAM")),
            Peer(CAPTUM, peers.captum_layer("LayerGradientXActivation")),
        ),
    ),
    Method(
        "gradcam_elementwise",
        "gradcam_elementwise",
        reference.gradcam_elementwise,
        (Peer(GRAD_CAM, peers.grad_cam("GradCAMElementWise")),),
    ),
    Method(
        "layercam",
        "layercam",
        reference.layercam,
        (Peer(GRAD_CAM, peers.grad_cam("LayerCAM")), Peer(TORCH_CAM, peers.torch_cam("LayerCAM"))),
    ),
    Method(
        "xgradcam",
        "xgradcam",
        reference.xgradcam,
        (Peer(GRAD_CAM, peers.grad_cam("XGradCAM")), Peer(TORCH_CAM, peers.torch_cam("XGradCAM"))),
    ),
    Method(
        "gradcam_plus_plus",
        "gradcam_plus_plus",
        reference.gradcam_plus_plus,
        (
            Peer(GRAD_CAM, peers.grad_cam("GradCAMPlusPlus"), instead.grad_cam_plus_plus),
            Peer(TORCH_CAM, peers.torch_cam("GradCAMpp"), instead.torch_cam_plus_plus),
        ),
    ),
    Method(
        "gradcam_plus_plus, normalize_alpha",
        functools.partial(methods.gradcam_plus_plus, normalize_alpha=True),
        reference.normalized_gradcam_plus_plus,
    ),
    Method(
        "smooth(gradcam_plus_plus)",
        methods.smooth("gradcam_plus_plus", SAMPLES, NOISE),
        reference.smooth_gradcam_plus_plus,
        (
            Peer(
                TORCH_CAM,
                peers.torch_cam("SmoothGradCAMpp", num_samples=SAMPLES, std=NOISE),
                instead.torch_cam_smooth,
                torch_cam_noise,
            ),
        ),
        noise=our_noise,
    ),
    Method(
        "cam",
        "cam",
        reference.cam,
        (Peer(TORCH_CAM, peers.torch_cam("CAM", fc_layer="fc")),),
        layers="pooled",
    ),
    Method(
        "finercam",
        "finercam",
        reference.finercam,
        (
            Peer(GRAD_CAM, peers.grad_cam("FinerCAM", target=None), instead.grad_cam_finer),
            Peer(TORCH_CAM, peers.torch_cam("FinerCAM", gamma=1.0)),
        ),
    ),
    Method(
        "shapleycam",
        "shapleycam",
        reference.shapleycam,
        (Peer(GRAD_CAM, peers.grad_cam_of_probability("ShapleyCAM")),),
        probability=True,
    ),
    Method(
        "eigencam",
        "eigencam",
        reference.eigencam,
        (Peer(GRAD_CAM, peers.grad_cam("EigenCAM"), instead.grad_cam_eigen),),
    ),
    Method(
        "eigengradcam",
        "eigengradcam",
        reference.eigengradcam,
        (Peer(GRAD_CAM, peers.grad_cam("EigenGradCAM"), instead.grad_cam_eigen_grad),),
    ),
    Method(
        "kpca_cam",
        "kpca_cam",
        reference.kpca_cam,
        (Peer(GRAD_CAM, peers.grad_cam("KPCA_CAM"), instead.grad_cam_kernel),),
    ),
    Method(
        "fem",
        "fem",
        reference.fem,
        (Peer(GRAD_CAM, peers.grad_cam("FEM"), instead.grad_cam_fem),),
    ),
    Method(
        "ablationcam",
        "ablationcam",
        reference.ablationcam,
        (Peer(GRAD_CAM, peers.grad_cam("AblationCAM"), instead.grad_cam_ablation),),
        layers="few",
    ),
    Method(
        "reciprocam",
        "reciprocam",
        reference.reciprocam,
        (Peer(AUTHORS, peers.authors_reciprocam, instead.authors_reciprocam),),
        layers="late",
        probability=True,
    ),
    Method(
        "reciprocam, gaussian",
        methods.reciprocam(gaussian=True),
        functools.partial(reference.reciprocam, gaussian=True),
        layers="late",
    ),
    Method(
        "scorecam",
        "scorecam",
        reference.scorecam,
        (
            Peer(GRAD_CAM, peers.grad_cam("ScoreCAM"), instead.grad_cam_score),
            Peer(TORCH_CAM, peers.torch_cam("ScoreCAM"), instead.torch_cam_score),
        ),
        layers="few",
    ),
    Method(
        "scorecam, authors",
        methods.scorecam(authors=True),
        reference.authors_scorecam,
        layers="few",
        probability=True,
    ),
    Method(
        "sscam",
        methods.sscam(SAMPLES, 1.0),
        reference.sscam,
        (
            Peer(
                TORCH_CAM,
                peers.torch_cam("SSCAM", num_samples=SAMPLES, std=1.0),
                instead.torch_cam_sscam,
                torch_cam_mask_noise,
            ),
        ),
        layers="few",
        noise=our_mask_noise,
    ),
    Method(
        "iscam",
        methods.iscam(SAMPLES),
        functools.partial(reference.iscam, steps=SAMPLES),
        (
            Peer(
                TORCH_CAM,
                peers.torch_cam("ISCAM", num_samples=SAMPLES),
                functools.partial(instead.torch_cam_iscam, steps=SAMPLES),
            ),
        ),
        layers="few",
    ),
    Method(
        f"opticam, {STEPS} steps",
        methods.opticam(STEPS),
        functools.partial(reference.opticam, steps=STEPS),
        (
            Peer(
                AUTHORS,
                peers.authors_opticam(STEPS),
                functools.partial(instead.authors_opticam, steps=STEPS),
            ),
        ),
        layers="few",
    ),
    Method(
        "gradient",
        "gradient",
        reference.gradient,
        (Peer(CAPTUM, peers.captum_image("Saliency", peers.strongest)),),
        layers="image",
    ),
    Method(
        "gradient_x_input",
        "gradient_x_input",
        reference.gradient_x_input,
        (Peer(CAPTUM, peers.captum_image("InputXGradient", peers.summed)),),
        layers="image",
    ),
    Method(
        "integrated_gradients",
        "integrated_gradients",
        reference.integrated_gradients,
        (
            Peer(
                CAPTUM,
                peers.captum_image(
                    "IntegratedGradients",
                    peers.summed,
                    n_steps=32,
                    method="riemann_middle",
                    internal_batch_size=8,
                ),
            ),
        ),
        layers="image",
    ),
    Method(
        "smooth(gradient)",
        methods.smooth("gradient", SAMPLES, NOISE),
        reference.smoothgrad,
        (Peer(CAPTUM, peers.captum_smooth(SAMPLES, NOISE), noise=captum_noise),),
        layers="image",
        noise=our_noise,
    ),
    Method(
        "guided_backprop",
        "guided_backprop",
        reference.guided_backprop,
        (
            Peer(GRAD_CAM, peers.grad_cam_guided, instead.only_relu),
            Peer(CAPTUM, peers.captum_image("GuidedBackprop", peers.strongest), instead.only_relu),
        ),
        layers="image",
    ),
    Method(
        "guided_gradcam",
        "guided_gradcam",
        reference.guided_gradcam,
        (
            Peer(
                CAPTUM,
                peers.captum_image("GuidedGradCam", peers.strongest, interpolate_mode="bilinear"),
                instead.only_relu_gradcam,
            ),
        ),
    ),
    Method(
        "fullgrad",
        "fullgrad",
        reference.fullgrad,
        (Peer(GRAD_CAM, peers.grad_cam_full, instead.grad_cam_full),),
        layers="image",
    ),
)

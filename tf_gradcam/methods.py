"""Methods: what turns a layer's activations, gradients and scores into a signed map.

A method is

* a formula `(activations, gradients) -> map`: `(N, *grid, K)` twice to a signed map `(N, *grid)`;
* a formula `(activations) -> map`, the same for every class; or
* an object with a method `explain(scene) -> map`, for whatever needs more (see `Scene`).
  Those of this library are frozen dataclasses, with their parameters as fields:
  `methods.scorecam(channels=64)`.

A map is positive where the image speaks for the target, and negative where it speaks against it. Some methods
know no sign: their maps are never negative. ReLU, resizing and scaling come later, and are the same for every
method.
`docs/methods.md` says which to take.
"""

from tf_gradcam._methods.registry import (
    METHODS,
    About,
    Method,
    ablationcam,
    augment,
    cam,
    eigencam,
    eigengradcam,
    fem,
    finercam,
    fullgrad,
    get,
    gradcam,
    gradcam_elementwise,
    gradcam_plus_plus,
    gradient,
    gradient_x_input,
    guided_backprop,
    guided_gradcam,
    hirescam,
    integrated_gradients,
    iscam,
    kpca_cam,
    layercam,
    rise,
    scorecam,
    shapleycam,
    smooth,
    sscam,
    xgradcam,
)
from tf_gradcam._methods.scene import Scene

__all__ = [
    "METHODS",
    "About",
    "Method",
    "Scene",
    "ablationcam",
    "augment",
    "cam",
    "eigencam",
    "eigengradcam",
    "fem",
    "finercam",
    "fullgrad",
    "get",
    "gradcam",
    "gradcam_elementwise",
    "gradcam_plus_plus",
    "gradient",
    "gradient_x_input",
    "guided_backprop",
    "guided_gradcam",
    "hirescam",
    "integrated_gradients",
    "iscam",
    "kpca_cam",
    "layercam",
    "rise",
    "scorecam",
    "shapleycam",
    "smooth",
    "sscam",
    "xgradcam",
]

"""Methods: from a layer's activations, gradients and scores to a signed map. Users give them to `GradCAM`.

A method is

* a formula `(activations, gradients) -> map`: `(N, *grid, K)` twice to a signed map `(N, *grid)`;
* a formula `(activations) -> map`, the same for every class; or
* an object with a method `explain(scene) -> map`, for methods that need more (see `Scene`). Those of this
  library are frozen dataclasses with their parameters as fields: `methods.scorecam(channels=64)`.

`locate` is a preset: two methods for two layers, and how their heatmaps are fused.

A map is positive at evidence for the target, and negative at evidence against it. The maps of some methods
are never negative. ReLU, resizing and scaling come later, and are the same for every method.
`docs/methods.md` compares the methods.
"""

from tf_gradcam._methods.presets import locate
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
    legrad,
    opticam,
    reciprocam,
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
    "legrad",
    "locate",
    "opticam",
    "reciprocam",
    "rise",
    "scorecam",
    "shapleycam",
    "smooth",
    "sscam",
    "xgradcam",
]

"""All methods by name: what turns a layer's activations, gradients and scores into a map.

A method is

* a formula `(activations, gradients) -> map`: `(N, *grid, K)` twice to a signed map `(N, *grid)`;
* a formula `(activations) -> map`, the same for every class; or
* an object with a method `explain(scene) -> map`, for whatever needs more (see `tf_gradcam.scene.Scene`).
  Ours are frozen dataclasses, whose fields are their parameters: `methods.scorecam(channels=64)`.

A map is positive where the image speaks for the target and negative where it speaks against it; those that
know no sign are never negative. ReLU, resizing and scaling come later and are the same for every method.
`docs/methods.md` says which to take.
"""

import contextlib
import dataclasses
import difflib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from tf_gradcam._methods import formulas
from tf_gradcam._methods.composition import augment, smooth
from tf_gradcam._methods.formulas import (
    eigencam,
    eigengradcam,
    fem,
    gradcam,
    gradcam_elementwise,
    gradcam_plus_plus,
    hirescam,
    kpca_cam,
    layercam,
    xgradcam,
)
from tf_gradcam._methods.full_gradient import fullgrad
from tf_gradcam._methods.image_gradients import (
    gradient,
    gradient_x_input,
    guided_backprop,
    guided_gradcam,
    integrated_gradients,
)
from tf_gradcam._methods.perturbation import ablationcam, iscam, rise, scorecam, sscam
from tf_gradcam._methods.scoring import cam, finercam, shapleycam

Method = Callable | Any  # anything with a method `explain`


class About(NamedTuple):
    """A method, and what to know before taking it.

    Attributes:
        method: what the name stands for.
        cost: in forward passes of the network, at its last layer; K channels, n samples.
        signed: whether it tells what speaks against from what doesn't matter.
        paper: authors and year.
    """

    method: Method
    cost: str
    signed: bool
    paper: str


METHODS = {
    "gradcam": About(gradcam, "1", True, "Selvaraju 2017"),
    "hirescam": About(hirescam, "1", True, "Draelos & Carin 2020"),
    "gradcam_elementwise": About(gradcam_elementwise, "1", False, "pytorch-grad-cam"),
    "layercam": About(layercam, "1", False, "Jiang 2021"),
    "xgradcam": About(xgradcam, "1", True, "Fu 2020"),
    "gradcam_plus_plus": About(gradcam_plus_plus, "1", False, "Chattopadhay 2018"),
    "smooth_gradcam_plus_plus": About(smooth(gradcam_plus_plus), "n", False, "Omeiza 2019"),
    "cam": About(cam(), "1", True, "Zhou 2016"),
    "finercam": About(finercam(), "1", True, "Zhang 2025"),
    "shapleycam": About(shapleycam(), "1", True, "Cai 2025"),
    "eigencam": About(eigencam, "1", False, "Muhammad & Yeasin 2020"),
    "eigengradcam": About(eigengradcam, "1", False, "pytorch-grad-cam"),
    "fem": About(fem, "1", False, "Fuad 2020"),
    "kpca_cam": About(kpca_cam, "1", False, "Karmani 2024"),
    "ablationcam": About(ablationcam(), "1 + K heads", True, "Desai & Ramaswamy 2020"),
    "scorecam": About(scorecam(), "K", False, "Wang 2020"),
    "sscam": About(sscam(), "n K", False, "Wang, Naidu 2020"),
    "iscam": About(iscam(), "n K", False, "Naidu 2020"),
    "rise": About(rise(), "n", True, "Petsiuk 2018"),
    "gradient": About(gradient(), "2.5", False, "Simonyan 2014"),
    "gradient_x_input": About(gradient_x_input(), "2.5", True, "Shrikumar 2016"),
    "integrated_gradients": About(integrated_gradients(), "2 n", True, "Sundararajan 2017"),
    "smoothgrad": About(smooth(gradient()), "1.5 n", False, "Smilkov 2017"),
    "guided_backprop": About(guided_backprop(), "3", False, "Springenberg 2015"),
    "guided_gradcam": About(guided_gradcam(), "3", False, "Selvaraju 2017"),
    "fullgrad": About(fullgrad(), "3.5", False, "Srinivas & Fleuret 2019"),
}


def get(method: str | Method) -> Method:
    """Return the method called `method`, or `method` itself when it is one already, with what is inside.

    Raises:
        ValueError: if there is no method of that name.
        TypeError: if `method` is neither a name nor a callable nor has a method `explain`.
    """
    if isinstance(method, str):
        return _named(method).method
    if isinstance(method, type) and hasattr(method, "explain"):
        if method in (smooth, augment):
            raise TypeError(f'`method` must be around another: methods.{method.__name__}("gradcam")')
        method = method()  # `methods.scorecam` means `methods.scorecam()`.
    if isinstance(method, smooth | augment):
        return dataclasses.replace(method, method=get(method.method))
    if isinstance(method, functools.partial) and isinstance(method.func, type):
        return get(method())
    if isinstance(method, functools.partial) and method.func in vars(formulas).values():
        with contextlib.suppress(TypeError):  # Parameters that can't be hashed are shared with nobody.
            return _partial(method.func, method.args, tuple(sorted(method.keywords.items())))
    if callable(method) or hasattr(method, "explain"):
        return method
    raise TypeError(
        "`method` must be a name, a callable (activations, gradients) -> map, or one of tf_gradcam.methods. "
        f"Received: method={method!r} (of type {type(method).__name__})"
    )


def _named(name) -> About:
    if name in METHODS:
        return METHODS[name]
    near = difflib.get_close_matches(name.lower().replace("-", ""), METHODS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"`method` must be one of {sorted(METHODS)}. Received: method={name!r}.{hint}")


@functools.lru_cache(64)
def _partial(formula, arguments, keywords):
    """Return one partial for all that are alike: equal methods share what was compiled for them."""
    return functools.partial(formula, *arguments, **dict(keywords))

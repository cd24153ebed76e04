"""All methods by name, and `get` to resolve a name, class or partial. Public through `tf_gradcam.methods`."""

import contextlib
import dataclasses
import functools
from typing import Any, NamedTuple

from tf_gradcam._checks import did_you_mean
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
from tf_gradcam._methods.legrad import legrad
from tf_gradcam._methods.optimized import opticam
from tf_gradcam._methods.perturbation import ablationcam, iscam, rise, scorecam, sscam
from tf_gradcam._methods.presets import PRESETS
from tf_gradcam._methods.protocol import Method, Preset, is_at_image, is_formula
from tf_gradcam._methods.reciprocal import reciprocam
from tf_gradcam._methods.scoring import cam, finercam, shapleycam


class About(NamedTuple):
    """A method and its properties.

    Attributes:
        method: the method.
        cost: cost in forward passes of the network, for its last layer with K channels and Z places, and n
            samples.
        signed: whether the map is negative at evidence against the target, and not only 0.
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
    "legrad": About(legrad(), "2", False, "Bousselham 2025"),
    "ablationcam": About(ablationcam(), "1 + K heads", True, "Desai & Ramaswamy 2020"),
    "reciprocam": About(reciprocam(), "1 + Z heads", True, "Byun & Lee 2024"),
    "scorecam": About(scorecam(), "K", False, "Wang 2020"),
    "sscam": About(sscam(), "n K", False, "Wang, Naidu 2020"),
    "iscam": About(iscam(), "n K", False, "Naidu 2020"),
    "opticam": About(opticam(), "2.5 n", False, "Zhang 2024"),
    "rise": About(rise(), "n", True, "Petsiuk 2018"),
    "gradient": About(gradient(), "2.5", False, "Simonyan 2014"),
    "gradient_x_input": About(gradient_x_input(), "2.5", True, "Shrikumar 2016"),
    "integrated_gradients": About(integrated_gradients(), "2 n", True, "Sundararajan 2017"),
    "smoothgrad": About(smooth(gradient()), "1.5 n", False, "Smilkov 2017"),
    "guided_backprop": About(guided_backprop(), "3", False, "Springenberg 2015"),
    "guided_gradcam": About(guided_gradcam(), "3", False, "Selvaraju 2017"),
    "fullgrad": About(fullgrad(), "3.5", False, "Srinivas & Fleuret 2019"),
}


def get(method: Any) -> Any:
    """Return the method that a name, class, partial or method stands for.

    A name inside a composed method, as in `smooth("gradcam")`, is resolved too. A list of methods, one for
    each layer, becomes a tuple, and the name `"locate"` a preset of several methods.

    Raises:
        ValueError: if there is no method of that name, or if a list holds what does not explain a layer.
        TypeError: if `method` is not a name or a callable, and has no method `explain`.
    """
    if isinstance(method, list | tuple):
        return _of_several_layers(method)
    if isinstance(method, str) and method in PRESETS:
        return PRESETS[method]
    return method if isinstance(method, Preset) else _get_one(method)


def keeps_rows_apart(method: Method) -> bool:
    """Return whether `method` is a formula of this library: their maps of a batch are those of each row."""
    if isinstance(method, functools.partial):
        is_plain = all(
            isinstance(each, int | float | None) for each in (*method.args, *method.keywords.values())
        )
        return is_plain and keeps_rows_apart(method.func)
    return any(method is each for each in vars(formulas).values())


def _of_several_layers(listed) -> tuple[Method, ...]:
    methods = tuple(map(get, listed))
    if not methods or any(isinstance(one, tuple | Preset) or is_at_image(one) for one in methods):
        raise ValueError(
            "`method` must be a list of methods that each explain one layer. "
            f"Received: method={listed!r:.200}. Explain the others by themselves."
        )
    return methods


def _get_one(method: str | Method) -> Method:
    """Return the method of one layer, or of the image, that `method` stands for."""
    if isinstance(method, str):
        return _by_name(method).method
    if isinstance(method, type) and not is_formula(method):
        if method in (smooth, augment):
            raise TypeError(f'`method` must wrap another method: methods.{method.__name__}("gradcam")')
        method = method()  # `methods.scorecam` stands for `methods.scorecam()`.
    if isinstance(method, smooth | augment):
        return dataclasses.replace(method, method=_get_one(method.method))
    if isinstance(method, functools.partial) and isinstance(method.func, type):
        return _get_one(method())
    if isinstance(method, functools.partial) and method.func in vars(formulas).values():
        with contextlib.suppress(TypeError):  # A partial with unhashable parameters is not shared.
            return _shared_partial(method.func, method.args, tuple(sorted(method.keywords.items())))
    if callable(method) or not is_formula(method):
        return method
    raise TypeError(
        "`method` must be a name, a callable (activations, gradients) -> map, or one of tf_gradcam.methods. "
        f"Received: method={method!r:.80} (of type {type(method).__name__})"
    )


def _by_name(name) -> About:
    if name in METHODS:
        return METHODS[name]
    if name in PRESETS:
        raise ValueError(
            f"`method` must wrap a method of one layer. Received: method={name!r}, which has several."
        )
    known = sorted([*METHODS, *PRESETS])
    hint = did_you_mean(name.replace("++", "_plus_plus"), known, most=1)
    raise ValueError(f"`method` must be one of {known}. Received: method={name!r:.80}. {hint}".rstrip())


def method_name(method: Any) -> str:
    """Return the name of `method`, or its Python name if it has none here; the names of a list's methods."""
    if isinstance(method, tuple):
        return ", ".join(map(method_name, method))
    for name, preset in PRESETS.items():
        if preset == method:
            return name
    for name, about in METHODS.items():
        if about.method is method or about.method == method:
            return name
    return getattr(method, "__name__", repr(method))


@functools.lru_cache(64)
def _shared_partial(formula, arguments, keywords):
    """Return the same partial for equal arguments, so that equal methods share one trace."""
    return functools.partial(formula, *arguments, **dict(keywords))

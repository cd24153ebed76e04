"""What decides the rows of a run, as JSON can hold it: `make_manifest`. `dataset` calls it."""

from typing import Any

from tf_gradcam._dataset.rows import RowsAbout
from tf_gradcam._explain import GradCAM
from tf_gradcam._run import model_manifest, without_addresses


def make_manifest(cam: GradCAM, about: RowsAbout, options: Any) -> dict[str, Any]:
    """Return what decides the rows of a run; a run with another one is not taken up."""
    preprocess = cam.preprocess
    return {
        **model_manifest(cam.model, options.labels),
        "layer": about.layer,
        "call": cam.call,
        "method": about.method,
        "parameters": without_addresses(repr(cam.method)),
        "fuse": cam.fuse,
        "target": None if options.target is None else without_addresses(repr(options.target)),
        "dtype": options.dtype,
        "draft": options.draft,
        "preprocess": options.preprocess if preprocess is None else _name_of(preprocess),
    }


def _name_of(function) -> str:
    return (
        f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"
    )

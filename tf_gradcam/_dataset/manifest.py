"""What decides the rows of a run, as JSON can hold it: `make_manifest`. `dataset` calls it."""

from typing import TYPE_CHECKING, Any

from tf_gradcam._dataset.rows import RowsAbout
from tf_gradcam._run import FileCam, model_manifest, without_addresses

if TYPE_CHECKING:
    from tf_gradcam._explain import GradCAM


def make_manifest(cam: "GradCAM | FileCam", about: RowsAbout, options: Any) -> dict[str, Any]:
    """Return what decides the rows of a run; a run with another one is not taken up."""
    asked = {
        **model_manifest(cam.model, options.labels),
        "layer": about.layer,
        "method": about.method,
        "target": None if options.target is None else without_addresses(repr(options.target)),
        "dtype": options.dtype,
        "draft": options.draft,
        "preprocess": options.preprocess,
    }
    if isinstance(cam, FileCam):  # The rest is in the file, whose checksum is above.
        if not cam.model.takes_classes:  # Its own is explained, whether it was asked for or not.
            asked["target"] = cam.model.notes.get("target")
        return asked
    if cam.preprocess is not None:
        asked["preprocess"] = _name_of(cam.preprocess)
    parameters = without_addresses(repr(cam.method))
    return {**asked, "call": cam.call, "parameters": parameters, "fuse": cam.fuse}


def _name_of(function) -> str:
    return (
        f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"
    )

"""Freeze the explainer of a long run: `freeze_if_possible`. `findings` and `_dataset` call it."""

from typing import TYPE_CHECKING

from tf_gradcam._run.file_models import FileCam

if TYPE_CHECKING:
    from tf_gradcam._explain import GradCAM

PAYS_TO_FREEZE = 1000  # images: what freezing takes in seconds, two cores save by then


def freeze_if_possible(cam: "GradCAM | FileCam") -> "GradCAM | FileCam":
    """Return the frozen explainer, or the same one where it can't be frozen; a file is frozen."""
    if isinstance(cam, FileCam):
        return cam
    try:
        return cam if cam.is_frozen else cam.freeze()
    except ValueError:  # It has 2 GiB of weights, or was never called.
        return cam

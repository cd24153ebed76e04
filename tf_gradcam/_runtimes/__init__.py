"""Files that answer with heatmaps, and the runtimes that run them: `load`. Public at top level.

Nothing here imports TensorFlow but `savedmodel`, where a SavedModel is loaded.
"""

from tf_gradcam._runtimes.described import describe_target
from tf_gradcam._runtimes.loaded import LoadedExplainer, is_exported, load, needs_no_tensorflow
from tf_gradcam._runtimes.notes import check_notes, write_notes
from tf_gradcam._runtimes.single_files import SUFFIXES, Arrays, InputSpec, require_packages, runner

__all__ = [
    "SUFFIXES",
    "Arrays",
    "InputSpec",
    "LoadedExplainer",
    "check_notes",
    "describe_target",
    "is_exported",
    "load",
    "needs_no_tensorflow",
    "require_packages",
    "runner",
    "write_notes",
]

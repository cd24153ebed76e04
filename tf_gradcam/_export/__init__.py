"""Save a model together with its heatmaps: a SavedModel for a server, or one file for a device.

The package, the command line and the benchmarks call it.
"""

from tf_gradcam._export.export import export_gradcam
from tf_gradcam._export.single_file import convert
from tf_gradcam._runtimes import SUFFIXES, runner

__all__ = ["SUFFIXES", "convert", "export_gradcam", "runner"]

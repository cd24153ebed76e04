"""One HTML file of a run over a data set, to look at and to file; never imports TensorFlow. Users call it."""

from tf_gradcam._report.report import write_report

__all__ = ["write_report"]

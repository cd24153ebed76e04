"""One run over many photographs: read, explain, draw, write. The command line and benchmarks call it."""

from tf_gradcam._run.chosen_methods import choose_methods
from tf_gradcam._run.findings import EVERY_CLASS, Finding, PhotographExplainer
from tf_gradcam._run.photographs import (
    Photograph,
    demo_photographs,
    find_photographs,
    fit_to_spec,
    read_photograph,
    safe_name,
)
from tf_gradcam._run.pictures import draw_contact_sheet, write_pictures
from tf_gradcam._run.request import Classifier, Request
from tf_gradcam._run.results import RESULTS_FILE, format_probability, write_results
from tf_gradcam._run.run import explain_photographs

__all__ = [
    "EVERY_CLASS",
    "RESULTS_FILE",
    "Classifier",
    "Finding",
    "Photograph",
    "PhotographExplainer",
    "Request",
    "choose_methods",
    "demo_photographs",
    "draw_contact_sheet",
    "explain_photographs",
    "find_photographs",
    "fit_to_spec",
    "format_probability",
    "read_photograph",
    "safe_name",
    "write_pictures",
    "write_results",
]

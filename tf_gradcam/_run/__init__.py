"""One run over many photographs: read, explain, draw, write. The command line and benchmarks call it."""

from tf_gradcam._run.chosen_methods import choose_methods
from tf_gradcam._run.evaluation import Evaluation, Measures, choose_metrics, evaluate_photographs
from tf_gradcam._run.evaluation_page import write_evaluation
from tf_gradcam._run.file_models import (
    FileCam,
    check_file_request,
    input_spec,
    layer_name,
    name_of_method,
    refusal,
)
from tf_gradcam._run.files import RESULTS_FILE, may_write, write_picture
from tf_gradcam._run.findings import Finding
from tf_gradcam._run.fitting import fit_to_spec
from tf_gradcam._run.freezing import PAYS_TO_FREEZE, freeze_if_possible
from tf_gradcam._run.journal import Journal
from tf_gradcam._run.manifest import check_manifest, model_manifest, request_manifest, without_addresses
from tf_gradcam._run.model_files import load_model_file
from tf_gradcam._run.photographs import (
    Photograph,
    demo_photographs,
    find_photographs,
    make_viewable,
    picture_names,
    read_photograph,
    read_photograph_within,
)
from tf_gradcam._run.pictures import draw_contact_sheet, write_figure, write_pictures
from tf_gradcam._run.request import Classifier, Request, class_index
from tf_gradcam._run.results import (
    format_probability,
    write_results,
)
from tf_gradcam._run.run import explain_photographs

__all__ = [
    "PAYS_TO_FREEZE",
    "RESULTS_FILE",
    "Classifier",
    "Evaluation",
    "FileCam",
    "Finding",
    "Journal",
    "Measures",
    "Photograph",
    "Request",
    "check_file_request",
    "check_manifest",
    "choose_methods",
    "choose_metrics",
    "class_index",
    "demo_photographs",
    "draw_contact_sheet",
    "evaluate_photographs",
    "explain_photographs",
    "find_photographs",
    "fit_to_spec",
    "format_probability",
    "freeze_if_possible",
    "input_spec",
    "layer_name",
    "load_model_file",
    "make_viewable",
    "may_write",
    "model_manifest",
    "name_of_method",
    "picture_names",
    "read_photograph",
    "read_photograph_within",
    "refusal",
    "request_manifest",
    "without_addresses",
    "write_evaluation",
    "write_figure",
    "write_picture",
    "write_pictures",
    "write_results",
]

"""One run over many photographs: read, explain, draw, write. The command line and benchmarks call it.

TensorFlow is imported late, where a Keras model is called: a run with an exported file needs none.
"""

from tf_gradcam._run.batches import ReadResult, explain_batch, read_batches
from tf_gradcam._run.chosen_methods import choose_methods
from tf_gradcam._run.class_scores import class_probability, class_scores, target_text
from tf_gradcam._run.file_models import (
    FileCam,
    check_preprocess,
    file_labels,
    input_spec,
    layer_name,
    name_of_method,
    refusal,
)
from tf_gradcam._run.files import RESULTS_FILE, may_write, write_picture
from tf_gradcam._run.findings import Finding, PhotographExplainer, explained_output, make_up_picture
from tf_gradcam._run.fitting import check_fits_dtype, fit_to_spec
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
    "FileCam",
    "Finding",
    "Journal",
    "Photograph",
    "PhotographExplainer",
    "ReadResult",
    "Request",
    "check_fits_dtype",
    "check_manifest",
    "check_preprocess",
    "choose_methods",
    "class_index",
    "class_probability",
    "class_scores",
    "demo_photographs",
    "draw_contact_sheet",
    "explain_batch",
    "explain_photographs",
    "explained_output",
    "file_labels",
    "find_photographs",
    "fit_to_spec",
    "format_probability",
    "freeze_if_possible",
    "input_spec",
    "layer_name",
    "load_model_file",
    "make_up_picture",
    "make_viewable",
    "may_write",
    "model_manifest",
    "name_of_method",
    "picture_names",
    "read_batches",
    "read_photograph",
    "read_photograph_within",
    "refusal",
    "request_manifest",
    "target_text",
    "without_addresses",
    "write_figure",
    "write_picture",
    "write_pictures",
    "write_results",
]

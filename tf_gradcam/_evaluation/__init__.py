"""How far the heatmaps of photographs can be trusted, as tables and a page. The command line calls it."""

from tf_gradcam._evaluation.evaluation import Evaluation, Measures, choose_metrics, evaluate_photographs
from tf_gradcam._evaluation.page import write_evaluation

__all__ = ["Evaluation", "Measures", "choose_metrics", "evaluate_photographs", "write_evaluation"]

"""Targets: what is explained, and their scores. Used by `targets`, `_methods` and `_explain`."""

from tf_gradcam._targets.classes import class_logits, log_odds, taken_for_logits
from tf_gradcam._targets.outputs import find_output, note_independent, note_ranking, pick
from tf_gradcam._targets.rows import (
    check_range,
    holds_callable,
    refers_to_dead_callable,
    target_arrays,
    to_rows,
    trace_key,
    with_arrays,
)
from tf_gradcam._targets.scores import pin_choices, score_target

__all__ = [
    "check_range",
    "class_logits",
    "find_output",
    "holds_callable",
    "log_odds",
    "note_independent",
    "note_ranking",
    "pick",
    "pin_choices",
    "refers_to_dead_callable",
    "score_target",
    "taken_for_logits",
    "target_arrays",
    "to_rows",
    "trace_key",
    "with_arrays",
]

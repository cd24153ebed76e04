"""Compiled functions with weights folded in, also in half precision. Used by `_explain` and `_export`."""

from tf_gradcam._freezing.folding import fold_variables, frozen_function, loops_with_variables
from tf_gradcam._freezing.half_hardware import check_precision
from tf_gradcam._freezing.half_precision import FLOAT32_SCOPE
from tf_gradcam._freezing.snapshot import MOST_BYTES, WeightSnapshot, weight_bytes

__all__ = [
    "FLOAT32_SCOPE",
    "MOST_BYTES",
    "WeightSnapshot",
    "check_precision",
    "fold_variables",
    "frozen_function",
    "loops_with_variables",
    "weight_bytes",
]

"""Images and a target to signed maps, in the graph. Used by `_explain`, `_concepts` and `_export`."""

from tf_gradcam._signed_maps.answers import ANSWER_COUNT, check_one_target, is_one_answer
from tf_gradcam._signed_maps.image_source import find_input
from tf_gradcam._signed_maps.not_finite import with_nan
from tf_gradcam._signed_maps.placed import find_placements, relative_placements
from tf_gradcam._signed_maps.preprocess import OUT_OF_RANGE, apply_preprocess, cast_to_specs
from tf_gradcam._signed_maps.signed_maps import SignedMaps, score_function, signed_maps_function
from tf_gradcam._signed_maps.tapped import find_source, image_axes, tapped_layer

__all__ = [
    "ANSWER_COUNT",
    "OUT_OF_RANGE",
    "SignedMaps",
    "apply_preprocess",
    "cast_to_specs",
    "check_one_target",
    "find_input",
    "find_placements",
    "find_source",
    "image_axes",
    "is_one_answer",
    "relative_placements",
    "score_function",
    "signed_maps_function",
    "tapped_layer",
    "with_nan",
]

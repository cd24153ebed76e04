"""For the client of a model server: from its response to arrays, heatmap, picture, boxes; without TensorFlow.

Responses are those of TensorFlow Serving: REST's JSON, or gRPC's `PredictResponse`.
"""

from tf_gradcam.serving._arrays import MOST_VALUES
from tf_gradcam.serving._heatmaps import boxes, heatmap, overlay
from tf_gradcam.serving._responses import answers

__all__ = ["MOST_VALUES", "answers", "boxes", "heatmap", "overlay"]

"""In the client of a model server: its response to arrays, a heatmap, a picture. TensorFlow is not needed.

Responses are those of TensorFlow Serving: REST's JSON, or gRPC's `PredictResponse`.
"""

from tf_gradcam.serving._responses import MOST_VALUES, answers, heatmap, overlay

__all__ = ["MOST_VALUES", "answers", "heatmap", "overlay"]

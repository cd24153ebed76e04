"""All that looks into a Keras model."""

from tf_gradcam._model.layers import list_layers

__all__ = ["list_layers"]

"""A Keras model that returns the activations of a layer and the logits of any model: `build_submodel`.

It is public at top level. `_registration` registers the layer `Probe` with Keras.
"""

from typing import Any

import keras
import tensorflow as tf

from tf_gradcam._layers import resolve_layers
from tf_gradcam._model import (
    LayerCall,
    check_model,
    find_logits,
    forward,
    logits_need_graph,
    require_specs,
    walk_layers,
)

_TO_LOAD = "import tf_gradcam before keras.models.load_model"


@keras.saving.register_keras_serializable("tf_gradcam")
class Probe(keras.layers.Layer):
    """Call a model in inference mode and return `(activations, logits)` of one of its layers.

    Args:
        model: the model to call; its weights become weights of this layer.
        layer: position of the layer to read in `walk_layers(model)`. (Two layers may have the same path.)
        run: number of the layer's run to read, or `None` for a layer that runs once.
    """

    def __init__(self, model: keras.Model, layer: int, run: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.model = model
        self.position = layer
        self.run = run
        self._needs_graph = False

    def call(self, images: Any) -> tuple[tf.Tensor, Any]:
        _, layer = list(walk_layers(self.model))[self.position]
        activations, outputs = forward(self.model, images, [LayerCall(layer, self.run)])
        if not tf.executing_eagerly():
            self._needs_graph = logits_need_graph(outputs)
        elif self._needs_graph:
            raise ValueError(
                "`model` must be called in a graph to find its logits. Received: a call in eager mode. Call "
                "the sub-model inside a tf.function, or use its predict()."
            )
        logits = find_logits(outputs)
        if None in keras.tree.flatten(logits):
            raise ValueError(
                f"`model` must show its logits. Received: model={self.model.name!r}, with an output that is "
                "computed in the model's own tf.function. Remove the decorator."
            )
        return activations[0], logits

    def get_config(self) -> dict[str, Any]:
        model = keras.saving.serialize_keras_object(self.model)
        # Keras shows the config in its error if this library was not imported before the model is loaded.
        note = {"to_load": _TO_LOAD}
        return {**note, **super().get_config(), "model": model, "layer": self.position, "run": self.run}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Probe":
        config.pop("to_load", None)  # Models saved by earlier versions do not have it.
        model = keras.saving.deserialize_keras_object(config.pop("model"))
        return cls(model, **config)


def build_submodel(
    model: keras.Model, layer: str | keras.Operation | None = None, *, call: int | None = None
) -> keras.Model:
    """Build a functional model that returns a layer's activations and the logits.

    It also works on nested and subclassed models, for which
    `keras.Model(model.inputs, [layer.output, model.output])` raises "Graph disconnected". It shares the
    weights of `model`, which is not changed.

    Args:
        model: a `keras.Model`, built.
        layer: name, path (`"inner/conv"`), layer, or `None` for the last layer with a map.
        call: number of the run of a layer that runs several times, from 0.

    Returns:
        A functional `keras.Model` with the inputs of `model` that returns `(activations, logits)`: the
        activations as the layer returns them, `(N, h, w, K)`, and the logits in the structure of the model's
        outputs. These are the input of a final softmax or sigmoid, or the outputs of a model with neither.

    Raises:
        TypeError: if `model` is not a `keras.Model`.
        ValueError: if `model` is not built, or has no such layer or run.

    Example:

    ```python
    submodel = tf_gradcam.build_submodel(model, "top_conv")

    @tf.function  # In eager mode, TensorFlow would also compute the gradients of kernels.
    def explain(images):
        with tf.GradientTape() as tape:
            activations, logits = submodel(images)
            score = logits[:, 285]
        return activations, tape.gradient(score, activations)
    ```
    """
    check_model(model)
    specs = require_specs(model)
    if isinstance(layer, list | tuple):
        raise TypeError(
            f"`layer` must be one layer. Received: {len(layer)} layers. Build a sub-model for each."
        )
    (found,) = resolve_layers(model, layer, call)
    position = next(index for index, (_, one) in enumerate(walk_layers(model)) if one is found.layer)
    images = keras.tree.map_structure(
        lambda spec: keras.Input(spec.shape.as_list()[1:], dtype=spec.dtype.name, name=spec.name), specs
    )
    probe = Probe(model, position, found.call, name="probe")
    return keras.Model(images, probe(images), name=f"{model.name}_gradcam")

"""The textbook's sub-model for any Keras model: images in, activations and logits out.

The front door exports `build_submodel`. `_registration` names the layer `Probe` to Keras.
"""

import keras
import tensorflow as tf

from tf_gradcam._model import (
    LayerCall,
    check_model,
    find_logits,
    forward,
    logits_need_graph,
    require_specs,
    resolve_layers,
    walk_layers,
)

_TO_LOAD = "import tf_gradcam before keras.models.load_model"


@keras.saving.register_keras_serializable("tf_gradcam")
class Probe(keras.layers.Layer):
    """Call a model in inference mode and return `(activations, logits)` of one of its layers.

    Args:
        model: the model to call; its weights become weights of this layer.
        layer: the position in `walk_layers(model)` of the layer to read, as a path may belong to two layers.
        run: which of the layer's runs to read, or `None` where it runs once.
    """

    def __init__(self, model: keras.Model, layer: int, run: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.model = model
        self.position = layer
        self.run = run
        self._needs_graph = False

    def call(self, images):
        _, layer = list(walk_layers(self.model))[self.position]
        activations, outputs = forward(self.model, images, [LayerCall(layer, self.run)])
        if not tf.executing_eagerly():
            self._needs_graph = logits_need_graph(outputs)
        elif self._needs_graph:
            raise ValueError(
                "`model` shows its logits in a graph only. Received: a call outside of one. Call the "
                "sub-model inside a tf.function, or by its predict()."
            )
        logits = find_logits(outputs)
        if None in keras.tree.flatten(logits):
            raise ValueError(
                f"`model` must show its logits. Received: model={self.model.name!r}, an output of which "
                "comes out of a tf.function of its own. Take the decorator off."
            )
        return activations[0], logits

    def get_config(self):
        model = keras.saving.serialize_keras_object(self.model)
        # Keras shows the config in its error where nobody imported this library before loading the model.
        note = {"to_load": _TO_LOAD}
        return {**note, **super().get_config(), "model": model, "layer": self.position, "run": self.run}

    @classmethod
    def from_config(cls, config):
        config.pop("to_load", None)  # Models saved before have none.
        model = keras.saving.deserialize_keras_object(config.pop("model"))
        return cls(model, **config)


def build_submodel(
    model: keras.Model, layer: str | keras.Operation | None = None, *, call: int | None = None
) -> keras.Model:
    """Build a functional model that answers both a layer's activations and the logits.

    It works where `keras.Model(model.inputs, [layer.output, model.output])` raises "Graph disconnected":
    on nested and subclassed models too. It shares the weights of `model`, which is left as it is.

    Args:
        model: a `keras.Model`, built.
        layer: name, path (`"inner/conv"`), layer, or `None` for the last layer that has a map.
        call: which run of a layer that runs several times, from 0.

    Returns:
        A functional `keras.Model`: what `model` takes in, `(activations, logits)` out, with the activations
        as the layer returns them, `(N, h, w, K)`, and logits in the structure of the model's outputs: what a
        final softmax or sigmoid was given, or the outputs themselves where the model ends in neither.

    Raises:
        TypeError: if `model` is not a `keras.Model`.
        ValueError: if `model` isn't built, or has no such layer or run.

    Example:

    ```python
    submodel = tf_gradcam.build_submodel(model, "top_conv")

    @tf.function  # Eagerly, TensorFlow would compute the gradients of kernels as well.
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
        raise TypeError(f"`layer` must be one layer. Received: {len(layer)}. Build a sub-model for each.")
    (read,) = resolve_layers(model, layer, call)
    position = next(place for place, (_, each) in enumerate(walk_layers(model)) if each is read.layer)
    images = keras.tree.map_structure(
        lambda spec: keras.Input(spec.shape.as_list()[1:], dtype=spec.dtype.name, name=spec.name), specs
    )
    probe = Probe(model, position, read.call, name="probe")
    return keras.Model(images, probe(images), name=f"{model.name}_gradcam")

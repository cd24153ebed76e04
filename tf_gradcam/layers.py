"""Reach one layer of any Keras model: the tap, the forward pass, the sub-model, the look-up of layers."""

import collections
import contextlib
import difflib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

# What may stand between the last convolutions and the head. A pooled map is coarser than it need be.
_AFTER_THE_END = (
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
    keras.layers.Dropout,
    keras.layers.SpatialDropout2D,
)

_TAP_LOCK = threading.RLock()


@contextlib.contextmanager
def tap(layers: Sequence[keras.Layer], through: Callable[[keras.Layer, Any], Any]):
    """Pass what each of `layers` returns through `through(layer, output)` while the context is open.

    Only calls made by this thread are tapped. The layers are exactly what they were when it closes, also
    after an error. Open it while a model is being traced: the compiled graph then holds nothing of it.
    """
    owner = threading.get_ident()

    def tapped(layer, call):
        @functools.wraps(call)
        def call_through(*args, **kwargs):
            output = call(*args, **kwargs)
            return through(layer, output) if threading.get_ident() == owner else output

        return call_through

    with _TAP_LOCK, contextlib.ExitStack() as restore:
        for layer in layers:
            if "call" in vars(layer):
                restore.callback(object.__setattr__, layer, "call", vars(layer)["call"])
            else:
                restore.callback(object.__delattr__, layer, "call")
            # object's own setter: Keras's would track the function as part of the layer.
            object.__setattr__(layer, "call", tapped(layer, layer.call))
        yield


def call_model(model: keras.Model, images: tf.Tensor) -> Any:
    """Return what `model` answers to `images` in inference mode, changing none of its state."""
    functional = getattr(model, "_functional", None) or model
    # Models from old files expect [images] and warn at a bare tensor.
    structure = getattr(functional, "_inputs_struct", None)
    inputs = images if structure is None else keras.tree.pack_sequence_as(structure, [images])
    with keras.StatelessScope():
        return model(inputs, training=False)


class Forward(NamedTuple):
    """What one forward pass shows: the layer's activations, and what the model returned."""

    activations: tf.Tensor
    outputs: Any


def forward(
    model: keras.Model,
    layer: keras.Layer,
    images: tf.Tensor,
    watch: Callable[[tf.Tensor], None] | None = None,
) -> Forward:
    """Call `model` once and read `layer` on the way. This is the library's only forward path.

    Args:
        model: any built Keras model with one input.
        layer: a layer that `model` calls once, returning one tensor.
        images: tensor, as `model` takes it.
        watch: called with the activations at the moment they appear, before anything uses them:
            `tape.watch` puts them, and nothing below them, on a tape.

    Raises:
        ValueError: if `layer` isn't called exactly once, or returns something other than one tensor.
    """
    seen = []

    def read(layer, output):
        if not tf.is_tensor(output):
            raise ValueError(
                f"`layer` must return one tensor. Received: layer={layer.name!r}, which returns "
                f"{type(output).__name__}. Name a layer inside it, or the one after it."
            )
        # A tensor of its own: a layer that returns its input unchanged (dropout, say) would otherwise
        # put the input on the tape, and with it every branch that goes round the layer.
        output = tf.identity(output)
        seen.append(output)
        if watch is not None:
            watch(output)
        return output

    with tap([layer], read):
        outputs = call_model(model, images)
    if len(seen) != 1:
        raise ValueError(
            f"`layer` must run once when the model is called. Received: layer={layer.name!r}, which "
            f"ran {len(seen)} times. Choose a layer that runs once on the way to the output."
        )
    if not tf.executing_eagerly() and seen[0].graph is not tf.compat.v1.get_default_graph():
        raise ValueError(
            f"`layer` must run in the open. Received: layer={layer.name!r}, which runs inside a tf.function "
            "or a loop of the model's own. Take the decorator off, or choose a layer outside."
        )
    return Forward(seen[0], outputs)


def find_logits(outputs: Any) -> Any:
    """Return for each output what its final softmax or sigmoid was given, or the output where there is none.

    Raises:
        ValueError: if an output comes out of a `tf.function` of the model's own, which can't be looked into.
    """
    return keras.tree.map_structure(_logits, outputs)


def _logits(output: tf.Tensor) -> tf.Tensor:
    if tf.executing_eagerly():  # There is no graph to read; Keras leaves a note on its own activations.
        return getattr(output, "_keras_logits", output)
    logits = _behind_squashing(output)
    return output if logits is None else logits


def _behind_squashing(output: tf.Tensor) -> tf.Tensor | None:
    operation = output.op
    if operation.type in ("PartitionedCall", "StatefulPartitionedCall"):
        raise ValueError(
            "`model` must show its logits. Received: an output that comes out of a tf.function of its own. "
            "Take the decorator off, or give as `target` a callable outputs -> (N,)."
        )
    if operation.type in ("Softmax", "LogSoftmax", "Sigmoid"):
        return operation.inputs[0]
    if operation.type not in ("Identity", "Cast", "Reshape", "Transpose"):
        return None
    logits = _behind_squashing(operation.inputs[0])
    if logits is None or operation.type in ("Identity", "Cast"):
        return logits
    rearrange = {"Reshape": tf.reshape, "Transpose": tf.transpose}[operation.type]
    return rearrange(logits, operation.inputs[1])


def _is_hidden(output: tf.Tensor) -> bool:
    return _logits(output) is not output and not hasattr(output, "_keras_logits")


@keras.saving.register_keras_serializable("tf_gradcam")
class Probe(keras.layers.Layer):
    """Call a model in inference mode and return `(activations, logits)` of one of its layers.

    Args:
        model: the model to call; its weights become weights of this layer.
        layer: position in `walk(model)` of the layer to read; a path may belong to two layers.
    """

    def __init__(self, model: keras.Model, layer: int, **kwargs):
        super().__init__(**kwargs)
        self.model = model
        self.position = layer
        self._needs_graph = False

    def call(self, images):
        _, layer = list(walk(self.model))[self.position]
        read = forward(self.model, layer, images)
        if not tf.executing_eagerly():
            self._needs_graph = any(map(_is_hidden, keras.tree.flatten(read.outputs)))
        elif self._needs_graph:
            raise ValueError(
                "The logits of this model are found in its graph only. Call the sub-model inside a "
                "tf.function, or by its predict()."
            )
        return read.activations, find_logits(read.outputs)

    def get_config(self):
        model = keras.saving.serialize_keras_object(self.model)
        return {**super().get_config(), "model": model, "layer": self.position}

    @classmethod
    def from_config(cls, config):
        model = keras.saving.deserialize_keras_object(config.pop("model"))
        return cls(model, **config)


def build_submodel(model: keras.Model, layer: str | keras.Layer | None = None) -> keras.Model:
    """Build a functional model that answers both a layer's activations and the logits.

    It works where `keras.Model(model.inputs, [layer.output, model.output])` raises "Graph disconnected":
    on nested and subclassed models too. It shares the weights of `model`, which is left as it is.

    Args:
        model: a `keras.Model` with one input, built.
        layer: name, path (`"inner/conv"`), layer, or `None` for the last layer that has a map.

    Returns:
        A functional `keras.Model`: images in, `(activations, logits)` out, with activations
        `(N, h, w, K)`, and logits shaped as the model's outputs: what a final softmax or sigmoid was
        given, or the outputs themselves where the model ends in neither.

    Raises:
        TypeError: if `model` is not a `keras.Model`.
        ValueError: if `model` isn't built, or has no such layer.

    Example:

    ```python
    submodel = tf_gradcam.build_submodel(model, "top_conv")
    with tf.GradientTape() as tape:
        activations, logits = submodel(images)
        score = logits[:, 285]
    gradients = tape.gradient(score, activations)
    ```
    """
    check_model(model)
    spec = input_spec(model)
    layer = resolve_layer(model, layer)
    position = next(position for position, (_, each) in enumerate(walk(model)) if each is layer)
    images = keras.Input(batch_shape=spec.shape.as_list(), dtype=spec.dtype.name, name="images")
    return keras.Model(images, Probe(model, position, name="probe")(images), name=f"{model.name}_gradcam")


def check_model_type(model: Any) -> None:
    """Raise a `TypeError` or `ValueError` that helps unless `model` is a TensorFlow `keras.Model`."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "tf_gradcam needs Keras's TensorFlow backend. Received: "
            f"backend={keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow before importing keras."
        )
    if not isinstance(model, keras.Model):
        hint = ""
        if type(model).__module__.startswith(("tf_keras", "keras.src.legacy")):
            hint = " Save this Keras 2 model as .keras or .h5 and load it with keras.models.load_model."
        elif hasattr(model, "shape"):
            hint = " The model comes first, then the image."
        raise TypeError(
            f"`model` must be a keras.Model. Received an object of type {type(model).__name__}.{hint}"
        )


def check_layer_type(layer: Any) -> None:
    """Raise a `TypeError` unless `layer` may name a layer."""
    if not isinstance(layer, str | keras.Layer | None):
        raise TypeError(
            "`layer` must be a name, a keras.Layer or None. "
            f"Received: an object of type {type(layer).__name__}"
        )


def check_model(model: Any) -> None:
    """Raise a `TypeError` or `ValueError` that helps unless `model` can be explained."""
    check_model_type(model)
    if not _has_one_input(model):
        raise ValueError(
            f"`model` must have one input, the image. Received: model={model.name!r}, which takes several. "
            "Wrap it in a model that takes the image and supplies the rest."
        )
    if any(getattr(layer, "data_format", None) == "channels_first" for _, layer in walk(model)):
        raise ValueError(
            f"`model` must be channels_last. Received: model={model.name!r} with channels_first layers."
        )


def _has_one_input(model) -> bool:
    if getattr(model, "inputs", None):
        return len(model.inputs) == 1
    arguments = inspect.signature(model.call).parameters.values()
    required = [each for each in arguments if each.default is each.empty and "VAR" not in each.kind.name]
    required = [each for each in required if each.name not in ("training", "mask")]
    shape = (model.get_build_config() or {}).get("input_shape") or ()
    return len(required) <= 1 and all(isinstance(length, int | None) for length in shape)


def parts(model: keras.Model) -> tuple[int, ...]:
    """Return what tells that `model` gained or lost a layer at the top; a functional model never does."""
    return () if getattr(model, "operations", None) else tuple(map(id, model.layers))


def is_built(model: keras.Model) -> bool:
    """Whether every layer has its weights, so that tracing creates none, and the images' shape is known."""
    known = getattr(model, "inputs", None) or (model.get_build_config() or {}).get("input_shape")
    return bool(model.built and known and all(layer.built for _, layer in walk(model)))


def build(model: keras.Model, images: tf.Tensor) -> None:
    """Build `model` as its first call would."""
    model(tf.cast(images[:1], model.variable_dtype), training=False)


def input_spec(model: keras.Model, images: tf.Tensor | None = None) -> tf.TensorSpec:
    """Return the shape (batch open) and dtype of the images that `model` takes.

    A model with no input of its own takes whatever comes: that of `images`, or else of its first call.

    Raises:
        ValueError: if nothing tells the shape.
    """
    if getattr(model, "inputs", None):
        return tf.TensorSpec([None, *model.inputs[0].shape[1:]], model.inputs[0].dtype)
    shape = (model.get_build_config() or {}).get("input_shape") if images is None else images.shape
    if shape is None:
        raise ValueError(
            f"`model` must be built. Received: model={model.name!r}, which was never called. "
            "Call it once on an image first: model(images)"
        )
    return tf.TensorSpec([None, *shape[1:]], model.variable_dtype)


class LayerInfo(NamedTuple):
    """A layer that can be explained: `path` to name it by, the layer, and its map's shape `(h, w, K)`."""

    path: str
    layer: keras.Layer
    shape: tuple[int | None, ...]


def walk(model: keras.Layer, above: tuple[keras.Layer, ...] = ()) -> Iterator[tuple[str, keras.Layer]]:
    """Yield every layer below `model` with its path, inner layers before the one that holds them."""
    above = (*above, model)
    for layer in _children(model):
        if any(layer is each for each in above):
            continue  # A layer that refers to what holds it has that among its own layers.
        path = "/".join(each.name for each in (*above[1:], layer))
        yield from walk(layer, above)
        yield path, layer


def _children(layer: keras.Layer) -> list[keras.Layer]:
    if isinstance(layer, keras.Model):
        return layer.layers
    return layer._flatten_layers(include_self=False, recursive=False)


def _is_graph(layer: keras.Layer) -> bool:
    """Whether `layer` is a Functional or Sequential model, whose graph tells what it does."""
    calls = (keras.Sequential.call, keras.src.models.Functional.call)
    return type(layer).call in calls and bool(getattr(layer, "inputs", None))


def list_layers(model: keras.Model) -> list[LayerInfo]:
    """List every layer that can be explained, in order of execution.

    A layer can be explained when it runs once and returns one tensor `(N, h, w, K)` with more than one
    position. Functional and Sequential models are read from their graph; anything else is traced once.

    Args:
        model: a `keras.Model`, built.

    Returns:
        A list of `LayerInfo(path, layer, shape)`.

    Raises:
        TypeError: if `model` is not a `keras.Model`.
        ValueError: if `model` was never built.
    """
    check_model_type(model)
    return _list(model, input_spec(model))


def _list(model, spec) -> list[LayerInfo]:
    outputs = _graph_outputs(model)
    if outputs is None:
        outputs = _traced_outputs(model, spec)
    runs = collections.Counter(id(layer) for layer, _ in outputs)
    paths = {id(layer): path for path, layer in walk(model)}
    return [
        LayerInfo(paths[id(layer)], layer, tuple(output.shape[1:]))
        for layer, output in outputs
        if runs[id(layer)] == 1 and _has_map(layer, output)
    ]


def _graph_outputs(model) -> list[tuple[keras.Layer, Any]] | None:
    """Return what each layer returns, in order of execution, if Keras's graphs tell it all; else `None`."""
    if not _is_graph(model):
        return None
    functional = getattr(model, "_functional", None) or model
    nodes = [node for _, depth in sorted(functional._nodes_by_depth.items(), reverse=True) for node in depth]
    outputs = []
    for node in nodes:
        layer = node.operation
        if not isinstance(layer, keras.Layer):
            continue
        if not _children(layer):
            outputs.append((layer, node.outputs[0] if len(node.outputs) == 1 else None))
            continue
        inner = _graph_outputs(layer)
        # An inner model may be called on another size than it was built for.
        if inner is None or [x.shape for x in node.input_tensors] != [x.shape for x in layer.inputs]:
            return None
        outputs += inner
    return outputs


def _traced_outputs(model, spec) -> list[tuple[keras.Layer, Any]]:
    """Return what each layer returns, in order of execution, by running the model in a graph of its own."""
    outputs = []

    def note(layer, output):
        outputs.append((layer, output))
        return output

    def run(images):
        leaves = {id(layer): layer for _, layer in walk(model) if not _is_graph(layer)}
        with tap(list(leaves.values()), note):
            return call_model(model, images)

    tf.function(run, autograph=False).get_concrete_function(spec)
    return outputs


def _has_map(layer: keras.Layer, output: Any) -> bool:
    if isinstance(layer, keras.layers.InputLayer) or not hasattr(output, "shape"):
        return False
    return len(output.shape) == 4 and output.shape[1:3] != (1, 1)


def check_map(layer: keras.Layer, activations: tf.Tensor) -> None:
    """Raise a `ValueError` unless `activations` are a map with more than one position."""
    if not _has_map(layer, activations):
        raise ValueError(
            "`layer` must return a map (N, h, w, K) with more than one position. "
            f"Received: layer={layer.name!r}, which returns {activations.shape}. Choose a convolution before "
            "it, or layer=None for the last layer that has a map."
        )


def default_layer(model: keras.Model, images: tf.Tensor | None = None) -> keras.Layer:
    """Return the last layer that still has a map: the end of the convolutions, before pooling and dropout.

    Args:
        model: a `keras.Model`, built.
        images: what it is called on, where its first call doesn't tell.

    Raises:
        ValueError: if no layer of `model` has one.
    """
    listed = _list(model, input_spec(model, images))
    candidates = [each for each in listed if not isinstance(each.layer, _AFTER_THE_END)]
    if not candidates:
        raise ValueError(
            f"`model` must have a layer with a map (N, h, w, K). Received: model={model.name!r}, "
            "where no layer has one."
        )
    return candidates[-1].layer


def resolve_layer(
    model: keras.Model, layer: str | keras.Layer | None, images: tf.Tensor | None = None
) -> keras.Layer:
    """Return the layer that `layer` means, or the default one for `None`.

    Raises:
        TypeError: if `layer` is neither a string nor a layer nor `None`.
        ValueError: if `model` has no such layer, or several.
    """
    check_layer_type(layer)
    return default_layer(model, images) if layer is None else find_layer(model, layer)


def find_layer(model: keras.Model, layer: str | keras.Layer) -> keras.Layer:
    """Return the layer of `model` that `layer` means.

    Args:
        model: a `keras.Model`.
        layer: a layer of `model`, its name, or the end of its path (`"inner/conv"`).

    Raises:
        ValueError: if `model` has no such layer, or several.
    """
    layers = list(walk(model))
    if isinstance(layer, keras.Layer):
        if not any(each is layer for _, each in layers):
            raise ValueError(
                f"`layer` must be a layer of the model. Received: layer={layer.name!r}, which is not "
                f"part of model {model.name!r}."
            )
        return layer
    exact = [(path, each) for path, each in layers if path == layer]
    matches = exact or [(path, each) for path, each in layers if f"/{path}".endswith(f"/{layer}")]
    if len({id(each) for _, each in matches}) == 1:
        return matches[0][1]
    if matches:
        raise ValueError(
            f"`layer` must name one layer. Received: layer={layer!r}, which may be any of "
            f"{[path for path, _ in matches]}. Give a path or the layer itself."
        )
    paths = [path for path, _ in layers]
    names = {name.lower(): name for path, each in layers for name in (path, each.name)}
    near = [names[name] for name in difflib.get_close_matches(layer.lower(), names)]
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise ValueError(
        f"`layer` must be a layer of the model. Received: layer={layer!r}. {hint}"
        f"Its layers: {_shortened(paths)}"
    )


def _shortened(names: list[str], most: int = 12) -> str:
    names = [repr(name) for name in names]
    return ", ".join(names if len(names) <= most else ["...", *names[-most:]])

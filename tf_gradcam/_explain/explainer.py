"""The engine behind both doors: from a question about images to a compiled function, and to its answer.

`GradCAM` has one of its own; `make_gradcam_heatmap` shares one for each model, layer and method.
"""

import copy
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._explain.explanation import Explanation
from tf_gradcam._explain.frozen import WeightSnapshot, frozen_function
from tf_gradcam._explain.preprocess import apply_preprocess, cast_to_specs
from tf_gradcam._explain.question import Question, check_question
from tf_gradcam._explain.signed_maps import SignedMaps, signed_maps_function
from tf_gradcam._heatmap import FUSIONS, fuse_heatmaps, parse_size, to_heatmap
from tf_gradcam._methods import Method, get, is_at_image, is_formula
from tf_gradcam._model import (
    ONE_MAP_PER_IMAGE,
    PATCHES_COUNT,
    as_batch,
    build_model,
    check_images,
    check_layer,
    check_model,
    count_call_arguments,
    declared_specs,
    default_layer,
    ends_without_convolution,
    final_activation,
    functional_graph,
    has_noted_logits,
    is_built,
    layer_path,
    raw_image_specs,
    resolve_layers,
    specs_to_trace,
    structure_key,
)
from tf_gradcam._targets import check_range, refers_to_dead_callable, to_rows, with_arrays

Layers: TypeAlias = str | keras.Operation | Sequence[str | keras.Operation] | None


class Explainer:
    """Answer questions about one model, layer and method. It keeps neither the model nor the layers alive."""

    def __init__(
        self,
        model: keras.Model,
        layer: Layers,
        call: int | None,
        method: str | Method,
        fuse: str | None,
        preprocess: Callable | None = None,
    ):
        check_model(model)
        check_layer(layer, call)
        if preprocess is not None and not callable(preprocess):
            raise TypeError(f"`preprocess` must be a callable. Received: preprocess={preprocess!r}")
        self.method = get(method)
        self._at_image = is_at_image(self.method)
        if self._at_image and layer is not None:
            name = method if isinstance(method, str) else getattr(method, "__name__", type(method).__name__)
            raise ValueError(
                "`layer` must be None for a method that explains at the image itself. "
                f"Received: layer={layer!r} and method={name}"
            )
        self._model = weakref.ref(model)
        self._several = isinstance(layer, list | tuple)
        self._requested = weak_layers(layer)
        self._call = call
        self._fuse = checked_fuse(fuse, layer)
        self._preprocess = preprocess
        self._takes_several = count_call_arguments(model) > 1
        self._structure: tuple[int, ...] | None = None  # of the model when it was prepared for
        self._snapshot: WeightSnapshot | None = None  # the weights that are frozen into its traces
        if is_built(model) and declared_specs(model) is not None:
            self._prepare()

    @property
    def layer(self) -> Any:
        """The layer that is explained, a tuple of several, or `None`; see `GradCAM.layer`."""
        if self._structure is None or self._at_image:
            return None
        found = tuple(each.layer_reference() for each in self.layer_calls)
        return found if self._several else found[0]

    @property
    def is_frozen(self) -> bool:
        """Whether its traces hold the weights of one moment."""
        return self._snapshot is not None

    def frozen(self) -> "Explainer":
        """Return an explainer with traces of its own, which hold the model's weights of now."""
        if self._structure is None:
            raise ValueError("`model` must be built to be frozen. Explain an image first, or call it on one.")
        frozen = copy.copy(self)
        frozen._traces = {}
        frozen._snapshot = WeightSnapshot(self._model())
        return frozen

    def _prepare(self, images=None) -> None:
        """Find the layers, and make what all traces share; `images` tell what no declared specs do."""
        model = self._model()
        layer_calls = resolve_layers(model, _strong_layers(self._requested), self._call, images)
        if self._at_image:  # Any run of the layer shows which image is meant.
            layer_calls = [each._replace(call=each.call or 0) for each in layer_calls]
        self.layer_calls = [each.weak() for each in layer_calls]
        self._signed_maps = signed_maps_function(model, self.layer_calls, self.method, self._preprocess)
        self._compiled_signed_maps = tf.function(self._signed_maps, autograph=False)
        self._specs = declared_specs(model)  # once, as it takes its time
        self._has_graph = functional_graph(model) is not None
        self._output_names = getattr(functional_graph(model), "output_names", None)
        self._traces: dict = {}
        self._structure = structure_key(model)  # last: it tells other threads that the rest is there

    def explain(
        self,
        name: str,
        images: Any,
        target: Any,
        size: Any,
        interpolation: str,
        first_eagerly: bool = False,
    ) -> Explanation:
        """Explain a batch of images.

        Args:
            name: what the caller's argument of images is called, for errors.
            images: see `GradCAM.__call__`, like `target`, `size` and `interpolation`.
            target: what to explain.
            size: of the heatmap.
            interpolation: how it is resized.
            first_eagerly: whether the first question is answered without compiling, where that is possible.
        """
        check_question(self.method, target, interpolation)
        size = parse_size(size)
        if self._snapshot is not None:
            self._snapshot.check()
        images = self._as_batch(name, images)
        flat = [images] if tf.is_tensor(images) else keras.tree.flatten(images)
        if target is not None:
            target = to_rows(target, flat[0].shape[0] or tf.shape(flat[0])[0], self._output_names)
        question = Question(self._specs_to_trace(images), target, size, interpolation)
        check_images(name, images, question.specs)
        tensors = [*flat, *question.target_arrays(), *question.size_arrays()]
        if first_eagerly and not self._traces:
            self._keep_trace(question.trace_key(tensors), None)  # The next one is compiled.
            explanation = self._answer_eagerly(question, tensors)
            if explanation is not None:
                return explanation
        return self._answer_compiled(question, tensors, images)

    # Images

    def _as_batch(self, name, images):
        """Return `images` as tensors. The first ones build the model; later ones notice that it has grown."""
        model = self._model()
        known = self._specs if self._structure is not None else declared_specs(model)
        images = as_batch(name, images, known, self._takes_several)
        if self._structure is None or self._structure != structure_key(model):
            if self._snapshot is not None:
                raise self._snapshot.changed_error()
            prepared = apply_preprocess(self._preprocess, images)
            if not is_built(model):
                build_model(model, cast_to_specs(prepared, specs_to_trace(model, prepared)))
            self._prepare(None if known is not None and self._structure is not None else prepared)
        return images

    def _specs_to_trace(self, images):
        """Return the shapes and dtypes to trace for: the model's own, or as open as `preprocess` needs."""
        if self._preprocess is not None:
            return raw_image_specs(images)
        return self._specs if self._has_graph else specs_to_trace(self._model(), images)

    # Answers

    def _answer_compiled(self, question, tensors, images) -> Explanation:
        key = question.trace_key(tensors)
        compiled = self._traces.get(key)
        if compiled is None:
            compiled = self._trace(question, tensors)
            self._keep_trace(key, compiled)
        if question.target is not None:
            answer = compiled.structured_outputs
            check_range(question.target, answer.target, answer.outputs)
        try:
            return compiled(*tensors)
        except tf.errors.InvalidArgumentError as error:
            advice = self._advice(str(error), images)
            if advice is None:
                raise
            raise ValueError(advice) from error

    def _answer_eagerly(self, question, tensors) -> Explanation | None:
        """Return the answer without compiling, which takes longer than one answer.

        Returns `None` where only a graph shows the logits, or what is wrong.
        """
        last = final_activation(self._model()) if is_formula(self.method) else None
        if last is None or question.holds_callable():
            return None
        # Eagerly TensorFlow also computes the gradient by a convolution's filters, which nobody needs, and
        # the CPU build of TensorFlow 2.21 can end the process in it.
        layers = [each.layer_reference() for each in self.layer_calls]
        if not all(ends_without_convolution(self._model(), layer) for layer in layers):
            return None
        try:
            explanation = self._answer_function(self._signed_maps, question)(*tensors)
            if question.target is not None:
                check_range(question.target, explanation.target, explanation.outputs)
        except (ValueError, tf.errors.OpError):
            return None
        (output,) = keras.tree.flatten(explanation.outputs)
        return explanation if last is keras.activations.linear or has_noted_logits(output) else None

    def _keep_trace(self, key, compiled) -> None:
        """Keep a trace, or `None` for what ran eagerly; drop those whose callable is gone."""
        alive = {key: each for key, each in self._traces.items() if not refers_to_dead_callable(key.target)}
        self._traces = {**alive, key: compiled}

    def _trace(self, question, tensors):
        """Return the compiled function for questions of this kind, traced with an open batch."""
        # The model is traced once for each kind of target, whatever the size or the images' dtype. Not so for
        # a callable: it may have been made on the spot, and must then be free to go, and its trace with it.
        maps_function = self._signed_maps if question.holds_callable() else self._compiled_signed_maps
        shapes = [spec.shape for spec in keras.tree.flatten(question.specs)]
        shapes += [[None, *each.shape[1:]] for each in question.target_arrays()]
        shapes += [each.shape for each in question.size_arrays()]
        signature = [tf.TensorSpec(shape, each.dtype) for shape, each in zip(shapes, tensors, strict=True)]
        function = tf.function(self._answer_function(maps_function, question), autograph=False)
        concrete = function.get_concrete_function(*signature)
        if self._snapshot is None:
            return concrete
        self._snapshot.note(concrete.variables)  # A layer may have some that Keras does not know.
        self._snapshot.check_all()  # All traces are of one moment.
        return frozen_function(concrete)

    def _answer_function(self, maps_function, question) -> Callable[..., Explanation]:
        """Return the function of tensors that answers a question.

        It takes the images, then the arrays of target and size, all flat: to bind structures would take
        TensorFlow half a millisecond at every call.
        """
        specs, target, size, interpolation = question
        image_count, array_count = len(keras.tree.flatten(specs)), len(question.target_arrays())

        def answer(*tensors):
            images = keras.tree.pack_sequence_as(specs, tensors[:image_count])
            if target is None:  # The predicted classes have rows, too.
                rows = to_rows(None, tf.shape(tensors[0])[0])
            else:
                rows = with_arrays(target, tensors[image_count : image_count + array_count])
            found: SignedMaps = maps_function(cast_to_specs(images, specs), rows)
            lengths = tensors[-1] if question.size_arrays() else found.image_lengths if size else None
            _check_lengths(lengths, found, size)
            heatmap, heatmaps = self._heatmaps(found.maps, found.score, lengths, interpolation)
            signed_map = tuple(found.maps) if self._several else found.maps[0]
            return Explanation(heatmap, signed_map, found.score, found.class_index, found.outputs, heatmaps)

        return answer

    def _heatmaps(self, signed_maps, score, lengths, interpolation):
        """Return the heatmap of all layers in one, and a tuple with that of each."""
        batch_axes = score.shape.rank  # the batch, and that of several scores
        grids = [tf.shape(each)[batch_axes:] for each in signed_maps]
        places = [tf.reduce_prod(grid) for grid in grids]
        if lengths is None and self._several:
            lengths = tf.gather(tf.stack(grids), tf.argmax(tf.stack(places)))
        heatmaps = []
        for signed_map, grid in zip(signed_maps, grids, strict=True):
            flat = tf.reshape(signed_map, tf.concat([[-1], grid], 0))
            heatmaps.append(to_heatmap(flat, lengths, interpolation))
        fused = fuse_heatmaps(heatmaps, places, self._fuse) if self._several else heatmaps[0]

        def with_batch_axes(heatmap):
            return tf.reshape(heatmap, tf.concat([tf.shape(score), tf.shape(heatmap)[1:]], 0))

        return with_batch_axes(fused), tuple(map(with_batch_axes, heatmaps))

    def _advice(self, error, images) -> str | None:
        """Return what to say of an error of the running graph; `None` if it is not a known one."""
        if "`target` must" in error:
            return error[error.index("`target` must") :].partition("\n")[0]
        if "EnsureShape" in error and self._preprocess is not None:
            return f"`preprocess` must return what the model takes. Received: {error}"
        names = ", ".join(repr(each.strong().layer.name) for each in self.layer_calls)
        if ONE_MAP_PER_IMAGE in error:
            return (
                f"`layer` must return {ONE_MAP_PER_IMAGE}. Received: layer={names}, which returns more rows "
                "than there are images, as it does where windows are cut out of an image. Choose a layer "
                "before or after."
            )
        if PATCHES_COUNT in error:
            model = self._model()
            default = default_layer(model, None if self._has_graph else images).layer
            return (
                f"`layer` must have {PATCHES_COUNT}. Received: layer={names}, of which only the class token "
                "counts, as nothing mixes the tokens after it. "
                f"Choose a layer before: {layer_path(model, default)!r}, or layer=None."
            )
        return None


def weak_layers(layer: Layers) -> Any:
    """Return `layer` with weak references in place of layers, hashable; names stay as they are."""
    if isinstance(layer, list | tuple):
        return tuple(map(weak_layers, layer))
    return weakref.ref(layer) if isinstance(layer, keras.Operation) else layer


def _strong_layers(layer) -> Layers:
    """Return what `weak_layers` was given."""
    if isinstance(layer, tuple):
        return list(map(_strong_layers, layer))
    if not isinstance(layer, weakref.ref):
        return layer
    if layer() is None:
        raise ValueError("`layer` must be a layer of the model. Received: a layer that was deleted since.")
    return layer()


def checked_fuse(fuse: str | None, layer: Layers) -> str:
    """Return the fusion that is meant; raise a `ValueError` unless it exists and `layer` names several."""
    if fuse is not None and (not isinstance(fuse, str) or fuse not in FUSIONS):
        raise ValueError(f"`fuse` must be one of {FUSIONS}. Received: fuse={fuse!r}")
    if fuse is not None and not isinstance(layer, list | tuple):
        raise ValueError(
            f"`fuse` must be left out where one layer is explained. Received: fuse={fuse!r}, and "
            f"layer={getattr(layer, 'name', layer)!r}. Give a list of layers."
        )
    return fuse or FUSIONS[0]


def _check_lengths(lengths: Any, found: SignedMaps, size: str | np.ndarray | None) -> None:
    """Raise a `ValueError` unless `size` gives one length for each axis of the grid."""
    axes = found.maps[0].shape.rank - found.score.shape.rank
    if size is None:
        return
    if lengths is None:
        raise ValueError(
            f'`size` must be None or {axes} lengths. Received: size="input", but no input of the model has '
            f"the {axes} axes of the layer's grid."
        )
    if lengths.shape[0] not in (None, axes):
        raise ValueError(
            f"`size` must hold one length for each of the {axes} axes of the layer's grid. "
            f"Received: {lengths.shape[0]} lengths"
        )

"""The explainer: it compiles a function for a question about images, and calls it.

`GradCAM` has one; the calls of `make_gradcam_heatmap` share one for each model, layer and method.
"""

import copy
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_gradcam._explain.heatmaps import draw_heatmaps
from tf_gradcam._explain.placed_maps import PlacedMaps, placed_maps_function
from tf_gradcam._explain.question import Question, check_signed, check_target_taken
from tf_gradcam._explain.requested import Layers, check_layers, strong_layers, weak_layers
from tf_gradcam._explain.xla import XlaFunction, check_jit_compile
from tf_gradcam._explanation import Explanation
from tf_gradcam._freezing import FLOAT32_SCOPE, WeightSnapshot, frozen_function
from tf_gradcam._heatmap import FUSIONS, Interpolation, parse_interpolation, parse_size
from tf_gradcam._layers import (
    default_layer,
    draws_whole_image,
    ends_without_convolution,
    final_activation,
    last_block,
    locating_layers,
    resolve_layers,
)
from tf_gradcam._methods import (
    Method,
    Preset,
    get,
    is_at_image,
    is_formula,
    method_name,
    methods_of_layers,
    reads_blocks,
)
from tf_gradcam._model import (
    ONE_MAP_PER_IMAGE,
    PATCHES_COUNT,
    as_batch,
    as_weights,
    build_model,
    check_images,
    check_model,
    count_call_arguments,
    declared_specs,
    functional_graph,
    has_noted_logits,
    is_built,
    layer_path,
    raw_image_specs,
    replaced_weights,
    specs_to_trace,
    structure_version,
    variables_read_first,
)
from tf_gradcam._signed_maps import (
    ANSWER_COUNT,
    OUT_OF_RANGE,
    SignedMaps,
    apply_preprocess,
    cast_to_specs,
    check_one_target,
    find_input,
    score_function,
    signed_maps_function,
)
from tf_gradcam._targets import check_range, refers_to_dead_callable, to_rows


class Explainer:
    """Explain images with one model, layer and method. It holds only weak references to model and layers."""

    def __init__(
        self,
        model: keras.Model,
        layer: Layers,
        call: int | None,
        method: str | Method | Sequence[str | Method],
        fuse: str | None,
        preprocess: Callable | None = None,
        jit_compile: bool = False,
    ):
        check_model(model)
        if preprocess is not None and not callable(preprocess):
            raise TypeError(f"`preprocess` must be a callable. Received: preprocess={preprocess!r}")
        self.method = get(method)
        self._methods = methods_of_layers(self.method)
        self._preset = self.method if isinstance(self.method, Preset) else None
        check_layers(layer, call, self.method, fuse)
        self._at_image = is_at_image(self.method)
        if self._at_image and call is not None:
            raise ValueError(
                "`call` must be None for a method whose map lies on the image. "
                f"Received: call={call!r} and method={method_name(self.method)}"
            )
        self._model = weakref.ref(model)
        self._several = self._preset is not None or isinstance(layer, list | tuple)
        self._requested = weak_layers(layer)
        self._call = call
        self.fuse = fuse or (self._preset.fuse if self._preset else None)
        self.interpolation = self._preset.interpolation if self._preset else "bilinear"
        self._preprocess = preprocess
        self.jit_compile = check_jit_compile(jit_compile, model, preprocess)
        self._takes_several = count_call_arguments(model) > 1
        self._structure: int | None = None  # The version of the model that was prepared for.
        self._snapshot: WeightSnapshot | None = None  # Of the weights that are frozen into the traces.
        self.precision: str | None = None  # Of the convolutions and products in the frozen traces.
        self._weights: list = []  # In place of the model's own, as arguments of the traces.
        if is_built(model) and declared_specs(model) is not None:
            self._prepare()

    @property
    def layer(self) -> Any:
        """The layer that is explained, a tuple of several, or `None`; see `GradCAM.layer`."""
        if self._structure is None or self._at_image:
            return None
        layers = tuple(layer_call.layer_reference() for layer_call in self.layer_calls)
        return layers if self._several else layers[0]

    @property
    def layer_names(self) -> Any:
        """The name of the layer or requested input, a list of names for several layers, or `None`."""
        layer = strong_layers(self._requested) if self._at_image else self.layer
        if isinstance(layer, str):
            return layer
        return [one.name for one in layer] if isinstance(layer, tuple) else getattr(layer, "name", None)

    @property
    def is_frozen(self) -> bool:
        """True if the traces contain frozen weights."""
        return self._snapshot is not None

    def frozen(self, precision: str | None = None) -> "Explainer":
        """Return a copy of this explainer whose traces contain the model's current weights."""
        if self._structure is None:
            raise ValueError("`model` must be built to be frozen. Explain an image first, or call it on one.")
        if self._weights:
            raise ValueError(
                "`freeze` needs an explainer of the model's own weights. Received: one of `with_weights`. "
                "Give them to a copy of the model, by `set_weights`, and freeze a GradCAM of that."
            )
        if self._structure != structure_version(self._model()):
            self._prepare()
        frozen = copy.copy(self)
        frozen._traces, frozen.precision = {}, precision
        frozen._signed_maps = self._with_variables_read_first(self._signed_maps)
        frozen._compiled_signed_maps = tf.function(frozen._signed_maps, autograph=False)
        frozen._snapshot = WeightSnapshot(self._model())
        return frozen

    def _with_variables_read_first(self, signed_maps):
        weak_model = self._model  # Not `self`, which has the traces.

        def signed_maps_of_values(images, target):
            with variables_read_first(weak_model()):
                return signed_maps(images, target)

        return signed_maps_of_values

    def with_weights(self, weights: Sequence[Any]) -> "Explainer":
        """Return a copy of this explainer for the model with other weights; all copies share their traces."""
        if self._structure is None or self._structure != structure_version(self._model()):
            self._prepare()
        if self._snapshot is not None:
            raise ValueError(
                "`with_weights` needs an explainer that is not frozen. Call it on the one that `freeze` was "
                "called on."
            )
        changed = copy.copy(self)
        changed._traces = self._traces_of_weights
        changed._weights = as_weights(self._model(), weights)
        return changed

    def _prepare(self, images=None) -> None:
        """Find the layers, and create what all traces share; `images` are for models without specs."""
        model = self._model()
        self._specs = declared_specs(model)  # Stored, because it is slow.
        layers, requested_input = strong_layers(self._requested), None
        if self._at_image:  # No search for a layer: none is read.
            self.layer_calls = []
            structure = self._specs if images is None else images
            find_input(model, structure, layers, self.method)
            requested_input = getattr(layers, "name", layers)
        elif self._preset is not None and layers is None:
            self.layer_calls = [layer_call.weak() for layer_call in locating_layers(model, images)]
        elif layers is None and self._call is None and reads_blocks(self.method):
            self.layer_calls = [last_block(model, images).weak()]
        else:
            layer_calls = resolve_layers(model, layers, self._call, images)
            self.layer_calls = [layer_call.weak() for layer_call in layer_calls]
        count = len(self.layer_calls) or 1
        methods = self._methods if len(self._methods) == count else self._methods * count
        self._signed_maps = signed_maps_function(
            model, self.layer_calls, methods, self._preprocess, requested_input, self._preset is not None
        )
        self._compiled_signed_maps = tf.function(self._signed_maps, autograph=False)
        self._has_graph = functional_graph(model) is not None
        self._output_names = getattr(functional_graph(model), "output_names", None)
        self._traces: dict = {}
        self._traces_of_weights: dict = {}  # With the weights as arguments.
        self._structure = structure_version(model)  # Last: other threads take it as a sign that all is set.

    def explain(
        self,
        name: str,
        images: Any,
        target: Any,
        size: Any,
        interpolation: Interpolation | None,
        first_eagerly: bool = False,
        version: int | None = None,
        signed: bool = False,
    ) -> Explanation:
        """Explain a batch of images.

        Args:
            name: name of the caller's argument for `images`, for errors.
            images: see `GradCAM.__call__`, like `target`, `size` and `interpolation`.
            target: what to explain.
            size: size of the heatmap.
            interpolation: how it is resized.
            first_eagerly: whether to run the first question without compiling, if possible.
            version: the `structure_version` of the model, where the caller has just compared it.
            signed: whether the heatmap keeps its negative values.
        """
        check_target_taken(self.method, target)
        interpolation = self.interpolation if interpolation is None else parse_interpolation(interpolation)
        question, images = self._ask(name, images, target, parse_size(size), interpolation, signed, version)
        check_signed(signed, self._several)  # After the first images, from which `layer` is known.
        tensors = [*keras.tree.flatten(images), *question.arrays(), *self._weights]
        if first_eagerly and not self._traces:
            # The second one compiles, here and not in another thread. There, a call of the model would clear
            # the losses that it had from `add_loss` in this thread (Keras 3.15), and TensorFlow ends the
            # process with an abort if Python ends while a thread is tracing.
            self._keep_trace(question.trace_key(tensors), None)
            explanation = self._explain_eagerly(question, tensors)
            if explanation is not None:
                return explanation
        return self._explain_compiled(question, tensors, images)

    def signed_maps(self, name: str, images: Any, target: Any) -> PlacedMaps:
        """Return the signed maps of a batch, as they are before heatmaps are drawn."""
        check_target_taken(self.method, target)
        question, images = self._ask(name, images, target, None, None, signed=True)
        tensors = [*keras.tree.flatten(images), *question.arrays(), *self._weights]
        return self._explain_compiled(question, tensors, images)

    def score(self, images: Any, target: Any) -> Explanation:
        """Return an explanation of scores, class indices and outputs only: a forward pass."""
        question, images = self._ask("images", images, target, None, None)
        tensors = [*keras.tree.flatten(images), *question.arrays(), *self._weights]
        return self._explain_compiled(question, tensors, images)

    def _ask(
        self, name, images, target, size, interpolation, signed=False, version=None
    ) -> tuple[Question, Any]:
        """Return the question, and the images as tensors."""
        if self._snapshot is not None:
            self._snapshot.check()
        given, images = images, self._as_batch(name, images, version)
        if target is not None:
            flat = [images] if tf.is_tensor(images) else keras.tree.flatten(images)
            target = to_rows(target, flat[0].shape[0] or tf.shape(flat[0])[0], self._output_names)
        question = Question(self._specs_to_trace(images), target, size, interpolation, signed)
        check_images(name, images, question.specs, given)
        return question, images

    def _as_batch(self, name, images, version):
        """Return `images` as tensors. Build the model if necessary; prepare again if its layers changed."""
        model = self._model()
        version = structure_version(model) if version is None else version
        is_current = self._structure is not None and self._structure == version
        known = self._specs if self._structure is not None else declared_specs(model)
        exact = is_current and self._has_graph and self._preprocess is None
        images = as_batch(name, images, known, self._takes_several, exact)
        if not is_current:
            if self._snapshot is not None:
                raise self._snapshot.changed_error()
            prepared = apply_preprocess(self._preprocess, images)
            if not is_built(model):
                build_model(model, cast_to_specs(prepared, specs_to_trace(model, prepared)))
            self._prepare(None if known is not None and self._structure is not None else prepared)
        return images

    def _specs_to_trace(self, images):
        """Return the specs to trace for: those of the model, or of raw images if there is a `preprocess`."""
        if self._preprocess is not None:
            return raw_image_specs(images)
        return self._specs if self._has_graph else specs_to_trace(self._model(), images)

    def _explain_compiled(self, question, tensors, images) -> Any:
        key = question.trace_key(tensors)
        compiled = self._traces.get(key)
        if compiled is None:
            compiled = self._trace(question, tensors)
            self._keep_trace(key, compiled)
        if question.target is not None:
            symbolic = compiled.structured_outputs
            check_range(question.target, symbolic.target, symbolic.outputs)
            check_one_target(question.target, symbolic.score)
        try:
            return compiled(*tensors)
        except tf.errors.InvalidArgumentError as error:
            advice = self._advice(str(error), images)
            if advice is None:
                raise
            raise ValueError(advice) from error

    def _explain_eagerly(self, question, tensors) -> Explanation | None:
        """Return the explanation without compiling, which takes longer than running once.

        Returns `None` if a graph is needed, to find the logits or to give the right error.
        """
        activation = final_activation(self._model()) if all(map(is_formula, self._methods)) else None
        if activation is None or question.holds_callable() or self._preset is not None:
            return None
        # Without a graph it is not known where the map lies on the image.
        if not draws_whole_image(self._model()):
            return None
        # In eager mode TensorFlow also computes filter gradients, in which the CPU build of TensorFlow 2.21
        # can end the process. They are not needed here.
        layers = [layer_call.layer_reference() for layer_call in self.layer_calls]
        if not all(ends_without_convolution(self._model(), layer) for layer in layers):
            return None
        try:
            explanation = self._explanation_function(self._signed_maps, question)(*tensors)
            if question.target is not None:
                check_range(question.target, explanation.target, explanation.outputs)
        except (ValueError, tf.errors.OpError):
            return None
        (output,) = keras.tree.flatten(explanation.outputs)
        return explanation if activation is keras.activations.linear or has_noted_logits(output) else None

    def _keep_trace(self, key, compiled) -> None:
        """Store a trace, or `None` for a run in eager mode; drop traces whose callable has been deleted."""
        # In place: copies with other weights share it. A list first: other threads may add to it.
        for dead in [each for each in list(self._traces) if refers_to_dead_callable(each.target)]:
            self._traces.pop(dead, None)
        self._traces[key] = compiled

    def _trace(self, question, tensors):
        """Return the compiled function for questions of this kind, traced with an open batch axis."""
        # One trace of the model serves all sizes and image dtypes, for each kind of target. A target with a
        # callable has its own, which can be deleted with the callable.
        is_shared = not question.holds_callable() and not self._weights
        maps_function = self._compiled_signed_maps if is_shared else self._signed_maps
        shapes = [spec.shape for spec in keras.tree.flatten(question.specs)]
        shapes += [[None, *array.shape[1:]] for array in question.target_arrays()]
        shapes += [array.shape for array in [*question.size_arrays(), *self._weights]]
        signature = [tf.TensorSpec(shape, each.dtype) for shape, each in zip(shapes, tensors, strict=True)]
        answer = self._explanation_function(maps_function, question)
        if question.interpolation is None:
            is_score = not question.signed
            answer = (
                self._score_function(question) if is_score else placed_maps_function(maps_function, question)
            )
        function = tf.function(self._on_weights(answer), autograph=False)
        traced = function.get_concrete_function(*signature)
        if self._snapshot is not None:
            self._snapshot.note(traced.variables)  # A layer may have variables that Keras does not list.
            self._snapshot.check_all()  # All traces must contain the same weights.
            traced = frozen_function(traced, self.precision)
        if not self.jit_compile:
            return traced
        inputs = len(keras.tree.flatten(question.specs))
        subject = f"model {self._model().name!r} with method {method_name(self.method)!r}"
        return XlaFunction(traced, signature, inputs, subject)

    def _on_weights(self, answer) -> Callable[..., Any]:
        """Return the function with the weights, if there are any, as its last arguments."""
        count = len(self._weights)
        if not count:
            return answer

        def explain(*tensors):
            with replaced_weights(self._model(), tensors[-count:]):
                return answer(*tensors[:-count])

        return explain

    def _explanation_function(self, maps_function, question) -> Callable[..., Any]:
        """Return the function from tensors to the explanation that a question asks for.

        Its arguments are the images, then the arrays of target and size, all flat: TensorFlow would need half
        a millisecond in every call to bind structures.
        """

        def explain(*tensors):
            images, target = question.unpack(tensors)
            signed: SignedMaps = maps_function(images, target)
            lengths = question.lengths(tensors)
            if question.size is not None and lengths is None and signed.image_axes is not None:
                lengths = signed.image_axes.lengths(images)
            fuse = (self.fuse or FUSIONS[0]) if self._several else None
            with tf.name_scope(FLOAT32_SCOPE):
                heatmap, heatmaps = draw_heatmaps(signed, question, lengths, fuse)
            signed_map = tuple(signed.maps) if self._several else signed.maps[0]
            index, outputs = signed.class_index, signed.outputs
            return Explanation(heatmap, signed_map, signed.score, index, outputs, heatmaps)

        return explain

    def _score_function(self, question) -> Callable[..., Explanation]:
        """Return the function from tensors to an explanation of the score only."""
        score = score_function(self._model(), self._preprocess)

        def explain(*tensors):
            value, index, outputs = score(*question.unpack(tensors))
            are_tensors = all(one is None or tf.is_tensor(one) for one in keras.tree.flatten(outputs))
            return Explanation(None, None, value, index, outputs if are_tensors else None, ())

        return explain

    def _advice(self, error, images) -> str | None:
        """Return the text for an error of the running graph; `None` if the error is not a known one."""
        if "`target` must" in error:
            return error[error.index("`target` must") :].partition("\n")[0]
        if OUT_OF_RANGE in error:
            return error[error.index(OUT_OF_RANGE) :].partition("]")[0] + " Received: NaN, or others."
        if "EnsureShape" in error and self._preprocess is not None:
            return f"`preprocess` must return what the model takes. Received: {error}"
        names = ", ".join(repr(layer_call.strong().layer.name) for layer_call in self.layer_calls)
        if ANSWER_COUNT in error:
            return (
                f"`target` must have a score with {ANSWER_COUNT}, or one for all of them. Received: a model "
                "or target that returns another number of rows for a batch, such as one for each patch or "
                "clip. Give a callable outputs -> (N,), one score for each image, or (1,) for all."
            )
        if ONE_MAP_PER_IMAGE in error:
            return (
                f"`layer` must return {ONE_MAP_PER_IMAGE}. Received: layer={names}, which returns more rows "
                "than there are images, such as one for each window of an image. Choose a layer before or "
                "after."
            )
        if PATCHES_COUNT in error:
            model = self._model()
            default = default_layer(model, None if self._has_graph else images).layer
            return (
                f"`layer` must have {PATCHES_COUNT}. Received: layer={names}. The score depends only on "
                "its class token, because no later layer mixes its tokens. "
                f"Choose a layer before: {layer_path(model, default)!r}, or layer=None."
            )
        return None

"""The explainer: images to heatmaps, in one compiled function."""

import copy
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam import methods, targets
from tf_gradcam._explain.frozen import WeightSnapshot, frozen_function
from tf_gradcam._explain.signed_maps import apply_preprocess, cast_to_specs, signed_maps_function
from tf_gradcam._heatmap import FUSIONS, INTERPOLATIONS, fuse_heatmaps, parse_size, to_heatmap
from tf_gradcam._methods import ONE_MAP_PER_IMAGE, PATCHES_COUNT, Method, is_classless, is_formula
from tf_gradcam._model import (
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
    is_built,
    layer_path,
    raw_image_specs,
    resolve_layers,
    specs_to_trace,
    structure_key,
)
from tf_gradcam._targets import (
    check_range,
    holds_callable,
    refers_to_dead_callable,
    target_arrays,
    to_rows,
    trace_key,
    with_arrays,
)

Layers = str | keras.Operation | Sequence[str | keras.Operation] | None


class Explanation(NamedTuple):
    """What a `GradCAM` answers: tensors, on the model's device.

    `(h, w)` stands for the layer's grid, `(H, W)` for the heatmap's size: one length for a signal, three for
    a volume or video. Where several scores are explained for each image, as `targets.Classes` asks for, each
    of the first four has an axis for them after the batch.

    Attributes:
        heatmap: `(N, H, W)` float32 in `[0, 1]`: ReLU of the map, resized, divided by its maximum; for
            several layers their heatmaps in one.
        map: `(N, h, w)` float32 (float64 where the model is), signed and unscaled, on the layer's own grid,
            or on the image where the method explains at the image; for several layers a tuple of them.
        score: `(N,)`, the score that was explained; for a class, its logit.
        target: `(N,)` int32, the class that was explained, or `None` where the target is no class.
        outputs: what the model returned.
        heatmaps: a tuple with the heatmap of each layer.
    """

    heatmap: tf.Tensor
    map: tf.Tensor | tuple[tf.Tensor, ...]
    score: tf.Tensor
    target: tf.Tensor | None
    outputs: Any
    heatmaps: tuple[tf.Tensor, ...]


class GradCAM:
    """Explain many images: compiled once, then reused for any class, batch size and image.

    Args:
        model: any `keras.Model`: functional, Sequential, nested or subclassed, with one input or several. Its
            weights are read at every call, so after further training the next map is new. Its structure is
            read once: a new layer at the top level is noticed, but make a new `GradCAM` after any other
            change.
        layer: the layer whose map is wanted: a name, a path (`"inner/conv"`), a `keras.Layer`, or a step of a
            functional model such as the `"add"` of `x + y`; or a list of them; or `None` for the last one
            that still has a map (the end of the convolutions, before any pooling; of a segmentation or
            detector, on its coarsest grid; of a vision transformer, where the patches still count). Several
            must look at one image, and their grids have as many axes.
        call: which run of a layer that runs several times, from 0: in the order of the inputs that they look
            at, and of those that look at the same, in the order of execution.
        method: a name in `tf_gradcam.methods.METHODS`, such as `"gradcam"`, `"hirescam"` or `"layercam"`; one
            with its parameters, `methods.scorecam(channels=64)`; or a callable
            `(activations, gradients) -> map`, `(N, h, w, K)` twice to `(N, h, w)`. Those that explain at the
            image itself, as `"gradient"`, take no `layer`; those without a class, as `"eigencam"`, no target.
        fuse: how the heatmaps of several layers become one, each scaled to `[0, 1]` first: `"mean"`
            (the default), `"max"`, `"layercam"`, the maximum after a tanh of those that are not from the
            coarsest grid (Jiang et al., "LayerCAM", 2021, equation 8), or `"refinecam"`, their product
            (RefineCAM, 2026, with `method="gradcam_plus_plus"`).
        preprocess: `images -> what the model takes`, traced into the compiled function, so that raw uint8
            photographs can go in. It gets them as float32, with their values as they are (0.0 to 255.0):
            what `keras.applications` calls `preprocess_input` is wrong on integer tensors.

    Raises:
        TypeError: if `model` is no `keras.Model`, or `layer` or `method` is of the wrong type.
        ValueError: if the model has no such layer or no layer with a map, if `call` or `fuse` makes no sense
            with it, or if Keras runs on another backend than TensorFlow.

    Example:

    ```python
    cam = tf_gradcam.GradCAM(model, preprocess=keras.applications.resnet.preprocess_input)
    explanation = cam(photographs)  # (N, H, W, 3) uint8
    explanation.heatmap  # (N, H, W) in [0, 1]
    ```
    """

    def __init__(
        self,
        model: keras.Model,
        layer: Layers = None,
        *,
        call: int | None = None,
        method: str | Method = "gradcam",
        fuse: str | None = None,
        preprocess: Callable[[Any], Any] | None = None,
    ):
        self.model = model
        self._explainer = _Explainer(model, layer, call, method, fuse, preprocess)
        self.call = call
        self.method = self._explainer.method
        self.fuse = fuse
        self.preprocess = preprocess

    @property
    def layer(self) -> keras.Operation | tuple[keras.Operation, ...] | None:
        """The layer that is explained, or a tuple of several.

        `None` while a model that was never called awaits its first image.
        """
        return self._explainer.layer

    @property
    def is_frozen(self) -> bool:
        """Whether this explainer came out of `freeze`."""
        return self._explainer.is_frozen

    def freeze(self) -> "GradCAM":
        """Return this explainer with the model's weights of this moment folded into its graph.

        It gives the same answers in less time than the model's forward pass takes: TensorFlow computes with
        constants once and for all, folds batch normalization into convolutions and fuses these with what
        follows. The first call with each kind of target, size and dtype takes seconds more, and TensorFlow
        keeps some nine copies of the weights for it (0.9 GB for a ResNet50): keep to one kind.

        After further training it refuses to answer: freeze this one again. Each call compares a sample of the
        head's weights and of two others by turns: what trains the head or loads all shows at once, any other
        change within as many calls as half the number of weights. In a `tf.function` it compares while that
        is traced.

        On a GPU, TensorFlow's layout optimizer made the frozen map of a layer in the middle differ by 0.3 %
        of its maximum: `tf.config.optimizer.set_experimental_options({"layout_optimizer": False})` mends it.

        Returns:
            A `GradCAM` of the same model, layer and method.

        Raises:
            ValueError: if the model was never called, or has 2 GiB of weights or more. At the first call, if
                it holds a table or a random generator.

        Example:

        ```python
        fast = tf_gradcam.GradCAM(model).freeze()
        for images in dataset:
            heatmaps = fast(images).heatmap
        ```
        """
        frozen = copy.copy(self)
        frozen._explainer = self._explainer.frozen()
        return frozen

    @tf.autograph.experimental.do_not_convert  # in a tf.function of the user's
    def __call__(
        self,
        images: Any,
        target: Any = None,
        *,
        size: str | int | Sequence[int] | None = "input",
        interpolation: str = "bilinear",
    ) -> Explanation:
        """Explain a batch of images.

        Args:
            images: `(N, H, W, C)`, or `(H, W, C)` for a batch of one; array or tensor of any real dtype, as
                the model takes it, or as `preprocess` does. For a model with several inputs, a list or dict
                of them, as the model takes it. To a model that was never called, three axes are one image, a
                list is a batch, and a tuple or dict is several inputs. Arrays are checked for NaN; tensors
                are not read back from their device.
            target: what to explain: `None` (each image's own predicted class; with a single sigmoid unit
                the side it falls on), an int, N ints, a target from `tf_gradcam.targets`, or any callable
                `outputs -> (N,)`, or `(N, M)` for M maps of each image, which gets just what the model
                returns. A callable is traced once: keep it, and use it again.
            size: `"input"` for the height and width of the image that the layer looks at (of several, the
                first with as many axes), `None` for the layer's own grid (of several, the finest), or
                `(height, width)` in pixels: one length for each axis of the grid.
            interpolation: a method of `tf.image.resize`. The papers use `"bilinear"`. The kernel matters on
                small objects: in a trial the peak of a 7x7 map fell on the object in 52 % of scenes with
                `"bilinear"`, 59 % `"bicubic"`, 64 % `"mitchellcubic"`, 69 % `"gaussian"`. What overshoots
                below 0 is cut off. To a size smaller than the layer's grid, only `"area"` overlooks nothing.

        Returns:
            An `Explanation` of tensors.

        Raises:
            TypeError: if `images` or `target` is of a type that can't be explained.
            ValueError: if the images have the wrong shape, hold NaN, or are none; if `target` is out of
                range, or isn't one for each image; if `size` or `interpolation` is unknown; if the score
                doesn't depend on the layer, or only on its class token.
        """
        return self._explainer.explain("images", images, target, size, interpolation)


class _Question(NamedTuple):
    """What is asked about images.

    Attributes:
        specs: of what the images are cast to, in the structure that the model takes.
        target: as `target_rows.per_image` returns it, or `None`.
        size: as `maps.checked_size` returns it.
        interpolation: a method of `tf.image.resize`.
    """

    specs: Any
    target: Any
    size: Any
    interpolation: str

    def numbers(self) -> list:
        return [] if self.target is None else target_arrays(self.target)

    def lengths(self) -> list[np.ndarray]:
        return [] if self.size is None or isinstance(self.size, str) else [self.size]

    def holds_callable(self) -> bool:
        return self.target is not None and holds_callable(self.target)

    def key(self, tensors) -> tuple:
        """Return what a trace is for: all of the question but the numbers in it, and the images' dtypes."""
        one = isinstance(self.specs, tf.TensorSpec)
        shapes = self.specs if one else repr(self.specs)
        images = tensors[:1] if one else tensors[: len(keras.tree.flatten(self.specs))]
        dtypes = tuple(each.dtype for each in images)
        kind = None if self.target is None else trace_key(self.target)
        size = self.size if isinstance(self.size, str) else np.shape(self.size)
        return shapes, dtypes, kind, size, self.interpolation


class _Explainer:
    """What both doors share. It keeps neither the model nor the layers alive."""

    def __init__(self, model, layer, call, method, fuse, preprocess=None):
        check_model(model)
        check_layer(layer, call)
        if preprocess is not None and not callable(preprocess):
            raise TypeError(f"`preprocess` must be a callable. Received: preprocess={preprocess!r}")
        self._model = weakref.ref(model)
        self._several = isinstance(layer, list | tuple)
        self._requested = [_weak(each) for each in layer] if self._several else _weak(layer)
        self._call = call
        self.method = methods.get(method)
        self._at_image = getattr(self.method, "at_image", False)
        if self._at_image and layer is not None:
            raise ValueError(
                f"`layer` must be None for a method that explains at the image itself. "
                f"Received: layer={layer!r} and method={method if isinstance(method, str) else _name(method)}"
            )
        self._fuse = _checked_fuse(fuse, layer)
        self._preprocess = preprocess
        self._takes_several = count_call_arguments(model) > 1
        self._parts = None
        self._weights = None  # those that are frozen into its traces
        if is_built(model) and declared_specs(model) is not None:
            self._compile()

    @property
    def layer(self):
        if self._parts is None or self._at_image:
            return None
        found = tuple(layer() for layer, _ in self._reads)
        return found if self._several else found[0]

    @property
    def is_frozen(self):
        return self._weights is not None

    def frozen(self):
        """Return an explainer with traces of its own, which hold the model's weights of now."""
        if self._parts is None:
            raise ValueError("`model` must be built to be frozen. Explain an image first, or call it on one.")
        frozen = copy.copy(self)
        frozen._traces = {}
        frozen._weights = WeightSnapshot(self._model())
        return frozen

    def _compile(self, images=None):
        model = self._model()
        asked = [_strong(each) for each in self._requested] if self._several else _strong(self._requested)
        reads = resolve_layers(model, asked, self._call, images)
        if self._at_image:  # Any run of the layer tells which image is meant.
            reads = [read._replace(call=read.call or 0) for read in reads]
        self._reads = [(weakref.ref(read.layer), read.call) for read in reads]
        self._explain_map = signed_maps_function(model, self._reads, self.method, self._preprocess)
        self._compiled_map = tf.function(self._explain_map, autograph=False)
        # Made once, as it takes its time.
        self._specs = declared_specs(model)
        self._has_graph = functional_graph(model) is not None
        self._names = getattr(functional_graph(model), "output_names", None)
        self._traces = {}
        self._parts = structure_key(model)  # last, as it tells other threads that all the rest is there

    def explain(self, name, images, target, size, interpolation, first_eagerly: bool = False) -> Explanation:
        if not _is_no_class(target) and is_classless(self.method):
            raise ValueError(
                f"`target` must be None for a method whose map is the same for every class. Received: "
                f"target={target!r:.80}"
            )
        if interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"`interpolation` must be one of {INTERPOLATIONS}. Received: interpolation={interpolation!r}"
            )
        size = parse_size(size)
        if self._weights is not None:
            self._weights.check()
        images = self._batch(name, images)
        flat = [images] if tf.is_tensor(images) else keras.tree.flatten(images)
        if target is not None:
            target = to_rows(target, flat[0].shape[0] or tf.shape(flat[0])[0], self._names)
        question = _Question(self._specs_to_trace(images), target, size, interpolation)
        check_images(name, images, question.specs)
        tensors = [*flat, *question.numbers(), *question.lengths()]
        if first_eagerly and not self._traces:
            self._keep(question.key(tensors), None)  # The next one is compiled.
            explanation = self._eagerly(question, tensors)
            if explanation is not None:
                return explanation
        return self._compiled(question, tensors, images)

    def _batch(self, name, images):
        """Return `images` as tensors; the first ones build the model, and a Sequential one may have grown."""
        known = self._specs if self._parts is not None else declared_specs(self._model())
        images = as_batch(name, images, known, self._takes_several)
        if self._parts is None or self._parts != structure_key(self._model()):
            if self._weights is not None:
                raise self._weights.changed()
            prepared = apply_preprocess(self._preprocess, images)
            if not is_built(self._model()):
                build_model(self._model(), cast_to_specs(prepared, specs_to_trace(self._model(), prepared)))
            self._compile(None if known is not None and self._parts is not None else prepared)
        return images

    def _specs_to_trace(self, images):
        """Return the shapes and dtypes to trace for: the model's own, or as open as `preprocess` needs."""
        if self._preprocess is not None:
            return raw_image_specs(images)
        return self._specs if self._has_graph else specs_to_trace(self._model(), images)

    def _compiled(self, question, tensors, images) -> Explanation:
        key = question.key(tensors)
        compiled = self._traces.get(key)
        if compiled is None:
            compiled = self._trace(question, tensors)
            self._keep(key, compiled)
        if question.target is not None:
            answer = compiled.structured_outputs
            check_range(question.target, answer.target, answer.outputs)
        try:
            return compiled(*tensors)
        except tf.errors.InvalidArgumentError as error:
            told = self._told(str(error), images)
            if told is None:
                raise
            raise ValueError(told) from error

    def _keep(self, key, compiled):
        """Keep a trace, or `None` for what ran once without, and drop those whose callable is no more."""
        traces = {key: each for key, each in self._traces.items() if not refers_to_dead_callable(key[2])}
        self._traces = {**traces, key: compiled}

    def _trace(self, question, tensors):
        """Return the compiled function for a question of this kind, traced with an open batch."""
        # Whatever the size or the images' dtype, the model is traced once for each kind of target. A callable
        # is no kind: it may have been made on the spot, and must then be free to go, trace and all.
        explain_map = self._explain_map if question.holds_callable() else self._compiled_map
        shapes = [spec.shape for spec in keras.tree.flatten(question.specs)]
        shapes += [[None, *each.shape[1:]] for each in question.numbers()]
        shapes += [each.shape for each in question.lengths()]
        signature = [tf.TensorSpec(shape, each.dtype) for shape, each in zip(shapes, tensors, strict=True)]
        function = self._answer(explain_map, question)
        concrete = tf.function(function, autograph=False).get_concrete_function(*signature)
        if self._weights is None:
            return concrete
        self._weights.note(concrete.variables)  # A layer may have some that Keras doesn't know.
        self._weights.check_all()  # All traces are of one moment.
        return frozen_function(concrete)

    def _answer(self, explain_map, question) -> Callable[..., Explanation]:
        """Return the function of tensors that answers a question.

        It takes the images, then the numbers in target and size, if any, all flat: to bind structures would
        take TensorFlow half a millisecond at every call.
        """
        specs, target, size, interpolation = question
        count, numbers = len(keras.tree.flatten(specs)), len(question.numbers())

        def answer(*tensors):
            images = keras.tree.pack_sequence_as(specs, tensors[:count])
            if target is None:  # The predicted classes have rows, too.
                goal = to_rows(None, tf.shape(tensors[0])[0])
            else:
                goal = with_arrays(target, tensors[count : count + numbers])
            signed_maps, score, index, outputs, places = explain_map(cast_to_specs(images, specs), goal)
            lengths = places if isinstance(size, str) else None if size is None else tensors[-1]
            _check_lengths(lengths, signed_maps[0], score, size)
            heatmap, heatmaps = self._heatmaps(signed_maps, score, lengths, interpolation)
            own_map = tuple(signed_maps) if self._several else signed_maps[0]
            return Explanation(heatmap, own_map, score, index, outputs, heatmaps)

        return answer

    def _eagerly(self, question, tensors) -> Explanation | None:
        """Return the answer without compiling, which is faster where it is wanted once.

        `None` where only a graph tells the logits, or what is wrong.
        """
        last = final_activation(self._model()) if is_formula(self.method) else None
        if last is None or question.holds_callable():
            return None
        # Eagerly, a convolution's gradient by its filters is computed, too: in vain, and with a 1x1 kernel of
        # stride 2 it ends the process (TensorFlow 2.21 on a CPU).
        if not all(ends_without_convolution(self._model(), layer()) for layer, _ in self._reads):
            return None
        try:
            explanation = self._answer(self._explain_map, question)(*tensors)
            if question.target is not None:
                check_range(question.target, explanation.target, explanation.outputs)
        except (ValueError, tf.errors.OpError):
            return None
        (output,) = keras.tree.flatten(explanation.outputs)
        is_noted = last is keras.activations.linear or hasattr(output, "_keras_logits")
        return explanation if is_noted else None

    def _heatmaps(self, signed_maps, score, lengths, interpolation):
        """Return the heatmap of all layers in one, and a tuple with that of each."""
        axes = score.shape.rank  # the batch, and that of several scores
        grids = [tf.shape(each)[axes:] for each in signed_maps]
        places = [tf.reduce_prod(grid) for grid in grids]
        if lengths is None and self._several:
            lengths = tf.gather(tf.stack(grids), tf.argmax(tf.stack(places)))
        heatmaps = []
        for signed_map, grid in zip(signed_maps, grids, strict=True):
            flat = tf.reshape(signed_map, tf.concat([[-1], grid], 0))
            heatmaps.append(to_heatmap(flat, lengths, interpolation))
        fused = fuse_heatmaps(heatmaps, places, self._fuse) if self._several else heatmaps[0]

        def unflat(heatmap):
            return tf.reshape(heatmap, tf.concat([tf.shape(score), tf.shape(heatmap)[1:]], 0))

        return unflat(fused), tuple(map(unflat, heatmaps))

    def _told(self, error, images) -> str | None:
        """Return what helps against a problem that only shows when the graph runs; `None` if unknown."""
        if "`target` must" in error:
            return error[error.index("`target` must") :].partition("\n")[0]
        if "EnsureShape" in error and self._preprocess is not None:
            return f"`preprocess` must return what the model takes. Received: {error}"
        names = ", ".join(repr(layer().name) for layer, _ in self._reads)
        if ONE_MAP_PER_IMAGE in error:
            return (
                f"`layer` must return {ONE_MAP_PER_IMAGE}. Received: layer={names}, which returns "
                "more rows than there are images, as windows of one are. Choose a layer before or after."
            )
        if PATCHES_COUNT in error:
            default = default_layer(self._model(), None if self._has_graph else images).layer
            path = layer_path(self._model(), default)
            return (
                f"`layer` must have {PATCHES_COUNT}. Received: layer={names}, of which only the "
                "class token counts, as nothing mixes the tokens after it. "
                f"Choose a layer before: {path!r}, or layer=None."
            )
        return None


def _name(method) -> str:
    return getattr(method, "__name__", type(method).__name__)


def _weak(layer):
    return weakref.ref(layer) if isinstance(layer, keras.Operation) else layer


def _strong(layer):
    if not isinstance(layer, weakref.ref):
        return layer
    if layer() is None:
        raise ValueError("`layer` must be a layer of the model. Received: a layer that is no more.")
    return layer()


def _checked_fuse(fuse, layer):
    several = isinstance(layer, list | tuple)
    if fuse is not None and (not isinstance(fuse, str) or fuse not in FUSIONS):
        raise ValueError(f"`fuse` must be one of {FUSIONS}. Received: fuse={fuse!r}")
    if fuse is not None and not several:
        raise ValueError(
            f"`fuse` must be left out where one layer is explained. Received: fuse={fuse!r}, and "
            f"layer={getattr(layer, 'name', layer)!r}. Give a list of layers."
        )
    return fuse or FUSIONS[0]


def _is_no_class(target) -> bool:
    """Whether `target` leaves the class open; which output is meant has to be said even then."""
    return target is None or (isinstance(target, targets.Output) and target.target is None)


def _check_lengths(lengths, signed_map, score, size) -> None:
    grid = signed_map.shape.rank - score.shape.rank
    if size is None:
        return
    if lengths is None:
        raise ValueError(
            f'`size` must be None or {grid} lengths. Received: size="input", but no input of the model has '
            f"the {grid} axes of the layer's grid."
        )
    if lengths.shape[0] not in (None, grid):
        raise ValueError(
            f"`size` must hold one length for each of the {grid} axes of the layer's grid. "
            f"Received: {lengths.shape[0]} lengths"
        )


# model -> {(layer, call, method, fuse, its parts): explainer}. Nothing of ours in it keeps a model alive.
_SHARED: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_MOST_SHARED = 64  # of a model, before the oldest goes: a method may have been made on the spot


def _shared(model, layer, call, method, fuse) -> _Explainer:
    """Return the explainer that all calls with this model, layer and method share."""
    check_model(model)
    check_layer(layer, call)
    _checked_fuse(fuse, layer)
    known = methods.get(method)
    try:
        hash(known)
    except TypeError as error:
        raise TypeError(f"`method` must be hashable if it is a callable. Received: {method!r:.80}") from error
    about = call, known, fuse, structure_key(model)
    explainers = _SHARED.setdefault(model, {})
    asked = tuple(map(_weak, layer)) if isinstance(layer, list | tuple) else _weak(layer)
    explainer = explainers.get((asked, *about))
    if explainer is None:
        explainer = _Explainer(model, layer, call, known, fuse)
        if isinstance(explainer.layer, keras.Operation):  # However it was named, one serves it.
            ((_, run),) = explainer._reads
            about_layer = _weak(explainer.layer), run, known, fuse, structure_key(model)
            explainer = explainers.setdefault(about_layer, explainer)
        explainers[asked, *about] = explainer
        while len(explainers) > _MOST_SHARED:
            explainers.pop(next(iter(explainers)))
    return explainer


def make_gradcam_heatmap(
    model: keras.Model,
    img: Any,
    layer: Layers = None,
    target: Any = None,
    *,
    call: int | None = None,
    method: str | Method = "gradcam",
    fuse: str | None = None,
    size: str | int | Sequence[int] | None = "input",
    interpolation: str = "bilinear",
) -> np.ndarray:
    """Show where a model saw the evidence for a class.

    The first call with a model, layer and method runs as it is where it can, as compiling takes seconds. The
    second one compiles; later ones take about as long as the model's forward pass, for any class, image and
    batch size. The compiled function goes when the model goes.

    Args:
        model: any `keras.Model`: functional, Sequential, nested or subclassed. A model that was never called
            is built by the image.
        img: one image `(H, W, C)` or `(1, H, W, C)`, or a batch `(N, H, W, C)`: array or tensor of any real
            dtype, preprocessed as the model takes it. For a model with several inputs a list or dict of them.
        layer: name, path (`"inner/conv"`), `keras.Layer`, a list of them, or `None` for the last layer that
            still has a map; see `GradCAM`.
        target: what to explain; see `GradCAM`. `None` is each image's own predicted class.
        call: which run of a layer that runs several times; see `GradCAM`.
        method: name or callable; see `GradCAM`. A callable that refers to the model keeps it alive.
        fuse: how the heatmaps of several layers become one; see `GradCAM`.
        size: `"input"`, `None` for the layer's own grid, or `(height, width)`; see `GradCAM`.
        interpolation: a method of `tf.image.resize`; see `GradCAM`.

    Returns:
        float32 array in `[0, 1]`: `(H, W)` for one image, `(N, H, W)` for a batch; of a signal `(T,)`, of a
        volume or video `(D, H, W)`; with `targets.Classes` one for each class before these axes. All zeros,
        with a warning, where nothing speaks for the target.

    Raises:
        TypeError, ValueError: as `GradCAM` does, and a `ValueError` where the model answers NaN.

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV 2017.

    Example:

    ```python
    heatmap = tf_gradcam.make_gradcam_heatmap(model, image, "top_conv")
    tf_gradcam.show(photograph, heatmap)
    ```
    """
    if isinstance(img, keras.Model) and not isinstance(model, keras.Model):
        raise TypeError("`model` comes first, then `img`. Received them swapped.")
    # The answer goes to the host, so the image may as well be checked there.
    img = _on_host(img)
    explainer = _shared(model, layer, call, method, fuse)
    explanation = explainer.explain("img", img, target, size, interpolation, first_eagerly=True)
    signed_maps = explanation.map if isinstance(explanation.map, tuple) else (explanation.map,)
    signed_maps = [each.numpy() for each in signed_maps]
    if not all(np.isfinite(each).all() for each in signed_maps):
        raise ValueError(
            "`model` answers NaN or infinity for `img`, or its gradients do: look for it in the weights, and "
            "for a target that is too large. There is no heatmap."
        )
    _warn_if_blank(signed_maps, explanation.score.shape, explanation.target, explainer.layer)
    heatmap = explanation.heatmap.numpy()
    return heatmap[0] if len(heatmap) == 1 else heatmap


def _on_host(img):
    if isinstance(img, dict):
        return {name: _on_host(each) for name, each in img.items()}
    if isinstance(img, list | tuple) and any(map(tf.is_tensor, img)):
        return type(img)(map(_on_host, img))
    if not tf.is_tensor(img):
        return img
    if not hasattr(img, "numpy"):
        raise ValueError("`img` must hold numbers. Received a symbolic one: use GradCAM in a tf.function.")
    return img.numpy()


def _warn_if_blank(signed_maps, shape, target, layer) -> None:
    rows = int(np.prod(shape))
    flat = [each.reshape(rows, -1) for each in signed_maps]
    blank = np.flatnonzero(np.max([each.max(axis=1) for each in flat], axis=0) <= 0)
    if len(blank) == 0:
        return
    first = blank[0]
    target = "the target" if target is None else f"class {target.numpy().ravel()[first]}"
    spoken = any(each[first].any() for each in flat)
    reason = "all of it speaks against" if spoken else "its gradients or activations are 0"
    names = [each.name for each in layer] if isinstance(layer, tuple) else getattr(layer, "name", None)
    where = "in it" if layer is None else f"at layer {names!r}"
    warnings.warn(
        f"Blank heatmap for {len(blank)} of {rows} images: in image {first * shape[0] // rows}, nothing "
        f"{where} speaks for {target}: {reason}. Try another layer, target or method; the signed map "
        "is GradCAM(model, layer)(images).map.",
        stacklevel=3,
    )

"""The explainer: images to heatmaps, in one compiled function."""

import inspect
import warnings
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam import layers, methods, targets
from tf_gradcam.methods import Method

_INTERPOLATIONS = [value for name, value in vars(tf.image.ResizeMethod).items() if name.isupper()]
_LARGEST_SIDE = 2**14  # of a heatmap, in pixels; beyond it one takes gigabytes


class Explanation(NamedTuple):
    """What a `GradCAM` answers: tensors, on the model's device.

    Attributes:
        heatmap: `(N, H, W)` float32 in `[0, 1]`: ReLU of the map, resized, divided by its maximum.
        map: `(N, h, w)` float32 (float64 where the model is), signed and unscaled, on the layer's own grid.
        score: `(N,)`, the score that was explained; for a class, its logit.
        target: `(N,)` int32, the class that was explained, or `None` where the target is no class.
        outputs: what the model returned.
    """

    heatmap: tf.Tensor
    map: tf.Tensor
    score: tf.Tensor
    target: tf.Tensor | None
    outputs: Any


class GradCAM:
    """Explain many images: compiled once, then reused for any class, batch size and image.

    Args:
        model: a `keras.Model` with one input: functional, Sequential, nested or subclassed. Its weights are
            read at every call, so after further training the next map is new. Its structure is read once: a
            new layer at the top level is noticed, but make a new `GradCAM` after any other change.
        layer: the layer whose map is wanted: a name, a path (`"inner/conv"`), a `keras.Layer`, or `None`
            for the last one that still has a map (the end of the convolutions, before any pooling).
        method: `"gradcam"`, `"hirescam"`, `"layercam"`, or a callable
            `(activations, gradients) -> map`, `(N, h, w, K)` twice to `(N, h, w)`.
        preprocess: `images -> what the model takes`, traced into the compiled function, so that raw uint8
            photographs can go in. It gets them as float32, with their values as they are (0.0 to 255.0):
            what `keras.applications` calls `preprocess_input` is wrong on integer tensors.

    Raises:
        TypeError: if `model` is no `keras.Model`, or `layer` or `method` is of the wrong type.
        ValueError: if the model has no such layer or no layer with a map, more than one input,
            `channels_first` layers, or if Keras runs on another backend than TensorFlow.

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
        layer: str | keras.Layer | None = None,
        *,
        method: str | Method = "gradcam",
        preprocess: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ):
        self.model = model
        self._explainer = _Explainer(model, layer, method, preprocess)

    @property
    def layer(self) -> keras.Layer | None:
        """The layer that is explained; `None` while a model that was never called awaits its first image."""
        return self._explainer.layer

    def __call__(
        self,
        images: Any,
        target: Any = None,
        *,
        size: str | tuple[int, int] | None = "input",
        interpolation: str = "bilinear",
    ) -> Explanation:
        """Explain a batch of images.

        Args:
            images: `(N, H, W, C)`, or `(H, W, C)` for a batch of one; array or tensor of any real dtype, as
                the model takes it, or as `preprocess` does. Arrays are checked for NaN; tensors are not
                read back from their device.
            target: what to explain: `None` (each image's own predicted class; with a single sigmoid unit
                the side it falls on), an int, N ints, a target from `tf_gradcam.targets`, or any callable
                `outputs -> (N,)`, which gets just what the model returns. A callable is traced once: keep
                it, and use it again.
            size: `"input"` for the images' height and width, `None` for the layer's own grid, or
                `(height, width)` in pixels.
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
                doesn't depend on the layer.
        """
        return self._explainer.explain("images", images, target, size, interpolation)


class _Explainer:
    """What both doors share. It keeps neither the model nor the layer alive."""

    def __init__(self, model, layer, method, preprocess=None):
        layers.check_model(model)
        layers.check_layer_type(layer)
        if preprocess is not None and not callable(preprocess):
            raise TypeError(f"`preprocess` must be a callable. Received: preprocess={preprocess!r}")
        self._model = weakref.ref(model)
        self._requested_layer = weakref.ref(layer) if isinstance(layer, keras.Layer) else lambda: layer
        self._formula = methods.get(method)
        self._preprocess = preprocess
        self._parts = None
        if layers.is_built(model):
            self._compile()

    @property
    def layer(self):
        return None if self._parts is None else self._layer()

    def _compile(self, images=None):
        model = self._model()
        self._layer = weakref.ref(layers.resolve_layer(model, self._requested_layer(), images))
        self._parts = layers.parts(model)
        self._explain_map = _explain_map(self._model, self._layer, self._formula, self._preprocess)
        self._compiled_map = tf.function(self._explain_map, autograph=False)
        # Made once, as it takes its time.
        self._model_spec = layers.input_spec(model) if getattr(model, "inputs", None) else None
        self._traces = {}

    def explain(self, name, images, target, size, interpolation) -> Explanation:
        images = _batch(name, images)
        size = _checked_size(size)
        if interpolation not in _INTERPOLATIONS:
            raise ValueError(
                f"`interpolation` must be one of {_INTERPOLATIONS}. Received: interpolation={interpolation!r}"
            )
        if target is not None:
            target = targets.per_image(target, images.shape[0] or tf.shape(images)[0])
        if self._parts is None:
            prepared = _preprocessed(self._preprocess, images)
            layers.build(self._model(), prepared)
            self._compile(prepared)
        elif self._parts != layers.parts(self._model()):  # as when a Sequential model gained a layer
            self._compile()
        spec = self._spec(images)
        _check_images(name, images, spec)
        key = spec, images.dtype, _kind(target), _kind(size), interpolation
        try:
            known = key in self._traces
        except TypeError as error:
            raise TypeError(
                f"`target` must be hashable if it is a callable. Received: {target!r:.80}. "
                "A dataclass is, when it is frozen."
            ) from error
        if not known:
            self._traces = {key: each for key, each in self._traces.items() if not _is_gone(key[2])}
            self._traces[key] = self._trace(spec, images.dtype, target, size, interpolation)
        compiled = self._traces[key]
        if target is not None:
            answer = compiled.structured_outputs
            targets.check_range(target, answer.target, answer.outputs)
        try:
            return compiled(images, *_data(target), *_data(size))
        except tf.errors.InvalidArgumentError as error:
            if "EnsureShape" not in str(error):
                raise
            raise ValueError(f"`preprocess` must return what the model takes. Received: {error}") from error

    def _spec(self, images) -> tf.TensorSpec:
        """Return the shape and dtype to trace for: the model's own, or as open as `preprocess` needs."""
        if self._preprocess is not None:
            return tf.TensorSpec([None, None, None, images.shape[-1]], tf.float32)
        return self._model_spec or layers.input_spec(self._model(), images)

    def _trace(self, spec, dtype, target, size, interpolation):
        """Return the function for arguments of this kind, traced with an open batch.

        It takes the images, then the numbers in `target` and `size`, if any, all flat: to bind structures
        would take TensorFlow half a millisecond at every call.
        """
        fields = len(_data(target))
        # Whatever the size or the images' dtype, the model is traced once for each kind of target. A callable
        # is no kind: it may have been made on the spot, and must then be free to go, trace and all.
        explain_map = self._explain_map if callable(target) else self._compiled_map

        @tf.function(autograph=False)
        def compiled(images, *data):
            goal = tf.nest.pack_sequence_as(target, data[:fields]) if fields else target
            goal = targets.per_image(goal, tf.shape(images)[0])  # rows for None: the predicted classes
            signed_map, score, index, outputs = explain_map(tf.cast(images, spec.dtype), goal)
            shape = tf.shape(images)[1:3] if isinstance(size, str) else None if size is None else data[-1]
            heatmap = _heatmap(signed_map, shape, interpolation)
            return Explanation(heatmap, signed_map, score, index, outputs)

        data = [tf.TensorSpec([None, *each.shape[1:]], each.dtype) for each in _data(target) + _data(size)]
        return compiled.get_concrete_function(tf.TensorSpec(spec.shape, dtype), *data)


def _explain_map(weak_model, weak_layer, formula, preprocess):
    """Return the function (images, target) -> (map, score, class index, outputs)."""

    def explain_map(images, target):
        model, layer = weak_model(), weak_layer()
        images = _preprocessed(preprocess, images)
        spec = layers.input_spec(model, images)
        if not spec.shape.is_compatible_with(images.shape):
            raise ValueError(
                f"`preprocess` must return what the model takes, {spec.shape}. Received: {images.shape}"
            )
        images = tf.ensure_shape(tf.cast(images, spec.dtype), spec.shape)
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            read = layers.forward(model, layer, images, tape.watch)
            layers.check_map(layer, read.activations)
            logits = None if callable(target) else layers.find_logits(read.outputs)
            score, index = targets.score(target, read.outputs, logits)
        gradients = _gradients(tape, score, read.activations)
        if gradients is None:
            raise ValueError(
                f"`layer` must be on the way to the score. Received: layer={layer.name!r}, on which the "
                "target's score doesn't depend. Choose a layer before the output that is explained."
            )
        signed_map = formula(tf.cast(read.activations, gradients.dtype), gradients)
        _check_map_shape(signed_map, read.activations)
        return signed_map, score, index, read.outputs

    return explain_map


def _gradients(tape, score, activations):
    """Return the gradients in float32, or float64; `None` if the score doesn't depend on the activations."""
    gradients = tape.gradient(score, activations)
    if gradients is None or gradients.dtype == tf.float64:
        return gradients
    gradients = tf.cast(gradients, tf.float32)
    if activations.dtype != tf.float16:
        return gradients
    # Spread over many places a gradient vanishes in float16, and scaled up another overflows.
    scaled = tape.gradient(score, activations, output_gradients=1024 * tf.ones_like(score))
    scaled = tf.cast(scaled, tf.float32) / 1024
    return tf.where(tf.math.is_finite(scaled), scaled, gradients)


def _check_map_shape(signed_map, activations):
    if signed_map.shape.rank != 3:
        raise ValueError(
            "`method` must return a map (N, h, w) from activations and gradients (N, h, w, K). "
            f"Received: {signed_map.shape} from {activations.shape}"
        )


def _preprocessed(preprocess, images):
    return images if preprocess is None else preprocess(tf.cast(images, tf.float32))


def _heatmap(signed_map, size, interpolation):
    """ReLU, resize, divide by the maximum, in this order. No evidence at all is 0, not 0/0."""
    heatmap = tf.nn.relu(tf.cast(signed_map, tf.float32))
    if size is not None:
        # Bicubic and its like overshoot below 0: hence the second ReLU.
        heatmap = tf.nn.relu(tf.image.resize(heatmap[..., None], size, interpolation)[..., 0])
    return tf.math.divide_no_nan(heatmap, tf.reduce_max(heatmap, axis=(1, 2), keepdims=True))


def _batch(name, images) -> tf.Tensor:
    """Return `images` as a tensor `(N, H, W, C)`; what is still on the host is checked for NaN."""
    if isinstance(images, keras.Layer):
        raise TypeError(f"`{name}` must be an image. Received a model: `model` and `{name}` are swapped.")
    if not tf.is_tensor(images):
        try:
            images = np.asarray(images)
        except ValueError as error:
            raise ValueError(f"`{name}` must be one array: images of one shape. Received: {error}") from error
        if images.dtype.name == "bfloat16":  # NumPy takes it for raw bytes
            images = images.astype(np.float32)
        if images.dtype.kind not in "fiub":
            raise TypeError(f"`{name}` must hold real numbers. Received: dtype {images.dtype}")
        if not np.isfinite(images).all():
            raise ValueError(f"`{name}` must be finite. Received NaN or infinity in it.")
        images = tf.convert_to_tensor(images)
    if not (images.dtype.is_floating or images.dtype.is_integer or images.dtype.is_bool):
        raise TypeError(f"`{name}` must hold real numbers. Received: dtype {images.dtype.name}")
    if images.shape.rank not in (3, 4):
        raise ValueError(
            f"`{name}` must be an image (H, W, C) or a batch (N, H, W, C). Received: shape {images.shape}"
        )
    if 0 in images.shape.as_list():
        raise ValueError(f"`{name}` must not be empty. Received: shape {images.shape}")
    return images if images.shape.rank == 4 else images[None]


def _check_images(name, images, spec) -> None:
    """Raise a `ValueError` unless the model, traced for `spec`, takes `images`."""
    if not spec.shape.is_compatible_with(images.shape):
        hint = "Resize it first: tf_gradcam.load_image(photograph, size=(height, width))."
        if spec.shape[-1] not in (None, images.shape[-1]):
            hint = f"It must have {spec.shape[-1]} channels, and they come last."
        raise ValueError(
            f"`{name}` must have the shape that the model takes, {spec.shape}. Received: {images.shape}. "
            f"{hint}"
        )
    fractions = spec.dtype.is_integer and images.dtype.is_floating and hasattr(images, "numpy")
    if fractions and np.any(images.numpy() % 1):
        raise ValueError(
            f"`{name}` must hold whole numbers, as the model takes {spec.dtype.name}. Received: fractions. "
            "Give the pixels as they are, 0 to 255."
        )


def _checked_size(size):
    """Return `"input"`, `None`, or height and width as an array: data, so that another never traces anew."""
    if size is None or (isinstance(size, str) and size == "input"):
        return size
    whole = np.shape(size) == (2,) and np.asarray(size).dtype.kind in "iu"
    if not whole or np.min(size) < 1 or np.max(size) > _LARGEST_SIDE:
        raise ValueError(
            f'`size` must be "input", None or (height, width) in pixels, up to {_LARGEST_SIDE}. '
            f"Received: size={size!r}"
        )
    return np.array(size, np.int32)


def _data(argument) -> list:
    """Return the numbers in an argument, which may change from call to call, as a flat list of arrays."""
    if argument is None or isinstance(argument, str) or callable(argument):
        return []
    return tf.nest.flatten(argument)


def _kind(argument):
    """Return what makes an argument trace anew: all of it but the numbers."""
    if argument is None or isinstance(argument, str):
        return argument
    if inspect.ismethod(argument):
        return weakref.WeakMethod(argument)
    if callable(argument):
        return weakref.ref(argument) if type(argument).__weakrefoffset__ else argument
    return type(argument), *((each.dtype, tuple(each.shape[1:])) for each in _data(argument))


def _is_gone(kind) -> bool:
    return isinstance(kind, weakref.ref) and kind() is None


# model -> {(its parts, layer, method): explainer}. Nothing of ours in it keeps a model alive.
_SHARED: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_MOST_SHARED = 64  # of a model, before the oldest goes: a method may have been made on the spot


def _shared(model, layer, method) -> _Explainer:
    """Return the explainer that all calls with this model, layer and method share."""
    layers.check_model_type(model)
    layers.check_layer_type(layer)
    formula = methods.get(method)
    if formula.__hash__ is None:
        raise TypeError(f"`method` must be hashable if it is a callable. Received: {method!r:.80}")
    parts = layers.parts(model)
    explainers = _SHARED.setdefault(model, {})
    key = parts, weakref.ref(layer) if isinstance(layer, keras.Layer) else layer, formula
    if key not in explainers:
        explainer = _Explainer(model, layer, formula)
        if explainer.layer is not None:  # However it was named, one serves it.
            explainer = explainers.setdefault((parts, weakref.ref(explainer.layer), formula), explainer)
        explainers[key] = explainer
        while len(explainers) > _MOST_SHARED:
            explainers.pop(next(iter(explainers)))
    return explainers[key]


def make_gradcam_heatmap(
    model: keras.Model,
    img: Any,
    layer: str | keras.Layer | None = None,
    target: Any = None,
    *,
    method: str | Method = "gradcam",
    size: str | tuple[int, int] | None = "input",
    interpolation: str = "bilinear",
) -> np.ndarray:
    """Show where a model saw the evidence for a class.

    The first call with a model, layer and method compiles; later ones take about as long as the model's
    forward pass, for any class, image and batch size. The compiled function goes when the model goes.

    Args:
        model: a `keras.Model` with one input: functional, Sequential, nested or subclassed. A model that was
            never called is built by the image.
        img: one image `(H, W, C)` or `(1, H, W, C)`, or a batch `(N, H, W, C)`: array or tensor of any real
            dtype, preprocessed as the model takes it.
        layer: name, path (`"inner/conv"`), `keras.Layer`, or `None` for the last layer that still has a map.
        target: what to explain; see `GradCAM`. `None` is each image's own predicted class.
        method: name or callable; see `GradCAM`. A callable that refers to the model keeps it alive.
        size: `"input"`, `None` for the layer's own grid, or `(height, width)`; see `GradCAM`.
        interpolation: a method of `tf.image.resize`; see `GradCAM`.

    Returns:
        float32 array in `[0, 1]`: `(H, W)` for one image, `(N, H, W)` for a batch. All zeros, with a warning,
        where nothing speaks for the target.

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
    if tf.is_tensor(img):
        if not hasattr(img, "numpy"):
            raise ValueError(
                "`img` must hold numbers. Received a symbolic one: use GradCAM in a tf.function."
            )
        img = img.numpy()  # The answer goes to the host, so the image may as well be checked there.
    explainer = _shared(model, layer, method)
    explanation = explainer.explain("img", img, target, size, interpolation)
    signed_map = explanation.map.numpy()
    if not np.isfinite(signed_map).all():
        raise ValueError(
            "`model` answers NaN or infinity for `img`, or its gradients do: look for it in the weights, and "
            "for a target that is too large. There is no heatmap."
        )
    _warn_if_blank(signed_map, explanation.target, explainer.layer)
    heatmap = explanation.heatmap.numpy()
    return heatmap[0] if len(heatmap) == 1 else heatmap


def _warn_if_blank(signed_map, target, layer) -> None:
    blank = np.flatnonzero(signed_map.max(axis=(1, 2)) <= 0)
    if len(blank) == 0:
        return
    first = blank[0]
    target = "the target" if target is None else f"class {target.numpy()[first]}"
    reason = "all of it speaks against" if signed_map[first].any() else "its gradients or activations are 0"
    warnings.warn(
        f"Blank heatmap for {len(blank)} of {len(signed_map)} images: in image {first}, nothing at layer "
        f"{layer.name!r} speaks for {target}: {reason}. Try another layer, target or method; the signed map "
        "is GradCAM(model, layer)(images).map.",
        stacklevel=3,
    )

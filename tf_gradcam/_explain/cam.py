"""The public API: `GradCAM`, an explainer that is compiled once. Users call it."""

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import keras
import tensorflow as tf

from tf_gradcam._explain.explainer import Explainer
from tf_gradcam._explain.precision_check import PrecisionCheck, compare_explanations
from tf_gradcam._explain.requested import Layers
from tf_gradcam._explain.sliding import SlidingExplanation, slide
from tf_gradcam._explanation import Explanation
from tf_gradcam._freezing import check_precision
from tf_gradcam._heatmap import Interpolation
from tf_gradcam._methods import Method, method_name

if TYPE_CHECKING:  # TensorFlow's decorator has no types, and would take those of what it decorates.
    from tf_gradcam.metrics import Trust

    _Function = TypeVar("_Function", bound=Callable)

    def _not_converted(function: _Function) -> _Function: ...

else:
    _not_converted = tf.autograph.experimental.do_not_convert


class GradCAM:
    """Explain many images: compiled once, then reused for any class, batch size and image.

    Args:
        model: any `keras.Model`: functional, Sequential, nested or subclassed, with one input or several. Its
            weights are read at every call, so the maps follow further training. Where anything else of it
            changes (new variables or layers, an activation, a dtype policy, LoRA, quantization, `adapt`), the
            next call traces it again.
        layer: the layer to explain: a name, a path (`"inner/conv"`), a `keras.Layer`, or an operation of a
            functional model such as the `"add"` of `x + y`; or a list of them; or `None` for the last layer
            with a map that all scores depend on (the end of the convolutions, before any pooling; for a
            segmentation or detector, on its coarsest grid; for a vision transformer, the last on whose
            patches the outputs depend). A warning names the layers of parallel branches beside it.
            Several layers must depend on one image, with grids of the same number of axes.
        call: number of the run of a layer that runs several times, from 0: in the order of the inputs on
            which the runs depend, and for runs on the same input in the order of execution. With `None` the
            layer must run once.
        method: a name in `tf_gradcam.methods.METHODS`, such as `"gradcam"`, `"hirescam"` or `"layercam"`; a
            method with parameters, `methods.scorecam(channels=64)`; or a callable
            `(activations, gradients) -> map`, `(N, h, w, K)` twice to `(N, h, w)`. Methods whose map lies on
            the image, such as `"gradient"`, read no layer: for them `layer` may name an input of the model,
            or be `None` for its image, the first with the most axes. Methods whose map is the same for every
            class, such as `"eigencam"`, take no target. A list has a method for each layer of a list.
            `"locate"` finds an object: Grad-CAM at the default layer times element-wise Grad-CAM at the last
            layer on a grid twice as fine, which it finds. It explains the log-odds of a class.
        fuse: how to fuse the heatmaps of several layers, each scaled to `[0, 1]` first: `"mean"` (the
            default), `"max"`, `"layercam"`, the maximum after a tanh of the heatmaps that are not from the
            coarsest grid (Jiang et al., "LayerCAM", 2021, equation 8), which leaves the peak where the
            coarsest heatmap has it, or `"refinecam"`, their product
            (RefineCAM, 2026; in a trial better with `"hirescam"` than with its `"gradcam_plus_plus"`).
        preprocess: function from images to the model's input, traced into the compiled function, so that it
            takes raw uint8 photographs. It gets them as float32 with unchanged values (0.0 to 255.0), because
            the `preprocess_input` functions of `keras.applications` are wrong on integer tensors.
        jit_compile: whether XLA compiles the explainer: faster on a GPU, mostly slower on a CPU. It compiles
            once for each batch size, image size, kind of target and heatmap size, which takes seconds to
            minutes, so keep these the same. The first call with each also runs without XLA, to check.

    Raises:
        TypeError: if `model` is not a `keras.Model`, or `layer`, `method` or `jit_compile` has the wrong
            type.
        ValueError: if the model has no such layer or no layer with a map, if `call` or `fuse` does not fit
            the layer, or if Keras does not run on the TensorFlow backend.

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
        method: str | Method | Sequence[str | Method] = "gradcam",
        fuse: str | None = None,
        preprocess: Callable[[Any], Any] | None = None,
        jit_compile: bool = False,
    ):
        self.model = model
        self._explainer = Explainer(model, layer, call, method, fuse, preprocess, jit_compile)
        self._float32 = self._explainer  # What a frozen one is compared with.
        self.call = call
        self.method = self._explainer.method
        self.fuse = self._explainer.fuse
        self.interpolation = self._explainer.interpolation
        self.preprocess = preprocess
        self.jit_compile = jit_compile

    def __repr__(self) -> str:
        """Return the model, layer, method and what else is set, in one line."""
        layer, method = self._explainer.layer_names, method_name(self.method)
        parts = [f"model={self.model.name!r}, layer={layer!r}, method={method!r}"]
        parts += [] if self.call is None else [f"call={self.call!r}"]
        parts += [] if self.fuse is None else [f"fuse={self.fuse!r}"]
        parts += ["jit_compile=True"] if self.jit_compile else []
        parts += ["frozen"] if self.is_frozen else []
        parts += [f"precision={self.precision!r}"] if self.precision is not None else []
        return f"GradCAM({', '.join(parts)})"

    def __copy__(self) -> "GradCAM":
        """Return another explainer that shares the compiled functions."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __reduce__(self) -> Any:
        """Refuse to be pickled: a compiled function can't be."""
        raise TypeError(
            "A GradCAM can't be pickled or copied deeply, because its compiled functions can't be. Give the "
            "other process the model's file, and make a GradCAM there: "
            "GradCAM(keras.models.load_model(path), layer)."
        )

    @property
    def layer(self) -> keras.Operation | tuple[keras.Operation, ...] | None:
        """The layer that is explained, or a tuple of several.

        `None` for a model that was never called, until the first image is explained.
        """
        return self._explainer.layer

    @property
    def is_frozen(self) -> bool:
        """True if `freeze` returned this explainer."""
        return self._explainer.is_frozen

    @property
    def precision(self) -> str | None:
        """The half precision in which `freeze` returned this explainer, or `None`."""
        return self._explainer.precision

    def freeze(self, precision: str | None = None) -> "GradCAM":
        """Return a copy of this explainer with the model's current weights folded into its graph.

        It returns the same results in less time than the model's forward pass takes: what depends on weights
        alone is computed once, batch normalization is folded into convolutions, and these are fused with the
        operations after them. The first call with each kind of target, size and dtype takes a second or two
        longer, half of it to trace the model. Each kind keeps the folded filters, and TensorFlow a copy of
        them in its own layout: 0.15 GB for a ResNet50. A model with loops, embeddings, or on a GPU keeps its
        weights as constants of the graph, of which TensorFlow makes more copies: use one kind there.

        After further training it raises an error: freeze the original explainer again. Each call looks
        whether the head's weights, and two other weights in turn, are still in the same place in memory; only
        where they are not, numbers are compared. Training of the head, or loading all weights, is detected at
        once; any other change within as many calls as half the number of weights. In a `tf.function` the
        weights are compared while it is traced. The explainer holds on to the weights of its moment: while it
        lives, a model that trains on needs memory for both.

        On a GPU, TensorFlow's layout optimizer changed the frozen map of a layer in the middle by 0.3 % of
        its maximum. To prevent it:
        `tf.config.optimizer.set_experimental_options({"layout_optimizer": False})`.

        Args:
            precision: `"bfloat16"` for a processor or GPU with instructions for it, or `"float16"` for a GPU:
                convolutions and matrix products are in half precision where that takes less time, with half
                the memory for their weights. Images go in and results come back as in float32; the last
                layer before the scores, softmax, maps and heatmaps are computed in float32. Heatmaps move
                by up to 0.04 on photographs (EfficientNet-Lite0): `check(images)` says how much on yours.

        Returns:
            A `GradCAM` for the same model, layer and method.

        Raises:
            TypeError: if `precision` is not a name.
            ValueError: if the model was never called, or has 2 GiB of weights or more; if this explainer is
                one of `with_weights`; if `precision` is unknown, or one in which this machine is not faster.
                At the first call, if it contains a table or a random generator, or has nothing that is faster
                in `precision`.

        Example:

        ```python
        fast = tf_gradcam.GradCAM(model).freeze()
        for images in dataset:
            heatmaps = fast(images).heatmap
        ```
        """
        check_precision(precision)
        frozen = self.__copy__()
        frozen._explainer = self._explainer.frozen(precision)
        return frozen

    def check(self, images: Any, target: Any = None) -> PrecisionCheck:
        """Compare this explainer in half precision with the same one in float32 on some images.

        Run it once on a few dozen of your own images before you use `freeze(precision=...)`. It explains them
        twice, all at once, and compares the heatmaps at the size of the images.

        Args:
            images: as `__call__` takes them.
            target: as `__call__` takes it.

        Returns:
            A `PrecisionCheck`: print it.

        Raises:
            TypeError, ValueError: as `__call__` does, and if this explainer is not in half precision.

        Example:

        ```python
        fast = cam.freeze(precision="bfloat16")
        print(fast.check(photographs))
        ```
        """
        if self.precision is None:
            raise ValueError(
                "`check` compares half precision with float32. Received: a GradCAM in float32. "
                'Call it on cam.freeze(precision="bfloat16").'
            )
        half = self._explainer.explain("images", images, target, "input", None)
        return compare_explanations(half, self._float32.explain("images", images, target, "input", None))

    def with_weights(self, weights: Sequence[Any]) -> "GradCAM":
        """Return a copy of this explainer that explains the model as if it had other weights.

        The model is not touched. It is for weights that are averaged over training, for those of several
        trainings, and for tests of what a heatmap owes to what was learned. All copies share one trace.

        Args:
            weights: an array for each of `model.weights`, in this order and of these shapes, as
                `model.get_weights()` returns them.

        Returns:
            A `GradCAM` for the same model, layer and method.

        Raises:
            ValueError: if the shapes are not those of the model, if the model was never called, or if this
                explainer is frozen.

        Example:

        ```python
        averaged = cam.with_weights([(a + b) / 2 for a, b in zip(first_weights, second_weights)])
        heatmaps = averaged(images).heatmap
        ```
        """
        changed = copy.copy(self)
        changed._explainer = changed._float32 = self._explainer.with_weights(weights)
        return changed

    @_not_converted
    def scores(self, images: Any, target: Any = None) -> tf.Tensor:
        """Return the score of a target for each image, by a forward pass without a heatmap.

        Args:
            images: as `__call__` takes them.
            target: as `__call__` takes it.

        Returns:
            The same as `score` of the explanation: `(N,)`, or `(N, M)` for M scores of each image.

        Raises:
            TypeError, ValueError: as `__call__` does.

        Example:

        ```python
        cam.scores(images, tf_gradcam.targets.Probability(281))
        ```
        """
        return self._explainer.score(images, target).score

    def trust(self, images: Any, target: Any = None, *, seed: int = 0, batch_size: int = 32) -> "Trust":
        """Measure in short how far the heatmaps can be trusted on these images.

        Two measures of faithfulness with two baselines each, whether maps change with the weights, and
        whether they change with the class, each with a sentence that says what it means and what it can't.
        See `tf_gradcam.metrics.trust`.

        Args:
            images: `(N, H, W, C)`, as `__call__` takes them; the model must take one input.
            target: a class, one for each image, or `None` for each image's own predicted class.
            seed: seed of everything that is drawn.
            batch_size: largest number of images in memory at once, besides `images`.

        Returns:
            A `tf_gradcam.metrics.Trust`: print it.

        Raises:
            ValueError: as `metrics.trust` does.

        Example:

        ```python
        print(cam.trust(photographs))
        ```
        """
        from tf_gradcam import metrics  # Late: it imports OpenCV.

        return metrics.trust(self, images, target, seed=seed, batch_size=batch_size)

    def sliding(
        self,
        image: Any,
        target: Any = None,
        *,
        window: int | Sequence[int] | None = None,
        overlap: float = 0.5,
        batch_size: int = 8,
        size: str | int | Sequence[int] | None = "input",
        interpolation: Interpolation | None = None,
    ) -> SlidingExplanation:
        """Explain one image larger than the model by windows, of which only a few are in memory.

        The signed maps of the windows are joined to one, which is scaled once, at the end.

        Args:
            image: one image `(*axes, C)` without a batch axis: an array, a `numpy.memmap`, an HDF5 or Zarr
                array, a `formats.Scan`, or anything with `shape`, `dtype` and slicing. Nodata of a `Scan` is
                its `fill` for the model, and 0 in the heatmap. Where the image is shorter than a window, 0 is
                added at the end.
            target: what to explain in every window: a class, or a target that names one; `None` for a method
                that takes no target.
            window: lengths of a window, one for each axis or one for all; `None` for what the model takes.
            overlap: part of a window that the next one shares, in `[0, 1)`; more where the grid asks for it.
            batch_size: number of windows that are explained at once.
            size: size of the heatmap; `"input"` for the image's, `None` for the joined grid's.
            interpolation: see `__call__`.

        Returns:
            A `SlidingExplanation` of NumPy arrays.

        Raises:
            TypeError, ValueError: as `__call__` does, and if the model has several inputs, if `target` is one
                for each image or each window's own class, or if `window` is missing or not what it takes.
        """
        is_raw = self.preprocess is not None
        options = (window, overlap, batch_size, size, interpolation, is_raw)
        return slide(self._explainer, self.model, image, target, *options)

    @_not_converted  # Users may call it in a tf.function.
    def __call__(
        self,
        images: Any,
        target: Any = None,
        *,
        size: str | int | Sequence[int] | None = "input",
        interpolation: Interpolation | None = None,
        signed: bool = False,
    ) -> Explanation:
        """Explain a batch of images.

        Args:
            images: `(N, H, W, C)`, or `(H, W, C)` for a batch of one; array or tensor of any real dtype, as
                the model or `preprocess` takes it. For a model with several inputs, a list or dict of arrays,
                as the model takes it. For a model that was never called, three axes are one image, a list is
                a batch, and a tuple or dict is several inputs. Values are not rescaled: for raw pixels give a
                `preprocess`, unless the model rescales them. Arrays are checked for NaN; tensors are not
                copied from their device: an image of a tensor with NaN or infinity is answered by NaN.
            target: what to explain: `None` (each image's own predicted class; for a single sigmoid unit the
                predicted side), an int, N ints, a target from `tf_gradcam.targets`, or any callable
                `outputs -> (N,)`, or `(N, M)` for M maps of each image, which is called with the model's
                outputs. A callable is traced once: keep it, and use it again. The predicted class is not
                what you mean for CTC, ordinal heads, detectors and regressions: see `tf_gradcam.targets`.
                With dropout at inference, each image gets its own: a batch of copies shows the spread.
            size: `"input"` for the height and width of the image on which the layer depends (of several
                images, the first with as many axes as the grid), `None` for the layer's grid (of several
                layers, the finest), or `(height, width)` in pixels: one length for each axis of the grid.
                Where `preprocess` or the model crops, pads or flips the image, the heatmap lies where the
                pixels came from, and is 0 where they were cropped away.
            interpolation: a method of `tf.image.resize`, or `("gaussian", cells)`, a Gaussian with a standard
                deviation in cells of the grid. By default `"bilinear"`, as in the papers; for `"locate"` 0.8
                cells. The kernel matters for small objects: in a trial the peak of a 7x7 map was on the
                object in 52 % of scenes with `"bilinear"`, 59 % `"bicubic"`, 69 % `"gaussian"`, 80 % with
                `("gaussian", 0.8)`. Overshoot below 0 is set to 0. For a size smaller than the layer's grid,
                only `"area"` and `("gaussian", cells)` use all values.
            signed: whether `heatmap` keeps what speaks against the target: the map resized and divided by
                its largest absolute value, in `[-1, 1]`. For one layer.

        Returns:
            An `Explanation` of tensors.

        Raises:
            TypeError: if `images` or `target` has a type that is not supported.
            ValueError: if the images have the wrong shape, contain NaN, or are empty; if `target` is out of
                range, or is not one for each image; if `size` or `interpolation` is unknown; if the score
                does not depend on the layer, or only on its class token.
        """
        return self._explainer.explain("images", images, target, size, interpolation, signed=signed)

"""The two doors: `GradCAM`, a reusable explainer, and `make_gradcam_heatmap`, one call for one heatmap."""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._explain.explainer import Explainer, Layers
from tf_gradcam._explain.explanation import Explanation
from tf_gradcam._explain.shared import shared_explainer
from tf_gradcam._methods import Method, method_name


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
        self._explainer = Explainer(model, layer, call, method, fuse, preprocess)
        self.call = call
        self.method = self._explainer.method
        self.fuse = fuse
        self.preprocess = preprocess

    def __repr__(self) -> str:
        """Return model, layer, method and whether it is frozen, in one line."""
        model, layer = self.model, self.layer
        names = [each.name for each in layer] if isinstance(layer, tuple) else getattr(layer, "name", None)
        frozen = ", frozen" if self.is_frozen else ""
        method = method_name(self.method)
        return f"GradCAM(model={model.name!r}, layer={names!r}, method={method!r}{frozen})"

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
    explainer = shared_explainer(model, layer, call, method, fuse)
    explanation = explainer.explain("img", img, target, size, interpolation, first_eagerly=True)
    maps = explanation.map if isinstance(explanation.map, tuple) else (explanation.map,)
    signed_maps = [each.numpy() for each in maps]
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

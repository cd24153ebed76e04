"""Images and a target to the signed map of each layer, in the graph: `signed_maps_function`.

The explainer traces it. A map is computed in one of three ways: in closed form for all classes at once, by a
formula of activations and gradients, or by a method with `explain(scene)`.
"""

import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_gradcam._graph import Placement, is_dense_head, is_probability, mean_poolings
from tf_gradcam._methods import (
    Method,
    SceneContext,
    SourceImage,
    apply_method,
    gradcam,
    hirescam,
    is_at_image,
    is_formula,
    make_scene,
    takes_all_scores,
    takes_gradients,
)
from tf_gradcam._model import (
    ForwardPass,
    WeakLayerCall,
    check_gradient,
    find_logits,
    forward,
    not_on_path_error,
    specs_to_trace,
    tape_gradients,
    to_grid,
)
from tf_gradcam._signed_maps.answers import is_one_answer, score_answers
from tf_gradcam._signed_maps.image_source import find_input, image_source
from tf_gradcam._signed_maps.not_finite import not_finite, with_nan
from tf_gradcam._signed_maps.placed import find_placements, find_strides
from tf_gradcam._signed_maps.preprocess import apply_preprocess, check_preprocessed
from tf_gradcam._signed_maps.several_scores import check_map, maps_of_scores, scores_second
from tf_gradcam._signed_maps.tapped import ImageAxes, TappedLayer, find_source, image_axes, tapped_layer
from tf_gradcam._targets import class_logits, log_odds, pick, pin_choices, taken_for_logits
from tf_gradcam._tensors import at_least_float32


class SignedMaps(NamedTuple):
    """The signed maps of a batch, with score and outputs.

    Attributes:
        maps: signed map of each layer, `(N, *grid)`, or `(N, M, *grid)` for M scores of each image.
        score: `(N,)` or `(N, M)`; one row for a model with one answer for all images.
        class_index: class that the score belongs to, int32 of the shape of `score`, or `None`.
        outputs: outputs of the model, or `None` if they are not only tensors.
        image_axes: the axes of the image on which the layers depend, or `None` if there is none.
        nan: NaN for each image that is not finite, else 0, `(N,)`; `None` if the images are whole numbers.
        placements: where each map lies on that image, `None` for one that lies on all of it.
        strides: for each layer the pixels between two cells, `(axes,)`, or `None` where not known.
    """

    maps: list[tf.Tensor]
    score: tf.Tensor
    class_index: tf.Tensor | None
    outputs: Any
    image_axes: ImageAxes | None
    nan: tf.Tensor | None
    placements: list[Placement | None]
    strides: list[tf.Tensor | None]


class _Pass(NamedTuple):
    """One forward pass of the model with its score, and the tape that recorded it."""

    model: keras.Model
    images: Any
    tapped: list[TappedLayer]
    source: SourceImage | None
    outputs: Any
    logits: Any
    target: Any
    score: tf.Tensor
    class_index: tf.Tensor | None
    tape: tf.GradientTape

    @property
    def batch(self) -> tf.Tensor:
        """An input with a row for each image."""
        return keras.tree.flatten(self.images)[0]


def signed_maps_function(
    model: keras.Model,
    layer_calls: Sequence[WeakLayerCall],
    methods: Sequence[Method],
    preprocess: Callable | None,
    requested_input: Any = None,
    contrast: bool = False,
) -> Callable[[Any, Any], SignedMaps]:
    """Return the function from images and a target to signed maps, one method for each layer.

    It holds only weak references to the model and the layers. For a method at the image there are no layers,
    and `requested_input` may name the input that is explained. With `contrast` a class of a softmax is
    explained by its log-odds, against all others.
    """
    weak_model = weakref.ref(model)

    def signed_maps(images, target):
        images_as_taken = apply_preprocess(preprocess, images)
        passed = _forward_pass(weak_model(), layer_calls, images_as_taken, target, contrast)
        if is_at_image(methods[0]):
            model = passed.model
            position = find_input(model, passed.images, requested_input, methods[0])
            passed = passed._replace(source=image_source(model, passed.images, passed.score, position))
        maps = _maps_in_closed_form(passed, methods)
        if maps is None:
            are_formulas = all(map(is_formula, methods))
            maps = (_maps_by_formula if are_formulas else _maps_by_scene)(passed, methods)
        are_tensors = all(one is None or tf.is_tensor(one) for one in keras.tree.flatten(passed.outputs))
        # A map on a video may have more axes than the grid.
        axes = maps[0].shape.rank - passed.score.shape.rank
        channels_first = bool(layer_calls) and layer_calls[0].channels_first
        of_image = image_axes(images, passed.source, axes, channels_first)
        nan = None  # In eager mode the images are arrays, which have been checked.
        if not tf.executing_eagerly():
            nan = not_finite(passed.images, is_one_answer(passed.score, passed.batch))
        outputs = (
            keras.tree.map_structure(lambda output: with_nan(output, nan), passed.outputs)
            if are_tensors
            else None
        )
        of_one_score = [one if passed.score.shape.rank == 1 else one[:, 0] for one in maps]
        placements = find_placements(images, passed.source, passed.tapped, methods, of_one_score)
        maps, score = [with_nan(one, nan) for one in maps], with_nan(passed.score, nan)
        strides = find_strides(images, passed.source, passed.tapped)
        return SignedMaps(maps, score, passed.class_index, outputs, of_image, nan, placements, strides)

    return signed_maps


def score_function(model: keras.Model, preprocess: Callable | None) -> Callable[[Any, Any], tuple]:
    """Return the function from images and a target to scores, class indices and outputs: a forward pass.

    It holds only a weak reference to the model.
    """
    weak_model = weakref.ref(model)

    def score(images, target):
        passed = _forward_pass(weak_model(), [], apply_preprocess(preprocess, images), target)
        nan = not_finite(passed.images, is_one_answer(passed.score, keras.tree.flatten(passed.images)[0]))
        return with_nan(passed.score, nan), passed.class_index, passed.outputs

    return score


def _forward_pass(model, layer_calls, images, target, contrast=False) -> _Pass:
    images = check_preprocessed(images, specs_to_trace(model, images))
    calls = [layer_call.strong() for layer_call in layer_calls]
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        activations, outputs = forward(model, images, calls, tape.watch)
        logits = find_logits(outputs)
        target, score, index = score_answers(target, outputs, logits, keras.tree.flatten(images)[0])
        if contrast:
            score = log_odds(target, outputs, logits, score, index)
    if any(map(is_probability, taken_for_logits(target, outputs, logits))):
        _warn_of_probability(model.name)
    tapped = [tapped_layer(model, images, *pair) for pair in zip(calls, activations, strict=True)]
    source = find_source(images, tapped) if tapped else None
    return _Pass(model, images, tapped, source, outputs, logits, target, score, index, tape)


def _warn_of_probability(name) -> None:
    warnings.warn(
        f"A probability is explained, not a logit: the output of model {name!r} lies between 0 and 1, but "
        "does not end in one softmax or sigmoid; it may be the mean of several. The map of a probability "
        "fades where the model is sure, and a single unit has no side 0. To explain a logit, end the model "
        "in a softmax or sigmoid, or without one. To explain the output as it is, give as `target` a Value "
        "or a callable outputs -> (N,).",
        stacklevel=2,
    )


def _maps_in_closed_form(passed, methods) -> list[tf.Tensor] | None:
    """Return the map of each class if pooling and a dense layer follow the layer; else `None`."""
    if passed.score.shape.rank != 2 or len(passed.tapped) != 1 or methods[0] not in (gradcam, hirescam):
        return None
    logits = class_logits(passed.target, passed.outputs, passed.logits)
    pooled = None if logits is None else _mean_before_dense_head(passed.tapped[0], logits)
    if pooled is None:
        return None
    every_class = _class_activation_maps(passed, pooled, logits)
    return [pick(every_class, passed.class_index)]


def _mean_before_dense_head(tapped, logits) -> tf.Tensor | None:
    """Return the mean over the grid, if a dense head depends on the layer only by this mean; else `None`."""
    if tf.executing_eagerly():
        return None
    grid = tapped.grid
    first = 2 if grid.channels_first else 1
    means = mean_poolings(tapped.activations, logits, range(first, first + len(grid.shape)))
    return means[0] if len(means) == 1 and is_dense_head(means[0], logits) else None


def _class_activation_maps(passed, pooled, logits) -> tf.Tensor:
    """Return the map of every class, `(N, classes, *grid)`.

    Z times Grad-CAM at a position is the output of the head for that position alone, without the bias. This
    is one pass for all classes, instead of one backward pass for each.

    Source: Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016.
    """
    (tapped,) = passed.tapped
    on_grid = to_grid(check_gradient(tapped.activations, passed.batch, tapped.grid), tapped.grid)
    count, *lengths, channels = tf.unstack(tf.shape(on_grid))
    positions = tf.transpose(tf.reshape(on_grid, [count, -1, channels]), [1, 0, 2])
    # The backward pass is linear in its seed: the gradient by the seed is the head without the bias.
    seed = tf.zeros_like(logits)
    (backward,) = tf.gradients(logits, [pooled], seed)

    def head(position):
        given = tf.cast(tf.reshape(position, tf.shape(pooled)), pooled.dtype)
        return tf.gradients(backward, [seed], given)[0]

    scores = tf.vectorized_map(head, positions)  # (positions, N, classes)
    maps = tf.transpose(scores, [1, 2, 0]) / tf.cast(tf.shape(positions)[0], scores.dtype)
    return tf.reshape(maps, [count, logits.shape[-1], *lengths])


def _maps_by_formula(passed, formulas) -> list[tf.Tensor]:
    """Return the map of each layer, `(N, *grid)`, or `(N, M, *grid)` for a score `(N, M)`."""
    on_grid = [tapped.on_grid() for tapped in passed.tapped]

    def maps_for(seed):
        gradients = _gradients(passed, seed) if any(map(takes_gradients, formulas)) else on_grid
        maps = [
            formula(*pair) if takes_gradients(formula) else formula(pair[0])
            for formula, *pair in zip(formulas, on_grid, gradients, strict=True)
        ]
        for signed_map, activations in zip(maps, on_grid, strict=True):
            check_map(signed_map, [activations])
        return maps

    score = passed.score
    if score.shape.rank == 1:
        return maps_for(tf.ones_like(score))
    several = maps_of_scores(score, passed.tapped, formulas, passed.batch)
    if several is not None:
        return several
    # One backward pass for each score, with one forward pass. A loop, because there may be many scores.
    stacked = tf.map_fn(
        lambda seed: maps_for(tf.broadcast_to(seed, tf.shape(score))),
        tf.eye(tf.shape(score)[1], dtype=score.dtype),
        fn_output_signature=[activations.dtype for activations in on_grid],
    )
    return [scores_second(maps) for maps in stacked]


def _gradients(passed, seed) -> list[tf.Tensor]:
    """Return the gradients of the score, weighted by `seed`, with respect to each layer, on its grid."""
    activations = [tapped.activations for tapped in passed.tapped]
    gradients = tape_gradients(passed.tape, passed.score, activations, seed)
    on_grid = []
    for tapped, gradient in zip(passed.tapped, gradients, strict=True):
        if gradient is None:
            raise not_on_path_error(tapped.name)
        on_grid.append(to_grid(check_gradient(gradient, passed.batch, tapped.grid), tapped.grid))
    return on_grid


def _maps_by_scene(passed, methods) -> list[tf.Tensor]:
    """Return the map of each layer, `(N, ...)`, or `(N, M, ...)` for a score `(N, M)`."""
    target = pin_choices(passed.target, passed.outputs, passed.logits)
    if is_at_image(methods[0]):
        return [_map_by_scene(passed, methods[0], target, None)]
    maps = []
    for tapped, method in zip(passed.tapped, methods, strict=True):
        if passed.source is None:
            raise ValueError(
                "`method` must be a formula (activations, gradients) -> map if no input of the model has "
                f"the {len(tapped.grid.shape)} axes of the layer's grid. Received: method={method!r}"
            )
        maps.append(_map_by_scene(passed, method, target, tapped))
    return maps


def _map_by_scene(passed, method, target, tapped):
    """Return the map of one layer, or for `None` that of a method at the image."""
    layer_call, activations, grid = (None, None, None) if tapped is None else tapped
    context = SceneContext(passed.model, layer_call, grid, passed.images, passed.source, target)
    context = context._replace(one_answer=is_one_answer(passed.score, passed.batch))
    if passed.score.shape.rank == 1 or takes_all_scores(method):
        own_pass = ForwardPass([] if tapped is None else [activations], passed.outputs)
        return _map_of_scene(method, context, own_pass)
    dtype = at_least_float32(passed.source.image if tapped is None else activations).dtype
    return _map_of_each_score(method, context, tf.shape(passed.score)[1], dtype)


def _map_of_scene(method, context, own_pass):
    scene = make_scene(context, context.images, own_pass, context.target)
    signed_map = apply_method(method, scene)
    check_map(signed_map, [scene.activations, scene.image], scene.score)
    return signed_map


def _map_of_each_score(method, context, count, dtype):
    def map_of(column):
        # A loop cannot differentiate tensors from outside of it: each score needs a forward pass.
        images = keras.tree.map_structure(tf.identity, context.images)
        own_pass = forward(context.model, images, context.layer_calls)
        signed_map = _map_of_scene(method, context._replace(images=images, column=column), own_pass)
        return tf.cast(signed_map, dtype)

    columns = tf.range(count)
    return scores_second(tf.map_fn(map_of, columns, fn_output_signature=dtype, parallel_iterations=1))

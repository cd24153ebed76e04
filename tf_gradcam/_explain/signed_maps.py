"""In the graph: images and a target to the signed map of each layer, by one forward and one backward pass."""

import weakref

import keras
import tensorflow as tf

from tf_gradcam._methods import (
    SceneContext,
    SourceImage,
    check_gradient,
    gradcam,
    hirescam,
    is_formula,
    make_scene,
    not_on_path_error,
    takes_gradients,
    undo_scaling,
)
from tf_gradcam._model import (
    ForwardPass,
    Grid,
    LayerCall,
    activation_grid,
    ancestors,
    are_channels_first,
    find_logits,
    forward,
    is_channels_first,
    is_dense_head,
    maps_from_trial,
    mean_poolings,
    spatial_lengths,
    specs_to_trace,
    to_grid,
    trace_trial,
)
from tf_gradcam._targets import class_logits, pin_choices, score_target
from tf_gradcam._tensors import at_least_float32


def signed_maps_function(model, reads, method, preprocess):
    """Return the function (images, target) -> (maps, score, class index, outputs, the images' lengths)."""
    weak_model = weakref.ref(model)
    first = are_channels_first(model, [layer() for layer, _ in reads])

    def explain(images, target):
        model = weak_model()
        prepared = apply_preprocess(preprocess, images)
        prepared = _as_the_model_takes(prepared, specs_to_trace(model, prepared))
        asked = [LayerCall(layer(), call) for layer, call in reads]
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            read = forward(model, prepared, asked, tape.watch)
            logits = find_logits(read.outputs)
            score, index = score_target(target, read.outputs, logits)
        grids = [
            require_grid(model, each.layer, activations, prepared, channels_first)
            for each, activations, channels_first in zip(asked, read.activations, first, strict=True)
        ]
        names = [each.layer.name for each in asked]
        source = find_source(prepared, read.activations, grids, names, first)
        classes = class_logits(target, read.outputs, logits) if score.shape.rank == 2 else None
        pooled = None if classes is None else _pooled(method, read.activations, grids, classes)
        if pooled is not None:
            every_class = _cam(
                check_gradient(read.activations[0], score, grids[0]), grids[0], pooled, classes
            )
            signed_maps = [tf.gather(every_class, index, axis=1, batch_dims=1)]
        elif is_formula(method):
            signed_maps = _signed_maps(tape, score, read.activations, grids, names, method)
        else:
            target = pin_choices(target, read.outputs, logits)
            stages = [
                SceneContext(model, *each, prepared, source, target)
                for each in zip(asked, grids, strict=True)
            ]
            signed_maps = [
                _explained(method, stage, ForwardPass([activations], read.outputs), score)
                for stage, activations in zip(stages, read.activations, strict=True)
            ]
        shown = all(each is None or tf.is_tensor(each) for each in keras.tree.flatten(read.outputs))
        outputs = read.outputs if shown else None
        axes = signed_maps[0].shape.rank - score.shape.rank  # more than the grid's for a map on a video
        return signed_maps, score, index, outputs, source_lengths(images, source, axes, first[0])

    return explain


def apply_preprocess(preprocess, images):
    if preprocess is None:
        return images
    return preprocess(keras.tree.map_structure(lambda image: tf.cast(image, tf.float32), images))


def cast_to_specs(images, specs):
    return keras.tree.map_structure(lambda spec, image: tf.cast(image, spec.dtype), specs, images)


def _as_the_model_takes(images, specs):
    """Return `images`, checked against `specs`: a `preprocess` may have returned anything."""

    def checked(spec, image):
        if not spec.shape.is_compatible_with(image.shape):
            raise ValueError(
                f"`preprocess` must return what the model takes, {spec.shape}. Received: {image.shape}"
            )
        return tf.ensure_shape(tf.cast(image, spec.dtype), spec.shape)

    return keras.tree.map_structure(checked, specs, images)


def require_grid(model, layer, activations, images, channels_first) -> Grid:
    grid = activation_grid(activations, keras.tree.flatten(images), channels_first)
    if grid is None and activations.shape.rank == 3:
        # The number of tokens may be lost with the batch's; a trial run, which has a batch, tells it.
        trial = trace_trial(model, specs_to_trace(model, images))
        grids = {id(each.info.layer): each.grid for each in maps_from_trial(model, trial)}
        grid = grids.get(id(layer))
    if grid is None:
        raise ValueError(
            "`layer` must return a map (N, h, w, K) with more than one position, or the tokens of an image's "
            f"patches. Received: layer={layer.name!r}, which returns {activations.shape}. Choose a layer "
            "before it, or layer=None for the last that has a map."
        )
    return grid


def find_source(images, activations, grids, names, channels_first) -> SourceImage | None:
    """Return the image that the layers look at, or `None` where there is none.

    Of several inputs it is the first on the way to a layer that has as many axes as the layer's grid.
    """
    images = keras.tree.flatten(images)
    sources = []
    for each, grid, first in zip(activations, grids, channels_first, strict=True):
        axes = len(grid.shape)
        # Eagerly nothing tells the way, and there is one image.
        way = None if tf.executing_eagerly() else ancestors([each])
        lengths = [
            spatial_lengths(image, axes, first) if way is None or image.op in way else None
            for image in images
        ]
        sources.append(next((place for place, found in enumerate(lengths) if found is not None), None))
    alike = all(len(grid.shape) == len(grids[0].shape) for grid in grids)
    if not alike or any(source != sources[0] for source in sources):
        raise ValueError(
            "`layer` must name layers that look at one image, on grids with as many axes. Received: "
            f"{names} with grids {[grid.shape for grid in grids]}. Explain them one by one."
        )
    if sources[0] is None:
        return None
    image, axes = images[sources[0]], len(grids[0].shape)
    first = is_channels_first(image.shape, unknown=channels_first[0])
    return SourceImage(sources[0], image, first, image.shape.rank > axes + 1)


def source_lengths(images, source, axes, channels_first) -> tf.Tensor | None:
    """Return the last lengths of the image that a layer looks at, also before it was preprocessed."""
    if source is None:
        return None
    return spatial_lengths(keras.tree.flatten(images)[source.position], axes, channels_first)


def _pooled(method, activations, grids, logits) -> tf.Tensor | None:
    """Return the mean over the layer's places, if that is all of the layer that a dense head takes."""
    if method not in (gradcam, hirescam) or len(grids) > 1 or tf.executing_eagerly():
        return None
    (activations,), (grid,) = activations, grids
    first = 2 if grid.channels_first else 1
    means = mean_poolings(activations, logits, range(first, first + len(grid.shape)))
    return means[0] if len(means) == 1 and is_dense_head(means[0], logits) else None


def _cam(activations, grid, pooled, logits) -> tf.Tensor:
    """Return the map of every class, `(N, classes, *grid)`.

    Z times Grad-CAM at a place is what the head answers to that place alone, less the bias: one pass for all
    classes, instead of one back for each. Source: Zhou et al., "Learning Deep Features for Discriminative
    Localization", CVPR 2016.
    """
    on_grid = to_grid(activations, grid)
    count, *lengths, channels = tf.unstack(tf.shape(on_grid))
    places = tf.transpose(tf.reshape(on_grid, [count, -1, channels]), [1, 0, 2])
    # The way back is linear in what comes in at its end; the way back through that is the head without bias.
    seed = tf.zeros_like(logits)
    (back,) = tf.gradients(logits, [pooled], seed)

    def head(place):
        return tf.gradients(back, [seed], tf.reshape(place, tf.shape(pooled)))[0]

    answers = tf.vectorized_map(head, places)  # (places, N, classes)
    shares = tf.transpose(answers, [1, 2, 0]) / tf.cast(tf.shape(places)[0], answers.dtype)
    return tf.reshape(shares, [count, logits.shape[-1], *lengths])


def _explained(method, stage, passed, score) -> tf.Tensor:
    """Return the map of one layer by a method that looks at scenes: `(N, ...)`, or `(N, M, ...)`."""
    if stage.source is None:
        raise ValueError(
            "`method` must be a formula (activations, gradients) -> map where no input of the model has the "
            f"{len(stage.grid.shape)} axes of the layer's grid. Received: method={method!r}"
        )

    def one(stage, passed):
        seen = make_scene(stage, stage.images, passed, stage.target)
        signed_map = method.explain(seen)
        _check_map(signed_map, [seen.activations, seen.image])
        return signed_map

    def column(number):
        # What was computed outside of a loop can't be differentiated in it: hence a pass for each.
        images = keras.tree.map_structure(tf.identity, stage.images)
        passed = forward(stage.model, images, [stage.read])
        return tf.cast(one(stage._replace(images=images, column=number), passed), dtype)

    dtype = at_least_float32(passed.activations[0]).dtype
    if score.shape.rank == 1:
        return one(stage, passed)
    columns = tf.range(tf.shape(score)[1])
    found = tf.map_fn(column, columns, fn_output_signature=dtype, parallel_iterations=1)
    return tf.transpose(found, [1, 0, *range(2, found.shape.rank)])


def _signed_maps(tape, score, activations, grids, names, formula) -> list[tf.Tensor]:
    """Return the map of each layer, `(N, *grid)`, or `(N, M, *grid)` for a score `(N, M)`."""
    on_grid = [to_grid(at_least_float32(each), grid) for each, grid in zip(activations, grids, strict=True)]

    def one(seed):
        if not takes_gradients(formula):
            found = [formula(values) for values in on_grid]
        else:
            gradients = _gradients(tape, score, activations, seed, names)
            gradients = [
                to_grid(check_gradient(gradient, score, grid), grid)
                for gradient, grid in zip(gradients, grids, strict=True)
            ]
            found = [formula(*pair) for pair in zip(on_grid, gradients, strict=True)]
        for signed_map, values in zip(found, on_grid, strict=True):
            _check_map(signed_map, [values])
        return found

    if score.shape.rank == 1:
        return one(tf.ones_like(score))
    seeds = tf.eye(tf.shape(score)[1], dtype=score.dtype)
    # One backward pass for each score, all through the one forward pass: a loop, as there may be many.
    found = tf.map_fn(
        lambda seed: one(tf.broadcast_to(seed, tf.shape(score))),
        seeds,
        fn_output_signature=[each.dtype for each in on_grid],
    )
    return [tf.transpose(each, [1, 0, *range(2, each.shape.rank)]) for each in found]


def _gradients(tape, score, activations, seed, names) -> list[tf.Tensor]:
    """Return the gradients of `score`, weighed by `seed`, in float32, or float64 where the layer is."""
    gradients = tape.gradient(score, activations, seed)
    if None in gradients:
        raise not_on_path_error(names[gradients.index(None)])
    if not any(each.dtype == tf.float16 for each in activations):
        return [at_least_float32(each) for each in gradients]
    scaled = tape.gradient(score, activations, 1024 * seed)
    return [undo_scaling(*pair) for pair in zip(gradients, scaled, strict=True)]


def _check_map(signed_map, sources):
    if signed_map.shape.rank not in [source.shape.rank - 1 for source in sources]:
        raise ValueError(
            "`method` must return a map (N, h, w) from activations and gradients (N, h, w, K). "
            f"Received: {signed_map.shape} from {sources[0].shape}"
        )

"""In the graph: images and a target to the signed map of each layer, by one forward and one backward pass."""

import weakref

import keras
import tensorflow as tf

from tf_gradcam import inputs, layers, maps, targets
from tf_gradcam.forward import Read, ancestors, find_logits, forward

# What an error of the running graph is known by.
ONE_MAP_PER_IMAGE = "one map for each image"
PATCHES_COUNT = "patches that the score depends on"


def explain_map(model, reads, formula, preprocess):
    """Return the function (images, target) -> (maps, score, class index, outputs, the images' lengths)."""
    weak_model = weakref.ref(model)
    first = layers.are_channels_first(model, [layer() for layer, _ in reads])

    def explain(images, target):
        model = weak_model()
        prepared = preprocessed(preprocess, images)
        prepared = _as_the_model_takes(prepared, inputs.specs_for(model, prepared))
        asked = [Read(layer(), call) for layer, call in reads]
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            read = forward(model, prepared, asked, tape.watch)
            score, index = targets.score(target, read.outputs, find_logits(read.outputs))
        grids = [
            _grid(model, each.layer, activations, prepared, channels_first)
            for each, activations, channels_first in zip(asked, read.activations, first, strict=True)
        ]
        names = [each.layer.name for each in asked]
        places = _places(images, read.activations, grids, names, first)
        signed_maps = _signed_maps(tape, score, read.activations, grids, names, formula)
        shown = all(each is None or tf.is_tensor(each) for each in keras.tree.flatten(read.outputs))
        return signed_maps, score, index, read.outputs if shown else None, places

    return explain


def preprocessed(preprocess, images):
    if preprocess is None:
        return images
    return preprocess(keras.tree.map_structure(lambda image: tf.cast(image, tf.float32), images))


def cast(images, specs):
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


def _grid(model, layer, activations, images, channels_first) -> maps.Grid:
    grid = layers.grid_of(activations, keras.tree.flatten(images), channels_first)
    if grid is None and activations.shape.rank == 3:
        # The number of tokens may be lost with the batch's; a trial run, which has a batch, tells it.
        trial = layers.run_trial(model, inputs.specs_for(model, images))
        grids = {id(each.info.layer): each.grid for each in layers.maps_of_trial(model, trial)}
        grid = grids.get(id(layer))
    if grid is None:
        raise ValueError(
            "`layer` must return a map (N, h, w, K) with more than one position, or the tokens of an image's "
            f"patches. Received: layer={layer.name!r}, which returns {activations.shape}. Choose a layer "
            "before it, or layer=None for the last that has a map."
        )
    return grid


def _places(images, activations, grids, names, channels_first):
    """Return the lengths of the image that the layers look at, or `None` where there is none.

    Of several inputs it is the first on the way to a layer that has as many axes as the layer's grid.
    """
    sources = []
    for each, grid, first in zip(activations, grids, channels_first, strict=True):
        way = ancestors([each])
        seen = [image for image in keras.tree.flatten(images) if image.op in way]
        lengths = [maps.places(image, len(grid.shape), first) for image in seen]
        sources.append(next((pair for pair in zip(seen, lengths, strict=True) if pair[1] is not None), None))
    image, lengths = sources[0] or (None, None)
    alike = all(len(grid.shape) == len(grids[0].shape) for grid in grids)
    if not alike or any((source or (None,))[0] is not image for source in sources):
        raise ValueError(
            "`layer` must name layers that look at one image, on grids with as many axes. Received: "
            f"{names} with grids {[grid.shape for grid in grids]}. Explain them one by one."
        )
    return lengths


def _signed_maps(tape, score, activations, grids, names, formula) -> list[tf.Tensor]:
    """Return the map of each layer, `(N, *grid)`, or `(N, M, *grid)` for a score `(N, M)`."""
    on_grid = [maps.to_grid(targets.wide(each), grid) for each, grid in zip(activations, grids, strict=True)]

    def one(seed):
        gradients = _gradients(tape, score, activations, seed, names)
        found = []
        for gradient, values, grid in zip(gradients, on_grid, grids, strict=True):
            gradient = _checked(gradient, score, grid)
            found.append(formula(values, maps.to_grid(gradient, grid)))
            _check_map_shape(found[-1], values)
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
        lost = names[gradients.index(None)]
        raise ValueError(
            f"`layer` must be on the way to the score. Received: layer={lost!r}, on which the target's score "
            "doesn't depend. Choose a layer before the output that is explained."
        )
    if not any(each.dtype == tf.float16 for each in activations):
        return [targets.wide(each) for each in gradients]
    # Spread over many places a gradient vanishes in float16, and scaled up another overflows.
    scaled = tape.gradient(score, activations, 1024 * seed)
    return [_unscaled(*pair) for pair in zip(gradients, scaled, strict=True)]


def _unscaled(gradient, scaled):
    if gradient.dtype != tf.float16:
        return targets.wide(gradient)
    scaled = targets.wide(scaled) / 1024
    return tf.where(tf.math.is_finite(scaled), scaled, targets.wide(gradient))


def _checked(gradient, score, grid) -> tf.Tensor:
    """Return `gradient`, with a complaint in the graph for what only its values can tell."""
    rows, images = tf.shape(gradient)[0], tf.shape(score)[0]
    complaints = [tf.debugging.assert_equal(rows, images, ONE_MAP_PER_IMAGE)]
    if grid.extra:
        counts = tf.reduce_any(maps.to_grid(gradient, grid) != 0)
        complaints.append(tf.debugging.Assert(counts | tf.reduce_all(gradient == 0), [PATCHES_COUNT]))
    with tf.control_dependencies([each for each in complaints if each is not None]):
        return tf.identity(gradient)


def _check_map_shape(signed_map, activations):
    if signed_map.shape.rank != activations.shape.rank - 1:
        raise ValueError(
            "`method` must return a map (N, h, w) from activations and gradients (N, h, w, K). "
            f"Received: {signed_map.shape} from {activations.shape}"
        )
